/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The network: TCP connections from both ends, what is bound and listens, UDP counted by peer, connects of AF_UNIX.
 *
 * A connection belongs to the process that made or accepted it. What becomes of it happens as often as not in a softirq,
 * where `current` is anybody: so its owner is remembered by socket from then on until it is closed.
 */
#include "summary.bpf.h"
#include <bpf/bpf_endian.h>

STK_EXPORT(stk_net);
STK_EXPORT(stk_unix);
STK_EXPORT(stk_net_key);
STK_EXPORT(stk_net_sum);

/* include/linux/socket.h */
#define STK_AF_UNIX  1
#define STK_AF_INET  2
#define STK_AF_INET6 10
#define STK_MSG_PEEK 2
/* include/uapi/linux/magic.h */
#define STK_SOCKFS_MAGIC 0x534F434B
/* include/uapi/asm-generic/errno.h */
#define STK_EISCONN     106
#define STK_EALREADY    114
#define STK_EINPROGRESS 115
#define STK_ECANCELED   125
#define STK_EINTR       4
/* include/linux/errno.h: what an interrupted call returns inside the kernel */
#define STK_ERESTARTSYS 512

enum {
	STK_CONNS = 32768,
	STK_CONN_CONNECTING = 0,
	STK_CONN_OPEN = 1,
};

/* A connection that somebody in scope made or accepted. */
struct stk_conn {
	struct stk_hdr who; /* as it was then */
	__u64 since_ns; /* CLOCK_BOOTTIME: of the attempt, and once it is open, of that */
	/* What the summary has counted already. */
	__u64 sent;
	__u64 received;
	__u32 segs_out;
	__u32 segs_in;
	__u32 retransmits;
	__u16 state;
	__u16 incoming;
};

/* By the address of the socket. Removed when it is closed, which every connection comes to before its memory is freed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_CONNS);
	__type(key, __u64);
	__type(value, struct stk_conn);
} stk_conns SEC(".maps");

/* Failures that have been told and that connect(2) may be about to return. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u32);
} stk_conns_failed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct stk_net_key);
	__type(value, struct stk_net_sum);
} stk_net_sums SEC(".maps");

static __always_inline bool is_tcp(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP &&
	       BPF_CORE_READ(sk, sk_type) == SOCK_STREAM;
}

static __always_inline bool is_udp(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_UDP &&
	       BPF_CORE_READ(sk, sk_type) == SOCK_DGRAM;
}

static __always_inline bool is_inet(struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return family == STK_AF_INET || family == STK_AF_INET6;
}

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
	struct inet_sock *inet = (struct inet_sock *)sk;

	flow->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (flow->family == STK_AF_INET6) {
		BPF_CORE_READ_INTO(&flow->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&flow->remote, sk, __sk_common.skc_v6_daddr);
	} else {
		mapped(flow->local, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		mapped(flow->remote, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	}
	/* Not skc_num: that is cleared before the state becomes TCP_CLOSE (tcp_set_state, net/ipv4/tcp.c). */
	flow->local_port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	flow->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	flow->protocol = BPF_CORE_READ(sk, sk_protocol);
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

/* What TCP took in and sent, each byte once. */
static __always_inline void bytes_of(struct sock *sk, __u64 *sent, __u64 *received)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	*sent = BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans);
	*received = BPF_CORE_READ(tp, bytes_received);
	/* The peer's FIN counts as a byte there; tcp_fin() sets this flag (net/ipv4/tcp_input.c). */
	if (*received && BPF_CORE_READ(sk, __sk_common.skc_flags) & 1UL << SOCK_DONE)
		*received -= 1;
}

/* The socket behind a descriptor of the current process. */
static __always_inline struct sock *sock_of_fd(int fd)
{
	struct task_struct *task = stk_current();
	struct file **files = BPF_CORE_READ(task, files, fdt, fd);
	struct file *file = NULL;
	struct socket *socket;

	if (fd < 0 || fd >= BPF_CORE_READ(task, files, fdt, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != STK_SOCKFS_MAGIC)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* Begins a record, of the current process or of the owner of a connection. */
static __always_inline struct stk_net *record(__u32 kind, const struct stk_hdr *who, __u64 *wake)
{
	struct stk_net *rec;

	*wake = stk_wake(sizeof(*rec));
	rec = stk_reserve(kind, who, sizeof(*rec));
	if (!rec)
		return NULL;
	if (who) {
		__builtin_memcpy(&rec->hdr, who, sizeof(rec->hdr));
		rec->hdr.time_ns = bpf_ktime_get_boot_ns();
		rec->hdr.kind = kind;
		rec->hdr.len = sizeof(*rec);
	} else {
		stk_header(&rec->hdr, kind, sizeof(*rec));
	}
	rec->duration_ns = 0;
	rec->sent_bytes = 0;
	rec->received_bytes = 0;
	rec->retransmits = 0;
	rec->result = 0;
	rec->incoming = 0;
	rec->value = 0;
	return rec;
}

static __always_inline bool filtered(int result, __u64 duration_ns)
{
	if (stk_config.filter & STK_FILTER_ERRORS && result >= 0)
		return true;
	return duration_ns < stk_config.min_latency_ns;
}

/* Tells how an attempt to connect ended. `address` is what it was given, where the socket does not know it. */
static __always_inline void tell_connect(struct sock *sk, const struct stk_conn *conn, int result,
					 const void *address, bool user)
{
	__u64 duration_ns = conn ? bpf_ktime_get_boot_ns() - conn->since_ns : 0;
	struct stk_net *rec;
	__u64 wake;

	if (filtered(result, duration_ns))
		return;
	rec = record(STK_KIND_CONNECT, conn ? &conn->who : NULL, &wake);
	if (!rec)
		return;
	flow_of(&rec->flow, sk);
	if (address)
		address_given(rec->flow.remote, &rec->flow.remote_port, address, user);
	rec->duration_ns = duration_ns;
	rec->result = result;
	bpf_ringbuf_submit(rec, wake);
}

static __always_inline void tell_close(struct sock *sk, const struct stk_conn *conn, int result)
{
	__u64 duration_ns = bpf_ktime_get_boot_ns() - conn->since_ns;
	struct stk_net *rec;
	__u64 sent, received, wake;

	bytes_of(sk, &sent, &received);
	if (filtered(result, duration_ns) || sent + received < stk_config.min_bytes)
		return;
	rec = record(STK_KIND_CLOSE, &conn->who, &wake);
	if (!rec)
		return;
	flow_of(&rec->flow, sk);
	rec->duration_ns = duration_ns;
	rec->sent_bytes = sent;
	rec->received_bytes = received;
	rec->retransmits = BPF_CORE_READ((struct tcp_sock *)sk, total_retrans);
	rec->result = result;
	rec->incoming = conn->incoming;
	bpf_ringbuf_submit(rec, wake);
}

/* Counters of a process and a peer; `who` is NULL for the current process. */
static __always_inline struct stk_net_sum *sum_of(struct stk_net_key *key,
						  const struct stk_hdr *who)
{
	struct stk_net_sum zero = {}, *sum;

	if (!who) {
		stk_current_key(&key->task);
		return stk_counters(&stk_net_sums, key, &zero, STK_KIND_NET);
	}
	key->task.start_ns = who->start_ns;
	key->task.tgid = who->tgid;
	sum = bpf_map_lookup_elem(&stk_net_sums, key);
	if (sum)
		return sum;
	bpf_map_update_elem(&stk_net_sums, key, &zero, BPF_NOEXIST);
	sum = bpf_map_lookup_elem(&stk_net_sums, key);
	if (!sum)
		stk_lost(STK_KIND_NET, STK_LOSS_MAP);
	else
		bpf_map_update_elem(&stk_who, &key->task, who, BPF_ANY);
	return sum;
}

/* Of a peer that connected to us its own port says nothing and is another each time: ours, which it chose, stands there. */
static __always_inline void key_of(struct stk_net_key *key, struct sock *sk, bool incoming)
{
	struct stk_flow flow;

	flow_of(&flow, sk);
	__builtin_memcpy(key->remote, flow.remote, 16);
	key->port = incoming ? flow.local_port : flow.remote_port;
	key->family = flow.family;
	key->protocol = flow.protocol;
	key->incoming = incoming;
}

static __always_inline void add(__u64 *to, __u64 what)
{
	/* Adding a constant 0 becomes an atomic or, which 5.10 does not have. */
	if (what)
		__sync_fetch_and_add(to, what);
}

/* Counts what a connection has moved since the last time. The socket is locked. */
static __always_inline void count_moved(struct sock *sk, struct stk_conn *conn, bool opened)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct stk_net_key key;
	struct stk_net_sum *sum;
	__u32 segs_out, segs_in, retransmits;
	__u64 sent, received;

	key_of(&key, sk, conn->incoming);
	sum = sum_of(&key, &conn->who);
	if (!sum)
		return;
	bytes_of(sk, &sent, &received);
	segs_out = BPF_CORE_READ(tp, segs_out);
	segs_in = BPF_CORE_READ(tp, segs_in);
	retransmits = BPF_CORE_READ(tp, total_retrans);
	add(&sum->sent_bytes, sent - conn->sent);
	add(&sum->received_bytes, received - conn->received);
	add(&sum->sent_packets, segs_out - conn->segs_out);
	add(&sum->received_packets, segs_in - conn->segs_in);
	add(&sum->retransmits, retransmits - conn->retransmits);
	if (opened)
		add(&sum->connections, 1);
	conn->sent = sent;
	conn->received = received;
	conn->segs_out = segs_out;
	conn->segs_in = segs_in;
	conn->retransmits = retransmits;
}

static __always_inline void count_failure(struct stk_net_key *key, const struct stk_hdr *who)
{
	struct stk_net_sum *sum = sum_of(key, who);

	if (sum)
		add(&sum->failures, 1);
}

static __always_inline void conn_init(struct stk_conn *conn, __u16 state, __u16 incoming)
{
	__builtin_memset(conn, 0, sizeof(*conn));
	stk_header(&conn->who, STK_KIND_NET, sizeof(conn->who));
	conn->since_ns = conn->who.time_ns;
	conn->state = state;
	conn->incoming = incoming;
}

static __always_inline int on_connecting(struct sock *sk)
{
	struct stk_conn conn;
	__u64 key = (__u64)sk;

	if (!stk_wanted())
		return 0;
	conn_init(&conn, STK_CONN_CONNECTING, 0);
	if (bpf_map_update_elem(&stk_conns, &key, &conn, BPF_ANY))
		stk_lost(STK_KIND_NET, STK_LOSS_MAP);
	return 0;
}

static __always_inline int on_closed(struct sock *sk, struct stk_conn *conn, bool counting)
{
	__u32 error = BPF_CORE_READ(sk, sk_err);
	struct stk_conn was = *conn;
	__u64 key = (__u64)sk;

	/* An accept that finds the connection closed may be here as well. */
	if (bpf_map_delete_elem(&stk_conns, &key))
		return 0;
	if (was.state == STK_CONN_OPEN) {
		if (counting)
			count_moved(sk, &was, false);
		else
			tell_close(sk, &was, -(int)error);
		return 0;
	}
	if (!error) {
		/* Not even tried: connect(2) is about to return why. */
		if (BPF_CORE_READ(sk, sk_socket, state) == SS_UNCONNECTED)
			return 0;
		/* Given up by its owner. */
		error = STK_ECANCELED;
	} else {
		bpf_map_update_elem(&stk_conns_failed, &key, &error, BPF_ANY);
	}
	if (counting) {
		struct stk_net_key sum_key;

		key_of(&sum_key, sk, false);
		count_failure(&sum_key, &was.who);
	} else {
		tell_connect(sk, &was, -(int)error, NULL, false);
	}
	return 0;
}

static __always_inline int on_state(struct sock *sk, int state, bool counting)
{
	__u64 key = (__u64)sk;
	struct stk_conn *conn;

	if (state != TCP_SYN_SENT && state != TCP_ESTABLISHED && state != TCP_CLOSE)
		return 0;
	if (!is_tcp(sk))
		return 0;
	if (state == TCP_SYN_SENT)
		return on_connecting(sk);
	conn = bpf_map_lookup_elem(&stk_conns, &key);
	if (!conn)
		return 0;
	if (state == TCP_CLOSE)
		return on_closed(sk, conn, counting);
	if (conn->state != STK_CONN_CONNECTING)
		return 0;
	if (counting)
		count_moved(sk, conn, true);
	else
		tell_connect(sk, conn, 0, NULL, false);
	conn->state = STK_CONN_OPEN;
	conn->since_ns = bpf_ktime_get_boot_ns();
	return 0;
}

/* The failures of connect(2) that no change of state tells. */
static __always_inline int on_connect(struct sock *sk, const void *address, bool user, long result,
				      bool counting)
{
	__u64 key = (__u64)sk;
	__u32 *told;

	switch (-result) {
	case 0:
	/* On its way, or was the last time. */
	case STK_EINPROGRESS:
	case STK_EALREADY:
	case STK_EISCONN:
	case STK_EINTR:
	case STK_ERESTARTSYS:
		return 0;
	}
	if (!sk || !is_tcp(sk) || !stk_wanted())
		return 0;
	told = bpf_map_lookup_elem(&stk_conns_failed, &key);
	if (told && *told == -result) {
		bpf_map_delete_elem(&stk_conns_failed, &key);
		return 0;
	}
	if (counting) {
		struct stk_net_key sum_key;

		key_of(&sum_key, sk, false);
		address_given(sum_key.remote, &sum_key.port, address, user);
		count_failure(&sum_key, NULL);
	} else {
		tell_connect(sk, NULL, result, address, user);
	}
	return 0;
}

static __always_inline int on_accept(struct sock *sk, bool counting)
{
	__u64 key = (__u64)sk, wake;
	struct stk_conn conn, *kept;
	struct stk_net *rec;

	if (!sk || !is_tcp(sk) || !stk_wanted())
		return 0;
	conn_init(&conn, STK_CONN_OPEN, 1);
	if (counting) {
		count_moved(sk, &conn, true);
	} else if (!filtered(0, 0)) {
		rec = record(STK_KIND_ACCEPT, NULL, &wake);
		if (rec) {
			flow_of(&rec->flow, sk);
			rec->incoming = 1;
			bpf_ringbuf_submit(rec, wake);
		}
	}
	if (bpf_map_update_elem(&stk_conns, &key, &conn, BPF_ANY)) {
		stk_lost(STK_KIND_NET, STK_LOSS_MAP);
		return 0;
	}
	/* Closed before anybody accepted it: no change of state will come. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE) {
		kept = bpf_map_lookup_elem(&stk_conns, &key);
		if (kept)
			on_closed(sk, kept, counting);
	}
	return 0;
}

static __always_inline int on_bind(struct sock *sk, const void *address, bool user, long result)
{
	struct stk_net *rec;
	__u64 wake;

	if (!sk || (!is_tcp(sk) && !is_udp(sk)) || filtered(result, 0) || !stk_wanted())
		return 0;
	rec = record(STK_KIND_BIND, NULL, &wake);
	if (!rec)
		return 0;
	flow_of(&rec->flow, sk);
	if (result)
		address_given(rec->flow.local, &rec->flow.local_port, address, user);
	rec->result = result;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

static __always_inline int on_listen(struct sock *sk, int backlog, long result)
{
	struct stk_net *rec;
	__u64 wake;

	if (!sk || !is_tcp(sk) || filtered(result, 0) || !stk_wanted())
		return 0;
	rec = record(STK_KIND_LISTEN, NULL, &wake);
	if (!rec)
		return 0;
	flow_of(&rec->flow, sk);
	rec->result = result;
	rec->value = backlog;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

static __always_inline int on_retransmit(struct sock *sk)
{
	__u64 key = (__u64)sk, wake;
	struct stk_conn *conn = bpf_map_lookup_elem(&stk_conns, &key);
	struct stk_net *rec;

	if (!conn || filtered(0, 0))
		return 0;
	rec = record(STK_KIND_RETRANSMIT, &conn->who, &wake);
	if (!rec)
		return 0;
	flow_of(&rec->flow, sk);
	rec->incoming = conn->incoming;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

static __always_inline int on_unix(struct sock *sk, const void *address, int len, bool user,
				   long result)
{
	const struct sockaddr_un *un = address;
	struct stk_unix *rec;
	__u16 family = 0;
	__u64 wake;
	long failed;

	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_family) != STK_AF_UNIX)
		return 0;
	if (filtered(result, 0) || !stk_wanted())
		return 0;
	if (user)
		bpf_probe_read_user(&family, sizeof(family), address);
	else
		bpf_probe_read_kernel(&family, sizeof(family), address);
	/* AF_UNSPEC: lets go of the peer. */
	if (family != STK_AF_UNIX)
		return 0;
	wake = stk_wake(sizeof(*rec));
	rec = stk_reserve(STK_KIND_UNIX_CONNECT, NULL, sizeof(*rec));
	if (!rec)
		return 0;
	stk_header(&rec->hdr, STK_KIND_UNIX_CONNECT, sizeof(*rec));
	__builtin_memset(rec->path, 0, sizeof(rec->path));
	len -= (int)sizeof(family);
	if (len < 0)
		len = 0;
	if (len > STK_UNIX_PATH)
		len = STK_UNIX_PATH;
	/* A caller's address may end at the end of its page. */
	if (user)
		failed = len ? bpf_probe_read_user(rec->path, len, un->sun_path) : 0;
	else
		failed = bpf_probe_read_kernel(rec->path, STK_UNIX_PATH, un->sun_path);
	rec->path_len = failed ? 0 : len;
	rec->result = result;
	rec->kind = BPF_CORE_READ(sk, sk_type);
	rec->pad = 0;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

static __always_inline void count_udp_sent(struct stk_net_key *key, int result)
{
	struct stk_net_sum *sum = sum_of(key, NULL);

	if (!sum)
		return;
	if (result < 0) {
		add(&sum->failures, 1);
		return;
	}
	add(&sum->sent_packets, 1);
	add(&sum->sent_bytes, result);
}

static __always_inline void count_udp_received(struct stk_net_key *key, int len)
{
	struct stk_net_sum *sum = sum_of(key, NULL);

	if (!sum)
		return;
	add(&sum->received_packets, 1);
	add(&sum->received_bytes, len);
}

/* One call that sends is one datagram, unless the caller corks or segments. */
static __always_inline int on_udp_sent(struct sock *sk, struct msghdr *msg, __u16 family,
				       int result)
{
	struct stk_net_key key;
	void *name;

	/* For an IPv4 address udpv6_sendmsg calls udp_sendmsg: count it once. */
	if (!is_udp(sk) || BPF_CORE_READ(sk, __sk_common.skc_family) != family || !stk_wanted())
		return 0;
	if (result == -EAGAIN)
		return 0;
	key_of(&key, sk, false);
	name = BPF_CORE_READ(msg, msg_name);
	if (name)
		address_given(key.remote, &key.port, name, false);
	count_udp_sent(&key, result);
	return 0;
}

static __always_inline int on_udp_received(struct sock *sk, struct sk_buff *skb, int len)
{
	struct stk_net_key key;
	unsigned char *head, *ip;
	struct udphdr *udp;
	__u8 version = 0;

	/* Negative: only peeked at. */
	if (len < 0 || !is_udp(sk) || !stk_wanted())
		return 0;
	key_of(&key, sk, false);
	head = BPF_CORE_READ(skb, head);
	ip = head + BPF_CORE_READ(skb, network_header);
	bpf_probe_read_kernel(&version, sizeof(version), ip);
	if (version >> 4 == 6)
		BPF_CORE_READ_INTO(&key.remote, (struct ipv6hdr *)ip, saddr);
	else
		mapped(key.remote, BPF_CORE_READ((struct iphdr *)ip, saddr));
	udp = (struct udphdr *)(head + BPF_CORE_READ(skb, transport_header));
	key.port = bpf_ntohs(BPF_CORE_READ(udp, source));
	count_udp_received(&key, len);
	return 0;
}

/*
 * Defines what both forms have: net_NAME tells, net_count_NAME counts.
 *
 * The change of state is a raw tracepoint also from 7.0 on, where those can be preempted: most changes are made with
 * softirqs off, which is not preempted. Some skips were seen on 7.2 when connects were given up; a classic tracepoint
 * had as many. See docs/KERNELS.md.
 */
#define FORMS(section, name, args, call)          \
	SEC(section)                              \
	int BPF_PROG(net_##name, ARGS args)       \
	{                                         \
		const bool counting = false;      \
		return call;                      \
	}                                         \
	SEC(section)                              \
	int BPF_PROG(net_count_##name, ARGS args) \
	{                                         \
		const bool counting = true;       \
		return call;                      \
	}
#define ARGS(args...) args

FORMS("?raw_tp/inet_sock_set_state", state__raw_tp, (struct sock * sk, int before, int after),
      on_state(sk, after, counting))
FORMS("?fexit/inet_stream_connect", connect__fexit,
      (struct socket * socket, struct sockaddr *address, int len, int flags, int result),
      on_connect(BPF_CORE_READ(socket, sk), address, false, result, counting))
FORMS("?fexit/inet_csk_accept", accept_4__fexit,
      (struct sock * listener, int flags, int *err, bool kern, struct sock *sk),
      on_accept(sk, counting))
FORMS("?fexit/inet_csk_accept", accept_2__fexit,
      (struct sock * listener, void *arg, struct sock *sk), on_accept(sk, counting))

/* Where the kernel refuses fexit: the system calls. */
#define CALLS(event, name, call)                                   \
	SEC("?tp/syscalls/" #event)                                \
	int net_##name(struct trace_event_raw_sys_exit *ctx)       \
	{                                                          \
		const bool counting = false;                       \
		return call;                                       \
	}                                                          \
	SEC("?tp/syscalls/" #event)                                \
	int net_count_##name(struct trace_event_raw_sys_exit *ctx) \
	{                                                          \
		const bool counting = true;                        \
		return call;                                       \
	}
#define ARG(n) PT_REGS_PARM##n##_SYSCALL(stk_regs())

CALLS(sys_exit_connect, connect__tp,
      on_connect(sock_of_fd(ARG(1)), (void *)ARG(2), true, ctx->ret, counting))
CALLS(sys_exit_accept, accept__tp, on_accept(sock_of_fd(ctx->ret), counting))
CALLS(sys_exit_accept4, accept4__tp, on_accept(sock_of_fd(ctx->ret), counting))

/* Each packet of a connection that is open, so that a long one is counted while it lasts. */
SEC("?raw_tp/tcp_probe")
int BPF_PROG(net_count_moved__raw_tp, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct stk_conn *conn = bpf_map_lookup_elem(&stk_conns, &key);

	if (conn && conn->state == STK_CONN_OPEN)
		count_moved(sk, conn, false);
	return 0;
}

SEC("?fexit/inet_bind")
int BPF_PROG(net_bind_4__fexit, struct socket *socket, struct sockaddr *address, int len,
	     int result)
{
	return on_bind(BPF_CORE_READ(socket, sk), address, false, result);
}

SEC("?fexit/inet6_bind")
int BPF_PROG(net_bind_6__fexit, struct socket *socket, struct sockaddr *address, int len,
	     int result)
{
	return on_bind(BPF_CORE_READ(socket, sk), address, false, result);
}

SEC("?tp/syscalls/sys_exit_bind")
int net_bind__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_bind(sock_of_fd(ARG(1)), (void *)ARG(2), true, ctx->ret);
}

SEC("?fexit/inet_listen")
int BPF_PROG(net_listen__fexit, struct socket *socket, int backlog, int result)
{
	return on_listen(BPF_CORE_READ(socket, sk), backlog, result);
}

SEC("?tp/syscalls/sys_exit_listen")
int net_listen__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_listen(sock_of_fd(ARG(1)), ARG(2), ctx->ret);
}

SEC("?raw_tp/tcp_retransmit_skb")
int BPF_PROG(net_retransmit__raw_tp, struct sock *sk)
{
	return on_retransmit(sk);
}

SEC("?fexit/unix_stream_connect")
int BPF_PROG(net_unix_stream__fexit, struct socket *socket, struct sockaddr *address, int len,
	     int flags, int result)
{
	return on_unix(BPF_CORE_READ(socket, sk), address, len, false, result);
}

SEC("?fexit/unix_dgram_connect")
int BPF_PROG(net_unix_dgram__fexit, struct socket *socket, struct sockaddr *address, int len,
	     int flags, int result)
{
	return on_unix(BPF_CORE_READ(socket, sk), address, len, false, result);
}

SEC("?tp/syscalls/sys_exit_connect")
int net_unix__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_unix(sock_of_fd(ARG(1)), (void *)ARG(2), ARG(3), true, ctx->ret);
}

SEC("?fexit/udp_sendmsg")
int BPF_PROG(net_udp_send_4__fexit, struct sock *sk, struct msghdr *msg, size_t len, int result)
{
	return on_udp_sent(sk, msg, STK_AF_INET, result);
}

SEC("?fexit/udpv6_sendmsg")
int BPF_PROG(net_udp_send_6__fexit, struct sock *sk, struct msghdr *msg, size_t len, int result)
{
	return on_udp_sent(sk, msg, STK_AF_INET6, result);
}

SEC("?fentry/skb_consume_udp")
int BPF_PROG(net_udp_receive__fentry, struct sock *sk, struct sk_buff *skb, int len)
{
	return on_udp_received(sk, skb, len);
}

/* Where the kernel refuses fexit: what all sockets sent and received. The peer is known where the socket is connected. */

SEC("?raw_tp/sock_send_length")
int BPF_PROG(net_udp_send__raw_tp, struct sock *sk, int result)
{
	struct stk_net_key key;

	if (!is_inet(sk) || !is_udp(sk) || result == -EAGAIN || !stk_wanted())
		return 0;
	key_of(&key, sk, false);
	count_udp_sent(&key, result);
	return 0;
}

SEC("?raw_tp/sock_recv_length")
int BPF_PROG(net_udp_receive__raw_tp, struct sock *sk, int result, int flags)
{
	struct stk_net_key key;

	if (result < 0 || flags & STK_MSG_PEEK)
		return 0;
	if (!is_inet(sk) || !is_udp(sk) || !stk_wanted())
		return 0;
	key_of(&key, sk, false);
	count_udp_received(&key, result);
	return 0;
}
