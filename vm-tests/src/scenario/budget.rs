//! How much: warned, marked, frozen, topped up, and killed where nobody freezes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::clock::{now, wait_for};
use crate::harness::{Agent, Detached, Options, Test, agentctl, json, own_program, signal_daemon};

/// What an agent may use beyond its limit before the kernel kills it (a quarter of a second at least).
const GRACE_US: u64 = 250_000;
/// The budget of most agents here, and in microseconds. On a busy host the emulated processor counts what it waits for, and an
/// agent's start must fit in.
const BUDGET: &str = "cpu:1s";
const BUDGET_US: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(test: &mut Test) -> Result<()> {
    for (name, words) in [
        ("one-thread", ["threads", "1"].as_slice()),
        ("eight-threads", &["threads", "8"]),
        ("four-processes", &["processes", "4"]),
        ("fork-loop", &["forks"]),
        ("programs", &["programs"]),
    ] {
        spent(test, name, words).with_context(|| name.to_owned())?;
    }
    thaws(test)?;
    refused_when_spent(test)?;
    killed(test)?;
    below(test)?;
    others(test)
}

fn burner(name: &str, budget: &str, words: &[&str]) -> Result<Detached> {
    let program = own_program()?;
    let argv: Vec<&str> = [program.as_str(), "burn"].into_iter().chain(words.iter().copied()).collect();
    Detached::start(name, &Options::base().word("--budget", budget), &argv)
}

fn usage_us(cgroup: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("{cgroup}/cpu.stat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec")?;
    Ok(line.parse()?)
}

/// Waits until everything in the cgroup stands still.
fn frozen(cgroup: &str) -> Result<()> {
    wait_for("the cgroup to be frozen", PATIENCE, || {
        let events = fs::read_to_string(format!("{cgroup}/cgroup.events"))?;
        Ok(events.contains("frozen 1").then_some(()))
    })
}

/// At the limit it stands still, and what is shown is what the kernel's own count says.
fn spent(test: &mut Test, name: &str, words: &[&str]) -> Result<()> {
    let agent = burner(name, BUDGET, words)?;
    let view = agent.wait_phase("exhausted")?;
    let cgroup = agent.cgroup()?;
    frozen(&cgroup)?;
    let usage = usage_us(&cgroup)?;
    test.check((BUDGET_US..BUDGET_US + GRACE_US).contains(&usage), || {
        format!("{name}: frozen at {usage} us of {BUDGET_US}")
    });
    // Half a second in which it could have run.
    let end = now() + Duration::from_millis(500);
    wait_for("time to pass", PATIENCE, || Ok((now() >= end).then_some(())))?;
    test.same(&format!("{name}: use while frozen"), usage_us(&cgroup)?, usage);
    let shown = json(&["budget", "show", name])?.into_iter().next().context("nothing is shown")?;
    let shown_us = shown["cpu_spent_ns"].as_u64().unwrap_or(0) / 1000;
    test.check(shown_us.abs_diff(usage) <= 1000, || {
        format!("{name}: budget show says {shown_us} us, cpu.stat {usage} us")
    });
    test.same(&format!("{name}: exhausted"), shown["exhausted"].as_bool(), Some(true));
    test.same(&format!("{name}: limit"), view["cpu_limit_ns"].as_u64(), Some(BUDGET_US * 1000));
    let events = agent.events()?;
    for event in ["budget_warned", "budget_exhausted"] {
        test.same(&format!("{name}: events {event}"), events.iter().filter(|found| *found == event).count(), 1);
    }
    test.check(!events.iter().any(|event| event == "budget_killed"), || format!("{name}: it was killed"));
    crate::ui::line(&format!("{name}: frozen {} us after the limit", usage.saturating_sub(BUDGET_US)));
    Ok(())
}

/// More time lets it go on where it was.
fn thaws(test: &mut Test) -> Result<()> {
    let agent = burner("thaws", BUDGET, &["threads", "1"])?;
    agent.wait_phase("exhausted")?;
    let cgroup = agent.cgroup()?;
    frozen(&cgroup)?;
    let pid = fs::read_to_string(format!("{cgroup}/cgroup.procs"))?;
    let resumed = agentctl(&["resume", "thaws"])?;
    test.check(resumed.status == 1, || format!("resume of an agent whose budget is spent: {}", resumed.status));
    agentctl(&["budget", "topup", "thaws", BUDGET])?.ok("topup")?;
    wait_for("the second exhaustion", PATIENCE, || {
        let count = agent.events()?.iter().filter(|event| *event == "budget_exhausted").count();
        Ok((count == 2).then_some(()))
    })?;
    frozen(&cgroup)?;
    let usage = usage_us(&cgroup)?;
    test.check((2 * BUDGET_US..2 * BUDGET_US + GRACE_US).contains(&usage), || {
        format!("after the top-up frozen at {usage} us of {}", 2 * BUDGET_US)
    });
    test.same("the processes are the same", fs::read_to_string(format!("{cgroup}/cgroup.procs"))?, pid);
    agentctl(&["budget", "topup", "thaws", "cpu:1h"])?.ok("topup")?;
    agent.wait_phase("running")?;
    wait_for("it to run on", PATIENCE, || Ok((usage_us(&cgroup)? > usage + 50_000).then_some(())))?;
    test.same("events of the top-ups", agent.events()?.iter().filter(|event| *event == "budget_topped_up").count(), 2);
    // Paused by a person it stays so, whatever its budget.
    agentctl(&["pause", "thaws"])?.ok("pause")?;
    agentctl(&["budget", "topup", "thaws", "cpu:1h"])?.ok("topup")?;
    frozen(&cgroup)?;
    test.same(
        "phase after a top-up of a paused agent",
        agent.view()?["phase"].as_str().map(String::from),
        Some("paused".into()),
    );
    Ok(())
}

/// Between the limit and the freezing nothing new begins. Nobody freezes here for a while: the daemon is stopped.
fn refused_when_spent(test: &mut Test) -> Result<()> {
    let mut agent = Agent::start("spent", &Options::base().word("--budget", "cpu:900ms"))?;
    // As the kernel programs count it; from here on it only waits for what it is told.
    let used = agent.view()?["cpu_spent_ns"].as_u64().context("nothing is counted")? / 1_000_000;
    signal_daemon(Signal::SIGSTOP)?;
    let tried = (|| -> Result<()> {
        let before = agent.attempt(&["hold", "x", "/etc/passwd"])?;
        test.check(before.is_ok(), || format!("an open before the limit came to {}", before.outcome));
        let left = 900u64.saturating_sub(used) + 60;
        agent.attempt(&["hold-burn", &left.to_string()])?;
        for attempt in [["hold", "x", "/etc/passwd"].as_slice(), &["fork"], &["hold-path", "y", "/etc/passwd"]] {
            let outcome = agent.attempt(attempt)?;
            let wanted = if attempt[0] == "hold-path" { "ok" } else { "EPERM" };
            test.same(&format!("{attempt:?} after the limit"), outcome.outcome.as_str(), wanted);
        }
        Ok(())
    })();
    signal_daemon(Signal::SIGCONT)?;
    tried?;
    wait_for("the daemon to freeze it", PATIENCE, || Ok((agent.view()?["phase"] == "exhausted").then_some(())))?;
    agentctl(&["budget", "topup", "spent", "cpu:1h"])?.ok("topup")?;
    let after = agent.attempt(&["hold", "x", "/etc/passwd"])?;
    test.check(after.is_ok(), || format!("an open after the top-up came to {}", after.outcome));
    let forked = agent.attempt(&["fork"])?;
    test.check(forked.is_ok(), || format!("a fork after the top-up came to {}", forked.outcome));
    let told = agent.refusals()?.iter().any(|record| record["denial"]["reason"] == "exhausted");
    test.check(told, || "no refusal for a spent budget is in the journal".into());
    Ok(())
}

/// Nobody freezes it: the kernel kills at limit and grace.
fn killed(test: &mut Test) -> Result<()> {
    for (name, words) in [("killed", ["threads", "2"].as_slice()), ("killed-all", &["processes", "4"])] {
        let agent = burner(name, BUDGET, words)?;
        signal_daemon(Signal::SIGSTOP)?;
        let cgroup = fs::read_dir("/sys/fs/cgroup/agentd")?
            .flatten()
            .map(|item| item.path())
            .find(|path| fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty()));
        let gone = wait_for("the kernel to kill it", PATIENCE, || {
            let procs = cgroup.as_ref().and_then(|path| fs::read_to_string(path.join("cgroup.procs")).ok());
            Ok(procs.is_none_or(|procs| procs.is_empty()).then_some(()))
        });
        let usage = cgroup.map_or(Ok(0), |path| usage_us(&path.display().to_string()));
        signal_daemon(Signal::SIGCONT)?;
        gone?;
        if let Ok(usage) = usage {
            let most = BUDGET_US + GRACE_US + 150_000;
            test.check(usage < most, || format!("{name}: killed at {usage} us of {}", BUDGET_US + GRACE_US));
        }
        let view = agent.wait_phase("exited")?;
        test.same(&format!("{name}: status"), view["status"]["signal"]["signal"].as_u64(), Some(9));
        test.same(&format!("{name}: status of wait"), agentctl(&["wait", name])?.status, 137);
        test.check(agent.events()?.iter().any(|event| event == "budget_killed"), || {
            format!("{name}: no event budget_killed")
        });
    }
    Ok(())
}

/// What runs in a cgroup below the agent's counts for the agent.
fn below(test: &mut Test) -> Result<()> {
    let agent = burner("below", "cpu:2s", &["threads", "1"])?;
    let cgroup = agent.cgroup()?;
    let child = format!("{cgroup}/child/grandchild");
    fs::create_dir_all(&child)?;
    let procs = fs::read_to_string(format!("{cgroup}/cgroup.procs"))?;
    let burning = procs.lines().last().context("nobody is in the cgroup")?;
    fs::write(format!("{child}/cgroup.procs"), burning).context("cannot move it down")?;
    agent.wait_phase("exhausted")?;
    frozen(&cgroup)?;
    let (usage, below) = (usage_us(&cgroup)?, usage_us(&child)?);
    test.check(below > 500_000, || format!("only {below} us were used below"));
    test.check((2_000_000..2_000_000 + GRACE_US).contains(&usage), || {
        format!("with a cgroup below frozen at {usage} us of 2000000")
    });
    let shown = agent.view()?["cpu_spent_ns"].as_u64().unwrap_or(0) / 1000;
    test.check(shown.abs_diff(usage) <= 1000, || {
        format!("with a cgroup below {shown} us are shown, cpu.stat has {usage}")
    });
    Ok(())
}

/// Memory and processes are the controllers' business: what was asked for stands in their files.
fn others(test: &mut Test) -> Result<()> {
    let agent = Detached::start("others", &Options::base().word("--budget", "mem:64M,pids:20"), &["sleep", "1000"])?;
    let cgroup = agent.cgroup()?;
    for (file, wanted) in [("memory.max", "67108864"), ("pids.max", "20")] {
        let found = fs::read_to_string(format!("{cgroup}/{file}")).unwrap_or_default();
        test.same(file, found.trim(), wanted);
    }
    let topup = agentctl(&["budget", "topup", "others", "mem:1G"])?;
    test.same("a top-up of memory", topup.status, 2);
    let topup = agentctl(&["budget", "topup", "others", "cpu:1h"])?;
    test.same("a top-up without a budget", topup.status, 1);
    Ok(())
}
