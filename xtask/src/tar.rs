//! Writes tar archives, the same bytes for the same content.
//!
//! Owner is root, times are zero, entries come in the order they were added and folders in the order of their names. So
//! the archive's hash says what is in it and nothing about when it was packed. GNU long names carry paths over 100 bytes.
//!
//! Not here: sparse files, hard links, devices.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

const BLOCK: usize = 512;

/// An archive being written.
pub(crate) struct Archive<W> {
    out: W,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds a file with the given bytes.
    pub(crate) fn bytes(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.header(path, b'0', mode, bytes.len() as u64, b"")?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Adds a file, symbolic link or whole folder of this host under another name.
    pub(crate) fn host(&mut self, from: &Path, path: &str) -> Result<()> {
        let meta = fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(from, path, &meta)
    }

    /// Ends the archive and returns the writer.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn add(&mut self, from: &Path, path: &str, meta: &fs::Metadata) -> Result<()> {
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            self.header(&format!("{}/", path.trim_end_matches('/')), b'5', mode, 0, b"")?;
            let mut names: Vec<_> = fs::read_dir(from)
                .and_then(|items| items.map(|item| item.map(|item| item.file_name())).collect::<io::Result<_>>())
                .with_context(|| format!("cannot list {}", from.display()))?;
            names.sort();
            for name in names {
                let Some(text) = name.to_str() else { bail!("{} holds a name that is not UTF-8", from.display()) };
                let child = from.join(&name);
                let meta = child.symlink_metadata().with_context(|| format!("cannot read {}", child.display()))?;
                self.add(&child, &format!("{}/{text}", path.trim_end_matches('/')), &meta)?;
            }
            return Ok(());
        }
        if meta.is_symlink() {
            let to = fs::read_link(from).with_context(|| format!("cannot read {}", from.display()))?;
            return self.header(path, b'2', 0o777, 0, to.as_os_str().as_bytes());
        }
        if !meta.is_file() {
            bail!("{} is neither a file, a folder nor a symbolic link", from.display());
        }
        let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.header(path, b'0', mode, meta.size(), b"")?;
        let copied = io::copy(&mut file.take(meta.size()), &mut self.out)
            .with_context(|| format!("cannot copy {}", from.display()))?;
        if copied != meta.size() {
            bail!("{} changed while it was read", from.display());
        }
        self.pad(copied)
    }

    fn header(&mut self, path: &str, kind: u8, mode: u32, size: u64, link: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/').as_bytes();
        for (long, kind) in [(link, b'K'), (path, b'L')] {
            if long.len() > 99 {
                self.block(b"././@LongLink", kind, 0o644, long.len() as u64 + 1, b"")?;
                self.out.write_all(long)?;
                self.out.write_all(&[0])?;
                self.pad(long.len() as u64 + 1)?;
            }
        }
        self.block(&path[..path.len().min(99)], kind, mode, size, &link[..link.len().min(99)])
    }

    fn block(&mut self, name: &[u8], kind: u8, mode: u32, size: u64, link: &[u8]) -> Result<()> {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        // Eleven octal digits end at 8 GiB; nothing that fits the job disk is larger.
        assert!(size < 1 << 33, "a member of an archive fits eleven octal digits");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link);
        put(257, b"ustar  \0");
        put(265, b"root");
        put(297, b"root");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(&block)?;
        Ok(())
    }

    fn pad(&mut self, written: u64) -> Result<()> {
        let over = usize::try_from(written % BLOCK as u64)?;
        if over != 0 {
            self.out.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sh;

    #[test]
    fn tar_reads_what_was_written() {
        let dir = std::env::temp_dir().join(format!("xtask-tar-{}", std::process::id()));
        let long = "d/".repeat(80) + "file";
        fs::create_dir_all(&dir).unwrap();
        let mut archive = Archive::new(Vec::new());
        archive.bytes("/run/a", 0o755, b"hello").unwrap();
        archive.bytes(&long, 0o644, &[7; 1000]).unwrap();
        fs::write(dir.join("archive.tar"), archive.finish().unwrap()).unwrap();
        let listing = sh::output(sh::command("tar").arg("-tvf").arg(dir.join("archive.tar"))).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(listing.contains("-rwxr-xr-x root/root") && listing.contains("run/a"), "{listing}");
        assert!(listing.contains(&long), "{listing}");
    }
}
