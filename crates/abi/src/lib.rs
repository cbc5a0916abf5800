//! What do the kernel programs and the daemon say to each other?
//!
//! The hand-written mirror of `include/agentd_abi.h`: the same structures, in the same order, with the same names less
//! their prefix. A test in `ebpf/` compares sizes and offsets with the BTF of the compiled object, so neither side can
//! drift. Bytes that come out of the kernel are an allegation: [`Event::parse`] is the one place where they become
//! values.
//!
//! Not here: maps, file descriptors, loading. This crate is plain data and also compiles without `std`, because the
//! Rust programs in `ebpf/net` use it inside the kernel.

#![no_std]
#![forbid(unsafe_code)]

mod event;

pub use event::{Event, ParseError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the layout below; the loader refuses pinned maps of another one.
pub const ABI_VERSION: u32 = 2;

/// Slots in the array `agents`; slot 0 is never used.
pub const MAX_AGENTS: u32 = 1024;
/// Entries in the hash `rules`, all agents together.
pub const MAX_RULES: u32 = 131_072;
/// Entries in the hash `names`, all agents together.
pub const MAX_NAMES: u32 = 131_072;
/// Entries in the hash `lent`, all agents together.
pub const MAX_LENT: u32 = 131_072;
/// Slots in the array `capabilities`; slot 0 is never used.
pub const MAX_CAPABILITIES: u32 = 65_536;
/// Capabilities that lend rights on one object to one agent.
pub const LENDERS: usize = 4;
/// Entries in the trie `nets`, all agents together.
pub const MAX_NETS: u32 = 16_384;
/// Directory levels and mounts that are walked; deeper is denied.
pub const MAX_DEPTH: u32 = 64;
/// Entries of the decision cache.
pub const CACHE_SLOTS: u32 = 65_536;
/// Words of 64 bits in `hints`.
pub const HINT_WORDS: u32 = 16_384;
/// Bytes of the ring buffer `events`.
pub const EVENT_RING: u32 = 8 << 20;
/// Bytes of names in a [`FileEvent`].
pub const PATH_BYTES: usize = 1024;
/// Longest file name, in bytes, that a name rule can match.
pub const NAME_BYTES: usize = 64;
/// Port ranges of one [`Net`] entry.
pub const NET_PORTS: usize = 8;

/// Right to read a file or list a directory.
pub const READ: u32 = 1;
/// Right to change a file's content or attributes.
pub const WRITE: u32 = 2;
/// Right to execute a file or map it executable.
pub const EXEC: u32 = 4;
/// Right to create a name in a directory.
pub const CREATE: u32 = 8;
/// Right to remove a name from a directory.
pub const DELETE: u32 = 16;
/// All five rights.
pub const ALL_RIGHTS: u32 = 31;

/// [`Agent::flags`]: some rule sits on something that is not a directory.
pub const F_FILE_RULES: u32 = 1;
/// [`Agent::flags`]: some rule is about a name.
pub const F_NAMES: u32 = 2;
/// [`Agent::flags`]: io_uring is refused by seccomp, not by hook.
pub const F_URING_DENIED: u32 = 4;
/// [`Agent::flags`]: some right was lent, so what is open is asked about again at every use.
pub const F_LENT: u32 = 8;

impl RuleKey {
    /// The object of this key as a loan repeats it.
    pub fn object(&self) -> u32 {
        (self.ino as u32) ^ ((self.ino >> 32) as u32) ^ self.dev.wrapping_mul(0x9e37_79b1)
    }

    /// The bit of `hints` for this key: the word and the mask in it.
    pub fn hint(&self) -> (u32, u64) {
        let at = u64::from(self.dev) << 32 | u64::from(self.agent);
        let mut hash = self.ino.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bit = hash >> 44;
        ((bit >> 6) as u32, 1 << (bit & 63))
    }
}

/// [`Rule::flags`]: names directly below this directory have entries in `names`.
pub const R_NAMES: u32 = 1;
/// [`Rule::flags`]: no rename from or to this directory or name, no removal of the object, no symbolic link of the name.
pub const R_KEEP: u32 = 2;
/// [`Capability::state`]: the journal does not have it yet.
pub const C_PREPARED: u32 = 0;
/// [`Capability::state`]: in force between its two times.
pub const C_IN_FORCE: u32 = 1;
/// [`Capability::state`]: taken back.
pub const C_REVOKED: u32 = 2;
/// [`NameKey::dev`] of a pattern that holds anywhere.
pub const ANYWHERE: u32 = u32::MAX;
/// [`Rule::expires_ns`] of a rule that never expires.
pub const NEVER: u64 = u64::MAX;

/// [`PortRange::ops`]: connect, and datagrams sent with an address.
pub const NET_CONNECT: u16 = 1;
/// [`PortRange::ops`]: bind.
pub const NET_BIND: u16 = 2;
/// [`PortRange::ops`]: TCP.
pub const NET_TCP: u16 = 4;
/// [`PortRange::ops`]: UDP.
pub const NET_UDP: u16 = 8;

/// Who is asking: value of the task storage map `task_agent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Identity {
    /// Index in `agents`.
    pub slot: u32,
    /// Repeats [`Agent::number`], so that a slot given to somebody else is noticed.
    pub number: u32,
}

/// One agent: value of the array `agents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Agent {
    /// 0: the slot is free.
    pub number: u32,
    /// `F_…`
    pub flags: u32,
    /// Changes whenever a rule of this agent changes; unique on the host.
    pub generation: u64,
    /// The agent's own cgroup.
    pub cgroup_id: u64,
    /// Nanoseconds of CPU time; 0: no limit.
    pub cpu_limit_ns: u64,
    /// Spend at which one warning is sent; 0: none.
    pub cpu_warn_ns: u64,
    /// Spend at which the running task gets SIGKILL; 0: never.
    pub cpu_kill_ns: u64,
    /// Bit n: some name rule is about a name of n bytes.
    pub name_lengths: u64,
    /// Written by the kernel: nanoseconds of CPU time used.
    pub cpu_spent_ns: u64,
    /// Written by the kernel: monotonic time at which the limit was reached, 0 before.
    pub exhausted_at_ns: u64,
    /// Written by the kernel, cleared by the daemon at a top-up: forks, execs and opens are refused.
    pub exhausted: u32,
    /// Written by the kernel: the warning was sent.
    pub warned: u32,
    /// Written by the kernel: all refusals.
    pub denials: u64,
    /// Written by the kernel: refusals whose event was not sent.
    pub suppressed: u64,
    /// Written by the kernel: start of the present second of reporting.
    pub report_window_ns: u64,
    /// Written by the kernel: events sent in that second.
    pub reports_in_window: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Which file or directory, as the kernel programs see it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Object {
    /// Kernel encoding (major << 20 | minor); on btrfs the subvolume's anonymous device.
    pub dev: u32,
    /// Always 0.
    pub reserved: u32,
    /// Inode number.
    pub ino: u64,
}

/// Key of the hash `rules`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RuleKey {
    /// [`Agent::number`].
    pub agent: u32,
    /// [`Object::dev`].
    pub dev: u32,
    /// [`Object::ino`].
    pub ino: u64,
}

/// Value of `rules` and `names`. A right in neither mask is not mentioned; a right in both is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rule {
    /// Rights given.
    pub allow: u32,
    /// Rights refused.
    pub deny: u32,
    /// `R_…`
    pub flags: u32,
    /// Position, from 1, in the agent's compiled rule list of the rule behind `allow`.
    pub allow_id: u32,
    /// The same for `deny`.
    pub deny_id: u32,
    /// Always 0.
    pub reserved: u32,
    /// Monotonic nanoseconds from which `allow` no longer holds; [`NEVER`].
    pub expires_ns: u64,
}

/// One capability: value of the array `capabilities`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Capability {
    /// 0: the slot is free.
    pub number: u32,
    /// `C_…`
    pub state: u32,
    /// [`Agent::number`] of its holder.
    pub agent: u32,
    /// Always 0.
    pub reserved: u32,
    /// Monotonic nanoseconds from which it allows.
    pub from_ns: u64,
    /// Monotonic nanoseconds from which it no longer does; [`NEVER`].
    pub until_ns: u64,
}

/// What a capability lends on one object; it counts only while its slot holds that number for that agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Loan {
    /// 0: unused.
    pub rights: u32,
    /// Index in `capabilities`.
    pub slot: u32,
    /// [`Capability::number`].
    pub number: u32,
    /// [`RuleKey::object`] of the object that it is on.
    pub object: u32,
}

/// Value of the hash `lent`; its key is that of a rule, whose hint it shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lent {
    /// Unused ones have no rights.
    pub loans: [Loan; LENDERS],
}

/// Key of the hash `names`: a name that is ruled whether or not it exists.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NameKey {
    /// [`Agent::number`].
    pub agent: u32,
    /// Device of the directory, or [`ANYWHERE`].
    pub dev: u32,
    /// Inode of the directory; with [`ANYWHERE`] the hash of its name, or 0 for any.
    pub parent: u64,
    /// [`name_hash`] of the last component.
    pub name: u64,
}

/// What the loader was told: the only element of the array `config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// Level of the agents' cgroups in the hierarchy; 0: there is no agents' cgroup.
    pub agents_level: u32,
    /// Id of the cgroup whose children are agents' cgroups.
    pub agents_cgroup: u64,
    /// Hash of the programs, so that a daemon knows its own pins again.
    pub build: u64,
    /// Monotonic nanoseconds of the load.
    pub loaded_ns: u64,
}

/// Key of the longest-prefix trie `nets`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NetKey {
    /// 32 + bits of the address prefix.
    pub prefix_bits: u32,
    /// [`Agent::number`], big-endian byte order, because a trie compares from the first byte on.
    pub agent: [u8; 4],
    /// IPv4 as `::ffff:a.b.c.d`.
    pub addr: [u8; 16],
}

/// A range of ports and what may be done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortRange {
    /// First port, host byte order.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
    /// `NET_…`: at least one operation and one protocol.
    pub ops: u16,
    /// Position, from 1, in the agent's compiled network list.
    pub rule_id: u16,
}

/// Value of `nets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Net {
    /// Ranges in use.
    pub count: u32,
    /// Always 0.
    pub reserved: u32,
    /// The ranges.
    pub ports: [PortRange; NET_PORTS],
}

/// Head of every sample in the ring buffer `events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EventHead {
    /// `EV_…`
    pub kind: u32,
    /// [`Agent::number`].
    pub agent: u32,
    /// Monotonic nanoseconds.
    pub time_ns: u64,
    /// Thread group, in the host's pid namespace.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Refusals of this agent that were not reported since its last report.
    pub suppressed: u64,
    /// Name of the thread, for people; never identity.
    pub comm: [u8; 16],
}

/// [`EventHead::kind`] of a [`FileEvent`].
pub const EV_FILE_DENIED: u32 = 1;
/// [`EventHead::kind`] of a [`GuardEvent`].
pub const EV_GUARD_DENIED: u32 = 2;
/// [`EventHead::kind`] of a [`NetEvent`].
pub const EV_NET_DENIED: u32 = 3;
/// [`EventHead::kind`] of a [`BudgetEvent`]: 80 % of the CPU budget is spent.
pub const EV_CPU_WARN: u32 = 4;
/// [`EventHead::kind`] of a [`BudgetEvent`]: the CPU budget is spent.
pub const EV_CPU_EXHAUSTED: u32 = 5;
/// [`EventHead::kind`] of a [`BudgetEvent`]: limit and grace are spent, SIGKILL was sent.
pub const EV_CPU_KILLED: u32 = 6;
/// [`EventHead::kind`] of a [`ProcessEvent`]: a process was made.
pub const EV_FORK: u32 = 7;
/// [`EventHead::kind`] of a [`ProcessEvent`]: a process became another program.
pub const EV_EXEC: u32 = 8;
/// [`EventHead::kind`] of a [`ProcessEvent`]: a process ended.
pub const EV_EXIT: u32 = 9;

/// No rule up to the root mentions the right.
pub const WHY_NOTHING_FOUND: u32 = 1;
/// A rule on an object denies it.
pub const WHY_RULE: u32 = 2;
/// A rule about a name denies it.
pub const WHY_NAME: u32 = 3;
/// The CPU budget is spent.
pub const WHY_EXHAUSTED: u32 = 4;
/// More than [`MAX_DEPTH`] levels.
pub const WHY_TOO_DEEP: u32 = 5;
/// The object has no place in a tree: memfd, detached mount.
pub const WHY_NO_PLACE: u32 = 6;
/// Never allowed inside an agent.
pub const WHY_GUARD: u32 = 7;
/// The other process is not of this agent.
pub const WHY_STRANGER: u32 = 8;
/// The rule that allowed it has expired.
pub const WHY_EXPIRED: u32 = 9;
/// One object answers to many spellings there, and rules about names are about one.
pub const WHY_NAMES_VARY: u32 = 10;
/// A capability would have allowed it, and its time is over.
pub const WHY_ENDED: u32 = 11;
/// A capability would have allowed it, and was taken back.
pub const WHY_REVOKED: u32 = 12;
/// A capability would allow it, and its time has not come.
pub const WHY_NOT_YET: u32 = 13;

/// A refused file access: `levels` names, each with its NUL, from the object up to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileEvent {
    /// Head.
    pub head: EventHead,
    /// `enum agentd_hook`.
    pub hook: u32,
    /// `WHY_…`
    pub reason: u32,
    /// What was asked for and not had.
    pub right: u32,
    /// 0: none.
    pub rule_id: u32,
    /// The object; the directory, where the name does not exist.
    pub object: Object,
    /// Names in `path`.
    pub levels: u32,
    /// Bytes used in `path`.
    pub path_bytes: u32,
    /// The names.
    pub path: [u8; PATH_BYTES],
}

/// A refused call that is not about a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuardEvent {
    /// Head.
    pub head: EventHead,
    /// `enum agentd_hook`.
    pub hook: u32,
    /// `WHY_…`
    pub reason: u32,
    /// The stranger's pid, the bpf command, the signal, … by hook.
    pub detail: u64,
    /// More of the same.
    pub detail2: u64,
}

/// A refused address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetEvent {
    /// Head.
    pub head: EventHead,
    /// `enum agentd_hook`.
    pub hook: u32,
    /// `WHY_…`
    pub reason: u32,
    /// Host byte order.
    pub port: u16,
    /// `IPPROTO_…`
    pub protocol: u16,
    /// `AF_…`
    pub family: u32,
    /// IPv4 as `::ffff:a.b.c.d`.
    pub addr: [u8; 16],
}

/// A threshold of the CPU budget was passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BudgetEvent {
    /// Head.
    pub head: EventHead,
    /// Nanoseconds used.
    pub spent_ns: u64,
    /// Nanoseconds allowed.
    pub limit_ns: u64,
}

/// A process of an agent began, changed or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessEvent {
    /// Head.
    pub head: EventHead,
    /// Parent, in the host's pid namespace.
    pub parent_pid: u32,
    /// Wait status at exit, where it can be seen; else 0.
    pub status: i32,
    /// File name as given to execve, with its NUL.
    pub path: [u8; 256],
}

/// Hashes a file name the way the kernel programs do; `None` if no name rule can match it (empty or too long).
///
/// The name, padded with zeros to 64 bytes, as eight little-endian words; each is mixed in with a multiplication and a
/// shift (the finaliser of splitmix64). Not a secret and not collision-proof: a name that collides with a ruled one is
/// treated as that one, which can only refuse more.
pub fn name_hash(name: &[u8]) -> Option<u64> {
    if name.is_empty() || name.len() >= NAME_BYTES {
        return None;
    }
    let mut padded = [0u8; NAME_BYTES];
    padded[..name.len()].copy_from_slice(name);
    let mut hash = name.len() as u64;
    for word in padded.as_chunks::<8>().0 {
        hash ^= u64::from_le_bytes(*word);
        hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 29;
    }
    Some(hash)
}
