// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * On-CPU sampling: each tick of a perf event adds one to the count of (process, thread, comm, user
 * stack, kernel stack). Stacks are kept by a 64-bit hash of all their addresses, so no two distinct
 * stacks share a place, and each way to lose one is counted.
 */
#include <stddef.h>

#include "kernel_types.h"
#include "cpu.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define LONGEST_EXEC_NS 50000000ULL /* between perf's event of an execve and its tracepoint */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct cpu_settings settings = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384); /* set before load */
	__type(key, struct sample_key);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STAT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

/* Kept with a process's main thread. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct image);
} images SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} verify_turns SEC(".maps");

#include "filter.bpf.h"
#include "stacks.bpf.h"
#include "unwind.bpf.h"
#include "copy.bpf.h"

static __always_inline void add_stat(__u32 index)
{
	__u64 *value = bpf_map_lookup_elem(&stats, &index);

	if (value)
		*value += 1;
}

/*
 * Whether the tick hit user code, which has no kernel stack to walk. The context begins with the
 * registers: struct pt_regs on x86 (cs is the 18th), struct user_pt_regs on arm64 (pstate the 34th).
 */
static __always_inline bool in_user_mode(struct bpf_perf_event_data *ctx)
{
#if defined(__TARGET_ARCH_x86)
	return ((__u64 *)ctx)[17] & 3;
#elif defined(__TARGET_ARCH_arm64)
	return !(((__u64 *)ctx)[33] & 0xf);
#else
#error "say how user mode looks in the registers of this architecture"
#endif
}

/* The id of the current stack: the user's for BPF_F_USER_STACK, the kernel's for 0. */
static __always_inline __u64 walk_by_kernel(struct bpf_perf_event_data *ctx, __u64 flags)
{
	__u32 zero = 0;
	struct stack *stack = bpf_map_lookup_elem(&scratch, &zero);
	long size;

	if (!stack)
		return STACK_UNREADABLE;
	size = bpf_get_stack(ctx, stack->addresses, settings.max_depth * sizeof(__u64), flags);
	if (size <= 0)
		return STACK_NONE;
	return stack_id((__u32)size / sizeof(__u64));
}

/* Add one to the count of `key`; false when there is no room for it. */
static __always_inline bool count(struct sample_key *key)
{
	__u64 one = 1;
	__u64 *value = bpf_map_lookup_elem(&counts, key);

	if (!value) {
		if (!bpf_map_update_elem(&counts, key, &one, BPF_NOEXIST))
			return true;
		value = bpf_map_lookup_elem(&counts, key); /* another CPU may have been first */
		if (!value)
			return false;
	}
	__sync_fetch_and_add(value, 1);
	return true;
}

/* Say what became of a sample: each is one of these, and a counted one lost at most one kind of stack. */
static __always_inline void note_outcome(const struct sample_key *key, bool counted)
{
	if (!counted) {
		add_stat(STAT_LOST_COUNTS);
		return;
	}
	add_stat(STAT_COUNTED);
	if (key->user_stack == STACK_MAP_FULL || key->kernel_stack == STACK_MAP_FULL)
		add_stat(STAT_LOST_STACKS);
	else if (key->user_stack == STACK_COLLISION || key->kernel_stack == STACK_COLLISION)
		add_stat(STAT_COLLISIONS);
	else if (key->user_stack == STACK_UNREADABLE)
		add_stat(STAT_UNREADABLE);
}

/* Whether perf is to write a record of this sample too, with its own copy of registers and stack. */
static __always_inline bool is_to_be_verified(const struct sample_key *key)
{
	__u32 zero = 0;
	__u64 *taken;

	if (!settings.verify_stride || key->user_end == END_BY_KERNEL || key->user_end == END_32_BIT ||
	    key->user_end == END_NOT_READY)
		return false;
	taken = bpf_map_lookup_elem(&verify_turns, &zero);
	return taken && (*taken)++ % settings.verify_stride == 0;
}

/* Put the user stack's id, and how its walk ended, into the key. */
static __always_inline void walk_user_stack(struct bpf_perf_event_data *ctx, struct task_struct *task,
					    const struct image *image, struct sample_key *key)
{
	struct walk *walk = this_walk();

	if (settings.unwind_tables && walk && unwind_begin(walk, task)) {
		key->user_end = unwind_user_stack(walk, key->pid, key->start_ns, image, settings.max_depth);
		if (key->user_end != END_COMPLETE && BPF_CORE_READ_BITFIELD(task, in_execve)) {
			key->user_end = END_BY_KERNEL; /* the old stack is gone, the new one not there yet */
			key->user_stack = STACK_NONE;
			return;
		}
	} else {
		key->user_stack = walk_by_kernel(ctx, BPF_F_USER_STACK);
		if (settings.unwind_tables)
			key->user_end = END_32_BIT;
	}
	if (key->user_stack == STACK_NONE)
		key->user_stack = STACK_UNREADABLE;
}

/* The id of the stack that was walked along tables. */
static __always_inline __u64 walked_stack_id(void)
{
	struct walk *walk = this_walk();

	return walk && walk->depth ? stack_id(walk->depth) : STACK_UNREADABLE;
}

SEC("perf_event")
int sample_cpu(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;
	struct sample_key key = {};
	struct image *image;
	__u32 tid;

	add_stat(STAT_TAKEN);
	if (!settings.include_idle && !task->pid) {
		add_stat(STAT_IDLE);
		return 0;
	}
	key.pid = visible_pid(leader);
	if (key.pid && (key.pid == settings.self_pid || bpf_map_lookup_elem(&own_pids, &key.pid))) {
		add_stat(STAT_OWN);
		return 0;
	}
	tid = visible_pid(task);
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	if (!is_wanted(task, leader, &key, tid)) {
		add_stat(STAT_EXCLUDED);
		return 0;
	}
	if (settings.per_thread)
		key.tid = tid;
	key.start_ns = leader->start_boottime;
	image = bpf_task_storage_get(&images, leader, NULL, 0);
	if (image)
		key.image_ns = image->since_ns;
	if (settings.kernel_stacks && !in_user_mode(ctx))
		key.kernel_stack = walk_by_kernel(ctx, 0);
	if (settings.user_stacks && task->mm) {
		walk_user_stack(ctx, task, image, &key);
		if (key.user_end == END_NOT_READY && key.pid && hand_over(&key, COPY_PAGES)) {
			add_stat(STAT_COUNTED);
			add_stat(STAT_COPIED);
			return 0;
		}
		if (key.user_end != END_BY_KERNEL && key.user_end != END_32_BIT)
			key.user_stack = walked_stack_id();
	}
	note_outcome(&key, count(&key));
	return is_to_be_verified(&key) && hand_over(&key, 0);
}

/* The children of a profiled process are profiled too. Loaded only for a launched command. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(follow_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 parent_pid = visible_pid(parent->group_leader);
	__u32 child_pid = visible_pid(child);
	struct target target = {};

	if (child->pid != child->tgid || !is_target(parent_pid, parent->group_leader))
		return 0;
	target.start_ticks = child->start_boottime / NS_PER_TICK;
	if (bpf_map_update_elem(&targets, &child_pid, &target, BPF_ANY))
		add_stat(STAT_FORKS_MISSED);
	return 0;
}

/* Make room for others. At exit would be too early: tearing down its memory is the process's time. */
SEC("tp_btf/sched_process_free")
int BPF_PROG(forget_process, struct task_struct *task)
{
	__u32 pid = visible_pid(task);
	struct target *target = bpf_map_lookup_elem(&targets, &pid);

	if (target && target->start_ticks == task->start_boottime / NS_PER_TICK)
		bpf_map_delete_elem(&targets, &pid);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(note_exec, struct task_struct *task, int old_pid, struct linux_binprm *binprm)
{
	struct target *target;
	struct image *image = bpf_task_storage_get(&images, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	__u32 pid;

	if (image) {
		__u64 now_ns = bpf_ktime_get_boot_ns();

		/* A thread that takes the main one's place knows nothing of images before. */
		image->previous_ns = old_pid == task->pid ? image->since_ns : now_ns - LONGEST_EXEC_NS;
		image->since_ns = now_ns;
	} else {
		add_stat(STAT_EXECS_MISSED);
	}
	pid = visible_pid(task);
	target = bpf_map_lookup_elem(&targets, &pid);
	if (target)
		target->awaits_exec = 0;
	return 0;
}
