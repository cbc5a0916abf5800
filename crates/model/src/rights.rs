//! Rights on files: five bits and the words for them.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A set of rights on a file or a subtree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct Rights(#[n(0)] u8);

impl Rights {
    /// No right at all.
    pub const NONE: Rights = Rights(0);
    /// Read a file, list a directory.
    pub const READ: Rights = Rights(1);
    /// Change a file's content or attributes.
    pub const WRITE: Rights = Rights(2);
    /// Execute a file or map it executable.
    pub const EXEC: Rights = Rights(4);
    /// Create a name.
    pub const CREATE: Rights = Rights(8);
    /// Remove a name.
    pub const DELETE: Rights = Rights(16);
    /// All five.
    pub const ALL: Rights = Rights(31);
    /// Everything that changes something: write, create, delete.
    pub const CHANGE: Rights = Rights(2 | 8 | 16);

    /// The bits, as the kernel contract numbers them.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Rights from bits; unknown bits are dropped.
    pub const fn from_bits_truncate(bits: u32) -> Rights {
        Rights((bits & 31) as u8)
    }

    /// Both sets together.
    pub const fn union(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// What is in both.
    pub const fn intersection(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    pub const fn minus(self, other: Rights) -> Rights {
        Rights(self.0 & !other.0)
    }

    /// Whether every right of the other set is in this one.
    pub const fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no right is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set whose removal makes a denial of `self` hold: whoever may not write a file may not replace it either.
    pub const fn closed_for_denial(self) -> Rights {
        if self.0 & Rights::WRITE.0 != 0 { self.union(Rights::CHANGE) } else { self }
    }
}

const WORDS: [(&str, Rights); 5] = [
    ("read", Rights::READ),
    ("write", Rights::WRITE),
    ("exec", Rights::EXEC),
    ("create", Rights::CREATE),
    ("delete", Rights::DELETE),
];

/// A word that is not a right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{word:?} is not a right; rights are read, write, exec, create, delete, change (write, create and delete), all"
)]
pub struct RightsError {
    /// The word.
    pub word: String,
}

impl FromStr for Rights {
    type Err = RightsError;

    /// Reads `read,write`; `change` stands for write, create and delete, `all` for everything.
    fn from_str(text: &str) -> Result<Self, RightsError> {
        let mut rights = Rights::NONE;
        for word in text.split([',', '+']).map(str::trim) {
            rights = rights.union(match word {
                "all" => Rights::ALL,
                "change" => Rights::CHANGE,
                _ => match WORDS.iter().find(|(name, _)| *name == word) {
                    Some((_, right)) => *right,
                    None => return Err(RightsError { word: word.to_owned() }),
                },
            });
        }
        Ok(rights)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (word, right) in WORDS {
            if self.contains(right) {
                write!(f, "{separator}{word}")?;
                separator = ",";
            }
        }
        if self.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

impl From<Rights> for String {
    fn from(rights: Rights) -> String {
        if rights.is_empty() { String::new() } else { rights.to_string() }
    }
}

impl TryFrom<String> for Rights {
    type Error = RightsError;

    fn try_from(text: String) -> Result<Self, RightsError> {
        if text.is_empty() { Ok(Rights::NONE) } else { text.parse() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sets_read_and_print() {
        assert_eq!("read, exec".parse(), Ok(Rights::READ.union(Rights::EXEC)));
        assert_eq!("change".parse::<Rights>().unwrap().to_string(), "write,create,delete");
        assert_eq!("all".parse(), Ok(Rights::ALL));
        assert_eq!("raed".parse::<Rights>(), Err(RightsError { word: "raed".into() }));
        assert!("".parse::<Rights>().is_err());
    }

    #[test]
    fn a_denied_write_denies_replacing() {
        assert_eq!(Rights::WRITE.closed_for_denial(), Rights::CHANGE);
        assert_eq!(Rights::READ.closed_for_denial(), Rights::READ);
    }
}
