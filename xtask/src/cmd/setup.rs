//! `cargo xtask setup`: makes a fresh machine able to build and test.
//!
//! Idempotent: it looks at what is there, says what is missing and how it will come, and does only that. Without root it
//! never asks for a password; it prints the commands to paste.

use std::process::ExitCode;

use anyhow::Result;
use lexopt::{Arg, Parser};

use super::{Common, common, help};
use crate::vm::{self, kernels};
use crate::{sh, signal, toolchain, ui};

const HELP: &str = "\
Install what building and testing need.

Usage: cargo xtask setup [--vm|--no-vm] [--dry-run] [--fresh]

Says what it will install before it does. Debian packages need root; without it the commands are printed and the status
is 1. Everything else goes into this user's cache.

  --vm        also what virtual machines need: QEMU, three kernels, a root image (the default)
  --no-vm     only what building needs
  --dry-run   only say what is missing
  --fresh     make everything in the cache again

Examples:
  cargo xtask setup --dry-run
  sudo -E cargo xtask setup
";

/// A Debian package and what it is for.
struct Need {
    package: &'static str,
    why: &'static str,
}

const fn need(package: &'static str, why: &'static str) -> Need {
    Need { package, why }
}

const BUILD: [Need; 11] = [
    need("gcc", "links Rust programs, compiles C parts"),
    need("make", "builds libbpf"),
    need("clang", "compiles the LSM programs to BPF"),
    need("llvm", "strips BPF objects"),
    need("libelf-dev", "libbpf reads objects with it"),
    need("zlib1g-dev", "libbpf reads compressed sections with it"),
    need("pkg-config", "finds libraries"),
    need("libbtrfsutil-dev", "snapshots"),
    need("btrfs-progs", "file systems for tests"),
    need("bubblewrap", "the peer in the benches"),
    need("ca-certificates", "downloads"),
];

const MACHINES: [Need; 9] = [
    need("mmdebstrap", "makes the root image"),
    need("debian-archive-keyring", "verifies the archive"),
    need("e2fsprogs", "packs the root image"),
    need("busybox-static", "the first program in a machine"),
    need("kmod", "lists the modules of a kernel"),
    need("zstd", "unpacks kernels"),
    need("xz-utils", "unpacks kernels"),
    need("util-linux", "ends QEMU when this tool is killed"),
    need("procps", "looks at processes in tests"),
];

/// What to set up.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) machines: bool,
    pub(super) dry_run: bool,
}

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let mut plan = Plan { machines: true, dry_run: false };
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("vm") => plan.machines = true,
            Arg::Long("no-vm") => plan.machines = false,
            Arg::Long("dry-run") => plan.dry_run = true,
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    signal::listen()?;
    perform(plan)
}

/// Carries a plan out; the status is 1 if something is missing that cannot be installed now.
pub(super) fn perform(plan: Plan) -> Result<ExitCode> {
    let machines: &[Need] = if plan.machines { &MACHINES } else { &[] };
    let missing: Vec<&Need> = BUILD.iter().chain(machines).filter(|need| !installed(need.package)).collect();
    for need in &missing {
        ui::say(format!("missing: Debian package {} ({})", need.package, need.why));
    }
    if !toolchain::has_wasm()? {
        ui::say(format!("missing: Rust target {} (compiles reducers)", toolchain::WASM));
    }
    let install = install_command(&missing);
    if !missing.is_empty() && !plan.dry_run {
        if !is_root()? {
            ui::say("\nInstall them as root, then run this again:");
            ui::say(format!("  sudo apt-get update && sudo {}", install.join(" ")));
            return Ok(ExitCode::FAILURE);
        }
        ui::step(&format!("apt-get install {} packages", missing.len()), || {
            sh::quiet(sh::command("apt-get").args(["update", "-qq"]))?;
            let mut apt = sh::command(&install[0]);
            sh::quiet(apt.args(&install[1..]).env("DEBIAN_FRONTEND", "noninteractive"))
        })?;
    }
    if plan.dry_run {
        ui::say(format!("would make, unless cached: {}", toolchain::describe()?));
        if plan.machines {
            let labels = kernels::labels().join(", ");
            ui::say(format!(
                "would make, unless cached: QEMU 10 or newer, cloud kernels {labels}, a Debian trixie root image"
            ));
        }
        return Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let tools = toolchain::bpf_rust()?;
    ui::say(format!("bpf-linker: {}", tools.linker_dir.display()));
    match &tools.src_root {
        Some(root) => ui::say(format!("core's source: {}", root.display())),
        None => ui::say("core's source: in the toolchain"),
    }
    ui::say(toolchain::wasm_rust()?.describe());
    if plan.machines {
        for line in vm::summary()? {
            ui::say(line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn install_command(missing: &[&Need]) -> Vec<String> {
    let fixed = ["apt-get", "install", "-y", "--no-install-recommends"].map(String::from);
    fixed.into_iter().chain(missing.iter().map(|need| need.package.to_owned())).collect()
}

fn installed(package: &str) -> bool {
    let mut query = sh::command("dpkg-query");
    let status = sh::output(query.args(["-W", "-f", "${db:Status-Status}\\n", package])).unwrap_or_default();
    status.lines().any(|line| line == "installed")
}

/// True for uid 0.
pub(super) fn is_root() -> Result<bool> {
    Ok(sh::output(sh::command("id").arg("-u"))?.trim() == "0")
}
