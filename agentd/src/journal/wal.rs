//! SQLite's write-ahead log as a file: how much of an unfinished write lies at its end, and room for what comes.
//!
//! SQLite cuts such a tail silently when it opens the file. Nobody was promised what it held, but a person should be told
//! that the machine went down in the middle of a write. The log's format is that of <https://sqlite.org/fileformat2.html>
//! §4: a header of 32 bytes, then frames of 24 bytes and a page; frames of the present generation carry the header's two
//! salts, and a frame that ends a transaction carries the size of the database.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// What SQLite lets the log grow to before it writes over it from the start (a thousand pages, their heads), and a batch.
pub(super) const ROOM: u64 = 5 << 20;

/// What must be free for that.
const SPARE_ROOM: u64 = 20 * ROOM;

/// Fills the log up with zeros, once, so that a commit writes over bytes that the file has already: on most file systems
/// the flush then waits for the data alone and not for the file system's own journal, which takes ten times as long.
///
/// Frames of zeros are none: they carry no generation's salts. Call it while nobody writes. A disk that has little room is
/// left as it is.
pub(super) fn make_room(path: &Path) -> io::Result<()> {
    let disk = statvfs(path)?;
    if disk.blocks_available() * disk.fragment_size() < SPARE_ROOM {
        return Ok(());
    }
    let mut log = OpenOptions::new().append(true).open(path)?;
    let zeros = [0; 64 << 10];
    let mut missing = ROOM.saturating_sub(log.metadata()?.len());
    while missing > 0 {
        let chunk = missing.min(zeros.len() as u64) as usize;
        log.write_all(zeros.get(..chunk).unwrap_or_default())?;
        missing -= chunk as u64;
    }
    log.sync_all()
}

/// Bytes of the present generation after the last frame that ends a transaction. A missing log has none.
pub(super) fn torn_bytes(path: &Path) -> io::Result<u64> {
    match std::fs::read(path) {
        Ok(log) => Ok(torn(&log)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn torn(log: &[u8]) -> u64 {
    let (Some(magic), Some(page), Some(salts)) = (word(log, 0), word(log, 8), log.get(16..24)) else { return 0 };
    if magic & !1 != 0x377f_0682 {
        return 0;
    }
    let sum = Checksum { big_endian: magic & 1 == 1 };
    let Some(mut state) = log.get(..24).map(|header| sum.over((0, 0), header)) else { return 0 };
    let frame = 24 + page as usize;
    let (mut at, mut committed) = (32, 32);
    while let Some(bytes) = log.get(at..at + frame) {
        if bytes[8..16] != *salts {
            break;
        }
        state = sum.over(sum.over(state, &bytes[..8]), &bytes[24..]);
        if (word(bytes, 16), word(bytes, 20)) != (Some(state.0), Some(state.1)) {
            // Same generation, wrong sum: the write stopped in this frame.
            at += frame;
            break;
        }
        at += frame;
        if word(bytes, 4) != Some(0) {
            committed = at;
        }
    }
    // The rest of a frame whose head made it to the disk.
    let cut_short = log.get(at + 8..at + 16).is_some_and(|found| found == salts && log.len() < at + frame);
    let end = if cut_short { log.len() } else { at };
    (end - committed) as u64
}

/// The log's running checksum (§4.1 of the format).
struct Checksum {
    big_endian: bool,
}

impl Checksum {
    fn over(&self, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
        for pair in bytes.as_chunks::<8>().0 {
            let read = |at: usize| {
                let four = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
                if self.big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
            };
            a = a.wrapping_add(read(0)).wrapping_add(b);
            b = b.wrapping_add(read(4)).wrapping_add(a);
        }
        (a, b)
    }
}
