//! Where an agent's output goes: the log, and whoever is attached.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use agentd_protocol::attach::{Decoder, Frame};
use nix::sys::socket::{MsgFlags, recv, send};
use std::os::fd::AsRawFd;

use crate::launch::{OUTPUT_LOG, Pace};

/// Size at which the log is set aside; so at most twice this much is kept.
pub(crate) const LOG_LIMIT: u64 = 16 << 20;

/// Bytes that wait for one client, before it is dropped or the agent waits.
pub(crate) const CLIENT_LIMIT: usize = 1 << 20;

/// The output log: raw bytes, both streams as they came.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    /// Bytes lost to a full disk, in all and since the last success.
    pub(crate) lost: u64,
    gap: u64,
}

impl Log {
    /// Opens the log in an agent's state directory, behind what is there.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Log> {
        Log::open_with_limit(state_dir, LOG_LIMIT)
    }

    fn open_with_limit(state_dir: &Path, limit: u64) -> io::Result<Log> {
        let path = state_dir.join(OUTPUT_LOG);
        let file = open_log(&path)?;
        let size = file.metadata()?.len();
        Ok(Log { path, file, size, limit, lost: 0, gap: 0 })
    }

    /// Appends. A full disk must not stop the agent: what cannot be written is counted, and the gap is told in the log
    /// as soon as there is room again.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.size >= self.limit {
            self.set_aside();
        }
        if self.gap > 0 {
            let told = format!("\n[agentd: {} bytes of output could not be written here]\n", self.gap);
            if self.file.write_all(told.as_bytes()).is_ok() {
                self.gap = 0;
                self.size += told.len() as u64;
            }
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.size += bytes.len() as u64,
            Err(_) => {
                self.lost += bytes.len() as u64;
                self.gap += bytes.len() as u64;
            }
        }
    }

    fn set_aside(&mut self) {
        let old = self.path.with_extension("log.1");
        if fs::rename(&self.path, &old).is_ok()
            && let Ok(file) = open_log(&self.path)
        {
            self.file = file;
            self.size = 0;
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Somebody attached.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    pub(crate) pace: Pace,
    decoder: Decoder,
    waiting: VecDeque<u8>,
    /// Nothing more will be queued; goes when the rest is sent.
    pub(crate) closing: bool,
    /// It has hung up, broken the protocol, or been dropped.
    pub(crate) gone: bool,
    /// It will say nothing more, but may still read.
    silent: bool,
}

impl Client {
    /// Takes an attach stream.
    pub(crate) fn new(socket: OwnedFd, pace: Pace) -> Client {
        Client {
            socket,
            pace,
            decoder: Decoder::new(),
            waiting: VecDeque::new(),
            closing: false,
            gone: false,
            silent: false,
        }
    }

    /// Queues encoded frames and sends what can be sent. A slow client with [`Pace::ClientDrops`] loses its place.
    pub(crate) fn push(&mut self, frames: &[u8]) {
        if self.gone || self.closing {
            return;
        }
        self.waiting.extend(frames);
        self.flush();
        if self.pace == Pace::ClientDrops && self.waiting.len() > CLIENT_LIMIT {
            let mut notice = Vec::new();
            Frame::Notice("detached: output came faster than it was read".into()).encode(&mut notice);
            // What was queued is whole frames but for the first, which is partly sent; the notice goes behind them all.
            self.waiting.extend(notice);
            self.closing = true;
        }
    }

    /// Whether the agent has to wait for this client.
    pub(crate) fn holds_the_agent(&self) -> bool {
        self.pace == Pace::AgentWaits && !self.gone && self.waiting.len() >= CLIENT_LIMIT
    }

    /// Whether anything is still expected from it.
    pub(crate) fn is_heard(&self) -> bool {
        !self.closing && !self.silent
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends what the socket takes; gives whether any of it went.
    pub(crate) fn flush(&mut self) -> bool {
        let mut progress = false;
        while !self.waiting.is_empty() && !self.gone {
            let (front, _) = self.waiting.as_slices();
            match send(self.socket.as_raw_fd(), front, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => {
                    self.waiting.drain(..sent);
                    progress = true;
                }
                Err(nix::Error::EAGAIN) => break,
                Err(nix::Error::EINTR) => {}
                Err(_) => self.gone = true,
            }
        }
        if self.closing && self.waiting.is_empty() {
            self.gone = true;
        }
        progress
    }

    /// Reads once and gives the frames that are complete. A client that breaks the protocol is gone.
    pub(crate) fn receive(&mut self) -> Vec<Frame> {
        let mut bytes = [0u8; 16 * 1024];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                self.silent = true;
                return Vec::new();
            }
            Ok(count) => self.decoder.push(bytes.get(..count).unwrap_or_default()),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Vec::new(),
            Err(_) => {
                self.gone = true;
                return Vec::new();
            }
        }
        let mut frames = Vec::new();
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(error) => {
                    let mut notice = Vec::new();
                    Frame::Notice(format!("detached: {error}")).encode(&mut notice);
                    self.push(&notice);
                    self.closing = true;
                    self.flush();
                    return frames;
                }
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_log_is_set_aside_once() {
        let dir = std::env::temp_dir().join(format!("agentd-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut log = Log::open_with_limit(&dir, 100).unwrap();
        for byte in b'a'..=b'g' {
            log.append(&[byte; 60]);
        }
        let read = |name: &str| fs::read(dir.join(name)).unwrap();
        assert_eq!(read("output.log"), [b'g'; 60]);
        assert_eq!(read("output.log.1"), [[b'e'; 60], [b'f'; 60]].concat());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_slow_client_is_dropped_with_a_notice() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours.into(), Pace::ClientDrops);
        let mut frame = Vec::new();
        Frame::Stdout(vec![b'x'; 60_000]).encode(&mut frame);
        let mut rounds = 0;
        while !client.closing {
            client.push(&frame);
            rounds += 1;
            assert!(rounds < 100, "never dropped");
        }
        let reader = std::thread::spawn(move || {
            let (mut decoder, mut last) = (Decoder::new(), None);
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = io::Read::read(&mut &theirs, &mut bytes) {
                decoder.push(&bytes[..count]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    last = Some(frame);
                }
            }
            last
        });
        while !client.gone {
            client.flush();
        }
        drop(client);
        assert!(matches!(reader.join().unwrap(), Some(Frame::Notice(_))));
    }

    #[test]
    fn a_client_that_speaks_nonsense_is_gone() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours.into(), Pace::AgentWaits);
        theirs.write_all(&[99; 10]).unwrap();
        assert!(client.receive().is_empty());
        assert!(client.gone);
    }
}
