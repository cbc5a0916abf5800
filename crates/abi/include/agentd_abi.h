/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The contract between the kernel programs and the daemon: every structure that crosses the border, and every limit.
 *
 * The C side includes this file after vmlinux.h. The Rust side is `crates/abi/src/lib.rs`, written by hand and compared
 * with the BTF of the compiled object in a test, so that neither can drift. Only fixed-size members, no padding that is
 * not named, no bool, no pointers. A number never changes its meaning: a new layout means a new AGENTD_ABI_VERSION,
 * which the loader checks before it reuses pinned maps.
 */
#ifndef AGENTD_ABI_H
#define AGENTD_ABI_H

#define AGENTD_ABI_VERSION 2

/* Limits. Reaching one is an error that names it; nothing is ever dropped silently. */
#define AGENTD_MAX_AGENTS 1024		/* slots in `agents`; slot 0 is never used */
#define AGENTD_MAX_RULES 131072		/* entries in `rules`, all agents together */
#define AGENTD_MAX_NAMES 131072		/* entries in `names`, all agents together */
#define AGENTD_MAX_LENT 131072		/* entries in `lent`, all agents together */
#define AGENTD_MAX_CAPABILITIES 65536	/* slots in `capabilities`; slot 0 is never used */
#define AGENTD_LENDERS 4		/* capabilities that lend rights on one object to one agent */
#define AGENTD_MAX_NETS 16384		/* entries in `nets`, all agents together */
#define AGENTD_MAX_DEPTH 64		/* directory levels and mounts walked; deeper is denied */
#define AGENTD_CACHE_SLOTS 65536	/* entries in `decisions` (1 MiB) */
#define AGENTD_EVENT_RING (8 << 20)	/* bytes of `events` */
#define AGENTD_HINT_WORDS 16384		/* words of 64 bits in `hints` (128 KiB) */
#define AGENTD_PATH_BYTES 1024		/* bytes of names in a file event */
#define AGENTD_NAME_BYTES 64		/* longest file name that a name rule can match */
#define AGENTD_NET_PORTS 8		/* port ranges of one network entry */

/* Rights on files. */
#define AGENTD_READ 1
#define AGENTD_WRITE 2
#define AGENTD_EXEC 4
#define AGENTD_CREATE 8
#define AGENTD_DELETE 16
#define AGENTD_ALL_RIGHTS 31

/*
 * Who is asking. Value of the task storage map `task_agent`; copied from parent to child in task_alloc.
 * `number` repeats what stands in the slot, so that a slot that was given to somebody else is noticed.
 */
struct agentd_identity {
	__u32 slot;
	__u32 number;
};

/* agentd_agent.flags */
#define AGENTD_F_FILE_RULES 1		/* some rule sits on something that is not a directory */
#define AGENTD_F_NAMES 2		/* some rule is about a name */
#define AGENTD_F_URING_DENIED 4		/* kept for the report: io_uring is refused by seccomp, not by hook */
#define AGENTD_F_LENT 8			/* some right was lent, so what is open is asked about again at every use */

/*
 * One agent. Value of the array `agents`, index is the slot. The daemon writes the upper part, the kernel the lower
 * part (from `cpu_spent_ns` on); neither writes the other's, except that the daemon clears `exhausted` at a top-up.
 */
struct agentd_agent {
	__u32 number;			/* 0: the slot is free. Never used twice while the journal lives */
	__u32 flags;
	__u64 generation;		/* changes whenever a rule of this agent changes; unique on the host */
	__u64 cgroup_id;		/* the agent's own cgroup */
	__u64 cpu_limit_ns;		/* 0: no limit */
	__u64 cpu_warn_ns;		/* 0: no warning; else the spend at which one event is sent */
	__u64 cpu_kill_ns;		/* 0: never; else the spend at which the task that runs gets SIGKILL */
	__u64 name_lengths;		/* bit n: some name rule is about a name of n bytes (n < 64) */
	/* written by the kernel */
	__u64 cpu_spent_ns;
	__u64 exhausted_at_ns;		/* bpf_ktime_get_ns() of the moment the limit was reached, 0 before */
	__u32 exhausted;		/* 1: forks, execs and opens are refused */
	__u32 warned;			/* 1: the warning event was sent */
	__u64 denials;			/* all refusals, reported or not */
	__u64 suppressed;		/* refusals whose event was not sent: rate limit or full ring */
	__u64 report_window_ns;		/* start of the present second of reporting */
	__u32 reports_in_window;
	__u32 reserved;
};

/*
 * Which file or directory. `dev` is super_block.s_dev in the kernel's encoding (major << 20 | minor), on btrfs the
 * anonymous device of the subvolume, because inode numbers repeat between subvolumes.
 */
struct agentd_object {
	__u32 dev;
	__u32 reserved;
	__u64 ino;
};

/* Key of the hash `rules`. */
struct agentd_rule_key {
	__u32 agent;			/* agentd_agent.number */
	__u32 dev;
	__u64 ino;
};

/*
 * The array `hints` has one bit for every hash of a rule's key: 0 means that `rules` has no such key, and the lookup is
 * spared. Set before a rule is put, cleared only when no rule with that hash is left; a bit too many costs one lookup.
 * The number of the bit is the upper 20 bits of
 *	h = (ino + (dev << 32 | agent)) * 0x9e3779b97f4a7c15; h ^= h >> 32; h *= 0xbf58476d1ce4e5b9
 */

/* agentd_rule.flags */
#define AGENTD_R_NAMES 1		/* names directly below this directory have entries in `names` */
/*
 * A denial by name relies on this directory (in `rules`), or on whatever has this name (in `names`, anywhere), being
 * what it is: no rename from or to it, no removal of the object, no symbolic link of the name.
 */
#define AGENTD_R_KEEP 2

/*
 * Value of `rules` and `names`. A right in neither mask is not mentioned, and the walk goes on upwards. A right in
 * both is denied. `allow_id` and `deny_id` are the positions (from 1) in the agent's compiled rule list, for reports.
 */
struct agentd_rule {
	__u32 allow;
	__u32 deny;
	__u32 flags;
	__u32 allow_id;
	__u32 deny_id;
	__u32 reserved;
	__u64 expires_ns;		/* bpf_ktime_get_ns() from which the rule no longer allows; ~0: never */
};

/* agentd_capability.state; what is not there is not allowed. */
#define AGENTD_C_PREPARED 0		/* not in force yet: the journal does not have it */
#define AGENTD_C_IN_FORCE 1
#define AGENTD_C_REVOKED 2

/*
 * One capability. Value of the array `capabilities`, index is its slot; written by the daemon through a mapping, `state`
 * in one store, which every processor sees with its next decision. Times are of bpf_ktime_get_ns().
 */
struct agentd_capability {
	__u32 number;			/* 0: the slot is free. Never used twice while the journal lives */
	__u32 state;
	__u32 agent;			/* agentd_agent.number of its holder */
	__u32 reserved;
	__u64 from_ns;			/* it allows from then on */
	__u64 until_ns;			/* and no longer than until then; ~0: without end */
};

/*
 * What a capability lends on one object. It counts only while its slot holds that number for that agent, and if `object`
 * is (ino ^ ino >> 32 ^ dev * 0x9e3779b1) of the object that is asked about: memory of a hash is used again while a
 * program still looks at it.
 */
struct agentd_loan {
	__u32 rights;			/* 0: unused */
	__u32 slot;
	__u32 number;
	__u32 object;
};

/* Value of the hash `lent`; its key is that of a rule, whose hint it shares. */
struct agentd_lent {
	struct agentd_loan loans[AGENTD_LENDERS];
};

/*
 * Key of the hash `names`: a name that is ruled whether or not it exists. Either the name directly below one directory
 * (dev, parent = inode), or a pattern that holds anywhere (dev = AGENTD_ANYWHERE, parent = hash of the name of the
 * directory it stands in, 0 for any directory).
 */
#define AGENTD_ANYWHERE 0xffffffffu
struct agentd_name_key {
	__u32 agent;
	__u32 dev;
	__u64 parent;
	__u64 name;			/* agentd_name_hash() of the last component */
};

/* One word of the decision cache is two keyed tags and the rights; see ebpf/lsm/cache.h. */
struct agentd_decision {
	__u64 tag;
	__u64 word;
};

/* The only element of the array `config`: what the loader was told. Written once, read by whoever finds the pins. */
struct agentd_config {
	__u32 abi_version;		/* AGENTD_ABI_VERSION */
	__u32 agents_level;		/* level of the agents' cgroups in the hierarchy; 0: no agents' cgroup */
	__u64 agents_cgroup;		/* id of the cgroup whose children are agents' cgroups */
	__u64 build;			/* hash of the programs, so that a daemon knows its own pins again */
	__u64 loaded_ns;		/* bpf_ktime_get_ns() of the load */
};

/* Network. IPv4 is written as ::ffff:a.b.c.d, so an IPv4-mapped IPv6 address is the same key. */
#define AGENTD_NET_CONNECT 1		/* connect, and datagrams sent with an address */
#define AGENTD_NET_BIND 2
#define AGENTD_NET_TCP 4
#define AGENTD_NET_UDP 8

/* Key of the LPM trie `nets`; prefix_bits counts from `agent` on: 32 + bits of the address prefix. */
struct agentd_net_key {
	__u32 prefix_bits;
	__u8 agent[4];			/* agentd_agent.number, big-endian: a trie compares from the first byte on */
	__u8 addr[16];
};

struct agentd_port_range {
	__u16 first;			/* host byte order, both ends included */
	__u16 last;
	__u16 ops;			/* AGENTD_NET_*: at least one operation and one protocol */
	__u16 rule_id;
};

/* Longest prefix decides alone; the daemon copies the ranges of a wider prefix into the narrower ones. */
struct agentd_net {
	__u32 count;			/* ranges in use */
	__u32 reserved;
	struct agentd_port_range ports[AGENTD_NET_PORTS];
};

/* Events: samples of the ring buffer `events`. Every one begins with this head; `kind` gives the rest and its size. */
enum agentd_event_kind {
	AGENTD_EV_FILE_DENIED = 1,	/* struct agentd_file_event */
	AGENTD_EV_GUARD_DENIED = 2,	/* struct agentd_guard_event: ptrace, signal, mount, bpf, … */
	AGENTD_EV_NET_DENIED = 3,	/* struct agentd_net_event */
	AGENTD_EV_CPU_WARN = 4,		/* struct agentd_budget_event */
	AGENTD_EV_CPU_EXHAUSTED = 5,	/* struct agentd_budget_event */
	AGENTD_EV_CPU_KILLED = 6,	/* struct agentd_budget_event */
	AGENTD_EV_FORK = 7,		/* struct agentd_process_event */
	AGENTD_EV_EXEC = 8,		/* struct agentd_process_event */
	AGENTD_EV_EXIT = 9,		/* struct agentd_process_event */
};

struct agentd_event {
	__u32 kind;
	__u32 agent;			/* agentd_agent.number */
	__u64 time_ns;			/* bpf_ktime_get_ns(): CLOCK_MONOTONIC */
	__u32 pid;			/* thread group, in the host's pid namespace */
	__u32 tid;
	__u64 suppressed;		/* refusals of this agent not reported since its last report */
	__u8 comm[16];			/* for people; never identity */
};

/* Why it was refused. */
enum agentd_reason {
	AGENTD_WHY_NOTHING_FOUND = 1,	/* no rule up to the root mentions the right */
	AGENTD_WHY_RULE = 2,		/* rule_id denies it */
	AGENTD_WHY_NAME = 3,		/* rule_id, about a name, denies it */
	AGENTD_WHY_EXHAUSTED = 4,	/* the CPU budget is spent */
	AGENTD_WHY_TOO_DEEP = 5,	/* more than AGENTD_MAX_DEPTH levels */
	AGENTD_WHY_NO_PLACE = 6,	/* the object has no place in a tree: memfd, detached mount, deleted root */
	AGENTD_WHY_GUARD = 7,		/* never allowed inside an agent */
	AGENTD_WHY_STRANGER = 8,	/* the other process is not of this agent */
	AGENTD_WHY_EXPIRED = 9,		/* the rule that allowed it has expired */
	AGENTD_WHY_NAMES_VARY = 10,	/* one object answers to many spellings there, and rules about names are about one */
	/* A capability would have allowed it; rule_id is its number. */
	AGENTD_WHY_ENDED = 11,		/* its time is over */
	AGENTD_WHY_REVOKED = 12,
	AGENTD_WHY_NOT_YET = 13,	/* its time has not come */
};

/* Which call. The names are those of the hooks; docs give the system calls. */
enum agentd_hook {
	AGENTD_H_OPEN = 1,
	AGENTD_H_MKNOD = 2,
	AGENTD_H_MKDIR = 3,
	AGENTD_H_SYMLINK = 4,
	AGENTD_H_LINK = 5,
	AGENTD_H_UNLINK = 6,
	AGENTD_H_RMDIR = 7,
	AGENTD_H_RENAME = 8,
	AGENTD_H_TRUNCATE = 9,
	AGENTD_H_CHMOD = 10,
	AGENTD_H_CHOWN = 11,
	AGENTD_H_CHROOT = 12,
	AGENTD_H_ATTRIBUTES = 13,	/* inode_setattr (times), xattrs, ACLs, file flags */
	AGENTD_H_EXEC = 14,
	AGENTD_H_MMAP_EXEC = 15,
	AGENTD_H_MPROTECT_EXEC = 16,
	AGENTD_H_RECEIVE = 17,
	AGENTD_H_FORK = 18,
	AGENTD_H_MOUNT = 19,		/* mount, move, umount, pivot_root, remount, fsconfig */
	AGENTD_H_USERNS = 20,
	AGENTD_H_PTRACE = 21,
	AGENTD_H_SIGNAL = 22,
	AGENTD_H_BPF = 23,
	AGENTD_H_PERF = 24,
	AGENTD_H_IO_URING = 25,
	AGENTD_H_SCHEDULER = 26,
	AGENTD_H_MODULE = 27,
	AGENTD_H_CONNECT = 28,
	AGENTD_H_SENDMSG = 29,
	AGENTD_H_BIND = 30,
	AGENTD_H_SOCKET = 31,		/* a family or type that cannot be checked */
	AGENTD_H_KEYS = 32,
	AGENTD_H_UNIX = 33,		/* connection or message to a unix socket outside the agent */
	AGENTD_H_USE = 34,		/* reading or writing what is open, after rights were lent */
};

/*
 * A refused file access. `path` holds `levels` names, each with its NUL, from the object up to the root of the agent's
 * view; the reader turns them round. `path_bytes` = AGENTD_PATH_BYTES or levels = AGENTD_MAX_DEPTH: the front is missing.
 */
struct agentd_file_event {
	struct agentd_event head;
	__u32 hook;
	__u32 reason;
	__u32 right;			/* what was asked for and not had: AGENTD_READ … */
	__u32 rule_id;			/* 0: none */
	struct agentd_object object;	/* of the directory, where the name does not exist */
	__u32 levels;
	__u32 path_bytes;
	__u8 path[AGENTD_PATH_BYTES];
};

struct agentd_guard_event {
	struct agentd_event head;
	__u32 hook;
	__u32 reason;
	__u64 detail;			/* the stranger's pid, the bpf command, the signal, … by hook */
	__u64 detail2;
};

struct agentd_net_event {
	struct agentd_event head;
	__u32 hook;
	__u32 reason;
	__u16 port;			/* host byte order */
	__u16 protocol;			/* IPPROTO_* */
	__u32 family;			/* AF_* */
	__u8 addr[16];
};

struct agentd_budget_event {
	struct agentd_event head;
	__u64 spent_ns;
	__u64 limit_ns;
};

struct agentd_process_event {
	struct agentd_event head;
	__u32 parent_pid;
	__s32 status;			/* exit: the wait status, if the program can see it; else 0 */
	__u8 path[256];			/* exec: the file name as given to execve, with its NUL */
};

#endif
