/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Has this been asked of this directory before?
 *
 * An entry holds the rights that the walk from one directory upwards grants one agent. It is found and trusted only
 * through its key: the agent's generation (new at every change of its rules), the directory's device, inode and generation, the
 * mount it is seen through, the moment of the last change of any mount in that namespace, and the number of directory
 * renames so far. Nothing is ever invalidated; a changed world asks with another key.
 *
 * The key is not stored, two keyed hashes of it are, 64 bits each: A whole in the first word, 48 bits of B in the second
 * above the 16 bits of rights, and B's other 16 bits as the place in the table. So an entry that is not ours passes for
 * ours with probability 2^-128, and two halves of different entries, read while another CPU writes, with 2^-48 (one
 * half is ours then, the other would have to collide by itself). Without the 128 secret bits, drawn at each load, nobody
 * can search for collisions, and there is no way to see one.
 *
 * The file itself is never in an entry: hard links give one file several places, a directory has one.
 */
#ifndef AGENTD_CACHE_H
#define AGENTD_CACHE_H

/* Directory renames begun and ended (names.h). Different: one is under way, and nobody may use or fill the cache. */
__u64 dir_renames_begun;
__u64 dir_renames_ended;

#define RIGHTS_BITS 16
#define RIGHTS_MASK ((1ULL << RIGHTS_BITS) - 1)

/* Where an answer about a directory is kept. */
struct place {
	struct agentd_decision *entry;
	__u64 tag;		/* A */
	__u64 word;		/* B, the lowest 16 bits cleared */
	__u64 renames;		/* begun, when the key was made */
};

/* One step of the finalisers of splitmix64 and murmur3; a bijection of `hash` for every `input`, and the reverse. */
static __always_inline __u64 mix_a(__u64 hash, __u64 input)
{
	hash = (hash ^ input) * 0xbf58476d1ce4e5b9ULL;
	return hash ^ (hash >> 31);
}

static __always_inline __u64 mix_b(__u64 hash, __u64 input)
{
	hash = (hash + input) * 0xff51afd7ed558ccdULL;
	return hash ^ (hash >> 33);
}

static __always_inline __u64 mount_id(struct mount *mnt, const bool direct)
{
	/* Before 6.8 a number is used again after an umount; the namespace's event has changed then. */
	if (bpf_core_field_exists(mnt->mnt_id_unique))
		return GET(mnt, mnt_id_unique);
	return GET(mnt, mnt_id);
}

/*
 * Finds the place for the directory `dir`, on that file system, seen through that mount in that namespace; each read from
 * kernel memory costs a nanosecond, so none is done twice. No place (entry = NULL): this answer may not be kept.
 */
static __always_inline void find_place(struct place *place, const struct question *q, struct dentry *dir,
				       struct super_block *sb, struct mount *mnt, struct mnt_namespace *ns,
				       const bool direct)
{
	struct inode *inode = GET(dir, d_inode);
	__u64 begun = *(volatile __u64 *)&dir_renames_begun;
	__u64 event, id, a = settings.secret_a, b = settings.secret_b;
	__u32 use = GET(inode, i_generation);
	struct object o;
	__u32 slot;

	place->entry = NULL;
	/*
	 * A directory that is removed leaves its number (on an overlay: its address) to another one. Where the file system
	 * does not tell the two apart, nothing is kept; overlayfs is one of those.
	 */
	if (!use)
		return;
	/* 0: no mount ever changed there, or there is no namespace (the read of an impossible address gives 0). */
	event = GET(ns, event);
	if (!event || begun != *(volatile __u64 *)&dir_renames_ended)
		return;
	o = object_of(inode, sb, direct);
	id = mount_id(mnt, direct);

	id ^= (__u64)o.dev << 32;
	/* Two halves each, which the processor works out side by side; a change in one half alone always shows. */
	a = mix_a(mix_a(a, q->generation), o.ino) + mix_a(mix_a(~a, use), id);
	b = mix_b(mix_b(b, q->generation), o.ino) ^ mix_b(mix_b(~b, use), id);
	/*
	 * Both only ever grow, so for one mount, which is in one namespace, the sum comes but once, even should 2^32
	 * renames carry over.
	 */
	a = mix_a(a, (event << 32) + begun);
	b = mix_b(b, (event << 32) + begun);

	slot = b & (AGENTD_CACHE_SLOTS - 1);
	place->tag = a;
	place->word = b & ~RIGHTS_MASK;
	place->renames = begun;
	place->entry = bpf_map_lookup_elem(&decisions, &slot);
}

/* Reads the rights kept there. False: somebody else's, or nothing. */
static __always_inline bool kept(const struct place *place, __u32 *rights)
{
	volatile struct agentd_decision *entry = place->entry;
	__u64 word = entry->word;

	if (entry->tag != place->tag || (word & ~RIGHTS_MASK) != place->word)
		return false;
	*rights = word & RIGHTS_MASK;
	return true;
}

/* Keeps them, unless a directory has been renamed since the key was made. */
static __always_inline void keep(const struct place *place, __u32 rights)
{
	volatile struct agentd_decision *entry = place->entry;

	if (*(volatile __u64 *)&dir_renames_begun != place->renames)
		return;
	entry->tag = place->tag;
	entry->word = place->word | (rights & RIGHTS_MASK);
}

#endif
