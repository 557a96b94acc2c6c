/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Requests to block devices, from the bio that asked for one to their completion.
 *
 * Three moments. queue: a request is made for a bio, and whoever runs is the one that submitted it. issue: the request
 * goes to the driver, often from a worker. complete: whatever was interrupted. So the process is remembered by the bio,
 * found again at issue through the bios of the request, and from there on remembered by the request: never by sector.
 *
 * What is merged into a request counts for the process of the request. What asks for a flush only never gets to the
 * driver: the command is the kernel's own, has no bio, and serves several processes at once. Devices without requests
 * (dm, md, brd) make none, and commands that bypass the block layer (SG_IO) have no bio that was queued.
 */
#include "summary.bpf.h"

STK_EXPORT(stk_disk);
STK_EXPORT(stk_disk_key);
STK_EXPORT(stk_disk_sum);

enum {
	STK_BIOS_WALKED =
		8, /* front merges put bios before the one that the request was made for */
};

struct stk_begun {
	struct stk_hdr hdr;
	__u64 queued_ns;
};

struct stk_request {
	struct stk_begun begun;
	__u64 issued_ns; /* 0: never */
	__u64 sector;
	__u64 bytes;
	struct stk_disk_device device;
	__u32 op;
	__u32 flags;
	__s32 error;
	__u32 pad;
};

/*
 * By bio, until its request is issued. LRU, because a bio can end without a sign; by the time it would push out one that
 * still waits, more of them would have to wait than queues have room for.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct stk_begun);
} stk_disk_bios SEC(".maps");

/* By request, while it is with the driver. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct stk_request);
} stk_disk_requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct stk_disk_key);
	__type(value, struct stk_disk_sum);
} stk_disk_sums SEC(".maps");

/* Counters at 0, for which the stack is too small. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_disk_sum);
} stk_disk_zero SEC(".maps");

/* Before 5.17 */
struct request___old {
	struct gendisk *rq_disk;
} __attribute__((preserve_access_index));

/* Before 5.11, where the queue was the first argument of block_getrq. */
struct trace_event_raw_block_get_rq {
	int rw;
} __attribute__((preserve_access_index));

static __always_inline void device_of(struct stk_disk_device *device, struct request *rq)
{
	struct request___old *old = (void *)rq;
	struct gendisk *disk;

	if (bpf_core_field_exists(old->rq_disk))
		disk = BPF_CORE_READ(old, rq_disk);
	else
		disk = BPF_CORE_READ(rq, q, disk);
	BPF_CORE_READ_INTO(&device->name, disk, disk_name);
	device->major = BPF_CORE_READ(disk, major);
	device->minor = BPF_CORE_READ(disk, first_minor);
}

#define STK_REQ(flag) (1U << bpf_core_enum_value(enum req_flag_bits, __REQ_##flag))

static __always_inline __u32 flags_of(__u32 cmd_flags)
{
	__u32 flags = 0;

	if (cmd_flags & STK_REQ(SYNC))
		flags |= STK_DISK_FLAG_SYNC;
	if (cmd_flags & STK_REQ(META))
		flags |= STK_DISK_FLAG_META;
	if (cmd_flags & STK_REQ(FUA))
		flags |= STK_DISK_FLAG_FUA;
	if (cmd_flags & STK_REQ(PREFLUSH))
		flags |= STK_DISK_FLAG_PREFLUSH;
	if (cmd_flags & STK_REQ(RAHEAD))
		flags |= STK_DISK_FLAG_READAHEAD;
	return flags;
}

static __always_inline __u32 op_of(__u32 cmd_flags, __u64 bytes)
{
	/* REQ_OP_MASK; the numbers are the same from 5.10 to 7.2. */
	switch (cmd_flags & 0xff) {
	case REQ_OP_READ:
		return STK_DISK_READ;
	case REQ_OP_WRITE:
		/* fsync(2) asks for a flush by a write of nothing. */
		return bytes ? STK_DISK_WRITE : STK_DISK_FLUSH;
	case REQ_OP_FLUSH:
		return STK_DISK_FLUSH;
	case REQ_OP_DISCARD:
		return STK_DISK_DISCARD;
	case REQ_OP_SECURE_ERASE:
		return STK_DISK_SECURE_ERASE;
	case REQ_OP_WRITE_ZEROES:
		return STK_DISK_WRITE_ZEROES;
	default:
		return STK_DISK_OTHER;
	}
}

static __always_inline int on_queue(struct bio *bio)
{
	struct stk_begun begun;
	__u64 key = (__u64)bio;

	if (!stk_wanted()) {
		/* The bio may have been somebody else's before. */
		bpf_map_delete_elem(&stk_disk_bios, &key);
		return 0;
	}
	stk_header(&begun.hdr, STK_KIND_DISK, sizeof(struct stk_disk));
	begun.queued_ns = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&stk_disk_bios, &key, &begun, BPF_ANY))
		stk_lost(STK_KIND_DISK, STK_LOSS_MAP);
	return 0;
}

/* Takes out what is remembered of a bio. */
static __always_inline bool take(struct stk_begun *begun, struct bio *bio)
{
	__u64 key = (__u64)bio;
	struct stk_begun *found = bpf_map_lookup_elem(&stk_disk_bios, &key);

	if (!found)
		return false;
	*begun = *found;
	bpf_map_delete_elem(&stk_disk_bios, &key);
	return true;
}

/* The part of a bio that was too large for one request, which keeps its own entry until its last part has gone. */
static __always_inline bool borrow(struct stk_begun *begun, struct bio *bio)
{
	__u64 key = (__u64)BPF_CORE_READ(bio, bi_private);
	struct stk_begun *found = bpf_map_lookup_elem(&stk_disk_bios, &key);

	if (!found)
		return false;
	*begun = *found;
	return true;
}

/* Whose request this is. */
static __always_inline bool find(struct stk_begun *begun, struct request *rq, bool split_later)
{
	struct bio *bio = BPF_CORE_READ(rq, bio);
	int i;

	for (i = 0; i < STK_BIOS_WALKED; i++) {
		if (!bio)
			return false;
		if (take(begun, bio))
			return true;
		if (split_later && borrow(begun, bio))
			return true;
		bio = BPF_CORE_READ(bio, bi_next);
	}
	return take(begun, BPF_CORE_READ(rq, biotail));
}

static __always_inline void describe(struct stk_request *request, struct request *rq)
{
	__u32 cmd_flags = BPF_CORE_READ(rq, cmd_flags);
	struct bio *bio = BPF_CORE_READ(rq, bio);

	request->bytes = BPF_CORE_READ(rq, __data_len);
	request->sector = BPF_CORE_READ(rq, __sector);
	/* The request's own lack what the flush machinery does for it. */
	request->flags = flags_of(cmd_flags | BPF_CORE_READ(bio, bi_opf));
	request->op = op_of(cmd_flags, request->bytes);
	request->error = 0;
	request->pad = 0;
	device_of(&request->device, rq);
}

static __always_inline int on_issue(struct request *rq, bool split_later)
{
	__u64 key = (__u64)rq, now = bpf_ktime_get_ns();
	struct stk_request *known = bpf_map_lookup_elem(&stk_disk_requests, &key);
	struct stk_request request;

	/* Issued again: the device had no room for it. Otherwise it never completed and the memory has a new use. */
	if (known && known->issued_ns >= BPF_CORE_READ(rq, start_time_ns)) {
		known->issued_ns = now;
		return 0;
	}
	if (known)
		bpf_map_delete_elem(&stk_disk_requests, &key);
	if (!find(&request.begun, rq, split_later))
		return 0;
	request.issued_ns = now;
	describe(&request, rq);
	if (bpf_map_update_elem(&stk_disk_requests, &key, &request, BPF_ANY))
		stk_lost(STK_KIND_DISK, STK_LOSS_MAP);
	return 0;
}

static __always_inline void count(struct stk_request *request, __u64 queue_ns, __u64 device_ns)
{
	struct stk_disk_key key = {};
	struct stk_disk_sum *sum, *zero;
	__u32 first = 0;

	key.task.start_ns = request->begun.hdr.start_ns;
	key.task.tgid = request->begun.hdr.tgid;
	key.device = request->device;
	key.op = request->op;
	sum = bpf_map_lookup_elem(&stk_disk_sums, &key);
	if (!sum) {
		zero = bpf_map_lookup_elem(&stk_disk_zero, &first);
		if (!zero)
			return;
		sum = stk_counters_new(&stk_disk_sums, &key, zero, STK_KIND_DISK,
				       &request->begun.hdr);
	}
	if (!sum)
		return;
	__sync_fetch_and_add(&sum->ios, 1);
	__sync_fetch_and_add(&sum->bytes, request->bytes);
	if (request->error)
		__sync_fetch_and_add(&sum->errors, 1);
	__sync_fetch_and_add(&sum->queue_ns, queue_ns);
	stk_slots_add(sum->queue, queue_ns);
	if (!request->issued_ns)
		return;
	__sync_fetch_and_add(&sum->device_ns, device_ns);
	stk_slots_add(sum->device, device_ns);
}

static __always_inline void send(struct stk_request *request, __u64 queue_ns, __u64 device_ns)
{
	struct stk_disk *rec;
	__u64 wake;

	if (stk_config.filter & STK_FILTER_ERRORS && !request->error)
		return;
	if (queue_ns + device_ns < stk_config.min_latency_ns)
		return;
	if (request->bytes < stk_config.min_bytes)
		return;
	rec = stk_reserve(STK_KIND_DISK, &request->begun.hdr, sizeof(*rec), &wake);
	if (!rec)
		return;
	rec->hdr = request->begun.hdr;
	rec->hdr.time_ns = bpf_ktime_get_boot_ns();
	rec->device = request->device;
	rec->sector = request->sector;
	rec->bytes = request->bytes;
	rec->queue_ns = queue_ns;
	rec->device_ns = device_ns;
	rec->op = request->op;
	rec->flags = request->flags;
	rec->error = request->error;
	rec->issued = request->issued_ns != 0;
	bpf_ringbuf_submit(rec, wake);
}

/* The request that completes, as it is remembered; made now when it never was issued. */
static __always_inline struct stk_request *completing(struct request *rq, __u64 *key)
{
	struct stk_request *known = bpf_map_lookup_elem(&stk_disk_requests, key);
	struct stk_request request;
	struct bio *bio;

	if (known)
		return known;
	bio = BPF_CORE_READ(rq, bio);
	if (!bio || !take(&request.begun, bio))
		return NULL;
	request.issued_ns = 0;
	describe(&request, rq);
	if (bpf_map_update_elem(&stk_disk_requests, key, &request, BPF_ANY))
		stk_lost(STK_KIND_DISK, STK_LOSS_MAP);
	return bpf_map_lookup_elem(&stk_disk_requests, key);
}

static __always_inline int on_complete(struct request *rq, int error, __u32 bytes, bool counts)
{
	__u64 key = (__u64)rq, now = bpf_ktime_get_ns(), queue_ns, device_ns = 0;
	struct stk_request *request = completing(rq, &key);

	if (!request)
		return 0;
	/* What the tracepoint passes: up to 5.15 a negative errno, later a blk_status_t. */
	if (error)
		request->error = error;
	/* A part of it: the rest follows. */
	if (bytes < BPF_CORE_READ(rq, __data_len))
		return 0;
	if (request->issued_ns) {
		queue_ns = request->issued_ns - request->begun.queued_ns;
		device_ns = now - request->issued_ns;
	} else {
		queue_ns = now - request->begun.queued_ns;
	}
	if (counts)
		count(request, queue_ns, device_ns);
	else
		send(request, queue_ns, device_ns);
	bpf_map_delete_elem(&stk_disk_requests, &key);
	return 0;
}

SEC("?raw_tp/block_getrq")
int disk_queue__raw_tp(struct bpf_raw_tracepoint_args *ctx)
{
	if (bpf_core_type_exists(struct trace_event_raw_block_get_rq))
		return on_queue((struct bio *)ctx->args[1]);
	return on_queue((struct bio *)ctx->args[0]);
}

SEC("?raw_tp/block_rq_issue")
int BPF_PROG(disk_issue__raw_tp, struct request *rq)
{
	return on_issue(rq, false);
}

/* This request goes into another one, and counts for the process of that one. */
SEC("?raw_tp/block_rq_merge")
int BPF_PROG(disk_merge__raw_tp, struct request *rq)
{
	struct stk_begun begun;

	find(&begun, rq, false);
	return 0;
}

SEC("?raw_tp/block_rq_complete")
int BPF_PROG(disk_complete__raw_tp, struct request *rq, int error, unsigned int bytes)
{
	return on_complete(rq, error, bytes, false);
}

SEC("?raw_tp/block_rq_complete")
int BPF_PROG(disk_count_complete__raw_tp, struct request *rq, int error, unsigned int bytes)
{
	return on_complete(rq, error, bytes, true);
}

/*
 * Where programs on raw tracepoints can be preempted: the two moments in the context of processes are taken from
 * kprobes. The third one stays: in an interrupt a kprobe is skipped when it comes upon any other one, a raw tracepoint
 * only when it comes upon itself. A bio that is merged is seen here before anybody knows that it gets no request.
 */

SEC("?kprobe/blk_mq_submit_bio")
int BPF_KPROBE(disk_queue__kprobe, struct bio *bio)
{
	return on_queue(bio);
}

SEC("?kprobe/blk_mq_start_request")
int BPF_KPROBE(disk_issue__kprobe, struct request *rq)
{
	return on_issue(rq, true);
}

static __always_inline int on_merge(struct bio *bio)
{
	__u64 key = (__u64)bio;

	bpf_map_delete_elem(&stk_disk_bios, &key);
	return 0;
}

SEC("?raw_tp/block_bio_backmerge")
int BPF_PROG(disk_backmerge__raw_tp, struct bio *bio)
{
	return on_merge(bio);
}

SEC("?raw_tp/block_bio_frontmerge")
int BPF_PROG(disk_frontmerge__raw_tp, struct bio *bio)
{
	return on_merge(bio);
}
