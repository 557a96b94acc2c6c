/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel types for the architecture that the BPF objects are compiled for. Where they come from: README.md beside this
 * file. The macros are those that bpf_tracing.h reads, so both always agree.
 */
#ifndef STOCKADE_VMLINUX_H
#define STOCKADE_VMLINUX_H

#if defined(__TARGET_ARCH_x86)
#include "x86_64/vmlinux.h"
#elif defined(__TARGET_ARCH_arm64)
#include "aarch64/vmlinux.h"
#else
#error "define __TARGET_ARCH_x86 or __TARGET_ARCH_arm64: there are no kernel types for another target"
#endif

#endif /* STOCKADE_VMLINUX_H */
