//! What the jobs need that is not in a Debian base system, and where people have it in their homes.
//!
//! Compilers and node are the host's own. Clients and wheels come from their registries through npm and pip, once; an
//! entry of the cache is named after what was asked for, so `--fresh` fetches the newest again. What was really fetched
//! is recorded beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::hash::Parts;
use crate::{paths, sh, store, ui};

/// Something that a job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// cargo, rustc and the standard library, as rustup lays them out.
    Rust,
    /// node and npm.
    Node,
    /// pytest and what it needs, as files that pip installs without a network.
    Wheels,
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
}

/// A file or folder of this host and its place below a home.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) from: PathBuf,
    pub(crate) place: String,
}

/// The newest of each; `--ignore-scripts` because the packages hold finished programs.
const CLAUDE: (&str, &str) = ("@anthropic-ai/claude-code", "@anthropic-ai/claude-code-linux-x64");
const CODEX: (&str, &str) = ("@openai/codex", "@openai/codex-linux-x64");

/// Finds or fetches the tools.
pub(crate) fn items(tools: &[Tool]) -> Result<Vec<Item>> {
    let mut all = Vec::new();
    for tool in tools {
        all.extend(match tool {
            Tool::Rust => rust()?,
            Tool::Node => node()?,
            Tool::Wheels => wheels()?,
            Tool::Claude => claude()?,
            Tool::Codex => codex()?,
        });
    }
    Ok(all)
}

/// Why the tools cannot be had on this host (a program that is not installed, a registry that does not answer); `None`:
/// they are here now.
pub(crate) fn missing(tools: &[Tool]) -> Option<String> {
    let needs = |tool: &Tool| match tool {
        Tool::Rust => "rustc",
        Tool::Node | Tool::Claude | Tool::Codex => "npm",
        Tool::Wheels => "python3",
    };
    match tools.iter().map(needs).find(|program| paths::program(program).is_none()) {
        Some(absent) => Some(format!("{absent} is not installed on this host")),
        None => items(tools).err().map(|error| format!("{error:#}")),
    }
}

fn item(from: impl Into<PathBuf>, place: impl Into<String>) -> Result<Item> {
    let item = Item { from: from.into(), place: place.into() };
    if !item.from.exists() {
        bail!("{} is not there", item.from.display());
    }
    Ok(item)
}

fn rust() -> Result<Vec<Item>> {
    let sysroot = PathBuf::from(sh::output(sh::command("rustc").args(["--print", "sysroot"]))?.trim());
    let name = sysroot.file_name().context("a toolchain has no name")?.to_string_lossy().into_owned();
    let to = format!(".rustup/toolchains/{name}");
    let mut all = Vec::new();
    for program in ["cargo", "rustc"] {
        all.push(item(sysroot.join("bin").join(program), format!("{to}/bin/{program}"))?);
    }
    // The sanitizers' archives and the sources are most of a toolchain's size and no job links them.
    let target = "lib/rustlib/x86_64-unknown-linux-gnu";
    for (dir, wanted) in [("lib", ".so"), (&format!("{target}/lib") as &str, ".r"), (target, "bin")] {
        for entry in fs::read_dir(sysroot.join(dir)).with_context(|| format!("cannot list {dir}"))? {
            let name = entry.context("cannot list a toolchain")?.file_name().to_string_lossy().into_owned();
            let library = dir != target && (name.contains(wanted) || name.contains(".so"));
            if library || name == wanted {
                all.push(item(sysroot.join(dir).join(&name), format!("{to}/{dir}/{name}"))?);
            }
        }
    }
    // With rustup, `cargo` is a link to it that finds the toolchain by settings below the home; so people have it.
    if let Some(rustup) = paths::program("rustup") {
        let settings = format!("version = \"12\"\nprofile = \"minimal\"\ndefault_toolchain = \"{name}\"\n");
        let key = Parts::of("work-rustup 1").with("settings", &settings).key();
        let entry = store::ensure("work-rustup", &key, |dir| {
            fs::write(dir.join("settings.toml"), &settings).context("cannot write rustup's settings")
        })?;
        all.push(item(entry.join("settings.toml"), ".rustup/settings.toml")?);
        all.push(item(rustup, ".cargo/bin/rustup")?);
    }
    Ok(all)
}

fn node() -> Result<Vec<Item>> {
    let node = paths::program("node").context("node is not installed here")?;
    let npm = paths::program("npm").context("npm is not installed here")?;
    let npm = npm.canonicalize().context("cannot find npm")?;
    // …/npm/bin/npm-cli.js
    let library = npm.parent().and_then(Path::parent).context("npm lies in no folder")?;
    Ok(vec![item(node.canonicalize()?, ".local/bin/node")?, item(library, ".local/lib/node_modules/npm")?])
}

fn wheels() -> Result<Vec<Item>> {
    let key = Parts::of("work-wheels 1").with("packages", "pytest").key();
    let entry = store::ensure("work-wheels", &key, |dir| {
        ui::step("pytest, for a virtual environment", || {
            let mut pip = sh::command("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
            sh::quiet(pip.arg("--dest").arg(dir.join("wheels")).arg("pytest"))
        })
    })?;
    Ok(vec![item(entry.join("wheels"), "wheels")?])
}

fn claude() -> Result<Vec<Item>> {
    let modules = from_registry(CLAUDE)?;
    Ok(vec![item(modules.join(CLAUDE.1).join("claude"), ".local/share/claude/claude")?])
}

fn codex() -> Result<Vec<Item>> {
    let modules = from_registry(CODEX)?;
    let vendor = format!("{}/vendor/x86_64-unknown-linux-musl", CODEX.1);
    let part =
        |name: &str| item(modules.join(&vendor).join(name), format!(".npm-global/lib/node_modules/{vendor}/{name}"));
    // Not its voice, and not its bubblewrap: inside an agent it runs without a sandbox of its own.
    Ok(vec![part("bin/codex")?, part("codex-path")?])
}

/// Installs a client with npm and returns the folder of the modules.
fn from_registry((package, platform): (&str, &str)) -> Result<PathBuf> {
    let key = Parts::of("work-client 1").with("package", package).with("platform", platform).key();
    let entry = store::ensure("work-client", &key, |dir| {
        ui::step(&format!("{package} from the npm registry"), || {
            let mut npm = sh::command("npm");
            npm.args(["install", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix"]).arg(dir);
            sh::quiet(npm.arg(package))
        })
    })?;
    let modules = entry.join("node_modules");
    let manifest = fs::read(modules.join(package).join("package.json")).context("npm installed nothing")?;
    let manifest: Value = serde_json::from_slice(&manifest).context("a package describes itself wrongly")?;
    ui::note(format!("{package} {}", manifest["version"].as_str().unwrap_or("?")));
    Ok(modules)
}
