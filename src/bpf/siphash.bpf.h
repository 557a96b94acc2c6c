/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * SipHash-1-3 of names, as the crate `siphasher` computes it. With a key that nobody outside has: a hash that can be
 * worked out would let somebody choose a name that meets another one's rule.
 */
#ifndef STOCKADE_SIPHASH_BPF_H
#define STOCKADE_SIPHASH_BPF_H

#include "core.bpf.h"

struct stk_sip {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 stk_turned(__u64 word, __u32 bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void stk_sip_round(struct stk_sip *s)
{
	s->v0 += s->v1;
	s->v1 = stk_turned(s->v1, 13) ^ s->v0;
	s->v0 = stk_turned(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = stk_turned(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = stk_turned(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = stk_turned(s->v1, 17) ^ s->v2;
	s->v2 = stk_turned(s->v2, 32);
}

static __always_inline void stk_sip_word(struct stk_sip *s, __u64 word)
{
	s->v3 ^= word;
	stk_sip_round(s);
	s->v0 ^= word;
}

/* Of the name of a dentry. A global function: the verifier looks at it once. */
__attribute__((noinline)) __u64 hash_of_name(__u64 dentry, __u64 key0, __u64 key1)
{
	const char *name = (const char *)STK_GET(dentry, dentry, d_name.name);
	__u32 len = STK_GET(dentry, dentry, d_name.len), at, rest;
	struct stk_sip s = {
		.v0 = key0 ^ 0x736f6d6570736575,
		.v1 = key1 ^ 0x646f72616e646f6d,
		.v2 = key0 ^ 0x6c7967656e657261,
		.v3 = key1 ^ 0x7465646279746573,
	};
	__u64 word;

	for (at = 0; at < STK_NAME_MAX; at += 8) {
		if (at + 8 > len)
			break;
		word = 0;
		bpf_probe_read_kernel(&word, 8, name + at);
		stk_sip_word(&s, word);
	}
	word = 0;
	rest = len & 7;
	if (rest)
		bpf_probe_read_kernel(&word, rest, name + at);
	/* Little endian, as both architectures are. */
	stk_sip_word(&s, word | (__u64)len << 56);
	s.v2 ^= 0xff;
	stk_sip_round(&s);
	stk_sip_round(&s);
	stk_sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

#endif
