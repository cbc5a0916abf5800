//! Does a world hold when everything around it breaks?
//!
//! The loop that the daemon runs, [`agentd_engine::Keeper`], on a disk that loses, tears and reorders what was not flushed,
//! that fills up, refuses and rots; on a clock that jumps and goes back; among adapters that are slow, that repeat
//! themselves and die between the deed and the receipt; among people and programs that send what they should and what they
//! should not. One number, the *seed*, decides all of it: the same seed is the same story, line by line.
//!
//! ```text
//!  actors ──▶ Keeper ──▶ drive (cache ▶ platter)
//!    ▲          │  ▲          │ power fails, sectors rot
//!    │          ▼  └── open ◀─┘
//!    └──── adapters ──▶ outside
//!                 facts ──▶ claims
//! ```
//!
//! The claims are files under `claims/`, named as what they claim. They see *facts* (what was answered, what was done
//! outside, what the platter holds, what was opened) and nothing of the keeper's own opinion. That each of them can fail is
//! tested: for each there is a [`Sabotage`] of the loop or of what is around it that it must find.
//!
//! Not here: WASM, SQLite, threads, the kernel. Reducers are Rust functions; the disk is a format of its own, simple enough
//! to be read in one sitting. What it shares with the daemon is the loop, the engine and the journal's records.

#![forbid(unsafe_code)]

mod clock;
mod rng;

mod disk;
mod frame;
mod recovery;

mod actors;
mod adapters;
mod definitions;
mod reducers;

mod claims;
mod log;
mod sabotage;
mod story;

pub use claims::{Broken, NAMES as CLAIMS};
pub use log::Tally;
pub use sabotage::Sabotage;
pub use story::{Options, STEPS, Told, tell};

#[cfg(test)]
mod tests;
