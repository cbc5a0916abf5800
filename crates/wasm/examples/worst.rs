//! How long does the fuel of one step last? The programs that get the most time out of it.
#![allow(clippy::print_stdout, reason = "a measuring program: its answer is what it prints")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
//!
//! ```text
//! worst [ROUNDS]      one JSON line a case: {"case":"plain","outcome":"OutOfFuel","ms":9.1}; the slowest of the rounds
//! ```
//!
//! Each program is a loop without end under [`Limits::USUAL`], so each stops when its fuel does. `plain` is what an honest
//! program costs. The others look for what is dear in time and cheap in fuel: divisions, roots, calls into the host, memory
//! that misses every cache, pages that nobody has touched.

use std::error::Error;
use std::time::Instant;

use agentd_wasm::{Engine, Limits};

/// Name, what is done once, what is done over and over.
const CASES: &[(&str, &str, &str)] = &[
    ("plain", "", "(local.set $x (i64.add (i64.mul (local.get $x) (i64.const 31)) (i64.const 7)))"),
    (
        "divide",
        "",
        "(local.set $x (i64.add (i64.div_u (i64.const -3) (i64.or (local.get $x) (i64.const 1))) (local.get $x)))",
    ),
    ("root", "", "(local.set $f (f64.sqrt (f64.sqrt (f64.sqrt (f64.add (local.get $f) (f64.const 1))))))"),
    (
        "vector-root",
        "",
        "(local.set $v (f64x2.div (f64x2.sqrt (f64x2.div (v128.const f64x2 1.1 1.3) (local.get $v))) (local.get $v)))",
    ),
    (
        "subnormal",
        TINY,
        "(local.set $f (f64.mul (f64.mul (f64.mul (f64.mul (local.get $f) (f64.const 0.999)) (f64.const 0.999)) (f64.const 0.999)) (f64.const 0.999)))",
    ),
    (
        "subnormal-vector",
        TINY,
        "(local.set $v (f64x2.mul (f64x2.mul (f64x2.mul (local.get $v) (local.get $w)) (local.get $w)) (local.get $w)))",
    ),
    (
        "subnormal-divide",
        TINY,
        "(local.set $f (f64.div (f64.div (f64.div (local.get $f) (f64.const 1.001)) (f64.const 1.001)) (f64.const 1.001)))",
    ),
    (
        "subnormal-root",
        TINY,
        "(drop (f64.sqrt (local.get $f))) (local.set $f (f64.div (local.get $f) (f64.const 1.001)))",
    ),
    ("round", "", "(local.set $v (f32x4.nearest (f32x4.floor (f32x4.ceil (f32x4.trunc (local.get $v))))))"),
    ("round-one", "", "(local.set $f (f64.nearest (f64.floor (f64.ceil (f64.trunc (local.get $f))))))"),
    ("multiply-vector", "", "(local.set $v (i64x2.mul (i64x2.mul (local.get $v) (local.get $v)) (local.get $v)))"),
    ("swizzle", "", "(local.set $v (i8x16.swizzle (i8x16.swizzle (local.get $v) (local.get $v)) (local.get $v)))"),
    ("shuffle", "", "(local.set $v (i8x16.shuffle 3 9 1 27 30 2 8 4 5 1 2 3 4 9 31 0 (local.get $v) (local.get $v)))"),
    ("popcnt", "", "(local.set $v (i8x16.popcnt (i8x16.popcnt (i8x16.popcnt (local.get $v)))))"),
    ("popcnt-one", "", "(local.set $x (i64.popcnt (i64.clz (i64.ctz (i64.popcnt (local.get $x))))))"),
    (
        "convert",
        "",
        "(local.set $f (f64.convert_i64_u (i64.trunc_sat_f64_u (f64.convert_i64_u (i64.trunc_sat_f64_u (local.get $f))))))",
    ),
    (
        "convert-vector",
        "",
        "(local.set $v (f32x4.convert_i32x4_u (i32x4.trunc_sat_f32x4_u (f32x4.convert_i32x4_u (i32x4.trunc_sat_f32x4_u (local.get $v))))))",
    ),
    (
        "shift-vector",
        "",
        "(local.set $v (i8x16.shr_s (i64x2.shr_s (local.get $v) (i32.wrap_i64 (local.get $x))) (i32.wrap_i64 (local.get $x))))",
    ),
    ("call", "", "(drop (call $leaf))"),
    ("call-indirect", "", "(drop (call_indirect $t (result i32) (i32.const 0)))"),
    ("grow-0", "", "(drop (memory.grow (i32.const 0)))"),
    ("table-grow-0", "", "(drop (table.grow $t (ref.null func) (i32.const 0)))"),
    (
        "table-set",
        "",
        "(table.set $t (i32.const 1) (ref.func $leaf)) (table.set $t (i32.const 1) (table.get $t (i32.const 0)))",
    ),
    ("table-fill-0", "", "(table.fill $t (i32.const 0) (ref.null func) (local.get $zero))"),
    ("table-copy-0", "", "(table.copy $t $t (i32.const 0) (i32.const 0) (local.get $zero))"),
    ("fill-0", "", "(memory.fill (i32.const 8) (i32.const 0) (local.get $zero))"),
    ("copy-0", "", "(memory.copy (i32.const 8192) (i32.const 8) (local.get $zero))"),
    ("copy-1", "", "(memory.copy (i32.const 4096) (i32.const 8190) (i32.add (local.get $zero) (i32.const 3)))"),
    ("init-0", "", "(memory.init $d (i32.const 8) (i32.const 0) (local.get $zero))"),
    ("fill-all", "", "(memory.fill (i32.const 0) (i32.const 1) (i32.shl (memory.size) (i32.const 16)))"),
    (
        "touch",
        "",
        "(local.set $x (i64.add (local.get $x) (i64.const 4096))) (i64.store (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 0xfffff8)) (local.get $x))",
    ),
    (
        "chase",
        CHAIN,
        "(local.set $p (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (local.get $p))))))))))",
    ),
];

/// Numbers so small that a processor may need its microcode for them.
const TINY: &str = "(local.set $f (f64.const 0x1p-1030)) (local.set $v (f64x2.splat (local.get $f))) (local.set $w (f64x2.splat (f64.const 0.999)))";

/// Links the 64-byte lines of the memory to one ring whose order no prefetcher guesses: a full-period congruence.
const CHAIN: &str = "(loop $link
    (i32.store (i32.shl (local.get $at) (i32.const 6))
      (i32.shl (local.tee $at (i32.and (i32.add (i32.mul (local.get $at) (i32.const 165957)) (i32.const 13)) (i32.const 0x3ffff))) (i32.const 6)))
    (br_if $link (local.get $at)))";

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(3), |given| given.parse())?;
    let engine = Engine::new()?;
    for &(case, before, body) in CASES {
        let module = engine.compile(&wat::parse_str(program(before, body))?)?;
        let mut slowest = 0.0_f64;
        let mut outcome = String::new();
        for _ in 0..rounds {
            let begin = Instant::now();
            outcome = format!("{:?}", module.step(b"", Limits::USUAL)?);
            slowest = slowest.max(begin.elapsed().as_secs_f64() * 1e3);
        }
        println!("{}", serde_json::json!({ "case": case, "outcome": outcome, "ms": (slowest * 10.0).round() / 10.0 }));
    }
    Ok(())
}

fn program(before: &str, body: &str) -> String {
    // Sixteen copies, so that the loop itself is not what is measured.
    let copies = body.repeat(16);
    format!(
        "(module (memory (export \"memory\") 256) (table $t 2 funcref) (elem (i32.const 0) $leaf) (func $leaf (result i32) (i32.const 0)) (data $d \"d\")
           (func (export \"alloc\") (param i32) (result i32) (i32.const 0))
           (func (export \"step\") (param $ptr i32) (param $zero i32) (result i64)
             (local $x i64) (local $y i64) (local $f f64) (local $v v128) (local $w v128) (local $p i32) (local $at i32)
             {before}
             (loop $again {copies} (br $again)) (unreachable)))"
    )
}
