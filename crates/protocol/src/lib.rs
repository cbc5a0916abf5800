//! How does one ask? The daemon's protocol, as data.
//!
//! JSON-RPC 2.0 over a unix stream socket, one object a line, UTF-8, at most [`LINE_LIMIT`] bytes a line. The caller is
//! known by the kernel's word (`SO_PEERCRED` and the cgroup of the peer), so nothing in a request says who asks.
//!
//! ```text
//! → {"jsonrpc":"2.0","id":1,"method":"agent.spawn","params":{"argv":["make","test"],…}}
//! ← {"jsonrpc":"2.0","id":1,"result":{"agent":7,"name":"agent-7",…}}
//! ← {"jsonrpc":"2.0","id":1,"error":{"code":3,"message":"the name optimizer is in use by agent 4","data":{…}}}
//! ```
//!
//! Some methods hand over an open file beside their reply (`SCM_RIGHTS` with the first byte of the line): `agent.spawn`
//! with `attach`, `agent.attach` (an attach stream, see [`attach`]), `agent.logs` (the log, read only), `world.export` (a
//! bundle, to be read) and `world.upload` (to write a bundle to). A stream belongs to the agent's shim and outlives the
//! daemon. `audit.follow` answers with a series of notifications
//! (`{"jsonrpc":"2.0","method":"audit.record","params":{…}}`) until the client hangs up.
//!
//! The code of an error is the exit code of `agentctl`: 1 could not, 2 wrong usage, 3 refused by policy, 70 our bug; the
//! codes below -32000 are JSON-RPC's own.

#![forbid(unsafe_code)]

pub mod attach;
mod message;
mod method;
mod view;
mod world;

pub use message::{ErrorCode, ErrorData, ErrorObject, Message, RequestId, notification, reply, reply_error, request};
pub use method::{
    AgentParams, AuditParams, GrantParams, LogsReply, Method, ProfileChoice, SignalParams, SpawnParams, SpawnReply,
    TerminalChoice, TopUpParams, WaitReply, WhyParams,
};
pub use view::{
    AgentDetail, AgentView, BudgetView, CapabilityView, DaemonView, ExplanationView, RecordView, TierView, TokenView,
};
pub use world::{
    AnswerParams, CellView, CellsParams, CopyParams, EffectView, KeyView, ProposalParams, ProposalView, ProposeParams,
    PruneParams, PruneView, ReceiptView, RecordParams, RecordedView, RecordsParams, ReplayView, SendParams,
    UploadReply, VerifyView, WhyGraph, WhyNode, WorldParams, WorldRecordView, WorldView,
};

/// Longest line, in bytes, that either side accepts.
pub const LINE_LIMIT: usize = 1 << 20;

/// Version of this protocol; every reply of `daemon.info` carries it.
pub const PROTOCOL_VERSION: u32 = 1;
