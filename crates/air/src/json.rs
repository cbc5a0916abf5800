//! Values as people and programs outside write them.
//!
//! | type | JSON |
//! |---|---|
//! | bool | `true` |
//! | int, nat | `7`; beyond 2^53 the text `"9007199254740993"`, because many readers of JSON would round the number |
//! | dec | `"12.5"`; a whole number may be written as a number |
//! | bytes | `"aGVsbG8="`, base64 with padding |
//! | text | `"…"` |
//! | time | `"2026-01-31T12:00:00.5Z"`, always UTC; or nanoseconds since 1970 |
//! | duration | `"1h30m"`, `"250ms"`; or nanoseconds |
//! | hash | `"…"`, 64 hex digits |
//! | uuid | `"0190a5b2-7c1e-7f00-8a00-0123456789ab"` |
//! | record | `{"price": "12.5", …}`; a field that is optional may be left out |
//! | variant | `"open"`, `{"cancelled": "why"}` |
//! | list | `[…]` |
//! | map | `{"eu": …}` when keys are texts, otherwise `[[key, value], …]` |
//! | option | `null`, or the value |
//!
//! What is read may be in any of these forms; what is written is always in the first one. Nothing is guessed: an unknown
//! field, a number with a fraction where there can be none, a time in another zone are refused.

mod text;

use data_encoding::BASE64;
use serde_json::{Map, Number, Value as Json};

use crate::encode::within_bytes;
use crate::path::{Step, What, Wrong, quoted};
use crate::types::{Case, Field};
use crate::value::{uuid_from_text, uuid_text};
use crate::{Hash, MAX_RESOLVED_DEPTH, MAX_VALUE_PARTS, Resolve, Type, Value};

/// Largest number that every reader of JSON keeps (RFC 7493, 2.2), and smallest with its sign turned.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// Reads a value of a type from JSON.
pub fn from_json(types: &(impl Resolve + ?Sized), of: &Type, json: &Json) -> Result<Value, Wrong> {
    let value = Reading { types, parts: MAX_VALUE_PARTS }.value(of, json, MAX_RESOLVED_DEPTH)?;
    within_bytes(&value)?;
    Ok(value)
}

/// Writes a value of a type as JSON. Refuses a value that is not of this type.
pub fn to_json(types: &(impl Resolve + ?Sized), of: &Type, value: &Value) -> Result<Json, Wrong> {
    write(types, of, value, MAX_RESOLVED_DEPTH)
}

struct Reading<'a, R: ?Sized> {
    types: &'a R,
    parts: usize,
}

impl<R: Resolve + ?Sized> Reading<'_, R> {
    fn value(&mut self, of: &Type, json: &Json, levels: usize) -> Result<Value, Wrong> {
        let levels = levels.checked_sub(1).ok_or(What::TooDeep)?;
        if let Type::Ref(name) = of {
            let of = self.types.schema(name).ok_or_else(|| What::UnknownSchema(name.clone()))?;
            return self.value(of, json, levels);
        }
        self.count()?;
        match (of, json) {
            (Type::Record(fields), Json::Object(object)) => self.record(fields, object, levels),
            (Type::Variant(cases), Json::String(name)) => self.variant(cases, name, None, levels),
            (Type::Variant(cases), Json::Object(object)) => match object.iter().next() {
                Some((name, payload)) if object.len() == 1 => self.variant(cases, name, Some(payload), levels),
                _ => Err(expected("the name of a case, or an object with it alone", json)),
            },
            (Type::List(of), Json::Array(items)) => {
                let items = items.iter().enumerate();
                let read = items.map(|(at, item)| self.value(of, item, levels).map_err(|w| w.within(Step::Index(at))));
                read.collect::<Result<_, _>>().map(Value::List)
            }
            (Type::Map(key, of), Json::Object(object)) if **key == Type::Text => {
                let entries = object.iter().map(|(name, json)| {
                    self.count()?;
                    let key = Value::Text(name.clone());
                    let value = self.value(of, json, levels).map_err(|wrong| wrong.within(Step::key(&key)))?;
                    Ok((key, value))
                });
                map(entries.collect::<Result<_, Wrong>>()?)
            }
            (Type::Map(key, of), Json::Array(pairs)) if **key != Type::Text => {
                let pairs = pairs.iter().enumerate();
                map(pairs.map(|(at, pair)| self.entry((key, of), at, pair, levels)).collect::<Result<_, _>>()?)
            }
            (Type::Option(_), Json::Null) => Ok(Value::None),
            (Type::Option(of), json) => Ok(Value::Some(Box::new(self.value(of, json, levels)?))),
            (of, json) => scalar(of, json).ok_or_else(|| expected(form(of), json)),
        }
    }

    fn count(&mut self) -> Result<(), Wrong> {
        self.parts = self.parts.checked_sub(1).ok_or(What::TooMany)?;
        Ok(())
    }

    fn record(&mut self, fields: &[Field], object: &Map<String, Json>, levels: usize) -> Result<Value, Wrong> {
        if let Some(name) = object.keys().find(|name| fields.iter().all(|field| field.name != **name)) {
            return Err(What::UnknownField(quoted(name)).into());
        }
        let values = fields.iter().map(|field| match object.get(&field.name) {
            Some(json) => self.value(&field.of, json, levels).map_err(|w| w.within(Step::Field(field.name.clone()))),
            None if field.of.is_optional(self.types) => {
                self.count()?;
                Ok(Value::None)
            }
            None => Err(What::Missing(field.name.clone()).into()),
        });
        values.collect::<Result<_, _>>().map(Value::Record)
    }

    fn variant(&mut self, cases: &[Case], name: &str, json: Option<&Json>, levels: usize) -> Result<Value, Wrong> {
        let (index, case) =
            (0..).zip(cases).find(|(_, case)| case.name == name).ok_or_else(|| What::UnknownCase(quoted(name)))?;
        let payload = match (&case.payload, json) {
            (None, None) => None,
            (Some(of), Some(json)) => {
                let payload = self.value(of, json, levels);
                Some(Box::new(payload.map_err(|wrong| wrong.within(Step::Field(case.name.clone())))?))
            }
            (Some(_), None) => return Err(What::NeedsPayload(case.name.clone()).into()),
            (None, Some(_)) => return Err(What::TakesNoPayload(case.name.clone()).into()),
        };
        Ok(Value::Variant(index, payload))
    }

    fn entry(
        &mut self,
        (key, of): (&Type, &Type),
        at: usize,
        pair: &Json,
        levels: usize,
    ) -> Result<(Value, Value), Wrong> {
        let Some([first, second]) = pair.as_array().map(Vec::as_slice) else {
            return Err(expected("[key, value]", pair).within(Step::Entry(at)));
        };
        let key = self.value(key, first, levels).map_err(|wrong| wrong.within(Step::Entry(at)))?;
        let value = self.value(of, second, levels).map_err(|wrong| wrong.within(Step::key(&key)))?;
        Ok((key, value))
    }
}

fn map(entries: Vec<(Value, Value)>) -> Result<Value, Wrong> {
    Value::map(entries).map_err(|twice| Wrong::from(What::Twice).within(Step::key(&twice.key)))
}

/// Reads a value without parts; `None` when it is not one of the type's forms.
fn scalar(of: &Type, json: &Json) -> Option<Value> {
    Some(match (of, json) {
        (Type::Bool, Json::Bool(yes)) => Value::Bool(*yes),
        (Type::Int, Json::Number(number)) => Value::Int(number.as_i64()?),
        (Type::Int, Json::String(text)) => Value::Int(text::number(text)?),
        (Type::Nat, Json::Number(number)) => Value::Nat(number.as_u64()?),
        (Type::Nat, Json::String(text)) => Value::Nat(text::number(text)?),
        (Type::Dec, Json::Number(number)) => Value::Dec(number.as_i64()?.into()),
        (Type::Dec, Json::String(text)) => Value::Dec(text.parse().ok()?),
        (Type::Bytes, Json::String(text)) => Value::Bytes(BASE64.decode(text.as_bytes()).ok()?),
        (Type::Text, Json::String(text)) => Value::Text(text.clone()),
        (Type::Time, Json::Number(number)) => Value::Time(number.as_u64()?),
        (Type::Time, Json::String(text)) => Value::Time(text::time(text)?),
        (Type::Duration, Json::Number(number)) => Value::Duration(number.as_u64()?),
        (Type::Duration, Json::String(text)) => Value::Duration(text::duration(text)?),
        (Type::Hash, Json::String(text)) => Value::Hash(text.parse::<Hash>().ok()?),
        (Type::Uuid, Json::String(text)) => Value::Uuid(uuid_from_text(text)?),
        _ => return None,
    })
}

/// What a type looks like in JSON, for messages.
fn form(of: &Type) -> &'static str {
    match of {
        Type::Dec => "dec as text, \"12.5\"",
        Type::Bytes => "bytes as base64",
        Type::Time => "time as \"2026-01-31T12:00:00Z\" or nanoseconds",
        Type::Duration => "duration as \"1h30m\" or nanoseconds",
        Type::Hash => "hash of 64 hex digits",
        Type::Uuid => "uuid as \"0190a5b2-7c1e-7f00-8a00-0123456789ab\"",
        Type::Record(_) => "record as an object",
        Type::Variant(_) => "the name of a case, or an object with it alone",
        Type::Map(key, _) if **key == Type::Text => "map as an object",
        Type::Map(..) => "map as [[key, value], …]",
        other => other.kind(),
    }
}

fn expected(expected: &'static str, json: &Json) -> Wrong {
    let found = match json {
        Json::Null => "null".to_owned(),
        Json::Bool(yes) => yes.to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => format!("text {}", quoted(text)),
        Json::Array(_) => "list".to_owned(),
        Json::Object(_) => "object".to_owned(),
    };
    What::Expected { expected, found }.into()
}

fn write(types: &(impl Resolve + ?Sized), of: &Type, value: &Value, levels: usize) -> Result<Json, Wrong> {
    let levels = levels.checked_sub(1).ok_or(What::TooDeep)?;
    let part = |of: &Type, value: &Value, step: &dyn Fn() -> Step| {
        write(types, of, value, levels).map_err(|wrong| wrong.within(step()))
    };
    Ok(match (of, value) {
        (Type::Ref(name), value) => {
            let of = types.schema(name).ok_or_else(|| What::UnknownSchema(name.clone()))?;
            return write(types, of, value, levels);
        }
        (Type::Bool, Value::Bool(yes)) => Json::Bool(*yes),
        (Type::Int, Value::Int(number)) if number.unsigned_abs() > MAX_SAFE => Json::String(number.to_string()),
        (Type::Int, Value::Int(number)) => Json::Number(Number::from(*number)),
        (Type::Nat, Value::Nat(number)) if *number > MAX_SAFE => Json::String(number.to_string()),
        (Type::Nat, Value::Nat(number)) => Json::Number(Number::from(*number)),
        (Type::Dec, Value::Dec(dec)) => Json::String(dec.to_string()),
        (Type::Bytes, Value::Bytes(bytes)) => Json::String(BASE64.encode(bytes)),
        (Type::Text, Value::Text(text)) => Json::String(text.clone()),
        (Type::Time, Value::Time(ns)) => Json::String(text::time_text(*ns)),
        (Type::Duration, Value::Duration(ns)) => Json::String(text::duration_text(*ns)),
        (Type::Hash, Value::Hash(hash)) => Json::String(hash.to_string()),
        (Type::Uuid, Value::Uuid(uuid)) => Json::String(uuid_text(uuid)),
        (Type::Record(fields), Value::Record(values)) if fields.len() == values.len() => {
            let pairs = fields.iter().zip(values).map(|(field, value)| {
                Ok((field.name.clone(), part(&field.of, value, &|| Step::Field(field.name.clone()))?))
            });
            Json::Object(pairs.collect::<Result<_, Wrong>>()?)
        }
        (Type::Variant(cases), Value::Variant(index, payload)) => {
            let case = usize::try_from(*index).ok().and_then(|index| cases.get(index));
            let case = case.ok_or_else(|| What::UnknownCase(format!("number {index}")))?;
            match (&case.payload, payload) {
                (None, None) => Json::String(case.name.clone()),
                (Some(of), Some(value)) => {
                    let json = part(of, value, &|| Step::Field(case.name.clone()))?;
                    Json::Object(Map::from_iter([(case.name.clone(), json)]))
                }
                (Some(_), None) => return Err(What::NeedsPayload(case.name.clone()).into()),
                (None, Some(_)) => return Err(What::TakesNoPayload(case.name.clone()).into()),
            }
        }
        (Type::List(of), Value::List(items)) => {
            let items = items.iter().enumerate();
            items.map(|(at, item)| part(of, item, &|| Step::Index(at))).collect::<Result<_, _>>().map(Json::Array)?
        }
        (Type::Map(key, of), Value::Map(entries)) if **key == Type::Text => {
            let pairs = entries.iter().map(|(key, value)| match key {
                Value::Text(name) => Ok((name.clone(), part(of, value, &|| Step::key(key))?)),
                other => Err(Wrong::from(What::Expected { expected: "text", found: other.kind().to_owned() })),
            });
            Json::Object(pairs.collect::<Result<_, _>>()?)
        }
        (Type::Map(key_type, of), Value::Map(entries)) => {
            let pairs = entries.iter().enumerate().map(|(at, (key, value))| {
                let first = part(key_type, key, &|| Step::Entry(at))?;
                Ok(Json::Array(vec![first, part(of, value, &|| Step::key(key))?]))
            });
            Json::Array(pairs.collect::<Result<_, Wrong>>()?)
        }
        (Type::Option(_), Value::None) => Json::Null,
        (Type::Option(of), Value::Some(value)) => return write(types, of, value, levels),
        (of, value) => return Err(What::Expected { expected: of.kind(), found: value.kind().to_owned() }.into()),
    })
}
