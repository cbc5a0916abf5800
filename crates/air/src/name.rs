//! What things in a world are called: `ns/name@version`.
//!
//! A name never changes what it stands for. What changes gets the next version, so that an old journal still reads with
//! the schemas that it was written with. `ns` says who answers for the definition; `sys` is the daemon's own, and
//! nothing that comes from outside may be defined under it.
//!
//! There is one spelling for each name: no upper case, no leading zero, no `+`. So names are equal when their texts are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};

/// Longest name space and longest name, in bytes.
pub const MAX_NAME_PART: usize = 64;

/// The name space that belongs to the daemon.
const RESERVED: &str = "sys";

/// Name of a definition, with its version. Cheap to clone; ordered by name space, name, then version as a number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    ns: Arc<str>,
    name: Arc<str>,
    version: u32,
}

/// A text that is not the name of a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No `/`, or no `@`.
    #[error("{text:?} is not a name; write ns/name@1")]
    Shape {
        /// The text.
        text: String,
    },
    /// A name space or a name with other letters, empty or too long.
    #[error(
        "{text:?} is not a name: {part:?} is not 1 to {MAX_NAME_PART} of a-z, 0-9, '.', '-', of which the first is a letter or a digit"
    )]
    Part {
        /// The text.
        text: String,
        /// Which part of it.
        part: String,
    },
    /// A version that is not 1, 2, 3…
    #[error("{text:?} is not a name: {version:?} is not a version; write @1")]
    Version {
        /// The text.
        text: String,
        /// Which part of it.
        version: String,
    },
}

impl Name {
    /// The name space, before the slash.
    pub fn ns(&self) -> &str {
        &self.ns
    }

    /// The name in its space, between slash and `@`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version, from 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether only the daemon may define it.
    pub fn is_reserved(&self) -> bool {
        &*self.ns == RESERVED
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shape = || NameError::Shape { text: text.to_owned() };
        let (ns, rest) = text.split_once('/').ok_or_else(shape)?;
        let (name, version) = rest.split_once('@').ok_or_else(shape)?;
        if let Some(part) = [ns, name].into_iter().find(|part| !is_part(part)) {
            return Err(NameError::Part { text: text.to_owned(), part: part.to_owned() });
        }
        let bad = || NameError::Version { text: text.to_owned(), version: version.to_owned() };
        let number: u32 = version.parse().ok().filter(|number: &u32| *number > 0).ok_or_else(bad)?;
        if !version.starts_with(|c: char| matches!(c, '1'..='9')) {
            return Err(bad());
        }
        Ok(Name { ns: ns.into(), name: name.into(), version: number })
    }
}

fn is_part(part: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.len() <= MAX_NAME_PART
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'.' | b'-'))
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.ns, self.name, self.version)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.to_string()
    }
}

impl<C> Encode<C> for Name {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        d.str()?.parse().map_err(|error: NameError| decode::Error::message(error).at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for text in ["shop/order@1", "a/b@4294967295", "sys/denied@2", "0.x-y/9@10"] {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(serde_json::to_value(&name).unwrap(), text);
            assert_eq!(serde_json::from_value::<Name>(text.into()).unwrap(), name);
            assert_eq!(minicbor::decode::<Name>(&minicbor::to_vec(&name).unwrap()).unwrap(), name);
        }
        let long = format!("{}/b@1", "a".repeat(65));
        let refused = [
            "",
            "order",
            "shop/order",
            "order@1",
            "/a@1",
            "a/@1",
            "a/b@",
            "a/b@0",
            "a/b@01",
            "a/b@+1",
            "a/b@4294967296",
            "A/b@1",
            "a/b_c@1",
            "a/.b@1",
            "-a/b@1",
            "a/b/c@1",
            "a/b@1@2",
            " a/b@1",
            "a/b@1 ",
            "a/ä@1",
            &long,
        ];
        for text in refused {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
            assert!(serde_json::from_value::<Name>(text.into()).is_err(), "{text:?}");
            assert!(minicbor::decode::<Name>(&minicbor::to_vec(text).unwrap()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_one_name_space_is_reserved() {
        assert!("sys/timer@1".parse::<Name>().unwrap().is_reserved());
        assert!(!"sys.x/timer@1".parse::<Name>().unwrap().is_reserved());
        assert!(!"shop/sys@1".parse::<Name>().unwrap().is_reserved());
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert!(name("a/b@9") < name("a/b@10"));
        assert!(name("a/b@10") < name("a/c@1"));
    }
}
