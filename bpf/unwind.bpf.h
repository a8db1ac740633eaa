/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The walk of a user stack along the tables made of .eh_frame, for code without frame pointers. A program
 * calls unwind_begin(), then unwind_user_stack(), and finds the frames, leaf first, in the `scratch` map.
 *
 * Steps and searches are global functions; what they share is in a per-CPU value, because a global function
 * takes numbers only.
 */
#ifndef PYPROF_UNWIND_BPF_H
#define PYPROF_UNWIND_BPF_H

#include "unwind_search.bpf.h"

#define USER_CODE_64 0x33 /* arch/x86/include/asm/segment.h: __USER_CS */
#define FARTHEST_FRAME (8ULL << 20) /* a saved frame pointer further away is none */
#define MAX_ARGUMENTS (1 << 20)
#define WALK_GOES_ON END_COUNT
/* struct rt_sigframe of the kernel, from rsp in the trampoline on */
#define SIGFRAME_RBP 120 /* and rbx behind it */
#define SIGFRAME_RSP 160
#define SIGFRAME_RIP 168

enum dwarf_register { DWARF_RBX = 3, DWARF_RBP = 6, DWARF_RSP = 7, DWARF_RIP = 16 };

struct walk {
	__u64 registers[UNWIND_REGISTERS]; /* as the sample found them */
	__u64 pc;
	__u64 sp;
	__u64 bp;
	__u64 bx;
	__u32 depth;
	__u32 first; /* the process's mappings */
	__u32 count;
	__u32 mapping;	   /* of the last frame: its caller is often in the same */
	__u8 is_exact;	   /* pc is an instruction that was interrupted, not a return address */
	__u8 is_bp_known;
	__u8 is_bx_known;
	__u8 is_guessed; /* a caller may have been skipped */
	__u8 padding[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32); /* process id, as pyprof sees it */
	__type(value, struct unwind_process);
} unwind_processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

static __always_inline struct walk *this_walk(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&walks, &zero);
}

/* Go to the frame that a signal interrupted: the kernel has put its registers on the stack. */
static __always_inline __u32 leave_signal_frame(struct walk *walk)
{
	__u64 stack[2]; /* rsp, rip */
	__u64 base[2];	/* rbp, rbx */

	if (bpf_probe_read_user(stack, sizeof(stack), (void *)(walk->sp + SIGFRAME_RSP)) ||
	    bpf_probe_read_user(base, sizeof(base), (void *)(walk->sp + SIGFRAME_RBP)))
		return END_NOT_RESIDENT;
	walk->sp = stack[0];
	walk->pc = stack[1];
	walk->bp = base[0];
	walk->bx = base[1];
	walk->is_bp_known = walk->is_bx_known = true;
	walk->is_exact = true;
	return WALK_GOES_ON;
}

/* Whether `sp` is what a new program finds: argc, and argv[0] in the strings above. */
static __always_inline bool is_program_start(const struct walk *walk, __u64 sp)
{
	__u64 found[2]; /* argc, argv[0] */

	if (walk->bp || !walk->is_bp_known || bpf_probe_read_user(found, sizeof(found), (void *)sp))
		return false;
	return found[0] && found[0] <= MAX_ARGUMENTS && found[1] > sp && found[1] - sp < FARTHEST_FRAME;
}

/* Whether a thread begins there: clone or clone3 returns 0, where libc's code has no rules on purpose. */
static __always_inline bool is_thread_start(const struct walk *walk)
{
	/* mov $56, %eax or mov $435, %eax; syscall */
	const __u64 clone = 0x050f00000038b8ULL, clone3 = 0x050f000001b3b8ULL;
	__u64 code = 0;

	if (walk->registers[0] || bpf_probe_read_user(&code, 7, (void *)(walk->pc - 7)))
		return false;
	return code == clone || code == clone3;
}

/* Whether a goroutine ends there: its first function returns behind the first byte of runtime.goexit. */
static __always_inline bool is_goexit(__u64 address)
{
	__u8 code[2]; /* nop; call */

	return !bpf_probe_read_user(code, sizeof(code), (void *)(address - 1)) && code[0] == 0x90 &&
	       code[1] == 0xe8;
}

/*
 * Go to the caller of code that no table covers, where that can be done without guessing. `keeps_pointers`:
 * the code is of a kind that has frame pointers, so that 0 in rbp means the outermost frame.
 */
__noinline __u32 step_without_rule(__u32 keeps_pointers)
{
	/* mov $15, %rax; syscall: what a signal handler returns to, where libc gives it no rule */
	const __u64 sigreturn = 0x0f0000000fc0c748ULL;
	struct walk *walk = this_walk();
	__u64 saved[2]; /* rbp, return address */
	bool is_chain;

	if (!walk)
		return END_NO_ROW;
	if (walk->is_exact) {
		if (bpf_probe_read_user(saved, sizeof(__u64), (void *)walk->sp))
			return END_NOT_RESIDENT;
		if (follows_call(saved[0], walk->first, walk->count, false)) {
			walk->pc = saved[0];
			walk->sp += 8;
			walk->is_exact = false;
			walk->is_guessed |= !keeps_pointers;
			return WALK_GOES_ON;
		}
		if (walk->depth == 1 && is_thread_start(walk))
			return END_COMPLETE;
	} else if (!bpf_probe_read_user(saved, sizeof(__u64), (void *)walk->pc) && saved[0] == sigreturn) {
		return leave_signal_frame(walk);
	} else if (keeps_pointers && walk->is_bp_known && !walk->bp) {
		return END_COMPLETE;
	}
	if (is_program_start(walk, walk->sp) || is_program_start(walk, walk->sp + 8))
		return END_COMPLETE;
	if (!walk->is_bp_known || !walk->bp || walk->bp < walk->sp || (walk->bp & 7) ||
	    walk->bp - walk->sp > FARTHEST_FRAME)
		return END_NO_ROW;
	if (bpf_probe_read_user(saved, sizeof(saved), (void *)walk->bp))
		return END_NOT_RESIDENT;
	/* Functions that keep no frame pointer may have had any number in rbp. Then let it lie where a
	 * prologue leaves it, at a multiple of 16. */
	is_chain = !saved[0] || saved[0] > walk->bp;
	if ((is_chain || !(walk->bp & 15)) &&
	    follows_call(saved[1], walk->first, walk->count, is_chain)) {
		walk->is_guessed |= !keeps_pointers;
		walk->is_bx_known = false;
		walk->sp = walk->bp + 16;
		walk->bp = saved[0];
		walk->pc = saved[1];
		walk->is_exact = false;
		return WALK_GOES_ON;
	}
	if (!saved[0] && ((keeps_pointers && !saved[1]) || is_goexit(saved[1])))
		return END_COMPLETE;
	return END_NO_ROW;
}

/* The canonical frame address: the value of rsp before the call. 0: it cannot be told. */
static __always_inline __u64 frame_address(const struct walk *walk, const struct unwind_rule *rule)
{
	__u64 base = rule->cfa == CFA_RBP || rule->cfa == CFA_RBP_DEREF ? walk->bp : walk->sp;
	__u32 reg = rule->reg;

	switch (rule->cfa) {
	case CFA_PLT:
		return base + 8 + ((walk->pc & 15) >= (__u32)rule->offset ? 8 : 0);
	case CFA_RSP_DEREF:
	case CFA_RBP_DEREF:
		if (bpf_probe_read_user(&base, sizeof(base), (void *)(base + rule->offset)))
			return 0;
		return base + rule->deref;
	case CFA_REGISTER:
		if (reg == DWARF_RBX)
			return walk->bx + rule->offset;
		asm volatile("%0 &= 31" : "+r"(reg));
		if (reg >= UNWIND_REGISTERS)
			return 0;
		return walk->registers[reg] + rule->offset;
	default:
		return base + rule->offset;
	}
}

/* Go to the caller along a rule that finds the return address just below the frame address. */
static __always_inline __u32 leave_frame(struct walk *walk, const struct unwind_rule *rule)
{
	bool uses_bp = rule->cfa == CFA_RBP || rule->cfa == CFA_RBP_DEREF || rule->rbp == RBP_AT_RBP;
	__u64 saved[2]; /* rbp where it is saved most often, return address */
	__u64 cfa, below;

	if (uses_bp && !walk->is_bp_known)
		return END_UNSUPPORTED;
	if (rule->cfa == CFA_REGISTER && !(rule->reg == DWARF_RBX ? walk->is_bx_known : walk->depth == 1))
		return END_UNSUPPORTED;
	cfa = frame_address(walk, rule);
	if (!cfa)
		return END_NOT_RESIDENT;
	if (cfa < walk->sp || (cfa == walk->sp && !walk->is_exact))
		return END_NO_PROGRESS;
	/* both in one read, unless that would reach below the stack */
	below = rule->rbp == RBP_AT_CFA && rule->rbp_offset == -16 && cfa - 16 >= walk->sp ? 0 : 8;
	if (bpf_probe_read_user((char *)saved + below, sizeof(saved) - below, (void *)(cfa - 16 + below)))
		return END_NOT_RESIDENT;
	if (rule->rbp == RBP_AT_CFA || rule->rbp == RBP_AT_RBP) {
		__u64 base = rule->rbp == RBP_AT_CFA ? cfa : walk->bp;

		if (!below)
			walk->bp = saved[0];
		else if (bpf_probe_read_user(&walk->bp, sizeof(__u64), (void *)(base + rule->rbp_offset)))
			return END_NOT_RESIDENT;
		walk->is_bp_known = true;
	} else if (rule->rbp != RBP_SAME) {
		walk->is_bp_known = false;
	}
	if (rule->rbx == RBX_UNKNOWN) {
		walk->is_bx_known = false;
	} else if (rule->rbx != RBX_SAME) {
		if (bpf_probe_read_user(&walk->bx, sizeof(__u64), (void *)(cfa + rule->rbx)))
			return END_NOT_RESIDENT;
		walk->is_bx_known = true;
	}
	walk->sp = cfa;
	walk->pc = saved[1];
	walk->is_exact = false;
	return walk->pc ? WALK_GOES_ON : END_COMPLETE;
}

/* Go from a frame in a file to its caller. */
__noinline __u32 step_in_file(__u32 exe_index, __u64 file_offset)
{
	struct unwind_exe *exe = bpf_map_lookup_elem(&unwind_exes, &exe_index);
	struct walk *walk = this_walk();
	struct unwind_rule *rule;
	__u32 index;

	if (!exe || !walk)
		return END_NO_ROW;
	if (exe->state == EXE_WAITING) {
		exe->wanted = 1;
		return END_NOT_READY;
	}
	if (exe->state != EXE_READY)
		return step_without_rule(exe->keeps_pointers);
	index = find_rule(exe_index, file_offset);
	rule = bpf_map_lookup_elem(&unwind_rules, &index);
	if (!rule || rule->cfa == CFA_NONE)
		return step_without_rule(exe->keeps_pointers);
	switch (rule->cfa) {
	case CFA_BOTTOM:
		return END_COMPLETE;
	case CFA_SIGNAL:
		return leave_signal_frame(walk);
	case CFA_UNSUPPORTED:
		return END_UNSUPPORTED;
	default:
		return leave_frame(walk, rule);
	}
}

/* Note one frame and go to its caller: WALK_GOES_ON, or why the walk ends here. */
__noinline __u32 step(__u32 max_depth)
{
	__u32 zero = 0, depth, index;
	struct stack *stack = bpf_map_lookup_elem(&scratch, &zero);
	struct walk *walk = this_walk();
	struct unwind_mapping *mapping;
	__u64 address, file_offset;

	if (!stack || !walk)
		return END_NO_ROW;
	depth = walk->depth;
	if (depth >= max_depth || depth >= MAX_FRAMES)
		return END_TOO_DEEP;
	address = walk->pc - !walk->is_exact;
	mapping = bpf_map_lookup_elem(&unwind_mappings, &walk->mapping);
	if (!mapping || address < mapping->start || address >= mapping->limit) {
		index = find_mapping(address, walk->first, walk->count);
		mapping = bpf_map_lookup_elem(&unwind_mappings, &index);
		if (!mapping)
			return END_NO_MAPPING;
		walk->mapping = index;
	}
	asm volatile("%0 &= 127" : "+r"(depth));
	if (depth >= MAX_FRAMES)
		return END_TOO_DEEP;
	walk->depth = depth + 1;
	if (mapping->kind != MAPPING_FILE) {
		stack->addresses[depth] = address;
		return mapping->kind == MAPPING_ANONYMOUS ? step_without_rule(true) : END_UNSUPPORTED;
	}
	file_offset = address - mapping->start + mapping->file_offset;
	stack->addresses[depth] = FRAME_FILE_BIT | (__u64)mapping->exe << FRAME_FILE_SHIFT | file_offset;
	return step_in_file(mapping->exe, file_offset);
}

/* Take the registers of `task` in user mode; false where it has no 64-bit code. */
static __always_inline bool unwind_begin(struct walk *walk, struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	if ((__u16)regs->cs != USER_CODE_64)
		return false;
	walk->registers[0] = regs->ax;
	walk->registers[1] = regs->dx;
	walk->registers[2] = regs->cx;
	walk->registers[DWARF_RBX] = walk->bx = regs->bx;
	walk->registers[4] = regs->si;
	walk->registers[5] = regs->di;
	walk->registers[DWARF_RBP] = walk->bp = regs->bp;
	walk->registers[DWARF_RSP] = walk->sp = regs->sp;
	walk->registers[8] = regs->r8;
	walk->registers[9] = regs->r9;
	walk->registers[10] = regs->r10;
	walk->registers[11] = regs->r11;
	walk->registers[12] = regs->r12;
	walk->registers[13] = regs->r13;
	walk->registers[14] = regs->r14;
	walk->registers[15] = regs->r15;
	walk->registers[DWARF_RIP] = walk->pc = regs->ip;
	walk->is_bp_known = walk->is_bx_known = true;
	walk->is_exact = true;
	walk->is_guessed = false;
	walk->depth = 0;
	return true;
}

/* Whether the mappings that are there are those of this process and of its program image. */
static __always_inline bool are_current(const struct unwind_process *process, __u64 start_ns,
					const struct image *image)
{
	if (start_ns < process->earliest_ns || start_ns > process->latest_ns)
		return false;
	if (!image)
		return true;
	return process->exec_ns > image->previous_ns && process->exec_ns <= image->since_ns;
}

/* Walk from the registers in `walk`; the frames are in `scratch`, their number in walk->depth. */
static __always_inline enum unwind_end unwind_user_stack(struct walk *walk, __u32 pid, __u64 start_ns,
							 const struct image *image, __u32 max_depth)
{
	struct unwind_process *process = bpf_map_lookup_elem(&unwind_processes, &pid);
	__u32 end = WALK_GOES_ON;

	if (!process || !are_current(process, start_ns, image))
		return END_NOT_READY;
	walk->first = process->first;
	walk->count = process->count;
	walk->mapping = NOT_FOUND;
	for (int i = 0; i <= MAX_FRAMES; i++) {
		end = step(max_depth);
		if (end != WALK_GOES_ON)
			break;
	}
	process = bpf_map_lookup_elem(&unwind_processes, &pid);
	if (!process || process->first != walk->first || process->count != walk->count)
		return END_NOT_READY; /* its mappings changed meanwhile */
	if (end == END_NO_MAPPING && process->copies) { /* it may have been mapped just now */
		process->copies--;
		return END_NOT_READY;
	}
	return end == END_COMPLETE && walk->is_guessed ? END_GUESSED : end;
}

#endif
