//! The only writer to the terminal: answers to standard output, everything else to standard error.

#![expect(clippy::print_stdout, reason = "this file is the one that may")]

/// Prints a line of the answer.
pub(crate) fn say(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// Prints a line about what is going on.
pub(crate) fn note(line: impl AsRef<str>) {
    eprintln!("{}", line.as_ref());
}
