/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which objects are behind these descriptors?
 *
 * Rules must carry the (device, inode) that the hooks will see, and stat(2) shows another one on overlayfs and on some
 * others. So the daemon opens the files and asks this program, which runs in the daemon's own system call (test-run of a
 * raw tracepoint program) and uses the hooks' own code. Loads on hosts without BPF LSM too.
 */
#include "kernel.h"

#include "object.h"
#include "descriptor.h"

char LICENSE[] SEC("license") = "GPL";

/* As many as a test-run has arguments. */
#define QUESTIONS 12

/* The answers, read by the loader after each run: `reserved` holds the S_IFMT bits of the mode. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUESTIONS);
	__type(key, __u32);
	__type(value, struct agentd_object);
} identified SEC(".maps");

struct raw_args {
	__u64 fds[QUESTIONS];
};

/* DEV_UNKNOWN: there is no such descriptor, or nothing behind it that a rule can name. */
static __noinline int answer(__u64 fd, __u32 question)
{
	const bool direct = false;
	struct agentd_object *found = bpf_map_lookup_elem(&identified, &question);
	struct dentry *dentry;
	struct inode *inode;
	struct file *file;
	struct object o;

	if (!found)
		return 0;
	found->dev = DEV_UNKNOWN;
	file = file_of_current(fd);
	if (!file)
		return 0;
	dentry = BPF_CORE_READ(file, f_path.dentry);
	inode = BPF_CORE_READ(dentry, d_inode);
	if (!inode)
		return 0;
	o = object_of(inode, GET(dentry, d_sb), direct);
	found->dev = o.dev;
	found->reserved = GET(inode, i_mode) & S_IFMT;
	found->ino = o.ino;
	return 0;
}

SEC("raw_tp")
int identify(struct raw_args *ctx)
{
	__u32 question;

	/* Unrolled, because the verifier takes no variable index into the arguments. */
#pragma unroll
	for (question = 0; question < QUESTIONS; question++)
		answer(ctx->fds[question], question);
	return 0;
}
