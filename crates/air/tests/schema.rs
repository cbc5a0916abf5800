//! `docs/format/air.schema.json` takes what the reader takes, and refuses what it refuses.

#![allow(clippy::unwrap_used, reason = "a test; helpers of an integration test are not seen as tests")]

use std::fs;
use std::path::{Path, PathBuf};

use agentd_air::{Definition, Definitions, Patch};
use jsonschema::Validator;
use serde_json::{Value as Json, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> Json {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema() -> Json {
    read(&root().join("docs/format/air.schema.json"))
}

fn validator() -> Validator {
    let schema = schema();
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("the schema itself: {error}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn hash() -> String {
    "0f".repeat(32)
}

/// Puts a hash where a file stands for one, as `agentctl world propose` does.
fn with_hashes(document: &mut Json) {
    for node in document["definitions"].as_array_mut().unwrap() {
        if node["wasm"].as_str().is_some_and(|wasm| wasm.starts_with("file:")) {
            node["wasm"] = json!(hash());
        }
    }
}

fn definitions(document: &Json) -> Definitions {
    let nodes = document["definitions"].as_array().unwrap();
    let nodes: Vec<Definition> = nodes.iter().map(|node| Definition::from_json(node).unwrap()).collect();
    let list = |name: &str| document.get(name).cloned().unwrap_or_else(|| json!([]));
    let (routes, triggers) = (serde_json::from_value(list("routes")), serde_json::from_value(list("triggers")));
    let policy = serde_json::from_value(document.get("policy").cloned().unwrap_or_default());
    Definitions::new(nodes, routes.unwrap(), triggers.unwrap(), policy.unwrap()).unwrap()
}

/// With a definition, an act, an expression, a scope and a type of every kind.
fn everything() -> Json {
    let step = |id: &str, act: Json| json!({"id": id, "do": act});
    let op = |op: &str, operands: Json| json!({"op": [op, operands]});
    let text = |text: &str| json!({"text": text});
    let kinds: Vec<String> = agentd_air::effects().keys().map(ToString::to_string).collect();
    let ops = ["eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul"];
    let ops: Vec<Json> = ops.iter().map(|name| op(name, json!([{"number": 1}, {"get": "input.count"}]))).collect();
    json!({
        "definitions": [
            {"defschema": "t/all@1", "type": {"record": [
                ["a", "bool"], ["b", "int"], ["count", "nat"], ["d", "dec"], ["e", "bytes"], ["f", "text"], ["g", "time"],
                ["h", "duration"], ["i", "hash"], ["j", "uuid"], ["k", {"variant": [["one"], ["two", {"list": "int"}]]}],
                ["l", {"map": ["uuid", {"option": {"ref": "t/empty@4294967295"}}]}]]}},
            {"defschema": "t/empty@4294967295", "type": {"record": []}},
            {"defschema": "t/list@1", "type": {"record": [["of", {"list": "text"}]]}},
            {"defmodule": "t/module@1", "wasm": hash(), "state": "t/all@1", "key": "text",
                "takes": ["t/all@1", "sys/receipt@1", "sys/access-denied@1"], "raises": ["t/list@1"], "effects": kinds,
                "limits": {"fuel": 500_000_000, "memory": 0}},
            {"defplan": "t/plan@1", "input": "t/all@1",
                "steps": [
                    step("ask", json!({"emit": {"effect": "sys/introspect@1", "capability": "t/look@1",
                        "params": {"record": [{"case": ["cell", {"record": [text("t/module@1"), "none"]}]}]}}})),
                    step("name", json!({"emit": {"effect": "sys/introspect@1", "capability": "t/look@1",
                        "params": {"record": [{"case": ["height", null]}]}}})),
                    step("told", json!({"await_receipt": {"of": "ask"}})),
                    step("heard", json!({"await_event": {"event": "t/list@1",
                        "where": op("not", json!([op("and", json!([{"bool": true},
                            op("eq", json!([op("len", json!([{"get": "event.of"}])), {"number": -9}]))]))]))}})),
                    step("any", json!({"await_event": {"event": "t/list@1"}})),
                    step("say", json!({"raise": {"event": "t/list@1", "value": {"record": [
                        {"list": [op("concat", json!([text("x"), {"get": "steps.told.status"}]))]}]}}})),
                    step("keep", json!({"assign": {"value": op("or", Json::Array(ops))}})),
                    step("end", json!({"end": {"result": {"get": "steps.keep"}}})),
                    step("stop", json!({"end": {}})),
                ],
                "edges": [{"from": "ask", "to": "told"}, {"from": "told", "to": "end", "when": {"bool": false}}]},
            {"defcap": "t/http@1", "effect": "sys/http@1", "holders": ["t/module@1"], "expires_ns": u64::MAX,
                "scope": {"http": {"hosts": ["api.example.org", "127.0.0.1:8080"], "methods": ["GET"], "max_ms": 5}}},
            {"defcap": "t/exec@1", "effect": "sys/exec@1", "holders": ["t/plan@1"], "scope":
                {"exec": {"programs": ["/usr/bin/*"], "profile": "coding", "directories": ["/srv"], "max_cpu_ms": 1}}},
            {"defcap": "t/llm@1", "effect": "sys/llm@1", "holders": [],
                "scope": {"llm": {"providers": ["main"], "models": ["*"], "max_tokens": 4096}}},
            {"defcap": "t/freeze@1", "effect": "sys/host.freeze@1", "holders": ["t/module@1"],
                "scope": {"agents": {"names": ["build-*"]}}},
            {"defcap": "t/look@1", "effect": "sys/introspect@1", "holders": ["t/plan@1"], "scope": "any"},
            {"defpolicy": "t/rules@1",
                "rules": [{"when": {"effect": "sys/host.*", "capability": "t/freeze@1", "origin": "t/*"}, "decide": "allow"},
                    {"when": {}, "decide": "require_approval"}, {"decide": "deny"}],
                "proposals": {"approvals": 2, "proposer_counts": false, "shadow": true}},
        ],
        "routes": [{"event": "t/all@1", "module": "t/module@1", "key": "f"}, {"event": "sys/receipt@1", "module": "t/module@1"}],
        "triggers": [{"event": "t/all@1", "plan": "t/plan@1"}],
        "policy": "t/rules@1",
        "manifest": hash(),
    })
}

#[track_caller]
fn valid(validator: &Validator, json: &Json) {
    let errors: Vec<String> = validator.iter_errors(json).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{json:#}: {errors:?}");
}

#[test]
fn the_samples_and_everything_there_is_are_valid_and_read() {
    let validator = validator();
    let mut documents = vec![everything()];
    for name in ["counter", "tasks", "three-denials"] {
        documents.push(read(&root().join(format!("crates/reducer-sdk/samples/{name}/air.json"))));
    }
    for mut document in documents {
        valid(&validator, &document);
        with_hashes(&mut document);
        valid(&validator, &document);
        let read = definitions(&document);
        for definition in read.iter() {
            valid(&validator, &definition.to_json());
        }
        // What is written is as good as what was read, and so are the changes that lead there and back.
        for patch in [Definitions::default().difference(&read), read.difference(&Definitions::default())] {
            let json = serde_json::to_value(&patch).unwrap();
            valid(&validator, &json);
            assert_eq!(serde_json::from_value::<Patch>(json).unwrap(), patch);
        }
    }
    let replace = json!({"replace": {"old": hash(), "new": {"defschema": "t/a@1", "type": "int"}}});
    valid(&validator, &json!({"base": hash(), "changes": [replace, {"policy": null}]}));
}

#[test]
fn every_kind_of_effect_is_in_the_schema() {
    let schema = schema();
    let listed: Vec<&str> =
        schema["$defs"]["effect"]["enum"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
    let mut known: Vec<String> = agentd_air::effects().keys().map(ToString::to_string).collect();
    let mut listed: Vec<String> = listed.into_iter().map(str::to_owned).collect();
    known.sort();
    listed.sort();
    assert_eq!(listed, known);
}

#[test]
fn what_the_reader_refuses_is_not_valid_either() {
    let validator = validator();
    let module = |key: &str, value: Json| {
        let mut module = json!({"defmodule": "t/m@1", "wasm": hash(), "state": "t/s@1"});
        module[key] = value;
        module
    };
    let plan = |act: Json| json!({"defplan": "t/p@1", "input": "t/s@1", "steps": [{"id": "a", "do": act}]});
    let value = |expr: Json| plan(json!({"assign": {"value": expr}}));
    let of = |of: Json| json!({"defschema": "t/s@1", "type": of});
    let scope = |scope: Json| json!({"defcap": "t/c@1", "effect": "sys/http@1", "holders": [], "scope": scope});
    let policy = |rule: Json| json!({"defpolicy": "t/r@1", "rules": [rule]});
    let fields: Vec<Json> = (0..65).map(|at| json!([format!("f{at}"), "int"])).collect();
    let wrong = [
        json!({}),
        json!([]),
        json!(null),
        json!("t/s@1"),
        json!({"type": "int"}),
        json!({"defschema": "t/s@1"}),
        json!({"defschema": "t/s@1", "type": "int", "more": 1}),
        json!({"defschema": "t/s@1", "defplan": "t/p@1", "type": "int"}),
        json!({"defschema": "t/s@0", "type": "int"}),
        json!({"defschema": "t/s@01", "type": "int"}),
        json!({"defschema": "t/s@4294967296", "type": "int"}),
        json!({"defschema": "T/s@1", "type": "int"}),
        json!({"defschema": "t/s_s@1", "type": "int"}),
        json!({"defschema": "t/s", "type": "int"}),
        json!({"defschema": format!("{}/s@1", "t".repeat(65)), "type": "int"}),
        of(json!("integer")),
        of(json!(null)),
        of(json!({"record": {"a": "int"}})),
        of(json!({"record": [["a"]]})),
        of(json!({"record": [["a", "int", "nat"]]})),
        of(json!({"record": [["A", "int"]]})),
        of(json!({"record": [["1a", "int"]]})),
        of(json!({"record": fields})),
        of(json!({"variant": []})),
        of(json!({"variant": [[]]})),
        of(json!({"list": "int", "option": "int"})),
        of(json!({"map": ["dec", "int"]})),
        of(json!({"map": ["int"]})),
        of(json!({"option": {"option": "int"}})),
        of(json!({"ref": "t/s"})),
        of(json!({"set": "int"})),
        module("wasm", json!("0F".repeat(32))),
        module("wasm", json!("0f")),
        module("state", json!({"record": []})),
        module("takes", json!("t/s@1")),
        module("takes", json!([1])),
        module("key", json!("number")),
        module("limits", json!({"fuel": -1})),
        module("limits", json!({"time": 1})),
        module("about", json!("text")),
        plan(json!({"emit": {"effect": "sys/timer@1", "capability": "t/c@1"}})),
        plan(json!({"await_receipt": {}})),
        plan(json!({"await_event": {"event": "t/s@1", "when": {"bool": true}}})),
        plan(json!({"assign": {"value": {"bool": true}}, "end": {}})),
        plan(json!({"wait": {}})),
        plan(json!({})),
        json!({"defplan": "t/p@1", "input": "t/s@1", "steps": [{"id": "a"}]}),
        json!({"defplan": "t/p@1", "steps": [{"id": "a", "do": {"end": {}}}]}),
        value(json!("some")),
        value(json!(7)),
        value(json!({"number": 1.5})),
        value(json!({"number": "7"})),
        value(json!({"bool": 1})),
        value(json!({"case": ["a"]})),
        value(json!({"op": ["div", []]})),
        value(json!({"op": ["eq"]})),
        value(json!({"op": ["eq", {"number": 1}]})),
        value(json!({"get": ["input"]})),
        value(json!({"record": {"a": "none"}})),
        scope(json!("all")),
        scope(json!({"http": {"hosts": ["a"]}})),
        scope(json!({"http": {"hosts": "a", "methods": []}})),
        scope(json!({"http": {"hosts": [], "methods": [], "max_bytes": -1}})),
        scope(json!({"exec": {"programs": [], "directories": []}})),
        scope(json!({"llm": {"providers": [], "models": []}})),
        scope(json!({"agents": {}})),
        scope(json!({"agents": {"names": [], "uid": 0}})),
        scope(json!({"files": {}})),
        json!({"defcap": "t/c@1", "effect": "sys/timer@1"}),
        json!({"defcap": "t/c@1", "effect": "timer", "holders": []}),
        json!({"defcap": "t/c@1", "effect": "sys/timer@1", "holders": [], "expires_ns": "tomorrow"}),
        policy(json!({"decide": "maybe"})),
        policy(json!({"when": {"effect": "sys/*"}})),
        policy(json!({"when": {"kind": "sys/*"}, "decide": "allow"})),
        policy(json!({"when": {"effect": ["sys/*"]}, "decide": "allow"})),
        json!({"defpolicy": "t/r@1"}),
        json!({"defpolicy": "t/r@1", "rules": [], "proposals": {"approvals": -1}}),
        json!({"defpolicy": "t/r@1", "rules": [], "proposals": {"quorum": 1}}),
    ];
    for json in &wrong {
        assert!(Definition::from_json(json).is_err(), "the reader takes {json}");
        assert!(!validator.is_valid(json), "the schema takes {json}");
    }
    let base = hash();
    let wrong = [
        json!({"base": base}),
        json!({"base": "0f", "changes": []}),
        json!({"base": base, "changes": [], "note": "n"}),
        json!({"base": base, "changes": [{"add": {"defschema": "t/s@1"}}]}),
        json!({"base": base, "changes": [{"replace": {"new": {"defschema": "t/s@1", "type": "int"}}}]}),
        json!({"base": base, "changes": [{"remove": "t/s@1"}]}),
        json!({"base": base, "changes": [{"rename": {}}]}),
        json!({"base": base, "changes": [{"routes": {"event": "t/s@1", "module": "t/m@1"}}]}),
        json!({"base": base, "changes": [{"routes": [{"event": "t/s@1"}]}]}),
        json!({"base": base, "changes": [{"triggers": [{"event": "t/s@1", "plan": "t/p@1", "key": "a"}]}]}),
        json!({"base": base, "changes": [{"policy": 1}]}),
    ];
    for json in &wrong {
        assert!(serde_json::from_value::<Patch>(json.clone()).is_err(), "the reader takes {json}");
        assert!(!validator.is_valid(json), "the schema takes {json}");
    }
}
