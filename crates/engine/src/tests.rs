//! Worlds of puppets: every test says with its events what reducers answer.
//!
//! The reducer of each module here returns the bytes that the event holds, so an event is written as the output that it
//! brings about, and is still nothing but an input: all of it replays. Told what came of an effect, it counts.

mod authorise;
mod cascade;
mod effects;
mod governance;
mod keeper;
mod receipts;
mod refusals;
mod replay;
mod saved;
mod shadow;
mod vectors;

use agentd_air::{Definition, Definitions, Hash as Content, Name, Patch, Resolve as _, Type, Value, from_json};
use agentd_journal::{Chain, Record, Signer};
use agentd_model::{Entropy, Hash, Principal, Seq, Stamp, WorldId};
use agentd_reducer::abi::{self, Output};
use agentd_reducer::{Decode, Encode};
use minicbor::bytes::ByteVec;
use serde_json::{Value as Json, json};

use crate::*;

/// When tests happen, unless they say otherwise.
const NOW: u64 = 1_000_000_000;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

fn user(uid: u32) -> Principal {
    Principal::User { uid }
}

fn bytes<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap()
}

/// What cells hold.
#[derive(Debug, PartialEq, Encode, Decode)]
struct Told {
    #[n(0)]
    told: u64,
    #[n(1)]
    last: String,
}

/// What a `sys/receipt@1` says, as far as puppets listen.
#[derive(Decode)]
struct Heard {
    #[n(2)]
    status: String,
}

/// What runs here: modules by name, not by hash.
struct Puppets;

impl Reducers for Puppets {
    fn step(&self, request: &Request<'_>) -> Result<Ran, HostFailure> {
        let input: abi::Input = minicbor::decode(request.input).unwrap();
        let done = |output: Vec<u8>| Ok(Ran::Done { output, fuel: 3 });
        let output = match input.event.schema.as_str() {
            "sys/receipt@1" => {
                let heard: Heard = minicbor::decode(&input.event.value).unwrap();
                let before = input.state.map_or(0, |state| minicbor::decode::<Told>(&state).unwrap().told);
                return done(bytes(&Output::keep().set(&Told { told: before + 1, last: heard.status })));
            }
            "sys/agent-paused@1" => {
                let seen = Told { told: input.context.seq, last: input.context.logical_ns.to_string() };
                return done(bytes(&Output::keep().set(&seen)));
            }
            "t/at@1" => minicbor::decode::<(u64, ByteVec)>(&input.event.value).unwrap().1,
            _ => minicbor::decode::<(ByteVec,)>(&input.event.value).unwrap().0,
        };
        match output.as_slice() {
            b"trap" => Ok(Ran::Trapped("unreachable".into())),
            b"limit" => Ok(Ran::Limited("fuel".into())),
            b"host" => Err(HostFailure("no memory".into())),
            b"luck" => {
                let luck = Told { told: u64::from(input.context.entropy[0]), last: "luck".into() };
                done(bytes(&Output::keep().set(&luck)))
            }
            // Another module, which answers the same with something else.
            _ if *request.wasm == wasm("other") => done(bytes(&Output::keep().delete())),
            output => done(output.to_vec()),
        }
    }
}

fn wasm(name: &str) -> Content {
    Content::of("agentd-engine test reducer", name.as_bytes())
}

/// What a test world consists of, before it changes anything.
fn nodes() -> Vec<Json> {
    let holders = ["t/puppet@1", "t/cells@1", "t/plan@1"];
    let effects: Vec<String> = agentd_air::effects().keys().map(ToString::to_string).collect();
    let step = |id: &str, act: Json| json!({"id": id, "do": act});
    let subject = json!({"record": [{"text": "plan"}, {"text": ""}, "none"]});
    vec![
        json!({"defschema": "t/do@1", "type": {"record": [["output", "bytes"]]}}),
        json!({"defschema": "t/to@1", "type": {"record": [["output", "bytes"]]}}),
        json!({"defschema": "t/at@1", "type": {"record": [["cell", "nat"], ["output", "bytes"]]}}),
        json!({"defschema": "t/go@1", "type": {"record": []}}),
        json!({"defschema": "t/state@1", "type": {"record": [["told", "nat"], ["last", "text"]]}}),
        json!({"defmodule": "t/puppet@1", "wasm": wasm("puppet"), "state": "t/state@1",
            "takes": ["t/do@1", "sys/receipt@1"], "raises": ["t/do@1", "t/to@1"], "effects": effects}),
        json!({"defmodule": "t/cells@1", "wasm": wasm("puppet"), "state": "t/state@1", "key": "nat",
            "takes": ["t/to@1", "t/at@1", "sys/agent-paused@1", "sys/receipt@1"], "raises": ["t/do@1", "t/to@1"],
            "effects": ["sys/host.notify@1"]}),
        json!({"defmodule": "t/mute@1", "wasm": wasm("puppet"), "state": "t/state@1", "takes": ["t/do@1"]}),
        json!({"defplan": "t/plan@1", "input": "t/go@1",
            "steps": [
                step("tell", json!({"emit": {"effect": "sys/host.notify@1", "capability": "t/notify@1", "params": subject}})),
                step("told", json!({"await_receipt": {"of": "tell"}})),
                step("heard", json!({"await_event": {"event": "t/go@1"}})),
            ],
            "edges": [{"from": "tell", "to": "told"}, {"from": "told", "to": "heard"}]}),
        json!({"defcap": "t/notify@1", "effect": "sys/host.notify@1", "holders": holders}),
        json!({"defcap": "t/timer@1", "effect": "sys/timer@1", "holders": ["t/puppet@1"]}),
        json!({"defcap": "t/grant@1", "effect": "sys/host.grant@1", "holders": ["t/puppet@1"],
            "scope": {"agents": {"names": ["*"]}}}),
    ]
}

/// Timers and notes may be, rights are asked for.
fn rules() -> Json {
    json!({"defpolicy": "t/rules@1",
        "rules": [
            {"when": {"capability": "t/grant@1"}, "decide": "require_approval"},
            {"when": {"effect": "sys/*"}, "decide": "allow"},
        ],
        "proposals": {"approvals": 1, "proposer_counts": true, "shadow": false}})
}

fn wiring() -> Json {
    json!({"routes": [
            {"event": "t/do@1", "module": "t/puppet@1"},
            {"event": "t/to@1", "module": "t/cells@1"},
            {"event": "t/at@1", "module": "t/cells@1", "key": "cell"},
            {"event": "sys/agent-paused@1", "module": "t/cells@1", "key": "agent"},
        ],
        "triggers": [{"event": "t/go@1", "plan": "t/plan@1"}]})
}

/// Definitions: a policy last, where there is one.
fn definitions(nodes: &[Json], wiring: &Json) -> Definitions {
    let read = |node: &Json| Definition::from_json(node).unwrap();
    let nodes: Vec<Definition> = nodes.iter().map(read).collect();
    let policy = nodes.iter().find(|node| matches!(node, Definition::Policy(_))).map(|node| node.name().clone());
    let part = |what: &str| wiring[what].clone();
    let routes = serde_json::from_value(part("routes")).unwrap();
    Definitions::new(nodes, routes, serde_json::from_value(part("triggers")).unwrap(), policy).unwrap()
}

/// A world and its journal.
struct World {
    state: State,
    chain: Chain,
    records: Vec<Record<Entry>>,
    wall_ns: u64,
}

impl World {
    /// That has begun and consists of nothing.
    fn empty() -> World {
        let mut world = World { state: State::default(), chain: Chain::EMPTY, records: Vec::new(), wall_ns: NOW };
        let key = signer().key();
        world.take(Input::Begin { world: WorldId([1; 16]), name: "test".into(), key }).unwrap();
        world
    }

    /// Of puppets, under these rules.
    fn new() -> World {
        World::with(&[&nodes()[..], &[rules()]].concat())
    }

    /// Of these definitions.
    fn with(nodes: &[Json]) -> World {
        let mut world = World::empty();
        world.become_(&definitions(nodes, &wiring()));
        world
    }

    /// Becomes what these definitions say, by a proposal.
    fn become_(&mut self, wanted: &Definitions) {
        let seq = self.propose(wanted);
        let report = Content([9; 32]);
        self.take(Input::Rehearse { proposal: seq, report, inputs: 0, differences: 0 }).unwrap();
        self.vote(seq, 1000).unwrap();
        self.apply(seq, true).unwrap();
    }

    fn propose(&mut self, wanted: &Definitions) -> Seq {
        let patch = Box::new(self.state.definitions().difference(wanted));
        self.propose_patch(patch).unwrap()
    }

    fn propose_patch(&mut self, patch: Box<Patch>) -> Result<Seq, Refusal> {
        Ok(self.take(Input::Propose { patch, by: user(1000), note: String::new() })?[0].seq)
    }

    fn vote(&mut self, proposal: Seq, uid: u32) -> Result<Vec<Draft>, Refusal> {
        self.take(Input::Vote { proposal, approve: true, by: user(uid), note: String::new() })
    }

    fn apply(&mut self, proposal: Seq, fence: bool) -> Result<Vec<Draft>, Refusal> {
        self.take(Input::Apply { proposal, by: user(1000), fence, host: Seq(0) })
    }

    /// Takes an input. One that is refused changes nothing.
    fn take(&mut self, input: Input) -> Result<Vec<Draft>, Refusal> {
        let before = self.state.clone();
        let entry = match self.state.accept(input) {
            Ok(entry) => entry,
            Err(refusal) => {
                assert_eq!(self.state, before);
                return Err(refusal);
            }
        };
        let entropy = Entropy([self.chain.seq.0 as u8; 16]);
        let stamp = Stamp { wall_ns: self.wall_ns, mono_ns: 5, entropy };
        let drafts = self.state.run(&Puppets, entry, stamp).unwrap();
        for Draft { seq, cause, entry } in drafts.iter().cloned() {
            let previous = self.chain.head;
            let (numbered, _) = self.chain.append(stamp, cause, entry.clone());
            assert_eq!(numbered, seq);
            self.records.push(Record { seq, previous, stamp, cause, event: entry });
        }
        Ok(drafts)
    }

    /// Goes on elsewhere, as a copy.
    fn taken_over(&mut self) {
        let entry = Entry::TakenOver { name: "there".into(), key: signer().key() };
        let (seq, _) = self.chain.append(Stamp::default(), None, entry.clone());
        self.state.fold(seq, Stamp::default(), &entry);
    }

    /// Sends an event.
    fn send(&mut self, schema: &str, value: Value, key: Option<Value>) -> Result<Vec<Draft>, Refusal> {
        self.take(Input::Event { schema: name(schema), value, key, by: user(1000) })
    }

    /// Makes the puppet without keys answer with this.
    fn put(&mut self, output: &Output) -> Vec<Draft> {
        self.put_bytes(&bytes(output))
    }

    fn put_bytes(&mut self, output: &[u8]) -> Vec<Draft> {
        self.send("t/do@1", Value::Record(vec![Value::Bytes(output.to_vec())]), None).unwrap()
    }

    /// Makes the puppet with that key answer with this.
    fn put_at(&mut self, cell: u64, output: &Output) -> Vec<Draft> {
        let value = Value::Record(vec![Value::Nat(cell), Value::Bytes(bytes(output))]);
        self.send("t/at@1", value, None).unwrap()
    }

    /// An effect that was just allowed.
    fn wanted(&mut self, output: &Output) -> Content {
        intents(&self.put(output))[0].id
    }

    fn attempt(&mut self, intent: Content) -> Result<Vec<Draft>, Refusal> {
        self.take(Input::Attempt { intent })
    }

    fn answer(&mut self, intent: Content, allow: bool) -> Result<Vec<Draft>, Refusal> {
        self.take(Input::Answer { intent, allow, by: user(1000), note: String::new() })
    }

    /// A receipt that fits the notes that these worlds ask for.
    fn receipt(&self, intent: Content, attempt: u32) -> Receipt {
        let mut receipt = Receipt::new(self.state.world(), intent, "test/1", attempt, Status::Done);
        receipt.result = Some(bytes(&(7_u64,)).into());
        receipt
    }

    fn settle(&mut self, receipt: &Receipt) -> Result<Vec<Draft>, Refusal> {
        self.take(Input::Receipt { bytes: receipt.sign(&signer()) })
    }

    fn phase(&self, intent: Content) -> Option<Phase> {
        self.state.open_intent(&intent).map(|open| open.phase)
    }

    /// What the cell of a module holds.
    fn cell(&self, module: &str, key: Option<u64>) -> Option<Told> {
        let key = key.map(|key| ByteVec::from(bytes(&key)));
        let cell = self.state.cell(&CellId { module: name(module), key })?;
        Some(minicbor::decode(cell).unwrap())
    }

    fn value(&self, schema: &str, json: &Json) -> Value {
        let types = self.state.definitions().as_ref();
        from_json(types, &Type::Ref(name(schema)), json).unwrap()
    }
}

/// A receipt with something else in it.
fn but(mut receipt: Receipt, change: impl FnOnce(&mut Receipt)) -> Receipt {
    change(&mut receipt);
    receipt
}

/// Tells the operators.
fn note(text: &str) -> Output {
    Output::keep().effect("sys/host.notify@1", "t/notify@1", &(text, "", None::<u64>))
}

/// The same once.
fn note_once(text: &str, key: &str) -> Output {
    Output::keep().effect_once("sys/host.notify@1", "t/notify@1", &(text, "", None::<u64>), &key)
}

fn timer(at: u64) -> Output {
    Output::keep().effect("sys/timer@1", "t/timer@1", &(at,))
}

/// Needs a person.
fn grant(agent: u64) -> Output {
    Output::keep().effect("sys/host.grant@1", "t/grant@1", &(agent, 5_u64))
}

/// Every effect that was asked for, in order.
fn intents(drafts: &[Draft]) -> Vec<&Intent> {
    let wanted = drafts.iter().filter_map(|draft| match &draft.entry {
        Entry::Wanted { intent, .. } => Some(intent.as_ref()),
        _ => None,
    });
    wanted.collect()
}

/// Outcomes of steps, in order, with their modules.
fn outcomes(drafts: &[Draft]) -> Vec<(String, &Outcome)> {
    let steps = drafts.iter().filter_map(|draft| match &draft.entry {
        Entry::Stepped { module, outcome, .. } => Some((module.to_string(), outcome)),
        _ => None,
    });
    steps.collect()
}

/// What kinds of records these are, one word each.
fn words(drafts: &[Draft]) -> Vec<&'static str> {
    let word = |draft: &Draft| match &draft.entry {
        Entry::Happened { from: Source::Raised, .. } => "raised",
        Entry::Happened { .. } => "happened",
        Entry::Stepped { .. } => "stepped",
        Entry::Wanted { .. } => "wanted",
        Entry::WantedAgain { .. } => "again",
        Entry::Answered { .. } => "answered",
        Entry::Attempted { .. } => "attempted",
        Entry::Settled { .. } => "settled",
        Entry::PlanStarted { .. } => "started",
        Entry::PlanWent { .. } => "went",
        Entry::Cut { .. } => "cut",
        _ => "other",
    };
    drafts.iter().map(word).collect()
}

/// A host's record.
fn paused(agent: u64, seq: u64) -> Input {
    let text = |text: &str| Value::Text(text.to_owned());
    let fields = vec![Value::Nat(agent), text("build"), text("uid 1"), Value::Nat(seq), Value::Time(5)];
    Input::Host {
        schema: name("sys/agent-paused@1"),
        value: Value::Record(fields),
        seq: Seq(seq),
        hash: Hash([seq as u8; 32]),
    }
}

#[test]
fn the_schemas_of_the_test_world_read() {
    let world = World::new();
    assert!(world.state.definitions().schema(&name("t/do@1")).is_some());
    assert_eq!(world.value("t/at@1", &json!({"cell": 3, "output": "AA=="})), {
        Value::Record(vec![Value::Nat(3), Value::Bytes(vec![0])])
    });
    assert!(world.state.is_quiescent());
}
