//! What is no reducer, and by which name it is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each file of tests uses a part")]
mod common;

use agentd_wasm::{MODULE_BYTES, ModuleError};
use common::{binary, engine};

const MEMORY: &str = r#"(memory (export "memory") 1)"#;
const ALLOC: &str = r#"(func (export "alloc") (param i32) (result i32) (i32.const 0))"#;
const STEP: &str = r#"(func (export "step") (param i32 i32) (result i64) (i64.const 0))"#;

fn refusal(fields: &[&str]) -> ModuleError {
    engine().compile(&binary(&format!("(module {})", fields.join(" ")))).unwrap_err()
}

#[test]
fn the_least_reducer_is_taken() {
    engine().compile(&binary(&format!("(module {MEMORY} {ALLOC} {STEP})"))).unwrap();
}

#[test]
fn a_module_has_a_largest_size() {
    let error = engine().compile(&vec![0; MODULE_BYTES + 1]).unwrap_err();
    assert!(matches!(error, ModuleError::TooLong { bytes } if bytes == MODULE_BYTES + 1));
}

#[test]
fn what_is_not_wasm_is_refused() {
    let component = binary("(component)");
    for bytes in [&b""[..], b"\0asm", b"(module)", b"\x7fELF\x02\x01\x01\0", &component] {
        assert!(matches!(engine().compile(bytes), Err(ModuleError::NotWasm)), "{bytes:?}");
    }
}

#[test]
fn what_is_cut_short_or_does_not_validate_is_refused() {
    let whole = binary(&format!("(module {MEMORY} {ALLOC} {STEP})"));
    for length in 9..whole.len() {
        let error = engine().compile(&whole[..length]).unwrap_err();
        assert!(matches!(error, ModuleError::Invalid { .. } | ModuleError::Missing { .. }), "{length}: {error}");
    }
    // An i64 where an i32 is declared.
    assert!(matches!(refusal(&["(func (result i32) (i64.const 0))"]), ModuleError::Invalid { .. }));
}

#[test]
fn every_import_is_refused_by_its_name() {
    for import in ["(func)", "(memory 1)", "(global i32)", "(table 1 funcref)"] {
        let error = refusal(&[&format!(r#"(import "wasi_snapshot_preview1" "clock_time_get" {import})"#), ALLOC]);
        let ModuleError::Imports { module, name } = error else { panic!("{error}") };
        assert_eq!((module.as_str(), name.as_str()), ("wasi_snapshot_preview1", "clock_time_get"));
    }
}

#[test]
fn a_start_function_is_refused() {
    assert!(matches!(refusal(&[MEMORY, ALLOC, STEP, "(func $s) (start $s)"]), ModuleError::Starts));
}

#[test]
fn each_missing_export_is_named() {
    for (fields, missing) in [([ALLOC, STEP], "memory"), ([MEMORY, STEP], "alloc"), ([MEMORY, ALLOC], "step")] {
        let error = refusal(&fields);
        assert!(matches!(error, ModuleError::Missing { name, .. } if name == missing), "{error}");
    }
}

#[test]
fn each_export_of_another_type_is_named() {
    let wrong = [
        ([r#"(func (export "memory"))"#, ALLOC, STEP], "memory"),
        ([MEMORY, r#"(func (export "alloc") (param i64) (result i32) (i32.const 0))"#, STEP], "alloc"),
        ([MEMORY, r#"(func (export "alloc") (param i32))"#, STEP], "alloc"),
        ([MEMORY, r#"(global (export "alloc") i32 (i32.const 0))"#, STEP], "alloc"),
        ([MEMORY, ALLOC, r#"(func (export "step") (param i32 i32) (result i32) (i32.const 0))"#], "step"),
        ([MEMORY, ALLOC, r#"(func (export "step") (param i32) (result i64) (i64.const 0))"#], "step"),
        ([MEMORY, ALLOC, r#"(func (export "step") (param i32 i32) (result i64 i64) i64.const 0 i64.const 0)"#], "step"),
    ];
    for (fields, named) in wrong {
        let error = refusal(&fields);
        assert!(matches!(error, ModuleError::WrongType { name, .. } if name == named), "{named}: {error}");
    }
}

#[test]
fn more_than_a_step_can_have_is_refused() {
    let memory = refusal(&[r#"(memory (export "memory") 1025)"#, ALLOC, STEP]);
    assert!(matches!(memory, ModuleError::TooMuchMemory { bytes } if bytes == 1025 << 16));
    let long = refusal(&[MEMORY, ALLOC, STEP, "(table 16385 funcref)"]);
    assert!(matches!(long, ModuleError::TableTooLong { elements: 16385 }));
    let two = refusal(&[MEMORY, ALLOC, STEP, "(table 1 funcref) (table 1 funcref)"]);
    assert!(matches!(two, ModuleError::TooManyTables { count: 2 }));
    engine()
        .compile(&binary(&format!(r#"(module (memory (export "memory") 1024) {ALLOC} {STEP} (table 16384 funcref))"#)))
        .unwrap();
}

#[test]
fn what_may_differ_from_host_to_host_or_is_not_needed_is_refused() {
    let fields = [
        r#"(memory (export "shared") 1 1 shared)"#,
        r#"(memory (export "long") i64 1)"#,
        "(memory 1) (memory 1)",
        "(func (param i32) (result i32) (return_call 0 (local.get 0)))",
        "(func (param v128 v128 v128) (result v128) (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))",
        "(func (param externref))",
        "(type (struct (field i32)))",
        "(tag (param i32))",
        "(func (param (ref func)))",
        "(func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
        "(memory 1 (pagesize 1))",
    ];
    for field in fields {
        let error = refusal(&[field, ALLOC, STEP]);
        assert!(matches!(error, ModuleError::Invalid { .. }), "{field}: {error}");
    }
}

#[test]
fn a_message_says_what_is_wanted_and_not_what_its_cause_says() {
    assert_eq!(refusal(&[MEMORY, STEP]).to_string(), "a reducer must export alloc: func (i32) -> i32");
    let error = refusal(&["(func (result i32) (i64.const 0))"]);
    assert_eq!(error.to_string(), "this is no valid WASM module for a reducer");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("type mismatch"));
}
