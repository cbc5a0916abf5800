//! What goes into the core, and what comes back.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use agentd_journal::{Hash, Record, Signer};
use agentd_model::{AgentNumber, Event, Gap, Principal, Seq};
use agentd_world::{Command, Observation, Refusal, State};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Something for the core.
pub enum Input {
    /// Somebody asks for something.
    Command {
        /// What.
        command: Box<Command>,
        /// Who.
        by: Principal,
        /// With a spawn: the launch, if it has been prepared.
        ticket: Option<LaunchTicket>,
        /// Answered once it is durable, or refused.
        reply: oneshot::Sender<Result<Done, CommandError>>,
    },
    /// Something was seen.
    Seen(Seen),
    /// Something that needs no decision: the daemon's own start.
    Event {
        /// What.
        event: Box<Event>,
        /// Answered once it is durable.
        reply: oneshot::Sender<bool>,
    },
    /// From the next commit on, another key signs.
    Rotate {
        /// It.
        next: Box<Signer>,
        /// Answered once the old key has vouched for it.
        reply: oneshot::Sender<bool>,
    },
    /// The end of the core; agents go on.
    Stop,
}

/// An observation, and perhaps somebody who waits until it is durable.
pub struct Seen {
    pub(super) observation: Observation,
    pub(super) reply: Option<oneshot::Sender<bool>>,
}

/// A command was done: its events are durable.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// The last of its records.
    pub seq: Seq,
    /// The agent it was about.
    pub agent: Option<AgentNumber>,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The world refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The journal could not be written; nothing has changed.
    #[error("nothing was changed, because it could not be recorded: {0}")]
    NotRecorded(String),
    /// The daemon is on its way out.
    #[error("agentd is stopping")]
    Stopping,
}

/// A launch that has been prepared by whoever asked for the agent.
pub struct LaunchTicket {
    /// Which agent.
    pub agent: AgentNumber,
    /// Called when the agent is in the journal; dropped when it does not get there.
    pub go: Box<dyn FnOnce() + Send>,
}

/// A launch that came about.
#[derive(Debug)]
pub struct Launched {
    /// The attach stream, if one was wanted.
    pub stream: Option<OwnedFd>,
    /// Promises given up.
    pub gaps: Vec<Gap>,
}

/// Where an answer goes once the batch is on disk.
pub(super) enum Answer {
    Command { reply: oneshot::Sender<Result<Done, CommandError>>, result: Result<Done, CommandError> },
    Seen { reply: oneshot::Sender<bool>, meant_something: bool },
}

impl Answer {
    /// Whoever asked may have gone; that is no error.
    pub(super) fn send(self) {
        match self {
            Answer::Command { reply, result } => drop(reply.send(result)),
            Answer::Seen { reply, meant_something } => drop(reply.send(meant_something)),
        }
    }

    /// The batch could not be written. What the world refused stays refused for its own reason.
    pub(super) fn refuse(self, reason: &str) {
        match self {
            Answer::Command { reply, result } => {
                drop(reply.send(result.and_then(|_| Err(CommandError::NotRecorded(reason.to_owned())))));
            }
            Answer::Seen { reply, .. } => drop(reply.send(false)),
        }
    }
}

/// An observation on its way to the disk.
pub struct Recording(oneshot::Receiver<bool>);

impl Recording {
    /// Waits until it is durable; for threads. False: it was not recorded, or means nothing.
    pub fn is_durable(self) -> bool {
        self.0.blocking_recv().unwrap_or(false)
    }
}

/// The handle to the core. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) state: watch::Receiver<Arc<State>>,
    pub(super) records: broadcast::Sender<Arc<(Record, Hash)>>,
}

impl World {
    /// The state as of the last batch that is on disk.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// Follows the state from batch to batch.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Follows the records, from the next one on. A reader that is too slow is told how many it missed.
    pub fn follow(&self) -> broadcast::Receiver<Arc<(Record, Hash)>> {
        self.records.subscribe()
    }

    /// Asks for something and waits until it is durable or refused.
    pub async fn ask(
        &self,
        command: Command,
        by: Principal,
        ticket: Option<LaunchTicket>,
    ) -> Result<Done, CommandError> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Command { command: Box::new(command), by, ticket, reply };
        self.inbox.send(input).await.ok().ok_or(CommandError::Stopping)?;
        answer.await.unwrap_or(Err(CommandError::Stopping))
    }

    /// Asks for something and waits until it is durable or refused; for threads.
    pub fn ask_blocking(&self, command: Command, by: Principal) -> Result<Done, CommandError> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Command { command: Box::new(command), by, ticket: None, reply };
        self.inbox.blocking_send(input).ok().ok_or(CommandError::Stopping)?;
        answer.blocking_recv().unwrap_or(Err(CommandError::Stopping))
    }

    /// Reports something; for threads. Waits only where the inbox is full.
    pub fn saw(&self, observation: Observation) {
        // The core has gone only when the daemon stops; what is not recorded then is found again at the next start.
        let _ = self.inbox.blocking_send(Input::Seen(Seen { observation, reply: None }));
    }

    /// Reports something that somebody will wait for; for threads.
    pub fn sees(&self, observation: Observation) -> Recording {
        let (reply, answer) = oneshot::channel();
        // If the core has gone, the answer is that it was not recorded.
        let _ = self.inbox.blocking_send(Input::Seen(Seen { observation, reply: Some(reply) }));
        Recording(answer)
    }

    /// Reports something and waits until it is durable; for threads. False: it was not recorded, or means nothing.
    pub fn saw_durably(&self, observation: Observation) -> bool {
        self.sees(observation).is_durable()
    }

    /// Records something that needs no decision, and waits until it is durable; for threads.
    pub fn record(&self, event: Event) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.inbox.blocking_send(Input::Event { event: Box::new(event), reply });
        sent.is_ok() && answer.blocking_recv().unwrap_or(false)
    }

    /// Lets another key sign from now on, and waits until the old one has vouched for it; for threads.
    pub fn rotate(&self, next: Signer) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.inbox.blocking_send(Input::Rotate { next: Box::new(next), reply });
        sent.is_ok() && answer.blocking_recv().unwrap_or(false)
    }

    /// Ends the core; agents go on.
    pub async fn stop(&self) {
        let _ = self.inbox.send(Input::Stop).await;
    }
}
