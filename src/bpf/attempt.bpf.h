/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A refusal that is about no object of a policy. */
#ifndef STOCKADE_ATTEMPT_BPF_H
#define STOCKADE_ATTEMPT_BPF_H

#include "fence.bpf.h"

STK_EXPORT(stk_guard_denial);

/* include/linux/ptrace.h: for memory and descriptors, and not for what ps(1) reads. */
#define STK_PTRACE_MODE_ATTACH 0x02

/* Tells of an attempt at this, by a rule that no policy has, or of our own. */
__attribute__((noinline)) int attempted(__u32 at, __u32 rule)
{
	struct stk_guard_denial *rec = bpf_ringbuf_reserve(&stk_denials, sizeof(*rec), 0);

	if (!rec) {
		stk_lost(STK_KIND_DENIAL, STK_LOSS_RING);
		return 0;
	}
	stk_header(&rec->hdr, STK_KIND_GUARD_DENIAL, sizeof(*rec));
	rec->rule = rule;
	rec->verdict = STK_VERDICT_DENY;
	rec->error = EPERM;
	rec->at = at;
	rec->pad = 0;
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	return 0;
}

#endif
