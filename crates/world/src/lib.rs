//! What next? The state of the host's world, and the only place that decides.
//!
//! Three pure functions. [`command`] turns a request into events or a refusal; [`observe`] turns what the kernel and the
//! shims report into events; [`State::apply`] turns an event into a new state and into effects for the adapters. State
//! is a fold of `apply` over the journal and nothing else, so replaying the journal gives the same state on any machine.
//!
//! **Invariant:** `apply` never refuses. What is in the journal happened; whatever could be refused was refused before it
//! became an event.
//!
//! Not here: time, files, processes. Effects say what is wanted, adapters in `agentd` do it.

#![forbid(unsafe_code)]

mod apply;
mod command;
mod observe;
mod saved;
mod state;

pub use command::{AGENT_LIMIT, Command, Refusal, command};
pub use observe::{Observation, observe};
pub use state::{Agent, Capability, End, Started, State};

#[cfg(test)]
mod tests;
