//! What the daemon asks the launcher for.

use std::path::PathBuf;

use agentd_model::{AgentName, AgentNumber, AgentSpec, Terminal};
use serde::{Deserialize, Serialize};

/// Where an agent's processes and files will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The agent's number.
    pub agent: AgentNumber,
    /// Directory of the agent's cgroup (v2); exists and has no processes.
    pub cgroup: PathBuf,
    /// Exists; the log and the exit record go here and outlive the agent.
    pub state_dir: PathBuf,
    /// Exists; the shim's socket goes here. At most 90 bytes long, because a unix socket's address is short.
    pub runtime_dir: PathBuf,
}

/// What one agent is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// The agent's name, for people who look at processes.
    pub name: AgentName,
    /// What was asked for at the spawn. The shim gets it without what only the daemon needs.
    #[serde(with = "for_shim")]
    pub spec: AgentSpec,
    /// With pipes: whether the program's input is a pipe that clients feed, or `/dev/null`.
    pub stdin: bool,
    /// Directories that the agent finds empty, whatever its rules say; those that do not exist are left out.
    pub hide: Vec<PathBuf>,
    /// What confines the agent beside the kernel's own rules.
    pub confinement: Confinement,
}

/// What the shim itself needs of a [`LaunchRequest`], which it passes on as it came: read from the same line.
#[derive(Debug, Deserialize)]
pub(crate) struct Streams {
    #[serde(rename = "spec")]
    lean: LeanStreams,
    /// As in the request.
    pub(crate) stdin: bool,
}

#[derive(Debug, Deserialize)]
struct LeanStreams {
    spec: Ends,
}

/// What the agent's streams are, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Ends {
    pub(crate) terminal: Terminal,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Streams {
    pub(crate) fn ends(&self) -> Ends {
        self.lean.spec
    }
}

/// The specification on its way to the shim: rules without their origins and without the rules on addresses, which is
/// most of it.
mod for_shim {
    use std::borrow::Cow;

    use agentd_model::{AgentSpec, Origin, PathRule, Rights};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Lean<'a> {
        spec: AgentSpec,
        #[serde(borrow)]
        paths: Vec<Rule<'a>>,
    }

    /// Path, allowed and denied rights, whether it is optional.
    #[derive(Serialize, Deserialize)]
    struct Rule<'a>(#[serde(borrow)] Cow<'a, str>, u32, u32, bool);

    pub(super) fn serialize<S: Serializer>(spec: &AgentSpec, to: S) -> Result<S::Ok, S::Error> {
        fn lean(rule: &PathRule) -> Rule<'_> {
            Rule(Cow::Borrowed(&rule.path), rule.allow.bits(), rule.deny.bits(), rule.optional)
        }
        let AgentSpec { argv, env, cwd, uid, gid, groups, terminal, profile, paths, nets: _, .. } = spec;
        let spec = AgentSpec {
            argv: argv.clone(),
            env: env.clone(),
            cwd: cwd.clone(),
            uid: *uid,
            gid: *gid,
            groups: groups.clone(),
            terminal: *terminal,
            profile: profile.clone(),
            paths: vec![],
            nets: vec![],
            budget: spec.budget,
            accepted_gaps: spec.accepted_gaps.clone(),
            tmp_directories: spec.tmp_directories.clone(),
        };
        Lean { spec, paths: paths.iter().map(lean).collect() }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AgentSpec, D::Error> {
        let Lean { mut spec, paths } = Lean::deserialize(from)?;
        let whole = |Rule(path, allow, deny, optional)| PathRule {
            path: Cow::into_owned(path),
            allow: Rights::from_bits_truncate(allow),
            deny: Rights::from_bits_truncate(deny),
            optional,
            origin: Origin::BuiltIn,
        };
        spec.paths = paths.into_iter().map(whole).collect();
        Ok(spec)
    }
}

/// What confines an agent beside BPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Landlock.
    pub landlock: Landlock,
    /// System call filter.
    pub seccomp: Seccomp,
}

/// Whether the allowing rules on files are enforced by Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Landlock {
    /// No: LSM programs do it, and more.
    Off,
    /// Yes, with everything the kernel's version can; denials are beyond it.
    On,
}

/// Which system calls an agent finds refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// None; for tests.
    Nothing,
    /// Keys and faults handled in user space, which LSM programs do not see.
    Unseen,
    /// The same and io_uring: for kernels whose LSM has no hook on it (before 6.15).
    UnseenAndUring,
    /// All that LSM programs would refuse, as far as a filter of numbers can say it.
    Fallback,
}

/// The version of Landlock that this kernel offers; `None` where it offers none.
pub fn landlock_abi() -> Option<u32> {
    crate::launch::landlock::kernel_abi()
}
