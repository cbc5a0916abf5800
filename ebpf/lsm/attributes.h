/* SPDX-License-Identifier: GPL-2.0 */
/*
 * May what is known about this file be changed?
 *
 *   path_chmod, path_chown    write
 *   path_chroot               never
 *   inode_setattr             write, for times only: mode and owner come through the path hooks, size through truncate
 *   inode_setxattr, inode_removexattr, inode_set_acl, inode_remove_acl    write
 *   inode_file_setattr        flags (chattr) from 6.17 on: write; file_ioctl before
 *   file_ioctl                flags (chattr): write; what else a file system does by ioctl: never (subvolumes, say)
 *
 * The inode hooks are not told the mount. The object is then looked for in the asker's own namespace: any mount of its
 * file system through which the agent may write it will do, since it could as well have opened it there. overlayfs
 * makes such calls for the files below it too, with the credentials of whoever mounted it: those pass, they were decided
 * for its own file. (Nobody else can have other than their own credentials here: io_uring, which could, is refused.)
 */

SEC("lsm/path_chmod")
int BPF_PROG(chmod_check, const struct path *path, umode_t mode, int ret)
{
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	return decide_at(&who, path->dentry, path->mnt, AGENTD_H_CHMOD, AGENTD_WRITE);
}

SEC("lsm/path_chown")
int BPF_PROG(chown_check, const struct path *path, int uid, int gid, int ret)
{
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	return decide_at(&who, path->dentry, path->mnt, AGENTD_H_CHOWN, AGENTD_WRITE);
}

/* Mounts of one file system that are looked at; a host with more of one in the agent's namespace gets a refusal. */
#define MAX_MOUNTS 64

/* 1: the answer of a mount that lies in another namespace. */
static __always_inline bool in_own_namespace(struct mount *mnt)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return BPF_CORE_READ(mnt, mnt_ns) == BPF_CORE_READ(task, nsproxy, mnt_ns);
}

/*
 * The mounts of a file system: one after another from 6.18 on, a ring through the super block before. The member that a
 * kernel lacks may not be touched outside of the branch that is dead there, and a compiler likes to move such sums to the
 * front; barrier_var() ties them to their place.
 */
static __always_inline bool chained(void)
{
	return bpf_core_field_exists(struct mount, mnt_next_for_sb);
}

/* The mount around a node of the ring. */
static __always_inline struct mount *around(struct list_head *node)
{
	struct mount___list *none = NULL;

	barrier_var(none);
	return (void *)((__u64)node - (__u64)&none->mnt_instance);
}

static __always_inline struct mount *first_mount(struct super_block *sb)
{
	struct super_block___list *ring = (void *)sb;

	if (chained()) {
		barrier_var(sb);
		return BPF_CORE_READ(sb, s_mounts);
	}
	barrier_var(ring);
	return around(BPF_CORE_READ(ring, s_mounts.next));
}

/* The mount after this one; NULL after the last. */
static __always_inline struct mount *next_mount(struct mount *mnt, struct super_block *sb)
{
	struct super_block___list *ring = (void *)sb;
	struct mount___list *in_ring = (void *)mnt;
	struct list_head *node;

	if (chained()) {
		barrier_var(mnt);
		return BPF_CORE_READ(mnt, mnt_next_for_sb);
	}
	barrier_var(ring);
	barrier_var(in_ring);
	node = BPF_CORE_READ(in_ring, mnt_instance.next);
	if (node == BPF_CORE_READ(ring, s_mounts.next))
		return NULL;
	return around(node);
}

/*
 * 0 if the agent may write the object through any mount in its namespace. Global: one verification for six hooks. The
 * question's mount is filled in here; the last one tried stands in the report.
 */
__noinline int judge_anywhere(struct question *q)
{
	struct super_block *sb;
	struct dentry *d;
	struct mount *mnt;

	if (!q)
		return 1;
	d = (void *)q->dentry;
	sb = BPF_CORE_READ(d, d_sb);
	mnt = first_mount(sb);
	q->whole = 1;
	/*
	 * A ring's end shows as its head, taken for a mount: what is read there is the super block's, its namespace is not
	 * ours, and the next step sees the first mount again.
	 */
	for (int i = 0; i < MAX_MOUNTS && mnt; i++) {
		if (in_own_namespace(mnt)) {
			q->mount = (__u64)mnt;
			if (judge(q) & AGENTD_WRITE)
				return 0;
		}
		mnt = next_mount(mnt, sb);
	}
	if (q->mount)
		report_file(q, AGENTD_WHY_NOTHING_FOUND, AGENTD_WRITE, 0);
	return 1;
}

static __always_inline int decide_attributes(struct dentry *dentry)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct question q = {};
	struct asker who;
	int no;

	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (task->cred != task->real_cred)
		return 0;
	put_question(&q, &who, AGENTD_H_ATTRIBUTES, AGENTD_ALL_RIGHTS);
	q.dentry = (__u64)dentry;
	q.inode = (__u64)dentry->d_inode;
	no = judge_anywhere(&q);
	barrier_var(no);
	if (no)
		return -EACCES;
	return 0;
}

static __always_inline int decide_setattr(struct dentry *dentry, struct iattr *attr)
{
	__u32 valid = attr->ia_valid;

	if (valid & (ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_SIZE | ATTR_FORCE) || !(valid & (ATTR_ATIME | ATTR_MTIME)))
		return 0;
	return decide_attributes(dentry);
}

/* From 6.8 or so on the hook is also told how the mount maps ids; the loader takes the one that fits. */
SEC("?lsm/inode_setattr")
int BPF_PROG(setattr_check, void *idmap, struct dentry *dentry, struct iattr *attr)
{
	return decide_setattr(dentry, attr);
}

SEC("?lsm/inode_setattr")
int BPF_PROG(setattr_check_2, struct dentry *dentry, struct iattr *attr)
{
	return decide_setattr(dentry, attr);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(setxattr_check, void *idmap, struct dentry *dentry)
{
	return decide_attributes(dentry);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(removexattr_check, void *idmap, struct dentry *dentry)
{
	return decide_attributes(dentry);
}

SEC("?lsm/inode_set_acl")
int BPF_PROG(set_acl_check, void *idmap, struct dentry *dentry)
{
	return decide_attributes(dentry);
}

SEC("?lsm/inode_remove_acl")
int BPF_PROG(remove_acl_check, void *idmap, struct dentry *dentry)
{
	return decide_attributes(dentry);
}

SEC("?lsm/inode_file_setattr")
int BPF_PROG(file_setattr_check, struct dentry *dentry)
{
	return decide_attributes(dentry);
}

/*
 * Is it a command of a file system, and none of the harmless ones? File systems do by ioctl what no other hook sees: a
 * subvolume or snapshot of btrfs is a tree of new objects, under a new name, made through a directory that may only be
 * read. Types: 0x94 btrfs, 0xbc bcachefs, 0xf5 f2fs, and what they share with ext4 and XFS ('f', 'v', 'X', 'E').
 */
static __always_inline bool of_file_system(unsigned int cmd)
{
	switch (IOCTL_TYPE(cmd)) {
	case 0x94:
		return cmd != FICLONE && cmd != FICLONERANGE && cmd != FIDEDUPERANGE;
	case 'f':
		return cmd != FS_IOC_GETFLAGS && cmd != FS_IOC_FIEMAP && cmd != FS_IOC_MEASURE_VERITY;
	case 'v':
		return cmd != FS_IOC_GETVERSION;
	case 'X':
		return cmd != FS_IOC_FSGETXATTR;
	case 'E':
	case 0xbc:
	case 0xf5:
		return true;
	}
	return false;
}

static __always_inline int decide_ioctl(struct file *file, unsigned int cmd)
{
	struct inode *inode = file->f_inode;
	umode_t type = inode->i_mode & S_IFMT;
	struct asker who;

	if ((type != S_IFREG && type != S_IFDIR) || !of_file_system(cmd))
		return 0;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (cmd == FS_IOC_SETFLAGS || cmd == FS_IOC32_SETFLAGS || cmd == FS_IOC_FSSETXATTR)
		return decide_file(&who, file, AGENTD_H_ATTRIBUTES, AGENTD_WRITE);
	report_guard(who.agent, AGENTD_H_ATTRIBUTES, AGENTD_WHY_GUARD, cmd, 0);
	return -EPERM;
}

SEC("lsm/file_ioctl")
int BPF_PROG(ioctl_check, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	return ret ?: decide_ioctl(file, cmd);
}

/* The same asked by a 32-bit program, which comes here from 6.8 on. */
SEC("?lsm/file_ioctl_compat")
int BPF_PROG(ioctl_compat_check, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	return ret ?: decide_ioctl(file, cmd);
}
