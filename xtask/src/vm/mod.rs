//! Virtual machines that start in a second, also without KVM.
//!
//! ```text
//! kernels ─┐
//! image ───┼─▶ cold boot ─▶ template "bare" ─▶ install + start agentd ─▶ template "product" ─▶ restore ─▶ run
//! qemu ────┘   (3–15 s)     (saved RAM)         (as a user would)        (saved RAM)          (< 1 s)
//! ```
//!
//! A template is a machine's memory in a file and its devices in another, taken while it waits for work. Restoring maps
//! the memory privately, so any number of machines start from one template and none can change it: the root disk is
//! read-only under a tmpfs, and the btrfs disk is a sparse copy.
//!
//! Invariant: a template's key holds the content of everything that went into it. There is no way to name a stale one.

mod accel;
mod guest;
mod image;
mod initrd;
pub(crate) mod kernels;
pub(crate) mod machine;
pub(crate) mod power;
mod product;
mod qemu;
mod qmp;
mod template;

pub(crate) use self::machine::{Machine, Output};
pub(crate) use self::template::{Level, clean, install, prepare};

use anyhow::Result;
use serde_json::{Value, json};

use self::kernels::Kernel;

/// Everything that machines of one kernel start from.
pub(crate) struct Platform {
    pub(crate) qemu: qemu::Qemu,
    pub(crate) kernel: Kernel,
    pub(crate) image: image::Image,
    pub(crate) accel: accel::Accel,
    pub(crate) initrd: std::path::PathBuf,
}

impl Platform {
    /// Finds or makes it. The image holds the modules of all kernels, so all kernels are fetched.
    pub(crate) fn ensure(label: &str) -> Result<Self> {
        let qemu = qemu::ensure()?;
        let kernels = kernels::ensure_all()?;
        let image = image::ensure(&kernels)?;
        let kernel = kernels::pick(kernels, label)?;
        let initrd = initrd::ensure(&kernel)?;
        let accel = accel::probe(&qemu, &kernel, &initrd)?;
        Ok(Self { qemu, kernel, image, accel, initrd })
    }
}

/// What is used for machines, as recorded when it was fetched.
pub(crate) fn describe() -> Result<Value> {
    let qemu = qemu::ensure()?;
    let kernels = kernels::ensure_all()?;
    let image = image::ensure(&kernels)?;
    let rows: Vec<Value> = kernels.iter().map(|kernel| kernel.record.clone()).collect();
    Ok(json!({ "qemu": qemu.record, "kernels": rows, "image": image.record }))
}

/// The same in a few lines for people.
pub(crate) fn summary() -> Result<Vec<String>> {
    let all = describe()?;
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut lines = vec![format!("QEMU: {}", text(&all["qemu"]["version"]))];
    for kernel in all["kernels"].as_array().into_iter().flatten() {
        let packages = kernel["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let image = packages.iter().find(|package| !text(&package["package"]).starts_with("linux-base"));
        let Some(package) = image else { continue };
        let sha256 = text(&package["sha256"]);
        lines.push(format!(
            "kernel {}: {} {} from {}, sha256 {}…",
            text(&kernel["label"]),
            text(&package["package"]),
            text(&package["version"]),
            text(&kernel["line"]),
            &sha256[..sha256.len().min(12)]
        ));
    }
    let wanted = ["criu ", "btrfs-progs ", "bpftool "];
    let packages = all["image"]["packages"].as_array().cloned().unwrap_or_default();
    let some: Vec<String> = packages.iter().map(text).filter(|p| wanted.iter().any(|w| p.starts_with(w))).collect();
    lines.push(format!(
        "root image: {} packages from {}, {}",
        packages.len(),
        text(&all["image"]["line"]),
        some.join(", ")
    ));
    Ok(lines)
}
