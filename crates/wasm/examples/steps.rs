//! How many steps fit into a second, beside the same module called with nothing but wasmtime.
#![allow(clippy::print_stdout, reason = "a measuring program: its answer is what it prints")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
//!
//! ```text
//! steps [ROUNDS] [STEPS]      one JSON line a round: {"case":"pooled-512","round":0,"ours":150000,"bare":160000,"ratio":0.94}
//! ```
//!
//! Both sides have the same settings, the same module (FNV-1a over the event, written eight times), the same event of 512
//! bytes and 64 bytes of output. They take turns, and who begins alternates, so that a slow moment of the machine hits both.
//!
//! The bare side is the least that a host must do: a store with fuel, `InstancePre::instantiate`, exports by index, the input
//! copied to a fixed place, one typed call, the output copied out. It has no limit on memory or output, does not ask the
//! module for a place, does not wait for a slot and tells nothing apart.

use std::error::Error;
use std::time::Instant;

use agentd_wasm::{Engine, Limits, Module, Outcome};
use wasmtime::{Extern, InstancePre, Linker, ModuleExport, Store};

#[allow(dead_code, unreachable_pub, reason = "the very settings of the crate, which are nobody else's")]
#[path = "../src/settings.rs"]
mod settings;

type Failure = Box<dyn Error + Send + Sync>;

const EVENT: [u8; 512] = [0x5a; 512];

const MODULE: &str = r#"(module
    (memory (export "memory") 16)
    (func (export "alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "step") (param $ptr i32) (param $len i32) (result i64)
        (local $hash i64) (local $end i32)
        (local.set $hash (i64.const 0xcbf29ce484222325))
        (local.set $end (i32.add (local.get $ptr) (local.get $len)))
        (loop $next
            (local.set $hash (i64.mul (i64.xor (local.get $hash) (i64.load8_u (local.get $ptr))) (i64.const 0x100000001b3)))
            (br_if $next (i32.lt_u (local.tee $ptr (i32.add (local.get $ptr) (i32.const 1))) (local.get $end))))
        (local.set $end (i32.const 64))
        (loop $next
            (i64.store (local.tee $end (i32.sub (local.get $end) (i32.const 8))) (local.get $hash))
            (br_if $next (local.get $end)))
        (i64.const 64)))"#;

fn main() -> Result<(), Failure> {
    let number = |at: usize, usual: u32| std::env::args().nth(at).map_or(Ok(usual), |given| given.parse());
    let (rounds, steps) = (number(1, 10)?, number(2, 20_000)?);
    let wasm = wat::parse_str(MODULE)?;
    let ours = Engine::new()?.compile(&wasm)?;
    let bare = Bare::new(&wasm)?;
    assert_eq!(ours_once(&ours)?, bare.once()?, "both sides must do the same work");

    for round in 0..rounds {
        let time_ours = || rate(steps, || ours_once(&ours));
        let time_bare = || rate(steps, || bare.once());
        let (ours, bare) = match round % 2 {
            0 => (time_ours()?, time_bare()?),
            _ => {
                let bare = time_bare()?;
                (time_ours()?, bare)
            }
        };
        let ratio = (100.0 * ours / bare).round() / 100.0;
        let line = serde_json::json!({
            "case": "pooled-512", "round": round, "ours": ours.round(), "bare": bare.round(), "ratio": ratio,
        });
        println!("{line}");
    }
    Ok(())
}

/// Steps for each second.
fn rate(steps: u32, mut once: impl FnMut() -> Result<Vec<u8>, Failure>) -> Result<f64, Failure> {
    let begin = Instant::now();
    for _ in 0..steps {
        std::hint::black_box(once()?);
    }
    Ok(f64::from(steps) / begin.elapsed().as_secs_f64())
}

fn ours_once(module: &Module) -> Result<Vec<u8>, Failure> {
    match module.step(&EVENT, Limits::default())? {
        Outcome::Done { output, .. } => Ok(output),
        other => Err(format!("{other:?}").into()),
    }
}

/// The same module, without this crate.
struct Bare {
    engine: wasmtime::Engine,
    instance: InstancePre<()>,
    memory: ModuleExport,
    step: ModuleExport,
}

impl Bare {
    fn new(wasm: &[u8]) -> Result<Self, Failure> {
        let engine = wasmtime::Engine::new(&settings::config(64 << 20)?)?;
        let module = wasmtime::Module::new(&engine, wasm)?;
        let export = |name| module.get_export_index(name).ok_or("an export is not there");
        let (memory, step) = (export("memory")?, export("step")?);
        let instance = Linker::new(&engine).instantiate_pre(&module)?;
        Ok(Self { engine, instance, memory, step })
    }

    fn once(&self) -> Result<Vec<u8>, Failure> {
        let mut store = Store::new(&self.engine, ());
        store.set_fuel(u64::MAX)?;
        let instance = self.instance.instantiate(&mut store)?;
        let memory =
            instance.get_module_export(&mut store, &self.memory).and_then(Extern::into_memory).ok_or("memory")?;
        let step = instance.get_module_export(&mut store, &self.step).and_then(Extern::into_func).ok_or("step")?;
        memory.write(&mut store, 1024, &EVENT)?;
        let answer = step.typed::<(u32, u32), u64>(&store)?.call(&mut store, (1024, 512))?;
        let mut output = vec![0; answer as u32 as usize];
        memory.read(&store, (answer >> 32) as usize, &mut output)?;
        Ok(output)
    }
}
