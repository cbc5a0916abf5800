//! Too much of everything: refusals, processes, agents. What is not said is counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::{now, wait_for};
use crate::harness::{Agent, Detached, FileSystem, Options, Test, Tree, agentctl, json, own_program};
use crate::ui;

const PATIENCE: Duration = Duration::from_secs(120);
/// Refusals of the flood. A million takes half a minute where the processor is emulated.
const DENIALS: u64 = 1_000_000;
/// Agents at once.
const AGENTS: usize = 200;
/// The time for all of them to be up. Emulated, each start takes a tenth of a second.
const UP: Duration = Duration::from_secs(120);

pub(super) fn run(test: &mut Test) -> Result<()> {
    denials(test)?;
    bomb(test)?;
    many(test)
}

/// A million refusals: each holds, some are told, the rest is counted, and others are served meanwhile.
fn denials(test: &mut Test) -> Result<()> {
    let tree = Tree::new("flood", FileSystem::Tmpfs)?;
    let path = tree.file("no/a", "content\n")?;
    let mut agent = Agent::start("flood", &Options::base().allow("read", tree.path("")).deny("all", tree.path("no")))?;
    let begin = now();
    let mut refused = 0;
    // In pieces, because an attempt has a limit of its own.
    for _ in 0..20 {
        let outcome = agent.attempt(&["repeat-open", &(DENIALS / 20).to_string(), &path])?;
        test.check(outcome.is_ok(), || format!("the flood came to {} {}", outcome.outcome, outcome.detail));
        refused += outcome.detail.parse::<u64>().unwrap_or(0);
        test.same("ps during the flood", agentctl(&["ps"])?.status, 0);
    }
    ui::line(&format!("{refused} refusals in {:.1} s", (now() - begin).as_secs_f64()));
    test.same("opens refused", refused, DENIALS);
    // The count that is still to be told comes with the next report.
    wait_for("the next second of reports", Duration::from_secs(10), || {
        Ok((now() - begin > Duration::from_secs(2)).then_some(()))
    })?;
    let end = now() + Duration::from_millis(1200);
    wait_for("the window to pass", PATIENCE, || Ok((now() >= end).then_some(())))?;
    agent.attempt(&["open", &path])?;
    wait_for(
        "the last report",
        PATIENCE,
        || Ok((agent.view()?["denials"].as_u64() >= Some(DENIALS + 1)).then_some(())),
    )
    .with_context(|| format!("inspect shows {:?} refusals", agent.view().map(|view| view["denials"].clone())))?;
    test.same("refusals that inspect shows", agent.view()?["denials"].as_u64(), Some(DENIALS + 1));
    let (mut told, mut suppressed) = (0, 0);
    for record in json(&["audit", "--agent", "flood", "-n", "all"])? {
        told += u64::from(record["event"] == "access_denied");
        suppressed += if record["event"] == "denials_suppressed" { record["count"].as_u64().unwrap_or(0) } else { 0 };
    }
    ui::line(&format!("{told} told, {suppressed} counted"));
    test.same("told and counted", told + suppressed, DENIALS + 1);
    test.check(told >= 200, || format!("only {told} refusals were told"));
    Ok(())
}

/// A fork bomb stops at its number of processes, costs nobody else anything, and is gone at a word.
fn bomb(test: &mut Test) -> Result<()> {
    let program = own_program()?;
    let options = Options::base().word("--budget", "pids:50,cpu:1h");
    let agent = Detached::start("bomb", &options, &[&program, "burn", "bomb"])?;
    let cgroup = agent.cgroup()?;
    let count = || -> Result<u64> { Ok(fs::read_to_string(format!("{cgroup}/pids.current"))?.trim().parse()?) };
    wait_for("the bomb to fill its cgroup", PATIENCE, || Ok((count()? >= 50).then_some(())))?;
    let begin = now();
    let beside = agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--profile", "base", "--", "echo", "beside"])?;
    test.same("an agent beside the bomb", beside.stdout.as_str(), "beside\n");
    ui::line(&format!("an agent beside the bomb took {:.1} s", (now() - begin).as_secs_f64()));
    agentctl(&["pause", "bomb"])?.ok("pause")?;
    // Counted while it stands still: a fork that is about to be refused is in the kernel's count for a moment.
    test.same("processes of the bomb", count()?, 50);
    agentctl(&["resume", "bomb"])?.ok("resume")?;
    agentctl(&["kill", "bomb"])?.ok("kill")?;
    test.same("status of the bomb", agentctl(&["wait", "bomb"])?.status, 137);
    let gone = wait_for("its cgroup to go", PATIENCE, || Ok((!fs::exists(&cgroup)?).then_some(())));
    test.check(gone.is_ok(), || "the bomb's cgroup stays".into());
    Ok(())
}

/// Many agents at once: each runs, each is seen, each ends with its own status.
fn many(test: &mut Test) -> Result<()> {
    let begin = now();
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        if now() - begin > UP {
            break;
        }
        let name = format!("many-{number}");
        agents.push(Detached::start(&name, &Options::base(), &["sleep", "1000"]).with_context(|| name.clone())?);
    }
    let up = (now() - begin).as_secs_f64();
    ui::line(&format!("{} agents in {up:.1} s", agents.len()));
    test.check(agents.len() == AGENTS, || {
        format!("only {} of {AGENTS} agents were started in {} s", agents.len(), UP.as_secs())
    });
    let listed = json(&["ps"])?;
    test.same(
        "agents that are listed as running",
        listed.iter().filter(|agent| agent["phase"] == "running").count(),
        agents.len(),
    );
    let names: Vec<String> = (0..agents.len()).map(|number| format!("many-{number}")).collect();
    let words: Vec<&str> = ["kill"].into_iter().chain(names.iter().map(String::as_str)).collect();
    agentctl(&words)?.ok("kill of all")?;
    wait_for("all of them to end", PATIENCE, || Ok(json(&["ps"])?.is_empty().then_some(())))?;
    let left = || {
        let entries = fs::read_dir("/sys/fs/cgroup/agentd").into_iter().flatten().flatten();
        let directories = entries.filter(|item| item.path().is_dir()).count();
        // One is ready for the next agent.
        directories.saturating_sub(1)
    };
    let settled = wait_for("their cgroups to go", PATIENCE, || Ok((left() == 0).then_some(())));
    test.check(settled.is_ok(), || format!("{} cgroups stay", left()));
    // They have ended; nothing more is to be killed at the end of this.
    agents.into_iter().for_each(std::mem::forget);
    Ok(())
}
