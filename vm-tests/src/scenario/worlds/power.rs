//! The guest's half of the power cut: what an earlier machine was told is on the disk that it left, and more is written until
//! the power fails again. The other half, which takes the power away and hands the disk on, is `xtask/src/vm/power.rs`.
//!
//! ```text
//! power FILE          checks what FILE says, prints `ready`, then `told RECORD NUMBER` for every event that is acknowledged
//! power FILE --last   only checks
//! ```

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::World;
use super::kills::{all_there, consistent, happened};
use crate::clock::now;
use crate::harness::{Test, Wire, json as ask, start_daemon, stop_daemon};
use crate::ui;

/// The disk that outlives the machine.
const DISK: &str = "/dev/vdd";
const MOUNTED: &str = "/mnt/power";
const STATE: &str = "/var/lib/agentd";
const WORLD: World = World("cut");
/// Writers at a time, so that commits are of several events.
const WRITERS: i64 = 3;
/// Nobody waits longer for the power to fail.
const PATIENCE: Duration = Duration::from_secs(60);

/// One round.
pub(crate) fn round(test: &mut Test, told: &str, last: bool) -> Result<()> {
    let told = fs::read_to_string(told).with_context(|| format!("cannot read {told}"))?;
    let told: Vec<(u64, i64)> =
        told.lines().map(pair).collect::<Option<_>>().context("what was told is not readable")?;
    stop_daemon(Signal::SIGTERM)?;
    let new = told.is_empty();
    mount(new)?;
    drop(start_daemon()?);
    if new {
        World::with(WORLD.0, "counter")?;
    }
    let worlds = ask(&["world", "list"])?;
    ensure!(worlds.iter().any(|world| world["world"] == WORLD.0), "the world is not there: {worlds:?}");
    let sent = happened(WORLD)?;
    all_there(test, &told, &sent);
    if !sent.is_empty() {
        consistent(test, WORLD, &sent, "after a power cut")?;
    }
    ensure!(test.holds(), "no power is cut any more");
    ui::line(&format!("checked {} of {}", told.len(), sent.len()));
    if last {
        return Ok(());
    }
    let begin = 1 + sent.values().max().copied().unwrap_or(0);
    ui::line("ready");
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|n| scope.spawn(move || write(begin + n))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked")))
    })?;
    bail!("the power did not fail within {PATIENCE:?}")
}

fn pair(line: &str) -> Option<(u64, i64)> {
    let (record, number) = line.split_once(' ')?;
    Some((record.parse().ok()?, number.parse().ok()?))
}

/// Puts the disk where the daemon keeps its state.
fn mount(new: bool) -> Result<()> {
    // The kernel may have looked at the disk when it was another one.
    command(&["blockdev", "--flushbufs", DISK])?;
    if new {
        command(&["mkfs.btrfs", "-q", "-f", DISK])?;
    }
    fs::create_dir_all(MOUNTED)?;
    command(&["mount", DISK, MOUNTED])?;
    let state = format!("{MOUNTED}/state");
    fs::create_dir_all(&state)?;
    command(&["mount", "--bind", &state, STATE])
}

fn command(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).output().with_context(|| format!("cannot run {words:?}"))?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Sends one number after the other, and says which were acknowledged.
fn write(mut number: i64) -> Result<()> {
    let (mut wire, begin) = (Wire::connect()?, now());
    while now() - begin < PATIENCE {
        let value = json!({ "world": WORLD.0, "event": "demo/count@1", "value": { "by": number } });
        let record = wire.ask("world.send", value)?["record"].as_u64().context("no record")?;
        ui::line(&format!("told {record} {number}"));
        number += WRITERS;
    }
    Ok(())
}
