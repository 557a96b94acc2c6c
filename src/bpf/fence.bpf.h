/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What rules say, and who is held by them: for every object of the fence.
 *
 * A set holds, for each kind of access, the strongest rule that is enforced and the strongest of all, as codes: a rule's
 * number doubled, and 1 more where it allows.
 */
#ifndef STOCKADE_FENCE_BPF_H
#define STOCKADE_FENCE_BPF_H

#include "stockade.bpf.h"

STK_EXPORT(stk_set);
STK_EXPORT(stk_armed);
STK_EXPORT(stk_in_force);
STK_EXPORT(stk_action);

/* include/linux/err.h, include/uapi/asm-generic/signal.h */
#define STK_MAX_ERRNO 4095
#define STK_SIGKILL   9

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_set);
} stk_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_in_force);
} stk_armed_at SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_action);
} stk_actions SEC(".maps");

/* The policy that is in force. To be asked for once in a decision. */
static __always_inline struct stk_armed *armed_now(void)
{
	__u32 zero = 0, which;
	struct stk_in_force *now = bpf_map_lookup_elem(&stk_armed_at, &zero);

	if (!now)
		return NULL;
	which = *(volatile __u32 *)&now->which;
	return which ? &now->half[which >> 1 & 1] : NULL;
}

/* The one that a decision has begun with: `asked` has STK_SECOND or not. What was in force stays until the last has ended. */
static __always_inline struct stk_armed *armed_of(__u32 asked)
{
	__u32 zero = 0;
	struct stk_in_force *now = bpf_map_lookup_elem(&stk_armed_at, &zero);

	return now ? &now->half[!!(asked & STK_SECOND)] : NULL;
}

/*
 * A verdict, as it is told: its number in the upper half of a word, then whether no rule names what is accessed, then the
 * errno that is answered.
 */
#define TOLD_VERDICT  32
#define TOLD_UNLISTED (1ULL << 40)
#define TOLD_ERROR    48

/* The code that decides: of a rule that is enforced, else of one that only reports. */
static __always_inline __u32 code_in(__u64 found)
{
	__u32 enforced = found >> 32;

	return enforced == STK_RULE_NONE ? (__u32)found : enforced;
}

static __always_inline __u32 rule_in(__u64 found)
{
	return code_in(found) >> 1;
}

/* Of the strongest refusals; 0 where there is none. */
static __always_inline __u64 told_of(__u64 found)
{
	__u32 code = code_in(found), rule = rule_in(found);
	__u64 told = code & 1 ? TOLD_UNLISTED : 0, error = EPERM;
	struct stk_action *action;

	if (code == STK_RULE_NONE)
		return 0;
	if ((__u32)(found >> 32) == STK_RULE_NONE)
		return told | (__u64)STK_VERDICT_AUDIT << TOLD_VERDICT;
	action = bpf_map_lookup_elem(&stk_actions, &rule);
	if (action && action->error)
		error = (__u16)action->error;
	told |= (__u64)(action && action->kill ? STK_VERDICT_KILL : STK_VERDICT_DENY)
		<< TOLD_VERDICT;
	return told | error << TOLD_ERROR;
}

static __always_inline __u8 verdict_in(__u64 told)
{
	return told >> TOLD_VERDICT;
}

/* Of a rule that has refused something, or would have. */
static __always_inline void count_hit(__u32 rule)
{
	struct stk_action *action = bpf_map_lookup_elem(&stk_actions, &rule);

	if (action)
		__sync_fetch_and_add(&action->hits, 1);
}

/* Carries a verdict out: the hook's answer, 0 where it is an audit's. */
static __always_inline int answer(__u64 told)
{
	if (verdict_in(told) == STK_VERDICT_KILL)
		bpf_send_signal(STK_SIGKILL);
	return -(int)(told >> TOLD_ERROR);
}

/* Of what is handed on as a kind of access: its number, and the class of who asks. */
#define KIND_NUMBER 31
#define KIND_CLASS  8
#define CLASS_MASK  0xff

/* What is said about one kind of access: the strongest rule that is enforced, and below it the strongest of all. */
static __always_inline __u64 said(__u32 enforced, __u32 all)
{
	return (__u64)enforced << 32 | all;
}

static __always_inline __u64 both(__u64 one, __u64 two)
{
	__u32 enforced = one >> 32, all = one;

	if ((__u32)(two >> 32) < enforced)
		enforced = two >> 32;
	if ((__u32)two < all)
		all = two;
	return said(enforced, all);
}

/* `kind` may have flags above its number. */
static __always_inline __u64 said_by(const struct stk_set *set, __u32 kind)
{
	kind &= KIND_NUMBER;
	if (kind >= STK_ACCESS_KINDS)
		return said(STK_RULE_NONE, STK_RULE_NONE);
	return said(set->enforced[kind], set->all[kind]);
}

static __always_inline __u64 with_set(__u64 so_far, __u32 number, __u32 kind)
{
	struct stk_set *set;

	if (!number)
		return so_far;
	number += kind >> KIND_CLASS & CLASS_MASK;
	set = bpf_map_lookup_elem(&stk_sets, &number);
	return set ? both(so_far, said_by(set, kind)) : so_far;
}

/* What one set says, and no other. */
static __always_inline __u64 said_in_set(__u32 number, __u32 kind)
{
	return with_set(said(STK_RULE_NONE, STK_RULE_NONE), number, kind);
}

/* The code of the rule that refuses; odd where that is because the file is not among those that it allows. */
static __always_inline __u32 refusal_by(__u32 rule, __u32 otherwise)
{
	if (rule == STK_RULE_NONE)
		return otherwise | 1;
	return rule & 1 ? STK_RULE_NONE : rule;
}

/* Adds what is refused by what is said about one kind of access, and otherwise. */
static __always_inline __u64 with_refusals(__u64 so_far, __u64 now, __u64 otherwise)
{
	return both(so_far,
		    said(refusal_by(now >> 32, otherwise >> 32), refusal_by(now, otherwise)));
}

/* What a hook may answer. The asm keeps clang from comparing both ends at once, with a copy whose bounds say nothing. */
static __always_inline int bounded(int result)
{
	asm volatile("" : "+r"(result));
	if (result >= 0)
		return 0;
	asm volatile("" : "+r"(result));
	if (result < -STK_MAX_ERRNO)
		return -EPERM;
	return result;
}

/* The tool itself is only ever held by the canary rule; everybody else by what is in scope. */
static __always_inline bool concerned(bool *self)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	*self = stk_is_self(tgid);
	return *self || stk_in_scope(tgid);
}

static __always_inline bool is_self(void)
{
	return stk_is_self(bpf_get_current_pid_tgid() >> 32);
}

/* Another module's refusal is never turned into an allow. */
#define VERDICT(expr)                 \
	({                            \
		int __v = ret;        \
		if (!__v)             \
			__v = (expr); \
		__v;                  \
	})

#endif
