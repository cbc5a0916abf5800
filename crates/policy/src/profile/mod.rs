//! What does a profile say?
//!
//! A profile is a TOML file that names a reusable set of rules, an environment and a budget. Its life has three steps,
//! and a type for each: text that somebody wrote becomes a [`Profile`], and everything that can be said about one file
//! alone is checked, with line and column; profiles become a set in which `extends` leads somewhere, [`Profiles`]; a
//! profile of the set and the values of its variables become an [`Expanded`], which is what an agent's rules are made of.
//!
//! A profile that extends another one adds to it. It cannot take a denial back: on the same place a denial wins, so
//! whoever wants less than `coding` denies writes a profile that extends `base`.
//!
//! Not here: files and directories. The daemon reads the texts, and asks the host which paths exist.

mod expand;
mod problem;
mod read;
mod set;
mod template;

use std::collections::BTreeMap;

use agentd_model::{Budget, Rights};

pub use self::expand::{ExpandError, Expanded, Vars};
pub use self::problem::{Position, Problem, ProblemKind, Rejected};
pub use self::set::{NameTaken, Profiles};
pub(crate) use self::template::Template;

/// Longest text of a profile, in bytes.
pub const MAX_PROFILE_BYTES: usize = 256 << 10;
/// Most paths in one profile.
pub const MAX_PROFILE_RULES: usize = 4096;

/// One checked profile: what its file says, with variables not yet filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Name, by which others extend it and people spawn with it.
    pub name: String,
    /// What it is for, in one line; may be empty.
    pub about: String,
    /// Profiles that it adds to.
    pub extends: Vec<(String, Position)>,
    /// Variables of this file, on top of the built-in ones.
    pub(crate) vars: BTreeMap<String, Template>,
    /// Rules on files, in the order of the file.
    pub(crate) files: Vec<FileEntry>,
    /// Rules on the network, in the order of the file.
    pub(crate) nets: Vec<NetEntry>,
    /// Environment variables taken from the caller; a `*` at the end stands for any rest.
    pub env_pass: Vec<String>,
    /// Environment variables with a fixed value.
    pub(crate) env_set: BTreeMap<String, Template>,
    /// Directories to be made in the agent's private `${tmp}` before its first program runs.
    pub tmp_directories: Vec<String>,
    /// Budget of agents for which none is asked.
    pub budget: Budget,
}

/// One path of a `[[files]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) path: Template,
    pub(crate) allow: Rights,
    pub(crate) deny: Rights,
    pub(crate) optional: bool,
    pub(crate) at: Position,
}

/// One rule of a `[[net]]` table, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetEntry {
    pub(crate) allow: String,
    pub(crate) at: Position,
}

impl Profile {
    /// Reads and checks the text of one profile. All its mistakes are reported together.
    pub fn parse(text: &str) -> Result<Profile, Rejected> {
        read::read(text)
    }
}
