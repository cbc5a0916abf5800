//! The benches: what is measured, and what a figure is.
//!
//! Every figure stands beside a peer that was measured in the same run, turn by turn, so that a host that is busy for a
//! minute is busy for both. Medians are compared; a bound says which number it binds. What runs in a machine is this very
//! program, copied in, which prints its figures as lines of JSON and is read here again.

mod figure;

mod daemon;
mod machine;

mod budget;
mod decide;
mod revoke;
mod spawn;
mod syscalls;
mod worlds;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

pub(crate) use self::figure::Figure;
use crate::{paths, ui};

/// In the order in which `all` runs them: quick ones first.
pub(crate) const NAMES: [&str; 8] = ["decide", "reducer", "spawn", "revoke", "budget", "journal", "replay", "syscalls"];

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// `None`: what the bench finds enough.
    pub(crate) rounds: Option<usize>,
    /// The machine's kernel.
    pub(crate) kernel: String,
    /// Whether to measure in a machine too.
    pub(crate) machine: bool,
    /// Events of the largest world that is opened.
    pub(crate) events: u64,
}

/// Where finished figures go.
type Sink<'a> = &'a mut dyn FnMut(Figure);

/// Runs one bench.
pub(crate) fn run(name: &str, options: &Options, sink: Sink<'_>) -> Result<()> {
    match name {
        "decide" => decide::run(options, sink),
        "spawn" => spawn::run(options, sink),
        "revoke" => revoke::run(options, sink),
        "budget" => budget::run(options, sink),
        "syscalls" => syscalls::run(options, sink),
        "journal" => worlds::journal(options, sink),
        "reducer" => worlds::reducer(options, sink),
        "replay" => worlds::replay(options, sink),
        other => bail!("no bench is called {other}"),
    }
}

/// The part of a bench that runs inside a machine.
pub(crate) fn here(name: &str, options: &Options) -> Result<ExitCode> {
    let mut print = |figure: Figure| ui::say(figure.json());
    match name {
        "spawn" => spawn::here(options, &mut print)?,
        "revoke" => revoke::here(options, &mut print)?,
        "syscalls" => syscalls::here(options, &mut print)?,
        other => bail!("{other} has no part that runs in a machine"),
    }
    Ok(ExitCode::SUCCESS)
}

/// A program that was built for measuring only.
fn program(name: &str) -> Result<PathBuf> {
    let path = paths::target().join("release/examples").join(name);
    if !path.is_file() {
        bail!("{} is not built", path.display());
    }
    Ok(path)
}

/// Kernel and load of this host, which belong to every native figure.
pub(crate) fn conditions() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!("kernel {}, {cpus} processors, load {}", read("/proc/sys/kernel/osrelease").trim(), load.join(" "))
}
