//! What the daemon shows: the shapes that `--json` prints, one object a line.
//!
//! A field is never renamed or given another meaning; new ones may come. Times are nanoseconds, of the clock in the name.

use agentd_model::{
    AgentNumber, AgentPhase, Budget, Event, ExitStatus, Gap, Loan, NetRule, PathRule, Principal, Stamp, Terminal,
};
use serde::{Deserialize, Serialize};

/// One domain: what enforces it here, and why it is not something better.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TierView {
    /// `files`, `guard`, `network`, `cpu`, `mem`, `pids`.
    pub domain: String,
    /// The mechanism.
    pub tier: String,
    /// What the probe met, where there would be a better one.
    pub reason: Option<String>,
}

/// The daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DaemonView {
    /// Version of the daemon.
    pub version: String,
    /// [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Process id of the daemon.
    pub pid: u32,
    /// Kernel release.
    pub kernel: String,
    /// What enforces what.
    pub tiers: Vec<TierView>,
    /// Live agents.
    pub agents: u32,
    /// Newest record of the journal.
    pub journal_seq: u64,
    /// Its hash.
    pub journal_head: String,
}

/// CPU time and other limits of one agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BudgetView {
    /// The agent.
    pub agent: AgentNumber,
    /// Its name.
    pub name: String,
    /// CPU time used, nanoseconds.
    pub cpu_spent_ns: u64,
    /// CPU time allowed, nanoseconds; none: no limit.
    pub cpu_limit_ns: Option<u64>,
    /// The limit was reached.
    pub exhausted: bool,
    /// Limits of the other dimensions, as asked for.
    pub limits: Budget,
}

/// Rights that were lent to an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CapabilityView {
    /// Its number.
    pub capability: u32,
    /// To whom.
    pub agent: AgentNumber,
    /// The agent's name.
    pub name: String,
    /// What, and what that is to the kernel.
    pub loans: Vec<Loan>,
    /// `in force`, `ended`, `revoked`; `unknown`: the kernel knows nothing of it.
    pub state: String,
    /// When it ends, nanoseconds since 1970; none: with its agent.
    pub until_wall_ns: Option<u64>,
    /// Who granted it.
    pub by: Principal,
    /// When.
    pub at: Stamp,
    /// The record that says so.
    pub granted: u64,
    /// The record that took it back.
    pub revoked: Option<u64>,
    /// In `capability.show` only: the signed statement; none: no key of this host signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenView>,
}

/// What a token says, and who signed it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenView {
    /// Key that signed it.
    pub key: String,
    /// Who issued it.
    pub issuer: String,
    /// Who holds it.
    pub holder: String,
    /// Tells it apart from every other.
    pub id: String,
    /// When it was issued, seconds since 1970.
    pub issued: u64,
    /// Not before, seconds since 1970.
    pub not_before: u64,
    /// When it ends, seconds since 1970.
    pub expires: Option<u64>,
    /// Path and rights.
    pub rights: Vec<(String, String)>,
}

/// One agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentView {
    /// Its number.
    pub agent: AgentNumber,
    /// Its name.
    pub name: String,
    /// Where in its life it is.
    pub phase: AgentPhase,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User id it runs as.
    pub uid: u32,
    /// Profile.
    pub profile: String,
    /// Who asked for it.
    pub by: Principal,
    /// When it was asked for.
    pub requested: Stamp,
    /// Its init, in the host's pid namespace.
    pub init_pid: Option<u32>,
    /// Its cgroup's id.
    pub cgroup_id: Option<u64>,
    /// CPU time used, nanoseconds.
    pub cpu_spent_ns: u64,
    /// CPU time allowed, nanoseconds.
    pub cpu_limit_ns: Option<u64>,
    /// Refusals so far.
    pub denials: u64,
    /// Number of the newest refusal's record.
    pub last_denial: Option<u64>,
    /// What enforces files and guard, network, cpu for this agent.
    pub tiers: Vec<TierView>,
    /// Promises given up.
    pub gaps: Vec<Gap>,
    /// How it ended.
    pub status: Option<ExitStatus>,
    /// Why it never ran or nobody saw its end.
    pub reason: Option<String>,
    /// In `agent.show` only: standard streams, rules on files and on the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<AgentDetail>,
}

/// The long part of an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentDetail {
    /// Standard streams.
    pub terminal: Terminal,
    /// Rules on files.
    pub paths: Vec<PathRule>,
    /// Rules on the network.
    pub nets: Vec<NetRule>,
    /// Budget as asked for.
    pub budget: Budget,
}

/// One record of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordView {
    /// Its position.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// When.
    pub stamp: Stamp,
    /// The record that brought it about.
    pub cause: Option<u64>,
    /// Name of the agent that it is about; not `name` on the wire, which is a field of an event.
    #[serde(rename = "agent_name")]
    pub name: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The answer to "why?".
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplanationView {
    /// The record that is explained.
    pub record: RecordView,
    /// What happened, in one sentence.
    pub what: String,
    /// Why, one line a step, nearest first.
    pub because: Vec<String>,
    /// What to type to ask for it.
    pub hint: Option<String>,
    /// The records that led there, newest first.
    pub chain: Vec<RecordView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_of_a_record_hides_one_of_its_event() {
        let text = r#"{"seq":2,"hash":"00","stamp":{"wall_ns":1,"mono_ns":1},"cause":null,"agent_name":"optimizer",
            "event":"agent_requested","agent":7,"name":"optimizer","by":"daemon","spec":{"argv":["true"],"env":[],"cwd":"/",
            "uid":1,"gid":1,"groups":[],"terminal":"pipes","profile":"base","paths":[],"nets":[],
            "budget":{"cpu":null,"memory":null,"pids":null},"accepted_gaps":[],"tmp_directories":[]}}"#;
        let record: RecordView = serde_json::from_str(text).unwrap();
        let printed = serde_json::to_string(&record).unwrap();
        let again: RecordView = serde_json::from_str(&printed).unwrap();
        assert_eq!((again.name, &again.event), (Some("optimizer".to_owned()), &record.event));
    }
}
