//! The small process that stands by each agent.
//!
//! `agentd shim` is started by the daemon with one socket as its input and nothing else. It is told its place, makes the
//! agent's init ([`init`]), and waits for a request. Then it serves ([`serve`]): it holds the agent's pty or pipes, copies
//! output to the log and to whoever is attached, passes signals and input on, and keeps the exit status until the daemon
//! has taken it or it is on disk. It is single-threaded, so that forking needs no care, and it belongs to root: the agent
//! sees nothing of it.
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

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use agentd_model::Terminal;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, fchown, setsid};

use self::lookup::step;
use self::output::Log;
use self::serve::{Init, Plumbing};
use self::sys::Side;
use crate::launch::messages::{Failure, Pipes, Progress};
use crate::launch::passing::{Channel, Wait, parse};
use crate::launch::request::{Ends, Streams};
use crate::launch::{Place, SHIM_SOCKET};

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

    let Some(place) = control.read::<Place>()? else { return Ok(()) };
    let (mut init, log, listener) = match settle(&place, open_files) {
        Ok(settled) => settled,
        Err(failure) => {
            control.send(&Progress::Failed { failure }, &[], Wait::Block)?;
            // Told to whoever launches: not before it has asked.
            return control.read_line().map(drop);
        }
    };
    sys::warm_up();
    // A spare waits here, until it is needed or the daemon is gone.
    let line = control.read_line().ok().flatten();
    let Some(line) = line else {
        init.kill();
        let _ = fs::remove_file(place.runtime_dir.join(SHIM_SOCKET));
        return Ok(());
    };
    // At once, as it came: init has the longest way.
    let passed = init.pass(&line);
    let streams: Streams = parse(&line)?;
    match passed.map_err(step("wake the agent's init")).and_then(|()| begin(&init, &streams)) {
        Ok([stdin, stdout, stderr]) => {
            let begun = Progress::Begun { init_pid: init.pid() };
            control.send(&begun, &[init.pidfd()], Wait::Block)?;
            let terminal = streams.ends().terminal;
            serve::serve(place, terminal, control, Plumbing { init, log, listener, stdin, stdout, stderr })
        }
        Err(failure) => {
            init.kill();
            control.send(&Progress::Failed { failure }, &[], Wait::Block)
        }
    }
}

/// Makes everything that does not depend on what the agent will be: its log, its socket, its init.
fn settle(place: &Place, open_files: (u64, u64)) -> Result<(Init, Log, UnixListener), Failure> {
    let log = Log::open(&place.state_dir).map_err(step("open the output log"))?;
    let listener = listen(&place.runtime_dir).map_err(step("make the shim's socket"))?;
    let (ours, report) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(step("make a socket"))?;
    let cgroup = File::open(&place.cgroup).map_err(step(format!("open cgroup {}", place.cgroup.display())))?;
    let side = sys::clone_init(cgroup.as_fd())
        .map_err(step(format!("make namespaces in cgroup {}", place.cgroup.display())))?;
    match side {
        Side::Child => init::run(report, open_files),
        Side::Parent((pid, pidfd)) => Ok((Init::new(pid, pidfd, Channel::new(ours)), log, listener)),
    }
}

/// For root alone.
fn listen(runtime_dir: &Path) -> io::Result<UnixListener> {
    let path = runtime_dir.join(SHIM_SOCKET);
    // Left by an earlier life of this agent.
    let _ = fs::remove_file(&path);
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&path);
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Gives init its ends of the program's pipes; gives back ours: input, output, errors.
fn begin(init: &Init, streams: &Streams) -> Result<[Option<OwnedFd>; 3], Failure> {
    let ends = streams.ends();
    let pipes = ends.terminal == Terminal::Pipes;
    let pipe = |wanted: bool| if wanted { make_pipe(ends).map(Some) } else { Ok(None) };
    let (stdin_theirs, stdin) = pipe(pipes && streams.stdin)?.unzip();
    let (stdout, stdout_theirs) = pipe(pipes)?.unzip();
    let (stderr, stderr_theirs) = pipe(pipes)?.unzip();
    let theirs: Vec<_> =
        [&stdin_theirs, &stdout_theirs, &stderr_theirs].into_iter().flatten().map(AsFd::as_fd).collect();
    init.give(&Pipes { stdin: stdin_theirs.is_some() }, &theirs).map_err(step("give the agent its pipes"))?;
    Ok([stdin, stdout, stderr])
}

/// A pipe that belongs to the agent, so that it can open `/dev/stdout` again. Gives (read end, write end).
fn make_pipe(Ends { uid, gid, .. }: Ends) -> Result<(OwnedFd, OwnedFd), Failure> {
    let ends = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(step("make a pipe"))?;
    fchown(&ends.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(step("give a pipe to the agent"))?;
    Ok(ends)
}
