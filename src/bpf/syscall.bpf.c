/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * System calls: counted by process and number, or single ones with their arguments.
 *
 * Both ends are needed for the time, and both are a tax on every system call of the machine: out of scope it is the
 * scope check.
 */
#include "summary.bpf.h"

STK_EXPORT(stk_syscall);
STK_EXPORT(stk_syscall_key);
STK_EXPORT(stk_syscall_sum);

enum {
	STK_SYSCALLS = 1024, /* numbers by which calls are chosen */
};

struct stk_call {
	__u64 time_ns;
	__u32 nr;
	__u32 abi;
};

/* The call that each thread is in. LRU: a thread that is killed inside a call never comes out of it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct stk_call);
} stk_calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct stk_syscall_key);
	__type(value, struct stk_syscall_sum);
} stk_syscall_sums SEC(".maps");

/* Calls of which events are wanted: by number, those of 32-bit programs behind the others. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * STK_SYSCALLS);
	__type(key, __u32);
	__type(value, __u8);
} stk_syscalls_chosen SEC(".maps");

static __always_inline bool chosen(__u32 nr, __u32 abi)
{
	__u32 index = abi * STK_SYSCALLS + nr;
	__u8 *yes;

	if (nr >= STK_SYSCALLS)
		return false;
	yes = bpf_map_lookup_elem(&stk_syscalls_chosen, &index);
	return yes && *yes;
}

static __always_inline void count(struct stk_call *call, __u64 time_ns, bool failed)
{
	struct stk_syscall_sum zero = {}, *sum;
	struct stk_syscall_key key;

	stk_current_key(&key.task);
	key.nr = call->nr;
	key.abi = call->abi;
	sum = stk_counters(&stk_syscall_sums, &key, &zero, STK_KIND_SYSCALL);
	if (!sum)
		return;
	__sync_fetch_and_add(&sum->calls, 1);
	if (failed)
		__sync_fetch_and_add(&sum->errors, 1);
	/* Adding a constant 0 becomes an atomic or, which 5.10 does not have. */
	if (time_ns)
		__sync_fetch_and_add(&sum->time_ns, time_ns);
}

/* The calls that do not return: exit and exit_group. */
static __always_inline bool never_returns(__u32 nr, __u32 abi)
{
	if (abi == STK_ABI_COMPAT)
		return nr == STK_NR_COMPAT_exit || nr == STK_NR_COMPAT_exit_group;
	return nr == STK_NR_exit || nr == STK_NR_exit_group;
}

static __always_inline bool begin(struct stk_call *call, struct pt_regs *regs, long nr)
{
	if (!stk_wanted())
		return false;
	call->time_ns = bpf_ktime_get_ns();
	call->nr = nr;
	call->abi = stk_compat(regs) ? STK_ABI_COMPAT : STK_ABI_NATIVE;
	return true;
}

static __always_inline bool end(struct stk_call *call)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_call *begun = bpf_map_lookup_elem(&stk_calls, &tid);

	/* Nothing begun: out of scope, or a new thread's return from the call that made it. */
	if (!begun)
		return false;
	*call = *begun;
	bpf_map_delete_elem(&stk_calls, &tid);
	return true;
}

static __always_inline int remember(struct stk_call *call)
{
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&stk_calls, &tid, call, BPF_ANY);
	return 0;
}

static __always_inline int on_count_enter(struct pt_regs *regs, long nr)
{
	struct stk_call call;

	if (!begin(&call, regs, nr))
		return 0;
	if (never_returns(call.nr, call.abi)) {
		count(&call, 0, false);
		return 0;
	}
	return remember(&call);
}

static __always_inline int on_count_exit(long result)
{
	struct stk_call call;

	if (end(&call))
		count(&call, bpf_ktime_get_ns() - call.time_ns, STK_IS_ERR(result));
	return 0;
}

/*
 * Sends a call that was chosen. The arguments are read when it has returned: the registers still hold them, except the
 * first of an execve that succeeded.
 */
static __always_inline void send(struct pt_regs *regs, struct stk_call *call, __u64 duration_ns,
				 long result)
{
	struct stk_syscall *rec;
	__u64 wake;

	if (stk_config.filter & STK_FILTER_ERRORS && !STK_IS_ERR(result))
		return;
	if (duration_ns < stk_config.min_latency_ns)
		return;
	rec = stk_reserve(STK_KIND_SYSCALL, NULL, sizeof(*rec), &wake);
	if (!rec)
		return;
	stk_header(&rec->hdr, STK_KIND_SYSCALL, sizeof(*rec));
	stk_syscall_args(rec->args, regs, call->abi == STK_ABI_COMPAT);
	rec->result = result;
	rec->duration_ns = duration_ns;
	rec->nr = call->nr;
	rec->abi = call->abi;
	bpf_ringbuf_submit(rec, wake);
}

static __always_inline int on_enter(struct pt_regs *regs, long nr)
{
	struct stk_call call;

	if (!begin(&call, regs, nr) || !chosen(call.nr, call.abi))
		return 0;
	if (never_returns(call.nr, call.abi)) {
		send(regs, &call, 0, 0);
		return 0;
	}
	return remember(&call);
}

static __always_inline int on_exit(struct pt_regs *regs, long result)
{
	struct stk_call call;

	if (end(&call))
		send(regs, &call, bpf_ktime_get_ns() - call.time_ns, result);
	return 0;
}

SEC("?raw_tp/sys_enter")
int BPF_PROG(syscall_count_enter__raw_tp, struct pt_regs *regs, long nr)
{
	return on_count_enter(regs, nr);
}

SEC("?raw_tp/sys_exit")
int BPF_PROG(syscall_count_exit__raw_tp, struct pt_regs *regs, long result)
{
	return on_count_exit(result);
}

SEC("?raw_tp/sys_enter")
int BPF_PROG(syscall_enter__raw_tp, struct pt_regs *regs, long nr)
{
	return on_enter(regs, nr);
}

SEC("?raw_tp/sys_exit")
int BPF_PROG(syscall_exit__raw_tp, struct pt_regs *regs, long result)
{
	return on_exit(regs, result);
}

/* Where programs on raw tracepoints can be preempted, and then miss the calls of others: classic ones cannot. */

SEC("?tp/raw_syscalls/sys_enter")
int syscall_count_enter__tp(struct trace_event_raw_sys_enter *ctx)
{
	return on_count_enter(stk_regs(), ctx->id);
}

SEC("?tp/raw_syscalls/sys_exit")
int syscall_count_exit__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_count_exit(ctx->ret);
}

SEC("?tp/raw_syscalls/sys_enter")
int syscall_enter__tp(struct trace_event_raw_sys_enter *ctx)
{
	return on_enter(stk_regs(), ctx->id);
}

SEC("?tp/raw_syscalls/sys_exit")
int syscall_exit__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_exit(stk_regs(), ctx->ret);
}
