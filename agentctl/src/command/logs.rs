//! `agentctl logs`

use std::fs::File;
use std::os::unix::fs::FileExt;

use agentd_protocol::{LogsReply, Method};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::Context;
use crate::client::Client;
use crate::failure::{Exit, Failure};

use super::params;

/// Between two looks at a log that may have grown.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Print what an agent has printed
///
/// The output of the agent's whole life, also after its end, unchanged: what it printed may move the cursor.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl logs optimizer\n  agentctl logs --follow optimizer | grep error")]
pub(crate) struct Logs {
    /// Go on until the agent ends
    #[arg(short, long)]
    follow: bool,
    /// Name or number
    agent: String,
}

impl Logs {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        if context.ui.is_json() {
            return Err(Failure::new(Exit::Usage, "logs are what the agent printed, and have no JSON form")
                .hint(format!("agentctl audit --json --agent {}", self.agent)));
        }
        let mut client = context.client()?;
        let (reply, file) = client.call_for_file::<LogsReply>(&Method::AgentLogs(params(&self.agent)))?;
        let mut log = Log { file: File::from(file), at: 0 };
        log.copy(context)?;
        if self.follow && !reply.ended {
            client.send(&Method::AgentWait(params(&self.agent)))?;
            // The end of the agent, or of the daemon: then nobody can say when the log ends.
            while !speaks(&client)? {
                log.copy(context)?;
            }
            log.copy(context)?;
        }
        Ok(0)
    }
}

/// A log and how far it was read. Read by position: the daemon may hold the same open file.
struct Log {
    file: File,
    at: u64,
}

impl Log {
    /// Prints what is new.
    fn copy(&mut self, context: &Context) -> Result<(), Failure> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            match self.file.read_at(&mut bytes, self.at) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    context.ui.pass_out(&bytes[..read])?;
                    self.at += read as u64;
                }
                Err(error) => return Err(Failure::io("cannot read the log", &error)),
            }
        }
    }
}

/// Waits a moment for the daemon to say something.
fn speaks(client: &Client) -> Result<bool, Failure> {
    let mut files = [PollFd::new(client, PollFlags::IN)];
    let ready = poll(&mut files, Some(&LOOK)).map_err(|error| Failure::io("cannot wait for agentd", &error.into()))?;
    Ok(ready > 0)
}
