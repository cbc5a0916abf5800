//! What values there may be.
//!
//! A type is data: it is written in a definition, hashed with it and shown to people. It says nothing about what a value
//! means, only how it is told from other values. It has a closed form, so every value of every type can be checked,
//! encoded, compared and printed without knowing more than its type.
//!
//! Two promises are worth their restrictions. Each value has one encoding: so there is no float, no option of an option,
//! and a map has keys that are plain scalars. And every value can be walked with a small stack: so types are not
//! recursive and not deep. The shape of a type is checked when it is read; what it refers to is checked by
//! [`Type::check`], which needs the other schemas.
//!
//! As JSON, for people: `"nat"`, `{"record":[["id","uuid"],["price","dec"]]}`, `{"variant":[["open"],["closed","text"]]}`,
//! `{"list":T}`, `{"map":[K,V]}`, `{"option":T}`, `{"ref":"ns/name@1"}`. Lists of pairs keep the order of fields, which is
//! their order in the encoding. As CBOR, `[index, [parts…]]`, what the derive below writes.

mod cbor;
mod json;

use std::collections::{BTreeMap, BTreeSet};

use minicbor::Encode;

use crate::Name;
use crate::path::{Path, Step};

/// Deepest type as it is written; a scalar has depth 1.
pub const MAX_TYPE_DEPTH: usize = 16;
/// Deepest type with its schemas in place of their names; a name counts as one level.
pub const MAX_RESOLVED_DEPTH: usize = 32;
/// Most types within a type as it is written.
pub const MAX_TYPE_PARTS: usize = 1024;
/// Most fields of a record.
pub const MAX_FIELDS: usize = 64;
/// Most cases of a variant.
pub const MAX_CASES: usize = 64;
/// Longest name of a field or a case, in bytes.
pub const MAX_FIELD_NAME: usize = 64;

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode)]
pub enum Type {
    /// True or false.
    #[n(0)]
    Bool,
    /// An integer, 64 bits with sign.
    #[n(1)]
    Int,
    /// An integer from 0, 64 bits.
    #[n(2)]
    Nat,
    /// A decimal number, exactly: for money and thresholds.
    #[n(3)]
    Dec,
    /// Bytes.
    #[n(4)]
    Bytes,
    /// UTF-8 text.
    #[n(5)]
    Text,
    /// A moment: nanoseconds since 1970, UTC, without leap seconds.
    #[n(6)]
    Time,
    /// A length of time in nanoseconds.
    #[n(7)]
    Duration,
    /// 32 bytes that name other bytes.
    #[n(8)]
    Hash,
    /// 16 bytes that name something outside.
    #[n(9)]
    Uuid,
    /// Several values, each with a name; the order is part of the type.
    #[n(10)]
    Record(#[n(0)] Vec<Field>),
    /// One of several cases, some with a value.
    #[n(11)]
    Variant(#[n(0)] Vec<Case>),
    /// Values of one type, in an order.
    #[n(12)]
    List(#[n(0)] Box<Type>),
    /// Values of one type under keys of another: int, nat, text, hash or uuid.
    #[n(13)]
    Map(#[n(0)] Box<Type>, #[n(1)] Box<Type>),
    /// A value or none.
    #[n(14)]
    Option(#[n(0)] Box<Type>),
    /// What the schema of this name says.
    #[n(15)]
    Ref(#[n(0)] Name),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode)]
pub struct Field {
    /// `[a-z][a-z0-9_]*`, unique within the record.
    #[n(0)]
    pub name: String,
    /// Type of its value.
    #[n(1)]
    pub of: Type,
}

/// A case of a variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode)]
pub struct Case {
    /// `[a-z][a-z0-9_]*`, unique within the variant.
    #[n(0)]
    pub name: String,
    /// Type of the value that comes with it; `None`: it has none.
    #[n(1)]
    pub payload: Option<Type>,
}

/// Where schemas are found by name.
pub trait Resolve {
    /// The type that the name stands for.
    fn schema(&self, name: &Name) -> Option<&Type>;
}

impl Resolve for BTreeMap<Name, Type> {
    fn schema(&self, name: &Name) -> Option<&Type> {
        self.get(name)
    }
}

/// Why something is not a type: where, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}{}{what}", if .at.is_whole() { "" } else { ": " })]
pub struct TypeError {
    /// The part that is wrong; `[]` is what a list holds, `[key]` and `[value]` what a map holds.
    pub at: Path,
    /// What is wrong with it.
    pub what: TypeFault,
}

/// What is wrong with a part of a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeFault {
    /// Not the name of a type, nor one of the forms that hold types.
    #[error("{0} is not a type; write \"text\", {{\"list\":\"text\"}}, {{\"record\":[[\"name\",\"text\"]]}}")]
    Unknown(String),
    /// A form with something else in it than belongs there.
    #[error("{form} needs {needs}")]
    Form {
        /// Which.
        form: &'static str,
        /// What it takes.
        needs: &'static str,
    },
    /// The name of a field or a case has other letters, is empty or too long.
    #[error("{0} is not a field name: 1 to {MAX_FIELD_NAME} of a-z, 0-9, '_', of which the first is a letter")]
    FieldName(String),
    /// Two fields or two cases of one name.
    #[error("{0} is there twice")]
    Twice(String),
    /// More than [`MAX_FIELDS`] or [`MAX_CASES`].
    #[error("more than {0} fields or cases")]
    TooWide(usize),
    /// A variant of which there can be no value.
    #[error("a variant needs a case")]
    NoCase,
    /// A key that is not a plain scalar.
    #[error("a key is int, nat, text, hash or uuid")]
    Key,
    /// An option that holds an option: nobody could tell none from none.
    #[error("an option of an option")]
    OptionOfOption,
    /// Deeper than [`MAX_TYPE_DEPTH`], or [`MAX_RESOLVED_DEPTH`] with schemas resolved.
    #[error("nested deeper than {0}")]
    TooDeep(usize),
    /// More than [`MAX_TYPE_PARTS`].
    #[error("more than {MAX_TYPE_PARTS} types in one")]
    TooLarge,
    /// Refers to a schema that nobody knows.
    #[error("there is no schema {0}")]
    UnknownSchema(Name),
    /// Refers to a schema that refers back.
    #[error("schema {0} refers to itself")]
    Recursive(Name),
}

impl TypeError {
    pub(crate) fn within(self, step: Step) -> TypeError {
        TypeError { at: self.at.within(step), what: self.what }
    }
}

impl From<TypeFault> for TypeError {
    fn from(what: TypeFault) -> TypeError {
        TypeError { at: Path::default(), what }
    }
}

impl Type {
    /// Checks the shape and everything that it refers to, however far away.
    pub fn check(&self, types: &(impl Resolve + ?Sized)) -> Result<(), TypeError> {
        self.check_shape()?;
        Resolving { types, open: Vec::new(), known: BTreeMap::new() }.depth(self, MAX_RESOLVED_DEPTH)?;
        Ok(())
    }

    /// Checks what can be seen without other schemas: names, numbers, depth, keys. A type that was read from JSON or CBOR
    /// has passed it; one that was put together in code may not have.
    pub fn check_shape(&self) -> Result<(), TypeError> {
        let mut parts = MAX_TYPE_PARTS;
        shape(self, MAX_TYPE_DEPTH, &mut parts)
    }

    /// The word for it in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Nat => "nat",
            Type::Dec => "dec",
            Type::Bytes => "bytes",
            Type::Text => "text",
            Type::Time => "time",
            Type::Duration => "duration",
            Type::Hash => "hash",
            Type::Uuid => "uuid",
            Type::Record(_) => "record",
            Type::Variant(_) => "variant",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Option(_) => "option",
            Type::Ref(_) => "ref",
        }
    }

    /// Whether it may be the key of a map, or of the cells of a module.
    pub fn is_key(&self) -> bool {
        matches!(self, Type::Int | Type::Nat | Type::Text | Type::Hash | Type::Uuid)
    }

    /// Whether none is one of its values, so that a record may leave it out. Names are resolved.
    pub fn is_optional(&self, types: &(impl Resolve + ?Sized)) -> bool {
        let mut of = self;
        for _ in 0..MAX_RESOLVED_DEPTH {
            match of {
                Type::Option(_) => return true,
                Type::Ref(name) => match types.schema(name) {
                    Some(found) => of = found,
                    None => return false,
                },
                _ => return false,
            }
        }
        false
    }

    /// The types directly within this one, with the step to each.
    fn parts(&self) -> Vec<(Step, &Type)> {
        let key = |name: &str| Step::Key(name.to_owned());
        match self {
            Type::Record(fields) => fields.iter().map(|field| (Step::Field(field.name.clone()), &field.of)).collect(),
            Type::Variant(cases) => {
                cases.iter().filter_map(|case| Some((Step::Field(case.name.clone()), case.payload.as_ref()?))).collect()
            }
            Type::List(of) => vec![(key(""), of)],
            Type::Map(of, to) => vec![(key("key"), of), (key("value"), to)],
            Type::Option(of) => vec![(Step::Field("some".to_owned()), of)],
            _ => Vec::new(),
        }
    }
}

/// Checks one type and those within it; `levels` may still follow, `parts` may still be met.
fn shape(of: &Type, levels: usize, parts: &mut usize) -> Result<(), TypeError> {
    let Some(levels) = levels.checked_sub(1) else { return Err(TypeFault::TooDeep(MAX_TYPE_DEPTH).into()) };
    *parts = parts.checked_sub(1).ok_or(TypeFault::TooLarge)?;
    match of {
        Type::Record(fields) => names(fields.iter().map(|field| &field.name), MAX_FIELDS)?,
        Type::Variant(cases) if cases.is_empty() => return Err(TypeFault::NoCase.into()),
        Type::Variant(cases) => names(cases.iter().map(|case| &case.name), MAX_CASES)?,
        Type::Map(key, _) if !key.is_key() => return Err(TypeFault::Key.into()),
        Type::Option(inner) if matches!(**inner, Type::Option(_)) => return Err(TypeFault::OptionOfOption.into()),
        _ => {}
    }
    of.parts().into_iter().try_for_each(|(step, part)| shape(part, levels, parts).map_err(|error| error.within(step)))
}

/// Checks the names of the fields of one record, or of the cases of one variant.
fn names<'a>(names: impl ExactSizeIterator<Item = &'a String>, most: usize) -> Result<(), TypeError> {
    if names.len() > most {
        return Err(TypeFault::TooWide(most).into());
    }
    let mut seen = BTreeSet::new();
    for name in names {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.len() > MAX_FIELD_NAME
            || !name.starts_with(|c: char| c.is_ascii_lowercase())
            || !name.chars().all(plain)
        {
            return Err(TypeFault::FieldName(crate::path::quoted(name)).into());
        }
        if !seen.insert(name) {
            return Err(TypeFault::Twice(name.clone()).into());
        }
    }
    Ok(())
}

/// Follows names to schemas, each once.
struct Resolving<'a, R: ?Sized> {
    types: &'a R,
    /// Schemas that led here.
    open: Vec<&'a Name>,
    /// Depth of each schema that has been walked.
    known: BTreeMap<&'a Name, usize>,
}

impl<'a, R: Resolve + ?Sized> Resolving<'a, R> {
    /// How deep a type is with everything in place that it refers to; at most `levels`.
    fn depth(&mut self, of: &'a Type, levels: usize) -> Result<usize, TypeError> {
        let deep = || TypeFault::TooDeep(MAX_RESOLVED_DEPTH);
        let levels = levels.checked_sub(1).ok_or_else(deep)?;
        let mut below = if let Type::Ref(name) = of { self.schema(name, levels)? } else { 0 };
        for (step, part) in of.parts() {
            let inner = self.depth(part, levels).map_err(|error| error.within(step))?;
            below = below.max(inner);
        }
        match of {
            Type::Option(inner) if inner.is_optional(self.types) => Err(TypeFault::OptionOfOption.into()),
            _ if below > levels => Err(deep().into()),
            _ => Ok(below + 1),
        }
    }

    fn schema(&mut self, name: &'a Name, levels: usize) -> Result<usize, TypeError> {
        if let Some(depth) = self.known.get(name) {
            return Ok(*depth);
        }
        if self.open.contains(&name) {
            return Err(TypeFault::Recursive(name.clone()).into());
        }
        let of = self.types.schema(name).ok_or_else(|| TypeFault::UnknownSchema(name.clone()))?;
        of.check_shape()?;
        self.open.push(name);
        let depth = self.depth(of, levels)?;
        self.open.pop();
        self.known.insert(name, depth);
        Ok(depth)
    }
}
