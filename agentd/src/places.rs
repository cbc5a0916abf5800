//! Where things are: every path that the daemon uses, from three roots.

use std::path::{Path, PathBuf};

use agentd_model::AgentNumber;

/// Roots of everything that the daemon touches.
#[derive(Clone, Debug)]
pub struct Places {
    /// What must survive a reboot: the journal, logs, exit records.
    pub state: PathBuf,
    /// What ends with the boot: sockets and locks.
    pub runtime: PathBuf,
    /// Pins of maps and links.
    pub bpffs: PathBuf,
    /// Profiles that the administrator wrote.
    pub profiles: PathBuf,
    /// Name of the cgroup that all agents are in, directly below the root of the tree.
    pub cgroup: String,
}

impl Default for Places {
    fn default() -> Self {
        Places {
            state: "/var/lib/agentd".into(),
            runtime: "/run/agentd".into(),
            bpffs: "/sys/fs/bpf/agentd".into(),
            profiles: "/etc/agentd/profiles".into(),
            cgroup: "agentd".into(),
        }
    }
}

/// An agent's home in its state directory.
pub const HOME: &str = "home";

impl Places {
    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.sqlite")
    }

    /// The keys that sign.
    pub fn keys(&self) -> PathBuf {
        self.state.join("keys")
    }

    /// Worlds beside the host's.
    pub fn worlds(&self) -> PathBuf {
        self.state.join("worlds")
    }

    /// Compiled reducers.
    pub fn modules(&self) -> PathBuf {
        self.state.join("modules")
    }

    /// Providers of language models, as the administrator wrote them.
    pub fn providers(&self) -> PathBuf {
        self.profiles.with_file_name("providers.toml")
    }

    /// The socket that clients connect to.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("agentd.sock")
    }

    /// The socket that agents connect to.
    pub fn agents_socket(&self) -> PathBuf {
        self.runtime.join("agents.sock")
    }

    /// Held by the running daemon.
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("agentd.lock")
    }

    /// What an agent leaves behind: its log, its exit record, its home if it has no other.
    pub fn agent_state(&self, agent: AgentNumber) -> PathBuf {
        self.agents_state().join(agent.to_string())
    }

    /// An agent's shim socket.
    pub fn agent_runtime(&self, agent: AgentNumber) -> PathBuf {
        self.agents_runtime().join(agent.to_string())
    }

    /// What all agents leave behind, by number.
    pub fn agents_state(&self) -> PathBuf {
        self.state.join("agents")
    }

    /// The home of an agent whose user has none; empty for all others.
    pub fn agent_home(&self, agent: AgentNumber) -> PathBuf {
        self.agent_state(agent).join(HOME)
    }

    /// All shims' sockets, by number.
    pub fn agents_runtime(&self) -> PathBuf {
        self.runtime.join("agents")
    }

    /// Where the cgroup v2 tree is mounted, as the kernel says.
    pub fn cgroup_root(mountinfo: &str) -> Option<PathBuf> {
        let mount = mountinfo
            .lines()
            .find(|line| line.split_once(" - ").is_some_and(|(_, kind)| kind.split(' ').next() == Some("cgroup2")))?;
        mount.split(' ').nth(4).map(|path| Path::new(path).to_path_buf())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_tree_is_found_on_pure_and_hybrid_hosts() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 24 0:37 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(Places::cgroup_root(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(Places::cgroup_root("30 24 0:26 / /proc rw - proc proc rw\n"), None);
    }
}
