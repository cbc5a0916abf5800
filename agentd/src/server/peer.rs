//! The process at the other end of a connection, held so that its number cannot become somebody else's.
//!
//! An unsafe island of one call: no crate that we use asks for `SO_PEERPIDFD` (Linux 6.5).
#![allow(unsafe_code, reason = "an unsafe island, see the head of the file and docs/unsafe.md")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A handle on the process that connected; `None`: the kernel has no such option.
pub(super) fn of(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut pidfd: RawFd = -1;
    let mut length = size_of::<RawFd>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one descriptor's number to `pidfd`, and its size to `length`; both outlive the call.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERPIDFD, (&raw mut pidfd).cast(), &raw mut length) };
    match result {
        // SAFETY: the kernel has just made this descriptor, which nobody else owns.
        0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(pidfd) })),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
            error => Err(error),
        },
    }
}

/// Whether the process is still there, so that what was read under its number was its own.
pub(super) fn lives(pidfd: &OwnedFd) -> bool {
    // A pidfd is readable once its process has ended.
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0)
}
