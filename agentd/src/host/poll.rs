//! CPU budgets where the kernel takes no programs: the daemon looks from time to time.
//!
//! The weakest tier. Between two looks an agent can overspend on every processor, and nobody looks while the daemon is
//! dead; both are what the gap `cpu-exact` says. What is seen becomes the same observations that the kernel's programs
//! send, so the world need not know the difference.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agentd_model::{AgentNumber, Domain, Duration as CpuTime, Tier};
use agentd_world::{Agent, Observation};

use super::Host;
use crate::core::World;
use crate::enforcer::CpuLimits;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Starts to look, on a host where nothing better counts.
pub fn begin(host: Arc<Host>, world: World) {
    if host.tiers.of(Domain::Cpu) != Tier::Polling {
        return;
    }
    let body = move || {
        let mut warned = BTreeSet::new();
        loop {
            for agent in world.state().agents().filter(|agent| agent.is_live()) {
                let spent = CpuTime(host.spent(agent).cpu_ns);
                seen(agent, spent, &mut warned).into_iter().for_each(|observation| world.saw(observation));
            }
            std::thread::sleep(LOOK);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("cpu".into()).spawn(body) {
        tracing::error!(%error, "cannot start a thread that counts CPU time; no CPU budget holds");
    }
}

/// What one look at one agent means.
fn seen(agent: &Agent, spent: CpuTime, warned: &mut BTreeSet<(AgentNumber, u64)>) -> Option<Observation> {
    let (limit, warn, _) = CpuLimits { limit: agent.cpu_limit }.thresholds();
    if limit == 0 || agent.exhausted {
        return None;
    }
    if spent.0 >= limit {
        return Some(Observation::CpuExhausted { agent: agent.number, spent });
    }
    // Once for each limit that the agent has had.
    (spent.0 >= warn && warned.insert((agent.number, limit)))
        .then_some(Observation::CpuWarning { agent: agent.number, spent })
}

#[cfg(test)]
mod tests {
    use agentd_model::{AgentSpec, Budget, Event, Principal, Seq, Stamp, Terminal};
    use agentd_world::State;

    use super::*;

    fn agent(limit_ms: u64) -> Arc<Agent> {
        let budget = Budget { cpu: Some(CpuTime(limit_ms * 1_000_000)), ..Budget::default() };
        let spec = AgentSpec {
            argv: vec!["true".into()],
            env: vec![],
            cwd: "/".into(),
            uid: 1,
            gid: 1,
            groups: vec![],
            terminal: Terminal::Pipes,
            profile: "base".into(),
            paths: vec![],
            nets: vec![],
            budget,
            accepted_gaps: vec![],
            tmp_directories: vec![],
        };
        let (agent, by) = (AgentNumber(1), Principal::Daemon);
        let name = "a".parse().unwrap();
        let mut state = State::default();
        state.apply(Seq(1), Stamp::default(), &Event::AgentRequested { agent, name, spec: Box::new(spec), by });
        state.agent(agent).unwrap().clone()
    }

    #[test]
    fn a_look_warns_once_and_says_every_time_that_it_is_spent() {
        let (agent, mut warned) = (agent(100), BTreeSet::new());
        let mut look = |ms: u64| seen(&agent, CpuTime(ms * 1_000_000), &mut warned);
        assert!(look(79).is_none());
        assert!(matches!(look(80), Some(Observation::CpuWarning { .. })));
        assert!(look(90).is_none());
        assert!(matches!(look(100), Some(Observation::CpuExhausted { .. })));
        assert!(matches!(look(101), Some(Observation::CpuExhausted { .. })));
    }
}
