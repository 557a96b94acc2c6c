/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reads which addresses hosts have that rules are about, from the answers of nameservers, before who has asked gets them:
 * so an address is known when it is first connected to. Every packet for a socket comes by; nothing is refused here.
 *
 * Believed is what comes from port 53 of a nameserver of this machine, to a socket in the network namespace that it is the
 * nameserver of: in another one anybody can have that address.
 */
#include "host.bpf.h"

/* include/uapi/linux/if_ether.h, include/uapi/linux/in.h; RFC 1035 sections 3.2 and 4.1.1, RFC 3596. */
#define STK_ETH_P_IP   0x0800
#define STK_ETH_P_IPV6 0x86dd
#define DNS_PORT       53
#define DNS_RESPONSE   0x8000
#define DNS_OPCODE     0x7800
#define DNS_RCODE      0x000f
#define DNS_A          1
#define DNS_AAAA       28
#define DNS_IN         1

enum {
	DNS_HEADER = 12,
	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	UDP_HEADER = 8,
	LABELS_MAX = 128,
	/* Nameservers send no more by UDP; of longer messages the beginning is read. */
	MESSAGE_MAX = 4096,
	/* So much can be read from any place in it. */
	MESSAGE_ROOM = MESSAGE_MAX + 64,
	/* The smallest one takes 12 bytes; the largest message that is usual, 1232, holds 76 addresses. */
	RECORDS_MAX = 128,
};

struct host_scratch {
	__u64 sk;
	__u8 message[MESSAGE_ROOM];
	struct stk_host_labels name;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct host_scratch);
} stk_host_scratch SEC(".maps");

/* An address that no host has: what is new begins like this. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_host_until);
} stk_host_nobody SEC(".maps");

static __always_inline struct host_scratch *scratch_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stk_host_scratch, &zero);
}

static __always_inline struct stk_host_about *about_hosts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stk_host_about, &zero);
}

/* A byte of the message: who asks for it knows that it is there. */
static __always_inline __u32 byte_at(const struct host_scratch *scratch, __u64 at)
{
	/* The asm keeps the mask, which says nothing else. */
	asm volatile("" : "+r"(at));
	return scratch->message[at & (MESSAGE_MAX - 1)];
}

static __always_inline __u32 two_at(const struct host_scratch *scratch, __u32 at)
{
	return byte_at(scratch, at) << 8 | byte_at(scratch, at + 1);
}

/* Where what follows a name begins; 0: it is none. */
__attribute__((noinline)) __u32 behind_name(__u32 at, __u32 end)
{
	struct host_scratch *scratch = scratch_now();
	__u32 i, len;

	if (!scratch)
		return 0;
	for (i = 0; i < LABELS_MAX; i++) {
		if (at >= end)
			return 0;
		len = byte_at(scratch, at);
		if (!len)
			return at + 1;
		/* The rest stands elsewhere. */
		if ((len & 0xc0) == 0xc0)
			return at + 2;
		if (len & 0xc0)
			return 0;
		at += 1 + len;
	}
	return 0;
}

/* The number of the host that is asked for, and 1; 0: no rule is about it. */
__attribute__((noinline)) __u32 asked_for(__u32 end)
{
	struct host_scratch *scratch = scratch_now();
	__u32 i, c, upper, *host;
	__s32 behind;

	if (!scratch || end > DNS_HEADER + STK_HOST_NAME)
		return 0;
	/* Without a branch: the verifier would follow both ways of each byte. */
	for (i = 0; i < STK_HOST_NAME; i++) {
		c = scratch->message[DNS_HEADER + i];
		behind = (__s32)(end - DNS_HEADER - i - 1) >> 31;
		asm volatile("" : "+r"(behind));
		c &= ~behind;
		/* Lengths are below all letters. */
		upper = (('A' - 1 - c) & (c - 'Z' - 1)) >> 31;
		asm volatile("" : "+r"(upper));
		c += upper * ('a' - 'A');
		scratch->name.labels[i] = c;
	}
	host = bpf_map_lookup_elem(&stk_host_names, &scratch->name);
	return host ? *host + 1 : 0;
}

/* A host has an address until then; whether there was room. */
__attribute__((noinline)) int learn(__u64 high, __u64 low, __u32 host, __u32 until)
{
	struct host_address key = address_of(high, low);
	struct stk_host_about *about = about_hosts();
	struct stk_host_until *known, *nobody;
	__u32 zero = 0;

	if (!about || host >= STK_HOSTS_MAX)
		return 0;
	known = bpf_map_lookup_elem(&stk_host_known, &key);
	if (!known) {
		nobody = bpf_map_lookup_elem(&stk_host_nobody, &zero);
		if (!nobody)
			return 0;
		/* Another CPU may have entered it meanwhile. */
		bpf_map_update_elem(&stk_host_known, &key, nobody, BPF_NOEXIST);
		known = bpf_map_lookup_elem(&stk_host_known, &key);
	}
	if (!known) {
		__sync_fetch_and_add(&about->lost, 1);
		return 0;
	}
	asm volatile("" : "+r"(host));
	host &= STK_HOSTS_MAX - 1;
	/* Of two answers at a time either one is right. */
	if (known->until[host] < until)
		known->until[host] = until;
	return 1;
}

/* The same of the address that stands there in the message, of 4 bytes or 16. */
__attribute__((noinline)) int learn_from(__u32 at, __u32 size, __u32 host, __u32 ttl)
{
	struct host_scratch *scratch = scratch_now();
	__u8 ip[16] = {};
	__u64 half[2];
	__u32 i;

	if (!scratch)
		return 0;
	if (size == 4) {
		ip[10] = ip[11] = 0xff;
		for (i = 0; i < 4; i++)
			ip[12 + i] = byte_at(scratch, at + i);
	} else {
		for (i = 0; i < 16; i++)
			ip[i] = byte_at(scratch, at + i);
	}
	__builtin_memcpy(half, ip, sizeof(half));
	if (ttl < STK_ANSWER_LEAST_S)
		ttl = STK_ANSWER_LEAST_S;
	if (ttl > STK_ANSWER_MOST_S)
		ttl = STK_ANSWER_MOST_S;
	return learn(half[0], half[1], host, now_s() + ttl + STK_ANSWER_GRACE_S);
}

/* Reads one record; where the next one begins, or 0. */
__attribute__((noinline)) __u32 read_record(__u32 at, __u32 end, __u32 host)
{
	struct host_scratch *scratch = scratch_now();
	__u32 type, class, ttl, size;

	at = behind_name(at, end);
	if (!scratch || !at || at + 10 > end)
		return 0;
	type = two_at(scratch, at);
	class = two_at(scratch, at + 2);
	ttl = two_at(scratch, at + 4) << 16 | two_at(scratch, at + 6);
	size = two_at(scratch, at + 8);
	at += 10;
	if (at + size > end)
		return 0;
	/* RFC 2181 section 8: what looks negative is 0. */
	if (ttl >> 31)
		ttl = 0;
	if (class == DNS_IN && ((type == DNS_A && size == 4) || (type == DNS_AAAA && size == 16)))
		learn_from(at, size, host, ttl);
	return at + size;
}

/*
 * Reads a message of so many bytes. All addresses in the answer are those of who was asked for, whatever its other names
 * are.
 */
__attribute__((noinline)) int read_message(__u32 end)
{
	struct host_scratch *scratch = scratch_now();
	__u32 flags, answers, at, host, i;

	if (!scratch || end <= DNS_HEADER || end > MESSAGE_MAX)
		return 0;
	flags = two_at(scratch, 2);
	answers = two_at(scratch, 6);
	if (!(flags & DNS_RESPONSE) || (flags & (DNS_OPCODE | DNS_RCODE)) ||
	    two_at(scratch, 4) != 1)
		return 0;
	at = behind_name(DNS_HEADER, end);
	if (!at || at + 4 > end || two_at(scratch, at + 2) != DNS_IN)
		return 0;
	host = asked_for(at);
	if (!host)
		return 0;
	at += 4;
	for (i = 0; i < RECORDS_MAX; i++) {
		if (i >= answers)
			break;
		at = read_record(at, end, host - 1);
		if (!at)
			break;
	}
	return 0;
}

/* Whether it is a nameserver of ours that this comes from. */
__attribute__((noinline)) int is_nameserver(__u64 high, __u64 low)
{
	struct stk_host_about *about = about_hosts();
	__u64 known[2];
	__u32 i;

	if (!about)
		return 0;
	for (i = 0; i < STK_NAMESERVERS_MAX; i++) {
		if (i >= about->nameservers)
			break;
		__builtin_memcpy(known, about->nameserver[i], sizeof(known));
		if (known[0] == high && known[1] == low)
			return 1;
	}
	return 0;
}

/* Where the message begins in a packet from a nameserver; 0: it is none. */
static __always_inline __u32 message_in(struct __sk_buff *skb)
{
	__u8 from[16] = {}, head[IPV6_HEADER] = {};
	__u32 at;
	__u16 port;
	__u64 half[2];

	if (skb->protocol == bpf_htons(STK_ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, head, IPV4_HEADER) || head[9] != IPPROTO_UDP)
			return 0;
		/* The kernel has put fragments together before. */
		at = (head[0] & 0xf) * 4;
		if (at < IPV4_HEADER)
			return 0;
		from[10] = from[11] = 0xff;
		__builtin_memcpy(from + 12, head + 12, 4);
	} else if (skb->protocol == bpf_htons(STK_ETH_P_IPV6)) {
		/* A nameserver sends no other header between the two. */
		if (bpf_skb_load_bytes(skb, 0, head, IPV6_HEADER) || head[6] != IPPROTO_UDP)
			return 0;
		at = IPV6_HEADER;
		__builtin_memcpy(from, head + 8, 16);
	} else {
		return 0;
	}
	if (bpf_skb_load_bytes(skb, at, &port, sizeof(port)) || port != bpf_htons(DNS_PORT))
		return 0;
	__builtin_memcpy(half, from, sizeof(half));
	return is_nameserver(half[0], half[1]) ? at + UDP_HEADER : 0;
}

SEC("?cgroup_skb/ingress")
int fence_host__cgroup(struct __sk_buff *skb)
{
	struct stk_host_about *about;
	struct host_scratch *scratch;
	__u32 at, len;
	__u64 sk;

	at = message_in(skb);
	if (!at || skb->len <= at)
		return 1;
	scratch = scratch_now();
	about = about_hosts();
	if (!scratch || !about)
		return 1;
	/* A pointer that is read back from memory is a number, which may be followed anywhere. */
	*(volatile __u64 *)&scratch->sk = (__u64)skb->sk;
	sk = *(volatile __u64 *)&scratch->sk;
	if (!sk ||
	    BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net, ns.inum) != about->netns)
		return 1;
	/* One less than there is: the mask makes it a size that is not 0. */
	len = skb->len - at - 1;
	if (len > MESSAGE_MAX - 1)
		len = MESSAGE_MAX - 1;
	asm volatile("" : "+r"(len));
	len = (len & (MESSAGE_MAX - 1)) + 1;
	if (bpf_skb_load_bytes(skb, at, scratch->message, len))
		return 1;
	read_message(len);
	return 1;
}

/* Whether it is the monitor that calls. What stk_is_self() asks the kernel for, programs of this type do not get. */
static __always_inline bool is_monitor(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, tgid) == stk_config.self_tgid &&
	       BPF_CORE_READ(task, group_leader, start_boottime) == stk_config.self_start_ns;
}

/*
 * Is attached nowhere: the monitor calls it, with what it has found out in place of a packet. Others who may call programs,
 * and are held all the same, find out nothing.
 */
SEC("?cgroup_skb/ingress")
int fence_host__told(struct __sk_buff *skb)
{
	struct stk_host_told told;
	__u64 half[2];

	if (!is_monitor() || bpf_skb_load_bytes(skb, 0, &told, sizeof(told)))
		return 0;
	__builtin_memcpy(half, told.ip, sizeof(half));
	return learn(half[0], half[1], told.host, told.until) ? 1 : 0;
}
