//! What the tests share: one engine, and modules as text.

use std::sync::OnceLock;

use agentd_wasm::{Engine, Limits, Module, Outcome};

/// One engine for all tests of a file: each keeps address space for all its slots.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new().unwrap())
}

pub(crate) fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A module with a memory of one page, an `alloc` that always says 1024, and a `step` with this body.
pub(crate) fn module(body: &str) -> Module {
    with("(memory (export \"memory\") 1)", body)
}

/// The same with other things in place of the memory.
pub(crate) fn with(fields: &str, body: &str) -> Module {
    let text = format!(
        "(module {fields}
           (func (export \"alloc\") (param i32) (result i32) (i32.const 1024))
           (func $step (export \"step\") (param $ptr i32) (param $len i32) (result i64) {body}))"
    );
    engine().compile(&binary(&text)).unwrap()
}

pub(crate) fn step(module: &Module, input: &[u8]) -> Outcome {
    module.step(input, Limits::default()).unwrap()
}

/// The output of a step that must be done.
pub(crate) fn output(module: &Module, input: &[u8]) -> Vec<u8> {
    match step(module, input) {
        Outcome::Done { output, .. } => output,
        other => panic!("not done but {other:?}"),
    }
}

/// The end of a step that answers with so many bytes at the beginning of its memory.
pub(crate) fn answer(bytes: u32) -> String {
    format!("(i64.const {bytes})")
}
