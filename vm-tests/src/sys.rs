//! System calls that no crate offers in a safe form. The only file here with unsafe code.
//!
//! Why no safe way: a test of refusals has to make calls that libraries leave out or forbid (`mount` by raw number,
//! `fork` without `exec`, `mprotect` of what was mapped otherwise), some of them newer than libc.
//!
//! Why it holds: an argument of [`call`] is a number or memory that is borrowed for the length of the call, and callers pass
//! numbers of calls that read and write no more than that. What is mapped is unmapped by whoever mapped it, or by the
//! end of the process. [`fork`] is only called by programs of one thread.
#![allow(unsafe_code, reason = "an island; see above")]

use std::ffi::CStr;
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use nix::unistd::ForkResult;

/// One argument of a system call.
pub(crate) enum Arg<'a> {
    /// A number, or a null pointer.
    Int(i64),
    /// A text that ends with a NUL.
    Text(&'a CStr),
    /// Bytes that the kernel reads.
    In(&'a [u8]),
    /// Bytes that the kernel writes, and perhaps reads.
    Out(&'a mut [u8]),
}

/// Makes a system call by its number.
pub(crate) fn call(number: libc::c_long, args: &mut [Arg<'_>]) -> Result<i64, Errno> {
    let mut words = [0i64; 6];
    for (word, arg) in words.iter_mut().zip(args) {
        *word = match arg {
            Arg::Int(number) => *number,
            Arg::Text(text) => text.as_ptr() as i64,
            Arg::In(bytes) => bytes.as_ptr() as i64,
            Arg::Out(bytes) => bytes.as_mut_ptr() as i64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: the memory behind each argument is borrowed by `args` for longer than the call; see the head of the file.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// The same for a call that gives a descriptor.
pub(crate) fn open_call(number: libc::c_long, args: &mut [Arg<'_>]) -> Result<OwnedFd, Errno> {
    Ok(own(call(number, args)? as RawFd))
}

/// A descriptor that the kernel has just put into this process.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: nobody else knows the number yet.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Forks. This program has one thread wherever it is called.
pub(crate) fn fork() -> Result<ForkResult, Errno> {
    // SAFETY: one thread, so no lock is held by another that would not exist in the child.
    unsafe { nix::unistd::fork() }
}

/// A mapping, until it is dropped.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<libc::c_void>,
    length: usize,
}

/// A page, as everywhere on x86-64.
const PAGE: usize = 4096;

impl Map {
    /// Maps the first page of a file.
    pub(crate) fn file(file: &OwnedFd, protection: ProtFlags, shared: bool) -> Result<Map, Errno> {
        let length = NonZeroUsize::MIN.saturating_add(PAGE - 1);
        let flags = if shared { MapFlags::MAP_SHARED } else { MapFlags::MAP_PRIVATE };
        // SAFETY: the kernel chooses the place, so nothing that is mapped is replaced.
        let start = unsafe { mmap(None, length, protection, flags, file, 0) }?;
        Ok(Map { start, length: length.get() })
    }

    /// Maps a page of no file.
    pub(crate) fn anonymous(protection: ProtFlags) -> Result<Map, Errno> {
        let length = NonZeroUsize::MIN.saturating_add(PAGE - 1);
        // SAFETY: as above.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }?;
        Ok(Map { start, length: length.get() })
    }

    /// Changes what may be done with it.
    pub(crate) fn protect(&self, protection: ProtFlags) -> Result<(), Errno> {
        // SAFETY: the range is ours, and nobody holds a reference into it.
        unsafe { mprotect(self.start, self.length, protection) }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Writes its first byte. Only for mappings that may be written.
    pub(crate) fn store(&self, byte: u8) {
        let start = self.start.as_ptr().cast::<u8>();
        // SAFETY: a page long and mapped; a wrong protection ends this process and nothing else.
        unsafe { start.write_volatile(byte) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and nobody holds a reference into it.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

/// Asks for the death of this process when its parent dies.
pub(crate) fn die_with_parent() {
    let _ = call(libc::SYS_prctl, &mut [Arg::Int(libc::PR_SET_PDEATHSIG.into()), Arg::Int(libc::SIGKILL.into())]);
}
