//! The engine: made once, shared by all worlds.
//!
//! It holds the pool of instances and the compiler. Two engines in one process work, but each of them keeps address space
//! for [`SLOTS`] memories.

use std::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::limits::Limits;
use crate::settings::{self, SLOTS, STACK_BYTES};
use crate::slots::Slots;

/// Compiles modules and has the places where they run. A clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) slots: Arc<Slots>,
    fingerprint: [u8; 32],
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// This processor, or what the process may have of address space, is not enough.
    #[error("cannot set up an engine for reducers on this host")]
    Unavailable {
        /// What wasmtime says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Engine {
    /// Sets up the compiler and the pool.
    pub fn new() -> Result<Self, EngineError> {
        let unavailable = |source: wasmtime::Error| EngineError::Unavailable { source: source.into() };
        let memory_bytes = usize::try_from(Limits::MAX.memory_bytes()).map_err(|e| unavailable(e.into()))?;
        let wasmtime =
            settings::config(memory_bytes).and_then(|config| wasmtime::Engine::new(&config)).map_err(unavailable)?;
        // Whether this host can run what the compiler makes is only looked at with the first module.
        wasmtime::Module::new(&wasmtime, b"\0asm\x01\0\0\0").map_err(unavailable)?;
        let fingerprint = fingerprint(&wasmtime);
        Ok(Self { wasmtime, slots: Arc::new(Slots::new(SLOTS)), fingerprint })
    }

    /// Names what compiled code depends on: wasmtime's version, its configuration, the architecture.
    ///
    /// Engines with one fingerprint make the same code of the same module and count the same fuel.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("slots", &self.slots).finish_non_exhaustive()
    }
}

fn fingerprint(engine: &wasmtime::Engine) -> [u8; 32] {
    let mut digest = Digest(blake3::Hasher::new_derive_key("agentd 2026-11 wasm engine fingerprint"));
    engine.precompile_compatibility_hash().hash(&mut digest);
    STACK_BYTES.hash(&mut digest);
    *digest.0.finalize().as_bytes()
}

/// Takes what a [`Hash`] writes, all of it; a `u64` of it would be no name.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the digest is read as a whole")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_the_settings_and_not_of_the_engine() {
        let (one, other) = (Engine::new().unwrap(), Engine::new().unwrap());
        assert_eq!(one.fingerprint(), other.fingerprint());

        let mut config = settings::config(1 << 20).unwrap();
        config.cranelift_nan_canonicalization(false);
        let different = wasmtime::Engine::new(&config).unwrap();
        assert_ne!(*one.fingerprint(), fingerprint(&different));
    }
}
