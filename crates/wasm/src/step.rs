//! One step, from an input to an outcome.
//!
//! ```text
//! wait for a slot → instance → alloc → copy in → step → look at the fuel → copy out → instance dropped → slot given back
//! ```
//!
//! Everything that can end it early is one `wasmtime::Error` on its way up, and is told apart at one place, [`ended`], by what
//! the [`Watch`] has seen: first what it refused, then what wasmtime calls a trap, and what is left is the host's fault.

use wasmtime::{Extern, Func, Instance, Memory, ResourceLimiter, Store};

use crate::limits::Limits;
use crate::module::Module;
use crate::outcome::{HostError, Outcome, Trap};
use crate::settings::TABLE_ELEMENTS;

impl Module {
    /// Runs one step in an instance of its own.
    ///
    /// Waits while [`SLOTS`](crate::SLOTS) other steps run. The input is copied once, and so is the output.
    ///
    /// # Errors
    ///
    /// Only what this host could not do now. It is not an outcome: try again, or stop the world, but record nothing.
    pub fn step(&self, input: &[u8], limits: Limits) -> Result<Outcome, HostError> {
        let Ok(length) = u32::try_from(input.len()) else { return Ok(Outcome::OutOfMemory) };
        if u64::from(length).max(self.minimum_bytes) > limits.memory_bytes() {
            return Ok(Outcome::OutOfMemory);
        }
        // The store goes before the slot does, so whoever gets the slot finds a free place in the pool.
        let _slot = self.engine.slots.take();
        let mut store = Store::try_new(&self.engine.wasmtime, Watch::new(limits))
            .map_err(|source| HostError::Instance { source: source.into() })?;
        store.limiter(|watch| watch);
        let instance = match self.begin(&mut store, limits) {
            Ok(instance) => instance,
            Err(source) => return not_begun(source),
        };
        match call(&mut store, &instance, input, length, limits) {
            Ok(outcome) => Ok(outcome),
            Err(source) => ended(&store, &instance, source),
        }
    }

    fn begin(&self, store: &mut Store<Watch>, limits: Limits) -> wasmtime::Result<Running> {
        store.set_fuel(limits.fuel())?;
        let instance = self.instance.instantiate(&mut *store)?;
        Running::find(self, store, &instance).ok_or_else(|| wasmtime::Error::msg("a checked export is not there"))
    }
}

/// An instance's exports.
struct Running {
    memory: Memory,
    alloc: Func,
    step: Func,
}

impl Running {
    fn find(module: &Module, store: &mut Store<Watch>, instance: &Instance) -> Option<Self> {
        let exports = &module.exports;
        let memory = instance.get_module_export(&mut *store, &exports.memory).and_then(Extern::into_memory)?;
        let alloc = instance.get_module_export(&mut *store, &exports.alloc).and_then(Extern::into_func)?;
        let step = instance.get_module_export(&mut *store, &exports.step).and_then(Extern::into_func)?;
        Some(Self { memory, alloc, step })
    }
}

/// The two calls and what is between them.
fn call(
    store: &mut Store<Watch>,
    running: &Running,
    input: &[u8],
    length: u32,
    limits: Limits,
) -> wasmtime::Result<Outcome> {
    let at = running.alloc.typed::<u32, u32>(&*store)?.call(&mut *store, length)?;
    let Some(place) =
        running.memory.data_mut(&mut *store).get_mut(at as usize..).and_then(|m| m.get_mut(..input.len()))
    else {
        return Ok(Outcome::BadPointer);
    };
    place.copy_from_slice(input);

    let answer = running.step.typed::<(u32, u32), u64>(&*store)?.call(&mut *store, (at, length))?;
    // Fuel is looked at where functions and loops begin, so the last instructions may have used more than there was.
    let left = store.get_fuel()?;
    if left == 0 {
        return Ok(Outcome::OutOfFuel);
    }
    let (at, bytes) = ((answer >> 32) as usize, answer as u32);
    let Some(output) = running.memory.data(&*store).get(at..).and_then(|m| m.get(..bytes as usize)) else {
        return Ok(Outcome::BadPointer);
    };
    if bytes > limits.output_bytes() {
        return Ok(Outcome::OutputTooLong { bytes });
    }
    Ok(Outcome::Done { output: output.to_vec(), fuel: limits.fuel() - left })
}

/// Tells what kept an instance from coming to be. The only fault of a module here is data that its memory has no room for.
fn not_begun(source: wasmtime::Error) -> Result<Outcome, HostError> {
    match source.downcast_ref().copied().and_then(Trap::named) {
        Some(why) => Ok(Outcome::Trapped { why }),
        None => Err(HostError::Instance { source: source.into() }),
    }
}

/// Tells a reducer's end from the host's failure.
fn ended(store: &Store<Watch>, running: &Running, source: wasmtime::Error) -> Result<Outcome, HostError> {
    let watch = store.data();
    if watch.refused {
        return Ok(Outcome::OutOfMemory);
    }
    if watch.failed {
        // wasmtime asks before it grows, except beyond 4 GiB, which it refuses by itself. So either the growth that was
        // granted last has not come about, which is the host's fault, or it has, and this is another one, far too large.
        if running.memory.data_size(store) < watch.granted_bytes {
            return Err(HostError::Memory { source: source.into() });
        }
        return Ok(Outcome::OutOfMemory);
    }
    match source.downcast_ref().copied() {
        Some(wasmtime::Trap::OutOfFuel) => Ok(Outcome::OutOfFuel),
        Some(trap) if let Some(why) = Trap::named(trap) => Ok(Outcome::Trapped { why }),
        _ => Err(HostError::Unknown { source: source.into() }),
    }
}

/// Watches over what a step takes, and remembers what it was refused.
///
/// A refusal ends the step. To answer -1 would be WASM's way, but then what the reducer does about it would be in the
/// record, and that it had come to its limit would not.
pub(crate) struct Watch {
    memory_bytes: usize,
    granted_bytes: usize,
    refused: bool,
    failed: bool,
}

impl Watch {
    fn new(limits: Limits) -> Self {
        let memory_bytes = usize::try_from(limits.memory_bytes()).unwrap_or(usize::MAX);
        Self { memory_bytes, granted_bytes: 0, refused: false, failed: false }
    }

    fn answer(&mut self, granted: bool) -> wasmtime::Result<bool> {
        if granted {
            return Ok(true);
        }
        self.refused = true;
        Err(wasmtime::Error::msg("beyond the limit of this step"))
    }
}

impl ResourceLimiter for Watch {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let granted = desired <= self.memory_bytes.min(maximum.unwrap_or(usize::MAX));
        if granted {
            self.granted_bytes = desired;
        }
        self.answer(granted)
    }

    fn memory_grow_failed(&mut self, source: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed = true;
        Err(source)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.answer(desired <= TABLE_ELEMENTS.min(maximum.unwrap_or(usize::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Error;

    use super::*;
    use crate::engine::Engine;
    use crate::settings::SLOTS;

    /// A module that answers nothing, and an engine of its own.
    fn least() -> Module {
        let text = r#"(module (memory (export "memory") 1)
            (func (export "alloc") (param i32) (result i32) (i32.const 0))
            (func (export "step") (param i32 i32) (result i64) (i64.const 0)))"#;
        Engine::new().unwrap().compile(&wat::parse_str(text).unwrap()).unwrap()
    }

    fn begun(module: &Module) -> (Store<Watch>, Running) {
        let mut store = Store::new(&module.engine.wasmtime, Watch::new(Limits::USUAL));
        store.limiter(|watch| watch);
        let running = module.begin(&mut store, Limits::USUAL).unwrap();
        (store, running)
    }

    #[test]
    fn a_growth_that_was_granted_and_failed_is_the_hosts_fault() {
        let (mut store, running) = begun(&least());
        store.data_mut().failed = true;
        let fails = |store: &Store<Watch>| ended(store, &running, Error::msg("no memory"));
        assert!(matches!(fails(&store), Ok(Outcome::OutOfMemory)));
        store.data_mut().granted_bytes = 1 << 20;
        assert!(matches!(fails(&store), Err(HostError::Memory { .. })));
    }

    #[test]
    fn an_end_without_a_name_is_never_an_outcome() {
        let (store, running) = begun(&least());
        for source in [Error::msg("?"), wasmtime::Trap::Interrupt.into(), wasmtime::Trap::HeapMisaligned.into()] {
            assert!(matches!(ended(&store, &running, source), Err(HostError::Unknown { .. })));
        }
    }

    #[test]
    fn a_pool_that_is_taken_is_never_an_outcome() {
        let module = least();
        let taken: Vec<_> = (0..SLOTS).map(|_| begun(&module)).collect();
        assert!(matches!(module.step(b"", Limits::USUAL), Err(HostError::Instance { .. })));
        drop(taken);
        assert!(matches!(module.step(b"", Limits::USUAL), Ok(Outcome::Done { .. })));
    }
}
