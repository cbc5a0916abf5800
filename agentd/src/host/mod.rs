//! The host: everything outside the core that effects reach.
//!
//! [`Host`] holds the adapters and what is only true while the daemon runs: which slots are taken, which shims are
//! connected. [`HostPerformer`] turns effects into calls. Freezing, thawing, killing and limits are done at once; a launch
//! takes milliseconds and has a thread of its own, which reports back.

mod adopt;
mod berths;
mod launcher;
mod lending;
mod performer;
mod poll;
mod slots;
mod threads;
mod watcher;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentd_model::{AgentNumber, Domain, Duration as CpuTime, Spend, Tier, Tiers};
use agentd_world::Agent;

pub use adopt::adopt;
pub use berths::Reserved;
pub use launcher::{Plan, Preparation};
pub use lending::{LendError, Lending};
pub use performer::HostPerformer;
pub use poll::begin as begin_polling;
pub use slots::Slots;

use crate::cgroup::{CgroupError, Cgroups};
use crate::core::World;
use crate::enforcer::{CpuLimits, EnforceError, Enforcer};
use crate::launch::{Confinement, Landlock, Pace, Seccomp, Shim};
use crate::places::Places;

/// How long those who wait for an agent's start or end have the processors to themselves, before the daemon does what
/// nobody waits for: the next berth, the clearing of tables.
const HEAD_START: Duration = Duration::from_millis(100);

/// The adapters, and what is true only while the daemon runs.
pub struct Host {
    /// Where things are.
    pub places: Places,
    /// The agents' cgroups.
    pub cgroups: Cgroups,
    /// The kernel programs.
    pub enforcer: Arc<dyn Enforcer>,
    /// What enforces what.
    pub tiers: Tiers,
    /// Whether the LSM has a hook on io_uring.
    pub uring_hook: bool,
    /// Places in the kernel's table.
    pub slots: Slots,
    /// Agents whose gate is not open yet: whoever freezes one would wait for it in vain.
    launching: Mutex<HashSet<AgentNumber>>,
    /// Held while a CPU limit changes, and while an agent is frozen because of the one it has.
    limits: Mutex<()>,
    shims: Mutex<HashMap<AgentNumber, Shim>>,
    berths: berths::Berths,
    capabilities: lending::Numbers,
    threads: threads::Threads,
}

/// Why a stream could not be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Its shim is not connected: it is starting, or has just ended.
    #[error("agent {0} has no stream")]
    NoShim(AgentNumber),
    /// The shim does not answer.
    #[error("cannot reach the shim of agent {agent}")]
    Io {
        /// Which agent.
        agent: AgentNumber,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Host {
    /// A host with nothing running.
    pub fn new(places: Places, cgroups: Cgroups, enforcer: Arc<dyn Enforcer>, tiers: Tiers, uring_hook: bool) -> Host {
        let (shims, berths, slots) = (Mutex::default(), berths::Berths::new(), Slots::default());
        let (launching, limits, threads) = (Mutex::default(), Mutex::default(), threads::Threads::default());
        let capabilities = lending::Numbers::default();
        Host {
            places,
            cgroups,
            enforcer,
            tiers,
            uring_hook,
            slots,
            launching,
            limits,
            shims,
            berths,
            capabilities,
            threads,
        }
    }

    /// What confines an agent beside the kernel programs, on this host.
    pub fn confinement(&self) -> Confinement {
        match self.tiers.of(Domain::Files) {
            Tier::Lsm if self.uring_hook => Confinement { landlock: Landlock::Off, seccomp: Seccomp::Unseen },
            Tier::Lsm => Confinement { landlock: Landlock::Off, seccomp: Seccomp::UnseenAndUring },
            _ => Confinement { landlock: Landlock::On, seccomp: Seccomp::Fallback },
        }
    }

    /// A number that nobody else gets, and what is ready for the next agent.
    pub fn reserve(&self) -> Reserved {
        self.berths.reserve()
    }

    /// Takes back what was reserved for a request that is wrong.
    pub fn give_back(&self, reserved: Reserved) {
        self.berths.give_back(reserved, self);
    }

    /// Undoes what is ready for nobody; the daemon stops.
    pub fn close(&self) {
        self.berths.close(self);
    }

    /// A stream to an agent's terminal or pipes, for somebody who looks in.
    pub fn attach(&self, agent: AgentNumber) -> Result<OwnedFd, AttachError> {
        self.with_shim(agent, |shim| shim.attach(Pace::ClientDrops))
    }

    /// Has an agent's shim keep a file open for as long as the agent lives.
    fn hold(&self, agent: AgentNumber, file: &OwnedFd) -> Result<(), AttachError> {
        let held = self.with_shim(agent, |shim| shim.hold(file))?;
        held.wait().map_err(|source| AttachError::Io { agent, source })
    }

    /// CPU time used by a live agent: the kernel programs' account, or the cgroup's where there is none.
    pub fn spent(&self, agent: &Agent) -> Spend {
        let account = agent.started.as_ref().and_then(|started| self.enforcer.account(started.slot, agent.number));
        let counted = account.filter(|_| self.tiers.of(Domain::Cpu) == Tier::Tracepoint).map(|a| a.cpu_spent_ns);
        let from_cgroup = || self.cgroups.of(agent.number).cpu_spent().map_or(0, |spent| spent.as_nanos() as u64);
        Spend { cpu_ns: counted.unwrap_or_else(from_cgroup) }
    }

    /// Refusals of a live agent by the kernel programs' account, reported or not; 0 for one that has ended.
    pub fn denials(&self, agent: &Agent) -> u64 {
        let started = agent.started.as_ref().filter(|_| agent.is_live());
        started
            .and_then(|started| self.enforcer.account(started.slot, agent.number))
            .map_or(0, |account| account.denials)
    }

    /// Freezes an agent; one that is being launched, as soon as it has been ([`Host::launched`]).
    fn freeze(&self, agent: AgentNumber) -> Result<(), CgroupError> {
        // Held over the call, so that the end of a launch cannot pass between the look and the freezing.
        let launching = self.launching.lock().unwrap_or_else(PoisonError::into_inner);
        if launching.contains(&agent) { Ok(()) } else { self.cgroups.of(agent).freeze() }
    }

    /// Freezes an agent that the kernel programs have just marked as exhausted, without waiting for the world, which
    /// will say the same once the disk has it (`docs/decisions/0005`).
    ///
    /// A limit that was raised in between has taken the mark away, and then nothing is frozen: the thaw that follows a
    /// raise comes after the new limit is set.
    pub fn freeze_spent(&self, agent: &Agent) {
        let Some(started) = agent.started.as_ref().filter(|_| agent.is_live()) else { return };
        let _limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let account = self.enforcer.account(started.slot, agent.number);
        if account.is_some_and(|account| account.exhausted != 0)
            && let Err(error) = self.freeze(agent.number)
        {
            tracing::warn!(agent = %agent.number, error = crate::errors::one_line(&error), "cannot freeze the agent");
        }
    }

    fn set_cpu(&self, slot: u32, agent: AgentNumber, limit: CpuTime) -> Result<(), EnforceError> {
        let _limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        self.enforcer.set_cpu(slot, agent, CpuLimits { limit: Some(limit) })
    }

    fn launches(&self, agent: AgentNumber) {
        self.launching.lock().unwrap_or_else(PoisonError::into_inner).insert(agent);
    }

    /// A launch is over. What was frozen meanwhile, by the state, is frozen now.
    fn launched(&self, agent: AgentNumber, world: &World) {
        self.launching.lock().unwrap_or_else(PoisonError::into_inner).remove(&agent);
        let state = world.state();
        if let Some(agent) = state.agent(agent).filter(|agent| agent.is_live() && (agent.paused || agent.exhausted))
            && let Err(error) = self.freeze(agent.number)
        {
            tracing::warn!(agent = %agent.number, error = crate::errors::one_line(&error), "cannot freeze the agent");
        }
    }

    fn with_shim<T>(&self, agent: AgentNumber, action: impl FnOnce(&Shim) -> io::Result<T>) -> Result<T, AttachError> {
        // A panic elsewhere does not make the table wrong: every change to it is one call.
        let shims = self.shims.lock().unwrap_or_else(PoisonError::into_inner);
        let shim = shims.get(&agent).ok_or(AttachError::NoShim(agent))?;
        action(shim).map_err(|source| AttachError::Io { agent, source })
    }

    fn keep_shim(&self, agent: AgentNumber, shim: Shim) {
        self.shims.lock().unwrap_or_else(PoisonError::into_inner).insert(agent, shim);
    }

    fn drop_shim(&self, agent: AgentNumber) -> Option<Shim> {
        self.shims.lock().unwrap_or_else(PoisonError::into_inner).remove(&agent)
    }
}
