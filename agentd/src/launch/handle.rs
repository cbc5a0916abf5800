//! The daemon's end of a running agent: its shim.
//!
//! A [`Shim`] sends commands, a [`ShimWatch`] receives events; they are two handles on one socket. Commands are short
//! and never wait: a shim that does not read is reported as such. Events come as lines of JSON, so a watch can be turned
//! into a stream for an asynchronous reader ([`ShimWatch::into_stream`], [`ShimEvent::parse`]).

use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::messages::{Command, ExitRecord, Pace, ShimStatus};
use super::passing::{Channel, Wait, send_line};

/// How long a shim may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a shim tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimEvent {
    /// The program runs.
    Started,
    /// The program could not be started; the agent ends with status 127 (there is no such program) or 126.
    NotStarted {
        /// The kernel's reason.
        errno: i32,
        /// The program, or the working directory that it could not be started in.
        program: String,
    },
    /// The program has ended, its output has been given to everybody, no process of the agent is left but its init.
    /// Answer with [`Shim::taken`] once it is in the journal.
    Exited(ExitRecord),
    /// Init is gone too: the cgroup can be removed.
    Gone,
    /// The answer to [`Shim::ask_status`].
    Status(ShimStatus),
}

impl ShimEvent {
    /// Reads one line.
    pub fn parse(line: &str) -> io::Result<ShimEvent> {
        serde_json::from_str(line).map_err(io::Error::other)
    }
}

/// Why a shim could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is none: it has ended (look for its exit record), or never was.
    #[error("no shim listens at {path}")]
    Absent {
        /// Its socket.
        path: PathBuf,
    },
    /// Something else.
    #[error("cannot connect to the shim at {path}")]
    Io {
        /// Its socket.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Commands for a running agent's shim.
#[derive(Debug)]
pub struct Shim {
    stream: UnixStream,
    /// Bytes that came before the stream was handed over: events already received.
    early: Vec<ShimEvent>,
    child: Option<Child>,
}

impl Shim {
    /// Connects to the shim of an agent that a former daemon started.
    pub fn connect(runtime_dir: &Path) -> Result<Shim, ConnectError> {
        let path = runtime_dir.join(super::SHIM_SOCKET);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Shim { stream, early: Vec::new(), child: None }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Err(ConnectError::Absent { path })
            }
            Err(source) => Err(ConnectError::Io { path, source }),
        }
    }

    pub(super) fn from_launch(mut channel: Channel, child: Option<Child>) -> io::Result<Shim> {
        let mut early = Vec::new();
        while let Some(event) = channel.next()? {
            early.push(event);
        }
        Ok(Shim { stream: channel.into_socket().into(), early, child })
    }

    /// A new attach stream (see `agentd_protocol::attach`): the client's end of it.
    pub fn attach(&self, pace: Pace) -> io::Result<OwnedFd> {
        attach(self.stream.as_fd(), pace)
    }

    /// Has the shim keep a file open as long as it lives, as it does with what the rules name. It does once [`Held::wait`]
    /// returns.
    pub fn hold(&self, file: &OwnedFd) -> io::Result<Held> {
        let (ours, theirs) = UnixStream::pair()?;
        send_line(self.stream.as_fd(), &Command::Hold, &[file.as_fd(), theirs.as_fd()], Wait::Never)?;
        Ok(Held(ours))
    }

    /// Sends a signal to the process group of the agent's program.
    pub fn signal(&self, signal: u8) -> io::Result<()> {
        self.send(Command::Signal { signal })
    }

    /// Resizes the agent's pty.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        self.send(Command::Resize { rows, columns })
    }

    /// Asks for a [`ShimEvent::Status`].
    pub fn ask_status(&self) -> io::Result<()> {
        self.send(Command::Status)
    }

    /// Tells that the exit record is durable elsewhere; the shim ends without writing it out.
    pub fn taken(&self) -> io::Result<()> {
        self.send(Command::Taken)
    }

    fn send(&self, command: Command) -> io::Result<()> {
        send_line(self.stream.as_fd(), &command, &[], Wait::Never)
    }

    /// The events. Called once; a second watch would see only what the first has not read.
    pub fn watch(&mut self) -> io::Result<ShimWatch> {
        let early = std::mem::take(&mut self.early).into_iter();
        Ok(ShimWatch { early, channel: Channel::new(self.stream.try_clone()?.into()) })
    }

    /// Collects the ended shim, where it is this process's child; for after the end of the events, and then brief.
    pub fn reap(&mut self) -> io::Result<()> {
        self.child.take().map_or(Ok(()), |mut child| child.wait().map(drop))
    }
}

/// A file on its way to a shim.
#[derive(Debug)]
pub struct Held(UnixStream);

impl Held {
    /// Waits until the shim has it.
    pub fn wait(mut self) -> io::Result<()> {
        self.0.set_read_timeout(Some(PATIENCE))?;
        self.0.read_exact(&mut [0])
    }
}

impl Drop for Shim {
    /// Leaves no zombie where the shim has already ended. The agent runs on.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.try_wait();
        }
    }
}

/// The events of a shim, until it has gone. Blocks; for a thread of its own.
#[derive(Debug)]
pub struct ShimWatch {
    early: std::vec::IntoIter<ShimEvent>,
    channel: Channel,
}

impl ShimWatch {
    /// For an asynchronous reader: the events that have already come, and the stream of lines for the rest. Set the
    /// stream non-blocking only here; [`Shim`]'s commands do not mind.
    pub fn into_stream(self) -> (Vec<ShimEvent>, UnixStream) {
        (self.early.collect(), self.channel.into_socket().into())
    }
}

impl Iterator for ShimWatch {
    type Item = io::Result<ShimEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(event) = self.early.next() {
            return Some(Ok(event));
        }
        match self.channel.read() {
            // A shim that was killed with unread commands: its end all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            other => other.transpose(),
        }
    }
}

/// Makes an attach stream and gives the shim its end.
pub(super) fn attach(control: std::os::fd::BorrowedFd<'_>, pace: Pace) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    send_line(control, &Command::Attach { pace }, &[theirs.as_fd()], Wait::Never)?;
    Ok(ours.into())
}
