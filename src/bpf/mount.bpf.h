/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which file it is; and the way up from it, through directories and mounts, as numbers: dentries, and struct mounts. */
#ifndef STOCKADE_MOUNT_BPF_H
#define STOCKADE_MOUNT_BPF_H

#include "core.bpf.h"

/* `typed`: whether the verifier knows the type of `inode`; a constant at every call. */
static __always_inline void stk_file_id_of(struct stk_file_id *id, struct inode *inode, bool typed)
{
	struct super_block *sb = STK_GET_TYPED(inode, inode, typed, i_sb);

	id->ino = STK_GET_TYPED(inode, inode, typed, i_ino);
	id->dev = STK_GET_TYPED(super_block, sb, typed, s_dev);
	id->generation = STK_GET_TYPED(inode, inode, typed, i_generation);
	id->fs_magic = STK_GET_TYPED(super_block, sb, typed, s_magic);
	id->mode = STK_GET_TYPED(inode, inode, typed, i_mode);
}

/* 0 for none. */
static __always_inline __u64 stk_mount_of(const struct vfsmount *mnt)
{
	return mnt ? (__u64)mnt - bpf_core_field_offset(struct mount, mnt) : 0;
}

/* The directory that a dentry is in; itself for a root. 0 when it cannot be read. */
static __always_inline __u64 stk_parent_of(__u64 dentry)
{
	struct dentry *of = STK_AS(dentry, dentry);

	return STK_NUMBER_AT(&of->d_parent);
}

/*
 * 6.17 made the list of a file system's mounts, the oldest one first, a chain of pointers that begins with the newest
 * (mnt_add_instance, fs/namespace.c).
 */
struct super_block___chain {
	struct mount *s_mounts;
} __attribute__((preserve_access_index));

struct mount___chain {
	struct mount *mnt_next_for_sb;
} __attribute__((preserve_access_index));

#define STK_MOUNTS_CHAINED bpf_core_field_exists(struct mount___chain, mnt_next_for_sb)

/* The first mount in the list of a dentry's file system; 0 when it has none. */
static __always_inline __u64 stk_first_mount(__u64 dentry)
{
	struct super_block *sb = STK_GET(dentry, dentry, d_sb);
	__u64 first;

	if (STK_MOUNTS_CHAINED)
		return (__u64)BPF_CORE_READ((struct super_block___chain *)sb, s_mounts);
	first = (__u64)BPF_CORE_READ(sb, s_mounts.next);
	if (first == (__u64)sb + bpf_core_field_offset(struct super_block, s_mounts))
		return 0;
	return first - bpf_core_field_offset(struct mount, mnt_instance);
}

/* The one behind it in a chain; 0 for the last. */
static __always_inline __u64 stk_next_mount(__u64 mnt)
{
	return (__u64)BPF_CORE_READ((struct mount___chain *)mnt, mnt_next_for_sb);
}

/* The mount that a mount is in; 0 for the outermost one. */
static __always_inline __u64 stk_outer_mount(__u64 mnt)
{
	__u64 outer = (__u64)BPF_CORE_READ((struct mount *)mnt, mnt_parent);

	return outer == mnt ? 0 : outer;
}

/* The directory there that it is mounted on. */
static __always_inline __u64 stk_mountpoint(__u64 mnt)
{
	return (__u64)BPF_CORE_READ((struct mount *)mnt, mnt_mountpoint);
}

#endif
