/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Must it keep its place?
 *
 * A denial of a name below a directory (any .git/hooks) holds while that directory has its name; a denial of a path holds
 * while the directories on the way are what they were. Else `mv .git g; …; mv g .git` would be a way round. So what a
 * denial relies on carries AGENTD_R_KEEP: a directory is then neither renamed nor removed, a name is not renamed from or to
 * and not given to a symbolic link. `agentd_policy::decide::kept` answers the same question.
 *
 * Asked on the rare calls only, so it always reads the slow way.
 */
#ifndef AGENTD_KEEP_H
#define AGENTD_KEEP_H

static __always_inline bool says_keep(const struct agentd_rule *rule)
{
	return rule && rule->flags & AGENTD_R_KEEP;
}

/* 1 if what stands at the question's place must stay as it is; reported. `by_name`: also because of its name. */
__noinline int keeps(struct question *q, int by_name)
{
	const bool direct = false;
	struct agentd_rule *rule;
	struct dentry *d;

	if (!q)
		return 1;
	d = (void *)q->dentry;
	if (q->inode) {
		struct object o = object_of((void *)q->inode, GET(d, d_sb), direct);

		rule = rule_on(q->agent, o.dev, o.ino);
		if (says_keep(rule)) {
			report_file(q, AGENTD_WHY_RULE, AGENTD_DELETE, rule->deny_id);
			return 1;
		}
	}
	if (by_name && ruled_length(q->lengths, GET(d, d_name.len))) {
		struct agentd_name_key key = { .agent = q->agent, .dev = AGENTD_ANYWHERE };

		key.name = name_hash_at((__u64)GET(d, d_name.name), GET(d, d_name.len));
		rule = bpf_map_lookup_elem(&names, &key);
		if (says_keep(rule)) {
			report_file(q, AGENTD_WHY_NAME, AGENTD_CREATE, rule->deny_id);
			return 1;
		}
	}
	return 0;
}

#endif
