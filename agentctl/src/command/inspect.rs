//! `agentctl inspect`

use agentd_model::{Rights, Terminal};
use agentd_protocol::{AgentDetail, AgentView, Method};
use clap::Args;

use crate::cli::Context;
use crate::event_text::{cpu_share, cpu_tone, origin};
use crate::failure::Failure;
use crate::table::Table;
use crate::text::{clean, command_line};
use crate::ui::Tone;
use crate::{clock, terminal};

use super::{params, ps};

/// Show everything about one agent
///
/// Its life, its budget, what enforces what, and every rule with the place where it was written.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl inspect optimizer\n  agentctl inspect --json 7 | jq .detail.paths")]
pub(crate) struct Inspect {
    /// Name or number
    agent: String,
}

impl Inspect {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let agent: AgentView = context.ask(&mut client, &Method::AgentShow(params(&self.agent)), "asking")?;
        if context.ui.is_json() {
            context.ui.object(&agent)?;
            return Ok(0);
        }
        context.ui.answer(&page(&agent, terminal::columns()))?;
        Ok(0)
    }
}

fn page(agent: &AgentView, width: Option<usize>) -> String {
    let mut out = format!("{} (agent {})\n", Tone::Heading.paint(clean(&agent.name)), agent.agent);
    let mut fact = |name: &str, value: String| out += &format!("  {}{value}\n", Tone::Dim.paint(format!("{name:<11}")));
    let (phase, tone) = ps::phase(agent);
    fact("phase", tone.paint(phase));
    if let Some(reason) = &agent.reason {
        fact("reason", clean(reason).into_owned());
    }
    fact("command", command_line(&agent.argv));
    fact("workspace", clean(&agent.cwd).into_owned());
    fact("user", format!("uid {}", agent.uid));
    fact("profile", clean(&agent.profile).into_owned());
    fact("asked for", format!("{} by {}", clock::local(agent.requested), agent.by));
    if let Some(pid) = agent.init_pid {
        fact("process", format!("{pid}{}", agent.cgroup_id.map(|id| format!(", cgroup {id}")).unwrap_or_default()));
    }
    let (spent, limit) = (agent.cpu_spent_ns, agent.cpu_limit_ns);
    fact("cpu", cpu_tone(spent, limit).paint(cpu_share(spent, limit)));
    if let Some(detail) = &agent.detail {
        fact("budget", detail.budget.to_string());
        fact(
            "terminal",
            match detail.terminal {
                Terminal::Pipes => "pipes".to_owned(),
                Terminal::Pty { rows, columns } => format!("pty, {rows} by {columns}"),
            },
        );
    }
    fact(
        "refusals",
        match agent.last_denial {
            Some(record) => format!("{}; agentctl why {record}", agent.denials),
            None => agent.denials.to_string(),
        },
    );
    let tiers: Vec<String> =
        agent.tiers.iter().map(|t| format!("{} by {}", clean(&t.domain), clean(&t.tier))).collect();
    fact("enforced", tiers.join(", "));
    for gap in &agent.gaps {
        fact("without", Tone::Warn.paint(format!("{gap}: {}", gap.meaning())));
    }
    agent.detail.iter().for_each(|detail| out += &rules(detail, width));
    out
}

fn rules(detail: &AgentDetail, width: Option<usize>) -> String {
    let mut out = String::new();
    let plain = |text: String| (text, Tone::Plain);
    if !detail.paths.is_empty() {
        let mut table = Table::new(&["RULE", "ALLOW", "DENY", "PATH", "FROM"]);
        for (number, rule) in detail.paths.iter().enumerate() {
            let words = |rights: Rights| if rights.is_empty() { "-".to_owned() } else { rights.to_string() };
            table.row([
                plain((number + 1).to_string()),
                (words(rule.allow), Tone::Good),
                (words(rule.deny), Tone::Bad),
                plain(clean(&rule.path).into_owned()),
                (origin(&rule.origin), Tone::Dim),
            ]);
        }
        out += &format!("\n{}", table.print(width));
    }
    if !detail.nets.is_empty() {
        let mut table = Table::new(&["ALLOW", "ADDRESS", "FROM"]);
        for rule in &detail.nets {
            let ops = match (rule.ops.connect, rule.ops.bind) {
                (true, true) => "connect, bind",
                (true, false) => "connect",
                (false, true) => "bind",
                (false, false) => "-",
            };
            let address = rule.to_string();
            let address = address.strip_prefix("bind:").unwrap_or(&address).to_owned();
            table.row([(ops.to_owned(), Tone::Good), plain(address), (origin(&rule.origin), Tone::Dim)]);
        }
        out += &format!("\n{}", table.print(width));
    }
    out
}
