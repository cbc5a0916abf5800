//! A profile and the values of its variables become rules.
//!
//! The values come from the host and from whoever spawns, so they are claims until this module has looked at them: a
//! workspace of `/`, or one that holds the home directory, would turn "all rights in the workspace" into all rights on
//! everything, and is refused. It is only looked at where a profile uses it.

use std::collections::{BTreeMap, BTreeSet};

use agentd_model::{Budget, NetRule, Origin, PathRule};

use super::problem::Position;
use super::template::Template;
use super::{Profile, Profiles};
use crate::path::{self, PathError};
use crate::suggest::did_you_mean;

/// The values of the built-in variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vars {
    /// Directory that the agent works in, absolute, symbolic links resolved.
    pub workspace: String,
    /// Home directory of the user that the agent runs as, absolute, symbolic links resolved.
    pub home: String,
    /// Name of that user.
    pub user: String,
    /// The agent's private directory for temporary files, as the agent sees it.
    pub tmp: String,
    /// Id of that user.
    pub uid: u32,
}

impl Vars {
    /// Ordinary values, for checking a profile that nobody spawns with yet.
    pub(super) fn sample() -> Vars {
        Vars {
            workspace: "/home/user/workspace".into(),
            home: "/home/user".into(),
            user: "user".into(),
            tmp: "/tmp".into(),
            uid: 1000,
        }
    }

    /// The value of a built-in variable.
    pub(super) fn value(&self, name: &str) -> String {
        match name {
            "workspace" => self.workspace.clone(),
            "home" => self.home.clone(),
            "user" => self.user.clone(),
            "tmp" => self.tmp.clone(),
            "uid" => self.uid.to_string(),
            other => unreachable!("${{{other}}} passed the check of the template"),
        }
    }

    fn check(&self) -> Result<(), ExpandError> {
        for (name, value) in [("workspace", &self.workspace), ("home", &self.home), ("tmp", &self.tmp)] {
            let variable = |source| ExpandError::Variable { name, source };
            let normal = path::normal(value).map_err(variable)?;
            if path::Pattern::of(&normal).is_some() {
                return Err(variable(PathError::Star { path: value.clone() }));
            }
        }
        if self.user.is_empty() || self.user.contains(['/', '*']) || self.user.chars().any(char::is_control) {
            return Err(ExpandError::User { user: self.user.clone() });
        }
        Ok(())
    }
}

/// What a profile means for one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Rules on files.
    pub paths: Vec<PathRule>,
    /// Rules on the network.
    pub nets: Vec<NetRule>,
    /// Environment variables taken from the caller; a `*` at the end stands for any rest.
    pub env_pass: Vec<String>,
    /// Environment variables with a fixed value; they win over the caller's.
    pub env_set: BTreeMap<String, String>,
    /// Directories to be made in the agent's private temporary directory, absolute, parents first.
    pub tmp_directories: Vec<String>,
    /// Budget where none is asked for.
    pub budget: Budget,
}

impl Expanded {
    /// The agent's environment, sorted by name: what may pass of the caller's, and what is fixed.
    pub fn environment<'a>(&self, caller: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
        let mut env: BTreeMap<String, String> = caller
            .into_iter()
            .filter(|(name, _)| self.env_pass.iter().any(|pass| passes(pass, name)))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        env.extend(self.env_set.clone());
        env.into_iter().collect()
    }
}

fn passes(pass: &str, name: &str) -> bool {
    match pass.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pass == name,
    }
}

/// Why a profile cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// There is no such profile.
    #[error("there is no profile {name:?}{}", did_you_mean(.suggestion.as_deref()))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest name.
        suggestion: Option<String>,
    },
    /// It extends a profile that does not exist.
    #[error("profile {profile}, {at}: extends {name:?}, which does not exist{}", did_you_mean(.suggestion.as_deref()))]
    Extends {
        /// The profile that says so.
        profile: String,
        /// Where.
        at: Position,
        /// What it extends.
        name: String,
        /// The nearest name.
        suggestion: Option<String>,
    },
    /// It extends itself, in the end.
    #[error("profile {profile}, {at}: extends in a circle: {}", .circle.join(" → "))]
    Circle {
        /// The profile that closes the circle.
        profile: String,
        /// Where.
        at: Position,
        /// The way round.
        circle: Vec<String>,
    },
    /// A built-in variable has a value that no rule can use.
    #[error("${{{name}}} cannot be used in a rule")]
    Variable {
        /// Which variable.
        name: &'static str,
        /// What is wrong with its value.
        #[source]
        source: PathError,
    },
    /// The name of the user cannot be part of a path.
    #[error("{user:?} cannot be used as ${{user}}")]
    User {
        /// The name.
        user: String,
    },
    /// The workspace is more than a workspace.
    #[error(
        "the workspace {workspace} holds {holds}, so profile {profile} would give all of that away; \
         choose a project directory below it"
    )]
    Workspace {
        /// The profile that uses it.
        profile: String,
        /// The workspace.
        workspace: String,
        /// What lies in it.
        holds: String,
    },
    /// With these values, a path is not one.
    #[error("profile {profile}, {at}: the path cannot be used in a rule")]
    Path {
        /// Which profile.
        profile: String,
        /// Where.
        at: Position,
        /// What is wrong.
        #[source]
        source: PathError,
    },
}

impl Profiles {
    /// What a profile, with all that it extends, means for one agent.
    pub fn expand(&self, name: &str, vars: &Vars) -> Result<Expanded, ExpandError> {
        vars.check()?;
        let mut expanded = Expanded::default();
        for profile in self.lineage(name)? {
            profile.add_to(&mut expanded, vars)?;
        }
        Ok(expanded)
    }
}

impl Profile {
    fn add_to(&self, expanded: &mut Expanded, vars: &Vars) -> Result<(), ExpandError> {
        for entry in &self.files {
            // A denial in the workspace can be as wide as it likes.
            if entry.path.uses("workspace", &self.vars) && !entry.allow.is_empty() {
                self.check_workspace(vars)?;
            }
            let at = entry.at;
            let wrong = |source| ExpandError::Path { profile: self.name.clone(), at, source };
            expanded.paths.push(PathRule {
                path: path::normal(&entry.path.fill(vars, &self.vars)).map_err(wrong)?,
                allow: entry.allow,
                deny: entry.deny,
                optional: entry.optional,
                origin: self.origin(at),
            });
        }
        for entry in &self.nets {
            let rules = NetRule::parse(&entry.allow, &self.origin(entry.at));
            expanded.nets.extend(rules.expect("a network rule was read before it came here"));
        }
        let fill = |template: &Template| template.fill(vars, &self.vars);
        expanded.env_pass.extend(self.env_pass.iter().cloned());
        expanded.env_set.extend(self.env_set.iter().map(|(name, value)| (name.clone(), fill(value))));
        expanded.budget = Budget {
            cpu: self.budget.cpu.or(expanded.budget.cpu),
            memory: self.budget.memory.or(expanded.budget.memory),
            pids: self.budget.pids.or(expanded.budget.pids),
        };
        let mut directories: BTreeSet<String> = std::mem::take(&mut expanded.tmp_directories).into_iter().collect();
        for directory in &self.tmp_directories {
            // Every directory on the way, so that whoever makes them needs no more than mkdir.
            let ends = directory.match_indices('/').map(|(at, _)| at).chain([directory.len()]);
            directories.extend(ends.map(|end| format!("{}/{}", vars.tmp.trim_end_matches('/'), &directory[..end])));
        }
        expanded.tmp_directories = directories.into_iter().collect();
        Ok(())
    }

    fn origin(&self, at: Position) -> Origin {
        Origin::Profile { name: self.name.clone(), line: at.line }
    }

    fn check_workspace(&self, vars: &Vars) -> Result<(), ExpandError> {
        let [workspace, home] = [&vars.workspace, &vars.home].map(|path| path::normal(path).unwrap_or_default());
        let holds = match () {
            () if workspace == "/" => "the whole system".to_owned(),
            () if path::is_within(&home, &workspace) => format!("the home directory {home}"),
            () => return Ok(()),
        };
        Err(ExpandError::Workspace { profile: self.name.clone(), workspace, holds })
    }
}
