//! Names that are bytes: hashes, public keys, worlds. Printed and read as hex.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Why a text is not such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {bytes} bytes in hex")]
pub struct HexError {
    text: String,
    bytes: usize,
}

macro_rules! bytes_in_hex {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[cbor(transparent)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = HexError;

            fn try_from(text: String) -> Result<$name, HexError> {
                text.parse()
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<$name, HexError> {
                let wrong = || HexError { text: text.to_owned(), bytes: $length };
                let mut bytes = [0; $length];
                if text.len() != 2 * $length || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_not_ascii| wrong())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_not_hex| wrong())?;
                }
                Ok($name(bytes))
            }
        }
    };
}

bytes_in_hex! {
    /// BLAKE3 hash of something; what of, and in which context, says the place where it stands.
    Hash, 32
}

bytes_in_hex! {
    /// An ed25519 public key.
    PublicKey, 32
}

bytes_in_hex! {
    /// A world's random name, given at its beginning and kept wherever it is copied to.
    WorldId, 16
}

bytes_in_hex! {
    /// Random bytes of one input.
    #[derive(Default)]
    Entropy, 16
}

impl Hash {
    /// Stands where there is nothing before.
    pub const ZERO: Hash = Hash([0; 32]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_and_nothing_else_does() {
        let id = WorldId([0x0a; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "0a", &"zz".repeat(16), &"é".repeat(16), &"0a".repeat(17)] {
            assert!(wrong.parse::<WorldId>().is_err(), "{wrong}");
        }
    }
}
