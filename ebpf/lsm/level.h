/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What does one level say?
 *
 * A level is an object on the way from a file to the root, with the name under which it stands. All rules about a level
 * hold together: a denial among them wins over a permission among them, and a right that any of them mentions is
 * settled there; the levels above are not asked for it. This is the whole of the policy; the walks in walk.h and
 * bench.bpf.c only bring levels. `agentd_policy::decide` answers the same question and a test compares the two.
 */
#ifndef AGENTD_LEVEL_H
#define AGENTD_LEVEL_H

#define EXPIRES_NEVER (~0ULL)

/* The answer as far as it is known. */
struct answer {
	__u32 want;		/* rights that no level has mentioned yet */
	__u32 allow;		/* of the level in hand */
	__u32 deny;		/* of the level in hand */
	__u32 rule_id;		/* of the first refusal */
	__u32 lapsed_id;	/* of a rule that has expired, or of a capability */
	__u16 lapsed;		/* rights that those would have given */
	__u16 granted;		/* rights settled by a permission */
	__u16 refused;		/* rights settled by a denial */
	__u16 reason;		/* of the first refusal */
	__u16 timed;		/* 1: something on the way can expire or be taken back, so the answer may not be kept */
	__u16 lapsed_why;	/* why `lapsed` are not given */
	__u32 lends;		/* 1: what is lent counts, too */
};

/* Adds one rule to the level in hand. */
static __always_inline void hear(struct answer *a, const struct agentd_rule *rule, __u32 why)
{
	__u32 deny = rule->deny & a->want;
	__u32 allow = rule->allow & a->want;

	if (deny && !a->reason) {
		a->reason = why;
		a->rule_id = rule->deny_id;
	}
	a->deny |= deny;
	if (rule->expires_ns != EXPIRES_NEVER) {
		a->timed = 1;
		if (allow && rule->expires_ns <= bpf_ktime_get_ns()) {
			a->lapsed |= allow;
			a->lapsed_id = rule->allow_id;
			a->lapsed_why = AGENTD_WHY_EXPIRED;
			allow = 0;
		}
	}
	a->allow |= allow;
}

/* Closes the level in hand. */
static __always_inline void settle(struct answer *a)
{
	a->refused |= a->deny;
	a->granted |= a->allow & ~a->deny;
	a->want &= ~(a->allow | a->deny);
	a->allow = 0;
	a->deny = 0;
}

/* If the way ended with nothing found, but something would have allowed it in its time, that is the reason. */
static __always_inline void blame_lapsed(struct answer *a)
{
	if (a->reason == AGENTD_WHY_NOTHING_FOUND && a->lapsed & a->want) {
		a->reason = a->lapsed_why;
		a->rule_id = a->lapsed_id;
	}
}

/* Could there be a rule on an object? Most on the way have none, and this costs about 5 ns against 17. */
static __always_inline bool hinted(__u32 agent, __u32 dev, __u64 ino)
{
	__u64 hash = (ino + ((__u64)dev << 32 | agent)) * 0x9e3779b97f4a7c15ULL;
	__u64 *word;
	__u32 index;

	hash ^= hash >> 32;
	hash *= 0xbf58476d1ce4e5b9ULL;
	index = hash >> 50;
	word = bpf_map_lookup_elem(&hints, &index);
	return word && (*word >> (hash >> 44 & 63)) & 1;
}

/* The rule on an object; NULL: there is none. */
static __always_inline struct agentd_rule *rule_on(__u32 agent, __u32 dev, __u64 ino)
{
	struct agentd_rule_key key = { .agent = agent, .dev = dev, .ino = ino };

	return hinted(agent, dev, ino) ? bpf_map_lookup_elem(&rules, &key) : NULL;
}

/*
 * Adds what one capability lends. It counts if its slot still holds it for this agent, it is in force, and it is its time;
 * what it would give otherwise is remembered as the reason. Nothing that depends on it is kept in the cache.
 */
static __always_inline void hear_loan(struct answer *a, volatile struct agentd_loan *loan, __u32 agent, __u32 object)
{
	volatile struct agentd_capability *c;
	__u32 rights, slot, number, state;
	__u64 now;

	/* Read first and last: what was read in between is of this object. */
	if (loan->object != object)
		return;
	slot = loan->slot;
	number = loan->number;
	rights = loan->rights & a->want;
	if (!rights || loan->object != object)
		return;
	a->timed = 1;
	c = bpf_map_lookup_elem(&capabilities, &slot);
	if (!c || c->number != number || c->agent != agent)
		return;
	state = c->state;
	if (state == AGENTD_C_PREPARED)
		return;
	now = bpf_ktime_get_ns();
	if (state == AGENTD_C_IN_FORCE && now >= c->from_ns && now < c->until_ns) {
		a->allow |= rights;
		return;
	}
	a->lapsed |= rights;
	a->lapsed_id = number;
	a->lapsed_why = state != AGENTD_C_IN_FORCE ? AGENTD_WHY_REVOKED :
			now < c->from_ns	   ? AGENTD_WHY_NOT_YET :
						     AGENTD_WHY_ENDED;
}

/* Adds everything that is lent on an object. Global, as below. */
__noinline int hear_lent(struct answer *a, __u32 agent, __u32 dev, __u64 ino)
{
	struct agentd_rule_key key = { .agent = agent, .dev = dev, .ino = ino };
	__u32 object = (__u32)ino ^ (__u32)(ino >> 32) ^ dev * 0x9e3779b1U;
	struct agentd_lent *found;

	if (!a)
		return 0;
	found = bpf_map_lookup_elem(&lent, &key);
	if (!found)
		return 0;
	for (int i = 0; i < AGENTD_LENDERS; i++)
		hear_loan(a, &found->loans[i], agent, object);
	return 1;
}

/*
 * Adds the rule on an object that has a hint, and what is lent there. Global: the loop over 64 levels is verified without its
 * branches.
 */
__noinline int hear_hinted(struct answer *a, __u32 agent, __u32 dev, __u64 ino)
{
	struct agentd_rule_key key = { .agent = agent, .dev = dev, .ino = ino };
	struct agentd_rule *rule;

	if (!a)
		return 0;
	rule = bpf_map_lookup_elem(&rules, &key);
	if (rule)
		hear(a, rule, AGENTD_WHY_RULE);
	if (a->lends && hear_lent(a, agent, dev, ino))
		return 1;
	return rule ? 1 : 0;
}

/* Adds the rule on an object. False: there is none. */
static __always_inline bool hear_object(struct answer *a, __u32 agent, __u32 dev, __u64 ino)
{
	return hinted(agent, dev, ino) && hear_hinted(a, agent, dev, ino);
}

/* The flags of the rule on a directory, without hearing what it says. */
static __always_inline __u32 object_flags(__u32 agent, __u32 dev, __u64 ino)
{
	struct agentd_rule *rule = rule_on(agent, dev, ino);

	return rule ? rule->flags : 0;
}

static __always_inline void hear_one_name(struct answer *a, const struct agentd_name_key *key)
{
	struct agentd_rule *rule = bpf_map_lookup_elem(&names, key);

	if (rule)
		hear(a, rule, AGENTD_WHY_NAME);
}

/*
 * Adds the rules about a name. `parent_*` is the directory it stands in, `hash` of the name and `parent_hash` of the
 * directory's own name, 0 if it has none or one that is too long.
 */
static __always_inline void hear_names(struct answer *a, __u32 agent, __u64 hash, __u32 parent_flags, __u32 parent_dev,
				       __u64 parent_ino, __u64 parent_hash)
{
	struct agentd_name_key key = { .agent = agent, .dev = parent_dev, .parent = parent_ino, .name = hash };

	if (parent_flags & AGENTD_R_NAMES)
		hear_one_name(a, &key);
	key.dev = AGENTD_ANYWHERE;
	key.parent = parent_hash;
	if (parent_hash)
		hear_one_name(a, &key);
	key.parent = 0;
	hear_one_name(a, &key);
}

/* Can any rule of the agent be about a name of that length? */
static __always_inline bool ruled_length(__u64 lengths, __u32 length)
{
	return length < AGENTD_NAME_BYTES && (lengths >> (length & 63)) & 1;
}

/* One step of agentd_abi::name_hash; `word` is eight bytes of the name, padded with zeros. */
static __always_inline __u64 name_step(__u64 hash, __u64 word)
{
	hash ^= word;
	hash *= 0xbf58476d1ce4e5b9ULL;
	return hash ^ (hash >> 29);
}

/*
 * agentd_abi::name_hash of a name in the kernel's memory; 0 if no rule can be about it. Word by word, since a buffer for
 * the name would not fit on the stack. A rename under way may give a torn name; it is a mixture of two that the agent
 * was allowed to give, since giving a name asks for CREATE on it.
 */
static __noinline __u64 name_hash_at(__u64 name, __u32 length)
{
	__u64 hash = length;

	if (!length || length >= AGENTD_NAME_BYTES)
		return 0;
	for (__u32 i = 0; i < AGENTD_NAME_BYTES / 8; i++) {
		__u64 word = 0;
		__u32 done = i * 8;

		/* Names lie in memory of whole words, so the bytes after a short rest can be read, and are cut off. */
		if (done < length) {
			if (bpf_probe_read_kernel(&word, sizeof(word), (void *)(name + done)))
				return 0;
			if (length - done < 8)
				word &= (1ULL << ((length - done) * 8)) - 1;
		}
		hash = name_step(hash, word);
	}
	return hash;
}

#endif
