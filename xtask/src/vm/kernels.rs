//! The kernels that machines run, as data.
//!
//! A row names a line of the archive and the versions wanted from it, never one version: those are gone next month. What
//! was found is recorded beside the kernel. Debian split `linux-image` into `linux-binary`, `linux-modules` and
//! `linux-base` in 6.19; both shapes are unpacked the same way.
//!
//! The uncompressed kernel is taken out of its wrapper here, because unpacking it in an emulated machine costs a second
//! or two at every cold boot.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::apt::{Line, Package};
use crate::hash::Parts;
use crate::{sh, store, toolchain, ui};

/// A row of the kernel table.
struct Row {
    label: &'static str,
    suites: &'static [&'static str],
}

/// The floor, the default, the newest.
const TABLE: [Row; 3] = [
    Row { label: "6.1", suites: &["bookworm", "bookworm-security"] },
    Row { label: "6.12", suites: &["bookworm-backports"] },
    Row { label: "7.2", suites: &["trixie-backports"] },
];

/// What `--kernel` means when it is not given.
pub(crate) const DEFAULT: &str = "6.12";

/// A kernel on this disk.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) label: String,
    /// As `uname -r` prints it.
    pub(crate) release: String,
    /// The uncompressed ELF image.
    pub(crate) image: PathBuf,
    /// A tree with `usr/lib/modules/RELEASE`.
    pub(crate) tree: PathBuf,
    pub(crate) record: Value,
}

/// All labels in the table's order.
pub(crate) fn labels() -> Vec<&'static str> {
    TABLE.iter().map(|row| row.label).collect()
}

/// Fetches what is not there yet of the whole table.
pub(crate) fn ensure_all() -> Result<Vec<Kernel>> {
    TABLE.iter().map(ensure).collect()
}

/// The kernel with that label.
pub(crate) fn pick(kernels: Vec<Kernel>, label: &str) -> Result<Kernel> {
    let found = kernels.into_iter().find(|kernel| kernel.label == label);
    found.with_context(|| format!("no kernel is called {label}; there are {}", labels().join(", ")))
}

fn ensure(row: &Row) -> Result<Kernel> {
    let key = Parts::of("kernel 1").with("label", row.label).with("suites", row.suites.join(" ")).key();
    let dir = store::ensure("kernel", &key, |dir| {
        ui::step(&format!("kernel {} (cloud) from {}", row.label, row.suites.join(", ")), || fetch(row, dir))
    })?;
    let text = fs::read_to_string(dir.join("record.json")).context("cannot read a kernel's record")?;
    let record: Value = serde_json::from_str(&text).context("cannot read a kernel's record")?;
    let release = record["release"].as_str().context("a kernel's record names no release")?.to_owned();
    if !matches(&release, row.label) {
        ui::note(format!(
            "note: the archive carries no {} in this line any more; {release} stands in for it",
            row.label
        ));
    }
    Ok(Kernel { label: row.label.into(), release, image: dir.join("vmlinux"), tree: dir.join("tree"), record })
}

fn fetch(row: &Row, dir: &Path) -> Result<()> {
    let line = Line::open(row.suites)?;
    let (release, packages) = choose(&line, row.label)?;
    let unpacked = dir.join("unpacked");
    line.unpack(&packages, &unpacked)?;

    let wrapped = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let wrapped = wrapped.iter().map(|place| unpacked.join(place)).find(|path| path.is_file());
    extract(&wrapped.with_context(|| format!("the packages of {release} hold no kernel"))?, &dir.join("vmlinux"))?;

    let modules = ["usr/lib/modules", "lib/modules"].map(|place| unpacked.join(place).join(&release));
    let modules = modules.iter().find(|path| path.join("kernel").is_dir());
    let modules = modules.with_context(|| format!("the packages of {release} hold no modules"))?;
    let place = dir.join("tree/usr/lib/modules");
    fs::create_dir_all(&place).context("cannot create a folder for modules")?;
    fs::rename(modules, place.join(&release)).context("cannot move the modules")?;
    for spare in ["vmlinuz", "System.map"] {
        let _ = fs::remove_file(place.join(&release).join(spare));
    }
    // The packages carry no dependency list; installing them would make it.
    std::os::unix::fs::symlink("usr/lib", dir.join("tree/lib")).context("cannot create a link")?;
    sh::quiet(sh::command("depmod").arg("-b").arg(dir.join("tree")).arg(&release))?;
    fs::remove_file(dir.join("tree/lib")).context("cannot remove a link")?;
    fs::remove_dir_all(&unpacked).context("cannot remove unpacked packages")?;

    let used: Vec<Value> = packages.iter().map(Package::record).collect();
    let record = json!({ "label": row.label, "release": release, "line": row.suites.join("+"), "packages": used });
    toolchain::write_record(dir, &record)
}

/// The newest image package of the wanted series and the parts it is split into.
fn choose(line: &Line, label: &str) -> Result<(String, Vec<Package>)> {
    let image = |name: &str| {
        let release = name.strip_prefix("linux-image-")?;
        let numbered = release.starts_with(|c: char| c.is_ascii_digit()) && release.ends_with("-cloud-amd64");
        numbered.then(|| release.to_owned())
    };
    let mut releases: Vec<String> = line.names("linux-image-")?.iter().filter_map(|name| image(name)).collect();
    if releases.iter().any(|release| matches(release, label)) {
        releases.retain(|release| matches(release, label));
    }
    releases.sort_by_key(|release| numbers(release));
    let Some(release) = releases.last() else { bail!("the archive has no cloud kernel in this line") };
    let image = line.newest(&format!("linux-image-{release}"))?;
    let part = |name: &&String| {
        ["linux-binary-", "linux-modules-", "linux-base-"].iter().any(|p| name.starts_with(p)) && name.contains(release)
    };
    let parts: Vec<Package> = image.depends.iter().filter(part).map(|name| line.newest(name)).collect::<Result<_>>()?;
    Ok((release.clone(), if parts.is_empty() { vec![image] } else { parts }))
}

/// True if a release belongs to a series: `6.12.95+deb12-…` to `6.12`, not to `6.1`.
fn matches(release: &str, label: &str) -> bool {
    release.strip_prefix(label).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The numbers in a release, so that 6.12 sorts after 6.9.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Takes the ELF image out of a bzImage, whichever way it is compressed.
fn extract(wrapped: &Path, to: &Path) -> Result<()> {
    const WAYS: [(&[u8], &[&str]); 4] = [
        (b"\x28\xb5\x2f\xfd", &["zstd", "-dcq"]),
        (b"\xfd7zXZ\0", &["xz", "-dcq", "--single-stream"]),
        (b"\x1f\x8b\x08", &["gzip", "-dcq"]),
        (b"\x02!L\x18", &["lz4", "-dcq"]),
    ];
    let bytes = fs::read(wrapped).with_context(|| format!("cannot read {}", wrapped.display()))?;
    for (magic, program) in WAYS {
        for at in bytes.windows(magic.len()).enumerate().filter(|(_, w)| *w == magic).map(|(at, _)| at) {
            // Bytes follow the stream, so the program may end with an error although it has printed all of it.
            if let Ok(plain) = filter(program, &bytes[at..])
                && plain.starts_with(b"\x7fELF")
            {
                return fs::write(to, plain).with_context(|| format!("cannot write {}", to.display()));
            }
        }
    }
    bail!("{} holds no compressed ELF image that zstd, xz, gzip or lz4 can read", wrapped.display())
}

/// Sends bytes through a program; its status does not matter.
pub(super) fn filter(program: &[&str], bytes: &[u8]) -> Result<Vec<u8>> {
    let mut command = sh::command(program[0]);
    command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program[0]))?;
    let mut stdin = child.stdin.take().context("a child has no input")?;
    std::thread::scope(|scope| {
        // It stops reading at the end of the stream; a broken pipe is the normal case.
        scope.spawn(move || drop(stdin.write_all(bytes)));
        Ok(child.wait_with_output().with_context(|| format!("cannot read from {}", program[0]))?.stdout)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_not_its_prefix() {
        assert!(matches("6.1.0-56-cloud-amd64", "6.1"));
        assert!(!matches("6.12.95+deb12-cloud-amd64", "6.1"));
        assert!(numbers("7.2.12+deb13-cloud-amd64") > numbers("7.2.9+deb13-cloud-amd64"));
    }
}
