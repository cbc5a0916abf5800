//! The power fails in the middle of writes, again and again: what was acknowledged is on the disk.
//!
//! ```text
//! restore a machine ─▶ give it the disk ─▶ `vm-tests power` checks, then writes ─▶ QEMU is killed ─┐
//!        ▲                                                                                      │
//!        └───────────────── the disk, and what the writers were told ◀──────────────────────────┘
//! ```
//!
//! What the guest had not flushed is gone with its memory. What it had handed to its disk stays, flushed or not: this shows
//! lost pages, not lost sectors; `cargo xtask sim` tears and loses those.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::machine::{Ended, Job, Machine, Output};
use super::{Level, Platform};
use crate::store;

/// How long after the first acknowledged events the power fails, in milliseconds: a moment in which one is being written.
const AFTER_MS: [u64; 4] = [40, 700, 5, 1300];
/// A round in which nothing fails.
const LIMIT: Duration = Duration::from_secs(150);

/// Cuts the power a few times and gives what the last machine says of the disk. `prepare` puts the program in.
pub(crate) fn cuts(
    platform: &Platform,
    level: &Level,
    program: &str,
    prepare: impl Fn(&mut Machine) -> Result<()>,
) -> Result<Output> {
    let scratch = store::scratch("power")?;
    let (disk, told_file) = (scratch.path().join("data.img"), scratch.path().join("told"));
    let mut told: Vec<String> = Vec::new();
    let mut said = String::new();
    let rounds = AFTER_MS.iter().map(|after| Some(Duration::from_millis(*after))).chain([None]);
    for (number, after) in rounds.enumerate() {
        fs::write(&told_file, told.join("\n")).context("cannot write what was told")?;
        let mut machine = Machine::restore_with(platform, level, (number > 0).then_some(disk.as_path()))?;
        prepare(&mut machine)?;
        machine.copy_in(&told_file, "/run/told");
        let mut job = Job { argv: [program, "power", "/run/told"].map(String::from).into(), ..Job::default() };
        let Some(after) = after else {
            job.argv.push("--last".into());
            let output = machine.run_job(job, LIMIT)?;
            ensure!(told.len() > 20, "only {} events were acknowledged in all rounds", told.len());
            return Ok(Output { text: said + &output.text, ..output });
        };
        match machine.run_until_cut(job, LIMIT, |text| text.contains("told "), after, &disk)? {
            // It ends with the power, or with what did not hold.
            Ended::ByItself(output) => {
                return Ok(Output { text: said + &output.text, status: output.status.max(1) });
            }
            Ended::Cut(text) => {
                let before = told.len();
                // The last line may have been cut off as well.
                let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
                told.extend(whole.lines().filter_map(|line| line.strip_prefix("told ")).map(String::from));
                said += &format!("power cut {}: {} acknowledged\n", number + 1, told.len() - before);
            }
        }
    }
    unreachable!("the last round returns")
}

/// Hands a disk on: a rename within the store.
pub(super) fn hand_on(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}
