//! Attempts of several steps: what is opened, mapped or received stays under a name.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::mman::ProtFlags;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::sys::stat::Mode;
use nix::unistd::{ftruncate, lseek, read, write};

use super::files::{open_with, read_text};
use super::process::burn_for;
use super::{Done, io_errno, silent};
use crate::sys::{Map, own};

/// What an attempting process has kept.
#[derive(Debug, Default)]
pub(crate) struct Held {
    files: BTreeMap<String, OwnedFd>,
    maps: BTreeMap<String, Map>,
    listeners: BTreeMap<String, UnixListener>,
}

impl Held {
    fn file(&self, name: &str) -> Result<&OwnedFd, Errno> {
        self.files.get(name).ok_or(Errno::EBADF)
    }

    fn keep(&mut self, name: &str, file: Result<OwnedFd, Errno>) -> Done {
        self.files.insert(name.to_owned(), file?);
        Ok(String::new())
    }
}

pub(super) fn perform(name: &str, words: &[&str], held: &mut Held) -> Option<Done> {
    Some(match (name, words) {
        ("hold", [name, path]) => held.keep(name, open_with(path, OFlag::O_RDONLY)),
        ("hold-written", [name, path]) => held.keep(name, open_with(path, OFlag::O_RDWR)),
        ("hold-path", [name, path]) => held.keep(name, open_with(path, OFlag::O_PATH)),
        ("hold-map", [name, path]) => map(held, name, path),
        // Uses so many milliseconds of processor time, in this very process.
        ("hold-burn", [milliseconds]) => {
            burn_for(milliseconds.parse().unwrap_or(0));
            Ok(String::new())
        }
        ("hold-chdir", [path]) => silent(nix::unistd::chdir(*path)),
        ("hold-drop", [name]) => {
            held.files.remove(*name);
            held.maps.remove(*name);
            held.listeners.remove(*name);
            Ok(String::new())
        }
        ("hold-listen", [name, path]) => listen(held, name, path),
        ("hold-receive", [name, file]) => receive(held, name, file),
        ("read-held", [name]) => held.file(name).and_then(|file| {
            lseek(file, 0, nix::unistd::Whence::SeekSet)?;
            let mut bytes = [0; 64];
            let count = read(file, &mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
        }),
        ("write-held", [name]) => held.file(name).and_then(|file| silent(write(file, b"held\n"))),
        ("truncate-held", [name]) => held.file(name).and_then(|file| silent(ftruncate(file, 1))),
        // Maps what is open, to be written by everybody.
        ("map-held", [name]) => {
            held.file(name).and_then(|file| silent(Map::file(file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, true)))
        }
        ("store-held", [name]) => held.maps.get(*name).ok_or(Errno::EBADF).map(|map| {
            map.store(b'Z');
            String::new()
        }),
        ("openat-held", [name, path]) => held.file(name).and_then(|directory| {
            read_text(&openat(directory, *path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()))
        }),
        ("reopen-held", [name]) => held
            .file(name)
            .and_then(|file| read_text(&open_with(&format!("/proc/self/fd/{}", file.as_raw_fd()), OFlag::O_RDONLY))),
        // Which descriptors did this program get, beside its three?
        ("descriptors", []) => descriptors(),
        ("send-descriptor", [socket, path]) => send(socket, path),
        _ => return None,
    })
}

fn map(held: &mut Held, name: &str, path: &str) -> Done {
    let file = open_with(path, OFlag::O_RDWR)?;
    let map = Map::file(&file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, true)?;
    held.maps.insert(name.to_owned(), map);
    Ok(String::new())
}

fn listen(held: &mut Held, name: &str, path: &str) -> Done {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(|error| io_errno(&error))?;
    held.listeners.insert(name.to_owned(), listener);
    Ok(String::new())
}

/// Takes the next connection and a descriptor from it. A refused descriptor does not arrive: `ENOMSG`.
fn receive(held: &mut Held, name: &str, file: &str) -> Done {
    let listener = held.listeners.get(name).ok_or(Errno::EBADF)?;
    let (stream, _) = listener.accept().map_err(|error| io_errno(&error))?;
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
    let got = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    // ENOBUFS: the message says that something of it was left out, as it does of a refused descriptor.
    let messages = got.cmsgs().map_err(|errno| if errno == Errno::ENOBUFS { Errno::ENOMSG } else { errno })?;
    for message in messages {
        if let ControlMessageOwned::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    let fd = *fds.first().ok_or(Errno::ENOMSG)?;
    held.keep(file, Ok(own(fd)))
}

/// Sends a descriptor of a file, or of what has no name, to whoever listens at the socket.
fn send(socket: &str, path: &str) -> Done {
    use nix::sys::socket::{ControlMessage, sendmsg};
    let mut stream = UnixStream::connect(socket).map_err(|error| io_errno(&error))?;
    let file = match path {
        "pipe" => nix::unistd::pipe()?.0,
        "socket" => UnixStream::pair().map_err(|error| io_errno(&error))?.0.into(),
        "memory" => nix::sys::memfd::memfd_create("m", nix::sys::memfd::MFdFlags::empty())?,
        path => open_with(path, OFlag::O_RDONLY)?,
    };
    let fds = [file.as_raw_fd()];
    let parts = [std::io::IoSlice::new(b"x")];
    sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
    // Until the other side has read it and hung up.
    let _ = stream.flush();
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(500)));
    let _ = stream.read(&mut [0]);
    Ok(String::new())
}

fn descriptors() -> Done {
    let mut found = Vec::new();
    for item in std::fs::read_dir("/proc/self/fd").map_err(|error| io_errno(&error))? {
        let path = item.map_err(|error| io_errno(&error))?.path();
        let target = std::fs::read_link(&path).map(|target| target.display().to_string()).unwrap_or_default();
        found.push(format!("{}={target}", path.file_name().unwrap_or_default().to_string_lossy()));
    }
    found.sort();
    Ok(found.join(" "))
}
