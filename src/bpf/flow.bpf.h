/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Addresses and ports: of sockets, and as calls are given them. */
#ifndef STOCKADE_FLOW_BPF_H
#define STOCKADE_FLOW_BPF_H

#include "stockade.bpf.h"
#include <bpf/bpf_endian.h>

/* include/linux/socket.h */
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

static __always_inline void flow_of(struct stk_flow *flow, struct sock *sk)
{
	flow->family = STK_GET(sock, sk, __sk_common.skc_family);
	if (flow->family == STK_AF_INET6) {
		BPF_CORE_READ_INTO(&flow->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&flow->remote, sk, __sk_common.skc_v6_daddr);
	} else {
		mapped(flow->local, STK_GET(sock, sk, __sk_common.skc_rcv_saddr));
		mapped(flow->remote, STK_GET(sock, sk, __sk_common.skc_daddr));
	}
	/* Not skc_num: that is cleared before the state becomes TCP_CLOSE (tcp_set_state, net/ipv4/tcp.c). */
	flow->local_port = bpf_ntohs(STK_GET(inet_sock, sk, inet_sport));
	flow->remote_port = bpf_ntohs(STK_GET(sock, sk, __sk_common.skc_dport));
	flow->protocol = STK_GET(sock, sk, sk_protocol);
}

/* The address that a call was given. What is no address of this family, or cannot be read, is none. */
static __always_inline void address_given(__u8 *to, __u16 *port, const void *from, bool user)
{
	struct sockaddr_in6 in6 = {};
	long failed;

	if (user)
		failed = bpf_probe_read_user(&in6, sizeof(in6), from);
	else
		failed = bpf_probe_read_kernel(&in6, sizeof(in6), from);
	*port = 0;
	if (!failed && in6.sin6_family == STK_AF_INET6) {
		__builtin_memcpy(to, &in6.sin6_addr, 16);
		*port = bpf_ntohs(in6.sin6_port);
	} else if (!failed && in6.sin6_family == STK_AF_INET) {
		/* struct sockaddr_in: the address stands where that of IPv6 has its flow. */
		mapped(to, in6.sin6_flowinfo);
		*port = bpf_ntohs(in6.sin6_port);
	} else {
		__builtin_memset(to, 0, 16);
	}
}

#endif
