/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Part of file.bpf.c: links, directories, attributes and mounts.
 *
 * The functions that do the work know the dentry and not the mount. All of them run between mnt_want_write() and its
 * end, so that one notes the mount by thread. It is the mount of what was done when it is of the same file system: a
 * layer below the one that the caller named (overlayfs) is another file system, and has nothing noted.
 *
 * What fails before such a function is called, such as the removal of what does not exist, is seen by the system calls
 * only.
 */
#ifndef STOCKADE_CHANGE_BPF_H
#define STOCKADE_CHANGE_BPF_H

struct stk_noted {
	__u64 mnt; /* of struct vfsmount */
	__u64 sb;
};

/* By thread. LRU: nothing tells that a write is over. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct stk_noted);
} stk_noted_mounts SEC(".maps");

static __always_inline int on_want_write(const struct vfsmount *mnt)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_noted *before, noted;
	struct mnt_namespace *ns;

	if (!stk_wanted())
		return 0;
	/* A mount that is the kernel's own, such as that of a layer: what the caller named stays noted. */
	ns = BPF_CORE_READ((struct mount *)stk_mount_of(mnt), mnt_ns);
	if (STK_IS_ERR(ns))
		return 0;
	noted.mnt = stk_number(mnt);
	noted.sb = stk_number(mnt->mnt_sb);
	/* In place, which no other thread does: to replace an entry of an LRU map takes a lock and a new one. */
	before = bpf_map_lookup_elem(&stk_noted_mounts, &tid);
	if (before)
		*before = noted;
	else
		bpf_map_update_elem(&stk_noted_mounts, &tid, &noted, BPF_ANY);
	return 0;
}

/* The mount that this thread named, when it is of the dentry's file system. */
static __always_inline struct vfsmount *mount_noted(struct dentry *dentry)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_noted *noted = bpf_map_lookup_elem(&stk_noted_mounts, &tid);

	if (!noted || noted->sb != stk_number(dentry->d_sb))
		return NULL;
	return (struct vfsmount *)noted->mnt;
}

static __always_inline __u32 kind_of_change(__u32 op)
{
	switch (op) {
	case STK_CHANGE_LINK:
		return STK_KIND_LINK;
	case STK_CHANGE_SYMLINK:
		return STK_KIND_SYMLINK;
	case STK_CHANGE_MKDIR:
		return STK_KIND_MKDIR;
	case STK_CHANGE_RMDIR:
		return STK_KIND_RMDIR;
	case STK_CHANGE_MKNOD:
		return STK_KIND_MKNOD;
	case STK_CHANGE_SETXATTR:
	case STK_CHANGE_REMOVEXATTR:
		return STK_KIND_XATTR;
	case STK_CHANGE_MOUNT:
	case STK_CHANGE_UMOUNT:
		return STK_KIND_MOUNT;
	default:
		return STK_KIND_SETATTR;
	}
}

static __always_inline struct stk_scratch *change_scratch(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&stk_file_buf, &cpu);
}

/*
 * The parts that all programs have in common are global functions, which the verifier looks at once. They find the
 * record in the scratch of their CPU.
 */

/* Begins a record, if somebody wants it. Returns its number, 0 for none. */
__attribute__((noinline)) __u64 change_begin(__u32 op, __s64 result)
{
	struct stk_change *rec;
	struct stk_scratch *s;
	__u32 kind;
	__u64 seq;

	if (stk_config.filter & STK_FILTER_ERRORS && result >= 0)
		return 0;
	if (!stk_wanted())
		return 0;
	kind = kind_of_change(op);
	s = stk_scratch_begin(&stk_file_buf, kind, &seq);
	if (!s)
		return 0;
	rec = (struct stk_change *)s->rec;
	__builtin_memset(rec, 0, sizeof(*rec));
	stk_header(&rec->hdr, kind, 0);
	rec->op = op;
	rec->result = result;
	return seq;
}

static __always_inline __u32 change_end_of(struct stk_change *rec)
{
	return sizeof(*rec) + rec->path_len + rec->base_len + rec->other_len + rec->type_len;
}

enum stk_change_part {
	STK_PART_PATH,
	STK_PART_BASE,
	STK_PART_OTHER,
	STK_PART_TYPE,
};

static __always_inline void change_grow(struct stk_change *rec, __u32 part, __u32 len)
{
	if (part == STK_PART_PATH)
		rec->path_len += len;
	else if (part == STK_PART_BASE)
		rec->base_len += len;
	else if (part == STK_PART_OTHER)
		rec->other_len += len;
	else
		rec->type_len += len;
}

/* Appends the components of a path. Parts come in their order. */
__attribute__((noinline)) int change_walk(__u32 part, __u64 dentry, __u64 mnt)
{
	struct stk_scratch *s = change_scratch();
	struct stk_change *rec;
	__u32 at, off;

	if (!s)
		return 0;
	rec = (struct stk_change *)s->rec;
	at = change_end_of(rec);
	off = file_walk(dentry, mnt, at, at + STK_PATH_MAX);
	if (off & STK_WALK_CUT) {
		if (part == STK_PART_PATH)
			rec->hdr.flags |= STK_FLAG_PATH_CUT;
		else if (part == STK_PART_BASE)
			rec->hdr.flags |= STK_FLAG_CWD_CUT;
		else
			rec->hdr.flags |= STK_FLAG_PATH2_CUT;
	}
	if (part == STK_PART_PATH && !mnt)
		rec->hdr.flags |= STK_FLAG_NO_MOUNT;
	change_grow(rec, part, (off & STK_WALK_OFF) - at);
	return 0;
}

/* Appends a string of the kernel's or of the caller's. */
__attribute__((noinline)) int change_text(__u32 part, __u64 from, __u32 user)
{
	struct stk_scratch *s = change_scratch();
	struct stk_change *rec;
	__u32 at;
	long n;

	if (!s || !from)
		return 0;
	rec = (struct stk_change *)s->rec;
	at = change_end_of(rec);
	asm volatile("" : "+r"(at));
	if (at > STK_WALK_LIMIT)
		return 0;
	if (user)
		n = bpf_probe_read_user_str(s->rec + at, STK_PATH_MAX, (void *)from);
	else
		n = bpf_probe_read_kernel_str(s->rec + at, STK_PATH_MAX, (void *)from);
	change_grow(rec, part, n > 0 ? n : 0);
	return 0;
}

/* A link has two names. */
static __always_inline bool change_is_asked_for(const struct stk_change *rec)
{
	__u32 at = sizeof(*rec) + rec->path_len + rec->base_len;

	if (is_asked_for(rec->hdr.flags & STK_PATH_UNKNOWN, sizeof(*rec), rec->path_len))
		return true;
	return rec->op == STK_CHANGE_LINK &&
	       is_asked_for(rec->hdr.flags & STK_PATH2_UNKNOWN, at, rec->other_len);
}

__attribute__((noinline)) int change_send(__u64 seq)
{
	struct stk_scratch *s = change_scratch();
	struct stk_change *rec;
	__u32 len;

	if (!s)
		return 0;
	rec = (struct stk_change *)s->rec;
	if (!change_is_asked_for(rec))
		return 0;
	len = change_end_of(rec);
	rec->hdr.len = len;
	stk_scratch_send(s, seq, rec->hdr.kind, len);
	return 0;
}

/* The record that change_begin() has begun. */
static __always_inline struct stk_change *change_record(void)
{
	struct stk_scratch *s = change_scratch();

	return s ? (struct stk_change *)s->rec : NULL;
}

/* Somebody holds a lease on it: the caller waits until it is given back, and tries again. */
static __always_inline bool is_retried(int result)
{
	return result == -EAGAIN;
}

/* Something that a dentry stands for, with the mount that was noted. `text`: what goes with it, or NULL. */
static __always_inline int on_change(__u32 op, struct dentry *dentry, __s64 result, __u32 set,
				     __u32 mode, __u32 dev, const char *text)
{
	struct vfsmount *mnt = mount_noted(dentry);
	struct stk_change *rec;
	__u64 seq;

	if (!mnt || is_retried(result))
		return 0;
	seq = change_begin(op, result);
	if (!seq)
		return 0;
	rec = change_record();
	if (rec) {
		id_of_dentry(&rec->file, dentry);
		rec->set = set;
		rec->mode = mode;
		rec->dev = dev;
	}
	change_walk(STK_PART_PATH, stk_number(dentry), stk_mount_of(mnt));
	if (text)
		change_text(STK_PART_OTHER, stk_number(text), false);
	return change_send(seq);
}

static __always_inline int on_mkdir(struct dentry *dentry, __u32 mode, __u64 returned)
{
	__u32 high = returned >> 32;
	__s64 result = 0;

	/* An int up to 6.14, of which the upper half means nothing; then a dentry, or an error in its place. */
	if (high == 0 || high == ~0U)
		result = (__s32)returned;
	return on_change(STK_CHANGE_MKDIR, dentry, result, STK_SET_MODE, mode, 0, NULL);
}

static __always_inline int on_mknod(struct dentry *dentry, __u32 mode, __u32 dev, int result)
{
	return on_change(STK_CHANGE_MKNOD, dentry, result, STK_SET_MODE | STK_SET_DEV, mode, dev,
			 NULL);
}

static __always_inline int on_link(struct dentry *old_dentry, struct dentry *dentry, int result)
{
	struct vfsmount *mnt = mount_noted(dentry);
	struct stk_change *rec;
	__u64 seq;

	if (!mnt || is_retried(result))
		return 0;
	seq = change_begin(STK_CHANGE_LINK, result);
	if (!seq)
		return 0;
	rec = change_record();
	if (rec)
		id_of_dentry(&rec->file, old_dentry);
	change_walk(STK_PART_PATH, stk_number(dentry), stk_mount_of(mnt));
	/* A link never leaves its mount. */
	change_walk(STK_PART_OTHER, stk_number(old_dentry), stk_mount_of(mnt));
	return change_send(seq);
}

static __always_inline void emit_rmdir(struct stk_pending *p, int result)
{
	struct stk_change *rec;
	__u64 seq = change_begin(STK_CHANGE_RMDIR, result);

	if (!seq)
		return;
	rec = change_record();
	if (rec)
		rec->file = p->file;
	/* The name by itself: behind do_rmdir() its dentry may be gone, that of the directory is in use by others. */
	change_text(STK_PART_PATH, stk_number(p->old_name), false);
	change_walk(STK_PART_PATH, (__u64)p->old_dir, stk_mount_of(p->mnt));
	change_send(seq);
}

/* `dentry`: what was removed, or NULL behind the function that began it all. */
static __always_inline int on_rmdir(struct dentry *dentry, int result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_pending *p = bpf_map_lookup_elem(&stk_pending_ops, &tid);

	/* Another dentry: a layer below the one that the caller named (overlayfs). */
	if (!p || p->op != STK_CHANGE_RMDIR || (dentry && p->dentry != dentry))
		return 0;
	if (!is_retried(result))
		emit_rmdir(p, result);
	bpf_map_delete_elem(&stk_pending_ops, &tid);
	return 0;
}

/* What chmod, chown, utimes and truncate ask for: they are one function, which is told what to change. */
struct stk_attrs {
	__u64 dentry;
	__u64 mnt; /* of struct mount */
	__u64 size;
	__s64 atime_ns;
	__s64 mtime_ns;
	__u32 op;
	__u32 set;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 unused;
};

/* By thread. LRU: what never comes to its end falls out. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct stk_attrs);
} stk_pending_attrs SEC(".maps");

static __always_inline __s64 ns_of(const struct timespec64 *time)
{
	return time->tv_sec * 1000000000LL + time->tv_nsec;
}

/* Which of them it is; 0 for what the kernel itself wants. */
static __always_inline __u32 attr_op(__u32 valid)
{
	if (valid & STK_ATTR_SIZE)
		/* Or part of the open. */
		return valid & STK_ATTR_OPEN ? 0 : STK_CHANGE_TRUNCATE;
	if (valid & STK_ATTR_FORCE)
		return 0;
	if (valid & (STK_ATTR_UID | STK_ATTR_GID))
		return STK_CHANGE_CHOWN;
	if (valid & STK_ATTR_MODE)
		return STK_CHANGE_CHMOD;
	if (valid & (STK_ATTR_ATIME | STK_ATTR_MTIME))
		return STK_CHANGE_UTIMES;
	return 0;
}

static __always_inline __u32 attr_set(__u32 op, __u32 valid)
{
	switch (op) {
	case STK_CHANGE_TRUNCATE:
		return STK_SET_SIZE;
	case STK_CHANGE_CHOWN:
		return (valid & STK_ATTR_UID ? STK_SET_UID : 0) |
		       (valid & STK_ATTR_GID ? STK_SET_GID : 0);
	case STK_CHANGE_CHMOD:
		return STK_SET_MODE;
	default:
		/* Without a value it is the present time. */
		return (valid & STK_ATTR_ATIME_SET ? STK_SET_ATIME : 0) |
		       (valid & STK_ATTR_MTIME_SET ? STK_SET_MTIME : 0);
	}
}

/* Read before the work is done: file systems change what they are told (overlayfs takes the file and the open out). */
static __always_inline int on_setattr_begin(struct dentry *dentry, struct iattr *attr)
{
	__u32 valid = attr->ia_valid, op = attr_op(valid);
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_attrs attrs = {};
	struct vfsmount *mnt;

	if (!op || !stk_wanted())
		return 0;
	if (valid & STK_ATTR_FILE) {
		struct file *file = attr->ia_file;

		mnt = BPF_CORE_READ(file, f_path.mnt);
		/* A layer below, opened by overlayfs itself. */
		if (STK_IS_ERR(BPF_CORE_READ((struct mount *)stk_mount_of(mnt), mnt_ns)))
			return 0;
	} else {
		mnt = mount_noted(dentry);
	}
	if (!mnt)
		return 0;
	attrs.dentry = stk_number(dentry);
	attrs.mnt = stk_mount_of(mnt);
	attrs.op = op;
	attrs.set = attr_set(op, valid);
	attrs.mode = attr->ia_mode & 07777;
	attrs.uid = attr->ia_uid.val;
	attrs.gid = attr->ia_gid.val;
	attrs.size = attr->ia_size;
	attrs.atime_ns = ns_of(&attr->ia_atime);
	attrs.mtime_ns = ns_of(&attr->ia_mtime);
	if (bpf_map_update_elem(&stk_pending_attrs, &tid, &attrs, BPF_ANY))
		stk_lost(STK_KIND_SETATTR, STK_LOSS_MAP);
	return 0;
}

static __always_inline void emit_setattr(struct dentry *dentry, const struct stk_attrs *attrs,
					 int result)
{
	struct stk_change *rec;
	__u64 seq = change_begin(attrs->op, result);

	if (!seq)
		return;
	rec = change_record();
	if (rec) {
		id_of_dentry(&rec->file, dentry);
		rec->set = attrs->set;
		rec->mode = attrs->mode;
		rec->uid = attrs->uid;
		rec->gid = attrs->gid;
		rec->size = attrs->size;
		rec->atime_ns = attrs->atime_ns;
		rec->mtime_ns = attrs->mtime_ns;
	}
	change_walk(STK_PART_PATH, attrs->dentry, attrs->mnt);
	change_send(seq);
}

static __always_inline int on_setattr(struct dentry *dentry, int result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_attrs *attrs = bpf_map_lookup_elem(&stk_pending_attrs, &tid);

	if (!attrs || attrs->dentry != stk_number(dentry))
		return 0;
	if (!is_retried(result))
		emit_setattr(dentry, attrs, result);
	bpf_map_delete_elem(&stk_pending_attrs, &tid);
	return 0;
}

static __always_inline int on_mount(const char *source, const struct path *path, const char *type,
				    unsigned long flags, int result)
{
	struct stk_place place = stk_place_of(path);
	struct stk_change *rec;
	__u64 seq = change_begin(STK_CHANGE_MOUNT, result);

	if (!seq)
		return 0;
	rec = change_record();
	if (rec) {
		rec->set = STK_SET_FLAGS;
		rec->flags = flags;
	}
	change_walk(STK_PART_PATH, place.dentry, place.mnt);
	change_text(STK_PART_OTHER, stk_number(source), false);
	change_text(STK_PART_TYPE, stk_number(type), false);
	return change_send(seq);
}

/* What a mount is of, remembered until the call is over: then it may be gone. */
static __always_inline struct stk_pending *pending_mount(__u32 op, struct mount *mount)
{
	struct stk_pending *p;

	if (!stk_wanted())
		return NULL;
	p = pending_new();
	if (!p)
		return NULL;
	p->op = op;
	bpf_probe_read_kernel_str(p->old_name, sizeof(p->old_name),
				  BPF_CORE_READ(mount, mnt_devname));
	bpf_probe_read_kernel_str(p->new_name, sizeof(p->new_name),
				  BPF_CORE_READ(mount, mnt.mnt_sb, s_type, name));
	return p;
}

static __always_inline int pend(struct stk_pending *p)
{
	__u32 tid = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&stk_pending_ops, &tid, p, BPF_ANY))
		stk_lost(STK_KIND_MOUNT, STK_LOSS_MAP);
	return 0;
}

static __always_inline int on_move_mount(const struct path *from, const struct path *to)
{
	struct stk_pending *p =
		pending_mount(STK_CHANGE_MOUNT, (struct mount *)stk_mount_of(from->mnt));

	if (!p)
		return 0;
	p->dentry = to->dentry;
	p->mnt = to->mnt;
	return pend(p);
}

static __always_inline int on_umount(const struct path *path)
{
	struct mount *mount = (struct mount *)stk_mount_of(path->mnt), *parent;
	struct stk_pending *p = pending_mount(STK_CHANGE_UMOUNT, mount);

	if (!p)
		return 0;
	p->dentry = path->dentry;
	p->mnt = path->mnt;
	/* Nothing is mounted here. */
	if (stk_number(path->dentry) != (__u64)BPF_CORE_READ(mount, mnt.mnt_root))
		return pend(p);
	/* Where it was: its parent holds on to that for as long as it is mounted itself. */
	p->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
	parent = BPF_CORE_READ(mount, mnt_parent);
	p->mnt = (struct vfsmount *)((__u64)parent + bpf_core_field_offset(struct mount, mnt));
	return pend(p);
}

static __always_inline void emit_mounts_changed(struct stk_pending *p, __u32 set, __u32 flags,
						int result)
{
	struct stk_change *rec;
	__u64 seq = change_begin(p->op, result);

	if (!seq)
		return;
	rec = change_record();
	if (rec) {
		rec->set = set;
		rec->flags = flags;
	}
	change_walk(STK_PART_PATH, (__u64)p->dentry, stk_mount_of(p->mnt));
	change_text(STK_PART_OTHER, stk_number(p->old_name), false);
	change_text(STK_PART_TYPE, stk_number(p->new_name), false);
	change_send(seq);
}

static __always_inline int on_mounts_changed(__u32 op, __u32 set, __u32 flags, int result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_pending *p = bpf_map_lookup_elem(&stk_pending_ops, &tid);

	if (!p || p->op != op)
		return 0;
	emit_mounts_changed(p, set, flags, result);
	bpf_map_delete_elem(&stk_pending_ops, &tid);
	return 0;
}

/*
 * The same from a system call that has returned.
 */

/* What a call has asked for. */
struct stk_asked {
	__u64 path; /* in the caller's memory; 0: it is the descriptor itself */
	__u64 other;
	__u64 type;
	__u64 times;
	__u64 size;
	__u32 op; /* 0: nothing that is reported */
	__s32 dfd;
	__u32 set;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 dev;
	__u32 flags;
};

/* By a name, from a directory. */
static __always_inline void asked_at(struct stk_asked *a, __u32 op, __s32 dfd, __u64 path)
{
	a->op = op;
	a->dfd = dfd;
	a->path = path;
}

static __always_inline void asked_mode(struct stk_asked *a, __u32 op, __s32 dfd, __u64 path,
				       __u32 mode)
{
	asked_at(a, op, dfd, path);
	a->set = STK_SET_MODE;
	a->mode = op == STK_CHANGE_CHMOD ? mode & 07777 : mode;
}

static __always_inline void asked_node(struct stk_asked *a, __s32 dfd, __u64 path, __u32 mode,
				       __u32 dev)
{
	asked_mode(a, STK_CHANGE_MKNOD, dfd, path, mode);
	a->set |= STK_SET_DEV;
	/* new_decode_dev(), include/linux/kdev_t.h */
	a->dev = (dev & 0xfff00) << 12 | (dev & 0xff) | (dev >> 12 & 0xfff00);
}

static __always_inline void asked_owner(struct stk_asked *a, __s32 dfd, __u64 path, __u32 uid,
					__u32 gid)
{
	/* -1 leaves it as it is. */
	a->set = (uid != ~0U ? STK_SET_UID : 0) | (gid != ~0U ? STK_SET_GID : 0);
	if (!a->set)
		return;
	asked_at(a, STK_CHANGE_CHOWN, dfd, path);
	a->uid = uid;
	a->gid = gid;
}

static __always_inline void asked_size(struct stk_asked *a, __s32 dfd, __u64 path, __u64 size)
{
	asked_at(a, STK_CHANGE_TRUNCATE, dfd, path);
	a->set = STK_SET_SIZE;
	a->size = size;
}

static __always_inline void asked_xattr(struct stk_asked *a, __u32 op, __s32 dfd, __u64 path,
					__u64 name)
{
	asked_at(a, op, dfd, path);
	a->other = name;
}

/* The calls that every architecture has. */
static __always_inline void sys_decode(struct stk_asked *a, long nr, const __u64 *args)
{
	switch (nr) {
	case STK_NR_linkat:
		asked_at(a, STK_CHANGE_LINK, args[2], args[3]);
		a->other = args[1];
		break;
	case STK_NR_symlinkat:
		asked_at(a, STK_CHANGE_SYMLINK, args[1], args[2]);
		a->other = args[0];
		break;
	case STK_NR_mkdirat:
		asked_mode(a, STK_CHANGE_MKDIR, args[0], args[1], args[2]);
		break;
	case STK_NR_unlinkat:
		if (args[2] & STK_AT_REMOVEDIR)
			asked_at(a, STK_CHANGE_RMDIR, args[0], args[1]);
		break;
	case STK_NR_mknodat:
		asked_node(a, args[0], args[1], args[2], args[3]);
		break;
	case STK_NR_fchmod:
		asked_mode(a, STK_CHANGE_CHMOD, args[0], 0, args[1]);
		break;
	case STK_NR_fchmodat:
	case STK_NR_fchmodat2:
		asked_mode(a, STK_CHANGE_CHMOD, args[0], args[1], args[2]);
		break;
	case STK_NR_fchown:
		asked_owner(a, args[0], 0, args[1], args[2]);
		break;
	case STK_NR_fchownat:
		asked_owner(a, args[0], args[1], args[2], args[3]);
		break;
	case STK_NR_utimensat:
		asked_at(a, STK_CHANGE_UTIMES, args[0], args[1]);
		a->times = args[2];
		break;
	case STK_NR_truncate:
		asked_size(a, STK_AT_FDCWD, args[0], args[1]);
		break;
	case STK_NR_ftruncate:
		asked_size(a, args[0], 0, args[1]);
		break;
	case STK_NR_setxattr:
	case STK_NR_lsetxattr:
		asked_xattr(a, STK_CHANGE_SETXATTR, STK_AT_FDCWD, args[0], args[1]);
		break;
	case STK_NR_fsetxattr:
		asked_xattr(a, STK_CHANGE_SETXATTR, args[0], 0, args[1]);
		break;
	case STK_NR_setxattrat:
		asked_xattr(a, STK_CHANGE_SETXATTR, args[0], args[1], args[3]);
		break;
	case STK_NR_removexattr:
	case STK_NR_lremovexattr:
		asked_xattr(a, STK_CHANGE_REMOVEXATTR, STK_AT_FDCWD, args[0], args[1]);
		break;
	case STK_NR_fremovexattr:
		asked_xattr(a, STK_CHANGE_REMOVEXATTR, args[0], 0, args[1]);
		break;
	case STK_NR_removexattrat:
		asked_xattr(a, STK_CHANGE_REMOVEXATTR, args[0], args[1], args[3]);
		break;
	case STK_NR_mount:
		asked_at(a, STK_CHANGE_MOUNT, STK_AT_FDCWD, args[1]);
		a->other = args[0];
		a->type = args[2];
		a->set = STK_SET_FLAGS;
		a->flags = args[3];
		break;
	case STK_NR_move_mount:
		asked_at(a, STK_CHANGE_MOUNT, args[2], args[3]);
		a->other = args[1];
		break;
	case STK_NR_umount2:
		asked_at(a, STK_CHANGE_UMOUNT, STK_AT_FDCWD, args[0]);
		a->set = STK_SET_FLAGS;
		a->flags = args[1];
		break;
	}
}

/* aarch64 has the at-forms alone. */
#ifdef __TARGET_ARCH_x86
static __always_inline void sys_decode_old(struct stk_asked *a, long nr, const __u64 *args)
{
	switch (nr) {
	case STK_NR_link:
		asked_at(a, STK_CHANGE_LINK, STK_AT_FDCWD, args[1]);
		a->other = args[0];
		break;
	case STK_NR_symlink:
		asked_at(a, STK_CHANGE_SYMLINK, STK_AT_FDCWD, args[1]);
		a->other = args[0];
		break;
	case STK_NR_mkdir:
		asked_mode(a, STK_CHANGE_MKDIR, STK_AT_FDCWD, args[0], args[1]);
		break;
	case STK_NR_rmdir:
		asked_at(a, STK_CHANGE_RMDIR, STK_AT_FDCWD, args[0]);
		break;
	case STK_NR_mknod:
		asked_node(a, STK_AT_FDCWD, args[0], args[1], args[2]);
		break;
	case STK_NR_chmod:
		asked_mode(a, STK_CHANGE_CHMOD, STK_AT_FDCWD, args[0], args[1]);
		break;
	case STK_NR_chown:
	case STK_NR_lchown:
		asked_owner(a, STK_AT_FDCWD, args[0], args[1], args[2]);
		break;
	case STK_NR_utime:
	case STK_NR_utimes:
		asked_at(a, STK_CHANGE_UTIMES, STK_AT_FDCWD, args[0]);
		break;
	case STK_NR_futimesat:
		asked_at(a, STK_CHANGE_UTIMES, args[0], args[1]);
		break;
	}
}
#endif

static __always_inline __u32 sys_time(__s64 *ns, __u64 times, __u32 bit)
{
	struct __kernel_timespec time;

	if (bpf_probe_read_user(&time, sizeof(time), (void *)times))
		return 0;
	/* UTIME_NOW and UTIME_OMIT. */
	if (time.tv_nsec == (1L << 30) - 1 || time.tv_nsec == (1L << 30) - 2)
		return 0;
	*ns = time.tv_sec * 1000000000LL + time.tv_nsec;
	return bit;
}

/* Where a relative name starts. */
static __always_inline void sys_base(__s32 dfd)
{
	struct task_struct *task = stk_current();
	struct stk_place place;

	if (dfd == STK_AT_FDCWD) {
		struct fs_struct *fs = STK_FOLLOW(task, fs);

		place = stk_place_of(&fs->pwd);
	} else {
		struct file *file = dfd < 0 ? NULL : stk_file_of_fd(task, dfd);

		if (!file)
			return;
		place = stk_place_of(&file->f_path);
	}
	change_walk(STK_PART_BASE, place.dentry, place.mnt);
}

/* Most calls are none of these. */
static __always_inline bool is_change(long nr)
{
	switch (nr) {
	case STK_NR_linkat:
	case STK_NR_symlinkat:
	case STK_NR_mkdirat:
	case STK_NR_unlinkat:
	case STK_NR_mknodat:
	case STK_NR_fchmod:
	case STK_NR_fchmodat:
	case STK_NR_fchmodat2:
	case STK_NR_fchown:
	case STK_NR_fchownat:
	case STK_NR_utimensat:
	case STK_NR_truncate:
	case STK_NR_ftruncate:
	case STK_NR_setxattr:
	case STK_NR_lsetxattr:
	case STK_NR_fsetxattr:
	case STK_NR_setxattrat:
	case STK_NR_removexattr:
	case STK_NR_lremovexattr:
	case STK_NR_fremovexattr:
	case STK_NR_removexattrat:
	case STK_NR_mount:
	case STK_NR_move_mount:
	case STK_NR_umount2:
#ifdef __TARGET_ARCH_x86
	case STK_NR_link:
	case STK_NR_symlink:
	case STK_NR_mkdir:
	case STK_NR_rmdir:
	case STK_NR_mknod:
	case STK_NR_chmod:
	case STK_NR_chown:
	case STK_NR_lchown:
	case STK_NR_utime:
	case STK_NR_utimes:
	case STK_NR_futimesat:
#endif
		return true;
	default:
		return false;
	}
}

static __always_inline int sys_change(struct pt_regs *regs, long nr, long ret)
{
	struct stk_asked asked = {};
	struct stk_change *rec;
	struct stk_scratch *s;
	__u64 args[6], seq;

	stk_syscall_args(args, regs, false);
	sys_decode(&asked, nr, args);
#ifdef __TARGET_ARCH_x86
	if (!asked.op)
		sys_decode_old(&asked, nr, args);
#endif
	/* 32-bit calls have other numbers. */
	if (!asked.op || stk_compat(regs))
		return 0;
	seq = change_begin(asked.op, ret);
	if (!seq)
		return 0;
	s = change_scratch();
	if (!s)
		return 0;
	rec = (struct stk_change *)s->rec;
	rec->set = asked.set;
	rec->mode = asked.mode;
	rec->uid = asked.uid;
	rec->gid = asked.gid;
	rec->dev = asked.dev;
	rec->flags = asked.flags;
	rec->size = asked.size;
	if (asked.times) {
		rec->set |= sys_time(&rec->atime_ns, asked.times, STK_SET_ATIME);
		rec->set |= sys_time(&rec->mtime_ns, asked.times + sizeof(struct __kernel_timespec),
				     STK_SET_MTIME);
	}
	if (asked.path) {
		rec->hdr.flags |= STK_FLAG_AS_GIVEN;
		change_text(STK_PART_PATH, asked.path, true);
		if (rec->path_len && s->rec[sizeof(*rec)] != '/')
			sys_base(asked.dfd);
	} else {
		struct file *file = asked.dfd < 0 ? NULL : stk_file_of_fd(stk_current(), asked.dfd);

		if (file) {
			struct stk_place place = stk_place_of(&file->f_path);

			stk_file_id_of(&rec->file, BPF_CORE_READ(file, f_inode), false);
			change_walk(STK_PART_PATH, place.dentry, place.mnt);
		}
	}
	change_text(STK_PART_OTHER, asked.other, true);
	change_text(STK_PART_TYPE, asked.type, true);
	return change_send(seq);
}

SEC("?fentry/mnt_want_write")
int BPF_PROG(file_want__fentry, struct vfsmount *mnt)
{
	return on_want_write(mnt);
}

STK_ENTRY(mnt_want_write, file_want, on_want_write(STK_AS(vfsmount, PT_REGS_PARM1(ctx))))

SEC("?fentry/mnt_want_write_file")
int BPF_PROG(file_want_file__fentry, struct file *file)
{
	return on_want_write(file->f_path.mnt);
}

STK_ENTRY(mnt_want_write_file, file_want_file,
	  on_want_write(STK_AS(file, PT_REGS_PARM1(ctx))->f_path.mnt))

/*
 * By the number of parameters: before 5.12 without, later with a user namespace or id map in front; behind them what is
 * to be told of a lease, from 6.19 on.
 */

SEC("?fexit/vfs_mkdir")
int BPF_PROG(file_mkdir_3__fexit, struct inode *dir, struct dentry *dentry, umode_t mode, void *ret)
{
	return on_mkdir(dentry, mode, stk_number(ret));
}

SEC("?fexit/vfs_mkdir")
int BPF_PROG(file_mkdir_4__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     umode_t mode, void *ret)
{
	return on_mkdir(dentry, mode, stk_number(ret));
}

SEC("?fexit/vfs_mkdir")
int BPF_PROG(file_mkdir_5__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     umode_t mode, void *lease, void *ret)
{
	return on_mkdir(dentry, mode, stk_number(ret));
}

STK_SESSION(vfs_mkdir, file_mkdir_5, STK_KIND_MKDIR,
	    on_mkdir(STK_AS(dentry, call.arg[2]), call.arg[3], ret))

SEC("?fentry/security_path_rmdir")
int BPF_PROG(file_rmdir_begin__fentry, const struct path *dir, struct dentry *dentry)
{
	return on_path_removal(dir, dentry, STK_CHANGE_RMDIR);
}

STK_ENTRY(security_path_rmdir, file_rmdir_begin,
	  on_path_removal(STK_AS(path, PT_REGS_PARM1(ctx)), STK_AS(dentry, PT_REGS_PARM2(ctx)),
			  STK_CHANGE_RMDIR))

/* Up to 6.18. Of vfs_rmdir() compilers make a part of this one (Debian's 5.10), and it is then never called. */
SEC("?fexit/do_rmdir")
int BPF_PROG(file_rmdir_end__fexit, int dfd, struct filename *name, long ret)
{
	return on_rmdir(NULL, ret);
}

SEC("?fexit/vfs_rmdir")
int BPF_PROG(file_rmdir_end_4__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     void *lease, int ret)
{
	return on_rmdir(dentry, ret);
}

STK_SESSION(vfs_rmdir, file_rmdir_end_4, STK_KIND_RMDIR,
	    on_rmdir(STK_AS(dentry, call.arg[2]), (int)ret))

SEC("?fexit/vfs_mknod")
int BPF_PROG(file_mknod_4__fexit, struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev,
	     int ret)
{
	return on_mknod(dentry, mode, dev, ret);
}

SEC("?fexit/vfs_mknod")
int BPF_PROG(file_mknod_5__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     umode_t mode, dev_t dev, int ret)
{
	return on_mknod(dentry, mode, dev, ret);
}

SEC("?fexit/vfs_mknod")
int BPF_PROG(file_mknod_6__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     umode_t mode, dev_t dev, void *lease, int ret)
{
	return on_mknod(dentry, mode, dev, ret);
}

STK_SESSION(vfs_mknod, file_mknod_6, STK_KIND_MKNOD,
	    on_mknod(STK_AS(dentry, call.arg[2]), call.arg[3], call.arg[4], (int)ret))

/* What mknod(2) calls for a regular file. With four, the directory or an id map comes first: neither is looked at. */
SEC("?fexit/vfs_create")
int BPF_PROG(file_mknod_regular_4__fexit, void *first, struct dentry *dentry, umode_t mode,
	     void *last, int ret)
{
	return on_mknod(dentry, mode, 0, ret);
}

STK_SESSION(vfs_create, file_mknod_regular_4, STK_KIND_MKNOD,
	    on_mknod(STK_AS(dentry, call.arg[1]), call.arg[2], 0, (int)ret))

SEC("?fexit/vfs_create")
int BPF_PROG(file_mknod_regular_5__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     umode_t mode, bool exclusive, int ret)
{
	return on_mknod(dentry, mode, 0, ret);
}

SEC("?fexit/vfs_symlink")
int BPF_PROG(file_symlink_3__fexit, struct inode *dir, struct dentry *dentry, const char *target,
	     int ret)
{
	return on_change(STK_CHANGE_SYMLINK, dentry, ret, 0, 0, 0, target);
}

SEC("?fexit/vfs_symlink")
int BPF_PROG(file_symlink_4__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     const char *target, int ret)
{
	return on_change(STK_CHANGE_SYMLINK, dentry, ret, 0, 0, 0, target);
}

SEC("?fexit/vfs_symlink")
int BPF_PROG(file_symlink_5__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     const char *target, void *lease, int ret)
{
	return on_change(STK_CHANGE_SYMLINK, dentry, ret, 0, 0, 0, target);
}

STK_SESSION(vfs_symlink, file_symlink_5, STK_KIND_SYMLINK,
	    on_change(STK_CHANGE_SYMLINK, STK_AS(dentry, call.arg[2]), (int)ret, 0, 0, 0,
		      (const char *)call.arg[3]))

SEC("?fexit/vfs_link")
int BPF_PROG(file_link_4__fexit, struct dentry *old, struct inode *dir, struct dentry *dentry,
	     void *lease, int ret)
{
	return on_link(old, dentry, ret);
}

SEC("?fexit/vfs_link")
int BPF_PROG(file_link_5__fexit, struct dentry *old, void *idmap, struct inode *dir,
	     struct dentry *dentry, void *lease, int ret)
{
	return on_link(old, dentry, ret);
}

STK_SESSION(vfs_link, file_link_5, STK_KIND_LINK,
	    on_link(STK_AS(dentry, call.arg[0]), STK_AS(dentry, call.arg[3]), (int)ret))

SEC("?fentry/notify_change")
int BPF_PROG(file_attributes_begin_3__fentry, struct dentry *dentry, struct iattr *attr)
{
	return on_setattr_begin(dentry, attr);
}

SEC("?fentry/notify_change")
int BPF_PROG(file_attributes_begin_4__fentry, void *idmap, struct dentry *dentry,
	     struct iattr *attr)
{
	return on_setattr_begin(dentry, attr);
}

STK_ENTRY(notify_change, file_attributes_begin_4,
	  on_setattr_begin(STK_AS(dentry, PT_REGS_PARM2(ctx)), STK_AS(iattr, PT_REGS_PARM3(ctx))))

SEC("?fexit/notify_change")
int BPF_PROG(file_attributes_end_3__fexit, struct dentry *dentry, struct iattr *attr, void *lease,
	     int ret)
{
	return on_setattr(dentry, ret);
}

SEC("?fexit/notify_change")
int BPF_PROG(file_attributes_end_4__fexit, void *idmap, struct dentry *dentry, struct iattr *attr,
	     void *lease, int ret)
{
	return on_setattr(dentry, ret);
}

STK_SESSION(notify_change, file_attributes_end_4, STK_KIND_SETATTR,
	    on_setattr(STK_AS(dentry, call.arg[1]), (int)ret))

SEC("?fexit/vfs_setxattr")
int BPF_PROG(file_setxattr_5__fexit, struct dentry *dentry, const char *name, void *value,
	     size_t size, int flags, int ret)
{
	return on_change(STK_CHANGE_SETXATTR, dentry, ret, 0, 0, 0, name);
}

SEC("?fexit/vfs_setxattr")
int BPF_PROG(file_setxattr_6__fexit, void *idmap, struct dentry *dentry, const char *name,
	     void *value, size_t size, int flags, int ret)
{
	return on_change(STK_CHANGE_SETXATTR, dentry, ret, 0, 0, 0, name);
}

STK_SESSION(vfs_setxattr, file_setxattr_6, STK_KIND_XATTR,
	    on_change(STK_CHANGE_SETXATTR, STK_AS(dentry, call.arg[1]), (int)ret, 0, 0, 0,
		      (const char *)call.arg[2]))

SEC("?fexit/vfs_removexattr")
int BPF_PROG(file_removexattr_2__fexit, struct dentry *dentry, const char *name, int ret)
{
	return on_change(STK_CHANGE_REMOVEXATTR, dentry, ret, 0, 0, 0, name);
}

SEC("?fexit/vfs_removexattr")
int BPF_PROG(file_removexattr_3__fexit, void *idmap, struct dentry *dentry, const char *name,
	     int ret)
{
	return on_change(STK_CHANGE_REMOVEXATTR, dentry, ret, 0, 0, 0, name);
}

STK_SESSION(vfs_removexattr, file_removexattr_3, STK_KIND_XATTR,
	    on_change(STK_CHANGE_REMOVEXATTR, STK_AS(dentry, call.arg[1]), (int)ret, 0, 0, 0,
		      (const char *)call.arg[2]))

/* Before 6.2 the lists of access rights go the way of all extended attributes. */
SEC("?fexit/vfs_set_acl")
int BPF_PROG(file_set_acl__fexit, void *idmap, struct dentry *dentry, const char *name, void *acl,
	     int ret)
{
	return on_change(STK_CHANGE_SETXATTR, dentry, ret, 0, 0, 0, name);
}

STK_SESSION(vfs_set_acl, file_set_acl, STK_KIND_XATTR,
	    on_change(STK_CHANGE_SETXATTR, STK_AS(dentry, call.arg[1]), (int)ret, 0, 0, 0,
		      (const char *)call.arg[2]))

SEC("?fexit/vfs_remove_acl")
int BPF_PROG(file_remove_acl__fexit, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return on_change(STK_CHANGE_REMOVEXATTR, dentry, ret, 0, 0, 0, name);
}

STK_SESSION(vfs_remove_acl, file_remove_acl, STK_KIND_XATTR,
	    on_change(STK_CHANGE_REMOVEXATTR, STK_AS(dentry, call.arg[1]), (int)ret, 0, 0, 0,
		      (const char *)call.arg[2]))

SEC("?fexit/path_mount")
int BPF_PROG(file_mount__fexit, const char *source, struct path *path, const char *type,
	     unsigned long flags, void *data, int ret)
{
	return on_mount(source, path, type, flags, ret);
}

/* mount(8) takes the new calls where it has them; this one makes the mount visible. */
SEC("?fentry/security_move_mount")
int BPF_PROG(file_move_mount_begin__fentry, const struct path *from, const struct path *to)
{
	return on_move_mount(from, to);
}

#ifdef __TARGET_ARCH_x86
SEC("?fexit/__x64_sys_move_mount")
#else
SEC("?fexit/__arm64_sys_move_mount")
#endif
int BPF_PROG(file_move_mount_end__fexit, const struct pt_regs *regs, long ret)
{
	return on_mounts_changed(STK_CHANGE_MOUNT, 0, 0, ret);
}

SEC("?fentry/path_umount")
int BPF_PROG(file_umount_begin__fentry, struct path *path)
{
	return on_umount(path);
}

SEC("?fexit/path_umount")
int BPF_PROG(file_umount_end__fexit, struct path *path, int flags, int ret)
{
	return on_mounts_changed(STK_CHANGE_UMOUNT, STK_SET_FLAGS, flags, ret);
}

/*
 * A tax on every system call of the machine: what is none of these pays for one load and the comparisons, no helper.
 */
SEC("?tp_btf/sys_exit")
int BPF_PROG(file_change__tp_btf, struct pt_regs *regs, long ret)
{
#if defined(__TARGET_ARCH_x86)
	long nr = regs->orig_ax;
#else
	long nr = regs->syscallno;
#endif

	return is_change(nr) ? sys_change(regs, nr, ret) : 0;
}

#endif
