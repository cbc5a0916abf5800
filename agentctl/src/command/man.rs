//! `agentctl man`

use std::path::PathBuf;

use clap::Args;

use crate::cli::{self, Context};
use crate::failure::Failure;

/// Write the manual, one page a command
///
/// Writes agentctl.1, agentctl-spawn.1 and so on into a directory, which is made if it is not there.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl man --dir /usr/local/share/man/man1\n  agentctl man --dir man && man -l man/agentctl-spawn.1"
)]
pub(crate) struct Man {
    /// Directory to write to
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    pub(crate) fn run(self, _: &Context) -> Result<u8, Failure> {
        let cannot =
            |error: std::io::Error| Failure::io(format!("cannot write the manual to {}", self.dir.display()), &error);
        std::fs::create_dir_all(&self.dir).map_err(cannot)?;
        clap_mangen::generate_to(cli::command(), &self.dir).map_err(cannot)?;
        Ok(0)
    }
}
