//! A plan that runs a program: as an agent, with its input, under what the capability names, and with a receipt.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::World;
use crate::clock::wait_for;
use crate::harness::{FileSystem, Test, Tree, agentctl, json as ask};

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(test: &mut Test) -> Result<()> {
    let tree = Tree::new("programs", FileSystem::Overlay)?;
    let world = World::empty("programs")?;
    let file = tree.file("programs.json", &definitions(&tree.path("")).to_string())?;
    let proposal = world.propose(&file)?;
    for verb in ["shadow", "approve", "apply"] {
        world.govern(verb, &proposal)?.ok(verb)?;
    }
    let run = |argv: &[&str], directory: &str| -> Result<Value> {
        let before = world.newest()?.0;
        // The input is `hello` in base64.
        let value = json!({ "argv": argv, "directory": directory, "input": "aGVsbG8=" });
        world.send("t/run@1", &value.to_string())?.ok("event")?;
        wait_for("the effect to be settled or refused", PATIENCE, || {
            let mut since = world.records(20)?;
            since.retain(|record| record["seq"].as_u64() > Some(before));
            let about = |record: &&Value| matches!(record["entry"]["entry"].as_str(), Some("settled" | "wanted"));
            let last = since.iter().rfind(about).cloned();
            Ok(last.filter(|last| {
                last["entry"]["entry"] == "settled" || !last["text"].as_str().unwrap_or("").contains("allowed")
            }))
        })
    };
    let settled = run(&["/usr/bin/tr", "a-z", "A-Z"], &tree.path(""))?;
    let number = settled["seq"].to_string();
    let receipt = ask(&["world", "receipt", "verify", world.0, &number])?.pop().context("no receipt")?;
    test.same("status of the receipt", receipt["status"].as_str(), Some("done"));
    test.same("what the program printed", receipt["result"]["output"].as_str(), Some("SEVMTE8="));
    test.same("its status", receipt["result"]["code"].as_i64(), Some(0));
    let agent = receipt["result"]["agent"].to_string();
    let view = ask(&["inspect", &agent])?.pop().context("no agent")?;
    test.contains("the agent that ran it", view["name"].as_str().unwrap_or_default(), "programs-");
    let why = agentctl(&["world", "why", world.0, &number])?.ok("why")?;
    test.contains("why", &why, "t/runs@1 covers it");

    let other = run(&["/usr/bin/id"], &tree.path(""))?;
    test.contains("a program that the capability does not name", other["text"].as_str().unwrap_or_default(), "refused");
    let outside = run(&["/usr/bin/tr", "a", "b"], "/etc")?;
    let text = outside["text"].as_str().unwrap_or_default();
    test.check(text.contains("refused") || text.contains("does not cover /etc"), || {
        format!("a directory outside: {text}")
    });
    Ok(())
}

/// A world in which an event runs a program, if it is `tr` and in that directory.
fn definitions(directory: &str) -> Value {
    let step = |id: &str, act: Value| json!({ "id": id, "do": act });
    let params = json!({ "record": [{ "get": "input.argv" }, { "get": "input.directory" }, { "get": "input.input" }] });
    json!({
        "definitions": [
            { "defschema": "t/run@1", "type": { "record": [["argv", { "list": "text" }], ["directory", "text"], ["input", "bytes"]] } },
            { "defplan": "t/plan@1", "input": "t/run@1",
              "steps": [
                  step("run", json!({ "emit": { "effect": "sys/exec@1", "capability": "t/runs@1", "params": params } })),
                  step("ran", json!({ "await_receipt": { "of": "run" } })),
              ],
              "edges": [{ "from": "run", "to": "ran" }] },
            { "defcap": "t/runs@1", "effect": "sys/exec@1", "holders": ["t/plan@1"],
              "scope": { "exec": { "programs": ["/usr/bin/tr"], "profile": "base", "directories": [directory], "max_cpu_ms": 5000 } } },
            { "defpolicy": "t/rules@1", "rules": [{ "when": { "effect": "sys/exec@1" }, "decide": "allow" }],
              "proposals": { "approvals": 1, "proposer_counts": true, "shadow": true } },
        ],
        "triggers": [{ "event": "t/run@1", "plan": "t/plan@1" }],
        "policy": "t/rules@1",
    })
}
