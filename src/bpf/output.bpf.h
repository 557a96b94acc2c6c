/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The way out: which records are admitted, how they get into a ring, and the count of those that do not.
 * Invariant: whatever is asked for and does not arrive is counted, by kind, cause and CPU.
 */
#ifndef STOCKADE_OUTPUT_BPF_H
#define STOCKADE_OUTPUT_BPF_H

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

/*
 * A row per possible CPU, read through a mapping: a lookup by system call holds the kprobe programs of its CPU back, and
 * on a preemptible kernel everybody who runs there meanwhile goes unseen.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_cpu_counts);
} stk_counts SEC(".maps");

/* How much each process has sent in this second; sized by the loader when there is a limit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct stk_task_key);
	__type(value, struct stk_rate);
} stk_rates SEC(".maps");

/* An entry of a process that has sent nothing: too large for the stack of who calls. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_rate);
} stk_rate_fresh SEC(".maps");

static __always_inline void stk_lost(__u32 kind, __u32 cause)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_cpu_counts *row = bpf_map_lookup_elem(&stk_counts, &cpu);
	__u32 index = kind * STK_LOSS_MAX + cause;

	if (row && index < STK_KIND_MAX * STK_LOSS_MAX)
		__sync_fetch_and_add(&row->lost[index], 1);
}

/* A map of counters has an entry more: user space looks before it is full. */
static __always_inline void stk_made(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_cpu_counts *row = bpf_map_lookup_elem(&stk_counts, &cpu);

	if (row)
		__sync_fetch_and_add(&row->made, 1);
}

/*
 * Makes the entry of `key` in a map of counters from `zero`, for who has just found none. NULL when the map is full, which
 * is counted as the loss of one of `kind`.
 */
static __always_inline void *stk_entry_new(void *map, const void *key, const void *zero, __u32 kind)
{
	void *entry;

	/* Whoever comes first; the other one finds it. */
	if (!stk_insert(map, key, zero))
		stk_made();
	entry = bpf_map_lookup_elem(map, key);
	if (!entry)
		stk_lost(kind, STK_LOSS_MAP);
	return entry;
}

/* The entry of `key`; a first use makes it. NULL as above. */
static __always_inline void *stk_entry(void *map, const void *key, const void *zero, __u32 kind)
{
	void *entry = bpf_map_lookup_elem(map, key);

	return entry ? entry : stk_entry_new(map, key, zero, kind);
}

/* The leader's start time: an exec by another thread hands it over with the tgid (de_thread, fs/exec.c). */
static __always_inline void stk_current_key(struct stk_task_key *key)
{
	struct task_struct *task = stk_current();
	struct task_struct *leader = STK_FOLLOW(task, group_leader);

	key->start_ns = STK_LOAD(leader, start_boottime);
	key->tgid = bpf_get_current_pid_tgid() >> 32;
}

/* What wait4(2) says once the current process has ended (wait_task_zombie, kernel/exit.c). */
static __always_inline __u32 stk_wait_status(void)
{
	struct task_struct *task = stk_current();
	struct signal_struct *signal = STK_FOLLOW(task, signal);
	struct task_struct *leader = STK_FOLLOW(task, group_leader);

	if (STK_LOAD(signal, flags) & STK_SIGNAL_GROUP_EXIT)
		return STK_LOAD(signal, group_exit_code);
	return STK_LOAD(leader, exit_code);
}

/* Two loads where the helper looks at byte after byte. */
static __always_inline void stk_current_comm(__u8 *to)
{
	struct task_struct *task = stk_current();

	if (STK_TYPED) {
		*(__u64 *)to = *(__u64 *)task->comm;
		*(__u64 *)(to + 8) = *(__u64 *)(task->comm + 8);
	} else {
		bpf_get_current_comm(to, STK_COMM_LEN);
	}
}

static __always_inline void stk_header(struct stk_hdr *hdr, __u32 kind, __u32 len)
{
	struct task_struct *task = stk_current();
	struct task_struct *leader = STK_FOLLOW(task, group_leader);
	struct task_struct *real_parent = STK_FOLLOW(task, real_parent);
	struct task_struct *parent = STK_LOAD(real_parent, group_leader);
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u64 uid_gid = bpf_get_current_uid_gid();

	hdr->time_ns = bpf_ktime_get_boot_ns();
	hdr->start_ns = STK_LOAD(leader, start_boottime);
	hdr->parent_start_ns = STK_LOAD(parent, start_boottime);
	hdr->cgroup_id = bpf_get_current_cgroup_id();
	hdr->kind = kind;
	hdr->flags = 0;
	hdr->tgid = pid_tgid >> 32;
	hdr->tid = pid_tgid;
	hdr->ppid = STK_LOAD(parent, tgid);
	hdr->uid = uid_gid;
	hdr->gid = uid_gid >> 32;
	hdr->len = len;
	stk_current_comm(hdr->comm);
}

/* A number for each process that has nothing to do with its id: the same in every program and at every time. */
static __always_inline __u64 stk_lot(const struct stk_task_key *key)
{
	__u64 x = key->start_ns ^ key->tgid << 40;

	/* The finalizer of MurmurHash3, 64 bits. */
	x = (x ^ x >> 33) * 0xff51afd7ed558ccdULL;
	x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

/* Says who is who, what was refused or killed: never left out. */
static __always_inline bool stk_essential(__u32 kind)
{
	return kind == STK_KIND_EXEC || kind == STK_KIND_FORK || kind == STK_KIND_EXIT ||
	       kind == STK_KIND_DENIAL || kind == STK_KIND_OOM;
}

/* Comes by the thousand in a process that is busy: thinned first. */
static __always_inline bool stk_chatty(__u32 kind)
{
	return kind == STK_KIND_OPEN || kind == STK_KIND_CREATE || kind == STK_KIND_SYSCALL ||
	       kind == STK_KIND_MEMORY || kind == STK_KIND_DISK;
}

/* Bytes in the ring that nobody has read yet. */
static __always_inline __u64 stk_filled(void)
{
	return bpf_ringbuf_query(&stk_events, BPF_RB_AVAIL_DATA);
}

/*
 * How far the ring has gone to thin out this kind: 2^n processes of which one is heard; 64 when only what is essential
 * still gets in. The fuller the ring, the higher, and nothing to remember: it falls again as the ring empties.
 */
static __always_inline __u32 stk_thinning(__u32 kind, __u64 filled)
{
	__u64 sixteenth = stk_config.ring_bytes / 16;
	__u32 from = stk_chatty(kind) ? 8 : 12;

	if (filled >= 15 * sixteenth)
		return 64;
	if (filled < from * sixteenth)
		return 0;
	return filled / sixteenth - from + 1;
}

static __always_inline struct stk_rate *stk_rate_of(const struct stk_task_key *key, __u32 kind,
						    const struct stk_hdr *whose)
{
	struct stk_rate *rate = bpf_map_lookup_elem(&stk_rates, key);
	struct stk_rate *fresh;
	__u32 zero = 0;

	if (rate)
		return rate;
	fresh = bpf_map_lookup_elem(&stk_rate_fresh, &zero);
	if (!fresh)
		return NULL;
	stk_insert(&stk_rates, key, fresh);
	rate = bpf_map_lookup_elem(&stk_rates, key);
	if (!rate)
		return NULL;
	if (whose)
		rate->hdr = *whose;
	else
		stk_header(&rate->hdr, kind, 0);
	return rate;
}

/*
 * Counts a record of a process; false when it has sent its share of this second. A function of its own, like others that
 * few sessions use: inlined where each record is made, they were half of what the kernel has to verify.
 */
static __attribute__((noinline)) bool stk_in_limit(__u32 kind, const struct stk_task_key *key,
						   const struct stk_hdr *whose)
{
	__u64 second = bpf_ktime_get_boot_ns() / 1000000000;
	struct stk_rate *rate = stk_rate_of(key, kind, whose);

	/* The map is full: better too much than in silence. */
	if (!rate)
		return true;
	if (rate->second != second) {
		rate->second = second;
		rate->sent = 0;
	}
	/* Threads that come together here may send a few more than they should. */
	if (rate->sent < stk_config.process_limit) {
		__sync_fetch_and_add(&rate->sent, 1);
		return true;
	}
	__sync_fetch_and_add(&rate->suppressed, 1);
	stk_lost(kind, STK_LOSS_LIMITED);
	return false;
}

/* NULL is the current process. */
static __always_inline void stk_key_of(struct stk_task_key *key, const struct stk_hdr *whose)
{
	if (whose) {
		key->start_ns = whose->start_ns;
		key->tgid = whose->tgid;
	} else {
		stk_current_key(key);
	}
}

/* Whether records of this process are asked for; NULL is the current one. What is left out is counted. */
static __always_inline bool stk_asked_for(__u32 kind, const struct stk_hdr *whose)
{
	struct stk_task_key key;

	if (stk_config.kinds && !(stk_config.kinds >> kind & 1))
		return false;
	if (stk_essential(kind) || (stk_config.sample <= 1 && !stk_config.process_limit))
		return true;
	stk_key_of(&key, whose);
	if (stk_config.sample > 1 && (stk_lot(&key) >> 32) % stk_config.sample) {
		stk_lost(kind, STK_LOSS_SAMPLED);
		return false;
	}
	return !stk_config.process_limit || stk_in_limit(kind, &key, whose);
}

/* Whether a ring that is thinned out so far has no room for records of this process, which are counted then. */
static __attribute__((noinline)) bool stk_left_out(__u32 kind, const struct stk_hdr *whose,
						   __u32 thinning)
{
	struct stk_task_key key;

	stk_key_of(&key, whose);
	/* Who is heard at one level is heard at all below. */
	if (thinning < 64 && !(stk_lot(&key) & ((1ULL << (thinning & 31)) - 1)))
		return false;
	stk_lost(kind, STK_LOSS_THINNED);
	return true;
}

/* The same of a ring that is filled so far. */
static __always_inline bool stk_thinned(__u32 kind, const struct stk_hdr *whose, __u64 filled)
{
	__u32 thinning = stk_thinning(kind, filled);

	if (!stk_config.thin || stk_essential(kind) || !thinning)
		return false;
	return stk_left_out(kind, whose, thinning);
}

/*
 * The consumer runs on a timer; waking it costs the producer up to 8 us (see docs/ARCHITECTURE.md). So it is woken only
 * by the record that crosses a quarter, half or three quarters of the ring.
 */
static __always_inline __u64 stk_wake(__u64 before, __u32 len)
{
	__u64 quarter = stk_config.ring_bytes / 4;
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
	if (bpf_ringbuf_output(&stk_events, rec, len, stk_wake(stk_filled(), len)))
		stk_lost(kind, STK_LOSS_RING);
}

/*
 * Room for a record in the ring, and how it is to be submitted; NULL when it is left out or there is none, and that is
 * counted.
 */
static __always_inline void *stk_reserve(__u32 kind, const struct stk_hdr *whose, __u64 len,
					 __u64 *wake)
{
	__u64 filled;
	void *rec;

	if (!stk_asked_for(kind, whose))
		return NULL;
	filled = stk_filled();
	if (stk_thinned(kind, whose, filled))
		return NULL;
	*wake = stk_wake(filled, len);
	rec = bpf_ringbuf_reserve(&stk_events, len, 0);
	if (!rec)
		stk_lost(kind, STK_LOSS_RING);
	return rec;
}

#endif
