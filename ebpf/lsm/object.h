/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which object is this?
 *
 * (device, inode number), as the rules have it. Two file systems count in ways of their own:
 *
 * On btrfs every subvolume counts its inodes from 256 on, so there the device is the subvolume's own anonymous one, which
 * is also what stat(2) shows. If the kernel's btrfs is not known to us, its files get a device that no rule can name:
 * everything on it is refused, nothing is confused (identify.bpf.c gives no object for such a file either).
 *
 * An overlay takes the numbers of its layers, which can be equal. There the number is the address of the inode: it is in
 * memory, and stays where it is, as long as somebody has the file open, and the shim has every file that a rule names.
 */
#ifndef AGENTD_OBJECT_H
#define AGENTD_OBJECT_H

/* None is a device that a file system can have: the kernel counts majors from 1 to 511 and gives no such minors. */
#define DEV_UNKNOWN 0xfffffffeU
#define DEV_BTRFS 0xfffffffdU
#define DEV_OVERLAY 0xfffffffcU

struct object {
	__u32 dev;
	__u64 ino;
};

static __noinline __u32 btrfs_dev(__u64 inode)
{
	struct btrfs_inode *b;
	struct btrfs_root *root = NULL;
	__u32 dev = 0;

	if (!bpf_core_type_exists(struct btrfs_inode) || !bpf_core_field_exists(struct btrfs_root, anon_dev))
		return DEV_UNKNOWN;
	b = (void *)(inode - bpf_core_field_offset(struct btrfs_inode, vfs_inode));
	bpf_core_read(&root, sizeof(root), &b->root);
	bpf_core_read(&dev, sizeof(dev), &root->anon_dev);
	return dev ?: DEV_UNKNOWN;
}

/* An address as a number. The verifier does no sums with pointers; what has gone through memory is one no more. */
static __noinline __u64 address_of(__u64 inode)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &inode);
	return address;
}

/* The device of everything on a file system; DEV_BTRFS: it differs from file to file; DEV_OVERLAY: it says nothing. */
static __always_inline __u32 dev_of(struct super_block *sb, const bool direct)
{
	switch (GET(sb, s_magic)) {
	case BTRFS_SUPER_MAGIC:
		return DEV_BTRFS;
	case OVERLAYFS_SUPER_MAGIC:
		return DEV_OVERLAY;
	default:
		return GET(sb, s_dev);
	}
}

/* The object behind an inode, on a file system whose device is known. */
static __always_inline struct object object_on(struct inode *inode, __u32 dev, const bool direct)
{
	struct object o = { .dev = dev, .ino = GET(inode, i_ino) };

	if (dev == DEV_BTRFS)
		o.dev = btrfs_dev((__u64)inode);
	else if (dev == DEV_OVERLAY)
		o.ino = address_of((__u64)inode);
	return o;
}

/* The object behind an inode that is on that file system. */
static __always_inline struct object object_of(struct inode *inode, struct super_block *sb, const bool direct)
{
	return object_on(inode, dev_of(sb, direct), direct);
}

#endif
