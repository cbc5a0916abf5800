/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whose cgroup is this?
 *
 * Agents' cgroups are the children of one cgroup; what lies deeper belongs to the agent above it. Pointers from the
 * kernel's own structures are read directly (a bad one reads as 0), so the way up costs about 2 ns a level.
 */
#ifndef AGENTD_CGROUP_H
#define AGENTD_CGROUP_H

/* Levels below an agent's cgroup that are looked at; the loader sets no limit on depth, so deeper is nobody's. */
#define MAX_CGROUP_DEPTH 32

/* Id of the agent's cgroup that this one is or lies in; 0: none. */
static __always_inline __u64 agent_cgroup_id(struct cgroup *cgroup)
{
	int level = cgroup->level;

	if (!settings.agents_level || level < (int)settings.agents_level)
		return 0;
	for (int i = 0; i < MAX_CGROUP_DEPTH && level > (int)settings.agents_level; i++) {
		cgroup = cgroup->self.parent->cgroup;
		level--;
	}
	if (level != (int)settings.agents_level || cgroup->self.parent->cgroup->kn->id != settings.agents_cgroup)
		return 0;
	return cgroup->kn->id;
}

#endif
