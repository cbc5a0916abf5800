//! `agentctl resume`

use agentd_protocol::{AgentView, Method};
use clap::Args;

use crate::cli::Context;
use crate::failure::Failure;

use super::params;

/// Thaw paused agents
///
/// An agent whose budget is spent stays frozen; `agentctl budget topup` is for that.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl resume optimizer")]
pub(crate) struct Resume {
    /// Names or numbers
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<String>,
}

impl Resume {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        for agent in &self.agents {
            let method = Method::AgentResume(params(agent));
            let view: AgentView = context.ask(&mut client, &method, format!("resuming {agent}"))?;
            if context.ui.is_json() {
                context.ui.object(&view)?;
            }
        }
        Ok(0)
    }
}
