//! Pid 1 of an agent: makes its world, gives up its rights, starts its program, reaps what dies.
//!
//! It is a fork of the shim and never execs, so it needs nothing from the agent's file system. The agent cannot kill or
//! stop it (a pid 1 without handlers ignores what its own namespace sends), nor trace it (it is not dumpable). When the
//! program ends, init kills everything else and says so before it exits, because the kernel's teardown of the namespaces
//! takes longer than the news should.
//!
//! Life: `wait for a request → make view → open anchors → give up rights → gate → fork program → reap until it ends → kill the rest → exit`.
//! At the gate it waits on its socket; if that closes, the shim is dead, and so is the agent.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use agentd_model::{ExitStatus, Terminal};
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchown};

use super::lookup::step;
use super::program::{OUR_FAULT, Program, Streams, Trouble};
use super::rights;
use super::sys::{self, Ended};
use super::view;
use crate::launch::LaunchRequest;
use crate::launch::messages::{Failure, Go, Pipes, Report};
use crate::launch::passing::{Channel, FILES_LIMIT, Wait};

/// Runs as pid 1; never comes back. The other end of `report` is the shim's; `open_files` is the limit that the daemon was
/// started with.
pub(crate) fn run(report: OwnedFd, open_files: (u64, u64)) -> ! {
    // A panic must not unwind into the shim's code, of which this process is a copy.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // The standard streams stay taken (by the shim's /dev/null), so that nothing else gets their numbers.
        if sys::close_all_but(&[0, 1, 2, report.as_raw_fd()]).is_err() {
            sys::exit_now(OUR_FAULT);
        }
        let mut channel = Channel::new(report);
        if let Err(failure) = live(&mut channel, open_files) {
            let _ = channel.send(&Report::Failed { failure }, &[], Wait::Block);
            sys::exit_now(OUR_FAULT);
        }
        sys::exit_now(0)
    }));
    drop(outcome);
    sys::exit_now(OUR_FAULT)
}

fn live(channel: &mut Channel, open_files: (u64, u64)) -> Result<(), Failure> {
    let lost = || step("talk to the shim");
    prctl::set_name(c"agentd-init").map_err(step("name init"))?;
    sys::reset_signals().map_err(step("reset signals"))?;
    // The agent's, and already that of the directories made for its view; the shim's own is tighter.
    umask(Mode::from_bits_truncate(0o022));
    sys::warm_up();
    let Some(request) = channel.read::<LaunchRequest>().map_err(lost())? else { sys::exit_now(OUR_FAULT) };
    let spec = &request.spec;
    let program = Program::new(spec, open_files)?;
    let found = view::make(&request, &mut |new| {
        for batch in new.chunks(FILES_LIMIT) {
            let files: Vec<_> = batch.iter().map(|found| found.file.as_fd()).collect();
            channel.send(&Report::Files { count: files.len() }, &files, Wait::Block).map_err(lost())?;
        }
        Ok(())
    })?;

    // Streams of the agent's own view: the shim's are from another mount namespace, which CRIU could not restore.
    let null = view::null()?;
    for number in 0..3 {
        sys::stand_in(null.as_fd(), number).map_err(step("close init's streams"))?;
    }
    let Some(Pipes { stdin }) = channel.read().map_err(lost())? else { sys::exit_now(OUR_FAULT) };
    let mut pipes = channel.files.drain(..);
    let stdin = if stdin { pipes.next() } else { None };
    let mut streams = [stdin, pipes.next(), pipes.next()];
    drop(pipes);
    if let Terminal::Pty { rows, columns } = spec.terminal {
        let (master, slave) = make_terminal(spec.uid, rows, columns)?;
        channel.send(&Report::Terminal, &[master.as_fd()], Wait::Block).map_err(lost())?;
        streams = [Some(slave.try_clone().map_err(step("share the pty"))?), Some(slave), None];
    }
    let notes = found.iter().map(|found| found.notes.clone()).collect();
    // The daemon can load the rules meanwhile.
    channel.send(&Report::Seen { notes }, &[], Wait::Block).map_err(lost())?;
    let landlock_abi = rights::give_up(spec, request.confinement, &found)?;
    drop(found);

    channel.send(&Report::Ready { landlock_abi }, &[], Wait::Block).map_err(lost())?;
    let Some(Go) = channel.read().map_err(lost())? else { sys::exit_now(OUR_FAULT) };

    let [stdin, stdout, stderr] = &streams;
    let stdout = stdout.as_ref().unwrap_or(&null);
    let streams_of_program = Streams {
        stdin: stdin.as_ref().unwrap_or(&null).as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_ref().unwrap_or(stdout).as_fd(),
        terminal: matches!(spec.terminal, Terminal::Pty { .. }),
    };
    let (mut errors, errors_in) = io::pipe().map_err(step("make a pipe"))?;
    let pid = sys::start(|| program.run(streams_of_program, &errors_in)).map_err(step("start the program"))?;
    drop(errors_in);
    let pidfd = sys::pidfd_open(pid).map_err(step("hold on to the program"))?;
    channel.send(&Report::Forked, &[pidfd.as_fd()], Wait::Block).map_err(lost())?;
    drop(pidfd);
    // With a pty, init keeps the slave: the master then sees a hang-up only at the real end.
    if !streams_of_program.terminal {
        streams = [None, None, None];
    }
    drop(null);
    let mut told = [0; Trouble::BYTES];
    let report = match errors.read_exact(&mut told) {
        Ok(()) => {
            let (what, errno) = Trouble::read(told);
            let program = if what == Trouble::Enter { Some(&spec.cwd) } else { spec.argv.first() };
            Report::NotStarted { errno, verb: what.verb().to_owned(), program: program.cloned().unwrap_or_default() }
        }
        // Closed without a word: by the exec.
        Err(_) => Report::Started,
    };
    drop(errors);
    channel.send(&report, &[], Wait::Block).map_err(lost())?;

    let status = reap_until(pid).map_err(step("wait for the program"))?;
    kill_the_rest();
    drop(streams);
    channel.send(&Report::Ended { status }, &[], Wait::Block).map_err(lost())
}

/// Makes the agent's pty in its own devpts: the master for the shim, the slave for the program.
fn make_terminal(uid: u32, rows: u16, columns: u16) -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).map_err(step("make a pty"))?;
    let slave = sys::open_slave(master.as_fd()).map_err(step("open the pty"))?;
    sys::set_size(master.as_fd(), rows, columns).map_err(step("size the pty"))?;
    fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>).map_err(step("give the pty to the agent"))?;
    Ok((master, slave))
}

/// Reaps orphans and the program, until it is the program.
fn reap_until(program: i32) -> io::Result<ExitStatus> {
    loop {
        if let Some((pid, ended)) = sys::wait(-1, 0)?
            && pid == program
        {
            return Ok(status(ended));
        }
    }
}

pub(crate) fn status(ended: Ended) -> ExitStatus {
    match ended {
        Ended::Code(code) => ExitStatus::Code { code },
        Ended::Signal(signal) => ExitStatus::Signal { signal },
    }
}

/// Kills every other process of the namespace and reaps them all.
fn kill_the_rest() {
    // ESRCH: nobody is left. A fork that was under way is caught by the next round.
    while sys::kill(-1, libc::SIGKILL).is_ok() {
        while let Ok(Some(_)) = sys::wait(-1, libc::WNOHANG) {}
        // Whoever is still there is dying: wait for one.
        if sys::wait(-1, 0).is_err() {
            break;
        }
    }
}
