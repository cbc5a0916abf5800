//! What does the kernel enforce, and how does it get there?
//!
//! The C programs in `lsm/` decide; this crate carries them into the kernel and gives the daemon typed access to the maps
//! they share. The order of types is the order of work: [`probe`] says what this host takes, [`Kernel::load`] loads it or
//! finds it, [`Maps`] tells the programs about agents, [`Identifier`] says which object a rule must name, [`EventReader`]
//! hears what was refused.
//!
//! Enforcement outlives this process: programs and maps are pinned. Not here: which rules an agent gets
//! (`agentd-policy`), cgroups, journals.

mod agents;
mod capture;
mod events;
mod hooks;
mod identify;
mod kernel;
mod maps;
pub mod net;
mod object;
mod preemption;
mod settings;
mod support;
mod trial;

pub use events::{DrainError, EventReader, OpenEventsError};
pub use hooks::{HOOKS, Hook, Kind, Need};
pub use identify::{Identified, Identifier, IdentifyError, LoadIdentifierError};
pub use kernel::{AgentsCgroup, DEFAULT_BPFFS, Domains, Kernel, LoadError, Options, Origin, maps_dir, unpin_all};
pub use maps::{Limits, Maps, OpenMapsError, Table, WriteError};
pub use support::{Proof, Step, Support, probe};
pub use trial::{Answer, Layout, LoadTrialError, Trial, TrialLevel};
