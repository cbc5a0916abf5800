//! `agentctl budget`

use agentd_model::{Budget, BudgetError};
use agentd_protocol::{AgentView, BudgetView, Method, TopUpParams};
use clap::{Args, Subcommand};

use crate::cli::Context;
use crate::client::Client;
use crate::event_text::cpu_tone;
use crate::failure::Failure;
use crate::table::Table;
use crate::terminal;
use crate::text::{clean, cpu};
use crate::ui::Tone;

use super::params;

/// Show and raise budgets
///
/// CPU time is a ledger: what an agent and all its children used stays used. At the limit the agent is frozen, not ended,
/// and a top-up lets it go on where it was.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl budget show\n  agentctl budget topup optimizer cpu:10m")]
pub(crate) struct BudgetArgs {
    #[command(subcommand)]
    command: BudgetCommand,
}

#[derive(Subcommand)]
enum BudgetCommand {
    Show(Show),
    Topup(TopUp),
}

/// Show what was used of what
///
/// Of one agent, or of all that run.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl budget show\n  agentctl budget show --json optimizer")]
struct Show {
    /// Name or number; without one, every agent that runs
    agent: Option<String>,
}

/// Give an agent more CPU time
///
/// Adds to the limit. An agent that was frozen because its budget was spent goes on.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl budget topup optimizer cpu:10m")]
struct TopUp {
    /// Name or number
    agent: String,
    /// How much more, as cpu:10m
    #[arg(value_name = "BUDGET", value_parser = budget)]
    budget: String,
}

fn budget(text: &str) -> Result<String, BudgetError> {
    text.parse::<Budget>().map(|_| text.to_owned())
}

impl BudgetArgs {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let views = match self.command {
            BudgetCommand::Show(Show { agent: Some(agent) }) => vec![show(&mut client, &agent)?],
            BudgetCommand::Show(Show { agent: None }) => {
                let agents: Vec<AgentView> = context.ask(&mut client, &Method::AgentList { all: false }, "asking")?;
                agents.iter().map(|a| show(&mut client, &a.agent.to_string())).collect::<Result<_, _>>()?
            }
            BudgetCommand::Topup(TopUp { agent, budget }) => {
                let method = Method::BudgetTopUp(TopUpParams { agent, budget });
                let view: BudgetView = context.ask(&mut client, &method, "topping up")?;
                if !context.ui.is_json() {
                    context.ui.note(format!("{}: {}", clean(&view.name), left(&view)));
                    return Ok(0);
                }
                vec![view]
            }
        };
        if context.ui.is_json() {
            views.iter().try_for_each(|view| context.ui.object(view))?;
        } else if views.is_empty() {
            context.ui.note("no agents run");
        } else {
            context.ui.answer(&table(&views).print(terminal::columns()))?;
        }
        Ok(0)
    }
}

fn show(client: &mut Client, agent: &str) -> Result<BudgetView, Failure> {
    Ok(client.call(&Method::BudgetShow(params(agent)))?)
}

/// CPU time to the millisecond, as far as a person wants it.
fn exact(ns: u64) -> String {
    if ns < 60_000_000_000 { format!("{}.{:03}s", ns / 1_000_000_000, ns / 1_000_000 % 1000) } else { cpu(ns) }
}

fn left(view: &BudgetView) -> String {
    match view.cpu_limit_ns {
        Some(limit) => format!("{} of {} CPU time left", exact(limit.saturating_sub(view.cpu_spent_ns)), cpu(limit)),
        None => "no limit on CPU time".to_owned(),
    }
}

fn table(views: &[BudgetView]) -> Table {
    let mut table = Table::new(&["NAME", "CPU USED", "LIMIT", "LEFT", "STATE", "OTHER LIMITS"]);
    for view in views {
        let limit = |text: &dyn Fn(u64) -> String| view.cpu_limit_ns.map_or("-".to_owned(), text);
        let others = Budget { cpu: None, ..view.limits };
        table.row([
            (clean(&view.name).into_owned(), Tone::Heading),
            (exact(view.cpu_spent_ns), cpu_tone(view.cpu_spent_ns, view.cpu_limit_ns)),
            (limit(&cpu), Tone::Plain),
            (limit(&|limit| exact(limit.saturating_sub(view.cpu_spent_ns))), Tone::Plain),
            if view.exhausted { ("spent".to_owned(), Tone::Warn) } else { ("ok".to_owned(), Tone::Good) },
            (if others == Budget::default() { "-".to_owned() } else { others.to_string() }, Tone::Plain),
        ]);
    }
    table
}
