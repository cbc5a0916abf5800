//! The commands, one a file.

mod bench;
mod build;
mod ci;
mod demo;
pub(crate) mod install;
mod setup;
mod sim;
mod test;
mod tidy;
mod vm;
mod work;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use lexopt::{Arg, Parser};

use crate::{store, ui};

const HELP: &str = "\
The project's script.

Usage: cargo xtask COMMAND [ARGUMENTS]

  demo      show an agent at work, confined, refused, explained, frozen and set free
  setup     install what building and testing need; says what first
  build     build the BPF programs, the sample reducers, the daemon and the command
  install   stage what was built into a folder, as a package would
  test      every test, natively and in machines with three kernels
  sim       worlds in a simulation of everything around them, seed by seed
  ci        the same with everything on, and a summary of what was covered
  bench     measure what is promised, beside its peers
  tidy      formatting, lints, file heads, links
  vm        run a command or a shell in a fresh virtual machine
  work      do real work inside the profile coding: git, make, cargo, npm, pytest, Claude Code, Codex

`cargo xtask COMMAND --help` tells more, with examples.
`--fresh` with any command ignores every cache.
";

/// Runs what the command line asks for.
pub(crate) fn dispatch() -> Result<ExitCode> {
    let mut words = Parser::from_env();
    match words.next()? {
        None => usage(HELP),
        Some(Arg::Short('h') | Arg::Long("help")) => help(HELP),
        Some(Arg::Value(name)) => match name.to_string_lossy().as_ref() {
            "setup" => setup::run(words),
            "build" => build::run(words),
            "install" => install::run(words),
            "test" => test::run(words),
            "ci" => ci::run(words),
            "bench" => bench::run(words),
            "demo" => demo::run(words),
            "sim" => sim::run(words),
            "tidy" => tidy::run(words),
            "vm" => vm::run(words),
            "work" => work::run(words),
            "help" => help(HELP),
            other => Err(misuse(format!("no command is called {other}; see `cargo xtask --help`"))),
        },
        Some(other) => Err(other.unexpected().into()),
    }
}

/// The status of a failure of this tool. Under `vm exec` it is 125, as with env(1): 1 belongs to the command.
pub(crate) fn status_of_failure() -> u8 {
    let words: Vec<_> = std::env::args_os().skip(1).take(2).collect();
    if words == ["vm", "exec"] { 125 } else { 1 }
}

/// A command line that makes no sense; ends with status 2.
fn misuse(why: String) -> anyhow::Error {
    lexopt::Error::from(why).into()
}

/// Prints help because it was asked for.
fn help(text: &str) -> Result<ExitCode> {
    ui::say(text.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Prints help because the command line makes no sense.
fn usage(text: &str) -> Result<ExitCode> {
    ui::note(text.trim_end());
    Ok(ExitCode::from(2))
}

/// Options that every command takes. `None` if the argument is not one of them.
fn common<'a>(arg: &Arg<'_>, text: &'a str) -> Option<Common<'a>> {
    match arg {
        Arg::Short('h') | Arg::Long("help") => Some(Common::Help(text)),
        Arg::Long("fresh") => {
            store::ignore_caches();
            Some(Common::Taken)
        }
        _ => None,
    }
}

/// What a common option wants.
enum Common<'a> {
    Help(&'a str),
    Taken,
}

/// The value of an option as text.
fn text(words: &mut Parser) -> Result<String> {
    string(words.value()?)
}

fn string(word: OsString) -> Result<String> {
    word.into_string().ok().context("an argument is not UTF-8")
}
