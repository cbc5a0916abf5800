/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What did the loader decide?
 *
 * One read-only section, written before the load and constant from then on: the verifier follows the values and removes
 * the branches they exclude. The mirror is ebpf/src/settings.rs.
 */
#ifndef AGENTD_SETTINGS_H
#define AGENTD_SETTINGS_H

struct agentd_settings {
	__u64 secret_a;			/* of the decision cache, from getrandom(2) */
	__u64 secret_b;
	__u64 agents_cgroup;		/* the cgroup whose children are agents' cgroups; 0: there is none */
	__u32 agents_level;		/* level of those children; 0: there is none */
	__u32 can_cast;			/* 1: this kernel has bpf_rdonly_cast (6.2 on) */
	__u32 no_cache;			/* 1: every decision walks; for tests and measurements */
	__u32 reserved;
};

const volatile struct agentd_settings settings SEC(".rodata.settings");

#endif
