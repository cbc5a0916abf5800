//! What does one decision cost? Natively, through test-run of the programs' own code (`ebpf/examples/decide.rs`).
//!
//! Each turn is a process of its own, which loads the programs afresh, so that where memory happens to lie differs from
//! turn to turn. What a hook costs beside its decision, the jump into it, is not in the figure.

use anyhow::{Context, Result};
use serde_json::Value;

use super::figure::{Bound, Series};
use super::{Figure, Options, Sink, program};
use crate::{sh, signal};

const ROUNDS: usize = 7;
const CASES: [(&str, f64); 4] = [("cached", 50.0), ("walk-14", 320.0), ("cached-10k", 50.0), ("walk-14-10k", 320.0)];

pub(super) fn run(options: &Options, sink: Sink<'_>) -> Result<()> {
    let program = program("decide")?;
    let mut series = CASES.map(|_| Series::default());
    for _ in 0..options.rounds.unwrap_or(ROUNDS) {
        signal::check()?;
        for line in sh::output(&mut std::process::Command::new(&program))?.lines() {
            let row: Value = serde_json::from_str(line).context("the decision's figure is no JSON")?;
            let found = CASES.iter().position(|(case, _)| row["case"].as_str() == Some(case));
            let (Some(found), Some(runs)) = (found, row["runs"].as_array()) else { continue };
            series[found].extend(runs.iter().filter_map(Value::as_f64));
        }
    }
    for ((case, most), series) in CASES.iter().zip(&series) {
        sink(Figure::new("decide", case, "ns", series, Bound::P50(*most)));
    }
    Ok(())
}
