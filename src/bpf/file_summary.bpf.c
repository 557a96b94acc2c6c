/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What processes do with files, counted: opens, reads and writes with their bytes and times, by process and file.
 *
 * Only regular files and block devices: everything else (pipes, sockets, terminals, directories) is left out at the first
 * look. Counted is the file that the caller has open. What a file system opens for itself below that one, as overlayfs
 * does, has no account (FMODE_NOACCOUNT) and would be counted twice.
 *
 * Counters are taken out and not compared, because a process can use more files in its life than a map has room for.
 * What is counted belongs to an epoch; user space begins the next one, waits until the programs that had read the old
 * one are done, and takes what was counted in it.
 */
#include "summary.bpf.h"
#include "path.bpf.h"
#include "task.bpf.h"

STK_EXPORT(stk_file_key);
STK_EXPORT(stk_file_sum);
STK_EXPORT(stk_file_path_key);
STK_EXPORT(stk_file_path);

STK_SCRATCH_MAP(stk_fpath_buf);
STK_SCRATCH_WALK(stk_fpath_buf, fpath_walk)
STK_SCRATCH_WANTED(stk_fpath_buf, fpath_is_wanted)

enum {
	STK_FILES_MAX = 16384, /* process and file, in one epoch */
};

/* include/uapi/linux/stat.h */
#define STK_S_IFBLK 0060000
/* include/linux/fs.h */
#define STK_FMODE_NOACCOUNT (1 << 29)
/* include/uapi/linux/magic.h: eventfd, timerfd and the like, which are regular files on some kernels. */
#define STK_ANON_INODE_MAGIC 0x09041934
/* include/uapi/linux/io_uring.h */
#define STK_URING_IOPOLL       (1 << 0)
#define STK_URING_WRITEV       2
#define STK_URING_WRITE_FIXED  5
#define STK_URING_WRITE        23
#define STK_URING_WRITEV_FIXED 61

/* What a thread has begun and not ended. */
struct stk_file_begun {
	__u64 of; /* the file, or what else stands for the operation; 0: none */
	__u64 time_ns;
};

/* By thread. LRU: a thread that is killed inside an operation never ends it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct stk_file_begun);
} stk_file_begun SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_FILES_MAX);
	__type(key, struct stk_file_key);
	__type(value, struct stk_file_sum);
} stk_file_sums SEC(".maps");

/* Counters at 0, for which the stack is too small. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_file_sum);
} stk_file_zero SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_FILES_MAX);
	__type(key, struct stk_file_path_key);
	__type(value, struct stk_file_path);
} stk_file_paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stk_file_epoch SEC(".maps");

static __always_inline __u32 epoch_now(void)
{
	__u32 zero = 0, *epoch = bpf_map_lookup_elem(&stk_file_epoch, &zero);

	return epoch ? *epoch : 0;
}

/* Before all else: most reads and writes of a machine are of pipes and sockets. `typed` as for stk_file_id_of(). */
static __always_inline bool countable(struct file *file, bool typed)
{
	struct inode *inode = STK_GET_TYPED(file, file, typed, f_inode);
	__u32 type = STK_GET_TYPED(inode, inode, typed, i_mode) & STK_S_IFMT;

	if (type != STK_S_IFREG && type != STK_S_IFBLK)
		return false;
	/* The others come from descriptors, which such a file never has. */
	if (typed && file->f_mode & STK_FMODE_NOACCOUNT)
		return false;
	return STK_GET_TYPED(inode, inode, typed, i_sb, s_magic) != STK_ANON_INODE_MAGIC;
}

/* Notes how the file is called, once in an epoch. Returns whether somebody asked for it. */
static __always_inline bool note_path(struct file *file, const struct stk_file_path_key *key)
{
	const __u32 at = __builtin_offsetof(struct stk_file_path, path);
	__u32 cpu = bpf_get_smp_processor_id(), off;
	struct stk_file_path *path;
	struct stk_place place;
	struct stk_scratch *s;
	bool wanted;
	__u64 seq;

	path = bpf_map_lookup_elem(&stk_file_paths, key);
	if (path)
		return !(path->flags & STK_FLAG_NOT_WANTED);
	s = bpf_map_lookup_elem(&stk_fpath_buf, &cpu);
	if (!s) {
		stk_lost(STK_KIND_FILE, STK_LOSS_SCRATCH);
		return true;
	}
	seq = ++s->seq;
	place = stk_place_of(&file->f_path);
	/* The last component may be as long as a name can be. */
	off = fpath_walk(place.dentry, place.mnt, at, at + STK_FILE_PATH_MAX - STK_NAME_MAX);
	path = (struct stk_file_path *)s->rec;
	path->len = (off & STK_WALK_OFF) - at;
	path->flags = 0;
	if (off & STK_WALK_CUT)
		path->flags |= STK_FLAG_PATH_CUT;
	if (off & STK_WALK_DELETED)
		path->flags |= STK_FLAG_DELETED;
	/* Of a path that is cut nobody can tell. */
	wanted = !stk_config.prefixes || off & STK_WALK_CUT || fpath_is_wanted(at, path->len);
	if (!wanted)
		path->flags |= STK_FLAG_NOT_WANTED;
	if (*(volatile __u64 *)&s->seq != seq)
		stk_lost(STK_KIND_FILE, STK_LOSS_SCRATCH);
	else if (!bpf_map_update_elem(&stk_file_paths, key, path, BPF_ANY))
		stk_made();
	else if (wanted)
		stk_lost(STK_KIND_FILE, STK_LOSS_MAP);
	return wanted;
}

/*
 * The counters of a process, which is that of `task` or, for NULL, the current one, and of a file, or of what it could
 * not open, which has no path to ask for.
 */
static __always_inline struct stk_file_sum *sum_of(struct task_struct *task, struct file *file,
						   bool typed)
{
	struct stk_file_sum *sum, *zero;
	struct stk_file_key key = {};
	struct stk_file_id id = {};
	struct stk_hdr who;
	__u32 first = 0;

	if (task) {
		key.task.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
		key.task.tgid = BPF_CORE_READ(task, tgid);
	} else {
		stk_current_key(&key.task);
	}
	if (file) {
		struct inode *inode = STK_GET_TYPED(file, file, typed, f_inode);

		stk_file_id_of(&id, inode, typed);
		key.file.ino = id.ino;
		key.file.dev = id.dev;
		key.file.generation = id.generation;
	}
	key.file.epoch = epoch_now();
	sum = bpf_map_lookup_elem(&stk_file_sums, &key);
	if (sum)
		return sum;
	if (file ? !note_path(file, &key.file) : stk_config.prefixes)
		return NULL;
	zero = bpf_map_lookup_elem(&stk_file_zero, &first);
	if (!zero)
		return NULL;
	if (task)
		stk_header_of(&who, task, STK_KIND_FILE, sizeof(who));
	else
		stk_header(&who, STK_KIND_FILE, sizeof(who));
	sum = stk_counters_new(&stk_file_sums, &key, zero, STK_KIND_FILE, &who);
	if (!sum)
		return NULL;
	if (file) {
		sum->fs_magic = id.fs_magic;
		sum->mode = id.mode;
	}
	return sum;
}

/* Counts what has ended with this result. `took_ns` is 0 where it is not known. */
static __always_inline void count(struct stk_file_sum *sum, bool writes, long result, __u64 took_ns)
{
	struct stk_file_way *way;

	if (!sum)
		return;
	way = writes ? &sum->written : &sum->read;
	__sync_fetch_and_add(&way->count, 1);
	if (result < 0)
		__sync_fetch_and_add(&sum->failures, 1);
	else if (result > 0)
		__sync_fetch_and_add(&way->bytes, result);
	if (took_ns) {
		__sync_fetch_and_add(&way->time_ns, took_ns);
		stk_slots_add(way->slots, took_ns);
	}
}

/* A signal came before anything was moved, often one of the kernel's own (io_uring): the call is made again. */
static __always_inline bool is_made_again(long result)
{
	return result <= -STK_ERESTARTSYS && result >= -STK_ERESTART_RESTARTBLOCK;
}

static __always_inline int begin(__u64 of)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_file_begun *before, begun;

	if (!stk_wanted())
		return 0;
	begun.of = of;
	begun.time_ns = bpf_ktime_get_ns();
	/* In place, which no other thread does: to replace an entry of an LRU map takes a lock and a new one. */
	before = bpf_map_lookup_elem(&stk_file_begun, &tid);
	if (before)
		*before = begun;
	else
		bpf_map_update_elem(&stk_file_begun, &tid, &begun, BPF_ANY);
	return 0;
}

/* Whether what ends is wanted, and how long it took: 0 where its begin was not seen. */
static __always_inline bool end(__u64 of, __u64 *took_ns)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct stk_file_begun *begun = bpf_map_lookup_elem(&stk_file_begun, &tid);

	*took_ns = 0;
	if (!begun || begun->of != of)
		return stk_wanted();
	*took_ns = bpf_ktime_get_ns() - begun->time_ns;
	if (!*took_ns)
		*took_ns = 1;
	begun->of = 0;
	return true;
}

/* NULL is a file that could not be opened. */
static __always_inline int count_open(struct file *file, bool typed)
{
	struct stk_file_sum *sum;

	if ((file && !countable(file, typed)) || !stk_wanted())
		return 0;
	sum = sum_of(NULL, file, typed);
	if (!sum)
		return 0;
	__sync_fetch_and_add(&sum->opens, 1);
	if (!file)
		__sync_fetch_and_add(&sum->failures, 1);
	return 0;
}

static __always_inline int on_open(struct file *file, __u32 open_flags)
{
	/* On behalf of execve. */
	if (open_flags & STK_FMODE_EXEC)
		return 0;
	if (!STK_IS_ERR(file))
		return count_open(file, true);
	/* io_uring's first try, which must not sleep; it comes again. */
	if ((long)file == -EAGAIN && BPF_CORE_READ(stk_current(), io_uring))
		return 0;
	return count_open(NULL, true);
}

static __always_inline int on_begin(struct file *file)
{
	return countable(file, true) ? begin(stk_number(file)) : 0;
}

static __always_inline int on_end(struct file *file, bool writes, long result)
{
	__u64 took_ns;

	if (countable(file, true) && end(stk_number(file), &took_ns) && !is_made_again(result))
		count(sum_of(NULL, file, true), writes, result, took_ns);
	return 0;
}

SEC("?fexit/do_filp_open")
int BPF_PROG(file_count_open__fexit, int dfd, struct filename *name, const struct open_flags *op,
	     struct file *ret)
{
	return on_open(ret, op->open_flag);
}

/* do_filp_open's name from 7.0 on. */
SEC("?fexit/do_file_open")
int BPF_PROG(file_count_open_7__fexit, int dfd, struct filename *name, const struct open_flags *op,
	     struct file *ret)
{
	return on_open(ret, op->open_flag);
}

/* read(2) and pread(2), write(2) and pwrite(2). */

SEC("?fentry/vfs_read")
int BPF_PROG(file_count_read_begin__fentry, struct file *file)
{
	return on_begin(file);
}

SEC("?fexit/vfs_read")
int BPF_PROG(file_count_read__fexit, struct file *file, char *buf, size_t count, loff_t *pos,
	     ssize_t ret)
{
	return on_end(file, false, ret);
}

SEC("?fentry/vfs_write")
int BPF_PROG(file_count_write_begin__fentry, struct file *file)
{
	return on_begin(file);
}

SEC("?fexit/vfs_write")
int BPF_PROG(file_count_write__fexit, struct file *file, const char *buf, size_t count, loff_t *pos,
	     ssize_t ret)
{
	return on_end(file, true, ret);
}

/* Those with a list of buffers. */

SEC("?fentry/vfs_readv")
int BPF_PROG(file_count_readv_begin__fentry, struct file *file)
{
	return on_begin(file);
}

SEC("?fexit/vfs_readv")
int BPF_PROG(file_count_readv__fexit, struct file *file, const struct iovec *vec,
	     unsigned long vlen, loff_t *pos, int flags, ssize_t ret)
{
	return on_end(file, false, ret);
}

SEC("?fentry/vfs_writev")
int BPF_PROG(file_count_writev_begin__fentry, struct file *file)
{
	return on_begin(file);
}

SEC("?fexit/vfs_writev")
int BPF_PROG(file_count_writev__fexit, struct file *file, const struct iovec *vec,
	     unsigned long vlen, loff_t *pos, int flags, ssize_t ret)
{
	return on_end(file, true, ret);
}

/* What is moved inside the kernel is read from one and written to the other, as far as they are files. */

static __always_inline void count_copy(struct file *in, struct file *out, bool typed, long result,
				       __u64 took_ns)
{
	if (is_made_again(result))
		return;
	if (in && countable(in, typed))
		count(sum_of(NULL, in, typed), false, result, took_ns);
	if (out && countable(out, typed))
		count(sum_of(NULL, out, typed), true, result, took_ns);
}

static __always_inline __u64 both(__u32 out, __u32 in)
{
	return 1ULL << 63 | (__u64)out << 32 | in;
}

SEC("?fentry/do_sendfile")
int BPF_PROG(file_count_sendfile_begin__fentry, int out, int in)
{
	return begin(both(out, in));
}

SEC("?fexit/do_sendfile")
int BPF_PROG(file_count_sendfile__fexit, int out, int in, loff_t *pos, size_t count, loff_t max,
	     ssize_t ret)
{
	struct task_struct *task = stk_current();
	__u64 took_ns;

	if (end(both(out, in), &took_ns))
		count_copy(stk_file_of_fd(task, in), stk_file_of_fd(task, out), false, ret,
			   took_ns);
	return 0;
}

SEC("?fentry/do_splice")
int BPF_PROG(file_count_splice_begin__fentry, struct file *in, loff_t *off_in, struct file *out)
{
	return countable(in, true) || countable(out, true) ? begin(stk_number(in)) : 0;
}

SEC("?fexit/do_splice")
int BPF_PROG(file_count_splice__fexit, struct file *in, loff_t *off_in, struct file *out,
	     loff_t *off_out, size_t len, unsigned int flags, ssize_t ret)
{
	__u64 took_ns;

	if ((countable(in, true) || countable(out, true)) && end(stk_number(in), &took_ns))
		count_copy(in, out, true, ret, took_ns);
	return 0;
}

SEC("?fentry/vfs_copy_file_range")
int BPF_PROG(file_count_copy_begin__fentry, struct file *in)
{
	return on_begin(in);
}

SEC("?fexit/vfs_copy_file_range")
int BPF_PROG(file_count_copy__fexit, struct file *in, loff_t pos_in, struct file *out,
	     loff_t pos_out, size_t len, unsigned int flags, ssize_t ret)
{
	__u64 took_ns;

	if (countable(in, true) && end(stk_number(in), &took_ns))
		count_copy(in, out, true, ret, took_ns);
	return 0;
}

/*
 * io_uring. A request ends in kiocb_done() when it was done at once, and otherwise in a callback, which can run in an
 * interrupt: so whose it is says the request, and not the task that runs. It begins with its kiocb, and that with the
 * file. Nothing tells when it began.
 */

/* Before 6.13 */
struct io_kiocb___old {
	struct task_struct *task;
} __attribute__((preserve_access_index));

struct io_uring_task___new {
	struct task_struct *task;
} __attribute__((preserve_access_index));

struct io_kiocb___new {
	struct io_uring_task___new *tctx;
} __attribute__((preserve_access_index));

static __always_inline int on_uring(__u64 request, long result)
{
	struct io_kiocb *req = (struct io_kiocb *)request;
	struct io_kiocb___old *old = (void *)req;
	struct io_kiocb___new *new = (void *)req;
	struct file *file = BPF_CORE_READ(req, file);
	struct task_struct *task;
	struct io_async_rw *rest;
	__u8 op;

	/* It comes again, from where it may sleep. */
	if (result == -EAGAIN || !countable(file, false))
		return 0;
	if (bpf_core_field_exists(old->task))
		task = BPF_CORE_READ(old, task);
	else
		task = BPF_CORE_READ(new, tctx, task);
	if (!task || !stk_task_wanted(task))
		return 0;
	/* Bytes of a former try, which found part of it. */
	rest = BPF_CORE_READ(req, async_data);
	if (rest) {
		long before = BPF_CORE_READ(rest, bytes_done);

		if (before > 0)
			result = result < 0 ? before : result + before;
	}
	op = BPF_CORE_READ(req, opcode);
	count(sum_of(task, file, false),
	      op == STK_URING_WRITEV || op == STK_URING_WRITE_FIXED || op == STK_URING_WRITE ||
		      op == STK_URING_WRITEV_FIXED,
	      result, 0);
	return 0;
}

static __always_inline int on_uring_done(__u64 request, long result)
{
	struct io_kiocb *req = (struct io_kiocb *)request;

	/* The others come to a callback. */
	if (result < 0 || BPF_CORE_READ(req, ctx, flags) & STK_URING_IOPOLL)
		return 0;
	return on_uring(request, result);
}

SEC("?fentry/kiocb_done")
int BPF_PROG(file_count_uring_done__fentry, void *req, ssize_t result)
{
	return on_uring_done(ctx[0], result);
}

SEC("?fentry/io_complete_rw")
int BPF_PROG(file_count_uring_callback__fentry, void *kiocb, long result)
{
	return on_uring(ctx[0], result);
}

SEC("?fentry/io_complete_rw_iopoll")
int BPF_PROG(file_count_uring_polled__fentry, void *kiocb, long result)
{
	return on_uring(ctx[0], result);
}

/*
 * Where fentry and fexit programs are refused: both ends of the system calls. A tax on every one of the machine: what is
 * none of these pays for the comparisons. 32-bit calls have other numbers.
 */

enum stk_file_call {
	STK_CALL_NONE,
	STK_CALL_READ,
	STK_CALL_WRITE,
	STK_CALL_SENDFILE,
	STK_CALL_COPY, /* splice too: which descriptors it takes, and where they stand, is the same */
	STK_CALL_OPEN,
};

static __always_inline enum stk_file_call call_of(long nr)
{
	switch (nr) {
	case STK_NR_read:
	case STK_NR_pread64:
	case STK_NR_readv:
	case STK_NR_preadv:
	case STK_NR_preadv2:
		return STK_CALL_READ;
	case STK_NR_write:
	case STK_NR_pwrite64:
	case STK_NR_writev:
	case STK_NR_pwritev:
	case STK_NR_pwritev2:
		return STK_CALL_WRITE;
	case STK_NR_sendfile:
		return STK_CALL_SENDFILE;
	case STK_NR_splice:
	case STK_NR_copy_file_range:
		return STK_CALL_COPY;
#ifdef __TARGET_ARCH_x86
	/* aarch64 has the at-forms alone. */
	case STK_NR_open:
	case STK_NR_creat:
#endif
	case STK_NR_openat:
	case STK_NR_openat2:
		return STK_CALL_OPEN;
	default:
		return STK_CALL_NONE;
	}
}

static __always_inline int on_sys_open(long result)
{
	struct file *file;

	if (result < 0)
		return count_open(NULL, false);
	file = stk_file_of_fd(stk_current(), result);
	return file ? count_open(file, false) : 0;
}

SEC("?raw_tp/sys_enter")
int BPF_PROG(file_count_enter__raw_tp, struct pt_regs *regs, long nr)
{
	enum stk_file_call call = call_of(nr);

	/* Of an open only the end counts. */
	if (call == STK_CALL_NONE || call == STK_CALL_OPEN || stk_compat(regs))
		return 0;
	return begin(nr + 1);
}

SEC("?raw_tp/sys_exit")
int BPF_PROG(file_count_exit__raw_tp, struct pt_regs *regs, long result)
{
	long nr = stk_syscall_nr(regs);
	enum stk_file_call call = call_of(nr);
	struct task_struct *task;
	struct file *in, *out = NULL;
	__u64 took_ns;

	if (call == STK_CALL_NONE || stk_compat(regs))
		return 0;
	if (call == STK_CALL_OPEN)
		return on_sys_open(result);
	if (!end(nr + 1, &took_ns))
		return 0;
	task = stk_current();
	in = stk_file_of_fd(task, PT_REGS_PARM1_CORE_SYSCALL(regs));
	if (call == STK_CALL_WRITE) {
		out = in;
		in = NULL;
	} else if (call == STK_CALL_SENDFILE) {
		out = in;
		in = stk_file_of_fd(task, PT_REGS_PARM2_CORE_SYSCALL(regs));
	} else if (call == STK_CALL_COPY) {
		out = stk_file_of_fd(task, PT_REGS_PARM3_CORE_SYSCALL(regs));
	}
	count_copy(in, out, false, result, took_ns);
	return 0;
}
