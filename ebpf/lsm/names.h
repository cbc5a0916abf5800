/* SPDX-License-Identifier: GPL-2.0 */
/*
 * May this name come, go or change its place?
 *
 *   path_mknod, path_mkdir, path_symlink   create at the name (open(O_CREAT) comes as mknod)
 *   path_unlink, path_rmdir                delete at the object
 *   path_link      create at the new name; no right may be gained by the new place
 *   path_rename    delete at the old name, create at the new, delete at what is replaced; no right may be gained.
 *                  Exchange: all of that in both directions. Nothing moves that a denial relies on (keep.h);
 *                  the same for path_unlink, path_rmdir and path_symlink
 *   vfs_rename     entry and exit of every rename of a directory on the host: the decision cache pauses between them
 *
 * "No right may be gained": the rights that the object would have at its new place, its own rule and the rules about its
 * new name included, must be among those it has at the old. Else a file without exec could be moved to where there is.
 */

/* A question about the name `dentry`, which stands in (or shall come to stand in) a directory seen through `mnt`. */
static __always_inline void put_place(struct question *q, struct dentry *dentry, const struct path *dir)
{
	q->dentry = (__u64)dentry;
	q->inode = (__u64)dentry->d_inode;
	q->mount = mount_of(dir->mnt);
}

static __always_inline int decide_name(const struct path *dir, struct dentry *dentry, __u32 hook, __u32 want)
{
	struct question q = {};
	struct asker who;

	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	put_question(&q, &who, hook, want);
	put_place(&q, dentry, dir);
	return decide(&q);
}

/* The same where a denial may rely on what stands there (keep.h). */
static __always_inline int decide_kept_name(const struct path *dir, struct dentry *dentry, __u32 hook, __u32 want,
					    int by_name)
{
	struct question q = {};
	struct asker who;

	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	put_question(&q, &who, hook, want);
	put_place(&q, dentry, dir);
	if (decide(&q))
		return -EACCES;
	return keeps(&q, by_name) ? -EACCES : 0;
}

SEC("lsm/path_mknod")
int BPF_PROG(mknod_check, const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev, int ret)
{
	return ret ?: decide_name(dir, dentry, AGENTD_H_MKNOD, AGENTD_CREATE);
}

SEC("lsm/path_mkdir")
int BPF_PROG(mkdir_check, const struct path *dir, struct dentry *dentry, umode_t mode, int ret)
{
	return ret ?: decide_name(dir, dentry, AGENTD_H_MKDIR, AGENTD_CREATE);
}

SEC("lsm/path_symlink")
int BPF_PROG(symlink_check, const struct path *dir, struct dentry *dentry, const char *target, int ret)
{
	return ret ?: decide_kept_name(dir, dentry, AGENTD_H_SYMLINK, AGENTD_CREATE, 1);
}

SEC("lsm/path_unlink")
int BPF_PROG(unlink_check, const struct path *dir, struct dentry *dentry, int ret)
{
	return ret ?: decide_kept_name(dir, dentry, AGENTD_H_UNLINK, AGENTD_DELETE, 0);
}

SEC("lsm/path_rmdir")
int BPF_PROG(rmdir_check, const struct path *dir, struct dentry *dentry, int ret)
{
	return ret ?: decide_kept_name(dir, dentry, AGENTD_H_RMDIR, AGENTD_DELETE, 0);
}

/* Would what is now at `from` gain rights at `to`? Both names are seen through the same mount. Reported. */
static __always_inline int gains_so(struct question *q, struct dentry *from, struct dentry *to, __u32 whole)
{
	__u32 had, would;

	q->want = AGENTD_ALL_RIGHTS;
	q->whole = whole;
	q->inode = (__u64)from->d_inode;
	q->dentry = (__u64)from;
	had = judge(q);
	q->dentry = (__u64)to;
	would = judge(q);
	if (!(would & ~had & AGENTD_ALL_RIGHTS))
		return 0;
	q->dentry = (__u64)from;
	report_file(q, AGENTD_WHY_NOTHING_FOUND, would & ~had & AGENTD_ALL_RIGHTS, 0);
	return 1;
}

/* As it is, and as it will be when nothing is lent any more: who is lent a file shall not move it to where it is his own. */
static __always_inline int gains(struct question *q, struct dentry *from, struct dentry *to, __u32 hook)
{
	if (gains_so(q, from, to, 1))
		return 1;
	return q->flags & AGENTD_F_LENT && gains_so(q, from, to, 2);
}

SEC("lsm/path_link")
int BPF_PROG(link_check, struct dentry *old, const struct path *dir, struct dentry *dentry, int ret)
{
	struct question q = {};
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	put_question(&q, &who, AGENTD_H_LINK, AGENTD_CREATE);
	put_place(&q, dentry, dir);
	if (decide(&q))
		return -EACCES;
	return gains(&q, old, dentry, AGENTD_H_LINK) ? -EACCES : 0;
}

SEC("lsm/path_rename")
int BPF_PROG(rename_check, const struct path *old_dir, struct dentry *old, const struct path *new_dir,
	     struct dentry *new, unsigned int flags, int ret)
{
	__u32 both = flags & RENAME_EXCHANGE ? AGENTD_DELETE | AGENTD_CREATE : 0;
	struct question q = {};
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	put_question(&q, &who, AGENTD_H_RENAME, AGENTD_DELETE | both);
	put_place(&q, old, old_dir);
	if (decide(&q) || keeps(&q, 1))
		return -EACCES;

	q.want = AGENTD_CREATE | both;
	put_place(&q, new, new_dir);
	if (q.inode)
		q.want |= AGENTD_DELETE;
	if (decide(&q) || keeps(&q, 1))
		return -EACCES;

	if (gains(&q, old, new, AGENTD_H_RENAME))
		return -EACCES;
	if (both && gains(&q, new, old, AGENTD_H_RENAME))
		return -EACCES;
	return 0;
}

static __always_inline bool is_directory(struct dentry *dentry)
{
	struct inode *inode = dentry->d_inode;

	return inode && (inode->i_mode & S_IFMT) == S_IFDIR;
}

/* Whether a directory takes part; on exit the same names hold the same inodes, whatever became of the rename. */
static __always_inline bool moves_directory(struct renamedata *rd)
{
	return is_directory(rd->old_dentry) || is_directory(rd->new_dentry);
}

SEC("fentry/vfs_rename")
int BPF_PROG(rename_begins, struct renamedata *rd)
{
	if (moves_directory(rd))
		__sync_fetch_and_add(&dir_renames_begun, 1);
	return 0;
}

SEC("fexit/vfs_rename")
int BPF_PROG(rename_ended, struct renamedata *rd)
{
	if (moves_directory(rd))
		__sync_fetch_and_add(&dir_renames_ended, 1);
	return 0;
}
