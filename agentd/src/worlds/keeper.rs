//! The thread of a world: the one owner of its state and of its journal.
//!
//! It takes what has come in as a turn, answers when the disk has it, and hands effects to the adapters. Whatever adapters
//! do comes back here. When the disk refuses, the world is opened again from what is on it, which is what was acknowledged;
//! when nobody can say what is on the disk, the daemon ends.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use agentd_air::{Hash as Content, Value, encode};
use agentd_engine::{
    Asked, DiskFailure, Entry, Input, Keeper, Open, Phase, Receipt, Refusal, State, Status, Turn, TurnError,
};
use agentd_journal::{Chain, Signer};
use agentd_model::{Principal, Seq};
use tokio::sync::oneshot;

use super::adapter::{Came, Job, Outcome, Outside};
use super::reducers::WorldReducers;
use crate::clock::Clock;
use crate::journal::{Journal, OpenError, ReadError, Reader, hash_of_saved};

/// Inputs of one turn.
const BATCH: usize = 256;
/// Effects of one world that are being done at a time; the rest wait.
const AT_A_TIME: usize = 16;
/// How long after a disk that refused the world is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Something for a world.
pub enum Message {
    /// An input.
    Ask(Box<Asked>, oneshot::Sender<Result<Seq, AskError>>),
    /// Somebody wants to look at the state as of the last commit.
    Look(Box<dyn FnOnce(&State) + Send>),
    /// An adapter has done an effect, or not.
    Came(Box<Came>),
    /// Old records are to go; at least so many of the newest stay.
    Prune(u64, Principal, oneshot::Sender<Result<Pruned, AskError>>),
    /// Another key signs from now on.
    Rotate(Box<Signer>, oneshot::Sender<Result<Seq, AskError>>),
    /// The end of the thread.
    Stop,
}

/// Where an answer goes, if anybody waits for it.
type Reply = Option<oneshot::Sender<Result<Seq, AskError>>>;

/// Why an input was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    /// The world refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be recorded; nothing has changed.
    #[error("nothing was changed, because it could not be recorded: {0}")]
    NotRecorded(String),
    /// It is recorded that old records go, and they are still there.
    #[error("the old records are still there; try again: {0}")]
    Unfinished(String),
    /// The world has more to do than it can.
    #[error("the world is busy; try again")]
    Busy,
    /// The daemon is on its way out.
    #[error("agentd is stopping")]
    Stopping,
}

/// What was taken out of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The first record that is there now.
    pub first: Seq,
    /// How many went.
    pub removed: u64,
}

/// What a world's thread is made of.
pub struct Parts {
    /// Its name.
    pub name: String,
    /// Its journal.
    pub path: PathBuf,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// What runs its reducers.
    pub reducers: WorldReducers,
    /// What does its effects.
    pub outside: Arc<dyn Outside>,
}

/// The thread.
pub struct Thread {
    parts: Parts,
    keeper: Keeper<Journal>,
    inbox: Receiver<Message>,
    own: SyncSender<Message>,
    timers: BTreeMap<(u64, Content), u32>,
    doing: usize,
    waiting: VecDeque<Open>,
    /// Receipts that the disk did not take; taken again when it may.
    held: Vec<Asked>,
}

impl Thread {
    /// Over an opened world.
    pub fn new(parts: Parts, keeper: Keeper<Journal>, inbox: Receiver<Message>, own: SyncSender<Message>) -> Thread {
        Thread {
            parts,
            keeper,
            inbox,
            own,
            timers: BTreeMap::new(),
            doing: 0,
            waiting: VecDeque::new(),
            held: Vec::new(),
        }
    }

    /// Runs until somebody says stop.
    pub fn run(mut self) {
        let now = self.parts.clock.stamp().wall_ns;
        let left = self.keeper.left_behind(now);
        self.turn(left.into_iter().map(|asked| (asked, None)).collect());
        loop {
            if !self.held.is_empty() {
                std::thread::sleep(RETRY);
                let held = std::mem::take(&mut self.held);
                self.turn(held.into_iter().map(|asked| (asked, None)).collect());
            }
            self.ring();
            let first = match self.until_next_timer() {
                Some(wait) => match self.inbox.recv_timeout(wait) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                None => match self.inbox.recv() {
                    Ok(message) => message,
                    Err(_all_gone) => return,
                },
            };
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Ask(asked, reply) => batch.push((*asked, Some(reply))),
                    Message::Came(came) => batch.extend(self.receipt(*came).map(|asked| (asked, None))),
                    Message::Stop => {
                        self.turn(batch);
                        return;
                    }
                    // Whoever looks sees everything that came before.
                    Message::Look(look) => {
                        self.turn(std::mem::take(&mut batch));
                        look(self.keeper.state());
                    }
                    Message::Prune(keep, by, reply) => {
                        self.turn(std::mem::take(&mut batch));
                        drop(reply.send(self.prune(keep, by)));
                    }
                    // They are signed with the key of now.
                    Message::Rotate(_, reply) if !self.held.is_empty() => {
                        drop(reply.send(Err(AskError::NotRecorded("receipts wait for the disk".into()))));
                    }
                    Message::Rotate(signer, reply) => {
                        self.turn(std::mem::take(&mut batch));
                        let stamp = self.parts.clock.stamp();
                        let rotated = self.keeper.rotate(*signer, stamp, &self.parts.reducers);
                        if let Err(error) = &rotated {
                            self.open_again(error);
                        }
                        drop(reply.send(rotated.map_err(|error| AskError::NotRecorded(error.to_string()))));
                    }
                }
                if batch.len() < BATCH {
                    next = self.inbox.try_recv().ok();
                }
            }
            self.turn(batch);
        }
    }

    /// Takes inputs, then whatever they allow to be done.
    fn turn(&mut self, batch: Vec<(Asked, Reply)>) {
        let (asked, replies): (Vec<Asked>, Vec<_>) = batch.into_iter().unzip();
        if !asked.is_empty() {
            let receipts = asked.iter().filter(|asked| matches!(asked.input, Input::Receipt { .. }));
            let receipts: Vec<Asked> = receipts.cloned().collect();
            let stamp = self.parts.clock.stamp();
            match self.keeper.turn(asked, stamp, &self.parts.reducers) {
                Ok(Turn { answers, perform, .. }) => {
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        if let Err(refusal) = &answer
                            && reply.is_none()
                        {
                            tracing::warn!(world = self.parts.name, %refusal, "the world does not take what came of an effect");
                        }
                        reply.map(|reply| reply.send(answer.map_err(AskError::from)));
                    }
                    self.perform(perform);
                }
                Err(error) => {
                    let text = error.to_string();
                    for reply in replies.into_iter().flatten() {
                        drop(reply.send(Err(AskError::NotRecorded(text.clone()))));
                    }
                    self.open_again(&error);
                    self.held.extend(receipts);
                    return;
                }
            }
        }
        let due = self.keeper.due();
        if !due.is_empty() {
            self.turn(due.into_iter().map(|asked| (asked, None)).collect());
        }
    }

    /// Says in the journal that it will begin later, then lets it.
    fn prune(&mut self, keep: u64, by: Principal) -> Result<Pruned, AskError> {
        let not_recorded = |error: &dyn std::fmt::Display| AskError::NotRecorded(error.to_string());
        if keep == 0 {
            let saved = self.keeper.save(self.parts.clock.stamp(), &self.parts.reducers);
            saved.map_err(|error| {
                self.open_again(&error);
                not_recorded(&error)
            })?;
        }
        let beginning = beginning(&self.parts.path, keep).map_err(|error| not_recorded(&error))?;
        let (now, first) = beginning;
        if first <= now {
            return Ok(Pruned { first: now, removed: 0 });
        }
        let input = Input::Prune { first, by };
        match self.keeper.turn(vec![input.into()], self.parts.clock.stamp(), &self.parts.reducers) {
            Ok(Turn { mut answers, .. }) => answers.pop().unwrap_or(Ok(first)).map(drop)?,
            Err(error) => {
                self.open_again(&error);
                return Err(not_recorded(&error));
            }
        }
        let removed = self.keeper.disk().prune(first).map_err(|error| {
            if error.is_unknown() {
                tracing::error!(
                    world = self.parts.name,
                    error = crate::errors::one_line(&error),
                    "what is on the disk is unknown"
                );
                std::process::exit(1);
            }
            AskError::Unfinished(crate::errors::one_line(&error))
        })?;
        Ok(Pruned { first, removed })
    }

    /// After a turn that came to nothing: back to what the disk has.
    fn open_again(&mut self, error: &TurnError) {
        tracing::error!(world = self.parts.name, %error, "the world goes back to what is on the disk");
        if matches!(error, TurnError::Disk(DiskFailure::Unknown(_))) {
            std::process::exit(1);
        }
        loop {
            match open(&self.parts.path) {
                Ok((state, chain, saved, journal)) => {
                    let signer = self.keeper.signer().clone();
                    self.keeper = Keeper::new(state, chain, saved, journal, signer);
                    return;
                }
                Err(error @ OpenError::Damaged { .. }) => {
                    tracing::error!(world = self.parts.name, error = crate::errors::one_line(&error), "it is damaged");
                    std::process::exit(1);
                }
                Err(error) => {
                    tracing::error!(
                        world = self.parts.name,
                        error = crate::errors::one_line(&error),
                        "it cannot be opened"
                    );
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Hands effects that are on disk as attempted to their adapters.
    fn perform(&mut self, effects: Vec<Open>) {
        self.waiting.extend(effects);
        while self.doing < AT_A_TIME {
            let Some(open) = self.waiting.pop_front() else { return };
            let Phase::Attempted { attempt } = open.phase else { continue };
            // A fence may have given it up while it waited, or another attempt be under way.
            let now = self.keeper.state().open_intent(&open.intent.id).map(|open| open.phase);
            if now != Some(open.phase) {
                continue;
            }
            let Some(job) = self.job(&open) else { continue };
            if job.kind.name() == "timer" {
                if let Value::Record(fields) = &job.params
                    && let Some(Value::Time(at)) = fields.first()
                {
                    self.timers.insert((*at, job.intent), attempt);
                }
                continue;
            }
            self.doing += 1;
            let (outside, own, clock) = (self.parts.outside.clone(), self.own.clone(), self.parts.clock.clone());
            let work = move || {
                let began_ns = clock.stamp().wall_ns;
                let (adapter, outcome, blobs) = outside.perform(&job);
                let ended_ns = clock.stamp().wall_ns;
                let came = Came { intent: job.intent, attempt, adapter, outcome, blobs, began_ns, ended_ns };
                // If the thread has gone, the next start says that nobody knows.
                let _ = own.send(Message::Came(Box::new(came)));
            };
            if let Err(error) = std::thread::Builder::new().name("effect".into()).spawn(work) {
                tracing::error!(%error, "no thread for an effect");
                self.doing -= 1;
            }
        }
    }

    fn job(&self, open: &Open) -> Option<Job> {
        let kind = agentd_air::effect(&open.intent.kind)?;
        let strict = agentd_air::Strictness::Canonical;
        let params = agentd_air::decode(agentd_air::schemas(), &kind.params, &open.intent.params, strict).ok()?;
        let name = open.intent.capability.parse().ok()?;
        let scope = self.keeper.state().definitions().capability(&name).map(|found| found.scope.clone());
        Some(Job {
            world: self.keeper.state().world(),
            name: self.parts.name.clone(),
            path: self.parts.path.clone(),
            intent: open.intent.id,
            wanted: open.wanted,
            kind: open.intent.kind.clone(),
            params,
            scope: scope.unwrap_or_default(),
        })
    }

    /// What an adapter says becomes a receipt, signed with the key of now.
    fn receipt(&mut self, came: Came) -> Option<Asked> {
        self.doing = self.doing.saturating_sub(1);
        self.perform(vec![]);
        Some(self.signed(came))
    }

    fn signed(&self, came: Came) -> Asked {
        let (status, result, reason) = match came.outcome {
            Outcome::Done(value) => (Status::Done, Some(encode(&value).into()), None),
            Outcome::Failed(why) => (Status::Failed, None, Some(why)),
            Outcome::TimedOut(after) => (Status::TimedOut, None, Some(format!("no end after {after:?}"))),
        };
        let world = self.keeper.state().world();
        let mut receipt = Receipt::new(world, came.intent, came.adapter, came.attempt, status);
        receipt.result = result;
        receipt.reason = reason;
        (receipt.began_ns, receipt.ended_ns) = (came.began_ns, came.ended_ns);
        Asked { input: Input::Receipt { bytes: receipt.sign(self.keeper.signer()) }, blobs: came.blobs }
    }

    /// How long to wait for a message at most.
    fn until_next_timer(&self) -> Option<Duration> {
        if !self.held.is_empty() {
            return Some(Duration::ZERO);
        }
        let ((at, _), _) = self.timers.first_key_value()?;
        Some(Duration::from_nanos(at.saturating_sub(self.parts.clock.stamp().wall_ns)))
    }

    /// Timers whose time has come.
    fn ring(&mut self) {
        let now = self.parts.clock.stamp().wall_ns;
        let mut rung = Vec::new();
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, intent), attempt) = entry.remove_entry();
            let outcome = Outcome::Done(Value::Record(vec![Value::Time(at)]));
            let came =
                Came { intent, attempt, adapter: "timer/1", outcome, blobs: vec![], began_ns: now, ended_ns: now };
            rung.push((self.signed(came), None));
        }
        if !rung.is_empty() {
            self.turn(rung);
        }
    }
}

/// Where a journal begins, and where it could so that at least `keep` records stay; 0 is nowhere.
pub fn beginning(path: &std::path::Path, keep: u64) -> Result<(Seq, Seq), ReadError> {
    let reader = Reader::snapshot(path)?;
    let height = reader.head()?.map_or(0, |(head, _)| head.seq.0);
    let most = Seq((height + 1).saturating_sub(keep));
    // Once what is older is gone, everything hangs on this state.
    let sound = |(first, bytes): &(Seq, Vec<u8>)| -> Result<bool, ReadError> {
        let record = reader.bytes(*first)?.unwrap_or_default();
        let resumed = Chain::resume::<Entry>(*first, &record, hash_of_saved(bytes));
        Ok(resumed.is_ok() && State::restore(bytes).is_some())
    };
    let first = match reader.saved(most)? {
        Some(found) if sound(&found)? => found.0,
        _ => Seq(0),
    };
    Ok((reader.first()?.unwrap_or(Seq(1)), first))
}

/// Opens a world's journal.
pub fn open(path: &std::path::Path) -> Result<(State, Chain, Seq, Journal), OpenError> {
    let opened = Journal::open::<State>(path)?;
    if opened.torn_bytes > 0 {
        tracing::warn!(path = %path.display(), bytes = opened.torn_bytes, "an unfinished write was cut; nothing in it was acknowledged");
    }
    Ok((opened.state, opened.chain, opened.saved, opened.journal))
}
