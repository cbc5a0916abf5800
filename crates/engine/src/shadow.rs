//! What would have been different? A rehearsal of other definitions on what really happened.
//!
//! The real state as it was some inputs ago is taken twice. One copy takes those inputs again as it did then, the other
//! under the candidate; then effects, failures of steps and cells are compared. Nothing is done outside: an effect gets a
//! receipt only if that very effect was really done and its receipt is among the inputs. What would follow from receipts
//! that never came cannot be known, and the report says how many there are: that is its horizon.
//!
//! A candidate that listens to host events which the world did not take then gets them from the host's journal, in order
//! of time with the world's own inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentd_air::{Decision, Definitions, Resolve as _, effect, schemas, to_json};
use agentd_model::Stamp;
use serde::{Deserialize, Serialize};

use crate::accept::Input;
use crate::entry::{Entry, Grant, Intent, Source};
use crate::receipt::Receipt;
use crate::run::{Draft, HostFailure, Reducers};
use crate::state::State;

/// What a rehearsal found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Inputs of the world that were taken again.
    pub inputs: u64,
    /// Events of the host that the candidate listens to and the world did not take then.
    pub host_events: u64,
    /// Effects that there would have been, and were not.
    pub added: Vec<Effect>,
    /// Effects that there were, and would not have been.
    pub gone: Vec<Effect>,
    /// Effects that there were, with another decision.
    pub decided: Vec<Effect>,
    /// Steps that would have failed: module and why, with how often.
    pub failures: BTreeMap<String, u64>,
    /// Cells that would have another state, be there or not be there.
    pub cells: u64,
    /// Inputs that would have been refused: why, with how often.
    pub refused: BTreeMap<String, u64>,
    /// Effects allowed under the candidate of which no receipt is known; what would follow from them is beyond the horizon.
    pub beyond: u64,
}

/// An effect in a report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Effect {
    /// Its kind.
    pub kind: String,
    /// Module or plan.
    pub origin: String,
    /// Its parameters, as JSON.
    pub params: String,
    /// What capability and policy say.
    pub decision: String,
}

impl Report {
    /// How many differences there are.
    pub fn differences(&self) -> u64 {
        let lists = self.added.len() + self.gone.len() + self.decided.len();
        lists as u64 + self.failures.values().sum::<u64>() + self.refused.values().sum::<u64>() + self.cells
    }
}

/// Effects in a report, of each list; more are counted by the length only where they fit.
const SHOWN: usize = 200;

/// Rehearses `candidate` on `inputs`, from the state before the first of them. `heard` are host events that the world did
/// not take then.
pub fn shadow(
    then: &State,
    candidate: Definitions,
    inputs: &[(Stamp, Entry)],
    heard: &[(Stamp, Input)],
    reducers: &dyn Reducers,
) -> Result<Report, HostFailure> {
    let mut report = Report { inputs: inputs.len() as u64, host_events: heard.len() as u64, ..Report::default() };
    let real = Branch::run(then.clone(), inputs, &[], reducers, &mut BTreeMap::new())?;
    let mut other = then.clone();
    other.redefine(Arc::new(candidate));
    let other = Branch::run(other, inputs, heard, reducers, &mut report.refused)?;
    compare(&real, &other, &mut report);
    Ok(report)
}

/// One of the two lines.
struct Branch {
    state: State,
    effects: BTreeMap<(String, String, String), BTreeSet<String>>,
    failures: BTreeMap<String, u64>,
    unsettled: u64,
}

impl Branch {
    fn run(
        state: State,
        inputs: &[(Stamp, Entry)],
        heard: &[(Stamp, Input)],
        reducers: &dyn Reducers,
        refused: &mut BTreeMap<String, u64>,
    ) -> Result<Branch, HostFailure> {
        let mut branch = Branch { state, effects: BTreeMap::new(), failures: BTreeMap::new(), unsettled: 0 };
        let mut heard = heard.iter().peekable();
        for (stamp, entry) in inputs {
            while let Some((at, input)) = heard.next_if(|(at, _)| at.wall_ns <= stamp.wall_ns) {
                branch.hear(*at, input.clone(), reducers, refused)?;
            }
            match branch.fits(entry) {
                Ok(()) => branch.take(*stamp, entry.clone(), reducers)?,
                Err(why) => *refused.entry(why).or_default() += 1,
            }
        }
        for (at, input) in heard {
            branch.hear(*at, input.clone(), reducers, refused)?;
        }
        Ok(branch)
    }

    /// Whether an input of then is one in this line too.
    fn fits(&self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Happened { schema, value, from: Source::Sent { .. }, .. } => {
                let types = self.state.definitions().as_ref();
                let of = types.schema(schema).ok_or_else(|| format!("there is no schema {schema}"))?;
                let decoded = agentd_air::decode(types, of, value, agentd_air::Strictness::Canonical);
                decoded.map(drop).map_err(|wrong| format!("the value is not a {schema}: {wrong}"))
            }
            // What is about an effect that is not there in this line says nothing in it.
            _ => Ok(()),
        }
    }

    fn hear(
        &mut self,
        stamp: Stamp,
        input: Input,
        reducers: &dyn Reducers,
        refused: &mut BTreeMap<String, u64>,
    ) -> Result<(), HostFailure> {
        match self.state.accept(input) {
            Ok(entry) => self.take(stamp, entry, reducers),
            Err(refusal) => {
                *refused.entry(refusal.to_string()).or_default() += 1;
                Ok(())
            }
        }
    }

    fn take(&mut self, stamp: Stamp, entry: Entry, reducers: &dyn Reducers) -> Result<(), HostFailure> {
        let about = match &entry {
            Entry::Answered { intent, .. } | Entry::Attempted { intent, .. } => Some(*intent),
            Entry::Settled { receipt } => Receipt::claimed(receipt).ok().map(|receipt| receipt.intent),
            // Definitions are what is rehearsed; what was decided about them then is not taken again.
            Entry::Proposed { .. } | Entry::Rehearsed { .. } | Entry::Voted { .. } | Entry::Applied { .. } => {
                return Ok(());
            }
            _ => None,
        };
        if about.is_some_and(|intent| self.state.open_intent(&intent).is_none()) {
            return Ok(());
        }
        for draft in self.state.run(reducers, entry, stamp)? {
            self.note(&draft);
        }
        self.unsettled = self.state.open().count() as u64;
        Ok(())
    }

    fn note(&mut self, draft: &Draft) {
        match &draft.entry {
            Entry::Wanted { intent, grant, ruling } => {
                let decision = match (grant, ruling) {
                    (Grant::Refused { why }, _) => format!("refused: {why}"),
                    (_, Some(ruling)) => match ruling.decision {
                        Decision::Allow => "allow".to_owned(),
                        Decision::Deny => "deny".to_owned(),
                        Decision::RequireApproval => "require_approval".to_owned(),
                    },
                    (_, None) => "deny".to_owned(),
                };
                let what = (intent.kind.to_string(), intent.origin.name().to_string(), params(intent));
                self.effects.entry(what).or_default().insert(decision);
            }
            Entry::Stepped { module, outcome, .. } if !outcome.is_done() => {
                let why = match outcome {
                    crate::Outcome::Trapped { trap } => trap,
                    crate::Outcome::Limited { limit } => limit,
                    crate::Outcome::Refused { why } => why,
                    _ => return,
                };
                *self.failures.entry(format!("{module}: {why}")).or_default() += 1;
            }
            _ => {}
        }
    }
}

fn params(intent: &Intent) -> String {
    let shown = effect(&intent.kind).and_then(|kind| {
        let value =
            agentd_air::decode(schemas(), &kind.params, &intent.params, agentd_air::Strictness::Lenient).ok()?;
        to_json(schemas(), &kind.params, &value).ok()
    });
    shown.map_or_else(|| format!("{} bytes that are not its parameters", intent.params.len()), |json| json.to_string())
}

fn compare(real: &Branch, other: &Branch, report: &mut Report) {
    let shown = |what: &(String, String, String), decisions: &BTreeSet<String>| Effect {
        kind: what.0.clone(),
        origin: what.1.clone(),
        params: what.2.clone(),
        decision: decisions.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    for (what, decisions) in &other.effects {
        match real.effects.get(what) {
            None => report.added.push(shown(what, decisions)),
            Some(then) if then != decisions => report.decided.push(shown(what, decisions)),
            Some(_) => {}
        }
    }
    let gone = real.effects.iter().filter(|(what, _)| !other.effects.contains_key(*what));
    report.gone.extend(gone.map(|(what, decisions)| shown(what, decisions)));
    for list in [&mut report.added, &mut report.gone, &mut report.decided] {
        list.truncate(SHOWN);
    }
    for (why, count) in &other.failures {
        let more = count.saturating_sub(real.failures.get(why).copied().unwrap_or(0));
        if more > 0 {
            report.failures.insert(why.clone(), more);
        }
    }
    let cells = |branch: &Branch| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let id = |id: &crate::CellId| minicbor::to_vec(id).unwrap_or_default();
        branch.state.cells().map(|(cell, state)| (id(cell), state.to_vec())).collect()
    };
    let (one, two) = (cells(real), cells(other));
    let changed = two.iter().filter(|(id, state)| one.get(*id) != Some(*state)).count();
    let missing = one.keys().filter(|id| !two.contains_key(*id)).count();
    report.cells = (changed + missing) as u64;
    report.beyond = other.unsettled;
}
