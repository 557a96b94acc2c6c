/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Hosts that rules of the fence are about, and the addresses that they have. */
#ifndef STOCKADE_HOST_BPF_H
#define STOCKADE_HOST_BPF_H

#include <bpf/bpf_endian.h>

#include "stockade.bpf.h"

STK_EXPORT(stk_host_labels);
STK_EXPORT(stk_host_until);
STK_EXPORT(stk_host_told);
STK_EXPORT(stk_host_about);

enum {
	ADDRESSES_MAX = 4096,
	HOST_NAMES = 2 * STK_HOSTS_MAX,
};

struct host_address {
	__u8 ip[16];
};

/*
 * Written by the kernel half alone, a word at a time: an entry that user space wrote anew would be another one, and the former
 * could be somebody else's while a decision still looks at it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct host_address);
	__type(value, struct stk_host_until);
} stk_host_known SEC(".maps");

/* What rules say of a host: its number, and STK_HOSTS_MAX more in the second half. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOST_NAMES);
	__type(key, __u32);
	__type(value, struct stk_net_ruling);
} stk_host_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, STK_HOSTS_MAX);
	__type(key, struct stk_host_labels);
	__type(value, __u32);
} stk_host_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_host_about);
} stk_host_about SEC(".maps");

/* The key of an address whose halves are as in memory. */
static __always_inline struct host_address address_of(__u64 high, __u64 low)
{
	struct host_address key;
	__u64 half[2] = { high, low };

	__builtin_memcpy(key.ip, half, sizeof(half));
	return key;
}

static __always_inline __u32 now_s(void)
{
	return bpf_ktime_get_boot_ns() / 1000000000ULL;
}

#endif
