//! The way from a proposal to a rule in force, and events that the rule takes or that nobody may send.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{SAMPLES, World, leaves_no_trace};
use crate::harness::{DEV, Test, agentctl, agentctl_as};

pub(super) fn run(test: &mut Test) -> Result<()> {
    let counter = comes_into_force(test)?;
    counts(test, counter)?;
    refuses(test, counter)?;
    tasks(test)
}

/// Rehearsed, then approved, then applied: none of these can be left out.
fn comes_into_force(test: &mut Test) -> Result<World> {
    let world = World::empty("count")?;
    leaves_no_trace(test, world, ("an event before its schema", 2, &["there is no schema demo/count@1"]), || {
        world.send("demo/count@1", "{\"by\":1}")
    })?;
    let proposal = world.propose(&format!("{SAMPLES}/counter.json"))?;
    test.same("definitions of what is only proposed", world.view()?["cells"].as_u64(), Some(0));
    leaves_no_trace(test, world, ("apply of what was not rehearsed", 3, &["needs", "a rehearsal"]), || {
        world.govern("apply", &proposal)
    })?;
    world.govern("shadow", &proposal)?.ok("shadow")?;
    leaves_no_trace(test, world, ("apply of what nobody approved", 3, &["needs"]), || {
        world.govern("apply", &proposal)
    })?;
    leaves_no_trace(test, world, ("an event while its schema is only proposed", 2, &["there is no schema"]), || {
        world.send("demo/count@1", "{\"by\":1}")
    })?;
    world.govern("approve", &proposal)?.ok("approve")?;
    world.govern("apply", &proposal)?.ok("apply")?;
    leaves_no_trace(test, world, ("a second apply", 3, &["is applied"]), || world.govern("apply", &proposal))?;
    leaves_no_trace(test, world, ("apply of no proposal", 3, &["99"]), || world.govern("apply", "99"))?;

    // Approved first is no way round the rehearsal, and a no is a no.
    let other = World::empty("order")?;
    let proposal = other.propose(&format!("{SAMPLES}/counter.json"))?;
    other.govern("approve", &proposal)?.ok("approve")?;
    leaves_no_trace(test, other, ("apply of what was approved unseen", 3, &["a rehearsal"]), || {
        other.govern("apply", &proposal)
    })?;
    other.govern("reject", &proposal)?.ok("reject")?;
    leaves_no_trace(test, other, ("apply of what was rejected", 3, &["is rejected"]), || {
        other.govern("apply", &proposal)
    })?;
    let again = other.propose(&format!("{SAMPLES}/counter.json"))?;
    for verb in ["approve", "shadow", "apply"] {
        let output = other.govern(verb, &again)?;
        test.check(output.status == 0, || format!("{verb} of another proposal: {}", output.stderr.trim()));
    }
    Ok(world)
}

/// Events reach the reducer, and every past state can be looked at.
fn counts(test: &mut Test, world: World) -> Result<()> {
    let mut seen = Vec::new();
    for by in [3, 96, 1, -50] {
        let record = world.count(by)?;
        seen.push((record, world.counter(None)?));
    }
    let states: Vec<Value> = seen.iter().map(|(_, state)| state.clone()).collect();
    let wanted = [(3, 1), (99, 2), (100, 3), (50, 4)].map(|(total, events)| json!({"total": total, "events": events}));
    test.same("the counter event by event", states, wanted.to_vec());
    let texts: Vec<String> = world.records(16)?.iter().map(|record| record["text"].to_string()).collect();
    let milestones = texts.iter().filter(|text| text.contains("raised demo/milestone@1")).count();
    test.same("milestones raised, at 100", milestones, 1);
    for (record, state) in seen {
        // The step follows its event.
        test.same(&format!("state get --at {}", record + 1), world.counter(Some(record + 1))?, state);
    }
    let before = agentctl(&["world", "state", "get", world.0, "demo/counter@1", "--at", "2"])?;
    test.same("the counter before there was one: status", before.status, 1);
    Ok(())
}

/// What is wrong with an event is said with its place, and no record is made.
fn refuses(test: &mut Test, world: World) -> Result<()> {
    fs::create_dir_all("/srv/x")?;
    let cases: &[(&str, &str, &str, i32, &[&str])] = &[
        ("an unknown schema", "demo/nope@1", "{\"by\":1}", 2, &["there is no schema demo/nope@1"]),
        ("another version of a schema", "demo/count@2", "{\"by\":1}", 2, &["there is no schema demo/count@2"]),
        ("no name of a schema", "count", "{\"by\":1}", 2, &["count"]),
        ("a wrong type", "demo/count@1", "{\"by\":\"x\"}", 2, &["wrong: by", "int"]),
        ("a number that does not fit", "demo/count@1", "{\"by\":9223372036854775808}", 2, &["wrong: by"]),
        ("a field that is missing", "demo/count@1", "{}", 2, &["by"]),
        ("a field that is none", "demo/count@1", "{\"by\":1,\"more\":2}", 2, &["more"]),
        ("no JSON", "demo/count@1", "{by:1}", 2, &["not JSON"]),
        ("a key that nobody asks for", "", "", 2, &["asks its sender for a key"]),
        ("an event of the host from a person", "sys/access-denied@1", DENIED, 3, &["is the host's to say"]),
    ];
    for (about, event, value, status, parts) in cases {
        leaves_no_trace(test, world, (about, *status, parts), || match *event {
            "" => world.send_to("demo/count@1", "{\"by\":1}", "\"k\""),
            event => world.send(event, value),
        })?;
    }
    let before = world.newest()?;
    let stranger = agentctl_as(65534, &["world", "event", "send", world.0, "demo/count@1", "{\"by\":1}"])?;
    test.check(stranger.status != 0, || "a stranger may send an event".into());
    test.same("newest record after a stranger's event", world.newest()?, before);
    let operator = agentctl_as(DEV, &["world", "event", "send", world.0, "demo/count@1", "{\"by\":1}"])?;
    test.check(operator.status == 0, || format!("an operator may not send an event: {}", operator.stderr.trim()));
    let last = world.records(2)?.first().map(|record| record["text"].to_string()).unwrap_or_default();
    test.contains("who sent it", &last, "uid 1000 sent");
    Ok(())
}

/// A value that is right in all but who says it.
const DENIED: &str = "{\"agent\":1,\"name\":\"x\",\"hook\":\"file_open\",\"object\":\"/x\",\"right\":\"read\",\
                      \"reason\":\"\",\"record\":1,\"wall\":1}";

/// One cell for each key.
fn tasks(test: &mut Test) -> Result<()> {
    let world = World::with("tasks", "tasks")?;
    let cells = || -> Result<Vec<Value>> { crate::harness::json(&["world", "cells", "tasks", "demo/tasks@1"]) };
    for (value, key) in [
        ("{\"created\":\"paint\"}", "\"t-1\""),
        ("{\"created\":\"sing\"}", "\"t-2\""),
        ("\"started\"", "\"t-1\""),
        ("\"finished\"", "\"t-2\""),
    ] {
        world.send_to("demo/task@1", value, key)?.ok(value)?;
    }
    let shown: Vec<(Value, Value)> =
        cells()?.into_iter().map(|mut cell| (cell["key"].take(), cell["state"].take())).collect();
    let wanted = vec![
        (json!("t-1"), json!({"title": "paint", "phase": "running", "changes": 2})),
        (json!("t-2"), json!({"title": "sing", "phase": "open", "changes": 1})),
    ];
    test.same("cells by their keys", shown, wanted);
    let one = agentctl(&["world", "state", "get", world.0, "demo/tasks@1", "--key", "\"t-2\""])?;
    test.contains("one cell", &one.ok("state get --key")?, "\"sing\"");
    let last = world.records(1)?.pop().context("no record")?["text"].to_string();
    test.contains("what the reducer refuses", &last, "it has not been started");

    leaves_no_trace(test, world, ("an event without its key", 3, &["demo/tasks@1", "by text", "names none"]), || {
        world.send("demo/task@1", "\"started\"")
    })?;
    leaves_no_trace(test, world, ("a key of another type", 2, &["the key is wrong", "text"]), || {
        world.send_to("demo/task@1", "\"started\"", "3")
    })?;
    leaves_no_trace(test, world, ("a wrong value in a variant", 2, &["wrong: created", "text"]), || {
        world.send_to("demo/task@1", "{\"created\":5}", "\"t-1\"")
    })?;
    let text = |kib: usize| format!("{{\"created\":\"{}\"}}", "x".repeat(kib << 10));
    fs::write("/srv/x/large", text(1025))?;
    leaves_no_trace(test, world, ("a value of more than a mebibyte", 2, &["limit", "1048576"]), || {
        world.send_to("demo/task@1", "@/srv/x/large", "\"t-3\"")
    })?;
    // What fits as an event need not fit as a state: the reducer's limit holds, and the cell stays as it was.
    fs::write("/srv/x/large", text(100))?;
    world.send_to("demo/task@1", "@/srv/x/large", "\"t-3\"")?.ok("an event of 100 KiB")?;
    let last = world.records(1)?.pop().context("no record")?["text"].to_string();
    test.contains("a state that is too large", &last, "reached its limit of output");
    test.same("cells after it", cells()?.len(), 2);
    fs::remove_file("/srv/x/large")?;
    Ok(())
}
