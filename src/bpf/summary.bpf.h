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
	STK_WHO_MAX = 16384,
};

/* The processes that have counters. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_WHO_MAX);
	__type(key, struct stk_task_key);
	__type(value, struct stk_hdr);
} stk_who SEC(".maps");

/* stk_entry_new() of a process with this header. */
static __always_inline void *stk_counters_new(void *map, void *key, const void *zero, __u32 kind,
					      const struct stk_hdr *who)
{
	void *sum = stk_entry_new(map, key, zero, kind);

	/* Each time anew: an exec gives a process another name. */
	if (sum)
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

/* Bits of a number of microseconds, which is the slot of a histogram. */
static __always_inline __u32 stk_slot_of(__u64 ns)
{
	__u64 us = ns / 1000;
	__u32 slot = 0;

	if (us >= 1ULL << (STK_SLOTS - 1))
		return STK_SLOTS - 1;
	if (us >= 1 << 16) {
		us >>= 16;
		slot += 16;
	}
	if (us >= 1 << 8) {
		us >>= 8;
		slot += 8;
	}
	if (us >= 1 << 4) {
		us >>= 4;
		slot += 4;
	}
	if (us >= 1 << 2) {
		us >>= 2;
		slot += 2;
	}
	if (us >= 1 << 1) {
		us >>= 1;
		slot += 1;
	}
	return slot + us;
}

static __always_inline void stk_slots_add(__u64 *slots, __u64 ns)
{
	__u32 slot = stk_slot_of(ns);

	asm volatile("" : "+r"(slot));
	if (slot < STK_SLOTS)
		__sync_fetch_and_add(&slots[slot], 1);
}

#endif
