/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The fence: refuses accesses to guarded files.
 *
 * A rule holds for a file by a tag on its inode, where BPF LSM is active, and by its key (device, inode, generation);
 * for a name by the key of its directory; for all below a directory by that directory's key, which is looked for on the
 * way up. Verdict first, record second: a full ring never changes a verdict. Each hook has a body, an lsm program and an
 * fmod_ret twin; the twin cannot read tags.
 */
#include "fence.bpf.h"
#include "siphash.bpf.h"
#include "subject.bpf.h"
#include "written.bpf.h"

STK_EXPORT(stk_denial);
STK_EXPORT(stk_ruling);
STK_EXPORT(stk_name);

/* include/linux/dcache.h: found by its inode number, and nobody has looked for its directory. */
#define DCACHE_DISCONNECTED 0x20

/* include/uapi/linux/stat.h */
#define STK_S_ISUID 04000
#define STK_S_ISGID 02000
#define STK_S_IXGRP 00010
/* Where the group may not run it, the bit was about locks. */
#define SETGID (STK_S_ISGID | STK_S_IXGRP)

/* With an access, above its kinds and STK_SECOND: the file is opened to be run, and not mapped. */
#define ASKED_RUN   (1U << 31)
#define ASKED_KINDS (~(ASKED_RUN | STK_SECOND))
/* With the number of a set: what kind of file it is. */
#define OF_WRITTEN  (1U << 29)
#define OF_FILELESS (1U << 30)
#define OF_SETUID   (1U << 31)
#define OF_KINDS    (OF_WRITTEN | OF_FILELESS | OF_SETUID)

enum {
	/* Directories that one function looks at on the way up. */
	STRETCH = 16,
	/* Turns beyond the first, for directories that lie deeper. What is not found out by then counts as lost. */
	STRETCHES = 16,
	MAX_MOUNTS = 32,
	/* Mounts of one file system: so many stretches of so many turns. */
	CHAIN_STRETCH = 64,
	NO_END = 1,
	STK_LEAF = 1U << 31,
};

/*
 * How far a climb came, with what is said so far, where codes leave bits free. Without either it came to a root. With both
 * it did not come to where it should.
 */
#define CLIMB_ON    (1ULL << 63)
#define CLIMB_LOST  (1ULL << 31)
#define CLIMB_AGAIN (CLIMB_ON | CLIMB_LOST)

/* Where an inode has the time of its last change: that has moved twice. */
struct inode___before_6_6 {
	struct timespec64 i_ctime;
} __attribute__((preserve_access_index));

struct inode___before_6_11 {
	struct timespec64 __i_ctime;
} __attribute__((preserve_access_index));

/* An inode has one tag in a map, and replacing that is not done in one step: so each half has its own. */

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct stk_ruling);
} stk_tags_first SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct stk_ruling);
} stk_tags_second SEC(".maps");

/* There is room for more than there is, which costs nothing so. */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct stk_key);
	__type(value, struct stk_ruling);
} stk_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct stk_name);
	__type(value, struct stk_ruling);
} stk_names SEC(".maps");

STK_SCRATCH_MAP(stk_fence_buf);
STK_SCRATCH_WALK(stk_fence_buf, fence_walk)

/* Of what is to be made: there is only where. */
static __always_inline void no_file_id(struct stk_file_id *id, __u64 dentry)
{
	id->ino = 0;
	id->dev = STK_GET(dentry, dentry, d_sb, s_dev);
	id->generation = 0;
	id->fs_magic = STK_GET(dentry, dentry, d_sb, s_magic);
	id->mode = 0;
}

static __always_inline __u32 links_of(__u64 inode)
{
	return BPF_CORE_READ((struct inode *)inode, i_nlink);
}

/* What memfd_create(2) makes has a name, and is in no directory. */
static __always_inline __u32 name_without_place(struct stk_denial *rec, __u64 dentry)
{
	struct dentry *of = STK_AS(dentry, dentry);
	long n = bpf_probe_read_kernel_str(rec->path, STK_NAME_MAX,
					   (const void *)STK_NUMBER_AT(&of->d_name.name));

	return n > 1 ? n | STK_WALK_DELETED : 0;
}

/*
 * Reports a verdict. A global function with numbers for arguments, so that the verifier looks at it once and not behind
 * every branch of every hook. `mnt` is 0 where the hook knows none; `what` is the access below a verdict as told_of()
 * makes it.
 *
 * The record is reserved before the path is walked in the scratch: whatever happens to the path, the denial arrives.
 */
__attribute__((noinline)) int report(__u64 inode, __u64 dentry, __u64 mnt, __u64 what, __u32 rule)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_scratch *s = bpf_map_lookup_elem(&stk_fence_buf, &cpu);
	struct stk_denial *rec;
	__u64 seq = 0;
	__u32 off = 0;

	rec = bpf_ringbuf_reserve(&stk_denials, sizeof(*rec), 0);
	if (!rec) {
		stk_lost(STK_KIND_DENIAL, STK_LOSS_RING);
		return 0;
	}
	stk_header(&rec->hdr, STK_KIND_DENIAL, sizeof(*rec));
	if (inode)
		stk_file_id_of(&rec->file, (struct inode *)inode, false);
	else
		no_file_id(&rec->file, dentry);
	rec->rule = rule;
	rec->access = (__u32)what & ASKED_KINDS;
	rec->verdict = verdict_in(what);
	rec->error = what >> TOLD_ERROR;
	if (what & TOLD_UNLISTED)
		rec->hdr.flags |= STK_FLAG_UNLISTED;
	if (!mnt)
		rec->hdr.flags |= STK_FLAG_NO_MOUNT;
	if (s) {
		seq = ++s->seq;
		off = fence_walk(dentry, stk_mount_of((struct vfsmount *)mnt), 0, STK_PATH_MAX - 1);
		bpf_probe_read_kernel(rec->path, sizeof(rec->path), s->rec);
	}
	if (!s || *(volatile __u64 *)&s->seq != seq) {
		/* Another program took the scratch over: no path rather than a mixed one. A failed read clears. */
		bpf_probe_read_kernel(rec->path, sizeof(rec->path), NULL);
		off = STK_WALK_CUT;
	} else if (!off && inode && !links_of(inode)) {
		off = name_without_place(rec, dentry);
	}
	if (off & STK_WALK_CUT)
		rec->hdr.flags |= STK_FLAG_PATH_CUT;
	if (inode && (off & STK_WALK_DELETED))
		rec->hdr.flags |= STK_FLAG_DELETED;
	rec->path_len = off & STK_WALK_OFF;
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	return 0;
}

/* Whether a name of this length can have a rule in that directory: spares most of them the hash. */
static __always_inline bool may_name(const struct stk_ruling *ruling, __u32 len)
{
	return ruling->flags & (1U << (STK_RULING_LENGTHS + (len & 15)));
}

/*
 * What is said about a file or directory by rules for its name in `dir` and for all below `dir`. `child` is 0 where it
 * has no name there; `kind` has STK_LEAF where it is what is accessed and not on the way there, and STK_SECOND.
 */
__attribute__((noinline)) __u64 said_in(__u64 dir, __u64 child, __u64 so_far, __u32 kind)
{
	struct stk_armed *armed = armed_of(kind);
	struct stk_ruling *ruling, *named;
	struct stk_name name;
	bool leaf = kind & STK_LEAF;

	if (!armed)
		return so_far;
	key_of(&name.dir, (__u64)STK_GET(dentry, dir, d_inode), kind & STK_SECOND);
	ruling = bpf_map_lookup_elem(&stk_keys, &name.dir);
	if (!ruling || ruling->epoch != armed->epoch)
		return so_far;
	so_far = with_set(so_far, ruling->below, kind);
	if (!child || !may_name(ruling, STK_GET(dentry, child, d_name.len)))
		return so_far;
	name.hash = hash_of_name(child, armed->hash_key[0], armed->hash_key[1]);
	named = bpf_map_lookup_elem(&stk_names, &name);
	if (named && named->epoch == armed->epoch)
		so_far = with_set(so_far, leaf ? named->own : named->below, kind);
	return so_far;
}

/*
 * What is said on a stretch of the way up from a dentry: to the root, or to the directory `to`, which must be met; 0 takes
 * it as far as it goes. The way up is cut into stretches, each a global function, because the verifier goes through every
 * turn of a loop, in each program again: sixteen stretches of sixteen are a few hundred instructions, and a loop of as many
 * turns is tens of thousands.
 */
__attribute__((noinline)) __u64 climb(__u64 dentry, __u64 to, __u64 so_far, __u32 kind)
{
	__u32 i;

	for (i = 0; i < STRETCH; i++) {
		__u64 dir = stk_parent_of(dentry);

		if (!dir)
			return so_far | CLIMB_LOST;
		/* A root, or what looks like one. */
		if (dir == dentry) {
			__u32 flags = STK_GET(dentry, dentry, d_flags);

			return flags & DCACHE_DISCONNECTED ? so_far | CLIMB_LOST : so_far;
		}
		so_far = said_in(dir, dentry, so_far, kind);
		kind &= ~STK_LEAF;
		dentry = dir;
		if (dentry == to)
			return so_far | CLIMB_ON;
	}
	return so_far | CLIMB_AGAIN;
}

/* Where a stretch ends, if nobody moves a directory meanwhile. */
__attribute__((noinline)) __u64 above(__u64 dentry)
{
	__u32 i;

	for (i = 0; i < STRETCH; i++)
		dentry = stk_parent_of(dentry);
	return dentry;
}

/*
 * What is said on the way up to the root of a file system. Most files are within one stretch of it. Where they are not, the
 * end of each is found first and then climbed to: one that was found afterwards could lie further up, past directories that
 * nobody has asked about, if one had been moved between. A stretch that misses its end is climbed again.
 */
__attribute__((noinline)) __u64 said_up(__u64 dentry, __u64 so_far, __u32 kind)
{
	__u32 i;

	so_far = climb(dentry, 0, so_far, kind);
	for (i = 0; i < STRETCHES && so_far & CLIMB_ON; i++) {
		__u64 end = above(dentry);

		so_far = climb(dentry, end, so_far & ~CLIMB_AGAIN, kind);
		if ((so_far & CLIMB_AGAIN) == CLIMB_ON) {
			kind &= ~STK_LEAF;
			dentry = end;
		}
	}
	return so_far & CLIMB_ON ? so_far | CLIMB_LOST : so_far;
}

/* By themselves, for the same reason as climb(). */
__attribute__((noinline)) __u64 outer_mount(__u64 mnt)
{
	return stk_outer_mount(mnt);
}

__attribute__((noinline)) __u64 mountpoint(__u64 mnt)
{
	return stk_mountpoint(mnt);
}

/* The last mount of a chain, or the one that a stretch comes to. */
__attribute__((noinline)) __u64 older_mount(__u64 mnt)
{
	__u32 i;

	/* Here and not at every turn: clang takes the field's place out of the loop, and where there is no field, that fails. */
	if (!STK_MOUNTS_CHAINED)
		return mnt;
	for (i = 0; i < CHAIN_STRETCH; i++) {
		__u64 next = stk_next_mount(mnt);

		if (!next)
			break;
		mnt = next;
	}
	return mnt;
}

/*
 * The oldest mount of a dentry's file system: one that is made later, by whoever, must not lead somewhere else. 0 where it
 * has none; NO_END where it is not found.
 */
__attribute__((noinline)) __u64 oldest_mount(__u64 dentry)
{
	__u64 mnt = stk_first_mount(dentry);
	__u32 i;

	if (!mnt)
		return mnt;
	for (i = 0; i < CHAIN_STRETCH; i++) {
		__u64 older = older_mount(mnt);

		if (older == mnt)
			return mnt;
		mnt = older;
	}
	return NO_END;
}

/*
 * What else is said about a file: by rules for its name, and for all below the directories that it is in. They are those
 * up to the root of its file system, by whatever mount it was reached, and then those up from where that is mounted. A
 * hook that knows no mount is taken up from the file system's oldest one.
 */
__attribute__((noinline)) __u64 around(__u64 dentry, __u64 mnt, __u64 so_far, __u32 kind)
{
	struct stk_armed *armed = armed_of(kind);
	__u32 i;

	if (!armed)
		return so_far;
	if (!mnt)
		mnt = oldest_mount(dentry);
	so_far = said_up(dentry, so_far, kind | STK_LEAF);
	if (mnt == NO_END)
		so_far |= CLIMB_LOST;
	for (i = 0; i < MAX_MOUNTS && !(so_far & CLIMB_LOST); i++) {
		__u64 outer = outer_mount(mnt);

		if (!outer)
			return so_far;
		dentry = mountpoint(mnt);
		mnt = outer;
		/* The directory below a mount is hidden, and can have a rule from before. */
		so_far = said_in(dentry, 0, so_far, kind);
		so_far = said_up(dentry, so_far, kind);
	}
	return with_set(so_far & ~CLIMB_AGAIN, armed->lost, kind);
}

/*
 * The strongest refusals, as codes: of rules that are enforced, and below it of all. Adds those of one kind of access;
 * `asked` is its number with STK_SECOND and the class of who asks, and above it the set of the file's own rules, with what
 * kind of file it is. By itself, or the verifier would look at each kind behind every outcome of the one before.
 */
__attribute__((noinline)) __u64 refusals(__u64 dentry, __u64 mount, __u64 asked, __u64 so_far)
{
	__u64 now = said(STK_RULE_NONE, STK_RULE_NONE);
	__u32 kind = asked, own = asked >> 32;
	struct stk_armed *armed = armed_of(kind);

	if (!armed)
		return so_far;
	now = with_set(now, own & ~OF_KINDS, kind);
	if (own & OF_FILELESS)
		now = with_set(now, armed->fileless, kind);
	if (own & OF_SETUID)
		now = with_set(now, armed->setuid, kind);
	if (own & OF_WRITTEN)
		now = with_set(now, armed->written, kind);
	if (armed->flags & STK_ARMED_BELOW)
		now = around(dentry, mount, now, kind);
	else if (armed->flags & STK_ARMED_NAMES)
		now = said_in(stk_parent_of(dentry), dentry, now, kind | STK_LEAF);
	return with_refusals(so_far, now, said_in_set(armed->otherwise, kind));
}

/* When the content or the attributes of a file changed last, in seconds; nobody sets that. */
static __always_inline __s64 changed_at(__u64 inode)
{
	if (bpf_core_field_exists(struct inode, i_ctime_sec))
		return BPF_CORE_READ((struct inode *)inode, i_ctime_sec);
	if (bpf_core_field_exists(struct inode___before_6_11, __i_ctime))
		return BPF_CORE_READ((struct inode___before_6_11 *)inode, __i_ctime.tv_sec);
	return BPF_CORE_READ((struct inode___before_6_6 *)inode, i_ctime.tv_sec);
}

/* Whether who is held may have written a file. Where some had no room, all count that have changed since. */
__attribute__((noinline)) int was_written(__u64 inode)
{
	__s64 changed = changed_at(inode);
	struct stk_written_about *about;
	struct stk_key key;

	key_of(&key, inode, 0);
	if (bpf_map_lookup_elem(&stk_written, &key))
		return 1;
	about = about_written();
	return about && about->lost && changed >= (__s64)about->since_s;
}

/* What kind of file is run. Mapped by somebody else, it gives nobody its owner's rights. */
static __always_inline __u32 kinds_of(__u64 inode, __u32 access)
{
	__u32 of = 0, mode;

	if (!(access & STK_ACCESS_EXEC))
		return 0;
	if (!links_of(inode))
		of |= OF_FILELESS;
	mode = STK_GET(inode, inode, i_mode);
	if ((access & ASKED_RUN) && ((mode & STK_S_ISUID) || (mode & SETGID) == SETGID))
		of |= OF_SETUID;
	if (was_written(inode))
		of |= OF_WRITTEN;
	return of;
}

/*
 * The answer to an access, 0 or -errno; reports what is refused, or would be. `asked` is the access with STK_SECOND, and
 * above it the set of the file's own rules.
 */
__attribute__((noinline)) int refused(__u64 inode, __u64 dentry, __u64 mnt, __u64 asked)
{
	__u64 mount = stk_mount_of((struct vfsmount *)mnt);
	__u64 found = said(STK_RULE_NONE, STK_RULE_NONE), told;
	__u32 access = asked, kind;
	__u64 about = (asked >> 32 << 32) | (__u64)kinds_of(inode, access) << 32 |
		      (access & STK_SECOND) | subject(access & STK_SECOND);

	for (kind = 0; kind < STK_ACCESS_FILE_KINDS; kind++) {
		if (access & (1U << kind))
			found = refusals(dentry, mount, about | kind, found);
	}
	told = told_of(found);
	if (!told)
		return 0;
	report(inode, dentry, mnt, told | access, rule_in(found));
	count_hit(rule_in(found));
	return answer(told);
}

/* Hooks are given typed pointers: what is looked at for every access is loaded, not read by a call. */
static __always_inline struct stk_ruling *by_key(struct inode *inode, struct stk_armed *armed)
{
	struct stk_key key;

	key.ino = inode->i_ino;
	key.dev = inode->i_sb->s_dev | armed->half;
	key.generation = inode->i_generation;
	return bpf_map_lookup_elem(&stk_keys, &key);
}

/* Whether this name can have a rule. */
static __always_inline bool in_named(struct dentry *dentry, struct stk_armed *armed)
{
	struct stk_ruling *ruling = by_key(dentry->d_parent->d_inode, armed);

	return ruling && ruling->epoch == armed->epoch && may_name(ruling, dentry->d_name.len);
}

/* What there is to say about a file that no rule names by itself. */
static __always_inline __u32 besides(struct stk_armed *armed, __u32 access)
{
	return access & STK_ACCESS_EXEC ? armed->flags : armed->flags & ~STK_ARMED_KINDS;
}

/* 0 or -errno. */
static __always_inline int judge(struct stk_armed *armed, struct stk_ruling *ruling,
				 struct inode *inode, __u64 access, bool self,
				 struct dentry *dentry, struct vfsmount *mnt)
{
	__u64 own = 0;

	if (ruling && ruling->epoch == armed->epoch &&
	    self == !!(ruling->flags & STK_RULING_CANARY))
		own = ruling->own;
	if (!own) {
		__u32 flags = besides(armed, access);

		/* The tool itself is only ever held by the canary rule. */
		if (self || !flags)
			return 0;
		if (flags == STK_ARMED_NAMES && !in_named(dentry, armed))
			return 0;
	}
	return bounded(refused(stk_number(inode), stk_number(dentry), stk_number(mnt),
			       access | armed->half | own << 32));
}

#define TAG_OF(inode, map) bpf_inode_storage_get(&(map), (inode), NULL, 0)
#define RULING_TAGGED(inode, armed)                                                     \
	({                                                                              \
		struct stk_ruling *__p = (armed)->half ? TAG_OF(inode, stk_tags_second) \
						       : TAG_OF(inode, stk_tags_first); \
		if (!__p)                                                               \
			__p = by_key(inode, armed);                                     \
		__p;                                                                    \
	})
#define RULING_KEYED(inode, armed) by_key(inode, armed)
#define RULING_ANY(tagged, inode, armed) \
	((tagged) ? RULING_TAGGED(inode, armed) : RULING_KEYED(inode, armed))

/* `tagged` is a constant at every call, so a twin holds no reference to the tag maps. */
#define CHECK_BY(now, tagged, inode_, access_, dentry_, mnt_)                                   \
	({                                                                                      \
		int __ret = 0;                                                                  \
		bool __self;                                                                    \
		struct inode *__inode = (inode_);                                               \
		struct stk_armed *__armed;                                                      \
		if (concerned(&__self) && (__armed = (now))) {                                  \
			struct stk_ruling *__ruling = NULL;                                     \
			if (__inode)                                                            \
				__ruling = RULING_ANY(tagged, __inode, __armed);                \
			__ret = judge(__armed, __ruling, __inode, (access_), __self, (dentry_), \
				      (mnt_));                                                  \
		}                                                                               \
		__ret;                                                                          \
	})
#define CHECK(tagged, inode, access, dentry, mnt) \
	CHECK_BY(armed_now(), tagged, inode, access, dentry, mnt)

static __always_inline __u32 open_access(struct file *file)
{
	__u32 access = 0, mode = file->f_mode;

	if (file->f_flags & STK_FMODE_EXEC)
		return STK_ACCESS_EXEC | ASKED_RUN;
	if (mode & STK_FMODE_READ)
		access |= STK_ACCESS_READ;
	if (mode & STK_FMODE_WRITE)
		access |= STK_ACCESS_WRITE;
	/* Access mode 3 opens for ioctl alone. */
	return access ?: STK_ACCESS_READ | STK_ACCESS_WRITE;
}

/* The kernel maps what it has opened for execve(2), and that open was judged. */
static __always_inline bool opened_to_run(struct file *file)
{
	return file->f_flags & STK_FMODE_EXEC;
}

/*
 * A mapping of overlayfs has the file of a layer. Since 6.8 that has its own path, and behind it the one that was opened.
 * The bit that says so (FMODE_BACKING) has moved; this one has not, and nobody maps what else has it.
 */
#define KEEPS_USER_PATH bpf_core_field_exists(((struct backing_file *)0)->user_path)

static __always_inline bool of_layer(struct file *file)
{
	return KEEPS_USER_PATH && (file->f_mode & STK_FMODE_NOACCOUNT);
}

/* By its key, by its name and by what it is in: the tag cannot be read through a number. */
static __always_inline int judge_numbers(__u64 dentry, __u64 mnt, __u32 access)
{
	struct stk_armed *armed = armed_now();
	struct stk_ruling *ruling;
	struct dentry *of;
	struct stk_key key;
	__u64 inode, own = 0;
	bool self;

	if (!armed || !concerned(&self) || self)
		return 0;
	of = STK_AS(dentry, dentry);
	inode = STK_NUMBER_AT(&of->d_inode);
	key_of(&key, inode, armed->half);
	ruling = bpf_map_lookup_elem(&stk_keys, &key);
	if (ruling && ruling->epoch == armed->epoch && !(ruling->flags & STK_RULING_CANARY))
		own = ruling->own;
	if (!own && !besides(armed, access))
		return 0;
	return bounded(refused(inode, dentry, mnt, access | armed->half | own << 32));
}

static __always_inline int judge_of_layer(__u64 file)
{
	struct backing_file *backing = (struct backing_file *)file;

	return judge_numbers((__u64)BPF_CORE_READ(backing, user_path.dentry),
			     (__u64)BPF_CORE_READ(backing, user_path.mnt), STK_ACCESS_EXEC);
}

/*
 * Who connects to a UNIX socket, or sends to it, asks for what the kernel itself asks for: to write to the socket at that
 * path. The hooks know the socket, and it knows where it was bound, by which name and mount it was found now. One that has
 * no path, of a pair or with an abstract name, is no file.
 */
static __always_inline int judge_socket(__u64 sk)
{
	struct unix_sock *to = (struct unix_sock *)sk;
	__u64 dentry = (__u64)BPF_CORE_READ(to, path.dentry);

	if (!dentry)
		return 0;
	return judge_numbers(dentry, (__u64)BPF_CORE_READ(to, path.mnt), STK_ACCESS_WRITE);
}

static __always_inline __u32 attr_access(struct iattr *attr)
{
	__u32 valid = attr->ia_valid;

	return valid & STK_ATTR_SIZE ? STK_ACCESS_WRITE : STK_ACCESS_METADATA;
}

#define ON_FILE(tagged, file, access) \
	CHECK(tagged, (file)->f_inode, access, (file)->f_path.dentry, (file)->f_path.mnt)
#define ON_OPEN(tagged, file)             ON_FILE(tagged, file, open_access(file))
#define ON_DENTRY(tagged, dentry, access) ON_DENTRY_BY(armed_now(), tagged, dentry, access)
#define ON_DENTRY_BY(now, tagged, dentry, access) \
	CHECK_BY(now, tagged, (dentry)->d_inode, access, dentry, NULL)

/*
 * Who maps a file executable runs it: so do loaders, whatever they were told to load. An anonymous mapping has no file, for
 * which the verifier does not account before 6.19: it takes the check of the pointer out, and not that of a number.
 */
#define ON_MMAP(tagged, file, prot)                                                               \
	({                                                                                        \
		int __m = 0;                                                                      \
		if (((prot)&STK_PROT_EXEC) && stk_number(file) && (file) && !opened_to_run(file)) \
			__m = ON_FILE(tagged, file, STK_ACCESS_EXEC);                             \
		__m;                                                                              \
	})

/* Up to 6.7 the layer's file has the layer's inode and the path that was opened. */
#define ON_MPROTECT(tagged, vma, prot)                                                        \
	({                                                                                    \
		int __m = 0;                                                                  \
		struct file *__file = (vma)->vm_file;                                         \
		if (((prot)&STK_PROT_EXEC) && __file && !opened_to_run(__file)) {             \
			struct dentry *__d = __file->f_path.dentry;                           \
			if (of_layer(__file))                                                 \
				__m = judge_of_layer(stk_number(__file));                     \
			else                                                                  \
				__m = CHECK(tagged,                                           \
					    KEEPS_USER_PATH ? __file->f_inode : __d->d_inode, \
					    STK_ACCESS_EXEC, __d, __file->f_path.mnt);        \
		}                                                                             \
		__m;                                                                          \
	})

/* What is to be made, is no file yet: only its name can have a rule. */
#define ON_CREATE(dentry)         ON_CREATE_BY(armed_now(), dentry)
#define ON_CREATE_BY(now, dentry) CHECK_BY(now, false, NULL, STK_ACCESS_CREATE, dentry, NULL)

/* include/uapi/linux/mount.h */
#define MS_REMOUNT     (1 << 5)
#define MS_BIND        (1 << 12)
#define MS_PROPAGATION (0xf << 17) /* unbindable, private, slave, shared */

/*
 * Whether mount(2) with these flags puts something at the place, in the order in which path_mount() asks. Other options of
 * what is mounted there, and who else sees what is mounted below it, hide nothing.
 */
static __always_inline bool puts_something(__u64 flags)
{
	if (flags & MS_REMOUNT)
		return false;
	return (flags & MS_BIND) || !(flags & MS_PROPAGATION);
}

/* A mount hides what was there. */
#define ON_MOUNT(path) \
	CHECK(false, (path)->dentry->d_inode, STK_ACCESS_MOUNT, (path)->dentry, (path)->mnt)

/*
 * The source loses its name; the target is made, or replaced, and under RENAME_EXCHANGE renamed. Both by one policy: of two
 * that each refuse one half of it, neither would.
 */
#define ON_RENAME(tagged, old_dentry, new_dentry)                                      \
	({                                                                             \
		struct stk_armed *__now = armed_now();                                 \
		int __r = ON_DENTRY_BY(__now, tagged, old_dentry, STK_ACCESS_DELETE);  \
		if (!__r)                                                              \
			__r = ON_DENTRY_BY(__now, tagged, new_dentry,                  \
					   (new_dentry)->d_inode ? STK_ACCESS_REPLACE  \
								 : STK_ACCESS_CREATE); \
		__r;                                                                   \
	})

/* A further name is made. */
#define ON_LINK(tagged, old_dentry, new_dentry)                                     \
	({                                                                          \
		struct stk_armed *__now = armed_now();                              \
		int __r = ON_DENTRY_BY(__now, tagged, old_dentry, STK_ACCESS_LINK); \
		if (!__r)                                                           \
			__r = ON_CREATE_BY(__now, new_dentry);                      \
		__r;                                                                \
	})

SEC("?lsm/file_open")
int BPF_PROG(fence_open__lsm, struct file *file, int ret)
{
	return VERDICT(ON_OPEN(true, file));
}

SEC("?fmod_ret/security_file_open")
int BPF_PROG(fence_open__fmod_ret, struct file *file, int ret)
{
	return VERDICT(ON_OPEN(false, file));
}

SEC("?lsm/mmap_file")
int BPF_PROG(fence_mmap__lsm, struct file *file, unsigned long reqprot, unsigned long prot,
	     unsigned long flags, int ret)
{
	return VERDICT(ON_MMAP(true, file, prot));
}

/* The function works out what the hook is told. */
SEC("?fmod_ret/security_mmap_file")
int BPF_PROG(fence_mmap__fmod_ret, struct file *file, unsigned long prot, unsigned long flags,
	     int ret)
{
	if ((prot & STK_PROT_READ) &&
	    (STK_FOLLOW(stk_current(), personality) & STK_READ_IMPLIES_EXEC))
		prot |= STK_PROT_EXEC;
	return VERDICT(ON_MMAP(false, file, prot));
}

SEC("?lsm/file_mprotect")
int BPF_PROG(fence_mprotect__lsm, struct vm_area_struct *vma, unsigned long reqprot,
	     unsigned long prot, int ret)
{
	return VERDICT(ON_MPROTECT(true, vma, prot));
}

SEC("?fmod_ret/security_file_mprotect")
int BPF_PROG(fence_mprotect__fmod_ret, struct vm_area_struct *vma, unsigned long reqprot,
	     unsigned long prot, int ret)
{
	return VERDICT(ON_MPROTECT(false, vma, prot));
}

SEC("?lsm/inode_unlink")
int BPF_PROG(fence_unlink__lsm, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_DELETE));
}

SEC("?fmod_ret/security_inode_unlink")
int BPF_PROG(fence_unlink__fmod_ret, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_DELETE));
}

SEC("?lsm/inode_rmdir")
int BPF_PROG(fence_rmdir__lsm, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_DELETE));
}

SEC("?fmod_ret/security_inode_rmdir")
int BPF_PROG(fence_rmdir__fmod_ret, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_DELETE));
}

SEC("?lsm/inode_rename")
int BPF_PROG(fence_rename__lsm, struct inode *old_dir, struct dentry *old_dentry,
	     struct inode *new_dir, struct dentry *new_dentry, int ret)
{
	return VERDICT(ON_RENAME(true, old_dentry, new_dentry));
}

/* The function has a fifth argument that the hook has not. For an exchange it calls the hook both ways round. */
SEC("?fmod_ret/security_inode_rename")
int BPF_PROG(fence_rename__fmod_ret, struct inode *old_dir, struct dentry *old_dentry,
	     struct inode *new_dir, struct dentry *new_dentry, unsigned int flags, int ret)
{
	int verdict = VERDICT(ON_RENAME(false, old_dentry, new_dentry));

	if (!verdict && (flags & STK_RENAME_EXCHANGE))
		verdict = ON_RENAME(false, new_dentry, old_dentry);
	return verdict;
}

SEC("?lsm/inode_link")
int BPF_PROG(fence_link__lsm, struct dentry *old_dentry, struct inode *dir,
	     struct dentry *new_dentry, int ret)
{
	return VERDICT(ON_LINK(true, old_dentry, new_dentry));
}

SEC("?fmod_ret/security_inode_link")
int BPF_PROG(fence_link__fmod_ret, struct dentry *old_dentry, struct inode *dir,
	     struct dentry *new_dentry, int ret)
{
	return VERDICT(ON_LINK(false, old_dentry, new_dentry));
}

SEC("?lsm/inode_create")
int BPF_PROG(fence_create__lsm, struct inode *dir, struct dentry *dentry, umode_t mode, int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?fmod_ret/security_inode_create")
int BPF_PROG(fence_create__fmod_ret, struct inode *dir, struct dentry *dentry, umode_t mode,
	     int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?lsm/inode_mkdir")
int BPF_PROG(fence_mkdir__lsm, struct inode *dir, struct dentry *dentry, umode_t mode, int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?fmod_ret/security_inode_mkdir")
int BPF_PROG(fence_mkdir__fmod_ret, struct inode *dir, struct dentry *dentry, umode_t mode, int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?lsm/inode_mknod")
int BPF_PROG(fence_mknod__lsm, struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev,
	     int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?fmod_ret/security_inode_mknod")
int BPF_PROG(fence_mknod__fmod_ret, struct inode *dir, struct dentry *dentry, umode_t mode,
	     dev_t dev, int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?lsm/inode_symlink")
int BPF_PROG(fence_symlink__lsm, struct inode *dir, struct dentry *dentry, const char *target,
	     int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?fmod_ret/security_inode_symlink")
int BPF_PROG(fence_symlink__fmod_ret, struct inode *dir, struct dentry *dentry, const char *target,
	     int ret)
{
	return VERDICT(ON_CREATE(dentry));
}

SEC("?lsm/sb_mount")
int BPF_PROG(fence_mount__lsm, const char *dev_name, const struct path *path, const char *type,
	     unsigned long flags, void *data, int ret)
{
	return VERDICT(puts_something(flags) ? ON_MOUNT(path) : 0);
}

SEC("?fmod_ret/security_sb_mount")
int BPF_PROG(fence_mount__fmod_ret, const char *dev_name, const struct path *path, const char *type,
	     unsigned long flags, void *data, int ret)
{
	return VERDICT(puts_something(flags) ? ON_MOUNT(path) : 0);
}

SEC("?lsm/move_mount")
int BPF_PROG(fence_movemount__lsm, const struct path *from_path, const struct path *to_path,
	     int ret)
{
	return VERDICT(ON_MOUNT(to_path));
}

SEC("?fmod_ret/security_move_mount")
int BPF_PROG(fence_movemount__fmod_ret, const struct path *from_path, const struct path *to_path,
	     int ret)
{
	return VERDICT(ON_MOUNT(to_path));
}

SEC("?lsm/unix_stream_connect")
int BPF_PROG(fence_unixconn__lsm, struct sock *sock, struct sock *other, struct sock *newsk,
	     int ret)
{
	return VERDICT(judge_socket(stk_number(other)));
}

SEC("?fmod_ret/security_unix_stream_connect")
int BPF_PROG(fence_unixconn__fmod_ret, struct sock *sock, struct sock *other, struct sock *newsk,
	     int ret)
{
	return VERDICT(judge_socket(stk_number(other)));
}

/* Asked when a datagram socket is connected, and for each datagram, whether it names somebody or not. */
SEC("?lsm/unix_may_send")
int BPF_PROG(fence_unixsend__lsm, struct socket *sock, struct socket *other, int ret)
{
	return VERDICT(judge_socket(STK_NUMBER_AT(&other->sk)));
}

SEC("?fmod_ret/security_unix_may_send")
int BPF_PROG(fence_unixsend__fmod_ret, struct socket *sock, struct socket *other, int ret)
{
	return VERDICT(judge_socket(STK_NUMBER_AT(&other->sk)));
}

/*
 * From here on a leading argument came with a kernel version: the user namespace, later the mount's id map. `_d` has the
 * dentry first, `_id` has it second; the loader counts the parameters in the kernel's BTF.
 */
SEC("?lsm/inode_setattr")
int BPF_PROG(fence_setattr_d__lsm, struct dentry *dentry, struct iattr *attr, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, attr_access(attr)));
}

SEC("?lsm/inode_setattr")
int BPF_PROG(fence_setattr_id__lsm, void *idmap, struct dentry *dentry, struct iattr *attr, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, attr_access(attr)));
}

SEC("?fmod_ret/security_inode_setattr")
int BPF_PROG(fence_setattr_d__fmod_ret, struct dentry *dentry, struct iattr *attr, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, attr_access(attr)));
}

SEC("?fmod_ret/security_inode_setattr")
int BPF_PROG(fence_setattr_id__fmod_ret, void *idmap, struct dentry *dentry, struct iattr *attr,
	     int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, attr_access(attr)));
}

SEC("?lsm/inode_setxattr")
int BPF_PROG(fence_setxattr_d__lsm, struct dentry *dentry, const char *name, const void *value,
	     size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_setxattr")
int BPF_PROG(fence_setxattr_id__lsm, void *idmap, struct dentry *dentry, const char *name,
	     const void *value, size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_setxattr")
int BPF_PROG(fence_setxattr_d__fmod_ret, struct dentry *dentry, const char *name, const void *value,
	     size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_setxattr")
int BPF_PROG(fence_setxattr_id__fmod_ret, void *idmap, struct dentry *dentry, const char *name,
	     const void *value, size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_removexattr")
int BPF_PROG(fence_rmxattr_d__lsm, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_removexattr")
int BPF_PROG(fence_rmxattr_id__lsm, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_removexattr")
int BPF_PROG(fence_rmxattr_d__fmod_ret, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_removexattr")
int BPF_PROG(fence_rmxattr_id__fmod_ret, void *idmap, struct dentry *dentry, const char *name,
	     int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

/* 6.2+; before, an ACL is an xattr. */
SEC("?lsm/inode_set_acl")
int BPF_PROG(fence_setacl__lsm, void *idmap, struct dentry *dentry, const char *name, void *acl,
	     int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_set_acl")
int BPF_PROG(fence_setacl__fmod_ret, void *idmap, struct dentry *dentry, const char *name,
	     void *acl, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_remove_acl")
int BPF_PROG(fence_rmacl__lsm, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_remove_acl")
int BPF_PROG(fence_rmacl__fmod_ret, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

/* file_setattr(2), 6.17: inode flags by path. */
SEC("?lsm/inode_file_setattr")
int BPF_PROG(fence_fsetattr__lsm, struct dentry *dentry, void *fa, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_file_setattr")
int BPF_PROG(fence_fsetattr__fmod_ret, struct dentry *dentry, void *fa, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}
