//! What a step wants, put together call by call.
//!
//! ```
//! use agentd_reducer::Output;
//!
//! let output = Output::keep()
//!     .set(&7_u64)
//!     .raise("demo/milestone@1", &"seven")
//!     .effect_once("sys/host.freeze@1", "acme/freeze@1", &(12_u64, "too many"), &7_u64);
//! assert_eq!(output.raises.len(), 1);
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::Encode;
use minicbor::bytes::ByteVec;

use crate::abi::{Change, Effect, Event, Output};
use crate::value::write;

impl Output {
    /// Nothing: the cell stays as it is, nothing is raised, nothing is wanted.
    #[must_use]
    pub fn keep() -> Self {
        Self { state: Change::Keep, raises: Vec::new(), effects: Vec::new() }
    }

    /// And the cell becomes this.
    #[must_use]
    pub fn set<T: Encode<()> + ?Sized>(mut self, state: &T) -> Self {
        self.state = Change::Set(write(state).into());
        self
    }

    /// And the cell is gone; the next step under its key begins without a state.
    #[must_use]
    pub fn delete(mut self) -> Self {
        self.state = Change::Delete;
        self
    }

    /// And this happened, for every reducer that subscribes to it.
    #[must_use]
    pub fn raise<T: Encode<()> + ?Sized>(mut self, schema: &str, value: &T) -> Self {
        self.raises.push(Event::new(schema, value));
        self
    }

    /// And this is wanted of the outside, under that capability.
    #[must_use]
    pub fn effect<T: Encode<()> + ?Sized>(self, kind: &str, capability: &str, params: &T) -> Self {
        self.want(kind, capability, write(params).into(), None)
    }

    /// The same, but once only for that key, however often it is asked for.
    #[must_use]
    pub fn effect_once<T, K>(self, kind: &str, capability: &str, params: &T, key: &K) -> Self
    where
        T: Encode<()> + ?Sized,
        K: Encode<()> + ?Sized,
    {
        self.want(kind, capability, write(params).into(), Some(write(key).into()))
    }

    fn want(mut self, kind: &str, capability: &str, params: ByteVec, key: Option<ByteVec>) -> Self {
        self.effects.push(Effect { kind: String::from(kind), capability: String::from(capability), params, key });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_three_empty_things() {
        assert_eq!(write(&Output::keep()), [0x83, 0x82, 0, 0x80, 0x80, 0x80]);
    }

    #[test]
    fn each_call_adds_to_what_was_said() {
        let output = Output::keep().set(&1_u64).raise("a/b@1", &2_u64).raise("a/c@1", &3_u64);
        assert_eq!(output.state, Change::Set([1].to_vec().into()));
        assert_eq!(output.raises, [Event::new("a/b@1", &2_u64), Event::new("a/c@1", &3_u64)]);
        assert_eq!(output.delete().state, Change::Delete);
    }

    #[test]
    fn an_effect_without_a_key_says_so_with_a_null() {
        let bytes = write(&Output::keep().effect("k", "c", &1_u64).effects[0]);
        assert_eq!(bytes, [0x84, 0x61, b'k', 0x61, b'c', 0x41, 1, 0xf6]);
        let bytes = write(&Output::keep().effect_once("k", "c", &1_u64, &2_u64).effects[0]);
        assert_eq!(bytes, [0x84, 0x61, b'k', 0x61, b'c', 0x41, 1, 0x41, 2]);
    }
}
