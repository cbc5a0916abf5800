/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What do the levels from here up to the root say?
 *
 * The walk begins at a name in a directory (a dentry) seen through a mount and goes up: to the parent directory, or, at
 * the root of a mount, to the directory it is mounted on, which is a level of its own. It ends when every wanted right
 * is settled, at the first refusal (unless all rights are asked for), or at the root. What is not settled by then is
 * refused, so every way of losing one's way (a detached mount, more than 64 levels, memory that cannot be read) ends in
 * a refusal too.
 *
 * No lock is taken. A directory that is renamed meanwhile is seen in its old or its new place; a rename by an agent
 * never widens what may be done with the thing renamed (names.h), and cache.h keeps no answer from such a moment.
 */
#ifndef AGENTD_WALK_H
#define AGENTD_WALK_H

/* What is asked. Lives on the hook's stack; addresses are numbers, so that it can be handed to global functions. */
struct question {
	__u64 dentry;		/* the place: a name in a directory */
	__u64 inode;		/* the object there, 0 if the name does not exist yet */
	__u64 mount;		/* struct mount through which it is seen */
	__u64 here;		/* for names_at(): the dentry of the level in hand, not the root of its mount */
	__u64 through;		/* for names_at(): struct mount of the level in hand */
	__u64 lengths;		/* agentd_agent.name_lengths, 0 if no rule is about a name */
	__u64 generation;
	__u32 agent;		/* agentd_agent.number */
	__u32 slot;
	__u32 flags;		/* agentd_agent.flags */
	__u32 want;
	__u32 hook;
	__u32 whole;		/* 1: settle every right, do not stop at a refusal; 2: and leave out what is lent */
};

static __always_inline void names_with(struct answer *a, const struct question *q, const bool direct)
{
	struct mount *mnt = AS(struct mount, q->through);
	struct dentry *d = AS(struct dentry, q->here);
	struct dentry *parent = GET(d, d_parent);
	struct dentry *named = parent;
	struct object o = {};
	struct inode *dir;
	__u32 flags = 0;
	__u64 hash;

	hash = name_hash_at((__u64)GET(d, d_name.name), GET(d, d_name.len));
	if (!hash)
		return;
	dir = GET(parent, d_inode);
	if (dir) {
		o = object_of(dir, GET(parent, d_sb), direct);
		flags = object_flags(q->agent, o.dev, o.ino);
	}
	/* The root of a mount goes by the name of the directory it is mounted on. */
	if (parent == GET(mnt, mnt.mnt_root))
		named = GET(mnt, mnt_mountpoint);
	hear_names(a, q->agent, hash, flags, o.dev, o.ino,
		   name_hash_at((__u64)GET(named, d_name.name), GET(named, d_name.len)));
}

/* Hears the rules about the name of the level in hand. Global, so that the loop around it stays small. */
__noinline int names_at(struct answer *a, const struct question *q)
{
	if (!a || !q)
		return 0;
	if (settings.can_cast)
		names_with(a, q, true);
	else
		names_with(a, q, false);
	return 0;
}

/* The same, if any rule can be about a name of that length. False: none can. */
static __always_inline bool hear_names_of(struct answer *a, struct question *q, struct dentry *d, struct mount *mnt,
					  const bool direct)
{
	/* One name, many spellings: a rule about one of them would say nothing. What sysctl compares are not spellings. */
	if (GET(d, d_flags) & (DCACHE_OP_HASH | DCACHE_OP_COMPARE)) {
		struct super_block *sb = GET(d, d_sb);

		if (GET(sb, s_magic) != PROC_SUPER_MAGIC) {
			a->deny |= a->want;
			if (!a->reason)
				a->reason = AGENTD_WHY_NAMES_VARY;
			return true;
		}
	}
	if (!ruled_length(q->lengths, GET(d, d_name.len)))
		return false;
	q->here = (__u64)d;
	q->through = (__u64)mnt;
	names_at(a, q);
	return true;
}

static __always_inline void walk_with(struct answer *a, struct question *q, bool up, const bool direct)
{
	struct mount *mnt = AS(struct mount, q->mount);
	struct dentry *d = AS(struct dentry, q->dentry);
	struct inode *inode = AS(struct inode, q->inode);
	struct dentry *root = GET(mnt, mnt.mnt_root);
	__u32 dev = dev_of(GET(mnt, mnt.mnt_sb), direct);
	bool exists = q->inode;

	if (up) {
		d = GET(d, d_parent);
		inode = GET(d, d_inode);
		exists = true;
	}

	for (int i = 0; i < AGENTD_MAX_DEPTH; i++) {
		bool heard = false;

		if (exists) {
			struct object o = object_on(inode, dev, direct);

			heard = hear_object(a, q->agent, o.dev, o.ino);
		}
		if (q->lengths && d != root)
			heard |= hear_names_of(a, q, d, mnt, direct);
		/* Most levels say nothing. */
		if (heard) {
			settle(a);
			if (!a->want || (a->refused && !up && !q->whole))
				return;
		}

		if (d == root) {
			struct mount *below = GET(mnt, mnt_parent);

			if (below == mnt) {
				/* The root of a mount namespace, or a mount that hangs nowhere. */
				__u64 ns = (__u64)GET(mnt, mnt_ns);

				if (!a->reason)
					a->reason = !ns || ns == MNT_NS_INTERNAL ? AGENTD_WHY_NO_PLACE :
										   AGENTD_WHY_NOTHING_FOUND;
				return;
			}
			d = GET(mnt, mnt_mountpoint);
			mnt = below;
			root = GET(mnt, mnt.mnt_root);
			dev = dev_of(GET(mnt, mnt.mnt_sb), direct);
		} else {
			struct dentry *parent = GET(d, d_parent);

			if (parent == d) {
				if (!a->reason)
					a->reason = AGENTD_WHY_NO_PLACE;
				return;
			}
			d = parent;
		}
		inode = GET(d, d_inode);
		exists = true;
	}
	if (!a->reason)
		a->reason = AGENTD_WHY_TOO_DEEP;
}

/*
 * Walks from the question's place, or from the directory above it and then for every right. A global function: the verifier checks it once, however many hooks call it. 64 levels of about 60 instructions
 * without names.
 */
__noinline int walk(struct answer *a, struct question *q, int up)
{
	if (!a || !q)
		return 0;
	if (settings.can_cast)
		walk_with(a, q, up, true);
	else
		walk_with(a, q, up, false);
	blame_lapsed(a);
	return 0;
}

#endif
