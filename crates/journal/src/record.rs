//! One record: its bytes, its hash, and the strict way back.

use std::fmt;

use agentd_model::{Event, Seq, Stamp};
use minicbor::{Decode, Encode};

/// Version of the record format, the first item of every record.
const VERSION: u8 = 1;

/// Context of the key derivation that makes a record's hash different from any other use of BLAKE3.
const CONTEXT: &str = "agentd 2026-11-21 journal record v1";

/// BLAKE3 hash of a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Hash(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl Hash {
    /// Stands before the first record.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The hash of a record's bytes.
    pub fn of_record(bytes: &[u8]) -> Hash {
        Hash(blake3::derive_key(CONTEXT, bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One thing that happened, with its place in the order of things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position, from 1.
    pub seq: Seq,
    /// Hash of the record before.
    pub previous: Hash,
    /// The clocks when it was taken in.
    pub stamp: Stamp,
    /// The record that brought it about.
    pub cause: Option<Seq>,
    /// What happened.
    pub event: Event,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not CBOR, or not of this shape.
    #[error("the bytes are not a record: {0}")]
    Shape(String),
    /// A later format.
    #[error("the record has format {0}, this program reads 1")]
    Version(u8),
    /// The same value has another, canonical encoding.
    #[error("the record is not in canonical form")]
    NotCanonical,
}

#[derive(Encode, Decode)]
struct Wire {
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
    event: Event,
}

impl Record {
    /// The canonical bytes.
    pub fn encode(self) -> Vec<u8> {
        let Record { seq, previous, stamp, cause, event } = self;
        encode(&Wire { version: VERSION, seq, previous, stamp, cause, event })
    }

    /// Reads canonical bytes, and refuses every other encoding of the same value.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let wire: Wire = minicbor::decode(bytes).map_err(|error| DecodeError::Shape(error.to_string()))?;
        if wire.version != VERSION {
            return Err(DecodeError::Version(wire.version));
        }
        if encode(&wire) != bytes {
            return Err(DecodeError::NotCanonical);
        }
        let Wire { seq, previous, stamp, cause, event, .. } = wire;
        Ok(Record { seq, previous, stamp, cause, event })
    }
}

fn encode(wire: &Wire) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    match minicbor::encode(wire, &mut bytes) {
        Ok(()) => bytes,
        Err(error) => unreachable!("writing to memory cannot be refused: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use agentd_model::{AgentNumber, Duration};

    use super::*;

    fn record() -> Record {
        let event =
            Event::BudgetWarned { agent: AgentNumber(3), spent: Duration(240_000_000), limit: Duration(300_000_000) };
        let stamp = Stamp { wall_ns: 1_795_261_000_000_000_000, mono_ns: 77 };
        Record { seq: Seq(2), previous: Hash::ZERO, stamp, cause: Some(Seq(1)), event }
    }

    #[test]
    fn bytes_are_as_the_format_says() {
        let hex: String = record().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let (previous, wall) = ("00".repeat(32), "18ea0c5e281cd000");
        assert_eq!(
            hex,
            format!("86 01 02 5820{previous} 82 1b{wall} 184d 01 82 05 83 03 1a0e4e1c00 1a11e1a300").replace(' ', "")
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(Record::decode(&record().encode()), Ok(record()));
    }

    #[test]
    fn another_encoding_of_the_same_value_is_refused() {
        let mut bytes = record().encode();
        assert_eq!(bytes[2], 0x02);
        bytes.splice(2..3, [0x18, 0x02]);
        assert_eq!(Record::decode(&bytes), Err(DecodeError::NotCanonical));
    }

    #[test]
    fn a_later_format_and_rubbish_are_refused() {
        let mut bytes = record().encode();
        bytes[1] = 0x09;
        assert_eq!(Record::decode(&bytes), Err(DecodeError::Version(9)));
        assert!(matches!(Record::decode(b"rubbish"), Err(DecodeError::Shape(_))));
        let mut longer = record().encode();
        longer.push(0);
        assert_eq!(Record::decode(&longer), Err(DecodeError::NotCanonical));
    }
}
