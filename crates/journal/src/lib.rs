//! What happened? The record format of journals, the chain that holds records together, and the signature on its end.
//!
//! # Format
//!
//! A journal is a sequence of records, numbered from 1 without gaps. A record is one CBOR item in the core
//! deterministic encoding of RFC 8949 §4.2.1: an array of definite length, every integer in its shortest form, no
//! floating point.
//!
//! ```text
//! record = [
//!   0: version   uint   2
//!   1: seq       uint   position, from 1
//!   2: previous  bytes  hash of the record before; 32 zero bytes before the first
//!   3: stamp     [wall_ns uint, mono_ns uint, entropy bytes(16)]   sampled once, when the input was taken in
//!   4: cause     uint / null                                       seq of the record that brought this one about
//!   5: body      [variant uint, [fields…]]                         agentd_model::Event or agentd_engine::Entry
//! ]
//! ```
//!
//! The *hash* of a record is BLAKE3 in its key derivation mode, with the context `agentd 2026-11-21 journal record v2`,
//! over the record's bytes. It is not stored in the record: the next record carries it.
//!
//! The *head* is the seq and the hash of the newest record. At each group commit it is signed with ed25519 over
//!
//! ```text
//! "agentd journal head v2\0" ‖ seq as 8 bytes, big endian ‖ hash, 32 bytes
//! ```
//!
//! and the signature is stored in the transaction that stores the records.
//!
//! # Keys
//!
//! The first record, and no other, begins the journal: it holds a random id and the public key. So no record fits into
//! another journal, and whoever knows the first hash knows the key. A record can name another key:
//!
//! - *rotated*: it is the last of its commit and that head is signed with the old key, which so vouches for the new one;
//! - *taken over* (a copy goes on under another host): it is the last of its commit and that head is signed with the
//!   new key. The old key vouches for everything before it, the new one for everything from it on.
//!
//! # What a reader may conclude
//!
//! A record that does not decode, does not encode back to the same bytes, has the wrong number, or whose `previous` is
//! not the hash of the record before it, is damage: it was acknowledged once, because the store writes records and head
//! in one atomic step. So damage is reported with its position and never cut. A torn write does not get as far as a
//! record; it ends in the store's write-ahead log, which the store cuts and tells.
//!
//! A journal may begin later than at 1, when what was before it has been put away (*retention*): its first record is then
//! one whose head was signed and which saves the state, and everything from there on verifies.
//!
//! Test vectors: `docs/format/journal.json`.
//!
//! Not here: files, clocks, tasks, random numbers. Bytes become records and records become bytes; `agentd` owns the disk.

#![forbid(unsafe_code)]

mod chain;
mod record;
mod sign;

pub use agentd_model::Hash;
pub use chain::{Chain, Damage, DamageKind};
pub use record::{Body, DecodeError, KeyChange, Record, hash_of_record};
pub use sign::{BadSignature, Head, Signature, Signer, Verifier, key_id};
