//! Lines of JSON with open files beside them, over a unix stream socket.
//!
//! A sender puts a line's files (`SCM_RIGHTS`) on the first byte of that line; the kernel never merges bytes across such
//! a mark. So when a line is complete, its files are at the front of [`Channel::files`], and the line says how many.
//!
//! Both ends are root's. The limit on a line is there to find a bug, not an enemy.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest line; a request carries an environment, which the kernel limits to 2 MiB or so.
const LINE_LIMIT: usize = 16 << 20;

/// Most files beside one line: the kernel's `SCM_MAX_FD`.
pub(crate) const FILES_LIMIT: usize = 253;

/// Whether a call may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until it can be done.
    Block,
    /// Not at all: `WouldBlock` instead.
    Never,
}

/// One end of such a socket, with what was received and not yet read.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    input: Vec<u8>,
    searched: usize,
    /// Files received, in order.
    pub(crate) files: VecDeque<OwnedFd>,
}

impl Channel {
    /// Talks over this socket.
    pub(crate) fn new(socket: OwnedFd) -> Channel {
        Channel { socket, input: Vec::new(), searched: 0, files: VecDeque::new() }
    }

    /// The socket; bytes already received are not in it any more.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends one line and its files. An error in the middle leaves the stream unusable.
    pub(crate) fn send<T: Serialize>(&self, message: &T, files: &[BorrowedFd<'_>], wait: Wait) -> io::Result<()> {
        send_line(self.socket.as_fd(), message, files, wait)
    }

    /// Receives once. `false`: the other side has closed.
    pub(crate) fn fill(&mut self, wait: Wait) -> io::Result<bool> {
        if self.input.len() > LINE_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
        }
        let mut bytes = [0u8; 16 * 1024];
        let (count, files) = receive(self.socket.as_fd(), &mut bytes, wait)?;
        self.files.extend(files);
        self.input.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    /// The next complete line.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let Some(at) = self.input.iter().skip(self.searched).position(|byte| *byte == b'\n') else {
            self.searched = self.input.len();
            return None;
        };
        let line = self.input.drain(..=self.searched + at).collect();
        self.searched = 0;
        Some(line)
    }

    /// The next complete line, read as `T`.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.next_line().map(|line| parse(&line)).transpose()
    }

    /// Waits for the next line, to be passed on as it is. `None`: the other side has closed.
    pub(crate) fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.next_line() {
                return Ok(Some(line));
            }
            if !self.fill(Wait::Block)? {
                return Ok(None);
            }
        }
    }

    /// Waits for the next line. `None`: the other side has closed.
    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.read_line()?.map(|line| parse(&line)).transpose()
    }

    /// Passes a line on as it came.
    pub(crate) fn pass(&self, line: &[u8]) -> io::Result<()> {
        send_bytes(self.socket.as_fd(), line, &[], Wait::Block)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads a line that has come whole.
pub(crate) fn parse<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(io::Error::other)
}

/// Sends one line and its files over any stream socket.
pub(crate) fn send_line<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    files: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    send_bytes(socket, &line, files, wait)
}

fn send_bytes(socket: BorrowedFd<'_>, line: &[u8], files: &[BorrowedFd<'_>], wait: Wait) -> io::Result<()> {
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let flags = MsgFlags::MSG_NOSIGNAL | if wait == Wait::Never { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
    let mut rights: &[RawFd] = &numbers;
    let mut rest = line;
    while !rest.is_empty() {
        let control = [ControlMessage::ScmRights(rights)];
        let control = if rights.is_empty() { &control[..0] } else { &control[..] };
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(rest)], control, flags, None) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                rights = &[];
            }
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], wait: Wait) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; FILES_LIMIT]);
    let flags =
        MsgFlags::MSG_CMSG_CLOEXEC | if wait == Wait::Never { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
    loop {
        let mut parts = [IoSliceMut::new(bytes)];
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => message,
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut files = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                files.extend(numbers.into_iter().map(adopt));
            }
        }
        return Ok((message.bytes, files));
    }
}

#[allow(unsafe_code, reason = "nix hands received files over as plain numbers; there is no owning variant")]
fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: recvmsg has just installed this descriptor for us and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, two) = UnixStream::pair().unwrap();
        (Channel::new(one.into()), Channel::new(two.into()))
    }

    #[test]
    fn files_arrive_with_their_line() {
        let (near, mut far) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        near.send(&"one", &[], Wait::Block).unwrap();
        near.send(&"two", &[writer.as_fd()], Wait::Block).unwrap();
        drop(writer);
        assert_eq!(far.read::<String>().unwrap().unwrap(), "one");
        assert_eq!(far.read::<String>().unwrap().unwrap(), "two");
        let mut file = std::fs::File::from(far.files.pop_front().unwrap());
        file.write_all(b"x").unwrap();
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn long_lines_and_the_end() {
        let (near, mut far) = pair();
        let long = "x".repeat(1 << 20);
        let copy = long.clone();
        let sender = std::thread::spawn(move || near.send(&copy, &[], Wait::Block).unwrap());
        assert_eq!(far.read::<String>().unwrap().unwrap(), long);
        sender.join().unwrap();
        assert_eq!(far.read::<String>().unwrap(), None);
    }

    #[test]
    fn nothing_there_is_would_block() {
        let (_near, mut far) = pair();
        assert_eq!(far.fill(Wait::Never).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
