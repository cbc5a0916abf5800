//! Was it really so? Every input again, with its recorded stamp, and every record compared with what comes of it.
//!
//! A replay trusts the inputs (the chain and its signatures vouch for those) and nothing else: steps are run, effects are
//! authorised, receipts are verified. The first record that comes out differently is named. Where the journal says that
//! the state was saved, the state's hash is compared as well.

use std::collections::VecDeque;

use agentd_journal::Record;
use agentd_model::{Hash, Seq, Stamp};

use crate::entry::Entry;
use crate::receipt::Receipt;
use crate::run::{Draft, HostFailure, Reducers};
use crate::state::State;

/// A replay on its way.
pub struct Replay {
    state: State,
    stamp: Stamp,
    expected: VecDeque<Draft>,
}

/// Why a replay stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Divergence {
    /// A record is not what comes of the records before it.
    #[error("record {at} is {found}, and what comes of the records before it is {expected}")]
    Record {
        /// Which.
        at: Seq,
        /// What the journal has.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// The state that was saved is another one.
    #[error("record {at} saved the state {found}, and replay gives {expected}")]
    State {
        /// Which record.
        at: Seq,
        /// What the journal has.
        found: Hash,
        /// What should be there.
        expected: Hash,
    },
    /// A receipt is not signed by whom it should be.
    #[error("record {at}: {why}")]
    Receipt {
        /// Which record.
        at: Seq,
        /// What is wrong.
        why: crate::NotAReceipt,
    },
    /// The journal ends in the middle of what follows from an input.
    #[error("the journal ends at record {at}, and {missing} more follow from it")]
    Short {
        /// The last record.
        at: Seq,
        /// How many are missing.
        missing: usize,
    },
    /// This host could not run a reducer.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

impl Replay {
    /// Begins with a state: that of no records, or one that was saved.
    pub fn new(state: State) -> Replay {
        Replay { state, stamp: Stamp::default(), expected: VecDeque::new() }
    }

    /// Takes the next record.
    pub fn take(&mut self, reducers: &dyn Reducers, record: &Record<Entry>) -> Result<(), Divergence> {
        let at = record.seq;
        if self.expected.is_empty() && record.event.is_input() {
            self.check(record)?;
            self.stamp = record.stamp;
            self.expected = self.state.run(reducers, record.event.clone(), record.stamp)?.into();
        }
        let found = Draft { seq: at, cause: record.cause, entry: record.event.clone() };
        match self.expected.pop_front() {
            Some(expected) if expected == found && self.stamp == record.stamp => Ok(()),
            expected => Err(Divergence::Record {
                at,
                found: shown(&found, record.stamp),
                expected: expected.as_ref().map_or_else(|| "nothing".to_owned(), |draft| shown(draft, self.stamp)),
            }),
        }
    }

    fn check(&self, record: &Record<Entry>) -> Result<(), Divergence> {
        let at = record.seq;
        match &record.event {
            Entry::StateSaved { state: found, .. } => {
                let expected = self.state.hash();
                if expected == *found { Ok(()) } else { Err(Divergence::State { at, found: *found, expected }) }
            }
            Entry::Settled { receipt } => Receipt::verified(receipt, self.state.world, self.state.key)
                .map(drop)
                .map_err(|why| Divergence::Receipt { at, why }),
            _ => Ok(()),
        }
    }

    /// The state after the last record.
    pub fn finish(self) -> Result<State, Divergence> {
        match self.expected.len() {
            0 => Ok(self.state),
            missing => Err(Divergence::Short { at: Seq(self.state.height.0 - missing as u64), missing }),
        }
    }
}

/// Replays records from a state on.
pub fn replay<'a>(
    state: State,
    reducers: &dyn Reducers,
    records: impl IntoIterator<Item = &'a Record<Entry>>,
) -> Result<State, Divergence> {
    let mut replay = Replay::new(state);
    records.into_iter().try_for_each(|record| replay.take(reducers, record))?;
    replay.finish()
}

fn shown(draft: &Draft, stamp: Stamp) -> String {
    let cause = draft.cause.map(|seq| format!(" (because of {seq})")).unwrap_or_default();
    let json = serde_json::to_string(&draft.entry).unwrap_or_default();
    let mut text = json.chars().take(300).collect::<String>();
    if text.len() < json.len() {
        text.push('…');
    }
    format!("{text}{cause} at {}", stamp.wall_ns)
}
