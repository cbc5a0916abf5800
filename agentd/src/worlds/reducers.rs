//! Reducers as worlds run them: WASM by its hash, compiled once.
//!
//! A module is compiled when it is proposed, where it may take its time and be refused; what was compiled is kept on disk, so
//! that a start of the daemon compiles nothing. Between two events it is only looked up.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agentd_air::Hash as Content;
use agentd_engine::{HostFailure, Ran, Reducers, Request};
use agentd_model::Hash;
use agentd_wasm::{CacheKey, Engine, EngineError, Limits, Module, ModuleError, Outcome};

use crate::journal::Reader;

/// All modules of all worlds.
pub struct Modules {
    engine: Engine,
    /// What was compiled and where it is kept; nothing is kept where this is not given.
    kept: Option<(PathBuf, CacheKey)>,
    known: Mutex<HashMap<Content, Arc<Module>>>,
}

/// The WASM of a hash, as it is commonly said: BLAKE3 of the file, as `b3sum` prints it.
pub fn hash_of(bytes: &[u8]) -> Content {
    Content(*blake3::hash(bytes).as_bytes())
}

impl Modules {
    /// Modules that are compiled for this process only.
    pub fn new() -> Result<Modules, EngineError> {
        Ok(Modules { engine: Engine::new()?, kept: None, known: Mutex::default() })
    }

    /// Modules that are kept in a directory that only root may enter, under a secret that lies there too.
    pub fn kept_in(directory: &Path) -> Result<Modules, EngineError> {
        let mut modules = Modules::new()?;
        match secret(directory) {
            Ok(secret) => modules.kept = Some((directory.to_owned(), CacheKey::new(secret))),
            Err(error) => tracing::warn!(%error, "compiled modules are not kept"),
        }
        Ok(modules)
    }

    /// Compiles a module, or finds it compiled.
    pub fn compile(&self, wasm: &[u8]) -> Result<Content, ModuleError> {
        let hash = hash_of(wasm);
        if self.get(&hash).is_none() {
            let module = match self.load(&hash) {
                Some(module) => module,
                None => {
                    let module = self.engine.compile(wasm)?;
                    self.keep(&hash, &module);
                    module
                }
            };
            self.lock().insert(hash, Arc::new(module));
        }
        Ok(hash)
    }

    fn get(&self, hash: &Content) -> Option<Arc<Module>> {
        self.lock().get(hash).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Content, Arc<Module>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, hash: &Content) -> Option<(PathBuf, &CacheKey)> {
        let (directory, key) = self.kept.as_ref()?;
        Some((directory.join(format!("{hash}.code")), key))
    }

    fn load(&self, hash: &Content) -> Option<Module> {
        let (path, key) = self.file(hash)?;
        let kept = fs::read(path).ok()?;
        // Of another version, damaged, somebody else's: compiled again.
        self.engine.from_cache(key, &hash.0, &kept).ok()
    }

    fn keep(&self, hash: &Content, module: &Module) {
        let Some((path, key)) = self.file(hash) else { return };
        let new = path.with_extension("new");
        let written = module.to_cache(key).map_err(io::Error::other).and_then(|bytes| fs::write(&new, bytes));
        if let Err(error) = written.and_then(|()| fs::rename(&new, &path)) {
            tracing::warn!(%error, module = %hash, "a compiled module is not kept");
        }
    }

    /// Runs a step of a module that is known.
    pub fn step(&self, module: &Module, request: &Request<'_>) -> Result<Ran, HostFailure> {
        let agentd_air::Limits { fuel, memory, output } = request.limits;
        let limits = Limits::new(fuel, memory, output).map_err(|error| HostFailure(error.to_string()))?;
        match module.step(request.input, limits).map_err(|error| HostFailure(error.to_string()))? {
            Outcome::Done { output, fuel } => Ok(Ran::Done { output, fuel }),
            Outcome::Trapped { why } => Ok(Ran::Trapped(why.to_string())),
            Outcome::OutOfFuel => Ok(Ran::Limited(format!("fuel {fuel}"))),
            Outcome::OutOfMemory => Ok(Ran::Limited(format!("memory {memory}"))),
            Outcome::OutputTooLong { bytes } => Ok(Ran::Limited(format!("output {output}: it has {bytes} bytes"))),
            Outcome::BadPointer => Ok(Ran::Trapped("what it returns lies outside its memory".into())),
        }
    }
}

/// The secret of a directory, made when it is first asked for.
fn secret(directory: &Path) -> io::Result<[u8; 32]> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join("secret");
    if let Ok(bytes) = fs::read(&path)
        && let Ok(secret) = <[u8; 32]>::try_from(bytes)
    {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?.write_all(&secret)?;
    Ok(secret)
}

/// Where the WASM of a world is.
pub enum Blobs {
    /// In its journal.
    Journal(PathBuf),
    /// At hand.
    Memory(HashMap<Content, Vec<u8>>),
}

/// The reducers of one world.
pub struct WorldReducers {
    modules: Arc<Modules>,
    blobs: Blobs,
}

impl WorldReducers {
    /// Reducers whose WASM is where `blobs` says.
    pub fn new(modules: Arc<Modules>, blobs: Blobs) -> WorldReducers {
        WorldReducers { modules, blobs }
    }

    fn module(&self, hash: &Content) -> Result<Arc<Module>, HostFailure> {
        if let Some(module) = self.modules.get(hash) {
            return Ok(module);
        }
        let failure = |what: String| HostFailure(format!("module {hash}: {what}"));
        let wasm = match &self.blobs {
            Blobs::Journal(path) => Reader::open(path)
                .and_then(|reader| reader.blob(Hash(hash.0)))
                .map_err(|error| failure(crate::errors::one_line(&error)))?,
            Blobs::Memory(blobs) => blobs.get(hash).cloned(),
        };
        let wasm = wasm.ok_or_else(|| failure("its WASM is not there".into()))?;
        if hash_of(&wasm) != *hash {
            return Err(failure("its WASM is not what was defined".into()));
        }
        self.modules.compile(&wasm).map_err(|error| failure(error.to_string()))?;
        self.modules.get(hash).ok_or_else(|| failure("it was compiled and is gone".into()))
    }
}

impl Reducers for WorldReducers {
    fn step(&self, request: &Request<'_>) -> Result<Ran, HostFailure> {
        let module = self.module(request.wasm)?;
        self.modules.step(&module, request)
    }
}
