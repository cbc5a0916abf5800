//! What happened? The record format of the journal and the chain that holds records together.
//!
//! # Format
//!
//! A journal is a sequence of records, numbered from 1 without gaps. A record is one CBOR item in the core
//! deterministic encoding of RFC 8949 §4.2.1: an array of definite length, every integer in its shortest form, no maps, no
//! floating point.
//!
//! ```text
//! record = [
//!   0: version   uint   1
//!   1: seq       uint   position, from 1
//!   2: previous  bytes  hash of the record before; 32 zero bytes before the first
//!   3: stamp     [wall_ns uint, mono_ns uint]     the clocks when the event was taken in
//!   4: cause     uint / null                      seq of the record that brought this one about
//!   5: event     [variant uint, [fields…]]        agentd_model::Event
//! ]
//! ```
//!
//! The hash of a record is BLAKE3 in its key derivation mode, with the context `agentd 2026-11-21 journal record v1`,
//! over the record's bytes. It is not stored in the record: the next record carries it, and the store keeps the hash of
//! the newest one (the *head*) beside the records, written in the same transaction.
//!
//! # What a reader may conclude
//!
//! A record that does not decode, does not encode back to the same bytes, has the wrong number, or whose `previous` is
//! not the hash of the record before it, is damage: it was acknowledged once, because the store writes records and head
//! in one atomic step. So damage is reported with its position and never cut. A torn write does not get as far as a
//! record; it ends in the store's write-ahead log, which the store cuts and tells.
//!
//! Not here: files, clocks, tasks. Bytes become records and records become bytes; `agentd` owns the disk.

#![forbid(unsafe_code)]

mod chain;
mod record;

pub use chain::{Chain, Damage, DamageKind};
pub use record::{DecodeError, Hash, Record};
