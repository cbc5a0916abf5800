//! What the kernel, the shims and the launcher report becomes events, unless the world knows better.
//!
//! Reports race with requests: a budget can be topped up while the report that it is spent is on its way, an agent can
//! end while it is being frozen. Whether a report still means something is decided here, against the state, and not by
//! the adapter that brings it.

use agentd_model::{AgentNumber, Denial, Duration, Event, ExitStatus, Gap};

use crate::State;

/// Something that was seen.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The launch came about; the agent's first program is about to run.
    Started {
        /// Which agent.
        agent: AgentNumber,
        /// See [`Event::AgentStarted`].
        init_pid: u32,
        /// See [`Event::AgentStarted`].
        shim_pid: u32,
        /// See [`Event::AgentStarted`].
        cgroup_id: u64,
        /// See [`Event::AgentStarted`].
        slot: u32,
        /// See [`Event::AgentStarted`].
        kernel_rules: u32,
        /// See [`Event::AgentStarted`].
        gaps: Vec<Gap>,
    },
    /// The launch did not come about.
    LaunchFailed {
        /// Which agent.
        agent: AgentNumber,
        /// Why, as one line.
        reason: String,
    },
    /// The kernel refused something, and dropped some reports before.
    Denied {
        /// Which agent.
        agent: AgentNumber,
        /// What.
        denial: Box<Denial>,
        /// Reports dropped since the last one that came.
        suppressed: u64,
    },
    /// The agent has ended, and these refusals were never reported.
    Suppressed {
        /// Which agent.
        agent: AgentNumber,
        /// How many.
        count: u64,
    },
    /// A warning threshold was passed.
    CpuWarning {
        /// Which agent.
        agent: AgentNumber,
        /// CPU time used.
        spent: Duration,
    },
    /// The limit was reached.
    CpuExhausted {
        /// Which agent.
        agent: AgentNumber,
        /// CPU time used.
        spent: Duration,
    },
    /// Limit and grace were reached and the kernel has killed.
    CpuKilled {
        /// Which agent.
        agent: AgentNumber,
        /// CPU time used.
        spent: Duration,
    },
    /// A process of an agent became a program.
    ProgramRun {
        /// Which agent.
        agent: AgentNumber,
        /// Process, in the host's pid namespace.
        pid: u32,
        /// File name as given.
        path: String,
    },
    /// A shim reports the end.
    Exited {
        /// Which agent.
        agent: AgentNumber,
        /// How.
        status: ExitStatus,
        /// CPU time used in all.
        spent: Duration,
    },
    /// Nothing of the agent is there any more, and no shim can say how it ended.
    Gone {
        /// Which agent.
        agent: AgentNumber,
        /// What was found.
        reason: String,
    },
    /// The daemon came up and found the agent running.
    Adopted {
        /// Which agent.
        agent: AgentNumber,
    },
}

/// Decides what an observation means. No events: it means nothing any more.
pub fn observe(state: &State, observation: Observation) -> Vec<Event> {
    let live = |agent: &AgentNumber| state.agent(*agent).is_some_and(|agent| agent.is_live());
    let limit = |agent: &AgentNumber| state.agent(*agent).filter(|a| a.is_live()).and_then(|a| a.cpu_limit);
    match observation {
        Observation::Started { agent, init_pid, shim_pid, cgroup_id, slot, kernel_rules, gaps } if live(&agent) => {
            let boot_id = state.boot_id().to_owned();
            vec![Event::AgentStarted { agent, init_pid, shim_pid, cgroup_id, slot, kernel_rules, gaps, boot_id }]
        }
        Observation::LaunchFailed { agent, reason } if live(&agent) => vec![Event::AgentFailed { agent, reason }],
        Observation::Denied { agent, denial, suppressed } if state.agent(agent).is_some() => {
            let mut events = Vec::new();
            if suppressed > 0 {
                events.push(Event::DenialsSuppressed { agent, count: suppressed });
            }
            events.push(Event::AccessDenied { agent, denial });
            events
        }
        Observation::CpuWarning { agent, spent } => {
            limit(&agent).map(|limit| Event::BudgetWarned { agent, spent, limit }).into_iter().collect()
        }
        // A report that was overtaken by a top-up speaks of a limit that no longer is.
        Observation::CpuExhausted { agent, spent } => match limit(&agent) {
            Some(limit) if spent >= limit && !state.agent(agent).is_some_and(|a| a.exhausted) => {
                vec![Event::BudgetExhausted { agent, spent, limit }]
            }
            _ => vec![],
        },
        // The report of the kill can come after the report of the end that it made.
        Observation::CpuKilled { agent, spent } if state.agent(agent).is_some() => {
            vec![Event::BudgetKilled { agent, spent }]
        }
        Observation::Suppressed { agent, count } if count > 0 && state.agent(agent).is_some() => {
            vec![Event::DenialsSuppressed { agent, count }]
        }
        Observation::ProgramRun { agent, pid, path } if state.agent(agent).is_some() => {
            vec![Event::ProgramRun { agent, pid, path }]
        }
        Observation::Exited { agent, status, spent } if live(&agent) => {
            vec![Event::AgentExited { agent, status, spent }]
        }
        Observation::Gone { agent, reason } if live(&agent) => vec![Event::AgentLost { agent, reason }],
        Observation::Adopted { agent } if live(&agent) => vec![Event::AgentAdopted { agent }],
        _ => vec![],
    }
}
