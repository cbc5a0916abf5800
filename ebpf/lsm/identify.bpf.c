/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which object is behind this descriptor?
 *
 * Rules must carry the (device, inode) that the hooks will see, and stat(2) shows another one on overlayfs and on some
 * others. So the daemon opens the file and asks this program, which runs in the daemon's own system call (test-run of a
 * raw tracepoint program) and uses the hooks' own code. Loads on hosts without BPF LSM too.
 */
#include "kernel.h"

#include "object.h"
#include "descriptor.h"

char LICENSE[] SEC("license") = "GPL";

/* The answer, read by the loader after each run: `reserved` holds the S_IFMT bits of the mode. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct agentd_object);
} identified SEC(".maps");

struct raw_args {
	__u64 fd;
};

/* 0: found. 1: there is no such descriptor, or nothing behind it. */
SEC("raw_tp")
int identify(struct raw_args *ctx)
{
	const bool direct = false;
	struct file *file = file_of_current(ctx->fd);
	struct dentry *dentry;
	struct inode *inode;
	struct agentd_object *answer;
	struct object o;
	__u32 zero = 0;

	if (!file)
		return 1;
	dentry = BPF_CORE_READ(file, f_path.dentry);
	inode = BPF_CORE_READ(dentry, d_inode);
	if (!inode)
		return 1;
	o = object_of(inode, GET(dentry, d_sb), direct);
	if (o.dev == DEV_UNKNOWN)
		return 1;
	answer = bpf_map_lookup_elem(&identified, &zero);
	if (!answer)
		return 1;
	answer->dev = o.dev;
	answer->reserved = GET(inode, i_mode) & S_IFMT;
	answer->ino = o.ino;
	return 0;
}
