//! Modules that are no reducers, and patches for something else than what is there: refused when they are proposed.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{SAMPLES, World, leaves_no_trace};
use crate::harness::{FileSystem, Test, Tree, agentctl};

/// Magic and version of a WASM core module.
const HEADER: &[u8] = b"\0asm\x01\0\0\0";
/// Type 0: a function that takes nothing and gives nothing.
const TYPES: &[u8] = &[1, 4, 1, 0x60, 0, 0];
/// One import, `a.b`, a function of type 0.
const IMPORT: &[u8] = &[2, 7, 1, 1, b'a', 1, b'b', 0, 0];
/// A memory of one page.
const MEMORY: &[u8] = &[5, 3, 1, 0, 1];
/// It is exported as `memory`.
const EXPORT: &[u8] = &[7, 10, 1, 6, b'm', b'e', b'm', b'o', b'r', b'y', 2, 0];

pub(super) fn run(test: &mut Test) -> Result<()> {
    let world = World::with("modules", "counter")?;
    let tree = Tree::new("modules", FileSystem::Overlay)?;
    let counter: Value = serde_json::from_str(&fs::read_to_string(format!("{SAMPLES}/counter.json"))?)?;
    let good = fs::read(format!("{SAMPLES}/counter.wasm"))?;
    // Proposes the counter with another module.
    let propose = |bytes: &[u8]| {
        fs::write(tree.path("other.wasm"), bytes)?;
        let mut air = counter.clone();
        let nodes = air["definitions"].as_array_mut().context("no definitions")?;
        let module = nodes.iter_mut().find(|node| node.get("defmodule").is_some()).context("no module")?;
        module["wasm"] = json!("file:other.wasm");
        let file = tree.file("other.json", &air.to_string())?;
        agentctl(&["world", "propose", world.0, &file])
    };
    let manifest = world.view()?["manifest"].clone();
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("an empty file", vec![], "no WASM core module"),
        ("garbage", b"#!/bin/sh\necho hello\n".to_vec(), "no WASM core module"),
        ("a component", b"\0asm\x0d\0\x01\0".to_vec(), "no WASM core module"),
        ("a module with an import", [HEADER, TYPES, IMPORT].concat(), "imports a::b"),
        ("a module without exports", HEADER.to_vec(), "must export memory"),
        ("a module with only a memory", [HEADER, MEMORY, EXPORT].concat(), "must export alloc"),
        ("a module that is cut off", good[..good.len() / 2].to_vec(), "no valid WASM module"),
        ("a module with more behind it", [&good[..], b"more"].concat(), "no valid WASM module"),
    ];
    for (about, bytes, part) in cases {
        leaves_no_trace(test, world, (about, 1, &["file:other.wasm", part]), || propose(bytes))?;
    }
    leaves_no_trace(test, world, ("WASM that is not there", 2, &["none.wasm"]), || {
        let text = counter.to_string().replace("file:counter.wasm", "file:none.wasm");
        agentctl(&["world", "propose", world.0, &tree.file("none.json", &text)?])
    })?;
    // A section that nobody needs makes it another module, and a good one.
    let output = propose(&[&good[..], &[0, 2, 1, b'x']].concat())?;
    test.check(output.status == 0, || format!("a good module: {}", output.stderr.trim()));
    test.contains("what a good module changes", &output.stdout, "~ defmodule demo/counter@1");

    let schema = json!({ "add": { "defschema": "demo/new@1", "type": "int" } });
    let patch = |base: &Value| {
        let text = json!({ "base": base, "changes": [schema] }).to_string();
        agentctl(&["world", "propose", world.0, &tree.file("patch.json", &text)?])
    };
    let zero = json!("0".repeat(64));
    leaves_no_trace(test, world, ("a patch for another manifest", 2, &["was made for manifest 000"]), || patch(&zero))?;
    let output = patch(&manifest)?;
    test.check(output.status == 0, || format!("a patch for this manifest: {}", output.stderr.trim()));
    test.same("the manifest after all that", world.view()?["manifest"].clone(), manifest);
    test.same("the counter counts on", world.count(1).map(drop).is_ok(), true);
    Ok(())
}
