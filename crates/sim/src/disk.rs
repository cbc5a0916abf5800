//! A drive: what was written waits in a cache, and reaches the platter when it is flushed.
//!
//! When the power fails, the cache is gone; of the writes in it any sectors may have got to the platter, in any order, one
//! of them in part. A flush that fails leaves it just so, and nobody knows which. A full drive refuses a write before any
//! of it is done.
//!
//! A commit is one write and one flush, so between calls the cache is empty, unless the drive lies about flushes
//! ([`Sabotage::FlushLies`]).

use std::cell::RefCell;
use std::rc::Rc;

use agentd_engine::{Commit, Disk, DiskFailure};

use crate::frame::{Frame, SECTOR};
use crate::rng::Rng;
use crate::sabotage::Sabotage;

/// What the next commit meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No room.
    Full,
    /// The flush fails; the process has to end.
    FlushFails,
    /// The power fails before the flush.
    PowerBeforeFlush,
    /// The power fails after the flush and before anybody is told.
    PowerAfterFlush,
}

/// A drive with one append-only file.
pub(crate) struct Drive {
    platter: Vec<u8>,
    cache: Vec<(usize, Vec<u8>)>,
    /// Where the next frame goes, and its number.
    end: usize,
    index: u64,
    /// Counted up whenever bytes on the platter become others, so that readers begin anew.
    generation: u64,
    /// What is to go wrong next.
    pub(crate) fault: Option<Fault>,
    sabotage: Option<Sabotage>,
    rng: Rng,
}

impl Drive {
    /// An empty one.
    pub(crate) fn new(rng: Rng, sabotage: Option<Sabotage>) -> Drive {
        Drive { platter: Vec::new(), cache: Vec::new(), end: 0, index: 0, generation: 0, fault: None, sabotage, rng }
    }

    /// What survives a power failure.
    pub(crate) fn platter(&self) -> &[u8] {
        &self.platter
    }

    /// Changes whenever what is on the platter is not merely continued.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// What a process reads: the platter, and over it what waits in the cache.
    pub(crate) fn contents(&self) -> Vec<u8> {
        let mut bytes = self.platter.clone();
        for (at, written) in &self.cache {
            place(&mut bytes, *at, written);
        }
        bytes
    }

    /// The power fails.
    pub(crate) fn power_fails(&mut self) {
        self.settle();
    }

    /// Cuts what is behind this place and flushes, unless the power fails first; then nothing has changed.
    pub(crate) fn cut(&mut self, end: usize) -> Result<(), PowerFailed> {
        if self.fault.take_if(|fault| *fault == Fault::PowerBeforeFlush).is_some() {
            return Err(PowerFailed);
        }
        self.platter.truncate(end);
        self.generation += 1;
        Ok(())
    }

    /// Goes on writing here.
    pub(crate) fn go_on(&mut self, end: usize, index: u64) {
        (self.end, self.index) = (end, index);
    }

    /// Somebody writes over the platter.
    pub(crate) fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        self.generation += 1;
        place(&mut self.platter, at, bytes);
    }

    fn flush(&mut self) {
        for (at, written) in std::mem::take(&mut self.cache) {
            place(&mut self.platter, at, &written);
        }
    }

    /// Any sectors of what waits get to the platter.
    fn settle(&mut self) {
        let mode = self.rng.below(4);
        for (at, written) in std::mem::take(&mut self.cache) {
            self.generation += 1;
            let sectors = written.len().div_ceil(SECTOR);
            let torn = self.rng.index(sectors + 1);
            for (number, sector) in written.chunks(SECTOR).enumerate() {
                let survives = match mode {
                    0 => false,
                    1 => true,
                    // In order, up to the one that is torn.
                    2 => number < torn,
                    _ => self.rng.percent(50),
                };
                let kept = match (survives, number == torn && mode != 1) {
                    (_, true) => &sector[..self.rng.index(sector.len() + 1)],
                    (true, false) => sector,
                    (false, false) => continue,
                };
                place(&mut self.platter, at + number * SECTOR, kept);
            }
        }
    }
}

fn place(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if written.is_empty() {
        return;
    }
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

/// The power failed.
pub(crate) struct PowerFailed;

/// A drive that the keeper and the story hold together.
#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Rc<RefCell<Drive>>);

impl Disk for Shared {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DiskFailure> {
        let mut drive = self.0.borrow_mut();
        let fault = drive.fault.take();
        if fault == Some(Fault::Full) {
            return Err(DiskFailure::Refused("no space left".into()));
        }
        let bytes = Frame::of(commit).encode(drive.index);
        let (at, length) = (drive.end, bytes.len());
        drive.cache.push((at, bytes));
        match fault {
            Some(Fault::PowerBeforeFlush) => return Err(DiskFailure::Unknown("power failed".into())),
            Some(Fault::FlushFails) => {
                drive.settle();
                return Err(DiskFailure::Unknown("fsync failed".into()));
            }
            _ => {}
        }
        if drive.sabotage != Some(Sabotage::FlushLies) {
            drive.flush();
        }
        if fault == Some(Fault::PowerAfterFlush) {
            return Err(DiskFailure::Unknown("power failed".into()));
        }
        (drive.end, drive.index) = (at + length, drive.index + 1);
        Ok(())
    }
}
