//! The methods and what they take and give.

use agentd_model::{AgentNumber, ExitStatus};
use serde::{Deserialize, Serialize};

use crate::world::{
    AnswerParams, CellsParams, CopyParams, ProposalParams, ProposeParams, PruneParams, RecordParams, RecordsParams,
    SendParams, WorldParams,
};

/// Every method, with its parameters.
///
/// On the wire `{"method":"agent.pause","params":{"agent":"optimizer"}}`; unknown parameters are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Method {
    /// What is this daemon and what can it enforce? Gives a [`crate::DaemonView`].
    #[serde(rename = "daemon.info")]
    DaemonInfo {},
    /// Start an agent. Gives a [`SpawnReply`], and with `attach` an attach stream.
    #[serde(rename = "agent.spawn")]
    AgentSpawn(Box<SpawnParams>),
    /// Every agent, or every live one. Gives a list of [`crate::AgentView`].
    #[serde(rename = "agent.list")]
    AgentList {
        /// Also those that have ended.
        #[serde(default)]
        all: bool,
    },
    /// One agent. Gives a [`crate::AgentView`] with its rules.
    #[serde(rename = "agent.show")]
    AgentShow(AgentParams),
    /// An attach stream to a live agent.
    #[serde(rename = "agent.attach")]
    AgentAttach(AgentParams),
    /// The log of an agent, as an open file. Gives a [`LogsReply`].
    #[serde(rename = "agent.logs")]
    AgentLogs(AgentParams),
    /// Waits for the end. Gives a [`WaitReply`].
    #[serde(rename = "agent.wait")]
    AgentWait(AgentParams),
    /// Freeze. Gives a [`crate::AgentView`].
    #[serde(rename = "agent.pause")]
    AgentPause(AgentParams),
    /// Thaw. Gives a [`crate::AgentView`].
    #[serde(rename = "agent.resume")]
    AgentResume(AgentParams),
    /// Signal or kill. Gives a [`crate::AgentView`].
    #[serde(rename = "agent.signal")]
    AgentSignal(SignalParams),
    /// What was used of what. Gives a [`crate::BudgetView`].
    #[serde(rename = "budget.show")]
    BudgetShow(AgentParams),
    /// More CPU time. Gives a [`crate::BudgetView`].
    #[serde(rename = "budget.topup")]
    BudgetTopUp(TopUpParams),
    /// Lend an agent rights. Gives a [`crate::CapabilityView`].
    #[serde(rename = "capability.grant")]
    CapabilityGrant(GrantParams),
    /// Capabilities, of one agent or of all. Gives a list of [`crate::CapabilityView`].
    #[serde(rename = "capability.list")]
    CapabilityList {
        /// Name or number.
        #[serde(default)]
        agent: Option<String>,
    },
    /// One capability. Gives a [`crate::CapabilityView`] with its token.
    #[serde(rename = "capability.show")]
    CapabilityShow {
        /// Its number.
        capability: u32,
    },
    /// Take back what was lent. Gives a [`crate::CapabilityView`], once the kernel refuses.
    #[serde(rename = "capability.revoke")]
    CapabilityRevoke {
        /// Its number.
        capability: u32,
        /// Why, in a line.
        #[serde(default)]
        reason: String,
    },
    /// Why was that refused? Gives an [`crate::ExplanationView`].
    #[serde(rename = "why")]
    Why(WhyParams),
    /// Records of the journal, oldest first. Gives a list of [`crate::RecordView`].
    #[serde(rename = "audit.read")]
    AuditRead(AuditParams),
    /// The same, and then every new one as a notification `audit.record`.
    #[serde(rename = "audit.follow")]
    AuditFollow(AuditParams),
    /// What this host signs with. Gives a [`crate::KeyView`].
    #[serde(rename = "key.show")]
    KeyShow {},
    /// A new key for the host's signatures; every journal's old key vouches for it. Gives a [`crate::KeyView`].
    #[serde(rename = "key.rotate")]
    KeyRotate {},
    /// Make a world. Gives a [`crate::WorldView`].
    #[serde(rename = "world.init")]
    WorldInit(WorldParams),
    /// Every world. Gives a list of [`crate::WorldView`].
    #[serde(rename = "world.list")]
    WorldList {},
    /// One world, with the hash of its state. Gives a [`crate::WorldView`].
    #[serde(rename = "world.show")]
    WorldShow(WorldParams),
    /// Send an event. Gives a [`crate::RecordedView`].
    #[serde(rename = "world.send")]
    WorldSend(SendParams),
    /// Cells. Gives a list of [`crate::CellView`].
    #[serde(rename = "world.cells")]
    WorldCells(CellsParams),
    /// Records, oldest first. Gives a list of [`crate::WorldRecordView`].
    #[serde(rename = "world.records")]
    WorldRecords(RecordsParams),
    /// Everything that is defined, in the authoring form.
    #[serde(rename = "world.defs")]
    WorldDefs(WorldParams),
    /// Propose other definitions. Gives a [`crate::ProposalView`].
    #[serde(rename = "world.propose")]
    WorldPropose(ProposeParams),
    /// Rehearse a proposal. Gives the report.
    #[serde(rename = "world.shadow")]
    WorldShadow(ProposalParams),
    /// Say yes or no to a proposal. Gives a [`crate::RecordedView`].
    #[serde(rename = "world.vote")]
    WorldVote(ProposalParams),
    /// Apply a proposal. Gives a [`crate::RecordedView`].
    #[serde(rename = "world.apply")]
    WorldApply(ProposalParams),
    /// Effects without a receipt. Gives a list of [`crate::EffectView`].
    #[serde(rename = "world.effects")]
    WorldEffects(WorldParams),
    /// Say yes or no to an effect. Gives a [`crate::RecordedView`].
    #[serde(rename = "world.answer")]
    WorldAnswer(AnswerParams),
    /// What led to a record, and what came of it. Gives a [`crate::WhyGraph`].
    #[serde(rename = "world.why")]
    WorldWhy(RecordParams),
    /// The receipt in a record. Gives a [`crate::ReceiptView`].
    #[serde(rename = "world.receipt")]
    WorldReceipt(RecordParams),
    /// Read the whole journal and check every hash and signature. Gives a [`crate::VerifyView`].
    #[serde(rename = "world.verify")]
    WorldVerify(WorldParams),
    /// Take old records out of the journal. Gives a [`crate::PruneView`].
    #[serde(rename = "world.prune")]
    WorldPrune(PruneParams),
    /// Run every input again and compare. Gives a [`crate::ReplayView`].
    #[serde(rename = "world.replay")]
    WorldReplay(WorldParams),
    /// The world as one file, which comes beside the reply.
    #[serde(rename = "world.export")]
    WorldExport(WorldParams),
    /// A file to write a bundle to. Gives a [`crate::UploadReply`].
    #[serde(rename = "world.upload")]
    WorldUpload {},
    /// Take over the world in a bundle. Gives a [`crate::WorldView`].
    #[serde(rename = "world.import")]
    WorldImport(CopyParams),
    /// A copy of a world that goes on by itself. Gives a [`crate::WorldView`].
    #[serde(rename = "world.fork")]
    WorldFork(CopyParams),
}

/// Names one agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentParams {
    /// Name or number.
    pub agent: String,
}

/// Parameters of `agent.spawn`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnParams {
    /// Program and arguments; a program without a slash is looked for in the agent's PATH.
    pub argv: Vec<String>,
    /// Name; without one the agent is called by its number.
    #[serde(default)]
    pub name: Option<String>,
    /// Absolute path of the working directory, which is the workspace.
    pub cwd: String,
    /// The caller's environment; the profile says what of it the agent sees.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// More environment, as `--env NAME=VALUE` gives it; passed whatever the profile says.
    #[serde(default)]
    pub set_env: Vec<(String, String)>,
    /// Which profile.
    #[serde(default)]
    pub profile: ProfileChoice,
    /// More rules, each `RIGHTS:PATH`.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Denials, each `RIGHTS:PATH`.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Network rules, each as `agentd_model::NetRule` is written.
    #[serde(default)]
    pub net: Vec<String>,
    /// Budget, as `cpu:1h,mem:4G`.
    #[serde(default)]
    pub budget: Option<String>,
    /// User to run as, by name or number; for root callers only. Others run as themselves.
    #[serde(default)]
    pub user: Option<String>,
    /// Standard streams.
    #[serde(default)]
    pub terminal: TerminalChoice,
    /// Whether an attach stream is wanted; without one the agent's input is empty.
    #[serde(default)]
    pub attach: bool,
    /// Refuse any tier but eBPF LSM for files and guard.
    #[serde(default)]
    pub require_lsm: bool,
    /// Gaps accepted, by name.
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// Where the profile comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProfileChoice {
    /// A built-in one, or a file in the daemon's profile directory.
    Name(String),
    /// The text of a file that the caller read.
    Text(String),
}

impl Default for ProfileChoice {
    fn default() -> Self {
        ProfileChoice::Name("coding".to_owned())
    }
}

/// What standard streams the agent gets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TerminalChoice {
    /// Three pipes.
    #[default]
    Pipes,
    /// A pseudo-terminal.
    Pty {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        columns: u16,
    },
}

/// Result of `agent.spawn`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpawnReply {
    /// The new agent's number.
    pub agent: AgentNumber,
    /// Its name.
    pub name: String,
    /// Promises given up, in words.
    pub gaps: Vec<String>,
}

/// Result of `agent.wait`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitReply {
    /// The agent.
    pub agent: AgentNumber,
    /// How it ended; `None`: it never ran, or nobody saw.
    pub status: Option<ExitStatus>,
    /// Where there is no status: why.
    pub reason: Option<String>,
}

/// Result of `agent.logs`; the file comes beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogsReply {
    /// Whether the agent has ended, so that the log grows no more.
    pub ended: bool,
}

/// Parameters of `agent.signal`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalParams {
    /// Name or number.
    pub agent: String,
    /// Signal for the first program; without one, SIGKILL for everything in the agent.
    #[serde(default)]
    pub signal: Option<u8>,
}

/// Parameters of `budget.topup`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopUpParams {
    /// Name or number.
    pub agent: String,
    /// How much more, as `cpu:10m`.
    pub budget: String,
}

/// Parameters of `capability.grant`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantParams {
    /// Name or number.
    pub agent: String,
    /// Files and directories, absolute or from the agent's working directory.
    pub paths: Vec<String>,
    /// Rights, as `read,write`.
    pub ops: String,
    /// How long, as `1h`; without it, until the agent ends.
    #[serde(default)]
    pub duration: Option<String>,
}

/// Parameters of `why`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyParams {
    /// Number of a record.
    #[serde(default)]
    pub record: Option<u64>,
    /// Without a number: the newest refusal of this agent; without an agent, of all.
    #[serde(default)]
    pub agent: Option<String>,
}

/// Parameters of `audit.read` and `audit.follow`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditParams {
    /// Only this agent.
    #[serde(default)]
    pub agent: Option<String>,
    /// Only records after this one.
    #[serde(default)]
    pub after: Option<u64>,
    /// At most so many, the newest.
    #[serde(default)]
    pub last: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_as_on_the_wire() {
        let text = r#"{"method":"agent.signal","params":{"agent":"x","signal":15}}"#;
        let method: Method = serde_json::from_str(text).unwrap();
        assert!(matches!(&method, Method::AgentSignal(SignalParams { signal: Some(15), .. })));
        assert_eq!(serde_json::to_string(&method).unwrap(), text);
    }

    #[test]
    fn an_unknown_parameter_is_refused() {
        let text = r#"{"method":"agent.show","params":{"agent":"x","verbose":true}}"#;
        let error = serde_json::from_str::<Method>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `verbose`"), "{error}");
    }
}
