//! One record: its bytes, its hash, and the strict way back.

use agentd_model::{Event, Hash, PublicKey, Seq, Stamp};
use minicbor::{Decode, Encode};

/// Version of the record format, the first item of every record.
const VERSION: u8 = 2;

/// Context of the key derivation that makes a record's hash different from any other use of BLAKE3.
const CONTEXT: &str = "agentd 2026-11-21 journal record v2";

/// The hash of a record's bytes.
pub fn hash_of_record(bytes: &[u8]) -> Hash {
    Hash(blake3::derive_key(CONTEXT, bytes))
}

/// What a record may say: a closed set of events, some of which are about the journal itself.
pub trait Body: Clone + Encode<()> + for<'b> Decode<'b, ()> {
    /// The key that this record names, if it names one.
    fn key_change(&self) -> Option<KeyChange>;

    /// Hash of the state and the key in force, if this record says that the state was saved.
    fn saved_state(&self) -> Option<(Hash, PublicKey)>;
}

/// How a record names a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The journal begins with it.
    Begun(PublicKey),
    /// The old key vouches for it.
    Rotated(PublicKey),
    /// It vouches for itself.
    TakenOver(PublicKey),
}

impl KeyChange {
    /// The key, in force from the next head on; for all but a rotation also for the head with this record.
    pub fn key(self) -> PublicKey {
        match self {
            KeyChange::Begun(key) | KeyChange::Rotated(key) | KeyChange::TakenOver(key) => key,
        }
    }
}

impl KeyChange {
    /// Whether the head with this record must have been signed: a change of keys ends a commit.
    pub fn ends_a_commit(self) -> bool {
        !matches!(self, KeyChange::Begun(_))
    }
}

impl Body for Event {
    fn key_change(&self) -> Option<KeyChange> {
        match self {
            Event::JournalBegun { key, .. } => Some(KeyChange::Begun(*key)),
            Event::KeyRotated { key } => Some(KeyChange::Rotated(*key)),
            _ => None,
        }
    }

    fn saved_state(&self) -> Option<(Hash, PublicKey)> {
        match self {
            Event::StateSaved { state, key } => Some((*state, *key)),
            _ => None,
        }
    }
}

/// One thing that happened, with its place in the order of things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<B = Event> {
    /// Position, from 1.
    pub seq: Seq,
    /// Hash of the record before.
    pub previous: Hash,
    /// The clocks when it was taken in.
    pub stamp: Stamp,
    /// The record that brought it about.
    pub cause: Option<Seq>,
    /// What happened.
    pub event: B,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not CBOR, or not of this shape.
    #[error("the bytes are not a record: {0}")]
    Shape(String),
    /// Another format.
    #[error("the record has format {0}, this program reads {VERSION}")]
    Version(u8),
    /// The same value has another, canonical encoding.
    #[error("the record is not in canonical form")]
    NotCanonical,
}

#[derive(Encode, Decode)]
struct Wire<B> {
    #[n(0)]
    version: u8,
    #[n(1)]
    seq: Seq,
    #[n(2)]
    previous: Hash,
    #[n(3)]
    stamp: Stamp,
    #[n(4)]
    cause: Option<Seq>,
    #[n(5)]
    event: B,
}

impl<B: Body> Record<B> {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Record { seq, previous, stamp, cause, event } = self;
        encode(&Wire { version: VERSION, seq: *seq, previous: *previous, stamp: *stamp, cause: *cause, event })
    }

    /// Reads canonical bytes, and refuses every other encoding of the same value.
    pub fn decode(bytes: &[u8]) -> Result<Record<B>, DecodeError> {
        // Asked first, so that another format is called by its name and not a wrong shape.
        let version = |bytes| {
            let mut decoder = minicbor::Decoder::new(bytes);
            decoder.array().ok()?;
            decoder.u8().ok()
        };
        if let Some(other) = version(bytes).filter(|found| *found != VERSION) {
            return Err(DecodeError::Version(other));
        }
        let wire: Wire<B> = minicbor::decode(bytes).map_err(|error| DecodeError::Shape(error.to_string()))?;
        if encode(&wire) != bytes {
            return Err(DecodeError::NotCanonical);
        }
        let Wire { seq, previous, stamp, cause, event, .. } = wire;
        Ok(Record { seq, previous, stamp, cause, event })
    }
}

fn encode<E: Encode<()>>(wire: &E) -> Vec<u8> {
    // Most are no longer; growing means copying.
    let mut bytes = Vec::with_capacity(768);
    match minicbor::encode(wire, &mut bytes) {
        Ok(()) => bytes,
        Err(error) => unreachable!("writing to memory cannot be refused: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use agentd_model::{AgentNumber, Duration, Entropy};

    use super::*;

    fn record() -> Record {
        let event =
            Event::BudgetWarned { agent: AgentNumber(3), spent: Duration(240_000_000), limit: Duration(300_000_000) };
        let stamp = Stamp { wall_ns: 1_795_261_000_000_000_000, mono_ns: 77, entropy: Entropy([0xee; 16]) };
        Record { seq: Seq(2), previous: Hash::ZERO, stamp, cause: Some(Seq(1)), event }
    }

    #[test]
    fn bytes_are_as_the_format_says() {
        let hex: String = record().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let (previous, wall, entropy) = ("00".repeat(32), "18ea0c5e281cd000", "ee".repeat(16));
        assert_eq!(
            hex,
            format!("86 02 02 5820{previous} 83 1b{wall} 184d 50{entropy} 01 82 05 83 03 1a0e4e1c00 1a11e1a300")
                .replace(' ', "")
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(Record::<Event>::decode(&record().encode()), Ok(record()));
    }

    #[test]
    fn another_encoding_of_the_same_value_is_refused() {
        let mut bytes = record().encode();
        assert_eq!(bytes[2], 0x02);
        bytes.splice(2..3, [0x18, 0x02]);
        assert_eq!(Record::<Event>::decode(&bytes), Err(DecodeError::NotCanonical));
    }

    #[test]
    fn a_later_format_and_rubbish_are_refused() {
        let mut bytes = record().encode();
        bytes[1] = 0x09;
        assert_eq!(Record::<Event>::decode(&bytes), Err(DecodeError::Version(9)));
        assert!(matches!(Record::<Event>::decode(b"rubbish"), Err(DecodeError::Shape(_))));
        let mut longer = record().encode();
        longer.push(0);
        assert_eq!(Record::<Event>::decode(&longer), Err(DecodeError::NotCanonical));
    }
}
