/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the kernel allocates for processes, and what of it is not given back.
 *
 * An allocation belongs to the process that was running, unless an interrupt was: that one's memory is nobody's here. A
 * free does not say how much it frees and may come from anybody, in an interrupt too. So what is allocated in scope is
 * kept by its address, with its owner; the map is no LRU, because what falls out of one would pass for not given back.
 *
 * Nothing here allocates: all maps have their elements from the start.
 */
#include "stack.bpf.h"
#include "summary.bpf.h"

STK_EXPORT(stk_allocation);
STK_EXPORT(stk_allocation_form);
STK_EXPORT(stk_allocation_key);
STK_EXPORT(stk_allocation_sum);
STK_EXPORT(stk_site_key);
STK_EXPORT(stk_site_stack);

/* include/linux/gfp_types.h: may wait for memory, which no interrupt may. */
#define STK_GFP_DIRECT_RECLAIM 0x400
/* include/linux/preempt.h: in an NMI, in an interrupt, in what an interrupt has put off. */
#define STK_IN_INTERRUPT 0xff0100
/* THREAD_SIZE of both architectures with pages of 4 KiB */
#define STK_KERNEL_STACK 16384
/* include/linux/slab.h: what an allocation of nothing returns is below. */
#define STK_ZERO_SIZE_PTR 16

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__type(key, __u64);
	__type(value, struct stk_allocation);
} stk_allocated SEC(".maps");

/* By process. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct stk_allocation_key);
	__type(value, struct stk_allocation_sum);
} stk_allocation_sums SEC(".maps");

/* By process and call site. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct stk_site_key);
	__type(value, struct stk_allocation_sum);
} stk_sites SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct stk_site_stack);
} stk_site_stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_allocation_form);
} stk_allocation_form SEC(".maps");

enum {
	PAGE_ALLOC,
	KMALLOC,
	KMALLOC_NODE,
	CACHE_ALLOC,
	CACHE_ALLOC_NODE,
	PROGRAMS,
};

/*
 * A stack is too large for the stack. Each program has a place of its own on each CPU: interrupts do not get that far, a
 * program that is preempted is not run again on that CPU, and another one takes its own place.
 */
struct stacks {
	struct stk_site_stack of[PROGRAMS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stacks);
} stk_site_buf SEC(".maps");

static __always_inline struct stk_allocation_form *form_of(void)
{
	__u32 zero = 0;
	struct stk_allocation_form *form = bpf_map_lookup_elem(&stk_allocation_form, &zero);

	return form && form->page_bytes ? form : NULL;
}

/* ---- Who asks: the process that runs, or an interrupt ---- */

#if defined(__TARGET_ARCH_x86)
/* From 6.2 to 6.14 the count is in there. */
struct pcpu_hot___some {
	int preempt_count;
} __attribute__((preserve_access_index));

/* Interrupts have a stack of their own, except when they come upon a program of user space. */
static __always_inline bool in_interrupt(void *ctx, const struct stk_allocation_form *form)
{
	struct task_struct *task = stk_current();
	struct pcpu_hot___some *hot = NULL;
	__u64 at = form->preempt_count, here = 0;
	__u32 count = 0;

	if (!at || !form->per_cpu_offset)
		return stk_number(ctx) - (__u64)STK_LOAD(task, stack) >= STK_KERNEL_STACK;
	bpf_probe_read_kernel(
		&here, sizeof(here),
		(void *)(form->per_cpu_offset + bpf_get_smp_processor_id() * sizeof(here)));
	if (bpf_core_field_exists(hot->preempt_count))
		at += bpf_core_field_offset(hot->preempt_count);
	bpf_probe_read_kernel(&count, sizeof(count), (void *)(here + at));
	return count & STK_IN_INTERRUPT;
}
#else
static __always_inline bool in_interrupt(void *ctx, const struct stk_allocation_form *form)
{
	struct task_struct *task = stk_current();

	return STK_LOAD(task, thread_info.preempt.count) & STK_IN_INTERRUPT;
}
#endif

/* ---- Counting ---- */

/* Keeps the kernel's stack and returns its key; 0 when it cannot be taken. */
static __always_inline __u64 keep_stack(void *ctx, const __u32 program)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stacks *stacks = bpf_map_lookup_elem(&stk_site_buf, &cpu);
	struct stk_site_stack *stack;
	long bytes;

	if (!stacks) {
		stk_lost(STK_KIND_STACK, STK_LOSS_SCRATCH);
		return 0;
	}
	stack = &stacks->of[program];
	bytes = bpf_get_stack(ctx, stack->frames, sizeof(stack->frames), 0);
	if (bytes <= 0)
		return 0;
	stack->depth = (__u64)bytes / sizeof(stack->frames[0]);
	return stk_stack_keep(&stk_site_stacks, stack, stack->frames, stack->depth, STK_SITE_DEPTH);
}

static __always_inline void add(struct stk_allocation_sum *sum, const struct stk_allocation *what)
{
	__sync_fetch_and_add(&sum->allocations, 1);
	__sync_fetch_and_add(&sum->requested, what->requested);
	__sync_fetch_and_add(&sum->bytes, what->bytes);
}

static __always_inline void take(struct stk_allocation_sum *sum, const struct stk_allocation *what)
{
	__sync_fetch_and_add(&sum->frees, 1);
	__sync_fetch_and_add(&sum->freed_requested, what->requested);
	__sync_fetch_and_add(&sum->freed_bytes, what->bytes);
}

/* Takes what is at an address away from its owner, whoever has freed it. */
static __always_inline int on_free(__u64 address)
{
	struct stk_allocation *found = bpf_map_lookup_elem(&stk_allocated, &address);
	struct stk_allocation what;
	struct stk_allocation_sum *sum;

	if (!found)
		return 0;
	what = *found;
	if (bpf_map_delete_elem(&stk_allocated, &address))
		return 0;
	/* Of a process that has ended there may be no counters any more. */
	sum = bpf_map_lookup_elem(&stk_allocation_sums, &what.site.of);
	if (sum)
		take(sum, &what);
	sum = bpf_map_lookup_elem(&stk_sites, &what.site);
	if (sum)
		take(sum, &what);
	return 0;
}

static __always_inline int keep(void *ctx, __u64 address, struct stk_allocation *what,
				const __u32 program)
{
	struct stk_allocation_sum zero = {}, *sum, *site;
	int error;

	stk_current_key(&what->site.of.task);
	sum = stk_counters(&stk_allocation_sums, &what->site.of, &zero, STK_KIND_ALLOCATION);
	if (!sum)
		return 0;
	what->site.stack = keep_stack(ctx, program);
	site = stk_entry(&stk_sites, &what->site, &zero, STK_KIND_ALLOCATION);
	if (!site)
		return 0;
	error = stk_insert(&stk_allocated, &address, what);
	if (error == -EEXIST) {
		/* Its free was not seen. */
		on_free(address);
		error = bpf_map_update_elem(&stk_allocated, &address, what, BPF_ANY);
	}
	if (error) {
		stk_lost(STK_KIND_ALLOCATION, STK_LOSS_MAP);
		return 0;
	}
	add(sum, what);
	add(site, what);
	return 0;
}

/* How this kernel allocates, if somebody asked for what it allocates here; NULL otherwise. */
static __always_inline struct stk_allocation_form *form_if_asked_for(void *ctx, __u32 gfp)
{
	struct stk_allocation_form *form = stk_wanted() ? form_of() : NULL;

	/* Who may sleep is no interrupt. */
	if (!form || gfp & STK_GFP_DIRECT_RECLAIM)
		return form;
	return in_interrupt(ctx, form) ? NULL : form;
}

static __always_inline int on_slab(void *ctx, const void *at, __u64 requested, __u64 bytes,
				   __u32 gfp, const __u32 program)
{
	struct stk_allocation what = {};

	if ((__u64)at <= STK_ZERO_SIZE_PTR || !form_if_asked_for(ctx, gfp))
		return 0;
	what.site.of.source = STK_ALLOCATION_SLAB;
	what.requested = requested;
	what.bytes = bytes;
	return keep(ctx, (__u64)at, &what, program);
}

static __always_inline int on_pages(void *ctx, const struct page *at, __u32 order, __u32 gfp)
{
	struct stk_allocation what = {};
	struct stk_allocation_form *form = at ? form_if_asked_for(ctx, gfp) : NULL;

	if (!form)
		return 0;
	what.site.of.source = STK_ALLOCATION_PAGE;
	what.bytes = form->page_bytes << (order & 31);
	what.requested = what.bytes;
	return keep(ctx, (__u64)at, &what, PAGE_ALLOC);
}

/* ---- Programs ---- */

SEC("?raw_tp/mm_page_alloc")
int BPF_PROG(allocation_pages__raw_tp, struct page *page, unsigned int order, gfp_t gfp)
{
	return on_pages(ctx, page, order, gfp);
}

/* Also of those that are freed by the batch. */
SEC("?raw_tp/mm_page_free")
int BPF_PROG(allocation_pages_free__raw_tp, struct page *page)
{
	return on_free((__u64)page);
}

SEC("?raw_tp/kmalloc")
int BPF_PROG(allocation_kmalloc__raw_tp, unsigned long ip, const void *at, size_t requested,
	     size_t bytes, gfp_t gfp)
{
	return on_slab(ctx, at, requested, bytes, gfp, KMALLOC);
}

/* Up to 6.0; then it was united with the one above. */
SEC("?raw_tp/kmalloc_node")
int BPF_PROG(allocation_kmalloc_node__raw_tp, unsigned long ip, const void *at, size_t requested,
	     size_t bytes, gfp_t gfp)
{
	return on_slab(ctx, at, requested, bytes, gfp, KMALLOC_NODE);
}

SEC("?raw_tp/kfree")
int BPF_PROG(allocation_kfree__raw_tp, unsigned long ip, const void *at)
{
	return on_free((__u64)at);
}

SEC("?raw_tp/kmem_cache_alloc")
int BPF_PROG(allocation_cache__raw_tp, unsigned long ip, const void *at, struct kmem_cache *cache,
	     gfp_t gfp)
{
	STK_VIEW(of, kmem_cache, cache, size, object_size, 16);

	return on_slab(ctx, at, STK_SEE(of, object_size), STK_SEE(of, size), gfp, CACHE_ALLOC);
}

/* Up to 5.18, with the sizes. */
SEC("?raw_tp/kmem_cache_alloc")
int BPF_PROG(allocation_cache_old__raw_tp, unsigned long ip, const void *at, size_t requested,
	     size_t bytes, gfp_t gfp)
{
	return on_slab(ctx, at, requested, bytes, gfp, CACHE_ALLOC);
}

SEC("?raw_tp/kmem_cache_alloc_node")
int BPF_PROG(allocation_cache_node__raw_tp, unsigned long ip, const void *at, size_t requested,
	     size_t bytes, gfp_t gfp)
{
	return on_slab(ctx, at, requested, bytes, gfp, CACHE_ALLOC_NODE);
}

SEC("?raw_tp/kmem_cache_free")
int BPF_PROG(allocation_cache_free__raw_tp, unsigned long ip, const void *at)
{
	return on_free((__u64)at);
}
