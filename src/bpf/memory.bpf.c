/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Memory: how the address space of a process changes, what it holds, and who is killed for it.
 *
 * Faults and sizes are not hooked: the kernel counts them anyway, and an iterator reads its numbers. Only for processes
 * that end between two looks there is a hook, at their end.
 */
#include "summary.bpf.h"
#include "task.bpf.h"

STK_EXPORT(stk_memory);
STK_EXPORT(stk_memory_key);
STK_EXPORT(stk_memory_sum);
STK_EXPORT(stk_memory_state);
STK_EXPORT(stk_memory_form);
STK_EXPORT(stk_oom);

enum {
	STK_CPUS_MAX =
		1024, /* whose parts of a counter are read; the rest is within the kernel's own batches */
	STK_MEMORY_THREADS = 64, /* as in process.bpf.c */
};

/* include/uapi/asm-generic/errno-base.h */
#define ENOMEM 12

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct stk_memory_key);
	__type(value, struct stk_memory_sum);
} stk_memory_sums SEC(".maps");

/* Processes that have ended since user space looked. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct stk_task_key);
	__type(value, struct stk_memory_state);
} stk_memory_ended SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_memory_form);
} stk_memory_form SEC(".maps");

/* Where the heap ended when a thread went into brk. LRU: it may be killed there. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} stk_brks SEC(".maps");

/* ---- What the kernel counts ---- */

/* Up to 6.1 one number for each kind of page, next to which each thread keeps up to 64 changes for itself. */
struct mm_rss_stat___old {
	atomic_long_t count[4];
};

struct mm_struct___old {
	struct mm_rss_stat___old rss_stat;
};

/* Any variable of which each CPU has one; its places tell where a CPU's part of a counter is. */
extern const int bpf_prog_active __ksym __weak;

/* What one CPU has not yet added to a counter. */
__attribute__((noinline)) __u64 memory_cpu_part(__u64 counters, __u32 cpu)
{
	const void *here;
	__s32 part = 0;

	/* 5.10 has no such variables in its BTF. It needs none, and yet verifies this function by itself. */
	if (!&bpf_prog_active)
		return 0;
	here = bpf_per_cpu_ptr(&bpf_prog_active, cpu);
	if (!here)
		return 0;
	bpf_probe_read_kernel(&part, sizeof(part),
			      (void *)(counters + stk_number(here) - stk_number(&bpf_prog_active)));
	return (__s64)part;
}

/* A counter's value with what the CPUs have not yet added to it: up to 32 pages each, and more on large machines. */
__attribute__((noinline)) __u64 memory_counter(__u64 counter)
{
	struct percpu_counter *of = (struct percpu_counter *)counter;
	__u64 sum = BPF_CORE_READ(of, count);
	__u64 counters = (__u64)BPF_CORE_READ(of, counters);
	__u32 cpu;

	for (cpu = 0; cpu < STK_CPUS_MAX; cpu++) {
		if (cpu >= stk_config.cpus)
			break;
		sum += memory_cpu_part(counters, cpu);
	}
	return sum;
}

/* Counters of pages can be below zero for a moment, as the kernel has it too. */
static __always_inline __u64 positive(__u64 pages)
{
	return (__s64)pages < 0 ? 0 : pages;
}

static __always_inline __u64 resident(struct mm_struct *mm, __u32 which, bool exact)
{
	struct mm_struct___old *old = (void *)mm;
	__u64 counter = (__u64)mm + bpf_core_field_offset(struct mm_struct, rss_stat) +
			which * bpf_core_type_size(struct percpu_counter);

	if (bpf_core_field_exists(old->rss_stat.count)) {
		__u64 count = (__u64)old + bpf_core_field_offset(old->rss_stat.count) +
			      which * sizeof(long);
		long pages = 0;

		bpf_probe_read_kernel(&pages, sizeof(pages), (void *)count);
		return positive(pages);
	}
	if (exact)
		return positive(memory_counter(counter));
	return positive(BPF_CORE_READ((struct percpu_counter *)counter, count));
}

static __always_inline void read_sizes(struct stk_memory_state *state, struct mm_struct *mm,
				       bool exact)
{
	state->file = resident(mm, MM_FILEPAGES, exact);
	state->anon = resident(mm, MM_ANONPAGES, exact);
	state->shmem = resident(mm, MM_SHMEMPAGES, exact);
	state->swap = resident(mm, MM_SWAPENTS, exact);
	state->total_vm = BPF_CORE_READ(mm, total_vm);
	state->peak_vm = BPF_CORE_READ(mm, hiwater_vm);
	state->peak_rss = BPF_CORE_READ(mm, hiwater_rss);
	state->heap_bytes = BPF_CORE_READ(mm, brk) - BPF_CORE_READ(mm, start_brk);
	state->hdr.flags |= STK_MEMORY_SIZES;
}

static __always_inline void read_signal(struct stk_memory_state *state,
					struct signal_struct *signal)
{
	state->ended_minor = BPF_CORE_READ(signal, min_flt);
	state->ended_major = BPF_CORE_READ(signal, maj_flt);
}

/* A thread. All of one process are told, because its faults are the sum over them. */
static __always_inline int on_thread(struct bpf_iter__task *ctx, bool exact)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	struct stk_memory_state state = {};
	struct signal_struct *signal;
	struct task_struct *leader;
	struct mm_struct *mm;

	if (!task || BPF_CORE_READ(task, flags) & STK_PF_KTHREAD)
		return 0;
	signal = BPF_CORE_READ(task, signal);
	/* Ended: its last words are in stk_memory_ended. */
	if (BPF_CORE_READ(signal, live.counter) == 0)
		return 0;
	stk_header_of(&state.hdr, task, STK_KIND_MEMORY, sizeof(state));
	if (stk_task_wanted(task))
		state.hdr.flags |= STK_MEMORY_WANTED;
	state.minor = BPF_CORE_READ(task, min_flt);
	state.major = BPF_CORE_READ(task, maj_flt);
	leader = BPF_CORE_READ(task, group_leader);
	mm = BPF_CORE_READ(task, mm);
	/* Once for a process: by its leader, or by any thread when that one has ended. */
	if (mm && (task == leader || !BPF_CORE_READ(leader, mm))) {
		read_sizes(&state, mm, exact);
		/* Nothing holds it: who lets go of it meanwhile has made the numbers worthless. */
		if (BPF_CORE_READ(task, mm) != mm)
			state.hdr.flags &= ~STK_MEMORY_SIZES;
	}
	read_signal(&state, signal);
	bpf_seq_write(seq, &state, sizeof(state));
	return 0;
}

/* Each in two forms: some kernels do not tell programs where a CPU's part of a counter is (CONFIG_KALLSYMS_ALL). */

SEC("?iter/task")
int memory_state__iter(struct bpf_iter__task *ctx)
{
	return on_thread(ctx, true);
}

SEC("?iter/task")
int memory_state_about__iter(struct bpf_iter__task *ctx)
{
	return on_thread(ctx, false);
}

/* Faults of the whole process at its end: those of threads that were released, and those still on the list. */
static __always_inline void read_final(struct stk_memory_state *state, struct task_struct *task)
{
	struct signal_struct *signal = BPF_CORE_READ(task, signal);
	struct list_head *head =
		(struct list_head *)((char *)signal +
				     bpf_core_field_offset(struct signal_struct, thread_head));
	struct list_head *next = BPF_CORE_READ(signal, thread_head.next);
	int i;

	read_signal(state, signal);
	state->minor = state->ended_minor;
	state->major = state->ended_major;
	for (i = 0; i < STK_MEMORY_THREADS; i++) {
		struct task_struct *t;

		if (next == head || !next)
			break;
		t = (struct task_struct *)((char *)next -
					   bpf_core_field_offset(struct task_struct, thread_node));
		state->minor += BPF_CORE_READ(t, min_flt);
		state->major += BPF_CORE_READ(t, maj_flt);
		next = BPF_CORE_READ(next, next);
	}
	state->hdr.flags |= STK_MEMORY_FINAL;
}

static __always_inline bool is_last(struct task_struct *task)
{
	/* Threads of the kernel hold no memory of a process; up to 5.10 they get here too. */
	if (BPF_CORE_READ(task, flags) & STK_PF_KTHREAD)
		return false;
	/* Lowered before all hooks at the end of a thread (do_exit, kernel/exit.c). */
	return BPF_CORE_READ(task, signal, live.counter) == 0 && stk_wanted();
}

/* Several threads that end at once may each be the last one: who writes last has the best numbers. */
static __always_inline void keep(struct stk_memory_state *state)
{
	struct stk_task_key key;

	key.start_ns = state->hdr.start_ns;
	key.tgid = state->hdr.tgid;
	if (bpf_map_update_elem(&stk_memory_ended, &key, state, BPF_ANY))
		stk_lost(STK_KIND_MEMORY, STK_LOSS_MAP);
	else
		stk_made();
}

static __always_inline int on_release(struct task_struct *task, struct mm_struct *mm, bool exact)
{
	struct stk_memory_state state = {};

	if (!is_last(task))
		return 0;
	stk_header(&state.hdr, STK_KIND_MEMORY, sizeof(state));
	read_sizes(&state, mm, exact);
	keep(&state);
	return 0;
}

static __always_inline int on_exit(struct task_struct *task, bool exact)
{
	struct stk_memory_state state = {}, *released;
	struct stk_task_key key;
	struct mm_struct *mm;

	if (!is_last(task))
		return 0;
	stk_current_key(&key);
	released = bpf_map_lookup_elem(&stk_memory_ended, &key);
	if (released)
		state = *released;
	else
		stk_header(&state.hdr, STK_KIND_MEMORY, sizeof(state));
	/* From 6.16 on the tracepoint comes before the memory is given back. */
	mm = BPF_CORE_READ(task, mm);
	if (mm)
		read_sizes(&state, mm, exact);
	read_final(&state, task);
	keep(&state);
	return 0;
}

/* Gives the memory back; still holds it. */
SEC("?kprobe/exit_mm_release")
int BPF_KPROBE(memory_release__kprobe, struct task_struct *task, struct mm_struct *mm)
{
	return on_release(task, mm, true);
}

SEC("?kprobe/exit_mm_release")
int BPF_KPROBE(memory_release_about__kprobe, struct task_struct *task, struct mm_struct *mm)
{
	return on_release(task, mm, false);
}

/* Behind the last access of the process to its memory. Also called for a process that could not be created. */
SEC("?kprobe/exit_files")
int BPF_KPROBE(memory_exit__kprobe, struct task_struct *task)
{
	return task == stk_current() ? on_exit(task, false) : 0;
}

SEC("?raw_tp/sched_process_exit")
int BPF_PROG(memory_exit__raw_tp, struct task_struct *task)
{
	return on_exit(task, true);
}

SEC("?raw_tp/sched_process_exit")
int BPF_PROG(memory_exit_about__raw_tp, struct task_struct *task)
{
	return on_exit(task, false);
}

/* ---- Changes of the address space ---- */

struct change {
	__u64 address;
	__u64 bytes;
	__u32 call;
	__u32 errnum;
	__u32 prot;
	__u32 flags;
};

static __always_inline void count(struct change *change)
{
	struct stk_memory_sum zero = {}, *sum;
	struct stk_memory_key key;

	stk_current_key(&key.task);
	key.call = change->call;
	key.errnum = change->errnum;
	sum = stk_counters(&stk_memory_sums, &key, &zero, STK_KIND_MEMORY);
	if (!sum)
		return;
	__sync_fetch_and_add(&sum->calls, 1);
	/* Adding a constant 0 becomes an atomic or, which 5.10 does not have. */
	if (change->bytes)
		__sync_fetch_and_add(&sum->bytes, change->bytes);
}

static __always_inline void send(struct change *change)
{
	struct stk_memory *rec;
	__u64 wake;

	if (stk_config.filter & STK_FILTER_ERRORS && !change->errnum)
		return;
	if (change->bytes < stk_config.min_bytes)
		return;
	rec = stk_reserve(STK_KIND_MEMORY, NULL, sizeof(*rec), &wake);
	if (!rec)
		return;
	stk_header(&rec->hdr, STK_KIND_MEMORY, sizeof(*rec));
	rec->address = change->address;
	rec->bytes = change->bytes;
	rec->call = change->call;
	rec->errnum = change->errnum;
	rec->prot = change->prot;
	rec->flags = change->flags;
	bpf_ringbuf_submit(rec, wake);
}

static __always_inline struct stk_memory_form *form_of(void)
{
	__u32 zero = 0;
	struct stk_memory_form *form = bpf_map_lookup_elem(&stk_memory_form, &zero);

	return form && form->page_bytes ? form : NULL;
}

static __always_inline int report(struct stk_memory_form *form, struct change *change)
{
	if (form->events)
		send(change);
	else
		count(change);
	return 0;
}

static __always_inline __u64 whole_pages(struct stk_memory_form *form, __u64 bytes)
{
	__u64 page = form->page_bytes;

	return (bytes + page - 1) & ~(page - 1);
}

static __always_inline int on_map(__u32 call, struct pt_regs *regs, long result)
{
	struct stk_memory_form *form = form_of();
	struct change change = { .call = call };
	__u64 args[6];

	if (!form || !stk_wanted())
		return 0;
	stk_syscall_args(args, regs, false);
	change.address = args[0];
	change.bytes = whole_pages(form, args[1]);
	if (call == STK_MEMORY_MMAP) {
		change.prot = args[2];
		change.flags = args[3];
		if (!STK_IS_ERR(result))
			change.address = result;
	}
	if (STK_IS_ERR(result))
		change.errnum = -result;
	return report(form, &change);
}

static __always_inline int on_brk_enter(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 before;

	if (!stk_wanted())
		return 0;
	before = BPF_CORE_READ(stk_current(), mm, brk);
	bpf_map_update_elem(&stk_brks, &tid, &before, BPF_ANY);
	return 0;
}

static __always_inline int on_brk_exit(struct pt_regs *regs, long result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *before = bpf_map_lookup_elem(&stk_brks, &tid);
	struct change change = { .call = STK_MEMORY_BRK };
	struct stk_memory_form *form = form_of();
	__u64 after = result, args[6];

	if (!before)
		return 0;
	if (!form)
		goto out;
	stk_syscall_args(args, regs, false);
	change.address = after;
	/* It has no error number: it says where the heap ends now, which was not what was asked for. 0 only asks. */
	if (args[0] && args[0] != after) {
		change.errnum = ENOMEM;
		change.address = args[0];
	} else if (after < *before) {
		change.call = STK_MEMORY_BRK_SHRINK;
		change.bytes = whole_pages(form, *before) - whole_pages(form, after);
	} else {
		change.bytes = whole_pages(form, after) - whole_pages(form, *before);
	}
	report(form, &change);
out:
	bpf_map_delete_elem(&stk_brks, &tid);
	return 0;
}

#if defined(__TARGET_ARCH_x86)
#define CALL(hook, name) SEC("?" hook "/__x64_sys_" name)
#else
#define CALL(hook, name) SEC("?" hook "/__arm64_sys_" name)
#endif

/* The functions behind the calls: nothing else pays. */

CALL("fexit", "mmap")
int BPF_PROG(memory_mmap__fexit, struct pt_regs *regs, long result)
{
	return on_map(STK_MEMORY_MMAP, regs, result);
}

CALL("fexit", "munmap")
int BPF_PROG(memory_munmap__fexit, struct pt_regs *regs, long result)
{
	return on_map(STK_MEMORY_MUNMAP, regs, result);
}

CALL("fentry", "brk")
int BPF_PROG(memory_brk__fentry, struct pt_regs *regs)
{
	return on_brk_enter();
}

CALL("fexit", "brk")
int BPF_PROG(memory_brk__fexit, struct pt_regs *regs, long result)
{
	return on_brk_exit(regs, result);
}

/* Classic tracepoints: where fexit is refused, or can be preempted and then misses the calls of others. */

SEC("?tp/syscalls/sys_exit_mmap")
int memory_mmap__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_map(STK_MEMORY_MMAP, stk_regs(), ctx->ret);
}

SEC("?tp/syscalls/sys_exit_munmap")
int memory_munmap__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_map(STK_MEMORY_MUNMAP, stk_regs(), ctx->ret);
}

SEC("?tp/syscalls/sys_enter_brk")
int memory_brk_enter__tp(struct trace_event_raw_sys_enter *ctx)
{
	return on_brk_enter();
}

SEC("?tp/syscalls/sys_exit_brk")
int memory_brk_exit__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_brk_exit(stk_regs(), ctx->ret);
}

/* A tax on every system call of the machine: last. */

SEC("?raw_tp/sys_exit")
int BPF_PROG(memory_mmap__raw_tp, struct pt_regs *regs, long result)
{
	if (stk_syscall_nr(regs) != STK_NR_mmap || stk_compat(regs))
		return 0;
	return on_map(STK_MEMORY_MMAP, regs, result);
}

SEC("?raw_tp/sys_exit")
int BPF_PROG(memory_munmap__raw_tp, struct pt_regs *regs, long result)
{
	if (stk_syscall_nr(regs) != STK_NR_munmap || stk_compat(regs))
		return 0;
	return on_map(STK_MEMORY_MUNMAP, regs, result);
}

SEC("?raw_tp/sys_enter")
int BPF_PROG(memory_brk_enter__raw_tp, struct pt_regs *regs, long nr)
{
	return nr != STK_NR_brk || stk_compat(regs) ? 0 : on_brk_enter();
}

SEC("?raw_tp/sys_exit")
int BPF_PROG(memory_brk_exit__raw_tp, struct pt_regs *regs, long result)
{
	return stk_syscall_nr(regs) != STK_NR_brk || stk_compat(regs) ? 0
								      : on_brk_exit(regs, result);
}

/* ---- Who is killed for it ---- */

/*
 * The kernel kills under a lock of its own, so that this program cannot be skipped where tracepoints can be preempted.
 * Its argument is the victim since 6.8, and in the 5.10 and 6.1 series too, by backport; before it was a pid.
 */
static __always_inline int on_oom(struct task_struct *victim, bool exact)
{
	struct stk_memory_state state = {};
	struct task_struct *trigger;
	struct mm_struct *mm;
	struct stk_oom *rec;
	__u64 wake;

	if ((__u64)victim >> 32 == 0) {
		stk_lost(STK_KIND_OOM, STK_LOSS_MAP);
		return 0;
	}
	if (!stk_task_wanted(victim))
		return 0;
	mm = BPF_CORE_READ(victim, mm);
	if (mm)
		read_sizes(&state, mm, exact);
	rec = stk_reserve(STK_KIND_OOM, NULL, sizeof(*rec), &wake);
	if (!rec)
		return 0;
	stk_header_of(&rec->hdr, victim, STK_KIND_OOM, sizeof(*rec));
	trigger = stk_current();
	rec->trigger_start_ns = BPF_CORE_READ(trigger, group_leader, start_boottime);
	rec->file = state.file;
	rec->anon = state.anon;
	rec->shmem = state.shmem;
	rec->swap = state.swap;
	rec->total_vm = state.total_vm;
	rec->table_bytes = BPF_CORE_READ(mm, pgtables_bytes.counter);
	rec->trigger_tgid = BPF_CORE_READ(trigger, tgid);
	rec->score_adj = BPF_CORE_READ(victim, signal, oom_score_adj);
	bpf_get_current_comm(rec->trigger_comm, sizeof(rec->trigger_comm));
	/* Too rare and too grave to wait for others. */
	bpf_ringbuf_submit(rec, wake | BPF_RB_FORCE_WAKEUP);
	return 0;
}

SEC("?raw_tp/mark_victim")
int BPF_PROG(memory_oom__raw_tp, struct task_struct *victim)
{
	return on_oom(victim, true);
}

SEC("?raw_tp/mark_victim")
int BPF_PROG(memory_oom_about__raw_tp, struct task_struct *victim)
{
	return on_oom(victim, false);
}
