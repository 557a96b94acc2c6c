/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * SipHash-1-3 of names, as the crate `siphasher` computes it over each piece of one. With a key that nobody outside has: a
 * hash that can be worked out would let somebody choose a name that meets another one's rule.
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

/* Of a piece of a name: STK_HASHED_PIECE bytes at the most. */
__attribute__((noinline)) __u64 hash_of_piece(__u64 name, __u32 len, __u64 key0, __u64 key1)
{
	struct stk_sip s = {
		.v0 = key0 ^ 0x736f6d6570736575,
		.v1 = key1 ^ 0x646f72616e646f6d,
		.v2 = key0 ^ 0x6c7967656e657261,
		.v3 = key1 ^ 0x7465646279746573,
	};
	__u32 at, rest;
	__u64 word;

	for (at = 0; at < STK_HASHED_PIECE; at += 8) {
		if (at + 8 > len)
			break;
		word = 0;
		bpf_probe_read_kernel(&word, 8, (const void *)(name + at));
		stk_sip_word(&s, word);
	}
	word = 0;
	rest = len & 7;
	if (rest)
		bpf_probe_read_kernel(&word, rest, (const void *)(name + at));
	/* Little endian, as both architectures are. */
	stk_sip_word(&s, word | (__u64)len << 56);
	s.v2 ^= 0xff;
	stk_sip_round(&s);
	stk_sip_round(&s);
	stk_sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

/*
 * Of the name of a dentry, piece by piece: what the pieces before come to is part of the next one's key. Most names are one
 * piece. A loop over all of a name would be most of what the verifier has to look at in the fence, in each program.
 */
static __always_inline __u64 hash_of_name(__u64 dentry, __u64 key0, __u64 key1)
{
	struct dentry *of = STK_AS(dentry, dentry);
	__u64 name = STK_NUMBER_AT(&of->d_name.name), hash = 0;
	__u32 len = STK_GET(dentry, dentry, d_name.len), at;

	for (at = 0; at < STK_NAME_MAX; at += STK_HASHED_PIECE) {
		if (at + STK_HASHED_PIECE >= len)
			return hash_of_piece(name + at, len - at, key0 ^ hash, key1);
		hash = hash_of_piece(name + at, STK_HASHED_PIECE, key0 ^ hash, key1);
	}
	return hash;
}

#endif
