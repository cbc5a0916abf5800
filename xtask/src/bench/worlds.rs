//! What do worlds cost? Natively, through `agentd/examples/worlds.rs` and `crates/wasm/examples/steps.rs`.
//!
//! `journal`: durable, acknowledged events a second, by one writer and by 64, beside bare SQLite with the same settings and
//! the same batches, and beside preallocated O_DSYNC appends. `reducer`: steps a second on one core, a fresh instance each,
//! beside wasmtime alone. `replay`: events a second, and what it takes to open a world, from ten thousand events to as many
//! as `--events` says.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::figure::{Bound, Series};
use super::{Figure, Options, Sink, program};
use crate::{paths, sh, signal, store};

const ROUNDS: usize = 7;
/// How long each of the three is let write in a round, in milliseconds.
const WRITE_MS: &str = "1000";
/// Sizes of worlds, up to what is asked for.
const SIZES: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

pub(super) fn journal(options: &Options, sink: Sink<'_>) -> Result<()> {
    let program = program("worlds")?;
    for writers in ["1", "64"] {
        let scratch = store::scratch("bench-journal")?;
        let rounds = options.rounds.unwrap_or(ROUNDS).to_string();
        let mut command = Command::new(&program);
        command.arg("writers").arg(scratch.path()).args([writers, WRITE_MS, &rounds]);
        let (mut ours, mut sqlite, mut direct) = (Series::default(), Series::default(), Series::default());
        for line in sh::output(&mut command)?.lines() {
            let row: Value = serde_json::from_str(line).context("a figure is no JSON")?;
            for (name, series) in [("world", &mut ours), ("sqlite", &mut sqlite), ("o_dsync", &mut direct)] {
                series.push(row[name].as_f64().with_context(|| format!("a figure has no {name}"))?);
            }
        }
        let case = format!("writers-{writers}");
        sink(Figure::new("journal", &case, "ev/s", &ours, Bound::RatioAtLeast(0.8)).beside("bare SQLite", &sqlite));
        sink(Figure::new("journal", &case, "ev/s", &ours, Bound::None).beside("O_DSYNC appends", &direct));
        signal::check()?;
    }
    Ok(())
}

pub(super) fn reducer(options: &Options, sink: Sink<'_>) -> Result<()> {
    let mut command = Command::new(program("steps")?);
    command.arg(options.rounds.unwrap_or(2 * ROUNDS).to_string());
    let (mut ours, mut bare) = (Series::default(), Series::default());
    for line in sh::output(&mut command)?.lines() {
        let row: Value = serde_json::from_str(line).context("a figure is no JSON")?;
        ours.push(row["ours"].as_f64().context("a figure has no steps of ours")?);
        bare.push(row["bare"].as_f64().context("a figure has no steps of wasmtime")?);
    }
    let figure = Figure::new("reducer", "pooled-512", "steps/s", &ours, Bound::RatioAtLeast(0.8));
    sink(figure.beside("bare wasmtime", &bare));
    Ok(())
}

pub(super) fn replay(options: &Options, sink: Sink<'_>) -> Result<()> {
    let program = program("worlds")?;
    let counter = paths::target().join("wasm/counter.wasm");
    for events in SIZES.into_iter().filter(|events| *events <= options.events) {
        let scratch = store::scratch("bench-replay")?;
        let run = |verb: &str, words: &[&str]| -> Result<Value> {
            let mut command = Command::new(&program);
            command.arg(verb).arg(scratch.path()).args(words);
            let text = sh::output(&mut command)?;
            serde_json::from_str(text.lines().last().unwrap_or_default()).context("a figure is no JSON")
        };
        let made = run("make", &[&events.to_string(), &counter.to_string_lossy()])?;
        let mut figure = |case: String, unit: &str, value: &Value, bound| -> Result<()> {
            let mut series = Series::default();
            series.push(value.as_f64().with_context(|| format!("a figure has no {case}"))?);
            sink(Figure::new("replay", &case, unit, &series, bound));
            Ok(())
        };
        figure(format!("make-{events}"), "ev/s", &made["per_second"], Bound::None)?;
        // The first opening after so much writing finds the disk busy; the file is in the page cache in both.
        run("open", &[])?;
        let opened = run("open", &[])?;
        figure(format!("open-{events}"), "ms", &opened["ms"], Bound::P50(2000.0))?;
        figure(format!("open-memory-{events}"), "MiB", &opened["mib"], Bound::P50(256.0))?;
        let replayed = run("replay", &[])?;
        figure(format!("replay-{events}"), "ev/s", &replayed["per_second"], Bound::None)?;
        signal::check()?;
    }
    Ok(())
}
