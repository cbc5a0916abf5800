/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How much CPU time has the agent used, and is that enough?
 *
 *   sched_stat_runtime  adds every slice of run time to the agent of the task's cgroup; warns once, marks exhausted once,
 *                       and past limit + grace sends SIGKILL to whoever runs
 *
 * The scheduler calls it with its lock held, at every tick, switch and wake-up of a task of the fair class (before 6.7
 * only of that class, which is why agents get no other: processes.h). The sum equals cpu.stat. Outside every agent it
 * costs a few loads; nothing is looked up.
 */
#define AGENTD_BUDGET_ONLY
#include "kernel.h"
#include "maps.h"

#include "cgroup.h"
#include "report.h"

char LICENSE[] SEC("license") = "GPL";

/* agentd_agent.exhausted after SIGKILL was sent once; anything but 0 refuses. */
#define EXHAUSTED 1
#define KILLED 2

static __always_inline void report_budget(const struct agentd_agent *agent, __u32 kind, __u64 spent, __u64 limit)
{
	struct agentd_budget_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	/* Full: the daemon also reads the slot when it wakes up, and the kernel refuses and kills without it. */
	if (!event)
		return;
	head(&event->head, kind, agent);
	event->spent_ns = spent;
	event->limit_ns = limit;
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
}

static __always_inline void exhaust(struct agentd_agent *agent, __u64 spent)
{
	volatile __u64 *limit = &agent->cpu_limit_ns;

	if (!__sync_bool_compare_and_swap(&agent->exhausted, 0, EXHAUSTED))
		return;
	/* A top-up between our look at the limit and the mark: take the mark back. */
	if (!*limit || spent < *limit) {
		agent->exhausted = 0;
		return;
	}
	agent->exhausted_at_ns = bpf_ktime_get_ns();
	report_budget(agent, AGENTD_EV_CPU_EXHAUSTED, spent, *limit);
}

SEC("tp_btf/sched_stat_runtime")
int BPF_PROG(charge, struct task_struct *p, __u64 runtime)
{
	__u64 id = agent_cgroup_id(p->cgroups->dfl_cgrp);
	struct agentd_agent *agent;
	__u64 spent;
	__u32 *slot;

	if (!id)
		return 0;
	slot = bpf_map_lookup_elem(&cgroup_agents, &id);
	if (!slot)
		return 0;
	agent = bpf_map_lookup_elem(&agents, slot);
	if (!agent || agent->cgroup_id != id)
		return 0;

	spent = __sync_fetch_and_add(&agent->cpu_spent_ns, runtime) + runtime;
	if (agent->cpu_warn_ns && spent >= agent->cpu_warn_ns &&
	    __sync_bool_compare_and_swap(&agent->warned, 0, 1))
		report_budget(agent, AGENTD_EV_CPU_WARN, spent, agent->cpu_limit_ns);
	if (!agent->cpu_limit_ns || spent < agent->cpu_limit_ns)
		return 0;
	if (!agent->exhausted)
		exhaust(agent, spent);
	/* Nobody froze it. The signal goes to the whole process that runs; its siblings get theirs when they run. */
	if (agent->cpu_kill_ns && spent >= agent->cpu_kill_ns && p->pid == (__s32)bpf_get_current_pid_tgid()) {
		if (__sync_bool_compare_and_swap(&agent->exhausted, EXHAUSTED, KILLED))
			report_budget(agent, AGENTD_EV_CPU_KILLED, spent, agent->cpu_limit_ns);
		bpf_send_signal(SIGKILL);
	}
	return 0;
}
