/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who may begin, and who may touch whom?
 *
 *   task_alloc           a child is of its parent's agent, or is not born; no child when exhausted
 *   ptrace_access_check  ptrace, process_vm_*, /proc/PID of a stranger
 *   ptrace_traceme       being traced by a stranger
 *   task_kill            a signal to a stranger; the kernel's own and those from outside pass
 *   task_setscheduler    a stranger's policy or affinity; one's own where real-time is out of reach
 *   task_setnice, task_setioprio, task_setrlimit, task_movememory    of a stranger
 */

SEC("lsm/task_alloc")
int BPF_PROG(fork_check, struct task_struct *task, unsigned long clone_flags, int ret)
{
	struct agentd_identity id;
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return in_agents_cgroup() ? -EPERM : 0;
	if (!who.agent)
		return -EPERM;
	if (who.agent->exhausted) {
		report_guard(who.agent, AGENTD_H_FORK, AGENTD_WHY_EXHAUSTED, 0, 0);
		return -EPERM;
	}
	id.slot = who.slot;
	id.number = who.number;
	if (!bpf_task_storage_get(&task_agent, task, &id, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return -EAGAIN;
	return 0;
}

static __always_inline int refuse_stranger(const struct asker *who, __u32 hook, __u64 pid, __u64 detail)
{
	report_guard(who->agent, hook, AGENTD_WHY_STRANGER, pid, detail);
	return -EPERM;
}

/* 0 if the other task is of the same agent, or if nobody's agent asks. */
static __always_inline int own_only(struct task_struct *task, __u32 hook, __u64 detail)
{
	struct asker who;

	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (same_agent(&who, task))
		return 0;
	return refuse_stranger(&who, hook, task->tgid, detail);
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_check, struct task_struct *child, unsigned int mode, int ret)
{
	return ret ?: own_only(child, AGENTD_H_PTRACE, mode);
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(traceme_check, struct task_struct *parent, int ret)
{
	return ret ?: own_only(parent, AGENTD_H_PTRACE, 0);
}

SEC("lsm/task_kill")
int BPF_PROG(kill_check, struct task_struct *p, void *info, int sig, const struct cred *cred, int ret)
{
	return ret ?: own_only(p, AGENTD_H_SIGNAL, sig);
}

/*
 * The hook is not told the policy. It need not be: if the task may not have a real-time priority (RLIMIT_RTPRIO 0) and
 * the asker has not CAP_SYS_NICE, the kernel refuses SCHED_FIFO, SCHED_RR and SCHED_DEADLINE by itself, and what is left
 * (batch, idle, affinity) stays in the fair class, whose time is counted. An agent that has one of them was set up
 * wrongly and changes no policy at all.
 */
SEC("lsm/task_setscheduler")
int BPF_PROG(scheduler_check, struct task_struct *p, int ret)
{
	unsigned long realtime = 1;
	__u64 caps = ~0ULL;
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (!same_agent(&who, p))
		return refuse_stranger(&who, AGENTD_H_SCHEDULER, p->tgid, 0);
	bpf_core_read(&realtime, sizeof(realtime), &p->signal->rlim[RLIMIT_RTPRIO].rlim_cur);
	bpf_core_read(&caps, sizeof(caps), &bpf_get_current_task_btf()->cred->cap_effective);
	if (!realtime && !(caps & (1ULL << CAP_SYS_NICE)))
		return 0;
	report_guard(who.agent, AGENTD_H_SCHEDULER, AGENTD_WHY_GUARD, p->tgid, 0);
	return -EPERM;
}

SEC("lsm/task_setnice")
int BPF_PROG(nice_check, struct task_struct *p, int nice, int ret)
{
	return ret ?: own_only(p, AGENTD_H_SCHEDULER, 0);
}

SEC("lsm/task_setioprio")
int BPF_PROG(ioprio_check, struct task_struct *p, int ioprio, int ret)
{
	return ret ?: own_only(p, AGENTD_H_SCHEDULER, 0);
}

SEC("lsm/task_setrlimit")
int BPF_PROG(rlimit_check, struct task_struct *p, unsigned int resource, struct rlimit *limit, int ret)
{
	return ret ?: own_only(p, AGENTD_H_SCHEDULER, resource);
}

SEC("lsm/task_movememory")
int BPF_PROG(movememory_check, struct task_struct *p, int ret)
{
	return ret ?: own_only(p, AGENTD_H_SCHEDULER, 0);
}
