//! What must hold, whatever happens: each claim is a file with its name.
//!
//! A claim is told facts as they happen and says when one of them cannot be. It keeps what it needs to know itself; with
//! each fact it may look at what is durable at that moment, which is read off the platter and not asked of the keeper.

mod acknowledged_is_durable;
mod fenced_effects_stay_fenced;
mod no_effect_before_its_event;
mod nothing_done_twice_unsaid;
mod one_receipt_per_effect;
mod refusals_change_nothing;
mod replay_gives_the_same_hash;

use std::ops::RangeInclusive;

use agentd_air::{Hash as Content, Name};
use agentd_engine::State;
use agentd_model::{Hash, Seq};

use crate::recovery::{Opened, Row};
use crate::reducers::Natives;

/// Something that is so.
pub(crate) enum Fact<'a> {
    /// Somebody was told that this is recorded.
    Acknowledged { seq: Seq, hash: Hash },
    /// A turn of which nothing was taken.
    Refused { before: &'a State, after: &'a State },
    /// A turn of which so many inputs were taken, and so many are recorded.
    Taken { answered: usize, recorded: usize },
    /// A turn failed, nothing of it is on disk, and the world was opened again.
    CameToNothing { before: &'a State, after: &'a State },
    /// An input that no world may take.
    Impossible { what: &'static str, taken: bool },
    /// An adapter begins; from here on nobody can say that it was not done.
    Begins { intent: Content, attempt: u32 },
    /// It was done outside.
    Done { intent: Content, kind: &'a Name, attempt: u32 },
    /// A record below what was acknowledged had rotted when the world was opened.
    Rotten { records: RangeInclusive<Seq>, named: Option<Seq>, touched: bool },
    /// The world was opened; `before` is what it was when it was closed, where it was closed in peace. With `reducers`,
    /// there is time to run everything again.
    Opened { opened: &'a Opened, before: Option<&'a State>, reducers: Option<&'a Natives> },
    /// The story ends; every effect had its time.
    End { opened: &'a Opened, still_open: usize },
}

/// Something that must hold.
pub(crate) trait Claim {
    /// Looks at a fact, and says why it cannot be.
    fn see(&mut self, fact: &Fact<'_>, durable: &[Row]) -> Result<(), String>;
}

/// A claim that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{claim} does not hold: {why}")]
pub struct Broken {
    /// Which.
    pub claim: &'static str,
    /// What was seen.
    pub why: String,
}

/// The names of all claims.
pub const NAMES: [&str; 7] = [
    "no_effect_before_its_event",
    "one_receipt_per_effect",
    "acknowledged_is_durable",
    "replay_gives_the_same_hash",
    "refusals_change_nothing",
    "nothing_done_twice_unsaid",
    "fenced_effects_stay_fenced",
];

/// The claims that watch a story.
pub(crate) struct Claims(Vec<(&'static str, Box<dyn Claim>)>);

impl Claims {
    /// All, or one alone.
    pub(crate) fn new(only: Option<&str>) -> Claims {
        let make = |name: &'static str| -> Box<dyn Claim> {
            match name {
                "no_effect_before_its_event" => Box::new(no_effect_before_its_event::Watch),
                "one_receipt_per_effect" => Box::new(one_receipt_per_effect::Watch),
                "acknowledged_is_durable" => Box::new(acknowledged_is_durable::Watch::default()),
                "replay_gives_the_same_hash" => Box::new(replay_gives_the_same_hash::Watch),
                "refusals_change_nothing" => Box::new(refusals_change_nothing::Watch),
                "nothing_done_twice_unsaid" => Box::new(nothing_done_twice_unsaid::Watch::default()),
                _ => Box::new(fenced_effects_stay_fenced::Watch),
            }
        };
        let wanted = NAMES.into_iter().filter(|name| only.is_none_or(|only| only == *name));
        Claims(wanted.map(|name| (name, make(name))).collect())
    }

    /// Shows a fact to each.
    pub(crate) fn see(&mut self, fact: &Fact<'_>, durable: &[Row]) -> Result<(), Broken> {
        self.0.iter_mut().try_for_each(|(claim, watch)| watch.see(fact, durable).map_err(|why| Broken { claim, why }))
    }
}
