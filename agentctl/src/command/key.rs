//! `agentctl key`

use agentd_protocol::{KeyView, Method};
use clap::{Args, Subcommand};

use crate::cli::Context;
use crate::failure::Failure;

/// Show and change the key that this host signs with
///
/// Heads of journals and receipts are signed with it. A new key is vouched for by the old one in every journal, so that
/// whoever knows the old one can follow to the new one.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl key show\n  agentctl key rotate")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    Show(Show),
    Rotate(Rotate),
}

/// Print the public key
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl key show\n  agentctl key show --json")]
struct Show {}

/// Make a new key and sign with it from now on
///
/// Old keys are kept: what they signed is still verified with them.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl key rotate")]
struct Rotate {}

impl KeyArgs {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let (method, what) = match self.command {
            KeyCommand::Show(Show {}) => (Method::KeyShow {}, "asking"),
            KeyCommand::Rotate(Rotate {}) => (Method::KeyRotate {}, "changing the key"),
        };
        let mut client = context.client()?;
        let view: KeyView = context.ask(&mut client, &method, what)?;
        if context.ui.is_json() {
            context.ui.object(&view)?;
        } else {
            context.ui.line(&view.key)?;
            for name in &view.behind {
                context.ui.note(format!("{name} goes on under the old key until agentd starts again"));
            }
        }
        Ok(0)
    }
}
