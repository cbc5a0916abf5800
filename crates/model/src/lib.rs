//! What are the nouns?
//!
//! The vocabulary that every other crate shares: agents and their numbers, rights and rules, budgets, tiers, events and
//! effects. Plain data with its parsing and printing, nothing that decides. Values that go into the journal derive
//! `minicbor` with numbered positions (a number never changes its meaning); values that people and programs read derive
//! `serde`.
//!
//! Not here: time, files, randomness. A time is an argument, in nanoseconds, with its clock in its name.

#![forbid(unsafe_code)]

mod agent;
mod budget;
mod capability;
mod effect;
mod event;
mod key;
mod rights;
mod rule;
mod tier;

pub use agent::{AgentName, AgentNumber, AgentPhase, AgentSpec, ExitStatus, NameError, Principal, Terminal};
pub use budget::{Budget, BudgetError, Duration, DurationError, Spend};
pub use capability::{CapabilityNumber, Grant, Loan};
pub use effect::Effect;
pub use event::{Denial, DenialReason, DeniedObject, Event, Hook, NotInForce, Seq, Stamp};
pub use key::{Entropy, Hash, HexError, PublicKey, WorldId};
pub use rights::{Rights, RightsError};
pub use rule::{NetOps, NetRule, NetRuleError, Origin, PathRule};
pub use tier::{Domain, Gap, GapError, Tier, Tiers};
