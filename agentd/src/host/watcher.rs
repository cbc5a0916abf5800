//! A running agent's shim, watched until its end; and what is done after the end.

use std::sync::Arc;
use std::time::Duration;

use agentd_model::{AgentNumber, Duration as CpuTime};
use agentd_world::{Observation, Started};

use super::Host;
use crate::cgroup::Cgroup;
use crate::core::World;
use crate::launch::{ShimEvent, ShimWatch, read_exit_record};

/// How often, and how many times, an ending cgroup is looked at.
const LOOK: Duration = Duration::from_millis(5);
const LOOKS: u32 = 4000;

/// Watches a shim on a thread of its own.
pub(super) fn begin(host: Arc<Host>, world: World, agent: AgentNumber, watch: ShimWatch) {
    let body = move || {
        for event in watch {
            match event {
                Ok(ShimEvent::Exited(record)) => {
                    let spent = spent(&host, agent, record.cpu_ns);
                    if world.saw_durably(Observation::Exited { agent, status: record.status, spent }) {
                        // A shim that does not hear it writes its record to the disk, where the next start finds it.
                        let _ = host.with_shim(agent, |shim| shim.taken());
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%agent, %error, "the shim cannot be understood");
                    break;
                }
            }
        }
        if let Some(mut shim) = host.drop_shim(agent) {
            let _ = shim.reap();
        }
        // A shim that ended without a word: its agent ends with it. If it had said how the agent ended, this means nothing.
        ended_without_a_word(&host, &world, agent, "its shim ended without saying how the agent did");
    };
    if let Err(error) = std::thread::Builder::new().name(format!("watch-{agent}")).spawn(body) {
        tracing::error!(%agent, %error, "cannot start a thread to watch the agent");
    }
}

/// The end of an agent that no shim reports: from the exit record, if there is one, else by killing what is left.
pub(super) fn ended_without_a_word(host: &Host, world: &World, agent: AgentNumber, reason: &str) {
    let observation = match read_exit_record(&host.places.agent_state(agent)) {
        Ok(Some(record)) => {
            Observation::Exited { agent, status: record.status, spent: spent(host, agent, record.cpu_ns) }
        }
        _ => {
            let _ = host.cgroups.of(agent).kill();
            Observation::Gone { agent, reason: reason.to_owned() }
        }
    };
    world.saw_durably(observation);
}

fn spent(host: &Host, agent: AgentNumber, told: Option<u64>) -> CpuTime {
    let counted = || host.cgroups.of(agent).cpu_spent().map_or(0, |spent| spent.as_nanos() as u64);
    CpuTime(told.unwrap_or_else(counted))
}

/// Takes an ended agent out of the kernel's tables and removes its cgroup, as soon as nothing runs in it.
///
/// The tables come last: while a process of the agent is still dying, its rules must stand.
pub(super) fn release(host: Arc<Host>, world: World, agent: AgentNumber, started: Option<Started>) {
    let cgroup = host.cgroups.of(agent);
    let body = move || {
        let _ = cgroup.kill();
        std::thread::sleep(super::HEAD_START);
        if !remove_when_empty(&cgroup) {
            tracing::error!(%agent, "processes of the ended agent do not die; its rules stay");
            return;
        }
        let slot = started.map(|started| started.slot).or_else(|| slot_of(&host, agent));
        if let Some(account) = slot.and_then(|slot| host.enforcer.account(slot, agent)) {
            if account.suppressed > 0 {
                world.saw_durably(Observation::Suppressed { agent, count: account.suppressed });
            }
            if let Err(error) = host.enforcer.release(slot.unwrap_or_default(), agent, account.cgroup_id) {
                tracing::error!(%agent, error = crate::errors::one_line(&error), "the kernel keeps an ended agent");
                return;
            }
        }
        slot.into_iter().for_each(|slot| host.slots.give_back(slot));
        let state = world.state();
        for lent in state.capabilities().filter(|capability| capability.agent == agent) {
            host.enforcer.forget(lent.grant.slot, lent.grant.capability, agent, &[]);
        }
        let _ = std::fs::remove_dir_all(host.places.agent_runtime(agent));
    };
    if let Err(error) = std::thread::Builder::new().name(format!("release-{agent}")).spawn(body) {
        tracing::error!(%agent, %error, "cannot start a thread to release the agent");
    }
}

/// The slot of an agent that the journal does not know to have one.
fn slot_of(host: &Host, agent: AgentNumber) -> Option<u32> {
    host.enforcer.registered().into_iter().find(|(_, registered)| *registered == agent).map(|(slot, _)| slot)
}

/// Waits until a cgroup has no tasks and removes it. False: it still has some.
pub(super) fn remove_when_empty(cgroup: &Cgroup) -> bool {
    for _ in 0..LOOKS {
        if !cgroup.is_populated() && cgroup.remove() {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}
