//! What does it cost to run a program as an agent? From the start of the command to its end, as a script sees it.
//!
//! Beside it bubblewrap with the same namespaces, turn by turn. Each command has the host to itself: a short rest follows
//! it, in which the daemon clears up after the agent and makes the next shim ready. Both get the rest.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::daemon::Daemon;
use super::figure::{Bound, Series};
use super::{Figure, Options, Sink, machine};
use crate::clock::Stopwatch;
use crate::{sh, signal};

/// Turns natively, and in an emulated machine, where each takes ten times as long.
const ROUNDS: usize = 200;
const ROUNDS_IN_MACHINE: usize = 60;
/// Turns that do not count: caches are cold, the first shim is not ready.
const WARM_UP: usize = 5;
const REST: Duration = Duration::from_millis(200);
const REST_IN_MACHINE: Duration = Duration::from_millis(600);
const BOUND: f64 = 1.5;
const PEER: &str = "bubblewrap";
const BWRAP: [&str; 10] =
    ["--unshare-pid", "--unshare-ipc", "--dev-bind", "/", "/", "--proc", "/proc", "--tmpfs", "/tmp", "/bin/true"];

pub(super) fn run(options: &Options, sink: Sink<'_>) -> Result<()> {
    {
        let daemon = Daemon::start()?;
        let rounds = options.rounds.unwrap_or(ROUNDS);
        sink(beside_bubblewrap("native", rounds, REST, || {
            let mut spawn = daemon.spawn();
            spawn.args(["--", "/bin/true"]);
            spawn
        })?);
    }
    if options.machine {
        machine::run("spawn", options, options.rounds.unwrap_or(ROUNDS_IN_MACHINE), &[], sink)?;
    }
    Ok(())
}

/// In the machine, with the daemon that is installed there.
pub(super) fn here(options: &Options, sink: Sink<'_>) -> Result<()> {
    sink(beside_bubblewrap("vm", options.rounds.unwrap_or(ROUNDS_IN_MACHINE), REST_IN_MACHINE, || {
        let mut spawn = Command::new("agentctl");
        spawn.args(["spawn", "--quiet", "--cwd", "/srv", "--", "/bin/true"]);
        spawn
    })?);
    Ok(())
}

fn beside_bubblewrap(case: &str, rounds: usize, rest: Duration, spawn: impl Fn() -> Command) -> Result<Figure> {
    let (mut ours, mut theirs) = (Series::default(), Series::default());
    for round in 0..rounds + WARM_UP {
        signal::check()?;
        let our = milliseconds(&mut spawn())?;
        sleep(rest);
        let their = milliseconds(sh::command("bwrap").args(BWRAP))?;
        sleep(rest);
        if round >= WARM_UP {
            ours.push(our);
            theirs.push(their);
        }
    }
    Ok(Figure::new("spawn", case, "ms", &ours, Bound::Ratio(BOUND)).beside(PEER, &theirs))
}

fn milliseconds(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let watch = Stopwatch::start();
    let status = command.status().with_context(|| format!("cannot start `{}`", sh::render(command)))?;
    let took = watch.elapsed();
    if !status.success() {
        bail!("`{}` ended with {status}", sh::render(command));
    }
    Ok(took.as_secs_f64() * 1e3)
}
