//! The loop of a world, without what it is made of: inputs in, commits out, effects to do.
//!
//! ```text
//! inputs ─▶ accept ─▶ run ─▶ commit ─┬─▶ answers, records     only after the disk has them
//!                                    └─▶ effects to perform   an attempt is on disk before an adapter sees it
//! ```
//!
//! A turn takes several inputs and makes one commit of them. Within a turn the state runs ahead of the disk; if the commit
//! fails, the keeper is *broken* and says nothing but that: the world is opened again from the disk, which is what was
//! acknowledged. So there is no undo that could be wrong.
//!
//! The daemon puts SQLite, clocks and adapters around this; the simulation puts others around it and breaks them.

use agentd_air::{Hash as Content, effect};
use agentd_journal::{Chain, Head, Record, Signature, Signer};
use agentd_model::{Hash, Seq, Stamp};

use crate::accept::{Input, Refusal};
use crate::entry::Entry;
use crate::receipt::{Receipt, Status};
use crate::run::{Draft, HostFailure, Reducers};
use crate::state::{Open, Phase, State};

/// Records after which the state is saved again.
pub const SAVE_EVERY: u64 = 10_000;

/// What goes to the disk together.
#[derive(Debug)]
pub struct Commit<'a> {
    /// Records, in order, by their numbers.
    pub rows: &'a [(Seq, Vec<u8>)],
    /// The head that they make.
    pub head: Head,
    /// Who vouches for it.
    pub signature: Signature,
    /// The state, if the last row says that it was saved.
    pub saved: Option<&'a [u8]>,
    /// Values that the records refer to.
    pub blobs: &'a [(Content, Vec<u8>)],
}

/// Where commits go. All of one is there when this returns, or none of it.
pub trait Disk {
    /// Writes a commit.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DiskFailure>;
}

/// Why a commit is not on disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskFailure {
    /// There is no room; what was there is there, and nothing of the commit is.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows what is on the disk now. Whoever goes on writing would guess.
    #[error("{0}")]
    Unknown(String),
}

/// What is asked of a turn.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The input.
    pub input: Input,
    /// Values that it refers to.
    pub blobs: Vec<(Content, Vec<u8>)>,
}

impl From<Input> for Asked {
    fn from(input: Input) -> Asked {
        Asked { input, blobs: Vec::new() }
    }
}

/// What came of a turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// For each input: the number of its record, or why it was not taken.
    pub answers: Vec<Result<Seq, Refusal>>,
    /// Everything that was recorded.
    pub records: Vec<(Record<Entry>, Hash)>,
    /// Effects that adapters may do now.
    pub perform: Vec<Open>,
}

/// Why a turn came to nothing. The world is to be opened again from the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskFailure),
    /// A reducer could not be run, for a reason that is this host's.
    #[error(transparent)]
    Host(#[from] HostFailure),
    /// The turn before this one failed.
    #[error("the world has to be opened again")]
    Broken,
}

/// The owner of a world's state.
pub struct Keeper<D> {
    state: State,
    chain: Chain,
    saved: Seq,
    save_every: u64,
    disk: D,
    signer: Signer,
    broken: bool,
}

impl<D: Disk> Keeper<D> {
    /// Over a world as its disk has it. `signer` has the key that the next head is to be signed with.
    pub fn new(state: State, chain: Chain, saved: Seq, disk: D, signer: Signer) -> Keeper<D> {
        Keeper { state, chain, saved, save_every: SAVE_EVERY, disk, signer, broken: false }
    }

    /// Saves the state after another number of records than [`SAVE_EVERY`].
    #[must_use]
    pub fn saving_every(self, records: u64) -> Keeper<D> {
        Keeper { save_every: records, ..self }
    }

    /// The state as of the last commit.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where the chain ends.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What receipts are signed with.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The disk.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Takes inputs and everything that follows from them, in one commit.
    pub fn turn(&mut self, asked: Vec<Asked>, stamp: Stamp, reducers: &dyn Reducers) -> Result<Turn, TurnError> {
        let mut turn = Turn::default();
        let (mut rows, mut blobs) = (Vec::new(), Vec::new());
        self.sound()?;
        for Asked { input, blobs: referred } in asked {
            let entry = match self.state.accept(input) {
                Ok(entry) => entry,
                Err(refusal) => {
                    turn.answers.push(Err(refusal));
                    continue;
                }
            };
            let drafts = self.run(entry, stamp, reducers)?;
            turn.answers.push(Ok(drafts.first().map_or(self.chain.seq, |draft| draft.seq)));
            blobs.extend(referred);
            self.append(drafts, stamp, &mut rows, &mut turn);
        }
        if rows.is_empty() {
            return Ok(turn);
        }
        let saved = if self.chain.seq.0 - self.saved.0 >= self.save_every {
            let (saving, bytes) = self.saving();
            let drafts = self.run(saving, stamp, reducers)?;
            self.append(drafts, stamp, &mut rows, &mut turn);
            Some(bytes)
        } else {
            None
        };
        self.commit(&rows, saved.as_deref(), &blobs)?;
        if saved.is_some() {
            self.saved = self.chain.seq;
        }
        for (record, _) in &turn.records {
            // Only the newest attempt: an earlier one of this turn was overtaken before anybody began.
            if let Entry::Attempted { intent, attempt } = &record.event
                && let Some(open) = self.state.open_intent(intent)
                && open.phase == (Phase::Attempted { attempt: *attempt })
            {
                turn.perform.push(open.clone());
            }
        }
        Ok(turn)
    }

    /// Lets another key sign from the next head on; this head, and nothing else, is still signed with the old one.
    pub fn rotate(&mut self, next: Signer, stamp: Stamp, reducers: &dyn Reducers) -> Result<Seq, TurnError> {
        let seq = self.alone(Entry::KeyRotated { key: next.key() }, None, stamp, reducers)?;
        self.signer = next;
        Ok(seq)
    }

    /// Goes on with somebody else's world, under this host's key.
    pub fn take_over(
        &mut self,
        name: String,
        own: Signer,
        stamp: Stamp,
        reducers: &dyn Reducers,
    ) -> Result<Seq, TurnError> {
        self.signer = own;
        self.alone(Entry::TakenOver { name, key: self.signer.key() }, None, stamp, reducers)
    }

    /// Saves the state now, so that the journal could begin here.
    pub fn save(&mut self, stamp: Stamp, reducers: &dyn Reducers) -> Result<Seq, TurnError> {
        let (saving, bytes) = self.saving();
        self.saved = self.alone(saving, Some(&bytes), stamp, reducers)?;
        Ok(self.saved)
    }

    /// Effects that are allowed and that nobody has taken: inputs of the next turn.
    pub fn due(&self) -> Vec<Asked> {
        let ready = self.state.open().filter(|open| open.phase == Phase::Ready);
        ready.map(|open| Input::Attempt { intent: open.intent.id }.into()).collect()
    }

    /// Effects that an adapter had when the world was closed. What can be repeated is attempted again, which is recorded;
    /// of the rest nobody knows whether it was done, and a receipt says so.
    pub fn left_behind(&self, now_ns: u64) -> Vec<Asked> {
        let mut asked = Vec::new();
        for open in self.state.open() {
            let Phase::Attempted { attempt } = open.phase else { continue };
            let intent = open.intent.id;
            if effect(&open.intent.kind).is_some_and(|kind| kind.repeatable) {
                asked.push(Input::Attempt { intent }.into());
                continue;
            }
            let mut receipt = Receipt::new(self.state.world(), intent, "agentd/1", attempt, Status::Interrupted);
            (receipt.began_ns, receipt.ended_ns) = (now_ns, now_ns);
            receipt.reason = Some("agentd ended while it was being done; nobody knows whether it was".into());
            asked.push(Input::Receipt { bytes: receipt.sign(&self.signer) }.into());
        }
        asked
    }

    fn saving(&self) -> (Entry, Vec<u8>) {
        (Entry::StateSaved { state: self.state.hash(), key: self.signer.key() }, self.state.save())
    }

    fn sound(&self) -> Result<(), TurnError> {
        if self.broken { Err(TurnError::Broken) } else { Ok(()) }
    }

    fn run(&mut self, entry: Entry, stamp: Stamp, reducers: &dyn Reducers) -> Result<Vec<Draft>, TurnError> {
        self.state.run(reducers, entry, stamp).map_err(|failure| {
            self.broken = true;
            failure.into()
        })
    }

    fn append(&mut self, drafts: Vec<Draft>, stamp: Stamp, rows: &mut Vec<(Seq, Vec<u8>)>, turn: &mut Turn) {
        for Draft { seq, cause, entry } in drafts {
            let (record, bytes) = self.chain.record(stamp, cause, entry);
            assert_eq!(record.seq, seq, "the state and the chain count together");
            rows.push((seq, bytes));
            turn.records.push((record, self.chain.head));
        }
    }

    fn alone(
        &mut self,
        entry: Entry,
        saved: Option<&[u8]>,
        stamp: Stamp,
        reducers: &dyn Reducers,
    ) -> Result<Seq, TurnError> {
        self.sound()?;
        let drafts = self.run(entry, stamp, reducers)?;
        let mut rows = Vec::new();
        self.append(drafts, stamp, &mut rows, &mut Turn::default());
        self.commit(&rows, saved, &[])?;
        Ok(self.chain.seq)
    }

    fn commit(
        &mut self,
        rows: &[(Seq, Vec<u8>)],
        saved: Option<&[u8]>,
        blobs: &[(Content, Vec<u8>)],
    ) -> Result<(), TurnError> {
        let head = self.chain.head();
        let signature = self.signer.sign_head(&head);
        self.disk.commit(&Commit { rows, head, signature, saved, blobs }).map_err(|failure| {
            self.broken = true;
            failure.into()
        })
    }
}
