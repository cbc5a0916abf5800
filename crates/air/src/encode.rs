//! Values to bytes: one value, one sequence of bytes.
//!
//! RFC 8949, core deterministic: shortest numbers, definite lengths, map keys sorted. What belongs to us:
//!
//! ```text
//! record   = [field…]       in the order of the type; fields that are none at the end are left out
//! variant  = [index, [value]] / [index, []]      [] also for a value that is none
//! option   = null / value
//! list     = [item…]
//! map      = { key: value… }
//! dec      = 4([exponent, mantissa])
//! int, nat, time, duration = integer
//! bytes, hash, uuid        = byte string
//! ```
//!
//! This is what minicbor's derive writes for a struct, an enum, an `Option`; leaving out the last fields that are none is
//! its habit, not ours.

use std::convert::Infallible;

use minicbor::encode::{Error, Write};
use minicbor::{Encode, Encoder};

use crate::path::{Step, What, Wrong};
use crate::value::key_order;
use crate::{MAX_RESOLVED_DEPTH, MAX_VALUE_BYTES, MAX_VALUE_PARTS, Resolve, Type, Value};

/// The canonical bytes of a value.
///
/// A value that was never checked against a type also has bytes; then they may be those of no value of any type.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    never(minicbor::encode(value, &mut bytes));
    bytes
}

/// How long [`encode`]'s bytes are, without making them.
pub fn encoded_len(value: &Value) -> usize {
    struct Count(usize);

    impl Write for Count {
        type Error = Infallible;

        fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
            self.0 += bytes.len();
            Ok(())
        }
    }

    let mut count = Count(0);
    never(minicbor::encode(value, &mut count));
    count.0
}

fn never(result: Result<(), Error<Infallible>>) {
    if let Err(error) = result {
        unreachable!("writing to memory cannot be refused: {error}");
    }
}

impl<C> Encode<C> for Value {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, context: &mut C) -> Result<(), Error<W::Error>> {
        match self {
            Value::Bool(yes) => e.bool(*yes)?.ok(),
            Value::Int(number) => e.i64(*number)?.ok(),
            Value::Nat(number) | Value::Time(number) | Value::Duration(number) => e.u64(*number)?.ok(),
            Value::Dec(dec) => dec.encode(e, context),
            Value::Bytes(bytes) => e.bytes(bytes)?.ok(),
            Value::Text(text) => e.str(text)?.ok(),
            Value::Hash(hash) => e.bytes(&hash.0)?.ok(),
            Value::Uuid(uuid) => e.bytes(uuid)?.ok(),
            Value::Record(fields) => {
                let last = fields.iter().rposition(|field| *field != Value::None);
                list(&fields[..last.map_or(0, |at| at + 1)], e, context)
            }
            Value::Variant(index, payload) => {
                e.array(2)?.u32(*index)?;
                match payload.as_deref() {
                    None | Some(Value::None) => e.array(0)?.ok(),
                    Some(payload) => payload.encode(e.array(1)?, context),
                }
            }
            Value::List(items) => list(items, e, context),
            Value::Map(entries) => {
                e.map(entries.len() as u64)?;
                entries.iter().try_for_each(|(key, value)| {
                    key.encode(e, context)?;
                    value.encode(e, context)
                })
            }
            Value::None => e.null()?.ok(),
            Value::Some(value) => value.encode(e, context),
        }
    }

    fn is_nil(&self) -> bool {
        *self == Value::None
    }
}

fn list<C, W: Write>(items: &[Value], e: &mut Encoder<W>, context: &mut C) -> Result<(), Error<W::Error>> {
    e.array(items.len() as u64)?;
    items.iter().try_for_each(|item| item.encode(e, context))
}

/// Checks that a value that was put together in code is one of this type, and within the bounds.
pub fn check(types: &(impl Resolve + ?Sized), of: &Type, value: &Value) -> Result<(), Wrong> {
    Checking { types, parts: MAX_VALUE_PARTS }.value(of, value, MAX_RESOLVED_DEPTH)?;
    within_bytes(value)
}

/// Checks the length of a value that is in order otherwise.
pub(crate) fn within_bytes(value: &Value) -> Result<(), Wrong> {
    if encoded_len(value) > MAX_VALUE_BYTES { Err(What::TooLong.into()) } else { Ok(()) }
}

struct Checking<'a, R: ?Sized> {
    types: &'a R,
    parts: usize,
}

impl<R: Resolve + ?Sized> Checking<'_, R> {
    fn value(&mut self, of: &Type, value: &Value, levels: usize) -> Result<(), Wrong> {
        let levels = levels.checked_sub(1).ok_or(What::TooDeep)?;
        if let Type::Ref(name) = of {
            let of = self.types.schema(name).ok_or_else(|| What::UnknownSchema(name.clone()))?;
            return self.value(of, value, levels);
        }
        self.parts = self.parts.checked_sub(1).ok_or(What::TooMany)?;
        match (of, value) {
            (Type::Bool, Value::Bool(_))
            | (Type::Int, Value::Int(_))
            | (Type::Nat, Value::Nat(_))
            | (Type::Dec, Value::Dec(_))
            | (Type::Bytes, Value::Bytes(_))
            | (Type::Text, Value::Text(_))
            | (Type::Time, Value::Time(_))
            | (Type::Duration, Value::Duration(_))
            | (Type::Hash, Value::Hash(_))
            | (Type::Uuid, Value::Uuid(_))
            | (Type::Option(_), Value::None) => Ok(()),
            (Type::Option(of), Value::Some(value)) => self.value(of, value, levels),
            (Type::Record(fields), Value::Record(values)) => {
                if let Some(field) = fields.get(values.len()) {
                    return Err(What::Missing(field.name.clone()).into());
                }
                if values.len() > fields.len() {
                    return Err(What::UnknownField(format!("number {}", fields.len())).into());
                }
                fields.iter().zip(values).try_for_each(|(field, value)| {
                    self.value(&field.of, value, levels).map_err(|wrong| wrong.within(Step::Field(field.name.clone())))
                })
            }
            (Type::Variant(cases), Value::Variant(index, payload)) => {
                let case = usize::try_from(*index).ok().and_then(|index| cases.get(index));
                let case = case.ok_or_else(|| What::UnknownCase(format!("number {index}")))?;
                match (&case.payload, payload) {
                    (None, None) => Ok(()),
                    (Some(of), Some(value)) => {
                        self.value(of, value, levels).map_err(|wrong| wrong.within(Step::Field(case.name.clone())))
                    }
                    (Some(_), None) => Err(What::NeedsPayload(case.name.clone()).into()),
                    (None, Some(_)) => Err(What::TakesNoPayload(case.name.clone()).into()),
                }
            }
            (Type::List(of), Value::List(items)) => items.iter().enumerate().try_for_each(|(index, item)| {
                self.value(of, item, levels).map_err(|wrong| wrong.within(Step::Index(index)))
            }),
            (Type::Map(key, of), Value::Map(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    self.value(key, &entry.0, levels).map_err(|wrong| wrong.within(Step::Entry(index)))?;
                    self.value(of, &entry.1, levels).map_err(|wrong| wrong.within(Step::key(&entry.0)))?;
                }
                match entries.windows(2).find(|pair| key_order(&pair[0].0, &pair[1].0).is_ge()) {
                    Some(pair) if pair[0].0 == pair[1].0 => Err(Wrong::from(What::Twice).within(Step::key(&pair[1].0))),
                    Some(pair) => Err(Wrong::from(What::NotCanonical).within(Step::key(&pair[1].0))),
                    None => Ok(()),
                }
            }
            (of, value) => Err(What::Expected { expected: of.kind(), found: value.kind().to_owned() }.into()),
        }
    }
}
