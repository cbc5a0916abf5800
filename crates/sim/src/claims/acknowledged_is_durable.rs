//! What somebody was told is recorded is there whenever the world is opened, with the same hash; and where it can no longer
//! be, opening says at which record, and touches nothing.

use std::collections::BTreeMap;

use agentd_engine::Entry;
use agentd_model::{Hash, Seq};

use super::{Claim, Fact};
use crate::recovery::{Opened, Row};

/// The claim: everything that was acknowledged.
#[derive(Default)]
pub(super) struct Watch(BTreeMap<Seq, Hash>);

impl Claim for Watch {
    fn see(&mut self, fact: &Fact<'_>, _: &[Row]) -> Result<(), String> {
        match fact {
            Fact::Acknowledged { seq, hash } => match self.0.insert(*seq, *hash) {
                Some(before) if before != *hash => Err(format!("record {seq} was acknowledged twice, as two records")),
                _ => Ok(()),
            },
            Fact::Opened { opened, .. } | Fact::End { opened, .. } => self.all_there(opened),
            Fact::Rotten { records, named, touched } => match named {
                None => Err(format!("one of records {records:?} has rotted, and the world was opened")),
                Some(at) if !records.contains(at) => {
                    Err(format!("one of records {records:?} has rotted, and opening says it is {at}"))
                }
                Some(_) if *touched => Err("opening changed a damaged platter".into()),
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Watch {
    fn all_there(&self, opened: &Opened) -> Result<(), String> {
        for (seq, hash) in &self.0 {
            match opened.rows.get(seq.0 as usize - 1) {
                Some((_, found)) if found == hash => {}
                Some(_) => return Err(format!("record {seq} was acknowledged and is another one now")),
                None => return Err(format!("record {seq} was acknowledged and is not there")),
            }
        }
        for (record, _) in &opened.rows {
            if let Entry::Rehearsed { report, .. } = &record.event
                && !opened.blobs.contains(report)
            {
                return Err(format!("the report of record {} is not there", record.seq));
            }
        }
        Ok(())
    }
}
