//! Each way for a step to end, and that it ends so every time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each file of tests uses a part")]
mod common;

use agentd_wasm::{Limits, Module, Outcome, STACK_BYTES, Trap};
use common::{answer, binary, engine, module, output, step, with};

/// The outcome, which must be the same three times.
fn always(module: &Module, input: &[u8], limits: Limits) -> Outcome {
    let first = module.step(input, limits).unwrap();
    for _ in 0..2 {
        assert_eq!(module.step(input, limits).unwrap(), first);
    }
    first
}

fn trap(body: &str) -> Trap {
    match always(&module(body), b"", Limits::default()) {
        Outcome::Trapped { why } => why,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn an_output_comes_back_as_it_was_written() {
    let echo = module(
        "(i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))",
    );
    assert_eq!(output(&echo, b"what happened"), b"what happened");
    assert_eq!(output(&echo, b""), b"");
    assert_eq!(output(&echo, &[7; 64_512]), [7; 64_512]);
}

#[test]
fn a_loop_without_end_ends_with_its_fuel() {
    let forever = module("(loop $again (br $again)) (unreachable)");
    assert_eq!(always(&forever, b"", Limits::default()), Outcome::OutOfFuel);
    let recursive = module("(call $step (local.get $ptr) (local.get $len))");
    let little = Limits::new(1_000, 1 << 20, 0).unwrap();
    assert_eq!(always(&recursive, b"", little), Outcome::OutOfFuel);
}

#[test]
fn fuel_is_exact() {
    let counted = module("(i64.const 0)");
    let Outcome::Done { fuel, .. } = always(&counted, b"", Limits::default()) else { panic!() };
    let with_fuel = |fuel| always(&counted, b"", Limits::new(fuel, 1 << 16, 0).unwrap());
    assert!(matches!(with_fuel(fuel + 1), Outcome::Done { fuel: used, .. } if used == fuel));
    assert_eq!(with_fuel(fuel), Outcome::OutOfFuel);
    assert_eq!(with_fuel(0), Outcome::OutOfFuel);
}

#[test]
fn one_instruction_over_many_bytes_pays_for_them() {
    let fill = module("(memory.fill (i32.const 0) (i32.const 1) (i32.const 60000)) (i64.const 0)");
    let Outcome::Done { fuel, .. } = step(&fill, b"") else { panic!() };
    assert!(fuel > 60_000, "{fuel}");
    // A length that is only known when it runs, and far too long: the fuel ends before the trap.
    let long =
        module("(memory.fill (i32.const 0) (i32.const 1) (i32.sub (local.get $len) (i32.const 1))) (i64.const 0)");
    assert_eq!(always(&long, b"", Limits::default()), Outcome::OutOfFuel);
}

#[test]
fn growth_beyond_the_limit_is_a_breach_and_not_an_answer() {
    // 16 MiB are 256 pages; one is there.
    let grow = |pages: u32| module(&format!("(drop (memory.grow (i32.const {pages}))) (i64.const 0)"));
    assert!(matches!(always(&grow(255), b"", Limits::default()), Outcome::Done { .. }));
    assert_eq!(always(&grow(256), b"", Limits::default()), Outcome::OutOfMemory);
    assert_eq!(always(&grow(2_000), b"", Limits::default()), Outcome::OutOfMemory);
    let grow_to_the_most = Limits::new(1_000_000, Limits::MAX.memory_bytes(), 0).unwrap();
    assert!(matches!(always(&grow(1_023), b"", grow_to_the_most), Outcome::Done { .. }));
    assert_eq!(always(&grow(1_024), b"", grow_to_the_most), Outcome::OutOfMemory);
}

#[test]
fn growth_beyond_what_an_address_can_name_is_a_breach_too() {
    // wasmtime refuses this one by itself, after it has granted another.
    let limits = Limits::new(Limits::MAX.fuel(), 1 << 20, 0).unwrap();
    let once = module("(drop (memory.grow (i32.const 65536))) (i64.const 0)");
    assert_eq!(always(&once, b"", limits), Outcome::OutOfMemory);
    let twice = module("(drop (memory.grow (i32.const 3))) (drop (memory.grow (i32.const -1))) (i64.const 0)");
    // 2^32 pages cost more fuel than there is, so this is the breach that comes first.
    assert_eq!(always(&twice, b"", limits), Outcome::OutOfFuel);
    let twice = module("(drop (memory.grow (i32.const 3))) (drop (memory.grow (i32.const 65536))) (i64.const 0)");
    assert_eq!(always(&twice, b"", limits), Outcome::OutOfMemory);
}

#[test]
fn growth_beyond_what_the_module_declares_is_a_breach_too() {
    let declared = with("(memory (export \"memory\") 1 2)", "(drop (memory.grow (i32.const 2))) (i64.const 0)");
    assert_eq!(always(&declared, b"", Limits::default()), Outcome::OutOfMemory);
}

#[test]
fn a_table_has_a_limit_as_well() {
    let table = |fields: &str, more: u32| {
        let fields = format!("(memory (export \"memory\") 1) (table $t {fields} funcref)");
        with(&fields, &format!("(drop (table.grow $t (ref.null func) (i32.const {more}))) (i64.const 0)"))
    };
    assert!(matches!(always(&table("1", 16_383), b"", Limits::default()), Outcome::Done { .. }));
    assert_eq!(always(&table("1", 16_384), b"", Limits::default()), Outcome::OutOfMemory);
    assert_eq!(always(&table("1 2", 2), b"", Limits::default()), Outcome::OutOfMemory);
}

#[test]
fn a_module_or_an_input_that_is_larger_than_the_limit_is_out_of_memory() {
    let large = with("(memory (export \"memory\") 17)", "(i64.const 0)");
    assert_eq!(always(&large, b"", Limits::new(1_000, 1 << 20, 0).unwrap()), Outcome::OutOfMemory);
    let small = module("(i64.const 0)");
    assert_eq!(always(&small, &vec![0; (1 << 20) + 1], Limits::new(1_000, 1 << 20, 0).unwrap()), Outcome::OutOfMemory);
}

#[test]
fn each_trap_has_a_name() {
    assert_eq!(trap("(unreachable)"), Trap::Unreachable);
    assert_eq!(trap("(i64.div_u (i64.const 1) (i64.extend_i32_u (local.get $len)))"), Trap::DivisionByZero);
    assert_eq!(trap("(i64.rem_s (i64.const 1) (i64.extend_i32_u (local.get $len)))"), Trap::DivisionByZero);
    assert_eq!(
        trap("(i64.div_s (i64.const 0x8000000000000000) (i64.sub (i64.extend_i32_u (local.get $len)) (i64.const 1)))"),
        Trap::IntegerOverflow
    );
    assert_eq!(trap("(i64.trunc_f64_s (f64.const 1e300))"), Trap::IntegerOverflow);
    assert_eq!(trap("(i64.trunc_f64_s (f64.const nan))"), Trap::BadConversion);
    assert_eq!(trap("(i64.load (i32.const 65529))"), Trap::OutOfBoundsMemory);
    assert_eq!(trap("(i64.load offset=4294967295 (i32.const -1))"), Trap::OutOfBoundsMemory);
    assert_eq!(
        trap("(memory.copy (i32.const 65535) (i32.const 0) (i32.const 2)) (i64.const 0)"),
        Trap::OutOfBoundsMemory
    );
}

#[test]
fn a_call_through_a_table_can_go_wrong_in_three_ways() {
    let call = |index: i32| {
        let fields = "(memory (export \"memory\") 1) (type $t (func (result i64))) (table 4 funcref)
                      (elem (i32.const 1) $other) (func $other (result i32) (i32.const 0))";
        let module = with(fields, &format!("(call_indirect (type $t) (i32.const {index}))"));
        always(&module, b"", Limits::default())
    };
    assert_eq!(call(0), Outcome::Trapped { why: Trap::NullCall });
    assert_eq!(call(1), Outcome::Trapped { why: Trap::WrongCallType });
    assert_eq!(call(4), Outcome::Trapped { why: Trap::OutOfBoundsTable });
}

#[test]
fn calls_without_end_overflow_the_stack() {
    let deep = module("(i64.add (call $step (local.get $ptr) (local.get $len)) (i64.const 1))");
    let plain = always(&deep, b"", Limits::default());
    assert_eq!(plain, Outcome::Trapped { why: Trap::StackOverflow });
    // What the documentation asks of a thread is enough.
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES + (256 << 10));
    let small = thread.spawn(move || step(&deep, b"")).unwrap().join().unwrap();
    assert_eq!(small, plain);
}

#[test]
fn data_that_has_no_room_traps_before_the_first_instruction() {
    let data = with("(memory (export \"memory\") 1) (data (i32.const 65535) \"ab\")", "(i64.const 0)");
    assert_eq!(always(&data, b"", Limits::default()), Outcome::Trapped { why: Trap::OutOfBoundsMemory });
    let element =
        with("(memory (export \"memory\") 1) (table 1 funcref) (func $f) (elem (i32.const 1) $f)", "(i64.const 0)");
    assert_eq!(always(&element, b"", Limits::default()), Outcome::Trapped { why: Trap::OutOfBoundsTable });
}

#[test]
fn a_place_for_the_input_must_be_in_the_memory() {
    let text = |at: &str| {
        format!(
            "(module (memory (export \"memory\") 1)
               (func (export \"alloc\") (param i32) (result i32) {at})
               (func (export \"step\") (param i32 i32) (result i64) (i64.const 0)))"
        )
    };
    let put = |at: &str, input: &[u8]| {
        let module = engine().compile(&binary(&text(at))).unwrap();
        always(&module, input, Limits::default())
    };
    assert!(matches!(put("(i32.const 65532)", b"four"), Outcome::Done { .. }));
    assert_eq!(put("(i32.const 65533)", b"four"), Outcome::BadPointer);
    assert_eq!(put("(i32.const -1)", b"four"), Outcome::BadPointer);
    assert_eq!(put("(i32.const -4)", b"four"), Outcome::BadPointer);
    assert!(matches!(put("(i32.const 65536)", b""), Outcome::Done { .. }));
    assert_eq!(put("(i32.const 65537)", b""), Outcome::BadPointer);
    assert_eq!(put("(unreachable)", b""), Outcome::Trapped { why: Trap::Unreachable });
}

#[test]
fn a_place_of_the_output_must_be_in_the_memory() {
    let gives = |answer: u64| always(&module(&format!("(i64.const {answer})")), b"", Limits::default());
    assert!(matches!(gives((65_532 << 32) | 4), Outcome::Done { output, .. } if output == [0; 4]));
    assert_eq!(gives((65_533 << 32) | 4), Outcome::BadPointer);
    assert_eq!(gives(65_537), Outcome::BadPointer);
    assert_eq!(gives(0xffff_ffff_0000_0001), Outcome::BadPointer);
    assert_eq!(gives(u64::MAX), Outcome::BadPointer);
    assert_eq!(gives(0x7fff_ffff_7fff_ffff), Outcome::BadPointer);
}

#[test]
fn an_output_has_a_longest_length() {
    let limits = Limits::new(1_000, 1 << 20, 64).unwrap();
    assert!(matches!(always(&module(&answer(64)), b"", limits), Outcome::Done { .. }));
    assert_eq!(always(&module(&answer(65)), b"", limits), Outcome::OutputTooLong { bytes: 65 });
}
