//! Folding from the newest saved state, folding from the beginning, and running everything again come to the same state;
//! and that is the state that the world was closed with.

use agentd_engine::{State, replay};

use super::{Claim, Fact};
use crate::recovery::Row;

/// The claim.
pub(super) struct Watch;

impl Claim for Watch {
    fn see(&mut self, fact: &Fact<'_>, _: &[Row]) -> Result<(), String> {
        let Fact::Opened { opened, before, reducers } = fact else { return Ok(()) };
        if before.is_some_and(|before| *before != opened.state) {
            return Err(format!("the world was closed in another state than it opens in at {}", opened.state.height()));
        }
        let mut folded = State::default();
        for (record, _) in &opened.rows {
            folded.fold(record.seq, record.stamp, &record.event);
        }
        let opened_as = opened.state.hash();
        if folded.hash() != opened_as {
            return Err("folding from the beginning gives another state than folding from the saved one".into());
        }
        let Some(reducers) = reducers else { return Ok(()) };
        let replayed = replay(State::default(), *reducers, opened.rows.iter().map(|(record, _)| record));
        match replayed {
            Ok(replayed) if replayed.hash() == opened_as => Ok(()),
            Ok(_) => Err("running everything again gives another state".into()),
            Err(divergence) => Err(format!("running everything again: {divergence}")),
        }
    }
}
