/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What happens to files: opens, creations, removals and renames here, other changes in change.bpf.h, each with its
 * result.
 *
 * Best variant: the functions that do the work, which io_uring goes through too and which tax nobody else. Where the
 * kernel refuses fentry: the exit tracepoints of the system calls, and at last sys_exit for all of them. Those see the
 * caller's strings only (STK_FLAG_AS_GIVEN), except for an open that succeeded.
 *
 * An open on behalf of execve is part of the exec event and not reported here.
 */
#include "path.bpf.h"
#define STK_SESSIONS stk_file_calls_begun
#include "session.bpf.h"

STK_EXPORT(stk_file);
STK_EXPORT(stk_rename);
STK_EXPORT(stk_change);

STK_SCRATCH_MAP(stk_file_buf);
STK_SCRATCH_WALK(stk_file_buf, file_walk)
STK_SCRATCH_WANTED(stk_file_buf, file_is_wanted)

/* A removal or rename between its path hook, which knows the mount, and its end, which knows the result. */
struct stk_pending {
	struct dentry *dentry;
	struct dentry *old_dir;
	struct dentry *new_dir;
	struct vfsmount *mnt;
	struct stk_file_id file;
	struct stk_file_id replaced;
	__u32 rename_flags;
	__u32 old_name_len;
	__u32 new_name_len;
	__u32 op; /* stk_change_op; 0 for an unlink or a rename */
	__u8 old_name[STK_NAME_MAX];
	__u8 new_name[STK_NAME_MAX];
};

/* By thread. LRU: what never comes to its end falls out. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct stk_pending);
} stk_pending_ops SEC(".maps");

/* A pending operation is too large for the stack; one zeroed template per CPU is filled and copied into the map. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_pending);
} stk_pending_new SEC(".maps");

static __always_inline struct stk_file *start(struct stk_scratch *s, __u32 kind, long result,
					      __u32 open_flags)
{
	struct stk_file *rec = (struct stk_file *)s->rec;

	stk_header(&rec->hdr, kind, 0);
	__builtin_memset(&rec->file, 0, sizeof(rec->file));
	rec->result = result;
	rec->open_flags = open_flags;
	rec->path_len = 0;
	rec->base_len = 0;
	return rec;
}

/* Returns what the walk does. */
static __always_inline __u32 put_path(struct stk_file *rec, struct stk_place place)
{
	__u32 off = file_walk(place.dentry, place.mnt, sizeof(*rec), sizeof(*rec) + STK_PATH_MAX);

	if (!place.mnt)
		rec->hdr.flags |= STK_FLAG_NO_MOUNT;
	if (off & STK_WALK_CUT)
		rec->hdr.flags |= STK_FLAG_PATH_CUT;
	rec->path_len = (off & STK_WALK_OFF) - sizeof(*rec);
	return off;
}

/*
 * Appends at `at` where a relative name starts: the working directory, or what the caller's directory descriptor stands
 * for. Returns what the walk does.
 */
static __always_inline __u32 walk_base(__u32 at, int dfd)
{
	struct task_struct *task = stk_current();
	struct stk_place place;

	if (dfd == STK_AT_FDCWD) {
		struct fs_struct *fs = STK_FOLLOW(task, fs);

		place = stk_place_of(&fs->pwd);
	} else {
		struct file *file = dfd < 0 ? NULL : stk_file_of_fd(task, dfd);

		if (!file)
			return at;
		place = stk_place_of(&file->f_path);
	}
	return file_walk(place.dentry, place.mnt, at, at + STK_PATH_MAX);
}

static __always_inline void put_base(struct stk_file *rec, int dfd)
{
	__u32 at = sizeof(*rec) + rec->path_len;
	__u32 off = walk_base(at, dfd);

	if (off & STK_WALK_CUT)
		rec->hdr.flags |= STK_FLAG_CWD_CUT;
	rec->base_len = (off & STK_WALK_OFF) - at;
}

/* What a path may have instead of the whole of what it is on this machine. */
enum {
	STK_PATH_UNKNOWN = STK_FLAG_AS_GIVEN | STK_FLAG_NO_MOUNT | STK_FLAG_PATH_CUT,
	STK_PATH2_UNKNOWN = STK_FLAG_AS_GIVEN | STK_FLAG_NO_MOUNT | STK_FLAG_PATH2_CUT,
};

/* Whether somebody asked for this path. Of what is not known whole, user space finds out. */
static __always_inline bool is_asked_for(__u32 unknown, __u32 at, __u32 len)
{
	return !stk_config.prefixes || unknown || file_is_wanted(at, len);
}

static __always_inline void finish(struct stk_file *rec, struct stk_scratch *s, __u64 seq,
				   __u32 kind)
{
	__u32 len = sizeof(*rec) + rec->path_len + rec->base_len;

	if (!is_asked_for(rec->hdr.flags & STK_PATH_UNKNOWN, sizeof(*rec), rec->path_len))
		return;
	rec->hdr.len = len;
	stk_scratch_send(s, seq, kind, len);
}

/* What was opened is in `file`; or it failed with `result` and the name is all there is. */
static __always_inline void emit_open(struct file *file, bool typed, long result, __u32 open_flags,
				      int dfd, const char *name, bool user)
{
	__u32 kind = STK_KIND_OPEN;
	struct stk_scratch *s;
	struct stk_file *rec;
	__u64 seq;
	long n;

	if (stk_config.filter & STK_FILTER_ERRORS && file)
		return;
	if (file && STK_GET_TYPED(file, file, typed, f_mode) & STK_FMODE_CREATED)
		kind = STK_KIND_CREATE;
	s = stk_scratch_begin(&stk_file_buf, kind, &seq);
	if (!s)
		return;
	rec = start(s, kind, result, open_flags);
	if (file) {
		struct inode *inode = STK_GET_TYPED(file, file, typed, f_inode);

		stk_file_id_of(&rec->file, inode, typed);
		if (put_path(rec, stk_place_of(&file->f_path)) & STK_WALK_DELETED)
			rec->hdr.flags |= STK_FLAG_DELETED;
	} else {
		__u8 *path = s->rec + sizeof(*rec);

		rec->hdr.flags |= STK_FLAG_AS_GIVEN;
		if (user)
			n = bpf_probe_read_user_str(path, STK_PATH_MAX, name);
		else
			n = bpf_probe_read_kernel_str(path, STK_PATH_MAX, name);
		if (n > 0) {
			rec->path_len = n;
			if (path[0] != '/')
				put_base(rec, dfd);
		}
	}
	finish(rec, s, seq, kind);
}

static __always_inline int on_open(int dfd, struct filename *name, const struct open_flags *op,
				   struct file *file)
{
	__u32 open_flags = op->open_flag;

	if (open_flags & STK_FMODE_EXEC || !stk_wanted())
		return 0;
	/* io_uring's first try, which must not sleep; it comes again. (LOOKUP_CACHED would say so, but its bit moves.) */
	if ((long)file == -EAGAIN && BPF_CORE_READ(stk_current(), io_uring))
		return 0;
	if (STK_IS_ERR(file))
		emit_open(NULL, true, (long)file, open_flags, dfd, name->name, false);
	else
		emit_open(file, true, 0, open_flags, dfd, NULL, false);
	return 0;
}

static __always_inline struct stk_pending *pending_new(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stk_pending_new, &zero);
}

static __always_inline __u32 copy_name(__u8 *to, struct dentry *dentry)
{
	long n = bpf_probe_read_kernel_str(to, STK_NAME_MAX, dentry->d_name.name);

	return n > 0 ? n : 0;
}

/* Of a dentry that an fentry program was given. */
static __always_inline void id_of_dentry(struct stk_file_id *id, struct dentry *dentry)
{
	struct inode *inode = dentry->d_inode;

	if (inode)
		stk_file_id_of(id, inode, true);
	else
		__builtin_memset(id, 0, sizeof(*id));
}

static __always_inline int on_path_removal(const struct path *dir, struct dentry *dentry, __u32 op)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_pending *p;

	if (!stk_wanted())
		return 0;
	p = pending_new();
	if (!p)
		return 0;
	p->op = op;
	p->dentry = dentry;
	p->mnt = dir->mnt;
	id_of_dentry(&p->file, dentry);
	if (op) {
		p->old_dir = dir->dentry;
		copy_name(p->old_name, dentry);
	}
	if (bpf_map_update_elem(&stk_pending_ops, &tid, p, BPF_ANY))
		stk_lost(op ? STK_KIND_RMDIR : STK_KIND_UNLINK, STK_LOSS_MAP);
	return 0;
}

static __always_inline int on_unlinked(struct dentry *dentry, int result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_pending *p = bpf_map_lookup_elem(&stk_pending_ops, &tid);
	struct stk_place place;
	struct stk_scratch *s;
	struct stk_file *rec;
	__u64 seq;

	/* Nothing pending: nobody asked. Another dentry: a layer below the one that the caller named (overlayfs). */
	if (!p || p->dentry != dentry)
		return 0;
	if (stk_config.filter & STK_FILTER_ERRORS && result >= 0)
		goto done;
	s = stk_scratch_begin(&stk_file_buf, STK_KIND_UNLINK, &seq);
	if (!s)
		goto done;
	rec = start(s, STK_KIND_UNLINK, result, 0);
	rec->file = p->file;
	place.dentry = (__u64)p->dentry;
	place.mnt = stk_mount_of(p->mnt);
	put_path(rec, place);
	finish(rec, s, seq, STK_KIND_UNLINK);
done:
	bpf_map_delete_elem(&stk_pending_ops, &tid);
	return 0;
}

static __always_inline int on_path_rename(const struct path *old_dir, struct dentry *old_dentry,
					  const struct path *new_dir, struct dentry *new_dentry,
					  __u32 flags)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_pending *p;

	if (!stk_wanted())
		return 0;
	p = pending_new();
	if (!p)
		return 0;
	p->op = 0;
	p->dentry = old_dentry;
	p->old_dir = old_dir->dentry;
	p->new_dir = new_dir->dentry;
	p->mnt = old_dir->mnt; /* a rename never leaves its mount */
	p->rename_flags = flags;
	id_of_dentry(&p->file, old_dentry);
	id_of_dentry(&p->replaced, new_dentry);
	/* The names are taken now: a rename that succeeds gives the old dentry the new name. */
	p->old_name_len = copy_name(p->old_name, old_dentry);
	p->new_name_len = copy_name(p->new_name, new_dentry);
	if (bpf_map_update_elem(&stk_pending_ops, &tid, p, BPF_ANY))
		stk_lost(STK_KIND_RENAME, STK_LOSS_MAP);
	return 0;
}

static __always_inline int on_renamed(struct dentry *old_dentry, int result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_pending *p = bpf_map_lookup_elem(&stk_pending_ops, &tid);
	struct stk_scratch *s;
	struct stk_rename *rec;
	__u64 seq, mnt;
	__u32 off, at;
	__u8 *data;
	long n;

	if (!p || p->dentry != old_dentry)
		return 0;
	if (stk_config.filter & STK_FILTER_ERRORS && result >= 0)
		goto done;
	s = stk_scratch_begin(&stk_file_buf, STK_KIND_RENAME, &seq);
	if (!s)
		goto done;
	rec = (struct stk_rename *)s->rec;
	data = s->rec + sizeof(*rec);
	stk_header(&rec->hdr, STK_KIND_RENAME, 0);
	rec->file = p->file;
	rec->replaced = p->replaced;
	rec->result = result;
	rec->rename_flags = p->rename_flags;

	mnt = stk_mount_of(p->mnt);
	n = bpf_probe_read_kernel_str(data, STK_NAME_MAX, p->old_name);
	off = sizeof(*rec) + (n > 0 ? n : 0);
	off = file_walk((__u64)p->old_dir, mnt, off, sizeof(*rec) + STK_PATH_MAX);
	if (off & STK_WALK_CUT)
		rec->hdr.flags |= STK_FLAG_PATH_CUT;
	off &= STK_WALK_OFF;
	rec->old_len = off - sizeof(*rec);

	at = off;
	asm volatile("" : "+r"(off));
	if (off > STK_WALK_LIMIT)
		goto done; /* cannot be: the walk ends below */
	n = bpf_probe_read_kernel_str(s->rec + off, STK_NAME_MAX, p->new_name);
	if (n > 0)
		off += n;
	off = file_walk((__u64)p->new_dir, mnt, off, sizeof(*rec) + STK_PATH_BUF + STK_PATH_MAX);
	if (off & STK_WALK_CUT)
		rec->hdr.flags |= STK_FLAG_PATH2_CUT;
	off &= STK_WALK_OFF;
	rec->new_len = off - at;

	if (!is_asked_for(rec->hdr.flags & STK_PATH_UNKNOWN, sizeof(*rec), rec->old_len) &&
	    !is_asked_for(rec->hdr.flags & STK_PATH2_UNKNOWN, at, rec->new_len))
		goto done;
	rec->hdr.len = off;
	stk_scratch_send(s, seq, STK_KIND_RENAME, off);
done:
	bpf_map_delete_elem(&stk_pending_ops, &tid);
	return 0;
}

/* The same three, from a system call that has returned: its arguments are still in the registers. */

static __always_inline int sys_open(int dfd, const char *name, __u32 open_flags, long ret)
{
	if (ret < 0)
		emit_open(NULL, false, ret, open_flags, dfd, name, true);
	else
		emit_open(stk_file_of_fd(stk_current(), ret), false, 0, open_flags, dfd, name,
			  true);
	return 0;
}

static __always_inline int sys_unlink(int dfd, const char *name, long ret)
{
	struct stk_scratch *s;
	struct stk_file *rec;
	__u64 seq;
	__u8 *path;
	long n;

	if (stk_config.filter & STK_FILTER_ERRORS && ret >= 0)
		return 0;
	s = stk_scratch_begin(&stk_file_buf, STK_KIND_UNLINK, &seq);
	if (!s)
		return 0;
	rec = start(s, STK_KIND_UNLINK, ret, 0);
	path = s->rec + sizeof(*rec);
	rec->hdr.flags |= STK_FLAG_AS_GIVEN;
	n = bpf_probe_read_user_str(path, STK_PATH_MAX, name);
	if (n > 0) {
		rec->path_len = n;
		if (path[0] != '/')
			put_base(rec, dfd);
	}
	finish(rec, s, seq, STK_KIND_UNLINK);
	return 0;
}

static __always_inline int sys_rename(const char *old, const char *new, __u32 flags, long ret)
{
	struct stk_scratch *s;
	struct stk_rename *rec;
	__u32 off = 0;
	__u64 seq;
	__u8 *data;
	long n;

	if (stk_config.filter & STK_FILTER_ERRORS && ret >= 0)
		return 0;
	s = stk_scratch_begin(&stk_file_buf, STK_KIND_RENAME, &seq);
	if (!s)
		return 0;
	rec = (struct stk_rename *)s->rec;
	data = s->rec + sizeof(*rec);
	stk_header(&rec->hdr, STK_KIND_RENAME, 0);
	__builtin_memset(&rec->file, 0, sizeof(rec->file));
	__builtin_memset(&rec->replaced, 0, sizeof(rec->replaced));
	rec->hdr.flags |= STK_FLAG_AS_GIVEN;
	rec->result = ret;
	rec->rename_flags = flags;
	n = bpf_probe_read_user_str(data, STK_PATH_MAX, old);
	if (n > 0)
		off = n;
	rec->old_len = off;
	asm volatile("" : "+r"(off));
	if (off > STK_PATH_MAX)
		return 0;
	n = bpf_probe_read_user_str(data + off, STK_PATH_MAX, new);
	rec->new_len = n > 0 ? n : 0;
	off += rec->new_len + sizeof(*rec);
	rec->hdr.len = off;
	stk_scratch_send(s, seq, STK_KIND_RENAME, off);
	return 0;
}

SEC("?fexit/do_filp_open")
int BPF_PROG(file_open__fexit, int dfd, struct filename *name, const struct open_flags *op,
	     struct file *ret)
{
	return on_open(dfd, name, op, ret);
}

/* do_filp_open's name from 7.0 on. */
SEC("?fexit/do_file_open")
int BPF_PROG(file_open_7__fexit, int dfd, struct filename *name, const struct open_flags *op,
	     struct file *ret)
{
	return on_open(dfd, name, op, ret);
}

STK_SESSION(do_file_open, file_open_7, STK_KIND_OPEN,
	    on_open(call.arg[0], STK_AS(filename, call.arg[1]), STK_AS(open_flags, call.arg[2]),
		    STK_AS(file, ret)))

SEC("?fentry/security_path_unlink")
int BPF_PROG(file_unlink_begin__fentry, const struct path *dir, struct dentry *dentry)
{
	return on_path_removal(dir, dentry, 0);
}

STK_ENTRY(security_path_unlink, file_unlink_begin,
	  on_path_removal(STK_AS(path, PT_REGS_PARM1(ctx)), STK_AS(dentry, PT_REGS_PARM2(ctx)), 0))

/* 5.10: (dir, dentry, delegated); later a user namespace or id map comes first. */
SEC("?fexit/vfs_unlink")
int BPF_PROG(file_unlink_end_3__fexit, struct inode *dir, struct dentry *dentry, void *delegated,
	     int ret)
{
	return on_unlinked(dentry, ret);
}

SEC("?fexit/vfs_unlink")
int BPF_PROG(file_unlink_end_4__fexit, void *idmap, struct inode *dir, struct dentry *dentry,
	     void *delegated, int ret)
{
	return on_unlinked(dentry, ret);
}

STK_SESSION(vfs_unlink, file_unlink_end_4, STK_KIND_UNLINK,
	    on_unlinked(STK_AS(dentry, call.arg[2]), (int)ret))

SEC("?fentry/security_path_rename")
int BPF_PROG(file_rename_begin__fentry, const struct path *old_dir, struct dentry *old_dentry,
	     const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)
{
	return on_path_rename(old_dir, old_dentry, new_dir, new_dentry, flags);
}

STK_ENTRY(security_path_rename, file_rename_begin,
	  on_path_rename(STK_AS(path, PT_REGS_PARM1(ctx)), STK_AS(dentry, PT_REGS_PARM2(ctx)),
			 STK_AS(path, PT_REGS_PARM3(ctx)), STK_AS(dentry, PT_REGS_PARM4(ctx)),
			 PT_REGS_PARM5(ctx)))

/* With struct renamedata: 5.12 (9fe61450972d), and the 5.10 stable tree by backport. */
SEC("?fexit/vfs_rename")
int BPF_PROG(file_rename_end__fexit, struct renamedata *rd, int ret)
{
	return on_renamed(rd->old_dentry, ret);
}

STK_SESSION(vfs_rename, file_rename_end, STK_KIND_RENAME,
	    on_renamed(STK_AS(renamedata, call.arg[0])->old_dentry, (int)ret))

SEC("?tp/syscalls/sys_exit_openat")
int file_openat__tp(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *regs;

	if (!stk_wanted())
		return 0;
	regs = stk_regs();
	return sys_open(PT_REGS_PARM1_SYSCALL(regs), (const char *)PT_REGS_PARM2_SYSCALL(regs),
			PT_REGS_PARM3_SYSCALL(regs), ctx->ret);
}

SEC("?tp/syscalls/sys_exit_openat2")
int file_openat2__tp(struct trace_event_raw_sys_exit *ctx)
{
	struct open_how *how;
	struct pt_regs *regs;
	__u64 flags = 0;

	if (!stk_wanted())
		return 0;
	regs = stk_regs();
	how = (struct open_how *)PT_REGS_PARM3_SYSCALL(regs);
	bpf_probe_read_user(&flags, sizeof(flags), &how->flags);
	return sys_open(PT_REGS_PARM1_SYSCALL(regs), (const char *)PT_REGS_PARM2_SYSCALL(regs),
			flags, ctx->ret);
}

SEC("?tp/syscalls/sys_exit_unlinkat")
int file_unlinkat__tp(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *regs;

	if (!stk_wanted())
		return 0;
	regs = stk_regs();
	/* rmdir has its own system call, and this one with AT_REMOVEDIR. */
	if (PT_REGS_PARM3_SYSCALL(regs) & STK_AT_REMOVEDIR)
		return 0;
	return sys_unlink(PT_REGS_PARM1_SYSCALL(regs), (const char *)PT_REGS_PARM2_SYSCALL(regs),
			  ctx->ret);
}

SEC("?tp/syscalls/sys_exit_renameat")
int file_renameat__tp(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *regs;

	if (!stk_wanted())
		return 0;
	regs = stk_regs();
	return sys_rename((const char *)PT_REGS_PARM2_SYSCALL(regs),
			  (const char *)PT_REGS_PARM4_SYSCALL(regs), 0, ctx->ret);
}

SEC("?tp/syscalls/sys_exit_renameat2")
int file_renameat2__tp(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *regs;

	if (!stk_wanted())
		return 0;
	regs = stk_regs();
	return sys_rename((const char *)PT_REGS_PARM2_SYSCALL(regs),
			  (const char *)PT_REGS_PARM4_SYSCALL(regs), PT_REGS_PARM5_SYSCALL(regs),
			  ctx->ret);
}

/* aarch64 has the at-forms alone. */
#ifdef __TARGET_ARCH_x86
SEC("?tp/syscalls/sys_exit_open")
int file_open__tp(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *regs;

	if (!stk_wanted())
		return 0;
	regs = stk_regs();
	return sys_open(STK_AT_FDCWD, (const char *)PT_REGS_PARM1_SYSCALL(regs),
			PT_REGS_PARM2_SYSCALL(regs), ctx->ret);
}

SEC("?tp/syscalls/sys_exit_creat")
int file_creat__tp(struct trace_event_raw_sys_exit *ctx)
{
	if (!stk_wanted())
		return 0;
	return sys_open(STK_AT_FDCWD, (const char *)PT_REGS_PARM1_SYSCALL(stk_regs()),
			STK_O_CREAT_FLAGS, ctx->ret);
}

SEC("?tp/syscalls/sys_exit_unlink")
int file_unlink__tp(struct trace_event_raw_sys_exit *ctx)
{
	if (!stk_wanted())
		return 0;
	return sys_unlink(STK_AT_FDCWD, (const char *)PT_REGS_PARM1_SYSCALL(stk_regs()), ctx->ret);
}

SEC("?tp/syscalls/sys_exit_rename")
int file_rename__tp(struct trace_event_raw_sys_exit *ctx)
{
	struct pt_regs *regs;

	if (!stk_wanted())
		return 0;
	regs = stk_regs();
	return sys_rename((const char *)PT_REGS_PARM1_SYSCALL(regs),
			  (const char *)PT_REGS_PARM2_SYSCALL(regs), 0, ctx->ret);
}
#endif

/*
 * From here on: a tax on every system call of the machine; only where nothing else loads. So the number is looked at
 * before all: what nobody asked for pays for that and no more. 32-bit calls have other numbers.
 */

static __always_inline bool asked_for(struct pt_regs *regs)
{
	return !stk_compat(regs) && stk_wanted();
}

SEC("?tp_btf/sys_exit")
int BPF_PROG(file_open__tp_btf, struct pt_regs *regs, long ret)
{
	long nr = stk_syscall_nr(regs);
	__u64 flags;

	if (nr == STK_NR_openat || nr == STK_NR_openat2) {
		if (!asked_for(regs))
			return 0;
		flags = PT_REGS_PARM3_SYSCALL(regs);
		if (nr == STK_NR_openat2)
			bpf_probe_read_user(&flags, sizeof(flags), (void *)flags);
		return sys_open(PT_REGS_PARM1_SYSCALL(regs),
				(const char *)PT_REGS_PARM2_SYSCALL(regs), flags, ret);
	}
#ifdef __TARGET_ARCH_x86
	if ((nr == STK_NR_open || nr == STK_NR_creat) && asked_for(regs)) {
		flags = nr == STK_NR_open ? PT_REGS_PARM2_SYSCALL(regs) : STK_O_CREAT_FLAGS;
		return sys_open(STK_AT_FDCWD, (const char *)PT_REGS_PARM1_SYSCALL(regs), flags,
				ret);
	}
#endif
	return 0;
}

SEC("?tp_btf/sys_exit")
int BPF_PROG(file_unlink__tp_btf, struct pt_regs *regs, long ret)
{
	long nr = stk_syscall_nr(regs);

	if (nr == STK_NR_unlinkat) {
		if (PT_REGS_PARM3_SYSCALL(regs) & STK_AT_REMOVEDIR || !asked_for(regs))
			return 0;
		return sys_unlink(PT_REGS_PARM1_SYSCALL(regs),
				  (const char *)PT_REGS_PARM2_SYSCALL(regs), ret);
	}
#ifdef __TARGET_ARCH_x86
	if (nr == STK_NR_unlink && asked_for(regs))
		return sys_unlink(STK_AT_FDCWD, (const char *)PT_REGS_PARM1_SYSCALL(regs), ret);
#endif
	return 0;
}

SEC("?tp_btf/sys_exit")
int BPF_PROG(file_rename__tp_btf, struct pt_regs *regs, long ret)
{
	long nr = stk_syscall_nr(regs);

	if (nr == STK_NR_renameat || nr == STK_NR_renameat2) {
		if (!asked_for(regs))
			return 0;
		return sys_rename((const char *)PT_REGS_PARM2_SYSCALL(regs),
				  (const char *)PT_REGS_PARM4_SYSCALL(regs),
				  nr == STK_NR_renameat2 ? PT_REGS_PARM5_SYSCALL(regs) : 0, ret);
	}
#ifdef __TARGET_ARCH_x86
	if (nr == STK_NR_rename && asked_for(regs))
		return sys_rename((const char *)PT_REGS_PARM1_SYSCALL(regs),
				  (const char *)PT_REGS_PARM2_SYSCALL(regs), 0, ret);
#endif
	return 0;
}

#include "change.bpf.h"
