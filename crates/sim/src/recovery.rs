//! A platter becomes a world again, or is refused with the number of the record that is damaged.
//!
//! Frames are read in order. Behind the last whole one there may be a torn write, which is cut. Every record is checked
//! against the chain, the end against the signed head; the state is folded on from the last one that was saved.

use agentd_engine::{Entry, State};
use agentd_journal::{Chain, Damage, DamageKind, Record, hash_of_record};
use agentd_model::{Hash, Seq};

use crate::disk::{Drive, Shared};
use crate::frame::{self, Frame};
use crate::sabotage::Sabotage;

/// Context of the hash of a saved state, as in the engine and in the daemon's store.
const SAVED: &str = "agentd 2026-11-21 saved state v1";

/// A record as the platter has it.
pub(crate) type Row = (Record<Entry>, Hash);

/// A world, opened.
pub(crate) struct Opened {
    /// Everything that is true.
    pub(crate) state: State,
    /// Where its journal ends.
    pub(crate) chain: Chain,
    /// The newest record that says that the state was saved.
    pub(crate) saved: Seq,
    /// Every record.
    pub(crate) rows: Vec<Row>,
    /// Values beside the records.
    pub(crate) blobs: Vec<agentd_air::Hash>,
    /// Bytes of a torn write, which are gone.
    pub(crate) cut: usize,
}

/// Why a world could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Something that was acknowledged no longer verifies.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The power failed meanwhile.
    #[error("the power failed")]
    PowerFailed,
}

/// Opens what the drive has.
pub(crate) fn open(drive: &Shared, sabotage: Option<Sabotage>) -> Result<Opened, OpenError> {
    let mut drive = drive.0.borrow_mut();
    let bytes = drive.contents();
    let (mut frames, mut at, mut index) = (Vec::new(), 0, 0);
    while let Some((frame, next)) = frame::read(&bytes, at, index) {
        frames.push(frame);
        (at, index) = (next, index + 1);
    }
    let last = frames.last().map_or(Seq(0), |frame: &Frame| frame.head().seq);
    if frame::any_behind(&bytes, at, index) && sabotage != Some(Sabotage::CutsDamage) {
        return Err(Damage { at: Seq(last.0 + 1), kind: DamageKind::Missing }.into());
    }
    let opened = check(&frames, bytes.len() - at, sabotage)?;
    if opened.cut > 0 {
        cut(&mut drive, at)?;
    }
    drive.go_on(at, index);
    Ok(opened)
}

fn cut(drive: &mut Drive, at: usize) -> Result<(), OpenError> {
    drive.cut(at).map_err(|_power_failed| OpenError::PowerFailed)
}

/// Checks the chain and folds the state.
fn check(frames: &[Frame], cut: usize, sabotage: Option<Sabotage>) -> Result<Opened, Damage> {
    let mut opened = Opened {
        state: State::default(),
        chain: Chain::EMPTY,
        saved: Seq(0),
        rows: Vec::new(),
        blobs: Vec::new(),
        cut,
    };
    let newest = frames.iter().rposition(|frame| frame.saved.is_some());
    for (number, frame) in frames.iter().enumerate() {
        for (_, bytes) in &frame.rows {
            let record = opened.chain.check::<Entry>(bytes)?;
            if newest.is_none_or(|newest| number > newest) {
                fold(&mut opened.state, &record, sabotage);
            }
            opened.rows.push((record, opened.chain.head));
        }
        opened.blobs.extend(frame.blobs.iter().map(|(hash, _)| *hash));
        let damage = |kind| Damage { at: opened.chain.seq, kind };
        if frame.head() != opened.chain.head() {
            return Err(damage(DamageKind::Head));
        }
        // Every other head is vouched for by those behind it.
        if number + 1 == frames.len() || opened.chain.signed_with != opened.chain.key {
            opened.chain.check_end(&frame.head(), Some(&frame.signature()))?;
        }
        if newest == Some(number) {
            let (state, (_, bytes)) =
                frame.saved.as_ref().zip(frame.rows.last()).ok_or_else(|| damage(DamageKind::State))?;
            let hash = Hash(agentd_air::Hash::of(SAVED, state).0);
            let resumed = Chain::resume::<Entry>(opened.chain.seq, bytes, hash)?;
            if resumed != opened.chain {
                return Err(damage(DamageKind::State));
            }
            opened.state = State::restore(state).ok_or_else(|| damage(DamageKind::State))?;
            // It was saved just before the record that says so.
            let record = Record::<Entry>::decode(bytes).map_err(|error| damage(error.into()))?;
            opened.state.fold(record.seq, record.stamp, &record.event);
            opened.saved = opened.chain.seq;
        }
    }
    Ok(opened)
}

fn fold(state: &mut State, record: &Record<Entry>, sabotage: Option<Sabotage>) {
    // What is left out is still counted, as whoever wrote such an error would see to.
    let counted = Entry::Cut { at: String::new() };
    let entry = match (&record.event, sabotage) {
        (Entry::Settled { .. }, Some(Sabotage::ForgetsReceipts)) => &counted,
        (Entry::Stepped { .. }, Some(Sabotage::ForgetsSteps)) => &counted,
        (entry, _) => entry,
    };
    state.fold(record.seq, record.stamp, entry);
}

/// Follows what is durable while a story goes on, frame by frame.
#[derive(Default)]
pub(crate) struct Follower {
    rows: Vec<Row>,
    at: usize,
    index: u64,
    generation: u64,
}

impl Follower {
    /// Every record on the platter, whatever the keeper believes.
    pub(crate) fn rows(&mut self, drive: &Drive) -> &[Row] {
        if self.generation != drive.generation() {
            *self = Follower { generation: drive.generation(), ..Follower::default() };
        }
        while let Some((frame, next)) = frame::read(drive.platter(), self.at, self.index) {
            for (_, bytes) in &frame.rows {
                if let Ok(record) = Record::decode(bytes) {
                    self.rows.push((record, hash_of_record(bytes)));
                }
            }
            (self.at, self.index) = (next, self.index + 1);
        }
        &self.rows
    }
}
