//! How long is a right still there that was taken back?
//!
//! In a machine: an agent that uses one file without pause, by opening it or by reading what it has open, and somebody who
//! lends it the right and takes it back. The clock is the machine's; it starts when the request is sent. The peer is the
//! answer to the request: whoever has it can rely on the refusal.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::figure::{Bound, Series};
use super::{Figure, Options, Sink, machine, program};
use crate::sh;

const ROUNDS: usize = 200;
/// Milliseconds, from the request to the refusal.
const BOUND: f64 = 10.0;
const MEASURE: &str = "/usr/local/bin/measure";
const FILE: &str = "/srv/btrfs/revoked";

pub(super) fn run(options: &Options, sink: Sink<'_>) -> Result<()> {
    if !options.machine {
        bail!("revocation is measured in a machine, and --no-vm forbids one");
    }
    let measure = program("measure")?;
    machine::run("revoke", options, options.rounds.unwrap_or(ROUNDS), &[(measure.as_path(), MEASURE)], sink)
}

/// In the machine.
pub(super) fn here(options: &Options, sink: Sink<'_>) -> Result<()> {
    fs::write(FILE, "content").with_context(|| format!("cannot write {FILE}"))?;
    let rounds = options.rounds.unwrap_or(ROUNDS).to_string();
    let said = sh::output(Command::new(MEASURE).args(["revoke", &rounds, FILE]))?;
    let mut all = Vec::new();
    for line in said.lines() {
        let (name, times) = line.split_once(' ').context("a line without times")?;
        let mut series = Series::default();
        for time in times.split(' ') {
            series.push(time.parse::<f64>().with_context(|| format!("{time:?} is no time"))? / 1e6);
        }
        all.push((name.to_owned(), series));
    }
    for how in ["open", "read"] {
        let find = |what: &str| {
            let wanted = format!("{how}-{what}");
            let found = all.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, series)| series).with_context(|| format!("{wanted} was not measured"))
        };
        let case = if how == "open" { "path" } else { "open-fd" };
        sink(
            Figure::new("revoke", case, "ms", find("refused")?, Bound::P99(BOUND))
                .beside("the answer", find("answered")?),
        );
    }
    Ok(())
}
