//! `agentctl pause`

use agentd_protocol::{AgentView, Method};
use clap::Args;

use crate::cli::Context;
use crate::failure::Failure;

use super::params;

/// Freeze agents
///
/// Every process of the agent stops where it is and uses no CPU time until `agentctl resume`.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl pause optimizer\n  agentctl pause optimizer night")]
pub(crate) struct Pause {
    /// Names or numbers
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<String>,
}

impl Pause {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        for agent in &self.agents {
            let method = Method::AgentPause(params(agent));
            let view: AgentView = context.ask(&mut client, &method, format!("pausing {agent}"))?;
            if context.ui.is_json() {
                context.ui.object(&view)?;
            }
        }
        Ok(0)
    }
}
