//! `agentctl why`

use agentd_protocol::{ExplanationView, Method, WhyParams};
use clap::Args;

use crate::cli::Context;
use crate::event_text::line;
use crate::failure::Failure;
use crate::text::clean;
use crate::ui::Tone;

/// Explain a refusal, or any other record
///
/// Says what was refused, which rule decided, where that rule was written, and what to type to ask for it. Records have
/// the numbers that `agentctl audit` prints first on a line.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl why --last
  agentctl why 4711
  agentctl why --agent optimizer")]
pub(crate) struct Why {
    /// Number of a record
    #[arg(value_parser = number)]
    record: Option<u64>,
    /// The newest refusal; the same as no record
    #[arg(long, conflicts_with = "record")]
    last: bool,
    /// The newest refusal of this agent
    #[arg(short, long, value_name = "AGENT", conflicts_with = "record")]
    agent: Option<String>,
}

impl Why {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let method = Method::Why(WhyParams { record: self.record, agent: self.agent });
        let answer: ExplanationView = context.ask(&mut client, &method, "looking")?;
        if context.ui.is_json() {
            context.ui.object(&answer)?;
        } else {
            context.ui.answer(&page(&answer))?;
        }
        Ok(0)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| format!("{error}; for an agent write --agent {text}"))
}

fn page(answer: &ExplanationView) -> String {
    let mut out = format!("{}\n", Tone::Heading.paint(clean(&answer.what)));
    for because in &answer.because {
        out += &format!("  because {}\n", clean(because));
    }
    out += &format!("\n{}\n", line(&answer.record));
    for record in answer.chain.iter().filter(|record| record.seq != answer.record.seq) {
        out += &format!("{}\n", line(record));
    }
    if let Some(hint) = &answer.hint {
        out += &format!("\n{}  {}\n", Tone::Good.paint("hint:"), clean(hint));
    }
    out
}
