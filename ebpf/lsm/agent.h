/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who is asking?
 *
 * A task carries its agent in task storage: set by the launcher before the agent's first instruction, copied by
 * task_alloc, never taken away. The second witness is the cgroup: a task below the agents' cgroup that carries nothing
 * was not set up by us, and may neither fork nor exec (processes.h).
 */
#ifndef AGENTD_AGENT_H
#define AGENTD_AGENT_H

#include "cgroup.h"

/* A task that is inside an agent. `agent` is NULL if its slot now belongs to somebody else: everything is refused. */
struct asker {
	struct agentd_agent *agent;
	__u32 slot;
	__u32 number;
};

static __always_inline bool fill(struct asker *who, const struct agentd_identity *id)
{
	__u32 slot;

	if (!id)
		return false;
	slot = id->slot;
	who->slot = slot;
	who->number = id->number;
	who->agent = bpf_map_lookup_elem(&agents, &slot);
	if (who->agent && who->agent->number != who->number)
		who->agent = NULL;
	return true;
}

/* Is the current task inside an agent? Outside, this one lookup is all that a hook costs. */
static __always_inline bool inside(struct asker *who)
{
	return fill(who, bpf_task_storage_get(&task_agent, bpf_get_current_task_btf(), 0, 0));
}

/* Does that task belong to the same agent? */
static __always_inline bool same_agent(const struct asker *who, struct task_struct *task)
{
	struct agentd_identity *id = bpf_task_storage_get(&task_agent, task, 0, 0);

	return id && id->slot == who->slot && id->number == who->number;
}

/* Is the current task below the agents' cgroup? Two helper calls; only asked where processes begin. */
static __always_inline bool in_agents_cgroup(void)
{
	if (!settings.agents_cgroup || !settings.agents_level)
		return false;
	if (bpf_get_current_ancestor_cgroup_id(settings.agents_level - 1) != settings.agents_cgroup)
		return false;
	return bpf_get_current_ancestor_cgroup_id(settings.agents_level) != 0;
}

#endif
