//! The chain: appending to it, and checking that what the disk gives back is what was appended.

use agentd_model::{Event, Seq, Stamp};

use crate::{DecodeError, Hash, Record};

/// Where a chain ends: the only thing one must know to append to it or to check what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the newest record, 0 before the first.
    pub seq: Seq,
    /// Its hash.
    pub head: Hash,
}

/// A place where a journal no longer verifies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is damaged at record {at}")]
pub struct Damage {
    /// The first record that does not verify.
    pub at: Seq,
    /// What is wrong with it.
    #[source]
    pub kind: DamageKind,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageKind {
    /// Its bytes are not a record.
    #[error(transparent)]
    Bytes(#[from] DecodeError),
    /// It carries another number.
    #[error("it carries the number {0}")]
    Number(Seq),
    /// It does not follow the record before it.
    #[error("it does not carry the hash of the record before it")]
    Previous,
    /// The records end before the head that was acknowledged.
    #[error("it is missing, though it was acknowledged")]
    Missing,
    /// The newest record is not the one that was acknowledged.
    #[error("its hash is not the one that was acknowledged")]
    Head,
}

impl Chain {
    /// A journal without records.
    pub const EMPTY: Chain = Chain { seq: Seq(0), head: Hash::ZERO };

    /// Appends an event and returns its record's bytes.
    pub fn append(&mut self, stamp: Stamp, cause: Option<Seq>, event: Event) -> (Seq, Vec<u8>) {
        let seq = Seq(self.seq.0 + 1);
        let bytes = Record { seq, previous: self.head, stamp, cause, event }.encode();
        *self = Chain { seq, head: Hash::of_record(&bytes) };
        (seq, bytes)
    }

    /// Takes the next record as the disk claims it, and returns it if it follows.
    pub fn check(&mut self, bytes: &[u8]) -> Result<Record, Damage> {
        let at = Seq(self.seq.0 + 1);
        let damage = |kind| Damage { at, kind };
        let record = Record::decode(bytes).map_err(|error| damage(error.into()))?;
        if record.seq != at {
            return Err(damage(DamageKind::Number(record.seq)));
        }
        if record.previous != self.head {
            return Err(damage(DamageKind::Previous));
        }
        *self = Chain { seq: at, head: Hash::of_record(bytes) };
        Ok(record)
    }

    /// Compares the end of what was read with the head that was acknowledged.
    pub fn check_end(&self, acknowledged: &Chain) -> Result<(), Damage> {
        if self.seq < acknowledged.seq {
            return Err(Damage { at: Seq(self.seq.0 + 1), kind: DamageKind::Missing });
        }
        if self != acknowledged {
            return Err(Damage { at: self.seq, kind: DamageKind::Head });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use agentd_model::AgentNumber;

    use super::*;

    fn journal(length: u32) -> (Chain, Vec<Vec<u8>>) {
        let mut chain = Chain::EMPTY;
        let event = |n| Event::AgentAdopted { agent: AgentNumber(n) };
        let records = (0..length).map(|n| chain.append(Stamp::default(), None, event(n)).1).collect();
        (chain, records)
    }

    fn verify(acknowledged: &Chain, records: &[Vec<u8>]) -> Result<(), Damage> {
        let mut chain = Chain::EMPTY;
        records.iter().try_for_each(|bytes| chain.check(bytes).map(drop))?;
        chain.check_end(acknowledged)
    }

    #[test]
    fn a_whole_journal_verifies() {
        let (head, records) = journal(5);
        assert_eq!(verify(&head, &records), Ok(()));
    }

    #[test]
    fn no_single_bit_can_change_unnoticed() {
        let (head, records) = journal(3);
        for at in 0..records.len() {
            for bit in 0..records[at].len() * 8 {
                let mut changed = records.clone();
                changed[at][bit / 8] ^= 1 << (bit % 8);
                assert!(verify(&head, &changed).is_err(), "record {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_left_out_doubled_or_cut_off_is_named() {
        let (head, records) = journal(4);
        let at = |records: &[Vec<u8>]| verify(&head, records).unwrap_err().at;
        assert_eq!(at(&[&records[..1], &records[2..]].concat()), Seq(2));
        assert_eq!(at(&[&records[..2], &records[1..]].concat()), Seq(3));
        assert_eq!(at(&records[..3]), Seq(4));
        assert_eq!(verify(&head, &records[..3]).unwrap_err().kind, DamageKind::Missing);
    }
}
