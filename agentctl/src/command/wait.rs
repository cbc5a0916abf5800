//! `agentctl wait`

use agentd_protocol::{Method, WaitReply};
use clap::Args;

use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::text::clean;

use super::params;

/// Wait for the end of an agent
///
/// Ends with the agent's status, at once if the agent has already ended.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl wait optimizer\n  agentctl wait night && agentctl logs night")]
pub(crate) struct Wait {
    /// Name or number
    agent: String,
}

impl Wait {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let method = Method::AgentWait(params(&self.agent));
        let reply: WaitReply = context.ask(&mut client, &method, format!("waiting for {}", self.agent))?;
        if context.ui.is_json() {
            context.ui.object(&reply)?;
        }
        match reply.status {
            Some(status) => Ok(status.shell_code()),
            None => {
                let reason = reply.reason.unwrap_or_else(|| "nobody saw its end".to_owned());
                let message = format!("agent {} has no exit status", clean(&self.agent));
                Err(Failure::new(Exit::Failed, message)
                    .cause(reason)
                    .hint(format!("agentctl audit --agent {}", self.agent)))
            }
        }
    }
}
