/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which file is behind a descriptor of the current task?
 *
 * For programs that run in a system call of the process that asks, and that holds the descriptor open meanwhile.
 */
#ifndef AGENTD_DESCRIPTOR_H
#define AGENTD_DESCRIPTOR_H

/* NULL: there is none. */
static __always_inline struct file *file_of_current(__u64 fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file = NULL;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

#endif
