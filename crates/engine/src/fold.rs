//! An entry becomes a new state: the only place where the state changes.

use std::sync::Arc;

use agentd_air::{Change, Decision, Patch};
use agentd_model::{Principal, Seq, Stamp};

use crate::entry::{Entry, Grant, Outcome, Ruling, Source};
use crate::receipt::Receipt;
use crate::state::{CellId, Open, PROPOSALS_KEPT, Phase, Proposal, Run, SETTLED_KEPT, Stage, State};

/// Above every record of a host: a world with this cursor is told nothing.
const DEAF: Seq = Seq(1 << 62);

impl State {
    /// Takes in what happened next.
    pub fn fold(&mut self, seq: Seq, stamp: Stamp, entry: &Entry) {
        self.height = seq;
        self.logical_ns = self.logical_ns.max(stamp.wall_ns);
        match entry {
            Entry::Begun { world, name, key } => {
                self.world = *world;
                self.name.clone_from(name);
                self.key = *key;
            }
            Entry::KeyRotated { key } => self.key = *key,
            Entry::TakenOver { name, key } => {
                self.name.clone_from(name);
                self.key = *key;
                self.settle_down(seq);
            }
            Entry::Happened { from, .. } => {
                self.events += 1;
                if let Source::Host { seq, .. } = from {
                    self.host_cursor = *seq;
                }
            }
            Entry::Stepped { module, key, outcome, .. } => {
                let id = || CellId { module: module.clone(), key: key.clone() };
                match outcome {
                    Outcome::Set { state, .. } => drop(self.cells.insert(id(), Arc::from(state.as_slice()))),
                    Outcome::Deleted { .. } => drop(self.cells.remove(&id())),
                    _ => {}
                }
            }
            Entry::Wanted { intent, grant: Grant::Covered { .. }, ruling: Some(Ruling { decision, .. }) } => {
                let phase = match decision {
                    Decision::Allow => Phase::Ready,
                    Decision::RequireApproval => Phase::Asked,
                    Decision::Deny => return,
                };
                let open = Open { intent: intent.as_ref().clone(), wanted: seq, phase };
                self.open.insert(intent.id, open);
            }
            Entry::Answered { intent, allow: true, .. } => self.phase(intent, Phase::Ready),
            Entry::Answered { intent, allow: false, .. } => self.settle(intent, seq),
            Entry::Attempted { intent, attempt } => self.phase(intent, Phase::Attempted { attempt: *attempt }),
            Entry::Settled { receipt } => {
                if let Ok(receipt) = Receipt::claimed(receipt) {
                    self.settle(&receipt.intent, seq);
                }
            }
            Entry::Proposed { patch, by, note } => {
                let (patch, by, note) = (patch.clone(), *by, note.clone());
                let proposal =
                    Proposal { patch, by, note, stage: Stage::Open, approved: Default::default(), rehearsed: None };
                self.proposals.insert(seq, proposal);
                self.forget_proposals();
            }
            Entry::Rehearsed { proposal, report, inputs, differences } => {
                self.proposal_mut(*proposal, |p| p.rehearsed = Some((*report, *inputs, *differences)));
            }
            Entry::Voted { proposal, approve, by, .. } => self.proposal_mut(*proposal, |p| match by {
                _ if !approve => p.stage = Stage::Rejected,
                Principal::User { uid } => drop(p.approved.insert(*uid)),
                _ => {}
            }),
            Entry::Applied { proposal, fenced, host, .. } => {
                self.host_cursor = if self.host_cursor == DEAF { *host } else { self.host_cursor.max(*host) };
                for intent in fenced {
                    self.settle(intent, seq);
                }
                // Without a fence there are none; with one they are given up with the effects that they wait for.
                self.runs.clear();
                let patch = self.proposals.get(proposal).and_then(|found| Patch::decode(&found.patch).ok());
                if let Some(next) = patch.and_then(|patch| self.definitions.patched(&patch).ok()) {
                    self.redefine(Arc::new(next));
                }
                self.proposal_mut(*proposal, |p| p.stage = Stage::Applied);
            }
            Entry::PlanStarted { plan, instance } => {
                self.runs.insert(seq, Run { plan: plan.clone(), instance: instance.clone() });
            }
            Entry::PlanWent { run, ended: Some(_), .. } => drop(self.runs.remove(run)),
            Entry::PlanWent { run, instance, ended: None } => {
                if let Some(found) = self.runs.get_mut(run) {
                    found.instance = instance.clone();
                }
            }
            Entry::Wanted { .. }
            | Entry::WantedAgain { .. }
            | Entry::StateSaved { .. }
            | Entry::Cut { .. }
            | Entry::Pruned { .. } => {}
        }
    }

    /// A copy begins quietly. What was on its way is the original's to finish, and not done again here; who said yes there has
    /// said nothing here; and with no policy every effect is denied, and the host is not listened to, until somebody here
    /// applies definitions.
    fn settle_down(&mut self, seq: Seq) {
        let open: Vec<_> = self.open.keys().copied().collect();
        open.iter().for_each(|intent| self.settle(intent, seq));
        self.runs.clear();
        self.proposals.clear();
        self.host_cursor = DEAF;
        let base = self.definitions.manifest().hash();
        let patch = Patch { base, changes: vec![Change::Policy(None)] };
        // A policy can always be taken away. Were it not so, nothing at all would be left in force.
        let quiet = self.definitions.patched(&patch).unwrap_or_default();
        self.redefine(Arc::new(quiet));
    }

    fn phase(&mut self, intent: &agentd_air::Hash, phase: Phase) {
        if let Some(open) = self.open.get_mut(intent) {
            open.phase = phase;
        }
    }

    /// An effect is over. One with a key is remembered, so that it is not done again.
    fn settle(&mut self, intent: &agentd_air::Hash, seq: Seq) {
        let Some(open) = self.open.remove(intent) else { return };
        if open.intent.key.is_none() {
            return;
        }
        self.settled.insert(*intent, seq);
        while self.settled.len() > SETTLED_KEPT {
            let oldest = self.settled.iter().min_by_key(|(_, seq)| **seq).map(|(id, _)| *id);
            oldest.map(|id| self.settled.remove(&id));
        }
    }

    fn proposal_mut(&mut self, seq: Seq, change: impl FnOnce(&mut Proposal)) {
        if let Some(proposal) = self.proposals.get_mut(&seq) {
            change(proposal);
        }
    }

    fn forget_proposals(&mut self) {
        let decided: Vec<Seq> =
            self.proposals.iter().filter(|(_, p)| p.stage != Stage::Open).map(|(seq, _)| *seq).collect();
        for seq in decided.iter().take(decided.len().saturating_sub(PROPOSALS_KEPT)) {
            self.proposals.remove(seq);
        }
    }
}
