/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where processes spend their time: a clock that looks at what runs, and the time between leaving a CPU and coming back.
 *
 * The clock ticks in an interrupt, also in the middle of another program and of what it does to its maps. So nothing
 * here allocates: all maps have their elements from the start, and their locks are never held with interrupts on.
 *
 * Counters are taken out and not compared, because there are more stacks than a map could hold for long. What is
 * counted belongs to an epoch; user space begins the next one, and takes the counters of the one before.
 */
#include "stack.bpf.h"
#include "stockade.bpf.h"

STK_EXPORT(stk_profile_key);
STK_EXPORT(stk_profile_sum);
STK_EXPORT(stk_stack);

enum {
	STK_STACKS_MAX = 4096, /* 1 KiB each; the loader makes it larger on larger machines */
	STK_PROFILE_MAX = 8192,
	STK_PROFILE_WHO_MAX = 4096,
	STK_WAITS_MAX = 16384,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_STACKS_MAX);
	__type(key, __u64);
	__type(value, struct stk_stack);
} stk_stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_PROFILE_MAX);
	__type(key, struct stk_profile_key);
	__type(value, struct stk_profile_sum);
} stk_prof_sums SEC(".maps");

/* The processes that were counted since user space looked. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_PROFILE_WHO_MAX);
	__type(key, struct stk_task_key);
	__type(value, struct stk_hdr);
} stk_prof_who SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stk_epoch SEC(".maps");

/* Too large for the stack. Nothing interrupts its user: the clock's program runs in an interrupt, the scheduler's with
 * interrupts off, and no session has both. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_stack);
} stk_stack_buf SEC(".maps");

/* A thread: with its start time a reused id is another key. */
struct stk_thread_key {
	__u64 start_ns;
	__u64 tid;
};

struct stk_wait {
	struct stk_profile_key key;
	__u64 since_ns;
};

/* Threads that are off the CPU. LRU: one that has ended never comes back. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, STK_WAITS_MAX);
	__type(key, struct stk_thread_key);
	__type(value, struct stk_wait);
} stk_waits SEC(".maps");

/* Keeps the stack of the current task and returns its key; 0 when it has none. */
static __always_inline __u64 keep_stack(void *ctx, __u64 flags)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_stack *stack = bpf_map_lookup_elem(&stk_stack_buf, &cpu);
	long bytes;

	if (!stack) {
		stk_lost(STK_KIND_STACK, STK_LOSS_SCRATCH);
		return 0;
	}
	bytes = bpf_get_stack(ctx, stack->frames, sizeof(stack->frames), flags);
	if (bytes <= 0)
		return 0;
	stack->depth = (__u64)bytes / sizeof(stack->frames[0]);
	return stk_stack_keep(&stk_stacks, stack, stack->frames, stack->depth, STK_STACK_DEPTH);
}

static __always_inline __u32 epoch_now(void)
{
	__u32 zero = 0, *epoch = bpf_map_lookup_elem(&stk_epoch, &zero);

	return epoch ? *epoch : 0;
}

/* Notes who the current process is, unless user space is going to find it noted already. The name is in the key. */
static __always_inline void keep_who(struct stk_task_key *task)
{
	struct stk_hdr who;

	if (bpf_map_lookup_elem(&stk_prof_who, task))
		return;
	stk_header(&who, STK_KIND_PROFILE, sizeof(who));
	/* Without it the process is known by its id alone. */
	bpf_map_update_elem(&stk_prof_who, task, &who, BPF_ANY);
}

static __always_inline void count(struct stk_profile_key *key, __u64 time_ns, __u32 kind)
{
	struct stk_profile_sum zero = {}, *sum = stk_entry(&stk_prof_sums, key, &zero, kind);

	if (!sum)
		return;
	__sync_fetch_and_add(&sum->count, 1);
	/* Adding a constant 0 becomes an atomic or, which 5.10 does not have. */
	if (time_ns)
		__sync_fetch_and_add(&sum->time_ns, time_ns);
}

static __always_inline void key_of_current(struct stk_profile_key *key, void *ctx)
{
	stk_current_key(&key->task);
	stk_current_comm(key->comm);
	keep_who(&key->task);
	key->user = keep_stack(ctx, BPF_F_USER_STACK);
	key->kernel = keep_stack(ctx, 0);
}

SEC("?perf_event")
int profile_sample__clock(struct bpf_perf_event_data *ctx)
{
	struct stk_profile_key key = {};

	if (!stk_wanted())
		return 0;
	key_of_current(&key, ctx);
	key.epoch = epoch_now();
	count(&key, 0, STK_KIND_PROFILE);
	return 0;
}

/* The current task leaves the CPU. */
static __always_inline void on_leave(void *ctx, bool preempted)
{
	struct task_struct *task = stk_current();
	struct stk_thread_key thread;
	struct stk_wait wait = {};

	/* The idle task does not wait for anything. */
	if (!STK_LOAD(task, pid) || !stk_wanted())
		return;
	key_of_current(&wait.key, ctx);
	wait.key.preempted = preempted;
	wait.since_ns = bpf_ktime_get_ns();
	thread.start_ns = STK_LOAD(task, start_boottime);
	thread.tid = STK_LOAD(task, pid);
	if (bpf_map_update_elem(&stk_waits, &thread, &wait, BPF_ANY))
		stk_lost(STK_KIND_OFF_CPU, STK_LOSS_MAP);
}

/* Another one comes to it. */
static __always_inline void on_return(struct task_struct *task)
{
	struct stk_profile_key key;
	struct stk_thread_key thread;
	struct stk_wait *wait;
	__u64 time_ns;

	thread.start_ns = BPF_CORE_READ(task, start_boottime);
	thread.tid = BPF_CORE_READ(task, pid);
	wait = bpf_map_lookup_elem(&stk_waits, &thread);
	/* Out of scope, or off the CPU since before we looked. */
	if (!wait)
		return;
	time_ns = bpf_ktime_get_ns() - wait->since_ns;
	key = wait->key;
	bpf_map_delete_elem(&stk_waits, &thread);
	if (time_ns < stk_config.min_latency_ns)
		return;
	key.epoch = epoch_now();
	count(&key, time_ns, STK_KIND_OFF_CPU);
}

static __always_inline int on_switch(void *ctx, bool preempted, struct task_struct *next)
{
	on_leave(ctx, preempted);
	on_return(next);
	return 0;
}

STK_TRACEPOINT(sched_switch, profile_switch, on_switch(ctx, preempt, next), bool preempt,
	       struct task_struct *prev, struct task_struct *next)
