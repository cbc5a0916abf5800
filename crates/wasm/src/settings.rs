//! The one configuration of wasmtime.
//!
//! Closed by default: all proposals are turned off, and those that a Rust compiler uses for `wasm32-unknown-unknown` are turned
//! on by name, so a new version of wasmtime brings nothing with it. Of these none may differ from host to host.
//!
//! The pool keeps address space for all its slots from the beginning, most of it never touched:
//! [`SLOTS`] × (4 GiB + guards). With 4 GiB each, an address of 32 bits cannot leave its slot, and no access needs a check.

use wasmtime::{
    Config, InstanceAllocationStrategy, OperatorCost, OptLevel, PoolingAllocationConfig, Strategy, WasmFeatures,
};

/// Steps that run at the same time; the next one waits.
pub const SLOTS: u32 = 64;

/// What a module may use of the calling thread's stack.
pub const STACK_BYTES: usize = 512 << 10;

/// Elements of a table: functions that are called through pointers.
pub const TABLE_ELEMENTS: usize = 16 << 10;

/// The first part of a memory, which is cleared by hand after a step; the rest is given back to the kernel.
///
/// A step that touches no more than this makes no page fault: 176,000 steps a second instead of 73,000. A reducer that is
/// linked with `-zstack-size=65536` has its stack and its data in it; with the linker's 1 MiB of stack it has neither.
///
/// `pagemap_scan` would clear what was touched wherever it is, and stays off: it looks for pages that are present, so what
/// the kernel has swapped out meanwhile would be left for the next step to find.
const RESIDENT_BYTES: usize = 128 << 10;

/// What the Rust compiler uses, and nothing else.
const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::SIMD);

/// The configuration; `memory_bytes` is what a memory may grow to at most.
pub(crate) fn config(memory_bytes: usize) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config.wasm_features(WasmFeatures::all(), false).wasm_features(FEATURES, true);

    // Named, so that nothing is inferred from the processor at hand.
    config.target(&target())?;
    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed);
    config.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
    config.consume_fuel(true).operator_cost(costs());
    config.max_wasm_stack(STACK_BYTES);

    // Nobody reads a backtrace here, and an error that carries none is cheap.
    config.wasm_backtrace_max_frames(None).native_unwind_info(false).generate_address_map(false);

    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(memory_bytes)));
    config.memory_reservation(4 << 30).memory_may_move(false).memory_init_cow(true);
    Ok(config)
}

fn pool(memory_bytes: usize) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(SLOTS).total_memories(SLOTS).total_tables(SLOTS);
    pool.max_memories_per_module(1).max_tables_per_module(1);
    pool.max_memory_size(memory_bytes).table_elements(TABLE_ELEMENTS);
    pool.linear_memory_keep_resident(RESIDENT_BYTES).table_keep_resident(TABLE_ELEMENTS * size_of::<usize>());
    pool
}

/// What an instruction costs: 1, and 1 for each byte or element that it covers; more where it may take far longer than others.
///
/// Fuel is what bounds a step's time, so no instruction may be much cheaper in fuel than in time. The numbers come from
/// `examples/worst.rs`; before them, 20 million units lasted 4 ms for an honest program and 2 s for a hostile one. A change
/// here changes the outcomes of steps at their limit, so it needs a new version of everything that replays.
#[rustfmt::skip]
fn costs() -> OperatorCost {
    let mut costs = OperatorCost::new();
    let c = &mut costs;
    // Loads one after the other, each of which needs the one before, can each miss all caches.
    for load in [
        &mut c.I32Load, &mut c.I64Load, &mut c.F32Load, &mut c.F64Load, &mut c.I32Load8S, &mut c.I32Load8U,
        &mut c.I32Load16S, &mut c.I32Load16U, &mut c.I64Load8S, &mut c.I64Load8U, &mut c.I64Load16S,
        &mut c.I64Load16U, &mut c.I64Load32S, &mut c.I64Load32U, &mut c.V128Load, &mut c.V128Load8x8S,
        &mut c.V128Load8x8U, &mut c.V128Load16x4S, &mut c.V128Load16x4U, &mut c.V128Load32x2S, &mut c.V128Load32x2U,
        &mut c.V128Load8Splat, &mut c.V128Load16Splat, &mut c.V128Load32Splat, &mut c.V128Load64Splat,
        &mut c.V128Load32Zero, &mut c.V128Load64Zero, &mut c.V128Load8Lane, &mut c.V128Load16Lane,
        &mut c.V128Load32Lane, &mut c.V128Load64Lane,
    ] {
        *load = 3;
    }
    // Calls into the host, whatever the length: a fill of nothing takes 100 ns.
    for call in [
        &mut c.MemoryFill, &mut c.MemoryCopy, &mut c.MemoryInit, &mut c.TableFill, &mut c.TableCopy, &mut c.TableInit,
        &mut c.F32x4Ceil, &mut c.F32x4Floor, &mut c.F32x4Trunc, &mut c.F32x4Nearest,
    ] {
        *call = 32;
    }
    // On a processor of which nothing but the architecture is known, these are calls as well, or many instructions.
    for call in [
        &mut c.F64x2Ceil, &mut c.F64x2Floor, &mut c.F64x2Trunc, &mut c.F64x2Nearest, &mut c.I8x16Swizzle,
        &mut c.I8x16Shuffle, &mut c.TableGet, &mut c.TableSet, &mut c.RefFunc,
    ] {
        *call = 12;
    }
    // And these go to the kernel. A page costs what clearing it does.
    for growth in [&mut c.MemoryGrow, &mut c.TableGrow, &mut c.variable.memory_grow_per_page] {
        *growth = 255;
    }
    costs
}

fn target() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{}-unknown-linux-{libc}", std::env::consts::ARCH)
}
