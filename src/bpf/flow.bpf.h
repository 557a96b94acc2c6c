/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Addresses as calls are given them. */
#ifndef STOCKADE_FLOW_BPF_H
#define STOCKADE_FLOW_BPF_H

#include "stockade.bpf.h"
#include <bpf/bpf_endian.h>

/* include/linux/socket.h */
#define STK_AF_UNSPEC 0
#define STK_AF_UNIX   1
#define STK_AF_INET   2
#define STK_AF_INET6  10
#define STK_AF_PACKET 17

/* IPv4 addresses are kept as IPv6 has them: ::ffff:a.b.c.d */
static __always_inline void mapped(__u8 *to, __u32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

enum given {
	GIVEN_NONE, /* of a family that is none of these, or it cannot be read */
	GIVEN_UNSPEC, /* read as if it was IPv4 */
	GIVEN_ADDRESS,
};

/* What is in an address that a call was given. */
static __always_inline enum given given(__u8 *to, __u16 *port, const void *from, bool user)
{
	struct sockaddr_in6 in6 = {};
	long failed;

	if (user)
		failed = bpf_probe_read_user(&in6, sizeof(in6), from);
	else
		failed = bpf_probe_read_kernel(&in6, sizeof(in6), from);
	if (failed)
		return GIVEN_NONE;
	*port = bpf_ntohs(in6.sin6_port);
	if (in6.sin6_family == STK_AF_INET6) {
		__builtin_memcpy(to, &in6.sin6_addr, 16);
		return GIVEN_ADDRESS;
	}
	/* struct sockaddr_in: the address stands where that of IPv6 has its flow. */
	mapped(to, in6.sin6_flowinfo);
	if (in6.sin6_family == STK_AF_INET)
		return GIVEN_ADDRESS;
	return in6.sin6_family == STK_AF_UNSPEC ? GIVEN_UNSPEC : GIVEN_NONE;
}

#endif
