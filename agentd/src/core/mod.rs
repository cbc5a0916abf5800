//! The core: the one owner of the state and of the journal.
//!
//! ```text
//!           requests, observations                  ┌─▶ replies, records, state   (only after the disk has it)
//!  server ─┐                                        │
//!  kernel ─┼─▶ inbox ─▶ decide ─▶ append ─▶ apply ──┴─▶ effects ─▶ performer ─▶ observations ─▶ inbox
//!  shims  ─┘   (bounded)  (pure)   (durable)  (pure)
//! ```
//!
//! The core is a thread of its own. It takes what has come in, as a batch, decides each input against the state that the
//! inputs before it made, and writes all events of the batch in one transaction (group commit). Within a batch the state
//! runs ahead of the disk; nothing that it decided leaves the core before the batch is on disk. A batch that cannot be
//! written is undone as a whole: the state is what it was, requests are refused with the reason, observations are
//! taken again later, and the kernel goes on refusing by itself.
//!
//! **Invariant:** nobody else changes the state; others see [`World::state`], which is a snapshot behind a pointer.

mod inbox;

use std::sync::Arc;
use std::time::Duration;

use agentd_journal::{Chain, Hash, Record, Signer};
use agentd_model::{Effect, Event, Principal, Seq, Stamp, WorldId};
use agentd_world::{State, command, observe};
use tokio::sync::{broadcast, mpsc, watch};

use crate::clock::Clock;
use crate::journal::{AppendError, Commit, Fold, Journal, Opened, Row, hash_of_saved};
pub use inbox::{CommandError, Done, Input, LaunchTicket, Launched, Recording, World};

/// Inputs taken in one batch.
const BATCH: usize = 256;

/// How long to wait before an observation that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Records after which the state is saved again.
const SAVE_EVERY: u64 = 10_000;

/// Does what the world wants done. Quick: whatever takes long is started here and reports back as an observation.
pub trait Performer: Send {
    /// A launch that has been prepared is about to be asked for.
    fn expect(&mut self, ticket: LaunchTicket);

    /// Does one effect, or begins to.
    fn perform(&mut self, state: &State, effect: Effect);
}

/// The owner.
pub struct Core {
    state: State,
    chain: Chain,
    saved: Seq,
    journal: Journal,
    signer: Signer,
    clock: Arc<dyn Clock>,
    inbox: mpsc::Receiver<Input>,
    published: watch::Sender<Arc<State>>,
    records: broadcast::Sender<Arc<(Record, Hash)>>,
}

/// One event on its way to the disk.
struct Pending {
    record: Record,
    hash: Hash,
    bytes: Vec<u8>,
}

/// What one batch has decided and not yet published.
#[derive(Default)]
struct Batch {
    pending: Vec<Pending>,
    effects: Vec<Effect>,
    tickets: Vec<LaunchTicket>,
    answers: Vec<inbox::Answer>,
    retry: Vec<inbox::Seen>,
    saved: Option<Vec<u8>>,
}

impl Fold for State {
    type Body = Event;

    fn restore(bytes: &[u8]) -> Option<State> {
        State::restore(bytes)
    }

    fn take(&mut self, record: &Record) {
        // Effects of the past were performed in the past; what is left of them is settled by adoption.
        drop(self.apply(record.seq, record.stamp, &record.event));
    }
}

impl Core {
    /// A core over an opened journal, and the handle by which everybody else speaks to it. `signer` has the key that the
    /// journal's next head is to be signed with.
    pub fn new(opened: Opened<State>, signer: Signer, clock: Arc<dyn Clock>) -> (Core, World) {
        let Opened { journal, chain, state, saved, .. } = opened;
        let (sender, inbox) = mpsc::channel(1024);
        let (published, watching) = watch::channel(Arc::new(state.clone()));
        let (records, _) = broadcast::channel(4096);
        let world = World { inbox: sender, state: watching, records: records.clone() };
        (Core { state, chain, saved, journal, signer, clock, inbox, published, records }, world)
    }

    /// Runs until every handle is gone or somebody sends [`Input::Stop`].
    pub fn run(mut self, mut performer: impl Performer) {
        let mut held: Vec<inbox::Seen> = Vec::new();
        loop {
            let mut inputs: Vec<Input> = held.drain(..).map(Input::Seen).collect();
            let waited = if inputs.is_empty() { self.inbox.blocking_recv() } else { self.inbox.try_recv().ok() };
            match waited {
                Some(Input::Stop) => return,
                Some(input) => inputs.push(input),
                None if inputs.is_empty() => return,
                None => {}
            }
            while inputs.len() < BATCH {
                match self.inbox.try_recv() {
                    Ok(Input::Stop) => return,
                    Ok(input) => inputs.push(input),
                    Err(_) => break,
                }
            }
            held = vec![];
            for piece in pieces(inputs) {
                held.extend(self.take(piece, &mut performer));
            }
            if !held.is_empty() {
                std::thread::sleep(RETRY);
            }
        }
    }

    /// Saves the state with the batch, if enough has happened since the last time.
    fn save(&mut self, stamp: Stamp, batch: &mut Batch) {
        let Some(key) = self.chain.key.filter(|_| self.chain.seq.0 - self.saved.0 >= SAVE_EVERY) else { return };
        let bytes = self.state.save();
        let event = Event::StateSaved { state: hash_of_saved(&bytes), key };
        self.extend(vec![event], stamp, batch);
        batch.saved = Some(bytes);
    }

    /// Takes one batch. Gives back the observations that could not be written.
    fn take(&mut self, inputs: Vec<Input>, performer: &mut impl Performer) -> Vec<inbox::Seen> {
        let before = (self.state.clone(), self.chain);
        let next = inputs.iter().find_map(|input| match input {
            Input::Rotate { next, .. } => Some(next.as_ref().clone()),
            _ => None,
        });
        let stamp = self.clock.stamp();
        let mut batch = Batch::default();
        for input in inputs {
            self.decide(input, stamp, &mut batch);
        }
        // The head of a rotation says nothing else, so the state is saved another time.
        if next.is_none() {
            self.save(stamp, &mut batch);
        }
        if let Err(error) = self.write(&mut batch) {
            tracing::error!(error = &error as &dyn std::error::Error, "the journal cannot be written");
            if error.is_unknown() {
                // Agents go on, refusals hold; the next daemon reads what is really there.
                std::process::exit(1);
            }
            (self.state, self.chain) = before;
            let reason = crate::errors::one_line(&error);
            for answer in batch.answers {
                answer.refuse(&reason);
            }
            return batch.retry;
        }
        if let Some(next) = next {
            self.signer = next;
        }
        if batch.saved.is_some() {
            self.saved = self.chain.seq;
        }
        self.publish(batch, performer);
        vec![]
    }

    /// Decides one input against the state as the inputs before it made it.
    fn decide(&mut self, input: Input, stamp: Stamp, batch: &mut Batch) {
        match input {
            Input::Stop => {}
            Input::Command { command: what, by, ticket, reply } => match command(&self.state, *what, by) {
                Ok(events) => {
                    let agent = events.first().and_then(Event::agent);
                    let seq = self.extend(events, stamp, batch);
                    batch.tickets.extend(ticket);
                    batch.answers.push(inbox::Answer::Command { reply, result: Ok(Done { seq, agent }) });
                }
                Err(refusal) => {
                    let result = Err(CommandError::Refused(refusal));
                    batch.answers.push(inbox::Answer::Command { reply, result });
                }
            },
            Input::Seen(inbox::Seen { observation, reply }) => {
                let events = observe(&self.state, observation.clone());
                let meant_something = !events.is_empty();
                self.extend(events, stamp, batch);
                match reply {
                    Some(reply) => batch.answers.push(inbox::Answer::Seen { reply, meant_something }),
                    // Nobody waits, so it can be taken again if the disk refuses.
                    None => batch.retry.push(inbox::Seen { observation, reply: None }),
                }
            }
            Input::Rotate { next, reply } => {
                self.extend(vec![Event::KeyRotated { key: next.key() }], stamp, batch);
                batch.answers.push(inbox::Answer::Seen { reply, meant_something: true });
            }
            Input::Event { event, reply } => {
                self.extend(vec![*event], stamp, batch);
                batch.answers.push(inbox::Answer::Seen { reply, meant_something: true });
            }
        }
    }

    /// Appends events to the chain and the state, in memory. Returns the number of the last.
    fn extend(&mut self, events: Vec<Event>, stamp: Stamp, batch: &mut Batch) -> Seq {
        let begun = || Event::JournalBegun { world: WorldId(stamp.entropy.0), key: self.signer.key() };
        let begun = (self.chain.seq == Seq(0) && !events.is_empty()).then(begun);
        for event in begun.into_iter().chain(events) {
            let (cause, previous) = (self.cause_of(&event), self.chain.head);
            let (seq, bytes) = self.chain.append(stamp, cause, event.clone());
            batch.effects.extend(self.state.apply(seq, stamp, &event));
            let record = Record { seq, previous, stamp, cause, event };
            batch.pending.push(Pending { record, hash: self.chain.head, bytes });
        }
        self.chain.seq
    }

    /// Everything that happens to an agent goes back to the request for it, unless somebody asked for it just now.
    fn cause_of(&self, event: &Event) -> Option<Seq> {
        match event {
            Event::AgentPaused { by: Principal::User { .. }, .. }
            | Event::AgentResumed { by: Principal::User { .. }, .. }
            | Event::AgentSignalled { by: Principal::User { .. }, .. }
            | Event::CapabilityGranted { by: Principal::User { .. }, .. }
            | Event::CapabilityRevoked { by: Principal::User { .. }, .. }
            | Event::BudgetToppedUp { by: Principal::User { .. }, .. } => None,
            _ => event.agent().and_then(|agent| self.state.agent(agent)).map(|agent| agent.request),
        }
    }

    fn write(&mut self, batch: &mut Batch) -> Result<(), AppendError> {
        if batch.pending.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row<'_>> = batch
            .pending
            .iter()
            .map(|Pending { record, bytes, .. }| Row { seq: record.seq, agent: record.event.agent(), bytes })
            .collect();
        let head = self.chain.head();
        let signature = self.signer.sign_head(&head);
        self.journal.append(&Commit { rows: &rows, head, signature, saved: batch.saved.as_deref(), blobs: &[] })
    }

    /// The batch is on disk: now the others may know, and things may be done.
    fn publish(&mut self, batch: Batch, performer: &mut impl Performer) {
        if !batch.pending.is_empty() {
            self.published.send_replace(Arc::new(self.state.clone()));
        }
        for Pending { record, hash, .. } in batch.pending {
            // Nobody listening is no error.
            let _ = self.records.send(Arc::new((record, hash)));
        }
        for ticket in batch.tickets {
            performer.expect(ticket);
        }
        for effect in batch.effects {
            tracing::debug!(?effect, "perform");
            performer.perform(&self.state, effect);
        }
        for answer in batch.answers {
            answer.send();
        }
    }
}

/// What goes to the disk together: everything, but for a change of keys, which ends a commit.
fn pieces(inputs: Vec<Input>) -> Vec<Vec<Input>> {
    let mut pieces = vec![vec![]];
    for input in inputs {
        let ends = matches!(input, Input::Rotate { .. });
        if let Some(piece) = pieces.last_mut() {
            piece.push(input);
        }
        if ends {
            pieces.push(vec![]);
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests;
