//! `agentctl world init|list|show|event|state|cells`

use agentd_protocol::{CellView, CellsParams, Method, RecordedView, SendParams, WorldView};
use clap::{Args, Subcommand};

use super::{json, params, recorded};
use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::table::Table;
use crate::terminal;
use crate::text::clean;
use crate::ui::Tone;

/// Make a world
///
/// It begins with nothing defined: every effect is denied, and one person's yes changes it.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world init watch")]
pub(super) struct Init {
    /// Its name
    world: String,
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let view: WorldView = context.ask(&mut client, &Method::WorldInit(params(&self.world)), "making the world")?;
        print(context, &[view])
    }
}

/// Print every world
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world list\n  agentctl world list --json")]
pub(super) struct List {}

impl List {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let views: Vec<WorldView> = context.ask(&mut client, &Method::WorldList {}, "asking")?;
        print(context, &views)
    }
}

fn print(context: &Context, views: &[WorldView]) -> Result<u8, Failure> {
    if context.ui.is_json() {
        views.iter().try_for_each(|view| context.ui.object(view))?;
        return Ok(0);
    }
    let mut table = Table::new(&["WORLD", "RECORDS", "EVENTS", "CELLS", "EFFECTS", "PLANS", "PROPOSALS", "ID"]);
    for view in views {
        let count = |number: u64| (number.to_string(), Tone::Plain);
        let waiting = if view.proposals.is_empty() { Tone::Plain } else { Tone::Warn };
        table.row([
            (clean(&view.world).into_owned(), Tone::Heading),
            count(view.seq),
            count(view.events),
            count(view.cells),
            count(view.effects),
            count(view.plans),
            (view.proposals.len().to_string(), waiting),
            (view.id.clone(), Tone::Dim),
        ]);
    }
    context.ui.answer(&table.print(terminal::columns()))?;
    Ok(0)
}

/// Print one world: its state's hash, its keys, its proposals
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world show watch")]
pub(super) struct Show {
    /// Which world
    world: String,
}

impl Show {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let view: WorldView = context.ask(&mut client, &Method::WorldShow(params(&self.world)), "asking")?;
        if context.ui.is_json() {
            context.ui.object(&view)?;
            return Ok(0);
        }
        let mut text = format!("world     {}\nid        {}\nrecords   {}\n", clean(&view.world), view.id, view.seq);
        text += &format!("state     {}\n", view.state.as_deref().unwrap_or_default());
        text += &format!("manifest  {}\nkey       {}\n", view.manifest, view.key);
        text += &format!(
            "events    {}, cells {}, effects on their way {}, plans {}\n",
            view.events, view.cells, view.effects, view.plans
        );
        for proposal in &view.proposals {
            let said = if proposal.approved.is_empty() {
                "nobody yet".to_owned()
            } else {
                format!("uid {:?}", proposal.approved)
            };
            text += &format!("\nproposal {} by {}, approved by {said}\n", proposal.proposal, clean(&proposal.by));
            for change in &proposal.changes {
                text += &format!("  {}\n", clean(change));
            }
        }
        context.ui.answer(&text)?;
        Ok(0)
    }
}

/// Send events
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world event send watch demo/count@1 '{\"by\":3}'")]
pub(super) struct EventArgs {
    #[command(subcommand)]
    command: EventCommand,
}

#[derive(Subcommand)]
enum EventCommand {
    Send(Send),
}

/// Send an event
///
/// The value is checked against its schema before anything is recorded; what is wrong with it is said with its place.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world event send watch demo/count@1 '{\"by\":3}'
  agentctl world event send shop demo/task@1 '{\"created\":\"paint\"}' --key '\"t-1\"'
  generate | agentctl world event send watch demo/count@1 -")]
struct Send {
    /// Which world
    world: String,
    /// Schema of the event, as ns/name@1
    event: String,
    /// Its value as JSON; @FILE reads a file, - standard input
    value: String,
    /// Key of the cell that it is for, as JSON, where the route leaves it to the sender
    #[arg(long, value_name = "JSON")]
    key: Option<String>,
}

impl EventArgs {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let EventCommand::Send(Send { world, event, value, key }) = self.command;
        let key = key.as_deref().map(json).transpose()?;
        let method = Method::WorldSend(SendParams { world, event, value: json(&value)?, key });
        let mut client = context.client()?;
        let view: RecordedView = context.ask(&mut client, &method, "sending")?;
        recorded(context, &view)
    }
}

/// Look at the state of modules
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world state ls watch\n  agentctl world state get watch demo/counter@1")]
pub(super) struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Subcommand)]
enum StateCommand {
    Get(Get),
    Ls(Ls),
}

/// Print the state of one module, or of one of its cells
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world state get watch demo/counter@1
  agentctl world state get shop demo/tasks@1 --key '\"t-1\"' --at 40")]
struct Get {
    /// Which world
    world: String,
    /// Which module, as ns/name@1
    module: String,
    /// Key of the cell, as JSON
    #[arg(long, value_name = "JSON")]
    key: Option<String>,
    /// As it was after this record
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
}

/// Print which modules have state, and how many cells
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world state ls watch")]
struct Ls {
    /// Which world
    world: String,
    /// As it was after this record
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
}

impl StateArgs {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        match self.command {
            StateCommand::Get(Get { world, module, key, at }) => {
                let key = key.as_deref().map(json).transpose()?;
                let named = module.clone();
                let method = Method::WorldCells(CellsParams { world, module: Some(module), key: key.clone(), at });
                let cells: Vec<CellView> = context.ask(&mut client, &method, "asking")?;
                match cells.as_slice() {
                    [cell] => context.ui.line(&cell.state)?,
                    [] => return Err(Failure::new(Exit::Failed, format!("{named} has no such cell"))),
                    _ => {
                        let failure =
                            Failure::new(Exit::Usage, format!("{named} has {} cells; which one?", cells.len()));
                        return Err(failure.hint("agentctl world cells WORLD MODULE"));
                    }
                }
                Ok(0)
            }
            StateCommand::Ls(Ls { world, at }) => {
                let method = Method::WorldCells(CellsParams { world, module: None, key: None, at });
                let cells: Vec<CellView> = context.ask(&mut client, &method, "asking")?;
                let mut modules: std::collections::BTreeMap<String, u64> = Default::default();
                cells.into_iter().for_each(|cell| *modules.entry(cell.module).or_default() += 1);
                for (module, cells) in modules {
                    if context.ui.is_json() {
                        context.ui.object(&serde_json::json!({ "module": module, "cells": cells }))?;
                    } else {
                        context.ui.line(format!("{module}  {cells}"))?;
                    }
                }
                Ok(0)
            }
        }
    }
}

/// Print the cells of modules that keep their state by key
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world cells shop\n  agentctl world cells shop demo/tasks@1 --json")]
pub(super) struct Cells {
    /// Which world
    world: String,
    /// Only of this module
    module: Option<String>,
    /// As it was after this record
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
}

impl Cells {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let method = Method::WorldCells(CellsParams { world: self.world, module: self.module, key: None, at: self.at });
        let cells: Vec<CellView> = context.ask(&mut client, &method, "asking")?;
        if context.ui.is_json() {
            cells.iter().try_for_each(|cell| context.ui.object(cell))?;
            return Ok(0);
        }
        let mut table = Table::new(&["MODULE", "KEY", "STATE"]);
        for cell in &cells {
            let key = if cell.key.is_null() { String::new() } else { clean(&cell.key.to_string()).into_owned() };
            table.row([
                (clean(&cell.module).into_owned(), Tone::Heading),
                (key, Tone::Plain),
                (clean(&cell.state.to_string()).into_owned(), Tone::Plain),
            ]);
        }
        context.ui.answer(&table.print(terminal::columns()))?;
        Ok(0)
    }
}
