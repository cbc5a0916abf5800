//! The cgroup that the programs are attached to.
//!
//! The kernel's helpers count levels from the root of the whole tree. Inside a cgroup namespace that root cannot be seen
//! and the level comes out too small; then no task is found in any agent, and everything inside the agents' cgroup is
//! refused. `doctor`'s canary shows it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::AgentsCgroup;

/// Why a folder is not a usable cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// It is not in a cgroup v2 file system.
    #[error("{} is not in a cgroup v2 file system", .0.display())]
    NotV2(PathBuf),
    /// No cgroup v2 file system is mounted.
    #[error("no cgroup v2 file system is mounted")]
    NoV2,
    /// The system refused.
    #[error("the cgroup cannot be opened, made or read")]
    Io(#[from] io::Error),
}

/// Where the cgroup of the agents stands.
pub(super) fn place(agents_cgroup: &Path) -> Result<AgentsCgroup, CgroupError> {
    if statfs(agents_cgroup).map_err(io::Error::from)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(CgroupError::NotV2(agents_cgroup.to_owned()));
    }
    Ok(AgentsCgroup::at(agents_cgroup)?)
}

/// A cgroup without tasks, below the root; removed on drop.
pub(super) struct Private(PathBuf);

impl Private {
    pub(super) fn create() -> Result<Private, CgroupError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let root = mounts.lines().find_map(mount_point).ok_or(CgroupError::NoV2)?;
        let name = format!("agentd-net-probe-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(root).join(name);
        std::fs::create_dir(&path)?;
        Ok(Private(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // An empty cgroup can be removed; if not, it confines nobody and stands until the next boot.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Where a line of /proc/self/mounts, `SOURCE POINT TYPE …`, mounts a cgroup v2 file system.
fn mount_point(line: &str) -> Option<&str> {
    let mut fields = line.split(' ').skip(1);
    let point = fields.next()?;
    (fields.next()? == "cgroup2").then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_elsewhere_is_not_a_cgroup() {
        assert_eq!(mount_point("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0"), Some("/sys/fs/cgroup"));
        assert_eq!(mount_point("proc /proc proc rw 0 0"), None);
        assert!(matches!(place(Path::new("/proc")), Err(CgroupError::NotV2(_))));
    }
}
