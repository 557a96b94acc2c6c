/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What every monitor and the fence share: scope, identity, path walk.
 * Invariant: a record is built only after stk_wanted() said yes, and it is zeroed or written to its last byte.
 */
#ifndef STOCKADE_BPF_H
#define STOCKADE_BPF_H

#include "mount.bpf.h"
#include "output.bpf.h"

/* Preallocated, sized to what the machine can run: an allocation that fails at fork would let a child escape. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct stk_task_key);
	__type(value, struct stk_task);
} stk_tasks SEC(".maps");

/*
 * Whether there ever was a process with these lowest bits of its id in the set: spares all others the look into it, which
 * costs ten times as much. A mark comes before its process and stays: one too many costs time, one too few would let
 * somebody out.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} stk_marks SEC(".maps");

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

static __always_inline __u8 *stk_mark_of(__u32 tgid)
{
	__u32 mark = tgid % STK_MARKS;

	return bpf_map_lookup_elem(&stk_marks, &mark);
}

/* The entry of the current process, which has this id, in the set; NULL when it is not in it. */
static __always_inline struct stk_task *stk_entry_of(__u32 tgid)
{
	struct stk_task_key key;
	__u8 *mark = stk_mark_of(tgid);

	if (!mark || !*mark)
		return NULL;
	stk_current_key(&key);
	return bpf_map_lookup_elem(&stk_tasks, &key);
}

static __always_inline struct stk_task *stk_current_entry(void)
{
	return stk_entry_of(bpf_get_current_pid_tgid() >> 32);
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

/* Whether the scope has the current task, whose process has this id and is not ourselves. */
static __always_inline bool stk_in_scope(__u32 tgid)
{
	__u32 scope = stk_config.scope;

	if (!(scope & STK_SCOPE_HOST)) {
		bool in = false;

		if (scope & STK_SCOPE_TASKS)
			in = stk_entry_of(tgid);
		if (!in && (scope & STK_SCOPE_CGROUPS))
			in = stk_under_cgroup();
		if (!in)
			return false;
	}
	if (scope & STK_SCOPE_UIDS) {
		/* Not the helper's: overlayfs and io_uring act under somebody else's subjective credentials. */
		struct task_struct *task = stk_current();
		const struct cred *cred = STK_FOLLOW(task, real_cred);
		__u32 uid = STK_LOAD(cred, uid.val);

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

/*
 * Whether the current process, which has this id, is the tool itself. What is pinned outlives it, and its id is then given to
 * somebody else.
 */
static __always_inline bool stk_is_self(__u32 tgid)
{
	struct stk_task_key key;

	if (tgid != stk_config.self_tgid)
		return false;
	stk_current_key(&key);
	return key.start_ns == stk_config.self_start_ns;
}

/* Whether the current task is one that somebody asked for. */
static __always_inline bool stk_wanted(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	return !stk_is_self(tgid) && stk_in_scope(tgid);
}

/* Whether the process ends with this task, which is being freed; and its key. */
static __always_inline bool stk_freed(struct task_struct *task, struct stk_task_key *key)
{
	STK_VIEW(of, task_struct, task, pid, tgid, 8);

	/* Also false for the old leader after another thread's exec: it has swapped ids with that thread. */
	if (STK_SEE(of, pid) != STK_SEE(of, tgid))
		return false;
	/* group_leader may be gone by now; a leader's own start time is the key. */
	key->start_ns = BPF_CORE_READ(task, start_boottime);
	key->tgid = STK_SEE(of, tgid);
	return true;
}

/* A path in the kernel's terms, as numbers. */
struct stk_place {
	__u64 dentry;
	__u64 mnt; /* of struct mount; 0 where it is not known */
};

static __always_inline struct stk_place stk_place_of(const struct path *path)
{
	struct stk_place place;
	STK_VIEW(of, path, path, mnt, dentry, 16);

	place.dentry = STK_SEE_NUMBER(of, dentry);
	place.mnt = stk_mount_of((struct vfsmount *)STK_SEE_NUMBER(of, mnt));
	return place;
}

/* What a descriptor of `task` stands for; NULL when it is none. */
static __always_inline struct file *stk_file_of_fd(struct task_struct *task, __u32 fd)
{
	struct files_struct *files = STK_FOLLOW(task, files);
	struct fdtable *fdt = STK_LOAD(files, fdt);
	struct file **table = STK_LOAD(fdt, fd);

	/* What lies behind the table is no file. */
	if (fd >= STK_LOAD(fdt, max_fds))
		return NULL;
	return (struct file *)STK_NUMBER_AT(&table[fd]);
}

/* One per possible CPU (a per-CPU map ends at 32 KiB a value). */
struct stk_scratch {
	__u64 seq;
	/* Where a path walk stands, and the mount it is in. */
	__u64 leaf;
	__u64 dentry;
	__u64 mnt; /* 0: stop at the root of the file system */
	__u64 mnt_root;
	__u64 mnt_parent;
	__u64 mnt_mountpoint;
	__u32 off; /* in rec */
	__u32 limit;
	__u32 flags; /* of the result */
	__u32 unused;
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

enum {
	STK_STRETCH = 16 /* turns of a walk in one function */
};

enum stk_step {
	STK_STEP_ON = 0,
	STK_STEP_DONE = 1,
	STK_STEP_CUT = 2,
};

/* In the result of a walk function, above the offset. */
enum {
	STK_WALK_CUT = 1U << 31, /* not all components are there */
	STK_WALK_DELETED = 1U << 30, /* the name is gone */
	STK_WALK_OFF = STK_WALK_DELETED - 1,
};

static __always_inline void stk_walk_into(struct stk_scratch *s, __u64 mnt)
{
	STK_VIEW(of, mount, mnt, mnt_parent, mnt.mnt_root, 24);

	s->mnt = mnt;
	s->mnt_root = (__u64)STK_SEE(of, mnt.mnt_root);
	s->mnt_parent = (__u64)STK_SEE(of, mnt_parent);
	s->mnt_mountpoint = (__u64)STK_SEE(of, mnt_mountpoint);
}

/* One turn of a path walk: a component, or the way out of a mount. */
static __always_inline int stk_walk_step(struct stk_scratch *s)
{
	const unsigned char *name;
	__u32 off = s->off;
	__u64 parent;
	long n;

	if (s->dentry == s->mnt_root) {
		if (s->mnt_parent == s->mnt || !s->mnt_parent)
			return STK_STEP_DONE;
		s->dentry = s->mnt_mountpoint;
		stk_walk_into(s, s->mnt_parent);
		return STK_STEP_ON;
	}
	STK_VIEW(of, dentry, s->dentry, d_hash.pprev, d_name.name, 32);
	parent = (__u64)STK_SEE(of, d_parent);
	if (!parent)
		return STK_STEP_CUT; /* could not be read */
	/* A root was never in the hash. */
	if (parent == s->dentry)
		return STK_STEP_DONE;
	if (s->dentry == s->leaf && !STK_SEE(of, d_hash.pprev))
		s->flags |= STK_WALK_DELETED;
	name = STK_SEE(of, d_name.name);
	asm volatile("" : "+r"(off));
	if (off > s->limit || off > STK_WALK_LIMIT)
		return STK_STEP_CUT;
	n = bpf_probe_read_kernel_str(s->rec + off, STK_NAME_MAX, name);
	if (n > 0)
		s->off = off + n;
	s->dentry = parent;
	return STK_STEP_ON;
}

/*
 * Defines `fn`, which appends the components of a path to the scratch of this CPU at `off` of `rec`, leaf first, each
 * with its NUL, and returns the new offset with the flags above it.
 *
 * The walk goes through the dentries and mounts and not through d_path: it runs in every program type, and a chroot is
 * seen from outside. The functions are global, with numbers for arguments and the state in the map: the verifier then
 * looks at one turn, once, and at few turns of each of the two loops around it. As a loop in one function it went through
 * a million instructions and refused.
 */
#define STK_SCRATCH_WALK(map_name, fn)                                                      \
	__attribute__((noinline)) int fn##_step(void)                                       \
	{                                                                                   \
		__u32 cpu = bpf_get_smp_processor_id();                                     \
		struct stk_scratch *s = bpf_map_lookup_elem(&map_name, &cpu);               \
		return s ? stk_walk_step(s) : STK_STEP_CUT;                                 \
	}                                                                                   \
	__attribute__((noinline)) int fn##_steps(void)                                      \
	{                                                                                   \
		int step = STK_STEP_ON;                                                     \
		__u32 i;                                                                    \
		for (i = 0; i < STK_STRETCH && step == STK_STEP_ON; i++)                    \
			step = fn##_step();                                                 \
		return step;                                                                \
	}                                                                                   \
	__attribute__((noinline)) __u32 fn(__u64 dentry, __u64 mnt, __u32 off, __u32 limit) \
	{                                                                                   \
		__u32 cpu = bpf_get_smp_processor_id();                                     \
		struct stk_scratch *s = bpf_map_lookup_elem(&map_name, &cpu);               \
		__u32 i;                                                                    \
		int step = STK_STEP_ON;                                                     \
		if (!s)                                                                     \
			return off;                                                         \
		s->leaf = dentry;                                                           \
		s->dentry = dentry;                                                         \
		s->mnt_root = 0;                                                            \
		if (mnt)                                                                    \
			stk_walk_into(s, mnt);                                              \
		s->off = off;                                                               \
		s->limit = limit;                                                           \
		s->flags = 0;                                                               \
		for (i = 0; i < STK_PATH_DEPTH && step == STK_STEP_ON; i += STK_STRETCH)    \
			step = fn##_steps();                                                \
		if (step != STK_STEP_DONE)                                                  \
			s->flags |= STK_WALK_CUT;                                           \
		return s->off | s->flags;                                                   \
	}

/* Whether a record of the current process is to be made. What is left out is counted. */
static __always_inline bool stk_admitted(__u32 kind)
{
	return stk_asked_for(kind, NULL) && !stk_thinned(kind, NULL, stk_filled());
}

/* Takes the scratch of this CPU for a record of `kind`; NULL when there is none, and that is counted. */
static __always_inline struct stk_scratch *stk_scratch_take(void *map, __u32 kind, __u64 *seq)
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

/* The same for a record that is to be made. */
static __always_inline struct stk_scratch *stk_scratch_begin(void *map, __u32 kind, __u64 *seq)
{
	return stk_admitted(kind) ? stk_scratch_take(map, kind, seq) : NULL;
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
