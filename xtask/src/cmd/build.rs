//! `cargo xtask build`: the BPF programs in Rust, the sample reducers, then the daemon and the command.
//!
//! The BPF crate is another world: another target, `core` from source, unstable flags. All of that is set for its one
//! Cargo process and for no other, so nothing of it can reach the programs that users run. The reducers are another one. A
//! world knows a module by its hash, so their bytes depend on the source, `Cargo.lock` and the compiler, and on nothing else:
//! not on where the checkout or Cargo's home is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use lexopt::{Arg, Parser};

use super::{Common, common, help};
use crate::{paths, sh, toolchain, ui, wasm};

const HELP: &str = "\
Build everything that is installed.

Usage: cargo xtask build [--release]

First the BPF programs written in Rust (target/bpf/agentd-net.o) and the sample reducers (target/wasm/*.wasm), then agentd
and agentctl. The release profile is the only one: what is tested is what is shipped.

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
    reducers()?;
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
    if fs::read(&to).ok() == Some(read(made)?) {
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
        toolchain::from_source(&mut cargo, tools.src_root.as_deref());
        let path = env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(tools.linker_dir.clone()).chain(env::split_paths(&path));
        cargo.env("PATH", env::join_paths(path).context("PATH holds a colon in a name")?);
        forget_flags(&mut cargo);
        sh::run(&mut cargo)?;
        let made = to.join("build/bpfel-unknown-none/release").join(NET_PROGRAM);
        let object = to.join("agentd-net.o");
        keep(&object, &read(&made)?)?;
        Ok(Some(object))
    })
}

/// The workspace of the sample reducers.
pub(super) fn samples() -> PathBuf {
    paths::root().join("crates/reducer-sdk/samples")
}

/// Compiles the sample reducers and returns the modules, none of which imports anything.
pub(super) fn reducers() -> Result<Vec<PathBuf>> {
    let to = paths::target().join("wasm");
    ui::step("build the sample reducers for WASM", || {
        let tools = toolchain::wasm_rust()?;
        let mut cargo = Command::new("cargo");
        cargo.current_dir(samples()).args(["build", "--quiet", "--release", "--locked"]);
        cargo.arg("--target-dir").arg(to.join("build"));
        tools.aim(&mut cargo);
        forget_flags(&mut cargo);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", same_anywhere(&tools)?);
        sh::run(&mut cargo)?;
        let made = to.join("build").join(toolchain::WASM).join("release");
        let mut modules = Vec::new();
        for name in sample_names()? {
            let bytes = read(&made.join(name.replace('-', "_")).with_extension("wasm"))?;
            wasm::imports_nothing(&bytes).with_context(|| format!("{name} is not a reducer"))?;
            let module = to.join(&name).with_extension("wasm");
            keep(&module, &bytes)?;
            // What a world needs to run it, beside it, as `agentctl world propose` looks for it.
            keep(&to.join(&name).with_extension("json"), &read(&samples().join(&name).join("air.json"))?)?;
            modules.push(module);
        }
        Ok(modules)
    })
}

/// The packages among the samples; each is in a folder of its name.
fn sample_names() -> Result<Vec<String>> {
    let items = fs::read_dir(samples()).context("cannot list the sample reducers")?;
    let crates = items.flatten().filter(|item| item.path().join("Cargo.toml").is_file());
    let mut names: Vec<String> = crates.map(|item| item.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Flags for rustc that give every path of this machine the name that it has on all.
fn same_anywhere(tools: &toolchain::WasmRust) -> Result<String> {
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or(home).context("neither CARGO_HOME nor HOME is set")?;
    let (source, source_name) = tools.source();
    // Of several that fit, rustc takes the last.
    let places = [(paths::root(), "/agentd".to_owned()), (cargo, "/cargo".to_owned()), (source, source_name)];
    let mut flags = places.map(|(here, name)| format!("--remap-path-prefix={}={name}", here.display())).to_vec();
    // Rust's stack of a megabyte would lie before everything else, and a step's memory be reset far from where it was used.
    flags.extend(["-Clink-arg=-zstack-size=65536".to_owned()]);
    Ok(flags.join("\x1f"))
}

/// Takes away what the caller's environment tells Cargo about other builds.
fn forget_flags(cargo: &mut Command) {
    for name in ["RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
}

fn read(made: &Path) -> Result<Vec<u8>> {
    fs::read(made).with_context(|| format!("cannot read {}", made.display()))
}

/// Writes a file, not touched if it is the same: whoever includes it is not rebuilt for nothing.
fn keep(to: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
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
