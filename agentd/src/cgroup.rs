//! Cgroups: one for each agent, below one parent.
//!
//! ```text
//! <cgroup2>/agentd/            the parent; the network programs sit here
//! <cgroup2>/agentd/agent-7/    one agent; it may make sub-cgroups only if it is given the files, and it never is
//! ```
//!
//! Limits go through cgroups-rs; what that lacks (`cgroup.kill`, `cgroup.freeze` with its event, the id) is beside it.
//! Frozen and killed are states that the kernel reaches a little after the file was written; nobody here waits for it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentd_model::{AgentNumber, Budget};
use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

/// The agents' cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    parent: PathBuf,
    name: String,
    controllers: Vec<String>,
}

/// Why a cgroup could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The kernel refused a file operation.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A limit was refused.
    #[error("cannot set {what} of {path}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What cgroups-rs says.
        #[source]
        source: cgroups_rs::fs::error::Error,
    },
}

impl Cgroups {
    /// Makes the parent, directly below the root of the tree, and turns on the controllers that the root delegates.
    pub fn open(root: &Path, name: &str) -> Result<Cgroups, CgroupError> {
        let parent = root.join(name);
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError::Io { what, path, source }
        };
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io("make", &parent)(error)),
            _ => {}
        }
        for wanted in ["memory", "pids"] {
            for directory in [root, &parent] {
                // Refused where the controller is not there; which ones came about is read back below.
                let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{wanted}"));
            }
        }
        let path = parent.join("cgroup.subtree_control");
        let controllers = fs::read_to_string(&path).map_err(io("read", &path))?;
        let controllers = controllers.split_whitespace().map(str::to_owned).collect();
        Ok(Cgroups { parent, name: name.to_owned(), controllers })
    }

    /// The parent of every agent's cgroup.
    pub fn parent(&self) -> &Path {
        &self.parent
    }

    /// Whether a controller is on for agents.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// An agent's cgroup, whether or not it exists.
    pub fn of(&self, agent: AgentNumber) -> Cgroup {
        Cgroup { path: self.parent.join(format!("agent-{agent}")) }
    }

    /// Numbers of all agents that have a cgroup.
    pub fn present(&self) -> Vec<AgentNumber> {
        let entries = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        let number = |name: &str| name.strip_prefix("agent-")?.parse().ok().map(AgentNumber);
        entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect()
    }

    /// Removes all of it, where nothing runs in it.
    pub fn remove(&self) {
        for agent in self.present() {
            self.of(agent).remove();
        }
        let _ = fs::remove_dir(&self.parent);
    }

    /// The agent in whose cgroup, or below it, a process is; from the text of `/proc/PID/cgroup`.
    pub fn agent_in(&self, proc_cgroup: &str) -> Option<AgentNumber> {
        let path = proc_cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let mut parts = path.split('/');
        (parts.next()? == self.name).then_some(())?;
        // A process that is still there after its cgroup was removed is shown as in "… (deleted)".
        let number = parts.next()?.trim_end_matches(" (deleted)").strip_prefix("agent-")?;
        number.parse().ok().map(AgentNumber)
    }
}

/// One agent's cgroup.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, empty.
    pub fn create(&self) -> Result<(), CgroupError> {
        fs::create_dir(&self.path).map_err(|source| self.error("make", source))
    }

    /// Gives it the limits of a budget.
    pub fn limit(&self, budget: &Budget) -> Result<(), CgroupError> {
        let limit = |what| move |source| CgroupError::Limit { what, path: self.path.clone(), source };
        if let Some(bytes) = budget.memory {
            let controller = MemController::new(self.path.clone(), PathBuf::new(), true);
            controller.set_limit(bytes.min(i64::MAX as u64) as i64).map_err(limit("memory.max"))?;
            // Swap would make the limit a limit on something else.
            let _ = self.write("memory.swap.max", "0");
        }
        if let Some(pids) = budget.pids {
            let controller = PidController::new(self.path.clone(), PathBuf::new(), true);
            let most = MaxValue::Value(pids.min(i64::MAX as u64) as i64);
            controller.set_pid_max(most).map_err(limit("pids.max"))?;
        }
        Ok(())
    }

    /// The number by which the kernel knows it.
    pub fn id(&self) -> Result<u64, CgroupError> {
        fs::metadata(&self.path).map(|metadata| metadata.ino()).map_err(|source| self.error("read", source))
    }

    /// Stops every task in it.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")
    }

    /// Lets every task in it go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "0")
    }

    /// Sends SIGKILL to every task in it, frozen or not.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// CPU time that its tasks, and those of cgroups below, have used.
    pub fn cpu_spent(&self) -> Option<Duration> {
        let stat = fs::read_to_string(self.path.join("cpu.stat")).ok()?;
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        usage.trim().parse().ok().map(Duration::from_micros)
    }

    /// Whether any task is in it or below it. A cgroup that is gone is empty.
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
    }

    /// Removes it with everything below; false while a task is still in it.
    pub fn remove(&self) -> bool {
        fn remove(path: &Path) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(path);
        }
        remove(&self.path);
        !self.path.exists()
    }

    fn write(&self, file: &'static str, text: &str) -> Result<(), CgroupError> {
        fs::write(self.path.join(file), text).map_err(|source| self.error("write", source))
    }

    fn error(&self, what: &'static str, source: io::Error) -> CgroupError {
        CgroupError::Io { what, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_placed_by_its_cgroup_alone() {
        let cgroups = Cgroups { parent: "/x/agentd".into(), name: "agentd".into(), controllers: vec![] };
        assert_eq!(cgroups.agent_in("1:cpu:/x\n0::/agentd/agent-7\n"), Some(AgentNumber(7)));
        assert_eq!(cgroups.agent_in("0::/agentd/agent-7/below/that\n"), Some(AgentNumber(7)));
        assert_eq!(cgroups.agent_in("0::/agentd/agent-7 (deleted)\n"), Some(AgentNumber(7)));
        for outside in ["0::/agentd\n", "0::/user.slice/agentd/agent-7\n", "0::/agentd/agent-x\n", "0::/\n", ""] {
            assert_eq!(cgroups.agent_in(outside), None, "{outside}");
        }
    }
}
