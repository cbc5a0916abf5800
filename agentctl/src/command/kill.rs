//! `agentctl kill`

use agentd_protocol::{AgentView, Method, SignalParams};
use clap::Args;

use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::signal;
use crate::text::{clean, command_line};

use super::params;

/// End agents, or send them a signal
///
/// Kills every process of the agent at once, frozen or not. With --signal, only the agent's program gets that signal and
/// may answer it. Files stay as they are, and so do the log and the records; what was killed does not come back.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl kill optimizer
  agentctl kill --signal TERM optimizer
  agentctl kill --dry-run optimizer night")]
pub(crate) struct Kill {
    /// Send this signal to the agent's program instead: TERM, SIGTERM or 15
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal::parse)]
    signal: Option<u8>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Names or numbers
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<String>,
}

impl Kill {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        for agent in &self.agents {
            let method = if self.dry_run {
                Method::AgentShow(params(agent))
            } else {
                Method::AgentSignal(SignalParams { agent: agent.clone(), signal: self.signal })
            };
            let view: AgentView = context.ask(&mut client, &method, format!("ending {agent}"))?;
            if context.ui.is_json() {
                context.ui.object(&view)?;
            } else if self.dry_run {
                context.ui.line(self.plan(&view)?)?;
            }
        }
        Ok(0)
    }

    fn plan(&self, view: &AgentView) -> Result<String, Failure> {
        let name = clean(&view.name);
        if !view.phase.is_live() {
            return Err(Failure::new(Exit::Failed, format!("agent {name} has already ended"))
                .hint(format!("agentctl inspect {name}")));
        }
        let command = command_line(&view.argv);
        Ok(match self.signal {
            Some(number) => format!("would send {} to {command} of agent {name}", signal::name(number)),
            None => format!("would kill everything in agent {name} ({command}); its files, log and records stay"),
        })
    }
}
