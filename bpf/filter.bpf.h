/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose samples are taken: the conditions of `settings`, all of which must hold. */
#ifndef PYPROF_FILTER_BPF_H
#define PYPROF_FILTER_BPF_H

#define MAX_PIDNS_LEVEL 32 /* include/linux/pid_namespace.h */
#define NS_PER_TICK 10000000ULL /* USER_HZ is 100 on every architecture we build for */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384); /* set before load; preallocated: perf events before 6.1 want it so */
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} cgroup SEC(".maps");

/* Processes that work for pyprof. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} own_pids SEC(".maps");

/* The number of `task` in pyprof's pid namespace; 0 when it is not visible from there. */
static __always_inline __u32 visible_pid(struct task_struct *task)
{
	struct upid upid;
	struct pid *pid;
	__u32 level;

	if (!settings.pidns_inum)
		return task->pid;
	pid = BPF_CORE_READ(task, thread_pid);
	if (!pid)
		return 0;
	level = BPF_CORE_READ(pid, level);
	for (__u32 i = 1; i <= MAX_PIDNS_LEVEL; i++) {
		if (i > level)
			break;
		bpf_probe_read_kernel(&upid, sizeof(upid), &pid->numbers[i]);
		if (BPF_CORE_READ(upid.ns, ns.inum) == settings.pidns_inum)
			return upid.nr;
	}
	return 0;
}

static __always_inline bool is_target(__u32 pid, struct task_struct *task)
{
	struct target *target = bpf_map_lookup_elem(&targets, &pid);

	if (!target || target->awaits_exec)
		return false;
	return !target->start_ticks || target->start_ticks == task->start_boottime / NS_PER_TICK;
}

static __always_inline bool comm_matches(const char *comm)
{
	for (int i = 0; i < COMM_BYTES; i++) {
		if (comm[i] != settings.comm[i])
			return false;
		if (!comm[i])
			return true;
	}
	return true;
}

static __always_inline bool is_wanted(struct task_struct *task, struct task_struct *leader,
				      const struct sample_key *key, __u32 tid)
{
	if (settings.user_threads && (task->flags & PF_KTHREAD))
		return false;
	if (settings.kernel_threads && !(task->flags & PF_KTHREAD))
		return false;
	if (settings.filter_processes && !is_target(key->pid, leader))
		return false;
	if (settings.filter_threads && !is_target(tid, task))
		return false;
	if (settings.filter_comm && !comm_matches(key->comm))
		return false;
	if (settings.filter_cgroup && bpf_current_task_under_cgroup(&cgroup, 0) != 1)
		return false;
	return true;
}

#endif
