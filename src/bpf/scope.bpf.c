/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Keeps the set of followed processes: a child of a member is a member, whatever it does to its parent, session or
 * name, until its task_struct is freed. And lists the processes that already run.
 *
 * A member leaves at sched_process_free and not at exit, so that its exit event still finds it in scope.
 */
#include "stockade.bpf.h"

STK_EXPORT(stk_seed);
STK_EXPORT(stk_config);
STK_EXPORT(stk_task);
STK_EXPORT(stk_task_key);
STK_EXPORT(stk_rate);

static __always_inline int on_fork(struct task_struct *child)
{
	STK_VIEW(of, task_struct, child, pid, tgid, 8);
	struct stk_task_key key;
	struct stk_task *entry;
	struct stk_task next;
	__u8 *mark;

	/* A new thread is covered by its process. */
	if (STK_SEE(of, pid) != STK_SEE(of, tgid))
		return 0;
	entry = stk_current_entry();
	if (!entry || !(entry->flags & STK_TASK_FOLLOW))
		return 0;
	next.flags = entry->flags;
	next.pad = 0;
	/* A new process is its own leader. */
	key.start_ns = BPF_CORE_READ(child, start_boottime);
	key.tgid = STK_SEE(of, tgid);
	mark = stk_mark_of(key.tgid);
	if (mark)
		*mark = 1;
	if (bpf_map_update_elem(&stk_tasks, &key, &next, BPF_ANY))
		stk_lost(STK_KIND_SCOPE, STK_LOSS_MAP);
	return 0;
}

/* A member that has ended is nobody to wait for, though it stays until its parent has asked for it. */
static __always_inline int on_exit(void)
{
	struct task_struct *task = stk_current();
	struct signal_struct *signal = STK_FOLLOW(task, signal);
	struct stk_task *entry;

	/* signal->live is lowered before the tracepoint (do_exit, kernel/exit.c). */
	if (STK_LOAD(signal, live.counter) != 0)
		return 0;
	entry = stk_current_entry();
	if (entry)
		entry->flags |= STK_TASK_ENDED;
	return 0;
}

static __always_inline int on_free(struct task_struct *task)
{
	struct stk_task_key key;

	if (stk_freed(task, &key))
		bpf_map_delete_elem(&stk_tasks, &key);
	return 0;
}

STK_TRACEPOINT(sched_process_fork, scope_fork, on_fork(child), struct task_struct *parent,
	       struct task_struct *child)
STK_TRACEPOINT(sched_process_free, scope_free, on_free(task), struct task_struct *task)
STK_TRACEPOINT(sched_process_exit, scope_exit, on_exit(), struct task_struct *task)

SEC("?kprobe/wake_up_new_task")
int BPF_KPROBE(scope_fork__kprobe, struct task_struct *child)
{
	return on_fork(child);
}

/* Also called for a process that could not be created. */
SEC("?kprobe/exit_files")
int BPF_KPROBE(scope_exit__kprobe, struct task_struct *task)
{
	return task == stk_current() ? on_exit() : 0;
}
