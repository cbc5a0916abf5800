//! `agentctl ps`

use agentd_model::AgentPhase;
use agentd_protocol::{AgentView, Method};
use clap::Args;

use crate::cli::Context;
use crate::event_text::cpu_tone;
use crate::failure::Failure;
use crate::table::Table;
use crate::terminal;
use crate::text::{clean, command_line, cpu_of};
use crate::ui::Tone;

/// List agents
///
/// CPU is the time used, and the limit where there is one. TIER is what enforces the rules on files; a star says that
/// promises were given up at its start, which `agentctl inspect` names.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl ps\n  agentctl ps --all\n  agentctl ps --json | jq -r .name")]
pub(crate) struct Ps {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
}

impl Ps {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let agents: Vec<AgentView> = context.ask(&mut client, &Method::AgentList { all: self.all }, "asking")?;
        if context.ui.is_json() {
            for agent in &agents {
                context.ui.object(agent)?;
            }
            return Ok(0);
        }
        if agents.is_empty() {
            let none =
                if self.all { "no agents yet" } else { "no agents run; agentctl ps --all shows those that have ended" };
            context.ui.note(none);
            return Ok(0);
        }
        context.ui.answer(&table(&agents).print(terminal::columns()))?;
        Ok(0)
    }
}

fn table(agents: &[AgentView]) -> Table {
    let mut table = Table::new(&["NAME", "AGENT", "PHASE", "CPU", "DENIED", "TIER", "COMMAND"]);
    for agent in agents {
        let (phase, tone) = phase(agent);
        let tier = agent.tiers.iter().find(|tier| tier.domain == "files").map_or("-", |tier| &tier.tier);
        table.row([
            (clean(&agent.name).into_owned(), Tone::Heading),
            (agent.agent.to_string(), Tone::Plain),
            (phase, tone),
            (cpu_of(agent.cpu_spent_ns, agent.cpu_limit_ns), cpu_tone(agent.cpu_spent_ns, agent.cpu_limit_ns)),
            (agent.denials.to_string(), if agent.denials > 0 { Tone::Bad } else { Tone::Plain }),
            (format!("{}{}", clean(tier), if agent.gaps.is_empty() { "" } else { "*" }), Tone::Plain),
            (command_line(&agent.argv), Tone::Plain),
        ]);
    }
    table
}

/// Where in its life an agent is; at its end, how it ended.
pub(super) fn phase(agent: &AgentView) -> (String, Tone) {
    let tone = match agent.phase {
        AgentPhase::Running => Tone::Good,
        AgentPhase::Paused | AgentPhase::Exhausted => Tone::Warn,
        AgentPhase::Failed | AgentPhase::Lost => Tone::Bad,
        AgentPhase::Starting | AgentPhase::Exited => Tone::Plain,
    };
    match agent.status {
        Some(status) => (status.to_string(), if status.shell_code() == 0 { Tone::Plain } else { Tone::Bad }),
        None => (agent.phase.to_string(), tone),
    }
}
