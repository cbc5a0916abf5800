//! After a start: what the journal believes is compared with what is there.
//!
//! An agent that the journal believes to live is one of four things. It runs, and is adopted. It has ended while no daemon
//! looked, and its shim left a record. It was being launched when the daemon died, and whatever was made is killed. Or it
//! ended with its host. A cgroup that no live agent owns is a launch that was cut off, and is cleared.

use std::sync::Arc;

use agentd_model::{AgentNumber, Duration as CpuTime};
use agentd_world::{Agent, Observation};

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
    let adopted = live.iter().filter(|agent| adopt_one(host, world, boot_id, agent)).count();
    let state = world.state();
    for orphan in host.cgroups.present() {
        if !state.agent(orphan).is_some_and(|agent| agent.is_live()) {
            watcher::release(host.clone(), world.clone(), orphan, None);
        }
    }
    host.spares.refill();
    adopted
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
