/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps that a walk reads, and the searches in them. Each is a global function: the verifier checks it
 * once, on its own.
 */
#ifndef PYPROF_UNWIND_SEARCH_BPF_H
#define PYPROF_UNWIND_SEARCH_BPF_H

#include "unwind.h"

#define MAX_MAPPINGS_SHIFT 14
#define NOT_FOUND 0xffffffffU

/* a >= b, 1 or 0, for numbers below 2^63. Without a branch: at each, the verifier would go both ways. */
static __always_inline __u64 not_below(__u64 a, __u64 b)
{
	__u64 difference = a - b;

	asm volatile("" : "+r"(difference)); /* or clang sees through it and makes a branch */
	return 1 - (difference >> 63);
}

#define MMAPABLE_ARRAY(name, type_, entries)                                                       \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(map_flags, BPF_F_MMAPABLE);                                                 \
		__uint(max_entries, entries);                                                      \
		__type(key, __u32);                                                                \
		__type(value, struct type_);                                                       \
	} name SEC(".maps")

/* Sizes are set before load. */
MMAPABLE_ARRAY(unwind_exes, unwind_exe, 1);
MMAPABLE_ARRAY(unwind_blocks, unwind_block, 1);
MMAPABLE_ARRAY(unwind_rows, unwind_chunk, 1);
MMAPABLE_ARRAY(unwind_rules, unwind_rule, 1);
MMAPABLE_ARRAY(unwind_mappings, unwind_mapping, 1);

/* The index of the mapping that holds `address`, among `count` from `first` on. */
__noinline __u32 find_mapping(__u64 address, __u32 first, __u32 count)
{
	struct unwind_mapping *mapping;
	__u64 below = 0; /* so many mappings start at or below the address */

	if (address >> 63)
		return NOT_FOUND;
	for (int shift = MAX_MAPPINGS_SHIFT - 1; shift >= 0; shift--) {
		__u64 middle = below + (1U << shift);
		__u32 index = first + (__u32)middle - 1;

		mapping = bpf_map_lookup_elem(&unwind_mappings, &index);
		if (mapping)
			below += (not_below(count, middle) & not_below(address, mapping->start)) << shift;
	}
	if (!below)
		return NOT_FOUND;
	first += (__u32)below - 1;
	mapping = bpf_map_lookup_elem(&unwind_mappings, &first);
	return mapping && address >= mapping->start && address < mapping->limit ? first : NOT_FOUND;
}

/* The index of the rule for a file offset in an exe whose table is ready; NOT_FOUND outside the table. */
__noinline __u32 find_rule(__u32 exe_index, __u64 file_offset)
{
	struct unwind_exe *exe = bpf_map_lookup_elem(&unwind_exes, &exe_index);
	__u32 offset = file_offset & ((1 << UNWIND_BLOCK_SHIFT) - 1);
	__u64 number = file_offset >> UNWIND_BLOCK_SHIFT;
	__u32 index, first, count;
	__u64 below = 0; /* so many rows of the block begin at or below the offset */
	struct unwind_block *block;
	struct unwind_chunk *chunk;

	if (!exe)
		return NOT_FOUND;
	number -= exe->first_block;
	if (number >= exe->block_count)
		return NOT_FOUND;
	index = exe->blocks_at + (__u32)number;
	block = bpf_map_lookup_elem(&unwind_blocks, &index);
	if (!block)
		return NOT_FOUND;
	count = block->count;
	first = block->first;
	index = exe->chunks_at + (first >> UNWIND_CHUNK_SHIFT);
	chunk = bpf_map_lookup_elem(&unwind_rows, &index);
	if (!chunk)
		return count ? NOT_FOUND : exe->rules_at + block->rule;
	for (int shift = UNWIND_CHUNK_SHIFT - 1; shift >= 0; shift--) {
		__u64 middle = below + (1U << shift);
		__u64 place = first + middle - 1;

		asm volatile("%0 &= 1023" : "+r"(place));
		below += (not_below(count, middle) & not_below(offset, chunk->rows[place] & 0xffff)) << shift;
	}
	if (!below)
		return exe->rules_at + block->rule;
	first += (__u32)below - 1;
	asm volatile("%0 &= 1023" : "+r"(first));
	return exe->rules_at + (chunk->rows[first] >> 16);
}

/*
 * Whether `address` can be one that a call returns to: executable, and behind a call instruction, which
 * `trusts_jit` does not ask of code without a file: interpreters push return addresses of their own.
 *
 *   e8 xx xx xx xx        call rel32                         ff /2 [sib] [disp8|disp32]   call *...
 */
__noinline __u32 follows_call(__u64 address, __u32 first, __u32 count, __u32 trusts_jit)
{
	__u32 index = find_mapping(address - 1, first, count);
	struct unwind_mapping *mapping = bpf_map_lookup_elem(&unwind_mappings, &index);
	__u8 code[8]; /* code[7] is the last byte of the call */

	if (!mapping)
		return 0;
	if (trusts_jit && mapping->kind == MAPPING_ANONYMOUS)
		return 1;
	if (bpf_probe_read_user(code, sizeof(code), (void *)(address - sizeof(code))))
		return 0;
	if (code[3] == 0xe8)
		return 1;
	return (code[6] == 0xff && (code[7] & 0x38) == 0x10) ||
	       (code[5] == 0xff && (code[6] & 0x38) == 0x10) ||
	       (code[4] == 0xff && (code[5] & 0x38) == 0x10) ||
	       (code[2] == 0xff && (code[3] & 0x38) == 0x10) ||
	       (code[1] == 0xff && (code[2] & 0x38) == 0x10);
}

#endif
