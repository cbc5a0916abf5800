//! A place for the next agent, made before anybody asks for it.
//!
//! A berth is everything about an agent that does not depend on what it will be: its number, its slot in the kernel's
//! table, its cgroup, its directories, a shim, and an init in namespaces of its own that waits. One is kept ready, so
//! that a launch begins with it; the mounts that the agent will see are still those of the moment of its launch.
//!
//! Nobody's agent is in a berth. One that is not used is undone, by the daemon that made it or by the next one: its
//! processes end when the daemon does, and what the journal does not know is cleared at a start ([`super::adopt()`]).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use agentd_model::AgentNumber;

use super::launcher::Failure;
use super::{Host, watcher};
use crate::cgroup::Cgroup;
use crate::enforcer::CpuLimits;
use crate::launch::{OUTPUT_LOG, Place, SHIM_SOCKET, Spare};
use crate::places::HOME;

/// The program that becomes the shim: this very one, also after it was replaced on disk by an upgrade.
const SELF: &str = "/proc/self/exe";

/// A place for an agent.
#[derive(Debug)]
pub(super) struct Berth {
    pub(super) slot: u32,
    pub(super) cgroup: Cgroup,
    pub(super) cgroup_id: u64,
    pub(super) place: Place,
    /// Taken by the launch.
    pub(super) spare: Option<Spare>,
}

impl Berth {
    /// Makes one. With an error nothing is left.
    pub(super) fn make(host: &Host, agent: AgentNumber) -> Result<Berth, Failure> {
        let slot = host.slots.take().ok_or(Failure::NoSlot)?;
        let cgroup = host.cgroups.of(agent);
        let place = Place {
            agent,
            cgroup: cgroup.path().to_owned(),
            state_dir: host.places.agent_state(agent),
            runtime_dir: host.places.agent_runtime(agent),
        };
        let mut berth = Berth { slot, cgroup, cgroup_id: 0, place, spare: None };
        match berth.furnish(host) {
            Ok(()) => Ok(berth),
            Err(failure) => {
                berth.undo(host);
                Err(failure)
            }
        }
    }

    fn furnish(&mut self, host: &Host) -> Result<(), Failure> {
        self.cgroup.create()?;
        self.cgroup_id = self.cgroup.id()?;
        // Before anything is in the cgroup, so that the kernel's sum and the cgroup's own are the same.
        host.enforcer.admit(self.slot, self.place.agent, self.cgroup_id, CpuLimits { limit: None })?;
        for directory in [&self.place.state_dir, &self.place.runtime_dir] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|source| Failure::Directory { path: directory.clone(), source })?;
        }
        let home = host.places.agent_home(self.place.agent);
        let made = fs::DirBuilder::new().mode(0o700).create(&home);
        match made {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Failure::Directory { path: home, source });
            }
            _ => {}
        }
        self.spare = Some(Spare::start(Path::new(SELF), &self.place)?);
        Ok(())
    }

    /// Takes everything back but the directories: what runs there ends.
    pub(super) fn clear(&mut self, host: &Host) {
        self.spare = None;
        let _ = self.cgroup.kill();
        watcher::remove_when_empty(&self.cgroup);
        let _ = host.enforcer.release(self.slot, self.place.agent, self.cgroup_id);
        host.slots.give_back(self.slot);
    }

    /// Takes everything back; there never was such an agent.
    pub(super) fn undo(mut self, host: &Host) {
        self.clear(host);
        remove_traces(&self.place.state_dir);
        remove_traces(&self.place.runtime_dir);
    }
}

/// Removes what a berth leaves in a directory, and the directory if that was all. What an agent has left stays.
pub(super) fn remove_traces(directory: &Path) {
    let log = directory.join(OUTPUT_LOG);
    if fs::metadata(&log).is_ok_and(|log| log.len() == 0) {
        let _ = fs::remove_file(log);
    }
    let _ = fs::remove_file(directory.join(SHIM_SOCKET));
    // Refused where there is more.
    let _ = fs::remove_dir(directory.join(HOME));
    let _ = fs::remove_dir(directory);
}

/// A number that nobody else gets, perhaps with a berth that is ready.
#[derive(Debug)]
pub struct Reserved {
    agent: AgentNumber,
    ready: Option<Berth>,
}

impl Reserved {
    /// The number of an agent that the journal has and that nothing has been made for.
    pub(super) fn number(agent: AgentNumber) -> Reserved {
        Reserved { agent, ready: None }
    }

    /// The number.
    pub fn agent(&self) -> AgentNumber {
        self.agent
    }

    pub(super) fn berth(self, host: &Host) -> Result<Berth, Failure> {
        self.ready.map_or_else(|| Berth::make(host, self.agent), Ok)
    }
}

/// Numbers, and the berth that is ready.
#[derive(Debug)]
pub(super) struct Berths {
    next: AtomicU32,
    ready: Mutex<Ready>,
}

#[derive(Debug)]
enum Ready {
    One(Box<Berth>),
    None,
    /// The daemon stops: no more.
    Closed,
}

impl Berths {
    /// Numbers that nobody has had begin with `next`.
    pub(super) fn new() -> Berths {
        Berths { next: AtomicU32::new(1), ready: Mutex::new(Ready::None) }
    }

    /// Says from where on numbers are free.
    pub(super) fn begin_at(&self, next: AgentNumber) {
        self.next.fetch_max(next.0, Ordering::Relaxed);
    }

    fn number(&self) -> AgentNumber {
        AgentNumber(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The berth that is ready, or else only a number.
    pub(super) fn reserve(&self) -> Reserved {
        let mut ready = self.ready();
        match std::mem::replace(&mut *ready, Ready::None) {
            Ready::One(berth) => Reserved { agent: berth.place.agent, ready: Some(*berth) },
            Ready::Closed => {
                *ready = Ready::Closed;
                Reserved::number(self.number())
            }
            Ready::None => Reserved::number(self.number()),
        }
    }

    /// Takes back what was reserved for nothing.
    pub(super) fn give_back(&self, reserved: Reserved, host: &Host) {
        let Reserved { agent, ready: berth } = reserved;
        let Some(berth) = berth else {
            // The newest number can be given out again; any other leaves a gap.
            let _ = self.next.compare_exchange(agent.0 + 1, agent.0, Ordering::Relaxed, Ordering::Relaxed);
            return;
        };
        let mut ready = self.ready();
        match *ready {
            Ready::None => *ready = Ready::One(Box::new(berth)),
            _ => {
                drop(ready);
                berth.undo(host);
            }
        }
    }

    /// Makes the next launch a quick one. A failure shows when somebody needs the berth.
    pub(super) fn refill(&self, host: &Host) {
        if !matches!(*self.ready(), Ready::None) {
            return;
        }
        let number = self.number();
        if let Ok(berth) = Berth::make(host, number) {
            self.give_back(Reserved { agent: number, ready: Some(berth) }, host);
        }
    }

    /// Undoes the berth that nobody has asked for, and makes no more.
    pub(super) fn close(&self, host: &Host) {
        let ready = std::mem::replace(&mut *self.ready(), Ready::Closed);
        if let Ready::One(berth) = ready {
            berth.undo(host);
        }
    }
}
