//! Compiled code that was kept, and how we know that it is ours.
#![allow(unsafe_code, reason = "wasmtime takes back its own code only by an unsafe call")]
//!
//! Compiling takes a thousand times as long as a step, so a daemon keeps what it compiled. What is kept is machine code that
//! will run inside the daemon: whoever can change it has the daemon. It therefore lies in a directory that only root can
//! write to, and carries a MAC under a key ([`CacheKey`]) that only root can read:
//!
//! ```text
//! kept = mac(32) ‖ code            mac = BLAKE3 keyed (fingerprint of the engine ‖ hash of the module ‖ code)
//! ```
//!
//! Fingerprint and hash are not kept but given by who asks. So code of another module, of another version of wasmtime, from
//! another host, cut short or with a bit turned over is never handed to wasmtime: the module is compiled again.
//!
//! JUSTIFICATION: there is no safe way to load compiled code, since wasmtime cannot check what machine code does. The
//! alternative is to compile every module at every start of the daemon.

use std::error::Error;
use std::fmt;

use crate::engine::Engine;
use crate::module::Module;

const MAC_BYTES: usize = 32;

/// The secret under which compiled code is kept.
///
/// Made from 32 random bytes that nobody but the daemon can read, and that are used for nothing else: whoever knows them
/// can have any code run in the daemon.
#[derive(Clone)]
pub struct CacheKey([u8; 32]);

/// Why compiled code was not kept, or not taken back. The remedy for each one is to compile the module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It is not what this engine made of this module under this key.
    #[error("this is not the code that was kept for the module")]
    NotOurs,
    /// wasmtime could not write it out.
    #[error("cannot keep the code of a module")]
    Keep {
        /// What wasmtime says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is ours, but could not be loaded.
    #[error("cannot load the code of a module")]
    Load {
        /// What wasmtime says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl CacheKey {
    /// Takes the secret.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(blake3::derive_key("agentd 2026-11 wasm compiled code", &secret))
    }

    fn mac(&self, engine: &Engine, hash: &[u8; 32], code: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.0).update(engine.fingerprint()).update(hash).update(code).finalize()
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(…)")
    }
}

impl Module {
    /// Writes the compiled code out, to be kept under the module's hash and the engine's fingerprint.
    pub fn to_cache(&self, key: &CacheKey) -> Result<Vec<u8>, CacheError> {
        let code = self.instance.module().serialize().map_err(|source| CacheError::Keep { source: source.into() })?;
        let mac = key.mac(&self.engine, self.hash(), &code);
        Ok([mac.as_bytes().as_slice(), &code].concat())
    }
}

impl Engine {
    /// Takes back what [`Module::to_cache`] wrote for the module with this hash.
    ///
    /// The caller vouches for the key, not for the bytes.
    pub fn from_cache(&self, key: &CacheKey, hash: &[u8; 32], kept: &[u8]) -> Result<Module, CacheError> {
        let (mac, code) = kept.split_first_chunk::<MAC_BYTES>().ok_or(CacheError::NotOurs)?;
        if key.mac(self, hash, code) != *mac {
            return Err(CacheError::NotOurs);
        }
        let load = |source: Box<dyn Error + Send + Sync>| CacheError::Load { source };
        // SAFETY: the bytes must be what `Module::serialize` gave. The MAC covers all of them and only `to_cache` makes one,
        // of just such bytes, under a key that nobody else has. The call copies them, so they cannot change afterwards.
        let module = unsafe { wasmtime::Module::deserialize(&self.wasmtime, code) }.map_err(|e| load(e.into()))?;
        self.admit(&module, *hash).map_err(|e| load(e.into()))
    }
}
