//! What the worlds of stories consist of: one set of definitions and variants of it, which people propose and apply.

use std::sync::LazyLock;

use agentd_air::{Definition, Definitions, Name, Route, Trigger};
use serde_json::{Value as Json, json};

use crate::reducers::wasm;

/// How a variant differs; the first is how worlds begin.
const VARIANTS: [&str; 9] = [
    "as it is",
    "another counter",
    "everything needs approval",
    "nothing is notified",
    "nobody listens to the host",
    "cells of another schema",
    "two people must agree",
    "no policy",
    "freezing has expired",
];

/// All of them, made once.
static ALL: LazyLock<Vec<Definitions>> = LazyLock::new(|| VARIANTS.iter().map(|variant| make(variant)).collect());

/// Every variant.
pub(crate) fn variants() -> &'static [Definitions] {
    &ALL
}

/// A name that is a constant here.
pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap_or_else(|error| unreachable!("a constant: {error}"))
}

fn make(variant: &str) -> Definitions {
    let is = |wanted: &str| variant == wanted;
    let cell = if is("cells of another schema") { "sim/cell@2" } else { "sim/cell@1" };
    let cell_type = json!({"record": [["asked", "nat"], ["told", "nat"], ["luck", "nat"], ["last", "text"]]});
    let counter = wasm(if is("another counter") { "counter twice" } else { "counter" });
    let holders = ["sim/cells@1"];
    let mut nodes = vec![
        json!({"defschema": "sim/add@1", "type": {"record": [["by", "int"]]}}),
        json!({"defschema": "sim/total@1", "type": {"record": [["total", "int"]]}}),
        json!({"defschema": "sim/ask@1", "type": {"record": [["cell", "nat"], ["what", "nat"], ["note", "text"]]}}),
        json!({"defschema": "sim/poke@1", "type": {"record": [["cell", "nat"], ["what", "nat"], ["note", "text"]]}}),
        json!({"defschema": "sim/odd@1", "type": {"record": [["how", "nat"]]}}),
        json!({"defschema": "sim/go@1", "type": {"record": [["by", "int"]]}}),
        json!({"defschema": "sim/ring@1", "type": {"record": [["left", "nat"]]}}),
        json!({"defschema": cell, "type": cell_type}),
        json!({"defmodule": "sim/counter@1", "wasm": counter, "state": "sim/total@1", "takes": ["sim/add@1"]}),
        json!({"defmodule": "sim/cells@1", "wasm": wasm("cells"), "state": cell, "key": "nat",
            "takes": ["sim/ask@1", "sim/poke@1", "sys/receipt@1"], "raises": ["sim/add@1"],
            "effects": ["sys/host.notify@1", "sys/host.freeze@1", "sys/host.thaw@1", "sys/host.grant@1", "sys/timer@1",
                "sys/http@1", "sys/blob.put@1"]}),
        json!({"defmodule": "sim/oddity@1", "wasm": wasm("odd"), "state": "sim/total@1", "takes": ["sim/odd@1"],
            "raises": ["sim/add@1"], "effects": ["sys/host.notify@1"]}),
        json!({"defmodule": "sim/ringer@1", "wasm": wasm("ring"), "state": "sim/total@1", "takes": ["sim/ring@1"],
            "raises": ["sim/ring@1"]}),
        json!({"defcap": "sim/notify@1", "effect": "sys/host.notify@1", "holders": ["sim/cells@1", "sim/oddity@1", "sim/plan@1"]}),
        json!({"defcap": "sim/timer@1", "effect": "sys/timer@1", "holders": holders}),
        json!({"defcap": "sim/grant@1", "effect": "sys/host.grant@1", "holders": holders}),
        json!({"defcap": "sim/blob@1", "effect": "sys/blob.put@1", "holders": holders}),
        json!({"defcap": "sim/http@1", "effect": "sys/http@1", "holders": holders,
            "scope": {"http": {"hosts": ["127.0.0.1:*"], "methods": ["GET"]}}}),
    ];
    nodes.push(plan());
    let agents = json!({"agents": {"names": ["*"]}});
    let mut freeze =
        json!({"defcap": "sim/freeze@1", "effect": "sys/host.freeze@1", "holders": holders, "scope": agents});
    if is("freezing has expired") {
        freeze["expires_ns"] = json!(1);
    }
    nodes.push(freeze);
    let mut thaw =
        json!({"defcap": "sim/thaw@1", "effect": "sys/host.thaw@1", "holders": ["sim/cells@1"], "scope": agents});
    let mut routes = vec![
        route("sim/add@1", "sim/counter@1", None),
        route("sim/ask@1", "sim/cells@1", Some("cell")),
        route("sim/poke@1", "sim/cells@1", None),
        route("sim/odd@1", "sim/oddity@1", None),
        route("sim/ring@1", "sim/ringer@1", None),
    ];
    if !is("nobody listens to the host") {
        nodes.push(
            json!({"defmodule": "sim/listener@1", "wasm": wasm("listener"), "state": "sim/total@1", "key": "nat",
            "takes": ["sys/agent-paused@1"], "effects": ["sys/host.thaw@1"]}),
        );
        routes.push(route("sys/agent-paused@1", "sim/listener@1", Some("agent")));
        thaw["holders"] = json!(["sim/cells@1", "sim/listener@1"]);
    }
    nodes.push(thaw);
    let policy = (!is("no policy")).then(|| {
        nodes.push(rules(variant));
        name("sim/rules@1")
    });
    let nodes: Vec<Definition> = nodes.iter().map(read).collect();
    let triggers = vec![Trigger { event: name("sim/go@1"), plan: name("sim/plan@1") }];
    Definitions::new(nodes, routes, triggers, policy).unwrap_or_else(|error| unreachable!("a constant: {error}"))
}

/// Tells the operators, waits for what came of it and then for an event, raises another and ends.
fn plan() -> Json {
    let subject = json!({"record": [{"text": "go"}, {"text": ""}, "none"]});
    let step = |id: &str, act: Json| json!({"id": id, "do": act});
    let edge = |from: &str, to: &str| json!({"from": from, "to": to});
    json!({"defplan": "sim/plan@1", "input": "sim/go@1",
        "steps": [
            step("tell", json!({"emit": {"effect": "sys/host.notify@1", "capability": "sim/notify@1", "params": subject}})),
            step("told", json!({"await_receipt": {"of": "tell"}})),
            step("heard", json!({"await_event": {"event": "sim/odd@1"}})),
            step("add", json!({"raise": {"event": "sim/add@1", "value": {"record": [{"get": "input.by"}]}}})),
        ],
        "edges": [edge("tell", "told"), edge("told", "heard"), edge("heard", "add")]})
}

fn rules(variant: &str) -> Json {
    let mut rules = vec![
        json!({"when": {"effect": "sys/blob.*"}, "decide": "deny"}),
        json!({"when": {"capability": "sim/grant@1"}, "decide": "require_approval"}),
        json!({"when": {"effect": "sys/*"}, "decide": "allow"}),
    ];
    match variant {
        "everything needs approval" => rules.insert(0, json!({"decide": "require_approval"})),
        "nothing is notified" => rules.insert(0, json!({"when": {"effect": "sys/host.notify@1"}, "decide": "deny"})),
        _ => {}
    }
    let proposals = match variant {
        "two people must agree" => json!({"approvals": 2, "proposer_counts": false, "shadow": false}),
        _ => json!({"approvals": 1, "proposer_counts": true, "shadow": true}),
    };
    json!({"defpolicy": "sim/rules@1", "rules": rules, "proposals": proposals})
}

fn read(json: &Json) -> Definition {
    Definition::from_json(json).unwrap_or_else(|error| unreachable!("a constant: {error}"))
}

fn route(event: &str, module: &str, key: Option<&str>) -> Route {
    Route { event: name(event), module: name(module), key: key.map(str::to_owned) }
}
