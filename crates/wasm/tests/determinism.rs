//! One module, one input, one outcome: again, on other threads, and whatever ran before in the same place.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each file of tests uses a part")]
mod common;

use std::thread;

use agentd_wasm::{Engine, Limits, Module, Outcome};
use common::{answer, binary, engine, module, output, step, with};

/// Hashes its input, and mixes in floats, vectors and whatever is left in its memory.
fn busy() -> Module {
    with(
        "(memory (export \"memory\") 2) (global $calls (mut i64) (i64.const 0)) (data (i32.const 16) \"seed\")",
        "(local $i i32) (local $h i64) (local $f f64) (local $v v128)
         (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
         (local.set $h (i64.add (i64.load (i32.const 16)) (global.get $calls)))
         (local.set $f (f64.const 0.1))
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $len)))
           (local.set $h (i64.mul (i64.xor (local.get $h)
             (i64.load8_u (i32.add (local.get $ptr) (local.get $i)))) (i64.const 1099511628211)))
           (local.set $f (f64.div (f64.sqrt (local.get $f)) (f64.convert_i64_s (local.get $h))))
           (local.set $v (f32x4.add (f32x4.nearest (f32x4.demote_f64x2_zero (f64x2.splat (local.get $f))))
             (i8x16.swizzle (local.get $v) (i64x2.splat (local.get $h)))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         (i64.store (i32.const 0) (local.get $h))
         (f64.store (i32.const 8) (local.get $f))
         (i64.store (i32.const 16) (i64.add (i64.load (i32.const 16)) (i64.load (i32.const 70000))))
         (i64.store (i32.const 70000) (local.get $h))
         (v128.store (i32.const 24) (local.get $v))
         (i64.const 40)",
    )
}

#[test]
fn the_same_fuel_and_the_same_bytes_each_time() {
    let busy = busy();
    let first = step(&busy, &[3; 512]);
    assert!(matches!(first, Outcome::Done { fuel, .. } if fuel > 512));
    for _ in 0..200 {
        assert_eq!(step(&busy, &[3; 512]), first);
    }
    assert_ne!(step(&busy, &[4; 512]), first);
}

#[test]
fn another_engine_gives_the_same() {
    let text = "(module (memory (export \"memory\") 1)
        (func (export \"alloc\") (param i32) (result i32) (i32.const 0))
        (func $step (export \"step\") (param i32 i32) (result i64) (local $n i64)
            (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
            (if (i64.lt_u (i64.load (i32.const 0)) (i64.const 500)) (then (drop (call $step (local.get 0) (local.get 1)))))
            (i64.const 8)))";
    let other = Engine::new().unwrap().compile(&binary(text)).unwrap();
    let one = engine().compile(&binary(text)).unwrap();
    assert_eq!(output(&one, b""), 500_u64.to_le_bytes());
    assert_eq!(step(&one, b""), step(&other, b""));
}

#[test]
fn nothing_survives_a_step() {
    let counter = with(
        "(memory (export \"memory\") 1) (global $g (mut i32) (i32.const 0)) (table $t 4 funcref) (elem func $step)",
        "(global.set $g (i32.add (global.get $g) (i32.const 1)))
         (i32.store (i32.const 0) (global.get $g))
         (i32.store (i32.const 4) (i32.add (i32.load (i32.const 60000)) (i32.const 1)))
         (i32.store (i32.const 60000) (i32.const 41))
         (i32.store (i32.const 8) (ref.is_null (table.get $t (i32.const 2))))
         (table.set $t (i32.const 2) (ref.func $step))
         (i32.store (i32.const 12) (memory.size))
         (drop (memory.grow (i32.const 8)))
         (i32.store (i32.const 500000) (i32.const 9))
         (i64.const 16)",
    );
    for _ in 0..100 {
        assert_eq!(output(&counter, b""), [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    }
}

#[test]
fn what_one_module_leaves_another_one_does_not_find() {
    // Secrets on all pages of all sizes, also beyond what is cleared by hand; and a module that looks for them.
    let writer = module(
        "(drop (memory.grow (i32.const 60))) (memory.fill (i32.const 0) (i32.const 0x5a) (i32.const 3997696)) (unreachable)",
    );
    let reader = module(
        "(local $i i32) (local $sum i64) (drop (memory.grow (i32.const 60)))
         (loop $next
           (local.set $sum (i64.or (local.get $sum) (i64.load (local.get $i))))
           (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 3997696))))
         (i64.store (i32.const 0) (local.get $sum)) (i64.const 8)",
    );
    for _ in 0..20 {
        assert!(matches!(step(&writer, b""), Outcome::Trapped { .. }));
        assert_eq!(output(&reader, b""), [0; 8]);
    }
}

#[test]
fn eight_threads_agree() {
    let busy = busy();
    let inputs: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 100 + usize::from(n)]).collect();
    let alone: Vec<_> = inputs.iter().map(|input| step(&busy, input)).collect();
    thread::scope(|scope| {
        for shift in 0..8 {
            let (busy, inputs, alone) = (&busy, &inputs, &alone);
            scope.spawn(move || {
                for round in 0..100 {
                    let at = (shift + round) % inputs.len();
                    assert_eq!(step(busy, &inputs[at]), alone[at]);
                }
            });
        }
    });
}

#[test]
fn who_finds_no_place_waits_and_is_served() {
    let slow = module(
        "(local $i i32) (loop $next (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000)))) (i64.const 8)",
    );
    let alone = step(&slow, b"");
    thread::scope(|scope| {
        for _ in 0..3 * agentd_wasm::SLOTS {
            scope.spawn(|| assert_eq!(step(&slow, b""), alone));
        }
    });
}

#[test]
fn a_nan_has_one_pattern() {
    // By 0/0, by inf-inf, by the root of a negative number, and from a NaN with a payload; each in f64 and f32 and as a vector.
    let nans = module(
        "(local $zero f64) (local $small f32)
         (f64.store (i32.const 0) (f64.div (local.get $zero) (local.get $zero)))
         (f64.store (i32.const 8) (f64.sub (f64.const inf) (f64.add (local.get $zero) (f64.const inf))))
         (f64.store (i32.const 16) (f64.sqrt (f64.sub (local.get $zero) (f64.const 1))))
         (f64.store (i32.const 24) (f64.add (f64.const nan:0x123) (local.get $zero)))
         (v128.store (i32.const 32) (f64x2.div (f64x2.splat (local.get $zero)) (f64x2.splat (local.get $zero))))
         (f64.store (i32.const 48) (f64.neg (f64.neg (f64.nearest (f64.div (local.get $zero) (local.get $zero))))))
         (f32.store (i32.const 56) (f32.div (local.get $small) (local.get $small)))
         (f32.store (i32.const 60) (f32.demote_f64 (f64.sqrt (f64.const -1))))
         (v128.store (i32.const 64) (f32x4.min (f32x4.splat (f32.const -nan:0x7)) (f32x4.splat (local.get $small))))
         (i64.const 80)",
    );
    let bytes = output(&nans, b"");
    for double in bytes[..56].chunks(8) {
        assert_eq!(u64::from_le_bytes(double.try_into().unwrap()), 0x7ff8_0000_0000_0000);
    }
    for float in bytes[56..].chunks(4) {
        assert_eq!(u32::from_le_bytes(float.try_into().unwrap()), 0x7fc0_0000);
    }
}

#[test]
fn vectors_round_and_saturate_as_the_specification_says() {
    let vectors = module(
        "(v128.store (i32.const 0) (f32x4.nearest (v128.const f32x4 0.5 1.5 -2.5 4.7)))
         (v128.store (i32.const 16) (i32x4.trunc_sat_f32x4_s (v128.const f32x4 nan 1e30 -1e30 -1.9)))
         (v128.store (i32.const 32) (i8x16.swizzle (v128.const i8x16 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
                                                   (v128.const i8x16 15 16 255 0 1 1 1 1 1 1 1 1 1 1 1 1)))
         (v128.store (i32.const 48) (i16x8.q15mulr_sat_s (v128.const i16x8 -32768 1 2 3 4 5 6 7)
                                                         (v128.const i16x8 -32768 1 2 3 4 5 6 7)))
         (v128.store (i32.const 64) (i8x16.popcnt (v128.const i8x16 255 1 3 7 0 0 0 0 0 0 0 0 0 0 0 128)))
         (i64.const 80)",
    );
    let bytes = output(&vectors, b"");
    let floats: Vec<f32> = bytes[..16].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(floats, [0.0, 2.0, -2.0, 5.0]);
    let whole: Vec<i32> = bytes[16..32].chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(whole, [0, i32::MAX, i32::MIN, -1]);
    assert_eq!(bytes[32..48], [15, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(bytes[48..50], i16::MAX.to_le_bytes());
    assert_eq!(bytes[64..80], [8, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn what_a_step_comes_to_is_written_down() {
    // The same on every processor. A change here changes every journal's replay and needs a reason.
    const HASH: &str = "422b702d09ca3c40445ea55a06ddf34ad9ae2b721e0251b9e49b54d516974553";
    let limits = Limits::default();
    let busy = busy().step(&[3; 512], limits).unwrap();
    let Outcome::Done { fuel, output } = busy else { panic!() };
    assert_eq!((fuel, blake3::hash(&output).to_hex().as_str()), (39_980, HASH));
    assert!(matches!(module(&answer(0)).step(b"", limits).unwrap(), Outcome::Done { fuel: 4, .. }));
}
