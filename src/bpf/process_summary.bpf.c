/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * CPU time of processes, how long they waited for a CPU, and how often they gave it up.
 *
 * Nothing is hooked where the scheduler switches: the kernel keeps these numbers for each thread, and an iterator reads
 * them. What a thread has used until it is gone is taken when its task_struct is freed, because it runs on after the
 * tracepoint of its end. Its process is noted at its end: later the leader may be gone.
 */
#include "task.bpf.h"

STK_EXPORT(stk_cpu_times);
STK_EXPORT(stk_cpu_thread);
STK_EXPORT(stk_cpu_process);
STK_EXPORT(stk_cpu_ending);

/* Processes with threads that have ended. Also those that nobody asked for: they may come into scope by an exec. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct stk_task_key);
	__type(value, struct stk_cpu_process);
} stk_cpu_processes SEC(".maps");

/* Threads between their end and the moment when they are freed, by task_struct. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct stk_cpu_ending);
} stk_cpu_ending SEC(".maps");

/* One entry: 1 once user space knows what all threads had used before. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stk_cpu_started SEC(".maps");

static __always_inline void read_times(struct stk_cpu_times *to, struct task_struct *task)
{
	to->utime_ns = BPF_CORE_READ(task, utime);
	to->stime_ns = BPF_CORE_READ(task, stime);
	to->rtime_ns = BPF_CORE_READ(task, se.sum_exec_runtime);
	to->voluntary = BPF_CORE_READ(task, nvcsw);
	to->involuntary = BPF_CORE_READ(task, nivcsw);
	to->run_delay_ns = 0;
	if (bpf_core_field_exists(task->sched_info.run_delay)) /* CONFIG_SCHED_INFO */
		to->run_delay_ns = BPF_CORE_READ(task, sched_info.run_delay);
}

/* A thread. All of one process are told, because its numbers are the sums over them. */
SEC("?iter/task")
int process_state__iter(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	struct stk_cpu_thread thread = {};
	__u64 address;
	bool ended;

	if (!task)
		return 0;
	address = (__u64)task;
	ended = BPF_CORE_READ(task, exit_state) != 0;
	/* It had ended before anybody looked: what it used is not ours to tell, now and when it is freed. */
	if (ended && !bpf_map_lookup_elem(&stk_cpu_ending, &address))
		return 0;
	stk_header_of(&thread.hdr, task, STK_KIND_EXIT, sizeof(thread));
	if (stk_task_wanted(task))
		thread.hdr.flags |= STK_CPU_WANTED;
	if (ended)
		thread.hdr.flags |= STK_CPU_ENDED;
	if (bpf_core_field_exists(task->sched_info.run_delay))
		thread.hdr.flags |= STK_CPU_DELAYS;
	read_times(&thread.times, task);
	bpf_seq_write(seq, &thread, sizeof(thread));
	return 0;
}

static __always_inline struct stk_cpu_process *process_of(struct stk_task_key *key)
{
	struct stk_cpu_process zero = {};

	return stk_entry(&stk_cpu_processes, key, &zero, STK_KIND_EXIT);
}

/* Notes whose thread this is, for on_free. */
static __always_inline void note_ending(struct task_struct *task, struct stk_task_key *key)
{
	struct stk_cpu_ending ending = {};
	__u64 address = (__u64)task;
	__u32 zero = 0, *started = bpf_map_lookup_elem(&stk_cpu_started, &zero);

	ending.task = *key;
	ending.tid = bpf_get_current_pid_tgid();
	ending.early = !started || !*started;
	read_times(&ending.times, task);
	if (bpf_map_update_elem(&stk_cpu_ending, &address, &ending, BPF_ANY))
		stk_lost(STK_KIND_EXIT, STK_LOSS_MAP);
}

static __always_inline int on_exit(void)
{
	struct task_struct *task = stk_current();
	struct signal_struct *signal = STK_FOLLOW(task, signal);
	/* signal->live is lowered before the tracepoint (do_exit, kernel/exit.c). */
	bool last = STK_LOAD(signal, live.counter) == 0;
	bool wanted = stk_wanted();
	struct stk_cpu_process *process;
	struct stk_task_key key;

	stk_current_key(&key);
	if (last && !wanted) {
		process = bpf_map_lookup_elem(&stk_cpu_processes, &key);
		if (!process)
			return 0;
		/* None of its threads was wanted when it ended. */
		if (!process->wanted) {
			bpf_map_delete_elem(&stk_cpu_processes, &key);
			return 0;
		}
	} else {
		process = process_of(&key);
		if (!process)
			return 0;
	}
	if (wanted)
		process->wanted = 1;
	__sync_fetch_and_add(&process->ending, 1);
	note_ending(task, &key);
	if (!last)
		return 0;
	stk_header(&process->hdr, STK_KIND_EXIT, sizeof(*process));
	process->code = stk_wait_status();
	process->ended = 1;
	return 0;
}

static __always_inline void add_times(struct stk_cpu_times *to, const struct stk_cpu_times *times)
{
	__sync_fetch_and_add(&to->utime_ns, times->utime_ns);
	__sync_fetch_and_add(&to->stime_ns, times->stime_ns);
	__sync_fetch_and_add(&to->rtime_ns, times->rtime_ns);
	__sync_fetch_and_add(&to->voluntary, times->voluntary);
	__sync_fetch_and_add(&to->involuntary, times->involuntary);
	/* Without CONFIG_SCHED_INFO it is a constant 0, and an atomic add of that is an `or`, which 5.10 does not have. */
	if (times->run_delay_ns)
		__sync_fetch_and_add(&to->run_delay_ns, times->run_delay_ns);
}

/* It has left the CPU for good, and the iterator's list before that: nobody counts it twice. */
static __always_inline int on_free(struct task_struct *task)
{
	__u64 address = (__u64)task;
	struct stk_cpu_ending *ending = bpf_map_lookup_elem(&stk_cpu_ending, &address);
	struct stk_cpu_process *process;
	struct stk_cpu_times times;

	if (!ending)
		return 0;
	process = bpf_map_lookup_elem(&stk_cpu_processes, &ending->task);
	read_times(&times, task);
	if (ending->early) {
		/* User space knows whether it has seen it before. */
		ending->times = times;
		ending->freed = 1;
	} else if (process) {
		add_times(&process->times, &times);
	}
	if (process)
		__sync_fetch_and_add(&process->freed, 1);
	if (!ending->early)
		bpf_map_delete_elem(&stk_cpu_ending, &address);
	return 0;
}

STK_TRACEPOINT(sched_process_exit, process_ending, on_exit(), struct task_struct *task)
STK_TRACEPOINT(sched_process_free, process_freed, on_free(task), struct task_struct *task)

/* Also called for a process that could not be created. */
SEC("?kprobe/exit_files")
int BPF_KPROBE(process_ending__kprobe, struct task_struct *task)
{
	return task == stk_current() ? on_exit() : 0;
}
