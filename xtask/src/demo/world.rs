//! The second story: a world that watches agents, by a rule that a team wrote.
//!
//! It begins where the first one ended, with a journal that has refusals in it. Told with the commands that a user would
//! type; looked at from outside where something is claimed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Teller;
use super::scene::Daemon;
use crate::clock::Deadline;
use crate::store;
use crate::ui;

const MODULE: &str = "acme/three-denials@1";
/// Where the second agent works, and what lies beside it that is not its.
const STAGE: &str = "/srv/agentd-demo-world";
/// Reads three times what it may not, and would go on if it were let.
const ROGUE: &str = "for n in 1 2 3; do cat ../keys/deploy; sleep 0.2; done; while true; do sleep 1; done";

pub(super) fn story(daemon: &Daemon, teller: &mut Teller, wasm: &Path) -> Result<()> {
    ui::say("\n$ agentctl world init watch");
    daemon.agentctl(&["world", "init", "watch"])?;

    ui::say("$ agentctl world propose watch three-denials.json");
    let file = wasm.join("three-denials.json").display().to_string();
    let proposal =
        json(&daemon.agentctl(&["world", "propose", "watch", &file, "--note", "three refusals", "--json"])?)?;
    for change in proposal["changes"].as_array().into_iter().flatten() {
        ui::say(format!("  {}", change.as_str().unwrap_or_default()));
    }
    let number = proposal["proposal"].to_string();

    ui::say(format!("\n$ agentctl world shadow watch {number}"));
    let shadow = daemon.agentctl(&["world", "shadow", "watch", &number, "--json"])?;
    daemon.agentctl(&["world", "shadow", "watch", &number])?.lines().for_each(|line| ui::say(format!("  {line}")));
    let report = json(&shadow)?;
    let freezes = report["added"].as_array().into_iter().flatten();
    let freezes = freezes.filter(|effect| effect["kind"] == "sys/host.freeze@1").count();
    let heard = report["host_events"].as_u64().unwrap_or(0);
    teller.line("rehearsed on the refusals of just now", &format!("{heard} events"), heard >= 8);
    teller.line("it would have frozen the agent of just now", &format!("{freezes} times"), freezes >= 1);
    teller.line(
        "and has frozen nobody",
        "",
        !daemon.agentctl(&["audit", "--json", "-n", "all"])?.contains("agent_paused"),
    );

    let early = daemon.command().args(["world", "apply", "watch", &number]).output().context("cannot run agentctl")?;
    teller.line("apply before anybody said yes", "refused", early.status.code() == Some(3));
    ui::say(format!("\n$ agentctl world approve watch {number} && agentctl world apply watch {number}"));
    daemon.agentctl(&["world", "approve", "watch", &number])?;
    daemon.agentctl(&["world", "apply", "watch", &number])?;

    ui::say("\n$ agentctl spawn --detach --name rogue --budget cpu:30s -- sh -c 'cat ../keys/deploy; …'");
    let place = |name: &str| Path::new(STAGE).join(name);
    for name in ["work", "keys"] {
        fs::create_dir_all(place(name)).context("cannot make the stage")?;
    }
    // Anybody may read it, as far as its mode goes: what refuses is the rule.
    fs::write(place("keys/deploy"), "not really\n").context("cannot write a key")?;
    let work = place("work").display().to_string();
    let rogue =
        ["spawn", "--detach", "--name", "rogue", "--budget", "cpu:30s", "--cwd", &work, "--", "sh", "-c", ROGUE];
    daemon.agentctl(&rogue)?;
    let frozen = wait(Duration::from_secs(30), || {
        Ok(daemon.agentctl(&["inspect", "rogue", "--json"])?.contains("\"phase\":\"paused\""))
    })?;
    teller.line(
        "three refusals in a minute: the reducer has it frozen",
        if frozen { "frozen" } else { "it runs" },
        frozen,
    );
    let told = wait(Duration::from_secs(10), || {
        Ok(daemon.agentctl(&["audit", "--json", "-n", "50"])?.contains("operators_told"))
    })?;
    teller.line("and tells the operators", "", told);

    let record = wait_for_record(daemon, "receipt of host/1: done")?;
    ui::say(format!("\n$ agentctl world why watch {record}"));
    let why = daemon.agentctl(&["world", "why", "watch", &record.to_string()])?;
    why.lines().for_each(|line| ui::say(format!("  {line}")));
    let parts = [
        "access denied",
        MODULE,
        "sys/host.freeze@1",
        "rule 0 of acme/rules@1",
        "receipt of host/1: done",
        "agent paused",
    ];
    let absent = parts.iter().find(|part| !why.contains(*part));
    teller.line("from the refusal to the freeze, rule by rule", absent.unwrap_or(&""), absent.is_none());
    let receipt = daemon.agentctl(&["world", "receipt", "verify", "watch", &record.to_string()])?;
    teller.line("its receipt is signed", "", receipt.contains("signed with"));

    let scratch = store::scratch("world")?;
    let file = scratch.path().join("watch.world").display().to_string();
    ui::say("\n$ agentctl world export watch && agentctl world replay ./watch.world");
    let state = json(&daemon.agentctl(&["world", "show", "watch", "--json"])?)?["state"].clone();
    daemon.agentctl(&["world", "export", "watch", "-o", &file])?;
    let replayed = json(&daemon.agentctl(&["world", "replay", &file, "--json"])?)?;
    let came = format!("{} records", replayed["records"]);
    teller.line(
        "replayed from the file alone, to the same hash",
        &came,
        !state.is_null() && replayed["state"] == state,
    );

    let mut bytes = fs::read(&file).context("cannot read the bundle")?;
    let at = find_last(&bytes, b"sys/host.notify@1").context("the bundle has no notice in it")?;
    bytes[at] ^= 1;
    fs::write(&file, bytes).context("cannot write the bundle")?;
    ui::say("\nOne byte of the file is turned over:\n$ agentctl world journal verify ./watch.world");
    let verify =
        daemon.command().args(["world", "journal", "verify", &file]).output().context("cannot run agentctl")?;
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    said.lines().for_each(|line| ui::say(format!("  {line}")));
    teller.line("verify names the record", "", verify.status.code() == Some(1) && said.contains("damaged at record"));
    daemon.agentctl(&["kill", "rogue"])?;
    fs::remove_dir_all(STAGE).context("cannot clear the stage")
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text.lines().next().unwrap_or_default()).with_context(|| format!("{text:?} is not JSON"))
}

fn wait(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Deadline::after(limit);
    while !holds()? {
        if deadline.passed() {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(true)
}

/// The newest record of the world whose text is this.
fn wait_for_record(daemon: &Daemon, text: &str) -> Result<u64> {
    let mut found = None;
    wait(Duration::from_secs(20), || {
        let records = daemon.agentctl(&["world", "journal", "tail", "watch", "--json"])?;
        let mut records = records.lines().filter_map(|line| json(line).ok());
        found = records.find(|record| record["text"] == text).and_then(|record| record["seq"].as_u64());
        Ok(found.is_some())
    })?;
    found.with_context(|| format!("the world has no record that says {text:?}"))
}

fn find_last(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).rposition(|window| window == text)
}
