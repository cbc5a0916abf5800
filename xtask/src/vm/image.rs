//! The root disk: a small Debian with what agents and tests need, and the modules of every kernel in the table.
//!
//! The packages are installed once per recipe (half a minute); a changed kernel or guest script only repacks the disk.
//! The disk is never written: machines see it read-only under a tmpfs.
//!
//! Not here: anything of this project. That is installed into a running machine, as a user would install it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::kernels::Kernel;
use crate::apt::Line;
use crate::hash::Parts;
use crate::{paths, sh, store, toolchain, ui};

const SUITES: [&str; 3] = ["trixie", "trixie-updates", "trixie-security"];

#[rustfmt::skip]
const PACKAGES: [&str; 25] = [
    "bash", "coreutils", "util-linux", "mount", "procps", "kmod", "iproute2",
    // CRIU before 4.1 does not know the vDSO of newer kernels.
    "criu", "btrfs-progs", "bpftool",
    "python3", "python3-venv", "python3-pytest", "gcc", "make", "libc6-dev", "git", "curl", "ca-certificates",
    "strace", "libelf1t64", "zlib1g", "libbtrfsutil1", "bubblewrap", "login",
];

/// Guest scripts and where they go.
const SCRIPTS: [(&str, &str); 2] =
    [("init", "usr/lib/agentd-vm/init"), ("start-agentd", "usr/lib/agentd-vm/start-agentd")];

/// A root disk.
pub(crate) struct Image {
    pub(crate) disk: PathBuf,
    pub(crate) record: Value,
}

/// Finds or makes the disk.
pub(super) fn ensure(kernels: &[Kernel]) -> Result<Image> {
    let base_key = Parts::of("base 1").with("suites", SUITES.join(" ")).with("packages", PACKAGES.join(" ")).key();
    let base =
        store::ensure("base", &base_key, |dir| ui::step("root image: install packages (trixie)", || install(dir)))?;
    let mut parts = Parts::of("image 1").with_file("base", &base.join("record.json"))?;
    for kernel in kernels {
        parts = parts.with("release", &kernel.release).with_file("kernel", &kernel.image)?;
    }
    for (name, _) in SCRIPTS {
        parts = parts.with_file(name, &script(name))?;
    }
    let key = parts.key();
    let entry = store::ensure("image", &key, |dir| ui::step("root image: pack", || pack(&base, kernels, dir)))?;
    store::trim("base", 1)?;
    store::trim("image", 2)?;
    let text = fs::read_to_string(base.join("record.json")).context("cannot read the image's record")?;
    let record = serde_json::from_str(&text).context("cannot read the image's record")?;
    Ok(Image { disk: entry.join("root.ext4"), record })
}

fn script(name: &str) -> PathBuf {
    paths::root().join("vm-tests/guest").join(name)
}

/// Installs the packages into `dir/tree`.
fn install(dir: &Path) -> Result<()> {
    if !sh::output(sh::command("id").arg("-u"))?.trim().eq("0") {
        bail!("making the root image needs root; run `cargo xtask setup --vm` as root once, with this user's HOME");
    }
    let line = Line::open(&SUITES)?;
    let tree = dir.join("tree");
    let mut mmdebstrap = sh::command("mmdebstrap");
    mmdebstrap.args(["--quiet", "--mode=root", "--variant=essential", "--skip=cleanup/reproducible"]);
    mmdebstrap.arg(format!("--include={}", PACKAGES.join(",")));
    for place in ["doc", "man", "info", "locale"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{place}/*"));
    }
    mmdebstrap.arg("--dpkgopt=force-unsafe-io");
    mmdebstrap.arg("trixie").arg(&tree).arg(&line.sources);
    sh::quiet(mmdebstrap.env("LC_ALL", "C"))?;

    let mut query = sh::command("dpkg-query");
    query.arg(format!("--admindir={}", tree.join("var/lib/dpkg").display()));
    let listed = sh::output(query.args(["-W", "-f", "${Package} ${Version}\\n"]))?;
    let packages: Vec<&str> = listed.lines().collect();
    trim(&tree)?;
    accounts(&tree)?;
    toolchain::write_record(dir, &json!({ "line": SUITES.join("+"), "packages": packages }))
}

/// Drops what no test reads.
fn trim(tree: &Path) -> Result<()> {
    for place in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/lib/apt"] {
        let path = tree.join(place);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    fs::create_dir_all(tree.join("var/cache")).context("cannot create var/cache")
}

/// An ordinary user, and the group whose members may operate the daemon.
fn accounts(tree: &Path) -> Result<()> {
    let append = |file: &str, text: &str| {
        let path = tree.join("etc").join(file);
        let opened = OpenOptions::new().append(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))
    };
    append("passwd", "dev:*:1000:1000:Developer:/home/dev:/bin/bash\n")?;
    append("group", "dev:*:1000:\nagentd:x:990:dev\n")?;
    fs::write(tree.join("etc/hostname"), "vm\n").context("cannot write etc/hostname")?;
    fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost vm\n::1 localhost\n").context("cannot write etc/hosts")?;
    for dir in ["home/dev", "srv/btrfs"] {
        fs::create_dir_all(tree.join(dir)).with_context(|| format!("cannot create {dir}"))?;
    }
    for name in [".bashrc", ".profile"] {
        fs::copy(tree.join("etc/skel").join(name), tree.join("home/dev").join(name)).context("cannot copy etc/skel")?;
    }
    sh::quiet(sh::command("chown").args(["-R", "1000:1000"]).arg(tree.join("home/dev")))
}

/// Puts packages, modules and guest scripts together and makes a file system of them.
fn pack(base: &Path, kernels: &[Kernel], dir: &Path) -> Result<()> {
    let tree = dir.join("tree");
    // Hard links: nothing below writes to a file of the base, it only adds some.
    sh::quiet(sh::command("cp").arg("-al").arg(base.join("tree")).arg(&tree))?;
    for kernel in kernels {
        let to = tree.join("usr/lib/modules");
        fs::create_dir_all(&to).context("cannot create a folder for modules")?;
        sh::quiet(sh::command("cp").arg("-al").arg(kernel.tree.join("usr/lib/modules").join(&kernel.release)).arg(to))?;
    }
    for (name, place) in SCRIPTS {
        let to = tree.join(place);
        fs::create_dir_all(to.parent().unwrap_or(&tree)).context("cannot create a folder for scripts")?;
        fs::copy(script(name), &to).with_context(|| format!("cannot copy {name}"))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context("cannot set a script's mode")?;
    }
    let used = sh::output(sh::command("du").arg("-sk").arg(&tree))?;
    let kib: u64 = used.split_whitespace().next().and_then(|n| n.parse().ok()).context("du printed no number")?;
    let mut mke2fs = sh::command("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-N", "65536", "-d"]);
    sh::quiet(mke2fs.arg(&tree).arg(dir.join("root.ext4")).arg(format!("{}k", kib + kib / 6 + 32 * 1024)))?;
    fs::remove_dir_all(&tree).context("cannot remove the unpacked tree")
}
