//! What is the case: a tree of plain values.
//!
//! A value does not know its type. Those who make one from outside ([`decode`](crate::decode),
//! [`from_json`](crate::from_json)) check it against a type while they read; one that was put together in code is checked
//! with [`check`](crate::check). After that it has one encoding, and equal values have equal bytes.
//!
//! Records are without the names of their fields and variants without the names of their cases, as in the encoding: names
//! are the type's, for people.

use std::cmp::Ordering;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::{Dec, Hash};

/// Longest value, encoded.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most values within a value. A field that is left out counts, so that a few bytes cannot become much memory.
pub const MAX_VALUE_PARTS: usize = 1 << 18;

/// A value of some type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer from 0.
    Nat(u64),
    /// A decimal number.
    Dec(Dec),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Text.
    Text(String),
    /// Nanoseconds since 1970.
    Time(u64),
    /// Nanoseconds.
    Duration(u64),
    /// A hash.
    Hash(Hash),
    /// The bytes of a UUID.
    Uuid([u8; 16]),
    /// The values of all fields, in the order of the type.
    Record(Vec<Value>),
    /// The position of the case among the cases of the type, and its value where the case has one.
    Variant(u32, Option<Box<Value>>),
    /// Items in their order.
    List(Vec<Value>),
    /// Entries sorted by [`key_order`], each key once; [`Value::map`] makes one.
    Map(Vec<(Value, Value)>),
    /// An option without a value.
    None,
    /// An option with its value.
    Some(Box<Value>),
}

/// Two entries of a map with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is there twice")]
pub struct TwiceError {
    /// The key.
    pub key: Value,
}

impl Value {
    /// A map of entries in any order.
    pub fn map(mut entries: Vec<(Value, Value)>) -> Result<Value, TwiceError> {
        if !entries.is_sorted_by(|one, next| key_order(&one.0, &next.0).is_lt()) {
            entries.sort_by(|one, next| key_order(&one.0, &next.0));
            if let Some(pair) = entries.windows(2).find(|pair| key_order(&pair[0].0, &pair[1].0).is_eq()) {
                return Err(TwiceError { key: pair[0].0.clone() });
            }
        }
        Ok(Value::Map(entries))
    }

    /// The word for it in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Nat(_) => "nat",
            Value::Dec(_) => "dec",
            Value::Bytes(_) => "bytes",
            Value::Text(_) => "text",
            Value::Time(_) => "time",
            Value::Duration(_) => "duration",
            Value::Hash(_) => "hash",
            Value::Uuid(_) => "uuid",
            Value::Record(_) => "record",
            Value::Variant(..) => "variant",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::None => "none",
            Value::Some(_) => "an option's value",
        }
    }
}

/// The order of two keys of one type in a map: that of their encoded bytes (RFC 8949, 4.2.1).
///
/// So small numbers come before large ones, numbers from 0 before negative ones, and short texts before long ones.
pub fn key_order(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        // A negative number n is encoded as -1 - n, behind all others.
        (Value::Int(one), Value::Int(other)) => match (*one < 0, *other < 0) {
            (true, true) => other.cmp(one),
            (false, false) => one.cmp(other),
            (one, other) => one.cmp(&other),
        },
        (Value::Nat(one), Value::Nat(other)) => one.cmp(other),
        (Value::Text(one), Value::Text(other)) => one.len().cmp(&other.len()).then_with(|| one.cmp(other)),
        (Value::Hash(one), Value::Hash(other)) => one.cmp(other),
        (Value::Uuid(one), Value::Uuid(other)) => one.cmp(other),
        (one, other) => crate::encode(one).cmp(&crate::encode(other)),
    }
}

/// The hyphenated text of a UUID, lower case.
pub(crate) fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex = HEXLOWER.encode(uuid);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Reads the hyphenated text of a UUID, in either case (RFC 9562, 4).
pub(crate) fn uuid_from_text(text: &str) -> Option<[u8; 16]> {
    let lengths = text.split('-').map(str::len);
    if !lengths.eq([8, 4, 4, 4, 12]) {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(text.replace('-', "").as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_their_bytes() {
        let keys = |values: Vec<Value>| values;
        let numbers = [0, 1, 23, 24, 255, 256, 65_536, i64::MAX, -1, -24, -25, -256, -257, i64::MIN];
        let texts = ["", "a", "b", "é", "aa", "ab", &"x".repeat(23), &"a".repeat(24), &"a".repeat(256)];
        let sets = [
            keys(numbers.iter().map(|n| Value::Int(*n)).collect()),
            keys(numbers.iter().filter_map(|n| Some(Value::Nat(u64::try_from(*n).ok()?))).collect()),
            keys(texts.iter().map(|text| Value::Text((*text).to_owned())).collect()),
            keys((0..9).map(|n| Value::Uuid([n * 31; 16])).collect()),
        ];
        for one in sets.iter().flatten() {
            for other in sets.iter().flatten() {
                assert_eq!(key_order(one, other), crate::encode(one).cmp(&crate::encode(other)), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_map_is_made_in_order_and_without_doubles() {
        let entry = |key: &str| (Value::Text(key.to_owned()), Value::Bool(true));
        assert_eq!(
            Value::map(vec![entry("bb"), entry("c"), entry("a")]).unwrap(),
            Value::Map(vec![entry("a"), entry("c"), entry("bb")])
        );
        assert_eq!(Value::map(vec![entry("a"), entry("b"), entry("a")]).unwrap_err().key, Value::Text("a".to_owned()));
        assert_eq!(Value::map(vec![entry("a"), entry("a")]).unwrap_err().key, Value::Text("a".to_owned()));
    }

    #[test]
    fn a_uuid_reads_back_from_its_text() {
        let text = "0190a5b2-7c1e-7f00-8a00-0123456789ab";
        let uuid = uuid_from_text(text).unwrap();
        assert_eq!(uuid_text(&uuid), text);
        assert_eq!(uuid_from_text(&text.to_uppercase()), Some(uuid));
        for wrong in [&text[1..], &text.replace('-', ""), &format!("{{{text}}}"), &text.replace('0', "g")] {
            assert_eq!(uuid_from_text(wrong), None, "{wrong}");
        }
    }
}
