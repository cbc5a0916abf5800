//! Attempts to run something, by every door that leads to code.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::ProtFlags;
use nix::sys::personality::{self, Persona};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, execv, pipe2, read, write};

use super::files::open_with;
use super::{Done, io_errno, silent, text};
use crate::sys::{self, Arg, Map, call};

pub(super) fn perform(name: &str, words: &[&str]) -> Option<Done> {
    let (r, w, x) = (ProtFlags::PROT_READ, ProtFlags::PROT_WRITE, ProtFlags::PROT_EXEC);
    Some(match (name, words) {
        ("exec", [path, ..]) => run(path, words),
        ("exec-fd", [path]) => exec_descriptor(path),
        ("exec-memory", [path]) => exec_memory(path),
        ("map-exec", [path]) => map(path, r | x, None),
        ("map-then-exec", [path]) => map(path, r, Some(r | x)),
        ("map-write-then-exec", [path]) => map(path, r | w, Some(r | x)),
        // What a binary with an executable stack turns every mapping into.
        ("map-implied", [path]) => personality::get()
            .and_then(|old| personality::set(old | Persona::READ_IMPLIES_EXEC))
            .and_then(|_| map(path, r, None)),
        ("map-read", [path]) => map(path, r, None),
        ("map-memory", []) => Map::anonymous(r | w).and_then(|map| silent(map.protect(r | x))),
        ("map-memfd", []) => memfd_create("m", MFdFlags::MFD_CLOEXEC).and_then(|file| {
            write(&file, &[0x90; 4096])?;
            silent(Map::file(&file, r | x, false))
        }),
        ("remap-exec", [path]) => remap(path),
        _ => return None,
    })
}

/// Runs a program to its end. An error of execve comes back; so does the status, as text.
fn run(path: &str, words: &[&str]) -> Done {
    let argv: Vec<CString> = words.iter().map(|word| text(word)).collect();
    let path = text(path);
    in_child(|| match execv(&path, &argv) {
        Ok(never) => match never {},
        Err(errno) => errno,
    })
}

fn in_child(exec: impl FnOnce() -> Errno) -> Done {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC)?;
    match sys::fork()? {
        ForkResult::Child => {
            if let Ok(null) = open_with("/dev/null", OFlag::O_RDWR) {
                let _ = nix::unistd::dup2_stdin(&null);
                let _ = nix::unistd::dup2_stdout(&null);
                let _ = nix::unistd::dup2_stderr(&null);
            }
            let errno = exec();
            let _ = write(&tell, &(errno as i32).to_ne_bytes());
            std::process::exit(0)
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let mut bytes = [0; 4];
            let count = read(&told, &mut bytes)?;
            let status = waitpid(child, None)?;
            match (count, status) {
                (4, _) => Err(Errno::from_raw(i32::from_ne_bytes(bytes))),
                (_, WaitStatus::Exited(_, code)) => Ok(format!("exit {code}")),
                (_, WaitStatus::Signaled(_, signal, _)) => Ok(format!("signal {}", signal as i32)),
                (_, other) => Ok(format!("{other:?}")),
            }
        }
    }
}

fn exec_fd(file: &OwnedFd) -> Done {
    const AT_EMPTY_PATH: i64 = 0x1000;
    let fd = file.as_raw_fd();
    in_child(|| {
        let name = text("it");
        let empty = text("");
        let argv = [name.as_ptr() as u64, 0].map(u64::to_ne_bytes).concat();
        let envp = [0u8; 8];
        let mut args =
            [Arg::Int(fd.into()), Arg::Text(&empty), Arg::In(&argv), Arg::In(&envp), Arg::Int(AT_EMPTY_PATH)];
        call(libc::SYS_execveat, &mut args).err().unwrap_or(Errno::UnknownErrno)
    })
}

/// execveat() on a descriptor that gives no access to the content.
fn exec_descriptor(path: &str) -> Done {
    exec_fd(&open_with(path, OFlag::O_PATH)?)
}

/// A program copied into memory that has no path.
fn exec_memory(path: &str) -> Done {
    let program = fs::read(path).map_err(|error| io_errno(&error))?;
    let file = memfd_create("program", MFdFlags::MFD_CLOEXEC)?;
    let mut rest = &program[..];
    while !rest.is_empty() {
        let count = write(&file, rest)?;
        rest = &rest[count..];
    }
    exec_fd(&file)
}

fn map(path: &str, first: ProtFlags, then: Option<ProtFlags>) -> Done {
    let file = open_with(path, OFlag::O_RDONLY)?;
    let map = Map::file(&file, first, false)?;
    then.map_or(Ok(()), |then| map.protect(then)).map(|()| String::new())
}

/// A readable mapping that is moved before it is made executable.
fn remap(path: &str) -> Done {
    const MREMAP_MAYMOVE: i64 = 1;
    let file = open_with(path, OFlag::O_RDONLY)?;
    let map = Map::file(&file, ProtFlags::PROT_READ, false)?;
    let address = map.address() as i64;
    let moved =
        call(libc::SYS_mremap, &mut [Arg::Int(address), Arg::Int(4096), Arg::Int(8192), Arg::Int(MREMAP_MAYMOVE)])?;
    // The old place is gone, and this process ends with the attempt.
    std::mem::forget(map);
    let protection = i64::from(libc::PROT_READ | libc::PROT_EXEC);
    silent(call(libc::SYS_mprotect, &mut [Arg::Int(moved), Arg::Int(4096), Arg::Int(protection)]))
}
