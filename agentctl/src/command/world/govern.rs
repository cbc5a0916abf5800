//! `agentctl world def|propose|shadow|approve|reject|apply`

use std::collections::BTreeMap;
use std::path::Path;

use agentd_protocol::{Method, ProposalParams, ProposalView, ProposeParams, RecordedView};
use clap::Args;
use data_encoding::BASE64;
use serde_json::Value;

use super::{json, not_read, params, recorded};
use crate::cli::Context;
use crate::failure::Failure;
use crate::text::clean;

/// Print everything that is defined, in the form in which it is written
///
/// What is printed can be changed and proposed again.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world def watch
  agentctl world def watch acme/rules@1
  agentctl world def watch > rules.json; $EDITOR rules.json; agentctl world propose watch rules.json")]
pub(super) struct Def {
    /// Which world
    world: String,
    /// Only this definition
    name: Option<String>,
}

impl Def {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let document: Value = context.ask(&mut client, &Method::WorldDefs(params(&self.world)), "asking")?;
        let shown = match &self.name {
            None => document,
            Some(name) => {
                let words = ["defschema", "defmodule", "defplan", "defcap", "defpolicy"];
                let named = |node: &&Value| words.iter().any(|word| node[*word] == Value::String(name.clone()));
                let nodes = document["definitions"].as_array().cloned().unwrap_or_default();
                let found = nodes.iter().find(named).cloned();
                found.ok_or_else(|| Failure::new(crate::failure::Exit::Failed, format!("{name} is not defined")))?
            }
        };
        if context.ui.is_json() {
            context.ui.line(&shown)?;
        } else {
            context.ui.line(format!("{shown:#}"))?;
        }
        Ok(0)
    }
}

/// Propose other definitions
///
/// FILE holds all that is to be defined, as `agentctl world def` prints it, or a patch. A module's WASM is named as
/// `\"wasm\": \"file:counter.wasm\"`, beside FILE. Nothing changes before it is approved and applied.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world propose watch rules.json --note 'three refusals freeze'")]
pub(super) struct Propose {
    /// Which world
    world: String,
    /// JSON; - is standard input
    file: String,
    /// What for
    #[arg(long, default_value = "")]
    note: String,
}

impl Propose {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let air = json(&if self.file == "-" { "-".to_owned() } else { format!("@{}", self.file) })?;
        let mut names = Vec::new();
        files(&air, &mut names);
        let beside = Path::new(&self.file).parent().unwrap_or(Path::new(""));
        let mut wasm = BTreeMap::new();
        for name in names {
            let path = beside.join(name.trim_start_matches("file:"));
            let bytes = std::fs::read(&path).map_err(|error| not_read(&path.display().to_string(), &error))?;
            wasm.insert(name, BASE64.encode(&bytes));
        }
        let mut client = context.client()?;
        let params = ProposeParams { world: self.world.clone(), air, wasm, note: self.note };
        let view: ProposalView = context.ask(&mut client, &Method::WorldPropose(params), "proposing")?;
        if context.ui.is_json() {
            context.ui.object(&view)?;
            return Ok(0);
        }
        let changes: String = view.changes.iter().map(|change| format!("  {}\n", clean(change))).collect();
        let next = format!("agentctl world shadow {} {}", self.world, view.proposal);
        context.ui.answer(&format!("proposal {}\n{changes}next:  {next}\n", view.proposal))?;
        Ok(0)
    }
}

/// Names of files that stand for WASM.
fn files(json: &Value, names: &mut Vec<String>) {
    match json {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "wasm" && text.starts_with("file:") => names.push(text.clone()),
                    other => files(other, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| files(item, names)),
        _ => {}
    }
}

/// Rehearse a proposal on what really happened
///
/// The state as it was some inputs ago is taken twice: as it went, and under the proposal. What would have been
/// different is told; nothing is done. Events of the host that only the proposal listens to are taken from the host's
/// journal.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl world shadow watch 3\n  agentctl world shadow watch 3 --inputs 10000 --json"
)]
pub(super) struct Shadow {
    /// Which world
    world: String,
    /// The record with which it was proposed
    proposal: u64,
    /// On how many inputs, the newest
    #[arg(long, value_name = "N")]
    inputs: Option<u32>,
}

impl Shadow {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let method =
            Method::WorldShadow(ProposalParams { inputs: self.inputs, ..proposal(&self.world, self.proposal) });
        let report: Value = context.ask(&mut client, &method, "rehearsing")?;
        if context.ui.is_json() {
            context.ui.object(&report)?;
            return Ok(0);
        }
        let mut text = format!(
            "rehearsed on {} inputs of the world and {} events of the host\n",
            report["inputs"], report["host_events"]
        );
        for (key, sign) in [("added", "+"), ("gone", "-"), ("decided", "~")] {
            for effect in report[key].as_array().into_iter().flatten() {
                let word = |key: &str| clean(effect[key].as_str().unwrap_or_default());
                text += &format!(
                    "  {sign} {} {}  ({}, {})\n",
                    word("kind"),
                    word("params"),
                    word("origin"),
                    word("decision")
                );
            }
        }
        for (key, what) in [("failures", "steps that would fail"), ("refused", "inputs that would be refused")] {
            for (why, count) in report[key].as_object().into_iter().flatten() {
                text += &format!("  ! {what}: {} ({count} times)\n", clean(why));
            }
        }
        text += &format!("  {} cells would be different\n", report["cells"]);
        if report["beyond"].as_u64().unwrap_or(0) > 0 {
            text +=
                &format!("beyond: what follows from {} effects that were never done is not known\n", report["beyond"]);
        }
        context.ui.answer(&text)?;
        Ok(0)
    }
}

fn proposal(world: &str, proposal: u64) -> ProposalParams {
    let (world, note) = (world.to_owned(), String::new());
    ProposalParams { world, proposal, inputs: None, approve: None, note, fence: false }
}

/// Say yes to a proposal
///
/// Under your own uid, as the kernel vouches for it. The policy in force says how many different people it needs, and
/// whether whoever proposed it counts.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world approve watch 3 --note 'seen in the rehearsal'")]
pub(super) struct Approve {
    /// Which world
    world: String,
    /// The record with which it was proposed
    proposal: u64,
    /// Why
    #[arg(long, default_value = "")]
    note: String,
}

/// Say no to a proposal
///
/// One no is enough; whoever still wants it proposes it again.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world reject watch 3 --note 'freezes the build agents'")]
pub(super) struct Reject {
    /// Which world
    world: String,
    /// The record with which it was proposed
    proposal: u64,
    /// Why
    #[arg(long, default_value = "")]
    note: String,
}

impl Approve {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        vote(context, &self.world, self.proposal, true, self.note)
    }
}

impl Reject {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        vote(context, &self.world, self.proposal, false, self.note)
    }
}

fn vote(context: &Context, world: &str, number: u64, approve: bool, note: String) -> Result<u8, Failure> {
    let mut client = context.client()?;
    let method = Method::WorldVote(ProposalParams { approve: Some(approve), note, ..proposal(world, number) });
    let view: RecordedView = context.ask(&mut client, &method, "recording")?;
    recorded(context, &view)
}

/// Bring a proposal into force
///
/// Refused while effects or plans are on their way. With `--fence` those are given up: their receipts, should they come,
/// are refused.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world apply watch 3\n  agentctl world apply watch 3 --fence")]
pub(super) struct Apply {
    /// Which world
    world: String,
    /// The record with which it was proposed
    proposal: u64,
    /// Give up effects and plans that are on their way
    #[arg(long)]
    fence: bool,
}

impl Apply {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let method = Method::WorldApply(ProposalParams { fence: self.fence, ..proposal(&self.world, self.proposal) });
        let view: RecordedView = context.ask(&mut client, &method, "applying")?;
        recorded(context, &view)
    }
}
