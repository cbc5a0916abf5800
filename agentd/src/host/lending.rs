//! Rights that are lent to an agent while it runs.
//!
//! What is to be lent is looked up in the agent's own view of the files, and no symbolic link is followed on the way: the
//! agent may own a directory there, and put a link in it between a person's asking and our looking. The kernel programs are
//! told before the journal, and let the rights count after it ([`Lending::keep`], then `Effect::PutInForce`); a lending that
//! comes to nothing is forgotten when it is dropped.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use agentd_abi::Object;
use agentd_model::{AgentNumber, CapabilityNumber, Domain, Loan, Rights, Tier};
use agentd_world::{Agent, State};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::{AttachError, Host};
use crate::enforcer::{EnforceError, LoanOn};
use crate::places::Places;

/// Why rights cannot be lent. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LendError {
    /// Rules that are fixed at the start.
    #[error(
        "this host cannot lend rights on files: {tier} enforces them here, and its rules are fixed when an agent starts"
    )]
    Fixed {
        /// What enforces rules on files.
        tier: Tier,
    },
    /// It has ended, or has not begun.
    #[error("agent {0} does not run")]
    NotRunning(AgentNumber),
    /// Something of the daemon's own.
    #[error("{path} is agentd's own, and never lent")]
    Ours {
        /// What.
        path: String,
    },
    /// Nothing is there.
    #[error("{path} does not exist in the agent's view of the files")]
    Missing {
        /// Where.
        path: String,
    },
    /// A link is on the way, whose target somebody may change.
    #[error("the way to {path} goes through a symbolic link")]
    Link {
        /// Where to.
        path: String,
    },
    /// The right would be on the file under all of them.
    #[error("{path} has other names as well (hard links), perhaps elsewhere, and all of them would be lent")]
    OtherNames {
        /// One of them.
        path: String,
    },
    /// A device, a pipe or a socket: what is open of those is not asked about again.
    #[error("{path} is neither a file nor a directory, and could not be taken back")]
    Kind {
        /// Where.
        path: String,
    },
    /// Its shim does not keep the file open.
    #[error(transparent)]
    Hold(#[from] AttachError),
    /// The system refuses.
    #[error("cannot look up {path}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are none left, or what an earlier daemon left behind could not be cleared.
    #[error("there is no number for another capability until agentd starts again")]
    NoNumber,
    /// The kernel programs refuse.
    #[error(transparent)]
    Enforce(#[from] EnforceError),
}

/// Numbers of capabilities, each given out once.
#[derive(Debug, Default)]
pub(super) struct Numbers(AtomicU32);

impl Numbers {
    /// None of these is given out any more.
    pub(super) fn begin_above(&self, number: u32) {
        self.0.fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// There are no more.
    pub(super) fn end(&self) {
        self.begin_above(u32::MAX);
    }

    /// The next one, above all that the journal knows.
    fn take(&self, state: &State) -> Option<CapabilityNumber> {
        self.begin_above(state.next_capability().0.saturating_sub(1));
        let next = |number: u32| number.checked_add(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(CapabilityNumber)
    }
}

/// Rights that the kernel programs know of, and that do not count yet.
pub struct Lending {
    host: Arc<Host>,
    agent: AgentNumber,
    /// Its number.
    pub capability: CapabilityNumber,
    /// Its slot in the kernel's table.
    pub slot: u32,
    /// What is lent, and what that is to the kernel.
    pub loans: Vec<Loan>,
    kept: bool,
}

impl Lending {
    /// Looks up what is to be lent, and tells the kernel programs.
    pub fn prepare(
        host: &Arc<Host>,
        state: &State,
        agent: &Agent,
        wanted: &[(String, Rights)],
        until_mono_ns: Option<u64>,
    ) -> Result<Lending, LendError> {
        let tier = host.tiers.of(Domain::Files);
        if tier != Tier::Lsm {
            return Err(LendError::Fixed { tier });
        }
        let started = agent.started.as_ref().filter(|_| agent.is_live()).ok_or(LendError::NotRunning(agent.number))?;
        let root = root(host, agent.number, started.init_pid)?;
        let mut loans: Vec<Loan> = Vec::new();
        let mut on: Vec<LoanOn> = Vec::new();
        for (path, rights) in wanted {
            ours(host, agent.number, path)?;
            let file = find(&root, path)?;
            let directory = lendable(&file, path)?;
            let object = host.enforcer.identify(&[file.as_fd()])?.into_iter().next().unwrap_or_default();
            if on.iter().any(|other| other.object == object) {
                continue;
            }
            // Its inode number is this file's as long as somebody has it open; the agent's shim will.
            host.hold(agent.number, &file)?;
            loans.push(Loan { path: path.clone(), rights: *rights, dev: object.dev, ino: object.ino, directory });
            on.push(LoanOn { object, directory, rights: rights.bits() });
        }
        let capability = host.capabilities.take(state).ok_or(LendError::NoNumber)?;
        let slot = host.enforcer.prepare((started.slot, agent.number), capability, &on, until_mono_ns)?;
        Ok(Lending { host: host.clone(), agent: agent.number, capability, slot, loans, kept: false })
    }

    /// The journal has it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        if !self.kept {
            let object = |loan: &Loan| Object { dev: loan.dev, ino: loan.ino, reserved: 0 };
            let objects: Vec<Object> = self.loans.iter().map(object).collect();
            self.host.enforcer.forget(self.slot, self.capability, self.agent, &objects);
        }
    }
}

/// What the daemon keeps is nobody's: journals, keys, sockets, the kernel programs.
fn ours(host: &Host, agent: AgentNumber, path: &str) -> Result<(), LendError> {
    let Places { state, runtime, bpffs, .. } = &host.places;
    let kept = [state, runtime, bpffs].into_iter().any(|place| Path::new(path).starts_with(place));
    if kept && !Path::new(path).starts_with(host.places.agent_home(agent)) {
        return Err(LendError::Ours { path: path.to_owned() });
    }
    Ok(())
}

/// Whether it is a directory, if it is something that can be lent and taken back.
fn lendable(file: &OwnedFd, path: &str) -> Result<bool, LendError> {
    let found = fstat(file).map_err(|error| LendError::Io { path: path.into(), source: error.into() })?;
    let kind = found.st_mode & SFlag::S_IFMT.bits();
    match kind {
        _ if kind == SFlag::S_IFDIR.bits() => Ok(true),
        _ if kind == SFlag::S_IFREG.bits() && found.st_nlink > 1 => {
            Err(LendError::OtherNames { path: path.to_owned() })
        }
        _ if kind == SFlag::S_IFREG.bits() => Ok(false),
        _ => Err(LendError::Kind { path: path.to_owned() }),
    }
}

/// The root of an agent's view, held by a descriptor.
fn root(host: &Host, agent: AgentNumber, init_pid: u32) -> Result<OwnedFd, LendError> {
    let path = PathBuf::from(format!("/proc/{init_pid}/root"));
    let root = open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let root = root.map_err(|error| LendError::Io { path, source: error.into() })?;
    // Asked afterwards: if that process has ended meanwhile, its number may be another's, but not one of this agent's.
    let cgroup = fs::read_to_string(format!("/proc/{init_pid}/cgroup")).unwrap_or_default();
    if host.cgroups.agent_in(&cgroup) == Some(agent) { Ok(root) } else { Err(LendError::NotRunning(agent)) }
}

/// What is at a path below a root; never through a link.
fn find(root: &OwnedFd, path: &str) -> Result<OwnedFd, LendError> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    openat2(root, Path::new(path), how).map_err(|error| match error {
        Errno::ENOENT | Errno::ENOTDIR => LendError::Missing { path: path.to_owned() },
        Errno::ELOOP => LendError::Link { path: path.to_owned() },
        error => LendError::Io { path: path.into(), source: error.into() },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_found_through_a_link_or_above_the_root() {
        let directory = std::env::temp_dir().join(format!("agentd-lending-{}", std::process::id()));
        fs::create_dir_all(directory.join("root/sub")).unwrap();
        fs::write(directory.join("root/sub/file"), "").unwrap();
        fs::write(directory.join("outside"), "").unwrap();
        symlink("file", directory.join("root/sub/link")).unwrap();
        symlink("sub", directory.join("root/way")).unwrap();
        let root = open(&directory.join("root"), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        assert!(find(&root, "/sub/file").is_ok() && find(&root, "/sub").is_ok() && find(&root, "/").is_ok());
        for (path, missing) in [
            ("/sub/link", false),
            ("/way/file", false),
            ("/absent", true),
            ("/../outside", true),
            ("/sub/file/x", true),
        ] {
            match find(&root, path) {
                Err(LendError::Missing { .. }) => assert!(missing, "{path}"),
                Err(LendError::Link { .. }) => assert!(!missing, "{path}"),
                other => panic!("{path}: {other:?}"),
            }
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
