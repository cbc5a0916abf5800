//! The host's keys: what heads of journals and receipts are signed with.
//!
//! A directory that only root may enter. `<public key>.key` holds the 32 bytes that a key pair grows from; `current` names
//! the one in use. The first is made at the first start. Old ones are kept, because a journal that has not been opened
//! since the rotation still needs the old key to vouch for the new one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use agentd_journal::Signer;
use agentd_model::PublicKey;

/// The host's keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    directory: PathBuf,
}

/// Why a key could not be had. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The disk refused.
    #[error("cannot use {path}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} does not hold a key")]
    Rubbish {
        /// The file.
        path: PathBuf,
    },
    /// A journal is signed with a key that this host does not have.
    #[error("this host does not have the key {0}")]
    Unknown(PublicKey),
}

impl Keyring {
    /// The keys in a directory, which is made with a first key if it is not there.
    pub fn open(directory: &Path) -> Result<Keyring, KeyError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| KeyError::Io { path: directory.to_owned(), source })?;
        let keyring = Keyring { directory: directory.to_owned() };
        if !keyring.directory.join("current").exists() {
            keyring.rotate()?;
        }
        keyring.current()?;
        Ok(keyring)
    }

    /// The key in use.
    pub fn current(&self) -> Result<Signer, KeyError> {
        let path = self.directory.join("current");
        let text = fs::read_to_string(&path).map_err(|source| KeyError::Io { path: path.clone(), source })?;
        let key = text.trim().parse().map_err(|_no_key| KeyError::Rubbish { path })?;
        self.get(key)
    }

    /// A key of this host, old or in use.
    pub fn get(&self, key: PublicKey) -> Result<Signer, KeyError> {
        let path = self.directory.join(format!("{key}.key"));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyError::Unknown(key)),
            Err(source) => return Err(KeyError::Io { path, source }),
        };
        let seed: [u8; 32] = bytes.try_into().map_err(|_wrong_length| KeyError::Rubbish { path: path.clone() })?;
        let signer = Signer::from_seed(&seed);
        if signer.key() == key { Ok(signer) } else { Err(KeyError::Rubbish { path }) }
    }

    /// Every key of this host, old ones and the one in use.
    pub fn keys(&self) -> Vec<PublicKey> {
        let names = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let key = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".key")?.parse().ok();
        names.filter_map(|entry| key(entry.file_name())).collect()
    }

    /// Makes a new key and takes it into use.
    pub fn rotate(&self) -> Result<Signer, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| KeyError::Io { path: "/dev/urandom".into(), source: io::Error::other(error) })?;
        let signer = Signer::from_seed(&seed);
        self.write(&format!("{}.key", signer.key()), &seed)?;
        self.write("current", format!("{}\n", signer.key()).as_bytes())?;
        Ok(signer)
    }

    /// Whole or not at all, and on disk when it returns.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.directory.join(name);
        let new = self.directory.join(format!("{name}.new"));
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| KeyError::Io { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_a_key_and_a_rotation_keeps_it() {
        let directory = std::env::temp_dir().join(format!("agentd-keyring-{}", std::process::id()));
        let keyring = Keyring::open(&directory).unwrap();
        let first = keyring.current().unwrap().key();
        assert_eq!(Keyring::open(&directory).unwrap().current().unwrap().key(), first);
        let second = keyring.rotate().unwrap().key();
        assert_ne!(first, second);
        assert_eq!(keyring.current().unwrap().key(), second);
        assert_eq!(keyring.get(first).unwrap().key(), first);
        let keys = keyring.keys();
        assert!(keys.len() == 2 && keys.contains(&first) && keys.contains(&second), "{keys:?}");
        assert!(matches!(keyring.get(PublicKey([9; 32])), Err(KeyError::Unknown(_))));
        // A key under another's name would sign as somebody else.
        fs::copy(directory.join(format!("{first}.key")), directory.join(format!("{second}.key"))).unwrap();
        assert!(matches!(keyring.current(), Err(KeyError::Rubbish { .. })));
        fs::remove_dir_all(&directory).unwrap();
    }
}
