/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where tables have a system call: by its number, or by what it asks of one that stands for several. */
#ifndef STOCKADE_SLOT_BPF_H
#define STOCKADE_SLOT_BPF_H

#include "core.bpf.h"

/* At the begin or the end of a call; one that stands for several is asked which one, and no other. */
static __always_inline __u32 slot_of(struct pt_regs *regs, __u64 nr, bool compat)
{
	if (!compat)
		return nr < STK_CALL_NUMBERS || nr == STK_CALL_CANARY ? nr : STK_CALL_NUMBERS;
#if defined(__TARGET_ARCH_x86)
	if (nr == STK_NR_COMPAT_socketcall || nr == STK_NR_COMPAT_ipc) {
		__u32 first = BPF_CORE_READ(regs, bx);

		if (nr == STK_NR_COMPAT_socketcall && first < STK_SOCKETCALLS)
			return STK_CALL_SLOTS + STK_CALL_SOCKET + first;
		first &= 0xffff;
		if (nr == STK_NR_COMPAT_ipc && first < STK_IPC_CALLS)
			return STK_CALL_SLOTS + STK_CALL_IPC + first;
	}
#endif
	return STK_CALL_SLOTS + (nr < STK_CALL_NUMBERS ? nr : STK_CALL_NUMBERS);
}

#endif
