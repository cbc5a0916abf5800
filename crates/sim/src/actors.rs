//! Who sends what: programs with events, the host with its own, people who answer and govern, and whoever sends what nobody
//! should. An input that no world may take is marked as such.

use agentd_air::{Hash, Patch, Value};
use agentd_engine::{Asked, Input, Phase, Receipt, Stage, State, Status};
use agentd_journal::Signer;
use agentd_model::{AgentNumber, Principal, Seq, WorldId};

use crate::definitions::{name, variants};
use crate::reducers::{DEEDS, ODDITIES, ONCE};
use crate::rng::Rng;

/// An input and what is known of it.
pub(crate) struct Sent {
    /// What it is, for the log.
    pub(crate) what: &'static str,
    /// The input.
    pub(crate) asked: Asked,
    /// Whether a world that takes it is wrong.
    pub(crate) impossible: bool,
}

impl Sent {
    /// Something that may be taken.
    pub(crate) fn new(what: &'static str, input: Input) -> Sent {
        Sent { what, asked: input.into(), impossible: false }
    }

    fn impossible(what: &'static str, input: Input) -> Sent {
        Sent { what, asked: input.into(), impossible: true }
    }
}

/// All who send.
pub(crate) struct Actors {
    rng: Rng,
    /// The newest record of the host's world.
    pub(crate) host: Seq,
}

const WORDS: [&str; 3] = ["", "build", "éé"];

impl Actors {
    /// Who have not sent anything yet.
    pub(crate) fn new(rng: Rng) -> Actors {
        Actors { rng, host: Seq(0) }
    }

    /// The next one sends something.
    pub(crate) fn send(&mut self, state: &State, told: &[Vec<u8>], signer: &Signer) -> Sent {
        match self.rng.below(100) {
            0..=38 => self.event(),
            39..=46 => self.host_event(),
            47..=70 => self.governance(state),
            71..=79 => self.answer(state),
            80..=87 => self.wrong_event(),
            88..=94 => self.forgery(state, signer),
            _ => match self.rng.pick(told) {
                Some(bytes) => Sent::new("a receipt again", Input::Receipt { bytes: bytes.clone() }),
                None => self.event(),
            },
        }
    }

    /// An event that some module takes.
    fn event(&mut self) -> Sent {
        let by = self.anybody();
        let text = |text: &str| Value::Text(text.to_owned());
        let (schema, value, key) = match self.rng.below(20) {
            0 => ("sim/go@1", Value::Record(vec![Value::Int(3)]), None),
            1..=5 => ("sim/add@1", Value::Record(vec![Value::Int(self.rng.below(9) as i64 - 4)]), None),
            roll @ 6..=15 => {
                // Every fourth is one that is to be done once only.
                let once = self.rng.pick(&ONCE).copied().filter(|_| self.rng.percent(25));
                let what = Value::Nat(once.unwrap_or_else(|| self.rng.below(DEEDS)));
                let cell = Value::Nat(self.rng.below(4));
                let note = text(WORDS[self.rng.index(WORDS.len())]);
                let keyed = roll % 2 == 0;
                let value = Value::Record(vec![cell.clone(), what, note]);
                if keyed { ("sim/poke@1", value, Some(cell)) } else { ("sim/ask@1", value, None) }
            }
            16..=18 => ("sim/odd@1", Value::Record(vec![Value::Nat(self.rng.below(ODDITIES))]), None),
            _ => {
                // The last one is more than a cascade holds.
                let left = if self.rng.percent(2) { 40 } else { self.rng.below(4) };
                ("sim/ring@1", Value::Record(vec![Value::Nat(left)]), None)
            }
        };
        Sent::new("an event", Input::Event { schema: name(schema), value, key, by })
    }

    fn host_event(&mut self) -> Sent {
        let old = self.rng.percent(20);
        let seq = if old && self.host.0 > 0 { Seq(1 + self.rng.below(self.host.0)) } else { Seq(self.host.0 + 1) };
        self.host = self.host.max(seq);
        let agent = Value::Nat(self.rng.below(3));
        let text = |text: &str| Value::Text(text.to_owned());
        let fields = vec![agent, text("builder"), text("uid 1"), Value::Nat(seq.0), Value::Time(1)];
        let (schema, value) = (name("sys/agent-paused@1"), Value::Record(fields));
        Sent::new("a host event", Input::Host { schema, value, seq, hash: agentd_model::Hash([seq.0 as u8; 32]) })
    }

    /// Something about definitions.
    fn governance(&mut self, state: &State) -> Sent {
        let by = self.person();
        let note = String::new();
        let open: Vec<Seq> =
            state.proposals().filter(|(_, proposal)| proposal.stage == Stage::Open).map(|(seq, _)| seq).collect();
        let known: Vec<Seq> = state.proposals().map(|(seq, _)| seq).collect();
        let list = if self.rng.percent(85) { &open } else { &known };
        // Mostly the newest one, and mostly what it needs next.
        let proposal = if self.rng.percent(70) { list.last().copied() } else { self.rng.pick(list).copied() };
        let Some(proposal) = proposal.filter(|_| self.rng.percent(85)) else { return self.proposal(state, by) };
        let found = state.proposal(proposal);
        let next = match found {
            Some(found) if found.rehearsed.is_none() => 0,
            Some(found) if found.approved.is_empty() => 6,
            _ => 9,
        };
        match if self.rng.percent(60) { next } else { self.rng.below(10) } {
            0..=2 => {
                let bytes = proposal.0.to_be_bytes().to_vec();
                let report = Hash::of("agentd-sim 2026-11-21 report v1", &bytes);
                let input = Input::Rehearse { proposal, report, inputs: 3, differences: 1 };
                Sent { what: "a rehearsal", asked: Asked { input, blobs: vec![(report, bytes)] }, impossible: false }
            }
            roll @ 3..=6 => {
                Sent::new("a vote", Input::Vote { proposal, approve: roll > 3 || self.rng.percent(50), by, note })
            }
            _ => {
                let fence = self.rng.percent(60);
                Sent::new("an application", Input::Apply { proposal, by, fence, host: self.host })
            }
        }
    }

    fn proposal(&mut self, state: &State, by: Principal) -> Sent {
        let at = self.rng.index(variants().len());
        let mut patch = match variants().get(at) {
            Some(wanted) => state.definitions().difference(wanted),
            None => Patch { base: Hash([0; 32]), changes: vec![] },
        };
        if self.rng.percent(10) {
            patch.base = Hash(self.rng.bytes());
            let patch = Box::new(patch);
            return Sent::impossible("a stale proposal", Input::Propose { patch, by, note: String::new() });
        }
        Sent::new("a proposal", Input::Propose { patch: Box::new(patch), by, note: "a variant".into() })
    }

    /// A person answers what waits; sometimes what does not.
    fn answer(&mut self, state: &State) -> Sent {
        let all: Vec<(Hash, Phase)> = state.open().map(|open| (open.intent.id, open.phase)).collect();
        let asked: Vec<(Hash, Phase)> = all.iter().filter(|(_, phase)| *phase == Phase::Asked).copied().collect();
        let list = if self.rng.percent(90) { &asked } else { &all };
        let Some((intent, phase)) = self.rng.pick(list).copied() else { return self.event() };
        let (allow, note) = (self.rng.percent(70), String::new());
        match self.rng.percent(90) {
            true if phase == Phase::Asked => {
                Sent::new("an answer", Input::Answer { intent, allow, by: self.person(), note })
            }
            true => Sent::new("an answer to nothing", Input::Answer { intent, allow, by: self.person(), note }),
            false => {
                let by = Principal::Agent { agent: AgentNumber(3) };
                Sent::impossible("an agent's answer", Input::Answer { intent, allow, by, note })
            }
        }
    }

    /// What no sender may send.
    fn wrong_event(&mut self) -> Sent {
        let by = self.anybody();
        let number = |number: i64| Value::Record(vec![Value::Int(number)]);
        let ask = || Value::Record(vec![Value::Nat(1), Value::Nat(0), Value::Text("x".into())]);
        let event = |schema: &str, value, key| Input::Event { schema: name(schema), value, key, by };
        let input = match self.rng.below(9) {
            0 => event("sim/unheard@1", number(1), None),
            1 => event("sys/agent-paused@1", number(1), None),
            2 => event("sim/add@1", Value::Text("one".into()), None),
            3 => event("sim/add@1", Value::Record(vec![]), None),
            4 => event("sim/poke@1", ask(), None),
            5 => event("sim/poke@1", ask(), Some(Value::Text("no number".into()))),
            6 => Input::Attempt { intent: Hash(self.rng.bytes()) },
            7 => Input::Begin { world: WorldId([9; 16]), name: "again".into(), key: stranger().key() },
            _ => Input::Vote { proposal: Seq(u64::MAX), approve: true, by: self.person(), note: String::new() },
        };
        Sent::impossible("nonsense", input)
    }

    /// A receipt that is none: of a stranger, of a step that was not taken, of another world, without what it says was done.
    fn forgery(&mut self, state: &State, signer: &Signer) -> Sent {
        let open: Vec<_> = state.open().collect();
        let (intent, attempt) = match self.rng.pick(&open) {
            Some(open) => match open.phase {
                Phase::Attempted { attempt } => (open.intent.id, attempt),
                _ => (open.intent.id, 1),
            },
            None => (Hash(self.rng.bytes()), 1),
        };
        let receipt = |world, attempt, status| Receipt::new(world, intent, "forger/1", attempt, status);
        let world = state.world();
        let bytes = match self.rng.below(5) {
            0 => receipt(world, attempt, Status::Failed).sign(&stranger()),
            1 => receipt(world, attempt + 1, Status::Failed).sign(signer),
            2 => receipt(WorldId([9; 16]), attempt, Status::Failed).sign(signer),
            3 => receipt(world, attempt, Status::Done).sign(signer),
            _ => {
                let mut bytes = receipt(world, attempt, Status::Failed).sign(signer);
                let at = self.rng.index(bytes.len());
                bytes[at] ^= 1 << self.rng.below(8);
                bytes
            }
        };
        Sent::impossible("a forged receipt", Input::Receipt { bytes })
    }

    fn anybody(&mut self) -> Principal {
        if self.rng.percent(70) { self.person() } else { Principal::Agent { agent: AgentNumber(7) } }
    }

    fn person(&mut self) -> Principal {
        Principal::User { uid: 1000 + self.rng.below(4) as u32 }
    }
}

/// Whose key no world knows.
fn stranger() -> Signer {
    Signer::from_seed(&[0x5f; 32])
}
