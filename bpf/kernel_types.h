/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types that the programs read, with only the fields they read. Offsets come from the
 * running kernel's BTF at load time (CO-RE), so the order and the gaps here mean nothing.
 */
#ifndef PYPROF_KERNEL_TYPES_H
#define PYPROF_KERNEL_TYPES_H

#include <stdbool.h>

#include <linux/bpf.h>

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h: task_struct.flags */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[];
};

struct mm_struct;

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, ip, sp;
	unsigned short cs; /* 2 bytes of it mean something */
};
#endif

struct task_struct {
	unsigned int flags;
	unsigned in_execve : 1; /* between two program images */
	int pid;
	int tgid;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	__u64 start_boottime; /* ns since boot, suspend included */
};

#pragma clang attribute pop

struct linux_binprm;
struct bpf_perf_event_data;

#endif
