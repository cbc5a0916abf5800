//! `cargo xtask work`: real work inside `coding`, on this host or in a machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser};

use super::{Common, common, help, misuse, string, text};
use crate::vm::machine::Job as GuestJob;
use crate::vm::{self, Level, Machine, Platform, kernels};
use crate::work::{self, GUEST_HOME, Job};
use crate::{signal, ui};

const HELP: &str = "\
Do real work as an agent under the profile coding, and look whether anything hindered it.

Usage: cargo xtask work [NAME] [--vm] [--kernel 6.1|6.12|7.2]

  NAME         only jobs whose name contains it: git, make, python, npm, cargo, codex, claude
  --vm         in virtual machines, one a job, where the LSM programs load
  --kernel K   the same with this kernel; 6.12 is the default

Uses what was last built (`cargo xtask build`). Clients and pytest are fetched once from their registries. Ends with 1 if
a job was hindered, or met a refusal that nobody has explained.

Examples:
  cargo xtask work
  cargo xtask work --vm codex
";

/// Longest time of a job in a machine, with everything that is copied into it.
const LIMIT: Duration = Duration::from_secs(1500);
/// What a job needs for its own files, in MiB.
const ROOM_MIB: u64 = 64;
const GUEST_PROGRAM: &str = "/usr/lib/agentd-vm/xtask";

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let (mut kernel, mut machine, mut here, mut filter) = (kernels::DEFAULT.to_owned(), false, false, String::new());
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("kernel") => (kernel, machine) = (text(&mut words)?, true),
            Arg::Long("vm") => machine = true,
            // What is started inside the machine: only the work.
            Arg::Long("here") => here = true,
            Arg::Value(name) if filter.is_empty() => filter = string(name)?,
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    let jobs = work::chosen(&filter);
    if jobs.is_empty() {
        return Err(misuse(format!("no job is called {filter}; see `cargo xtask work --help`")));
    }
    signal::listen()?;
    let failed = if here {
        work::in_this_machine(&jobs)?
    } else if machine {
        in_machines(&kernel, &jobs)?
    } else {
        work::on_this_host(&jobs)?
    };
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One machine a job: toolchains and clients are larger than what is left of a gigabyte after another job.
fn in_machines(kernel: &str, jobs: &[&Job]) -> Result<usize> {
    let platform = Platform::ensure(kernel)?;
    let level = Level::product()?;
    vm::prepare(&platform, &level)?;
    let mut failed = 0;
    for job in jobs {
        signal::check()?;
        let status = in_machine(&platform, &level, job, ui::pass_out);
        let status = status.with_context(|| format!("cannot run {}", job.name))?;
        if status == 124 {
            ui::say(format!("FAIL {:<8} did not end within {} s", job.name, LIMIT.as_secs()));
        }
        failed += usize::from(status != 0);
    }
    Ok(failed)
}

/// Runs a job in a machine of its own; gives its status, 124 if it took too long.
pub(super) fn in_machine(platform: &Platform, level: &Level, job: &Job, sink: impl Fn(&[u8]) + Sync) -> Result<u8> {
    let items = work::items(job.tools)?;
    let mut machine = Machine::restore(platform, level)?;
    if !items.is_empty() {
        // The disk is half a gigabyte; a toolchain is more, and packs well.
        machine.run(&["mount", "-o", "remount,compress-force=zstd:1", "/srv/btrfs"], Duration::from_secs(60))?;
    }
    machine.copy_in(&std::env::current_exe().context("cannot find this program")?, GUEST_PROGRAM);
    for item in &items {
        let from: PathBuf = item.from.canonicalize().context("cannot find a tool")?;
        machine.copy_in(&from, &format!("{GUEST_HOME}/{}", item.place));
    }
    // A full disk is not told of otherwise, and half a compiler is no compiler.
    let room = machine.run(&["df", "--output=avail", "-m", "/srv/btrfs"], LIMIT)?.text;
    let left: u64 = room.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("df printed no number")?;
    if left < ROOM_MIB {
        bail!("the tools of {} do not fit the machine's disk: {left} MiB are left", job.name);
    }
    let argv = [GUEST_PROGRAM, "work", "--here", job.name].map(str::to_owned).to_vec();
    machine.stream(GuestJob { argv, ..GuestJob::default() }, Some(LIMIT), |_, bytes| sink(bytes))
}
