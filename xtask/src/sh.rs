//! Other programs: run one, and when it refuses, say which and what it said.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::paths;

/// A command by name, also found where only root's PATH looks.
pub(crate) fn command(program: &str) -> Command {
    match paths::program(program) {
        Some(path) => Command::new(path),
        None => Command::new(program),
    }
}

/// Runs to the end with the terminal attached; a status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", render(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", render(command));
    }
    Ok(())
}

/// Runs to the end in silence; what it printed is part of the error if there is one.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Runs to the end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output_bytes(command)?).into_owned())
}

/// Runs to the end and returns what it printed, as bytes.
pub(crate) fn output_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", render(command)))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let tail: Vec<&str> = said.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{}` ended with {}\n{}", render(command), done.status, tail.join("\n"));
    }
    Ok(done.stdout)
}

/// True if it runs and ends with 0; silent either way.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The command as a person would type it.
pub(crate) fn render(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote_os(word).into_owned()).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for a POSIX shell; plain words stay plain.
pub(crate) fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

fn quote_os(word: &OsStr) -> Cow<'_, str> {
    match word.to_str() {
        Some(word) => quote(word),
        None => word.to_string_lossy(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_survives_a_shell() {
        for word in ["plain", "", "two words", "it's", "$HOME `id` \\ \"", "line\nbreak", "--a=b", "*?[x]", "~", "é"] {
            let script = format!("printf %s {}", quote(word));
            let said = output(Command::new("sh").args(["-c", &script])).unwrap();
            assert_eq!(said, word, "{script}");
        }
    }
}
