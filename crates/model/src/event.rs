//! Events: what happened, in the past tense. The journal is a list of these, and nothing else is true.
//!
//! Numbers of variants and fields are part of the journal's format: they are only ever added to.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    AgentName, AgentNumber, AgentSpec, CapabilityNumber, Duration, Entropy, ExitStatus, Gap, Grant, Hash, Principal,
    PublicKey, Rights, Tiers, WorldId,
};

/// Position of a record in the journal, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Seq(#[n(0)] pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The clocks as they stood when something was taken in; read once, replayed verbatim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Stamp {
    /// Nanoseconds since 1970, as the host believed.
    #[n(0)]
    pub wall_ns: u64,
    /// Nanoseconds of CLOCK_MONOTONIC, the clock of the kernel programs; comparable within one boot only.
    #[n(1)]
    pub mono_ns: u64,
    /// Random bytes.
    #[n(2)]
    #[serde(default)]
    pub entropy: Entropy,
}

/// Something that happened in the host's world.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The daemon came up, after reading the journal and before adopting what still runs.
    #[n(0)]
    DaemonStarted {
        /// Version of the daemon.
        #[n(0)]
        version: String,
        /// The kernel's random id of this boot.
        #[n(1)]
        boot_id: String,
        /// Kernel release.
        #[n(2)]
        kernel: String,
        /// What enforces what.
        #[n(3)]
        tiers: Tiers,
    },
    /// Somebody asked for an agent and policy allowed it.
    #[n(1)]
    AgentRequested {
        /// Its number from now on.
        #[n(0)]
        agent: AgentNumber,
        /// Its name.
        #[n(1)]
        name: AgentName,
        /// What was asked for.
        #[n(2)]
        spec: Box<AgentSpec>,
        /// By whom.
        #[n(3)]
        by: Principal,
    },
    /// The agent's first program is about to run; every rule is in force.
    #[n(2)]
    AgentStarted {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// Its init, in the host's pid namespace.
        #[n(1)]
        init_pid: u32,
        /// Its shim.
        #[n(2)]
        shim_pid: u32,
        /// Its cgroup.
        #[n(3)]
        cgroup_id: u64,
        /// Its slot in the kernel's table.
        #[n(4)]
        slot: u32,
        /// Entries that its rules became in the kernel.
        #[n(5)]
        kernel_rules: u32,
        /// Promises that were given up, all of them accepted by the caller.
        #[n(6)]
        gaps: Vec<Gap>,
        /// The kernel's id of the boot it runs in.
        #[n(7)]
        boot_id: String,
    },
    /// The launch did not come about; nothing runs.
    #[n(3)]
    AgentFailed {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// What stood in the way, as one line.
        #[n(1)]
        reason: String,
    },
    /// The kernel refused something.
    #[n(4)]
    AccessDenied {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// What.
        #[n(1)]
        denial: Box<Denial>,
    },
    /// Four fifths of the CPU budget are spent.
    #[n(5)]
    BudgetWarned {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// CPU time used.
        #[n(1)]
        spent: Duration,
        /// CPU time allowed.
        #[n(2)]
        limit: Duration,
    },
    /// The CPU budget is spent; the kernel refuses new work and the agent is to be frozen.
    #[n(6)]
    BudgetExhausted {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// CPU time used.
        #[n(1)]
        spent: Duration,
        /// CPU time allowed.
        #[n(2)]
        limit: Duration,
    },
    /// Somebody gave the agent more CPU time.
    #[n(7)]
    BudgetToppedUp {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// How much more.
        #[n(1)]
        added: Duration,
        /// The limit that this makes.
        #[n(2)]
        limit: Duration,
        /// By whom.
        #[n(3)]
        by: Principal,
    },
    /// Limit and grace are spent; the kernel has sent SIGKILL.
    #[n(8)]
    BudgetKilled {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// CPU time used.
        #[n(1)]
        spent: Duration,
    },
    /// Somebody froze the agent.
    #[n(9)]
    AgentPaused {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// By whom.
        #[n(1)]
        by: Principal,
    },
    /// Somebody thawed the agent.
    #[n(10)]
    AgentResumed {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// By whom.
        #[n(1)]
        by: Principal,
    },
    /// Somebody asked for the end of the agent, or sent it a signal.
    #[n(11)]
    AgentSignalled {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// Signal for its first program; `None`: SIGKILL for everything in its cgroup.
        #[n(1)]
        signal: Option<u8>,
        /// By whom.
        #[n(2)]
        by: Principal,
    },
    /// The agent has ended and nothing of it runs.
    #[n(12)]
    AgentExited {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// How its first program ended.
        #[n(1)]
        status: ExitStatus,
        /// What it used.
        #[n(2)]
        spent: Duration,
    },
    /// Nothing of the agent runs and nobody saw how it ended.
    #[n(13)]
    AgentLost {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// What was found.
        #[n(1)]
        reason: String,
    },
    /// The daemon came up and found the agent running.
    #[n(14)]
    AgentAdopted {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
    },
    /// A process of the agent became a program; the audit trail.
    #[n(15)]
    ProgramRun {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// Process, in the host's pid namespace.
        #[n(1)]
        pid: u32,
        /// File name as given to execve.
        #[n(2)]
        path: String,
    },
    /// Reports of refusals were dropped, because there were too many; the refusals themselves held.
    #[n(16)]
    DenialsSuppressed {
        /// Which agent.
        #[n(0)]
        agent: AgentNumber,
        /// How many since the last such event.
        #[n(1)]
        count: u64,
    },
    /// The journal began. Always the first record and never another.
    #[n(17)]
    JournalBegun {
        /// Name of this journal among all journals.
        #[n(0)]
        world: WorldId,
        /// What its heads are signed with.
        #[n(1)]
        key: PublicKey,
    },
    /// From the next head on, another key signs. The head with this record is still signed with the old one.
    #[n(18)]
    KeyRotated {
        /// The new one.
        #[n(0)]
        key: PublicKey,
    },
    /// A world has something to tell the operators.
    #[n(20)]
    OperatorsTold {
        /// What about.
        #[n(0)]
        subject: String,
        /// What.
        #[n(1)]
        body: String,
        /// Which agent it is about.
        #[n(2)]
        about: Option<AgentNumber>,
        /// Who tells.
        #[n(3)]
        by: Principal,
    },
    /// Somebody lent the agent rights; the kernel lets them count from here on.
    #[n(21)]
    CapabilityGranted {
        /// To whom.
        #[n(0)]
        agent: AgentNumber,
        /// What, and until when.
        #[n(1)]
        grant: Box<Grant>,
        /// By whom.
        #[n(2)]
        by: Principal,
    },
    /// Somebody took rights back that were lent.
    #[n(22)]
    CapabilityRevoked {
        /// From whom.
        #[n(0)]
        agent: AgentNumber,
        /// Which.
        #[n(1)]
        capability: CapabilityNumber,
        /// Why.
        #[n(2)]
        reason: String,
        /// By whom.
        #[n(3)]
        by: Principal,
    },
    /// The state was saved, so that opening the journal may begin here.
    #[n(19)]
    StateSaved {
        /// Hash of the saved bytes.
        #[n(0)]
        state: Hash,
        /// What heads are signed with at this point.
        #[n(1)]
        key: PublicKey,
    },
}

impl Event {
    /// Who asked for it, where somebody did.
    pub fn by(&self) -> Option<Principal> {
        match self {
            Event::AgentRequested { by, .. }
            | Event::BudgetToppedUp { by, .. }
            | Event::AgentPaused { by, .. }
            | Event::AgentResumed { by, .. }
            | Event::AgentSignalled { by, .. }
            | Event::CapabilityGranted { by, .. }
            | Event::CapabilityRevoked { by, .. }
            | Event::OperatorsTold { by, .. } => Some(*by),
            _ => None,
        }
    }

    /// The agent that the event is about.
    pub fn agent(&self) -> Option<AgentNumber> {
        match self {
            Event::DaemonStarted { .. }
            | Event::JournalBegun { .. }
            | Event::KeyRotated { .. }
            | Event::StateSaved { .. } => None,
            Event::OperatorsTold { about, .. } => *about,
            Event::AgentRequested { agent, .. }
            | Event::AgentStarted { agent, .. }
            | Event::AgentFailed { agent, .. }
            | Event::AccessDenied { agent, .. }
            | Event::BudgetWarned { agent, .. }
            | Event::BudgetExhausted { agent, .. }
            | Event::BudgetToppedUp { agent, .. }
            | Event::BudgetKilled { agent, .. }
            | Event::AgentPaused { agent, .. }
            | Event::AgentResumed { agent, .. }
            | Event::AgentSignalled { agent, .. }
            | Event::AgentExited { agent, .. }
            | Event::AgentLost { agent, .. }
            | Event::AgentAdopted { agent }
            | Event::ProgramRun { agent, .. }
            | Event::CapabilityGranted { agent, .. }
            | Event::CapabilityRevoked { agent, .. }
            | Event::DenialsSuppressed { agent, .. } => Some(*agent),
        }
    }
}

/// The kernel hook that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of the hooks in ebpf/README.md")]
pub enum Hook {
    #[n(1)]
    Open,
    #[n(2)]
    Mknod,
    #[n(3)]
    Mkdir,
    #[n(4)]
    Symlink,
    #[n(5)]
    Link,
    #[n(6)]
    Unlink,
    #[n(7)]
    Rmdir,
    #[n(8)]
    Rename,
    #[n(9)]
    Truncate,
    #[n(10)]
    Chmod,
    #[n(11)]
    Chown,
    #[n(12)]
    Chroot,
    #[n(13)]
    Attributes,
    #[n(14)]
    Exec,
    #[n(15)]
    MmapExec,
    #[n(16)]
    MprotectExec,
    #[n(17)]
    Receive,
    #[n(18)]
    Fork,
    #[n(19)]
    Mount,
    #[n(20)]
    UserNamespace,
    #[n(21)]
    Ptrace,
    #[n(22)]
    Signal,
    #[n(23)]
    Bpf,
    #[n(24)]
    Perf,
    #[n(25)]
    IoUring,
    #[n(26)]
    Scheduler,
    #[n(27)]
    Module,
    #[n(28)]
    Connect,
    #[n(29)]
    SendMessage,
    #[n(30)]
    Bind,
    #[n(31)]
    Socket,
    #[n(32)]
    Keys,
    #[n(33)]
    UnixSocket,
    #[n(34)]
    Use,
    /// A hook that this daemon does not know.
    #[n(0)]
    Unknown,
}

impl Hook {
    /// The hook with a number of the kernel contract.
    pub fn from_abi(number: u32) -> Hook {
        use Hook::*;
        const ALL: [Hook; 35] = [
            Unknown,
            Open,
            Mknod,
            Mkdir,
            Symlink,
            Link,
            Unlink,
            Rmdir,
            Rename,
            Truncate,
            Chmod,
            Chown,
            Chroot,
            Attributes,
            Exec,
            MmapExec,
            MprotectExec,
            Receive,
            Fork,
            Mount,
            UserNamespace,
            Ptrace,
            Signal,
            Bpf,
            Perf,
            IoUring,
            Scheduler,
            Module,
            Connect,
            SendMessage,
            Bind,
            Socket,
            Keys,
            UnixSocket,
            Use,
        ];
        ALL.get(number as usize).copied().unwrap_or(Unknown)
    }

    /// What the agent tried, as a verb that fits before the object: "open", "connect to".
    pub fn verb(self) -> &'static str {
        match self {
            Hook::Open => "open",
            Hook::Mknod => "create",
            Hook::Mkdir => "make directory",
            Hook::Symlink => "make symlink",
            Hook::Link => "link",
            Hook::Unlink => "remove",
            Hook::Rmdir => "remove directory",
            Hook::Rename => "rename",
            Hook::Truncate => "truncate",
            Hook::Chmod => "change the mode of",
            Hook::Chown => "change the owner of",
            Hook::Chroot => "chroot to",
            Hook::Attributes => "change attributes of",
            Hook::Exec => "execute",
            Hook::MmapExec => "map as code",
            Hook::MprotectExec => "make executable in memory",
            Hook::Receive => "receive a descriptor of",
            Hook::Fork => "fork",
            Hook::Mount => "change mounts",
            Hook::UserNamespace => "make a user namespace",
            Hook::Ptrace => "trace or inspect",
            Hook::Signal => "signal",
            Hook::Bpf => "use bpf()",
            Hook::Perf => "use perf events",
            Hook::IoUring => "use io_uring",
            Hook::Scheduler => "change the scheduling of",
            Hook::Module => "load into the kernel",
            Hook::Connect => "connect to",
            Hook::SendMessage => "send to",
            Hook::Bind => "bind",
            Hook::Socket => "make a socket of",
            Hook::Keys => "use keys",
            Hook::UnixSocket => "connect to",
            Hook::Use => "go on using",
            Hook::Unknown => "do something unknown with",
        }
    }
}

/// Why the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialReason {
    /// No rule from the object up to the root mentions the right.
    #[n(0)]
    NothingFound,
    /// A rule denies it. The number is the rule's position, from 1, in the agent's list.
    #[n(1)]
    Rule {
        /// Position, from 1, in [`AgentSpec::paths`].
        #[n(0)]
        rule: u32,
    },
    /// The CPU budget is spent.
    #[n(2)]
    Exhausted,
    /// The object lies deeper than rules are looked for.
    #[n(3)]
    TooDeep,
    /// The object has no place in a tree of files.
    #[n(4)]
    NoPlace,
    /// Never allowed inside an agent.
    #[n(5)]
    Guard,
    /// The other process is not of this agent.
    #[n(6)]
    Stranger,
    /// The rule that allowed it has expired.
    #[n(7)]
    Expired,
    /// The file system takes many spellings for one name, and the agent has rules about names.
    #[n(8)]
    NamesVary,
    /// A capability that allowed it does so no more, or not yet.
    #[n(9)]
    Capability {
        /// Which.
        #[n(0)]
        capability: CapabilityNumber,
        /// Why not now.
        #[n(1)]
        because: NotInForce,
    },
}

/// Why a capability allows nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum NotInForce {
    /// Its time is over.
    #[n(0)]
    Ended,
    /// It was taken back.
    #[n(1)]
    Revoked,
    /// Its time has not come.
    #[n(2)]
    NotYet,
}

impl fmt::Display for NotInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotInForce::Ended => "has ended",
            NotInForce::Revoked => "was taken back",
            NotInForce::NotYet => "is not in force yet",
        })
    }
}

/// What an agent tried to reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedObject {
    /// A file, by its path in the agent's view.
    #[n(0)]
    File {
        /// Path; begins with `…/` where the front is missing.
        #[n(0)]
        path: String,
        /// Device, kernel encoding.
        #[n(1)]
        dev: u32,
        /// Inode.
        #[n(2)]
        ino: u64,
    },
    /// An address.
    #[n(1)]
    Address {
        /// Protocol and address, for example `tcp 10.0.0.1:443`.
        #[n(0)]
        text: String,
    },
    /// Something else; the number's meaning depends on the hook.
    #[n(2)]
    Other {
        /// The stranger's pid, the signal, the command.
        #[n(0)]
        detail: u64,
    },
}

impl fmt::Display for DeniedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeniedObject::File { path, .. } => f.write_str(path),
            DeniedObject::Address { text } => f.write_str(text),
            DeniedObject::Other { detail } => write!(f, "{detail}"),
        }
    }
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Denial {
    /// Where the kernel said no.
    #[n(0)]
    pub hook: Hook,
    /// Why.
    #[n(1)]
    pub reason: DenialReason,
    /// The right that was asked for and not had; nothing where the hook is not about files.
    #[n(2)]
    pub right: Rights,
    /// What it was about.
    #[n(3)]
    pub object: DeniedObject,
    /// Process, in the host's pid namespace.
    #[n(4)]
    pub pid: u32,
    /// Name of the process, for people.
    #[n(5)]
    pub comm: String,
    /// When, by the kernel's monotonic clock.
    #[n(6)]
    pub mono_ns: u64,
}
