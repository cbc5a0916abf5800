//! The command line of agentd.
//!
//! A command is one file under `command/`: its arguments, whose doc comments are its help, and what it does. It asks the
//! daemon through [`client`], and prints through [`ui`], the only writer to the terminal: answers to standard output,
//! everything else to standard error. What goes wrong becomes a [`failure::Failure`], which carries the exit code and is
//! printed once, here.
//!
//! **Invariant:** nothing that an agent chose (names of files, programs, processes) reaches the terminal without
//! [`text::clean`], except its own output in `spawn`, `attach` and `logs`.
//!
//! Not here: decisions. What is allowed and what a refusal means is the daemon's to say; this program shows it.

#![forbid(unsafe_code)]

mod clock;
mod failure;
mod text;
mod ui;

mod client;
mod signal;

mod session;
mod terminal;

mod event_text;
mod table;

mod cli;
mod command;

use std::panic::{catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use failure::{Exit, Failure};
use ui::Ui;

fn main() -> ExitCode {
    // A bug is told once the terminal is its own again, which is after the unwinding.
    let bug = Arc::new(Mutex::new(Failure::new(Exit::Bug, "agentctl broke off")));
    let told = bug.clone();
    set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or("a broken invariant");
        let place = panic.location().map(|place| format!("at {place}")).unwrap_or_default();
        if let Ok(mut bug) = told.lock() {
            *bug = Failure::new(Exit::Bug, text).cause(place).hint("agentctl --version");
        }
    }));
    catch_unwind(|| cli::run(std::env::args_os())).unwrap_or_else(|_| {
        if let Ok(bug) = bug.lock() {
            Ui::new(false, false, false).failure(&bug);
        }
        ExitCode::from(Exit::Bug.code())
    })
}
