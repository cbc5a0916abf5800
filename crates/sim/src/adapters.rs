//! Adapters: they do what is outside, in their own time, and say what came of it.
//!
//! ```text
//! waiting ──▶ begun ──▶ (done outside) ──▶ came ──▶ receipt ──▶ world
//! ```
//!
//! Kill the daemon anywhere on that way and what was before the receipt is gone, done or not. A receipt that was sent once
//! is kept here and may come again, much later, also to a world that has long got over it.

use agentd_air::{Hash, Name, Value, encode};
use agentd_engine::{Open, Phase, Receipt, Status};
use agentd_model::WorldId;

use crate::rng::Rng;

/// An attempt at an effect.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Which effect.
    pub(crate) intent: Hash,
    /// Its kind.
    pub(crate) kind: Name,
    /// The how manieth attempt.
    pub(crate) attempt: u32,
}

impl Job {
    /// An effect that was just attempted.
    pub(crate) fn of(open: &Open) -> Option<Job> {
        let Phase::Attempted { attempt } = open.phase else { return None };
        Some(Job { intent: open.intent.id, kind: open.intent.kind.clone(), attempt })
    }
}

/// What came of one.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) job: Job,
    status: Status,
    at_ns: u64,
}

/// All of them.
pub(crate) struct Adapters {
    waiting: Vec<Job>,
    begun: Vec<Job>,
    /// What came of what, not yet told.
    pub(crate) came: Vec<Came>,
    /// Receipts that were told once.
    pub(crate) told: Vec<Vec<u8>>,
    rng: Rng,
}

impl Adapters {
    /// With nothing to do.
    pub(crate) fn new(rng: Rng) -> Adapters {
        Adapters { waiting: Vec::new(), begun: Vec::new(), came: Vec::new(), told: Vec::new(), rng }
    }

    /// Takes what may be done.
    pub(crate) fn take(&mut self, job: Job) {
        self.waiting.push(job);
    }

    /// The daemon is killed. What was done and not yet told is given back, for those who cannot let go of it.
    pub(crate) fn killed(&mut self) -> Vec<Job> {
        self.waiting.clear();
        self.begun.clear();
        std::mem::take(&mut self.came).into_iter().map(|came| came.job).collect()
    }

    /// Whether nothing is on its way here.
    pub(crate) fn idle(&self) -> bool {
        self.waiting.is_empty() && self.begun.is_empty() && self.came.is_empty()
    }

    /// Somebody's turn to begin.
    pub(crate) fn next(&mut self) -> Option<Job> {
        (!self.waiting.is_empty()).then(|| self.waiting.swap_remove(self.rng.index(self.waiting.len())))
    }

    /// It has begun.
    pub(crate) fn begin(&mut self, job: Job) {
        self.begun.push(job);
    }

    /// Something that was begun comes to an end; true if it was done.
    pub(crate) fn end(&mut self, now_ns: u64) -> Option<(Job, bool)> {
        if self.begun.is_empty() {
            return None;
        }
        let job = self.begun.swap_remove(self.rng.index(self.begun.len()));
        let (status, done) = match self.rng.below(10) {
            0 => (Status::Failed, false),
            1 => (Status::TimedOut, self.rng.percent(50)),
            _ => (Status::Done, true),
        };
        self.came.push(Came { job: job.clone(), status, at_ns: now_ns });
        Some((job, done))
    }
}

impl Came {
    /// The receipt of it.
    pub(crate) fn receipt(&self, world: WorldId) -> Receipt {
        let Job { intent, kind, attempt } = &self.job;
        let mut receipt = Receipt::new(world, *intent, "sim/1", *attempt, self.status);
        (receipt.began_ns, receipt.ended_ns) = (self.at_ns, self.at_ns);
        match self.status {
            Status::Done => receipt.result = Some(result(kind).into()),
            _ => receipt.reason = Some("as luck had it".into()),
        }
        receipt
    }
}

/// A result of the type that belongs to the kind.
fn result(kind: &Name) -> Vec<u8> {
    let value = match kind.name() {
        "timer" => Value::Time(7),
        "blob.put" => Value::Hash(Hash([7; 32])),
        "http" => {
            return encode(&Value::Record(vec![Value::Nat(200), Value::Map(vec![]), Value::Bytes(b"ok".to_vec())]));
        }
        _ => Value::Nat(7),
    };
    encode(&Value::Record(vec![value]))
}
