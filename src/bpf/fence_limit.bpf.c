/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Limits: how much of something who is fenced may do in a time.
 *
 * Each is a bucket. It is full at first; what is done is taken out of it, and it fills at an even rate. What is not in it
 * is refused, and takes nothing. Buckets are for all together or for each process; those of one owner lie in a purse under
 * one lock, so that of several who do the same at once each takes its own share.
 *
 * A limit of system calls cannot refuse them: a tracepoint tells, and ends who is to be killed. Programs there may not look
 * at what has a spin lock in it, and have purses of their own.
 */
#include "contact.bpf.h"
#include "slot.bpf.h"

STK_EXPORT(stk_limit);
STK_EXPORT(stk_limit_denial);

/* include/linux/sched.h, include/uapi/linux/sched.h, include/net/tcp_states.h */
#define STK_PF_IO_WORKER 0x10
#define STK_CLONE_THREAD 0x10000
#define STK_TCP_CLOSE    7

/* CLONE_SYSVSEM | CLONE_UNTRACED | CLONE_IO: a new process as nobody makes one. */
#define STK_CLONE_CANARY 0x80840000ULL

/* More than anything that can be counted. */
#define ENDLESS (~0ULL)

enum {
	AT_EACH = STK_LIMITS_EACH, /* in the number of a limit: of each process */
	AT_SECOND = STK_LIMITS, /* of the second half */
	PROCESSES_MAX = 65536, /* that have done something of which each has its own limit */
	TOLD_MAX =
		16, /* refusals of one bucket that are told in a second (2^30 ns); the others are counted */
	LOCK_TRIES = 2048, /* some tenths of a millisecond */
	OWED_MAX = 1 << 20, /* periods: so that they can be told in nanoseconds */

	/* What is asked: one bit for each limit, what is counted, and STK_SECOND or not. */
	ASKED_COUNTED = 16,
	ASKED_COMPAT = 1U << 31, /* of a number of a system call */
};

struct limit_bucket {
	__u64 parts; /* that are left */
	__u64 since_ns; /* from when on it fills; ahead of now where more was taken than there is room for */
	__u32 epoch; /* of the policy that it is for */
	__u32 told; /* refusals, in this second */
	__u64 second;
};

struct limit_purse {
	struct bpf_spin_lock lock;
	__u32 pad;
	struct limit_bucket bucket[2 * STK_LIMITS_EACH];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * STK_LIMITS);
	__type(key, __u32);
	__type(value, struct stk_limit);
} stk_limit_table SEC(".maps");

/* Of all together. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limit_purse);
} stk_purse SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PROCESSES_MAX);
	__type(key, struct stk_task_key);
	__type(value, struct limit_purse);
} stk_purses SEC(".maps");

struct call_purse {
	struct limit_bucket bucket[2 * STK_LIMITS_EACH];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call_purse);
} stk_call_purse SEC(".maps");

/* Sized by the loader. Tracepoints are no place to allocate. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct stk_task_key);
	__type(value, struct call_purse);
} stk_call_purses SEC(".maps");

/* A purse that nobody has used: too large for the stack, and with its lock it could not be copied from. */
struct empty_purse {
	__u64 words[sizeof(struct limit_purse) / 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct empty_purse);
} stk_empty_purse SEC(".maps");

/* Which limits count a system call, by slot; the second half comes behind the first. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * 2 * STK_CALL_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} stk_limited_calls SEC(".maps");

/* NULL where there is no room for one more process. */
static __always_inline void *own_purse(void *purses)
{
	struct stk_task_key key;
	__u32 zero = 0;
	void *purse, *empty;

	stk_current_key(&key);
	purse = bpf_map_lookup_elem(purses, &key);
	if (purse)
		return purse;
	empty = bpf_map_lookup_elem(&stk_empty_purse, &zero);
	if (!empty)
		return NULL;
	stk_insert(purses, &key, empty);
	return bpf_map_lookup_elem(purses, &key);
}

/*
 * Whether hooks may take a spin lock: not on 5.10. From 5.15 on they are given all that is not kept from them,
 * bpf_timer_init() among it.
 */
#define SPIN_LOCKS bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_timer_init)

/*
 * Elsewhere, and in tracepoints, who has entered his owner here has the lock. Nobody is preempted there, so that who has it
 * gives it back soon.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} stk_limit_locks SEC(".maps");

__attribute__((noinline)) int locked(__u32 owner)
{
	__u8 one = 1;
	__u32 i;

	for (i = 0; i < LOCK_TRIES; i++) {
		if (!stk_insert(&stk_limit_locks, &owner, &one))
			return 1;
	}
	return 0;
}

static __always_inline void unlock(__u32 owner)
{
	bpf_map_delete_elem(&stk_limit_locks, &owner);
}

/* Something that is done, of which there may not be so much left. */
struct spending {
	struct stk_limit *limit;
	__u64 now;
	__u64 amount;
	__u64 cost;
	__u64 owed_ns;
	__u32 bucket; /* in a purse */
	__u32 owner; /* 0: all together */
};

enum spent {
	SPENT,
	REFUSED,
	REFUSED_UNTOLD,
};

/* False where there is no such limit. */
static __always_inline bool spends(struct spending *spending, __u32 at, __u64 amount)
{
	struct stk_limit *limit = bpf_map_lookup_elem(&stk_limit_table, &at);
	__u64 over;

	if (!limit || !limit->rate)
		return false;
	spending->limit = limit;
	spending->now = bpf_ktime_get_boot_ns();
	spending->amount = amount;
	if (amount > limit->burst) {
		over = amount - limit->burst;
		spending->owed_ns = over / limit->rate;
		if (spending->owed_ns > OWED_MAX)
			spending->owed_ns = OWED_MAX;
		spending->owed_ns = spending->owed_ns * limit->part +
				    over % limit->rate * limit->part / limit->rate;
	} else {
		spending->cost = amount * limit->part;
	}
	spending->bucket = (at & (STK_LIMITS_EACH - 1)) | (at & AT_SECOND ? STK_LIMITS_EACH : 0);
	spending->owner = at & AT_EACH ? bpf_get_current_pid_tgid() >> 32 : 0;
	return true;
}

/* Under the lock. */
static __always_inline enum spent spend(struct limit_bucket *bucket,
					const struct spending *spending)
{
	const struct stk_limit *limit = spending->limit;
	__u64 parts = bucket->parts, passed, second = spending->now >> 30;
	bool enough = false;

	if (bucket->epoch != limit->epoch) {
		bucket->epoch = limit->epoch;
		bucket->since_ns = spending->now;
		parts = limit->full;
	} else if (spending->now > bucket->since_ns) {
		passed = spending->now - bucket->since_ns;
		bucket->since_ns = spending->now;
		if (passed < limit->filled_ns)
			parts += passed * limit->rate;
		if (passed >= limit->filled_ns || parts > limit->full)
			parts = limit->full;
	}
	if (spending->amount <= limit->burst) {
		enough = parts >= spending->cost;
		if (enough)
			parts -= spending->cost;
	} else if (spending->amount != ENDLESS && parts == limit->full) {
		enough = true;
		parts = 0;
		bucket->since_ns = spending->now + spending->owed_ns;
	}
	/* Told once, and not for all that comes after it. */
	if (!enough && !limit->enforced)
		parts = limit->full;
	bucket->parts = parts;
	if (enough)
		return SPENT;
	if (bucket->second != second) {
		bucket->second = second;
		bucket->told = 0;
	}
	if (bucket->told >= TOLD_MAX)
		return REFUSED_UNTOLD;
	bucket->told++;
	return REFUSED;
}

/* In a verdict: that it is not to be told. */
#define TOLD_NOT (1ULL << 41)

/* What is refused, with the rule below it as told_of() makes it; 0: nothing. */
static __always_inline __u64 ruled(enum spent spent, const struct stk_limit *limit)
{
	__u32 code = limit->rule;

	if (spent == SPENT)
		return 0;
	return told_of(said(limit->enforced ? code : STK_RULE_NONE, code)) | code >> 1 |
	       (spent == REFUSED_UNTOLD ? TOLD_NOT : 0);
}

/* Or clang leaves out what it knows, and the verifier does not. */
#define BUCKET_IN(purse, spending)                                  \
	({                                                          \
		__u32 __at = (spending)->bucket;                    \
		asm volatile("" : "+r"(__at));                      \
		&(purse)->bucket[__at & (2 * STK_LIMITS_EACH - 1)]; \
	})

/*
 * Takes out of the bucket of a limit: 0, or the verdict where it is not there. What is more than a bucket ever holds is let
 * through where that is full, and is owed.
 */
__attribute__((noinline)) __u64 taken(__u32 at, __u64 amount)
{
	struct spending spending = {};
	struct limit_purse *purse;
	enum spent spent = REFUSED;
	__u32 zero = 0;

	if (!spends(&spending, at, amount))
		return 0;
	purse = spending.owner ? own_purse(&stk_purses) : bpf_map_lookup_elem(&stk_purse, &zero);
	if (purse) {
		struct limit_bucket *bucket = BUCKET_IN(purse, &spending);

		if (SPIN_LOCKS) {
			bpf_spin_lock(&purse->lock);
			spent = spend(bucket, &spending);
			bpf_spin_unlock(&purse->lock);
		} else if (locked(spending.owner)) {
			spent = spend(bucket, &spending);
			unlock(spending.owner);
		}
	}
	return ruled(spent, spending.limit);
}

/* The same of a system call. */
__attribute__((noinline)) __u64 taken_by_call(__u32 at)
{
	struct spending spending = {};
	enum spent spent = REFUSED;
	struct call_purse *purse;
	__u32 zero = 0;

	if (!spends(&spending, at, 1))
		return 0;
	purse = spending.owner ? own_purse(&stk_call_purses)
			       : bpf_map_lookup_elem(&stk_call_purse, &zero);
	if (purse && locked(spending.owner)) {
		spent = spend(BUCKET_IN(purse, &spending), &spending);
		unlock(spending.owner);
	}
	return ruled(spent, spending.limit);
}

/* Reports a verdict: the rule, below it as told_of() makes it. */
__attribute__((noinline)) int tell(__u64 ruling, __u32 counted, __u64 amount, __u32 call)
{
	struct stk_limit_denial *rec;

	if (ruling & TOLD_NOT) {
		stk_lost(STK_KIND_DENIAL, STK_LOSS_LIMITED);
		return 0;
	}
	rec = bpf_ringbuf_reserve(&stk_denials, sizeof(*rec), 0);
	if (!rec) {
		stk_lost(STK_KIND_DENIAL, STK_LOSS_RING);
		return 0;
	}
	stk_header(&rec->hdr, STK_KIND_LIMIT_DENIAL, sizeof(*rec));
	rec->amount = amount;
	rec->rule = ruling;
	rec->nr = call & ~ASKED_COMPAT;
	rec->verdict = verdict_in(ruling);
	rec->error = ruling >> TOLD_ERROR;
	rec->counted = counted;
	rec->abi = call & ASKED_COMPAT ? STK_ABI_COMPAT : STK_ABI_NATIVE;
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	return 0;
}

/*
 * A limit counts what those before it let through. Those of each process come first: who has used up his own takes nothing
 * from the others.
 */
#define NTH_LIMIT(n) (((n) + STK_LIMITS_EACH) & (STK_LIMITS - 1))

/* The answer, 0 or -errno. A system call goes on in any case. */
static __always_inline int through_limits(__u32 asked, __u64 amount, __u32 call, bool is_call)
{
	__u32 half = asked & STK_SECOND ? AT_SECOND : 0, i, n;
	__u64 told;

	for (n = 0; n < STK_LIMITS; n++) {
		i = NTH_LIMIT(n);
		if (!(asked >> i & 1))
			continue;
		told = is_call ? taken_by_call(i | half) : taken(i | half, amount);
		if (!told)
			continue;
		tell(told, (__u8)(asked >> ASKED_COUNTED), amount, call);
		count_hit(told);
		if (verdict_in(told) != STK_VERDICT_AUDIT)
			return answer(told);
	}
	return 0;
}

__attribute__((noinline)) int limited(__u32 asked, __u64 amount)
{
	return through_limits(asked, amount, 0, false);
}

__attribute__((noinline)) int limited_call(__u32 asked, __u32 call)
{
	return through_limits(asked, 1, call, true);
}

/* Of somebody who is held: stk_wanted(), which is asked before all that costs more. */
static __always_inline int limit(const struct stk_armed *armed, __u32 counted, __u64 amount)
{
	__u32 mask = armed->limits[counted];

	if (!mask)
		return 0;
	return bounded(limited(mask | counted << ASKED_COUNTED | armed->half, amount));
}

static __always_inline void tell_canary(__u32 counted)
{
	tell(STK_RULE_CANARY | (__u64)STK_VERDICT_DENY << TOLD_VERDICT, counted, 1, 0);
}

static __always_inline int on_fork(struct task_struct *child, __u64 flags)
{
	__u32 counted = flags & STK_CLONE_THREAD ? STK_COUNTED_THREADS : STK_COUNTED_FORKS;
	struct stk_armed *armed = armed_now();

	if (is_self()) {
		if ((flags & STK_CLONE_CANARY) != STK_CLONE_CANARY || !armed)
			return 0;
		tell_canary(STK_COUNTED_FORKS);
		return -EPERM;
	}
	if (!armed || !armed->limits[counted] || !stk_wanted())
		return 0;
	/* Made by the kernel for work that it was given. */
	if (STK_GET(task_struct, child, flags) & (STK_PF_IO_WORKER | STK_PF_KTHREAD))
		return 0;
	return limit(armed, counted, 1);
}

/* Whether a stream that this socket is to carry is yet to begin. */
static __always_inline bool begins(__u64 sk, __u32 family)
{
	__u32 type = STK_GET(sock, sk, sk_type);

	if (stays_here(family) || (type != SOCK_STREAM && type != SOCK_SEQPACKET) || is_kernels(sk))
		return false;
	return !is_ip(family) || STK_GET(sock, sk, __sk_common.skc_state) == STK_TCP_CLOSE;
}

static __always_inline int on_connect(struct socket *sock, struct sockaddr *to)
{
	struct stk_armed *armed = armed_now();
	__u8 address[16] = {};
	__u16 port = 0;
	__u64 sk;

	if (is_self()) {
		if (given(address, &port, to, false) != GIVEN_ADDRESS ||
		    !is_canary(address, port, armed, true))
			return 0;
		tell_canary(STK_COUNTED_CONNECTIONS);
		return -EPERM;
	}
	if (!armed || !armed->limits[STK_COUNTED_CONNECTIONS] || !stk_wanted())
		return 0;
	sk = STK_NUMBER_AT(&sock->sk);
	if (!begins(sk, STK_GET(sock, sk, __sk_common.skc_family)))
		return 0;
	/* Ends what was begun. */
	if (BPF_CORE_READ(to, sa_family) == STK_AF_UNSPEC)
		return 0;
	return limit(armed, STK_COUNTED_CONNECTIONS, 1);
}

static __always_inline int on_send(struct socket *sock, struct msghdr *msg, int size)
{
	struct stk_armed *armed = armed_now();
	__u64 sk, name = 0, amount = size < 0 ? 0 : size;
	__u32 family, flags;
	int answered;

	if (!armed ||
	    !(armed->limits[STK_COUNTED_CONNECTIONS] | armed->limits[STK_COUNTED_BYTES]) ||
	    !stk_wanted())
		return 0;
	sk = STK_NUMBER_AT(&sock->sk);
	family = STK_GET(sock, sk, __sk_common.skc_family);
	if (stays_here(family) || is_kernels(sk))
		return 0;
	flags = STK_GET(msghdr, msg, msg_flags);
	if (flags & (STK_MSG_FASTOPEN | STK_MSG_BATCH))
		name = STK_NUMBER_AT(&msg->msg_name);
	if (name && (flags & STK_MSG_FASTOPEN) && begins(sk, family)) {
		answered = limit(armed, STK_COUNTED_CONNECTIONS, 1);
		if (answered)
			return answered;
	}
	/* Of what sendmmsg(2) sends to the same name no hook hears but for the first one. */
	if (name && (flags & STK_MSG_BATCH))
		amount = ENDLESS;
	return amount ? limit(armed, STK_COUNTED_BYTES, amount) : 0;
}

static __always_inline int on_call(struct pt_regs *regs, long nr)
{
	struct stk_armed *armed = armed_now();
	__u32 slot, *mask;
	bool compat;

	if (!armed || nr < 0)
		return 0;
	if (is_self()) {
		/* With an argument it is seccomp's. */
		if (nr == STK_CALL_CANARY && !PT_REGS_PARM1_CORE_SYSCALL(regs))
			tell_canary(STK_COUNTED_CALLS);
		return 0;
	}
	if (!stk_wanted())
		return 0;
	compat = stk_compat(regs);
	slot = slot_of(regs, nr, compat) + (armed->half ? 2 * STK_CALL_SLOTS : 0);
	mask = bpf_map_lookup_elem(&stk_limited_calls, &slot);
	if (!mask || !*mask)
		return 0;
	limited_call(*mask | STK_COUNTED_CALLS << ASKED_COUNTED | armed->half,
		     (__u32)nr | (compat ? ASKED_COMPAT : 0));
	return 0;
}

static __always_inline int on_free(struct task_struct *task)
{
	struct stk_task_key key;

	if (!stk_freed(task, &key))
		return 0;
	bpf_map_delete_elem(&stk_purses, &key);
	bpf_map_delete_elem(&stk_call_purses, &key);
	return 0;
}

SEC("?lsm/task_alloc")
int BPF_PROG(fence_fork__lsm, struct task_struct *child, unsigned long flags, int ret)
{
	return VERDICT(on_fork(child, flags));
}

SEC("?fmod_ret/security_task_alloc")
int BPF_PROG(fence_fork__fmod_ret, struct task_struct *child, unsigned long flags, int ret)
{
	return VERDICT(on_fork(child, flags));
}

SEC("?lsm/socket_connect")
int BPF_PROG(fence_connections__lsm, struct socket *sock, struct sockaddr *address, int len,
	     int ret)
{
	return VERDICT(on_connect(sock, address));
}

SEC("?fmod_ret/security_socket_connect")
int BPF_PROG(fence_connections__fmod_ret, struct socket *sock, struct sockaddr *address, int len,
	     int ret)
{
	return VERDICT(on_connect(sock, address));
}

SEC("?lsm/socket_sendmsg")
int BPF_PROG(fence_bytes__lsm, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	return VERDICT(on_send(sock, msg, size));
}

SEC("?fmod_ret/security_socket_sendmsg")
int BPF_PROG(fence_bytes__fmod_ret, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	return VERDICT(on_send(sock, msg, size));
}

SEC("?raw_tp/sys_enter")
int BPF_PROG(fence_limited_call__raw_tp, struct pt_regs *regs, long nr)
{
	return on_call(regs, nr);
}

/* Where programs on raw tracepoints can be preempted. */
SEC("?tp/raw_syscalls/sys_enter")
int fence_limited_call__tp(struct trace_event_raw_sys_enter *ctx)
{
	return on_call(stk_regs(), ctx->id);
}

SEC("?tp_btf/sched_process_free")
int BPF_PROG(fence_purse_free__tp_btf, struct task_struct *task)
{
	return on_free(task);
}
