/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What every monitor and the fence share: maps, scope, header, path walk, output.
 * Invariant: a record is built only after stk_wanted() said yes, and it is zeroed or written to its last byte.
 */
#ifndef STOCKADE_BPF_H
#define STOCKADE_BPF_H

#include "core.bpf.h"

const volatile struct stk_config stk_config = {};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* sized by the loader */
} stk_events SEC(".maps");

/* Denials have a ring of their own: a flood of observations cannot push them out. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} stk_denials SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STK_KIND_MAX *STK_LOSS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} stk_drops SEC(".maps");

/* Preallocated, sized to what the machine can run: an allocation that fails at fork would let a child escape. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct stk_task_key);
	__type(value, struct stk_task);
} stk_tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, STK_CGROUPS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} stk_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} stk_uids SEC(".maps");

struct stk_comm {
	__u8 text[STK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct stk_comm);
	__type(value, __u8);
} stk_comms SEC(".maps");

/*
 * Defines the two programs of a tracepoint. From 7.0 on they can be preempted, and the kernel skips a program that is
 * already running on that CPU; so there a kprobe at a function beside the tracepoint comes first, which runs with
 * preemption off.
 */
#define STK_TRACEPOINT(tp, name, call, args...) \
	SEC("?tp_btf/" #tp)                     \
	int BPF_PROG(name##__tp_btf, ##args)    \
	{                                       \
		return call;                    \
	}                                       \
	SEC("?raw_tp/" #tp)                     \
	int BPF_PROG(name##__raw_tp, ##args)    \
	{                                       \
		return call;                    \
	}

static __always_inline void stk_lost(__u32 kind, __u32 cause)
{
	__u32 index = kind * STK_LOSS_MAX + cause;
	__u64 *count = bpf_map_lookup_elem(&stk_drops, &index);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void stk_task_key_of(struct stk_task_key *key, struct task_struct *task)
{
	/* The leader's start time: an exec by another thread hands it over with the tgid (de_thread, fs/exec.c). */
	key->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	key->tgid = BPF_CORE_READ(task, tgid);
}

static __always_inline struct stk_task *stk_task_of(struct task_struct *task)
{
	struct stk_task_key key;

	stk_task_key_of(&key, task);
	return bpf_map_lookup_elem(&stk_tasks, &key);
}

/* Whether the current process is in the set. */
static __always_inline bool stk_current_in_tasks(void)
{
	struct stk_task_key key;

	key.start_ns = BPF_CORE_READ(stk_current_leader(), start_boottime);
	key.tgid = bpf_get_current_pid_tgid() >> 32;
	return bpf_map_lookup_elem(&stk_tasks, &key);
}

static __always_inline bool stk_under_cgroup(void)
{
	__u32 i;

	for (i = 0; i < STK_CGROUPS_MAX; i++) {
		if (i >= stk_config.cgroups)
			break;
		if (bpf_current_task_under_cgroup(&stk_cgroups, i) == 1)
			return true;
	}
	return false;
}

/* Whether the current task is one that somebody asked for. */
static __always_inline bool stk_wanted(void)
{
	__u32 scope = stk_config.scope;
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (tgid == stk_config.self_tgid)
		return false;
	if (!(scope & STK_SCOPE_HOST)) {
		bool in = false;

		if (scope & STK_SCOPE_TASKS)
			in = stk_current_in_tasks();
		if (!in && (scope & STK_SCOPE_CGROUPS))
			in = stk_under_cgroup();
		if (!in)
			return false;
	}
	if (scope & STK_SCOPE_UIDS) {
		/* Not the helper's: overlayfs and io_uring act under somebody else's subjective credentials. */
		struct task_struct *task = stk_current();
		__u32 uid = BPF_CORE_READ(task, real_cred, uid.val);

		if (!bpf_map_lookup_elem(&stk_uids, &uid))
			return false;
	}
	if (scope & STK_SCOPE_COMMS) {
		struct stk_comm comm = {};

		bpf_get_current_comm(comm.text, sizeof(comm.text));
		if (!bpf_map_lookup_elem(&stk_comms, &comm))
			return false;
	}
	return true;
}

static __always_inline void stk_header(struct stk_hdr *hdr, __u32 kind, __u32 len)
{
	struct task_struct *task = stk_current();
	struct task_struct *parent = BPF_CORE_READ(task, real_parent, group_leader);
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u64 uid_gid = bpf_get_current_uid_gid();

	hdr->time_ns = bpf_ktime_get_boot_ns();
	hdr->start_ns = BPF_CORE_READ(stk_current_leader(), start_boottime);
	hdr->parent_start_ns = BPF_CORE_READ(parent, start_boottime);
	hdr->cgroup_id = bpf_get_current_cgroup_id();
	hdr->kind = kind;
	hdr->flags = 0;
	hdr->tgid = pid_tgid >> 32;
	hdr->tid = pid_tgid;
	hdr->ppid = BPF_CORE_READ(parent, tgid);
	hdr->uid = uid_gid;
	hdr->gid = uid_gid >> 32;
	hdr->len = len;
	bpf_get_current_comm(hdr->comm, sizeof(hdr->comm));
}

/*
 * The consumer runs on a timer; waking it costs the producer up to 8 us (see docs/ARCHITECTURE.md). So it is woken only
 * by the record that crosses a quarter, half or three quarters of the ring.
 */
static __always_inline __u64 stk_wake(__u32 len)
{
	__u64 quarter = stk_config.ring_bytes / 4;
	__u64 before = bpf_ringbuf_query(&stk_events, BPF_RB_AVAIL_DATA);
	__u64 after = before + len;

	if ((before < quarter && after >= quarter) ||
	    (before < 2 * quarter && after >= 2 * quarter) ||
	    (before < 3 * quarter && after >= 3 * quarter))
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

/* Sends `len` bytes of a record that was built elsewhere. */
static __always_inline void stk_send(void *rec, __u32 kind, __u64 len)
{
	if (bpf_ringbuf_output(&stk_events, rec, len, stk_wake(len)))
		stk_lost(kind, STK_LOSS_RING);
}

static __always_inline void stk_file_id_of(struct stk_file_id *id, struct inode *inode)
{
	struct super_block *sb = BPF_CORE_READ(inode, i_sb);

	id->ino = BPF_CORE_READ(inode, i_ino);
	id->dev = BPF_CORE_READ(sb, s_dev);
	id->generation = BPF_CORE_READ(inode, i_generation);
	id->fs_magic = BPF_CORE_READ(sb, s_magic);
	id->mode = BPF_CORE_READ(inode, i_mode);
}

/* Whether the name is gone. A root was never in the hash. */
static __always_inline bool stk_unhashed(struct dentry *dentry)
{
	return BPF_CORE_READ(dentry, d_hash.pprev) == NULL &&
	       BPF_CORE_READ(dentry, d_parent) != dentry;
}

static __always_inline struct mount *stk_mount_of(struct vfsmount *mnt)
{
	return (struct mount *)((char *)mnt - bpf_core_field_offset(struct mount, mnt));
}

/* One per possible CPU (a per-CPU map ends at 32 KiB a value). */
struct stk_scratch {
	__u64 seq;
	/* Where a path walk stands. */
	__u64 dentry;
	__u64 mnt; /* 0: stop at the root of the file system */
	__u64 mnt_root;
	__u32 off; /* in rec */
	__u32 limit;
	__u8 rec[STK_RECORD_MAX + STK_NAME_MAX];
};

/*
 * A program that preempts another one on the same CPU takes its scratch over; the one that was preempted sees it by the
 * sequence number and counts the loss. (5.10 has no atomic compare-and-exchange for a lock.)
 */
#define STK_SCRATCH_MAP(map_name)                  \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(max_entries, 1);            \
		__type(key, __u32);                \
		__type(value, struct stk_scratch); \
	} map_name SEC(".maps")

enum stk_step {
	STK_STEP_ON = 0,
	STK_STEP_DONE = 1,
	STK_STEP_CUT = 2,
};

enum {
	STK_WALK_CUT =
		1U << 31, /* in the result of a walk function: not all components are there */
};

/* struct dentry from d_parent to d_name.name, where they stand side by side: one read instead of two. */
struct stk_dentry_part {
	struct dentry *parent;
	__u64 hash_len;
	const unsigned char *name;
};

static __always_inline void stk_dentry_read(struct stk_dentry_part *part, struct dentry *dentry)
{
	const __u32 parent_at = bpf_core_field_offset(struct dentry, d_parent);

	if (bpf_core_field_offset(struct dentry, d_name) == parent_at + 8 &&
	    bpf_core_field_offset(struct qstr, name) == 8) {
		if (bpf_probe_read_kernel(part, sizeof(*part), (char *)dentry + parent_at))
			__builtin_memset(part, 0, sizeof(*part));
		return;
	}
	part->parent = BPF_CORE_READ(dentry, d_parent);
	part->name = BPF_CORE_READ(dentry, d_name.name);
}

/* One turn of a path walk: a component, or the way out of a mount. */
static __always_inline int stk_walk_step(struct stk_scratch *s)
{
	struct dentry *dentry = (struct dentry *)s->dentry;
	struct stk_dentry_part part;
	__u32 off = s->off;
	long n;

	if (s->dentry == s->mnt_root) {
		struct mount *mnt = (struct mount *)s->mnt;
		struct mount *above = BPF_CORE_READ(mnt, mnt_parent);

		if (above == mnt || !above)
			return STK_STEP_DONE;
		s->dentry = (__u64)BPF_CORE_READ(mnt, mnt_mountpoint);
		s->mnt = (__u64)above;
		s->mnt_root = (__u64)BPF_CORE_READ(above, mnt.mnt_root);
		return STK_STEP_ON;
	}
	stk_dentry_read(&part, dentry);
	if (!part.parent)
		return STK_STEP_CUT; /* could not be read */
	if (part.parent == dentry)
		return STK_STEP_DONE;
	asm volatile("" : "+r"(off));
	if (off > s->limit || off > STK_WALK_LIMIT)
		return STK_STEP_CUT;
	n = bpf_probe_read_kernel_str(s->rec + off, STK_NAME_MAX, part.name);
	if (n > 0)
		s->off = off + n;
	s->dentry = (__u64)part.parent;
	return STK_STEP_ON;
}

/*
 * Defines `fn`, which appends the components of a path to the scratch of this CPU at `off` of `rec`, leaf first, each
 * with its NUL, and returns the new offset, with STK_WALK_CUT where it is cut.
 *
 * The walk goes through the dentries and mounts and not through d_path: it runs in every program type, and a chroot is
 * seen from outside. Both functions are global, with numbers for arguments and the state in the map: the verifier then
 * looks at one turn, once. As a loop in one function it went through a million instructions and refused.
 */
#define STK_SCRATCH_WALK(map_name, fn)                                                           \
	__attribute__((noinline)) int fn##_step(void)                                            \
	{                                                                                        \
		__u32 cpu = bpf_get_smp_processor_id();                                          \
		struct stk_scratch *s = bpf_map_lookup_elem(&map_name, &cpu);                    \
		return s ? stk_walk_step(s) : STK_STEP_CUT;                                      \
	}                                                                                        \
	__attribute__((noinline)) __u32 fn(__u64 dentry, __u64 mnt, __u32 off, __u32 limit)      \
	{                                                                                        \
		__u32 cpu = bpf_get_smp_processor_id();                                          \
		struct stk_scratch *s = bpf_map_lookup_elem(&map_name, &cpu);                    \
		__u32 i;                                                                         \
		int step = STK_STEP_CUT;                                                         \
		if (!s)                                                                          \
			return off;                                                              \
		s->dentry = dentry;                                                              \
		s->mnt = mnt;                                                                    \
		s->mnt_root = mnt ? (__u64)BPF_CORE_READ((struct mount *)mnt, mnt.mnt_root) : 0; \
		s->off = off;                                                                    \
		s->limit = limit;                                                                \
		for (i = 0; i < STK_PATH_DEPTH; i++) {                                           \
			step = fn##_step();                                                      \
			if (step)                                                                \
				break;                                                           \
		}                                                                                \
		return step == STK_STEP_DONE ? s->off : s->off | STK_WALK_CUT;                   \
	}

/* Takes the scratch of this CPU for a record of `kind`; NULL, and the loss is counted, when there is none. */
static __always_inline struct stk_scratch *stk_scratch_begin(void *map, __u32 kind, __u64 *seq)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_scratch *s = bpf_map_lookup_elem(map, &cpu);

	if (!s) {
		stk_lost(kind, STK_LOSS_SCRATCH);
		return NULL;
	}
	*seq = ++s->seq;
	return s;
}

static __always_inline void stk_scratch_send(struct stk_scratch *s, __u64 seq, __u32 kind,
					     __u32 len)
{
	asm volatile("" : "+r"(len));
	if (len > STK_RECORD_MAX)
		return;
	if (*(volatile __u64 *)&s->seq != seq) {
		stk_lost(kind, STK_LOSS_SCRATCH);
		return;
	}
	stk_send(s->rec, kind, len);
}

#endif
