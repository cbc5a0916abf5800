//! The shim's loop: one thread, one `poll`, nothing that blocks.
//!
//! ```text
//! Preparing ──Ready──▶ AtGate ──Gate──▶ Running ──Ended──▶ Ended ──init reaped, clients served, record taken──▶ gone
//!     └────────────────────┴─ the daemon's socket closes: kill init, leave nothing
//! ```
//!
//! Before the gate the one connection is the daemon's, from the launch; its end is the launch's end. From the gate on,
//! daemons come and go, by the socket in the runtime directory, and the agent does not notice.
//!
//! When the program has ended: all output is read to its end, clients get their exit frame, the daemon its event, and
//! `exit.json` is written. Whether the record is forced to disk is decided last: a daemon that has it in its journal says so
//! (`taken`), and spares the agent's client that wait; without one, the shim does it before it goes.

mod ending;
mod peers;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use agentd_model::Terminal;
use agentd_protocol::attach::{Frame, Output, encode_output};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use self::peers::Daemon;
use super::output::{Client, Log};
use super::sys;
use crate::launch::messages::{ExitRecord, Failure, Pipes, Progress, Report};
use crate::launch::passing::{Channel, Wait};
use crate::launch::{Pace, Place, SHIM_SOCKET, ShimEvent};

/// So much output is read at once.
const BUFFER: usize = 64 << 10;
/// Input that waits for the agent; while there is more, clients are not read.
const STDIN_LIMIT: usize = 256 << 10;
/// How long the record waits to be taken, and a late client to read its end.
const PATIENCE_MS: u64 = 30_000;

/// Init, as the shim knows it.
#[derive(Debug)]
pub(crate) struct Init {
    pid: i32,
    pidfd: OwnedFd,
    channel: Channel,
    hung_up: bool,
    reaped: bool,
}

impl Init {
    /// A child that has just been made.
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, channel: Channel) -> Init {
        Init { pid, pidfd, channel, hung_up: false, reaped: false }
    }

    /// Its number, for people.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle on it.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Passes a line on to it.
    pub(super) fn pass(&self, line: &[u8]) -> io::Result<()> {
        self.channel.pass(line)
    }

    /// Gives it the program's ends of the pipes.
    pub(super) fn give(&self, pipes: &Pipes, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.channel.send(pipes, files, Wait::Block)
    }

    /// Ends it.
    pub(super) fn kill(&mut self) {
        if !self.reaped {
            let _ = sys::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL, 0);
            let _ = sys::wait(self.pid, 0);
            self.reaped = true;
        }
    }
}

/// What the shim holds of an agent.
#[derive(Debug)]
pub(crate) struct Plumbing {
    pub(crate) init: Init,
    pub(crate) log: Log,
    pub(crate) listener: UnixListener,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Preparing,
    AtGate,
    Running,
    Ended,
}

struct Shim {
    place: Place,
    terminal: Terminal,
    phase: Phase,
    init: Init,
    /// The daemon's connections: first the launch's, then those that came by the socket.
    daemons: Vec<Daemon>,
    listener: UnixListener,
    clients: Vec<Client>,
    log: Log,
    /// Where output arrives.
    buffer: Box<[u8]>,
    /// Sources of output.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Where input goes: a pipe, or the pty's master (a second handle on `stdout`).
    stdin: Option<OwnedFd>,
    stdin_waiting: VecDeque<u8>,
    stdin_ended: bool,
    program: Option<OwnedFd>,
    /// Kept for their inode numbers, as long as the shim lives.
    anchors: Vec<OwnedFd>,
    record: Option<ExitRecord>,
    taken: bool,
    /// When patience ends, on the monotonic clock.
    deadline_ms: u64,
}

/// Serves until the agent is gone and everything is told.
pub(crate) fn serve(place: Place, terminal: Terminal, daemon: Channel, plumbing: Plumbing) -> io::Result<()> {
    let Plumbing { init, log, listener, stdin, stdout, stderr } = plumbing;
    let mut shim = Shim {
        place,
        terminal,
        phase: Phase::Preparing,
        init,
        daemons: vec![Daemon { channel: daemon, closed: false }],
        listener,
        clients: Vec::new(),
        log,
        buffer: vec![0; BUFFER].into(),
        stdout: None,
        stderr: None,
        stdin: None,
        stdin_waiting: VecDeque::new(),
        stdin_ended: false,
        program: None,
        anchors: Vec::new(),
        record: None,
        taken: false,
        deadline_ms: 0,
    };
    let served = shim.take_streams(stdin, stdout, stderr).and_then(|()| shim.run());
    // Whatever happened, an agent does not outlive the one who watches it.
    shim.init.kill();
    let _ = fs::remove_file(shim.place.runtime_dir.join(SHIM_SOCKET));
    served
}

/// What a poll was asked about, in the same order.
#[derive(Clone, Copy, Debug)]
enum Asked {
    InitReport,
    InitDeath,
    Listener,
    Daemon(usize),
    Client(usize),
    Output(Output),
    Stdin,
}

impl Shim {
    fn take_streams(
        &mut self,
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> io::Result<()> {
        for file in [&stdin, &stdout, &stderr].into_iter().flatten() {
            fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        (self.stdin, self.stdout, self.stderr) = (stdin, stdout, stderr);
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        while !self.is_done() {
            let (asked, ready) = self.wait()?;
            // Clients and daemons are addressed by index, so nothing is removed before all have been served.
            for (asked, ready) in asked.into_iter().zip(ready) {
                if !ready.is_empty() {
                    self.serve_one(asked, ready)?;
                }
            }
            self.clients.retain(|client| !client.gone);
            self.daemons.retain(|daemon| !daemon.closed);
            if self.daemons.is_empty() && self.phase < Phase::Running {
                // The daemon gave up, or died: nothing has run, nothing stays.
                return Ok(());
            }
        }
        self.settle()
    }

    /// Whether there is nothing more to do for anybody.
    fn is_done(&mut self) -> bool {
        if self.phase != Phase::Ended || !self.init.reaped {
            return false;
        }
        let late = now_ms() >= self.deadline_ms;
        if late {
            self.clients.retain(|client| client.pace == Pace::AgentWaits);
        }
        let told = self.taken || self.daemons.is_empty() || late;
        told && self.clients.is_empty()
    }

    fn wait(&self) -> io::Result<(Vec<Asked>, Vec<PollFlags>)> {
        let mut asked = Vec::new();
        let mut polled: Vec<PollFd<'_>> = Vec::new();
        let (read, write) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let mut ask = |what, fd, flags| {
            asked.push(what);
            polled.push(PollFd::new(fd, flags));
        };
        if !self.init.hung_up {
            ask(Asked::InitReport, self.init.channel.as_fd(), read);
        }
        if !self.init.reaped {
            ask(Asked::InitDeath, self.init.pidfd.as_fd(), read);
        }
        ask(Asked::Listener, self.listener.as_fd(), read);
        for (index, daemon) in self.daemons.iter().enumerate() {
            ask(Asked::Daemon(index), daemon.channel.as_fd(), read);
        }
        let listens = self.stdin_waiting.len() < STDIN_LIMIT;
        for (index, client) in self.clients.iter().enumerate() {
            let reads = if listens && client.is_heard() { read } else { PollFlags::empty() };
            let writes = if client.is_flushed() { PollFlags::empty() } else { write };
            ask(Asked::Client(index), client.as_fd(), reads | writes);
        }
        if self.phase == Phase::Running && !self.clients.iter().any(Client::holds_the_agent) {
            for (output, source) in [(Output::Stdout, &self.stdout), (Output::Stderr, &self.stderr)] {
                if let Some(source) = source {
                    ask(Asked::Output(output), source.as_fd(), read);
                }
            }
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.stdin_waiting.is_empty()) {
            ask(Asked::Stdin, stdin.as_fd(), write);
        }
        // Past the deadline only those are left for whom there is none.
        let timeout = match self.deadline_ms.saturating_sub(now_ms()) {
            left @ 1.. if self.phase == Phase::Ended => PollTimeout::from(left.min(PATIENCE_MS) as u16),
            _ => PollTimeout::NONE,
        };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = polled.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        Ok((asked, ready))
    }

    fn serve_one(&mut self, asked: Asked, ready: PollFlags) -> io::Result<()> {
        match asked {
            Asked::InitReport => self.hear_init()?,
            Asked::InitDeath => {
                self.hear_init()?;
                self.bury_init()?;
            }
            Asked::Listener => self.accept(),
            Asked::Daemon(index) => self.hear_daemon(index)?,
            Asked::Client(index) => self.serve_client(index, ready),
            Asked::Output(output) => drop(self.copy_output(output)),
            Asked::Stdin => self.feed(),
        }
        Ok(())
    }

    /// Takes in what init reports.
    fn hear_init(&mut self) -> io::Result<()> {
        while !self.init.hung_up {
            match self.init.channel.fill(Wait::Never) {
                Ok(true) => {}
                Ok(false) => self.init.hung_up = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.init.hung_up = true,
            }
        }
        while let Some(report) = self.init.channel.next::<Report>()? {
            self.obey(report)?;
        }
        Ok(())
    }

    fn obey(&mut self, report: Report) -> io::Result<()> {
        match report {
            Report::Files { count } => {
                let files: Vec<OwnedFd> = self.init.channel.files.drain(..count).collect();
                let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
                self.progress(&Progress::Files { count }, &borrowed);
                self.anchors.extend(files);
            }
            Report::Seen { notes } => self.progress(&Progress::Seen { notes }, &[]),
            Report::Terminal => {
                let master = self.init.channel.files.pop_front();
                let stdin = master.as_ref().map(OwnedFd::try_clone).transpose()?;
                self.take_streams(stdin, master, None)?;
            }
            Report::Ready { landlock_abi } => {
                self.phase = Phase::AtGate;
                self.progress(&Progress::AtGate { landlock_abi }, &[]);
            }
            Report::Failed { failure } if self.phase < Phase::Running => self.fail(failure),
            Report::Failed { failure } => {
                let Failure::Step { what, errno } = failure else { return Ok(()) };
                self.note(&format!("cannot {what}: {}", io::Error::from_raw_os_error(errno)));
                if self.program.is_none() {
                    self.tell(&ShimEvent::NotStarted { errno, program: what });
                }
            }
            Report::Forked => self.program = self.init.channel.files.pop_front(),
            Report::Started => self.tell(&ShimEvent::Started),
            Report::NotStarted { errno, verb, program } => {
                self.note(&format!("cannot {verb} {program:?}: {}", io::Error::from_raw_os_error(errno)));
                self.tell(&ShimEvent::NotStarted { errno, program });
            }
            Report::Ended { status } => self.end(status, true),
        }
        Ok(())
    }

    /// A launch that did not work out: init first, then the news.
    fn fail(&mut self, failure: Failure) {
        self.init.kill();
        self.progress(&Progress::Failed { failure }, &[]);
        self.daemons.clear();
    }

    /// Reads output once and gives it to the log and to everybody. `false`: there is none now, or never again.
    fn copy_output(&mut self, output: Output) -> bool {
        let source = match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        let Some(file) = source else { return false };
        let count = match nix::unistd::read(&*file, &mut self.buffer) {
            Ok(count) => count,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return false,
            // EIO: the end of a pty.
            Err(_) => 0,
        };
        if count == 0 {
            *source = None;
            return false;
        }
        let bytes = self.buffer.get(..count).unwrap_or_default();
        self.log.append(bytes);
        if !self.clients.is_empty() {
            let mut frames = Vec::with_capacity(count + 8);
            encode_output(output, bytes, &mut frames);
            self.clients.iter_mut().for_each(|client| client.push(&frames));
        }
        true
    }

    /// Something for people: to whoever is attached, and into the log.
    fn note(&mut self, text: &str) {
        self.log.append(format!("[agentd: {text}]\n").as_bytes());
        let mut frames = Vec::new();
        Frame::Notice(text.to_owned()).encode(&mut frames);
        self.clients.iter_mut().for_each(|client| client.push(&frames));
    }

    /// To the daemon that launches.
    fn progress(&mut self, progress: &Progress, files: &[BorrowedFd<'_>]) {
        for daemon in &mut self.daemons {
            daemon.closed |= daemon.channel.send(progress, files, Wait::Block).is_err();
        }
    }

    /// To every daemon that is connected.
    fn tell(&mut self, event: &ShimEvent) {
        self.daemons.iter_mut().for_each(|daemon| daemon.send(event));
    }

    fn tell_last(&mut self, event: &ShimEvent) {
        if let Some(daemon) = self.daemons.last_mut() {
            daemon.send(event);
        }
    }
}

fn clock_ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

fn now_ms() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC) / 1_000_000
}
