//! The only writer to the terminal.
//!
//! Standard output carries answers; progress, warnings and errors go to standard error, so that `vm exec -- cmd > file`
//! holds exactly what the command printed.

#![expect(clippy::print_stdout, reason = "this file is the one that may")]

use std::io::{self, IsTerminal, Write};

use crate::clock::Stopwatch;

/// Prints a line of the answer.
pub(crate) fn say(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// Prints a line about what is going on.
pub(crate) fn note(line: impl AsRef<str>) {
    eprintln!("{}", line.as_ref());
}

/// Copies bytes of a running command through, unchanged and at once.
pub(crate) fn pass_out(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    // A reader that has gone away is not our failure; the command's status still counts.
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// The same for its error stream.
pub(crate) fn pass_err(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Prints an error with its causes, one a line.
pub(crate) fn error(error: &anyhow::Error) {
    let (bold, plain) = if colour() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    eprintln!("{bold}error:{plain} {error}");
    let mut above = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some libraries print their source themselves.
        if cause != above {
            eprintln!("cause: {cause}");
        }
        above = cause;
    }
}

/// Runs a step that takes noticeable time, and says so before and after.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    note(format!("  .. {name}"));
    let watch = Stopwatch::start();
    let done = work();
    match &done {
        Ok(_) => note(format!("  ok {name} ({watch})")),
        Err(_) => note(format!("FAIL {name} ({watch})")),
    }
    done
}

/// True if a person looks at standard error and did not ask for plain text.
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
