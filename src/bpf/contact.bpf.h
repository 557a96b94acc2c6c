/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which sockets the fence has to do with: for its objects that judge the network. */
#ifndef STOCKADE_CONTACT_BPF_H
#define STOCKADE_CONTACT_BPF_H

#include "fence.bpf.h"
#include "flow.bpf.h"

/* include/linux/socket.h, include/linux/net.h */
#define STK_AF_KEY       15
#define STK_AF_NETLINK   16
#define STK_AF_ALG       38
#define STK_MSG_BATCH    0x40000
#define STK_MSG_FASTOPEN 0x20000000
#define STK_LOOPBACK     0x7f000001

/* The ways inside a machine: nothing leaves it by them. */
static __always_inline bool stays_here(__u32 family)
{
	return family == STK_AF_UNIX || family == STK_AF_NETLINK || family == STK_AF_ALG ||
	       family == STK_AF_KEY;
}

static __always_inline bool is_ip(__u32 family)
{
	return family == STK_AF_INET || family == STK_AF_INET6;
}

static __always_inline bool is_kernels(__u64 sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED((struct sock *)sk, sk_kern_sock);
}

/* Whether this is where the monitor must not reach: of rules, or of limits. */
static __always_inline bool is_canary(const __u8 *address, __u16 port, struct stk_armed *armed,
				      bool limits)
{
	__u32 part[4];

	if (!armed || !port || (limits ? armed->limit_port : armed->canary_port) != port)
		return false;
	__builtin_memcpy(part, address, sizeof(part));
	return !part[0] && !part[1] && part[2] == bpf_htonl(0xffff) &&
	       part[3] == bpf_htonl(STK_LOOPBACK);
}

#endif
