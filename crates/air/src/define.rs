//! The definitions that a world consists of: schemas, modules, plans, capabilities, policies.
//!
//! Each is authored as a JSON object whose first word says what it is, `{"defschema":"acme/order@1", …}`, and hashed as
//! canonical CBOR (arrays with fixed positions, as `minicbor` derives it). A name never changes its meaning by itself: what
//! it stands for changes only by a [`crate::Patch`], which names the hash of what it replaces.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Hash, Name, Plan, Scope, Type};

/// Context of the hash of a definition.
const CONTEXT: &str = "agentd 2026-11-21 air definition v1";

/// One definition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Definition {
    /// A type with a name.
    #[n(0)]
    Schema(#[n(0)] Schema),
    /// A reducer.
    #[n(1)]
    Module(#[n(0)] Module),
    /// An order of things to do.
    #[n(2)]
    Plan(#[n(0)] Plan),
    /// A right to an effect.
    #[n(3)]
    Capability(#[n(0)] Capability),
    /// Decisions over effects.
    #[n(4)]
    Policy(#[n(0)] Policy),
}

/// A type with a name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Its name.
    #[n(0)]
    #[serde(rename = "defschema")]
    pub name: Name,
    /// What values there are.
    #[n(1)]
    #[serde(rename = "type")]
    pub of: Type,
}

/// A reducer: a WASM module and what it may see, keep, say and ask for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Its name.
    #[n(0)]
    #[serde(rename = "defmodule")]
    pub name: Name,
    /// BLAKE3 hash of the WASM, which is a blob of the world.
    #[n(1)]
    pub wasm: Hash,
    /// Schema of a cell's state.
    #[n(2)]
    pub state: Name,
    /// Type of the key of a cell; none: the module has one cell.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Type>,
    /// Schemas of events that it takes.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takes: Vec<Name>,
    /// Schemas of events that it may raise.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raises: Vec<Name>,
    /// Kinds of effects that it may ask for.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Name>,
    /// What one step may use.
    #[n(7)]
    #[serde(default)]
    pub limits: Limits,
}

/// What one step may use. Reaching a limit is an outcome that is recorded; the cell stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// WASM instructions, roughly.
    #[n(0)]
    pub fuel: u64,
    /// Bytes of linear memory.
    #[n(1)]
    pub memory: u64,
    /// Bytes of output: new state, events and effects together.
    #[n(2)]
    pub output: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { fuel: 10_000_000, memory: 4 << 20, output: 64 << 10 }
    }
}

impl Limits {
    /// Nobody gets more.
    pub const MOST: Limits = Limits { fuel: 500_000_000, memory: 64 << 20, output: 1 << 20 };
}

/// A right to one kind of effect, held by modules and plans, within a scope and until a time.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// Its name, by which an effect asks for it.
    #[n(0)]
    #[serde(rename = "defcap")]
    pub name: Name,
    /// The kind of effect.
    #[n(1)]
    pub effect: Name,
    /// Modules and plans that hold it.
    #[n(2)]
    pub holders: Vec<Name>,
    /// Which parameters it covers.
    #[n(3)]
    #[serde(default)]
    pub scope: Scope,
    /// Not at or after this time, nanoseconds since 1970 by the world's logical clock.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ns: Option<u64>,
}

/// Ordered decisions over effects, and who may change the world.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name.
    #[n(0)]
    #[serde(rename = "defpolicy")]
    pub name: Name,
    /// The first that matches decides; if none does, the answer is no.
    #[n(1)]
    pub rules: Vec<Rule>,
    /// What a proposal needs before it may be applied.
    #[n(2)]
    #[serde(default)]
    pub proposals: Proposals,
}

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Effects that it is about: all of these must match, and what is left out matches.
    #[n(0)]
    #[serde(default)]
    pub when: When,
    /// What it says of them.
    #[n(1)]
    pub decide: Decision,
}

/// Which effects a rule is about. A text that ends with `*` matches whatever begins like it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Kind of effect.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// Capability under which it is asked for.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Module or plan that asks.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// What a policy says of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may be done.
    #[n(0)]
    Allow,
    /// It may not.
    #[n(1)]
    Deny,
    /// A person decides.
    #[n(2)]
    RequireApproval,
}

/// What a proposal needs before it may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proposals {
    /// So many different people.
    #[n(0)]
    pub approvals: u32,
    /// Whether whoever proposed it counts.
    #[n(1)]
    pub proposer_counts: bool,
    /// Whether it must have been rehearsed.
    #[n(2)]
    pub shadow: bool,
}

impl Default for Proposals {
    fn default() -> Proposals {
        Proposals { approvals: 1, proposer_counts: true, shadow: true }
    }
}

/// Which events go where.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Schema of the event; `sys/…` are the host's.
    #[n(0)]
    pub event: Name,
    /// Module that takes it.
    #[n(1)]
    pub module: Name,
    /// Field of the event that is the key of the cell; none, for a module with keys: the key that the sender names.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Which events start plans.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Schema of the event, which is the plan's input.
    #[n(0)]
    pub event: Name,
    /// Plan that it starts.
    #[n(1)]
    pub plan: Name,
}

/// What a world consists of, by hash, and how it hangs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Every definition.
    #[n(0)]
    pub definitions: BTreeMap<Name, Hash>,
    /// Events to modules, in this order.
    #[n(1)]
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Events to plans.
    #[n(2)]
    #[serde(default)]
    pub triggers: Vec<Trigger>,
    /// The policy in force; none: every effect is denied and one person approves proposals.
    #[n(3)]
    #[serde(default)]
    pub policy: Option<Name>,
}

impl Manifest {
    /// What patches and records call it by.
    pub fn hash(&self) -> Hash {
        Hash::of("agentd 2026-11-21 air manifest v1", &canonical(self))
    }
}

impl Definition {
    /// Its name.
    pub fn name(&self) -> &Name {
        match self {
            Definition::Schema(of) => &of.name,
            Definition::Module(of) => &of.name,
            Definition::Plan(of) => &of.name,
            Definition::Capability(of) => &of.name,
            Definition::Policy(of) => &of.name,
        }
    }

    /// The word that its JSON begins with.
    pub fn word(&self) -> &'static str {
        match self {
            Definition::Schema(_) => "defschema",
            Definition::Module(_) => "defmodule",
            Definition::Plan(_) => "defplan",
            Definition::Capability(_) => "defcap",
            Definition::Policy(_) => "defpolicy",
        }
    }

    /// What a manifest calls it by.
    pub fn hash(&self) -> Hash {
        Hash::of(CONTEXT, &canonical(self))
    }
}

/// Why a JSON object is not a definition.
#[derive(Debug, thiserror::Error)]
pub enum NotADefinition {
    /// It does not say what it is.
    #[error("it has none of defschema, defmodule, defplan, defcap, defpolicy")]
    Unknown,
    /// It says what it is and is not that.
    #[error("{word}: {source}")]
    Wrong {
        /// What it says it is.
        word: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Definition {
    /// Reads the authoring form.
    pub fn from_json(json: &serde_json::Value) -> Result<Definition, NotADefinition> {
        fn read<T: for<'a> Deserialize<'a>>(
            word: &'static str,
            json: &serde_json::Value,
            make: fn(T) -> Definition,
        ) -> Result<Definition, NotADefinition> {
            T::deserialize(json).map(make).map_err(|source| NotADefinition::Wrong { word, source })
        }
        let has = |word: &str| json.get(word).is_some();
        match () {
            () if has("defschema") => read("defschema", json, Definition::Schema),
            () if has("defmodule") => read("defmodule", json, Definition::Module),
            () if has("defplan") => read("defplan", json, Definition::Plan),
            () if has("defcap") => read("defcap", json, Definition::Capability),
            () if has("defpolicy") => read("defpolicy", json, Definition::Policy),
            () => Err(NotADefinition::Unknown),
        }
    }

    /// The authoring form.
    pub fn to_json(&self) -> serde_json::Value {
        let json = match self {
            Definition::Schema(of) => serde_json::to_value(of),
            Definition::Module(of) => serde_json::to_value(of),
            Definition::Plan(of) => serde_json::to_value(of),
            Definition::Capability(of) => serde_json::to_value(of),
            Definition::Policy(of) => serde_json::to_value(of),
        };
        json.unwrap_or_else(|error| unreachable!("a definition is plain data: {error}"))
    }
}

impl Serialize for Definition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Definition, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        Definition::from_json(&json).map_err(serde::de::Error::custom)
    }
}

impl When {
    /// Whether an effect is one of those.
    pub fn matches(&self, effect: &Name, capability: &Name, origin: &Name) -> bool {
        let like = |pattern: &Option<String>, name: &Name| {
            pattern.as_ref().is_none_or(|pattern| matches_text(pattern, &name.to_string()))
        };
        like(&self.effect, effect) && like(&self.capability, capability) && like(&self.origin, origin)
    }
}

/// Whether a text is the pattern, or begins like it where the pattern ends with `*`.
pub fn matches_text(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(front) => text.starts_with(front),
        None => text == pattern,
    }
}

/// The bytes that are hashed.
pub(crate) fn canonical<T: Encode<()>>(value: &T) -> Vec<u8> {
    match minicbor::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("writing to memory cannot be refused: {error}"),
    }
}
