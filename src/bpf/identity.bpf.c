/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Asks the kernel who is who: the identity of the files behind the reader's own descriptors and of the directories that
 * they are in, and every process that runs. Nothing is opened and no device number is converted, so there is nothing to
 * guess.
 */
#include "mount.bpf.h"

STK_EXPORT(stk_identity);
STK_EXPORT(stk_above);
STK_EXPORT(stk_seed);

enum {
	/* As many as the fence looks through. */
	MAX_TURNS = 128,
};

/*
 * The reader, when it has this descriptor; 0 when somebody else has. The program runs in the reader's read(2), so the
 * current process is the reader, in whatever pid namespace it lives.
 */
static __always_inline __u32 reader_of(struct task_struct *task, struct file *file)
{
	struct task_struct *reader;
	__u32 tgid;

	if (!task || !file)
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (task->tgid != tgid)
		return 0;
	/* A thread that has unshared its descriptors has other files under the same numbers. */
	reader = stk_current();
	return BPF_CORE_READ(task, files) == BPF_CORE_READ(reader, files) ? tgid : 0;
}

SEC("?iter/task_file")
int identity_files__iter(struct bpf_iter__task_file *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct file *file = ctx->file;
	struct task_struct *reader = stk_current();
	struct stk_identity out = {};

	out.tgid = reader_of(ctx->task, file);
	if (!out.tgid)
		return 0;
	out.start_ns = BPF_CORE_READ(reader, group_leader, start_boottime);
	out.fd = ctx->fd;
	stk_file_id_of(&out.file, BPF_CORE_READ(file, f_inode), false);
	bpf_probe_read_kernel_str(out.name, sizeof(out.name),
				  BPF_CORE_READ(file, f_path.dentry, d_name.name));
	bpf_seq_write(seq, &out, sizeof(out));
	return 0;
}

SEC("?iter/task_file")
int identity_above__iter(struct bpf_iter__task_file *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct file *file = ctx->file;
	struct stk_above out = {};
	__u64 dentry, mnt, root;
	__u32 turn;

	if (!reader_of(ctx->task, file))
		return 0;
	out.fd = ctx->fd;
	dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	mnt = stk_mount_of(BPF_CORE_READ(file, f_path.mnt));
	root = (__u64)BPF_CORE_READ((struct mount *)mnt, mnt.mnt_root);
	for (turn = 0; turn < MAX_TURNS; turn++) {
		if (dentry == root) {
			__u64 outer = stk_outer_mount(mnt);

			if (!outer) {
				out.depth = 0;
				bpf_seq_write(seq, &out, sizeof(out));
				break;
			}
			dentry = stk_mountpoint(mnt);
			mnt = outer;
			/* Hidden by what is mounted there; the way goes on in the directory that it is in. */
			root = (__u64)BPF_CORE_READ((struct mount *)mnt, mnt.mnt_root);
			continue;
		}
		dentry = stk_parent_of(dentry);
		if (!dentry)
			break;
		out.depth++;
		stk_file_id_of(&out.file, BPF_CORE_READ((struct dentry *)dentry, d_inode), false);
		bpf_seq_write(seq, &out, sizeof(out));
	}
	return 0;
}

/* The pid of `task` as the reader's pid namespace has it; 0 when that namespace does not hold it. */
static __always_inline __u32 ns_tgid_of(struct task_struct *task)
{
	struct task_struct *reader = stk_current();
	struct pid *mine = BPF_CORE_READ(reader, thread_pid);
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(mine, level);
	__u64 base = bpf_core_field_offset(struct pid, numbers);
	__u64 step = bpf_core_type_size(struct upid);
	struct upid theirs = {}, ours = {};

	if (BPF_CORE_READ(pid, level) < level)
		return 0;
	bpf_probe_read_kernel(&ours, sizeof(ours), (char *)mine + base + level * step);
	bpf_probe_read_kernel(&theirs, sizeof(theirs), (char *)pid + base + level * step);
	return ours.ns == theirs.ns ? theirs.nr : 0;
}

SEC("?iter/task")
int identity_tasks__iter(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	struct task_struct *parent;
	struct stk_seed out = {};

	if (!task || task->pid != task->tgid)
		return 0;
	parent = BPF_CORE_READ(task, real_parent, group_leader);
	out.start_ns = BPF_CORE_READ(task, start_boottime);
	out.parent_start_ns = BPF_CORE_READ(parent, start_boottime);
	out.tgid = task->tgid;
	out.ppid = BPF_CORE_READ(parent, tgid);
	out.ns_tgid = ns_tgid_of(task);
	out.uid = BPF_CORE_READ(task, cred, uid.val);
	bpf_probe_read_kernel(out.comm, sizeof(out.comm), task->comm);
	bpf_seq_write(seq, &out, sizeof(out));
	return 0;
}
