/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Tells which system calls were refused, or would have been, and ends who is to be killed for one.
 *
 * It is seccomp that refuses them: a tracepoint cannot. Of a call that was refused only the end is traced; one that would
 * have been is told at its begin, because it need not come to an end. Where there is no filter, all are told then, and who is
 * to be killed for one makes it, and does not come back.
 */
#include "fence.bpf.h"
#include "slot.bpf.h"

STK_EXPORT(stk_call_denial);

/*
 * What is refused, by slot, for each half: the strongest refusal that is enforced and the strongest of all, each as a code,
 * less the bits of STK_RULE_NONE: 0 is free.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4 * STK_CALL_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} stk_call_rules SEC(".maps");

static __always_inline int tell(const __u64 *args, __u32 nr, bool compat, __u32 rule, __u64 told,
				bool traced)
{
	struct stk_call_denial *rec;

	rec = bpf_ringbuf_reserve(&stk_denials, sizeof(*rec), 0);
	if (!rec) {
		stk_lost(STK_KIND_DENIAL, STK_LOSS_RING);
		return 0;
	}
	stk_header(&rec->hdr, STK_KIND_CALL_DENIAL, sizeof(*rec));
	__builtin_memcpy(rec->args, args, sizeof(rec->args));
	rec->rule = rule;
	rec->nr = nr;
	rec->verdict = verdict_in(told);
	rec->error = traced ? 0 : told >> TOLD_ERROR;
	rec->abi = compat ? STK_ABI_COMPAT : STK_ABI_NATIVE;
	rec->traced = traced;
	if (told & TOLD_UNLISTED)
		rec->hdr.flags |= STK_FLAG_UNLISTED;
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	return 0;
}

/* At the begin of a call, or when it has ended with `result`. */
static __always_inline int judge(struct pt_regs *regs, long nr, bool begin, long result)
{
	struct stk_armed *armed = armed_now();
	__u64 args[6], told, found, *rules;
	__u32 slot;
	bool self, compat, traced;

	/* -1: a call that a tracer took away, and what a signal handler returns by. */
	if (!armed || nr < 0 || !concerned(&self))
		return 0;
	if (self && nr != STK_CALL_CANARY)
		return 0;
	compat = stk_compat(regs);
	slot = slot_of(regs, nr, compat) + (armed->half ? 2 * STK_CALL_SLOTS : 0);
	rules = bpf_map_lookup_elem(&stk_call_rules, &slot);
	if (!rules)
		return 0;
	found = *rules ^ said(STK_RULE_NONE, STK_RULE_NONE);
	told = told_of(found);
	traced = armed->flags & STK_ARMED_TRACED;
	if (!told || begin != (traced || verdict_in(told) == STK_VERDICT_AUDIT))
		return 0;
	/* Only what came back as the filter answers it has been refused: a new process comes back as well. */
	if (!begin && result != -(long)(told >> TOLD_ERROR))
		return 0;
	stk_syscall_args(args, regs, compat);
	tell(args, nr, compat, rule_in(found), told, traced);
	count_hit(rule_in(found));
	if (verdict_in(told) == STK_VERDICT_KILL)
		bpf_send_signal(STK_SIGKILL);
	return 0;
}

SEC("?raw_tp/sys_enter")
int BPF_PROG(fence_call_begin__raw_tp, struct pt_regs *regs, long nr)
{
	return judge(regs, nr, true, 0);
}

SEC("?raw_tp/sys_exit")
int BPF_PROG(fence_call_end__raw_tp, struct pt_regs *regs, long result)
{
	return judge(regs, stk_syscall_nr(regs), false, result);
}

/* Where programs on raw tracepoints can be preempted, and then miss the calls of others: classic ones cannot. */

SEC("?tp/raw_syscalls/sys_enter")
int fence_call_begin__tp(struct trace_event_raw_sys_enter *ctx)
{
	return judge(stk_regs(), ctx->id, true, 0);
}

SEC("?tp/raw_syscalls/sys_exit")
int fence_call_end__tp(struct trace_event_raw_sys_exit *ctx)
{
	return judge(stk_regs(), ctx->id, false, ctx->ret);
}
