//! The daemon's side of a launch, up to the opening of the gate.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use agentd_model::{AgentNumber, Origin};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::handle::{self, Shim, ShimEvent};
use super::messages::{Command, Failure, Note, NoteKind, Pace, Progress};
use super::passing::{Channel, Wait};
use super::request::{LaunchRequest, Place};

/// How long any one message of a launch may take. Generous: a stalled network file system below a rule's path.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a killed init may take to die.
const DEATH_MS: u16 = 10_000;

/// Something that rules name, as the agent sees it. Its file stays open in the shim while the agent lives.
#[derive(Debug)]
pub struct Anchor {
    /// Opened with `O_PATH`: an object, or the directory that a name is in.
    pub file: OwnedFd,
    /// What it is to the rules; at least one.
    pub uses: Vec<AnchorUse>,
}

/// What an [`Anchor`] is to one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorUse {
    /// Index in the specification's `paths`. A rule may have several anchors, or none (optional and absent; a pattern).
    pub rule: usize,
    /// What.
    pub kind: AnchorKind,
}

/// How a rule uses an [`Anchor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorKind {
    /// The object at the rule's path, symbolic links followed.
    Object {
        /// Whether it is a directory.
        directory: bool,
    },
    /// A place where the rule's denial is to be kept by name: `names[0]` in the directory, whether it exists or not,
    /// and, where more than one name is missing, those below it. Only for denials. Where the path goes through
    /// symbolic links there is one for the path as written and one for where it leads.
    Name {
        /// At least one.
        names: Vec<String>,
    },
    /// A directory above a place where a denial is kept: the denial holds only while it is neither renamed nor removed.
    Way,
}

/// Why an agent could not be launched. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The shim could not be started.
    #[error("cannot start the shim {program}")]
    Shim {
        /// The program.
        program: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The shim stopped talking.
    #[error("the shim of agent {agent} broke off")]
    BrokeOff {
        /// Which agent.
        agent: AgentNumber,
        /// Why, if it is known.
        #[source]
        source: io::Error,
    },
    /// A rule allows a path that does not exist.
    #[error("{path} does not exist ({origin})")]
    Missing {
        /// The path.
        path: String,
        /// Who wrote the rule.
        origin: Origin,
    },
    /// A step towards the agent did not work.
    #[error("cannot {what}")]
    Step {
        /// What.
        what: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Why a gate did not open. Nothing of the agent is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The shim stopped talking.
    #[error("the shim broke off at the gate")]
    BrokeOff(#[source] io::Error),
}

/// How the agent's program started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It runs.
    Running,
    /// It does not: the agent ends with status 127 or 126 (or 125, if it was our own doing).
    NotRunning {
        /// The kernel's reason.
        errno: i32,
        /// The program, or the working directory that it could not be started in.
        program: String,
    },
}

/// A shim, and an init in namespaces of its own, that know their place and nothing else. Kept ready, they take an exec
/// and a clone out of the next launch; dropped, or left behind by a daemon that dies, they end.
#[derive(Debug)]
pub struct Spare {
    gate: AtGate,
    agent: AgentNumber,
}

impl Spare {
    /// Starts `program shim`, which must come to `shim::main`, at a place.
    pub fn start(program: &Path, place: &Place) -> Result<Spare, LaunchError> {
        let start = || {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_read_timeout(Some(PATIENCE))?;
            // No pre_exec, no working directory: then the standard library uses posix_spawn, which does not copy the
            // daemon's page tables. The shim does the rest to itself.
            let child = Process::new(program)
                .arg("shim")
                .env_clear()
                .stdin(OwnedFd::from(theirs))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            let channel = Channel::new(ours.into());
            // A program that is no shim may have gone already: told by the launch.
            let _ = channel.send(place, &[], Wait::Block);
            let (channel, child) = (Some(channel), Some(child));
            let gate = AtGate { channel, child, init: None, anchors: Vec::new(), landlock_abi: None };
            Ok(Spare { gate, agent: place.agent })
        };
        start().map_err(|source| LaunchError::Shim { program: program.display().to_string(), source })
    }

    /// Launches an agent with this shim. Blocks, for a few milliseconds, until the agent's view is made and everything
    /// that the rules name is found in it; meanwhile init goes on to give up its rights. `look` gets the files of the
    /// anchors, in their order, while others are still looked for.
    pub fn launch(self, request: &LaunchRequest, mut look: impl FnMut(&[BorrowedFd<'_>])) -> Result<Seen, LaunchError> {
        let mut seen = Seen { gate: self.gate, agent: self.agent };
        let mut files = Vec::new();
        seen.gate.channel_mut().send(request, &[], Wait::Block).map_err(|source| seen.broke_off(source))?;
        loop {
            match seen.read()? {
                Progress::Begun { init_pid } => seen.gate.init = Some((init_pid, seen.file()?)),
                Progress::Files { count } => {
                    let new = (0..count).map(|_| seen.file()).collect::<Result<Vec<_>, _>>()?;
                    look(&new.iter().map(AsFd::as_fd).collect::<Vec<_>>());
                    files.extend(new);
                }
                Progress::Seen { notes } if seen.gate.init.is_some() && notes.len() == files.len() => {
                    let uses = notes.into_iter().map(|notes| notes.into_iter().map(anchor_use).collect());
                    seen.gate.anchors = files.into_iter().zip(uses).map(|(file, uses)| Anchor { file, uses }).collect();
                    return Ok(seen);
                }
                Progress::Failed { failure: Failure::Missing { rule } } => {
                    let rule = request.spec.paths.get(rule).ok_or_else(|| seen.broke_off(closed()))?;
                    return Err(LaunchError::Missing { path: rule.path.clone(), origin: rule.origin.clone() });
                }
                other => return Err(seen.unexpected(other)),
            }
        }
    }
}

fn anchor_use(Note { rule, kind }: Note) -> AnchorUse {
    let kind = match kind {
        NoteKind::Object { directory } => AnchorKind::Object { directory },
        NoteKind::Name { names } => AnchorKind::Name { names },
        NoteKind::Way => AnchorKind::Way,
    };
    AnchorUse { rule, kind }
}

/// An agent whose view is made, and whose init is on its way to the gate. Dropped, it is dead, as [`AtGate`] is.
#[derive(Debug)]
pub struct Seen {
    gate: AtGate,
    agent: AgentNumber,
}

impl Seen {
    /// What the rules name.
    pub fn anchors(&self) -> &[Anchor] {
        &self.gate.anchors
    }

    /// The shim's process.
    pub fn shim_pid(&self) -> i32 {
        self.gate.shim_pid()
    }

    /// Pid 1 of the agent, in the host's numbers. For people; it is on its way to the gate.
    pub fn init_pid(&self) -> i32 {
        self.gate.init_pid()
    }

    /// Waits until init stands at the gate.
    pub fn wait(mut self) -> Result<AtGate, LaunchError> {
        match self.read()? {
            Progress::AtGate { landlock_abi } => {
                self.gate.landlock_abi = landlock_abi;
                Ok(self.gate)
            }
            other => Err(self.unexpected(other)),
        }
    }

    fn read(&mut self) -> Result<Progress, LaunchError> {
        let read = self.gate.channel_mut().read();
        read.and_then(|progress| progress.ok_or_else(closed)).map_err(|source| self.broke_off(source))
    }

    /// The next file that came with a line.
    fn file(&mut self) -> Result<OwnedFd, LaunchError> {
        self.gate.channel_mut().files.pop_front().ok_or_else(|| self.broke_off(closed()))
    }

    fn broke_off(&self, source: io::Error) -> LaunchError {
        LaunchError::BrokeOff { agent: self.agent, source }
    }

    /// A failure, or something out of turn.
    fn unexpected(&self, progress: Progress) -> LaunchError {
        match progress {
            Progress::Failed { failure: Failure::Step { what, errno } } => {
                LaunchError::Step { what, source: io::Error::from_raw_os_error(errno) }
            }
            other => self.broke_off(io::Error::other(format!("{other:?} out of turn"))),
        }
    }
}

impl Drop for AtGate {
    /// Kills whatever was made, and returns when it is dead.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.channel = None;
        let _ = child.kill();
        let _ = child.wait();
        if let Some((_, pidfd)) = &self.init {
            // Init dies with the shim; its pidfd becomes readable when it has.
            let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(DEATH_MS));
        }
    }
}

/// Starts a shim and launches an agent with it, up to its gate. Blocks, for a few milliseconds.
pub fn launch(program: &Path, place: &Place, request: &LaunchRequest) -> Result<AtGate, LaunchError> {
    Spare::start(program, place)?.launch(request, |_| ())?.wait()
}

fn closed() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// An agent whose program has not been started: everything is made, nothing has run.
#[derive(Debug)]
pub struct AtGate {
    channel: Option<Channel>,
    child: Option<Child>,
    init: Option<(i32, OwnedFd)>,
    anchors: Vec<Anchor>,
    landlock_abi: Option<u32>,
}

impl AtGate {
    fn channel_mut(&mut self) -> &mut Channel {
        self.channel.as_mut().unwrap_or_else(|| unreachable!("a gate has its channel until it is opened or dropped"))
    }

    /// The shim's process.
    pub fn shim_pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// Pid 1 of the agent, in the host's numbers. For people; programs use [`AtGate::init_pidfd`].
    pub fn init_pid(&self) -> i32 {
        self.init.as_ref().map_or(0, |(pid, _)| *pid)
    }

    /// Pid 1 of the agent: the process to mark. Its program will be its child.
    pub fn init_pidfd(&self) -> BorrowedFd<'_> {
        match &self.init {
            Some((_, pidfd)) => pidfd.as_fd(),
            None => unreachable!("a gate is given out only with its init"),
        }
    }

    /// What the rules name.
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Version of Landlock that holds the agent; `None` where it was not asked for.
    pub fn landlock_abi(&self) -> Option<u32> {
        self.landlock_abi
    }

    /// An attach stream that sees all output from the first byte: the client's end of it.
    pub fn attach(&mut self, pace: Pace) -> io::Result<OwnedFd> {
        handle::attach(self.channel_mut().as_fd(), pace)
    }

    /// Starts the agent's program and waits until it runs or could not be run.
    pub fn open(mut self) -> Result<(Shim, Start), OpenError> {
        let channel = self.channel_mut();
        channel.send(&Command::Gate, &[], Wait::Block).map_err(OpenError::BrokeOff)?;
        let start = match channel.read().map_err(OpenError::BrokeOff)? {
            Some(ShimEvent::Started) => Start::Running,
            Some(ShimEvent::NotStarted { errno, program }) => Start::NotRunning { errno, program },
            other => {
                let what = format!("{other:?} where the program's start was to be told");
                return Err(OpenError::BrokeOff(io::Error::other(what)));
            }
        };
        let Some(channel) = self.channel.take() else { unreachable!("taken only here and in drop") };
        let socket = channel.as_fd().try_clone_to_owned().map_err(OpenError::BrokeOff)?;
        // From here on nobody waits for a shim: its events come when they come.
        UnixStream::from(socket).set_read_timeout(None).map_err(OpenError::BrokeOff)?;
        // Until now a failure drops `self` and with it the agent. Now the agent belongs to its shim.
        let child = self.child.take();
        let shim = Shim::from_launch(channel, child).map_err(OpenError::BrokeOff)?;
        Ok((shim, start))
    }
}
