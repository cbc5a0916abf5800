//! Nothing is begun outside whose attempt, by its number, is not on the platter.

use agentd_air::Hash as Content;
use agentd_engine::Entry;

use super::{Claim, Fact};
use crate::recovery::Row;

/// The claim.
pub(super) struct Watch;

impl Claim for Watch {
    fn see(&mut self, fact: &Fact<'_>, durable: &[Row]) -> Result<(), String> {
        match fact {
            Fact::Begins { intent, attempt } | Fact::Done { intent, attempt, .. } => {
                if attempted(durable, intent, *attempt) {
                    Ok(())
                } else {
                    Err(format!("attempt {attempt} at effect {intent} is done, and nothing on the platter says so"))
                }
            }
            _ => Ok(()),
        }
    }
}

fn attempted(durable: &[Row], wanted: &Content, number: u32) -> bool {
    durable.iter().rev().any(|(record, _)| {
        matches!(&record.event, Entry::Attempted { intent, attempt } if intent == wanted && *attempt == number)
    })
}
