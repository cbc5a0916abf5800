//! A directory of the scenario's own, on a file system of its choice, gone at the end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::DEV;

/// Where a tree lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// The root of the machine: overlayfs of ext4 and tmpfs.
    Overlay,
    /// A tmpfs of its own.
    Tmpfs,
    /// The btrfs disk.
    Btrfs,
}

impl FileSystem {
    /// All of them.
    pub(crate) const ALL: [FileSystem; 3] = [FileSystem::Overlay, FileSystem::Tmpfs, FileSystem::Btrfs];
}

/// A tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    mounted: bool,
}

impl Tree {
    /// An empty one, which belongs to the user that agents run as.
    pub(crate) fn new(name: &str, on: FileSystem) -> Result<Tree> {
        let root = match on {
            FileSystem::Overlay => PathBuf::from("/srv/x").join(name),
            FileSystem::Tmpfs => PathBuf::from("/srv/x").join(format!("{name}-tmpfs")),
            FileSystem::Btrfs => PathBuf::from("/srv/btrfs").join(name),
        };
        let make = || -> std::io::Result<()> {
            fs::create_dir_all(&root)?;
            if on == FileSystem::Tmpfs {
                mount(Some("x"), &root, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
            }
            chown(&root, Some(DEV), Some(DEV))
        };
        make().with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Tree { root, mounted: on == FileSystem::Tmpfs })
    }

    /// The path of something in it.
    pub(crate) fn path(&self, below: &str) -> String {
        match below {
            "" => self.root.display().to_string(),
            below => self.root.join(below).display().to_string(),
        }
    }

    /// Makes a directory and those above it.
    pub(crate) fn directory(&self, below: &str) -> Result<String> {
        let mut path = self.root.clone();
        for part in Path::new(below) {
            path.push(part);
            if !path.is_dir() {
                fs::create_dir(&path)
                    .and_then(|()| chown(&path, Some(DEV), Some(DEV)))
                    .with_context(|| format!("cannot make {}", path.display()))?;
            }
        }
        Ok(self.path(below))
    }

    /// Makes a file with that content, and the directories above it.
    pub(crate) fn file(&self, below: &str, content: &str) -> Result<String> {
        if let Some(parent) = Path::new(below).parent() {
            self.directory(&parent.display().to_string())?;
        }
        let path = self.root.join(below);
        fs::write(&path, content)
            .and_then(|()| chown(&path, Some(DEV), Some(DEV)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(self.path(below))
    }

    /// Makes a file that can be executed.
    pub(crate) fn program(&self, below: &str, from: &str) -> Result<String> {
        let path = self.file(below, "")?;
        fs::copy(from, &path)
            .and_then(|_| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot copy {from} to {path}"))?;
        chown(&path, Some(DEV), Some(DEV))?;
        Ok(path)
    }

    /// What is in it: each path with what would show a change.
    pub(crate) fn look(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        look(&self.root, &mut found);
        found
    }
}

fn look(directory: &Path, found: &mut BTreeMap<String, String>) {
    for item in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = item.path();
        let Ok(meta) = path.symlink_metadata() else { continue };
        let content = match meta.file_type() {
            kind if kind.is_file() && meta.len() < 4096 => fs::read_to_string(&path).unwrap_or_default(),
            kind if kind.is_symlink() => fs::read_link(&path).map(|to| to.display().to_string()).unwrap_or_default(),
            _ => String::new(),
        };
        // Neither the number of links nor times of directories: both change with what is allowed beside.
        let time = if meta.is_file() { meta.mtime() } else { 0 };
        let shown = format!(
            "{:o} {} {} {time} {content:?}",
            meta.mode(),
            meta.uid(),
            if meta.is_file() { meta.len() } else { 0 }
        );
        found.insert(path.display().to_string(), shown);
        if meta.is_dir() {
            look(&path, found);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}
