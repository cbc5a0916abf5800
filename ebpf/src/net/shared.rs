//! The maps that the network programs share with the LSM programs: what their pins must look like.

use std::io;
use std::path::Path;

use agentd_abi::{Agent, EVENT_RING, MAX_AGENTS, MAX_NETS, Net, NetKey};
use aya::maps::{MapInfo, MapType};

use super::LoadError;

/// Flags of `<linux/bpf.h>`.
const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

/// What a map is.
struct Shape {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
    flags: u32,
}

/// As in `ebpf/lsm/maps.h`.
const SHAPES: [Shape; 4] = [
    Shape {
        name: "agents",
        kind: MapType::Array,
        key: size_of::<u32>(),
        value: size_of::<Agent>(),
        entries: MAX_AGENTS,
        flags: MMAPABLE,
    },
    Shape {
        name: "cgroup_agents",
        kind: MapType::Hash,
        key: size_of::<u64>(),
        value: size_of::<u32>(),
        entries: MAX_AGENTS,
        flags: 0,
    },
    Shape {
        name: "nets",
        kind: MapType::LpmTrie,
        key: size_of::<NetKey>(),
        value: size_of::<Net>(),
        entries: MAX_NETS,
        flags: NO_PREALLOC,
    },
    Shape { name: "events", kind: MapType::RingBuf, key: 0, value: 0, entries: EVENT_RING, flags: 0 },
];

/// One property of a pinned map that is not as the contract has it.
#[derive(Debug, thiserror::Error)]
#[error("its {property} is {found}, the contract says {expected}")]
pub struct MapMismatch {
    property: &'static str,
    found: String,
    expected: String,
}

/// Names of the shared maps.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.name)
}

/// Compares the maps that are pinned with the contract; their ids if all are there, `None` if some have yet to be made.
pub(super) fn present(folder: &Path) -> Result<Option<Vec<u32>>, LoadError> {
    let mut ids = Vec::new();
    for shape in &SHAPES {
        let path = folder.join(shape.name);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(LoadError::Bpffs { path, source }),
        }
        let info = MapInfo::from_pin(&path).map_err(|source| LoadError::Map { path: path.clone(), source })?;
        shape.compare(&info).map_err(|source| LoadError::Mismatch { path, source })?;
        ids.push(info.id());
    }
    Ok((ids.len() == SHAPES.len()).then_some(ids))
}

impl Shape {
    fn compare(&self, info: &MapInfo) -> Result<(), MapMismatch> {
        let kind = info.map_type().map_or_else(|_| "unknown".to_owned(), |kind| format!("{kind:?}"));
        same("type", kind, format!("{:?}", self.kind))?;
        same("key size", info.key_size() as usize, self.key)?;
        same("value size", info.value_size() as usize, self.value)?;
        same("number of entries", info.max_entries(), self.entries)?;
        same("set of flags", info.map_flags(), self.flags)
    }
}

fn same<T: PartialEq + std::fmt::Display>(property: &'static str, found: T, expected: T) -> Result<(), MapMismatch> {
    if found == expected {
        return Ok(());
    }
    Err(MapMismatch { property, found: found.to_string(), expected: expected.to_string() })
}
