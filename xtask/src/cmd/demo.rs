//! `cargo xtask demo`: the main job, on real input, in about forty lines.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser};

use super::{Common, build, common, help, setup};
use crate::demo::{self, Story};
use crate::vm::{self, Level, Machine, Platform};
use crate::{paths, sh, signal, ui};

const HELP: &str = "\
Show what this project does: an agent at work, confined, refused, explained, frozen and set free.

Usage: cargo xtask demo [world] [--kernel 6.1|6.12|7.2] [--vm]

`world` goes on from there: a rule of one's own, in WASM, is proposed, rehearsed on what has just happened, approved and
applied; an agent that breaks it is frozen; the world is exported, replayed, and one byte of it is turned over.

Sets up and builds what is missing. Runs on this host if its kernel takes BPF LSM programs, else (or with --vm) in a
virtual machine that it starts by itself. Ends with 1 if anything is not as told.

Examples:
  cargo xtask demo
  cargo xtask demo world
  cargo xtask demo --kernel 7.2
";

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let (mut kernel, mut machine, mut here) = (vm::kernels::DEFAULT.to_owned(), false, false);
    let mut story = Story::Agent;
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("kernel") => (kernel, machine) = (super::text(&mut words)?, true),
            Arg::Long("vm") => machine = true,
            // What the demo starts inside the machine: only the story.
            Arg::Long("here") => here = true,
            Arg::Value(word) if word == "world" => story = Story::World,
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    if here {
        return demo::tell(story);
    }
    signal::listen()?;
    let ready = setup::perform(setup::Plan { machines: true, dry_run: false })?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    build::everything()?;
    if !machine && host_takes_lsm()? {
        ui::say("This kernel takes BPF LSM programs: the demo runs on this host.");
        return demo::on_this_host(story);
    }
    in_machine(&kernel, story)
}

/// Whether the kernel under us enforces, by trying; the answer is the daemon's own.
fn host_takes_lsm() -> Result<bool> {
    let rows = sh::output(Command::new(paths::shipped("agentd")).arg("--probe"));
    let rows = rows.context("cannot ask agentd what this host can enforce")?;
    let files = rows.lines().find(|row| row.contains("\"domain\":\"files\"")).unwrap_or_default();
    if files.contains("\"tier\":\"lsm\"") {
        return Ok(true);
    }
    let reason = serde_json::from_str::<serde_json::Value>(files).ok();
    let reason = reason.as_ref().and_then(|row| row["reason"].as_str()).unwrap_or("no reason given");
    ui::say(format!("This kernel takes no BPF LSM programs ({reason}): the demo runs in a virtual machine."));
    Ok(false)
}

fn in_machine(kernel: &str, story: Story) -> Result<ExitCode> {
    let platform = Platform::ensure(kernel)?;
    let level = Level::product()?;
    vm::prepare(&platform, &level)?;
    let mut machine = Machine::restore(&platform, &level)?;
    ui::say(format!("Machine: Debian's {} under QEMU, agentd installed and running.", platform.kernel.release));
    let program = std::env::current_exe().context("cannot find this program")?;
    machine.copy_in(&program, "/usr/local/bin/demo");
    let mut argv = ["/usr/local/bin/demo", "demo", "--here"].map(str::to_owned).to_vec();
    if story == Story::World {
        argv.push("world".to_owned());
        for name in ["three-denials.wasm", "three-denials.json"] {
            machine.copy_in(&paths::target().join("wasm").join(name), &format!("{}/{name}", demo::GUEST_WASM));
        }
    }
    let job = vm::machine::Job { argv, ..Default::default() };
    let limit = std::time::Duration::from_secs(300);
    let status = machine.stream(job, Some(limit), |_, bytes| ui::pass_out(bytes))?;
    signal::check()?;
    if status == 124 {
        bail!("the demo did not end within {} s", limit.as_secs());
    }
    Ok(ExitCode::from(status))
}
