//! Agents: their names, numbers and what was asked for at their spawn.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Budget, Gap, NetRule, PathRule, Seq, WorldId};

/// The number of an agent: given once, never used again while the journal lives. The kernel knows agents by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct AgentNumber(#[n(0)] pub u32);

impl fmt::Display for AgentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of an agent: 1 to 48 of `a-z 0-9 - _ .`, beginning with a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct AgentName(#[n(0)] String);

/// A text that is not an agent's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name; names are 1 to 48 of a-z, 0-9, '-', '_', '.', and begin with a letter or a digit")]
pub struct NameError {
    /// The text.
    pub text: String,
}

impl AgentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let first = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b));
        // A name of digits alone would be taken for a number.
        if first && rest && bytes.len() <= 48 && !bytes.iter().all(u8::is_ascii_digit) {
            Ok(AgentName(text.to_owned()))
        } else {
            Err(NameError { text: text.to_owned() })
        }
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AgentName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<AgentName> for String {
    fn from(name: AgentName) -> String {
        name.0
    }
}

/// Who asks the daemon for something, as the kernel vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// A person or program outside every agent.
    #[n(0)]
    User {
        /// User id.
        #[n(0)]
        uid: u32,
    },
    /// A process inside an agent.
    #[n(1)]
    Agent {
        /// Which.
        #[n(0)]
        agent: AgentNumber,
    },
    /// The daemon itself: a budget ran out, an agent was found dead at start.
    #[n(2)]
    Daemon,
    /// An effect of a world, allowed by its policy.
    #[n(3)]
    World {
        /// Which world.
        #[n(0)]
        world: WorldId,
        /// The record of the intent, in that world's journal.
        #[n(1)]
        intent: Seq,
    },
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::User { uid } => write!(f, "uid {uid}"),
            Principal::Agent { agent } => write!(f, "agent {agent}"),
            Principal::Daemon => f.write_str("agentd"),
            Principal::World { world, intent } => write!(f, "world {world} (record {intent})"),
        }
    }
}

/// What an agent's standard streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminal {
    /// Three pipes; output and errors stay apart.
    #[n(0)]
    Pipes,
    /// A pseudo-terminal of the agent's own.
    #[n(1)]
    Pty {
        /// Height in characters.
        #[n(0)]
        rows: u16,
        /// Width in characters.
        #[n(1)]
        columns: u16,
    },
}

/// Everything that was asked for when an agent was spawned, after profiles were read and before the host was asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct AgentSpec {
    /// Program and arguments.
    #[n(0)]
    pub argv: Vec<String>,
    /// Environment, complete: nothing is inherited.
    #[n(1)]
    pub env: Vec<(String, String)>,
    /// Working directory; also the workspace of the profile.
    #[n(2)]
    pub cwd: String,
    /// User id that the agent runs as; never 0.
    #[n(3)]
    pub uid: u32,
    /// Group id.
    #[n(4)]
    pub gid: u32,
    /// Supplementary groups.
    #[n(5)]
    pub groups: Vec<u32>,
    /// Standard streams.
    #[n(6)]
    pub terminal: Terminal,
    /// Name of the profile that the rules came from.
    #[n(7)]
    pub profile: String,
    /// Rules on files, in no order.
    #[n(8)]
    pub paths: Vec<PathRule>,
    /// Rules on the network.
    #[n(9)]
    pub nets: Vec<NetRule>,
    /// Budget.
    #[n(10)]
    pub budget: Budget,
    /// What the caller accepts not to have, by `--degraded`.
    #[n(11)]
    pub accepted_gaps: Vec<Gap>,
    /// Directories to be made in the agent's private /tmp, absolute, parents first.
    #[n(12)]
    pub tmp_directories: Vec<String>,
}

/// Where in its life an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPhase {
    /// Asked for; not yet running.
    #[n(0)]
    Starting,
    /// Running.
    #[n(1)]
    Running,
    /// Frozen by a person.
    #[n(2)]
    Paused,
    /// Frozen because its budget is spent.
    #[n(3)]
    Exhausted,
    /// Ended; its exit status is known.
    #[n(4)]
    Exited,
    /// Never ran: the launch was refused or broke.
    #[n(5)]
    Failed,
    /// Ended without anybody seeing how: the host went down, or its shim was killed.
    #[n(6)]
    Lost,
}

impl AgentPhase {
    /// Whether it has, or may still have, processes.
    pub fn is_live(self) -> bool {
        matches!(self, AgentPhase::Starting | AgentPhase::Running | AgentPhase::Paused | AgentPhase::Exhausted)
    }
}

impl fmt::Display for AgentPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AgentPhase::Starting => "starting",
            AgentPhase::Running => "running",
            AgentPhase::Paused => "paused",
            AgentPhase::Exhausted => "exhausted",
            AgentPhase::Exited => "exited",
            AgentPhase::Failed => "failed",
            AgentPhase::Lost => "lost",
        })
    }
}

/// How an agent's program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code.
    #[n(0)]
    Code {
        /// 0 to 255.
        #[n(0)]
        code: u8,
    },
    /// A signal ended it.
    #[n(1)]
    Signal {
        /// Number of the signal.
        #[n(0)]
        signal: u8,
    },
}

impl ExitStatus {
    /// The status a shell would show: the code, or 128 + the signal.
    pub fn shell_code(self) -> u8 {
        match self {
            ExitStatus::Code { code } => code,
            ExitStatus::Signal { signal } => 128u8.saturating_add(signal),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code { code } => write!(f, "exit {code}"),
            ExitStatus::Signal { signal } => write!(f, "signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!("optimizer".parse::<AgentName>().is_ok());
        assert!("a-1_x.y".parse::<AgentName>().is_ok());
        for bad in ["", "-x", "A", "a b", "12", "a/b", &"x".repeat(49)] {
            assert!(bad.parse::<AgentName>().is_err(), "{bad:?}");
        }
    }
}
