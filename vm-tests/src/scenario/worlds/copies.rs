//! A world as a file: replayed by whoever has it, refused when one bit of it is another, and going on under another name.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{SAMPLES, World};
use crate::harness::{FileSystem, Test, Tree, agentctl, json};

/// A bundle that was made once, and the hash of its state then; see its README.
const FIXTURE: &[u8] = include_bytes!("../../../fixtures/counter.world");
const FIXTURE_STATE: &str = include_str!("../../../fixtures/counter.state");
/// Where the daemon keeps worlds.
const STATE: &str = "/var/lib/agentd";

pub(super) fn run(test: &mut Test) -> Result<()> {
    let tree = Tree::new("copies", FileSystem::Overlay)?;
    let world = World::with("origin", "counter")?;
    for by in [40, 60, 7, -3] {
        world.count(by)?;
    }
    let file = tree.path("origin.world");
    agentctl(&["world", "export", world.0, "-o", &file])?.ok("export")?;
    claims(test, &file, &world.state()?)?;
    tampered(test, &tree, &file)?;
    imported(test, world, &file)?;
    forked(test, world)?;
    fixed(test, &tree)?;
    pruned(test, world, &tree)
}

/// Replays a bundle where no daemon is asked.
fn offline(words: &[&str]) -> Result<crate::harness::Output> {
    agentctl(&[&["--socket", "/run/none.sock", "world"], words].concat())
}

/// The claimed state is the one that comes out; another claim is a lie.
fn claims(test: &mut Test, file: &str, state: &str) -> Result<()> {
    let output = offline(&["replay", file, "--state", state])?;
    test.check(output.status == 0, || format!("replay of a bundle: {}", output.stderr.trim()));
    test.contains("replay of a bundle", &output.stdout, state);
    let output = offline(&["replay", file, "--state", &"0".repeat(64)])?;
    test.same("replay of a bundle with another claim: status", output.status, 1);
    test.contains("replay of a bundle with another claim", &output.stderr, state);
    let output = offline(&["journal", "verify", file])?;
    test.check(output.status == 0, || format!("journal verify of a bundle: {}", output.stderr.trim()));
    let output = agentctl(&["world", "replay", "origin", "--state", state])?;
    test.check(output.status == 0, || format!("replay by the daemon: {}", output.stderr.trim()));
    Ok(())
}

/// An item of a bundle: what kind it is of, and where its content lies.
fn items(bundle: &[u8]) -> Result<Vec<(u8, Range<usize>)>> {
    let mut items = Vec::new();
    let mut at = 1 + bundle.iter().position(|byte| *byte == b'\n').context("a bundle without a first line")?;
    while let Some(length) = bundle.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into()?) as usize;
        let content = at + 4..at + 4 + length;
        let kind = bundle.get(content.clone()).and_then(|content| content.get(1)).context("an item without content")?;
        items.push((*kind, content.clone()));
        at = content.end;
    }
    Ok(items)
}

/// One bit is another, at twenty places over the file: each is refused, by whoever reads it and by the daemon.
fn tampered(test: &mut Test, tree: &Tree, file: &str) -> Result<()> {
    const RECORD: u8 = 3;
    let good = fs::read(file)?;
    let records: Vec<Range<usize>> =
        items(&good)?.into_iter().filter(|(kind, _)| *kind == RECORD).map(|(_, content)| content).collect();
    test.check(records.len() >= 13, || format!("the bundle has {} records", records.len()));
    // Ten over the whole file, most of which is WASM; ten over the records, in what is behind the hash of each.
    let over_all = (0..10).map(|place| (place * (good.len() - 1) / 9, None));
    let over_records = (0..10).map(|place| {
        let number = place * (records.len() - 1) / 9;
        let range = &records[number];
        let inside = range.start + 44 + (range.len() - 45) * place / 9;
        (inside, Some(number + 1))
    });
    let changed = tree.path("changed.world");
    let worlds = json(&["world", "list"])?;
    let kept = tree_of(STATE);
    for (at, record) in over_all.chain(over_records) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&changed, bytes)?;
        let verify = offline(&["journal", "verify", &changed])?;
        let import = agentctl(&["world", "import", &changed, "changed"])?;
        for (by, output) in [("journal verify", verify), ("import", import)] {
            let about = format!("{by} with byte {at} changed");
            test.check(output.status == 1, || format!("{about}: status {}: {}", output.status, output.stdout.trim()));
            test.check(!output.stderr.contains("panicked"), || format!("{about}: {}", output.stderr));
            if let Some(record) = record {
                let named = output.stderr.contains(&format!("record {record}"));
                test.check(named, || format!("{about}: record {record} is not named in {:?}", output.stderr));
            }
        }
    }
    // And what is cut off, or goes on behind its end.
    for (about, bytes) in [("cut off", &good[..good.len() - 40]), ("with more behind it", &[&good[..], b"x"].concat())]
    {
        fs::write(&changed, bytes)?;
        test.same(&format!("journal verify of a bundle {about}"), offline(&["journal", "verify", &changed])?.status, 1);
        let import = agentctl(&["world", "import", &changed, "changed"])?;
        test.same(&format!("import of a bundle {about}"), import.status, 1);
    }
    test.same("worlds after what was refused", json(&["world", "list"])?, worlds);
    test.same("files of the daemon after what was refused", tree_of(STATE), kept);
    Ok(())
}

/// Names of what is below a directory.
fn tree_of(directory: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![std::path::PathBuf::from(directory)];
    while let Some(next) = open.pop() {
        for item in fs::read_dir(next).into_iter().flatten().flatten() {
            names.push(item.path().display().to_string());
            if item.path().is_dir() {
                open.push(item.path());
            }
        }
    }
    names.sort();
    names
}

/// Under another name the past is the same, and the state is what a replay gives.
fn imported(test: &mut Test, world: World, file: &str) -> Result<()> {
    let copy = World("copy");
    agentctl(&["world", "import", file, copy.0])?.ok("import")?;
    test.same("the copy's counter", copy.counter(None)?, world.counter(None)?);
    let output = agentctl(&["world", "replay", copy.0, "--state", &copy.state()?])?;
    test.check(output.status == 0, || format!("replay of the copy: {}", output.stderr.trim()));
    same_past(test, world, copy, world.newest()?.0)?;
    let again = agentctl(&["world", "import", file, copy.0])?;
    test.same("import under a name that is taken: status", again.status, 1);
    test.contains("import under a name that is taken", &again.stderr, copy.0);
    copy.count(1)?;
    test.same("the copy goes on", copy.counter(None)?["total"].as_i64(), Some(105));
    test.same("the original does not", world.counter(None)?["total"].as_i64(), Some(104));
    Ok(())
}

/// Two worlds have the same records up to one.
fn same_past(test: &mut Test, one: World, other: World, until: u64) -> Result<()> {
    let past = |world: World| -> Result<Vec<Value>> {
        let mut records = world.records(200)?;
        records.retain(|record| record["seq"].as_u64() <= Some(until));
        Ok(records)
    };
    let found = past(other)?;
    test.same(&format!("records of {} that it has from {}", other.0, one.0), found.len() as u64, until);
    test.check(found == past(one)?, || format!("the past of {} is not that of {}", other.0, one.0));
    Ok(())
}

/// A fork has the past until a record, and another future.
fn forked(test: &mut Test, world: World) -> Result<()> {
    let at = world.count(11)? + 1;
    world.count(1000)?;
    let fork = World("fork");
    agentctl(&["world", "fork", world.0, fork.0, "--at", &at.to_string()])?.ok("fork")?;
    same_past(test, world, fork, at)?;
    test.same("the fork's counter", fork.counter(None)?["total"].as_i64(), Some(115));
    fork.count(5)?;
    world.count(-1)?;
    test.same("the fork goes on", fork.counter(None)?["total"].as_i64(), Some(120));
    test.same("the original goes on", world.counter(None)?["total"].as_i64(), Some(1114));
    test.check(fork.state()? != world.state()?, || "a fork and its original have the same state".into());
    for world in [world, fork] {
        let output = agentctl(&["world", "journal", "verify", world.0])?;
        test.check(output.status == 0, || format!("journal of {}: {}", world.0, output.stderr.trim()));
        let output = agentctl(&["world", "replay", world.0, "--state", &world.state()?])?;
        test.check(output.status == 0, || format!("replay of {}: {}", world.0, output.stderr.trim()));
    }
    Ok(())
}

/// Old records go, and what is left verifies, replays and goes on; the bundle made before proves what was.
fn pruned(test: &mut Test, world: World, tree: &Tree) -> Result<()> {
    let file = tree.path("before.world");
    agentctl(&["world", "export", world.0, "-o", &file])?.ok("export before pruning")?;
    let (counter, (height, _)) = (world.counter(None)?, world.newest()?);
    let prune = |words: &[&str]| -> Result<Value> {
        json(&[&["world", "journal", "prune", world.0], words].concat())?.pop().context("nothing is said")
    };
    let none = prune(&[])?;
    test.same("records that go where fewer than 10,000 are", none["removed"].as_u64(), Some(0));
    let dry = prune(&["--keep", "0", "--dry-run"])?;
    test.same("records that would go", dry["removed"].as_u64(), Some(height));
    test.same("records after a dry run", world.newest()?.0, height);
    let done = prune(&["--keep", "0"])?;
    test.same(
        "records that went",
        (done["removed"].as_u64(), done["first"].as_u64()),
        (Some(height), Some(height + 1)),
    );
    test.same("the counter after pruning", world.counter(None)?, counter);
    world.count(2)?;
    let verified = agentctl(&["world", "journal", "verify", world.0])?;
    test.contains("journal verify after pruning", &verified.stdout, &format!("records {} to", height + 1));
    let replayed = agentctl(&["world", "replay", world.0, "--state", &world.state()?])?;
    test.check(replayed.status == 0, || format!("replay after pruning: {}", replayed.stderr.trim()));
    test.check(offline(&["journal", "verify", &file])?.status == 0, || "the bundle from before".into());
    let after = tree.path("after.world");
    agentctl(&["world", "export", world.0, "-o", &after])?.ok("export after pruning")?;
    let replayed = offline(&["replay", &after, "--state", &world.state()?])?;
    test.check(replayed.status == 0, || format!("replay of a bundle after pruning: {}", replayed.stderr.trim()));
    let proposal = world.propose(&format!("{SAMPLES}/tasks.json"))?;
    let report = json(&["world", "shadow", world.0, &proposal])?.pop().context("no report")?;
    // The event after the pruning and the proposal itself; what the saved state holds is not rehearsed a second time.
    test.same("inputs of a rehearsal after pruning", report["inputs"].as_u64(), Some(2));
    for words in [
        ["world", "state", "get", world.0, "demo/counter@1", "--at", "3"].as_slice(),
        &["world", "fork", world.0, "early", "--at", "3"],
    ] {
        let gone = agentctl(words)?;
        test.same(&format!("{words:?}: status"), gone.status, 1);
        test.contains(&format!("{words:?}"), &gone.stderr, &format!("the journal begins at record {}", height + 1));
    }
    let host = agentctl(&["world", "journal", "prune", "host"])?;
    test.contains("prune of the host's journal", &host.stderr, "kept whole");
    Ok(())
}

/// What was written once comes out the same on every kernel, in a file and in a daemon.
fn fixed(test: &mut Test, tree: &Tree) -> Result<()> {
    let file = tree.path("fixture.world");
    fs::write(&file, FIXTURE)?;
    let output = offline(&["replay", &file, "--state", FIXTURE_STATE.trim()])?;
    test.check(output.status == 0, || format!("replay of the bundle of old: {}", output.stderr.trim()));
    let old = World("old");
    agentctl(&["world", "import", &file, old.0])?.ok("import of the bundle of old")?;
    let replayed = agentctl(&["world", "replay", old.0, "--state", &old.state()?])?;
    test.check(replayed.status == 0, || format!("replay of the world of old: {}", replayed.stderr.trim()));
    old.count(-1000)?;
    test.same("the world of old goes on", old.counter(None)?["events"].as_u64(), Some(7));
    Ok(())
}
