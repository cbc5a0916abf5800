//! A person (or a script) in front of one agent: bytes from here to there and back, until it ends or is left alone.
//!
//! ```text
//!  stdin ──(detach keys)──▶ to_agent ──▶ attach stream ──▶ to_out ──▶ stdout
//!  signals ─▶ frames ───────────┘              └─────────▶ to_err ──▶ stderr
//! ```
//!
//! One thread, one poll loop, and nothing in it blocks: a full terminal or a reader that pauses holds back only what is
//! read from the agent, never a signal. Each queue is bounded by [`ENOUGH`]; what feeds it is not read while it is full.
//!
//! The stream belongs to the agent's shim, so the daemon may come and go meanwhile. What the daemon knows and the shim
//! does not (a budget is spent, somebody froze the agent) comes over a second connection, which is opened only for
//! sessions that last, and opened again when it breaks.

mod detach;
mod follower;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use agentd_model::ExitStatus;
use agentd_protocol::attach::{Decoder, Frame, FrameError};
use nix::sys::signal::Signal;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::clock::Stopwatch;
use crate::failure::{Exit, Failure};
use crate::signal::Signals;
use crate::terminal::{self, Raw};
use crate::text;
use crate::ui::Ui;

use detach::Keys;
use follower::Follower;

/// A queue with this much in it is fed no more.
const ENOUGH: usize = 256 * 1024;

/// So much is read at once.
const BUFFER: usize = 32 * 1024;

/// A pipe that is ready takes at least this much without blocking (PIPE_BUF).
const PIECE: usize = 4096;

/// Two interrupts within this time belong together.
const TOGETHER: Duration = Duration::from_secs(2);

/// How a session is set up.
pub(crate) struct Setup<'a> {
    /// Where notices go.
    pub(crate) ui: Ui,
    /// Name of the agent.
    pub(crate) name: &'a str,
    /// Socket of the daemon.
    pub(crate) socket: &'a Path,
    /// A terminal here and a pty there: raw mode, sizes, keys.
    pub(crate) pty: bool,
    /// The agent runs for our sake: it gets every signal, and SIGPIPE when nobody reads its output any more.
    pub(crate) ours: bool,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The agent's program ended.
    Exited(ExitStatus),
    /// The person left; the agent runs on.
    Detached,
    /// We were asked to go; the agent runs on.
    Interrupted(Signal),
    /// The stream ended and nobody said how the program did.
    Lost,
}

/// Why a session broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The shim speaks nonsense.
    #[error("the stream of agent {name} is broken")]
    Frame { name: String, source: FrameError },
    /// The operating system refused something.
    #[error("cannot {what}")]
    Os { what: &'static str, source: io::Error },
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        Failure::of(Exit::Failed, &error)
    }
}

fn os<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> SessionError {
    move |source| SessionError::Os { what, source: source.into() }
}

/// Bytes on their way to a file.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
    closed: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    fn is_full(&self) -> bool {
        self.bytes.len() - self.sent >= ENOUGH
    }

    /// Room for more; what was sent is forgotten first.
    fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..std::mem::take(&mut self.sent));
        &mut self.bytes
    }

    /// Takes bytes in, unless nobody reads them any more.
    fn push(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.room().extend_from_slice(bytes);
        }
    }

    /// Writes a piece to a file that is ready. False: nobody reads it any more, and what waited is dropped.
    fn pump(&mut self, file: BorrowedFd<'_>, most: usize) -> io::Result<bool> {
        let piece = &self.bytes[self.sent..self.bytes.len().min(self.sent + most)];
        match rustix::io::write(file, piece) {
            Ok(written) => self.sent += written,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => {
                *self = Queue { closed: true, ..Queue::default() };
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        if self.is_empty() {
            self.room();
        }
        Ok(true)
    }
}

/// A session that runs.
struct Session<'a> {
    setup: &'a Setup<'a>,
    stream: OwnedFd,
    decoder: Decoder,
    /// Where everything arrives, a piece at a time.
    buffer: Vec<u8>,
    to_agent: Queue,
    to_out: Queue,
    to_err: Queue,
    keys: Option<Keys>,
    stdin_open: bool,
    interrupts: u32,
    last_interrupt: Option<Stopwatch>,
    end: Option<End>,
}

/// Runs a session over an attach stream until it ends.
pub(crate) fn run(stream: OwnedFd, setup: &Setup<'_>) -> Result<End, SessionError> {
    let flags = fcntl_getfl(&stream).map_err(os("use the stream"))?;
    fcntl_setfl(&stream, flags | OFlags::NONBLOCK).map_err(os("use the stream"))?;
    let signals = Signals::take().map_err(os("take over signals"))?;
    let raw = if setup.pty { Some(Raw::enter().map_err(os("set the terminal to raw mode"))?) } else { None };
    let typed = rustix::termios::isatty(rustix::stdio::stdin());
    let mut session = Session {
        setup,
        stream,
        decoder: Decoder::new(),
        buffer: Vec::with_capacity(BUFFER),
        to_agent: Queue::default(),
        to_out: Queue::default(),
        to_err: Queue::default(),
        keys: typed.then(Keys::default),
        stdin_open: true,
        interrupts: 0,
        last_interrupt: None,
        end: None,
    };
    if setup.pty {
        session.resize();
    }
    let mut follower = Follower::new(setup.socket, setup.name);
    let end = loop {
        if let Some(end) = session.over() {
            break end;
        }
        session.turn(&signals, &mut follower)?;
    };
    // What was typed before the keys that leave still belongs to the agent.
    let _ = session.to_agent.pump(session.stream.as_fd(), ENOUGH);
    drop(raw);
    // From here on a signal ends us, whatever the last notice waits for.
    drop(signals);
    let _ = session.to_err.pump(rustix::stdio::stderr(), PIECE);
    Ok(end)
}

impl Session<'_> {
    /// Waits until something can be done, and does it.
    fn turn(&mut self, signals: &Signals, follower: &mut Follower<'_>) -> Result<(), SessionError> {
        let on = |condition: bool, flags| if condition { flags } else { PollFlags::empty() };
        let hold_back = self.to_out.is_full() || self.to_err.is_full() || self.end.is_some();
        let stream = on(!hold_back, PollFlags::IN) | on(!self.to_agent.is_empty(), PollFlags::OUT);
        let wanted = [
            on(true, PollFlags::IN),
            stream,
            on(self.stdin_open && !self.to_agent.is_full() && self.end.is_none(), PollFlags::IN),
            on(!self.to_out.is_empty(), PollFlags::OUT),
            on(!self.to_err.is_empty(), PollFlags::OUT),
        ];
        let ready = {
            let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
            let mut files = [signals.as_fd(), self.stream.as_fd(), stdin, stdout, stderr];
            // A file that nothing is wanted of is left out: poll would report its hang-up for ever.
            for (file, wanted) in files.iter_mut().zip(wanted) {
                if wanted.is_empty() {
                    *file = signals.as_fd();
                }
            }
            wait(&files, &wanted, follower)?
        };
        let [signal, stream, stdin, stdout, stderr] = ready;
        if signal {
            while let Some(signal) = signals.next().map_err(os("read signals"))? {
                self.on_signal(signal);
            }
        }
        if stdout && !self.to_out.pump(rustix::stdio::stdout(), PIECE).map_err(os("write to standard output"))? {
            self.on_closed_pipe();
        }
        if stderr {
            self.to_err.pump(rustix::stdio::stderr(), PIECE).map_err(os("write to standard error"))?;
        }
        if stream {
            if !self.to_agent.is_empty() {
                // A shim that hangs up says so on the reading side as well.
                self.to_agent.pump(self.stream.as_fd(), ENOUGH).map_err(os("write to the stream"))?;
            }
            if !hold_back {
                self.receive()?;
            }
        }
        if stdin {
            self.take_input()?;
        }
        for notice in follower.notices() {
            self.notice(&notice);
        }
        Ok(())
    }

    /// How it ended, as soon as nothing is left to do: what the agent said before its end is printed to the end.
    fn over(&self) -> Option<End> {
        let printed = self.to_out.is_empty() && self.to_err.is_empty();
        self.end.filter(|end| printed || !is_of_the_agent(*end))
    }

    fn receive(&mut self) -> Result<(), SessionError> {
        self.buffer.clear();
        match rustix::io::read(&self.stream, spare_capacity(&mut self.buffer)) {
            Ok(0) | Err(Errno::CONNRESET) => self.end = self.end.or(Some(End::Lost)),
            Ok(_) => self.decoder.push(&self.buffer),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(os("read from the stream")(error)),
        }
        let broken = |source| SessionError::Frame { name: self.setup.name.to_owned(), source };
        while let Some(frame) = self.decoder.next_frame().map_err(broken)? {
            match frame {
                Frame::Stdout(bytes) => self.to_out.push(&bytes),
                Frame::Stderr(bytes) => self.to_err.push(&bytes),
                Frame::Exit(status) => self.end = Some(End::Exited(status)),
                Frame::Notice(text) => self.notice(&text),
                // Nothing that a shim has to say to us.
                Frame::Stdin(_) | Frame::StdinEof | Frame::Resize { .. } | Frame::Signal(_) => {}
            }
        }
        Ok(())
    }

    fn take_input(&mut self) -> Result<(), SessionError> {
        self.buffer.clear();
        let read = match rustix::io::read(rustix::stdio::stdin(), spare_capacity(&mut self.buffer)) {
            Ok(read) => read,
            // A terminal that has gone away reads as an error (EIO), and is an end like any other.
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(Errno::IO) => 0,
            Err(error) => return Err(os("read standard input")(error)),
        };
        if read == 0 {
            self.stdin_open = false;
            if self.setup.pty {
                self.end = self.end.or(Some(End::Detached));
            } else {
                self.send(&Frame::StdinEof);
            }
            return Ok(());
        }
        match &mut self.keys {
            None => self.send(&Frame::Stdin(self.buffer.clone())),
            Some(keys) => {
                let (typed, leave) = keys.filter(&self.buffer);
                if !typed.is_empty() {
                    self.send(&Frame::Stdin(typed));
                }
                if leave {
                    self.end = self.end.or(Some(End::Detached));
                }
            }
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGWINCH => {
                if self.setup.pty {
                    self.resize();
                }
            }
            // The agent is gone; what is left is to print, and the person has seen enough of it.
            _ if self.end.is_some_and(is_of_the_agent) => (self.to_out, self.to_err) = Default::default(),
            Signal::SIGTERM | Signal::SIGHUP if self.setup.pty || !self.setup.ours => {
                self.end = self.end.or(Some(End::Interrupted(signal)));
            }
            _ => {
                self.send(&Frame::Signal(signal as u8));
                if signal == Signal::SIGINT {
                    self.on_interrupt();
                }
            }
        }
    }

    /// Somebody presses Ctrl-C: an agent that does not listen must not keep a person waiting.
    fn on_interrupt(&mut self) {
        let again = self.last_interrupt.is_some_and(|last| last.elapsed() < TOGETHER);
        self.interrupts = if again { self.interrupts + 1 } else { 1 };
        self.last_interrupt = Some(Stopwatch::start());
        let name = self.setup.name;
        match self.interrupts {
            1 => {}
            2 => self.notice(&format!("{name} has not ended; once more leaves it running; agentctl kill {name}")),
            _ => self.end = self.end.or(Some(End::Interrupted(Signal::SIGINT))),
        }
    }

    /// Nobody reads our standard output any more.
    fn on_closed_pipe(&mut self) {
        if self.setup.ours {
            self.send(&Frame::Signal(Signal::SIGPIPE as u8));
        } else {
            self.end = self.end.or(Some(End::Detached));
        }
    }

    fn resize(&mut self) {
        let (rows, columns) = terminal::size();
        self.send(&Frame::Resize { rows, columns });
    }

    fn send(&mut self, frame: &Frame) {
        if !self.to_agent.closed {
            frame.encode(self.to_agent.room());
        }
    }

    /// Tells the person something, in its place between what the agent says.
    fn notice(&mut self, text: &str) {
        let text = format!("agentctl: {}", text::clean(text));
        self.to_err.push(&self.setup.ui.note_bytes(&text, self.setup.pty));
    }
}

fn is_of_the_agent(end: End) -> bool {
    matches!(end, End::Exited(_) | End::Lost)
}

/// Polls, with the follower's connection beside the session's own files.
fn wait(
    files: &[BorrowedFd<'_>; 5],
    wanted: &[PollFlags; 5],
    follower: &mut Follower<'_>,
) -> Result<[bool; 5], SessionError> {
    let timeout = follower.due();
    let extra = follower.file();
    let mut polled: Vec<PollFd<'_>> =
        files.iter().zip(wanted).map(|(file, wanted)| PollFd::from_borrowed_fd(*file, *wanted)).collect();
    polled.extend(extra.map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)));
    let timeout = timeout.and_then(|wait| Timespec::try_from(wait).ok());
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(os("wait for input")(error)),
    }
    let mut ready = [false; 5];
    for ((ready, polled), wanted) in ready.iter_mut().zip(&polled).zip(wanted) {
        *ready = !wanted.is_empty() && !polled.revents().is_empty();
    }
    let speaks = polled.get(5).is_some_and(|polled| !polled.revents().is_empty());
    drop(polled);
    follower.turn(speaks);
    Ok(ready)
}
