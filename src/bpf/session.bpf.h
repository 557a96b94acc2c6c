/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Both ends of a kernel function in one program (kprobe session, 6.10), which runs with preemption off: where fexit
 * programs are preempted, and skipped for whoever runs meanwhile, this one is not.
 *
 * The kernel has room for eight bytes between the two ends of a call. They hold where its stack begins, which is the key
 * of what it was called with, together with the program's number: a function that ends by jumping to another one lends it
 * its place.
 */
#ifndef STOCKADE_SESSION_BPF_H
#define STOCKADE_SESSION_BPF_H

#include "stockade.bpf.h"

struct stk_call_args {
	__u64 arg[6];
};

/* Calls under way of who is watched. Each is removed at its end. An object says before how its map is called. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct stk_call_args);
} STK_SESSIONS SEC(".maps");

/*
 * At the end of a call of somebody who is watched: true, with what the function was called with. At its beginning, which
 * is noted: false, and `*verdict` is what the program returns, 1 for an end that nobody wants to see.
 */
static __always_inline bool stk_session_ends(struct pt_regs *ctx, __u32 number, __u32 kind,
					     struct stk_call_args *call, int *verdict)
{
	struct stk_call_args *begun;
	/* The highest bits are all the same, the lowest three are 0. */
	__u64 at = PT_REGS_SP(ctx) << 5 | number;
	__u64 is_return, *cookie;

	STK_KFUNC(is_return, STK_CALL_IS_RETURN, ctx, 0);
	*verdict = 1;
	if (is_return) {
		STK_KFUNC(cookie, STK_CALL_COOKIE, ctx, 0);
		at = *cookie;
		begun = bpf_map_lookup_elem(&STK_SESSIONS, &at);
		if (!begun) {
			stk_lost(kind, STK_LOSS_MAP);
			return false;
		}
		*call = *begun;
		bpf_map_delete_elem(&STK_SESSIONS, &at);
		*verdict = 0;
		return true;
	}
	if (!stk_wanted())
		return false;
	call->arg[0] = PT_REGS_PARM1(ctx);
	call->arg[1] = PT_REGS_PARM2(ctx);
	call->arg[2] = PT_REGS_PARM3(ctx);
	call->arg[3] = PT_REGS_PARM4(ctx);
	call->arg[4] = PT_REGS_PARM5(ctx);
	call->arg[5] = PT_REGS_PARM6(ctx);
	if (bpf_map_update_elem(&STK_SESSIONS, &at, call, BPF_ANY)) {
		stk_lost(kind, STK_LOSS_MAP);
		return false;
	}
	STK_KFUNC(cookie, STK_CALL_COOKIE, ctx, 0);
	*cookie = at;
	*verdict = 0;
	return false;
}

/* Defines a program at both ends of a function: what it does at the end has `call` and the result `ret`. */
#define STK_SESSION(function, name, kind, does)                                          \
	SEC("?kprobe.session/" #function)                                                \
	int name##__session(struct pt_regs *ctx)                                         \
	{                                                                                \
		struct stk_call_args call;                                               \
		int verdict;                                                             \
		long ret;                                                                \
                                                                                         \
		if (!stk_session_ends(ctx, __COUNTER__ & 0xff, (kind), &call, &verdict)) \
			return verdict;                                                  \
		ret = PT_REGS_RC(ctx);                                                   \
		does;                                                                    \
		return 0;                                                                \
	}

/* Defines a program at the beginning of a function, with preemption off too. */
#define STK_ENTRY(function, name, does)        \
	SEC("?kprobe.multi/" #function)        \
	int name##__multi(struct pt_regs *ctx) \
	{                                      \
		does;                          \
		return 0;                      \
	}

#endif
