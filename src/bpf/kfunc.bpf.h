/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Calls of kernel functions that are no helpers, and ids of the kernel's types. Named in the usual way they would make
 * libbpf read all of the kernel's types for each object that has them, on every kernel; so the loader puts them where
 * these numbers are moved (src/kernel/kfunc.rs).
 *
 * Every object is compiled twice (build.rs): with STK_CASTS 1 for kernels that have bpf_rdonly_cast() (6.2), with 0 for
 * the others. A choice made while it is loaded would leave the branch that is not taken to the verifier to remove, and
 * there would be one at every look at a kernel object.
 */
#ifndef STOCKADE_KFUNC_BPF_H
#define STOCKADE_KFUNC_BPF_H

#include "vmlinux.h"

enum {
	STK_CALL_IS_RETURN = 0x53544b01, /* bpf_session_is_return(ctx) */
	STK_CALL_COOKIE = 0x53544b02, /* bpf_session_cookie(ctx) */
	STK_CALL_CAST = 0x53544b03, /* bpf_rdonly_cast(pointer, type) */

	STK_TYPE_dentry = 0x53545401,
	STK_TYPE_file = 0x53545402,
	STK_TYPE_filename = 0x53545403,
	STK_TYPE_iattr = 0x53545404,
	STK_TYPE_open_flags = 0x53545405,
	STK_TYPE_path = 0x53545406,
	STK_TYPE_renamedata = 0x53545407,
	STK_TYPE_vfsmount = 0x53545408,
	STK_TYPE_sock = 0x53545409,
	STK_TYPE_socket = 0x5354540a,
	STK_TYPE_msghdr = 0x5354540b,
	STK_TYPE_sk_buff = 0x5354540c,
	STK_TYPE_task_struct = 0x5354540d,
	STK_TYPE_inode = 0x5354540e,
	STK_TYPE_super_block = 0x5354540f,
	STK_TYPE_mount = 0x53545410,
	STK_TYPE_linux_binprm = 0x53545411,
	STK_TYPE_kmem_cache = 0x53545412,
	STK_TYPE_timespec64 = 0x53545413, /* two numbers of eight bytes */
	STK_TYPE_pt_regs = 0x53545414,
	STK_TYPE_tcp_sock = 0x53545415,
	STK_TYPE_inet_sock = 0x53545416,
};

#define STK_KFUNC(result, number, first, second)                                 \
	asm volatile("r1 = %[one]\n\tr2 = %[two]\n\tr0 = %[call]\n\t%[out] = r0" \
		     : [out] "=r"(result)                                        \
		     : [one] "r"(first), [two] "i"(second), [call] "i"(number)   \
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory")

/*
 * A pointer to a struct whose fields can be loaded, 1 or 2 ns each where a helper call that reads memory takes 10: of a
 * number where STK_CASTS, else of a pointer whose type the verifier knows. It costs nothing: the verifier leaves a move.
 *
 * The verifier does not trust the result, and that is wanted: from 6.3 on it looks for each pointer that is loaded from
 * one that it trusts whether that one may be trusted too, by name, up to four times through all of the kernel's types.
 * That was half of the time that a session took to start (6.18). From 7.0 on the types are sorted.
 */
#if STK_CASTS
#define STK_AS(name, number)                                                                   \
	({                                                                                     \
		struct name *__as;                                                             \
		asm("r1 = %[one]\n\tr2 = %[two]\n\tr0 = %[call]\n\t%[out] = r0"                \
		    : [out] "=r"(__as)                                                         \
		    : [one] "r"(number), [two] "i"(STK_TYPE_##name), [call] "i"(STK_CALL_CAST) \
		    : "r0", "r1", "r2", "r3", "r4", "r5");                                     \
		__as;                                                                          \
	})
#else
#define STK_AS(name, number) ((struct name *)(number))
#endif

#endif
