/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whom rules tell apart: by the program that somebody runs, and by the user whose rights he has.
 *
 * Programs and users are in groups, and who asks is of a class: the sum of what his program's group and his user's add.
 * Where neither has an entry that is 0, the class of everybody whom no rule names.
 */
#ifndef STOCKADE_SUBJECT_BPF_H
#define STOCKADE_SUBJECT_BPF_H

#include "fence.bpf.h"

STK_EXPORT(stk_user);

enum {
	SUBJECTS_MAX = 1024, /* programs, and as many users; both halves together */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SUBJECTS_MAX);
	__type(key, struct stk_key);
	__type(value, __u32);
} stk_subject_exes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SUBJECTS_MAX);
	__type(key, struct stk_user);
	__type(value, __u32);
} stk_subject_uids SEC(".maps");

static __always_inline void key_of(struct stk_key *key, __u64 inode, __u32 half)
{
	key->ino = STK_GET(inode, inode, i_ino);
	key->dev = STK_GET(inode, inode, i_sb, s_dev) | half;
	key->generation = STK_GET(inode, inode, i_generation);
}

/* What the group of a program adds to the number of a class. */
__attribute__((noinline)) __u32 program_at(__u64 inode, __u32 half)
{
	struct stk_key exe;
	__u32 *group;

	key_of(&exe, inode, half);
	group = bpf_map_lookup_elem(&stk_subject_exes, &exe);
	return group ? *group : 0;
}

/* The same of the program that a task runs. A kernel thread runs none. */
__attribute__((noinline)) __u32 program_of(__u64 task, __u32 half)
{
	struct file *exe = STK_GET(task_struct, task, mm, exe_file);
	__u64 inode = STK_NUMBER_AT(&exe->f_inode);

	return inode ? program_at(inode, half) : 0;
}

/*
 * The class of who asks, as it stands beside a kind of access; 0 where the policy tells nobody apart. While a program is
 * started the former one asks, up to where its memory is given up.
 */
__attribute__((noinline)) __u32 subject(__u32 half)
{
	struct stk_armed *armed = armed_of(half);
	struct stk_user user = { .half = half };
	__u64 task = bpf_get_current_task();
	__u32 *group, class;

	if (!armed || !(armed->flags & STK_ARMED_SUBJECTS))
		return 0;
	class = program_of(task, half);
	/*
	 * Not the helper's: overlayfs acts under somebody else's subjective credentials. A worker of io_uring has its own up
	 * to 5.11.
	 */
	if (STK_GET(task_struct, task, flags) & STK_PF_KTHREAD)
		user.uid = STK_GET(task_struct, task, cred, euid.val);
	else
		user.uid = STK_GET(task_struct, task, real_cred, euid.val);
	group = bpf_map_lookup_elem(&stk_subject_uids, &user);
	if (group)
		class += *group;
	return (class & CLASS_MASK) << KIND_CLASS;
}

#endif
