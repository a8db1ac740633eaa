/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Samples that are handed over to user space, with registers and stack. Wants unwind.bpf.h before it. */
#ifndef PYPROF_COPY_BPF_H
#define PYPROF_COPY_BPF_H

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set before load */
} copies SEC(".maps");

/* Where a copy is put together; one for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set before load */
	__type(key, __u32);
	__type(value, struct copied_sample);
} copy_rooms SEC(".maps");

/*
 * Hand the sample over to user space, with its registers and so many pages of its stack, those left out that
 * cannot be read. 0 when there is no room.
 */
__noinline __u32 copy_stack(__u32 pages)
{
	__u32 cpu = bpf_get_smp_processor_id(), bytes = 0, at = 0, piece;
	struct copied_sample *sample = bpf_map_lookup_elem(&copy_rooms, &cpu);
	struct walk *walk = this_walk();
	__u64 start;

	if (!sample || !walk)
		return 0;
	__builtin_memcpy(sample->copy.registers, walk->registers, sizeof(walk->registers));
	sample->copy.holes = 0;
	start = walk->registers[DWARF_RSP] - RED_ZONE_BYTES;
	piece = 4096 - (start & 4095);
	for (__u32 i = 0; i < COPY_PAGES; i++) {
		if (i >= pages)
			break;
		asm volatile("%0 &= 65535" : "+r"(at));
		asm volatile("%0 &= 8191" : "+r"(piece));
		if (piece > 4096)
			break;
		if (bpf_probe_read_user(sample->copy.stack + at, piece, (void *)(start + at)))
			sample->copy.holes |= 1U << i;
		else
			bytes = at + piece;
		at += piece;
		piece = 4096;
	}
	sample->copy.bytes = bytes;
	asm volatile("%0 &= 131071" : "+r"(bytes));
	if (bytes > COPY_PAGES * 4096)
		return 0;
	return !bpf_ringbuf_output(&copies, sample, offsetof(struct copied_sample, copy.stack) + bytes, 0);
}

static __always_inline bool hand_over(const struct sample_key *key, __u32 pages)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct copied_sample *sample = bpf_map_lookup_elem(&copy_rooms, &cpu);

	if (!sample)
		return false;
	sample->key = *key;
	sample->time_ns = bpf_ktime_get_boot_ns();
	return copy_stack(pages);
}

#endif
