//! An effect that cannot be repeated is done at most once. One that can be is done at most once for each attempt, and each
//! attempt is recorded.

use std::collections::BTreeMap;

use agentd_air::{Hash as Content, effect};
use agentd_engine::Entry;

use super::{Claim, Fact};
use crate::recovery::Row;

/// The claim: which attempts at each effect were done.
#[derive(Default)]
pub(super) struct Watch(BTreeMap<Content, Vec<u32>>);

impl Claim for Watch {
    fn see(&mut self, fact: &Fact<'_>, durable: &[Row]) -> Result<(), String> {
        let Fact::Done { intent, kind, attempt } = fact else { return Ok(()) };
        let done = self.0.entry(*intent).or_default();
        if done.contains(attempt) {
            return Err(format!("attempt {attempt} at {kind} {intent} was done twice"));
        }
        done.push(*attempt);
        let times = done.len();
        if times > 1 && !effect(kind).is_some_and(|kind| kind.repeatable) {
            return Err(format!("{kind} {intent} was done {times} times"));
        }
        let is_attempt =
            |row: &&Row| matches!(&row.0.event, Entry::Attempted { intent: attempted, .. } if attempted == intent);
        let attempts = durable.iter().filter(is_attempt).count();
        if times > attempts {
            return Err(format!("{kind} {intent} was done {times} times, and {attempts} attempts are recorded"));
        }
        Ok(())
    }
}
