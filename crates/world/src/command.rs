//! A request becomes events, or a refusal that says why.

use agentd_model::{
    AgentName, AgentNumber, AgentPhase, AgentSpec, CapabilityNumber, Duration, Event, Grant, Principal, Seq,
};

use crate::State;

/// What somebody outside asks the world to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Start an agent.
    Spawn {
        /// Its number, from [`State::next_number`] on; whoever gives numbers out gives each only once.
        agent: AgentNumber,
        /// Its name.
        name: AgentName,
        /// What is asked for, checked against what the host can keep.
        spec: Box<AgentSpec>,
    },
    /// Freeze an agent.
    Pause {
        /// Which.
        agent: AgentNumber,
    },
    /// Thaw an agent.
    Resume {
        /// Which.
        agent: AgentNumber,
    },
    /// Send a signal to an agent's first program, or kill everything in it.
    Signal {
        /// Which.
        agent: AgentNumber,
        /// `None`: kill everything.
        signal: Option<u8>,
    },
    /// Give an agent more CPU time.
    TopUp {
        /// Which.
        agent: AgentNumber,
        /// How much more.
        cpu: Duration,
    },
    /// Lend an agent rights that the kernel has been told of, and does not let count yet.
    Grant {
        /// To whom.
        agent: AgentNumber,
        /// What, and until when.
        grant: Box<Grant>,
    },
    /// Take back what was lent.
    Revoke {
        /// Which.
        capability: CapabilityNumber,
        /// Why.
        reason: String,
    },
    /// Tell the operators something.
    Tell {
        /// What about.
        subject: String,
        /// What.
        body: String,
        /// Which agent it is about.
        about: Option<AgentNumber>,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A live agent has the name.
    #[error("the name {name} is in use by agent {by}")]
    NameInUse {
        /// The name.
        name: AgentName,
        /// Who has it.
        by: AgentNumber,
    },
    /// The number was given out twice.
    #[error("there is an agent {agent} already")]
    NumberInUse {
        /// The number.
        agent: AgentNumber,
    },
    /// As many agents live as the kernel has slots.
    #[error("{limit} agents are running and there is no room for another")]
    Full {
        /// How many can be.
        limit: usize,
    },
    /// No such agent.
    #[error("there is no agent {agent}")]
    Unknown {
        /// The number.
        agent: AgentNumber,
    },
    /// It is not in a phase where that can be done.
    #[error("agent {name} is {phase}")]
    Phase {
        /// Which agent.
        name: AgentName,
        /// Where it is in its life.
        phase: AgentPhase,
    },
    /// No such capability.
    #[error("there is no capability {capability}")]
    NoCapability {
        /// The number.
        capability: CapabilityNumber,
    },
    /// It was taken back before.
    #[error("capability {capability} was taken back already (record {record})")]
    Revoked {
        /// Which.
        capability: CapabilityNumber,
        /// The record that took it back.
        record: Seq,
    },
    /// The number was given out twice.
    #[error("there is a capability {capability} already")]
    CapabilityInUse {
        /// The number.
        capability: CapabilityNumber,
    },
    /// A top-up of an agent that has no limit.
    #[error("agent {name} has no CPU budget to top up")]
    NoBudget {
        /// Which agent.
        name: AgentName,
    },
    /// A top-up beyond what can be counted.
    #[error("the CPU budget of agent {name} cannot grow by {cpu}")]
    TooMuch {
        /// Which agent.
        name: AgentName,
        /// What was asked.
        cpu: Duration,
    },
}

/// How many agents may live at once: one fewer than the kernel has slots, because slot 0 is never used.
pub const AGENT_LIMIT: usize = 1023;

/// Decides a command. Changes nothing; the events do, once they are durable.
pub fn command(state: &State, command: Command, by: Principal) -> Result<Vec<Event>, Refusal> {
    match command {
        Command::Spawn { agent, name, spec } => {
            if state.agents().filter(|agent| agent.is_live()).count() >= AGENT_LIMIT {
                return Err(Refusal::Full { limit: AGENT_LIMIT });
            }
            if agent.0 == 0 || state.agent(agent).is_some() {
                return Err(Refusal::NumberInUse { agent });
            }
            if let Some(other) = state.named(&name).filter(|other| other.is_live()) {
                return Err(Refusal::NameInUse { name, by: other.number });
            }
            Ok(vec![Event::AgentRequested { agent, name, spec, by }])
        }
        Command::Pause { agent } => match phase(state, agent)? {
            (_, AgentPhase::Running | AgentPhase::Exhausted) => Ok(vec![Event::AgentPaused { agent, by }]),
            (name, phase) => Err(Refusal::Phase { name, phase }),
        },
        Command::Resume { agent } => {
            let (name, phase) = phase(state, agent)?;
            let paused = state.agent(agent).is_some_and(|agent| agent.paused);
            if phase.is_live() && paused {
                Ok(vec![Event::AgentResumed { agent, by }])
            } else {
                Err(Refusal::Phase { name, phase })
            }
        }
        Command::Signal { agent, signal } => match phase(state, agent)? {
            (_, phase) if phase.is_live() => Ok(vec![Event::AgentSignalled { agent, signal, by }]),
            (name, phase) => Err(Refusal::Phase { name, phase }),
        },
        Command::Grant { agent, grant } => match phase(state, agent)? {
            (name, phase @ AgentPhase::Starting) => Err(Refusal::Phase { name, phase }),
            (name, phase) if !phase.is_live() => Err(Refusal::Phase { name, phase }),
            _ if state.capability(grant.capability).is_some() => {
                Err(Refusal::CapabilityInUse { capability: grant.capability })
            }
            _ => Ok(vec![Event::CapabilityGranted { agent, grant, by }]),
        },
        Command::Revoke { capability, reason } => {
            let found = state.capability(capability).ok_or(Refusal::NoCapability { capability })?;
            match found.revoked {
                Some(record) => Err(Refusal::Revoked { capability, record }),
                None => Ok(vec![Event::CapabilityRevoked { agent: found.agent, capability, reason, by }]),
            }
        }
        Command::Tell { subject, body, about } => {
            // About somebody who is not known any more, it is still worth telling.
            let about = about.filter(|agent| state.agent(*agent).is_some());
            Ok(vec![Event::OperatorsTold { subject, body, about, by }])
        }
        Command::TopUp { agent, cpu } => {
            let (name, phase) = phase(state, agent)?;
            if !phase.is_live() {
                return Err(Refusal::Phase { name, phase });
            }
            let limit = state.agent(agent).and_then(|agent| agent.cpu_limit);
            let Some(limit) = limit else { return Err(Refusal::NoBudget { name }) };
            match limit.0.checked_add(cpu.0) {
                Some(sum) => Ok(vec![Event::BudgetToppedUp { agent, added: cpu, limit: Duration(sum), by }]),
                None => Err(Refusal::TooMuch { name, cpu }),
            }
        }
    }
}

fn phase(state: &State, agent: AgentNumber) -> Result<(AgentName, AgentPhase), Refusal> {
    let agent = state.agent(agent).ok_or(Refusal::Unknown { agent })?;
    Ok((agent.name.clone(), agent.phase()))
}
