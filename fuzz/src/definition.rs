//! Definitions and patches, as people write them and as they are recorded.

use agentd_air::{Change, Definition, Definitions, MAX_NESTING, Patch, nested_within};
use serde_json::Value as Json;

/// One definition, a document, or a patch, in JSON; a definition or a patch in CBOR.
pub fn air_definition(data: &[u8]) {
    if let Ok(json) = serde_json::from_slice::<Json>(data) {
        from_json(&json);
    }
    if let Ok(patch) = Patch::decode(data) {
        assert_eq!(patch.encode(), data, "a patch has one encoding");
        let json = serde_json::to_value(&patch).expect("a patch is plain data");
        let read: Patch = serde_json::from_value(json).expect("the text of a patch is one");
        assert_eq!(read, patch, "a patch reads back from its text");
        apply(&patch);
    }
    if nested_within(data, MAX_NESTING)
        && let Ok(definition) = minicbor::decode::<Definition>(data)
    {
        sound(&definition);
    }
}

fn from_json(json: &Json) {
    match Definition::from_json(json) {
        Ok(definition) => sound(&definition),
        Err(error) => drop(error.to_string()),
    }
    if let Ok(patch) = serde_json::from_value::<Patch>(json.clone()) {
        // Longer and deeper ones are for whoever takes them to refuse.
        if nested_within(&patch.encode(), MAX_NESTING) {
            assert_eq!(Patch::decode(&patch.encode()).as_ref(), Ok(&patch), "a patch reads back from its bytes");
        }
        apply(&patch);
    }
    let part = |name: &str| json.get(name).cloned().unwrap_or(Json::Array(vec![]));
    let nodes = part("definitions");
    let nodes = nodes.as_array().into_iter().flatten().filter_map(|node| Definition::from_json(node).ok());
    let routes = serde_json::from_value(part("routes")).unwrap_or_default();
    let triggers = serde_json::from_value(part("triggers")).unwrap_or_default();
    let policy = json.get("policy").and_then(|name| name.as_str()?.parse().ok());
    if let Ok(definitions) = Definitions::new(nodes, routes, triggers, policy) {
        changes(&Definitions::default(), &definitions);
        changes(&definitions, &Definitions::default());
    }
}

fn sound(definition: &Definition) {
    let bytes = minicbor::to_vec(definition).expect("writing to memory");
    let read = minicbor::decode::<Definition>(&bytes).expect("what is written reads");
    assert_eq!(&read, definition, "a definition reads back from its bytes");
    assert_eq!(read.hash(), definition.hash(), "and has the same hash");
    let json = definition.to_json();
    assert!(json.get(definition.word()).is_some(), "its text says what it is");
    let read = Definition::from_json(&json).expect("the text of a definition is one");
    assert_eq!(&read, definition, "a definition reads back from its text");
    let patch = Patch {
        base: Definitions::default().manifest().hash(),
        changes: vec![Change::Add(Box::new(definition.clone()))],
    };
    apply(&patch);
}

/// A patch, as if it had been made for what has no definitions.
fn apply(patch: &Patch) {
    let empty = Definitions::default();
    let patch = Patch { base: empty.manifest().hash(), changes: patch.changes.clone() };
    match empty.patched(&patch) {
        Ok(next) => {
            changes(&empty, &next);
            changes(&next, &empty);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// The difference between two leads from one to the other.
fn changes(from: &Definitions, to: &Definitions) {
    let patch = from.difference(to);
    let there = from.patched(&patch).expect("a difference applies");
    assert_eq!(&there, to, "a difference makes what it is the difference to");
    assert_eq!(there.manifest().hash(), to.manifest().hash(), "and the same manifest");
}
