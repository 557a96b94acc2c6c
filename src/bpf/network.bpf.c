/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The network: TCP connections from both ends, what is bound and listens, UDP counted by peer, connects of AF_UNIX.
 *
 * A connection belongs to the process that made or accepted it. What becomes of it happens as often as not in a softirq,
 * where `current` is anybody: so its owner is remembered by socket from then on until it is closed.
 */
#include "summary.bpf.h"
#include "flow.bpf.h"
#define STK_SESSIONS stk_net_calls_begun
#include "session.bpf.h"

STK_EXPORT(stk_net);
STK_EXPORT(stk_unix);
STK_EXPORT(stk_net_key);
STK_EXPORT(stk_net_sum);
STK_EXPORT(stk_payload);
STK_EXPORT(stk_raw_socket);
STK_EXPORT(stk_tcp_state);

/* include/linux/socket.h */
#define STK_MSG_PEEK     2
#define STK_MSG_ERRQUEUE 0x2000
/* include/uapi/linux/magic.h */
#define STK_SOCKFS_MAGIC 0x534F434B
/* include/uapi/asm-generic/errno.h */
#define STK_EISCONN     106
#define STK_EALREADY    114
#define STK_EINPROGRESS 115
#define STK_ECANCELED   125
#define STK_EINTR       4

enum {
	STK_CONNS = 32768,
	STK_CONN_CONNECTING = 0,
	STK_CONN_OPEN = 1,
	STK_DNS_PORT = 53,
	/* TLS: the first byte of a handshake record, and of its message the type of a ClientHello. */
	STK_TLS_HANDSHAKE = 22,
	STK_TLS_CLIENT_HELLO = 1,
	/* A greeting is looked for in so many bytes and so many calls of a connection. */
	STK_TLS_BYTES = 16384,
	STK_TLS_CALLS = 16,
	STK_SEGMENTS = 8, /* of one call: writev(2) of a resolver has four */
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
	/* The greeting of TLS: calls that were looked at; bytes that are still to come, once it has begun. */
	__u16 hello_calls;
	__u16 hello_over;
	__u32 hello_left;
	__u32 tcp_state; /* the last one that was seen: TCP_SYN_SENT … */
	__u64 state_since_ns; /* 0 when it was accepted so */
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

STK_SCRATCH_MAP(stk_payload_buf);

static __always_inline bool is_tcp(struct sock *sk)
{
	return STK_GET(sock, sk, sk_protocol) == IPPROTO_TCP &&
	       STK_GET(sock, sk, sk_type) == SOCK_STREAM;
}

static __always_inline bool is_udp(struct sock *sk)
{
	return STK_GET(sock, sk, sk_protocol) == IPPROTO_UDP &&
	       STK_GET(sock, sk, sk_type) == SOCK_DGRAM;
}

static __always_inline bool is_inet(struct sock *sk)
{
	__u16 family = STK_GET(sock, sk, __sk_common.skc_family);

	return family == STK_AF_INET || family == STK_AF_INET6;
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
	if (given(to, port, from, user) != GIVEN_ADDRESS) {
		__builtin_memset(to, 0, 16);
		*port = 0;
	}
}

/* What TCP took in and sent, each byte once. */
static __always_inline void bytes_of(struct sock *sk, __u64 *sent, __u64 *received)
{
	*sent = STK_GET(tcp_sock, sk, bytes_sent) - STK_GET(tcp_sock, sk, bytes_retrans);
	*received = STK_GET(tcp_sock, sk, bytes_received);
	/* The peer's FIN counts as a byte there; tcp_fin() sets this flag (net/ipv4/tcp_input.c). */
	if (*received && STK_GET(sock, sk, __sk_common.skc_flags) & 1UL << SOCK_DONE)
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
	return STK_GET(socket, socket, sk);
}

static __attribute__((noinline)) bool is_address_wanted(const __u8 *address)
{
	__u64 half[2];
	__u32 i;

	if (!stk_config.ranges)
		return true;
	__builtin_memcpy(half, address, sizeof(half));
	for (i = 0; i < STK_RANGES_MAX; i++) {
		const volatile struct stk_range *range = &stk_config.range[i];

		if (i >= stk_config.ranges)
			break;
		if ((half[0] & range->mask[0]) == range->address[0] &&
		    (half[1] & range->mask[1]) == range->address[1])
			return true;
	}
	return false;
}

static __attribute__((noinline)) bool is_port_wanted(__u16 port)
{
	__u32 i;

	if (!stk_config.ports)
		return true;
	for (i = 0; i < STK_RANGES_MAX; i++) {
		if (i >= stk_config.ports)
			break;
		if (port >= stk_config.port[i].first && port <= stk_config.port[i].last)
			return true;
	}
	return false;
}

/* Whether somebody asked for the other end, or for ours where there is none yet, and for the port of either. */
static __attribute__((noinline)) bool is_flow_wanted(const struct stk_flow *flow)
{
	return is_address_wanted(flow->remote_port ? flow->remote : flow->local) &&
	       (is_port_wanted(flow->local_port) || is_port_wanted(flow->remote_port));
}

/* Whether what has neither address nor port is left out, because somebody asked for some. */
static __always_inline bool is_flow_needed(void)
{
	return stk_config.ranges || stk_config.ports;
}

/* Of the owner of a connection, now. */
static __always_inline void header_of(struct stk_hdr *hdr, const struct stk_hdr *who, __u32 kind,
				      __u32 len)
{
	__builtin_memcpy(hdr, who, sizeof(*hdr));
	hdr->time_ns = bpf_ktime_get_boot_ns();
	hdr->kind = kind;
	hdr->len = len;
}

/* Begins a record, of the current process or of the owner of a connection. */
static __always_inline struct stk_net *record(__u32 kind, const struct stk_hdr *who,
					      const struct stk_flow *flow, __u64 *wake)
{
	struct stk_net *rec;

	if (!is_flow_wanted(flow))
		return NULL;
	rec = stk_reserve(kind, who, sizeof(*rec), wake);
	if (!rec)
		return NULL;
	if (who)
		header_of(&rec->hdr, who, kind, sizeof(*rec));
	else
		stk_header(&rec->hdr, kind, sizeof(*rec));
	rec->flow = *flow;
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
	struct stk_flow flow;
	struct stk_net *rec;
	__u64 wake;

	if (filtered(result, duration_ns))
		return;
	flow_of(&flow, sk);
	if (address)
		address_given(flow.remote, &flow.remote_port, address, user);
	rec = record(STK_KIND_CONNECT, conn ? &conn->who : NULL, &flow, &wake);
	if (!rec)
		return;
	rec->duration_ns = duration_ns;
	rec->result = result;
	bpf_ringbuf_submit(rec, wake);
}

static __always_inline void tell_close(struct sock *sk, const struct stk_conn *conn, int result)
{
	__u64 duration_ns = bpf_ktime_get_boot_ns() - conn->since_ns;
	struct stk_flow flow;
	struct stk_net *rec;
	__u64 sent, received, wake;

	bytes_of(sk, &sent, &received);
	if (filtered(result, duration_ns) || sent + received < stk_config.min_bytes)
		return;
	flow_of(&flow, sk);
	rec = record(STK_KIND_CLOSE, &conn->who, &flow, &wake);
	if (!rec)
		return;
	rec->duration_ns = duration_ns;
	rec->sent_bytes = sent;
	rec->received_bytes = received;
	rec->retransmits = STK_GET(tcp_sock, sk, total_retrans);
	rec->result = result;
	rec->incoming = conn->incoming;
	bpf_ringbuf_submit(rec, wake);
}

/* Only where they were named: there are eight changes of state to a connection. */
static __always_inline bool are_states_told(bool counting)
{
	return !counting && stk_config.kinds >> STK_KIND_TCP_STATE & 1;
}

/* `since_ns`: in the state before, 0 where nobody saw that begin. */
static __always_inline void tell_state(struct sock *sk, const struct stk_conn *conn, __u64 since_ns,
				       int before, int after)
{
	__u64 duration_ns = since_ns ? bpf_ktime_get_boot_ns() - since_ns : 0;
	struct stk_tcp_state *rec;
	struct stk_flow flow;
	__u64 wake;

	if (filtered(0, duration_ns))
		return;
	flow_of(&flow, sk);
	if (!is_flow_wanted(&flow))
		return;
	rec = stk_reserve(STK_KIND_TCP_STATE, &conn->who, sizeof(*rec), &wake);
	if (!rec)
		return;
	header_of(&rec->hdr, &conn->who, STK_KIND_TCP_STATE, sizeof(*rec));
	rec->flow = flow;
	rec->duration_ns = duration_ns;
	rec->incoming = conn->incoming;
	rec->before = before;
	rec->after = after;
	__builtin_memset(rec->pad, 0, sizeof(rec->pad));
	bpf_ringbuf_submit(rec, wake);
}

/* Counters of a process and a peer that somebody asked for; `who` is NULL for the current process. */
static __always_inline struct stk_net_sum *sum_of(struct stk_net_key *key,
						  const struct stk_hdr *who)
{
	struct stk_net_sum zero = {}, *sum;

	if (!is_address_wanted(key->remote) || !is_port_wanted(key->port))
		return NULL;
	if (!who) {
		stk_current_key(&key->task);
		return stk_counters(&stk_net_sums, key, &zero, STK_KIND_NET);
	}
	key->task.start_ns = who->start_ns;
	key->task.tgid = who->tgid;
	sum = bpf_map_lookup_elem(&stk_net_sums, key);
	return sum ? sum : stk_counters_new(&stk_net_sums, key, &zero, STK_KIND_NET, who);
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
	struct stk_net_key key;
	struct stk_net_sum *sum;
	__u32 segs_out, segs_in, retransmits;
	__u64 sent, received;

	key_of(&key, sk, conn->incoming);
	sum = sum_of(&key, &conn->who);
	if (!sum)
		return;
	bytes_of(sk, &sent, &received);
	segs_out = STK_GET(tcp_sock, sk, segs_out);
	segs_in = STK_GET(tcp_sock, sk, segs_in);
	retransmits = STK_GET(tcp_sock, sk, total_retrans);
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

static __always_inline int on_connecting(struct sock *sk, int before, bool counting)
{
	struct stk_conn conn;
	__u64 key = (__u64)sk;

	if (!stk_wanted())
		return 0;
	conn_init(&conn, STK_CONN_CONNECTING, 0);
	conn.tcp_state = TCP_SYN_SENT;
	conn.state_since_ns = conn.since_ns;
	if (bpf_map_update_elem(&stk_conns, &key, &conn, BPF_ANY))
		stk_lost(STK_KIND_NET, STK_LOSS_MAP);
	else if (are_states_told(counting))
		tell_state(sk, &conn, 0, before, TCP_SYN_SENT);
	return 0;
}

/* `before` is 0 where it is over already. */
static __always_inline int on_closed(struct sock *sk, struct stk_conn *conn, int before,
				     bool counting)
{
	__u32 error = STK_GET(sock, sk, sk_err);
	struct stk_conn was = *conn;
	__u64 key = (__u64)sk;

	/* An accept that finds the connection closed may be here as well. */
	if (bpf_map_delete_elem(&stk_conns, &key))
		return 0;
	if (before && are_states_told(counting))
		tell_state(sk, &was, was.state_since_ns, before, TCP_CLOSE);
	if (was.state == STK_CONN_OPEN) {
		if (counting)
			count_moved(sk, &was, false);
		else
			tell_close(sk, &was, -(int)error);
		return 0;
	}
	if (!error) {
		/* Not even tried: connect(2) is about to return why. */
		if (STK_GET(sock, sk, sk_socket, state) == SS_UNCONNECTED)
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

/* `again`: as the second program, which else has nothing left to do. */
static __always_inline int on_state(struct sock *sk, int before, int after, bool counting,
				    bool again)
{
	__u64 key = (__u64)sk;
	struct stk_conn *conn;

	if (!are_states_told(counting) && after != TCP_SYN_SENT && after != TCP_ESTABLISHED &&
	    after != TCP_CLOSE)
		return 0;
	if (!is_tcp(sk))
		return 0;
	if (after == TCP_SYN_SENT && !again)
		return on_connecting(sk, before, counting);
	conn = bpf_map_lookup_elem(&stk_conns, &key);
	if (conn && after == TCP_CLOSE)
		return on_closed(sk, conn, before, counting);
	if (conn && conn->tcp_state == after)
		return 0;
	if (after == TCP_SYN_SENT)
		return on_connecting(sk, before, counting);
	if (!conn)
		return 0;
	if (are_states_told(counting))
		tell_state(sk, conn, conn->state_since_ns, before, after);
	conn->tcp_state = after;
	conn->state_since_ns = bpf_ktime_get_boot_ns();
	if (after != TCP_ESTABLISHED || conn->state != STK_CONN_CONNECTING)
		return 0;
	if (counting)
		count_moved(sk, conn, true);
	else
		tell_connect(sk, conn, 0, NULL, false);
	conn->state = STK_CONN_OPEN;
	conn->since_ns = conn->state_since_ns;
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
	struct stk_flow flow;
	struct stk_net *rec;

	if (!sk || !is_tcp(sk) || !stk_wanted())
		return 0;
	conn_init(&conn, STK_CONN_OPEN, 1);
	conn.tcp_state = STK_GET(sock, sk, __sk_common.skc_state);
	if (counting) {
		count_moved(sk, &conn, true);
	} else if (!filtered(0, 0)) {
		flow_of(&flow, sk);
		rec = record(STK_KIND_ACCEPT, NULL, &flow, &wake);
		if (rec) {
			rec->incoming = 1;
			bpf_ringbuf_submit(rec, wake);
		}
	}
	if (bpf_map_update_elem(&stk_conns, &key, &conn, BPF_ANY)) {
		stk_lost(STK_KIND_NET, STK_LOSS_MAP);
		return 0;
	}
	/* Closed before anybody accepted it: no change of state will come. */
	if (STK_GET(sock, sk, __sk_common.skc_state) == TCP_CLOSE) {
		kept = bpf_map_lookup_elem(&stk_conns, &key);
		if (kept)
			on_closed(sk, kept, 0, counting);
	}
	return 0;
}

static __always_inline int on_bind(struct sock *sk, const void *address, bool user, long result)
{
	struct stk_flow flow;
	struct stk_net *rec;
	__u64 wake;

	if (!sk || (!is_tcp(sk) && !is_udp(sk)) || filtered(result, 0) || !stk_wanted())
		return 0;
	flow_of(&flow, sk);
	if (result)
		address_given(flow.local, &flow.local_port, address, user);
	rec = record(STK_KIND_BIND, NULL, &flow, &wake);
	if (!rec)
		return 0;
	rec->result = result;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

static __always_inline int on_listen(struct sock *sk, int backlog, long result)
{
	struct stk_flow flow;
	struct stk_net *rec;
	__u64 wake;

	if (!sk || !is_tcp(sk) || filtered(result, 0) || !stk_wanted())
		return 0;
	flow_of(&flow, sk);
	rec = record(STK_KIND_LISTEN, NULL, &flow, &wake);
	if (!rec)
		return 0;
	rec->result = result;
	rec->value = backlog;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

static __always_inline int on_retransmit(struct sock *sk)
{
	__u64 key = (__u64)sk, wake;
	struct stk_conn *conn = bpf_map_lookup_elem(&stk_conns, &key);
	struct stk_flow flow;
	struct stk_net *rec;

	if (!conn || filtered(0, 0))
		return 0;
	flow_of(&flow, sk);
	rec = record(STK_KIND_RETRANSMIT, &conn->who, &flow, &wake);
	if (!rec)
		return 0;
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

	if (!sk || STK_GET(sock, sk, __sk_common.skc_family) != STK_AF_UNIX)
		return 0;
	if (is_flow_needed() || filtered(result, 0) || !stk_wanted())
		return 0;
	if (user)
		bpf_probe_read_user(&family, sizeof(family), address);
	else
		bpf_probe_read_kernel(&family, sizeof(family), address);
	/* AF_UNSPEC: lets go of the peer. */
	if (family != STK_AF_UNIX)
		return 0;
	rec = stk_reserve(STK_KIND_UNIX_CONNECT, NULL, sizeof(*rec), &wake);
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
	rec->kind = STK_GET(sock, sk, sk_type);
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
	if (!is_udp(sk) || STK_GET(sock, sk, __sk_common.skc_family) != family || !stk_wanted())
		return 0;
	if (result == -EAGAIN)
		return 0;
	key_of(&key, sk, false);
	name = STK_GET(msghdr, msg, msg_name);
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
	head = STK_GET(sk_buff, skb, head);
	ip = head + STK_GET(sk_buff, skb, network_header);
	bpf_probe_read_kernel(&version, sizeof(version), ip);
	if (version >> 4 == 6)
		BPF_CORE_READ_INTO(&key.remote, (struct ipv6hdr *)ip, saddr);
	else
		mapped(key.remote, BPF_CORE_READ((struct iphdr *)ip, saddr));
	udp = (struct udphdr *)(head + STK_GET(sk_buff, skb, transport_header));
	key.port = bpf_ntohs(BPF_CORE_READ(udp, source));
	count_udp_received(&key, len);
	return 0;
}

/* struct iov_iter up to 5.13, and its name for the segments up to 6.3 (747b1f65d39a). */
struct iov_iter___before_5_14 {
	unsigned int type; /* and the direction in the lowest bit */
} __attribute__((preserve_access_index));

struct iov_iter___before_6_4 {
	const struct iovec *iov;
} __attribute__((preserve_access_index));

/* Where the bytes are that a call has moved: the kernel's view of the buffers, or the caller's. */
struct stk_buffers {
	struct msghdr *msg;
	/* Without `msg`: one piece, or segments. */
	__u64 start;
	__u64 segments;
	/* Bytes of `msg` and of the piece, number of segments: a call can say that it has moved more (MSG_TRUNC). */
	__u64 len;
};

/*
 * Copies what a call has moved out of its segments, behind the fixed part of the record, and returns how much that was.
 * `at` is the first of so many segments in the caller's memory; or, with `segments` 0, the kernel's of where the call
 * ended, `skip` bytes into it. From there it goes back to the start: what has been moved says how far that is, so that
 * nothing has to be kept from when the call began.
 *
 * Global, so that its loops are looked at once and not for each place that they are called from.
 */
__attribute__((noinline)) int net_gather(__u64 at, __u64 skip, __u32 moved, __u32 segments)
{
	__u32 cpu = bpf_get_smp_processor_id(), done = 0, want = moved;
	struct stk_scratch *s = bpf_map_lookup_elem(&stk_payload_buf, &cpu);
	struct iovec segment = {};
	__u64 reached = skip;
	int i;

	if (!s)
		return 0;
	if (want > STK_PAYLOAD_MAX)
		want = STK_PAYLOAD_MAX;
	if (!segments) {
		for (i = 0; i < STK_SEGMENTS && reached < moved; i++) {
			at -= sizeof(segment);
			if (bpf_probe_read_kernel(&segment, sizeof(segment), (void *)at))
				return 0;
			reached += segment.iov_len;
		}
		if (reached < moved)
			return 0;
		skip = reached - moved;
	}
	for (i = 0; i < STK_SEGMENTS && done < want; i++) {
		__u32 off = done;
		__u64 len;
		long failed;

		if (segments && i >= segments)
			break;
		if (segments)
			failed = bpf_probe_read_user(&segment, sizeof(segment), (void *)at);
		else
			failed = bpf_probe_read_kernel(&segment, sizeof(segment), (void *)at);
		if (failed)
			break;
		at += sizeof(segment);
		len = segment.iov_len - skip;
		if (len > want - done)
			len = want - done;
		asm volatile("" : "+r"(len), "+r"(off));
		if (len > STK_PAYLOAD_MAX || off > STK_PAYLOAD_MAX)
			break;
		if (bpf_probe_read_user(s->rec + sizeof(struct stk_payload) + off, len,
					(char *)segment.iov_base + skip))
			break;
		done += len;
		skip = 0;
	}
	return done;
}

/* The same where the buffer is one piece in the caller's memory. */
static __always_inline __u32 gather_one(struct stk_scratch *s, __u64 start, __u32 moved)
{
	__u32 len = moved;

	if (len > STK_PAYLOAD_MAX)
		len = STK_PAYLOAD_MAX;
	asm volatile("" : "+r"(len));
	if (len > STK_PAYLOAD_MAX)
		return 0;
	if (bpf_probe_read_user(s->rec + sizeof(struct stk_payload), len, (void *)start))
		return 0;
	return len;
}

/* What a call has moved, when it has returned. Of what the kernel itself sends, and of files and pipes, nothing. */
static __always_inline __u32 gather(struct stk_scratch *s, const struct stk_buffers *from,
				    __u32 moved)
{
	struct iov_iter___before_5_14 *old;
	struct iov_iter___before_6_4 *named;
	struct iov_iter *iter;
	const struct iovec *at;
	__u64 skip, copied;
	__u32 type;

	if (!from->len)
		return 0;
	if (from->segments)
		return net_gather(from->segments, 0, moved, from->len);
	if (!from->msg)
		return gather_one(s, from->start, moved < from->len ? moved : from->len);
	iter = (void *)from->msg + bpf_core_field_offset(struct msghdr, msg_iter);
	copied = from->len - BPF_CORE_READ(iter, count);
	if (moved > copied)
		moved = copied;
	if (!moved)
		return 0;
	old = (void *)iter;
	named = (void *)iter;
	skip = BPF_CORE_READ(iter, iov_offset);
	if (bpf_core_field_exists(old->type))
		type = BPF_CORE_READ(old, type) & ~1U;
	else
		type = BPF_CORE_READ(iter, iter_type);
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	    type == bpf_core_enum_value(enum iter_type, ITER_UBUF))
		return gather_one(s, (__u64)BPF_CORE_READ(iter, ubuf) + skip - moved, moved);
	if (type != bpf_core_enum_value(enum iter_type, ITER_IOVEC))
		return 0;
	if (bpf_core_field_exists(named->iov))
		at = BPF_CORE_READ(named, iov);
	else
		at = BPF_CORE_READ(iter, __iov);
	return net_gather((__u64)at, skip, moved, false);
}

/* The other end of a datagram. */
struct stk_end {
	__u8 address[16];
	__u16 port;
	__u16 local_port; /* of a socket that was asked through: its address may be another one's by now */
	__u16 pad[2];
};

/* Whom sockets without a peer have asked last: not every caller wants to know from where an answer comes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct stk_end);
} stk_dns_asked SEC(".maps");

/*
 * Begins a record of what was said, if somebody wants it. `end` is the other end, where it is not the socket's. The flow
 * is put together in the scratch, for want of room on the stack.
 */
static __always_inline struct stk_scratch *payload_begin(__u32 kind, struct sock *sk,
							 const struct stk_end *end, __u64 *seq)
{
	struct stk_scratch *s = stk_scratch_take(&stk_payload_buf, kind, seq);
	struct stk_payload *rec;

	if (!s)
		return NULL;
	rec = (struct stk_payload *)s->rec;
	flow_of(&rec->flow, sk);
	if (end) {
		__builtin_memcpy(rec->flow.remote, end->address, 16);
		rec->flow.remote_port = end->port;
	}
	return is_flow_wanted(&rec->flow) && stk_admitted(kind) ? s : NULL;
}

/* Sends what was gathered. */
static __always_inline void tell_payload(struct stk_scratch *s, __u64 seq, __u32 kind, __u32 moved,
					 __u32 len, bool sent)
{
	struct stk_payload *rec = (struct stk_payload *)s->rec;

	asm volatile("" : "+r"(len));
	if (!len || len > STK_PAYLOAD_MAX) {
		stk_lost(kind, STK_LOSS_READ);
		return;
	}
	stk_header(&rec->hdr, kind, sizeof(*rec) + len);
	rec->moved = moved;
	rec->len = len;
	rec->sent = sent;
	rec->incoming = kind == STK_KIND_DNS && rec->flow.local_port == STK_DNS_PORT;
	stk_scratch_send(s, seq, kind, sizeof(*rec) + len);
}

/* `end` is the other end, where it is not the socket's. */
static __always_inline int on_dns(struct sock *sk, const struct stk_buffers *from,
				  struct stk_end *end, __u32 moved, bool sent)
{
	__u64 key = (__u64)sk, seq;
	struct stk_scratch *s;

	if (!stk_wanted())
		return 0;
	if (end && sent) {
		end->local_port = STK_GET(sock, sk, __sk_common.skc_num);
		bpf_map_update_elem(&stk_dns_asked, &key, end, BPF_ANY);
	}
	s = payload_begin(STK_KIND_DNS, sk, end, &seq);
	if (s)
		tell_payload(s, seq, STK_KIND_DNS, moved, gather(s, from, moved), sent);
	return 0;
}

/* How many bytes of a greeting are still to come behind these, its first. */
static __always_inline __u32 hello_left(const __u8 *start, __u32 len)
{
	__u32 record, message;

	/* The header of the record and of the message in it; what is shorter says nothing yet. */
	if (len < 9)
		return STK_TLS_BYTES;
	if (start[5] != STK_TLS_CLIENT_HELLO)
		return 0;
	record = 5 + (start[3] << 8 | start[4]);
	message = 9 + (start[6] << 16 | start[7] << 8 | start[8]);
	/* In several records: each has a header of its own, and how many there will be is not known. */
	if (record < message || message > STK_TLS_BYTES)
		return STK_TLS_BYTES;
	return message > len ? message - len : 0;
}

/* The start of what is sent through a connection that somebody in scope made. */
static __always_inline int on_hello(struct sock *sk, const struct stk_buffers *from, __u32 moved)
{
	struct stk_scratch *s;
	struct stk_conn *conn;
	__u64 key = (__u64)sk, seq;
	__u32 len;

	/* Long past its start; nearly all calls end here. */
	if (STK_GET(tcp_sock, sk, bytes_sent) > (__u64)STK_TLS_BYTES + moved)
		return 0;
	conn = bpf_map_lookup_elem(&stk_conns, &key);
	if (!conn || conn->incoming || conn->hello_over || !stk_wanted())
		return 0;
	s = payload_begin(STK_KIND_TLS, sk, NULL, &seq);
	if (!s)
		return 0;
	len = gather(s, from, moved);
	if (!conn->hello_calls) {
		const __u8 *start = s->rec + sizeof(struct stk_payload);

		if (!len || start[0] != STK_TLS_HANDSHAKE) {
			conn->hello_over = 1;
			return 0;
		}
		conn->hello_left = hello_left(start, len);
	} else {
		conn->hello_left = conn->hello_left > moved ? conn->hello_left - moved : 0;
	}
	conn->hello_calls++;
	if (!len || !conn->hello_left || conn->hello_calls >= STK_TLS_CALLS)
		conn->hello_over = 1;
	tell_payload(s, seq, STK_KIND_TLS, moved, len, true);
	return 0;
}

/*
 * A call has sent or received. It is looked into by its ports, and where TCP begins to send, by its first byte. `name` is
 * the address that was given to the call, or by it.
 */
static __always_inline int on_moved(struct sock *sk, __u16 protocol, __be16 remote_port,
				    __u16 local_port, const struct stk_buffers *from,
				    const void *name, bool user, int moved, bool sent)
{
	__u64 key = (__u64)sk;
	struct stk_end *asked, end = {};
	__be16 port = remote_port;

	if (moved <= 0)
		return 0;
	if (protocol == IPPROTO_TCP) {
		if (port == bpf_htons(STK_DNS_PORT) || local_port == STK_DNS_PORT)
			return on_dns(sk, from, NULL, moved, sent);
		return sent ? on_hello(sk, from, moved) : 0;
	}
	if (protocol != IPPROTO_UDP)
		return 0;
	if (name) {
		const void *at = &((const struct sockaddr_in6 *)name)->sin6_port;

		if (user)
			bpf_probe_read_user(&port, sizeof(port), at);
		else
			bpf_probe_read_kernel(&port, sizeof(port), at);
		if (port != bpf_htons(STK_DNS_PORT) && local_port != STK_DNS_PORT)
			return 0;
		address_given(end.address, &end.port, name, user);
		return on_dns(sk, from, &end, moved, sent);
	}
	if (port == bpf_htons(STK_DNS_PORT) || local_port == STK_DNS_PORT)
		return on_dns(sk, from, NULL, moved, sent);
	if (port || sent)
		return 0;
	asked = bpf_map_lookup_elem(&stk_dns_asked, &key);
	if (!asked || asked->local_port != local_port)
		return 0;
	return on_dns(sk, from, asked, moved, sent);
}

static __always_inline int on_message(struct socket *socket, struct msghdr *msg, __u64 size,
				      int moved, bool sent)
{
	struct stk_buffers from = { .msg = msg, .len = size };
	struct sock *sk = socket->sk;

	return on_moved(sk, sk->sk_protocol, sk->__sk_common.skc_dport, sk->__sk_common.skc_num,
			&from, msg->msg_name, false, moved, sent);
}

/* Somebody asked for a socket beside the transports: packets with headers of its own, or what passes the network card. */
static __always_inline int on_socket(int family, int type, int protocol, long result)
{
	struct stk_raw_socket *rec;
	__u64 wake;

	/* The way to ask for packets before AF_PACKET was there; it still works. */
	if (family == STK_AF_INET && type == SOCK_PACKET)
		family = STK_AF_PACKET;
	if (family != STK_AF_PACKET &&
	    !(type == SOCK_RAW && (family == STK_AF_INET || family == STK_AF_INET6)))
		return 0;
	if (is_flow_needed() || filtered(result, 0) || !stk_wanted())
		return 0;
	rec = stk_reserve(STK_KIND_RAW_SOCKET, NULL, sizeof(*rec), &wake);
	if (!rec)
		return 0;
	stk_header(&rec->hdr, STK_KIND_RAW_SOCKET, sizeof(*rec));
	rec->result = result < 0 ? result : 0;
	rec->family = family;
	rec->kind = type;
	rec->protocol = family == STK_AF_PACKET ? bpf_ntohs(protocol) : protocol;
	bpf_ringbuf_submit(rec, wake);
	return 0;
}

/* Defines what both forms have: net_NAME tells, net_count_NAME counts. */
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

/*
 * Twice, one program after the other. States change in processes, and packets that come in meanwhile change those of
 * other sockets: in the middle of such a program the kernel skips it, and from 7.0 on also where another process is given
 * the CPU. Then the second one is there, which else finds done what there is to do: the first one has moved the
 * connection on. (Of a connection that the map has no room for both count the loss.)
 */
FORMS("?raw_tp/inet_sock_set_state", state__raw_tp, (struct sock * sk, int before, int after),
      on_state(sk, before, after, counting, false))
FORMS("?raw_tp/inet_sock_set_state", state_again__raw_tp, (struct sock * sk, int before, int after),
      on_state(sk, before, after, counting, true))
FORMS("?fexit/inet_stream_connect", connect__fexit,
      (struct socket * socket, struct sockaddr *address, int len, int flags, int result),
      on_connect(STK_GET(socket, socket, sk), address, false, result, counting))
FORMS("?fexit/inet_csk_accept", accept_4__fexit,
      (struct sock * listener, int flags, int *err, bool kern, struct sock *sk),
      on_accept(sk, counting))
FORMS("?fexit/inet_csk_accept", accept_2__fexit,
      (struct sock * listener, void *arg, struct sock *sk), on_accept(sk, counting))

/* The same of both forms at both ends of a function. */
#define SESSIONS(function, name, kind, does)                                       \
	STK_SESSION(function, net_##name, kind, const bool counting = false; does) \
	STK_SESSION(function, net_count_##name, kind, const bool counting = true; does)

SESSIONS(inet_stream_connect, connect, STK_KIND_CONNECT,
	 on_connect(STK_AS(socket, call.arg[0])->sk, (void *)call.arg[1], false, (int)ret,
		    counting))
SESSIONS(inet_csk_accept, accept_2, STK_KIND_ACCEPT, on_accept((struct sock *)ret, counting))

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
	return on_bind(STK_GET(socket, socket, sk), address, false, result);
}

SEC("?fexit/inet6_bind")
int BPF_PROG(net_bind_6__fexit, struct socket *socket, struct sockaddr *address, int len,
	     int result)
{
	return on_bind(STK_GET(socket, socket, sk), address, false, result);
}

STK_SESSION(inet_bind, net_bind_4, STK_KIND_BIND,
	    on_bind(STK_AS(socket, call.arg[0])->sk, (void *)call.arg[1], false, (int)ret))
STK_SESSION(inet6_bind, net_bind_6, STK_KIND_BIND,
	    on_bind(STK_AS(socket, call.arg[0])->sk, (void *)call.arg[1], false, (int)ret))

SEC("?tp/syscalls/sys_exit_bind")
int net_bind__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_bind(sock_of_fd(ARG(1)), (void *)ARG(2), true, ctx->ret);
}

SEC("?fexit/inet_listen")
int BPF_PROG(net_listen__fexit, struct socket *socket, int backlog, int result)
{
	return on_listen(STK_GET(socket, socket, sk), backlog, result);
}

STK_SESSION(inet_listen, net_listen, STK_KIND_LISTEN,
	    on_listen(STK_AS(socket, call.arg[0])->sk, call.arg[1], (int)ret))

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
	return on_unix(STK_GET(socket, socket, sk), address, len, false, result);
}

SEC("?fexit/unix_dgram_connect")
int BPF_PROG(net_unix_dgram__fexit, struct socket *socket, struct sockaddr *address, int len,
	     int flags, int result)
{
	return on_unix(STK_GET(socket, socket, sk), address, len, false, result);
}

STK_SESSION(unix_stream_connect, net_unix_stream, STK_KIND_UNIX_CONNECT,
	    on_unix(STK_AS(socket, call.arg[0])->sk, (void *)call.arg[1], call.arg[2], false,
		    (int)ret))
STK_SESSION(unix_dgram_connect, net_unix_dgram, STK_KIND_UNIX_CONNECT,
	    on_unix(STK_AS(socket, call.arg[0])->sk, (void *)call.arg[1], call.arg[2], false,
		    (int)ret))

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

STK_SESSION(udp_sendmsg, net_udp_send_4, STK_KIND_NET,
	    on_udp_sent(STK_AS(sock, call.arg[0]), STK_AS(msghdr, call.arg[1]), STK_AF_INET,
			(int)ret))
STK_SESSION(udpv6_sendmsg, net_udp_send_6, STK_KIND_NET,
	    on_udp_sent(STK_AS(sock, call.arg[0]), STK_AS(msghdr, call.arg[1]), STK_AF_INET6,
			(int)ret))
STK_ENTRY(skb_consume_udp, net_udp_receive,
	  on_udp_received(STK_AS(sock, PT_REGS_PARM1(ctx)), STK_AS(sk_buff, PT_REGS_PARM2(ctx)),
			  PT_REGS_PARM3(ctx)))

SEC("?fexit/inet_sendmsg")
int BPF_PROG(net_sent_4__fexit, struct socket *socket, struct msghdr *msg, size_t size, int result)
{
	return on_message(socket, msg, size, result, true);
}

SEC("?fexit/inet6_sendmsg")
int BPF_PROG(net_sent_6__fexit, struct socket *socket, struct msghdr *msg, size_t size, int result)
{
	return on_message(socket, msg, size, result, true);
}

SEC("?fexit/inet_recvmsg")
int BPF_PROG(net_received_4__fexit, struct socket *socket, struct msghdr *msg, size_t size,
	     int flags, int result)
{
	if (flags & (STK_MSG_PEEK | STK_MSG_ERRQUEUE))
		return 0;
	return on_message(socket, msg, size, result, false);
}

SEC("?fexit/inet6_recvmsg")
int BPF_PROG(net_received_6__fexit, struct socket *socket, struct msghdr *msg, size_t size,
	     int flags, int result)
{
	if (flags & (STK_MSG_PEEK | STK_MSG_ERRQUEUE))
		return 0;
	return on_message(socket, msg, size, result, false);
}

#define MESSAGE(sent)                                                                     \
	on_message(STK_AS(socket, call.arg[0]), STK_AS(msghdr, call.arg[1]), call.arg[2], \
		   (int)ret, sent)
STK_SESSION(inet_sendmsg, net_sent_4, STK_KIND_DNS, MESSAGE(true))
STK_SESSION(inet6_sendmsg, net_sent_6, STK_KIND_DNS, MESSAGE(true))
STK_SESSION(inet_recvmsg, net_received_4, STK_KIND_DNS,
	    if (!(call.arg[3] & (STK_MSG_PEEK | STK_MSG_ERRQUEUE))) MESSAGE(false))
STK_SESSION(inet6_recvmsg, net_received_6, STK_KIND_DNS,
	    if (!(call.arg[3] & (STK_MSG_PEEK | STK_MSG_ERRQUEUE))) MESSAGE(false))

SEC("?fexit/__sock_create")
int BPF_PROG(net_socket__fexit, struct net *net, int family, int type, int protocol,
	     struct socket **socket, int kern, int result)
{
	return kern ? 0 : on_socket(family, type, protocol, result);
}

STK_SESSION(__sock_create, net_socket, STK_KIND_RAW_SOCKET,
	    if (!call.arg[5]) on_socket(call.arg[1], call.arg[2], call.arg[3], (int)ret))

SEC("?tp/syscalls/sys_exit_socket")
int net_socket__tp(struct trace_event_raw_sys_exit *ctx)
{
	/* The lowest bits of the type are the type (SOCK_TYPE_MASK). */
	return on_socket(ARG(1), ARG(2) & 0xf, ARG(3), ctx->ret);
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

/* Of several messages in one call so many are looked into; resolvers send two. */
#define STK_MESSAGES 4

/* The buffers and the address of the current system call. What is received has no address yet: that is written later. */
static __always_inline bool call_buffers(struct stk_buffers *from, const void **name, bool sent)
{
	struct pt_regs *regs = stk_regs();
	const struct user_msghdr *msg;
	struct user_msghdr given;

	/* Its arguments are in other registers, and its structs are others. */
	if (stk_compat(regs))
		return false;
	switch (stk_syscall_nr(regs)) {
	case STK_NR_sendto:
		*name = (void *)PT_REGS_PARM5_CORE_SYSCALL(regs);
	/* fallthrough */
	case STK_NR_recvfrom:
	case STK_NR_read:
	case STK_NR_write:
		from->start = PT_REGS_PARM2_CORE_SYSCALL(regs);
		from->len = PT_REGS_PARM3_CORE_SYSCALL(regs);
		return true;
	case STK_NR_readv:
	case STK_NR_writev:
		from->segments = PT_REGS_PARM2_CORE_SYSCALL(regs);
		from->len = PT_REGS_PARM3_CORE_SYSCALL(regs);
		return true;
	case STK_NR_sendmsg:
	case STK_NR_recvmsg:
		msg = (void *)PT_REGS_PARM2_CORE_SYSCALL(regs);
		if (bpf_probe_read_user(&given, sizeof(given), msg))
			return false;
		if (sent)
			*name = given.msg_name;
		from->segments = (__u64)given.msg_iov;
		from->len = given.msg_iovlen;
		return true;
	}
	return false;
}

static __always_inline int on_call(struct sock *sk, int result, bool sent)
{
	struct stk_buffers from = {};
	const void *name = NULL;
	__u16 protocol, local;
	__be16 remote;

	if (result <= 0 || !is_inet(sk))
		return 0;
	protocol = STK_GET(sock, sk, sk_protocol);
	remote = STK_GET(sock, sk, __sk_common.skc_dport);
	local = STK_GET(sock, sk, __sk_common.skc_num);
	/* Received from somebody who is known, and not the one. */
	if (!sent && remote && remote != bpf_htons(STK_DNS_PORT) && local != STK_DNS_PORT)
		return 0;
	if (!call_buffers(&from, &name, sent))
		return 0;
	return on_moved(sk, protocol, remote, local, &from, name, true, result, sent);
}

SEC("?raw_tp/sock_send_length")
int BPF_PROG(net_sent__raw_tp, struct sock *sk, int result)
{
	return on_call(sk, result, true);
}

SEC("?raw_tp/sock_recv_length")
int BPF_PROG(net_received__raw_tp, struct sock *sk, int result, int flags)
{
	return flags & (STK_MSG_PEEK | STK_MSG_ERRQUEUE) ? 0 : on_call(sk, result, false);
}

/* Several messages in one call: which one it is cannot be told while they are moved. */
static __always_inline int on_calls(long result, int flags, bool sent)
{
	struct sock *sk = sock_of_fd(ARG(1));
	const struct mmsghdr *messages = (void *)ARG(2);
	struct mmsghdr given;
	__u16 protocol, local;
	__be16 remote;
	int i;

	if (!sk || !is_inet(sk) || flags & (STK_MSG_PEEK | STK_MSG_ERRQUEUE))
		return 0;
	protocol = STK_GET(sock, sk, sk_protocol);
	remote = STK_GET(sock, sk, __sk_common.skc_dport);
	local = STK_GET(sock, sk, __sk_common.skc_num);
	for (i = 0; i < STK_MESSAGES && i < result; i++) {
		struct stk_buffers from = {};

		if (bpf_probe_read_user(&given, sizeof(given), messages + i))
			return 0;
		from.segments = (__u64)given.msg_hdr.msg_iov;
		from.len = given.msg_hdr.msg_iovlen;
		on_moved(sk, protocol, remote, local, &from, given.msg_hdr.msg_name, true,
			 given.msg_len, sent);
	}
	return 0;
}

SEC("?tp/syscalls/sys_exit_sendmmsg")
int net_sent__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_calls(ctx->ret, 0, true);
}

SEC("?tp/syscalls/sys_exit_recvmmsg")
int net_received__tp(struct trace_event_raw_sys_exit *ctx)
{
	return on_calls(ctx->ret, ARG(4), false);
}
