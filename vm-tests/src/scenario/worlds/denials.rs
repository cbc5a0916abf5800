//! A rule of a team that freezes an agent, why it did, and what it signed; before and after the host's key is changed.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::World;
use crate::clock::wait_for;
use crate::harness::{Detached, FileSystem, Options, Test, Tree, agentctl, json as ask, start_daemon, stop_daemon};

const PATIENCE: Duration = Duration::from_secs(60);
/// Reads three times what it may not, and would go on if it were let.
const ROGUE: &str = "for n in 1 2 3; do cat no/key; sleep 0.1; done; while :; do sleep 1; done";
/// Twice is not too often.
const CLUMSY: &str = "for n in 1 2; do cat no/key; sleep 0.1; done; while :; do sleep 1; done";

pub(super) fn run(test: &mut Test) -> Result<()> {
    let world = World::with("watch", "three-denials")?;
    let tree = Tree::new("watch", FileSystem::Overlay)?;
    tree.file("no/key", "not really\n")?;
    let options = Options::base().allow("read", tree.path("ok")).directory(tree.path(""));
    tree.directory("ok")?;
    let clumsy = Detached::start("clumsy", &options, &["sh", "-c", CLUMSY])?;
    let first = frozen(test, world, "rogue", &options)?;
    test.same("an agent that was refused twice", clumsy.view()?["phase"].as_str(), Some("running"));
    explained(test, world, first)?;

    let old = world.view()?["key"].clone();
    let new = ask(&["key", "rotate"])?.pop().context("no key")?["key"].clone();
    test.check(new.is_string() && new != old, || format!("the key after key rotate: {new}, before {old}"));
    test.same("the key that is shown", ask(&["key", "show"])?.pop().map(|view| view["key"].clone()), Some(new.clone()));
    heads(test, "after the key was changed")?;
    test.same("the key that a world names then", world.view()?["key"].clone(), new.clone());
    let second = frozen(test, world, "rogue-2", &options)?;
    let receipt = |record: u64| -> Result<Value> {
        ask(&["world", "receipt", "verify", "watch", &record.to_string()])?.pop().context("no receipt")
    };
    for (about, record, key) in [("before", first, old), ("after", second, new)] {
        let shown = receipt(record)?;
        test.same(&format!("key of a receipt from {about} the change"), shown["key"].clone(), key);
        test.same(&format!("a receipt from {about} the change"), shown["verified"].as_bool(), Some(true));
    }
    stop_daemon(nix::sys::signal::Signal::SIGKILL)?;
    drop(start_daemon()?);
    heads(test, "after a restart under the new key")?;
    let none = agentctl(&["world", "receipt", "verify", "watch", "1"])?;
    test.same("receipt verify of what is none: status", none.status, 1);
    test.contains("receipt verify of what is none", &none.stderr, "record 1 holds no receipt");
    let replayed = agentctl(&["world", "replay", "watch"])?;
    test.check(replayed.status == 0, || format!("replay over two keys: {}", replayed.stderr.trim()));
    Ok(())
}

/// Every head of every world verifies, and of the host's.
fn heads(test: &mut Test, when: &str) -> Result<()> {
    let worlds = ask(&["world", "list"])?;
    let names = worlds.iter().filter_map(|world| world["world"].as_str()).chain(["host"]);
    for name in names {
        let output = agentctl(&["world", "journal", "verify", name])?;
        test.check(output.status == 0, || format!("journal of {name} {when}: {}", output.stderr.trim()));
    }
    Ok(())
}

/// An agent is refused three times and is frozen for it; gives the record of the receipt.
fn frozen(test: &mut Test, world: World, name: &str, options: &Options) -> Result<u64> {
    let before = world.newest()?.0;
    let rogue = Detached::start(name, options, &["sh", "-c", ROGUE])?;
    let view = rogue.wait_phase("paused")?;
    test.same(&format!("refusals of {name}"), view["denials"].as_u64(), Some(3));
    // Two effects with a receipt each: frozen, and told.
    let receipts = wait_for("the receipts", PATIENCE, || {
        let new = |record: &Value| record["seq"].as_u64() > Some(before) && record["text"] == "receipt of host/1: done";
        let found: Vec<u64> = world.records(100)?.iter().filter(|r| new(r)).filter_map(|r| r["seq"].as_u64()).collect();
        Ok((found.len() >= 2).then_some(found))
    })?;
    test.same(&format!("effects for {name}"), receipts.len(), 2);
    let events = rogue.events()?;
    test.check(events.iter().any(|event| event == "agent_paused"), || {
        format!("{name} in the host's journal: {events:?}")
    });
    let mut kinds = Vec::new();
    for record in &receipts {
        let shown = ask(&["world", "receipt", "show", world.0, &record.to_string()])?.pop().context("no receipt")?;
        kinds.push((shown["kind"].as_str().unwrap_or_default().to_owned(), *record));
    }
    let freeze = kinds.iter().find(|(kind, _)| kind == "sys/host.freeze@1");
    test.check(kinds.iter().any(|(kind, _)| kind == "sys/host.notify@1"), || format!("nobody was told: {kinds:?}"));
    freeze.map(|(_, record)| *record).with_context(|| format!("no receipt of the freeze: {kinds:?}"))
}

/// From the refusal in the host's journal, by module and rule, to the freeze in it.
fn explained(test: &mut Test, world: World, record: u64) -> Result<()> {
    let record = record.to_string();
    let graph = ask(&["world", "why", world.0, &record])?.pop().context("no graph")?;
    let nodes: Vec<(String, String)> = graph["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| (node["id"].as_str().unwrap_or_default().into(), node["text"].as_str().unwrap_or_default().into()))
        .collect();
    for (host, part) in [
        (true, "access denied"),
        (false, "sys/access-denied@1"),
        (false, "acme/three-denials@1"),
        (false, "sys/host.freeze@1"),
        (false, "rule 0 of acme/rules@1"),
        (true, "agent paused"),
        (false, "receipt of host/1: done"),
    ] {
        let found = nodes.iter().any(|(id, text)| id.starts_with("host:") == host && text.contains(part));
        test.check(found, || format!("world why: {part:?} (of the host: {host}) is not in {nodes:?}"));
    }
    let edges = graph["edges"].as_array().cloned().unwrap_or_default();
    let ends = |edge: &Value| [0, 1].iter().all(|end| nodes.iter().any(|(id, _)| edge[end] == id.as_str()));
    test.check(!edges.is_empty() && edges.iter().all(ends), || format!("world why: edges to nowhere: {edges:?}"));
    let text = agentctl(&["world", "why", world.0, &record])?.ok("world why")?;
    test.contains("world why in words", &text, "agent paused");
    let none = agentctl(&["world", "why", world.0, "99999"])?;
    test.same("world why of no record: status", none.status, 1);
    let signed = agentctl(&["world", "receipt", "verify", world.0, &record])?;
    test.check(signed.status == 0, || format!("receipt verify: {}", signed.stderr.trim()));
    test.contains("receipt verify", &signed.stdout, "signed with");
    Ok(())
}
