//! Attempts on other processes, and programs that use up what they are given.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::{Done, io_errno, number, silent, text};
use crate::sys::{self, Arg, call, open_call};
use crate::{clock, ui};

pub(super) fn perform(name: &str, words: &[&str]) -> Option<Done> {
    Some(match (name, words) {
        ("kill", [pid, signal]) => kill_it(pid, number(signal)),
        ("kill-child", []) => with_child(|child| silent(kill(child, Signal::SIGUSR1))),
        // SIGUSR2, which this program spares itself.
        ("kill-all", []) => kill_it("-1", Signal::SIGUSR2 as i64),
        ("pidfd", [pid]) => silent(pidfd(number(pid))),
        ("pidfd-signal", [pid]) => pidfd(number(pid)).and_then(|fd| {
            use std::os::fd::AsRawFd;
            let fd = i64::from(fd.as_raw_fd());
            silent(call(libc::SYS_pidfd_send_signal, &mut [Arg::Int(fd), Arg::Int(0), Arg::Int(0), Arg::Int(0)]))
        }),
        ("pidfd-getfd", [pid]) => pidfd(number(pid)).and_then(|fd| {
            use std::os::fd::AsRawFd;
            let fd = i64::from(fd.as_raw_fd());
            silent(open_call(libc::SYS_pidfd_getfd, &mut [Arg::Int(fd), Arg::Int(0), Arg::Int(0)]))
        }),
        ("trace", [pid]) => trace(Pid::from_raw(number(pid) as i32)),
        ("seize", [pid]) => silent(ptrace::seize(Pid::from_raw(number(pid) as i32), ptrace::Options::empty())),
        ("trace-child", []) => with_child(trace),
        ("trace-me", []) => silent(ptrace::traceme()),
        ("peek", [pid]) => peek(number(pid)),
        ("peek-child", []) => with_child(|child| peek(child.as_raw().into())),
        ("poke", [pid]) => poke(number(pid)),
        ("memory", [pid]) => memory(pid, false),
        ("memory-write", [pid]) => memory(pid, true),
        ("process-file", [pid, file]) => read_process_file(pid, file),
        ("process-link", [pid, file]) => {
            let target = fs::read_link(format!("/proc/{pid}/{file}")).map_err(|error| io_errno(&error));
            target.map(|target| target.display().to_string())
        }
        ("limit", [pid]) => {
            // prlimit64(RLIMIT_NOFILE) to the same as now.
            let mut old = [0u8; 16];
            let pid = number(pid);
            let nofile = i64::from(libc::RLIMIT_NOFILE as i32);
            call(libc::SYS_prlimit64, &mut [Arg::Int(0), Arg::Int(nofile), Arg::Int(0), Arg::Out(&mut old)]).and_then(
                |_| {
                    silent(call(
                        libc::SYS_prlimit64,
                        &mut [Arg::Int(pid), Arg::Int(nofile), Arg::In(&old), Arg::Int(0)],
                    ))
                },
            )
        }
        ("nice", [pid]) => silent(call(libc::SYS_setpriority, &mut [Arg::Int(0), Arg::Int(number(pid)), Arg::Int(10)])),
        ("affinity", [pid]) => {
            let all = [0xffu8; 8];
            silent(call(libc::SYS_sched_setaffinity, &mut [Arg::Int(number(pid)), Arg::Int(8), Arg::In(&all)]))
        }
        ("io-priority", [pid]) => {
            silent(call(libc::SYS_ioprio_set, &mut [Arg::Int(1), Arg::Int(number(pid)), Arg::Int(2 << 13)]))
        }
        ("schedule", [pid, policy, priority]) => schedule(number(pid), number(policy), number(priority)),
        ("schedule-deadline", []) => deadline(),
        ("own-namespace", [kind]) => {
            let target = fs::read_link(format!("/proc/self/ns/{kind}")).map_err(|error| io_errno(&error));
            target.map(|target| target.display().to_string())
        }
        ("status", [field]) => status(field),
        ("whoami", []) => Ok(format!("{} {}", nix::unistd::getuid(), nix::unistd::getpid())),
        ("push-input", [tty]) => push_input(tty),
        ("fork", []) => match sys::fork() {
            Ok(ForkResult::Child) => std::process::exit(0),
            Ok(ForkResult::Parent { child }) => silent(waitpid(child, None)),
            Err(errno) => Err(errno),
        },
        ("talk-to-daemon", [socket, request]) => talk(socket, request),
        ("repeat-open", [count, path]) => repeat_open(number(count), path),
        _ => return None,
    })
}

fn kill_it(pid: &str, signal: i64) -> Done {
    let pid: i64 = pid.parse().unwrap_or(i64::MAX);
    silent(call(libc::SYS_kill, &mut [Arg::Int(pid), Arg::Int(signal)]))
}

fn with_child(then: impl FnOnce(Pid) -> Done) -> Done {
    match sys::fork()? {
        ForkResult::Child => {
            sys::die_with_parent();
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
        ForkResult::Parent { child } => {
            let done = then(child);
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            done
        }
    }
}

fn pidfd(pid: i64) -> Result<std::os::fd::OwnedFd, Errno> {
    open_call(libc::SYS_pidfd_open, &mut [Arg::Int(pid), Arg::Int(0)])
}

fn trace(pid: Pid) -> Done {
    ptrace::attach(pid)?;
    let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
    silent(ptrace::detach(pid, None))
}

/// An address that is mapped in the other process: what its stack pointer's neighbourhood is, by /proc, is not asked, since
/// that is another attempt; the vsyscall page is the same everywhere but cannot be read, so the own image's start is used:
/// a forked child has it too, and for a stranger the check of access comes before the look at the address.
fn address() -> u64 {
    static MARK: u64 = 0x766d_7465_7374_7321;
    std::ptr::from_ref(&MARK) as u64
}

fn vectors(local: &[u8; 8]) -> ([u8; 16], [u8; 16]) {
    let vector = |base: u64| {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&base.to_ne_bytes());
        bytes[8..].copy_from_slice(&8u64.to_ne_bytes());
        bytes
    };
    (vector(local.as_ptr() as u64), vector(address()))
}

fn peek(pid: i64) -> Done {
    let local = [0u8; 8];
    let (here, there) = vectors(&local);
    let mut args = [Arg::Int(pid), Arg::In(&here), Arg::Int(1), Arg::In(&there), Arg::Int(1), Arg::Int(0)];
    silent(call(libc::SYS_process_vm_readv, &mut args))
}

fn poke(pid: i64) -> Done {
    let local = [0u8; 8];
    let (here, there) = vectors(&local);
    let mut args = [Arg::Int(pid), Arg::In(&here), Arg::Int(1), Arg::In(&there), Arg::Int(1), Arg::Int(0)];
    silent(call(libc::SYS_process_vm_writev, &mut args))
}

fn memory(pid: &str, writing: bool) -> Done {
    let own = [7u8; 8];
    let file = fs::OpenOptions::new().read(true).write(writing).open(format!("/proc/{pid}/mem"));
    let mut file = file.map_err(|error| io_errno(&error))?;
    file.seek(SeekFrom::Start(own.as_ptr() as u64)).map_err(|error| io_errno(&error))?;
    let done = if writing { file.write(&own) } else { file.read(&mut [0; 8]) };
    // A stranger's memory has nothing at our address, which is known only after it was opened.
    match done {
        Err(error) if pid != "self" && error.raw_os_error() == Some(libc::EIO) => Ok("opened".into()),
        done => done.map(|_| String::new()).map_err(|error| io_errno(&error)),
    }
}

fn read_process_file(pid: &str, file: &str) -> Done {
    let mut bytes = Vec::new();
    let opened = fs::File::open(format!("/proc/{pid}/{file}"));
    opened.and_then(|file| file.take(4096).read_to_end(&mut bytes)).map_err(|error| io_errno(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn schedule(pid: i64, policy: i64, priority: i64) -> Done {
    let parameter = (priority as i32).to_ne_bytes();
    silent(call(libc::SYS_sched_setscheduler, &mut [Arg::Int(pid), Arg::Int(policy), Arg::In(&parameter)]))
}

fn deadline() -> Done {
    let mut attributes = [0u8; 48];
    attributes[0..4].copy_from_slice(&48u32.to_ne_bytes());
    attributes[4..8].copy_from_slice(&6u32.to_ne_bytes());
    for (at, value) in [(24, 10_000_000u64), (32, 30_000_000), (40, 30_000_000)] {
        attributes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    silent(call(libc::SYS_sched_setattr, &mut [Arg::Int(0), Arg::In(&attributes), Arg::Int(0)]))
}

/// One line of /proc/self/status.
fn status(field: &str) -> Done {
    let text = fs::read_to_string("/proc/self/status").map_err(|error| io_errno(&error))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned()).ok_or(Errno::ENOENT)
}

/// TIOCSTI: types a character at somebody else's terminal.
fn push_input(tty: &str) -> Done {
    use std::os::fd::AsRawFd;
    let file = fs::OpenOptions::new().read(true).write(true).open(tty).map_err(|error| io_errno(&error))?;
    let fd = i64::from(file.as_raw_fd());
    silent(call(libc::SYS_ioctl, &mut [Arg::Int(fd), Arg::Int(libc::TIOCSTI as i64), Arg::In(b"x")]))
}

/// One line to a unix socket, one line back.
fn talk(socket: &str, request: &str) -> Done {
    use std::io::BufRead;
    let mut stream = std::os::unix::net::UnixStream::connect(socket).map_err(|error| io_errno(&error))?;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    stream.write_all(format!("{request}\n").as_bytes()).map_err(|error| io_errno(&error))?;
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line).map_err(|error| io_errno(&error))?;
    Ok(line.trim().to_owned())
}

/// The same open over and over; the answer is how often it was refused.
fn repeat_open(count: i64, path: &str) -> Done {
    let path = text(path);
    let mut refused = 0;
    for _ in 0..count {
        let mut args = [Arg::Int(libc::AT_FDCWD.into()), Arg::Text(&path), Arg::Int(0), Arg::Int(0)];
        match open_call(libc::SYS_openat, &mut args) {
            Ok(file) => drop(file),
            Err(Errno::EACCES) => refused += 1,
            Err(errno) => return Err(errno),
        }
    }
    Ok(refused.to_string())
}

/// `vm-tests burn threads N | processes N | forks | bomb | open PATH`: uses processor time until it is stopped.
pub(crate) fn burn(words: &[&str]) -> ExitCode {
    ui::line("burning");
    match words {
        ["threads", count] => {
            let threads: Vec<_> = (0..number(count)).map(|_| thread::spawn(|| spin(u64::MAX))).collect();
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
        ["processes", count] => {
            for _ in 1..number(count) {
                if let Ok(ForkResult::Child) = sys::fork() {
                    break;
                }
            }
            spin(u64::MAX);
        }
        ["forks"] => loop {
            match sys::fork() {
                Ok(ForkResult::Child) => std::process::exit(0),
                Ok(ForkResult::Parent { child }) => drop(waitpid(child, None)),
                // Refused because the budget is spent: go on using up what is left, nobody else does.
                Err(_) => spin(1_000_000),
            }
        },
        // Children that have children, as fast as they come.
        ["bomb"] => loop {
            let _ = sys::fork();
        },
        // So many milliseconds of processor time, and then the end.
        ["some", milliseconds] => burn_for(number(milliseconds).unsigned_abs()),
        // Nothing but new programs, each gone at once.
        ["programs"] => loop {
            let _ = Command::new("/bin/true").status();
        },
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Uses so much processor time.
pub(super) fn burn_for(milliseconds: u64) {
    let end = clock::processor() + Duration::from_millis(milliseconds);
    while clock::processor() < end {
        spin(10_000);
    }
}

fn spin(rounds: u64) {
    let mut value = 1u64;
    for round in 0..rounds {
        value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round));
    }
}
