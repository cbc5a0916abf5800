//! The project's one script: sets a machine up, builds, installs, tests, and runs virtual machines.
//!
//! Each command is one file under `cmd/`, and the help of a command is a constant in its file. What the commands share
//! stands below in reading order: the terminal, processes, the cache, the Debian archive, the toolchains, machines.
//!
//! Everything that takes long to make is made once per *content*: a cache entry's name is a hash of all that goes into
//! it, so a stale entry can be forgotten but never used.

#![forbid(unsafe_code)]

mod clock;
mod ui;

mod paths;
mod sh;
mod signal;

mod hash;
mod store;
mod tar;

mod apt;
mod toolchain;
mod vm;
mod wasm;

mod bench;
mod demo;
mod work;

mod cmd;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cmd::dispatch() {
        Ok(code) => code,
        Err(error) => {
            ui::error(&error);
            let usage = error.is::<lexopt::Error>();
            ExitCode::from(if signal::pending() {
                130
            } else if usage {
                2
            } else {
                cmd::status_of_failure()
            })
        }
    }
}
