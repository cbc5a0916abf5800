//! Worlds: what the methods `world.*` take and give.
//!
//! Values of events, cells and parameters stand as JSON in the authoring form of their types; hashes as 64 hex digits;
//! times as nanoseconds since 1970.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Names one world.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldParams {
    /// Its name.
    pub world: String,
}

/// Parameters of `world.send`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendParams {
    /// Which world.
    pub world: String,
    /// Schema of the event, `ns/name@1`.
    pub event: String,
    /// Its value.
    pub value: Json,
    /// The key of the cell that it is for, where the route says that the sender names it.
    #[serde(default)]
    pub key: Option<Json>,
}

/// Parameters of `world.cells`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellsParams {
    /// Which world.
    pub world: String,
    /// Only cells of this module.
    #[serde(default)]
    pub module: Option<String>,
    /// Only the cell with this key.
    #[serde(default)]
    pub key: Option<Json>,
    /// As it was after this record; without it, as it is.
    #[serde(default)]
    pub at: Option<u64>,
}

/// A cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellView {
    /// Its module.
    pub module: String,
    /// Its key; `null` for a module without keys.
    pub key: Json,
    /// Its state.
    pub state: Json,
}

/// Parameters of `world.records`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsParams {
    /// Which world.
    pub world: String,
    /// Only records after this one.
    #[serde(default)]
    pub after: Option<u64>,
    /// At most so many, the newest.
    #[serde(default)]
    pub last: Option<u32>,
}

/// One record of a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorldRecordView {
    /// Its position.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// When it was taken in, as the host believed.
    pub wall_ns: u64,
    /// The record that brought it about.
    pub cause: Option<u64>,
    /// Whether it came from outside; all others follow from the input before them.
    pub input: bool,
    /// What happened, in one sentence.
    pub text: String,
    /// What happened; values that are bytes in the record are hex.
    pub entry: Json,
}

/// Parameters of `world.propose`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposeParams {
    /// Which world.
    pub world: String,
    /// All that is to be defined (`{"definitions":[…],"routes":[…],…}`), or a patch (`{"base":…,"changes":[…]}`).
    pub air: Json,
    /// WASM by the text that stands for it in `air` (`"wasm":"file:counter.wasm"`), base64.
    #[serde(default)]
    pub wasm: BTreeMap<String, String>,
    /// What for.
    #[serde(default)]
    pub note: String,
}

/// Names a proposal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalParams {
    /// Which world.
    pub world: String,
    /// The record with which it was made.
    pub proposal: u64,
    /// In `world.shadow`: on how many inputs.
    #[serde(default)]
    pub inputs: Option<u32>,
    /// In `world.vote`: yes or no.
    #[serde(default)]
    pub approve: Option<bool>,
    /// In `world.vote`: why.
    #[serde(default)]
    pub note: String,
    /// In `world.apply`: whether effects on their way are given up.
    #[serde(default)]
    pub fence: bool,
}

/// Parameters of `world.answer`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerParams {
    /// Which world.
    pub world: String,
    /// The effect: the beginning of its id, as much as is needed to tell it from others.
    pub effect: String,
    /// Yes or no.
    pub allow: bool,
    /// Why.
    #[serde(default)]
    pub note: String,
}

/// An effect without a receipt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EffectView {
    /// Its id.
    pub effect: String,
    /// Its kind.
    pub kind: String,
    /// Module or plan that asked.
    pub origin: String,
    /// Its parameters.
    pub params: Json,
    /// The record in which it was asked for.
    pub record: u64,
    /// `asked` (a person is to decide), `ready` or `attempted`.
    pub phase: String,
}

/// A proposal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProposalView {
    /// The record with which it was made.
    pub proposal: u64,
    /// By whom.
    pub by: String,
    /// What for.
    pub note: String,
    /// `open`, `rejected` or `applied`.
    pub stage: String,
    /// Uids of those who said yes.
    pub approved: Vec<u32>,
    /// Differences that the newest rehearsal found.
    pub differences: Option<u64>,
    /// What changes, one line each.
    pub changes: Vec<String>,
}

/// A world.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorldView {
    /// Its name.
    pub world: String,
    /// Its random name, kept wherever it is copied to.
    pub id: String,
    /// Its newest record.
    pub seq: u64,
    /// Hash of its state; only where one world is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Hash of its manifest.
    pub manifest: String,
    /// What its heads are signed with.
    pub key: String,
    /// Events taken in or raised.
    pub events: u64,
    /// Cells.
    pub cells: u64,
    /// Effects without a receipt.
    pub effects: u64,
    /// Plans that go on.
    pub plans: u64,
    /// Proposals that wait.
    pub proposals: Vec<ProposalView>,
}

/// Result of what makes a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedView {
    /// The record.
    pub record: u64,
}

/// Parameters of `world.why` and `world.receipt`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordParams {
    /// Which world.
    pub world: String,
    /// Which record.
    pub record: u64,
}

/// The answer to "why?" in a world: records and what led from one to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyGraph {
    /// The record that is explained.
    pub record: u64,
    /// Records, oldest first; those of the host's world have `host` set.
    pub nodes: Vec<WhyNode>,
    /// From cause to consequence, by the names of nodes.
    pub edges: Vec<(String, String)>,
}

/// A record in a [`WhyGraph`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyNode {
    /// `12`, or `host:7` for a record of the host's world.
    pub id: String,
    /// When.
    pub wall_ns: u64,
    /// What happened.
    pub text: String,
}

/// A receipt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiptView {
    /// The record that holds it.
    pub record: u64,
    /// The effect.
    pub effect: String,
    /// Its kind.
    pub kind: String,
    /// What did it.
    pub adapter: String,
    /// Which attempt it was.
    pub attempt: u32,
    /// `done`, `failed`, `timed_out` or `interrupted`.
    pub status: String,
    /// What came of it.
    pub result: Json,
    /// Why it was not done.
    pub reason: Option<String>,
    /// When the adapter began.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// The key that signed it.
    pub key: String,
    /// Whether the signature is that key's.
    pub verified: bool,
    /// The COSE_Sign1, base64.
    pub cose: String,
}

/// Result of `world.verify`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerifyView {
    /// The first record.
    pub first: u64,
    /// The last.
    pub seq: u64,
    /// Its hash.
    pub head: String,
    /// Signatures that were checked.
    pub signatures: u64,
    /// What the head is signed with.
    pub key: String,
}

/// Result of `key.show` and `key.rotate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyView {
    /// The public key, in hex.
    pub key: String,
    /// Worlds that could not record the change now; each does when it is opened next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<String>,
}

/// Parameters of `world.prune`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneParams {
    /// Which world.
    pub world: String,
    /// At least so many of the newest records stay; with 0 the state is saved now, and the journal begins with that.
    pub keep: u64,
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// Result of `world.prune`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PruneView {
    /// What the world is called.
    pub world: String,
    /// The first record that is left.
    pub first: u64,
    /// How many went.
    pub removed: u64,
    /// Size of the journal's file now, in bytes.
    pub bytes: u64,
}

/// Result of `world.replay` and of `agentd replay`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayView {
    /// What the world is called.
    pub world: String,
    /// Records that were compared.
    pub records: u64,
    /// The last.
    pub seq: u64,
    /// Hash of the state.
    pub state: String,
}

/// Parameters of `world.fork` and `world.import`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyParams {
    /// In `world.fork`: which world.
    #[serde(default)]
    pub world: Option<String>,
    /// In `world.fork`: as it was after this record, or the signed head before it.
    #[serde(default)]
    pub at: Option<u64>,
    /// In `world.import`: what `world.upload` gave.
    #[serde(default)]
    pub upload: Option<u64>,
    /// Name of the copy.
    pub name: String,
}

/// Result of `world.upload`; the file to write the bundle to comes beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UploadReply {
    /// What `world.import` takes.
    pub upload: u64,
}
