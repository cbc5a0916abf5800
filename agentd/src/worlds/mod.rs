//! Worlds beside the host's: opened, kept, told of what happens on the host, copied and handed on.
//!
//! ```text
//! <state>/worlds/<name>/journal.sqlite      one directory, one journal, one thread each
//! server ─▶ Worlds ─▶ Handle ─▶ keeper (thread) ─▶ journal
//!                                   ▲      └─▶ adapters, a thread an effect ─▶ receipts
//! host's journal ─▶ bridge ─────────┘
//! ```
//!
//! The host's world is not one of them: it is the core's. What it records reaches the others as `sys/…` events, each once
//! and in order; what they want of it comes back as commands *by a world*.

pub mod adapter;
mod bridge;
pub mod bundle;
mod disk;
pub mod keeper;
pub mod offline;
mod outside;
pub mod reducers;
pub mod rehearse;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, RwLock};

use agentd_engine::{Asked, Input, Keeper, State, TurnError};
use agentd_journal::Chain;
use agentd_model::{Principal, Seq, WorldId};
use tokio::sync::oneshot;

pub use disk::{each_after, state_at};
pub use keeper::{AskError, Message, Pruned, beginning};
pub use outside::HostOutside;

use self::adapter::Outside;
use self::keeper::{Parts, Thread};
use self::reducers::{Blobs, Modules, WorldReducers};
use crate::clock::Clock;
use crate::journal::{Journal, OpenError};
use crate::keyring::{KeyError, Keyring};

/// Messages that wait for a world.
const INBOX: usize = 1024;
/// Most worlds of one host.
pub const MOST: usize = 64;

/// All worlds of this host but its own.
pub struct Worlds {
    directory: PathBuf,
    keyring: Keyring,
    clock: Arc<dyn Clock>,
    modules: Arc<Modules>,
    open: RwLock<BTreeMap<String, Handle>>,
}

/// How to reach one of them. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// Its name.
    pub name: String,
    /// Its journal.
    pub path: PathBuf,
    inbox: SyncSender<Message>,
}

/// Why a world could not be made or opened. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The name is none.
    #[error("{0:?} is no name for a world: 1 to 32 of a-z, 0-9 and -, the first a letter")]
    Name(String),
    /// There is one already.
    #[error("there is a world {0} already")]
    Exists(String),
    /// There is none.
    #[error("there is no world {0}")]
    Unknown(String),
    /// There are enough.
    #[error("there are {MOST} worlds; that is the most")]
    Full,
    /// The disk refused.
    #[error("cannot use {path}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The key that its journal needs is not there.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What is first to be recorded could not be.
    #[error("the world's journal cannot be written")]
    Write(#[from] TurnError),
    /// Its thread could not be started.
    #[error("no thread for a world")]
    Thread(#[source] io::Error),
    /// What is to be copied cannot be read.
    #[error(transparent)]
    Read(#[from] crate::journal::ReadError),
    /// A bundle is not what it should be.
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
}

impl Worlds {
    /// None yet.
    pub fn new(directory: &Path, keyring: Keyring, clock: Arc<dyn Clock>, modules: Modules) -> Worlds {
        let (directory, modules) = (directory.to_owned(), Arc::new(modules));
        Worlds { directory, keyring, clock, modules, open: RwLock::default() }
    }

    /// Opens what is there. A world that cannot be opened is told and left alone; the others are not held up by it.
    pub fn open_all(&self, outside: &Arc<dyn Outside>) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        for name in names.into_iter().filter(|name| is_name(name)) {
            if let Err(error) = self.start(&name, outside) {
                tracing::error!(world = name, error = crate::errors::one_line(&error), "the world cannot be opened");
            }
        }
    }

    /// Begins to tell the worlds what happens on the host. Within a runtime.
    pub fn listen(self: &Arc<Worlds>, core: crate::core::World, journal: &Path) {
        tokio::spawn(bridge::run(core, journal.to_owned(), Arc::downgrade(self)));
    }

    /// Makes a world.
    pub fn create(&self, name: &str, outside: &Arc<dyn Outside>) -> Result<Handle, WorldError> {
        let path = self.make_place(name)?;
        let signer = self.keyring.current()?;
        let (state, chain, saved, journal) = keeper::open(&path)?;
        let mut keeper = Keeper::new(state, chain, saved, journal, signer);
        let stamp = self.clock.stamp();
        let world = WorldId(stamp.entropy.0);
        let begin = Input::Begin { world, name: name.to_owned(), key: keeper.signer().key() };
        keeper.turn(vec![begin.into()], stamp, &self.reducers(&path))?;
        drop(keeper);
        self.start(name, outside)
    }

    /// Takes a copy of another host's world, or of one of this host, under a name of its own. `fill` writes the journal.
    pub fn adopt(
        &self,
        name: &str,
        outside: &Arc<dyn Outside>,
        fill: impl FnOnce(&Path) -> Result<(), WorldError>,
    ) -> Result<Handle, WorldError> {
        let path = self.make_place(name)?;
        let filled = fill(&path).and_then(|()| {
            let (state, chain, saved, journal) = keeper::open(&path)?;
            let own = self.keyring.current()?;
            let mut keeper = Keeper::new(state, chain, saved, journal, own.clone());
            keeper.take_over(name.to_owned(), own, self.clock.stamp(), &self.reducers(&path))?;
            Ok(())
        });
        match filled {
            Ok(()) => self.start(name, outside),
            Err(error) => {
                // Nothing of it was acknowledged to anybody.
                if let Err(left) = fs::remove_dir_all(self.directory.join(name)) {
                    tracing::warn!(%left, world = name, "what was begun is still there");
                }
                Err(error)
            }
        }
    }

    fn make_place(&self, name: &str) -> Result<PathBuf, WorldError> {
        if !is_name(name) {
            return Err(WorldError::Name(name.to_owned()));
        }
        if self.list().len() >= MOST {
            return Err(WorldError::Full);
        }
        let directory = self.directory.join(name);
        if directory.exists() {
            return Err(WorldError::Exists(name.to_owned()));
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|source| WorldError::Io { path: directory.clone(), source })?;
        Ok(directory.join("journal.sqlite"))
    }

    fn reducers(&self, path: &Path) -> WorldReducers {
        WorldReducers::new(self.modules.clone(), Blobs::Journal(path.to_owned()))
    }

    /// Reducers for looking at a world beside its thread.
    pub fn reducers_of(&self, handle: &Handle) -> WorldReducers {
        self.reducers(&handle.path)
    }

    /// What compiles.
    pub fn modules(&self) -> &Arc<Modules> {
        &self.modules
    }

    fn start(&self, name: &str, outside: &Arc<dyn Outside>) -> Result<Handle, WorldError> {
        let path = self.directory.join(name).join("journal.sqlite");
        let (state, chain, saved, journal) = keeper::open(&path)?;
        let reducers = self.reducers(&path);
        let keeper = self.with_current_key(state, chain, saved, journal, &reducers)?;
        let (inbox, messages) = sync_channel(INBOX);
        let parts = Parts {
            name: name.to_owned(),
            path: path.clone(),
            clock: self.clock.clone(),
            reducers,
            outside: outside.clone(),
        };
        let thread = Thread::new(parts, keeper, messages, inbox.clone());
        // Compiled code runs on this thread's stack.
        let builder = std::thread::Builder::new().name(format!("world {name}")).stack_size(4 << 20);
        builder.spawn(move || thread.run()).map_err(WorldError::Thread)?;
        let handle = Handle { name: name.to_owned(), path, inbox };
        let mut open = self.open.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.insert(name.to_owned(), handle.clone());
        Ok(handle)
    }

    /// The host's key may have changed while the world was closed.
    fn with_current_key(
        &self,
        state: State,
        chain: Chain,
        saved: Seq,
        journal: Journal,
        reducers: &WorldReducers,
    ) -> Result<Keeper<Journal>, WorldError> {
        let current = self.keyring.current()?;
        let signer = chain.key.map_or_else(|| Ok(current.clone()), |key| self.keyring.get(key))?;
        let mut keeper = Keeper::new(state, chain, saved, journal, signer);
        if chain.key.is_some_and(|key| key != current.key()) {
            keeper.rotate(current, self.clock.stamp(), reducers)?;
        }
        Ok(keeper)
    }

    /// Every world that is open, by name.
    pub fn list(&self) -> Vec<Handle> {
        self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner).values().cloned().collect()
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Result<Handle, WorldError> {
        let open = self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.get(name).cloned().ok_or_else(|| WorldError::Unknown(name.to_owned()))
    }

    /// The host's keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Ends every thread; what was taken in is on disk.
    pub fn close(&self) {
        for handle in self.list() {
            // A full inbox empties, a gone thread needs no word.
            let _ = handle.inbox.send(Message::Stop);
        }
    }
}

impl Handle {
    /// Takes an input and waits until it is durable or refused.
    pub async fn ask(&self, asked: impl Into<Asked>) -> Result<Seq, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Ask(Box::new(asked.into()), reply))?;
        answer.await.unwrap_or(Err(AskError::Stopping))
    }

    /// The same, for threads.
    pub fn ask_blocking(&self, asked: impl Into<Asked>) -> Result<Seq, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Ask(Box::new(asked.into()), reply))?;
        answer.blocking_recv().unwrap_or(Err(AskError::Stopping))
    }

    /// Looks at the state as of the last commit.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Look(Box::new(move |state| drop(reply.send(look(state))))))?;
        answer.await.map_err(|_gone| AskError::Stopping)
    }

    /// The same, for threads.
    pub fn look_blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Look(Box::new(move |state| drop(reply.send(look(state))))))?;
        answer.blocking_recv().map_err(|_gone| AskError::Stopping)
    }

    /// Takes out old records; at least the newest `keep` stay.
    pub async fn prune(&self, keep: u64, by: Principal) -> Result<Pruned, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Prune(keep, by, reply))?;
        answer.await.unwrap_or(Err(AskError::Stopping))
    }

    /// Lets another key sign.
    pub async fn rotate(&self, signer: agentd_journal::Signer) -> Result<Seq, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Rotate(Box::new(signer), reply))?;
        answer.await.unwrap_or(Err(AskError::Stopping))
    }

    fn send(&self, message: Message) -> Result<(), AskError> {
        self.inbox.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => AskError::Busy,
            TrySendError::Disconnected(_) => AskError::Stopping,
        })
    }
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    bytes.first().is_some_and(u8::is_ascii_lowercase) && bytes.len() <= 32 && bytes.iter().all(plain)
}
