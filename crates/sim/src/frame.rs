//! A transaction on the platter: one frame, whole or not there.
//!
//! ```text
//! magic "simframe" | index u64 | length u32 | check 16 | payload, `length` bytes | zeros up to the next sector
//! ```
//!
//! Numbers are big endian. `check` is the front of a BLAKE3 hash over index, length and payload. Frames begin on sectors and
//! are numbered from 0, so a whole frame is found again behind one that is not.
//!
//! That decides between the two readings of a frame that does not check. Frames are written one at a time, each flushed
//! before the next. So one with a whole frame behind it was flushed and acknowledged: that is damage, and is reported. One
//! with nothing whole behind it was never promised: it is a torn write, and is cut. (The last frame alone cannot say which
//! it is; stories let only frames rot that have another behind them. SQLite's WAL has the same limit.)

use agentd_engine::Commit;
use agentd_journal::{Head, Signature};
use agentd_model::{Hash, Seq};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// What a disk writes at a time, all or nothing but for the one that is torn.
pub(crate) const SECTOR: usize = 512;

const MAGIC: &[u8; 8] = b"simframe";
const HEADER: usize = 36;

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Frame {
    /// Records by their numbers.
    #[n(0)]
    pub(crate) rows: Vec<(Seq, ByteVec)>,
    #[n(1)]
    seq: Seq,
    #[n(2)]
    hash: Hash,
    #[n(3)]
    signature: ByteArray<64>,
    /// The state, if the last row says that it was saved.
    #[n(4)]
    pub(crate) saved: Option<ByteVec>,
    /// Values that the records refer to.
    #[n(5)]
    pub(crate) blobs: Vec<(agentd_air::Hash, ByteVec)>,
}

impl Frame {
    /// Of a commit.
    pub(crate) fn of(commit: &Commit<'_>) -> Frame {
        let blobs = commit.blobs.iter().map(|(hash, bytes)| (*hash, bytes.clone().into()));
        Frame {
            rows: commit.rows.iter().map(|(seq, bytes)| (*seq, bytes.clone().into())).collect(),
            seq: commit.head.seq,
            hash: commit.head.hash,
            signature: commit.signature.0.into(),
            saved: commit.saved.map(|bytes| bytes.to_vec().into()),
            blobs: blobs.collect(),
        }
    }

    /// The head that was signed.
    pub(crate) fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    /// Its signature.
    pub(crate) fn signature(&self) -> Signature {
        Signature(*self.signature)
    }

    /// The bytes, a whole number of sectors.
    pub(crate) fn encode(&self, index: u64) -> Vec<u8> {
        let payload =
            minicbor::to_vec(self).unwrap_or_else(|error| unreachable!("writing to memory cannot be refused: {error}"));
        let mut bytes = MAGIC.to_vec();
        bytes.extend(index.to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(check(index, &payload));
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        bytes
    }
}

fn check(index: u64, payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&index.to_be_bytes()).update(&(payload.len() as u32).to_be_bytes()).update(payload);
    let mut check = [0; 16];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    check
}

/// The whole frame with this number at this place, and where the next one begins.
pub(crate) fn read(bytes: &[u8], at: usize, index: u64) -> Option<(Frame, usize)> {
    let (found, payload, next) = whole(bytes, at)?;
    if found != index {
        return None;
    }
    Some((minicbor::decode(payload).ok()?, next))
}

/// Bytes of the frame at this place that its check is about, header included.
pub(crate) fn extent(bytes: &[u8], at: usize) -> Option<usize> {
    whole(bytes, at).map(|(_, payload, _)| HEADER + payload.len())
}

/// Whether a whole frame with this number or a later one begins behind this place.
pub(crate) fn any_behind(bytes: &[u8], at: usize, index: u64) -> bool {
    let sectors = (at + SECTOR..bytes.len()).step_by(SECTOR);
    sectors.into_iter().any(|sector| whole(bytes, sector).is_some_and(|(found, ..)| found >= index))
}

fn whole(bytes: &[u8], at: usize) -> Option<(u64, &[u8], usize)> {
    let header = bytes.get(at..at + HEADER)?;
    let (magic, rest) = header.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let (length, found) = rest.split_first_chunk::<4>()?;
    let (index, length) = (u64::from_be_bytes(*index), u32::from_be_bytes(*length) as usize);
    if magic != MAGIC {
        return None;
    }
    let payload = bytes.get(at + HEADER..(at + HEADER).checked_add(length)?)?;
    let next = (at + HEADER + length).next_multiple_of(SECTOR);
    (check(index, payload) == *found && next <= bytes.len()).then_some((index, payload, next))
}
