//! An effect that was given up when other definitions were applied, or left behind when a world was taken over, is not
//! begun after that, and the journal never speaks of it as if it were still open.

use std::collections::BTreeMap;

use agentd_air::{Decision, Hash as Content};
use agentd_engine::{Entry, Receipt};
use agentd_model::Seq;

use super::{Claim, Fact};
use crate::recovery::Row;

/// The claim.
pub(super) struct Watch;

impl Claim for Watch {
    fn see(&mut self, fact: &Fact<'_>, durable: &[Row]) -> Result<(), String> {
        match fact {
            Fact::Begins { intent, .. } => {
                let asked = durable.iter().rposition(|(record, _)| opens(&record.event) == Some(*intent));
                let fence = durable.iter().skip(asked.unwrap_or(0)).find(|(record, _)| match &record.event {
                    Entry::Applied { fenced, .. } => fenced.contains(intent),
                    Entry::TakenOver { .. } => true,
                    _ => false,
                });
                match fence {
                    Some((record, _)) => {
                        Err(format!("effect {intent} begins, and was given up with record {}", record.seq))
                    }
                    None => Ok(()),
                }
            }
            Fact::Opened { opened, .. } => spoken_of(&opened.rows),
            _ => Ok(()),
        }
    }
}

fn spoken_of(rows: &[Row]) -> Result<(), String> {
    let mut fences: BTreeMap<Content, Seq> = BTreeMap::new();
    let mut wanted: Vec<Content> = Vec::new();
    for (record, _) in rows {
        let about = match &record.event {
            Entry::Applied { fenced, .. } => {
                fences.extend(fenced.iter().map(|intent| (*intent, record.seq)));
                continue;
            }
            Entry::TakenOver { .. } => {
                fences.extend(wanted.drain(..).map(|intent| (intent, record.seq)));
                continue;
            }
            Entry::Attempted { intent, .. } | Entry::Answered { intent, .. } => *intent,
            Entry::Wanted { intent, .. } => {
                wanted.extend(opens(&record.event));
                intent.id
            }
            Entry::Settled { receipt } => match Receipt::claimed(receipt) {
                Ok(receipt) => receipt.intent,
                Err(_) => continue,
            },
            _ => continue,
        };
        if let Some(fence) = fences.get(&about) {
            return Err(format!("record {} is about {about}, which was given up with record {fence}", record.seq));
        }
    }
    Ok(())
}

/// The effect that is on its way from here on. One that was denied never is, and may be asked for again.
fn opens(entry: &Entry) -> Option<Content> {
    match entry {
        Entry::Wanted { intent, ruling: Some(ruling), .. } if ruling.decision != Decision::Deny => Some(intent.id),
        _ => None,
    }
}
