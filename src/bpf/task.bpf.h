/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Scope and header of a process that is not the one that runs: for iterators, and for what is done to others. */
#ifndef STOCKADE_TASK_BPF_H
#define STOCKADE_TASK_BPF_H

#include "stockade.bpf.h"

enum {
	STK_CGROUP_DEPTH =
		32, /* levels that are looked through; deeper ones are rare and would not be in scope */
};

/* The cgroups of the scope by id: stk_cgroups is for the helper, which knows the current task only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STK_CGROUPS_MAX);
	__type(key, __u64);
	__type(value, __u8);
} stk_cgroup_ids SEC(".maps");

static __always_inline bool stk_task_under_cgroup(struct task_struct *task)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	int i;

	for (i = 0; i < STK_CGROUP_DEPTH; i++) {
		__u64 id = BPF_CORE_READ(cgroup, kn, id);
		struct cgroup_subsys_state *above;

		if (bpf_map_lookup_elem(&stk_cgroup_ids, &id))
			return true;
		above = BPF_CORE_READ(cgroup, self.parent);
		if (!above)
			break;
		cgroup = (struct cgroup *)((char *)above -
					   bpf_core_field_offset(struct cgroup, self));
	}
	return false;
}

/* The entry of any process in the set; NULL when it is not in it. */
static __always_inline struct stk_task *stk_task_of(struct task_struct *task)
{
	struct stk_task_key key;

	key.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	key.tgid = BPF_CORE_READ(task, tgid);
	return bpf_map_lookup_elem(&stk_tasks, &key);
}

/* What stk_wanted() says, for any task. */
static __always_inline bool stk_task_wanted(struct task_struct *task)
{
	__u32 scope = stk_config.scope;

	if (BPF_CORE_READ(task, tgid) == stk_config.self_tgid)
		return false;
	if (!(scope & STK_SCOPE_HOST)) {
		bool in = false;

		if (scope & STK_SCOPE_TASKS)
			in = stk_task_of(task);
		if (!in && (scope & STK_SCOPE_CGROUPS))
			in = stk_task_under_cgroup(task);
		if (!in)
			return false;
	}
	if (scope & STK_SCOPE_UIDS) {
		__u32 uid = BPF_CORE_READ(task, real_cred, uid.val);

		if (!bpf_map_lookup_elem(&stk_uids, &uid))
			return false;
	}
	if (scope & STK_SCOPE_COMMS) {
		struct stk_comm comm = {};

		BPF_CORE_READ_STR_INTO(&comm.text, task, comm);
		if (!bpf_map_lookup_elem(&stk_comms, &comm))
			return false;
	}
	return true;
}

/* The header of a record about the process of `task`. */
static __always_inline void stk_header_of(struct stk_hdr *hdr, struct task_struct *task, __u32 kind,
					  __u32 len)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct task_struct *parent = BPF_CORE_READ(task, real_parent, group_leader);

	hdr->time_ns = bpf_ktime_get_boot_ns();
	hdr->start_ns = BPF_CORE_READ(leader, start_boottime);
	hdr->parent_start_ns = BPF_CORE_READ(parent, start_boottime);
	hdr->cgroup_id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	hdr->kind = kind;
	hdr->flags = 0;
	hdr->tgid = BPF_CORE_READ(task, tgid);
	hdr->tid = BPF_CORE_READ(task, pid);
	hdr->ppid = BPF_CORE_READ(parent, tgid);
	hdr->uid = BPF_CORE_READ(task, cred, uid.val);
	hdr->gid = BPF_CORE_READ(task, cred, gid.val);
	hdr->len = len;
	__builtin_memset(hdr->comm, 0, sizeof(hdr->comm));
	BPF_CORE_READ_STR_INTO(&hdr->comm, task, comm);
}

#endif
