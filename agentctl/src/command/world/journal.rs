//! `agentctl world journal`

use agentd_model::Stamp;
use agentd_protocol::{Method, PruneParams, PruneView, RecordsParams, VerifyView, WorldRecordView};
use clap::{Args, Subcommand};

use super::{copies, params};
use crate::cli::Context;
use crate::clock;
use crate::failure::Failure;
use crate::text::clean;
use crate::ui::Tone;

/// Read and verify the journal of a world
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world journal tail watch\n  agentctl world journal verify watch")]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Subcommand)]
enum JournalCommand {
    Tail(Tail),
    Verify(Verify),
    Prune(Prune),
    Export(copies::Export),
}

/// Print the newest records, oldest first
///
/// Inputs begin a line at its edge; what follows from them is indented.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl world journal tail watch\n  agentctl world journal tail watch -n 500 --json"
)]
struct Tail {
    /// Which world
    world: String,
    /// At most so many
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 40)]
    lines: u32,
    /// Only records after this number
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
}

/// Read the whole journal and check every hash and signature
///
/// The damaged record is named. `host` is the host's own world; a file is a bundle, which needs no daemon.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world journal verify watch
  agentctl world journal verify host
  agentctl world journal verify ./watch.world")]
struct Verify {
    /// Which world, or the path of a bundle
    world: String,
}

/// Take old records out of the journal
///
/// The journal then begins with a saved state, which its head vouches for, so that everything later still verifies. States
/// are saved every 10,000 records; with `--keep 0` one is saved now. What is taken out is gone: export the world first,
/// and the bundle remains the proof of what was.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world journal export watch > watch.world && agentctl world journal prune watch
  agentctl world journal prune watch --keep 0 --dry-run")]
struct Prune {
    /// Which world
    world: String,
    /// At least so many of the newest records stay
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keep: u64,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

impl JournalArgs {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            JournalCommand::Tail(args) => args.run(context),
            JournalCommand::Verify(args) => args.run(context),
            JournalCommand::Prune(args) => args.run(context),
            JournalCommand::Export(args) => args.run(context),
        }
    }
}

impl Tail {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let method =
            Method::WorldRecords(RecordsParams { world: self.world, after: self.after, last: Some(self.lines) });
        let records: Vec<WorldRecordView> = context.ask(&mut client, &method, "reading the journal")?;
        for record in &records {
            if context.ui.is_json() {
                context.ui.object(record)?;
                continue;
            }
            let seq = Tone::Dim.paint(format!("{:>6}", record.seq));
            let stamp = Stamp { wall_ns: record.wall_ns, ..Stamp::default() };
            let time = Tone::Dim.paint(clock::local(stamp));
            let cause = record.cause.map(|cause| Tone::Dim.paint(format!(" ← {cause}"))).unwrap_or_default();
            let indent = if record.input { "" } else { "  " };
            context.ui.line(format!("{seq}  {time}  {indent}{}{cause}", clean(&record.text)))?;
        }
        Ok(0)
    }
}

impl Prune {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let (keep, dry_run) = (self.keep, self.dry_run);
        let method = Method::WorldPrune(PruneParams { world: self.world, keep, dry_run });
        let view: PruneView = context.ask(&mut client, &method, "taking out old records")?;
        if context.ui.is_json() {
            context.ui.object(&view)?;
        } else {
            let would = if dry_run { "would go" } else { "are gone" };
            let (removed, first, bytes) = (view.removed, view.first, view.bytes / 1024);
            context.ui.line(match removed {
                0 => format!("nothing to take out: the journal begins at record {first}, {bytes} KiB"),
                _ => format!("{removed} records {would}; the journal begins at record {first}, {bytes} KiB"),
            })?;
        }
        Ok(0)
    }
}

impl Verify {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        let view: VerifyView = if copies::is_file(&self.world) {
            copies::offline(&["--verify"], &self.world)?
        } else {
            let mut client = context.client()?;
            context.ask(&mut client, &Method::WorldVerify(params(&self.world)), "verifying")?
        };
        if context.ui.is_json() {
            context.ui.object(&view)?;
        } else {
            let text = format!(
                "records {} to {} are what they were\nhead    {}\nkey     {}\n{} heads signed",
                view.first, view.seq, view.head, view.key, view.signatures
            );
            context.ui.line(text)?;
        }
        Ok(0)
    }
}
