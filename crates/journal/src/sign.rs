//! The signature on the end of a chain, and whose it is.

use std::fmt;

use agentd_model::{Hash, PublicKey, Seq};
use ed25519_dalek::{SigningKey, VerifyingKey};

/// What stands before every head that is signed, so that the signature means nothing anywhere else.
const CONTEXT: &[u8; 23] = b"agentd journal head v2\0";

/// The end of a chain: what a signature vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the newest record.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
}

impl Head {
    fn message(&self) -> [u8; 63] {
        let mut message = [0; 63];
        message[..23].copy_from_slice(CONTEXT);
        message[23..31].copy_from_slice(&self.seq.0.to_be_bytes());
        message[31..].copy_from_slice(&self.hash.0);
        message
    }
}

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Signs. Holds a secret, so it prints as the public key.
#[derive(Clone)]
pub struct Signer(SigningKey);

impl Signer {
    /// The key pair that grows from 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Signer {
        Signer(SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Vouches for a head.
    pub fn sign_head(&self, head: &Head) -> Signature {
        self.sign(&head.message())
    }

    /// Signs bytes that say themselves what they are.
    pub fn sign(&self, message: &[u8]) -> Signature {
        use ed25519_dalek::Signer as _;
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.key())
    }
}

/// Something is not signed with the key that it should be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not of key {0}")]
pub struct BadSignature(pub PublicKey);

/// Checks what a key has signed.
pub struct Verifier(PublicKey, Option<VerifyingKey>);

impl Verifier {
    /// For one key. Bytes that are no key verify nothing.
    pub fn new(key: PublicKey) -> Verifier {
        Verifier(key, VerifyingKey::from_bytes(&key.0).ok())
    }

    /// Whether that key vouched for this head.
    pub fn check_head(&self, head: &Head, signature: &Signature) -> Result<(), BadSignature> {
        self.check(&head.message(), signature)
    }

    /// Whether that key signed these bytes. Strict: keys of small order and signatures that can be changed are refused.
    pub fn check(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        let good = self.1.is_some_and(|key| key.verify_strict(message, &signature).is_ok());
        if good { Ok(()) } else { Err(BadSignature(self.0)) }
    }
}

/// The first eight bytes of a key's BLAKE3 hash, as signatures outside a journal name it.
pub fn key_id(key: PublicKey) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&blake3::hash(&key.0).as_bytes()[..8]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_that_signed_and_only_that_head_verifies() {
        let (signer, other) = (Signer::from_seed(&[1; 32]), Signer::from_seed(&[2; 32]));
        let head = Head { seq: Seq(7), hash: Hash([3; 32]) };
        let signature = signer.sign_head(&head);
        assert_eq!(Verifier::new(signer.key()).check_head(&head, &signature), Ok(()));
        assert_eq!(Verifier::new(other.key()).check_head(&head, &signature), Err(BadSignature(other.key())));
        for changed in [Head { seq: Seq(8), ..head }, Head { hash: Hash([4; 32]), ..head }] {
            assert!(Verifier::new(signer.key()).check_head(&changed, &signature).is_err());
        }
        // A point of small order signs anything for everybody.
        let weak = PublicKey([0; 32]);
        assert_eq!(Verifier::new(weak).check_head(&head, &Signature([0; 64])), Err(BadSignature(weak)));
    }
}
