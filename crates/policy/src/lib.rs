//! May it?
//!
//! Rules on their way from what people write to what the kernel enforces, and the one decision about them. A profile
//! ([`profile`], [`builtin`]) and the options of a command line ([`parse`]) become rules; rules and what the launcher
//! found on the host become entries of the kernel's tables ([`compile`]); entries, a chain of levels and a need become a
//! verdict ([`decide`], [`net`]), which the kernel reaches a second time by itself; a refusal becomes words
//! ([`explain`]). Beside that way stands one question about the host: can it keep what is promised ([`tiers`])?
//!
//! Everything here is a function of its arguments: no files, sockets, clocks, environment or randomness.

#![forbid(unsafe_code)]

mod suggest;

pub mod builtin;
pub mod compile;
pub mod decide;
pub mod explain;
#[cfg(any(test, feature = "generate"))]
pub mod generate;
pub mod net;
pub mod parse;
pub mod path;
pub mod profile;
pub mod tiers;

pub use path::{PathError, Pattern, is_within, normal};
