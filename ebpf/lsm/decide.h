/* SPDX-License-Identifier: GPL-2.0 */
/*
 * May it?
 *
 * The one way from a hook to a verdict about a file. First the leaf: its own rule and the rules about its name. Then its
 * directory, through the cache where that is allowed, by a walk where it is not. A refusal is explained by a second walk
 * that remembers why; it only happens on the way to an error.
 */
#ifndef AGENTD_DECIDE_H
#define AGENTD_DECIDE_H

/* Settles what can be settled without walking. True if the walk is not needed any more. */
static __always_inline bool shortcut(struct answer *a, struct question *q, const bool direct)
{
	struct mount *mnt = AS(struct mount, q->mount);
	struct dentry *d = AS(struct dentry, q->dentry);
	struct super_block *sb = GET(d, d_sb);
	struct mnt_namespace *ns = GET(mnt, mnt_ns);
	struct dentry *parent = GET(d, d_parent);
	struct place place;
	__u32 rights;

	/*
	 * No path leads there: pipes, sockets, memfd and anonymous inodes, which whoever holds one was given; and the
	 * private mounts through which overlayfs opens what lies in its layers, after its own file was decided. A
	 * process cannot come by such a mount: what it detaches itself (open_tree, fsmount) is in a namespace or in none.
	 */
	if (GET(sb, s_flags) & SB_NOUSER || (__u64)ns == MNT_NS_INTERNAL) {
		a->granted = a->want & ~AGENTD_EXEC;
		a->want &= ~a->granted;
		a->reason = AGENTD_WHY_NO_PLACE;
		return true;
	}
	if (settings.no_cache || parent == d || d == GET(mnt, mnt.mnt_root))
		return false;

	find_place(&place, q, parent, sb, mnt, ns, direct);
	if (!place.entry)
		return false;

	/* The leaf. Files only if some rule sits on a file; directories always. */
	if (q->inode) {
		struct inode *inode = AS(struct inode, q->inode);

		if (q->flags & AGENTD_F_FILE_RULES || (GET(inode, i_mode) & S_IFMT) == S_IFDIR) {
			struct object o = object_of(inode, sb, direct);

			hear_object(a, q->agent, o.dev, o.ino);
		}
	}
	if (q->lengths)
		hear_names_of(a, q, d, mnt, direct);
	settle(a);
	if (!a->want || (a->refused && !q->whole))
		return true;

	/* The directory. The answer's own memory is used for its walk: the kernel gives all frames together 512 bytes. */
	if (!kept(&place, &rights)) {
		__u32 want = a->want, granted = a->granted, refused = a->refused, lends = a->lends;

		__builtin_memset(a, 0, sizeof(*a));
		a->want = AGENTD_ALL_RIGHTS;
		a->lends = lends;
		walk(a, q, 1);
		rights = a->granted;
		/* What was left out may be found by others on the same way. */
		if (!a->timed && q->whole != 2)
			keep(&place, rights);
		a->want = want;
		a->granted = granted;
		a->refused = refused;
		a->reason = 0;
	}
	a->granted |= a->want & rights;
	a->want &= ~rights;
	return true;
}

/*
 * Answers the question; a refusal has been reported then. Returns 0 if it may and 1 if it may not, or, for a question
 * about the whole (which is for comparing two places of one object and refuses nothing), all rights granted there.
 * Global: checked once by the verifier, however many hooks ask.
 */
__noinline int judge(struct question *q)
{
	struct answer a = {};
	__u32 missing;
	bool done;

	if (!q)
		return 1;
	a.want = q->want;
	a.lends = q->flags & AGENTD_F_LENT && q->whole != 2;
	if (settings.can_cast)
		done = shortcut(&a, q, true);
	else
		done = shortcut(&a, q, false);
	if (!done)
		walk(&a, q, 0);
	if (q->whole)
		return a.granted & AGENTD_ALL_RIGHTS;
	missing = (a.want | a.refused) & AGENTD_ALL_RIGHTS;
	if (!missing)
		return 0;

	/* Why? The cache remembers only that. */
	if (!a.reason) {
		__builtin_memset(&a, 0, sizeof(a));
		a.want = missing;
		a.lends = q->flags & AGENTD_F_LENT ? 1 : 0;
		walk(&a, q, 0);
		missing = a.refused ?: a.want ?: missing;
		if (!a.reason)
			a.reason = AGENTD_WHY_NOTHING_FOUND;
	}
	report_file(q, a.reason, missing, a.rule_id);
	return 1;
}

/* The answer of a hook. The verifier knows nothing about what a global function returns, so the value is made here. */
static __always_inline int decide(struct question *q)
{
	int no = judge(q);

	barrier_var(no);
	if (no)
		return -EACCES;
	return 0;
}

static __always_inline void put_question(struct question *q, const struct asker *who, __u32 hook, __u32 want)
{
	q->generation = who->agent->generation;
	q->lengths = who->agent->flags & AGENTD_F_NAMES ? who->agent->name_lengths : 0;
	q->agent = who->number;
	q->slot = who->slot;
	q->flags = who->agent->flags;
	q->want = want;
	q->hook = hook;
	q->whole = 0;
}

/* May the agent do that with what stands at this place? */
static __always_inline int decide_at(const struct asker *who, struct dentry *dentry, const struct vfsmount *mnt,
				     __u32 hook, __u32 want)
{
	struct question q = {};

	put_question(&q, who, hook, want);
	q.dentry = (__u64)dentry;
	q.inode = (__u64)dentry->d_inode;
	q.mount = mount_of(mnt);
	return decide(&q);
}

#endif
