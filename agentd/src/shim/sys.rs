//! System calls that no safe wrapper offers.
//!
//! An unsafe island. Why no safe way: `clone3` into a cgroup and namespaces, a child on its parent's memory, and `execve`
//! change what a process is, which no library can promise to be sound for every caller. Here they are sound because the
//! shim never has a second thread: a child finds a process in which nobody else holds a lock or is half-way through
//! changing anything.
#![allow(unsafe_code, reason = "an unsafe island, see the head of the file and docs/unsafe.md")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_char, c_int, c_long};

use super::program::OUR_FAULT;

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Side<T> {
    Child,
    Parent(T),
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(u8),
    Signal(u8),
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes pid 1 of a new pid and ipc namespace, born in the cgroup. The parent gets its pid and pidfd.
pub(crate) fn clone_init(cgroup: BorrowedFd<'_>) -> io::Result<Side<(i32, OwnedFd)>> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_PIDFD;
    let args = libc::clone_args {
        flags: flags as u64 | CLONE_INTO_CGROUP,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.as_raw_fd() as u64,
    };
    // SAFETY: the arguments are fully initialised and of the size given; without CLONE_VM and a stack this is a fork, and
    // the calling process is single-threaded, so the child may go on using everything it finds.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: the kernel has stored a new descriptor, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent((pid as i32, pidfd)))
}

/// Does not fit libc's type for flags.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Stack of a child between its birth and its exec.
const CHILD_STACK: usize = 256 << 10;

/// Starts a child that uses this process's memory until it executes a program or ends; the caller sleeps until then.
/// `child` must do one of the two. Half the price of a fork, which copies page tables twice: now, and when they change.
pub(crate) fn start(child: impl FnOnce()) -> io::Result<i32> {
    extern "C" fn enter<F: FnOnce()>(argument: *mut libc::c_void) -> c_int {
        // SAFETY: `start` passed a pointer to an `Option<F>` on its own stack, and sleeps.
        let child = unsafe { &mut *argument.cast::<Option<F>>() };
        if let Some(child) = child.take() {
            child();
        }
        exit_now(OUR_FAULT)
    }
    fn entry<F: FnOnce()>(_: &F) -> extern "C" fn(*mut libc::c_void) -> c_int {
        enter::<F>
    }
    let mut stack = vec![0u128; CHILD_STACK / size_of::<u128>()];
    let (top, enter, mut child) = (stack.as_mut_ptr_range().end, entry(&child), Some(child));
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned, large enough for a few system calls, and outlives the child's use of it, as the argument
    // does, because CLONE_VFORK holds the caller until the child has memory of its own or is dead. The caller is
    // single-threaded, so nobody else is half-way through changing anything; what the child allocates and leaves
    // behind is lost, not corrupted. A panic in the child cannot leave `enter`: it aborts the child.
    let pid = unsafe { libc::clone(enter, top.cast(), flags, (&raw mut child).cast()) };
    check(pid.into()).map(|pid| pid as i32)
}

/// A descriptor for a child that has not been reaped.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whom a signal through a pidfd reaches.
pub(crate) const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;

/// Sends a signal through a pidfd.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32, flags: u32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and no other memory is passed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, flags) }).map(drop)
}

/// `kill(2)` with any number, real-time signals too.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Waits for a child (-1: any). `None`: with `WNOHANG`, none has ended. Knows real-time signals, unlike nix.
pub(crate) fn wait(pid: i32, flags: c_int) -> io::Result<Option<(i32, Ended)>> {
    let mut status: c_int = 0;
    loop {
        // SAFETY: `status` outlives the call.
        match check(unsafe { libc::waitpid(pid, &raw mut status, flags) }.into()) {
            Ok(0) => return Ok(None),
            Ok(pid) if libc::WIFSIGNALED(status) => {
                return Ok(Some((pid as i32, Ended::Signal(libc::WTERMSIG(status) as u8))));
            }
            Ok(pid) => return Ok(Some((pid as i32, Ended::Code(libc::WEXITSTATUS(status) as u8)))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Closes every descriptor that is not kept. Owners of the closed ones must never be dropped.
pub(crate) fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| *fd as u32).collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Marks every descriptor from 3 on to be closed by exec.
pub(crate) fn close_on_exec() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    close_range(3, u32::MAX, CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: no memory is passed. The caller answers for descriptors that somebody owns: init and the program's
    // process end by `exit_now` or exec, so no owner is dropped.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Ends the process without running anything of its own.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` is always allowed.
    unsafe { libc::_exit(code.into()) }
}

/// Maps the program's code and makes heap and stack this process's own, while nobody waits for it: some two hundred page
/// faults that the launch then does not have. Where it does not work, they come later.
pub(crate) fn warm_up() {
    const STACK: usize = 96 << 10;
    std::hint::black_box([1u8; STACK]);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let advice = match (rights, words.next_back().unwrap_or_default()) {
            ("r-xp", _) => libc::MADV_POPULATE_READ,
            ("rw-p", "[heap]") => libc::MADV_POPULATE_WRITE,
            _ => continue,
        };
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        let bounds = range.split_once('-').and_then(|(from, to)| Some((number(from)?, number(to)?)));
        let Some((from, to)) = bounds else { continue };
        // SAFETY: populating changes no content, and the kernel checks the range.
        unsafe { libc::madvise(from as *mut libc::c_void, to.saturating_sub(from), advice) };
    }
}

/// Every signal back to its default, none blocked: whatever the daemon had set.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The kernel's own form, handler and all else zero: libc would leave out the two signals that it keeps for itself,
    // and a daemon started with those ignored would pass that on.
    let default = [0u64; 8];
    const SET_BYTES: usize = 8;
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads a sigaction, which is shorter than the zeroes, and writes nothing; SIG_DFL is no code.
        check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, SET_BYTES) })?;
    }
    // SAFETY: all zeroes is a valid empty set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is initialised, the old mask is not wanted.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) }.into()).map(drop)
}

/// A detached copy of the tree of mounts at an open directory or file.
pub(crate) fn open_tree(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: u32 = 1;
    let flags = OPEN_TREE_CLONE | (libc::O_CLOEXEC | libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as u32;
    // SAFETY: the path is a C string that outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), c"".as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Mounts a detached tree at an absolute path.
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, target: &CString) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    let (from, to) = (tree.as_raw_fd(), libc::AT_FDCWD);
    // SAFETY: both paths are C strings that outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, target.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
    };
    check(result).map(drop)
}

/// Joins a new session keyring, so that keys of whoever started the daemon are not at hand. A kernel without keys is fine.
pub(crate) fn new_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name is allowed.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) }) {
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

/// Drops from the bounding set what the `caps` crate does not know yet.
pub(crate) fn drop_newer_capabilities(first: u8) {
    for capability in first..64 {
        // SAFETY: no memory is passed. EINVAL: there are no more.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) } != 0 {
            return;
        }
    }
}

/// Fair scheduling at nice 0, whatever the daemon runs at.
pub(crate) fn plain_scheduling() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) }.into())?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) }.into()).map(drop)
}

/// Unlocks the slave of a pty and opens it, without going through a path.
pub(crate) fn open_slave(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    let unlock: c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int that outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags by value.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Gives a terminal its size.
pub(crate) fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize that outlives the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// Makes a terminal the controlling one of this session leader.
pub(crate) fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number by value.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Makes descriptor `number` (0, 1 or 2) the same as `file`.
pub(crate) fn stand_in(file: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    assert!((0..3).contains(&number), "only standard streams are replaced by number");
    // SAFETY: nobody owns the standard streams by number in this process.
    check(unsafe { libc::dup2(file.as_raw_fd(), number) }.into()).map(drop)
}

/// Strings as the kernel wants them: pointers and a null.
#[derive(Debug)]
pub(crate) struct Strings {
    strings: Vec<CString>,
}

impl Strings {
    /// Takes the strings.
    pub(crate) fn new(strings: Vec<CString>) -> Strings {
        Strings { strings }
    }

    fn pointers(&self) -> Vec<*const c_char> {
        self.strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    }
}

/// Becomes another program; comes back only with the reason why not.
pub(crate) fn execve(program: &CString, args: &Strings, env: &Strings) -> io::Error {
    let (args, env) = (args.pointers(), env.pointers());
    // SAFETY: both arrays end with null, and their strings and the path outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}
