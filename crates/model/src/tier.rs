//! Tiers: which mechanism enforces a domain on this host, and what it cannot promise.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// What is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Files and programs.
    #[n(0)]
    Files,
    /// Processes of others, mounts, namespaces, the kernel's own interfaces.
    #[n(1)]
    Guard,
    /// Network addresses.
    #[n(2)]
    Network,
    /// CPU time.
    #[n(3)]
    Cpu,
    /// Memory.
    #[n(4)]
    Memory,
    /// Number of processes.
    #[n(5)]
    Pids,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Domain::Files => "files",
            Domain::Guard => "guard",
            Domain::Network => "network",
            Domain::Cpu => "cpu",
            Domain::Memory => "mem",
            Domain::Pids => "pids",
        })
    }
}

/// How it is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// eBPF LSM programs.
    #[n(0)]
    Lsm,
    /// Landlock, and seccomp for what Landlock has no word for.
    #[n(1)]
    Landlock,
    /// eBPF programs on the agents' cgroup.
    #[n(2)]
    CgroupBpf,
    /// eBPF program on the scheduler's tracepoint.
    #[n(3)]
    Tracepoint,
    /// The daemon reads `cpu.stat` from time to time.
    #[n(4)]
    Polling,
    /// A cgroup controller.
    #[n(5)]
    Controller,
    /// Nothing enforces it here.
    #[n(6)]
    Nothing,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Lsm => "lsm",
            Tier::Landlock => "landlock",
            Tier::CgroupBpf => "cgroup-bpf",
            Tier::Tracepoint => "tracepoint",
            Tier::Polling => "polling",
            Tier::Controller => "controller",
            Tier::Nothing => "nothing",
        })
    }
}

/// The tier of every domain on one host, and why it is not a better one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Tiers {
    /// One row a domain: what enforces it, and, where that is not the best there is, what the probe met.
    #[n(0)]
    pub rows: Vec<(Domain, Tier, Option<String>)>,
}

impl Tiers {
    /// What enforces a domain.
    pub fn of(&self, domain: Domain) -> Tier {
        self.rows.iter().find(|(d, _, _)| *d == domain).map_or(Tier::Nothing, |(_, tier, _)| *tier)
    }

    /// What the probe met where the tier is not the best.
    pub fn reason(&self, domain: Domain) -> Option<&str> {
        self.rows.iter().find(|(d, _, _)| *d == domain).and_then(|(_, _, reason)| reason.as_deref())
    }
}

/// A promise that a tier cannot keep. `--degraded` accepts gaps by these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// A denial inside something allowed is not enforced.
    #[n(0)]
    DenyInsideAllow,
    /// Refusals are not reported; `why` and `audit` do not show them.
    #[n(1)]
    DenialEvents,
    /// Connections to unix sockets outside the agent are not refused.
    #[n(2)]
    UnixSockets,
    /// No limit on CPU time that holds between two looks of the daemon.
    #[n(3)]
    CpuExact,
    /// No limit on memory.
    #[n(4)]
    Memory,
    /// No limit on processes.
    #[n(5)]
    Pids,
    /// No limit on network addresses.
    #[n(6)]
    Network,
    /// Files and programs are not restricted at all.
    #[n(7)]
    Files,
    /// No limit on CPU time at all.
    #[n(8)]
    Cpu,
    /// Processes of others, mounts, namespaces and the kernel's own interfaces are not guarded.
    #[n(9)]
    Guard,
}

impl Gap {
    /// Every gap.
    pub const ALL: [Gap; 10] = [
        Gap::DenyInsideAllow,
        Gap::DenialEvents,
        Gap::UnixSockets,
        Gap::CpuExact,
        Gap::Memory,
        Gap::Pids,
        Gap::Network,
        Gap::Files,
        Gap::Cpu,
        Gap::Guard,
    ];

    /// What is missing, in words that fit after "this host cannot enforce".
    pub fn meaning(self) -> &'static str {
        match self {
            Gap::DenyInsideAllow => "a denial inside something allowed",
            Gap::DenialEvents => "reports of what was refused",
            Gap::UnixSockets => "a limit on unix sockets outside the agent",
            Gap::CpuExact => "a CPU limit that holds between two looks of the daemon",
            Gap::Memory => "mem: no memory controller is delegated",
            Gap::Pids => "pids: no pids controller is delegated",
            Gap::Network => "network rules",
            Gap::Files => "rules on files and programs",
            Gap::Cpu => "cpu: no limit on CPU time",
            Gap::Guard => "a guard over other processes, mounts and kernel interfaces",
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gap::DenyInsideAllow => "deny-inside-allow",
            Gap::DenialEvents => "denial-events",
            Gap::UnixSockets => "unix-sockets",
            Gap::CpuExact => "cpu-exact",
            Gap::Memory => "memory",
            Gap::Pids => "pids",
            Gap::Network => "network",
            Gap::Files => "files",
            Gap::Cpu => "cpu",
            Gap::Guard => "guard",
        })
    }
}

impl std::str::FromStr for Gap {
    type Err = GapError;

    fn from_str(text: &str) -> Result<Self, GapError> {
        Gap::ALL.into_iter().find(|gap| gap.to_string() == text).ok_or_else(|| GapError { text: text.to_owned() })
    }
}

/// A word that is not a gap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not something that can be given up")]
pub struct GapError {
    /// The word.
    pub text: String,
}
