//! The commands, one a file: its arguments, whose doc comments are its help, and what it does.

pub(crate) mod attach;
pub(crate) mod audit;
pub(crate) mod budget;
pub(crate) mod canary;
pub(crate) mod capability;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod pause;
pub(crate) mod profile;
pub(crate) mod ps;
pub(crate) mod resume;
pub(crate) mod spawn;
pub(crate) mod wait;
pub(crate) mod why;
pub(crate) mod world;

use agentd_protocol::AgentParams;

/// Parameters that name one agent.
fn params(agent: &str) -> AgentParams {
    AgentParams { agent: agent.to_owned() }
}
