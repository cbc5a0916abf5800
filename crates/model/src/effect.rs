//! Effects: what the world wants done. Adapters do it, and what came of it returns as an event.

use serde::{Deserialize, Serialize};

use crate::{AgentNumber, CapabilityNumber, Duration};

/// Something for an adapter to do. All are idempotent: doing one twice is doing it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Make the cgroup, load the rules, start the shim.
    Launch {
        /// Which agent.
        agent: AgentNumber,
    },
    /// Freeze the agent's cgroup.
    Freeze {
        /// Which agent.
        agent: AgentNumber,
    },
    /// Thaw the agent's cgroup.
    Thaw {
        /// Which agent.
        agent: AgentNumber,
    },
    /// Tell the kernel the new CPU limit and lift its refusal.
    SetCpuLimit {
        /// Which agent.
        agent: AgentNumber,
        /// New limit.
        limit: Duration,
    },
    /// Let a capability count: the journal has it.
    PutInForce {
        /// Which.
        capability: CapabilityNumber,
    },
    /// Let a capability count no more.
    TakeBack {
        /// Which.
        capability: CapabilityNumber,
    },
    /// Send a signal to the agent's first program.
    Signal {
        /// Which agent.
        agent: AgentNumber,
        /// Which signal.
        signal: u8,
    },
    /// Kill everything in the agent's cgroup.
    Kill {
        /// Which agent.
        agent: AgentNumber,
    },
    /// Take the agent out of the kernel's tables and remove its cgroup.
    Release {
        /// Which agent.
        agent: AgentNumber,
    },
}
