//! `agentctl world effects|allow|refuse|receipt`

use agentd_protocol::{AnswerParams, EffectView, Method, ReceiptView, RecordParams, RecordedView};
use clap::{Args, Subcommand};

use super::{params, recorded};
use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::table::Table;
use crate::terminal;
use crate::text::clean;
use crate::ui::Tone;

/// Print effects that are on their way, and those that wait for a person
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world effects watch")]
pub(super) struct Effects {
    /// Which world
    world: String,
}

impl Effects {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let views: Vec<EffectView> = context.ask(&mut client, &Method::WorldEffects(params(&self.world)), "asking")?;
        if context.ui.is_json() {
            views.iter().try_for_each(|view| context.ui.object(view))?;
            return Ok(0);
        }
        let mut table = Table::new(&["EFFECT", "PHASE", "KIND", "WANTED BY", "RECORD", "PARAMETERS"]);
        for view in &views {
            let tone = if view.phase == "asked" { Tone::Warn } else { Tone::Plain };
            table.row([
                (view.effect.chars().take(12).collect(), Tone::Heading),
                (view.phase.clone(), tone),
                (clean(&view.kind).into_owned(), Tone::Plain),
                (clean(&view.origin).into_owned(), Tone::Plain),
                (view.record.to_string(), Tone::Dim),
                (clean(&view.params.to_string()).into_owned(), Tone::Plain),
            ]);
        }
        context.ui.answer(&table.print(terminal::columns()))?;
        Ok(0)
    }
}

/// Say yes to an effect that waits for a person
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world allow watch 3f1c")]
pub(super) struct Allow {
    /// Which world
    world: String,
    /// The effect: the beginning of its id
    effect: String,
    /// Why
    #[arg(long, default_value = "")]
    note: String,
}

/// Say no to an effect that waits for a person
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world refuse watch 3f1c --note 'not at night'")]
pub(super) struct Refuse {
    /// Which world
    world: String,
    /// The effect: the beginning of its id
    effect: String,
    /// Why
    #[arg(long, default_value = "")]
    note: String,
}

impl Allow {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        answer(context, self.world, self.effect, true, self.note)
    }
}

impl Refuse {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        answer(context, self.world, self.effect, false, self.note)
    }
}

fn answer(context: &Context, world: String, effect: String, allow: bool, note: String) -> Result<u8, Failure> {
    let mut client = context.client()?;
    let method = Method::WorldAnswer(AnswerParams { world, effect, allow, note });
    let view: RecordedView = context.ask(&mut client, &method, "recording")?;
    recorded(context, &view)
}

/// Read and verify receipts
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world receipt show watch 12\n  agentctl world receipt verify watch 12")]
pub(super) struct ReceiptArgs {
    #[command(subcommand)]
    command: ReceiptCommand,
}

#[derive(Subcommand)]
enum ReceiptCommand {
    Show(Show),
    Verify(Verify),
}

/// Print a receipt
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl world receipt show watch 12\n  agentctl world receipt show watch 12 --json"
)]
struct Show {
    /// Which world
    world: String,
    /// The record that holds it
    record: u64,
}

/// Check who signed a receipt; the status is 1 if it is not the key that the world names
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world receipt verify watch 12")]
struct Verify {
    /// Which world
    world: String,
    /// The record that holds it
    record: u64,
}

impl ReceiptArgs {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let (world, record, verify) = match self.command {
            ReceiptCommand::Show(Show { world, record }) => (world, record, false),
            ReceiptCommand::Verify(Verify { world, record }) => (world, record, true),
        };
        let mut client = context.client()?;
        let method = Method::WorldReceipt(RecordParams { world, record });
        let view: ReceiptView = context.ask(&mut client, &method, "asking")?;
        if verify && !view.verified {
            return Err(Failure::new(Exit::Failed, format!("the receipt is not signed with {}", view.key)));
        }
        if context.ui.is_json() {
            context.ui.object(&view)?;
            return Ok(0);
        }
        let took = (view.ended_ns.saturating_sub(view.began_ns)) as f64 / 1e6;
        let reason = view.reason.as_deref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
        let signed = if view.verified { "signed with" } else { "NOT signed with" };
        context.ui.answer(&format!(
            "effect   {}\nkind     {}\nstatus   {}{reason}\nresult   {}\nadapter  {}, attempt {}, {took:.1} ms\n{signed} {}\n",
            view.effect,
            clean(&view.kind),
            clean(&view.status),
            clean(&view.result.to_string()),
            clean(&view.adapter),
            view.attempt,
            view.key
        ))?;
        Ok(0)
    }
}
