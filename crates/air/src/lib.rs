//! What is a world made of?
//!
//! Names, types, values and definitions. A type says which values there may be; a value has one encoding, whoever made it; a name stands
//! for one definition for ever.
//!
//! Not here: files, clocks, threads, and what any of it means. Bytes become values and values become bytes.

#![forbid(unsafe_code)]

mod dec;
mod decode;
mod encode;
mod hash;
mod json;
mod name;
mod path;
mod types;
mod value;

mod builtin;
mod define;
mod patch;
mod plan;
mod scope;

pub use builtin::{Effect, effect, effects, host_events, schemas};
pub use define::{
    Capability, Decision, Definition, Limits, Manifest, Module, NotADefinition, Policy, Proposals, Route, Rule, Schema,
    Trigger, When, matches_text,
};
pub use patch::{Change, Definitions, MAX_NESTING, MAX_PATCH_BYTES, NotApplicable, Patch, Unsound, nested_within};
pub use plan::{Act, Edge, Expr, MAX_STEPS, Op, Plan, Step as PlanStep};
pub use scope::{Agents, Exec, Http, Llm, Scope, any};

pub use dec::{Dec, DecError, MAX_EXPONENT};
pub use decode::{Strictness, decode};
pub use encode::{check, encode, encoded_len};
pub use hash::{Hash, HashError};
pub use json::{from_json, to_json};
pub use name::{MAX_NAME_PART, Name, NameError};
pub use path::{Path, Step, What, Wrong};
pub use types::{
    Case, Field, MAX_CASES, MAX_FIELD_NAME, MAX_FIELDS, MAX_RESOLVED_DEPTH, MAX_TYPE_DEPTH, MAX_TYPE_PARTS, Resolve,
    Type, TypeError, TypeFault,
};
pub use value::{MAX_VALUE_BYTES, MAX_VALUE_PARTS, TwiceError, Value, key_order};
