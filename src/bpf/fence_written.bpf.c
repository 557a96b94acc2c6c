// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Notes which files who is held may have written: those that were opened to be written, and those that are written by a
 * descriptor or a mapping of somebody else's. A file is noted before the first byte gets there, so nobody runs it first. Only
 * the monitor's canary is refused here.
 */
#include "attempt.bpf.h"
#include "written.bpf.h"

/* include/linux/fs.h */
#define STK_SB_I_NOEXEC 0x2 /* of a super block: nothing in it can be run, or mapped to be */

/* include/uapi/linux/mman.h: MAP_SHARED_VALIDATE has the bit as well, and MAP_DROPPABLE has no file. */
#define STK_MAP_SHARED 0x1

static __always_inline int on_canary(struct stk_key *key)
{
	struct stk_written_about *about = about_written();

	if (!about || !armed_now() || !about->canary.ino || about->canary.ino != key->ino ||
	    about->canary.dev != key->dev || about->canary.generation != key->generation)
		return 0;
	/* Of a canary nobody asks what it was an attempt at. */
	attempted(STK_GUARD_KINDS, STK_RULE_CANARY);
	return -EPERM;
}

static __always_inline int note(struct inode *inode)
{
	struct stk_written_about *about;
	struct stk_key key;
	__u8 is = 1;
	bool self;

	if ((inode->i_mode & STK_S_IFMT) != STK_S_IFREG || !concerned(&self))
		return 0;
	key.ino = inode->i_ino;
	key.dev = inode->i_sb->s_dev;
	key.generation = inode->i_generation;
	if (self)
		return on_canary(&key);
	if ((inode->i_sb->s_iflags & STK_SB_I_NOEXEC) || bpf_map_lookup_elem(&stk_written, &key))
		return 0;
	if (!bpf_map_update_elem(&stk_written, &key, &is, BPF_ANY))
		return 0;
	about = about_written();
	if (about)
		__sync_fetch_and_add(&about->lost, 1);
	return 0;
}

static __always_inline int on_open(struct file *file)
{
	return file->f_mode & STK_FMODE_WRITE ? note(file->f_inode) : 0;
}

/* Reads are as many, and writes to pipes and sockets: each is asked about. */
static __always_inline int on_access(struct file *file, int mask)
{
	return mask & STK_MAY_WRITE ? note(file->f_inode) : 0;
}

/* Such a mapping can be made writable later, of which nobody is told by whom the file was opened. */
#define ON_MAP(file, flags)                                                 \
	({                                                                  \
		int __m = 0;                                                \
		if (((flags)&STK_MAP_SHARED) && stk_number(file) && (file)) \
			__m = on_open(file);                                \
		__m;                                                        \
	})

SEC("?lsm/file_open")
int BPF_PROG(fence_written_open__lsm, struct file *file, int ret)
{
	return VERDICT(on_open(file));
}

SEC("?fmod_ret/security_file_open")
int BPF_PROG(fence_written_open__fmod_ret, struct file *file, int ret)
{
	return VERDICT(on_open(file));
}

SEC("?lsm/file_permission")
int BPF_PROG(fence_written_access__lsm, struct file *file, int mask, int ret)
{
	return VERDICT(on_access(file, mask));
}

SEC("?fmod_ret/security_file_permission")
int BPF_PROG(fence_written_access__fmod_ret, struct file *file, int mask, int ret)
{
	return VERDICT(on_access(file, mask));
}

SEC("?lsm/mmap_file")
int BPF_PROG(fence_written_map__lsm, struct file *file, unsigned long reqprot, unsigned long prot,
	     unsigned long flags, int ret)
{
	return VERDICT(ON_MAP(file, flags));
}

SEC("?fmod_ret/security_mmap_file")
int BPF_PROG(fence_written_map__fmod_ret, struct file *file, unsigned long prot,
	     unsigned long flags, int ret)
{
	return VERDICT(ON_MAP(file, flags));
}

/* include/uapi/linux/magic.h */
#define STK_EXT4_MAGIC  0xef53
#define STK_TMPFS_MAGIC 0x01021994
#define STK_XFS_MAGIC   0x58465342

/*
 * Whether no other file has this one's key. In snapshots of btrfs there are others, which have what was written as well, and
 * layers of overlayfs can have the same numbers.
 */
static __always_inline bool has_own_key(struct inode *inode)
{
	unsigned long magic = inode->i_sb->s_magic;

	return magic == STK_EXT4_MAGIC || magic == STK_TMPFS_MAGIC || magic == STK_XFS_MAGIC;
}

/* What has no name and is open nowhere is gone, and what gets its key is another file. */
SEC("?fentry/security_inode_free")
int BPF_PROG(fence_written_gone, struct inode *inode)
{
	struct stk_key key;

	if ((inode->i_mode & STK_S_IFMT) != STK_S_IFREG || inode->i_nlink || !has_own_key(inode))
		return 0;
	key.ino = inode->i_ino;
	key.dev = inode->i_sb->s_dev;
	key.generation = inode->i_generation;
	bpf_map_delete_elem(&stk_written, &key);
	return 0;
}
