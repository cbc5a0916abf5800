//! How does a world go on?
//!
//! A world is a function of its inputs. [`State::accept`] checks an input and makes it an entry; [`State::run`] takes the entry
//! and everything that follows from it: steps of reducers, events that they raise, effects that they want and what
//! capability and policy say of them, plans. What comes out is a list of entries for the journal, in order. [`State::fold`] is
//! the only function that changes the state; it takes recorded entries as they are, so that opening a world runs no reducer.
//! [`replay`] runs everything again and compares.
//!
//! ```text
//! input ─▶ accept ─▶ entry ─▶ run ─┬─▶ fold ─▶ state
//!                                  └─▶ entries ─▶ journal ─▶ (after the flush) adapters ─▶ receipt = input
//! ```
//!
//! **Invariant:** nothing here reads a clock, a file or a random number: stamps are arguments, reducers are behind
//! [`Reducers`].
//! **Invariant:** `fold` never refuses. What is in the journal happened.
//! **Invariant:** an intent becomes an effect only through a capability and a policy, and both answers are in its entry.
//!
//! Not here: disks, threads, adapters (`agentd/src/worlds`), WASM (`crates/wasm`).

#![forbid(unsafe_code)]

mod entry;
mod state;

mod accept;
mod authorise;
mod fold;
pub mod plan;
mod receipt;
mod run;

mod keeper;

mod host;
mod replay;
mod shadow;

pub use accept::{Input, Refusal};
pub use entry::{Entry, Grant, Intent, Origin, Outcome, Ruling, Source};
pub use host::project;
pub use keeper::{Asked, Commit, Disk, DiskFailure, Keeper, SAVE_EVERY, Turn, TurnError};
pub use receipt::{NotAReceipt, Receipt, Status};
pub use replay::{Divergence, Replay, replay};
pub use run::{Draft, HostFailure, MAX_CASCADE, Ran, Reducers, Request};
pub use shadow::{Effect, Report, shadow};
pub use state::{CellId, Open, Phase, Proposal, Run, Stage, State};

#[cfg(test)]
mod tests;
