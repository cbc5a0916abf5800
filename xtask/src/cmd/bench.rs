//! `cargo xtask bench`: the figures that the project promises, each beside its peer.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lexopt::{Arg, Parser};

use super::{Common, build, common, help, misuse, setup, string, text, usage};
use crate::bench::{self, Figure, Options};
use crate::vm::kernels;
use crate::{sh, signal, ui};

const HELP: &str = "\
Measure what the project promises, beside its peers.

Usage: cargo xtask bench decide|syscalls|spawn|revoke|budget|journal|reducer|replay|all [OPTIONS]

  decide     one decision of the kernel programs, natively through test-run
  syscalls   system calls outside and inside an agent, in a machine, against no programs and against Landlock
  spawn      `agentctl spawn -- /bin/true` natively and in a machine, against bubblewrap with the same namespaces
  revoke     from the request to take a right back to the refusal, in a machine, of opens and of reads of what is open
  budget     how far past a budget of 300 ms an agent gets, natively, against `timeout 0.3`

  journal    durable, acknowledged events a second by 1 and 64 writers, against bare SQLite and O_DSYNC appends
  reducer    steps of a reducer a second, each in a fresh instance, against wasmtime alone
  replay     opening and replaying worlds of 10,000 events and more

  --json        one object a line instead of a table
  --rounds N    how often everything is measured, interleaved
  --kernel K    the machine's kernel: 6.1, 6.12 (default) or 7.2
  --events N    events of the largest world that `replay` opens [default: 1000000; 10000000 takes 6 GB of disk]
  --no-vm       leave out what needs a machine
  --no-build    measure what was last built

A bound that is missed is marked and is no error; the status is 1 if something could not be measured. Figures of an
emulated machine mean something only as ratios. Native figures need a quiet host: the load is printed with them.

Examples:
  cargo xtask bench all
  cargo xtask bench spawn --no-vm --rounds 500 --json
";

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let (mut names, mut json, mut build) = (Vec::new(), false, true);
    let mut options = Options { rounds: None, kernel: kernels::DEFAULT.into(), machine: true, events: 1_000_000 };
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("json") => json = true,
            Arg::Long("rounds") => {
                let rounds = text(&mut words)?;
                options.rounds = Some(rounds.parse().context("--rounds takes a number")?);
            }
            Arg::Long("events") => {
                options.events = text(&mut words)?.parse().context("--events takes a number")?;
            }
            Arg::Long("kernel") => options.kernel = text(&mut words)?,
            Arg::Long("no-vm") => options.machine = false,
            Arg::Long("no-build") => build = false,
            // What the benches start inside a machine: only the measuring.
            Arg::Long("here") => return bench::here(&text(&mut words)?, &options),
            Arg::Value(name) => names.push(string(name)?),
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    if names.is_empty() {
        return usage(HELP);
    }
    if names.iter().any(|name| name == "all") {
        names = bench::NAMES.map(str::to_owned).into();
    }
    if let Some(wrong) = names.iter().find(|name| !bench::NAMES.contains(&name.as_str())) {
        return Err(misuse(format!("no bench is called {wrong}; see `cargo xtask bench --help`")));
    }
    if options.rounds == Some(0) {
        return Err(misuse("--rounds needs at least 1".into()));
    }
    if !kernels::labels().contains(&options.kernel.as_str()) {
        let known = kernels::labels().join(" and ");
        return Err(misuse(format!("no kernel is called {}; there are {known}", options.kernel)));
    }
    signal::listen()?;
    if build {
        let ready = setup::perform(setup::Plan { machines: options.machine, dry_run: false })?;
        if ready != ExitCode::SUCCESS {
            return Ok(ready);
        }
        build::everything()?;
        ui::step("build what measures", build_programs)?;
    }
    measure(&names, &options, json)
}

/// The programs that only benches need.
fn build_programs() -> Result<()> {
    let mut build = build::cargo();
    build.args(["build", "--quiet", "--release", "-p", "agentd-ebpf", "-p", "agentd", "-p", "agentd-wasm"]);
    sh::run(
        build
            .args(["decide", "confine", "measure", "worlds", "steps"].into_iter().flat_map(|name| ["--example", name])),
    )
}

fn measure(names: &[String], options: &Options, json: bool) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    if !json {
        ui::say(Figure::HEADING);
    }
    for name in names {
        ui::note(format!("bench {name}; {}", bench::conditions()));
        let print = |figure: &Figure| ui::say(if json { figure.json() } else { figure.row() });
        // One that cannot be measured does not keep the others from it.
        if let Err(error) = bench::run(name, options, &mut |figure| print(&figure)) {
            ui::error(&error.context(format!("cannot measure {name}")));
            code = ExitCode::FAILURE;
        }
        signal::check()?;
    }
    Ok(code)
}
