//! `agentctl attach`, and how every session ends.

use std::time::Duration;

use agentd_model::{ExitStatus, Terminal};
use agentd_protocol::{AgentView, Method};
use clap::Args;

use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::session::{self, End, Setup};
use crate::terminal;
use crate::text::clean;

use super::params;

/// Sit down in front of a running agent
///
/// Connects this terminal with the agent's. Ctrl-] d leaves it again (where the agent has pipes, followed by Enter); the
/// agent runs on. Ends with the agent's status if the agent ends meanwhile.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl attach optimizer\n  agentctl spawn --detach --name night -- claude && agentctl attach night"
)]
pub(crate) struct Attach {
    /// Name or number
    agent: String,
}

impl Attach {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let view: AgentView = context.ask(&mut client, &Method::AgentShow(params(&self.agent)), "asking")?;
        let has_pty = matches!(view.detail.as_ref().map(|detail| detail.terminal), Some(Terminal::Pty { .. }));
        let (_, stream) = client.call_for_file::<serde_json::Value>(&Method::AgentAttach(params(&self.agent)))?;
        drop(client);
        let name = clean(&view.name);
        let pty = has_pty && terminal::is_interactive();
        let setup = Setup { ui: context.ui, name: &name, socket: &context.socket, pty, ours: false };
        let end = session::run(stream, &setup)?;
        status(context, &name, end)
    }
}

/// What the shell sees at the end of a session.
pub(super) fn status(context: &Context, name: &str, end: End) -> Result<u8, Failure> {
    match end {
        End::Exited(ExitStatus::Signal { signal }) if signal == nix::sys::signal::Signal::SIGPIPE as u8 => Ok(0),
        End::Exited(status) => Ok(status.shell_code()),
        End::Detached => {
            context.ui.note(format!("agentctl: {name} runs on; agentctl attach {name}"));
            Ok(0)
        }
        End::Interrupted(signal) => {
            context.ui.note(format!("agentctl: {name} runs on; agentctl attach {name}"));
            Ok(128 + signal as u8)
        }
        End::Lost => lost(context, name),
    }
}

/// The stream broke off: the shim was killed, or another client took its place. The daemon knows, perhaps in a moment.
fn lost(context: &Context, name: &str) -> Result<u8, Failure> {
    let broken = || Failure::new(Exit::Failed, format!("lost the stream of agent {name}"));
    let ask = || -> Result<AgentView, Failure> { Ok(context.client()?.call(&Method::AgentShow(params(name)))?) };
    let _waiting = context.ui.waiting(format!("asking what became of {name}"));
    for _ in 0..20 {
        let view = ask().map_err(|failure| {
            let causes = [vec![failure.message], failure.causes].concat();
            Failure { causes, hint: failure.hint, ..broken() }
        })?;
        if let Some(status) = view.status {
            return Ok(status.shell_code());
        }
        if !view.phase.is_live() {
            let reason = view.reason.unwrap_or_else(|| format!("it is {}", view.phase));
            return Err(broken().cause(reason).hint(format!("agentctl inspect {name}")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(broken().cause("the agent runs on").hint(format!("agentctl attach {name}")))
}
