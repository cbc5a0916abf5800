//! Runs against plans as people write them: what is wanted, when, and how it ends.

use std::collections::BTreeSet;

use agentd_air::{Definitions, MAX_VALUE_BYTES, decode, from_json, to_json};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn definitions(plan: Json) -> Result<Definitions, String> {
    let state = json!({"variant": [["open"], ["closed", "text"]]});
    let nodes = [
        json!({"defschema": "t/state@1", "type": state}),
        json!({"defschema": "t/in@1", "type": {"record": [["n", "nat"], ["name", "text"], ["note", {"option": "text"}],
            ["at", "time"], ["state", {"ref": "t/state@1"}], ["price", "dec"], ["id", "hash"], ["items", {"list": "nat"}]]}}),
        json!({"defschema": "t/out@1", "type": {"record": [["n", "int"], ["text", "text"], ["note", {"option": "text"}]]}}),
        json!({"defschema": "t/wide@1", "type": {"record": [["n", "nat"], ["price", "dec"], ["at", "time"],
            ["took", "duration"], ["raw", "bytes"], ["id", "hash"], ["items", {"list": "int"}],
            ["prices", {"map": ["text", "dec"]}], ["state", {"option": {"ref": "t/state@1"}}], ["note", {"option": "text"}]]}}),
        json!({"defschema": "t/turned@1", "type": {"variant": [["closed", "text"], ["open"]]}}),
        json!({"defcap": "t/tell@1", "effect": "sys/host.notify@1", "holders": ["t/plan@1"]}),
        json!({"defcap": "t/fetch@1", "effect": "sys/http@1", "holders": ["t/plan@1"]}),
        plan,
    ];
    let nodes: Vec<_> = nodes.iter().map(|node| Definition::from_json(node).unwrap()).collect();
    Definitions::new(nodes, vec![], vec![], None).map_err(|error| error.to_string())
}

/// A run and what it needs to go on.
#[derive(Clone, Debug)]
struct Case {
    types: Definitions,
    run: Instance,
}

fn input() -> Json {
    json!({"n": 7, "name": "build", "at": 1_000, "state": {"closed": "late"}, "price": "12.5", "id": "ab".repeat(32),
        "items": [1, 2, 3]})
}

impl Case {
    fn new(steps: &[Json], edges: &[(&str, &str, Json)]) -> Case {
        Case::with(input(), steps, edges)
    }

    fn with(input: Json, steps: &[Json], edges: &[(&str, &str, Json)]) -> Case {
        let edge = |(from, to, when): &(&str, &str, Json)| json!({"from": from, "to": to, "when": when});
        let edges: Vec<_> = edges.iter().map(edge).collect();
        let plan = json!({"defplan": "t/plan@1", "input": "t/in@1", "steps": steps, "edges": edges});
        let types = definitions(plan).unwrap();
        let input = from_json(&types, &Type::Ref(name("t/in@1")), &input).unwrap();
        let run = Instance::start(types.plan(&name("t/plan@1")).unwrap(), &input);
        Case { types, run }
    }

    fn plan(&self) -> &Plan {
        self.types.plan(&name("t/plan@1")).unwrap()
    }

    fn go_on(&mut self, happening: Option<Happening<'_>>) -> Vec<String> {
        let plan = self.types.plan(&name("t/plan@1")).unwrap();
        let wanted = self.run.go_on(plan, &self.types, happening);
        wanted.iter().map(|wanted| self.told(wanted)).collect()
    }

    fn start(&mut self) -> Vec<String> {
        self.go_on(None)
    }

    fn emitted(&mut self, step: u32, id: u8) -> Vec<String> {
        self.go_on(Some(Happening::Emitted { step, intent: Hash([id; 32]) }))
    }

    fn receipt(&mut self, id: u8, result: Option<Vec<u8>>) -> Vec<String> {
        let value = receipt(id, result);
        self.go_on(Some(Happening::Receipt { intent: Hash([id; 32]), value: &value }))
    }

    fn event(&mut self, n: i64) -> Vec<String> {
        let value = Value::Record(vec![Value::Int(n), Value::Text("e".into()), Value::None]);
        self.go_on(Some(Happening::Event { schema: &name("t/out@1"), value: &value }))
    }

    /// What is wanted, in words.
    fn told(&self, wanted: &Wanted) -> String {
        let show = |of: &Type, bytes: &[u8]| {
            let value = decode(&self.types, of, bytes, Strictness::Canonical).unwrap();
            to_json(&self.types, of, &value).unwrap().to_string()
        };
        match wanted {
            Wanted::Emit { step, effect, capability, params } => {
                let params = show(&agentd_air::effect(effect).unwrap().params, params);
                format!("{step} emits {effect} under {capability} {params}")
            }
            Wanted::Raise { step, event, value } => {
                format!("{step} raises {event} {}", show(&Type::Ref(event.clone()), value))
            }
            Wanted::End { ending: Ending::Ended { result: Some(result) } } => {
                assert_eq!(agentd_air::encode(&result.read(&self.types).unwrap()), result.bytes);
                format!("ended with {}", show(&result.of, &result.bytes))
            }
            Wanted::End { ending } => {
                assert_eq!(self.run.ended(), Some(ending));
                ending.to_string()
            }
        }
    }
}

fn receipt(id: u8, result: Option<Vec<u8>>) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let result = result.map_or(Value::None, |bytes| Value::Some(Box::new(Value::Bytes(bytes))));
    Value::Record(vec![Value::Hash(Hash([id; 32])), text("sys/http@1"), text("ok"), result])
}

fn step(id: &str, act: Json) -> Json {
    json!({"id": id, "do": act})
}

fn get(path: &str) -> Json {
    json!({"get": path})
}

fn op(op: &str, operands: Json) -> Json {
    json!({"op": [op, operands]})
}

fn raise(id: &str, text: Json) -> Json {
    step(id, json!({"raise": {"event": "t/out@1", "value": {"record": [{"number": 1}, text]}}}))
}

/// A step that raises an event with its own name.
fn say(id: &str) -> Json {
    raise(id, json!({"text": id}))
}

fn tell(id: &str) -> Json {
    let params = json!({"record": [{"text": id}, get("input.name"), get("input.n")]});
    step(id, json!({"emit": {"effect": "sys/host.notify@1", "capability": "t/tell@1", "params": params}}))
}

fn fetch(id: &str) -> Json {
    let headers =
        json!({"list": [{"list": [{"text": "host"}, get("input.name")]}, {"list": [{"text": "a"}, {"text": "b"}]}]});
    let body = op("concat", json!([{"text": "n="}, get("input.n")]));
    let params = json!({"record": [{"text": "POST"}, {"text": "http://x/"}, headers, body]});
    step(id, json!({"emit": {"effect": "sys/http@1", "capability": "t/fetch@1", "params": params}}))
}

fn await_receipt(id: &str, of: &str) -> Json {
    step(id, json!({"await_receipt": {"of": of}}))
}

fn await_event(id: &str, condition: Json) -> Json {
    step(id, json!({"await_event": {"event": "t/out@1", "where": condition}}))
}

fn assign(id: &str, value: Json) -> Json {
    step(id, json!({"assign": {"value": value}}))
}

fn end(id: &str, result: Json) -> Json {
    step(id, json!({"end": {"result": result}}))
}

fn said(position: u32, text: &str) -> String {
    format!(r#"{position} raises t/out@1 {{"n":1,"note":null,"text":"{text}"}}"#)
}

/// What an expression comes to in an `end`.
fn value(expr: Json) -> String {
    Case::new(&[end("x", expr)], &[]).start().remove(0)
}

const ALWAYS: Json = Json::Null;

#[test]
fn acts_are_done_in_order_of_their_position() {
    let mut case = Case::new(&[say("b"), tell("t"), say("a"), fetch("f")], &[]);
    let told = r#"1 emits sys/host.notify@1 under t/tell@1 {"agent":7,"body":"build","subject":"t"}"#;
    let fetched = r#"3 emits sys/http@1 under t/fetch@1 {"body":"bj03","headers":{"a":"b","host":"build"},"method":"POST","url":"http://x/"}"#;
    assert_eq!(case.start(), [&said(0, "b"), told, &said(2, "a"), fetched]);
    assert_eq!(case.emitted(1, 1), [""; 0]);
    // Nobody waits for receipts, and the last id is all that was missing.
    assert_eq!(case.emitted(3, 2), ["ended"]);
    assert_eq!(case.emitted(3, 2), [""; 0]);
    assert_eq!(case.receipt(2, None), [""; 0]);
}

#[test]
fn a_step_that_becomes_ready_comes_before_later_ones() {
    let edges = [("c", "a", ALWAYS), ("a", "b", ALWAYS)];
    let mut case = Case::new(&[say("a"), say("b"), say("c"), say("d")], &edges);
    assert_eq!(case.start(), [said(2, "c"), said(0, "a"), said(1, "b"), said(3, "d"), "ended".into()]);
}

#[test]
fn a_guard_decides_which_way_it_goes() {
    let big = op("gt", json!([get("input.n"), {"number": 5}]));
    let edges = [("a", "yes", big.clone()), ("a", "no", op("not", json!([big]))), ("no", "after", ALWAYS)];
    let steps = [assign("a", json!({"bool": true})), say("yes"), say("no"), say("after")];
    let mut case = Case::new(&steps, &edges);
    assert_eq!(case.start(), [said(1, "yes"), "ended".into()]);
    assert_eq!(case.run.progress()[2..], [Progress::Skipped, Progress::Skipped]);
    let mut small = input();
    small["n"] = 5.into();
    assert_eq!(Case::with(small, &steps, &edges).start(), [said(2, "no"), said(3, "after"), "ended".into()]);
}

#[test]
fn branches_join_when_both_are_decided() {
    let steps =
        [tell("a"), tell("b"), await_receipt("ra", "a"), await_receipt("rb", "b"), say("join"), end("e", ALWAYS)];
    let edges = [("a", "ra", ALWAYS), ("b", "rb", ALWAYS), ("ra", "join", ALWAYS), ("rb", "join", ALWAYS)];
    let edges = [&edges[..], &[("join", "e", ALWAYS)]].concat();
    let mut case = Case::new(&steps, &edges);
    assert_eq!(case.start().len(), 2);
    assert_eq!(case.emitted(0, 1), [""; 0]);
    assert_eq!(case.emitted(1, 2), [""; 0]);
    assert_eq!(case.receipt(2, None), [""; 0]);
    assert_eq!(case.receipt(9, None), [""; 0]);
    assert_eq!(case.receipt(2, None), [""; 0]);
    assert!(case.run.waits_for_receipt(&Hash([1; 32])) && !case.run.waits_for_receipt(&Hash([2; 32])));
    assert_eq!(case.receipt(1, None), [said(4, "join"), "ended".into()]);
    assert!(!case.run.waits_for_receipt(&Hash([1; 32])));
}

#[test]
fn one_taken_edge_is_enough_for_a_join() {
    let never = json!({"bool": false});
    let edges = [("a", "c", never.clone()), ("b", "c", ALWAYS), ("a", "d", never.clone()), ("b", "d", never)];
    let mut case = Case::new(&[say("a"), say("b"), say("c"), say("d")], &edges);
    assert_eq!(case.start(), [said(0, "a"), said(1, "b"), said(2, "c"), "ended".into()]);
    assert_eq!(case.run.progress()[3], Progress::Skipped);
}

#[test]
fn a_receipt_that_comes_early_is_kept() {
    let ok = op("eq", json!([get("steps.r.status"), {"text": "ok"}]));
    let steps = [fetch("f"), await_event("e", ALWAYS), await_receipt("r", "f"), end("x", get("steps.r.result.status"))];
    let edges = [
        ("e", "r", ALWAYS),
        ("r", "x", op("and", json!([ok, op("lt", json!([get("steps.r.result.status"), {"number": 300}]))]))),
    ];
    let mut case = Case::new(&steps, &edges);
    case.start();
    case.emitted(0, 1);
    let result = agentd_air::encode(&Value::Record(vec![Value::Nat(204), Value::Map(vec![]), Value::Bytes(vec![])]));
    assert_eq!(case.receipt(1, Some(result)), [""; 0]);
    // Only the first counts.
    assert_eq!(case.receipt(1, None), [""; 0]);
    assert!(case.run.waits_for_event(case.plan(), &name("t/out@1")));
    assert_eq!(case.event(1), ["ended with 204"]);
    assert!(!case.run.waits_for_event(case.plan(), &name("t/out@1")));
}

#[test]
fn a_receipt_without_a_result_has_nothing_within() {
    let steps = [fetch("f"), await_receipt("r", "f"), end("x", get("steps.r.result.status"))];
    let edges = [("f", "r", ALWAYS), ("r", "x", ALWAYS)];
    let mut case = Case::new(&steps, &edges);
    case.start();
    case.emitted(0, 1);
    let mut wrong = case.clone();
    assert_eq!(case.receipt(1, None), ["failed at step x: steps.r.result.status: before status: it is none"]);
    let fault = "failed at step x: steps.r.result.status: expected record, found integer";
    assert_eq!(wrong.receipt(1, Some(vec![0])), [fault]);
}

#[test]
fn an_event_is_for_those_who_waited_before_it_came() {
    let above = |n: i64| op("gt", json!([get("event.n"), {"number": n}]));
    let steps =
        [await_event("a", above(5)), await_event("b", above(0)), await_event("c", ALWAYS), end("x", get("steps.c.n"))];
    let mut case = Case::new(&steps, &[("a", "c", ALWAYS), ("c", "x", ALWAYS)]);
    assert_eq!(case.start(), [""; 0]);
    assert!(!case.run.waits_for_event(case.plan(), &name("t/in@1")));
    assert_eq!(case.event(0), [""; 0]);
    assert_eq!(case.run.progress()[1], Progress::Awaiting);
    // Both take it; `c` has begun to wait only because of it.
    assert_eq!(case.event(6), [""; 0]);
    assert_eq!(case.run.progress()[2], Progress::Awaiting);
    assert_eq!(case.event(-3), ["ended with -3"]);
}

#[test]
fn an_end_is_the_last_thing() {
    let mut case = Case::new(&[say("a"), await_event("e", ALWAYS), end("x", get("input.name")), say("b")], &[]);
    assert_eq!(case.start(), [said(0, "a"), r#"ended with "build""#.into()]);
    assert_eq!(case.event(1), [""; 0]);
    assert!(!case.run.waits_for_event(case.plan(), &name("t/out@1")));
}

#[test]
fn a_receipt_that_cannot_come_ends_the_run() {
    let message = |step: &str| {
        format!("failed at step {step}: there will be no receipt: step f does not ask for its effect before this")
    };
    let never = json!({"bool": false});
    let mut skipped =
        Case::new(&[say("a"), fetch("f"), await_receipt("r", "f"), await_event("e", ALWAYS)], &[("a", "f", never)]);
    assert_eq!(skipped.start(), [said(0, "a"), message("r")]);
    // The effect would be asked for after its receipt.
    let mut circle = Case::new(&[await_receipt("r", "f"), fetch("f")], &[("r", "f", ALWAYS)]);
    assert_eq!(circle.start(), [message("r")]);
}

#[test]
fn results_have_the_types_of_what_they_are() {
    let steps = [
        tell("t"),
        assign("note", get("input.note")),
        assign("late", op("add", json!([get("input.at"), {"number": 500}]))),
        await_event("e", ALWAYS),
        step(
            "r",
            json!({"raise": {"event": "t/wide@1", "value": {"record": [
            get("steps.e.n"), get("steps.late"), get("steps.late"), {"text": "1h"}, get("input.name"), get("steps.t"),
            {"list": [get("input.n"), {"number": -1}]},
            {"list": [{"list": [{"text": "b"}, {"text": "0.50"}]}, {"list": [{"text": "a"}, {"number": 3}]}]},
            get("input.state"), get("steps.note")]}}}),
        ),
    ];
    let mut case = Case::new(&steps, &[("e", "r", ALWAYS), ("t", "r", ALWAYS)]);
    case.start();
    case.emitted(0, 0xcd);
    let wide = json!({"n": 4, "price": "1500", "at": "1970-01-01T00:00:00.0000015Z", "took": "1h", "raw": "YnVpbGQ=",
        "id": "cd".repeat(32), "items": [7, -1], "prices": {"a": "3", "b": "0.5"}, "state": {"closed": "late"}, "note": null});
    assert_eq!(case.event(4), [format!("4 raises t/wide@1 {wide}"), "ended".into()]);
}

#[test]
fn operations_have_their_values() {
    let cases = [
        (op("eq", json!([get("input.n"), {"number": 7}])), "true"),
        (op("eq", json!([get("input.at"), {"number": 1000}])), "true"),
        (op("ne", json!([get("input.n"), get("input.at")])), "true"),
        (op("gt", json!([get("input.n"), {"number": -1}])), "true"),
        (op("ge", json!([get("input.price"), {"text": "12.50"}])), "true"),
        (op("lt", json!([{"number": 12}, get("input.price")])), "true"),
        (op("le", json!([get("input.price"), get("input.n")])), "false"),
        (op("gt", json!([{"number": 13}, get("input.price")])), "true"),
        (op("eq", json!([get("input.price"), {"number": 125}])), "false"),
        (op("lt", json!([get("input.name"), {"text": "c"}])), "true"),
        (op("eq", json!([get("input.note"), "none"])), "true"),
        (op("eq", json!([{"text": "x"}, get("input.note")])), "false"),
        (op("eq", json!([get("input.state"), {"case": ["closed", {"text": "late"}]}])), "true"),
        (op("eq", json!([{"case": ["open", null]}, get("input.state")])), "false"),
        (op("eq", json!([get("input.id"), {"text": "ab".repeat(32)}])), "true"),
        (op("eq", json!([get("input.items"), {"list": [{"number": 1}, {"number": 2}, {"number": 3}]}])), "true"),
        (op("and", json!([{"bool": false}, get("nothing")])), "false"),
        (op("or", json!([{"bool": true}, get("nothing")])), "true"),
        (op("or", json!([{"bool": false}, {"bool": false}])), "false"),
        (op("sub", json!([{"number": 3}, get("input.n")])), "-4"),
        (op("mul", json!([{"number": i64::MAX}, {"number": 2}])), "\"18446744073709551614\""),
        (op("add", json!([{"number": 1}, {"number": 2}, {"number": 3}])), "6"),
        (
            op("concat", json!([get("input.name"), {"text": "-"}, get("input.n"), get("input.price")])),
            "\"build-712.5\"",
        ),
        (op("len", json!([get("input.items")])), "3"),
        (op("len", json!([{"text": "höh"}])), "3"),
    ];
    for (expr, wanted) in cases {
        assert_eq!(value(expr.clone()), format!("ended with {wanted}"), "{expr}");
    }
}

#[test]
fn a_large_decimal_number_compares_with_whole_ones() {
    let mut large = input();
    large["price"] = "1500".into();
    for (operator, number) in [("eq", 1500), ("gt", 1499), ("lt", 1501), ("gt", 15)] {
        let expr = op(operator, json!([get("input.price"), {"number": number}]));
        assert_eq!(Case::with(large.clone(), &[end("x", expr)], &[]).start(), ["ended with true"]);
    }
}

#[test]
fn an_expression_without_a_value_ends_the_run() {
    let none = json!({"record": []});
    let cases = [
        (get("input.nothing"), "input.nothing: there is no field nothing here"),
        (get("nothing"), "nothing: there is no \"nothing\" here"),
        (get(""), ": there is no \"\" here"),
        (get("event.n"), "event.n: there is no event here"),
        (get("steps.nobody"), "steps.nobody: there is no step nobody here"),
        (get("steps.x"), "steps.x: step x is not done"),
        (get("input.name.first"), "input.name.first: before first: expected record, found text"),
        (get("input.note.first"), "input.note.first: before first: it is none"),
        (none, "record can only be built where a type is known"),
        ("none".into(), "none can only be built where a type is known"),
        (op("eq", json!([get("input.n"), {"text": "7"}])), "eq: expected nat, found text"),
        (op("eq", json!([get("input.name"), get("input.state")])), "eq: text and variant cannot be compared"),
        (op("eq", json!(["none", "none"])), "eq: none can only be built where a type is known"),
        (op("lt", json!([get("input.state"), get("input.state")])), "lt: variant has no order"),
        (op("le", json!([get("input.note"), "none"])), "le: it is none"),
        (op("and", json!([{"bool": true}, get("input.n")])), "and: expected bool, found nat"),
        (op("not", json!([])), "not: it takes another number of operands"),
        (
            op("add", json!([{"number": i64::MAX}, {"number": i64::MAX}, {"number": 2}])),
            "add: the number is beyond 64 bits",
        ),
        // Not on the way either.
        (
            op("add", json!([{"number": i64::MAX}, {"number": i64::MAX}, {"number": 2}, {"number": -9}])),
            "add: the number is beyond 64 bits",
        ),
        (op("mul", json!([{"number": i64::MIN}, {"number": 2}])), "mul: the number is beyond 64 bits"),
        (op("sub", json!([get("input.price"), {"number": 2}])), "sub: expected whole number, found dec"),
        (op("concat", json!([get("input.note")])), "concat: it is none"),
        (op("len", json!([get("input.n")])), "len: expected list or text, found nat"),
    ];
    for (expr, wanted) in cases {
        assert_eq!(value(expr.clone()), format!("failed at step x: {wanted}"), "{expr}");
    }
}

#[test]
fn what_is_not_of_its_type_is_never_wanted() {
    let raised = |event: &str, value: Json| {
        let act = json!({"raise": {"event": event, "value": value}});
        let mut case = Case::new(&[say("a"), step("x", act)], &[]);
        let mut wanted = case.start();
        assert_eq!(wanted.remove(0), said(0, "a"));
        wanted.join("; ").replace("failed at step x: ", "")
    };
    let out = |values: Json| raised("t/out@1", json!({"record": values}));
    assert_eq!(out(json!([{"number": 1}])), "text: it is none");
    assert_eq!(out(json!([{"number": 1}, {"number": 1}])), "text: expected text, found int");
    assert_eq!(out(json!([{"number": 1}, get("input.note")])), "text: it is none");
    assert_eq!(
        out(json!([op("mul", json!([{"number": i64::MAX}, {"number": 2}])), {"text": ""}])),
        "n: 18446744073709551614 is no int"
    );
    assert_eq!(out(json!([{"number": 1}, {"text": ""}, "none", "none"])), "there is no field number 3 here");
    assert_eq!(raised("t/out@1", get("input")), "expected record, found record of another type");
    // The same cases in another order are another type.
    assert_eq!(raised("t/turned@1", get("input.state")), "expected variant, found variant of another type");
    assert_eq!(raised("t/state@1", json!({"case": ["gone", null]})), "there is no case gone here");
    assert_eq!(raised("t/state@1", json!({"case": ["closed", null]})), "closed: it takes a value");
    assert_eq!(raised("t/state@1", json!({"list": []})), "expected variant, found list");
    assert_eq!(raised("t/state@1", get("input.state")), r#"1 raises t/state@1 {"closed":"late"}; ended"#);
}

#[test]
fn guards_and_conditions_fail_with_the_name_of_their_step() {
    let mut guard = Case::new(&[say("a"), say("b")], &[("a", "b", get("input.n"))]);
    assert_eq!(guard.start(), [said(0, "a"), "failed at step b: guard from a: expected bool, found nat".into()]);
    let mut condition = Case::new(&[await_event("w", get("event.text"))], &[]);
    assert_eq!(condition.start(), [""; 0]);
    assert_eq!(condition.event(1), ["failed at step w: expected bool, found text"]);
    // A skipped step has no result, and the guard that would ask for it is not asked when its own step is skipped.
    let never = json!({"bool": false});
    let steps = [say("a"), assign("b", json!({"number": 1})), say("c"), end("x", get("steps.b"))];
    let mut skipped = Case::new(&steps, &[("a", "b", never), ("b", "c", get("steps.b"))]);
    assert_eq!(skipped.start(), [said(0, "a"), "failed at step x: steps.b: step b was skipped".into()]);
}

#[test]
fn a_guard_may_name_every_step_before() {
    let both = op("eq", json!([op("add", json!([get("steps.a"), get("steps.b")])), {"number": 3}]));
    let steps = [assign("a", json!({"number": 1})), assign("b", json!({"number": 2})), say("c")];
    let mut case = Case::new(&steps, &[("a", "c", both), ("b", "c", json!({"bool": false}))]);
    assert_eq!(case.start(), [said(2, "c"), "ended".into()]);
}

#[test]
fn what_an_expression_makes_is_bounded() {
    let mut large = input();
    large["name"] = "x".repeat(MAX_VALUE_BYTES - 1024).into();
    let twice = op("concat", json!([get("input.name"), get("input.name")]));
    let mut case = Case::with(large.clone(), &[end("x", twice.clone())], &[]);
    assert_eq!(case.start(), ["failed at step x: longer than 1048576 bytes"]);
    let often = (0..5).fold(twice, |expr, _| op("concat", json!([expr, expr])));
    let mut case = Case::with(large, &[end("x", often)], &[]);
    let failed = case.start().remove(0);
    assert!(failed.ends_with("it reads and makes more than 16777216 bytes"), "{failed}");
    let deep = |levels: usize| (1..levels).fold(json!({"bool": true}), |expr, _| op("not", json!([expr])));
    assert_eq!(value(deep(32)), "ended with false");
    assert!(value(deep(33)).ends_with("not: nested deeper than 32"));
}

#[test]
fn another_plan_under_the_name_is_not_gone_on_with() {
    let mut case = Case::new(&[await_event("a", ALWAYS), say("b")], &[("a", "b", ALWAYS)]);
    case.start();
    let other = Case::new(&[await_event("a", ALWAYS), say("c")], &[("a", "c", ALWAYS)]);
    case.types = other.types;
    assert_eq!(case.event(1), ["the plan was replaced while it ran"]);
}

#[test]
fn a_saved_run_goes_on_as_if_it_had_not_been_saved() {
    let steps = [
        fetch("f"),
        await_event("e", ALWAYS),
        assign("a", get("steps.e")),
        await_receipt("r", "f"),
        end("x", op("concat", json!([get("steps.a.n"), get("steps.r.status")]))),
    ];
    let edges = [("e", "a", ALWAYS), ("a", "r", ALWAYS), ("r", "x", ALWAYS)];
    let turns: [fn(&mut Case) -> Vec<String>; 4] =
        [Case::start, |c| c.emitted(0, 1), |c| c.event(5), |c| c.receipt(1, None)];
    let mut kept = Case::new(&steps, &edges);
    let mut saved = kept.clone();
    let mut told = Vec::new();
    for turn in turns {
        let bytes = minicbor::to_vec(&saved.run).unwrap();
        saved.run = minicbor::decode(&bytes).unwrap();
        assert_eq!(minicbor::to_vec(&saved.run).unwrap(), bytes);
        told = turn(&mut kept);
        assert_eq!(turn(&mut saved), told);
        assert_eq!(saved.run, kept.run);
    }
    assert_eq!(told, [r#"ended with "5ok""#]);
}

/// An act of a random plan; some cannot be done.
fn any_act(steps: usize) -> impl Strategy<Value = Json> {
    let value = prop_oneof![
        4 => Just(get("input.n")),
        1 => Just(get("input.nothing")),
        1 => (0..steps).prop_map(|step| get(&format!("steps.s{step}"))),
    ];
    prop_oneof![
        3 => Just("say".into()),
        3 => Just("tell".into()),
        3 => Just("receipt".into()),
        2 => Just(json!({"await_event": {"event": "t/out@1"}})),
        1 => (0i64..4).prop_map(|n| json!({"await_event": {"event": "t/out@1", "where": op("le", json!([{"number": n}, get("event.n")]))}})),
        3 => value.prop_map(|value| json!({"assign": {"value": value}})),
        1 => Just(json!({"end": {}})),
    ]
}

fn any_guard() -> impl Strategy<Value = Json> {
    prop_oneof![
        4 => Just(ALWAYS),
        4 => (0i64..14).prop_map(|n| op("lt", json!([get("input.n"), {"number": n}]))),
        1 => (0usize..10).prop_map(|step| op("eq", json!([get(&format!("steps.s{step}")), {"number": 7}]))),
        1 => Just(get("input.n")),
    ]
}

/// Steps and edges without a circle, in any order of positions.
fn any_plan() -> impl Strategy<Value = Case> {
    (1usize..10).prop_flat_map(|count| {
        let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
        let edges = prop::collection::vec((0..count, 0..count, any_guard()), 0..=2 * count);
        (prop::collection::vec(any_act(count), count), prop::collection::vec(0..count, count), order, edges).prop_map(
            |(acts, others, order, edges)| {
                let id = |at: usize| format!("s{at}");
                let tells: Vec<_> = (0..acts.len()).filter(|at| acts[*at] == "tell").collect();
                let act = |(at, act): (usize, &Json)| match act.as_str() {
                    Some("tell") => tell(&id(at)),
                    Some("receipt") if !tells.is_empty() => {
                        await_receipt(&id(at), &id(tells[others[at] % tells.len()]))
                    }
                    Some(_) => say(&id(at)),
                    None => step(&id(at), act.clone()),
                };
                let steps: Vec<_> = acts.iter().enumerate().map(act).collect();
                let edges = edges.into_iter().filter(|(one, other, _)| one != other);
                let edges =
                    edges.map(|(one, other, when)| (id(order[one.min(other)]), id(order[one.max(other)]), when));
                let edges: Vec<_> = edges.collect();
                let edges: Vec<_> = edges.iter().map(|(from, to, when)| (&**from, &**to, when.clone())).collect();
                Case::new(&steps, &edges)
            },
        )
    })
}

/// Answers everything that a run wants, until it has ended or has taken too many rounds. Says what it wanted.
fn settle(case: &mut Case, saving: bool) -> (usize, Vec<Wanted>) {
    let plan = case.plan().clone();
    let (mut rounds, mut all) = (0, Vec::new());
    let go_on = |run: &mut Instance, happening: Option<Happening<'_>>| {
        if saving {
            *run = minicbor::decode(&minicbor::to_vec(&*run).unwrap()).unwrap();
        }
        run.go_on(&plan, &case.types, happening)
    };
    let mut wanted = go_on(&mut case.run, None);
    while case.run.ended().is_none() && rounds <= plan.steps.len() {
        rounds += 1;
        let mut next = Vec::new();
        for step in wanted.iter().filter_map(|wanted| match wanted {
            Wanted::Emit { step, .. } => Some(*step),
            _ => None,
        }) {
            let id = u8::try_from(step).unwrap() + 1;
            let value = receipt(id, None);
            next.extend(go_on(&mut case.run, Some(Happening::Emitted { step, intent: Hash([id; 32]) })));
            next.extend(go_on(&mut case.run, Some(Happening::Receipt { intent: Hash([id; 32]), value: &value })));
        }
        let value = Value::Record(vec![Value::Int(3), Value::Text(String::new()), Value::None]);
        next.extend(go_on(&mut case.run, Some(Happening::Event { schema: &name("t/out@1"), value: &value })));
        all.extend(std::mem::replace(&mut wanted, next));
    }
    all.extend(wanted);
    (rounds, all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_and_ends_alike(case in any_plan()) {
        let (mut one, mut again) = (case.clone(), case);
        let (rounds, wanted) = settle(&mut one, false);
        prop_assert!(one.run.ended().is_some(), "{:?}", one.run);
        prop_assert!(rounds <= one.plan().steps.len());
        prop_assert_eq!(settle(&mut again, true), (rounds, wanted.clone()));
        prop_assert_eq!(&again.run, &one.run);
        let steps: Vec<_> = wanted.iter().filter_map(|wanted| match wanted {
            Wanted::Emit { step, .. } | Wanted::Raise { step, .. } => Some(*step),
            Wanted::End { .. } => None,
        }).collect();
        prop_assert_eq!(steps.iter().collect::<BTreeSet<_>>().len(), steps.len());
        prop_assert_eq!(wanted.iter().filter(|wanted| matches!(wanted, Wanted::End { .. })).count(), 1);
        let last = matches!(wanted.last(), Some(Wanted::End { .. }));
        prop_assert!(last);
    }
}
