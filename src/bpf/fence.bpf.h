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
	__type(value, struct stk_armed);
} stk_armed_at SEC(".maps");

static __always_inline struct stk_armed *armed_now(void)
{
	__u32 zero = 0;
	struct stk_armed *armed = bpf_map_lookup_elem(&stk_armed_at, &zero);

	return armed && armed->epoch ? armed : NULL;
}

/* An access, the verdict about it, and whether no rule names the file. */
static __always_inline __u64 stk_what(__u32 access, __u32 verdict, bool unlisted)
{
	return access | (__u64)verdict << 32 | (__u64)unlisted << 40;
}

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

static __always_inline __u64 said_by(const struct stk_set *set, __u32 kind)
{
	if (kind >= STK_ACCESS_KINDS)
		return said(STK_RULE_NONE, STK_RULE_NONE);
	return said(set->enforced[kind], set->all[kind]);
}

static __always_inline __u64 with_set(__u64 so_far, __u32 number, __u32 kind)
{
	struct stk_set *set;

	if (!number)
		return so_far;
	set = bpf_map_lookup_elem(&stk_sets, &number);
	return set ? both(so_far, said_by(set, kind)) : so_far;
}

/* The code of the rule that refuses; odd where that is because the file is not among those that it allows. */
static __always_inline __u32 refusal_by(__u32 rule, __u32 otherwise)
{
	if (rule == STK_RULE_NONE)
		return otherwise | 1;
	return rule & 1 ? STK_RULE_NONE : rule;
}

/* 0 or -EPERM. The asm keeps clang from computing the value by negation, which 6.12 cannot bound. */
static __always_inline int eperm_if(int is_refused)
{
	asm volatile("" : "+r"(is_refused));
	if (is_refused)
		return -EPERM;
	return 0;
}

/* The tool itself is only ever held by the canary rule; everybody else by what is in scope. */
static __always_inline bool concerned(bool *self)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	*self = tgid == stk_config.self_tgid;
	return *self || stk_in_scope(tgid);
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
