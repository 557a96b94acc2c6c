/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Files that who is held may have written, as long as there is the file. One part of the fence notes them, another asks. */
#ifndef STOCKADE_WRITTEN_BPF_H
#define STOCKADE_WRITTEN_BPF_H

#include "fence.bpf.h"

STK_EXPORT(stk_key);
STK_EXPORT(stk_written_about);

/* By their keys, which have no half: whatever policy is in force, what was written stays written. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct stk_key);
	__type(value, __u8);
} stk_written SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_written_about);
} stk_about_written SEC(".maps");

static __always_inline struct stk_written_about *about_written(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stk_about_written, &zero);
}

#endif
