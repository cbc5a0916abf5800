//! `cargo xtask install`: puts what was built where a package would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser};

use super::{Common, common, help, text, usage};
use crate::hash::Parts;
use crate::{paths, sh, store, ui};

const HELP: &str = "\
Stage what was built into a folder, as a package would install it.

Usage: cargo xtask install --destdir DIR [--prefix /usr]

Programs, the systemd unit, man pages and shell completions. Nothing is built: run `cargo xtask build` first.

Examples:
  cargo xtask install --destdir /tmp/stage
  sudo cargo xtask install --destdir / --prefix /usr/local
";

const PROGRAMS: [&str; 2] = ["agentd", "agentctl"];

/// Completion files: the shell, the folder under the prefix, the file.
const COMPLETIONS: [(&str, &str, &str); 3] = [
    ("bash", "share/bash-completion/completions", "agentctl"),
    ("zsh", "share/zsh/site-functions", "_agentctl"),
    ("fish", "share/fish/vendor_completions.d", "agentctl.fish"),
];

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let (mut destdir, mut prefix) = (None, String::from("/usr"));
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("destdir") => destdir = Some(PathBuf::from(words.value()?)),
            Arg::Long("prefix") => prefix = text(&mut words)?,
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    let Some(destdir) = destdir else { return usage(HELP) };
    for path in stage(&destdir, &prefix)? {
        ui::say(path.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// The staged tree of what is built now; made again only when a program or the unit changed.
pub(crate) fn staged() -> Result<PathBuf> {
    let mut parts = Parts::of("stage 1");
    for name in PROGRAMS {
        parts = parts.with_file(name, &built(name)?)?;
    }
    if unit().exists() {
        parts = parts.with_file("unit", &unit())?;
    }
    let entry = store::ensure("stage", &parts.key(), |dir| stage(&dir.join("root"), "/usr").map(|_| ()))?;
    store::trim("stage", 4)?;
    Ok(entry.join("root"))
}

fn built(name: &str) -> Result<PathBuf> {
    let path = paths::shipped(name);
    if !path.is_file() {
        bail!("{name} is not built; run `cargo xtask build`, or use --bare for a machine without it");
    }
    Ok(path)
}

fn unit() -> PathBuf {
    paths::root().join("agentd/agentd.service")
}

/// Copies everything under `destdir` and returns what is there now.
fn stage(destdir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let prefix = destdir.join(prefix.trim_start_matches('/'));
    let mut placed = Vec::new();
    for name in PROGRAMS {
        let to = prefix.join("bin").join(name);
        place(&to, &fs::read(built(name)?).with_context(|| format!("cannot read {name}"))?, 0o755)?;
        placed.push(to);
    }
    if unit().exists() {
        let to = prefix.join("lib/systemd/system/agentd.service");
        place(&to, &fs::read(unit()).context("cannot read the unit")?, 0o644)?;
        placed.push(to);
    }
    let agentctl = built("agentctl")?;
    for (shell, dir, file) in COMPLETIONS {
        let mut ask = sh::command(&agentctl.to_string_lossy());
        if let Ok(script) = sh::output(ask.args(["completions", shell])) {
            let to = prefix.join(dir).join(file);
            place(&to, script.as_bytes(), 0o644)?;
            placed.push(to);
        }
    }
    let pages = prefix.join("share/man/man1");
    fs::create_dir_all(&pages).with_context(|| format!("cannot create {}", pages.display()))?;
    if sh::succeeds(sh::command(&agentctl.to_string_lossy()).arg("man").arg("--dir").arg(&pages)) {
        placed.push(pages);
    }
    Ok(placed)
}

fn place(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        // A program that runs cannot be written to, but it can be replaced.
        let temporary = to.with_extension("new");
        fs::write(&temporary, bytes)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        fs::rename(&temporary, to)
    };
    write().with_context(|| format!("cannot install {}", to.display()))
}
