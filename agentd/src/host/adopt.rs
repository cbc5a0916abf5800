//! After a start: what the journal believes is compared with what is there.
//!
//! An agent that the journal believes to live is one of four things. It runs, and is adopted. It has ended while no daemon
//! looked, and its shim left a record. It was being launched when the daemon died, and whatever was made is killed. Or it
//! ended with its host. A cgroup or an entry in the kernel's table that no live agent owns is a launch that was cut off, or
//! a berth for an agent that never was, and is cleared.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use agentd_model::{AgentNumber, Duration as CpuTime};
use agentd_world::{Agent, Observation, State};

use super::berths::remove_traces;
use super::{Host, watcher};
use crate::core::World;
use crate::launch::{ConnectError, Shim};

/// Adopts what runs and settles what does not. Returns how many agents run.
pub fn adopt(host: &Arc<Host>, world: &World, boot_id: &str) -> usize {
    let state = world.state();
    let live: Vec<Arc<Agent>> = state.agents().filter(|agent| agent.is_live()).cloned().collect();
    for started in live.iter().filter_map(|agent| agent.started.as_ref()).filter(|s| s.boot_id == boot_id) {
        host.slots.adopt(started.slot);
    }
    settle_capabilities(host, &state);
    let adopted = live.iter().filter(|agent| adopt_one(host, world, boot_id, agent)).count();
    let state = world.state();
    let registered = host.enforcer.registered();
    registered.iter().for_each(|(slot, _)| host.slots.adopt(*slot));
    let orphans = host.cgroups.present().into_iter().chain(registered.iter().map(|(_, agent)| *agent));
    let orphans: BTreeSet<AgentNumber> = orphans.filter(|agent| !is_live(&state, *agent)).collect();
    // Above every number that was ever given out, for an agent or for a berth.
    let last = orphans.last().map_or(0, |agent| agent.0);
    host.berths.begin_at(state.next_number().max(AgentNumber(last + 1)));
    for orphan in orphans {
        watcher::release(host.clone(), world.clone(), orphan, None);
    }
    forget_berths(host, &state);
    host.berths.refill(host);
    adopted
}

fn is_live(state: &State, agent: AgentNumber) -> bool {
    state.agent(agent).is_some_and(|agent| agent.is_live())
}

/// Removes the directories of berths of a daemon that was killed: there never were such agents.
fn forget_berths(host: &Host, state: &State) {
    for directory in [host.places.agents_state(), host.places.agents_runtime()] {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(AgentNumber);
            if number.is_some_and(|number| number >= state.next_number()) {
                remove_traces(&entry.path());
            }
        }
    }
}

/// Makes the kernel what the journal says of capabilities: one that was granted or taken back and not yet told to the kernel
/// is now; what never got into the journal is forgotten, and its number is not given to another.
fn settle_capabilities(host: &Host, state: &State) {
    let known = |slot, number| {
        let known = state.capability(number).filter(|known| known.grant.slot == slot)?;
        is_live(state, known.agent).then_some(known)
    };
    match host.enforcer.sweep(&|slot, number| known(slot, number).map(|known| known.agent)) {
        Ok(highest) => host.capabilities.begin_above(highest),
        Err(error) => {
            // What is left of it could count as another's one day, so there is none.
            tracing::error!(error = crate::errors::one_line(&error), "nothing can be lent until agentd starts again");
            host.capabilities.end();
        }
    }
    for capability in state.capabilities() {
        let (slot, number) = (capability.grant.slot, capability.grant.capability);
        if known(slot, number).is_some() {
            host.enforcer.set_capability(slot, number, capability.revoked.is_none());
        }
    }
}

fn adopt_one(host: &Arc<Host>, world: &World, boot_id: &str, agent: &Arc<Agent>) -> bool {
    let number = agent.number;
    let Some(started) = &agent.started else {
        let _ = host.cgroups.of(number).kill();
        let reason = "agentd stopped while it was being launched".to_owned();
        world.saw_durably(Observation::LaunchFailed { agent: number, reason });
        return false;
    };
    if started.boot_id != boot_id {
        world.saw_durably(Observation::Gone { agent: number, reason: "the host went down".to_owned() });
        return false;
    }
    let connected = Shim::connect(&host.places.agent_runtime(number)).map(|mut shim| shim.watch().map(|w| (shim, w)));
    match connected {
        Ok(Ok((shim, watch))) => {
            host.keep_shim(number, shim);
            world.saw_durably(Observation::Adopted { agent: number });
            settle(host, world, agent, started.slot);
            watcher::begin(host.clone(), world.clone(), number, watch);
            true
        }
        Err(ConnectError::Absent { .. }) => {
            watcher::ended_without_a_word(host, world, number, "its shim ended while agentd was not running");
            false
        }
        Ok(Err(error)) => lost(host, world, number, &error),
        Err(error) => lost(host, world, number, &error),
    }
}

fn lost(host: &Host, world: &World, agent: AgentNumber, error: &dyn std::error::Error) -> bool {
    tracing::error!(%agent, %error, "the agent's shim cannot be reached; the agent is killed");
    watcher::ended_without_a_word(host, world, agent, "its shim could not be reached");
    false
}

/// Makes the kernel what the journal says: limits, and frozen or not. What the kernel did meanwhile is taken in.
fn settle(host: &Host, world: &World, agent: &Agent, slot: u32) {
    let cgroup = host.cgroups.of(agent.number);
    let Some(account) = host.enforcer.account(slot, agent.number) else {
        tracing::error!(agent = %agent.number, "the kernel does not know the agent; it is killed");
        let _ = cgroup.kill();
        return;
    };
    // A top-up that was recorded and not yet told to the kernel.
    let raised = agent.cpu_limit.filter(|limit| limit.0 != account.cpu_limit_ns);
    if let Some(limit) = raised {
        let _ = host.set_cpu(slot, agent.number, limit);
    }
    let exhausted = raised.is_none() && account.exhausted != 0;
    let frozen = if agent.paused || agent.exhausted || exhausted { cgroup.freeze() } else { cgroup.thaw() };
    if let Err(error) = frozen {
        tracing::warn!(agent = %agent.number, error = crate::errors::one_line(&error), "cannot settle the agent");
    }
    if exhausted {
        world.saw(Observation::CpuExhausted { agent: agent.number, spent: CpuTime(account.cpu_spent_ns) });
    }
}
