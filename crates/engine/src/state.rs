//! Everything that is true in a world now.
//!
//! Cells are kept encoded, by module and key, and shared between copies, so that a rehearsal that changes a few of a million
//! cells costs little. The state has one encoding ([`State::save`]); its hash is what a replay is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentd_air::{Definition, Definitions, Hash as Content, MAX_NESTING, Name, Route, Trigger, nested_within};
use agentd_model::{Hash, Principal, PublicKey, Seq, WorldId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::entry::Intent;

/// Version of the encoding of a saved state; another one is not read.
const VERSION: u32 = 1;

/// Context of the hash of a saved state; the journal's store uses the same.
const CONTEXT: &str = "agentd 2026-11-21 saved state v1";

/// How many settled effects with keys are remembered, the newest: a key that is used again later than that is a new effect.
pub(crate) const SETTLED_KEPT: usize = 65_536;

/// How many proposals wait for a decision at most.
pub(crate) const OPEN_PROPOSALS: usize = 64;

/// How many proposals that were decided are remembered.
pub(crate) const PROPOSALS_KEPT: usize = 64;

/// Everything that is true in a world now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(crate) world: WorldId,
    pub(crate) name: String,
    pub(crate) key: PublicKey,
    pub(crate) height: Seq,
    pub(crate) logical_ns: u64,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) cells: BTreeMap<CellId, Arc<[u8]>>,
    pub(crate) open: BTreeMap<Content, Open>,
    pub(crate) settled: BTreeMap<Content, Seq>,
    pub(crate) proposals: BTreeMap<Seq, Proposal>,
    pub(crate) runs: BTreeMap<Seq, Run>,
    pub(crate) host_cursor: Seq,
    pub(crate) events: u64,
}

/// A cell: the state of one module under one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct CellId {
    /// Which module.
    #[n(0)]
    pub module: Name,
    /// Which key, canonical; none for a module without keys.
    #[n(1)]
    pub key: Option<ByteVec>,
}

/// An effect without a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Open {
    /// The effect.
    #[n(0)]
    pub intent: Intent,
    /// The record in which it was asked for.
    #[n(1)]
    pub wanted: Seq,
    /// How far it is.
    #[n(2)]
    pub phase: Phase,
}

/// How far an effect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A person is to decide.
    #[n(0)]
    Asked,
    /// It may be done.
    #[n(1)]
    Ready,
    /// An adapter has it.
    #[n(2)]
    Attempted {
        /// The how manieth time.
        #[n(0)]
        attempt: u32,
    },
}

/// A change of definitions that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// Canonical bytes of the patch.
    #[n(0)]
    pub patch: ByteVec,
    /// Who wants it.
    #[n(1)]
    pub by: Principal,
    /// What for.
    #[n(2)]
    pub note: String,
    /// How far it is.
    #[n(3)]
    pub stage: Stage,
    /// Who said yes.
    #[n(4)]
    pub approved: BTreeSet<u32>,
    /// Report, inputs and differences of the newest rehearsal.
    #[n(5)]
    pub rehearsed: Option<(Content, u64, u64)>,
}

/// How far a proposal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waits for approvals, or to be applied.
    #[n(0)]
    Open,
    /// Somebody said no.
    #[n(1)]
    Rejected,
    /// It was applied.
    #[n(2)]
    Applied,
}

/// A plan that has started and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// Which plan.
    #[n(0)]
    pub plan: Name,
    /// The saved run.
    #[n(1)]
    pub instance: ByteVec,
}

impl Default for State {
    fn default() -> State {
        State {
            world: WorldId([0; 16]),
            name: String::new(),
            key: PublicKey([0; 32]),
            height: Seq(0),
            logical_ns: 0,
            definitions: Arc::default(),
            cells: BTreeMap::new(),
            open: BTreeMap::new(),
            settled: BTreeMap::new(),
            proposals: BTreeMap::new(),
            runs: BTreeMap::new(),
            host_cursor: Seq(0),
            events: 0,
        }
    }
}

impl State {
    /// Its random name.
    pub fn world(&self) -> WorldId {
        self.world
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What receipts are signed with.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The newest record that was taken in.
    pub fn height(&self) -> Seq {
        self.height
    }

    /// The largest wall time that was taken in, nanoseconds since 1970.
    pub fn logical_ns(&self) -> u64 {
        self.logical_ns
    }

    /// Events taken in or raised.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What it consists of.
    pub fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    /// Every cell, by module and key.
    pub fn cells(&self) -> impl Iterator<Item = (&CellId, &[u8])> {
        self.cells.iter().map(|(id, state)| (id, state.as_ref()))
    }

    /// One cell.
    pub fn cell(&self, id: &CellId) -> Option<&[u8]> {
        self.cells.get(id).map(AsRef::as_ref)
    }

    /// Effects without a receipt.
    pub fn open(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    /// One of them.
    pub fn open_intent(&self, intent: &Content) -> Option<&Open> {
        self.open.get(intent)
    }

    /// Proposals, by the record with which they were made.
    pub fn proposals(&self) -> impl Iterator<Item = (Seq, &Proposal)> {
        self.proposals.iter().map(|(seq, proposal)| (*seq, proposal))
    }

    /// One proposal.
    pub fn proposal(&self, seq: Seq) -> Option<&Proposal> {
        self.proposals.get(&seq)
    }

    /// Plans that go on.
    pub fn runs(&self) -> impl Iterator<Item = (Seq, &Run)> {
        self.runs.iter().map(|(seq, run)| (*seq, run))
    }

    /// The newest record of the host's world that was offered to this one.
    pub fn host_cursor(&self) -> Seq {
        self.host_cursor
    }

    /// Whether nothing is on its way: no effect without a receipt, no plan that goes on.
    pub fn is_quiescent(&self) -> bool {
        self.open.is_empty() && self.runs.is_empty()
    }

    /// Gives the state other definitions, as a rehearsal does. Cells of modules that keep neither their state's schema nor
    /// their key's type are gone.
    pub fn redefine(&mut self, definitions: Arc<Definitions>) {
        let old = std::mem::replace(&mut self.definitions, definitions);
        let new = &self.definitions;
        let stays = |name: &Name| match (old.module(name), new.module(name)) {
            (Some(old), Some(new)) => old.state == new.state && old.key == new.key,
            _ => false,
        };
        self.cells.retain(|id, _| stays(&id.module));
    }

    /// Hash of all of it.
    pub fn hash(&self) -> Hash {
        Hash(Content::of(CONTEXT, &self.save()).0)
    }
}

#[derive(Encode, Decode)]
struct Saved {
    #[n(0)]
    version: u32,
    #[n(1)]
    world: WorldId,
    #[n(2)]
    name: String,
    #[n(3)]
    key: PublicKey,
    #[n(4)]
    height: Seq,
    #[n(5)]
    logical_ns: u64,
    #[n(6)]
    definitions: Vec<Definition>,
    #[n(7)]
    routes: Vec<Route>,
    #[n(8)]
    triggers: Vec<Trigger>,
    #[n(9)]
    policy: Option<Name>,
    #[n(10)]
    cells: Vec<(CellId, ByteVec)>,
    #[n(11)]
    open: Vec<Open>,
    #[n(12)]
    settled: Vec<(Content, Seq)>,
    #[n(13)]
    proposals: Vec<(Seq, Proposal)>,
    #[n(14)]
    runs: Vec<(Seq, Run)>,
    #[n(15)]
    host_cursor: Seq,
    #[n(16)]
    events: u64,
}

impl State {
    /// The state as bytes.
    pub fn save(&self) -> Vec<u8> {
        let manifest = self.definitions.manifest();
        let saved = Saved {
            version: VERSION,
            world: self.world,
            name: self.name.clone(),
            key: self.key,
            height: self.height,
            logical_ns: self.logical_ns,
            definitions: self.definitions.iter().cloned().collect(),
            routes: manifest.routes,
            triggers: manifest.triggers,
            policy: manifest.policy,
            cells: self.cells.iter().map(|(id, state)| (id.clone(), ByteVec::from(state.to_vec()))).collect(),
            open: self.open.values().cloned().collect(),
            settled: self.settled.iter().map(|(id, seq)| (*id, *seq)).collect(),
            proposals: self.proposals.iter().map(|(seq, proposal)| (*seq, proposal.clone())).collect(),
            runs: self.runs.iter().map(|(seq, run)| (*seq, run.clone())).collect(),
            host_cursor: self.host_cursor,
            events: self.events,
        };
        match minicbor::to_vec(&saved) {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("writing to memory cannot be refused: {error}"),
        }
    }

    /// The state that was saved, if it is of this version.
    pub fn restore(bytes: &[u8]) -> Option<State> {
        if !nested_within(bytes, MAX_NESTING + 8) {
            return None;
        }
        let saved: Saved = minicbor::decode(bytes).ok().filter(|saved: &Saved| saved.version == VERSION)?;
        let Saved { definitions, routes, triggers, policy, .. } = saved;
        Some(State {
            world: saved.world,
            name: saved.name,
            key: saved.key,
            height: saved.height,
            logical_ns: saved.logical_ns,
            definitions: Arc::new(Definitions::new(definitions, routes, triggers, policy).ok()?),
            cells: saved.cells.into_iter().map(|(id, state)| (id, Arc::from(Vec::from(state)))).collect(),
            open: saved.open.into_iter().map(|open| (open.intent.id, open)).collect(),
            settled: saved.settled.into_iter().collect(),
            proposals: saved.proposals.into_iter().collect(),
            runs: saved.runs.into_iter().collect(),
            host_cursor: saved.host_cursor,
            events: saved.events,
        })
    }
}
