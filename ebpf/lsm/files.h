/* SPDX-License-Identifier: GPL-2.0 */
/*
 * May this file be opened, cut, received or run?
 *
 *   file_open            every open: read and write by the mode asked for; create for O_TMPFILE; none when exhausted
 *   file_receive         a descriptor that comes through a socket: as if it were opened now
 *   file_permission      every use of what is open, once rights were lent: as if it were opened now
 *   path_truncate        truncate(2): write
 *   file_truncate        ftruncate(2) on a descriptor opened before a revoke (6.2 on): write
 *   bprm_check_security  execve: exec; asked for scripts and again for their interpreter
 *   mmap_file            a mapping that can be executed: exec; once rights were lent, any: read, and write if it is shared
 *   file_mprotect        a mapping that becomes executable: exec; once rights were lent, a shared one writable: write
 */

/*
 * The path of a mapped file as the user knows it. What overlayfs maps is the file of a layer, seen through the overlay's
 * own private mount, with the path of the overlay beside it (before 6.5 the file itself shows that path).
 */
static __always_inline void path_of(const struct file *file, __u64 *dentry, __u64 *mnt)
{
	const struct mount *through = (void *)mount_of(BPF_CORE_READ(file, f_path.mnt));
	unsigned long kind = BPF_CORE_READ(file, f_path.dentry, d_sb, s_flags) & (SB_NOUSER | SB_KERNMOUNT);

	*dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	*mnt = (__u64)BPF_CORE_READ(file, f_path.mnt);
	if (bpf_core_type_exists(struct backing_file) && !kind && (__u64)BPF_CORE_READ(through, mnt_ns) == MNT_NS_INTERNAL) {
		const struct backing_file *b = (const void *)file - bpf_core_field_offset(struct backing_file, file);

		*dentry = (__u64)BPF_CORE_READ(b, user_path.dentry);
		*mnt = (__u64)BPF_CORE_READ(b, user_path.mnt);
	}
}

static __always_inline __u64 inode_at(__u64 dentry)
{
	const struct dentry *d = (const void *)dentry;

	return (__u64)BPF_CORE_READ(d, d_inode);
}

/* May the agent do that with an open file? */
static __always_inline int decide_file(const struct asker *who, const struct file *file, __u32 hook, __u32 want)
{
	struct question q = {};

	put_question(&q, who, hook, want);
	q.dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	q.inode = inode_at(q.dentry);
	q.mount = mount_of(BPF_CORE_READ(file, f_path.mnt));
	return decide(&q);
}

/* May the agent do that with what it maps? */
static __always_inline int decide_mapping(const struct asker *who, const struct file *file, __u32 hook, __u32 want)
{
	struct question q = {};
	__u64 mnt;

	put_question(&q, who, hook, want);
	path_of(file, &q.dentry, &mnt);
	q.inode = inode_at(q.dentry);
	q.mount = mount_of((void *)mnt);
	return decide(&q);
}

/* Has anything been lent, so that what is open is asked about at every use? Only files and directories are lent. */
static __always_inline bool asked_again(const struct asker *who, const struct file *file)
{
	__u32 kind;

	if (!(who->agent->flags & AGENTD_F_LENT))
		return false;
	/* What the kernel opened to run it was decided when it was run. */
	if (BPF_CORE_READ(file, f_flags) & FMODE_EXEC_FLAG)
		return false;
	kind = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	return kind == S_IFREG || kind == S_IFDIR;
}

/* The rights that using a descriptor of that mode amounts to. */
static __always_inline __u32 rights_of_mode(const struct file *file)
{
	__u32 mode = file->f_mode;
	__u32 want = 0;

	if (mode & FMODE_READ)
		want |= AGENTD_READ;
	if (mode & FMODE_WRITE)
		want |= AGENTD_WRITE;
	/* Access mode 3: neither, but ioctl. A device can be driven by that, so it is worth both. */
	return want ?: AGENTD_READ | AGENTD_WRITE;
}

/* Refused because the budget is spent; reported with the path. */
static __always_inline int refuse_exhausted(const struct asker *who, const struct file *file, __u32 hook)
{
	struct question q = {};

	put_question(&q, who, hook, 0);
	q.dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	q.inode = inode_at(q.dentry);
	q.mount = mount_of(BPF_CORE_READ(file, f_path.mnt));
	report_file(&q, AGENTD_WHY_EXHAUSTED, 0, 0);
	return -EPERM;
}

SEC("lsm/file_open")
int BPF_PROG(open_check, struct file *file, int ret)
{
	struct asker who;
	__u32 want;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (who.agent->exhausted)
		return refuse_exhausted(&who, file, AGENTD_H_OPEN);

	/* The kernel opens it to run it; bprm_check_security and mmap_file decide about that. */
	if (file->f_flags & FMODE_EXEC_FLAG)
		return 0;
	want = rights_of_mode(file);
	if ((file->f_flags & O_TMPFILE_BIT) == O_TMPFILE_BIT)
		want |= AGENTD_CREATE;
	return decide_file(&who, file, AGENTD_H_OPEN, want);
}

SEC("lsm/file_receive")
int BPF_PROG(receive_check, struct file *file, int ret)
{
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	return decide_file(&who, file, AGENTD_H_RECEIVE, rights_of_mode(file));
}

/*
 * What was lent can end while it is open, so from the first loan on the agent is asked again at every read and write of a
 * file, and at every look into a directory. Pipes, sockets and terminals are not lent.
 */
SEC("lsm/file_permission")
int BPF_PROG(use_check, struct file *file, int mask, int ret)
{
	struct asker who;
	__u32 want = 0;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (!asked_again(&who, file))
		return 0;
	if (mask & MAY_READ)
		want |= AGENTD_READ;
	if (mask & (MAY_WRITE | MAY_APPEND))
		want |= AGENTD_WRITE;
	if (!want)
		return 0;
	return decide_file(&who, file, AGENTD_H_USE, want);
}

SEC("lsm/path_truncate")
int BPF_PROG(truncate_check, const struct path *path, int ret)
{
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	return decide_at(&who, path->dentry, path->mnt, AGENTD_H_TRUNCATE, AGENTD_WRITE);
}

SEC("?lsm/file_truncate")
int BPF_PROG(ftruncate_check, struct file *file, int ret)
{
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	return decide_file(&who, file, AGENTD_H_TRUNCATE, AGENTD_WRITE);
}

SEC("lsm/bprm_check_security")
int BPF_PROG(exec_check, struct linux_binprm *bprm, int ret)
{
	struct asker who;

	if (ret)
		return ret;
	if (!inside(&who))
		return in_agents_cgroup() ? -EPERM : 0;
	if (!who.agent)
		return -EPERM;
	if (who.agent->exhausted)
		return refuse_exhausted(&who, bprm->file, AGENTD_H_EXEC);
	return decide_file(&who, bprm->file, AGENTD_H_EXEC, AGENTD_EXEC);
}

SEC("lsm/mmap_file")
int BPF_PROG(mmap_check, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	struct asker who;
	__u32 want = 0;

	if (ret)
		return ret;
	if (!file || !inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (prot & PROT_EXEC)
		want |= AGENTD_EXEC;
	if (asked_again(&who, file)) {
		want |= AGENTD_READ;
		if (prot & PROT_WRITE && (flags & MAP_TYPE) != MAP_PRIVATE)
			want |= AGENTD_WRITE;
	}
	if (!want)
		return 0;
	return decide_mapping(&who, file, prot & PROT_EXEC ? AGENTD_H_MMAP_EXEC : AGENTD_H_USE, want);
}

SEC("lsm/file_mprotect")
int BPF_PROG(mprotect_check, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot, int ret)
{
	struct asker who;
	struct file *file;
	__u32 want = 0;

	if (ret)
		return ret;
	if (!(prot & (PROT_EXEC | PROT_WRITE)) || !inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	file = vma->vm_file;
	if (!file)
		return 0;
	if (prot & PROT_EXEC)
		want |= AGENTD_EXEC;
	if (prot & PROT_WRITE && BPF_CORE_READ(vma, vm_flags) & VM_SHARED && asked_again(&who, file))
		want |= AGENTD_WRITE;
	if (!want)
		return 0;
	return decide_mapping(&who, file, prot & PROT_EXEC ? AGENTD_H_MPROTECT_EXEC : AGENTD_H_USE, want);
}
