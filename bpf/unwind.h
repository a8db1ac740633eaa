/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What crosses between unwind.bpf.h and profiler/unwind_maps.py: the unwind tables, the mappings of
 * processes, and why a walk ended. Python checks the sizes when it loads an object.
 *
 * A table gives each byte of a file's code the rule that finds the caller from there:
 *
 *   file offset 0x2a417 = block 0xa9, offset 0x17 in it
 *   blocks[0xa9 - first_block]          first row 5120, 3 rows, rule 4 at its first byte
 *   rows[5120..5122]                    (0x02, 9) (0x10, 12) (0x31, 4)    0x17 is behind 0x10: rule 12
 *   rules[12]                           CFA = rsp + 48, rbp at CFA - 16
 *
 * A block is looked up directly and its few rows by halving, so a frame costs about as much in a library
 * with a million rows as in one with a thousand.
 */
#ifndef PYPROF_UNWIND_H
#define PYPROF_UNWIND_H

#define UNWIND_BLOCK_SHIFT 10 /* 1 KiB of code */
#define UNWIND_CHUNK_SHIFT 10
#define UNWIND_CHUNK_ROWS (1 << UNWIND_CHUNK_SHIFT) /* the rows of a block lie in one chunk */
#define UNWIND_REGISTERS 17			    /* in DWARF's order, the 17th is rip */

/* A user frame: its file and the offset in it, or an address where no file backs the code. A caller's
 * is already moved back into the call. */
#define FRAME_FILE_BIT (1ULL << 63)
#define FRAME_FILE_SHIFT 40 /* (file offset) below, (exe) above */

enum unwind_cfa {
	CFA_NONE,	  /* no rule: a gap between functions */
	CFA_RSP,	  /* rsp + offset */
	CFA_RBP,	  /* rbp + offset */
	CFA_PLT,	  /* rsp + 8, 8 more from `offset` in the 16-byte stub on */
	CFA_BOTTOM,	  /* the outermost frame */
	CFA_SIGNAL,	  /* the kernel's signal frame lies at rsp */
	CFA_UNSUPPORTED,  /* there is a rule, and no way to follow it here */
	CFA_RSP_DEREF,	  /* *(rsp + offset) + deref */
	CFA_RBP_DEREF,	  /* *(rbp + offset) + deref */
	CFA_REGISTER,	  /* reg + offset; known in the leaf only, but for rbx */
};

enum unwind_rbp {
	RBP_SAME,
	RBP_AT_CFA, /* saved at CFA + rbp_offset */
	RBP_UNDEFINED,
	RBP_AT_RBP, /* saved at rbp + rbp_offset */
	RBP_UNSUPPORTED,
};

#define RBX_UNKNOWN 0
#define RBX_SAME 1

struct unwind_rule {
	__u8 cfa; /* enum unwind_cfa */
	__u8 rbp; /* enum unwind_rbp */
	__u8 reg; /* DWARF's number */
	__u8 padding;
	__s16 rbp_offset;
	__s16 rbx; /* RBX_UNKNOWN, RBX_SAME, or saved at CFA + rbx: told in tables whose CFA may be in rbx */
	__s32 offset;
	__s32 deref;
};

struct unwind_block {
	__u32 first; /* of the table's rows */
	__u16 count;
	__u16 rule; /* at the block's first byte */
};

/* A row: offset in the block in the low half, rule in the high half. */
struct unwind_chunk {
	__u32 rows[UNWIND_CHUNK_ROWS];
};

enum unwind_exe_state {
	EXE_WAITING, /* its table is not there yet */
	EXE_READY,
	EXE_WITHOUT_TABLE, /* it has none: only frame pointers help */
};

struct unwind_exe {
	__u32 state;
	__u32 wanted; /* set here: a sample needed it */
	__u32 first_block;
	__u32 block_count;
	__u32 blocks_at; /* index of its first block in `unwind_blocks` */
	__u32 chunks_at; /* of its first chunk in `unwind_rows` */
	__u32 rules_at;	 /* of its first rule in `unwind_rules` */
	__u32 keeps_pointers; /* its functions keep frame pointers, as in Go */
};

enum unwind_mapping_kind {
	MAPPING_FILE,
	MAPPING_ANONYMOUS, /* no file: just-in-time compiled code, which keeps frame pointers or is lost */
	MAPPING_SPECIAL,   /* [uprobes] and the like: no caller can be found */
};

struct unwind_mapping {
	__u64 start;
	__u64 limit;
	__u64 file_offset; /* of start */
	__u32 exe;
	__u32 kind; /* enum unwind_mapping_kind */
};

/* The mappings of a process: `count` of `unwind_mappings` from `first` on, sorted, and whose they are.
 * The times are CLOCK_BOOTTIME ns. */
struct unwind_process {
	__u64 earliest_ns; /* the process started between these two */
	__u64 latest_ns;
	__u64 exec_ns; /* of the program image that the mappings belong to; 0: its first */
	__u32 first;
	__u32 count;
	__u32 copies; /* how many samples may still be handed over because an address was in no mapping */
	__u32 padding;
};

/* How the walk of a user stack ended. */
enum unwind_end {
	END_BY_KERNEL,	  /* the kernel walked along frame pointers; where that ends is not known */
	END_COMPLETE,	  /* at the outermost frame */
	END_NO_ROW,	  /* code without unwind information and without frame pointers */
	END_NOT_RESIDENT, /* a page of the stack could not be read */
	END_TOO_DEEP,
	END_UNSUPPORTED,
	END_NO_PROGRESS, /* the stack pointer did not rise */
	END_NO_MAPPING,	 /* a return address in no executable mapping */
	END_NOT_READY,	 /* the mappings or a table were not there yet */
	END_COPY_CUT,	  /* walked in user space: the copy of the stack was too short */
	END_GUESSED,	  /* at the outermost frame, by a frame pointer that code without rules may not keep */
	END_32_BIT,	  /* by the kernel, along frame pointers: no tables are made for 32-bit code */
	END_COUNT,
};

/* A sample whose stack is walked in user space: before its tables are ready, or to verify the walk. */
#define COPY_PAGES 16
#define RED_ZONE_BYTES 128 /* below rsp, where rows may still find a register that was just popped */

struct stack_copy {
	__u64 registers[UNWIND_REGISTERS];
	__u32 bytes; /* of `stack` */
	__u32 holes; /* bit n: the n-th page could not be read; the first may be a part of one */
	__u8 stack[(COPY_PAGES + 1) * 4096]; /* from rsp - RED_ZONE_BYTES on */
};

#endif
