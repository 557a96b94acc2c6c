/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which paths are wanted, where only some are. */
#ifndef STOCKADE_PATH_BPF_H
#define STOCKADE_PATH_BPF_H

#include "stockade.bpf.h"

STK_EXPORT(stk_prefix);

/* Filled once the programs are attached: what is still empty is a prefix of every path. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STK_PREFIXES_MAX);
	__type(key, __u32);
	__type(value, struct stk_prefix);
} stk_prefixes SEC(".maps");

/* Whether a path in the scratch, `len` bytes from `at` on, ends with the components of this one. */
static __always_inline bool stk_is_below(const struct stk_scratch *s,
					 const struct stk_prefix *prefix, __u32 at, __u32 len)
{
	__u32 size = prefix->len, off, i;
	const __u8 *end;

	if (size > len || size > STK_PREFIX_MAX)
		return false;
	off = at + len - size;
	asm volatile("" : "+r"(off));
	if (off > STK_RECORD_MAX)
		return false;
	end = s->rec + off;
	/* 5.10 does not follow an offset that is lowered by one. */
	asm volatile("" : "+r"(end));
	/* Only the end of a name agrees. */
	if (size < len && end[-1])
		return false;
	for (i = 0; i < STK_PREFIX_MAX; i += 8) {
		__u64 differs;

		if (i >= size)
			break;
		differs = *(__u64 *)(end + i) ^ *(__u64 *)(prefix->text + i);
		/* Both architectures keep the first byte lowest. */
		if (size - i < 8)
			differs &= (1ULL << (size - i) * 8) - 1;
		if (differs)
			return false;
	}
	return true;
}

/*
 * Defines `fn`: whether a path that a walk has left in this scratch is one that somebody asked for. Global functions,
 * as the walk's, so that their loops are looked at once.
 */
#define STK_SCRATCH_WANTED(map_name, fn)                                                \
	__attribute__((noinline)) int fn##_one(__u32 which, __u32 at, __u32 len)        \
	{                                                                               \
		__u32 cpu = bpf_get_smp_processor_id();                                 \
		struct stk_scratch *s = bpf_map_lookup_elem(&map_name, &cpu);           \
		struct stk_prefix *prefix = bpf_map_lookup_elem(&stk_prefixes, &which); \
		return s && prefix && stk_is_below(s, prefix, at, len);                 \
	}                                                                               \
	__attribute__((noinline)) int fn(__u32 at, __u32 len)                           \
	{                                                                               \
		__u32 i;                                                                \
		for (i = 0; i < STK_PREFIXES_MAX; i++) {                                \
			if (i >= stk_config.prefixes)                                   \
				break;                                                  \
			if (fn##_one(i, at, len))                                       \
				return 1;                                               \
		}                                                                       \
		return 0;                                                               \
	}

#endif
