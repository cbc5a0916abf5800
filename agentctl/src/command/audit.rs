//! `agentctl audit`

use agentd_protocol::{AuditParams, DaemonView, Method, RecordView};
use clap::Args;

use crate::cli::Context;
use crate::client::Client;
use crate::event_text::line;
use crate::failure::{Exit, Failure};

/// So many records when nobody says how many.
const DEFAULT: u32 = 100;

/// Print the records of the journal
///
/// One line a record, oldest first: its number, when, which agent, what happened. The journal is the ground truth: what
/// is not in it did not happen. `agentctl why NUMBER` explains a record.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl audit
  agentctl audit --follow --agent optimizer
  agentctl audit -n all --json > records.jsonl
  agentctl audit --after 4711")]
pub(crate) struct Audit {
    /// Go on with every new record
    #[arg(short, long)]
    follow: bool,
    /// Only records about this agent
    #[arg(short, long, value_name = "AGENT")]
    agent: Option<String>,
    /// At most so many, the newest, or `all` [default: 100; with --after: all]
    #[arg(short = 'n', long = "lines", value_name = "N", value_parser = lines)]
    lines: Option<Lines>,
    /// Only records after this number
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
}

#[derive(Clone, Copy)]
enum Lines {
    All,
    Newest(u32),
}

fn lines(text: &str) -> Result<Lines, String> {
    match text {
        "all" => Ok(Lines::All),
        _ => text.parse().map(Lines::Newest).map_err(|error| format!("{error}; write a number, or all")),
    }
}

impl Audit {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let last = match (self.lines, self.after) {
            (Some(Lines::Newest(n)), _) => Some(n),
            (Some(Lines::All), _) | (None, Some(_)) => None,
            (None, None) => Some(DEFAULT),
        };
        // Without a number to begin after, the daemon gives the newest few; all begin after none.
        let mut after = if last.is_none() { self.after.or(Some(0)) } else { self.after };
        if last == Some(0) {
            let daemon: DaemonView = client.call(&Method::DaemonInfo {})?;
            after = Some(daemon.journal_seq.max(after.unwrap_or(0)));
        } else {
            self.past(context, &mut client, &mut after, last)?;
        }
        if self.follow {
            self.future(context, &mut client, after)?;
        }
        Ok(0)
    }

    /// Prints what is there. A reply holds what fits on a line, oldest first, and the next goes on after it.
    fn past(
        &self,
        context: &Context,
        client: &mut Client,
        after: &mut Option<u64>,
        mut last: Option<u32>,
    ) -> Result<(), Failure> {
        while last != Some(0) {
            let params = AuditParams { agent: self.agent.clone(), after: *after, last };
            let records: Vec<RecordView> = context.ask(client, &Method::AuditRead(params), "reading the journal")?;
            let Some(newest) = records.last() else { break };
            *after = Some(newest.seq);
            last = last.map(|last| last.saturating_sub(u32::try_from(records.len()).unwrap_or(u32::MAX)));
            print(context, &records)?;
        }
        Ok(())
    }

    fn future(&self, context: &Context, client: &mut Client, after: Option<u64>) -> Result<(), Failure> {
        let mut seen = after.unwrap_or(0);
        client.send(&Method::AuditFollow(AuditParams { agent: self.agent.clone(), after, last: None }))?;
        while let Some(mut records) = client.records()? {
            records.retain(|record| record.seq > seen);
            seen = records.last().map_or(seen, |record| record.seq);
            print(context, &records)?;
        }
        let hint = format!("agentctl audit --follow --after {seen}");
        Err(Failure::new(Exit::Unreachable, "agentd hung up").hint(hint))
    }
}

fn print(context: &Context, records: &[RecordView]) -> Result<(), Failure> {
    if context.ui.is_json() {
        return records.iter().try_for_each(|record| context.ui.object(record));
    }
    let lines: String = records.iter().map(|record| line(record) + "\n").collect();
    context.ui.answer(&lines)
}
