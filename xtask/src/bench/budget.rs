//! How far past its CPU budget does an agent get? The cgroup's own account is the referee.
//!
//! An agent with a budget of 300 ms spins until it is frozen; what `cpu.stat` then says above 300 ms is the overshoot. The
//! peer is what people use today, `timeout 0.3`, around the same program in a cgroup of its own: a limit on time that
//! passes, not on time that is used, so it is late by design as soon as there are two threads.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::daemon::{self, Daemon};
use super::figure::{Bound, Series};
use super::{Figure, Options, Sink, program};
use crate::clock::Deadline;
use crate::{sh, signal, ui};

const ROUNDS: usize = 50;
const LIMIT_US: f64 = 300_000.0;
const PEER: &str = "timeout 0.3";
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a cgroup is looked at; a look costs the agent's processors next to nothing.
const LOOK: Duration = Duration::from_millis(5);
/// A frozen agent is looked at again after this long.
const REST: Duration = Duration::from_millis(100);

/// Name, how `measure spin` is told, and the bound on p99 in milliseconds.
const CASES: [(&str, &[&str], f64); 4] = [
    ("1-thread", &["threads", "1"], 10.0),
    ("8-threads", &["threads", "8"], 10.0),
    ("4-processes", &["processes", "4"], 10.0),
    ("fork-loop", &["forks"], 25.0),
];

pub(super) fn run(options: &Options, sink: Sink<'_>) -> Result<()> {
    let daemon = Daemon::start()?;
    let spinner = daemon.place(&program("measure")?)?;
    let mut series = CASES.map(|_| (Series::default(), Series::default()));
    let mut apart: f64 = 0.0;
    for round in 0..options.rounds.unwrap_or(ROUNDS) {
        for ((case, words, _), (ours, theirs)) in CASES.iter().zip(&mut series) {
            signal::check()?;
            let name = format!("{case}-{round}");
            let (used, counted) = spend(&daemon, &name, &spinner, words).with_context(|| format!("in {name}"))?;
            apart = apart.max((used - counted).abs());
            ours.push((used - LIMIT_US) / 1e3);
            theirs.push((spend_under_timeout(&spinner, words)? - LIMIT_US) / 1e3);
        }
    }
    for ((case, _, most), (ours, theirs)) in CASES.iter().zip(&series) {
        sink(Figure::new("budget", case, "ms", ours, Bound::P99(*most)).beside(PEER, theirs));
    }
    ui::note(format!("`budget show` and cpu.stat differed by at most {:.3} ms", apart / 1e3));
    Ok(())
}

/// Microseconds that an agent has used when it stands still: by its cgroup, and by `budget show`.
fn spend(daemon: &Daemon, name: &str, spinner: &Path, words: &[&str]) -> Result<(f64, f64)> {
    let mut spawn = daemon.spawn();
    spawn.args(["--detach", "--name", name, "--budget", "cpu:300ms", "--"]).arg(spinner).arg("spin").args(words);
    sh::quiet(&mut spawn)?;
    let show = || -> Result<Value> {
        let text = sh::output(daemon.agentctl().args(["inspect", name, "--json"]))?;
        serde_json::from_str(text.lines().next().unwrap_or_default()).context("the agent cannot be read")
    };
    let cgroup = daemon::cgroup()?.join(format!("agent-{}", show()?["agent"]));
    let deadline = Deadline::after(PATIENCE);
    while !fs::read_to_string(cgroup.join("cgroup.events")).is_ok_and(|events| events.contains("frozen 1")) {
        if deadline.passed() || !cgroup.exists() {
            bail!("the agent was not frozen; it is {}", show()?["phase"]);
        }
        sleep(LOOK);
    }
    let usage = || {
        usage_us(&cgroup).with_context(|| match show() {
            Ok(view) => format!("it was frozen and is {} with status {} now", view["phase"], view["status"]),
            Err(error) => error.to_string(),
        })
    };
    let used = usage()?;
    sleep(REST);
    let later = usage()?;
    if later != used {
        bail!("it used {} us while it was frozen", later - used);
    }
    let budget = sh::output(daemon.agentctl().args(["budget", "show", name, "--json"]))?;
    let budget: Value = serde_json::from_str(budget.lines().next().unwrap_or_default()).context("no budget")?;
    if budget["exhausted"].as_bool() != Some(true) {
        bail!("it is frozen and its budget is not spent: {budget}");
    }
    let counted = budget["cpu_spent_ns"].as_f64().context("the budget says no time")? / 1e3;
    sh::quiet(daemon.agentctl().args(["kill", "--quiet", name]))?;
    wait_until_gone(&cgroup)?;
    Ok((used, counted))
}

/// The same under timeout(1), in a cgroup that only counts.
fn spend_under_timeout(spinner: &Path, words: &[&str]) -> Result<f64> {
    let cgroup = daemon::cgroups()?.join("agentd-bench-peer");
    if !cgroup.exists() {
        fs::create_dir(&cgroup).context("cannot make a cgroup")?;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo $$ > \"$0\"; exec timeout 0.3 \"$@\""]).arg(cgroup.join("cgroup.procs"));
    let status = shell.arg(spinner).arg("spin").args(words).stdin(Stdio::null()).status();
    status.context("cannot start timeout")?;
    // What outlives timeout itself has been used too.
    sleep(Duration::from_millis(20));
    fs::write(cgroup.join("cgroup.kill"), "1").context("cannot clear the peer's cgroup")?;
    let used = usage_us(&cgroup)?;
    wait_until_empty(&cgroup)?;
    fs::remove_dir(&cgroup).context("cannot remove the peer's cgroup")?;
    Ok(used)
}

fn usage_us(cgroup: &Path) -> Result<f64> {
    let text = fs::read_to_string(cgroup.join("cpu.stat")).context("cannot read cpu.stat")?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    usage.and_then(|usage| usage.parse().ok()).context("cpu.stat says no usage")
}

fn wait_until_empty(cgroup: &Path) -> Result<()> {
    let populated = || fs::read_to_string(cgroup.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"));
    wait(cgroup, populated)
}

fn wait_until_gone(cgroup: &Path) -> Result<()> {
    wait(cgroup, || cgroup.exists())
}

fn wait(cgroup: &Path, still: impl Fn() -> bool) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    while still() {
        if deadline.passed() {
            bail!("{} does not become empty", cgroup.display());
        }
        sleep(LOOK);
    }
    Ok(())
}
