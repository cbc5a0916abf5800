//! What does effects: one adapter for each kind that reaches the outside.
//!
//! An adapter gets a [`Job`] after the intent is on disk and the policy has allowed it, does it, and says what came of it. It
//! looks at the capability's scope again: what it is about to touch is the real thing, and the check before was about its
//! description. It never decides anything else, and never fails in another way than by an [`Outcome`].
//!
//! Timers are the world's own thread's; everything else has a thread of its own for as long as it takes.

pub mod exec;
pub mod host;
pub mod http;
pub mod llm;

use std::path::PathBuf;
use std::time::Duration;

use agentd_air::{Hash, Name, Scope, Value};
use agentd_model::{Principal, Seq, WorldId};

/// Something to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The world that asks.
    pub world: WorldId,
    /// What people call it.
    pub name: String,
    /// Its journal, where its values lie.
    pub path: PathBuf,
    /// Which intent; adapters that can pass it on do, as an idempotency key.
    pub intent: Hash,
    /// The record of the intent.
    pub wanted: Seq,
    /// Kind of effect.
    pub kind: Name,
    /// Its parameters, of the type that the kind says.
    pub params: Value,
    /// What the capability covers.
    pub scope: Scope,
}

impl Job {
    /// Who it is that acts, for the host's journal.
    pub fn principal(&self) -> Principal {
        Principal::World { world: self.world, intent: self.wanted }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done; the result is of the type that the kind says.
    Done(Value),
    /// It was not done, or not wholly: why, in one line.
    Failed(String),
    /// It took longer than it may; nobody knows whether it was done.
    TimedOut(Duration),
}

/// What an adapter says, on its way to the world.
#[derive(Debug)]
pub struct Came {
    /// The effect.
    pub intent: Hash,
    /// Which attempt it was.
    pub attempt: u32,
    /// What did it.
    pub adapter: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// Values that the result refers to.
    pub blobs: Vec<(Hash, Vec<u8>)>,
    /// When it began, nanoseconds since 1970.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
}

/// Values to be kept with a result.
pub type Blobs = Vec<(Hash, Vec<u8>)>;

/// All adapters together.
pub trait Outside: Send + Sync {
    /// Does a job, on a thread of its own; says which adapter it was.
    fn perform(&self, job: &Job) -> (&'static str, Outcome, Blobs);
}
