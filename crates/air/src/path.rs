//! Where in a value or in a type something is wrong: `items[3].price`.
//!
//! A path costs nothing until something is wrong. Then it is built on the way out, innermost step first, by those who
//! know which part they were looking at.

use std::fmt;

use crate::{Name, Value};

/// One step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To a field of a record or the payload of a case, by name: `.price`.
    Field(String),
    /// To an item of a list, from 0: `[3]`.
    Index(usize),
    /// To the value under a key of a map: `["eu"]`.
    Key(String),
    /// To an entry of a map, from 0, while its key is not known: `{2}`.
    Entry(usize),
}

/// The way from the whole to a part, the outermost step last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// Whether this is the whole.
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// The steps, from the whole inwards.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.0.iter().rev()
    }

    /// The same part, seen from one step further out.
    #[must_use]
    pub fn within(mut self, step: Step) -> Path {
        self.0.push(step);
        self
    }
}

impl Step {
    /// The step to what a map holds under `key`.
    pub(crate) fn key(key: &Value) -> Step {
        Step::Key(match key {
            Value::Int(number) => number.to_string(),
            Value::Nat(number) => number.to_string(),
            Value::Text(text) => quoted(text),
            Value::Hash(hash) => hash.to_string(),
            Value::Uuid(uuid) => crate::value::uuid_text(uuid),
            _ => "?".to_owned(),
        })
    }
}

impl fmt::Display for Path {
    /// Prints the way from the whole inwards; the whole itself is the empty text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps().enumerate() {
            match step {
                Step::Field(name) if at == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => write!(f, "[{key}]")?,
                Step::Entry(index) => write!(f, "{{{index}}}")?,
            }
        }
        Ok(())
    }
}

/// A value that is not of its type: where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}{}{what}", if .at.is_whole() { "" } else { ": " })]
pub struct Wrong {
    /// The part that is wrong.
    pub at: Path,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with a part of a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// Something else than the type says.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What the type says.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A field that is not optional is not there.
    #[error("field {0} is missing")]
    Missing(String),
    /// The record has no such field.
    #[error("the record has no field {0}")]
    UnknownField(String),
    /// The variant has no such case.
    #[error("the variant has no case {0}")]
    UnknownCase(String),
    /// A case without the value that belongs to it.
    #[error("case {0} needs a value")]
    NeedsPayload(String),
    /// A case with a value that does not belong to it.
    #[error("case {0} takes no value")]
    TakesNoPayload(String),
    /// A map holds two values under one key.
    #[error("the key is there twice")]
    Twice,
    /// The same value has another, canonical encoding; or the keys of a map are not in their order.
    #[error("not in canonical form")]
    NotCanonical,
    /// A text that is not UTF-8.
    #[error("expected text, found bytes that are not UTF-8")]
    NotUtf8,
    /// The bytes end within the value.
    #[error("the bytes end too early")]
    Cut,
    /// Bytes after the value.
    #[error("bytes behind the value: {0}")]
    Trailing(usize),
    /// More than [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), encoded.
    #[error("longer than {max} bytes", max = crate::MAX_VALUE_BYTES)]
    TooLong,
    /// More than [`MAX_VALUE_PARTS`](crate::MAX_VALUE_PARTS).
    #[error("more than {max} parts", max = crate::MAX_VALUE_PARTS)]
    TooMany,
    /// The type is deeper than [`MAX_RESOLVED_DEPTH`](crate::MAX_RESOLVED_DEPTH), with its schemas resolved.
    #[error("nested deeper than {max}", max = crate::MAX_RESOLVED_DEPTH)]
    TooDeep,
    /// The type refers to a schema that nobody knows.
    #[error("there is no schema {0}")]
    UnknownSchema(Name),
}

impl Wrong {
    /// The same part, seen from one step further out.
    #[must_use]
    pub fn within(self, step: Step) -> Wrong {
        Wrong { at: self.at.within(step), what: self.what }
    }
}

impl From<What> for Wrong {
    fn from(what: What) -> Wrong {
        Wrong { at: Path::default(), what }
    }
}

/// A text from outside as a message may quote it: escaped, and not at any length.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_from_the_whole_inwards() {
        let steps = [Step::Field("price".into()), Step::Index(3), Step::key(&Value::Text("e\"u".into()))];
        let path = steps.into_iter().fold(Path::default(), Path::within).within(Step::Field("items".into()));
        assert_eq!(path.to_string(), r#"items["e\"u"][3].price"#);
        assert_eq!(Wrong::from(What::Twice).to_string(), "the key is there twice");
        assert_eq!(Wrong::from(What::Cut).within(Step::Entry(2)).to_string(), "{2}: the bytes end too early");
    }
}
