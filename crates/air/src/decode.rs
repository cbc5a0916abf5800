//! Bytes to values: an allegation in, a checked value out.
//!
//! The type leads and the bytes follow, so nothing is read that the type does not ask for, and the stack is as deep as the
//! type. Memory follows what is really there: no length that the bytes claim is believed in advance.
//!
//! There are two degrees of strictness. What was recorded by us must be [`Canonical`](Strictness::Canonical): other bytes for
//! the same value would be another record. What comes from a reducer or from outside may be
//! [`Lenient`](Strictness::Lenient): any CBOR that says one thing, which becomes canonical when it is encoded again.
//!
//! Canonical is decided by encoding again and comparing, so it cannot be decided differently from [`encode`]. To say
//! where the difference is, the bytes are then read a second time, up to the first byte that differs.

use std::borrow::Cow;

use minicbor::data::{IanaTag, Type as Cbor};
use minicbor::decode::{Decoder, Error};

use crate::encode::within_bytes;
use crate::path::{Step, What, Wrong};
use crate::types::{Case, Field};
use crate::{Dec, Hash, MAX_RESOLVED_DEPTH, MAX_VALUE_BYTES, MAX_VALUE_PARTS, Resolve, Type, Value, encode};

const BREAK: u8 = 0xff;
const NULL: u8 = 0xf6;

/// Which encodings of a value are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Only the one that [`encode`] writes.
    Canonical,
    /// Also numbers and lengths in longer forms, indefinite lengths, maps in another order, decimal numbers with zeros at
    /// their end, and nulls at the end of a record. A key that is there twice is still refused.
    Lenient,
}

/// Reads the value of a type, from its first byte to its last.
pub fn decode(
    types: &(impl Resolve + ?Sized),
    of: &Type,
    bytes: &[u8],
    strictness: Strictness,
) -> Result<Value, Wrong> {
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(What::TooLong.into());
    }
    let mut reader = Reader { types, d: Decoder::new(bytes), parts: MAX_VALUE_PARTS, differs: None };
    let value = reader.value(of, MAX_RESOLVED_DEPTH)?;
    match bytes.len() - reader.d.position() {
        0 => {}
        trailing => return Err(What::Trailing(trailing).into()),
    }
    match strictness {
        // A list of indefinite length can be shorter than one that says how long it is, if only just.
        Strictness::Lenient if bytes.len() > MAX_VALUE_BYTES / 2 => within_bytes(&value)?,
        Strictness::Lenient => {}
        Strictness::Canonical => {
            let canonical = encode(&value);
            if canonical != bytes {
                let differs = canonical.iter().zip(bytes).position(|(one, other)| one != other);
                let mut again = Reader { types, d: Decoder::new(bytes), parts: MAX_VALUE_PARTS, differs };
                let found = again.value(of, MAX_RESOLVED_DEPTH);
                return Err(found.err().unwrap_or_else(|| What::NotCanonical.into()));
            }
        }
    }
    Ok(value)
}

struct Reader<'a, 'b, R: ?Sized> {
    types: &'a R,
    d: Decoder<'b>,
    /// How many values may still be made.
    parts: usize,
    /// The byte that is known to be wrong: the innermost value around it is refused.
    differs: Option<usize>,
}

impl<'a, 'b, R: Resolve + ?Sized> Reader<'a, 'b, R> {
    fn value(&mut self, of: &'a Type, levels: usize) -> Result<Value, Wrong> {
        let levels = levels.checked_sub(1).ok_or(What::TooDeep)?;
        if let Type::Ref(name) = of {
            let of = self.types.schema(name).ok_or_else(|| What::UnknownSchema(name.clone()))?;
            return self.value(of, levels);
        }
        self.count()?;
        let start = self.d.position();
        let value = match of {
            Type::Record(fields) => Value::Record(self.record(fields, levels)?),
            Type::Variant(cases) => self.variant(cases, levels)?,
            Type::List(item) => Value::List(self.list(item, levels)?),
            Type::Map(key, value) => self.map(key, value, levels)?,
            Type::Option(some) => self.option(some, levels)?,
            scalar => self.scalar(scalar)?,
        };
        match self.differs {
            Some(at) if (start..self.d.position()).contains(&at) => Err(What::NotCanonical.into()),
            _ => Ok(value),
        }
    }

    fn count(&mut self) -> Result<(), Wrong> {
        self.parts = self.parts.checked_sub(1).ok_or(What::TooMany)?;
        Ok(())
    }

    fn scalar(&mut self, of: &Type) -> Result<Value, Wrong> {
        let start = self.d.position();
        let expected = of.kind();
        Ok(match of {
            Type::Bool => Value::Bool(self.d.bool().map_err(|error| self.wrong(start, expected, &error))?),
            Type::Int => Value::Int(self.integer(expected)?),
            Type::Nat => Value::Nat(self.integer(expected)?),
            Type::Time => Value::Time(self.integer(expected)?),
            Type::Duration => Value::Duration(self.integer(expected)?),
            Type::Dec => Value::Dec(self.dec()?),
            Type::Bytes => Value::Bytes(self.bytes(expected)?.into_owned()),
            Type::Text => Value::Text(self.text()?.into_owned()),
            Type::Hash => Value::Hash(Hash(self.exact_bytes("hash of 32 bytes")?)),
            Type::Uuid => Value::Uuid(self.exact_bytes("uuid of 16 bytes")?),
            Type::Record(_) | Type::Variant(_) | Type::List(_) | Type::Map(..) | Type::Option(_) | Type::Ref(_) => {
                unreachable!("a type with parts is read part by part")
            }
        })
    }

    fn integer<T: TryFrom<minicbor::data::Int>>(&mut self, expected: &'static str) -> Result<T, Wrong> {
        let start = self.d.position();
        let number = self.d.int().map_err(|error| self.wrong(start, expected, &error))?;
        T::try_from(number).ok().ok_or_else(|| What::Expected { expected, found: number.to_string() }.into())
    }

    fn dec(&mut self) -> Result<Dec, Wrong> {
        let start = self.d.position();
        let other = |found: &str| Wrong::from(What::Expected { expected: "dec", found: found.to_owned() });
        let tag = self.d.tag().map_err(|error| self.wrong(start, "dec", &error))?;
        if tag != IanaTag::Decimal.tag() {
            return Err(other(&format!("tag {}", tag.as_u64())));
        }
        let mut left = self.open_list("dec")?;
        let mut part = || {
            if self.more(&mut left) { self.integer::<i64>("dec") } else { Err(other("a list of another length")) }
        };
        let (exponent, mantissa) = (part()?, part()?);
        if self.more(&mut left) {
            return Err(other("a list of another length"));
        }
        Dec::new(exponent, mantissa).ok().ok_or_else(|| other("a number with too many digits or places"))
    }

    fn exact_bytes<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], Wrong> {
        let bytes = self.bytes(expected)?;
        let exact = <[u8; N]>::try_from(&*bytes).ok();
        exact.ok_or_else(|| What::Expected { expected, found: format!("{} bytes", bytes.len()) }.into())
    }

    fn bytes(&mut self, expected: &'static str) -> Result<Cow<'b, [u8]>, Wrong> {
        let start = self.d.position();
        let read = match self.d.datatype() {
            Ok(Cbor::BytesIndef) => self.d.bytes_iter().and_then(|chunks| {
                let mut all = Vec::new();
                for chunk in chunks {
                    all.extend_from_slice(chunk?);
                }
                Ok(Cow::Owned(all))
            }),
            _ => self.d.bytes().map(Cow::Borrowed),
        };
        read.map_err(|error| self.wrong(start, expected, &error))
    }

    fn text(&mut self) -> Result<Cow<'b, str>, Wrong> {
        let start = self.d.position();
        let read = match self.d.datatype() {
            Ok(Cbor::StringIndef) => {
                self.d.str_iter().and_then(|chunks| chunks.collect::<Result<String, _>>()).map(Cow::Owned)
            }
            _ => self.d.str().map(Cow::Borrowed),
        };
        read.map_err(|error| self.wrong(start, "text", &error))
    }

    fn record(&mut self, fields: &'a [Field], levels: usize) -> Result<Vec<Value>, Wrong> {
        let mut left = self.open_list("record")?;
        let mut values = Vec::with_capacity(fields.len());
        for field in fields {
            let value = if self.more(&mut left) {
                self.value(&field.of, levels).map_err(|wrong| wrong.within(Step::Field(field.name.clone())))?
            } else if field.of.is_optional(self.types) {
                self.count()?;
                Value::None
            } else {
                return Err(What::Missing(field.name.clone()).into());
            };
            values.push(value);
        }
        if self.more(&mut left) {
            return Err(What::UnknownField(format!("number {}", fields.len())).into());
        }
        Ok(values)
    }

    fn variant(&mut self, cases: &'a [Case], levels: usize) -> Result<Value, Wrong> {
        let other =
            || Wrong::from(What::Expected { expected: "variant", found: "a list of another length".to_owned() });
        let mut left = self.open_list("variant")?;
        if !self.more(&mut left) {
            return Err(other());
        }
        let number: u64 = self.integer("the number of a case")?;
        let case = usize::try_from(number).ok().and_then(|index| cases.get(index));
        let case = case.ok_or_else(|| What::UnknownCase(format!("number {number}")))?;
        if !self.more(&mut left) {
            return Err(other());
        }
        let mut inner = self.open_list("variant")?;
        let there = self.more(&mut inner);
        let payload = match &case.payload {
            Some(of) if there => {
                Some(self.value(of, levels).map_err(|wrong| wrong.within(Step::Field(case.name.clone())))?)
            }
            Some(of) if of.is_optional(self.types) => {
                self.count()?;
                Some(Value::None)
            }
            Some(_) => return Err(What::NeedsPayload(case.name.clone()).into()),
            None if there => return Err(What::TakesNoPayload(case.name.clone()).into()),
            None => None,
        };
        if there && self.more(&mut inner) || self.more(&mut left) {
            return Err(other());
        }
        let index = u32::try_from(number).ok().ok_or_else(other)?;
        Ok(Value::Variant(index, payload.map(Box::new)))
    }

    fn option(&mut self, some: &'a Type, levels: usize) -> Result<Value, Wrong> {
        if self.peek() == Some(NULL) {
            self.d.set_position(self.d.position() + 1);
            return Ok(Value::None);
        }
        Ok(Value::Some(Box::new(self.value(some, levels)?)))
    }

    fn list(&mut self, item: &'a Type, levels: usize) -> Result<Vec<Value>, Wrong> {
        let mut left = self.open_list("list")?;
        let mut items = Vec::new();
        while self.more(&mut left) {
            let read = self.value(item, levels).map_err(|wrong| wrong.within(Step::Index(items.len())));
            items.push(read?);
        }
        Ok(items)
    }

    fn map(&mut self, key: &'a Type, value: &'a Type, levels: usize) -> Result<Value, Wrong> {
        let start = self.d.position();
        let mut left = self.d.map().map_err(|error| self.wrong(start, "map", &error))?;
        let mut entries = Vec::new();
        while self.more(&mut left) {
            let key = self.value(key, levels).map_err(|wrong| wrong.within(Step::Entry(entries.len())))?;
            let value = self.value(value, levels).map_err(|wrong| wrong.within(Step::key(&key)))?;
            entries.push((key, value));
        }
        Value::map(entries).map_err(|twice| Wrong::from(What::Twice).within(Step::key(&twice.key)))
    }

    /// Begins a list; `None` is one without a length.
    fn open_list(&mut self, expected: &'static str) -> Result<Option<u64>, Wrong> {
        let start = self.d.position();
        self.d.array().map_err(|error| self.wrong(start, expected, &error))
    }

    /// Whether another item follows; steps over the mark at the end of a list without a length. At the end of the bytes
    /// there is always more to come, which the reader of the item will miss.
    fn more(&mut self, left: &mut Option<u64>) -> bool {
        match left {
            Some(0) => false,
            Some(count) => {
                *count -= 1;
                true
            }
            None if self.peek() == Some(BREAK) => {
                self.d.set_position(self.d.position() + 1);
                *left = Some(0);
                false
            }
            None => true,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.d.input().get(self.d.position()).copied()
    }

    /// Says what was found at `start` instead of what the type asks for.
    fn wrong(&self, start: usize, expected: &'static str, error: &Error) -> Wrong {
        let mut at = self.d.clone();
        at.set_position(start);
        let found = at.datatype().map(found);
        match found {
            _ if error.is_end_of_input() => What::Cut.into(),
            Ok("text") if expected == "text" => What::NotUtf8.into(),
            Ok(found) => What::Expected { expected, found: found.to_owned() }.into(),
            Err(_) => What::Expected { expected, found: "bytes that are not CBOR".to_owned() }.into(),
        }
    }
}

/// The word for a CBOR type in messages.
fn found(cbor: Cbor) -> &'static str {
    match cbor {
        Cbor::Bool => "bool",
        Cbor::Null => "null",
        Cbor::Undefined => "undefined",
        Cbor::U8 | Cbor::U16 | Cbor::U32 | Cbor::U64 => "integer",
        Cbor::I8 | Cbor::I16 | Cbor::I32 | Cbor::I64 | Cbor::Int => "integer",
        Cbor::F16 | Cbor::F32 | Cbor::F64 => "floating-point number",
        Cbor::Simple => "simple value",
        Cbor::Bytes | Cbor::BytesIndef => "bytes",
        Cbor::String | Cbor::StringIndef => "text",
        Cbor::Array | Cbor::ArrayIndef => "list",
        Cbor::Map | Cbor::MapIndef => "map",
        Cbor::Tag => "tag",
        Cbor::Break => "end of a list",
        Cbor::Unknown(_) => "bytes that are not CBOR",
    }
}
