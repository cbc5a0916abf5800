/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which maps do the programs and the daemon share?
 *
 * Every map here is pinned by its name, so that objects loaded apart (guard, budget, the network programs) and a daemon
 * that comes back see the same ones. What happens when a map is full stands beside it: never is anything allowed that
 * would have been refused.
 */
#ifndef AGENTD_MAPS_H
#define AGENTD_MAPS_H

/* trial.bpf.c has maps of its own. */
#ifdef AGENTD_PRIVATE_MAPS
#define AGENTD_PINNED
#else
#define AGENTD_PINNED __uint(pinning, LIBBPF_PIN_BY_NAME);
#endif

/* The agents, by slot. Full: the daemon refuses to spawn. Mapped into the daemon, so that both sides can add to it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, AGENTD_MAX_AGENTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct agentd_agent);
	AGENTD_PINNED
} agents SEC(".maps");

/* Slot of the agent that owns a cgroup. Full: the daemon refuses to spawn. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTD_MAX_AGENTS);
	__type(key, __u64);
	__type(value, __u32);
	AGENTD_PINNED
} cgroup_agents SEC(".maps");

/* Refusals and thresholds. Full: the event is dropped, counted in agents[].suppressed, carried by the next. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, AGENTD_EVENT_RING);
	AGENTD_PINNED
} events SEC(".maps");

/* What the loader was told; read by whoever finds the pins. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct agentd_config);
	AGENTD_PINNED
} config SEC(".maps");

#ifndef AGENTD_BUDGET_ONLY

/* Who a task is. No memory for it: task_alloc refuses the fork. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct agentd_identity);
	AGENTD_PINNED
} task_agent SEC(".maps");

/* What an agent may do with an object. Full: the daemon refuses the grant and takes back what it had put. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTD_MAX_RULES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct agentd_rule_key);
	__type(value, struct agentd_rule);
	AGENTD_PINNED
} rules SEC(".maps");

/* Could there be a rule on an object? See the contract. Never full; written by the daemon through a mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, AGENTD_HINT_WORDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
	AGENTD_PINNED
} hints SEC(".maps");

/* What capabilities lend an agent on an object. Full: as `rules`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTD_MAX_LENT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct agentd_rule_key);
	__type(value, struct agentd_lent);
	AGENTD_PINNED
} lent SEC(".maps");

/* Which capabilities are in force, by slot. Full: the daemon refuses the grant. Written through a mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, AGENTD_MAX_CAPABILITIES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct agentd_capability);
	AGENTD_PINNED
} capabilities SEC(".maps");

/* What an agent may do with a name. Full: as `rules`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTD_MAX_NAMES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct agentd_name_key);
	__type(value, struct agentd_rule);
	AGENTD_PINNED
} names SEC(".maps");

/* Which addresses an agent may use; read by the programs in ebpf/net. Full: as `rules`. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, AGENTD_MAX_NETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct agentd_net_key);
	__type(value, struct agentd_net);
	AGENTD_PINNED
} nets SEC(".maps");

/* Decisions already taken, one per directory; see cache.h. Never full: a newer entry takes the place of an older. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, AGENTD_CACHE_SLOTS);
	__type(key, __u32);
	__type(value, struct agentd_decision);
	AGENTD_PINNED
} decisions SEC(".maps");

#endif
#endif
