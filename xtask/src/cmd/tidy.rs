//! `cargo xtask tidy`: what a reviewer should not have to look for.
//!
//! Formatting and lints by Cargo; the rest are rules of this house that no tool knows: every source file says at its head
//! what it is for, files stay readable in one sitting, links between documents resolve, nothing names a place that exists
//! on one machine only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use lexopt::Parser;

use super::build::{self, cargo};
use super::{Common, common, help};
use crate::{paths, sh, toolchain, ui};

const HELP: &str = "\
Check formatting, lints, file heads, file lengths, links.

Usage: cargo xtask tidy

Prints one line for each finding; the status is 1 if there is any. Long files are reported and do not fail.
";

/// A file longer than this is two files.
const LONG: usize = 700;

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    while let Some(arg) = words.next()? {
        match common(&arg, HELP) {
            Some(Common::Help(text)) => return help(text),
            Some(Common::Taken) => {}
            None => return Err(arg.unexpected().into()),
        }
    }
    Ok(if check()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs every check, also after one has failed; true if all is well.
pub(super) fn check() -> Result<bool> {
    let mut well = true;
    let format = ui::step("tidy: cargo fmt --check", || sh::run(cargo().args(["fmt", "--all", "--check"])));
    let lints = ui::step("tidy: cargo clippy", || {
        sh::run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    let reducers = ui::step("tidy: the sample reducers, and what is compiled for WASM only", reducers);
    for result in [format, lints, reducers] {
        if let Err(error) = result {
            ui::error(&error);
            well = false;
        }
    }
    let mut findings = Vec::new();
    for path in files()? {
        let Ok(text) = fs::read_to_string(paths::root().join(&path)) else { continue };
        findings.extend(look(&path, &text).into_iter().map(|finding| format!("{}: {finding}", path.display())));
    }
    for finding in &findings {
        ui::say(finding);
    }
    let failed = findings.iter().filter(|finding| !finding.contains("(only reported)")).count();
    ui::note(format!("tidy: {failed} findings in files"));
    Ok(well && failed == 0)
}

/// Formatting and lints of what the workspace does not hold, or not for this host.
fn reducers() -> Result<()> {
    let to = paths::target().join("wasm/build");
    sh::run(cargo().current_dir(build::samples()).args(["fmt", "--check"]))?;
    let mut samples = cargo();
    samples.current_dir(build::samples()).args(["clippy", "--quiet", "--locked", "--all-targets", "--target-dir"]);
    sh::run(samples.arg(&to).args(["--", "-D", "warnings"]))?;
    let mut sdk = cargo();
    sdk.args(["clippy", "--quiet", "--package", "agentd-reducer", "--target-dir"]).arg(&to);
    toolchain::wasm_rust()?.aim(&mut sdk);
    sh::run(sdk.args(["--", "-D", "warnings"]))
}

/// What git tracks or would, relative to the root.
fn files() -> Result<Vec<PathBuf>> {
    let mut git = sh::command("git");
    git.current_dir(paths::root()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    Ok(sh::output(&mut git)?.lines().map(PathBuf::from).collect())
}

fn look(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if matches!(extension, "rs" | "c" | "h") {
        let head = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let said = head.starts_with("//!") || head.starts_with("/*") || head.contains("SPDX-License-Identifier");
        if !said {
            found.push("does not begin with what it is for (or an SPDX line)".into());
        }
        let lines = text.lines().count();
        if lines > LONG {
            found.push(format!("{lines} lines are too many to read at once (only reported)"));
        }
    }
    if extension == "md" {
        found.extend(dead_links(path, text));
    }
    if matches!(extension, "rs" | "c" | "h" | "toml" | "md" | "sh" | "nix" | "yml") {
        for (number, line) in text.lines().enumerate() {
            // Spelled in two parts, so that this file passes.
            for place in [concat!("/ro", "ot/.car"), concat!("/ro", "ot/.rust"), concat!("/ro", "ot/.cache")] {
                if line.contains(place) {
                    found.push(format!("line {} names a place on one machine: {place}", number + 1));
                }
            }
        }
    }
    found
}

/// Links of a document to files that are not there.
fn dead_links(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let from = paths::root().join(path);
            if !from.parent().unwrap_or(&from).join(target).exists() {
                found.push(format!("line {} links to {target}, which is not there", number + 1));
            }
        }
    }
    found
}

/// The length of the longest file, for the summary of `ci`.
pub(super) fn longest() -> Result<String> {
    let mut longest = (0, PathBuf::new());
    for path in files()?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text =
            fs::read_to_string(paths::root().join(&path)).with_context(|| format!("cannot read {}", path.display()));
        longest = longest.max((text.unwrap_or_default().lines().count(), path));
    }
    Ok(format!("{} with {} lines", longest.1.display(), longest.0))
}
