//! What a user gets when they install the project, as a list of files.
//!
//! The list comes from the same staging that `cargo xtask install` does, so a machine never tests another layout than the
//! one that is shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cmd::install;
use crate::hash::Parts;

/// Files of the host and where they go in a machine, sorted.
pub(crate) struct Product {
    pub(super) files: Vec<(PathBuf, String)>,
}

impl Product {
    /// Stages what was built.
    pub(super) fn built() -> Result<Self> {
        let stage = install::staged()?;
        let mut files = Vec::new();
        walk(&stage, &stage, &mut files)?;
        files.sort();
        Ok(Self { files })
    }

    /// A key over names, modes and contents.
    pub(super) fn key(&self) -> Result<String> {
        let mut parts = Parts::of("product 1");
        for (path, place) in &self.files {
            let meta = path.symlink_metadata().with_context(|| format!("cannot read {}", path.display()))?;
            parts = parts.with("place", place).with("mode", format!("{:o}", meta.permissions().mode()));
            parts = parts.with_file("content", path)?;
        }
        Ok(parts.key())
    }
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<(PathBuf, String)>) -> Result<()> {
    for item in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = item.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.is_dir() {
            walk(root, &path, files)?;
        } else if let Ok(place) = path.strip_prefix(root) {
            files.push((path.clone(), place.display().to_string()));
        }
    }
    Ok(())
}
