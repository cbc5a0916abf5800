//! Which parameters of an effect a capability covers.
//!
//! One form for each kind of effect that has something to limit. The check is pure and gives the reason where it says no.
//! A scope of another kind than the effect covers nothing.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::define::matches_text;

/// What a capability covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scope {
    /// Whatever the effect's kind allows; for kinds without a form of their own.
    #[n(0)]
    #[default]
    Any,
    /// Requests over HTTP.
    #[n(1)]
    Http(#[n(0)] Http),
    /// Programs, run as agents.
    #[n(2)]
    Exec(#[n(0)] Exec),
    /// Questions to a language model.
    #[n(3)]
    Llm(#[n(0)] Llm),
    /// Acts upon agents of this host.
    #[n(4)]
    Agents(#[n(0)] Agents),
}

/// Requests over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Hosts, with a port where it is not the scheme's own: `api.example.org`, `127.0.0.1:8080`, `*` for all.
    #[n(0)]
    pub hosts: Vec<String>,
    /// Methods, upper case.
    #[n(1)]
    pub methods: Vec<String>,
    /// Most bytes of a body, there and back.
    #[n(2)]
    #[serde(default = "default_bytes")]
    pub max_bytes: u64,
    /// Most milliseconds in all.
    #[n(3)]
    #[serde(default = "default_ms")]
    pub max_ms: u64,
}

/// Programs, run as agents.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Programs by path; `*` at the end matches whatever begins like it.
    #[n(0)]
    pub programs: Vec<String>,
    /// The profile that they run under.
    #[n(1)]
    pub profile: String,
    /// Directories that they may run in, with everything below.
    #[n(2)]
    pub directories: Vec<String>,
    /// Most CPU time of one, in milliseconds.
    #[n(3)]
    #[serde(default = "default_ms")]
    pub max_cpu_ms: u64,
}

/// Questions to a language model.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llm {
    /// Providers by the names under which the host's configuration has them.
    #[n(0)]
    pub providers: Vec<String>,
    /// Models; `*` at the end matches whatever begins like it.
    #[n(1)]
    pub models: Vec<String>,
    /// Most tokens of one answer.
    #[n(2)]
    pub max_tokens: u64,
}

/// Acts upon agents of this host.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// Names; `*` at the end matches whatever begins like it.
    #[n(0)]
    pub names: Vec<String>,
}

fn default_bytes() -> u64 {
    1 << 20
}

fn default_ms() -> u64 {
    30_000
}

/// Whether one of some patterns matches.
pub fn any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches_text(pattern, text))
}
