//! What goes in and what comes out, as both sides read and write it.
//!
//! CBOR, every value an array with fixed positions. A value of a schema travels as its bytes, so that neither side needs to
//! know the other's types. [`Input::version`] is 1; a reducer that is handed another one answers nothing and traps.
//!
//! ```text
//! input   = [1, context, state bytes / null, [schema text, value bytes]]
//! context = [wall_ns uint, logical_ns uint, seq uint, entropy bytes(32), key bytes / null]
//! output  = [state, [raise…], [effect…]]
//! state   = [0, []] keep / [1, [bytes]] set / [2, []] delete
//! raise   = [schema text, value bytes]
//! effect  = [kind text, capability text, params bytes, key bytes / null]
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// Version of this contract.
pub const VERSION: u32 = 1;

/// Everything that one step is given.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Input {
    /// [`VERSION`].
    #[n(0)]
    pub version: u32,
    /// Where and when.
    #[n(1)]
    pub context: Context,
    /// The cell as the last step left it; `None` before the first, and after a deletion.
    #[n(2)]
    pub state: Option<ByteVec>,
    /// What happened.
    #[n(3)]
    pub event: Event,
}

/// The only clock, the only randomness and the only name that a step may use.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Context {
    /// Nanoseconds since 1970 when the event was taken in, as the host believed.
    #[n(0)]
    pub wall_ns: u64,
    /// The same, but it never goes back: the largest that the world has seen.
    #[n(1)]
    pub logical_ns: u64,
    /// Position of the event in the journal.
    #[n(2)]
    pub seq: u64,
    /// Random bytes of this step alone, the same on every replay.
    #[n(3)]
    pub entropy: ByteArray<32>,
    /// The cell's key, encoded; `None` for a module without keys.
    #[n(4)]
    #[cbor(with = "crate::or_null", has_nil)]
    pub key: Option<ByteVec>,
}

/// Something that happened, or that a reducer says happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    /// Name of the schema, `ns/name@1`.
    #[n(0)]
    pub schema: String,
    /// The value, encoded.
    #[n(1)]
    pub value: ByteVec,
}

/// Everything that one step may bring about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Output {
    /// What becomes of the cell.
    #[n(0)]
    pub state: Change,
    /// Events for the reducers of this world, this one included.
    #[n(1)]
    pub raises: Vec<Event>,
    /// What is wanted of the outside.
    #[n(2)]
    pub effects: Vec<Effect>,
}

/// What becomes of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// It stays.
    #[n(0)]
    Keep,
    /// It becomes this value, encoded.
    #[n(1)]
    Set(#[n(0)] ByteVec),
    /// It is gone.
    #[n(2)]
    Delete,
}

/// An effect that is asked for; whether it comes about is not the reducer's to say.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Effect {
    /// Its kind, `sys/http@1`.
    #[n(0)]
    pub kind: String,
    /// The capability under which it is asked for, by name.
    #[n(1)]
    pub capability: String,
    /// Its parameters, encoded.
    #[n(2)]
    pub params: ByteVec,
    /// Two effects with one key are one effect.
    #[n(3)]
    #[cbor(with = "crate::or_null", has_nil)]
    pub key: Option<ByteVec>,
}
