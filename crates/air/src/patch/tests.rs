//! A patch applies as a whole, to what it was made for, and to nothing that does not hold together.

use serde_json::{Value as Json, json};

use super::*;

fn read(nodes: &[Json]) -> Vec<Definition> {
    nodes.iter().map(|node| Definition::from_json(node).unwrap()).collect()
}

fn nodes() -> Vec<Json> {
    vec![
        json!({"defschema": "acme/count@1", "type": {"record": [["by", "int"]]}}),
        json!({"defschema": "acme/total@1", "type": {"record": [["total", "int"]]}}),
        json!({"defmodule": "acme/counter@1", "wasm": "00".repeat(32), "state": "acme/total@1", "takes": ["acme/count@1"],
            "effects": ["sys/host.freeze@1"]}),
        json!({"defcap": "acme/freeze@1", "effect": "sys/host.freeze@1", "holders": ["acme/counter@1"],
            "scope": {"agents": {"names": ["build-*"]}}}),
        json!({"defpolicy": "acme/rules@1", "rules": [{"when": {"effect": "sys/host.*"}, "decide": "require_approval"}]}),
    ]
}

fn route(event: &str, module: &str, key: Option<&str>) -> Route {
    Route { event: event.parse().unwrap(), module: module.parse().unwrap(), key: key.map(str::to_owned) }
}

fn sound() -> Definitions {
    let routes = vec![route("acme/count@1", "acme/counter@1", None)];
    Definitions::new(read(&nodes()), routes, vec![], Some("acme/rules@1".parse().unwrap())).unwrap()
}

#[test]
fn the_difference_leads_there_and_back() {
    let (empty, full) = (Definitions::default(), sound());
    let there = empty.difference(&full);
    assert_eq!(empty.patched(&there).unwrap(), full);
    assert_eq!(full.patched(&full.difference(&empty)).unwrap(), empty);
    assert!(full.difference(&full).changes.is_empty());
    assert_eq!(Patch::decode(&there.encode()).unwrap(), there);
    let json = serde_json::to_value(&there).unwrap();
    assert_eq!(serde_json::from_value::<Patch>(json).unwrap(), there);
}

#[test]
fn a_patch_for_another_world_or_another_definition_is_stale() {
    let full = sound();
    let mut patch = full.difference(&Definitions::default());
    patch.base = Hash([9; 32]);
    assert!(matches!(full.patched(&patch), Err(NotApplicable::Base { .. })));
    let name: Name = "acme/count@1".parse().unwrap();
    let change = |change| Patch { base: full.manifest().hash(), changes: vec![change] };
    let stale = change(Change::Remove { name: name.clone(), old: Hash([9; 32]) });
    assert!(matches!(full.patched(&stale), Err(NotApplicable::Stale { .. })));
    let twice = change(Change::Add(Box::new(read(&nodes()[..1]).remove(0))));
    assert_eq!(full.patched(&twice), Err(NotApplicable::Exists(name.clone())));
    // What others need cannot be taken away.
    let needed = change(Change::Remove { name: name.clone(), old: full.get(&name).unwrap().hash() });
    assert!(matches!(full.patched(&needed), Err(NotApplicable::Unsound(_))));
}

#[test]
fn what_does_not_hold_together_is_named() {
    let with = |node: Json, routes: Vec<Route>| {
        let mut all = nodes();
        all.push(node);
        match Definitions::new(read(&all), routes, vec![], None) {
            Err(NotApplicable::Unsound(unsound)) => unsound.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let keyed = json!({"defmodule": "acme/keyed@1", "wasm": "00".repeat(32), "state": "acme/total@1", "key": "nat",
        "takes": ["acme/count@1"]});
    let step = |id: &str| json!({"id": id, "do": {"assign": {"value": {"bool": true}}}});
    let circle = json!({"defplan": "acme/plan@1", "input": "acme/count@1", "steps": [step("a"), step("b")],
        "edges": [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]});
    let cases = [
        (
            json!({"defschema": "sys/mine@1", "type": "bool"}),
            vec![],
            "defschema sys/mine@1: the name space sys is the daemon's",
        ),
        (json!({"defschema": "acme/x@1", "type": {"ref": "acme/no@1"}}), vec![], "there is no schema acme/no@1"),
        (
            json!({"defcap": "acme/x@1", "effect": "sys/teleport@1", "holders": []}),
            vec![],
            "defcap acme/x@1: there is no kind of effect sys/teleport@1",
        ),
        (
            json!({"defcap": "acme/x@1", "effect": "sys/timer@1", "holders": ["acme/count@1"]}),
            vec![],
            "acme/count@1 is no module and no plan",
        ),
        (
            json!({"defmodule": "acme/x@1", "wasm": "00".repeat(32), "state": "acme/total@1", "limits": {"fuel": u64::MAX}}),
            vec![],
            "at most 500000000 of fuel",
        ),
        (keyed.clone(), vec![route("acme/count@1", "acme/keyed@1", Some("by"))], "no field by of the type of the key"),
        (keyed, vec![route("acme/count@1", "acme/counter@1", Some("by"))], "the module has no keys"),
        (circle, vec![], "its steps go in a circle"),
        (json!({"defpolicy": "acme/x@1", "rules": [], "proposals": {"approvals": 0}}), vec![], "at least one approval"),
    ];
    for (node, routes, expected) in cases {
        let said = with(node, routes);
        assert!(said.contains(expected), "{said:?} has no {expected:?}");
    }
}

#[test]
fn bytes_of_another_encoding_are_no_patch() {
    let patch = Patch { base: Hash([1; 32]), changes: vec![] };
    let mut bytes = patch.encode();
    assert_eq!(bytes.pop(), Some(0x80));
    // The empty list, with its length in a longer form.
    bytes.extend([0x98, 0x00]);
    assert!(matches!(Patch::decode(&bytes), Err(NotApplicable::Bytes { .. })));
}

#[test]
fn what_is_nested_too_deep_is_refused_before_it_is_read() {
    assert!(nested_within(&[0x81; 100], 100));
    assert!(!nested_within(&[0x81; 101], 100));
    // Side by side is not within each other.
    let wide = [vec![0x98, 200], [0x81, 0x00].repeat(200)].concat();
    assert!(nested_within(&wide, 2));
    assert!(!nested_within(&wide, 1));
    assert!(matches!(Patch::decode(&[0x81; 100_000]), Err(NotApplicable::Bytes { .. })));
}
