//! The folder of pinned links: `net-<key>` is complete and attached, `new-<key>` is being made, `old-<key>` is to go.
//!
//! A folder is complete if its name says so: it gets that name when everything is in it. Dots are not allowed in bpffs.

use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};

use crate::AgentsCgroup;

use super::{AUDITING, ENFORCING, LoadError};

/// Pin of the map `net_counters`, beside the links that count into it.
pub(super) const COUNTERS: &str = "counters";

const COMPLETE: &str = "net-";
const UNFINISHED: &str = "new-";
const REPLACED: &str = "old-";

/// Name of the folder for links that were made from all this.
pub(super) fn key(object: &[u8], agents: AgentsCgroup, maps: &[u32]) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(&agentd_abi::ABI_VERSION.to_le_bytes());
    hash.update(&agents.level.to_le_bytes());
    hash.update(&agents.id.to_le_bytes());
    for id in maps {
        hash.update(&id.to_le_bytes());
    }
    hash.update(object);
    format!("{COMPLETE}{}", &hash.finalize().to_hex()[..16])
}

/// Whether every program is attached there; the audit too, so that one that failed is tried again.
pub(super) fn complete(links: &Path) -> bool {
    let names = ENFORCING.into_iter().chain(AUDITING.map(|(name, _)| name));
    names.map(|name| links.join(name)).all(|path| program_id(&path).is_some()) && links.join(COUNTERS).exists()
}

/// The program behind a pinned link.
pub(super) fn program_id(link: &Path) -> Option<u32> {
    let link: FdLink = PinnedLink::from_pin(link).ok()?.into();
    link.info().ok().map(|info| info.program_id())
}

/// Makes an empty folder for the links that shall become `links`.
pub(super) fn begin(links: &Path) -> Result<PathBuf, LoadError> {
    let fresh = renamed(links, UNFINISHED);
    remove(&fresh)?;
    std::fs::create_dir(&fresh).map_err(|source| LoadError::Bpffs { path: fresh.clone(), source })?;
    Ok(fresh)
}

/// Gives a filled folder its lasting name.
pub(super) fn finish(fresh: &Path, links: &Path) -> Result<(), LoadError> {
    let at = |source| LoadError::Bpffs { path: links.to_owned(), source };
    let old = renamed(links, REPLACED);
    remove(&old)?;
    match std::fs::rename(links, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    std::fs::rename(fresh, links).map_err(at)
}

/// Pins a link, which then stays attached when this process ends.
pub(super) fn pin(link: FdLink, path: &Path) -> Result<(), LoadError> {
    let pinned = link.pin(path);
    pinned.map(drop).map_err(|source| LoadError::Pin { path: path.to_owned(), source: Box::new(source) })
}

/// Removes every other folder of network links.
pub(super) fn remove_all_but(folder: &Path, links: &Path) -> Result<(), LoadError> {
    for path in ours(folder)? {
        if path != links {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes every folder of network links, which detaches the programs.
pub(super) fn remove_all(folder: &Path) -> Result<(), LoadError> {
    ours(folder)?.iter().try_for_each(|path| remove(path))
}

/// The folders of network links; other people's pins stand in the same place and stay.
fn ours(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let at = |source| LoadError::Bpffs { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let key = [COMPLETE, UNFINISHED, REPLACED].iter().find_map(|prefix| name.strip_prefix(prefix));
        if key.is_some_and(|key| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn remove(folder: &Path) -> Result<(), LoadError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::Bpffs { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn renamed(links: &Path, prefix: &str) -> PathBuf {
    let name = links.file_name().unwrap_or_default().to_string_lossy();
    links.with_file_name(format!("{prefix}{}", name.trim_start_matches(COMPLETE)))
}
