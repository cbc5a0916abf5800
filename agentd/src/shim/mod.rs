//! The small process that stands by each agent.
//!
//! `agentd shim` is started by the daemon with one socket as its input and nothing else. It forks the agent's init
//! ([`init`]), then serves ([`serve`]): it holds the agent's pty or pipes, copies output to the log and to whoever is
//! attached, passes signals and input on, and keeps the exit status until the daemon has taken it or it is on disk. It
//! is single-threaded, so that forking needs no care, and it belongs to root: the agent sees nothing of it.
//!
//! It outlives the daemon. If it dies itself, the agent dies with it, because nobody would hold its rules' files open.

mod anchors;
mod init;
mod lookup;
mod output;
mod program;
mod rights;
mod serve;
mod sys;
mod view;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use agentd_model::Terminal;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, fchown, setsid};

use self::init::Inheritance;
use self::output::Log;
use self::serve::{Init, Plumbing};
use self::sys::Side;
use self::lookup::step;
use crate::launch::LaunchRequest;
use crate::launch::messages::{Failure, Progress};
use crate::launch::passing::{Channel, Wait};

/// Runs the shim: the whole of `agentd shim`. Its standard input is the daemon's socket.
pub fn main() -> ExitCode {
    match stand_by() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens: standard error is /dev/null, and the daemon sees the socket close.
        Err(_) => ExitCode::FAILURE,
    }
}

fn stand_by() -> io::Result<()> {
    let mut control = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    prctl::set_name(c"agentd-shim")?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    (0..3).try_for_each(|number| sys::stand_in(null.as_fd(), number))?;
    drop(null);
    // Fails only for a process group leader, which a child of the daemon is not; a shim in the daemon's session would
    // still be no worse than a shim that is not there.
    let _ = setsid();
    chdir("/")?;
    umask(Mode::from_bits_truncate(0o077));
    let open_files = program::open_files().map_err(|_told| io::Error::last_os_error())?;
    // One file for each anchor.
    setrlimit(Resource::RLIMIT_NOFILE, open_files.1, open_files.1)?;

    // A spare shim waits here, until it is needed or the daemon is gone.
    let Some(request) = control.read::<LaunchRequest>()? else { return Ok(()) };
    match begin(&request, open_files) {
        Ok(plumbing) => serve::serve(request, control, plumbing),
        Err(failure) => control.send(&Progress::Failed { failure }, &[], Wait::Block),
    }
}

/// Makes what the shim and init share, and init.
fn begin(request: &LaunchRequest, open_files: (u64, u64)) -> Result<Plumbing, Failure> {
    let log = Log::open(&request.state_dir).map_err(step("open the output log"))?;
    let (ours, report) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(step("make a socket"))?;
    let cgroup = File::open(&request.cgroup).map_err(step(format!("open cgroup {}", request.cgroup.display())))?;
    let pipes = request.spec.terminal == Terminal::Pipes;
    let pipe = |wanted: bool| if wanted { make_pipe(request).map(Some) } else { Ok(None) };
    let (stdin_theirs, stdin) = pipe(pipes && request.stdin)?.unzip();
    let (stdout, stdout_theirs) = pipe(pipes)?.unzip();
    let (stderr, stderr_theirs) = pipe(pipes)?.unzip();
    let inheritance =
        Inheritance { report, stdin: stdin_theirs, stdout: stdout_theirs, stderr: stderr_theirs, open_files };
    let side = sys::clone_init(cgroup.as_fd())
        .map_err(step(format!("make namespaces in cgroup {}", request.cgroup.display())))?;
    match side {
        Side::Child => init::run(request, inheritance),
        Side::Parent((pid, pidfd)) => {
            let init = Init::new(pid, pidfd, Channel::new(ours));
            Ok(Plumbing { init, log, stdin, stdout, stderr })
        }
    }
}

/// A pipe that belongs to the agent, so that it can open `/dev/stdout` again. Gives (read end, write end).
fn make_pipe(request: &LaunchRequest) -> Result<(OwnedFd, OwnedFd), Failure> {
    let ends = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(step("make a pipe"))?;
    let (uid, gid) = (Uid::from_raw(request.spec.uid), Gid::from_raw(request.spec.gid));
    fchown(&ends.0, Some(uid), Some(gid)).map_err(step("give a pipe to the agent"))?;
    Ok(ends)
}
