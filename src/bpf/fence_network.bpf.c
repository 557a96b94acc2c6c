/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The fence on the network: refuses to reach addresses, and to be reached at them.
 *
 * Judged is the address, whatever the family of the socket: IPv4 is kept as IPv6 has it, so that there is one table and
 * one way in. What has no address that can be judged, because packets are made by hand or sent by another way than to
 * whom they are for, is refused as soon as any address is. Each hook has a body, an lsm program and an fmod_ret twin.
 */
#include "contact.bpf.h"
#include "host.bpf.h"
#include "subject.bpf.h"

STK_EXPORT(stk_net_denial);
STK_EXPORT(stk_net_prefix);
STK_EXPORT(stk_net_ruling);
STK_EXPORT(stk_net_ports);

/* include/linux/socket.h, include/linux/net.h, include/uapi/linux/in.h, in6.h and stat.h, include/linux/fs.h */
#define STK_IPPROTO_ICMPV6     58
#define STK_SOL_IP             0
#define STK_SOL_IPV6           41
#define STK_IP_OPTIONS         4
#define STK_IP_RETOPTS         7
#define STK_IPV6_2292RTHDR     5
#define STK_IPV6_2292OPTIONS   6
#define STK_IPV6_FLOWLABEL_MGR 32
#define STK_IPV6_RTHDR         57
#define STK_S_IFSOCK           0140000

/* What is asked, in a number: kinds of access, port, transport, and these. */
#define ASKED_KINDS     ((1ULL << STK_ACCESS_KINDS) - 1)
#define ASKED_PORT      16
#define ASKED_TRANSPORT 32
#define ASKED_LOCAL     (1ULL << 34) /* an address of our own */
#define ASKED_BLIND     (1ULL << 35) /* there is no address */
#define ASKED_SILENT    (1ULL << 36) /* nothing is told that is not refused */
#define ASKED_STANDING  (1ULL << 37) /* of a connection that was made before */
#define ASKED_HOST      40 /* a host: from which one on, or one that has the address, its number and 1 */

#define OUTWARDS (STK_ACCESS_CONNECT | STK_ACCESS_SEND)
#define OWN      (STK_ACCESS_BIND | STK_ACCESS_LISTEN | STK_ACCESS_ACCEPT)

enum {
	PORTS_DEPTH = 17, /* of a search among 65536 */
	KEY_BITS = 32 + 128, /* the half, and an address */
	HOSTS_TOGETHER = 32,
	HOSTS_NAMED = 4,
	/* Messages about one that is sent. Nobody has so many; who has is refused. */
	CONTROLS_MAX = 32,
};

enum {
	TRANSPORT_TCP = 0,
	TRANSPORT_UDP = 1,
	TRANSPORT_OTHER = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct stk_net_prefix);
	__type(value, struct stk_net_ruling);
} stk_nets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_net_ports);
} stk_net_ranges SEC(".maps");

/*
 * Reports a verdict. `ruling` is the rule, below a verdict as told_of() makes it; without a socket `high` and `low` are the
 * family and the protocol that it was to have.
 */
__attribute__((noinline)) int tell(__u64 sk, __u64 high, __u64 low, __u64 asked, __u64 ruling)
{
	__u64 half[2] = { high, low };
	struct stk_net_denial *rec;
	bool blind = asked & ASKED_BLIND;

	rec = bpf_ringbuf_reserve(&stk_denials, sizeof(*rec), 0);
	if (!rec) {
		stk_lost(STK_KIND_DENIAL, STK_LOSS_RING);
		return 0;
	}
	stk_header(&rec->hdr, STK_KIND_NET_DENIAL, sizeof(*rec));
	rec->rule = ruling;
	rec->access = asked & ASKED_KINDS;
	rec->verdict = verdict_in(ruling);
	rec->error = ruling >> TOLD_ERROR;
	rec->family = sk ? STK_GET(sock, sk, __sk_common.skc_family) : high;
	rec->protocol = sk ? STK_GET(sock, sk, sk_protocol) : low;
	if (blind)
		half[0] = half[1] = 0;
	__builtin_memcpy(rec->address, half, sizeof(half));
	rec->port = asked >> ASKED_PORT;
	rec->own = !!(asked & ASKED_LOCAL);
	rec->blind = blind;
	rec->host = (__u16)(asked >> ASKED_HOST);
	if (ruling & TOLD_UNLISTED)
		rec->hdr.flags |= STK_FLAG_UNLISTED;
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	return 0;
}

/* The set that is about a port, among the ranges of a ruling. */
__attribute__((noinline)) __u32 set_in(__u32 first, __u32 count, __u32 port, __u32 transport)
{
	struct stk_net_ports *ports;
	__u32 i, at;

	for (i = 0; i < PORTS_DEPTH; i++) {
		if (count <= 1)
			break;
		at = first + count / 2;
		ports = bpf_map_lookup_elem(&stk_net_ranges, &at);
		if (!ports)
			return 0;
		if (ports->from <= port) {
			first = at;
			count -= count / 2;
		} else {
			count /= 2;
		}
	}
	ports = bpf_map_lookup_elem(&stk_net_ranges, &first);
	if (!ports)
		return 0;
	if (transport == TRANSPORT_TCP)
		return ports->tcp;
	return transport == TRANSPORT_UDP ? ports->udp : ports->other;
}

/* The set that is about a port of an address; 0: none. `transport` has STK_SECOND or not. */
__attribute__((noinline)) __u32 set_at(__u64 high, __u64 low, __u32 port, __u32 transport)
{
	struct stk_armed *armed = armed_of(transport);
	struct stk_net_prefix key = { .bits = KEY_BITS, .half = transport & STK_SECOND };
	struct stk_net_ruling *ruling;
	__u64 half[2] = { high, low };

	if (!armed)
		return 0;
	__builtin_memcpy(key.address, half, sizeof(half));
	ruling = bpf_map_lookup_elem(&stk_nets, &key);
	if (!ruling || ruling->epoch != armed->epoch)
		return 0;
	return set_in(ruling->first, ruling->count, port, transport & ~STK_SECOND);
}

/* Only what rules allow. */
static __always_inline __u64 allowed(__u64 said_so)
{
	__u32 enforced = said_so >> 32, all = said_so;

	return said(enforced & 1 ? enforced : STK_RULE_NONE, all & 1 ? all : STK_RULE_NONE);
}

/*
 * Adds what is said about one kind of access, which has STK_SECOND or not, to a host that has the address until then. Who
 * was allowed to connect may send as long as the address is known: its host may have moved, and not the other end.
 */
__attribute__((noinline)) __u64 with_host(__u32 host, __u32 until, __u64 asked, __u32 kind,
					  __u64 so_far)
{
	struct stk_armed *armed = armed_of(kind);
	__u64 now = said(STK_RULE_NONE, STK_RULE_NONE);
	struct stk_net_ruling *ruling;
	__u32 set;

	if (kind & STK_SECOND)
		host += STK_HOSTS_MAX;
	ruling = bpf_map_lookup_elem(&stk_host_rules, &host);
	if (!armed || !ruling || ruling->epoch != armed->epoch)
		return so_far;
	set = set_in(ruling->first, ruling->count, (__u16)(asked >> ASKED_PORT),
		     asked >> ASKED_TRANSPORT & 3);
	now = with_set(now, set, kind);
	if (until <= now_s()) {
		if (!(asked & ASKED_STANDING))
			return so_far;
		now = allowed(now);
	}
	return both(so_far, now);
}

/*
 * The next host that has, or had, an address, of those from one on up to another: its number, and until when in the upper
 * half; STK_HOSTS_MAX where there is none. Two at a time, and with one way through the loop: the verifier follows each.
 */
__attribute__((noinline)) __u64 next_host(__u64 high, __u64 low, __u32 from, __u32 to)
{
	struct host_address key = address_of(high, low);
	struct stk_host_until *known;
	__u32 pair, i;
	__u64 two = 0;

	known = bpf_map_lookup_elem(&stk_host_known, &key);
	if (!known)
		return STK_HOSTS_MAX;
	pair = from / 2;
	for (i = 0; i < STK_HOSTS_MAX / 2; i++, pair++) {
		if (pair * 2 >= to)
			return STK_HOSTS_MAX;
		/* The asm keeps the mask, which says nothing else. */
		asm volatile("" : "+r"(pair));
		pair &= STK_HOSTS_MAX / 2 - 1;
		two = ((__u64 *)known->until)[pair];
		if (!i && (from & 1))
			two = two >> 32 << 32;
		if (two)
			break;
	}
	if (!two)
		return STK_HOSTS_MAX;
	if ((__u32)two)
		return two << 32 | pair * 2;
	return two >> 32 << 32 | (pair * 2 + 1);
}

/*
 * What is said about one kind of access, which has STK_SECOND or not, to those of so many hosts that have an address, from the
 * one on that is in what is asked.
 */
__attribute__((noinline)) __u64 said_of_some(__u64 high, __u64 low, __u64 asked, __u32 kind)
{
	__u64 now = said(STK_RULE_NONE, STK_RULE_NONE), next;
	__u32 host = asked >> ASKED_HOST, end = host + HOSTS_TOGETHER, i;

	for (i = 0; i < HOSTS_TOGETHER; i++) {
		next = next_host(high, low, host, end);
		host = next;
		if (host >= end)
			break;
		now = with_host(host, next >> 32, asked, kind, now);
		host++;
	}
	return now;
}

/* The same of all hosts. */
__attribute__((noinline)) __u64 said_of_hosts(__u64 high, __u64 low, __u64 asked, __u32 kind)
{
	__u64 now = said(STK_RULE_NONE, STK_RULE_NONE), first;
	struct stk_armed *armed = armed_of(kind);

	if (!armed)
		return now;
	for (first = 0; first < STK_HOSTS_MAX; first += HOSTS_TOGETHER) {
		if (first >= armed->hosts)
			break;
		now = both(now, said_of_some(high, low, asked | first << ASKED_HOST, kind));
	}
	return now;
}

/* Whether what is said of a host is this. `who` is the class of who asks, with STK_SECOND or not. */
__attribute__((noinline)) int host_says(__u32 host, __u32 until, __u64 asked, __u32 who, __u32 code)
{
	__u64 now, nothing = said(STK_RULE_NONE, STK_RULE_NONE);
	__u32 kind;

	if (until <= now_s())
		return 0;
	for (kind = STK_ACCESS_FILE_KINDS; kind < STK_ACCESS_KINDS; kind++) {
		if (!(asked & OUTWARDS & (1ULL << kind)))
			continue;
		now = with_host(host, until, asked, kind | who, nothing);
		if ((__u32)(now >> 32) == code || (__u32)now == code)
			return 1;
	}
	return 0;
}

/*
 * A host that has an address: of the first few the one by which something is decided, else the first; its number and 1, or 0.
 */
__attribute__((noinline)) __u32 host_at(__u64 high, __u64 low, __u64 asked, __u32 who, __u32 code)
{
	__u32 host = 0, first = 0, i;
	__u64 next;

	for (i = 0; i < HOSTS_NAMED; i++) {
		next = next_host(high, low, host, STK_HOSTS_MAX);
		host = next;
		if (host >= STK_HOSTS_MAX)
			break;
		host++;
		if (host_says(host - 1, next >> 32, asked, who, code))
			return host;
		if (!first && (__u32)(next >> 32) > now_s())
			first = host;
	}
	return first;
}

/* Of what is handed on as a kind of access: there is no address. */
#define KIND_BLIND (1 << 29)

/*
 * The strongest refusals with those of one kind, which has STK_SECOND and KIND_BLIND or not; `set` is 0 for what no rule
 * names, and `now` what is said by other ways. See refusals() in fence.bpf.c.
 */
__attribute__((noinline)) __u64 refusals_at(__u32 set, __u32 kind, __u64 now, __u64 so_far)
{
	struct stk_armed *armed = armed_of(kind);

	if (!armed)
		return so_far;
	if (kind & KIND_BLIND)
		now = said_in_set(armed->lost, kind);
	else
		now = with_set(now, set, kind);
	return with_refusals(so_far, now, said_in_set(armed->otherwise, kind));
}

/*
 * The answer, 0 or -errno; reports what is refused, or would be. The address is in `high` and `low`, as in memory. By its
 * names it is judged only where that can matter: these take the verifier three times as long as all else.
 */
static __always_inline int judge(__u64 sk, __u64 high, __u64 low, __u64 asked, bool names)
{
	__u64 found = said(STK_RULE_NONE, STK_RULE_NONE), nothing = found, now, told, host = 0;
	__u32 blind = asked & ASKED_BLIND ? KIND_BLIND : 0, set = 0, who, kind;
	struct stk_armed *armed = armed_now();

	if (!armed)
		return 0;
	names = names && armed->hosts;
	if (!blind)
		set = set_at(high, low, (__u16)(asked >> ASKED_PORT),
			     (asked >> ASKED_TRANSPORT & 3) | armed->half);
	who = armed->half;
	if (armed->flags & STK_ARMED_SUBJECTS)
		who |= subject(armed->half);
	for (kind = STK_ACCESS_FILE_KINDS; kind < STK_ACCESS_KINDS; kind++) {
		if (!(asked & (1ULL << kind)))
			continue;
		now = names ? said_of_hosts(high, low, asked, kind | who) : nothing;
		found = refusals_at(set, kind | who | blind, now, found);
	}
	told = told_of(found);
	if (!told || (verdict_in(told) == STK_VERDICT_AUDIT && (asked & ASKED_SILENT)))
		return 0;
	if (names)
		host = host_at(high, low, asked, who, code_in(found));
	tell(sk, high, low, asked | host << ASKED_HOST, told | rule_in(found));
	count_hit(rule_in(found));
	return answer(told);
}

__attribute__((noinline)) int refused_at(__u64 sk, __u64 high, __u64 low, __u64 asked)
{
	return judge(sk, high, low, asked, true);
}

/* The same of an address of our own, or of none. */
__attribute__((noinline)) int refused_here(__u64 sk, __u64 high, __u64 low, __u64 asked)
{
	return judge(sk, high, low, asked, false);
}

static __always_inline int refuse(__u64 sk, const __u8 *address, __u16 port, __u64 asked)
{
	__u64 half[2];

	__builtin_memcpy(half, address, sizeof(half));
	asked |= (__u64)port << ASKED_PORT;
	if (asked & ASKED_LOCAL)
		return bounded(refused_here(sk, half[0], half[1], asked));
	return bounded(refused_at(sk, half[0], half[1], asked));
}

/*
 * Whether a socket of this kind sends to addresses that it is given and to no others. Raw ones write the header that says
 * where to; SCTP and MPTCP know further addresses of a peer; SMC has a TCP socket inside that only the kernel sees.
 */
static __always_inline bool is_judged(__u32 family, __u32 type, __u32 protocol)
{
	if (!is_ip(family) || (type != SOCK_STREAM && type != SOCK_DGRAM))
		return false;
	switch (protocol) {
	case 0: /* the usual one of this type */
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_ICMP: /* without rights: echo requests to an address */
	case STK_IPPROTO_ICMPV6:
		return true;
	}
	return false;
}

static __always_inline bool is_sk_judged(__u64 sk, __u32 family)
{
	return is_judged(family, STK_GET(sock, sk, sk_type), STK_GET(sock, sk, sk_protocol));
}

static __always_inline __u64 transport_of(__u64 sk)
{
	__u32 protocol = STK_GET(sock, sk, sk_protocol);
	__u64 transport = TRANSPORT_OTHER;

	if (protocol == IPPROTO_TCP)
		transport = TRANSPORT_TCP;
	else if (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE)
		transport = TRANSPORT_UDP;
	return transport << ASKED_TRANSPORT;
}

/*
 * To no address is to oneself: at the address that the socket has, or at the first one. Not known where something else may
 * say which one that is: what goes along with a message (`more`), or a device.
 */
static __always_inline bool reach(__u8 *address, __u64 sk, bool more)
{
	__u32 part[4], own[4];

	__builtin_memcpy(part, address, sizeof(part));
	if (part[0] || part[1] || part[3])
		return true;
	if (part[2] == bpf_htonl(0xffff)) {
		__u32 source = STK_GET(inet_sock, sk, inet_saddr);

		mapped(address, source ?: bpf_htonl(STK_LOOPBACK));
		return !more && !STK_GET(sock, sk, __sk_common.skc_bound_dev_if) &&
		       !STK_GET(inet_sock, sk, uc_index);
	}
	if (!part[2]) {
		BPF_CORE_READ_INTO(&own, (struct sock *)sk, __sk_common.skc_v6_rcv_saddr);
		if (!own[0] && !own[1] && own[2] == bpf_htonl(0xffff))
			mapped(address, bpf_htonl(STK_LOOPBACK));
		else
			address[15] = 1;
	}
	return true;
}

/* Whether anything is said about what is asked. The tool itself is only held by the canary. */
static __always_inline bool is_asked(__u32 access)
{
	struct stk_armed *armed = armed_now();
	bool self;

	return armed && (armed->kinds & access) && concerned(&self) && !self;
}

static __always_inline int refuse_blind(__u64 sk, __u64 family, __u64 protocol, __u64 asked)
{
	return bounded(refused_here(sk, family, protocol, asked | ASKED_BLIND));
}

/* What is refused to a socket of which nobody can tell whom it reaches. By raw ones nobody is reached who asks for a port. */
static __always_inline __u32 blindly(__u32 family, __u32 type)
{
	if (family == STK_AF_PACKET || (is_ip(family) && type == SOCK_RAW))
		return OUTWARDS;
	return OUTWARDS | OWN;
}

static __always_inline int on_create(int family, int type, int protocol, int kern)
{
	__u32 access = blindly(family, type);

	if (kern || stays_here(family) || is_judged(family, type, protocol) || !is_asked(access))
		return 0;
	/* An EtherType, as it goes over the wire. */
	if (family == STK_AF_PACKET)
		protocol = bpf_ntohs(protocol);
	return refuse_blind(0, (__u32)family, (__u32)protocol, access);
}

static __always_inline int on_connect(struct socket *sock, struct sockaddr *to)
{
	__u64 sk = STK_NUMBER_AT(&sock->sk), half[2];
	__u32 family = STK_GET(sock, sk, __sk_common.skc_family);
	__u8 address[16] = {};
	__u16 port = 0;
	enum given is;

	if (stays_here(family))
		return 0;
	is = given(address, &port, to, false);
	if (is_self()) {
		if (is != GIVEN_ADDRESS || !is_canary(address, port, armed_now(), false))
			return 0;
		__builtin_memcpy(half, address, sizeof(half));
		tell(sk, half[0], half[1], STK_ACCESS_CONNECT | (__u64)port << ASKED_PORT,
		     STK_RULE_CANARY | (__u64)STK_VERDICT_DENY << TOLD_VERDICT);
		return -EPERM;
	}
	if (!is_asked(STK_ACCESS_CONNECT) || is_kernels(sk))
		return 0;
	if (!is_sk_judged(sk, family))
		return refuse_blind(sk, 0, 0, STK_ACCESS_CONNECT);
	/* Breaks a connection off. */
	if (is == GIVEN_UNSPEC)
		return 0;
	if (is == GIVEN_NONE || !reach(address, sk, false))
		return refuse_blind(sk, 0, 0, STK_ACCESS_CONNECT);
	return refuse(sk, address, port, STK_ACCESS_CONNECT | transport_of(sk));
}

/* Whether what is sent has a route with it, by which it reaches another address first. */
__attribute__((noinline)) int has_route(__u64 controls, __u64 len)
{
	struct cmsghdr control = {};
	__u64 at = 0;
	__u32 i;

	for (i = 0; i < CONTROLS_MAX; i++) {
		if (at + sizeof(control) > len)
			return 0;
		if (bpf_probe_read_kernel(&control, sizeof(control), (void *)(controls + at)))
			return 1;
		/* The kernel refuses it. */
		if (control.cmsg_len < sizeof(control) || control.cmsg_len > len)
			return 0;
		if (control.cmsg_level == STK_SOL_IP && control.cmsg_type == STK_IP_RETOPTS)
			return 1;
		if (control.cmsg_level == STK_SOL_IPV6 && (control.cmsg_type == STK_IPV6_RTHDR ||
							   control.cmsg_type == STK_IPV6_2292RTHDR))
			return 1;
		at += (control.cmsg_len + 7) & ~7ULL;
	}
	return 1;
}

/* To whom the socket is connected, if it is. */
static __always_inline int to_peer(__u64 sk, __u32 family, __u64 asked)
{
	__u32 part[4] = {};
	__u8 address[16];

	if (STK_GET(sock, sk, sk_type) == SOCK_STREAM)
		asked |= ASKED_STANDING;
	if (family == STK_AF_INET6) {
		BPF_CORE_READ_INTO(&part, (struct sock *)sk, __sk_common.skc_v6_daddr);
		if (!part[0] && !part[1] && !part[2] && !part[3])
			return 0;
		__builtin_memcpy(address, part, sizeof(address));
	} else {
		part[3] = STK_GET(sock, sk, __sk_common.skc_daddr);
		if (!part[3])
			return 0;
		mapped(address, part[3]);
	}
	return refuse(sk, address, bpf_ntohs(STK_GET(sock, sk, __sk_common.skc_dport)),
		      STK_ACCESS_SEND | transport_of(sk) | asked);
}

static __always_inline int on_send(struct socket *sock, struct msghdr *msg)
{
	__u64 sk = STK_NUMBER_AT(&sock->sk), name, controls;
	__u32 family = STK_GET(sock, sk, __sk_common.skc_family), flags;
	__u8 address[16] = {};
	__u16 port = 0;
	enum given is;
	int answered;

	if (stays_here(family) || !is_asked(OUTWARDS) || is_kernels(sk))
		return 0;
	if (!is_sk_judged(sk, family))
		return refuse_blind(sk, 0, 0, OUTWARDS);
	name = STK_NUMBER_AT(&msg->msg_name);
	controls = STK_NUMBER_AT(&msg->msg_control);
	flags = STK_GET(msghdr, msg, msg_flags);
	/*
	 * What sendmmsg(2) sends to the same name as the message before is sent without a hook, whatever comes along with it. All
	 * but its last one are marked.
	 */
	if (name && (flags & STK_MSG_BATCH))
		return refuse_blind(sk, 0, 0, OUTWARDS);
	if (STK_GET(sock, sk, sk_type) == SOCK_STREAM) {
		/*
		 * An address is only looked at where what is sent makes the connection; and not even then where one is under way,
		 * so both are judged.
		 */
		if (!(flags & STK_MSG_FASTOPEN))
			name = 0;
		answered = to_peer(sk, family, 0);
		if (answered || !name)
			return answered;
	} else if (controls && has_route(controls, STK_NUMBER_AT(&msg->msg_controllen))) {
		return refuse_blind(sk, 0, 0, OUTWARDS);
	}
	if (!name)
		return to_peer(sk, family, 0);
	is = given(address, &port, (const void *)name, false);
	/* UDP takes it for IPv4, and on an IPv6 socket for none. */
	if (is == GIVEN_UNSPEC && family == STK_AF_INET6)
		return to_peer(sk, family, 0);
	if (is == GIVEN_NONE || !reach(address, sk, controls))
		return refuse_blind(sk, 0, 0, OUTWARDS);
	return refuse(sk, address, port, OUTWARDS | transport_of(sk));
}

/* Whether somebody inside the kernel may bind for this socket, and nobody can tell where. */
static __always_inline bool is_own_blind(__u64 sk, __u32 family)
{
	__u32 type = STK_GET(sock, sk, sk_type);

	return !is_sk_judged(sk, family) && (blindly(family, type) & OWN);
}

static __always_inline int on_bind(struct socket *sock, struct sockaddr *at)
{
	__u64 sk = STK_NUMBER_AT(&sock->sk);
	__u32 family = STK_GET(sock, sk, __sk_common.skc_family);
	__u8 address[16] = {};
	__u16 port = 0;

	if (stays_here(family) || !is_asked(STK_ACCESS_BIND) || is_kernels(sk))
		return 0;
	if (is_own_blind(sk, family))
		return refuse_blind(sk, 0, 0, STK_ACCESS_BIND);
	/* Of another family: the kernel refuses it. */
	if (given(address, &port, at, false) == GIVEN_NONE)
		return 0;
	return refuse(sk, address, port, STK_ACCESS_BIND | ASKED_LOCAL | transport_of(sk));
}

/* At the socket's own address, which is any where it has none. */
static __always_inline int on_own(struct socket *sock, __u32 access)
{
	__u64 sk = STK_NUMBER_AT(&sock->sk);
	__u32 family = STK_GET(sock, sk, __sk_common.skc_family);
	__u32 part[4] = {};
	__u8 address[16];

	if (stays_here(family) || !is_asked(access) || is_kernels(sk))
		return 0;
	if (is_own_blind(sk, family))
		return refuse_blind(sk, 0, 0, access);
	if (family == STK_AF_INET6) {
		BPF_CORE_READ_INTO(&part, (struct sock *)sk, __sk_common.skc_v6_rcv_saddr);
		__builtin_memcpy(address, part, sizeof(address));
	} else {
		mapped(address, STK_GET(sock, sk, __sk_common.skc_rcv_saddr));
	}
	return refuse(sk, address, bpf_ntohs(STK_GET(inet_sock, sk, inet_sport)),
		      access | ASKED_LOCAL | transport_of(sk));
}

/* Options that make packets go by way of an address that nobody judged. */
static __always_inline int on_option(struct socket *sock, int level, int name)
{
	__u64 sk;

	if (!(level == STK_SOL_IP && name == STK_IP_OPTIONS) &&
	    !(level == STK_SOL_IPV6 &&
	      (name == STK_IPV6_RTHDR || name == STK_IPV6_2292RTHDR ||
	       name == STK_IPV6_2292OPTIONS || name == STK_IPV6_FLOWLABEL_MGR)))
		return 0;
	sk = STK_NUMBER_AT(&sock->sk);
	if (!is_ip(STK_GET(sock, sk, __sk_common.skc_family)) || !is_asked(OUTWARDS))
		return 0;
	return refuse_blind(sk, 0, 0, OUTWARDS);
}

/* Up to 6.4 what is spliced into a socket passes by the hook of what is sent, and this one does not. */
static __always_inline int on_permission(struct file *file, int mask)
{
	__u64 sk, sock;
	__u32 family;

	if (!(mask & STK_MAY_WRITE) ||
	    (STK_GET(file, file, f_inode, i_mode) & STK_S_IFMT) != STK_S_IFSOCK)
		return 0;
	sock = STK_NUMBER_AT(&file->private_data);
	if (!sock)
		return 0;
	sk = STK_NUMBER_AT(&((struct socket *)sock)->sk);
	family = STK_GET(sock, sk, __sk_common.skc_family);
	if (stays_here(family) || !is_asked(STK_ACCESS_SEND))
		return 0;
	if (!is_sk_judged(sk, family))
		return refuse_blind(sk, 0, 0, STK_ACCESS_SEND | ASKED_SILENT);
	return to_peer(sk, family, ASKED_SILENT);
}

SEC("?lsm/socket_create")
int BPF_PROG(fence_socket__lsm, int family, int type, int protocol, int kern, int ret)
{
	return VERDICT(on_create(family, type, protocol, kern));
}

SEC("?fmod_ret/security_socket_create")
int BPF_PROG(fence_socket__fmod_ret, int family, int type, int protocol, int kern, int ret)
{
	return VERDICT(on_create(family, type, protocol, kern));
}

SEC("?lsm/socket_connect")
int BPF_PROG(fence_connect__lsm, struct socket *sock, struct sockaddr *address, int len, int ret)
{
	return VERDICT(on_connect(sock, address));
}

SEC("?fmod_ret/security_socket_connect")
int BPF_PROG(fence_connect__fmod_ret, struct socket *sock, struct sockaddr *address, int len,
	     int ret)
{
	return VERDICT(on_connect(sock, address));
}

SEC("?lsm/socket_sendmsg")
int BPF_PROG(fence_send__lsm, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	return VERDICT(on_send(sock, msg));
}

SEC("?fmod_ret/security_socket_sendmsg")
int BPF_PROG(fence_send__fmod_ret, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	return VERDICT(on_send(sock, msg));
}

SEC("?lsm/socket_bind")
int BPF_PROG(fence_bind__lsm, struct socket *sock, struct sockaddr *address, int len, int ret)
{
	return VERDICT(on_bind(sock, address));
}

SEC("?fmod_ret/security_socket_bind")
int BPF_PROG(fence_bind__fmod_ret, struct socket *sock, struct sockaddr *address, int len, int ret)
{
	return VERDICT(on_bind(sock, address));
}

SEC("?lsm/socket_listen")
int BPF_PROG(fence_listen__lsm, struct socket *sock, int backlog, int ret)
{
	return VERDICT(on_own(sock, STK_ACCESS_LISTEN));
}

SEC("?fmod_ret/security_socket_listen")
int BPF_PROG(fence_listen__fmod_ret, struct socket *sock, int backlog, int ret)
{
	return VERDICT(on_own(sock, STK_ACCESS_LISTEN));
}

SEC("?lsm/socket_accept")
int BPF_PROG(fence_accept__lsm, struct socket *sock, struct socket *newsock, int ret)
{
	return VERDICT(on_own(sock, STK_ACCESS_ACCEPT));
}

SEC("?fmod_ret/security_socket_accept")
int BPF_PROG(fence_accept__fmod_ret, struct socket *sock, struct socket *newsock, int ret)
{
	return VERDICT(on_own(sock, STK_ACCESS_ACCEPT));
}

SEC("?lsm/socket_setsockopt")
int BPF_PROG(fence_option__lsm, struct socket *sock, int level, int name, int ret)
{
	return VERDICT(on_option(sock, level, name));
}

SEC("?fmod_ret/security_socket_setsockopt")
int BPF_PROG(fence_option__fmod_ret, struct socket *sock, int level, int name, int ret)
{
	return VERDICT(on_option(sock, level, name));
}

SEC("?lsm/file_permission")
int BPF_PROG(fence_splice__lsm, struct file *file, int mask, int ret)
{
	return VERDICT(on_permission(file, mask));
}

SEC("?fmod_ret/security_file_permission")
int BPF_PROG(fence_splice__fmod_ret, struct file *file, int mask, int ret)
{
	return VERDICT(on_permission(file, mask));
}
