/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The base of every object: kernel types, helpers, the contract, and the shims between kernels. */
#ifndef STOCKADE_CORE_BPF_H
#define STOCKADE_CORE_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "kfunc.bpf.h"
#include "wire.h"

/* BTF drops a type that is used through void pointers only; the skeleton needs it for the layout check. */
#define STK_EXPORT(T) const struct T *__stk_export_##T __attribute__((unused))

enum {
	STK_CGROUPS_MAX = 16, /* named on one command line; each costs one helper call per event */
	STK_MARKS = 65536, /* a power of two */
	STK_WALK_LIMIT = 16384, /* offsets of paths in a record end below */
	STK_RECORD_MAX = 57600, /* STK_DATA_MAX behind the largest fixed part, rounded up */
};

/* include/uapi/asm-generic/errno-base.h; BTF has no macros. */
#define EPERM  1
#define EAGAIN 11
#define EEXIST 17
/* include/linux/errno.h: from the one to the other, what a call returns inside the kernel that a signal interrupts. */
#define STK_ERESTARTSYS           512
#define STK_ERESTART_RESTARTBLOCK 516
/* include/linux/fs.h: what an open for execve carries in f_flags. */
#define STK_FMODE_EXEC  0x20
#define STK_FMODE_READ  0x1
#define STK_FMODE_WRITE 0x2
#define STK_MAY_WRITE   0x2
/* include/linux/fs.h: not counted as an open file, because another one is: the file of a layer of overlayfs. */
#define STK_FMODE_NOACCOUNT (1 << 29)
/* include/uapi/asm-generic/mman-common.h, include/uapi/linux/personality.h */
#define STK_PROT_READ         0x1
#define STK_PROT_EXEC         0x4
#define STK_READ_IMPLIES_EXEC 0x0400000
/* include/uapi/linux/stat.h */
#define STK_S_IFMT  0170000
#define STK_S_IFREG 0100000
/* include/linux/fs.h */
#define STK_FMODE_CREATED  (1 << 20)
#define STK_ATTR_MODE      (1 << 0)
#define STK_ATTR_UID       (1 << 1)
#define STK_ATTR_GID       (1 << 2)
#define STK_ATTR_SIZE      (1 << 3)
#define STK_ATTR_ATIME     (1 << 4)
#define STK_ATTR_MTIME     (1 << 5)
#define STK_ATTR_ATIME_SET (1 << 7)
#define STK_ATTR_MTIME_SET (1 << 8)
#define STK_ATTR_FORCE     (1 << 9) /* the kernel's own wish: a write takes the set-id bits away */
#define STK_ATTR_FILE      (1 << 13)
#define STK_ATTR_OPEN      (1 << 15) /* on behalf of an open with O_TRUNC */
/* include/linux/sched.h: a thread of the kernel's own. */
#define STK_PF_KTHREAD 0x00200000
/* include/linux/sched/signal.h */
#define STK_SIGNAL_GROUP_EXIT 0x4
/* include/linux/err.h */
#define STK_IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-4095)

/* include/uapi/linux/fcntl.h */
#define STK_AT_FDCWD     (-100)
#define STK_AT_REMOVEDIR 0x200
/* include/uapi/linux/fs.h */
#define STK_RENAME_EXCHANGE (1 << 1)
/* creat(2) is open with O_CREAT | O_WRONLY | O_TRUNC. */
#define STK_O_CREAT_FLAGS (0100 | 01 | 01000)

/* System call numbers: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h. */
#if defined(__TARGET_ARCH_x86)
enum {
	STK_NR_read = 0,
	STK_NR_write = 1,
	STK_NR_open = 2,
	STK_NR_mmap = 9,
	STK_NR_munmap = 11,
	STK_NR_brk = 12,
	STK_NR_pread64 = 17,
	STK_NR_pwrite64 = 18,
	STK_NR_readv = 19,
	STK_NR_writev = 20,
	STK_NR_sendfile = 40,
	STK_NR_sendto = 44,
	STK_NR_recvfrom = 45,
	STK_NR_sendmsg = 46,
	STK_NR_recvmsg = 47,
	STK_NR_exit = 60,
	STK_NR_truncate = 76,
	STK_NR_ftruncate = 77,
	STK_NR_rename = 82,
	STK_NR_mkdir = 83,
	STK_NR_rmdir = 84,
	STK_NR_creat = 85,
	STK_NR_link = 86,
	STK_NR_unlink = 87,
	STK_NR_symlink = 88,
	STK_NR_chmod = 90,
	STK_NR_fchmod = 91,
	STK_NR_chown = 92,
	STK_NR_fchown = 93,
	STK_NR_lchown = 94,
	STK_NR_utime = 132,
	STK_NR_mknod = 133,
	STK_NR_mount = 165,
	STK_NR_umount2 = 166,
	STK_NR_setxattr = 188,
	STK_NR_lsetxattr = 189,
	STK_NR_fsetxattr = 190,
	STK_NR_removexattr = 197,
	STK_NR_lremovexattr = 198,
	STK_NR_fremovexattr = 199,
	STK_NR_exit_group = 231,
	STK_NR_utimes = 235,
	STK_NR_openat = 257,
	STK_NR_mkdirat = 258,
	STK_NR_mknodat = 259,
	STK_NR_fchownat = 260,
	STK_NR_futimesat = 261,
	STK_NR_unlinkat = 263,
	STK_NR_renameat = 264,
	STK_NR_linkat = 265,
	STK_NR_symlinkat = 266,
	STK_NR_fchmodat = 268,
	STK_NR_splice = 275,
	STK_NR_utimensat = 280,
	STK_NR_preadv = 295,
	STK_NR_pwritev = 296,
	STK_NR_renameat2 = 316,
	STK_NR_copy_file_range = 326,
	STK_NR_preadv2 = 327,
	STK_NR_pwritev2 = 328,
	STK_NR_move_mount = 429,
	STK_NR_openat2 = 437,
	STK_NR_fchmodat2 = 452,
	STK_NR_setxattrat = 463,
	STK_NR_removexattrat = 466,
};
/* arch/x86/include/asm/thread_info.h */
#define STK_TS_COMPAT 0x0002
#elif defined(__TARGET_ARCH_arm64)
enum {
	STK_NR_setxattr = 5,
	STK_NR_lsetxattr = 6,
	STK_NR_fsetxattr = 7,
	STK_NR_removexattr = 14,
	STK_NR_lremovexattr = 15,
	STK_NR_fremovexattr = 16,
	STK_NR_mknodat = 33,
	STK_NR_mkdirat = 34,
	STK_NR_unlinkat = 35,
	STK_NR_symlinkat = 36,
	STK_NR_linkat = 37,
	STK_NR_renameat = 38,
	STK_NR_umount2 = 39,
	STK_NR_mount = 40,
	STK_NR_truncate = 45,
	STK_NR_ftruncate = 46,
	STK_NR_fchmod = 52,
	STK_NR_fchmodat = 53,
	STK_NR_fchownat = 54,
	STK_NR_fchown = 55,
	STK_NR_openat = 56,
	STK_NR_read = 63,
	STK_NR_write = 64,
	STK_NR_readv = 65,
	STK_NR_writev = 66,
	STK_NR_pread64 = 67,
	STK_NR_pwrite64 = 68,
	STK_NR_preadv = 69,
	STK_NR_pwritev = 70,
	STK_NR_sendfile = 71,
	STK_NR_splice = 76,
	STK_NR_utimensat = 88,
	STK_NR_exit = 93,
	STK_NR_exit_group = 94,
	STK_NR_sendto = 206,
	STK_NR_recvfrom = 207,
	STK_NR_sendmsg = 211,
	STK_NR_recvmsg = 212,
	STK_NR_brk = 214,
	STK_NR_munmap = 215,
	STK_NR_mmap = 222,
	STK_NR_renameat2 = 276,
	STK_NR_copy_file_range = 285,
	STK_NR_preadv2 = 286,
	STK_NR_pwritev2 = 287,
	STK_NR_move_mount = 429,
	STK_NR_openat2 = 437,
	STK_NR_fchmodat2 = 452,
	STK_NR_setxattrat = 463,
	STK_NR_removexattrat = 466,
};
#endif

/* arch/x86/entry/syscalls/syscall_32.tbl, arch/arm64/tools/syscall_32.tbl */
enum {
	STK_NR_COMPAT_exit = 1,
	/* On x86 alone. */
	STK_NR_COMPAT_socketcall = 102,
	STK_NR_COMPAT_ipc = 117,
	STK_NR_COMPAT_exit_group =
#if defined(__TARGET_ARCH_x86)
		252,
#else
		248,
#endif
};

/*
 * Whether the verifier knows the type of stk_current(), so that its fields can be loaded. 5.11+. A constant once loaded:
 * the verifier never sees the other branch.
 */
#if STK_CASTS
#define STK_TYPED 1
#else
#define STK_TYPED bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf)
#endif

static __always_inline struct task_struct *stk_current(void)
{
	if (STK_TYPED)
		return bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

/* A pointer in stk_current(). */
#define STK_FOLLOW(task, field) \
	(STK_TYPED ? STK_AS(task_struct, task)->field : BPF_CORE_READ(task, field))

/* Another field of stk_current(), or any of what was reached from there by these macros alone. */
#define STK_LOAD(ptr, field) (STK_TYPED ? (ptr)->field : BPF_CORE_READ(ptr, field))

/*
 * A field of a kernel object, a struct `type`, or of what is reached from there: each arrow is an argument. `typed`:
 * whether the verifier knows the type of the pointer.
 */
#define STK_GET_TYPED(type, ptr, typed, field...)                    \
	((typed) || STK_CASTS ? ___arrow(STK_AS(type, ptr), ##field) \
			      : BPF_CORE_READ((struct type *)(ptr), ##field))
#define STK_GET(type, ptr, field...) STK_GET_TYPED(type, ptr, false, ##field)

/* What is in eight bytes of the kernel's, as a number. */
#define STK_NUMBER_AT(ptr)                                            \
	({                                                            \
		__u64 __number = 0;                                   \
		if (STK_CASTS)                                        \
			__number = STK_AS(timespec64, (ptr))->tv_sec; \
		else                                                  \
			bpf_probe_read_kernel(&__number, 8, (ptr));   \
		__number;                                             \
	})

/*
 * A look at several fields of a kernel object, a struct `type`, whose type the verifier can be told: then STK_SEE loads
 * them. Else all that lies between `first` and `last` is read at once, because it is the call that costs and not the
 * bytes; what is not within `room` bytes in some kernel's layout is read by itself, which is decided when the program is
 * loaded.
 */
#define STK_VIEW(view, type, ptr, first, last, room)                                 \
	struct type *view = STK_AS(type, ptr);                                       \
	__u64 view##_bytes[(room) / 8];                                              \
	const __u32 view##_at = bpf_core_field_offset(struct type, first) & ~7U;     \
	const __u32 view##_len = bpf_core_field_offset(struct type, last) +          \
				 bpf_core_field_size(struct type, last) - view##_at; \
	if (!STK_CASTS && view##_len <= (room))                                      \
	bpf_probe_read_kernel(view##_bytes, view##_len, (char *)view + view##_at)

#define STK_SEE(view, field)                                                          \
	({                                                                            \
		typeof(view->field) __value;                                          \
		__u32 __at = bpf_core_field_offset(typeof(*view), field) - view##_at; \
		if (STK_CASTS)                                                        \
			__value = view->field;                                        \
		else if (view##_len <= sizeof(view##_bytes) &&                        \
			 __at + sizeof(__value) <= view##_len)                        \
			__value = *(typeof(__value) *)((char *)view##_bytes + __at);  \
		else                                                                  \
			__value = BPF_CORE_READ(view, field);                         \
		__value;                                                              \
	})

/* A pointer that is seen so, as a number, which is all that a global function may be given. */
#define STK_SEE_NUMBER(view, field) \
	(STK_CASTS ? STK_NUMBER_AT(&view->field) : (__u64)STK_SEE(view, field))

/*
 * Enters what is not in the map yet: 0, -EEXIST when it is, or another error. Up to 6.3 the kernel's own function returns
 * an int, and the verifier puts it in the helper's place, where nobody extends the sign: as a long it is no -EEXIST.
 */
static __always_inline int stk_insert(void *map, const void *key, const void *value)
{
	return (int)bpf_map_update_elem(map, key, value, BPF_NOEXIST);
}

/* A kernel pointer as a number, which is all that a global function may be given. */
static __always_inline __u64 stk_number(const void *pointer)
{
	__u64 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), &pointer);
	return number;
}

/* The registers of the current system call, in a classic tracepoint. 5.15+ */
static __always_inline struct pt_regs *stk_regs(void)
{
	return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
}

static __always_inline long stk_syscall_nr(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return STK_GET(pt_regs, regs, orig_ax);
#else
	return STK_GET(pt_regs, regs, syscallno);
#endif
}

/* Whether this is a 32-bit call on a 64-bit kernel. */
static __always_inline bool stk_compat(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = stk_current();

	return STK_LOAD(task, thread_info.status) & STK_TS_COMPAT;
#else
	/* PSR_MODE32_BIT, arch/arm64/include/uapi/asm/ptrace.h */
	return BPF_CORE_READ(regs, pstate) & 0x10;
#endif
}

/* The six arguments of a system call, from the registers of the architecture's own or its 32-bit calls. */
static __always_inline void stk_syscall_args(__u64 *args, struct pt_regs *regs, bool compat)
{
#if defined(__TARGET_ARCH_x86)
	if (compat) {
		/* A 64-bit program can come this way with more in its registers, of which the kernel takes no notice. */
		args[0] = (__u32)BPF_CORE_READ(regs, bx);
		args[1] = (__u32)BPF_CORE_READ(regs, cx);
		args[2] = (__u32)BPF_CORE_READ(regs, dx);
		args[3] = (__u32)BPF_CORE_READ(regs, si);
		args[4] = (__u32)BPF_CORE_READ(regs, di);
		args[5] = (__u32)BPF_CORE_READ(regs, bp);
		return;
	}
#endif
	args[0] = PT_REGS_PARM1_CORE_SYSCALL(regs);
	args[1] = PT_REGS_PARM2_CORE_SYSCALL(regs);
	args[2] = PT_REGS_PARM3_CORE_SYSCALL(regs);
	args[3] = PT_REGS_PARM4_CORE_SYSCALL(regs);
	args[4] = PT_REGS_PARM5_CORE_SYSCALL(regs);
	args[5] = PT_REGS_PARM6_CORE_SYSCALL(regs);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#endif
