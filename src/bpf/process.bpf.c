/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Exec, fork and exit of processes, each reported once.
 *
 * Only sched tracepoints are used: a system call that is none of these pays nothing.
 */
#include "stockade.bpf.h"

STK_EXPORT(stk_exec);
STK_EXPORT(stk_privileges);
STK_EXPORT(stk_namespaces);
STK_EXPORT(stk_env_key);
STK_EXPORT(stk_fork);
STK_EXPORT(stk_exit);

STK_SCRATCH_MAP(stk_exec_buf);
STK_SCRATCH_WALK(stk_exec_buf, exec_walk)

/* First come, first served among the last threads of a process; see on_exit. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct stk_task_key);
	__type(value, __u8);
} stk_exiting SEC(".maps");

/* What a thread was allowed when its exec could no longer be called off. */
struct exec_before {
	struct stk_privileges privileges;
	__u64 exec_id; /* task.self_exec_id after this exec */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct stk_env_key);
	__type(value, __u8);
} stk_env_keys SEC(".maps");

/* Where a walk through an environment stands. What is read here leaves the kernel only when it was asked for. */
struct env_walk {
	__u64 at;
	__u64 end;
	__u32 off; /* in the record */
	__u32 limit;
	__u32 cut;
	__u32 inside; /* the last piece did not end its variable */
	__u8 text[STK_ENV_VALUE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct env_walk);
} stk_env_buf SEC(".maps");

/* By tid. LRU: such an exec can still end in a kill, and any thread may rename itself. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct exec_before);
} stk_exec_before SEC(".maps");

enum {
	STK_ARGS_CHUNK = 4096,
	STK_ENV_STEPS = 1024, /* variables, or pieces of them, that are looked at */
	/* Threads that have ended and are not yet folded into the process's sums; more are left out of its CPU time. */
	STK_THREADS_WALKED = 64,
};

enum {
	STK_ARGS_STOPPED = 1U << 31, /* in the result of copy_args: a page could not be read */
};

/*
 * Copies argv into the record at `off`, in pieces: one page that is swapped out must not cost the rest. Returns the
 * bytes copied. Global for the same reason as the path walk.
 */
__attribute__((noinline)) __u32 copy_args(__u64 start, __u32 off, __u32 len)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_scratch *s = bpf_map_lookup_elem(&stk_exec_buf, &cpu);
	__u32 done = 0;
	int i;

	if (!s)
		return STK_ARGS_STOPPED;
	for (i = 0; i < STK_ARGS_MAX / STK_ARGS_CHUNK; i++) {
		__u32 piece = len - done;
		__u32 at = off + done;

		if (done >= len)
			break;
		if (piece > STK_ARGS_CHUNK)
			piece = STK_ARGS_CHUNK;
		asm volatile("" : "+r"(at));
		asm volatile("" : "+r"(piece));
		if (at > STK_RECORD_MAX - STK_ARGS_CHUNK || piece > STK_ARGS_CHUNK)
			return done | STK_ARGS_STOPPED;
		if (bpf_probe_read_user(s->rec + at, piece, (void *)(start + done)))
			return done | STK_ARGS_STOPPED;
		done += piece;
	}
	return done;
}

/* Puts a variable that was asked for into the record: `name` bytes of it, or all `len` with its NUL. */
static __always_inline void env_found(struct env_walk *w, struct stk_scratch *s, __u32 name,
				      __u32 len)
{
	__u32 off = w->off;

	asm volatile("" : "+r"(off));
	if (off > w->limit || off > STK_RECORD_MAX - STK_ENV_VALUE) {
		w->cut = 1;
		return;
	}
	if (stk_config.env != STK_ENV_VALUES)
		len = name + 1;
	asm volatile("" : "+r"(len));
	if (!len || len > STK_ENV_VALUE)
		return;
	if (bpf_probe_read_kernel(s->rec + off, len, w->text))
		return;
	off += len - 1;
	asm volatile("" : "+r"(off));
	if (off < STK_RECORD_MAX)
		s->rec[off] = 0;
	w->off = off + 1;
}

/* One variable, or one more piece of a long one. Global, so that the verifier looks at one turn. */
__attribute__((noinline)) int env_step(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_scratch *s = bpf_map_lookup_elem(&stk_exec_buf, &cpu);
	struct env_walk *w = bpf_map_lookup_elem(&stk_env_buf, &cpu);
	struct stk_env_key key;
	__u32 name = 0, open = 1;
	bool first;
	long n;
	__u32 i;

	if (!s || !w || w->at >= w->end)
		return STK_STEP_DONE;
	n = bpf_probe_read_user_str(w->text, STK_ENV_VALUE, (void *)w->at);
	if (n <= 0)
		return STK_STEP_CUT;
	first = !w->inside;
	w->inside = n == STK_ENV_VALUE;
	w->at += w->inside ? n - 1 : n;
	if (!first)
		return STK_STEP_ON;
	/* Without a branch: the verifier would follow each place where the name can end. */
	for (i = 0; i < STK_ENV_KEY; i++) {
		__u32 c = w->text[i], to_equals = c ^ '=', to_nul = c;

		asm volatile("" : "+r"(to_equals));
		asm volatile("" : "+r"(to_nul));
		open &= -to_equals >> 31 & -to_nul >> 31;
		key.text[i] = c & -open;
		name += open;
	}
	asm volatile("" : "+r"(name));
	if (name >= STK_ENV_KEY || w->text[name] != '=')
		return STK_STEP_ON;
	if (!bpf_map_lookup_elem(&stk_env_keys, &key))
		return STK_STEP_ON;
	if (w->inside && stk_config.env == STK_ENV_VALUES)
		w->cut = 1;
	env_found(w, s, name, n);
	return STK_STEP_ON;
}

/* Looks for the variables that were asked for; returns where the record ends, with STK_WALK_CUT. */
__attribute__((noinline)) __u32 env_find(__u64 start, __u64 end, __u32 off)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct env_walk *w = bpf_map_lookup_elem(&stk_env_buf, &cpu);
	int step = STK_STEP_ON;
	__u32 i;

	if (!w)
		return off | STK_WALK_CUT;
	w->at = start;
	w->end = end;
	w->off = off;
	w->limit = off + STK_ENV_MAX - STK_ENV_VALUE;
	w->cut = 0;
	w->inside = 0;
	for (i = 0; i < STK_ENV_STEPS; i++) {
		step = env_step();
		if (step)
			break;
	}
	if (step != STK_STEP_DONE)
		w->cut = 1;
	return w->off | (w->cut ? STK_WALK_CUT : 0);
}

static __always_inline void privileges_of(struct stk_privileges *to, struct task_struct *task)
{
	const struct cred *cred = STK_FOLLOW(task, cred);

	/* Two words up to 6.2, one from 6.3 on: the same bytes. */
	bpf_probe_read_kernel(&to->caps, sizeof(to->caps),
			      (char *)cred + bpf_core_field_offset(struct cred, cap_effective));
	to->euid = STK_LOAD(cred, euid.val);
	to->egid = STK_LOAD(cred, egid.val);
}

/*
 * The program is about to take its new credentials (begin_new_exec, fs/exec.c): the last moment at which the old ones
 * are there. `ahead`: how much the thread's count of execs has yet to grow.
 */
static __always_inline int on_credentials(__u64 ahead)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct task_struct *task = stk_current();
	struct exec_before before = {};

	/* The name by which it may be wanted is just changing. */
	if (!(stk_config.scope & STK_SCOPE_COMMS) && !stk_wanted())
		return 0;
	privileges_of(&before.privileges, task);
	before.exec_id = STK_LOAD(task, self_exec_id) + ahead;
	bpf_map_update_elem(&stk_exec_before, &tid, &before, BPF_ANY);
	return 0;
}

static __always_inline void exec_tty(struct stk_exec *rec, struct task_struct *task)
{
	struct signal_struct *signal = STK_FOLLOW(task, signal);
	struct tty_struct *tty = STK_LOAD(signal, tty);
	struct tty_driver *driver;

	rec->tty = 0;
	__builtin_memset(rec->tty_name, 0, sizeof(rec->tty_name));
	if (!tty)
		return;
	driver = BPF_CORE_READ(tty, driver);
	rec->tty = BPF_CORE_READ(driver, major) << 20 |
		   (BPF_CORE_READ(driver, minor_start) + BPF_CORE_READ(tty, index));
	bpf_probe_read_kernel_str(rec->tty_name, sizeof(rec->tty_name),
				  (char *)tty + bpf_core_field_offset(struct tty_struct, name));
}

/*
 * As /proc/PID/ns has them: the pid namespace is the one that the process is in, and not that of its children to be.
 * By reads that cannot fail the load: two of these types are private to the kernel's own files.
 */
static __always_inline void namespaces_of(struct stk_namespaces *to, struct task_struct *task)
{
	struct nsproxy *all = BPF_CORE_READ(task, nsproxy);
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u64 last = bpf_core_field_offset(struct pid, numbers) +
		     BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid);
	struct upid *upid = (struct upid *)((char *)pid + last);

	to->inum[STK_NS_CGROUP] = BPF_CORE_READ(all, cgroup_ns, ns.inum);
	to->inum[STK_NS_IPC] = BPF_CORE_READ(all, ipc_ns, ns.inum);
	to->inum[STK_NS_MNT] = BPF_CORE_READ(all, mnt_ns, ns.inum);
	to->inum[STK_NS_NET] = BPF_CORE_READ(all, net_ns, ns.inum);
	to->inum[STK_NS_PID] = BPF_CORE_READ(upid, ns, ns.inum);
	to->inum[STK_NS_TIME] = BPF_CORE_READ(all, time_ns, ns.inum);
	to->inum[STK_NS_USER] = BPF_CORE_READ(task, cred, user_ns, ns.inum);
	to->inum[STK_NS_UTS] = BPF_CORE_READ(all, uts_ns, ns.inum);
}

/* Fills in who the process is to the kernel; returns the flags. Global: the verifier looks at it by itself. */
__attribute__((noinline)) __u32 exec_who(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_scratch *s = bpf_map_lookup_elem(&stk_exec_buf, &cpu);
	__u32 tid = bpf_get_current_pid_tgid();
	struct task_struct *task = stk_current();
	struct exec_before *before;
	struct stk_exec *rec;
	__u32 flags = 0;

	if (!s)
		return 0;
	rec = (struct stk_exec *)s->rec;
	exec_tty(rec, task);
	namespaces_of(&rec->namespaces, task);
	rec->login_uid = STK_NO_LOGIN;
	if (bpf_core_field_exists(task->loginuid)) /* CONFIG_AUDIT */
		rec->login_uid = STK_LOAD(task, loginuid.val);
	privileges_of(&rec->now, task);
	__builtin_memset(&rec->before, 0, sizeof(rec->before));
	before = bpf_map_lookup_elem(&stk_exec_before, &tid);
	if (before) {
		/* Not what some earlier rename has left behind. */
		if (before->exec_id == STK_LOAD(task, self_exec_id)) {
			rec->before = before->privileges;
			flags |= STK_FLAG_BEFORE;
		}
		bpf_map_delete_elem(&stk_exec_before, &tid);
	}
	return flags;
}

/* How the executed file is to be found again: not at all when its last name is gone, or when it never had one. */
static __always_inline __u32 fileless(struct inode *inode, const struct stk_place *place)
{
	struct dentry *dentry = (struct dentry *)place->dentry;
	struct mount *mnt = (struct mount *)place->mnt;
	__u64 name = 0;

	if (BPF_CORE_READ(inode, i_nlink))
		return 0;
	/* On a mount of the kernel's own, where nobody else can make a file. */
	if (mnt && STK_IS_ERR(BPF_CORE_READ(mnt, mnt_ns))) {
		bpf_probe_read_kernel(&name, 6, BPF_CORE_READ(dentry, d_name.name));
		if (name == 0x3a64666d656dULL) /* "memfd:" */
			return STK_FLAG_UNLINKED | STK_FLAG_MEMFD;
	}
	return STK_FLAG_UNLINKED;
}

static __always_inline int on_exec(struct linux_binprm *bprm)
{
	const __u32 start = sizeof(struct stk_exec);
	const char *filename, *interp;
	struct task_struct *task;
	struct stk_place place;
	struct stk_scratch *s;
	struct stk_exec *rec;
	struct inode *inode;
	struct file *file;
	struct fs_struct *fs;
	struct mm_struct *mm;
	unsigned long args;
	__u64 total, seq;
	__u32 off, at, flags = 0;
	long n;

	if (!stk_wanted())
		return 0;
	s = stk_scratch_begin(&stk_exec_buf, STK_KIND_EXEC, &seq);
	if (!s)
		return 0;
	rec = (struct stk_exec *)s->rec;
	stk_header(&rec->hdr, STK_KIND_EXEC, 0);

	/* What runs: for a script this is the interpreter, as in /proc/PID/exe. */
	file = STK_GET(linux_binprm, bprm, file);
	inode = STK_GET(file, file, f_inode);
	stk_file_id_of(&rec->exe, inode, false);
	place = stk_place_of(&file->f_path);
	flags |= fileless(inode, &place);
	flags |= exec_who();
	off = exec_walk(place.dentry, place.mnt, start, start + STK_PATH_MAX);
	if (off & STK_WALK_DELETED)
		flags |= STK_FLAG_DELETED;
	if (off & STK_WALK_CUT)
		flags |= STK_FLAG_PATH_CUT;
	off &= STK_WALK_OFF;
	rec->exe_len = off - start;

	task = stk_current();
	fs = STK_FOLLOW(task, fs);
	place = stk_place_of(&fs->pwd);
	at = off;
	off = exec_walk(place.dentry, place.mnt, off, start + STK_PATH_BUF + STK_PATH_MAX);
	if (off & STK_WALK_CUT)
		flags |= STK_FLAG_CWD_CUT;
	off &= STK_WALK_OFF;
	rec->cwd_len = off - at;

	rec->filename_len = 0;
	rec->interp_len = 0;
	filename = STK_GET(linux_binprm, bprm, filename);
	interp = STK_GET(linux_binprm, bprm, interp);
	if (filename != interp) {
		flags |= STK_FLAG_SCRIPT;
		asm volatile("" : "+r"(off));
		if (off <= STK_WALK_LIMIT) {
			n = bpf_probe_read_kernel_str(s->rec + off, STK_PATH_MAX, filename);
			if (n > 0) {
				rec->filename_len = n;
				off += n;
			}
		}
		asm volatile("" : "+r"(off));
		if (off <= STK_WALK_LIMIT) {
			n = bpf_probe_read_kernel_str(s->rec + off, STK_NAME_MAX, interp);
			if (n > 0) {
				rec->interp_len = n;
				off += n;
			}
		}
	}

	mm = STK_FOLLOW(task, mm);
	args = STK_LOAD(mm, arg_start);
	total = STK_LOAD(mm, arg_end) - args;
	rec->args_total = total;
	if (total > STK_ARGS_MAX) {
		flags |= STK_FLAG_ARGS_CUT;
		total = STK_ARGS_MAX;
	}
	at = copy_args(args, off, total);
	if (at & STK_ARGS_STOPPED)
		flags |= STK_FLAG_ARGS_UNREAD;
	rec->args_len = at & ~STK_ARGS_STOPPED;
	off += rec->args_len;

	rec->env_len = 0;
	rec->pad = 0;
	if (stk_config.env) {
		at = env_find(STK_LOAD(mm, env_start), STK_LOAD(mm, env_end), off);
		if (at & STK_WALK_CUT)
			flags |= STK_FLAG_ENV_CUT;
		at &= STK_WALK_OFF;
		rec->env_len = at - off;
		off = at;
	}

	rec->hdr.flags = flags;
	rec->hdr.len = off;
	stk_scratch_send(s, seq, STK_KIND_EXEC, off);
	return 0;
}

static __always_inline int on_fork(struct task_struct *child)
{
	STK_VIEW(of, task_struct, child, pid, real_parent, 32);
	struct task_struct *parent;
	struct stk_fork *rec;
	__u64 wake;

	if (STK_SEE(of, pid) != STK_SEE(of, tgid))
		return 0; /* a thread */
	if (!stk_wanted())
		return 0;
	rec = stk_reserve(STK_KIND_FORK, NULL, sizeof(*rec), &wake);
	if (!rec)
		return 0;
	stk_header(&rec->hdr, STK_KIND_FORK, sizeof(*rec));
	rec->child_start_ns = BPF_CORE_READ(child, start_boottime);
	rec->child_tgid = STK_SEE(of, tgid);
	parent = STK_SEE(of, real_parent);
	if (parent == stk_current()) {
		rec->child_parent_start_ns = rec->hdr.start_ns;
		rec->child_ppid = rec->hdr.tgid;
	} else { /* CLONE_PARENT */
		parent = BPF_CORE_READ(parent, group_leader);
		rec->child_parent_start_ns = BPF_CORE_READ(parent, start_boottime);
		rec->child_ppid = BPF_CORE_READ(parent, tgid);
	}
	namespaces_of(&rec->namespaces, child);
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

/*
 * CPU time of the whole process. signal->utime holds the threads that were released; the others are on the thread list:
 * the current one, which mostly is alone, a leader that ended before its threads, threads that are just ending.
 */
static __always_inline void cpu_time(struct stk_exit *rec, struct task_struct *task,
				     struct signal_struct *signal)
{
	struct list_head *head =
		(struct list_head *)((char *)signal +
				     bpf_core_field_offset(struct signal_struct, thread_head));
	struct list_head *next = head;
	__u64 utime = STK_LOAD(signal, utime);
	__u64 stime = STK_LOAD(signal, stime);
	__u64 rtime = STK_LOAD(signal, sum_sched_runtime);
	int i;

	if (STK_LOAD(signal, nr_threads) == 1) {
		utime += STK_LOAD(task, utime);
		stime += STK_LOAD(task, stime);
		rtime += STK_LOAD(task, se.sum_exec_runtime);
	} else {
		next = BPF_CORE_READ(signal, thread_head.next);
	}
	for (i = 0; i < STK_THREADS_WALKED; i++) {
		struct task_struct *t;

		if (next == head || !next)
			break;
		t = (struct task_struct *)((char *)next -
					   bpf_core_field_offset(struct task_struct, thread_node));
		utime += BPF_CORE_READ(t, utime);
		stime += BPF_CORE_READ(t, stime);
		rtime += BPF_CORE_READ(t, se.sum_exec_runtime);
		next = BPF_CORE_READ(next, next);
	}
	rec->utime_ns = utime;
	rec->stime_ns = stime;
	rec->rtime_ns = rtime;
}

static __always_inline int on_exit(void)
{
	struct task_struct *task = stk_current();
	struct signal_struct *signal = STK_FOLLOW(task, signal);
	struct stk_task_key key;
	struct stk_exit *rec;
	__u8 one = 1;
	__u64 wake;

	/* Not the last thread. signal->live is lowered before the tracepoint (do_exit, kernel/exit.c). */
	if (STK_LOAD(signal, live.counter) != 0)
		return 0;
	if (!stk_wanted())
		return 0;
	/* Two threads that end together can both see zero; one of them reports. The other may come late, when it is alone. */
	stk_current_key(&key);
	if (STK_LOAD(signal, nr_threads) > 1) {
		if (stk_insert(&stk_exiting, &key, &one) == -EEXIST)
			return 0;
	} else if (bpf_map_lookup_elem(&stk_exiting, &key)) {
		return 0;
	}
	rec = stk_reserve(STK_KIND_EXIT, NULL, sizeof(*rec), &wake);
	if (!rec)
		return 0;
	stk_header(&rec->hdr, STK_KIND_EXIT, sizeof(*rec));
	cpu_time(rec, task, signal);
	rec->maxrss_pages = STK_LOAD(signal, maxrss);
	rec->code = stk_wait_status();
	rec->pad = 0;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

/* An exec names the thread after the program; so do threads themselves, which is of no use here and does no harm. */
STK_TRACEPOINT(task_rename, process_credentials, on_credentials(1), struct task_struct *task,
	       const char *comm)
STK_TRACEPOINT(sched_process_exec, process_exec, on_exec(bprm), struct task_struct *task,
	       int old_pid, struct linux_binprm *bprm)
STK_TRACEPOINT(sched_process_fork, process_fork, on_fork(child), struct task_struct *parent,
	       struct task_struct *child)
STK_TRACEPOINT(sched_process_exit, process_exit, on_exit(), struct task_struct *task)

SEC("?kprobe/security_bprm_committing_creds")
int BPF_KPROBE(process_credentials__kprobe)
{
	return on_credentials(0);
}

/* The last step of loading a program, which cannot fail any more. */
SEC("?kprobe/finalize_exec")
int BPF_KPROBE(process_exec__kprobe, struct linux_binprm *bprm)
{
	return on_exec(bprm);
}

SEC("?kprobe/wake_up_new_task")
int BPF_KPROBE(process_fork__kprobe, struct task_struct *child)
{
	return on_fork(child);
}

/* Also called for a process that could not be created. */
SEC("?kprobe/exit_files")
int BPF_KPROBE(process_exit__kprobe, struct task_struct *task)
{
	return task == stk_current() ? on_exit() : 0;
}
