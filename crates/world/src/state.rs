//! The state: every agent that lives, and the last ones that ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentd_model::{
    AgentName, AgentNumber, AgentPhase, AgentSpec, Duration, ExitStatus, Gap, Principal, Seq, Stamp, Tiers,
};

/// How many ended agents the state remembers; older ones are in the journal only.
pub(crate) const ENDED_KEPT: usize = 256;

/// Everything that is true now. Cheap to clone: agents are shared until they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) agents: BTreeMap<AgentNumber, Arc<Agent>>,
    pub(crate) last_number: u32,
    pub(crate) last_denial: Option<Seq>,
    pub(crate) tiers: Option<Tiers>,
    pub(crate) boot_id: String,
}

/// One agent as the world knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its number.
    pub number: AgentNumber,
    /// Its name; of several ended agents with one name the newest counts.
    pub name: AgentName,
    /// What was asked for.
    pub spec: Arc<AgentSpec>,
    /// By whom.
    pub by: Principal,
    /// When.
    pub requested: Stamp,
    /// The record of the request, where every chain of causes about the agent begins.
    pub request: Seq,
    /// What the launch made, once it came about.
    pub started: Option<Started>,
    /// Frozen by a person.
    pub paused: bool,
    /// Frozen because the CPU budget is spent.
    pub exhausted: bool,
    /// CPU limit now, with every top-up.
    pub cpu_limit: Option<Duration>,
    /// Refusals reported, and reports dropped.
    pub denials: u64,
    /// The newest refusal.
    pub last_denial: Option<Seq>,
    /// How it ended.
    pub end: Option<End>,
}

/// What the launch of an agent made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its init, in the host's pid namespace.
    pub init_pid: u32,
    /// Its shim.
    pub shim_pid: u32,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// Its slot in the kernel's table.
    pub slot: u32,
    /// Promises given up.
    pub gaps: Vec<Gap>,
    /// The boot it runs in.
    pub boot_id: String,
    /// When.
    pub at: Stamp,
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its first program ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// CPU time used in all.
        spent: Duration,
        /// When.
        at: Stamp,
    },
    /// It never ran.
    Failed {
        /// Why.
        reason: String,
    },
    /// Nobody saw how.
    Lost {
        /// What was found.
        reason: String,
    },
}

impl Agent {
    /// Where in its life it is.
    pub fn phase(&self) -> AgentPhase {
        match (&self.end, &self.started) {
            (Some(End::Exited { .. }), _) => AgentPhase::Exited,
            (Some(End::Failed { .. }), _) => AgentPhase::Failed,
            (Some(End::Lost { .. }), _) => AgentPhase::Lost,
            (None, None) => AgentPhase::Starting,
            (None, Some(_)) if self.exhausted => AgentPhase::Exhausted,
            (None, Some(_)) if self.paused => AgentPhase::Paused,
            (None, Some(_)) => AgentPhase::Running,
        }
    }

    /// Whether it has, or may still have, processes.
    pub fn is_live(&self) -> bool {
        self.phase().is_live()
    }
}

impl State {
    /// Every agent known, by number.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values()
    }

    /// The agent with a number.
    pub fn agent(&self, number: AgentNumber) -> Option<&Arc<Agent>> {
        self.agents.get(&number)
    }

    /// The agent with a name, a live one before an ended one, then the newest.
    pub fn named(&self, name: &AgentName) -> Option<&Arc<Agent>> {
        self.agents.values().filter(|agent| agent.name == *name).max_by_key(|agent| (agent.is_live(), agent.number))
    }

    /// The agent that a person means by a number or a name.
    pub fn find(&self, text: &str) -> Option<&Arc<Agent>> {
        match text.parse::<u32>() {
            Ok(number) => self.agent(AgentNumber(number)),
            Err(_) => text.parse().ok().and_then(|name| self.named(&name)),
        }
    }

    /// The agent whose cgroup has this id.
    pub fn in_cgroup(&self, cgroup_id: u64) -> Option<&Arc<Agent>> {
        let is_it = |agent: &&Arc<Agent>| agent.started.as_ref().is_some_and(|started| started.cgroup_id == cgroup_id);
        self.agents.values().filter(|agent| agent.is_live()).find(is_it)
    }

    /// The newest refusal of all.
    pub fn last_denial(&self) -> Option<Seq> {
        self.last_denial
    }

    /// What enforces what, as the newest start of the daemon found it.
    pub fn tiers(&self) -> Option<&Tiers> {
        self.tiers.as_ref()
    }

    /// The boot that the newest start of the daemon was in.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The lowest number that no agent has had.
    pub fn next_number(&self) -> AgentNumber {
        AgentNumber(self.last_number + 1)
    }
}
