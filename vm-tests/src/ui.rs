//! The only place that writes to the terminal.

use std::io::{self, Write};

/// Writes a line to standard output, at once: somebody may wait for it at the other end of a pipe.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    // A closed pipe is no error.
    let _ = out.write_all(format!("{text}\n").as_bytes());
    let _ = out.flush();
}

/// Writes a line to standard error.
pub(crate) fn complain(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
