//! The port to the kernel programs: what the daemon asks of them.
//!
//! [`crate::kernel`] is the adapter to the real ones; tests put something else behind it. All calls are short and may come
//! from any thread.

use std::os::fd::BorrowedFd;

use agentd_abi as abi;
use agentd_model::{AgentNumber, CapabilityNumber, Duration};
use agentd_policy::compile::Compiled;

/// CPU time at which things happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuLimits {
    /// Refuse and freeze; `None`: no limit.
    pub limit: Option<Duration>,
}

impl CpuLimits {
    /// Nanoseconds for the kernel's table: limit, warning at four fifths, kill at limit and grace.
    ///
    /// The grace is what an agent may still use while nobody freezes it: a tenth of its limit, at least a quarter of a
    /// second and at most ten seconds.
    pub fn thresholds(self) -> (u64, u64, u64) {
        match self.limit {
            None => (0, 0, 0),
            Some(Duration(limit)) => {
                let grace = (limit / 10).clamp(250_000_000, 10_000_000_000);
                (limit, limit - limit / 5, limit.saturating_add(grace))
            }
        }
    }
}

/// Rights to be lent on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoanOn {
    /// Which.
    pub object: abi::Object,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bits of the kernel contract.
    pub rights: u32,
}

/// Why the kernel programs could not be told something. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct EnforceError {
    /// What.
    pub what: &'static str,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The kernel programs.
pub trait Enforcer: Send + Sync {
    /// How the kernel programs see these open files, in order.
    fn identify(&self, files: &[BorrowedFd<'_>]) -> Result<Vec<abi::Object>, EnforceError>;

    /// Puts an agent into the tables, without rules: from now on what runs in its cgroup is counted.
    fn admit(&self, slot: u32, agent: AgentNumber, cgroup_id: u64, limits: CpuLimits) -> Result<(), EnforceError>;

    /// Puts an agent's rules into the tables; all of them or none. Returns how many entries that made.
    fn load(&self, slot: u32, agent: AgentNumber, rules: &Compiled) -> Result<u32, EnforceError>;

    /// Marks a process as the agent; its children will be marked by the kernel.
    fn mark(&self, pidfd: BorrowedFd<'_>, slot: u32, agent: AgentNumber) -> Result<(), EnforceError>;

    /// Changes the CPU limit and lifts the refusal, if the new limit is not reached.
    fn set_cpu(&self, slot: u32, agent: AgentNumber, limits: CpuLimits) -> Result<(), EnforceError>;

    /// Tells the programs of rights that are to be lent to the agent in a slot until a moment of the monotonic clock (none:
    /// without end), all of them or none. They do not count yet. Gives the capability's slot.
    fn prepare(
        &self,
        agent: (u32, AgentNumber),
        capability: CapabilityNumber,
        loans: &[LoanOn],
        until_ns: Option<u64>,
    ) -> Result<u32, EnforceError>;

    /// Lets a capability count, or count no more: with the next decision of every processor. False: its slot is another's.
    fn set_capability(&self, slot: u32, capability: CapabilityNumber, in_force: bool) -> bool;

    /// Whether a capability counts.
    fn counts(&self, slot: u32, capability: CapabilityNumber) -> bool;

    /// Forgets a capability, and what it lent an agent on these objects; that counts no more.
    fn forget(&self, slot: u32, capability: CapabilityNumber, agent: AgentNumber, on: &[abi::Object]);

    /// Forgets capabilities and loans of which `holder` (by slot and number) does not know whom they are lent to. Gives the
    /// highest number found.
    fn sweep(&self, holder: &dyn Fn(u32, CapabilityNumber) -> Option<AgentNumber>) -> Result<u32, EnforceError>;

    /// The kernel's own account of an agent; `None`: the slot is not this agent's.
    fn account(&self, slot: u32, agent: AgentNumber) -> Option<abi::Agent>;

    /// Slots that are in use, and whose.
    fn registered(&self) -> Vec<(u32, AgentNumber)>;

    /// Takes an agent out of all tables. Nothing of it may run any more.
    fn release(&self, slot: u32, agent: AgentNumber, cgroup_id: u64) -> Result<(), EnforceError>;
}
