//! A small world, and what can be told to it from outside: receipts, saved states, what reducers return.

use std::cell::Cell;
use std::sync::LazyLock;

use agentd_air::{Definition, Definitions, Hash as Content, Resolve as _, Strictness, Value, decode};
use agentd_engine::{
    Entry, HostFailure, Input, MAX_CASCADE, NotAReceipt, Outcome, Phase, Ran, Receipt, Reducers, Request, State, Status,
};
use agentd_journal::{Record, Signer};
use agentd_model::{AgentNumber, Entropy, Event, Hash, Principal, Seq, Stamp, WorldId};
use agentd_reducer::{Output, abi};
use serde_json::{Value as Json, json};

const WORLD: WorldId = WorldId([7; 16]);
const STAMP: Stamp = Stamp { wall_ns: 1_800_000_000_000_000_000, mono_ns: 5, entropy: Entropy([3; 16]) };
const PERSON: Principal = Principal::User { uid: 1000 };
/// How often a reducer says what it is made to say: it may take what it raises, and would say it again.
const TIMES: u32 = 3;
/// Most events, and most effects, of one step.
const MOST_OF_A_STEP: usize = 64;

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::from_seed(&[9; 32]));

/// With definitions of every kind, an effect that an adapter has, and one that a person is asked about.
static BASE: LazyLock<State> = LazyLock::new(base);

/// Says the same a few times, and then nothing.
struct Says<'a> {
    output: &'a [u8],
    left: Cell<u32>,
}

impl<'a> Says<'a> {
    fn new(output: &'a [u8]) -> Says<'a> {
        Says { output, left: Cell::new(TIMES) }
    }
}

impl Reducers for Says<'_> {
    fn step(&self, request: &Request<'_>) -> Result<Ran, HostFailure> {
        minicbor::decode::<abi::Input>(request.input).expect("a step is given what the contract says");
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        let output = if left > 0 { self.output.to_vec() } else { bytes(&Output::keep()) };
        Ok(Ran::Done { output, fuel: 1 })
    }
}

fn bytes<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory")
}

/// Takes an input. What follows is what a fold makes of it, and every entry is a record.
fn goes_on(state: &mut State, says: &[u8], input: Input) -> Vec<Entry> {
    let entry = match state.accept(input) {
        Ok(entry) => entry,
        Err(refusal) => {
            drop(refusal.to_string());
            return Vec::new();
        }
    };
    let (mut folded, mut again) = (state.clone(), state.clone());
    let drafts = state.run(&Says::new(says), entry.clone(), STAMP).expect("this reducer runs everywhere");
    assert_eq!(again.run(&Says::new(says), entry, STAMP).as_ref(), Ok(&drafts), "the same input has the same outcome");
    assert!(drafts.len() <= MAX_CASCADE + 4 * MOST_OF_A_STEP, "a cascade ends: {}", drafts.len());
    for draft in &drafts {
        folded.fold(draft.seq, STAMP, &draft.entry);
        let (seq, cause, event) = (draft.seq, draft.cause, draft.entry.clone());
        let record = Record { seq, previous: Hash::ZERO, stamp: STAMP, cause, event };
        assert_eq!(Record::decode(&record.clone().encode()), Ok(record), "an entry is a record");
    }
    assert_eq!(&folded, state, "a fold of the entries is the state");
    drafts.into_iter().map(|draft| draft.entry).collect()
}

fn base() -> State {
    let mut state = State::default();
    let quiet = bytes(&Output::keep());
    let mut take = |input| assert!(!goes_on(&mut state, &quiet, input).is_empty(), "an input of the base is taken");
    take(Input::Begin { world: WORLD, name: "fuzz".into(), key: SIGNER.key() });
    let patch = Box::new(Definitions::default().difference(&definitions()));
    take(Input::Propose { patch, by: PERSON, note: "all of it".into() });
    let proposal = Seq(2);
    take(Input::Rehearse { proposal, report: Content([1; 32]), inputs: 0, differences: 0 });
    take(Input::Vote { proposal, approve: true, by: PERSON, note: String::new() });
    take(Input::Apply { proposal, by: PERSON, fence: false, host: Seq(0) });
    let wants = bytes(&http().effect("sys/host.grant@1", "t/grant@1", &(7_u64, 5_u64)));
    goes_on(&mut state, &wants, event());
    let ready = state.open().find(|open| open.phase == Phase::Ready).map(|open| open.intent.id);
    let intent = ready.expect("a request is allowed");
    goes_on(&mut state, &quiet, Input::Attempt { intent });
    assert_eq!(state.open().count(), 2, "two effects are on their way");
    state
}

fn event() -> Input {
    let schema = "t/do@1".parse().expect("a name");
    Input::Event { schema, value: Value::Record(vec![Value::Nat(4)]), key: None, by: PERSON }
}

fn http() -> Output {
    let headers = std::collections::BTreeMap::<&str, &str>::new();
    let body = minicbor::bytes::ByteVec::from(vec![1]);
    Output::keep().effect("sys/http@1", "t/http@1", &("GET", "http://example.org/x", headers, body))
}

/// What the base consists of.
fn document() -> Json {
    let kinds: Vec<String> = agentd_air::effects().keys().map(ToString::to_string).collect();
    let wasm = "ab".repeat(32);
    let holders = ["t/one@1", "t/cells@1", "t/plan@1"];
    let step = |id: &str, act: Json| json!({"id": id, "do": act});
    let note = json!({"emit": {"effect": "sys/host.notify@1", "capability": "t/notify@1",
        "params": {"record": [{"op": ["concat", [{"text": "n "}, {"get": "input.n"}]]}, {"text": ""}, "none"]}}});
    json!({
        "definitions": [
            {"defschema": "t/do@1", "type": {"record": [["n", "nat"]]}},
            {"defschema": "t/back@1", "type": {"record": [["n", "nat"], ["why", {"option": "text"}]]}},
            {"defschema": "t/state@1", "type": {"record": [["sum", "int"], ["last", {"option": "time"}],
                ["by", {"map": ["text", {"variant": [["up"], ["down", "dec"]]}]}]]}},
            {"defmodule": "t/one@1", "wasm": wasm, "state": "t/state@1", "takes": ["t/do@1", "t/back@1", "sys/receipt@1"],
                "raises": ["t/back@1", "t/do@1"], "effects": kinds},
            {"defmodule": "t/cells@1", "wasm": wasm, "state": "t/state@1", "key": "nat", "takes": ["t/back@1"],
                "raises": ["t/do@1"], "effects": ["sys/host.notify@1"], "limits": {"fuel": 1000, "memory": 65536, "output": 9000}},
            {"defplan": "t/plan@1", "input": "t/back@1",
                "steps": [step("tell", note), step("told", json!({"await_receipt": {"of": "tell"}})),
                    step("more", json!({"await_event": {"event": "t/do@1",
                        "where": {"op": ["gt", [{"get": "event.n"}, {"number": 3}]]}}})),
                    step("end", json!({"end": {"result": {"get": "input.n"}}}))],
                "edges": [{"from": "tell", "to": "told"}, {"from": "told", "to": "end"}, {"from": "more", "to": "end",
                    "when": {"bool": true}}]},
            {"defcap": "t/http@1", "effect": "sys/http@1", "holders": holders, "scope":
                {"http": {"hosts": ["example.org"], "methods": ["GET"]}}},
            {"defcap": "t/exec@1", "effect": "sys/exec@1", "holders": holders, "scope":
                {"exec": {"programs": ["/usr/bin/*"], "profile": "coding", "directories": ["/srv"]}}},
            {"defcap": "t/llm@1", "effect": "sys/llm@1", "holders": holders, "scope":
                {"llm": {"providers": ["main"], "models": ["m-*"], "max_tokens": 100}}},
            {"defcap": "t/timer@1", "effect": "sys/timer@1", "holders": holders, "expires_ns": 1_900_000_000_000_000_000_u64},
            {"defcap": "t/notify@1", "effect": "sys/host.notify@1", "holders": holders},
            {"defcap": "t/grant@1", "effect": "sys/host.grant@1", "holders": holders, "scope": {"agents": {"names": ["*"]}}},
            {"defpolicy": "t/rules@1", "rules": [
                {"when": {"effect": "sys/host.kill@1"}, "decide": "deny"},
                {"when": {"capability": "t/grant@1"}, "decide": "require_approval"},
                {"when": {"effect": "sys/*", "origin": "t/*"}, "decide": "allow"}]},
        ],
        "routes": [{"event": "t/do@1", "module": "t/one@1"}, {"event": "t/back@1", "module": "t/one@1"},
            {"event": "t/back@1", "module": "t/cells@1", "key": "n"}],
        "triggers": [{"event": "t/back@1", "plan": "t/plan@1"}],
        "policy": "t/rules@1",
    })
}

fn definitions() -> Definitions {
    let document = document();
    let nodes = document["definitions"].as_array().expect("a list");
    let nodes = nodes.iter().map(|node| Definition::from_json(node).expect("a definition"));
    let part = |name: &str| document[name].clone();
    let routes = serde_json::from_value(part("routes")).expect("routes");
    let triggers = serde_json::from_value(part("triggers")).expect("triggers");
    let policy = serde_json::from_value(part("policy")).expect("a name");
    Definitions::new(nodes, routes, triggers, policy).expect("they hold together")
}

/// A receipt: what it claims, and whether it is signed. One that is, is the one that would be signed.
pub fn receipt(data: &[u8]) {
    let (claimed, verified) = (Receipt::claimed(data), Receipt::verified(data, WORLD, SIGNER.key()));
    if let Ok(receipt) = &verified {
        assert_eq!(claimed.as_ref(), Ok(receipt), "what is verified is what is claimed");
        assert_eq!(receipt.sign(&SIGNER), data, "a receipt has one encoding and one signature");
    }
    let Ok(mut receipt) = claimed else { return };
    serde_json::to_value(&receipt).expect("a receipt prints");
    match Receipt::verified(&receipt.sign(&SIGNER), WORLD, SIGNER.key()) {
        Ok(same) => assert_eq!((&same, same.world), (&receipt, WORLD), "what is signed is verified"),
        Err(NotAReceipt::World(world)) => assert_eq!(world, receipt.world, "another world's is called that"),
        Err(error) => panic!("signed and refused: {error}"),
    }
    // As if it were about an effect that is waited for.
    let mut state = BASE.clone();
    let open = state.open().find(|open| matches!(open.phase, Phase::Attempted { .. })).cloned();
    receipt.intent = open.expect("one is attempted").intent.id;
    (receipt.world, receipt.attempt) = (WORLD, receipt.attempt.min(1));
    goes_on(&mut state, &bytes(&Output::keep()), Input::Receipt { bytes: receipt.sign(&SIGNER) });
}

/// A saved state: one that can be read can be written, and goes on.
pub fn saved_state(data: &[u8]) {
    let Some(mut state) = State::restore(data) else { return };
    let saved = state.save();
    assert_eq!(State::restore(&saved).as_ref(), Some(&state), "what was read can be written");
    // Behind it stands the record that says so, and whatever comes next; a copy from elsewhere may say anything.
    state.fold(Seq(100), STAMP, &Entry::StateSaved { state: Hash::ZERO, key: SIGNER.key() });
    let says = bytes(&http());
    let open: Vec<Content> = state.open().map(|open| open.intent.id).take(8).collect();
    for intent in open {
        goes_on(
            &mut state,
            &says,
            Input::Answer { intent, allow: intent.0[0] & 1 == 0, by: PERSON, note: String::new() },
        );
        goes_on(&mut state, &says, Input::Attempt { intent });
    }
    goes_on(&mut state, &says, event());
    let proposals: Vec<Seq> = state.proposals().map(|(seq, _)| seq).take(4).collect();
    for proposal in proposals {
        goes_on(&mut state, &says, Input::Vote { proposal, approve: true, by: PERSON, note: String::new() });
        goes_on(&mut state, &says, Input::Apply { proposal, by: PERSON, fence: true, host: Seq(5) });
    }
    assert_eq!(State::restore(&state.save()).as_ref(), Some(&state), "what goes on can be saved");
}

/// What a reducer returns: whatever it is, the state holds values of its schemas and nothing else.
pub fn reducer_output(data: &[u8]) {
    let mut state = BASE.clone();
    for entry in goes_on(&mut state, data, event()) {
        let Entry::Stepped { outcome: Outcome::Set { state: cell, .. }, module, .. } = entry else { continue };
        let definitions = state.definitions();
        let schema = &definitions.module(&module).expect("a module that stepped is there").state;
        let of = definitions.schema(schema).expect("a module's schema is there");
        decode(definitions.as_ref(), of, &cell, Strictness::Canonical).expect("a cell is canonical");
    }
    assert_eq!(State::restore(&state.save()).as_ref(), Some(&state), "the state can be saved");
}

/// Seeds that are made: target, name, bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    let text = |json: &Json| serde_json::to_vec(json).expect("JSON prints");
    let record = |event| Record { seq: Seq(1), previous: Hash::ZERO, stamp: STAMP, cause: None, event }.encode();
    let host = |event: Event| Record { seq: Seq(2), previous: Hash([4; 32]), stamp: STAMP, cause: Some(Seq(1)), event };
    let failed = Event::AgentFailed { agent: AgentNumber(3), reason: "no such file".into() };
    seeds.push(("journal_record", "host-begun", {
        let event = Event::JournalBegun { world: WORLD, key: SIGNER.key() };
        Record { seq: Seq(1), previous: Hash::ZERO, stamp: STAMP, cause: None, event }.encode()
    }));
    seeds.push(("journal_record", "host-failed", host(failed).encode()));
    seeds.push((
        "journal_record",
        "host-saved",
        host(Event::StateSaved { state: Hash([5; 32]), key: SIGNER.key() }).encode(),
    ));
    seeds.push(("journal_record", "host-last", {
        let event = Event::StateSaved { state: Hash([5; 32]), key: SIGNER.key() };
        Record { seq: Seq(u64::MAX), ..host(event) }.encode()
    }));
    seeds.push((
        "journal_record",
        "begun",
        record(Entry::Begun { world: WORLD, name: "fuzz".into(), key: SIGNER.key() }),
    ));
    let mut state = BASE.clone();
    let output = rich();
    for (at, entry) in goes_on(&mut state, &bytes(&output), event()).into_iter().enumerate() {
        let names = ["happened", "stepped", "raised", "wanted", "wanted-2", "wanted-3"];
        if let Some(name) = names.get(at) {
            seeds.push(("journal_record", name, record(entry)));
        }
    }
    let patch = Definitions::default().difference(&definitions());
    let proposed = Entry::Proposed { patch: patch.encode().into(), by: PERSON, note: "why".into() };
    seeds.push(("journal_record", "proposed", record(proposed)));
    seeds.push(("journal_record", "saved", record(Entry::StateSaved { state: Hash([6; 32]), key: SIGNER.key() })));

    // A type, as drawn, and a value of it.
    let place = [15, 2];
    seeds.push(("air_value", "place", [&place[..], &[0x83, 0x20, 0x61, b'a', 0x05]].concat()));
    seeds.push(("air_value", "place-lenient", [&place[..], &[0x9f, 0x38, 0, 0xf6, 0xff]].concat()));
    let tree = [15, 3];
    seeds.push(("air_value", "tree", [&tree[..], &[0x82, 2, 0x81, 0x81, 0x81, 0x18, 0x40]].concat()));
    seeds.push((
        "air_value",
        "map",
        [&[13, 2, 12, 3][..], &[0xa1, 0x61, b'k', 0x81, 0xc4, 0x82, 0x20, 0x18, 0x7d]].concat(),
    ));
    seeds.push((
        "air_value",
        "scalars",
        [&[10, 5, 0, 1, 2, 4, 6][..], &[0x85, 1, 0x20, 0xf5, 0x41, 9, 0x1a, 0, 0, 1, 0]].concat(),
    ));
    seeds.push(("air_json", "place", [&place[..], br#"{"x":-1,"y":"a","z":5}"#].concat()));
    seeds.push(("air_json", "tree", [&tree[..], br#"{"many":[{"x":"9007199254740993"}]}"#].concat()));
    seeds.push(("air_json", "map", [&[13, 1, 12, 3][..], br#"[[3,["12.50","-0.001"]],[4,[]]]"#].concat()));
    seeds.push(("air_json", "scalars", {
        let types = [10, 5, 6, 7, 8, 9, 4];
        let json = json!({"f0": "2026-01-31T12:00:00.5Z", "f1": "1h30m", "f2": "ab".repeat(32),
            "f3": "0190a5b2-7c1e-7f00-8a00-0123456789ab", "f4": "aGVsbG8="});
        [&types[..], &text(&json)].concat()
    }));

    seeds.push(("air_definition", "document.json", text(&document())));
    seeds.push(("air_definition", "patch.json", text(&serde_json::to_value(&patch).expect("plain data"))));
    seeds.push(("air_definition", "patch.cbor", patch.encode()));
    for (name, at) in [("schema", 2), ("module", 4), ("plan", 5), ("cap", 6), ("policy", 12)] {
        let json = &document()["definitions"][at];
        seeds.push(("air_definition", name, text(json)));
    }
    let plan = Definition::from_json(&document()["definitions"][5]).expect("a plan");
    seeds.push(("air_definition", "plan.cbor", bytes(&plan)));

    let mut done = Receipt::new(WORLD, Content([2; 32]), "http/1", 1, Status::Done);
    let headers = std::collections::BTreeMap::from([("content-type", "text/plain")]);
    done.result = Some(bytes(&(200_u64, headers, minicbor::bytes::ByteVec::from(vec![1, 2]))).into());
    let mut failed = Receipt::new(WorldId([8; 16]), Content([2; 32]), "exec/1", 2, Status::Failed);
    failed.reason = Some("no such program".into());
    seeds.push(("receipt", "done", done.sign(&SIGNER)));
    seeds.push(("receipt", "failed", failed.sign(&SIGNER)));
    seeds.push(("receipt", "other-key", done.sign(&Signer::from_seed(&[1; 32]))));

    seeds.push(("saved_state", "empty", State::default().save()));
    seeds.push(("saved_state", "base", BASE.save()));
    seeds.push(("saved_state", "busy", state.save()));
    // A timer that was begun as often as can be counted: an effect that can be repeated, and would be the next time.
    let timer = state.open().find(|open| open.intent.kind.name() == "timer").map(|open| open.intent.id);
    let often = Entry::Attempted { intent: timer.expect("a timer is wanted"), attempt: u32::MAX };
    state.fold(Seq(50), STAMP, &often);
    seeds.push(("saved_state", "often", state.save()));

    let empty = Output::keep();
    seeds.push(("reducer_output", "keep", bytes(&empty)));
    seeds.push(("reducer_output", "delete", bytes(&empty.clone().delete())));
    seeds.push(("reducer_output", "rich", bytes(&output)));
    seeds.push(("reducer_output", "http", bytes(&http())));
    seeds.push(("reducer_output", "refused", bytes(&empty.effect("sys/host.kill@1", "t/none@1", &(7_u64, "why")))));
    seeds
}

/// Everything that a step can answer.
fn rich() -> Output {
    let by = std::collections::BTreeMap::from([("k", (0_u32, [0_u8; 0]))]);
    Output::keep()
        .set(&(-5_i64, Some(7_u64), by))
        .raise("t/back@1", &(9_u64, Some("because")))
        .effect("sys/timer@1", "t/timer@1", &(1_800_000_000_000_000_001_u64,))
        .effect_once("sys/host.notify@1", "t/notify@1", &("subject", "body", Some(3_u64)), &1_u64)
        .effect("sys/exec@1", "t/exec@1", &(["/usr/bin/make"], "/srv/x", minicbor::bytes::ByteVec::from(vec![])))
}
