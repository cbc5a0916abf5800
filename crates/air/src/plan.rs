//! Plans: a few things to do in an order that is data.
//!
//! A plan is a graph without circles. A step is done when every edge into it has been decided and at least one was taken
//! (a step without edges into it is done at the start). An edge is taken when the step before it is done and its guard, if
//! it has one, is true. The plan ends at the first `end`, or when nothing is left to do. Nothing repeats, so every plan
//! ends.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::Name;

/// Most steps of a plan.
pub const MAX_STEPS: usize = 64;

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name.
    #[n(0)]
    #[serde(rename = "defplan")]
    pub name: Name,
    /// Schema of what it starts with.
    #[n(1)]
    pub input: Name,
    /// What it does.
    #[n(2)]
    pub steps: Vec<Step>,
    /// In which order, and whether.
    #[n(3)]
    #[serde(default)]
    pub edges: Vec<Edge>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name within the plan.
    #[n(0)]
    pub id: String,
    /// What.
    #[n(1)]
    #[serde(rename = "do")]
    pub act: Act,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// Asks for an effect; done at once, its result is the id of the intent.
    #[n(0)]
    Emit {
        /// Kind of effect.
        #[n(0)]
        effect: Name,
        /// Capability under which it is asked for.
        #[n(1)]
        capability: Name,
        /// Its parameters.
        #[n(2)]
        params: Expr,
    },
    /// Waits for the receipt of an effect; its result is the receipt.
    #[n(1)]
    AwaitReceipt {
        /// The step that asked for it.
        #[n(0)]
        of: String,
    },
    /// Waits for an event that comes later; its result is the event.
    #[n(2)]
    AwaitEvent {
        /// Its schema.
        #[n(0)]
        event: Name,
        /// Which one, with the event as `event`; the first if there is no condition.
        #[n(1)]
        #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
        condition: Option<Expr>,
    },
    /// Raises an event.
    #[n(3)]
    Raise {
        /// Its schema.
        #[n(0)]
        event: Name,
        /// Its value.
        #[n(1)]
        value: Expr,
    },
    /// Gives a value a name: its result is the value.
    #[n(4)]
    Assign {
        /// The value.
        #[n(0)]
        value: Expr,
    },
    /// Ends the plan.
    #[n(5)]
    End {
        /// What comes of it.
        #[n(0)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Expr>,
    },
}

/// From one step to the next.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// The step before.
    #[n(0)]
    pub from: String,
    /// The step after.
    #[n(1)]
    pub to: String,
    /// Taken only if this is true.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expr>,
}

/// A value, or how to come by one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expr {
    /// Truth.
    #[n(0)]
    Bool(#[n(0)] bool),
    /// An integer; becomes an `int`, `nat`, `time` or `duration` as needed.
    #[n(1)]
    Number(#[n(0)] i64),
    /// Text.
    #[n(2)]
    Text(#[n(0)] String),
    /// `input`, `steps.ID` or `event`, and fields of it: `input.agent`, `steps.ask.status`.
    #[n(3)]
    Get(#[n(0)] String),
    /// A record, field by field in the order of the schema.
    #[n(4)]
    Record(#[n(0)] Vec<Expr>),
    /// A list.
    #[n(5)]
    List(#[n(0)] Vec<Expr>),
    /// A case of a variant, by its name, with its value.
    #[n(6)]
    Case(#[n(0)] String, #[n(1)] Option<Box<Expr>>),
    /// An option without a value.
    #[n(7)]
    None,
    /// An operation.
    #[n(8)]
    Op(#[n(0)] Op, #[n(1)] Vec<Expr>),
}

/// Operations of expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Op {
    #[n(0)]
    Eq,
    #[n(1)]
    Ne,
    #[n(2)]
    Lt,
    #[n(3)]
    Le,
    #[n(4)]
    Gt,
    #[n(5)]
    Ge,
    #[n(6)]
    And,
    #[n(7)]
    Or,
    #[n(8)]
    Not,
    #[n(9)]
    Add,
    #[n(10)]
    Sub,
    #[n(11)]
    Mul,
    /// Texts, one after the other; numbers are written out.
    #[n(12)]
    Concat,
    /// Items of a list, letters of a text.
    #[n(13)]
    Len,
}
