/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Does this kernel take such a program, and call it?
 *
 *   task_getpgid        marks that it was called; the prober calls getpgid(2) itself
 *   sched_stat_runtime  does nothing
 *
 * Loaded and attached for a moment, one at a time. Configuration files and /sys/kernel/security/lsm only say what ought
 * to work: some hosts list `bpf` there and refuse every LSM program, others attach them and never call them.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

/* 1: the program was called. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} called SEC(".maps");

SEC("?lsm/task_getpgid")
int BPF_PROG(probe_lsm, struct task_struct *p, int ret)
{
	__u32 zero = 0, *flag = bpf_map_lookup_elem(&called, &zero);

	if (flag)
		*flag = 1;
	return ret;
}

SEC("?tp_btf/sched_stat_runtime")
int BPF_PROG(probe_budget, struct task_struct *p, __u64 runtime)
{
	return 0;
}
