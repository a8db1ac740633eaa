/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Stacks by a hash of all their words, so that no two distinct stacks share a place. */
#ifndef PYPROF_STACKS_BPF_H
#define PYPROF_STACKS_BPF_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384); /* set before load */
	__type(key, __u64);
	__type(value, struct stack);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stack);
} scratch SEC(".maps");

/* The hash of the first `depth` addresses in `scratch`. A global function: the verifier walks its loop
 * once, and no state of it reaches the callers. */
__noinline __u64 hash_stack(__u32 depth)
{
	__u64 hash = 0x9e3779b97f4a7c15ULL ^ depth;
	__u32 zero = 0;
	struct stack *stack = bpf_map_lookup_elem(&scratch, &zero);

	if (!stack)
		return 0;
	for (__u32 i = 0; i < MAX_FRAMES; i++) {
		if (i >= depth)
			break;
		hash = (hash ^ stack->addresses[i]) * 0xff51afd7ed558ccdULL;
		hash ^= hash >> 32;
	}
	return hash | STACK_ID_BIT;
}

/* The id of the stack in `scratch`, `depth` frames deep, entered into `stacks` if it is new. */
__noinline __u64 stack_id(__u32 depth)
{
	__u32 zero = 0, last = depth - 1;
	struct stack *stack = bpf_map_lookup_elem(&scratch, &zero);
	struct stack *known;
	__u64 hash;

	if (!stack || last >= MAX_FRAMES)
		return STACK_UNREADABLE;
	hash = hash_stack(depth);
	known = bpf_map_lookup_elem(&stacks, &hash);
	if (!known) {
		stack->depth = depth;
		if (!bpf_map_update_elem(&stacks, &hash, stack, BPF_NOEXIST))
			return hash;
		known = bpf_map_lookup_elem(&stacks, &hash); /* another CPU may have been first */
		if (!known)
			return STACK_MAP_FULL;
	}
	if (known->depth != depth || known->addresses[0] != stack->addresses[0] ||
	    known->addresses[last] != stack->addresses[last])
		return STACK_COLLISION;
	return hash;
}

#endif
