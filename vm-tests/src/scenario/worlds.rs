//! Worlds: what is refused leaves no trace, what was acknowledged stays, and whoever has the file can check it.

mod copies;
mod denials;
mod events;
mod kills;
mod modules;
pub(super) mod power;
mod programs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::harness::{Output, Test, agentctl, json};

/// Where the sample reducers are in the machine.
const SAMPLES: &str = "/srv/wasm";

pub(super) fn run(test: &mut Test) -> Result<()> {
    events::run(test)?;
    modules::run(test)?;
    denials::run(test)?;
    programs::run(test)?;
    copies::run(test)?;
    kills::run(test)
}

/// A world, by its name.
#[derive(Clone, Copy, Debug)]
struct World(&'static str);

impl World {
    /// Makes one, with nothing defined.
    fn empty(name: &'static str) -> Result<World> {
        agentctl(&["world", "init", name])?.ok("world init")?;
        Ok(World(name))
    }

    /// Makes one in which a sample is in force.
    fn with(name: &'static str, sample: &str) -> Result<World> {
        let world = World::empty(name)?;
        let proposal = world.propose(&format!("{SAMPLES}/{sample}.json"))?;
        for verb in ["shadow", "approve", "apply"] {
            world.govern(verb, &proposal)?.ok(verb)?;
        }
        Ok(world)
    }

    /// Proposes the definitions in a file; gives the proposal's number.
    fn propose(self, file: &str) -> Result<String> {
        let view = json(&["world", "propose", self.0, file])?.pop().context("no proposal")?;
        Ok(view["proposal"].to_string())
    }

    /// A step of governance: `shadow`, `approve`, `apply`.
    fn govern(self, verb: &str, proposal: &str) -> Result<Output> {
        agentctl(&["world", verb, self.0, proposal])
    }

    /// Sends an event.
    fn send(self, event: &str, value: &str) -> Result<Output> {
        agentctl(&["world", "event", "send", self.0, event, value])
    }

    /// Sends an event for a cell.
    fn send_to(self, event: &str, value: &str, key: &str) -> Result<Output> {
        agentctl(&["world", "event", "send", self.0, event, value, "--key", key])
    }

    /// Lets the counter count; gives the record.
    fn count(self, by: i64) -> Result<u64> {
        record(&self.send("demo/count@1", &format!("{{\"by\":{by}}}"))?)
    }

    /// As `world show` shows it.
    fn view(self) -> Result<Value> {
        json(&["world", "show", self.0])?.pop().context("nothing is shown")
    }

    /// The hash of its state.
    fn state(self) -> Result<String> {
        Ok(self.view()?["state"].as_str().context("no state is shown")?.to_owned())
    }

    /// Position and hash of its newest record.
    fn newest(self) -> Result<(u64, String)> {
        let record = self.records(1)?.pop().context("no record")?;
        Ok((record["seq"].as_u64().context("no seq")?, record["hash"].as_str().context("no hash")?.to_owned()))
    }

    /// Its newest records, oldest first.
    fn records(self, most: u32) -> Result<Vec<Value>> {
        json(&["world", "journal", "tail", self.0, "-n", &most.to_string()])
    }

    /// The counter's cell, now or after a record.
    fn counter(self, at: Option<u64>) -> Result<Value> {
        let at = at.map(|at| at.to_string());
        let mut words = vec!["world", "state", "get", self.0, "demo/counter@1"];
        words.extend(at.iter().flat_map(|at| ["--at", at]));
        let text = agentctl(&words)?.ok("world state get")?;
        serde_json::from_str(&text).with_context(|| format!("{text:?} is no state"))
    }
}

/// The record that a command says it made.
fn record(output: &Output) -> Result<u64> {
    let text = output.clone().ok("the command")?;
    let number = text.trim().strip_prefix("record ").and_then(|number| number.parse().ok());
    number.with_context(|| format!("{text:?} names no record"))
}

/// Tries what must be refused, with its status and what is said of it, and must leave no record.
fn leaves_no_trace(
    test: &mut Test,
    world: World,
    (about, status, parts): (&str, i32, &[&str]),
    attempt: impl FnOnce() -> Result<Output>,
) -> Result<()> {
    let before = world.newest()?;
    let output = attempt()?;
    test.check(output.status == status, || {
        format!("{about}: status {} instead of {status}: {}", output.status, output.stderr.trim())
    });
    for part in parts {
        test.contains(about, &output.stderr, part);
    }
    test.check(!output.stderr.contains("panicked"), || format!("{about}: {}", output.stderr));
    test.same(&format!("newest record after {about}"), world.newest()?, before);
    Ok(())
}
