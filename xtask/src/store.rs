//! The cache of things that are expensive to make.
//!
//! An entry is a directory `KIND-KEY`. It is built under a temporary name while a lock is held and renamed when it is
//! complete, so an entry that exists is whole, and whoever wants the same entry meanwhile waits for it. A process holds a
//! shared lock on every entry it was given until it ends; only entries that nobody holds are removed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::{clock, paths};

/// Set by `--fresh`: an entry made before this process started counts as absent.
static FRESH: AtomicBool = AtomicBool::new(false);
/// Entries that this process uses, each with its shared lock; without one while it is being made.
static HELD: Mutex<Option<HashMap<PathBuf, Option<File>>>> = Mutex::new(None);
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Ignore everything that was cached before.
pub(crate) fn ignore_caches() {
    FRESH.store(true, Ordering::Relaxed);
}

/// Returns the entry, building it first if it is not there. It stays at least as long as this process.
pub(crate) fn ensure(kind: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let store = store()?;
    let entry = store.join(format!("{kind}-{key}"));
    if claim(&entry)? {
        return Ok(entry);
    }
    let _lock = lock(&store.join("locks").join(format!("{kind}-{key}")))?;
    if claim(&entry)? {
        return Ok(entry);
    }
    let scratch = scratch(kind)?;
    build(scratch.path())?;
    File::create(scratch.path().join(".used")).context("cannot mark a cache entry")?;
    if entry.exists() {
        fs::rename(&entry, scratch.path().with_extension("old")).context("cannot replace a cache entry")?;
    }
    fs::rename(scratch.path(), &entry).with_context(|| format!("cannot create {}", entry.display()))?;
    remove_tree(&scratch.path().with_extension("old"));
    with_held(|held| held.insert(entry.clone(), None));
    if !claim(&entry)? {
        bail!("{} went away as it was made", entry.display());
    }
    Ok(entry)
}

/// True if the entry is there and may be used.
pub(crate) fn exists(kind: &str, key: &str) -> Result<bool> {
    claim(&store()?.join(format!("{kind}-{key}")))
}

/// Entries of a kind, the most recently used first.
fn entries(kind: &str) -> Result<Vec<PathBuf>> {
    let prefix = format!("{kind}-");
    let mut found = Vec::new();
    for item in fs::read_dir(store()?).context("cannot list the cache")? {
        let path = item.context("cannot list the cache")?.path();
        let named = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix));
        if let (true, Ok(meta)) = (named, fs::metadata(path.join(".used"))) {
            found.push((meta.modified().unwrap_or(std::time::UNIX_EPOCH), path));
        }
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// Removes all but the most recently used entries of a kind; entries in use stay. Returns what went.
pub(crate) fn trim(kind: &str, keep: usize) -> Result<Vec<PathBuf>> {
    let mut gone = Vec::new();
    for entry in entries(kind)?.into_iter().skip(keep) {
        let Ok(file) = File::open(entry.join(".used")) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        // Moved away first: an entry that exists is whole, also if this is interrupted.
        let trash = scratch("trash")?;
        if fs::rename(&entry, trash.path().join("entry")).is_ok() {
            gone.push(entry);
        }
    }
    Ok(gone)
}

/// A directory that disappears when it is dropped, also after a crash of the process that made it.
pub(crate) struct Scratch {
    path: PathBuf,
    /// Held for as long as the process lives; `sweep` removes directories whose lock is free.
    _lock: File,
}

impl Scratch {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_tree(&self.path);
        let _ = fs::remove_file(self.path.with_extension("lock"));
    }
}

/// Makes an empty scratch directory.
pub(crate) fn scratch(name: &str) -> Result<Scratch> {
    let dir = store()?.join("tmp");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    sweep(&dir);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("{}-{}-{serial}", name.replace('.', "_"), std::process::id()));
    let lock = lock(&path.with_extension("lock"))?;
    remove_tree(&path);
    fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(Scratch { path, _lock: lock })
}

/// Takes an exclusive lock, waiting for it.
pub(crate) fn lock(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes what killed processes left behind.
fn sweep(dir: &Path) {
    let Ok(items) = fs::read_dir(dir) else { return };
    for path in items.flatten().map(|item| item.path()).filter(|path| path.extension().is_some_and(|e| e == "lock")) {
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            remove_tree(&path.with_extension(""));
            remove_tree(&path.with_extension("old"));
            let _ = fs::remove_file(&path);
        }
    }
}

/// Takes a shared lock on an entry and marks it as used; false if it is not there or, under `--fresh`, too old.
fn claim(entry: &Path) -> Result<bool> {
    let ours = with_held(|held| held.get(entry).map(Option::is_some));
    match ours {
        Some(true) => return Ok(true),
        None if FRESH.load(Ordering::Relaxed) => return Ok(false),
        Some(false) | None => {}
    }
    let path = entry.join(".used");
    let Ok(file) = File::open(&path) else { return Ok(false) };
    file.lock_shared().with_context(|| format!("cannot lock {}", path.display()))?;
    // Whoever had the lock may have removed the entry.
    if !entry.is_dir() {
        return Ok(false);
    }
    // A cache that cannot be written (another user's) still serves.
    let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(clock::now()));
    with_held(|held| held.insert(entry.to_owned(), Some(file)));
    Ok(true)
}

fn with_held<T>(look: impl FnOnce(&mut HashMap<PathBuf, Option<File>>) -> T) -> T {
    let mut held = HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    look(held.get_or_insert_default())
}

fn remove_tree(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

fn store() -> Result<PathBuf> {
    let dir = paths::cache()?.join("store");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}
