/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Keys for stacks. */
#ifndef STOCKADE_STACK_BPF_H
#define STOCKADE_STACK_BPF_H

#include "output.bpf.h"

/* Every bit of every address counts: two stacks with one key would pass for one. Never 0, which stands for no stack. */
static __always_inline __u64 stk_stack_hash(const __u64 *frames, __u32 depth, const __u32 room)
{
	__u64 hash = depth;
	__u32 i;

	for (i = 0; i < room; i++) {
		if (i >= depth)
			break;
		hash = (hash ^ frames[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	return hash ? hash : 1;
}

/* Keeps a stack, `depth` of whose `frames` are filled, in a map of stacks. Returns its key; 0 when the map is full. */
static __always_inline __u64 stk_stack_keep(void *map, const void *stack, const __u64 *frames,
					    __u32 depth, const __u32 room)
{
	__u64 key = stk_stack_hash(frames, depth, room);
	int error;

	if (bpf_map_lookup_elem(map, &key))
		return key;
	error = stk_insert(map, &key, stack);
	if (error && error != -EEXIST) {
		stk_lost(STK_KIND_STACK, STK_LOSS_MAP);
		return 0;
	}
	return key;
}

#endif
