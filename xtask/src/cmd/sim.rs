//! `cargo xtask sim`: the loop of worlds in a simulation of everything around it, seed by seed.
//!
//! The program is `crates/sim`, built for release: what is looked for is rare, so it is looked for often.

use std::process::ExitCode;

use anyhow::Result;
use lexopt::{Arg, Parser};

use super::build::cargo;
use super::{Common, common, help, misuse, text};
use crate::{paths, sh, ui};

const HELP: &str = "\
Tell stories of worlds that everything happens to, and check what must hold.

Usage: cargo xtask sim [--seeds N] [--steps N]
       cargo xtask sim --seed S [--steps N]

  --seeds N  the first N seeds (10000)
  --seed S   this one, line by line; decimal or 0x…
  --steps N  steps of a story

The claims are the files in crates/sim/src/claims. The status is 1 if one does not hold, and the last line shows how to
tell the story again.

Examples:
  cargo xtask sim
  cargo xtask sim --seed 0x5f1c
";

/// Seeds that every change must pass.
const SEEDS: u64 = 10_000;

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let (mut seeds, mut seed, mut steps) = (SEEDS.to_string(), None, None);
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("seeds") => {
                seeds = text(&mut words)?;
                if seeds.parse::<u64>().is_err() {
                    return Err(misuse("--seeds takes a number".into()));
                }
            }
            Arg::Long("seed") => seed = Some(text(&mut words)?),
            Arg::Long("steps") => steps = Some(text(&mut words)?),
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    ui::step("build the simulation", build)?;
    let mut sim = program();
    match &seed {
        Some(seed) => sim.args(["-v", "--seed", seed]),
        None => sim.args(["--seeds", &format!("0..{seeds}")]),
    };
    sim.args(steps.iter().flat_map(|steps| ["--steps", steps.as_str()]));
    let status = sim.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The seeds that every change must pass.
pub(super) fn seeds() -> Result<()> {
    ui::step("build the simulation", build)?;
    ui::step("simulate worlds", || sh::run(program().args(["--seeds", &format!("0..{SEEDS}")])))
}

fn build() -> Result<()> {
    sh::run(cargo().args(["build", "--quiet", "--release", "-p", "agentd-sim"]))
}

fn program() -> std::process::Command {
    std::process::Command::new(paths::target().join("release/agentd-sim"))
}
