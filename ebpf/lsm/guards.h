/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What does no agent ever do?
 *
 *   sb_mount, move_mount, sb_umount, sb_remount, sb_pivotroot, sb_kern_mount    change what is mounted where
 *   path_chroot                        another root
 *   userns_create                      a user namespace, in which it would have every Linux capability
 *   bpf                                any bpf(2) command: our programs and maps are out of reach
 *   perf_event_open                    watch the host
 *   uring_allowed (6.15 on)            io_uring, whose workers act outside of system calls; seccomp refuses it before
 *   kernel_read_file, kernel_load_data modules, firmware, kexec images, policies
 *
 * None of these asks a rule. Signatures differ between kernels, so only the leading arguments are named.
 */

static __always_inline int never(__u32 hook, __u64 detail)
{
	struct asker who;

	if (!inside(&who))
		return 0;
	if (who.agent)
		report_guard(who.agent, hook, AGENTD_WHY_GUARD, detail, 0);
	return -EPERM;
}

SEC("lsm/sb_mount")
int BPF_PROG(mount_guard)
{
	return never(AGENTD_H_MOUNT, 1);
}

SEC("lsm/move_mount")
int BPF_PROG(move_mount_guard)
{
	return never(AGENTD_H_MOUNT, 2);
}

SEC("lsm/sb_umount")
int BPF_PROG(umount_guard)
{
	return never(AGENTD_H_MOUNT, 3);
}

SEC("lsm/sb_remount")
int BPF_PROG(remount_guard)
{
	return never(AGENTD_H_MOUNT, 4);
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(pivot_root_guard)
{
	return never(AGENTD_H_MOUNT, 5);
}

SEC("lsm/sb_kern_mount")
int BPF_PROG(new_mount_guard)
{
	return never(AGENTD_H_MOUNT, 6);
}

SEC("lsm/path_chroot")
int BPF_PROG(chroot_guard)
{
	return never(AGENTD_H_CHROOT, 0);
}

SEC("lsm/userns_create")
int BPF_PROG(userns_guard)
{
	return never(AGENTD_H_USERNS, 0);
}

SEC("lsm/bpf")
int BPF_PROG(bpf_guard, int cmd)
{
	return never(AGENTD_H_BPF, cmd);
}

SEC("lsm/perf_event_open")
int BPF_PROG(perf_guard)
{
	return never(AGENTD_H_PERF, 0);
}

SEC("?lsm/uring_allowed")
int BPF_PROG(uring_guard)
{
	return never(AGENTD_H_IO_URING, 0);
}

SEC("lsm/kernel_read_file")
int BPF_PROG(read_file_guard, struct file *file, int id)
{
	return never(AGENTD_H_MODULE, id);
}

SEC("lsm/kernel_load_data")
int BPF_PROG(load_data_guard, int id)
{
	return never(AGENTD_H_MODULE, id);
}
