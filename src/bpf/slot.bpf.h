/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where tables have a system call: by its number, or by what it asks of one that stands for several. */
#ifndef STOCKADE_SLOT_BPF_H
#define STOCKADE_SLOT_BPF_H

#include "core.bpf.h"

static __always_inline __u32 slot_of(const __u64 *args, __u64 nr, bool compat)
{
	if (!compat)
		return nr < STK_CALL_NUMBERS || nr == STK_CALL_CANARY ? nr : STK_CALL_NUMBERS;
#if defined(__TARGET_ARCH_x86)
	if (nr == STK_NR_COMPAT_socketcall && args[0] < STK_SOCKETCALLS)
		return STK_CALL_SLOTS + STK_CALL_SOCKET + args[0];
	if (nr == STK_NR_COMPAT_ipc && (args[0] & 0xffff) < STK_IPC_CALLS)
		return STK_CALL_SLOTS + STK_CALL_IPC + (args[0] & 0xffff);
#endif
	return STK_CALL_SLOTS + (nr < STK_CALL_NUMBERS ? nr : STK_CALL_NUMBERS);
}

#endif
