/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The fence: refuses accesses to guarded files.
 *
 * A file is guarded by a tag on its inode, where BPF LSM is active, and by its key (device, inode, generation). Verdict
 * first, record second: a full ring never changes a verdict. Each hook has a body, an lsm program and an fmod_ret twin;
 * the twin cannot read tags.
 */
#include "stockade.bpf.h"

STK_EXPORT(stk_denial);
STK_EXPORT(stk_guard);
STK_EXPORT(stk_key);
STK_EXPORT(stk_armed);

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct stk_guard);
} stk_tags SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct stk_key);
	__type(value, struct stk_guard);
} stk_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stk_armed);
} stk_armed_at SEC(".maps");

STK_SCRATCH_MAP(stk_fence_buf);
STK_SCRATCH_WALK(stk_fence_buf, fence_walk)

/*
 * Reports a verdict. A global function with numbers for arguments, so that the verifier looks at it once and not behind
 * every branch of every hook. `mnt` is 0 where the hook knows none; `what` is made by stk_what().
 *
 * The record is reserved before the path is walked in the scratch: whatever happens to the path, the denial arrives.
 */
__attribute__((noinline)) int report(__u64 inode, __u64 dentry, __u64 mnt, __u64 what, __u32 rule)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct stk_scratch *s = bpf_map_lookup_elem(&stk_fence_buf, &cpu);
	struct stk_denial *rec;
	__u64 seq = 0;
	__u32 off = 0;

	rec = bpf_ringbuf_reserve(&stk_denials, sizeof(*rec), 0);
	if (!rec) {
		stk_lost(STK_KIND_DENIAL, STK_LOSS_RING);
		return 0;
	}
	stk_header(&rec->hdr, STK_KIND_DENIAL, sizeof(*rec));
	stk_file_id_of(&rec->file, (struct inode *)inode, false);
	rec->rule = rule;
	rec->access = (__u32)what;
	rec->verdict = what >> 32;
	if (!mnt)
		rec->hdr.flags |= STK_FLAG_NO_MOUNT;
	if (s) {
		seq = ++s->seq;
		off = fence_walk(dentry, stk_mount_of((struct vfsmount *)mnt), 0, STK_PATH_MAX - 1);
		bpf_probe_read_kernel(rec->path, sizeof(rec->path), s->rec);
	}
	if (!s || *(volatile __u64 *)&s->seq != seq) {
		/* Another program took the scratch over: no path rather than a mixed one. A failed read clears. */
		bpf_probe_read_kernel(rec->path, sizeof(rec->path), NULL);
		off = STK_WALK_CUT;
	}
	if (off & STK_WALK_CUT)
		rec->hdr.flags |= STK_FLAG_PATH_CUT;
	if (off & STK_WALK_DELETED)
		rec->hdr.flags |= STK_FLAG_DELETED;
	rec->path_len = off & STK_WALK_OFF;
	bpf_ringbuf_submit(rec, BPF_RB_FORCE_WAKEUP);
	return 0;
}

static __always_inline __u64 stk_what(__u32 access, __u32 verdict)
{
	return access | (__u64)verdict << 32;
}

static __always_inline __u32 rule_of(struct stk_guard *guard, __u32 matched)
{
	__u32 i;

	for (i = 0; i < STK_ACCESS_KINDS; i++) {
		if (matched & (1U << i))
			return guard->rule[i];
	}
	return 0;
}

/* 0 or -EPERM. The asm keeps clang from computing the value by negation, which 6.12 cannot bound. */
static __always_inline int judge(struct stk_guard *guard, struct inode *inode, __u32 access,
				 bool self, struct dentry *dentry, struct vfsmount *mnt)
{
	struct stk_armed *armed;
	__u32 zero = 0, deny, audit;
	int ret = 0;

	armed = bpf_map_lookup_elem(&stk_armed_at, &zero);
	if (!armed || !armed->epoch || guard->epoch != armed->epoch)
		return 0;
	if (self != !!(guard->flags & STK_RULE_FLAG_CANARY))
		return 0;
	deny = guard->deny & access;
	audit = guard->audit & access;
	if (deny | audit) {
		__u32 verdict = deny ? STK_VERDICT_DENY : STK_VERDICT_AUDIT;

		if (deny)
			ret = -EPERM;
		report(stk_number(inode), stk_number(dentry), stk_number(mnt),
		       stk_what(access, verdict), rule_of(guard, deny ?: audit));
	}
	asm volatile("" : "+r"(ret));
	if (ret)
		return -EPERM;
	return 0;
}

/* Hooks are given typed pointers: what is looked at for every access is loaded, not read by a call. */
static __always_inline struct stk_guard *by_key(struct inode *inode)
{
	struct stk_key key;

	key.ino = inode->i_ino;
	key.dev = inode->i_sb->s_dev;
	key.generation = inode->i_generation;
	return bpf_map_lookup_elem(&stk_keys, &key);
}

/* The tool itself is only ever held by the canary rule; everybody else by what is in scope. */
static __always_inline bool concerned(bool *self)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	*self = tgid == stk_config.self_tgid;
	return *self || stk_in_scope(tgid);
}

#define GUARD_TAGGED(inode)                                                                 \
	({                                                                                  \
		struct stk_guard *__g = bpf_inode_storage_get(&stk_tags, (inode), NULL, 0); \
		if (!__g)                                                                   \
			__g = by_key(inode);                                                \
		__g;                                                                        \
	})
#define GUARD_KEYED(inode)       by_key(inode)
#define GUARD_ANY(tagged, inode) ((tagged) ? GUARD_TAGGED(inode) : GUARD_KEYED(inode))

/* `tagged` is a constant at every call, so a twin holds no reference to the tag map. */
#define CHECK(tagged, inode_, access_, dentry_, mnt_)                                         \
	({                                                                                    \
		int __ret = 0;                                                                \
		bool __self;                                                                  \
		struct inode *__inode = (inode_);                                             \
		if (__inode && concerned(&__self)) {                                          \
			struct stk_guard *__guard = GUARD_ANY(tagged, __inode);               \
			if (__guard)                                                          \
				__ret = judge(__guard, __inode, (access_), __self, (dentry_), \
					      (mnt_));                                        \
		}                                                                             \
		__ret;                                                                        \
	})

static __always_inline __u32 open_access(struct file *file)
{
	__u32 access = 0, mode = file->f_mode;

	if (file->f_flags & STK_FMODE_EXEC)
		return STK_ACCESS_EXEC;
	if (mode & STK_FMODE_READ)
		access |= STK_ACCESS_READ;
	if (mode & STK_FMODE_WRITE)
		access |= STK_ACCESS_WRITE;
	/* Access mode 3 opens for ioctl alone. */
	return access ?: STK_ACCESS_READ | STK_ACCESS_WRITE;
}

static __always_inline __u32 attr_access(struct iattr *attr)
{
	__u32 valid = attr->ia_valid;

	return valid & STK_ATTR_SIZE ? STK_ACCESS_WRITE : STK_ACCESS_METADATA;
}

#define ON_OPEN(tagged, file)                                                                 \
	CHECK(tagged, (file)->f_inode, open_access(file), BPF_CORE_READ(file, f_path.dentry), \
	      BPF_CORE_READ(file, f_path.mnt))
#define ON_DENTRY(tagged, dentry, access) CHECK(tagged, (dentry)->d_inode, access, dentry, NULL)

/* The source loses its name; the target is replaced, and under RENAME_EXCHANGE renamed. */
#define ON_RENAME(tagged, old_dentry, new_dentry)                                \
	({                                                                       \
		int __r = ON_DENTRY(tagged, old_dentry, STK_ACCESS_DELETE);      \
		if (!__r)                                                        \
			__r = ON_DENTRY(tagged, new_dentry, STK_ACCESS_REPLACE); \
		__r;                                                             \
	})

/* Another module's refusal is never turned into an allow. */
#define VERDICT(expr)                 \
	({                            \
		int __v = ret;        \
		if (!__v)             \
			__v = (expr); \
		__v;                  \
	})

SEC("?lsm/file_open")
int BPF_PROG(fence_open__lsm, struct file *file, int ret)
{
	return VERDICT(ON_OPEN(true, file));
}

SEC("?fmod_ret/security_file_open")
int BPF_PROG(fence_open__fmod_ret, struct file *file, int ret)
{
	return VERDICT(ON_OPEN(false, file));
}

SEC("?lsm/inode_unlink")
int BPF_PROG(fence_unlink__lsm, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_DELETE));
}

SEC("?fmod_ret/security_inode_unlink")
int BPF_PROG(fence_unlink__fmod_ret, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_DELETE));
}

SEC("?lsm/inode_rmdir")
int BPF_PROG(fence_rmdir__lsm, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_DELETE));
}

SEC("?fmod_ret/security_inode_rmdir")
int BPF_PROG(fence_rmdir__fmod_ret, struct inode *dir, struct dentry *dentry, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_DELETE));
}

SEC("?lsm/inode_rename")
int BPF_PROG(fence_rename__lsm, struct inode *old_dir, struct dentry *old_dentry,
	     struct inode *new_dir, struct dentry *new_dentry, int ret)
{
	return VERDICT(ON_RENAME(true, old_dentry, new_dentry));
}

/* The function has a fifth argument that the hook has not. For an exchange it calls the hook both ways round. */
SEC("?fmod_ret/security_inode_rename")
int BPF_PROG(fence_rename__fmod_ret, struct inode *old_dir, struct dentry *old_dentry,
	     struct inode *new_dir, struct dentry *new_dentry, unsigned int flags, int ret)
{
	int verdict = VERDICT(ON_RENAME(false, old_dentry, new_dentry));

	if (!verdict && (flags & STK_RENAME_EXCHANGE))
		verdict = ON_RENAME(false, new_dentry, old_dentry);
	return verdict;
}

SEC("?lsm/inode_link")
int BPF_PROG(fence_link__lsm, struct dentry *old_dentry, struct inode *dir,
	     struct dentry *new_dentry, int ret)
{
	return VERDICT(ON_DENTRY(true, old_dentry, STK_ACCESS_LINK));
}

SEC("?fmod_ret/security_inode_link")
int BPF_PROG(fence_link__fmod_ret, struct dentry *old_dentry, struct inode *dir,
	     struct dentry *new_dentry, int ret)
{
	return VERDICT(ON_DENTRY(false, old_dentry, STK_ACCESS_LINK));
}

/*
 * From here on a leading argument came with a kernel version: the user namespace, later the mount's id map. `_d` has the
 * dentry first, `_id` has it second; the loader counts the parameters in the kernel's BTF.
 */
SEC("?lsm/inode_setattr")
int BPF_PROG(fence_setattr_d__lsm, struct dentry *dentry, struct iattr *attr, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, attr_access(attr)));
}

SEC("?lsm/inode_setattr")
int BPF_PROG(fence_setattr_id__lsm, void *idmap, struct dentry *dentry, struct iattr *attr, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, attr_access(attr)));
}

SEC("?fmod_ret/security_inode_setattr")
int BPF_PROG(fence_setattr_d__fmod_ret, struct dentry *dentry, struct iattr *attr, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, attr_access(attr)));
}

SEC("?fmod_ret/security_inode_setattr")
int BPF_PROG(fence_setattr_id__fmod_ret, void *idmap, struct dentry *dentry, struct iattr *attr,
	     int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, attr_access(attr)));
}

SEC("?lsm/inode_setxattr")
int BPF_PROG(fence_setxattr_d__lsm, struct dentry *dentry, const char *name, const void *value,
	     size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_setxattr")
int BPF_PROG(fence_setxattr_id__lsm, void *idmap, struct dentry *dentry, const char *name,
	     const void *value, size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_setxattr")
int BPF_PROG(fence_setxattr_d__fmod_ret, struct dentry *dentry, const char *name, const void *value,
	     size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_setxattr")
int BPF_PROG(fence_setxattr_id__fmod_ret, void *idmap, struct dentry *dentry, const char *name,
	     const void *value, size_t size, int flags, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_removexattr")
int BPF_PROG(fence_rmxattr_d__lsm, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_removexattr")
int BPF_PROG(fence_rmxattr_id__lsm, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_removexattr")
int BPF_PROG(fence_rmxattr_d__fmod_ret, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_removexattr")
int BPF_PROG(fence_rmxattr_id__fmod_ret, void *idmap, struct dentry *dentry, const char *name,
	     int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

/* 6.2+; before, an ACL is an xattr. */
SEC("?lsm/inode_set_acl")
int BPF_PROG(fence_setacl__lsm, void *idmap, struct dentry *dentry, const char *name, void *acl,
	     int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_set_acl")
int BPF_PROG(fence_setacl__fmod_ret, void *idmap, struct dentry *dentry, const char *name,
	     void *acl, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

SEC("?lsm/inode_remove_acl")
int BPF_PROG(fence_rmacl__lsm, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_remove_acl")
int BPF_PROG(fence_rmacl__fmod_ret, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}

/* file_setattr(2), 6.17: inode flags by path. */
SEC("?lsm/inode_file_setattr")
int BPF_PROG(fence_fsetattr__lsm, struct dentry *dentry, void *fa, int ret)
{
	return VERDICT(ON_DENTRY(true, dentry, STK_ACCESS_METADATA));
}

SEC("?fmod_ret/security_inode_file_setattr")
int BPF_PROG(fence_fsetattr__fmod_ret, struct dentry *dentry, void *fa, int ret)
{
	return VERDICT(ON_DENTRY(false, dentry, STK_ACCESS_METADATA));
}
