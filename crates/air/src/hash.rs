//! What bytes are known by: their BLAKE3 hash, under a context.
//!
//! The context is a constant text that says what the bytes are for. Two uses of equal bytes have unequal hashes, so no
//! hash of one thing can be passed off as the hash of another.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// 32 bytes of BLAKE3. Its text is 64 lower-case hex digits, its CBOR a byte string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// A text that is not a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a hash of 64 lower-case hex digits")]
pub struct HashError {
    /// The text.
    pub text: String,
}

impl Hash {
    /// Hashes bytes for one purpose; `context` is a constant, unique to the purpose.
    pub fn of(context: &str, bytes: &[u8]) -> Hash {
        Hash(blake3::derive_key(context, bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Hash).ok_or_else(|| HashError { text: text.to_owned() })
    }
}

impl TryFrom<String> for Hash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_from_each_of_its_forms() {
        let hash = Hash::of("agentd-air test", b"bytes");
        assert_ne!(hash, Hash::of("agentd-air other test", b"bytes"));
        assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
        assert_eq!(serde_json::from_value::<Hash>(serde_json::to_value(hash).unwrap()).unwrap(), hash);
        let bytes = minicbor::to_vec(hash).unwrap();
        assert_eq!((bytes.len(), &bytes[..2]), (34, &[0x58, 32][..]));
        assert_eq!(minicbor::decode::<Hash>(&bytes).unwrap(), hash);
    }

    #[test]
    fn another_spelling_is_not_a_hash() {
        let text = Hash([0xab; 32]).to_string();
        for wrong in [&text[1..], &text[2..], &text.to_uppercase(), &format!("{text}00"), &format!("b3:{text}"), ""] {
            assert!(wrong.parse::<Hash>().is_err(), "{wrong:?}");
        }
        assert!(
            minicbor::decode::<Hash>(&minicbor::to_vec(minicbor::bytes::ByteVec::from(vec![0; 31])).unwrap()).is_err()
        );
    }
}
