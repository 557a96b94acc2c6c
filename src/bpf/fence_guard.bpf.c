// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Keeps who is held from the fence itself: from its maps, from the names by which it outlives its monitor, and from the
 * monitor. Whoever else has the rights can go on as before.
 */
#include "attempt.bpf.h"

/* The numbers of the maps of this fence. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_GUARDED_MAPS);
	__type(key, __u32);
	__type(value, __u8);
} stk_guarded SEC(".maps");

/* The device of the file system in which it is pinned, as the kernel has it; 0 where it is not. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stk_guard_pins SEC(".maps");

/* Of somebody who is held, while a policy is in force. */
static __always_inline int refuse(__u32 at)
{
	if (!armed_now() || !stk_wanted())
		return 0;
	attempted(at, STK_RULE_GUARD);
	return -EPERM;
}

/* Who gets a descriptor by which a map can be written: by its number, or by its name. */
static __always_inline int on_map(struct bpf_map *map, __u32 mode)
{
	__u32 id = BPF_CORE_READ(map, id);
	__u8 *guarded = bpf_map_lookup_elem(&stk_guarded, &id);

	if (!guarded || !(mode & STK_FMODE_WRITE))
		return 0;
	if (*guarded != STK_GUARDED_CANARY || !is_self())
		return refuse(STK_GUARD_MAP);
	if (!armed_now())
		return 0;
	attempted(STK_GUARD_MAP, STK_RULE_CANARY);
	return -EPERM;
}

static __always_inline bool is_pinned_at(struct super_block *sb)
{
	__u32 zero = 0, *dev = bpf_map_lookup_elem(&stk_guard_pins, &zero);

	return dev && *dev && STK_GET(super_block, sb, s_dev) == *dev;
}

static __always_inline int on_name(struct inode *dir)
{
	return is_pinned_at(STK_GET(inode, dir, i_sb)) ? refuse(STK_GUARD_PIN) : 0;
}

static __always_inline int on_umount(struct vfsmount *mnt)
{
	return is_pinned_at(STK_GET(vfsmount, mnt, mnt_sb)) ? refuse(STK_GUARD_MOUNT) : 0;
}

/* Whether this is a thread of the monitor, and not of whoever has been given its id. */
static __always_inline bool is_monitor(struct task_struct *task)
{
	if (STK_GET(task_struct, task, tgid) != (int)stk_config.self_tgid)
		return false;
	return STK_GET(task_struct, task, group_leader, start_boottime) == stk_config.self_start_ns;
}

/* Signal 0 only asks whether it is there. */
static __always_inline int on_signal(struct task_struct *to, int signal)
{
	return signal && is_monitor(to) ? refuse(STK_GUARD_MONITOR_SIGNAL) : 0;
}

/* Memory and descriptors; what ps(1) reads is not meant. */
static __always_inline int on_trace(struct task_struct *child, unsigned int mode)
{
	if (!(mode & STK_PTRACE_MODE_ATTACH) || !is_monitor(child))
		return 0;
	return refuse(STK_GUARD_MONITOR_TRACE);
}

SEC("?lsm/bpf_map")
int BPF_PROG(fence_guard_map__lsm, struct bpf_map *map, unsigned int mode, int ret)
{
	return VERDICT(on_map(map, mode));
}

SEC("?fmod_ret/security_bpf_map")
int BPF_PROG(fence_guard_map__fmod_ret, struct bpf_map *map, unsigned int mode, int ret)
{
	return VERDICT(on_map(map, mode));
}

SEC("?lsm/inode_unlink")
int BPF_PROG(fence_guard_unlink__lsm, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(on_name(dir));
}

SEC("?fmod_ret/security_inode_unlink")
int BPF_PROG(fence_guard_unlink__fmod_ret, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(on_name(dir));
}

SEC("?lsm/inode_rmdir")
int BPF_PROG(fence_guard_rmdir__lsm, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(on_name(dir));
}

SEC("?fmod_ret/security_inode_rmdir")
int BPF_PROG(fence_guard_rmdir__fmod_ret, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(on_name(dir));
}

SEC("?lsm/inode_rename")
int BPF_PROG(fence_guard_rename__lsm, struct inode *old_dir, struct dentry *old_dentry,
	     struct inode *new_dir, struct dentry *new_dentry, int ret)
{
	return VERDICT(on_name(old_dir));
}

/* The function has a fifth argument that the hook has not. */
SEC("?fmod_ret/security_inode_rename")
int BPF_PROG(fence_guard_rename__fmod_ret, struct inode *old_dir, struct dentry *old_dentry,
	     struct inode *new_dir, struct dentry *new_dentry, unsigned int flags, int ret)
{
	return VERDICT(on_name(old_dir));
}

SEC("?lsm/sb_umount")
int BPF_PROG(fence_guard_umount__lsm, struct vfsmount *mnt, int flags, int ret)
{
	return VERDICT(on_umount(mnt));
}

SEC("?fmod_ret/security_sb_umount")
int BPF_PROG(fence_guard_umount__fmod_ret, struct vfsmount *mnt, int flags, int ret)
{
	return VERDICT(on_umount(mnt));
}

SEC("?lsm/task_kill")
int BPF_PROG(fence_guard_signal__lsm, struct task_struct *to, struct kernel_siginfo *info,
	     int signal, const struct cred *cred, int ret)
{
	return VERDICT(on_signal(to, signal));
}

SEC("?fmod_ret/security_task_kill")
int BPF_PROG(fence_guard_signal__fmod_ret, struct task_struct *to, struct kernel_siginfo *info,
	     int signal, const struct cred *cred, int ret)
{
	return VERDICT(on_signal(to, signal));
}

SEC("?lsm/ptrace_access_check")
int BPF_PROG(fence_guard_trace__lsm, struct task_struct *child, unsigned int mode, int ret)
{
	return VERDICT(on_trace(child, mode));
}

SEC("?fmod_ret/security_ptrace_access_check")
int BPF_PROG(fence_guard_trace__fmod_ret, struct task_struct *child, unsigned int mode, int ret)
{
	return VERDICT(on_trace(child, mode));
}
