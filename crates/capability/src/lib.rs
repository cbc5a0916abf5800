//! What is lent to whom, until when, and who says so?
//!
//! A capability is a statement that anybody can verify: a CBOR Web Token (RFC 8392) in a COSE_Sign1 (RFC 9052), tagged 18.
//!
//! ```text
//! protected   {1: -8 (EdDSA), 3: 61 (application/cwt), 4: key id, 8 bytes}
//! payload     {1: issuer text, 2: holder text, 4: expires uint / absent, 5: not before uint, 6: issued uint,
//!              7: id bytes(16), -70001: [[path text, rights uint], …], -70002: number uint}
//! external    "agentd capability v1"
//! ```
//!
//! The issuer is `agentd/` and the id of the host's journal, the holder `agent/` and its number there, so a token says
//! nothing about any other agent or host. Times are seconds since 1970. Rights are the bits of the kernel contract: 1 read,
//! 2 write, 4 exec, 8 create, 16 delete. The encoding is canonical (RFC 8949, 4.2.1); another one of the same claims is no
//! token. The signature is ed25519 over COSE's `Sig_structure`; `verify_strict` decides.
//!
//! The token is the statement; what the kernel enforces is what it was compiled to, and the journal holds both. Holding a
//! copy of the bytes gives nobody anything.

#![forbid(unsafe_code)]

use std::str::FromStr;

use agentd_journal::{Signature, Signer, Verifier, key_id};
use agentd_model::{AgentNumber, CapabilityNumber, Entropy, PublicKey, Rights, WorldId};
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};
use minicbor::{Decoder, Encoder};

/// What the signature is about, beside the claims.
const EXTERNAL: &[u8] = b"agentd capability v1";
const RIGHTS: i64 = -70_001;
const NUMBER: i64 = -70_002;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The journal of the host that enforces it.
    pub issuer: WorldId,
    /// Who may.
    pub holder: AgentNumber,
    /// Seconds since 1970 from which it says nothing any more; `None`: as long as its holder lives.
    pub expires: Option<u64>,
    /// Seconds since 1970 before which it says nothing.
    pub not_before: u64,
    /// When it was issued, in seconds since 1970.
    pub issued: u64,
    /// Tells it apart from every other token.
    pub id: Entropy,
    /// What may be done with which file, or with everything in which directory.
    pub rights: Vec<(String, Rights)>,
    /// Its number on that host.
    pub number: CapabilityNumber,
}

/// Why bytes are not a token that may be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAToken {
    /// Not a COSE_Sign1, or not with claims in it.
    #[error("the bytes are not a capability: {0}")]
    Shape(String),
    /// The same claims have another, canonical encoding.
    #[error("the capability is not in canonical form")]
    NotCanonical,
    /// Its header says something else.
    #[error("the capability's header has the wrong {0}")]
    Header(&'static str),
    /// The signature is not of that key.
    #[error("the capability is not signed with {0}")]
    Signature(PublicKey),
}

impl Claims {
    /// The token.
    pub fn sign(&self, signer: &Signer) -> Vec<u8> {
        let header = HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .content_format(iana::CoapContentFormat::Cwt)
            .key_id(key_id(signer.key()).to_vec())
            .build();
        let signed = CoseSign1Builder::new()
            .protected(header)
            .payload(self.encode())
            .create_signature(EXTERNAL, |message| signer.sign(message).0.to_vec())
            .build();
        signed.to_tagged_vec().unwrap_or_else(|error| unreachable!("writing to memory: {error}"))
    }

    /// What a token says, if it is canonical and signed with this key.
    pub fn verified(bytes: &[u8], key: PublicKey) -> Result<Claims, NotAToken> {
        let signed = CoseSign1::from_tagged_slice(bytes).map_err(|error| NotAToken::Shape(error.to_string()))?;
        let canonical = signed.clone().to_tagged_vec().map_err(|error| NotAToken::Shape(error.to_string()))?;
        let payload = signed.payload.as_deref().ok_or_else(|| NotAToken::Shape("it says nothing".into()))?;
        let claims = Claims::decode(payload).map_err(|error| NotAToken::Shape(error.to_string()))?;
        if canonical != bytes || claims.encode() != payload {
            return Err(NotAToken::NotCanonical);
        }
        let header = &signed.protected.header;
        if header.alg != Some(coset::Algorithm::Assigned(iana::Algorithm::EdDSA)) {
            return Err(NotAToken::Header("algorithm"));
        }
        if header.content_type != Some(coset::ContentType::Assigned(iana::CoapContentFormat::Cwt)) {
            return Err(NotAToken::Header("content type"));
        }
        if !signed.unprotected.is_empty() {
            return Err(NotAToken::Header("unprotected part, which should be empty"));
        }
        if header.key_id != key_id(key) {
            return Err(NotAToken::Signature(key));
        }
        signed.verify_signature(EXTERNAL, |signature, message| {
            let signature = signature.try_into().map_err(|_wrong_length| NotAToken::Signature(key))?;
            let checked = Verifier::new(key).check(message, &Signature(signature));
            checked.map_err(|error| NotAToken::Signature(error.0))
        })?;
        Ok(claims)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut Encoder::new(&mut bytes)).unwrap_or_else(|error| unreachable!("writing to memory: {error}"));
        bytes
    }

    fn write(&self, to: &mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        to.map(7 + u64::from(self.expires.is_some()))?;
        to.u8(1)?.str(&format!("agentd/{}", self.issuer))?;
        to.u8(2)?.str(&format!("agent/{}", self.holder))?;
        if let Some(expires) = self.expires {
            to.u8(4)?.u64(expires)?;
        }
        to.u8(5)?.u64(self.not_before)?;
        to.u8(6)?.u64(self.issued)?;
        to.u8(7)?.bytes(&self.id.0)?;
        to.i64(RIGHTS)?.array(self.rights.len() as u64)?;
        for (path, rights) in &self.rights {
            to.array(2)?.str(path)?.u32(rights.bits())?;
        }
        to.i64(NUMBER)?.u32(self.number.0)?;
        Ok(())
    }

    /// Reads claims in the order in which they are written; another order is not canonical.
    fn decode(bytes: &[u8]) -> Result<Claims, minicbor::decode::Error> {
        use minicbor::decode::Error;
        fn named<T: FromStr>(text: &str, prefix: &str) -> Result<T, Error> {
            let rest = text.strip_prefix(prefix).and_then(|rest| rest.parse().ok());
            rest.ok_or_else(|| Error::message("neither a host nor an agent"))
        }
        let from = &mut Decoder::new(bytes);
        let claims = from.map()?.ok_or_else(|| Error::message("claims without a length"))?;
        let key = |from: &mut Decoder<'_>, wanted: i64| match from.i64()? {
            found if found == wanted => Ok(()),
            _ => Err(Error::message("a claim is missing, unknown or not in its place")),
        };
        key(from, 1)?;
        let issuer = named(from.str()?, "agentd/")?;
        key(from, 2)?;
        let holder = AgentNumber(named(from.str()?, "agent/")?);
        let expires = if claims == 8 {
            key(from, 4)?;
            Some(from.u64()?)
        } else {
            None
        };
        key(from, 5)?;
        let not_before = from.u64()?;
        key(from, 6)?;
        let issued = from.u64()?;
        key(from, 7)?;
        let id = Entropy(from.bytes()?.try_into().map_err(|_wrong_length| Error::message("an id of another length"))?);
        key(from, RIGHTS)?;
        let mut rights = Vec::new();
        for _ in 0..from.array()?.ok_or_else(|| Error::message("rights without a length"))? {
            if from.array()? != Some(2) {
                return Err(Error::message("a right is a path and what may be done there"));
            }
            rights.push((from.str()?.to_owned(), Rights::from_bits_truncate(from.u32()?)));
        }
        key(from, NUMBER)?;
        let number = CapabilityNumber(from.u32()?);
        if from.position() != bytes.len() {
            return Err(Error::message("more than claims"));
        }
        Ok(Claims { issuer, holder, expires, not_before, issued, id, rights, number })
    }
}

#[cfg(test)]
mod tests;
