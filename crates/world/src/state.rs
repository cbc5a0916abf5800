//! The state: every agent that lives, and the last ones that ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentd_model::{
    AgentName, AgentNumber, AgentPhase, AgentSpec, CapabilityNumber, Duration, ExitStatus, Gap, Grant, Principal, Seq,
    Stamp, Tiers, WorldId,
};
use minicbor::{Decode, Encode};

/// How many ended agents the state remembers; older ones are in the journal only.
pub(crate) const ENDED_KEPT: usize = 256;

/// Everything that is true now. Cheap to clone: agents are shared until they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) world: Option<WorldId>,
    pub(crate) agents: BTreeMap<AgentNumber, Arc<Agent>>,
    pub(crate) capabilities: BTreeMap<CapabilityNumber, Arc<Capability>>,
    pub(crate) last_capability: u32,
    pub(crate) last_number: u32,
    pub(crate) last_denial: Option<Seq>,
    pub(crate) tiers: Option<Tiers>,
    pub(crate) boot_id: String,
}

/// One agent as the world knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Agent {
    /// Its number.
    #[n(0)]
    pub number: AgentNumber,
    /// Its name; of several ended agents with one name the newest counts.
    #[n(1)]
    pub name: AgentName,
    /// What was asked for.
    #[cbor(n(2), with = "shared")]
    pub spec: Arc<AgentSpec>,
    /// By whom.
    #[n(3)]
    pub by: Principal,
    /// When.
    #[n(4)]
    pub requested: Stamp,
    /// The record of the request, where every chain of causes about the agent begins.
    #[n(5)]
    pub request: Seq,
    /// What the launch made, once it came about.
    #[n(6)]
    pub started: Option<Started>,
    /// Frozen by a person.
    #[n(7)]
    pub paused: bool,
    /// Frozen because the CPU budget is spent.
    #[n(8)]
    pub exhausted: bool,
    /// CPU limit now, with every top-up.
    #[n(9)]
    pub cpu_limit: Option<Duration>,
    /// Refusals reported, and reports dropped.
    #[n(10)]
    pub denials: u64,
    /// The newest refusal.
    #[n(11)]
    pub last_denial: Option<Seq>,
    /// How it ended.
    #[n(12)]
    pub end: Option<End>,
}

/// What the launch of an agent made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Started {
    /// Its init, in the host's pid namespace.
    #[n(0)]
    pub init_pid: u32,
    /// Its shim.
    #[n(1)]
    pub shim_pid: u32,
    /// Its cgroup.
    #[n(2)]
    pub cgroup_id: u64,
    /// Its slot in the kernel's table.
    #[n(3)]
    pub slot: u32,
    /// Promises given up.
    #[n(4)]
    pub gaps: Vec<Gap>,
    /// The boot it runs in.
    #[n(5)]
    pub boot_id: String,
    /// When.
    #[n(6)]
    pub at: Stamp,
}

/// Rights that were lent to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Capability {
    /// To whom.
    #[n(0)]
    pub agent: AgentNumber,
    /// What, and until when.
    #[n(1)]
    pub grant: Grant,
    /// By whom.
    #[n(2)]
    pub by: Principal,
    /// The record that says so.
    #[n(3)]
    pub granted: Seq,
    /// When.
    #[n(4)]
    pub at: Stamp,
    /// The record that took it back.
    #[n(5)]
    pub revoked: Option<Seq>,
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum End {
    /// Its first program ended.
    #[n(0)]
    Exited {
        /// How.
        #[n(0)]
        status: ExitStatus,
        /// CPU time used in all.
        #[n(1)]
        spent: Duration,
        /// When.
        #[n(2)]
        at: Stamp,
    },
    /// It never ran.
    #[n(1)]
    Failed {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// Nobody saw how.
    #[n(2)]
    Lost {
        /// What was found.
        #[n(0)]
        reason: String,
    },
}

/// A shared value is saved as if it were nobody else's.
mod shared {
    use std::sync::Arc;

    use minicbor::decode::Error;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decode, Decoder, Encode, Encoder};

    pub(super) fn encode<C, T: Encode<C>, W: Write>(
        value: &Arc<T>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        value.as_ref().encode(encoder, context)
    }

    pub(super) fn decode<'b, C, T: Decode<'b, C>>(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Arc<T>, Error> {
        T::decode(decoder, context).map(Arc::new)
    }
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

    /// Every capability of the agents that are known, by number.
    pub fn capabilities(&self) -> impl Iterator<Item = &Arc<Capability>> {
        self.capabilities.values()
    }

    /// The capability with a number.
    pub fn capability(&self, number: CapabilityNumber) -> Option<&Arc<Capability>> {
        self.capabilities.get(&number)
    }

    /// The lowest number that no capability has had.
    pub fn next_capability(&self) -> CapabilityNumber {
        CapabilityNumber(self.last_capability + 1)
    }

    /// The id of the journal that this is the state of.
    pub fn world(&self) -> Option<WorldId> {
        self.world
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
