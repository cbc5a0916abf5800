//! Effects become calls.

use std::collections::HashMap;
use std::sync::Arc;

use agentd_model::{AgentNumber, CapabilityNumber, Duration, Effect};
use agentd_world::State;

use super::Host;
use super::{Plan, Preparation, Reserved};
use crate::core::{LaunchTicket, Performer, World};

/// Does what the world wants done on this host.
pub struct HostPerformer {
    host: Arc<Host>,
    world: World,
    tickets: HashMap<AgentNumber, LaunchTicket>,
}

impl HostPerformer {
    /// A performer that reports back to `world`.
    pub fn new(host: Arc<Host>, world: World) -> HostPerformer {
        HostPerformer { host, world, tickets: HashMap::new() }
    }

    fn set_cpu(&self, state: &State, agent: AgentNumber, limit: Duration) {
        let slot = state.agent(agent).and_then(|agent| agent.started.as_ref()).map(|started| started.slot);
        let Some(slot) = slot else { return };
        report(agent, "set the CPU limit", self.host.set_cpu(slot, agent, limit));
    }
}

impl HostPerformer {
    fn set_capability(&self, state: &State, capability: CapabilityNumber, in_force: bool) {
        let Some(found) = state.capability(capability) else { return };
        if !self.host.enforcer.set_capability(found.grant.slot, capability, in_force) {
            // Its agent has ended, and its slot with it; else this is a bug, and `capability list` says "unknown".
            tracing::warn!(%capability, in_force, "the kernel does not know the capability");
        }
    }
}

impl Performer for HostPerformer {
    fn expect(&mut self, ticket: LaunchTicket) {
        self.tickets.insert(ticket.agent, ticket);
    }

    fn perform(&mut self, state: &State, effect: Effect) {
        match effect {
            Effect::Launch { agent } => match (self.tickets.remove(&agent), state.agent(agent)) {
                (Some(ticket), _) => (ticket.go)(),
                (None, Some(agent)) => {
                    let (name, spec) = (agent.name.clone(), agent.spec.as_ref().clone());
                    let plan = Plan { reserved: Reserved::number(agent.number), name, spec, attach: false };
                    Preparation::begin(self.host.clone(), self.world.clone(), plan).go(None);
                }
                (None, None) => {}
            },
            Effect::Freeze { agent } => report(agent, "freeze", self.host.freeze(agent)),
            Effect::Thaw { agent } => report(agent, "thaw", self.host.cgroups.of(agent).thaw()),
            Effect::SetCpuLimit { agent, limit } => self.set_cpu(state, agent, limit),
            Effect::PutInForce { capability } => self.set_capability(state, capability, true),
            Effect::TakeBack { capability } => self.set_capability(state, capability, false),
            Effect::Signal { agent, signal } => {
                report(agent, "signal", self.host.with_shim(agent, |shim| shim.signal(signal)));
            }
            Effect::Kill { agent } => report(agent, "kill", self.host.cgroups.of(agent).kill()),
            Effect::Release { agent } => {
                let started = state.agent(agent).and_then(|agent| agent.started.clone());
                super::watcher::release(self.host.clone(), self.world.clone(), agent, started);
            }
        }
    }
}

/// An effect that did not come about is told; what follows from it comes as an observation.
fn report<E: std::error::Error + 'static>(agent: AgentNumber, what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        tracing::warn!(%agent, error = crate::errors::one_line(&error), "cannot {what} the agent");
    }
}
