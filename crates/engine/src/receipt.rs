//! Receipts: what an adapter says came of an effect, signed.
//!
//! A receipt is a COSE_Sign1 (RFC 9052), tagged 18, so that any COSE library can verify it:
//!
//! ```text
//! protected   {1: -8 (EdDSA), 3: "application/agentd-receipt+cbor", 4: key id, 8 bytes}
//! payload     [1, world bytes(16), intent bytes(32), adapter text, attempt uint, status, result bytes / null,
//!              began_ns uint, ended_ns uint, reason text / null]
//! external    "agentd receipt v1"
//! status      0 done, 1 failed, 2 timed out, 3 interrupted
//! ```
//!
//! The result is a value of the type that the kind of effect says, canonical. The signature is ed25519 over COSE's
//! `Sig_structure`, with the key that the world names at that record; `verify_strict` decides.

use agentd_air::{Hash as Content, Strictness, decode, effect};
use agentd_journal::{Signature, Signer, Verifier, key_id};
use agentd_model::{PublicKey, WorldId};
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::Serialize;

/// Version of the payload.
const VERSION: u32 = 1;
/// What the signature is about, beside the payload.
const EXTERNAL: &[u8] = b"agentd receipt v1";
const CONTENT_TYPE: &str = "application/agentd-receipt+cbor";

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Receipt {
    #[n(0)]
    version: u32,
    /// The world that asked.
    #[n(1)]
    pub world: WorldId,
    /// The effect.
    #[n(2)]
    pub intent: Content,
    /// What did it, `http/1`.
    #[n(3)]
    pub adapter: String,
    /// The how manieth attempt it was.
    #[n(4)]
    pub attempt: u32,
    /// How it ended.
    #[n(5)]
    pub status: Status,
    /// What came of it, where it was done.
    #[n(6)]
    #[serde(skip)]
    pub result: Option<ByteVec>,
    /// When the adapter began, nanoseconds since 1970.
    #[n(7)]
    pub began_ns: u64,
    /// When it ended.
    #[n(8)]
    pub ended_ns: u64,
    /// Why it was not done, in one line.
    #[n(9)]
    pub reason: Option<String>,
}

/// How an effect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was done.
    #[n(0)]
    Done,
    /// It was not done, or not wholly.
    #[n(1)]
    Failed,
    /// It took longer than it may; nobody knows.
    #[n(2)]
    TimedOut,
    /// The daemon ended while it was being done; nobody knows.
    #[n(3)]
    Interrupted,
}

impl Status {
    /// As reducers and people read it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Failed => "failed",
            Status::TimedOut => "timed_out",
            Status::Interrupted => "interrupted",
        }
    }
}

/// Why bytes are not a receipt that may be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAReceipt {
    /// Not a COSE_Sign1, or not with this in it.
    #[error("the bytes are not a receipt: {0}")]
    Shape(String),
    /// The same receipt has another, canonical encoding.
    #[error("the receipt is not in canonical form")]
    NotCanonical,
    /// Its header says something else.
    #[error("the receipt's header has the wrong {0}")]
    Header(&'static str),
    /// The signature is not of the key in force.
    #[error("the receipt is not signed with {0}")]
    Signature(PublicKey),
    /// It is another world's.
    #[error("the receipt is of world {0}")]
    World(WorldId),
}

impl Receipt {
    /// A receipt of this version.
    pub fn new(world: WorldId, intent: Content, adapter: &str, attempt: u32, status: Status) -> Receipt {
        Receipt {
            version: VERSION,
            world,
            intent,
            adapter: adapter.to_owned(),
            attempt,
            status,
            result: None,
            began_ns: 0,
            ended_ns: 0,
            reason: None,
        }
    }

    /// Signs it.
    pub fn sign(&self, signer: &Signer) -> Vec<u8> {
        let payload = minicbor::to_vec(self).unwrap_or_else(|error| unreachable!("writing to memory: {error}"));
        let header = HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .content_type(CONTENT_TYPE.to_owned())
            .key_id(key_id(signer.key()).to_vec())
            .build();
        let signed = CoseSign1Builder::new()
            .protected(header)
            .payload(payload)
            .create_signature(EXTERNAL, |message| signer.sign(message).0.to_vec())
            .build();
        signed.to_tagged_vec().unwrap_or_else(|error| unreachable!("writing to memory: {error}"))
    }

    /// What the bytes claim, without asking who signed them.
    pub fn claimed(bytes: &[u8]) -> Result<Receipt, NotAReceipt> {
        open(bytes).map(|(_, receipt)| receipt)
    }

    /// What the bytes say, if they are canonical, of this world, and signed with this key.
    pub fn verified(bytes: &[u8], world: WorldId, key: PublicKey) -> Result<Receipt, NotAReceipt> {
        let (signed, receipt) = open(bytes)?;
        let canonical = signed.clone().to_tagged_vec().map_err(|error| NotAReceipt::Shape(error.to_string()))?;
        if canonical != bytes {
            return Err(NotAReceipt::NotCanonical);
        }
        let header = &signed.protected.header;
        if header.alg != Some(coset::Algorithm::Assigned(iana::Algorithm::EdDSA)) {
            return Err(NotAReceipt::Header("algorithm"));
        }
        if header.content_type != Some(coset::ContentType::Text(CONTENT_TYPE.to_owned())) {
            return Err(NotAReceipt::Header("content type"));
        }
        if header.key_id != key_id(key) {
            return Err(NotAReceipt::Signature(key));
        }
        if !signed.unprotected.is_empty() {
            return Err(NotAReceipt::Header("unprotected part, which should be empty"));
        }
        let check = |signature: &[u8], message: &[u8]| {
            let signature = signature.try_into().map_err(|_wrong_length| NotAReceipt::Signature(key))?;
            let checked = Verifier::new(key).check(message, &Signature(signature));
            checked.map_err(|error| NotAReceipt::Signature(error.0))
        };
        signed.verify_signature(EXTERNAL, check)?;
        if receipt.world != world {
            return Err(NotAReceipt::World(receipt.world));
        }
        Ok(receipt)
    }

    /// Whether the result is what an effect of this kind gives.
    pub(crate) fn result_fits(&self, kind: &agentd_air::Name) -> Result<(), String> {
        match (&self.result, self.status, effect(kind)) {
            (_, _, None) => Err(format!("there is no kind of effect {kind}")),
            (None, Status::Done, _) => Err("it was done, and there is no result".into()),
            (None, _, _) => Ok(()),
            (Some(bytes), _, Some(effect)) => {
                let decoded = decode(agentd_air::schemas(), &effect.result, bytes, Strictness::Canonical);
                decoded.map(drop).map_err(|wrong| format!("result: {wrong}"))
            }
        }
    }
}

fn open(bytes: &[u8]) -> Result<(CoseSign1, Receipt), NotAReceipt> {
    let shape = |error: String| NotAReceipt::Shape(error);
    let signed = CoseSign1::from_tagged_slice(bytes).map_err(|error| shape(error.to_string()))?;
    let payload = signed.payload.as_deref().ok_or_else(|| shape("it has no payload".into()))?;
    let receipt: Receipt = minicbor::decode(payload).map_err(|error| shape(error.to_string()))?;
    let again = minicbor::to_vec(&receipt).map_err(|error| shape(error.to_string()))?;
    if again != payload {
        return Err(NotAReceipt::NotCanonical);
    }
    if receipt.version != VERSION {
        return Err(shape(format!("version {}", receipt.version)));
    }
    Ok((signed, receipt))
}
