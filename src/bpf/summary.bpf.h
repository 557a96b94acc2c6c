/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Summaries: counters in maps, keyed by process and object, which user space reads from time to time.
 *
 * A counter only grows, and user space tells the difference since its last look: taking it out would lose what is added
 * between the reading and the taking. Only entries of processes that have ended are removed.
 */
#ifndef STOCKADE_SUMMARY_BPF_H
#define STOCKADE_SUMMARY_BPF_H

#include "stockade.bpf.h"

enum {
	STK_WHO_MAX = 8192,
};

/* The processes that have counters. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_WHO_MAX);
	__type(key, struct stk_task_key);
	__type(value, struct stk_hdr);
} stk_who SEC(".maps");

/* Makes the counters of `key` from `zero`, for a process with this header. NULL when the map is full, and it is counted. */
static __always_inline void *stk_counters_new(void *map, void *key, const void *zero, __u32 kind,
					      const struct stk_hdr *who)
{
	void *sum;

	/* Whoever comes first; the other one finds it. */
	bpf_map_update_elem(map, key, zero, BPF_NOEXIST);
	sum = bpf_map_lookup_elem(map, key);
	if (!sum) {
		stk_lost(kind, STK_LOSS_MAP);
		return NULL;
	}
	/* Each time anew: an exec gives a process another name. */
	bpf_map_update_elem(&stk_who, key, who, BPF_ANY);
	return sum;
}

/* The counters of `key`, which begins with the current process; a first use makes them. NULL as above. */
static __always_inline void *stk_counters(void *map, void *key, const void *zero, __u32 kind)
{
	struct stk_hdr who;
	void *sum = bpf_map_lookup_elem(map, key);

	if (sum)
		return sum;
	stk_header(&who, kind, sizeof(who));
	return stk_counters_new(map, key, zero, kind, &who);
}

#endif
