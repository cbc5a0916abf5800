//! An effect that was attempted ends once: with one receipt, of its newest attempt, signed with the key in force there; or
//! it is fenced; or it is left to the
//! world that this one is a copy of. Nothing else is taken for a receipt. In the end none is left without.

use std::collections::BTreeMap;

use agentd_air::Hash as Content;
use agentd_engine::{Entry, Receipt};
use agentd_model::{PublicKey, WorldId};

use super::{Claim, Fact};
use crate::recovery::Row;

/// The claim.
pub(super) struct Watch;

impl Claim for Watch {
    fn see(&mut self, fact: &Fact<'_>, _: &[Row]) -> Result<(), String> {
        match fact {
            Fact::Impossible { what, taken: true } if what.contains("receipt") => Err(format!("{what} was taken")),
            Fact::Opened { opened, .. } => ends(&opened.rows, false).map(drop),
            Fact::End { opened, still_open } => {
                let attempted = ends(&opened.rows, true)?;
                if attempted == 0 { Ok(()) } else { Err(format!("{attempted} of {still_open} effects never end")) }
            }
            _ => Ok(()),
        }
    }
}

/// How an effect stands.
enum Stand {
    Attempted(u32),
    Ended,
}

/// Checks every end, and counts attempts without one.
fn ends(rows: &[Row], verify: bool) -> Result<usize, String> {
    let (mut world, mut key) = (WorldId([0; 16]), PublicKey([0; 32]));
    let mut stands: BTreeMap<Content, Stand> = BTreeMap::new();
    for (record, _) in rows {
        let at = record.seq;
        match &record.event {
            Entry::Begun { world: id, key: first, .. } => (world, key) = (*id, *first),
            Entry::KeyRotated { key: next } => key = *next,
            // What was on its way is the original's to end.
            Entry::TakenOver { key: next, .. } => {
                key = *next;
                stands.values_mut().for_each(|stand| *stand = Stand::Ended);
            }
            Entry::Attempted { intent, attempt } => match stands.insert(*intent, Stand::Attempted(*attempt)) {
                None if *attempt == 1 => {}
                Some(Stand::Attempted(before)) if before + 1 == *attempt => {}
                Some(Stand::Ended) => return Err(format!("record {at} attempts {intent}, which has ended")),
                _ => return Err(format!("record {at} is attempt {attempt} at {intent}, out of turn")),
            },
            Entry::Settled { receipt } => {
                let read = if verify { Receipt::verified(receipt, world, key) } else { Receipt::claimed(receipt) };
                let receipt = read.map_err(|error| format!("record {at}: {error}"))?;
                match stands.insert(receipt.intent, Stand::Ended) {
                    Some(Stand::Attempted(newest)) if newest == receipt.attempt => {}
                    Some(Stand::Ended) => return Err(format!("record {at} is a second receipt of {}", receipt.intent)),
                    _ => return Err(format!("record {at} is a receipt of another attempt at {}", receipt.intent)),
                }
            }
            Entry::Applied { fenced, .. } => {
                stands.extend(fenced.iter().map(|intent| (*intent, Stand::Ended)));
            }
            _ => {}
        }
    }
    Ok(stands.values().filter(|stand| matches!(stand, Stand::Attempted(_))).count())
}
