//! `cargo xtask build`: the BPF programs in Rust, then the daemon and the command.
//!
//! The BPF crate is another world: another target, `core` from source, unstable flags. All of that is set for its one
//! Cargo process and for no other, so nothing of it can reach the programs that users run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use lexopt::{Arg, Parser};

use super::{Common, common, help};
use crate::{paths, sh, toolchain, ui};

const HELP: &str = "\
Build everything that is installed.

Usage: cargo xtask build [--release]

First the BPF programs written in Rust (target/bpf/agentd-net.o), then agentd and agentctl. The release profile is the
only one: what is tested is what is shipped.

Examples:
  cargo xtask build && cargo xtask vm exec -- agentctl doctor
";

/// The package and the program in it.
const NET: &str = "agentd-net-bpf";
const NET_PROGRAM: &str = "agentd-net";

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("release") => {}
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    everything()?;
    Ok(ExitCode::SUCCESS)
}

/// Builds all of it.
pub(super) fn everything() -> Result<()> {
    net_object()?;
    ui::step("build agentd", || {
        sh::run(cargo().args(["build", "--quiet", "--release", "-p", "agentd"]))?;
        ship("agentd", &paths::target().join("release/agentd"))
    })?;
    // The command starts for every question that is asked; without a dynamic linker it does so in half the time. It asks
    // libc for nothing that needs plug-ins (users, host names), which the daemon does.
    ui::step("build agentctl", || {
        let host = toolchain::host()?;
        let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", host.to_uppercase().replace('-', "_"));
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "--release", "-p", "agentctl", "--target", &host]);
        sh::run(cargo.env(variable, "-Ctarget-feature=+crt-static"))?;
        ship("agentctl", &paths::target().join(host).join("release/agentctl"))
    })
}

/// Puts a program where whoever installs, measures or tests it takes it from; not touched if it is the same.
fn ship(name: &str, made: &Path) -> Result<()> {
    let (to, new) = (paths::shipped(name), paths::shipped(&format!("{name}.new")));
    let bytes = fs::read(made).with_context(|| format!("cannot read {}", made.display()))?;
    if fs::read(&to).ok().as_ref() == Some(&bytes) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(Path::new("."))).context("cannot make a place for what is built")?;
    fs::copy(made, &new).with_context(|| format!("cannot copy {}", made.display()))?;
    // Renamed, because the old one may be running.
    fs::rename(&new, &to).with_context(|| format!("cannot replace {}", to.display()))
}

/// Compiles `ebpf/net` and returns the object; `None` if the crate is not there.
pub(super) fn net_object() -> Result<Option<PathBuf>> {
    let dir = paths::root().join("ebpf/net");
    if !dir.join("Cargo.toml").exists() {
        ui::note("skip the BPF programs in Rust: there is no ebpf/net/Cargo.toml");
        return Ok(None);
    }
    let to = paths::target().join("bpf");
    ui::step("build ebpf/net for BPF", || {
        let tools = toolchain::bpf_rust()?;
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&dir).args(["build", "--quiet", "--release", "--package", NET]);
        cargo.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
        cargo.arg("--target-dir").arg(to.join("build"));
        // These replace the flags in the crate's own configuration, which are for working in its folder by hand.
        let flags = ["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"];
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env("RUSTC_BOOTSTRAP", "1");
        if let Some(root) = &tools.src_root {
            // Cargo's own tests use this to point at another source of `core`; nothing documented does the same.
            cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", root);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(tools.linker_dir.clone()).chain(std::env::split_paths(&path));
        cargo.env("PATH", std::env::join_paths(path).context("PATH holds a colon in a name")?);
        for name in ["RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
            cargo.env_remove(name);
        }
        sh::run(&mut cargo)?;
        let made = to.join("build/bpfel-unknown-none/release").join(NET_PROGRAM);
        let object = to.join("agentd-net.o");
        // Not touched if it is the same: whoever includes it is not rebuilt for nothing.
        let bytes = fs::read(&made).with_context(|| format!("cannot read {}", made.display()))?;
        if fs::read(&object).ok().as_ref() != Some(&bytes) {
            fs::write(&object, bytes).with_context(|| format!("cannot write {}", object.display()))?;
        }
        Ok(Some(object))
    })
}

/// Cargo for the workspace.
pub(super) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root());
    // Set for us by `cargo run`; a nested Cargo must not take them for its own.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        cargo.env_remove(name);
    }
    cargo
}
