//! What can happen in a world: the body of its records.
//!
//! Numbers of variants and fields are part of the journal's format: they are only ever added to. Some entries are *inputs*:
//! they come from outside, with a stamp of their own. All others follow from the input before them.

use agentd_air::{Decision, Hash as Content, Name};
use agentd_journal::{Body, KeyChange};
use agentd_model::{Hash, Principal, PublicKey, Seq, WorldId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::{Serialize, Serializer};

/// Something that happened in a world.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// The journal began. Input.
    #[n(0)]
    Begun {
        /// Its random name.
        #[n(0)]
        world: WorldId,
        /// What people call it.
        #[n(1)]
        name: String,
        /// What its heads are signed with.
        #[n(2)]
        key: PublicKey,
    },
    /// Another key signs from the next head on; the old one vouches for it. Input.
    #[n(1)]
    KeyRotated {
        /// The new one.
        #[n(0)]
        key: PublicKey,
    },
    /// A copy goes on under another host, or under another name. Input.
    #[n(2)]
    TakenOver {
        /// What people call it there.
        #[n(0)]
        name: String,
        /// The key of that host, which vouches for everything from here on.
        #[n(1)]
        key: PublicKey,
    },
    /// The state was saved, so that opening may begin here. Input.
    #[n(3)]
    StateSaved {
        /// Hash of the saved bytes.
        #[n(0)]
        state: Hash,
        /// What heads are signed with at this point.
        #[n(1)]
        key: PublicKey,
    },
    /// An event. Input, unless a reducer or a plan raised it.
    #[n(4)]
    Happened {
        /// Its schema.
        #[n(0)]
        schema: Name,
        /// Its value, canonical.
        #[n(1)]
        #[serde(serialize_with = "hex")]
        value: ByteVec,
        /// The key of the cell that it is for, where the sender named one; canonical.
        #[n(2)]
        #[serde(serialize_with = "hex_option")]
        key: Option<ByteVec>,
        /// Where it comes from.
        #[n(3)]
        from: Source,
    },
    /// A reducer took an event.
    #[n(5)]
    Stepped {
        /// Which.
        #[n(0)]
        module: Name,
        /// Hash of its WASM.
        #[n(1)]
        wasm: Content,
        /// Its cell.
        #[n(2)]
        #[serde(serialize_with = "hex_option")]
        key: Option<ByteVec>,
        /// What came of it.
        #[n(3)]
        outcome: Outcome,
    },
    /// An effect was asked for, and this is what capability and policy say.
    #[n(6)]
    Wanted {
        /// The effect.
        #[n(0)]
        intent: Box<Intent>,
        /// May it ever?
        #[n(1)]
        grant: Grant,
        /// Should it now? Nothing where the capability refused.
        #[n(2)]
        ruling: Option<Ruling>,
    },
    /// An effect was asked for under a key that it had been asked for before: it is one effect.
    #[n(7)]
    WantedAgain {
        /// Which.
        #[n(0)]
        intent: Content,
    },
    /// Somebody answered whether an effect may be. Input.
    #[n(8)]
    Answered {
        /// Which.
        #[n(0)]
        intent: Content,
        /// Whether.
        #[n(1)]
        allow: bool,
        /// By whom.
        #[n(2)]
        by: Principal,
        /// What they said.
        #[n(3)]
        note: String,
    },
    /// An adapter is about to do it. Input.
    #[n(9)]
    Attempted {
        /// Which.
        #[n(0)]
        intent: Content,
        /// The how manieth time, from 1.
        #[n(1)]
        attempt: u32,
    },
    /// A receipt came. Input.
    #[n(10)]
    Settled {
        /// COSE_Sign1 over a [`crate::Receipt`].
        #[n(0)]
        #[serde(serialize_with = "hex")]
        receipt: ByteVec,
    },
    /// Somebody wants other definitions. Input.
    #[n(11)]
    Proposed {
        /// The changes: canonical bytes of an `agentd_air::Patch`.
        #[n(0)]
        #[serde(serialize_with = "hex")]
        patch: ByteVec,
        /// By whom.
        #[n(1)]
        by: Principal,
        /// What for.
        #[n(2)]
        note: String,
    },
    /// A proposal was rehearsed. Input.
    #[n(12)]
    Rehearsed {
        /// Which: the record with which it was proposed.
        #[n(0)]
        proposal: Seq,
        /// Hash of the report, which is a blob.
        #[n(1)]
        report: Content,
        /// Inputs that it was rehearsed on.
        #[n(2)]
        inputs: u64,
        /// Differences that it makes.
        #[n(3)]
        differences: u64,
    },
    /// Somebody said yes or no to a proposal. Input.
    #[n(13)]
    Voted {
        /// Which.
        #[n(0)]
        proposal: Seq,
        /// What.
        #[n(1)]
        approve: bool,
        /// Who.
        #[n(2)]
        by: Principal,
        /// Why.
        #[n(3)]
        note: String,
    },
    /// A proposal was applied. Input.
    #[n(14)]
    Applied {
        /// Which.
        #[n(0)]
        proposal: Seq,
        /// What the world consists of from here on.
        #[n(1)]
        manifest: Content,
        /// By whom.
        #[n(2)]
        by: Principal,
        /// Effects whose receipts will not be taken any more.
        #[n(3)]
        fenced: Vec<Content>,
        /// The newest record of the host's world then: what the world listens to begins after it.
        #[n(4)]
        host: Seq,
    },
    /// A plan started; its number is this record's.
    #[n(15)]
    PlanStarted {
        /// Which.
        #[n(0)]
        plan: Name,
        /// The saved run, [`crate::plan::Instance`].
        #[n(1)]
        #[serde(serialize_with = "hex")]
        instance: ByteVec,
    },
    /// A plan went on.
    #[n(16)]
    PlanWent {
        /// The record with which it started.
        #[n(0)]
        run: Seq,
        /// The saved run.
        #[n(1)]
        #[serde(serialize_with = "hex")]
        instance: ByteVec,
        /// How it ended, if it did, in words.
        #[n(2)]
        ended: Option<String>,
    },
    /// More followed from an input than may; the rest was not looked at.
    #[n(17)]
    Cut {
        /// What would have been next.
        #[n(0)]
        at: String,
    },
    /// Records before one are taken out of the journal. What is left begins with a saved state. Input.
    #[n(18)]
    Pruned {
        /// The first that stays.
        #[n(0)]
        first: Seq,
        /// By whom.
        #[n(1)]
        by: Principal,
    },
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Somebody sent it.
    #[n(0)]
    Sent {
        /// Who.
        #[n(0)]
        by: Principal,
    },
    /// It happened in the host's world.
    #[n(1)]
    Host {
        /// Its record there.
        #[n(0)]
        seq: Seq,
        /// That record's hash.
        #[n(1)]
        hash: Hash,
    },
    /// A reducer or a plan of this world raised it; the cause says which.
    #[n(2)]
    Raised,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The cell stays as it is.
    #[n(0)]
    Kept {
        /// Fuel used.
        #[n(0)]
        fuel: u64,
    },
    /// The cell becomes this.
    #[n(1)]
    Set {
        /// Its new state, canonical.
        #[n(0)]
        #[serde(serialize_with = "hex")]
        state: ByteVec,
        /// Fuel used.
        #[n(1)]
        fuel: u64,
    },
    /// The cell is gone.
    #[n(2)]
    Deleted {
        /// Fuel used.
        #[n(0)]
        fuel: u64,
    },
    /// The reducer trapped; the cell stays as it is and nothing else follows.
    #[n(3)]
    Trapped {
        /// On what.
        #[n(0)]
        trap: String,
    },
    /// The reducer reached a limit; as if it had trapped.
    #[n(4)]
    Limited {
        /// Which.
        #[n(0)]
        limit: String,
    },
    /// What it gave is not what it may give; as if it had trapped.
    #[n(5)]
    Refused {
        /// What is wrong with it, and where.
        #[n(0)]
        why: String,
    },
}

impl Outcome {
    /// Whether the step did its work.
    pub fn is_done(&self) -> bool {
        matches!(self, Outcome::Kept { .. } | Outcome::Set { .. } | Outcome::Deleted { .. })
    }
}

/// An effect that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Intent {
    /// Its identity.
    #[n(0)]
    pub id: Content,
    /// Its kind.
    #[n(1)]
    pub kind: Name,
    /// The capability under which it is asked for.
    #[n(2)]
    pub capability: String,
    /// Its parameters; canonical, unless the capability check refused them.
    #[n(3)]
    #[serde(serialize_with = "hex")]
    pub params: ByteVec,
    /// Who asks.
    #[n(4)]
    pub origin: Origin,
    /// Two effects of one origin and kind with one key are one effect.
    #[n(5)]
    #[serde(serialize_with = "hex_option")]
    pub key: Option<ByteVec>,
}

/// Who asks for an effect, and is told what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A cell of a module.
    #[n(0)]
    Module {
        /// Which module.
        #[n(0)]
        name: Name,
        /// Which cell.
        #[n(1)]
        #[serde(serialize_with = "hex_option")]
        key: Option<ByteVec>,
    },
    /// A step of a plan.
    #[n(1)]
    Plan {
        /// Which plan.
        #[n(0)]
        name: Name,
        /// The record with which it started.
        #[n(1)]
        run: Seq,
        /// Which step.
        #[n(2)]
        step: u32,
    },
}

impl Origin {
    /// The module or plan.
    pub fn name(&self) -> &Name {
        match self {
            Origin::Module { name, .. } | Origin::Plan { name, .. } => name,
        }
    }
}

/// Whether the capability covers the effect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// It does.
    #[n(0)]
    Covered {
        /// Hash of the capability as it was defined then.
        #[n(0)]
        by: Content,
    },
    /// It does not.
    #[n(1)]
    Refused {
        /// Why.
        #[n(0)]
        why: String,
    },
}

/// What the policy says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Ruling {
    /// Which policy; none is in force: the answer is no.
    #[n(0)]
    pub policy: Option<Name>,
    /// Position of the rule that matched, from 0; none did: the answer is no.
    #[n(1)]
    pub rule: Option<u32>,
    /// The answer.
    #[n(2)]
    pub decision: Decision,
}

impl Entry {
    /// Whether it came from outside; all others follow from the input before them.
    pub fn is_input(&self) -> bool {
        match self {
            Entry::Happened { from, .. } => !matches!(from, Source::Raised),
            Entry::Stepped { .. }
            | Entry::Wanted { .. }
            | Entry::WantedAgain { .. }
            | Entry::PlanStarted { .. }
            | Entry::PlanWent { .. }
            | Entry::Cut { .. } => false,
            _ => true,
        }
    }
}

impl Body for Entry {
    fn key_change(&self) -> Option<KeyChange> {
        match self {
            Entry::Begun { key, .. } => Some(KeyChange::Begun(*key)),
            Entry::KeyRotated { key } => Some(KeyChange::Rotated(*key)),
            Entry::TakenOver { key, .. } => Some(KeyChange::TakenOver(*key)),
            _ => None,
        }
    }

    fn saved_state(&self) -> Option<(Hash, PublicKey)> {
        match self {
            Entry::StateSaved { state, key } => Some((*state, *key)),
            _ => None,
        }
    }
}

fn hex<S: Serializer>(bytes: &ByteVec, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}", Hex(bytes)))
}

fn hex_option<S: Serializer>(bytes: &Option<ByteVec>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => hex(bytes, serializer),
        None => serializer.serialize_none(),
    }
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
