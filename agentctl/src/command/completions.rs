//! `agentctl completions`

use clap::Args;
use clap_complete::Shell;

use crate::cli::{self, Context};
use crate::failure::Failure;

/// Print a script that completes commands and options
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl completions bash > /etc/bash_completion.d/agentctl
  agentctl completions zsh > /usr/local/share/zsh/site-functions/_agentctl
  agentctl completions fish > ~/.config/fish/completions/agentctl.fish")]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        // Made in memory: the generator would panic on a closed pipe.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli::command(), "agentctl", &mut script);
        context.ui.pass_out(&script)?;
        Ok(0)
    }
}
