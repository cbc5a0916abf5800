//! Content keys.
//!
//! A key is a BLAKE3 hash over labelled parts, each with its length, so that no two different lists of parts read
//! alike. Hashes of big files are remembered together with the file's identity (device, inode, size, both times); any
//! write to the file changes one of these, and then it is read again.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths;

/// Collects the parts of a key.
pub(crate) struct Parts(blake3::Hasher);

impl Parts {
    /// Starts a key; the name keeps keys for different things apart.
    pub(crate) fn of(name: &str) -> Self {
        Self(blake3::Hasher::new()).with("name", name)
    }

    /// Adds a labelled part.
    #[must_use]
    pub(crate) fn with(mut self, label: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [label.as_bytes(), value.as_ref()] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds the content of a file.
    pub(crate) fn with_file(self, label: &str, path: &Path) -> Result<Self> {
        let hash = file(path)?;
        Ok(self.with(label, hash))
    }

    /// The key: 32 hexadecimal digits.
    pub(crate) fn key(self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }
}

/// The hash of a file's content.
pub(crate) fn file(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let identity = format!(
        "{}:{}:{}:{}.{}:{}.{}",
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    let name = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
    let memo = paths::cache()?.join("hashes").join(&name[..32]);
    if let Some((known, hash)) = fs::read_to_string(&memo).ok().as_deref().and_then(|text| text.split_once(' '))
        && known == identity
    {
        return Ok(hash.to_owned());
    }
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    hasher.update_reader(file).with_context(|| format!("cannot read {}", path.display()))?;
    let hash = hasher.finalize().to_hex().to_string();
    if let Some(dir) = memo.parent() {
        // Only a memo: if it cannot be written, the file is read again next time.
        let temporary = memo.with_extension(std::process::id().to_string());
        let _ = fs::create_dir_all(dir)
            .and_then(|()| fs::write(&temporary, format!("{identity} {hash}")))
            .and_then(|()| fs::rename(&temporary, &memo));
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let one = Parts::of("t").with("a", "bc").with("d", "").key();
        let two = Parts::of("t").with("a", "b").with("cd", "").key();
        assert_ne!(one, two);
    }
}
