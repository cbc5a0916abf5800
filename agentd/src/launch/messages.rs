//! What daemon, shim and init tell one another. See `passing` for how.

use std::io;
use std::path::Path;

use agentd_model::{AgentNumber, ExitStatus};
use serde::{Deserialize, Serialize};

/// Who waits when a client reads more slowly than the agent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// The agent, as a program waits for whoever reads its pipe. For the client that started it in the foreground:
    /// its output may be a file that must be whole.
    AgentWaits,
    /// Nobody: a client that is too slow is dropped, with a notice. For those who look in later.
    ClientDrops,
}

/// Daemon → shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    /// Start the program.
    Gate,
    /// The socket that comes with this line is an attach stream.
    Attach { pace: Pace },
    /// Keep the file that comes with this line open, and write a byte to the socket that comes after it.
    Hold,
    /// Send a signal to the program's process group.
    Signal { signal: u8 },
    /// Resize the pty.
    Resize { rows: u16, columns: u16 },
    /// Answer with [`ShimStatus`].
    Status,
    /// The exit record is in the journal; the shim may go.
    Taken,
}

/// Shim → daemon, before the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    /// Init is there and has the request; its pidfd comes with the line.
    Begun { init_pid: i32 },
    /// So many files of anchors come with the line.
    Files { count: usize },
    /// These were all: the view is made, and everything in it that the rules name. What each file is to the rules.
    Seen { notes: Vec<Vec<Note>> },
    /// Init waits at the gate.
    AtGate { landlock_abi: Option<u32> },
    /// It did not work; nothing is left of it.
    Failed { failure: Failure },
}

/// Init → shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// As [`Progress::Files`].
    Files { count: usize },
    /// As [`Progress::Seen`].
    Seen { notes: Vec<Vec<Note>> },
    /// The master of the pty comes with the line.
    Terminal,
    /// All is made, all rights are dropped; waiting for a [`Go`].
    Ready { landlock_abi: Option<u32> },
    /// It did not work.
    Failed { failure: Failure },
    /// The program's process exists; its pidfd comes with the line.
    Forked,
    /// The program runs.
    Started,
    /// The program could not be started: "cannot `verb` `program`".
    NotStarted { errno: i32, verb: String, program: String },
    /// The program has ended and every process of the agent is dead and reaped.
    Ended { status: ExitStatus },
}

/// Shim → init, after the request: the program's ends of its pipes come with the line. With a pty there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pipes {
    /// Whether the first of them is for input; if not, there is none.
    pub(crate) stdin: bool,
}

/// Shim → init: start the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Go;

/// What an anchor's file is to a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Index in `spec.paths`.
    pub(crate) rule: usize,
    pub(crate) kind: NoteKind,
}

/// See `AnchorKind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NoteKind {
    Object { directory: bool },
    Name { names: Vec<String> },
    Way,
}

/// Why init could not make an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// An allowing rule's path does not exist in the agent's view.
    Missing { rule: usize },
    /// A step did not work.
    Step { what: String, errno: i32 },
}

/// How an agent ended; also the content of `exit.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Which agent.
    pub agent: AgentNumber,
    /// How its program ended.
    pub status: ExitStatus,
    /// Whether its init said so; `false`: init itself was killed (by `cgroup.kill`, by the kernel out of memory), and
    /// the status is init's.
    pub witnessed: bool,
    /// CPU time of the whole agent in nanoseconds, from `cpu.stat`, where that could be read.
    pub cpu_ns: Option<u64>,
    /// When, in nanoseconds since 1970.
    pub ended_unix_ns: u64,
    /// When, in nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub ended_boot_ns: u64,
    /// Bytes of output that could not be written to the log.
    pub log_lost_bytes: u64,
}

/// What a shim says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStatus {
    /// Which agent.
    pub agent: AgentNumber,
    /// The shim's own process.
    pub shim_pid: i32,
    /// Pid 1 of the agent, in the host's numbers.
    pub init_pid: i32,
    /// Attached clients.
    pub clients: usize,
    /// How it ended, once it has.
    pub exit: Option<ExitRecord>,
}

/// Reads the exit record that a shim left; `None` where there is none.
pub fn read_exit_record(state_dir: &Path) -> io::Result<Option<ExitRecord>> {
    match std::fs::read(state_dir.join(super::EXIT_RECORD)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
