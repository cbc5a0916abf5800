//! A world's journal as its keeper writes it and as everybody else reads it.

use std::path::Path;

use agentd_engine::{Commit, Disk, DiskFailure, Entry, State};
use agentd_journal::Record;
use agentd_model::{Hash, Seq};

use crate::journal::{self, Fold, Journal, ReadError, Reader, Row};

/// Records read from the disk at a time.
const PAGE: u32 = 1024;

impl Fold for State {
    type Body = Entry;

    fn restore(bytes: &[u8]) -> Option<State> {
        State::restore(bytes)
    }

    fn take(&mut self, record: &Record<Entry>) {
        self.fold(record.seq, record.stamp, &record.event);
    }
}

impl Disk for Journal {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DiskFailure> {
        let rows: Vec<Row<'_>> = commit.rows.iter().map(|(seq, bytes)| Row { seq: *seq, agent: None, bytes }).collect();
        let blobs: Vec<_> = commit.blobs.iter().map(|(hash, bytes)| (Hash(hash.0), bytes.clone())).collect();
        let (head, signature, saved) = (commit.head, commit.signature, commit.saved);
        let commit = journal::Commit { rows: &rows, head, signature, saved, blobs: &blobs };
        self.append(&commit).map_err(|error| {
            let text = crate::errors::one_line(&error);
            if error.is_unknown() { DiskFailure::Unknown(text) } else { DiskFailure::Refused(text) }
        })
    }
}

/// Every record after one, oldest first, a page at a time.
pub fn each_after(
    reader: &Reader,
    mut after: Seq,
    mut each: impl FnMut(&Record<Entry>, Hash) -> bool,
) -> Result<(), ReadError> {
    loop {
        let page = reader.page::<Entry>(None, after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = last.seq;
        for (record, hash) in &page {
            if !each(record, *hash) {
                return Ok(());
            }
        }
    }
}

/// The state as it was after a record: from the newest saved state before it, or from the beginning.
pub fn state_at(path: &Path, seq: Seq) -> Result<State, ReadError> {
    state_in(&Reader::snapshot(path)?, seq)
}

/// The same, of what a reader sees.
pub(super) fn state_in(reader: &Reader, seq: Seq) -> Result<State, ReadError> {
    let saved = reader.saved(seq)?.and_then(|(at, bytes)| Some((at, State::restore(&bytes)?)));
    let (from, mut state) = saved.unwrap_or_default();
    if let Some(first) = reader.first()?.filter(|first| from == Seq(0) && *first > Seq(1)) {
        return Err(ReadError::Pruned { first });
    }
    if from > Seq(0) {
        // The record of the saving itself changes nothing but the height.
        if let Some((record, _)) = reader.get::<Entry>(from)? {
            state.fold(record.seq, record.stamp, &record.event);
        }
    }
    each_after(reader, from, |record, _| {
        let before = record.seq <= seq;
        if before {
            state.fold(record.seq, record.stamp, &record.event);
        }
        before
    })?;
    Ok(state)
}
