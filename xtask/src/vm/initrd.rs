//! The first program a machine runs: loads the disk driver, mounts the root disk, goes on to it.
//!
//! The archive is in the "newc" format that the kernel reads, made of a static busybox, the few modules that reach the
//! disk, and `vm-tests/guest/initrd-init`. Debian's cloud kernels have some of these drivers built in and some not, which
//! differs by kernel, so the modules come from each kernel's own dependency list.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::kernels::{self, Kernel};
use crate::hash::Parts;
use crate::{paths, store};

/// What it takes to mount the root disk under an overlay.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "ext4", "overlay"];

/// Finds or makes the archive for a kernel.
pub(super) fn ensure(kernel: &Kernel) -> Result<PathBuf> {
    let busybox = Path::new("/usr/bin/busybox");
    let init = paths::root().join("vm-tests/guest/initrd-init");
    let key = Parts::of("initrd 1")
        .with("modules", MODULES.join(" "))
        .with_file("kernel", &kernel.image)?
        .with_file("busybox", busybox)?
        .with_file("init", &init)?
        .key();
    let entry = store::ensure("initrd", &key, |dir| {
        let mut archive = Newc::default();
        for name in ["bin", "dev", "proc", "sys", "lower", "upper", "root", "modules"] {
            archive.entry(name, 0o040_755, &[]);
        }
        archive.entry("bin/busybox", 0o100_755, &read(busybox)?);
        archive.entry("init", 0o100_755, &read(&init)?);
        for (index, path) in load_order(kernel)?.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name.split('.').next().unwrap_or_default();
            archive.entry(&format!("modules/{index:02}-{name}.ko"), 0o100_644, &plain_module(path)?);
        }
        fs::write(dir.join("initrd"), archive.finish()).context("cannot write an initrd")
    })?;
    store::trim("initrd", 6)?;
    Ok(entry.join("initrd"))
}

/// Files of the modules, each after those it needs. Built-in drivers have none.
fn load_order(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let dir = kernel.tree.join("usr/lib/modules").join(&kernel.release);
    let text = fs::read_to_string(dir.join("modules.dep")).context("cannot read modules.dep")?;
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for wanted in MODULES {
        let row = text.lines().filter_map(|row| row.split_once(':')).find(|(path, _)| stem(path) == wanted);
        let Some((path, needs)) = row else { continue };
        // depmod lists what a module needs from the nearest to the farthest.
        for file in needs.split_whitespace().rev().chain([path]) {
            if seen.insert(file.to_owned()) {
                order.push(dir.join(file));
            }
        }
    }
    Ok(order)
}

fn stem(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// A module as busybox can load it: not compressed.
fn plain_module(path: &Path) -> Result<Vec<u8>> {
    let bytes = read(path)?;
    let plain = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => kernels::filter(&["xz", "-dcq"], &bytes)?,
        Some("zst") => kernels::filter(&["zstd", "-dcq"], &bytes)?,
        _ => bytes,
    };
    if !plain.starts_with(b"\x7fELF") {
        bail!("{} is not a module", path.display());
    }
    Ok(plain)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A "newc" archive: a header of hexadecimal fields, the name, the bytes, each padded to four.
#[derive(Default)]
struct Newc {
    bytes: Vec<u8>,
    inode: u32,
}

impl Newc {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
