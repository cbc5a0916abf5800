//! `cargo xtask ci`: what a change must pass.
//!
//! Every step runs, also after one has failed, so that one run shows everything. The summary names what was covered, how
//! long it took, and what was left out with the reason.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use lexopt::Parser;

use super::test::{self, Selection, Tally};
use super::{Common, common, help, tidy};
use crate::clock::Stopwatch;
use crate::vm::{self, kernels};
use crate::{signal, ui};

const HELP: &str = "\
Run everything a change must pass: setup, build, tidy, the host's tests, every scenario on every kernel.

Usage: cargo xtask ci [--fresh]

Ends with a summary and the count of scenarios; the status is 1 if anything failed.
";

/// A row of the summary.
struct Row {
    name: &'static str,
    error: Option<anyhow::Error>,
    took: Duration,
}

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    while let Some(arg) = words.next()? {
        match common(&arg, HELP) {
            Some(Common::Help(text)) => return help(text),
            Some(Common::Taken) => {}
            None => return Err(arg.unexpected().into()),
        }
    }
    signal::listen()?;
    let selection = Selection::default();
    let mut rows = Vec::new();
    let mut tally = Tally::default();
    row(&mut rows, "setup and build", || test::prepare(&selection))?;
    row(&mut rows, "tidy", || if tidy::check()? { Ok(()) } else { bail!("tidy has findings") })?;
    row(&mut rows, "tests on this host", || test::native(""))?;
    row(&mut rows, "scenarios in machines", || {
        tally = test::machines(&selection)?;
        if tally.failed > 0 { bail!("{} scenarios failed", tally.failed) } else { Ok(()) }
    })?;
    summary(&rows, &tally)
}

fn row(rows: &mut Vec<Row>, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let watch = Stopwatch::start();
    let error = work().err();
    if let Some(error) = &error {
        ui::error(error);
    }
    rows.push(Row { name, error, took: watch.elapsed() });
    signal::check()
}

fn summary(rows: &[Row], tally: &Tally) -> Result<ExitCode> {
    ui::say("\nsummary");
    for row in rows {
        let word = if row.error.is_none() { "ok  " } else { "FAIL" };
        ui::say(format!("  {word} {:<24} {:>7.1} s", row.name, row.took.as_secs_f64()));
        if let Some(error) = &row.error {
            ui::say(format!("       {}", error.to_string().lines().next().unwrap_or_default()));
        }
    }
    ui::say(format!("  kernels: {}", kernels::labels().join(", ")));
    for line in vm::summary().unwrap_or_default() {
        ui::say(format!("  {line}"));
    }
    ui::say(format!("  longest Rust file: {}", tidy::longest()?));
    for reason in &tally.skipped {
        ui::say(format!("  skipped: {reason}"));
    }
    ui::say(format!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len()));
    let well = rows.iter().all(|row| row.error.is_none());
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
