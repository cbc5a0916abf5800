/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What does the kernel look like?
 *
 * Only the structures and members that our programs read, written by hand. Offsets are not taken from here: every
 * record carries preserve_access_index, so the loader finds each member by name in the BTF of the kernel that runs
 * (CO-RE). That is why the build needs neither bpftool nor any kernel's headers. All differences between kernels that
 * we support (6.1 to 7.x) stand in this file, each beside the structure it is about.
 */
#ifndef AGENTD_KERNEL_H
#define AGENTD_KERNEL_H

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
typedef unsigned short umode_t;

#define NULL ((void *)0)
#define true 1
#define false 0

/* From the user-space headers of the kernel; numbers that can never change. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
#define BPF_F_NO_PREALLOC (1U << 0)
#define BPF_F_MMAPABLE (1U << 10)
#define BPF_LOCAL_STORAGE_GET_F_CREATE (1ULL << 0)
#define BPF_RB_FORCE_WAKEUP (1ULL << 1)

#define EPERM 1
#define EAGAIN 11
#define EACCES 13

#define S_IFMT 00170000
#define S_IFDIR 0040000
#define S_IFREG 0100000
#define O_TMPFILE_BIT 020000000
#define FMODE_EXEC_FLAG 0x20		/* __FMODE_EXEC in f_flags; open(2) cannot set it */
#define MAY_WRITE 2
#define MAY_READ 4
#define MAY_APPEND 8
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_TYPE 0xf
#define MAP_PRIVATE 2
#define VM_SHARED 8
#define SIGKILL 9
#define RENAME_EXCHANGE 2
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define MSG_FASTOPEN 0x20000000
#define RLIMIT_RTPRIO 14
#define CAP_SYS_NICE 23
#define FS_IOC_SETFLAGS 0x40086602	/* from 6.17 on these arrive as inode_file_setattr */
#define FS_IOC32_SETFLAGS 0x40046602
#define FS_IOC_FSSETXATTR 0x401c5820
#define FS_IOC_GETFLAGS 0x80086601
#define FS_IOC_GETVERSION 0x80087601
#define FS_IOC_FIEMAP 0xc020660b
#define FS_IOC_FSGETXATTR 0x801c581f
#define FS_IOC_MEASURE_VERITY 0xc0046686
#define FICLONE 0x40049409
#define FICLONERANGE 0x4020940d
#define FIDEDUPERANGE 0xc0189436
#define IOCTL_TYPE(cmd) ((cmd) >> 8 & 0xff)

/* Inside the kernel only; stable over the kernels that we support. */
#define FMODE_READ 1
#define FMODE_WRITE 2
#define SB_KERNMOUNT (1UL << 22)
#define SB_NOUSER (1UL << 31)
#define MNT_NS_INTERNAL ((unsigned long)-22)
#define BTRFS_SUPER_MAGIC 0x9123683E
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define PROC_SUPER_MAGIC 0x9fa0
#define DCACHE_OP_HASH 1
#define DCACHE_OP_COMPARE 2
#define ATTR_MODE (1U << 0)
#define ATTR_UID (1U << 1)
#define ATTR_GID (1U << 2)
#define ATTR_SIZE (1U << 3)
#define ATTR_ATIME (1U << 4)
#define ATTR_MTIME (1U << 5)
#define ATTR_FORCE (1U << 9)

/* Prototypes in libbpf's helper list name these; nothing here looks into them. */
struct bpf_dynptr;
struct bpf_fib_lookup;
struct bpf_perf_event_data;
struct bpf_perf_event_value;
struct bpf_pidns_info;
struct bpf_redir_neigh;
struct bpf_sk_lookup;
struct bpf_sock;
struct bpf_sock_addr;
struct bpf_sock_ops;
struct bpf_sock_tuple;
struct bpf_spin_lock;
struct bpf_sysctl;
struct bpf_tcp_sock;
struct bpf_timer;
struct bpf_tunnel_key;
struct bpf_xfrm_state;
struct btf_ptr;
struct iphdr;
struct ipv6hdr;
struct linux_binprm;
struct mptcp_sock;
struct seq_file;
struct sk_msg_md;
struct sk_reuseport_md;
struct __sk_buff;
struct tcp6_sock;
struct tcp_request_sock;
struct tcp_timewait_sock;
struct udp6_sock;
struct xdp_md;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next, *prev;
};

/* --- files --- */

struct super_block {
	__u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
	struct mount *s_mounts;		/* 6.18 on: the first mount, chained by mount.mnt_next_for_sb */
};

struct super_block___list {
	struct list_head s_mounts;	/* before 6.18: mounts chained by mount.mnt_instance */
};

struct inode {
	umode_t i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;	/* another for each use of a number; 0: this file system counts none */
};

struct qstr {
	union {
		struct {
			__u32 hash;
			__u32 len;
		};
		__u64 hash_len;
	};
	const unsigned char *name;
};

struct dentry {
	unsigned int d_flags;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
	__u64 event;			/* a host-wide counter at the time of the last change of any mount in here */
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
	int mnt_id;			/* given again after umount */
	__u64 mnt_id_unique;		/* 6.8 on: never given again */
	struct mount *mnt_next_for_sb;	/* 6.18 on */
};

struct mount___list {
	struct list_head mnt_instance;	/* before 6.18 */
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct inode *f_inode;
	struct path f_path;
};

/* 6.5 on, and only where overlayfs (or FUSE pass-through) is built: the file below, and the path the user knows. */
struct backing_file {
	struct file file;
	struct path user_path;
};

struct vm_area_struct {
	struct file *vm_file;
	unsigned long vm_flags;
};

struct linux_binprm {
	struct file *file;
};

struct iattr {
	unsigned int ia_valid;
};

struct renamedata {
	struct dentry *old_dentry;
	struct dentry *new_dentry;
};

/* btrfs is a module almost everywhere: these resolve only if its BTF is there when we load, else they do not exist. */
struct btrfs_root {
	__u32 anon_dev;
};

struct btrfs_inode {
	struct btrfs_root *root;
	struct inode vfs_inode;
};

/* --- processes --- */

struct kernfs_node {
	__u64 id;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

/* The way up is self.parent->cgroup on every kernel; the table of ancestors has changed its name and place. */
struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

/* Two u32 until 6.2, one u64 since: the same eight bytes on a little-endian machine. */
typedef struct {
	__u64 val;
} kernel_cap_t;

struct cred {
	kernel_cap_t cap_effective;
};

struct rlimit {
	unsigned long rlim_cur;
	unsigned long rlim_max;
};

struct signal_struct {
	struct rlimit rlim[16];
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct fs_struct {
	struct path pwd;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	int pid;
	int tgid;
	const struct cred *real_cred;
	const struct cred *cred;
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
};

/* --- sockets --- */

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock_common {
	unsigned short skc_family;
	__u16 skc_num;		/* local port, host byte order; 0: none yet */
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	short type;
	struct sock *sk;
};

struct unix_address {
	int len;
};

struct unix_sock {
	struct sock sk;
	struct unix_address *addr;
	struct path path;
};

#pragma clang attribute pop

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#include "agentd_abi.h"
#include "settings.h"

/*
 * Makes a number or an untrusted pointer a pointer that can be read directly. The kernel has it from 6.2 on; before,
 * memory is copied out with bpf_probe_read_kernel. The loader sets `settings.can_cast`; the branch not taken is removed by the
 * verifier, so a kernel never sees the other's instructions.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/* An address as a pointer of that type; `direct` is a constant where these are used. */
#define AS(type, address)                                                                                              \
	((type *)(direct ? bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(type)) : (void *)(address)))

/* One member of *p. */
#define GET(p, member)                                                                                                 \
	({                                                                                                             \
		typeof((p)->member) value_;                                                                            \
		if (direct)                                                                                            \
			value_ = (p)->member;                                                                          \
		else                                                                                                   \
			bpf_core_read(&value_, sizeof(value_), &(p)->member);                                          \
		value_;                                                                                                \
	})

/* The mount around a vfsmount. */
static __always_inline __u64 mount_of(const struct vfsmount *mnt)
{
	return (__u64)mnt - bpf_core_field_offset(struct mount, mnt);
}

#endif
