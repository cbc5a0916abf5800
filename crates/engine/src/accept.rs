//! An input becomes an entry, or is refused with the place where it is wrong. Nothing changes here.
//!
//! Values are decoded against their schema, checked and made canonical now, so that everything later may take them as they
//! are. An input that is refused leaves no trace: it was never taken in.

use agentd_air::{
    Definitions, Hash as Content, MAX_PATCH_BYTES, Name, NotApplicable, Patch, Proposals, Resolve as _, Type, Value,
    Wrong, check, effect, encode,
};
use agentd_model::{Hash, Principal, PublicKey, Seq, WorldId};

use crate::entry::{Entry, Source};
use crate::receipt::{NotAReceipt, Receipt};
use crate::state::{OPEN_PROPOSALS, Phase, Stage, State};

/// Something from outside. A change of keys is none: it is a commit of its own ([`crate::Keeper::rotate`]).
#[derive(Clone, Debug)]
pub enum Input {
    /// The world begins.
    Begin {
        /// Its random name.
        world: WorldId,
        /// What people call it.
        name: String,
        /// What its heads are signed with.
        key: PublicKey,
    },
    /// Somebody sends an event.
    Event {
        /// Its schema.
        schema: Name,
        /// Its value.
        value: Value,
        /// The key of the cell that it is for.
        key: Option<Value>,
        /// Who.
        by: Principal,
    },
    /// Something happened in the host's world.
    Host {
        /// Its schema, `sys/…`.
        schema: Name,
        /// Its value.
        value: Value,
        /// Its record there.
        seq: Seq,
        /// That record's hash.
        hash: Hash,
    },
    /// Somebody answers whether an effect may be.
    Answer {
        /// Which.
        intent: Content,
        /// Whether.
        allow: bool,
        /// By whom.
        by: Principal,
        /// What they say.
        note: String,
    },
    /// An adapter takes an effect.
    Attempt {
        /// Which.
        intent: Content,
    },
    /// A receipt.
    Receipt {
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Other definitions.
    Propose {
        /// The changes.
        patch: Box<Patch>,
        /// By whom.
        by: Principal,
        /// What for.
        note: String,
    },
    /// A rehearsal was made.
    Rehearse {
        /// Of which proposal.
        proposal: Seq,
        /// Hash of the report.
        report: Content,
        /// Inputs that it was rehearsed on.
        inputs: u64,
        /// Differences.
        differences: u64,
    },
    /// Yes or no to a proposal.
    Vote {
        /// Which.
        proposal: Seq,
        /// What.
        approve: bool,
        /// Who.
        by: Principal,
        /// Why.
        note: String,
    },
    /// A proposal is to come into force.
    Apply {
        /// Which.
        proposal: Seq,
        /// By whom.
        by: Principal,
        /// Whether effects that are on their way are given up.
        fence: bool,
        /// The newest record of the host's world.
        host: Seq,
    },
    /// Records before a saved state are to go.
    Prune {
        /// The record that saved it.
        first: Seq,
        /// By whom.
        by: Principal,
    },
}

/// Why an input was not taken. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has begun already, or something comes before its beginning.
    #[error("a world begins once, and before anything else")]
    Beginning,
    /// No such schema.
    #[error("there is no schema {0}")]
    UnknownSchema(Name),
    /// Only the host sends these.
    #[error("{0} is the host's to say")]
    Reserved(Name),
    /// The value is not of its type.
    #[error("the value is not a {schema}: {wrong}")]
    Value {
        /// Its schema.
        schema: Name,
        /// What is wrong, and where.
        wrong: Wrong,
    },
    /// The key is missing or of another type.
    #[error("module {module} keeps its cells by {wanted}: {why}")]
    Key {
        /// Which module.
        module: Name,
        /// Type of its key.
        wanted: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The host's event was taken in before.
    #[error("record {0} of the host was taken in before")]
    Seen(Seq),
    /// No such effect is open.
    #[error("there is no open effect {0}; it was never asked for, or it is settled")]
    NotOpen(Content),
    /// The effect is in another phase.
    #[error("effect {intent} is {phase}")]
    Phase {
        /// Which.
        intent: Content,
        /// Where it is.
        phase: &'static str,
    },
    /// The receipt is not one.
    #[error(transparent)]
    Receipt(#[from] NotAReceipt),
    /// The receipt's result does not fit, or it is of another attempt.
    #[error("the receipt does not fit the effect: {0}")]
    Misfit(String),
    /// The patch does not apply.
    #[error(transparent)]
    Patch(#[from] NotApplicable),
    /// The patch is too long.
    #[error("the patch has {0} bytes; {MAX_PATCH_BYTES} is the most")]
    TooLong(usize),
    /// No such proposal.
    #[error("there is no proposal {0}")]
    NoProposal(Seq),
    /// Others are to be decided first.
    #[error("{OPEN_PROPOSALS} proposals are undecided; that is the most")]
    Undecided,
    /// It was rejected or applied already.
    #[error("proposal {0} is {1}")]
    Decided(Seq, &'static str),
    /// It needs more before it may be applied.
    #[error("proposal {proposal} needs {missing}")]
    NotYet {
        /// Which.
        proposal: Seq,
        /// What.
        missing: String,
    },
    /// Something is on its way.
    #[error("{effects} effects and {plans} plans are on their way")]
    NotQuiescent {
        /// Effects without a receipt.
        effects: usize,
        /// Plans that go on.
        plans: usize,
    },
    /// Only people answer, approve and propose.
    #[error("{0} is no person; only people decide")]
    NoPerson(Principal),
    /// A text is too long.
    #[error("a {what} has at most {most} bytes")]
    Text {
        /// Which text.
        what: &'static str,
        /// How many it may have.
        most: usize,
    },
}

/// Longest note.
const NOTE_BYTES: usize = 1000;

impl State {
    /// Checks an input and makes it an entry.
    pub fn accept(&self, input: Input) -> Result<Entry, Refusal> {
        if matches!(input, Input::Begin { .. }) != (self.height == Seq(0)) {
            return Err(Refusal::Beginning);
        }
        match input {
            Input::Begin { world, name, key } => Ok(Entry::Begun { world, name, key }),
            Input::Event { schema, .. } if schema.is_reserved() => Err(Refusal::Reserved(schema)),
            Input::Event { schema, value, key, by } => self.event(schema, &value, key, Source::Sent { by }),
            Input::Host { seq, .. } if seq <= self.host_cursor => Err(Refusal::Seen(seq)),
            Input::Host { schema, value, seq, hash } => self.event(schema, &value, None, Source::Host { seq, hash }),
            Input::Answer { intent, allow, by, note } => {
                person(by)?;
                let note = short("note", note)?;
                match self.open.get(&intent).map(|open| open.phase) {
                    Some(Phase::Asked) => Ok(Entry::Answered { intent, allow, by, note }),
                    Some(_) => Err(Refusal::Phase { intent, phase: "already allowed" }),
                    None => Err(Refusal::NotOpen(intent)),
                }
            }
            Input::Attempt { intent } => self.attempt(intent),
            Input::Receipt { bytes } => self.receipt(bytes),
            Input::Propose { patch, by, note } => {
                let note = short("note", note)?;
                let bytes = patch.encode();
                if bytes.len() > MAX_PATCH_BYTES {
                    return Err(Refusal::TooLong(bytes.len()));
                }
                self.definitions.patched(&patch)?;
                if self.proposals.values().filter(|found| found.stage == Stage::Open).count() >= OPEN_PROPOSALS {
                    return Err(Refusal::Undecided);
                }
                Ok(Entry::Proposed { patch: bytes.into(), by, note })
            }
            Input::Rehearse { proposal, report, inputs, differences } => {
                self.undecided(proposal)?;
                Ok(Entry::Rehearsed { proposal, report, inputs, differences })
            }
            Input::Vote { proposal, approve, by, note } => {
                person(by)?;
                let note = short("note", note)?;
                self.undecided(proposal)?;
                Ok(Entry::Voted { proposal, approve, by, note })
            }
            Input::Apply { proposal, by, fence, host } => self.apply(proposal, by, fence, host),
            Input::Prune { first, by } => {
                person(by)?;
                Ok(Entry::Pruned { first, by })
            }
        }
    }

    fn event(&self, schema: Name, value: &Value, key: Option<Value>, from: Source) -> Result<Entry, Refusal> {
        let of = self.definitions.schema(&schema).ok_or_else(|| Refusal::UnknownSchema(schema.clone()))?;
        check(self.definitions.as_ref(), of, value)
            .map_err(|wrong| Refusal::Value { schema: schema.clone(), wrong })?;
        for (module, wanted) in self.keyed_by_sender(&schema) {
            let refusal = |why: String| Refusal::Key { module: module.clone(), wanted: wanted.kind(), why };
            let key = key.as_ref().ok_or_else(|| refusal("the event names none".into()))?;
            check(self.definitions.as_ref(), wanted, key).map_err(|wrong| refusal(wrong.to_string()))?;
        }
        let key = key.map(|key| encode(&key).into());
        Ok(Entry::Happened { schema, value: encode(value).into(), key, from })
    }

    /// Modules that take such an event into the cell that the sender names.
    fn keyed_by_sender<'a>(&'a self, schema: &'a Name) -> impl Iterator<Item = (&'a Name, &'a Type)> {
        let routes =
            self.definitions.routes().iter().filter(move |route| route.event == *schema && route.key.is_none());
        routes.filter_map(|route| Some((&route.module, self.definitions.module(&route.module)?.key.as_ref()?)))
    }

    fn attempt(&self, intent: Content) -> Result<Entry, Refusal> {
        let open = self.open.get(&intent).ok_or(Refusal::NotOpen(intent))?;
        match open.phase {
            Phase::Ready => Ok(Entry::Attempted { intent, attempt: 1 }),
            Phase::Attempted { attempt } if effect(&open.intent.kind).is_some_and(|kind| kind.repeatable) => {
                Ok(Entry::Attempted { intent, attempt: attempt.saturating_add(1) })
            }
            Phase::Attempted { .. } => Err(Refusal::Phase { intent, phase: "being done, and is not done twice" }),
            Phase::Asked => Err(Refusal::Phase { intent, phase: "waiting for a person" }),
        }
    }

    fn receipt(&self, bytes: Vec<u8>) -> Result<Entry, Refusal> {
        let receipt = Receipt::verified(&bytes, self.world, self.key)?;
        let open = self.open.get(&receipt.intent).ok_or(Refusal::NotOpen(receipt.intent))?;
        match open.phase {
            Phase::Attempted { attempt } if attempt == receipt.attempt => {}
            Phase::Attempted { attempt } => {
                let text = format!("it is of attempt {}, and the effect is at attempt {attempt}", receipt.attempt);
                return Err(Refusal::Misfit(text));
            }
            _ => return Err(Refusal::Phase { intent: receipt.intent, phase: "not being done" }),
        }
        receipt.result_fits(&open.intent.kind).map_err(Refusal::Misfit)?;
        Ok(Entry::Settled { receipt: bytes.into() })
    }

    fn undecided(&self, seq: Seq) -> Result<&crate::state::Proposal, Refusal> {
        let proposal = self.proposals.get(&seq).ok_or(Refusal::NoProposal(seq))?;
        match proposal.stage {
            Stage::Open => Ok(proposal),
            Stage::Rejected => Err(Refusal::Decided(seq, "rejected")),
            Stage::Applied => Err(Refusal::Decided(seq, "applied")),
        }
    }

    fn apply(&self, seq: Seq, by: Principal, fence: bool, host: Seq) -> Result<Entry, Refusal> {
        let proposal = self.undecided(seq)?;
        let needs = self.definitions.policy().map_or_else(Proposals::default, |policy| policy.proposals);
        let not_yet = |missing: String| Refusal::NotYet { proposal: seq, missing };
        if needs.shadow && proposal.rehearsed.is_none() {
            return Err(not_yet("a rehearsal".into()));
        }
        let proposer = match proposal.by {
            Principal::User { uid } if !needs.proposer_counts => Some(uid),
            _ => None,
        };
        let approvals = proposal.approved.iter().filter(|uid| Some(**uid) != proposer).count() as u32;
        if approvals < needs.approvals {
            let others = if proposer.is_some() { " of somebody else than who proposed it" } else { "" };
            return Err(not_yet(format!("{} more approvals{others}", needs.approvals - approvals)));
        }
        let next = self.definitions.patched(&Patch::decode(&proposal.patch)?)?;
        if !fence && !self.is_quiescent() {
            return Err(Refusal::NotQuiescent { effects: self.open.len(), plans: self.runs.len() });
        }
        let fenced = self.open.keys().copied().collect();
        Ok(Entry::Applied { proposal: seq, manifest: next.manifest().hash(), by, fenced, host })
    }

    /// What the definitions would be under a proposal.
    pub fn candidate(&self, seq: Seq) -> Result<Definitions, Refusal> {
        let proposal = self.proposals.get(&seq).ok_or(Refusal::NoProposal(seq))?;
        Ok(self.definitions.patched(&Patch::decode(&proposal.patch)?)?)
    }
}

fn person(by: Principal) -> Result<(), Refusal> {
    match by {
        Principal::User { .. } => Ok(()),
        other => Err(Refusal::NoPerson(other)),
    }
}

fn short(what: &'static str, text: String) -> Result<String, Refusal> {
    if text.len() > NOTE_BYTES { Err(Refusal::Text { what, most: NOTE_BYTES }) } else { Ok(text) }
}
