//! `agentctl world`: worlds beside the host's, their rules, and what happened in them.

mod copies;
mod effects;
mod govern;
mod journal;
mod look;
mod why;

use agentd_protocol::{RecordedView, WorldParams};
use clap::{Args, Subcommand};

use crate::cli::Context;
use crate::failure::{Exit, Failure};

/// Keep worlds: events, rules that are WASM, effects with receipts
///
/// A world is a journal of its own beside the host's. What happens on the host reaches it as `sys/…` events; its reducers
/// answer with effects; every effect passes a capability and a policy and comes back as a signed receipt. Definitions
/// change by proposals that are rehearsed on what really happened before anybody says yes.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world init watch
  agentctl world propose watch rules.json --note 'three refusals freeze'
  agentctl world shadow watch 3 && agentctl world approve watch 3 && agentctl world apply watch 3
  agentctl world journal tail watch
  agentctl world why watch 17")]
pub(crate) struct WorldArgs {
    #[command(subcommand)]
    command: WorldCommand,
}

#[derive(Subcommand)]
enum WorldCommand {
    Init(look::Init),
    List(look::List),
    Show(look::Show),
    Event(look::EventArgs),
    State(look::StateArgs),
    Cells(look::Cells),
    Journal(journal::JournalArgs),
    Replay(copies::Replay),
    Fork(copies::Fork),
    Export(copies::Export),
    Import(copies::Import),
    Def(govern::Def),
    Propose(govern::Propose),
    Shadow(govern::Shadow),
    Approve(govern::Approve),
    Reject(govern::Reject),
    Apply(govern::Apply),
    Effects(effects::Effects),
    Allow(effects::Allow),
    Refuse(effects::Refuse),
    Receipt(effects::ReceiptArgs),
    Why(why::Why),
}

impl WorldArgs {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            WorldCommand::Init(args) => args.run(context),
            WorldCommand::List(args) => args.run(context),
            WorldCommand::Show(args) => args.run(context),
            WorldCommand::Event(args) => args.run(context),
            WorldCommand::State(args) => args.run(context),
            WorldCommand::Cells(args) => args.run(context),
            WorldCommand::Journal(args) => args.run(context),
            WorldCommand::Replay(args) => args.run(context),
            WorldCommand::Fork(args) => args.run(context),
            WorldCommand::Export(args) => args.run(context),
            WorldCommand::Import(args) => args.run(context),
            WorldCommand::Def(args) => args.run(context),
            WorldCommand::Propose(args) => args.run(context),
            WorldCommand::Shadow(args) => args.run(context),
            WorldCommand::Approve(args) => args.run(context),
            WorldCommand::Reject(args) => args.run(context),
            WorldCommand::Apply(args) => args.run(context),
            WorldCommand::Effects(args) => args.run(context),
            WorldCommand::Allow(args) => args.run(context),
            WorldCommand::Refuse(args) => args.run(context),
            WorldCommand::Receipt(args) => args.run(context),
            WorldCommand::Why(args) => args.run(context),
        }
    }
}

fn params(world: &str) -> WorldParams {
    WorldParams { world: world.to_owned() }
}

/// Says which record it became.
fn recorded(context: &Context, view: &RecordedView) -> Result<u8, Failure> {
    if context.ui.is_json() {
        context.ui.object(view)?;
    } else {
        context.ui.line(format!("record {}", view.record))?;
    }
    Ok(0)
}

/// JSON as it stands on the command line; `-` is standard input, `@FILE` a file.
fn json(text: &str) -> Result<serde_json::Value, Failure> {
    let text = match text.strip_prefix('@') {
        _ if text == "-" => std::io::read_to_string(std::io::stdin()).map_err(|e| not_read("standard input", &e))?,
        Some(file) => std::fs::read_to_string(file).map_err(|e| not_read(file, &e))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| Failure::new(Exit::Usage, format!("this is not JSON: {error}")))
}

fn not_read(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("cannot read {what}")).cause(error.to_string())
}
