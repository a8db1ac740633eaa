/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What crosses between cpu.bpf.c and profiler/cpu_maps.py. Python checks the sizes when it loads the
 * object; the field order is fixed here and nowhere else.
 */
#ifndef PYPROF_CPU_H
#define PYPROF_CPU_H

#include "unwind.h"

#define MAX_FRAMES 127 /* kernel.perf_event_max_stack's default */
#define COMM_BYTES 16

/* Set before load; the verifier removes the branches that are not asked for. */
struct cpu_settings {
	__u32 self_pid;	       /* pyprof itself, in pyprof's pid namespace */
	__u32 max_depth;       /* frames kept of each stack, 1..MAX_FRAMES */
	__u32 pidns_inum;      /* of pyprof's pid namespace; 0: the machine's first */
	__u8 filter_processes; /* only tgids in `targets` */
	__u8 filter_threads;   /* only tids in `targets` */
	__u8 filter_cgroup;    /* only below the cgroup in `cgroup` */
	__u8 filter_comm;      /* only threads whose comm is `comm` */
	__u8 user_threads;     /* leave kernel threads out */
	__u8 kernel_threads;   /* leave user threads out */
	__u8 user_stacks;
	__u8 kernel_stacks;
	__u8 include_idle;
	__u8 per_thread;     /* keep tids apart */
	__u8 unwind_tables;  /* walk user stacks along unwind tables, not frame pointers */
	__u8 padding[1];
	__u32 verify_stride; /* hand over each so-manieth sample for a second walk; 0: none */
	char comm[COMM_BYTES];
};

/* A stack's id: hash of its addresses with the top bit set, or one of these. */
#define STACK_NONE 0	   /* there is none: user mode has no kernel stack */
#define STACK_MAP_FULL 1   /* lost: `stacks` had no room */
#define STACK_UNREADABLE 2 /* the kernel could not walk it */
#define STACK_COLLISION 3  /* lost: another stack has the same hash */
#define STACK_ID_BIT (1ULL << 63)

struct sample_key {
	__u64 start_ns; /* of the process, CLOCK_BOOTTIME */
	__u64 image_ns; /* of its last execve, 0 when that was before the capture */
	__u64 user_stack;
	__u64 kernel_stack;
	__u32 pid;
	__u32 tid; /* 0 unless per_thread */
	__u32 user_end; /* enum unwind_end */
	__u32 padding;
	char comm[COMM_BYTES];
};

/* A sample that user space walks. Its `user_end` is END_NOT_READY, or that of the walk to verify, which is
 * counted too. */
struct copied_sample {
	struct sample_key key;
	__u64 time_ns; /* CLOCK_BOOTTIME */
	struct stack_copy copy;
};

struct stack {
	__u32 depth;
	__u32 padding;
	__u64 addresses[MAX_FRAMES]; /* leaf first */
};

/* When a process began its program image, and the one before; CLOCK_BOOTTIME ns. */
struct image {
	__u64 since_ns;
	__u64 previous_ns; /* 0: before the capture */
};

/* A process or thread that is profiled. start_ticks, in 1/100 s since boot, tells it from a later
 * one with the same number; 0 matches any. */
struct target {
	__u64 start_ticks;
	__u32 awaits_exec; /* counts from its next execve on */
	__u32 padding;
};

/* Indices into `stats`, one value per CPU. taken = counted + idle + excluded + own + lost_counts. */
enum cpu_stat {
	STAT_TAKEN,
	STAT_COUNTED,
	STAT_IDLE,
	STAT_EXCLUDED,	    /* outside the filters */
	STAT_OWN,	    /* pyprof itself */
	STAT_LOST_COUNTS,   /* `counts` was full: in no stack */
	STAT_LOST_STACKS,   /* of the counted: `stacks` had no room for one of its stacks */
	STAT_COLLISIONS,    /* of the counted: the hash of one of its stacks was taken by another */
	STAT_UNREADABLE,    /* of the counted: the user stack could not be walked */
	STAT_COPIED,	    /* of the counted: in no map, but handed over to be walked in user space */
	STAT_FORKS_MISSED,  /* `targets` was full: a child of the command is not profiled */
	STAT_EXECS_MISSED,  /* no memory to note an execve: its samples may be named by the old image */
	STAT_COUNT,
};

#endif
