//! The chain: appending to it, and checking that what the disk gives back is what was appended.

use agentd_model::{Hash, PublicKey, Seq, Stamp};

use crate::{Body, DecodeError, Head, KeyChange, Record, Signature, Verifier, hash_of_record};

/// Largest number at which a chain may begin: what follows is counted, and must not come round.
const LAST_BEGINNING: Seq = Seq(1 << 62);

/// Where a chain ends: the only thing one must know to append to it or to check what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the newest record, 0 before the first.
    pub seq: Seq,
    /// Its hash.
    pub head: Hash,
    /// What the heads after this one are signed with; `None` before the first record.
    pub key: Option<PublicKey>,
    /// What this head is signed with: the same, but for a rotation, which the old key vouches for.
    pub signed_with: Option<PublicKey>,
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
    /// Its bytes are not those whose hash was written beside them.
    #[error("its bytes are not those that were written")]
    Hash,
    /// The newest record is not the one that was acknowledged.
    #[error("its hash is not the one that was acknowledged")]
    Head,
    /// It begins a journal in the middle of one, or the first record does not.
    #[error("a journal begins with its first record and with no other")]
    Beginning,
    /// The head is not signed with the key in force.
    #[error("the head is not signed with {0}")]
    Signature(PublicKey),
    /// It should say that the state was saved, and does not, or says another state.
    #[error("it is not the record of the saved state")]
    State,
}

impl Chain {
    /// A journal without records.
    pub const EMPTY: Chain = Chain { seq: Seq(0), head: Hash::ZERO, key: None, signed_with: None };

    /// What a signature vouches for.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.head }
    }

    /// Appends an event and returns its record's bytes.
    pub fn append<B: Body>(&mut self, stamp: Stamp, cause: Option<Seq>, event: B) -> (Seq, Vec<u8>) {
        let (record, bytes) = self.record(stamp, cause, event);
        (record.seq, bytes)
    }

    /// The same, and gives the record as well.
    pub fn record<B: Body>(&mut self, stamp: Stamp, cause: Option<Seq>, event: B) -> (Record<B>, Vec<u8>) {
        let record = Record { seq: Seq(self.seq.0 + 1), previous: self.head, stamp, cause, event };
        let bytes = record.encode();
        *self = self.next(&bytes, record.event.key_change());
        (record, bytes)
    }

    /// Takes the next record as the disk claims it, and returns it if it follows.
    pub fn check<B: Body>(&mut self, bytes: &[u8]) -> Result<Record<B>, Damage> {
        let at = Seq(self.seq.0 + 1);
        let damage = |kind| Damage { at, kind };
        let record = Record::<B>::decode(bytes).map_err(|error| damage(error.into()))?;
        if record.seq != at {
            return Err(damage(DamageKind::Number(record.seq)));
        }
        if record.previous != self.head {
            return Err(damage(DamageKind::Previous));
        }
        let change = record.event.key_change();
        if matches!(change, Some(KeyChange::Begun(_))) != (at == Seq(1)) {
            return Err(damage(DamageKind::Beginning));
        }
        *self = self.next(bytes, change);
        Ok(record)
    }

    fn next(&self, bytes: &[u8], change: Option<KeyChange>) -> Chain {
        let (key, signed_with) = match change {
            None => (self.key, self.key),
            Some(KeyChange::Rotated(key)) => (Some(key), self.key),
            Some(KeyChange::Begun(key) | KeyChange::TakenOver(key)) => (Some(key), Some(key)),
        };
        Chain { seq: Seq(self.seq.0 + 1), head: hash_of_record(bytes), key, signed_with }
    }

    /// Begins in the middle, at a record that says which state was saved; everything before it is taken on trust in the
    /// signature of what follows.
    pub fn resume<B: Body>(at: Seq, bytes: &[u8], state: Hash) -> Result<Chain, Damage> {
        let damage = |kind| Damage { at, kind };
        let record = Record::<B>::decode(bytes).map_err(|error| damage(error.into()))?;
        if record.seq != at || at > LAST_BEGINNING {
            return Err(damage(DamageKind::Number(record.seq)));
        }
        match record.event.saved_state() {
            Some((saved, key)) if saved == state => {
                Ok(Chain { seq: at, head: hash_of_record(bytes), key: Some(key), signed_with: Some(key) })
            }
            _ => Err(damage(DamageKind::State)),
        }
    }

    /// Compares the end of what was read with the head that was acknowledged, and asks who vouches for it.
    pub fn check_end(&self, acknowledged: &Head, signature: Option<&Signature>) -> Result<(), Damage> {
        if self.seq < acknowledged.seq {
            return Err(Damage { at: Seq(self.seq.0 + 1), kind: DamageKind::Missing });
        }
        if self.head() != *acknowledged {
            return Err(Damage { at: self.seq, kind: DamageKind::Head });
        }
        self.check_signature(signature)
    }

    /// Whether the key in force vouched for the chain up to here. Nothing needs no voucher.
    pub fn check_signature(&self, signature: Option<&Signature>) -> Result<(), Damage> {
        let Some(key) = self.signed_with else { return Ok(()) };
        let good = signature.is_some_and(|signature| Verifier::new(key).check_head(&self.head(), signature).is_ok());
        if good { Ok(()) } else { Err(Damage { at: self.seq, kind: DamageKind::Signature(key) }) }
    }
}

#[cfg(test)]
mod tests {
    use agentd_model::{AgentNumber, Event, WorldId};

    use super::*;
    use crate::Signer;

    fn signer() -> Signer {
        Signer::from_seed(&[7; 32])
    }

    fn begun() -> Event {
        Event::JournalBegun { world: WorldId([1; 16]), key: signer().key() }
    }

    fn journal(length: u32) -> (Chain, Vec<Vec<u8>>) {
        let mut chain = Chain::EMPTY;
        let event = |n| if n == 0 { begun() } else { Event::AgentAdopted { agent: AgentNumber(n) } };
        let records = (0..length).map(|n| chain.append(Stamp::default(), None, event(n)).1).collect();
        (chain, records)
    }

    fn verify(acknowledged: &Chain, records: &[Vec<u8>]) -> Result<(), Damage> {
        let mut chain = Chain::EMPTY;
        records.iter().try_for_each(|bytes| chain.check::<Event>(bytes).map(drop))?;
        chain.check_end(&acknowledged.head(), Some(&signer().sign_head(&acknowledged.head())))
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

    #[test]
    fn a_journal_begins_once_and_at_its_beginning() {
        let mut chain = Chain::EMPTY;
        let event = Event::AgentAdopted { agent: AgentNumber(1) };
        let (_, bytes) = { Chain::EMPTY }.append(Stamp::default(), None, event);
        assert_eq!(chain.check::<Event>(&bytes).unwrap_err().kind, DamageKind::Beginning);
        let (mut chain, _) = journal(2);
        let (_, bytes) = chain.clone().append(Stamp::default(), None, begun());
        assert_eq!(chain.check::<Event>(&bytes).unwrap_err().kind, DamageKind::Beginning);
    }

    #[test]
    fn a_new_key_needs_the_old_one_and_is_needed_from_then_on() {
        let (mut chain, _) = journal(2);
        let next = Signer::from_seed(&[8; 32]);
        chain.append(Stamp::default(), None, Event::KeyRotated { key: next.key() });
        let by = |signer: &Signer, chain: &Chain| chain.check_signature(Some(&signer.sign_head(&chain.head()))).is_ok();
        assert_eq!((by(&signer(), &chain), by(&next, &chain)), (true, false));
        chain.append(Stamp::default(), None, Event::AgentAdopted { agent: AgentNumber(9) });
        assert_eq!((by(&signer(), &chain), by(&next, &chain)), (false, true));
        assert!(chain.check_signature(None).is_err());
    }

    #[test]
    fn what_follows_a_saved_state_verifies_without_what_was_before() {
        let (mut chain, _) = journal(3);
        let saved = Hash([5; 32]);
        let (at, bytes) = chain.append(Stamp::default(), None, Event::StateSaved { state: saved, key: signer().key() });
        let (_, later) = chain.append(Stamp::default(), None, Event::AgentAdopted { agent: AgentNumber(9) });
        let mut resumed = Chain::resume::<Event>(at, &bytes, saved).unwrap();
        resumed.check::<Event>(&later).unwrap();
        assert_eq!(resumed, chain);
        assert_eq!(Chain::resume::<Event>(at, &bytes, Hash([6; 32])).unwrap_err().kind, DamageKind::State);
        assert_eq!(Chain::resume::<Event>(at, &later, saved).unwrap_err().kind, DamageKind::Number(Seq(5)));
        let last = Record::<Event>::decode(&bytes).unwrap();
        let bytes = Record { seq: Seq(u64::MAX), ..last }.encode();
        let kind = Chain::resume::<Event>(Seq(u64::MAX), &bytes, saved).unwrap_err().kind;
        assert_eq!(kind, DamageKind::Number(Seq(u64::MAX)));
    }
}
