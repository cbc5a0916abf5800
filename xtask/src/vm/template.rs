//! Machines saved while they wait for work.
//!
//! There are two levels. A *bare* template is a booted kernel with the root image. A *product* template is a bare one in
//! which what was built is installed and the daemon answers. The second is made from the first, so a rebuilt daemon costs
//! no boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Platform;
use super::machine::{Job, Machine, Stream, sparse};
use super::product::Product;
use super::qemu::{self, Files, Memory};
use crate::clock::Deadline;
use crate::hash::Parts;
use crate::{store, ui};

/// Templates kept per level and kernel; older ones are of other images or builds.
const KEEP: usize = 3;

/// What runs in a machine before its first command.
pub(crate) enum Level {
    /// Only the operating system.
    Bare,
    /// The project as well, its daemon answering.
    Product(Product),
}

/// A saved machine.
pub(super) struct Template {
    pub(super) dir: PathBuf,
}

impl Template {
    pub(super) fn ram(&self) -> PathBuf {
        self.dir.join("ram")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(super) fn btrfs(&self) -> PathBuf {
        self.dir.join("btrfs.img")
    }
}

impl Level {
    /// The project if it is built, or else an error that says how to go on.
    pub(crate) fn product() -> Result<Self> {
        Ok(Self::Product(Product::built()?))
    }
}

/// Finds or makes the template.
pub(super) fn ensure(platform: &Platform, level: &Level) -> Result<Template> {
    let key = key(platform, level)?;
    let label = &platform.kernel.label;
    let (kind, entry) = match level {
        Level::Bare => {
            let kind = format!("template-bare-{label}");
            let entry = store::ensure(&kind, &key, |dir| {
                ui::step(&format!("template: boot {}", platform.kernel.release), || make_bare(platform, dir))
            })?;
            (kind, entry)
        }
        Level::Product(product) => {
            let kind = format!("template-product-{label}");
            let entry = store::ensure(&kind, &key, |dir| {
                let bare = ensure(platform, &Level::Bare)?;
                let name = format!("template: install on {} and start agentd", platform.kernel.release);
                ui::step(&name, || make_product(platform, &bare, product, dir))
            })?;
            (kind, entry)
        }
    };
    store::trim(&kind, KEEP)?;
    Ok(Template { dir: entry })
}

/// Makes the template if it is not there.
pub(crate) fn prepare(platform: &Platform, level: &Level) -> Result<()> {
    ensure(platform, level).map(|_| ())
}

/// Starts the installed daemon in a machine that has only the operating system.
pub(crate) fn install(machine: &mut Machine, product: &Product) -> Result<()> {
    let job = Job {
        copies: product.files.iter().map(|(path, place)| (path.clone(), place.clone())).collect(),
        argv: vec!["/usr/lib/agentd-vm/start-agentd".into()],
        ..Job::default()
    };
    let said = std::sync::Mutex::new(Vec::new());
    let sink = |_: Stream, bytes: &[u8]| {
        said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
    };
    let status = machine.stream(job, Some(Duration::from_secs(150)), sink)?;
    if status != 0 {
        let said = said.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        bail!("agentd does not start in the machine\n{}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}

/// Removes templates and images that nothing uses now; all of them if asked. Returns what went.
pub(crate) fn clean(all: bool) -> Result<Vec<PathBuf>> {
    let keep = if all { 0 } else { 1 };
    let mut gone = Vec::new();
    for label in super::kernels::labels() {
        for level in ["bare", "product"] {
            gone.extend(store::trim(&format!("template-{level}-{label}"), keep)?);
        }
    }
    for (kind, keep) in [("image", keep), ("base", keep), ("qemu", keep), ("kernel", 3 * keep), ("initrd", 3 * keep)] {
        gone.extend(store::trim(kind, keep)?);
    }
    Ok(gone)
}

fn key(platform: &Platform, level: &Level) -> Result<String> {
    // Paths differ from run to run and are no part of the machine; the content behind them is.
    let files = Files {
        kernel: Path::new("KERNEL"),
        initrd: Path::new("INITRD"),
        root: Path::new("ROOT"),
        ram: Path::new("RAM"),
        dir: Path::new("DIR"),
    };
    let arguments = qemu::arguments(&files, platform.accel, Memory::Written).join("\n");
    let sizes = format!("{} {} {}", qemu::MEMORY, qemu::JOB_DISK, qemu::BTRFS_DISK);
    let parts = Parts::of("template 1")
        .with("arguments", arguments)
        .with("sizes", sizes)
        .with_file("kernel", &platform.kernel.image)?
        .with_file("initrd", &platform.initrd)?
        .with_file("root", &platform.image.disk)?;
    let parts = platform.qemu.add_to(parts)?;
    let parts = match level {
        Level::Bare => parts.with("level", "bare"),
        Level::Product(product) => parts.with("level", "product").with("product", product.key()?),
    };
    Ok(parts.key())
}

fn make_bare(platform: &Platform, dir: &Path) -> Result<()> {
    let scratch = store::scratch("vm")?;
    let ram = scratch.path().join("ram");
    sparse(&ram, qemu::MEMORY)?;
    let machine = Machine::boot_with(platform, scratch, &ram, Memory::Written)?;
    save(machine, dir)
}

fn make_product(platform: &Platform, bare: &Template, product: &Product, dir: &Path) -> Result<()> {
    let mut machine = Machine::restore_from(platform, bare, Memory::Written)?;
    install(&mut machine, product)?;
    save(machine, dir)
}

/// Saves a machine that waits for work and ends it.
fn save(mut machine: Machine, dir: &Path) -> Result<()> {
    machine.control.send("settle")?;
    if machine.control.wait("SETTLED", Some(Deadline::after(Duration::from_secs(60))))?.is_none() {
        bail!("the machine did not settle within 60 s");
    }
    machine.qmp.save(&dir.join("state"))?;
    for name in ["ram", "btrfs.img"] {
        fs::rename(machine.dir().join(name), dir.join(name)).with_context(|| format!("cannot keep {name}"))?;
    }
    Ok(())
}
