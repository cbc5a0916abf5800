/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The decision without the hooks, for tests and measurements.
 *
 *   decide_levels   answers a question over a chain of levels that the test wrote into a map
 *   hash_name       hashes the name of the first level
 *   measure         asks about one of the caller's open files many times, as a hook would
 *
 * Raw tracepoint programs that are only ever test-run; the maps are private. Loads on hosts without BPF LSM, so the
 * comparison with agentd_policy::decide and the figures of `bench decide` need no virtual machine.
 */
#define AGENTD_PRIVATE_MAPS
#include "kernel.h"
#include "maps.h"

#include "level.h"
#include "object.h"
#include "descriptor.h"
#include "walk.h"
#include "cache.h"
#include "agent.h"
#include "report.h"
#include "decide.h"

char LICENSE[] SEC("license") = "GPL";

/* More than are walked, so that a test can ask for too many. */
#define TRIAL_LEVELS 80

/* One level; mirror in ebpf/src/trial.rs. */
struct trial_level {
	__u32 dev;
	__u32 exists;		/* 0: the name does not exist */
	__u64 ino;
	__u32 length;		/* 0: no name, the root of a mount */
	__u32 reserved;
	__u8 name[AGENTD_NAME_BYTES];
};

struct trial_answer {
	__u64 hash;
	__u32 refused;		/* 0: all that was wanted is granted */
	__u32 granted;
	__u32 reason;
	__u32 rule_id;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRIAL_LEVELS);
	__type(key, __u32);
	__type(value, struct trial_level);
} levels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trial_answer);
} answers SEC(".maps");

/* Every structure of the contract once, so that they are all in this object's BTF; a test compares them with Rust. */
struct layouts {
	struct agentd_identity identity;
	struct agentd_agent agent;
	struct agentd_object object;
	struct agentd_rule_key rule_key;
	struct agentd_rule rule;
	struct agentd_name_key name_key;
	struct agentd_decision decision;
	struct agentd_config config;
	struct agentd_net_key net_key;
	struct agentd_net net;
	struct agentd_file_event file_event;
	struct agentd_guard_event guard_event;
	struct agentd_net_event net_event;
	struct agentd_budget_event budget_event;
	struct agentd_process_event process_event;
};
struct layouts layouts SEC(".data.layouts");

struct trial_arguments {
	__u64 agent;
	__u64 count;
	__u64 want;
	__u64 lengths;
	__u64 whole;
};

static struct trial_level *level_at(__u32 depth, __u32 count)
{
	return depth < count ? bpf_map_lookup_elem(&levels, &depth) : NULL;
}

static __always_inline __u64 hash_of(struct trial_level *level)
{
	return level ? name_hash_at((__u64)level->name, level->length) : 0;
}

SEC("raw_tp")
int hash_name(void *ctx)
{
	__u32 zero = 0;
	struct trial_answer *out = bpf_map_lookup_elem(&answers, &zero);

	if (!out)
		return 1;
	out->hash = hash_of(level_at(0, 1));
	return 0;
}

/* The rules about the name of a level; like names_with() in walk.h. Global for the same reason. */
__noinline int trial_names(struct answer *a, __u32 agent, __u32 depth, __u32 count)
{
	struct trial_level *level = level_at(depth, count), *parent = level_at(depth + 1, count), *named = parent;
	__u32 flags = 0;
	__u64 hash;

	if (!level || !a)
		return 0;
	hash = hash_of(level);
	if (!hash)
		return 0;
	if (parent && parent->exists)
		flags = object_flags(agent, parent->dev, parent->ino);
	if (parent && !parent->length)
		named = level_at(depth + 2, count);
	hear_names(a, agent, hash, flags, parent ? parent->dev : 0, parent ? parent->ino : 0, hash_of(named));
	return 0;
}

SEC("raw_tp")
int decide_levels(struct trial_arguments *ctx)
{
	__u32 zero = 0, agent = ctx->agent, count = ctx->count, whole = ctx->whole;
	struct trial_answer *out = bpf_map_lookup_elem(&answers, &zero);
	struct answer a = { .want = ctx->want, .lends = 1 };
	__u64 lengths = ctx->lengths;
	__u32 i;

	if (!out)
		return 1;
	for (i = 0; i < AGENTD_MAX_DEPTH; i++) {
		struct trial_level *level = level_at(i, count);

		if (!level) {
			if (!a.reason)
				a.reason = AGENTD_WHY_NOTHING_FOUND;
			break;
		}
		if (level->exists)
			hear_object(&a, agent, level->dev, level->ino);
		if (level->length && ruled_length(lengths, level->length))
			trial_names(&a, agent, i, count);
		settle(&a);
		if (!a.want || (a.refused && !whole))
			break;
	}
	/* The walk sees the root as the end of the level below it; here only the count tells. */
	if (i == AGENTD_MAX_DEPTH && !a.reason)
		a.reason = count > AGENTD_MAX_DEPTH ? AGENTD_WHY_TOO_DEEP : AGENTD_WHY_NOTHING_FOUND;
	blame_lapsed(&a);
	out->refused = a.refused ?: a.want;
	out->granted = a.granted;
	out->reason = out->refused ? a.reason : 0;
	out->rule_id = out->refused ? a.rule_id : 0;
	return 0;
}

struct measure_arguments {
	__u64 rounds;
	__u64 want;
	__u64 fd;
};

struct measure_round {
	__u64 dentry;
	__u64 inode;
	__u64 mount;
	__u32 want;
	__u32 refused;
};

/* What open_check does, less its own entry. */
static __always_inline long ask(struct measure_round *round)
{
	struct question q = {};
	struct asker who;

	if (!inside(&who) || !who.agent || who.agent->exhausted)
		return 1;
	put_question(&q, &who, AGENTD_H_OPEN, round->want);
	q.dentry = round->dentry;
	q.inode = round->inode;
	q.mount = round->mount;
	round->refused = judge(&q);
	return 0;
}

/* One turn of bpf_loop() alone takes 8 ns, which no hook pays, so each turn asks more than once. */
#define ASKED_IN_A_TURN 4

static long measure_round(__u32 index, struct measure_round *round)
{
	long stop = 0;

#pragma unroll
	for (int asked = 0; asked < ASKED_IN_A_TURN; asked++)
		stop |= ask(round);
	return stop;
}

/* The whole duration is what the caller measures. 1: the last answer was a refusal; 2: nobody asked; 3: no such file. */
SEC("raw_tp")
int measure(struct measure_arguments *ctx)
{
	struct measure_round round = { .want = ctx->want, .refused = 2 };
	struct file *file = file_of_current(ctx->fd);
	struct dentry *dentry;
	struct vfsmount *mnt;

	if (!file)
		return 3;
	dentry = BPF_CORE_READ(file, f_path.dentry);
	mnt = BPF_CORE_READ(file, f_path.mnt);
	round.dentry = (__u64)dentry;
	round.inode = (__u64)BPF_CORE_READ(dentry, d_inode);
	round.mount = mount_of(mnt);
	bpf_loop(ctx->rounds / ASKED_IN_A_TURN, measure_round, &round, 0);
	return round.refused;
}
