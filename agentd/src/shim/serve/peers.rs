//! The shim's peers: daemons that command, clients that are attached, and the agent's input, where both end up.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use agentd_model::{ExitStatus, Terminal};
use agentd_protocol::attach::Frame;
use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{Phase, Shim};
use crate::launch::ShimEvent;
use crate::launch::messages::{Command, Go, ShimStatus};
use crate::launch::passing::{Channel, Wait};
use crate::shim::output::Client;
use crate::shim::sys;

/// What a terminal takes for the end of input.
const END_OF_TRANSMISSION: u8 = 4;

/// A daemon's connection.
pub(super) struct Daemon {
    pub(super) channel: Channel,
    pub(super) closed: bool,
}

impl Daemon {
    /// Events are few and short. A daemon whose socket is full of them is not reading, and may connect again.
    pub(super) fn send(&mut self, event: &ShimEvent) {
        self.closed |= self.channel.send(event, &[], Wait::Never).is_err();
    }
}

impl Shim {
    pub(super) fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        // The socket's mode says so already.
        let root = getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0);
        if root {
            self.daemons.push(Daemon { channel: Channel::new(stream.into()), closed: false });
            if let Some(record) = self.record {
                self.tell_last(&ShimEvent::Exited(record));
            }
        }
    }

    pub(super) fn hear_daemon(&mut self, index: usize) -> io::Result<()> {
        loop {
            let Some(daemon) = self.daemons.get_mut(index) else { return Ok(()) };
            match daemon.channel.fill(Wait::Never) {
                Ok(true) => {}
                Ok(false) => daemon.closed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => daemon.closed = true,
            }
            let Ok(command) = daemon.channel.next::<Command>() else {
                daemon.closed = true;
                return Ok(());
            };
            let Some(command) = command else { return Ok(()) };
            let file = match command {
                Command::Attach { .. } | Command::Hold => daemon.channel.files.pop_front(),
                _ => None,
            };
            if let Command::Hold = command {
                let told = daemon.channel.files.pop_front();
                self.anchors.extend(file);
                // Whoever asked has gone, if not; the file stays all the same.
                let _ = told.map(|told| nix::unistd::write(told, &[1]));
                continue;
            }
            self.follow(index, command, file)?;
        }
    }

    fn follow(&mut self, index: usize, command: Command, file: Option<OwnedFd>) -> io::Result<()> {
        match command {
            Command::Gate if self.phase == Phase::AtGate => {
                self.phase = Phase::Running;
                self.init.channel.send(&Go, &[], Wait::Block)?;
            }
            Command::Gate | Command::Hold => {}
            Command::Attach { pace } => {
                let Some(file) = file else { return Ok(()) };
                let mut client = Client::new(file, pace);
                if let Some(record) = self.record {
                    farewell(&mut client, record.status);
                }
                self.clients.push(client);
            }
            Command::Signal { signal } => self.signal(signal),
            Command::Resize { rows, columns } => self.resize(rows, columns),
            Command::Status => {
                let status = ShimStatus {
                    agent: self.place.agent,
                    shim_pid: std::process::id() as i32,
                    init_pid: self.init.pid,
                    clients: self.clients.len(),
                    exit: self.record,
                };
                if let Some(daemon) = self.daemons.get_mut(index) {
                    daemon.send(&ShimEvent::Status(status));
                }
            }
            Command::Taken => self.taken = true,
        }
        Ok(())
    }

    pub(super) fn serve_client(&mut self, index: usize, ready: PollFlags) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if ready.contains(PollFlags::POLLOUT) {
            client.flush();
        }
        let frames = if ready.contains(PollFlags::POLLIN) { client.receive() } else { Vec::new() };
        if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) && !ready.contains(PollFlags::POLLIN) {
            client.gone = true;
        }
        for frame in frames {
            match frame {
                Frame::Stdin(bytes) if self.stdin.is_some() && !self.stdin_ended => {
                    self.stdin_waiting.extend(bytes);
                    self.feed();
                }
                Frame::Stdin(_) => {}
                Frame::StdinEof => self.end_input(),
                Frame::Resize { rows, columns } => self.resize(rows, columns),
                Frame::Signal(signal) => self.signal(signal),
                // What only a shim says.
                Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) | Frame::Notice(_) => {
                    if let Some(client) = self.clients.get_mut(index) {
                        client.gone = true;
                    }
                    return;
                }
            }
        }
    }

    /// Gives the agent what input is waiting.
    pub(super) fn feed(&mut self) {
        while !self.stdin_waiting.is_empty() {
            let Some(stdin) = &self.stdin else { break };
            let (front, _) = self.stdin_waiting.as_slices();
            match nix::unistd::write(stdin, front) {
                Ok(count) => drop(self.stdin_waiting.drain(..count)),
                Err(nix::Error::EAGAIN) => return,
                Err(nix::Error::EINTR) => {}
                // The agent has closed its input.
                Err(_) => self.stdin = None,
            }
        }
        self.stdin_waiting.clear();
        if self.stdin_ended {
            self.stdin = None;
        }
    }

    fn end_input(&mut self) {
        match self.terminal {
            // A terminal goes on living; its reader is told as a person would.
            Terminal::Pty { .. } => self.stdin_waiting.push_back(END_OF_TRANSMISSION),
            Terminal::Pipes => self.stdin_ended = true,
        }
        self.feed();
    }

    fn resize(&self, rows: u16, columns: u16) {
        if let (Terminal::Pty { .. }, Some(master)) = (self.terminal, &self.stdout) {
            let _ = sys::set_size(master.as_fd(), rows, columns);
        }
    }

    /// Signals the program's process group, as a terminal would. Before the program exists there is nobody to signal.
    fn signal(&self, signal: u8) {
        let Some(program) = &self.program else { return };
        let signal = i32::from(signal);
        if sys::pidfd_signal(program.as_fd(), signal, sys::PIDFD_SIGNAL_PROCESS_GROUP).is_ok() {
            return;
        }
        // Before Linux 6.9. The program leads its group, and as long as init has not reaped it the number is its own.
        let alive = sys::pidfd_signal(program.as_fd(), 0, 0).is_ok();
        if let (true, Some(pid)) = (alive, host_pid(program)) {
            let _ = sys::kill(-pid, signal);
        }
    }
}

/// The last that a client hears.
pub(super) fn farewell(client: &mut Client, status: ExitStatus) {
    let mut frames = Vec::new();
    Frame::Exit(status).encode(&mut frames);
    client.push(&frames);
    client.closing = true;
    client.flush();
}

/// The number that a process has in this namespace.
fn host_pid(pidfd: &OwnedFd) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid: i32 = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 1).then_some(pid)
}
