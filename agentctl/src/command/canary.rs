//! `agentctl canary`, not for people: what `agentctl doctor` runs inside an agent, and once outside for comparison.
//!
//! It tries things and says what came of each, a JSON object a line. It judges nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};
use crate::ui::Ui;

/// Try things that an agent may and may not do (for agentctl doctor)
#[derive(Parser)]
#[command(name = "canary", disable_help_subcommand = true)]
struct Canary {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Open, execute, connect, and make a user namespace
    Try { allowed: PathBuf, forbidden: PathBuf, allowed_port: u16, forbidden_port: u16 },
    /// Use CPU time until stopped
    Spin,
    /// Start this many threads
    Threads { most: u32 },
    /// Touch this many megabytes
    Memory { megabytes: usize },
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tried {
    /// `open`, `exec`, `connect`, `userns`, `threads`, `memory`.
    pub(super) what: String,
    /// Whether it is of the kind that must be refused.
    pub(super) forbidden: bool,
    /// The error, where it did not work.
    pub(super) errno: Option<i32>,
    /// How much there was of it in the end: threads, megabytes.
    #[serde(default)]
    pub(super) amount: u64,
}

impl Tried {
    fn new(what: &str, forbidden: bool, result: io::Result<()>) -> Tried {
        // An error without a number of the system's is none that a kernel gave.
        let errno = result.err().map(|error| error.raw_os_error().unwrap_or(0));
        Tried { what: what.to_owned(), forbidden, errno, amount: 0 }
    }

    /// Whether the kernel said that it may not be.
    pub(super) fn is_refused(&self) -> bool {
        const EPERM: i32 = 1;
        const EACCES: i32 = 13;
        matches!(self.errno, Some(EPERM | EACCES))
    }
}

/// Runs the canary that the arguments name.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8, Failure> {
    let wrong = |error: clap::Error| Failure::new(Exit::Usage, error.to_string()).hint("agentctl doctor");
    Canary::try_parse_from(arguments).map_err(wrong)?.run(Ui::new(true, true, true))
}

impl Canary {
    fn run(self, ui: Ui) -> Result<u8, Failure> {
        let say = |tried: &Tried| ui.object(tried);
        match self.what {
            What::Try { allowed, forbidden, allowed_port, forbidden_port } => {
                for (forbidden, place, port) in [(true, forbidden, forbidden_port), (false, allowed, allowed_port)] {
                    say(&Tried::new("open", forbidden, File::open(place.join("file")).map(drop)))?;
                    say(&Tried::new("exec", forbidden, execute(&place.join("program"))))?;
                    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
                    say(&Tried::new("connect", forbidden, connected.map(drop)))?;
                }
                // Last, because it changes what this process is.
                let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
                say(&Tried::new("userns", true, made.map_err(io::Error::from)))?;
            }
            What::Spin => loop {
                std::hint::spin_loop();
            },
            What::Threads { most } => say(&Tried { amount: threads(most), ..Tried::new("threads", false, Ok(())) })?,
            What::Memory { megabytes } => {
                say(&Tried { amount: touch(megabytes), ..Tried::new("memory", false, Ok(())) })?
            }
        }
        Ok(0)
    }
}

fn execute(program: &Path) -> io::Result<()> {
    let status = Command::new(program).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// How many threads there could be at once.
fn threads(most: u32) -> u64 {
    let (mut started, mut hold) = (Vec::new(), Vec::new());
    for _ in 0..most {
        let (end, wait) = mpsc::channel::<()>();
        match std::thread::Builder::new().stack_size(64 * 1024).spawn(move || wait.recv().is_ok()) {
            Ok(thread) => (started.push(thread), hold.push(end)),
            Err(_) => break,
        };
    }
    drop(hold);
    let count = started.len() as u64;
    started.into_iter().for_each(|thread| drop(thread.join()));
    count
}

/// How many megabytes were in memory after so many were touched; the rest is in swap.
fn touch(megabytes: usize) -> u64 {
    let mut block = vec![0u8; megabytes << 20];
    block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&block);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(u64::MAX, |kb| kb / 1024)
}
