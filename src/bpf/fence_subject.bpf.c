// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Keeps programs apart that rules tell apart: who is held runs one of them, and nobody else who is held speaks through it.
 *
 * Nobody debugs a process of another program, reads or writes its memory or takes its descriptors. Who is debugged does not
 * become another program. Nobody says of himself that he runs another one, which prctl(2) would let him.
 */
#include "attempt.bpf.h"
#include "subject.bpf.h"

/* include/uapi/linux/prctl.h */
#define PR_SET_MM          35
#define PR_SET_MM_EXE_FILE 13
#define PR_SET_MM_MAP      14
/* No descriptor: what the monitor asks for to see it refused. */
#define NO_FD -1UL

/* Of somebody who is held, while rules that are enforced name programs. */
static __always_inline int refuse(struct stk_armed *armed, __u32 at)
{
	if (!(armed->flags & STK_ARMED_APART) || !stk_wanted())
		return 0;
	attempted(at, STK_RULE_GUARD);
	return -EPERM;
}

static __always_inline int on_trace(struct task_struct *child, unsigned int mode)
{
	struct stk_armed *armed = armed_now();
	__u64 self = bpf_get_current_task();

	if (!armed || !(mode & STK_PTRACE_MODE_ATTACH))
		return 0;
	if (program_of(self, armed->half) == program_of(stk_number(child), armed->half))
		return 0;
	return refuse(armed, STK_GUARD_PROGRAM_TRACE);
}

static __always_inline int on_exec(struct linux_binprm *bprm)
{
	struct task_struct *self = (struct task_struct *)bpf_get_current_task();
	struct stk_armed *armed = armed_now();
	__u64 inode;

	if (!armed || !BPF_CORE_READ(self, ptrace))
		return 0;
	inode = (__u64)BPF_CORE_READ(bprm, file, f_inode);
	if (program_at(inode, armed->half) == program_of((__u64)self, armed->half))
		return 0;
	return refuse(armed, STK_GUARD_PROGRAM_EXEC);
}

static __always_inline int on_prctl(int option, unsigned long what, unsigned long with)
{
	struct stk_armed *armed;

	if (option != PR_SET_MM || (what != PR_SET_MM_EXE_FILE && what != PR_SET_MM_MAP))
		return 0;
	armed = armed_now();
	if (!armed)
		return 0;
	if (!is_self())
		return refuse(armed, STK_GUARD_PROGRAM_CLAIM);
	if (what != PR_SET_MM_EXE_FILE || with != NO_FD)
		return 0;
	attempted(STK_GUARD_PROGRAM_CLAIM, STK_RULE_CANARY);
	return -EPERM;
}

SEC("?lsm/ptrace_access_check")
int BPF_PROG(fence_subject_trace__lsm, struct task_struct *child, unsigned int mode, int ret)
{
	return VERDICT(on_trace(child, mode));
}

SEC("?fmod_ret/security_ptrace_access_check")
int BPF_PROG(fence_subject_trace__fmod_ret, struct task_struct *child, unsigned int mode, int ret)
{
	return VERDICT(on_trace(child, mode));
}

SEC("?lsm/bprm_check_security")
int BPF_PROG(fence_subject_exec__lsm, struct linux_binprm *bprm, int ret)
{
	return VERDICT(on_exec(bprm));
}

SEC("?fmod_ret/security_bprm_check")
int BPF_PROG(fence_subject_exec__fmod_ret, struct linux_binprm *bprm, int ret)
{
	return VERDICT(on_exec(bprm));
}

SEC("?lsm/task_prctl")
int BPF_PROG(fence_subject_prctl__lsm, int option, unsigned long what, unsigned long with,
	     unsigned long arg4, unsigned long arg5, int ret)
{
	return VERDICT(on_prctl(option, what, with));
}

SEC("?fmod_ret/security_task_prctl")
int BPF_PROG(fence_subject_prctl__fmod_ret, int option, unsigned long what, unsigned long with,
	     unsigned long arg4, unsigned long arg5, int ret)
{
	return VERDICT(on_prctl(option, what, with));
}
