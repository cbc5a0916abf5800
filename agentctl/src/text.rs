//! Text for people: harmless, short, and in the words of the glossary.

use std::borrow::Cow;
use std::io;

use agentd_model::Duration;

/// Text that somebody else chose, with everything that a terminal would obey made visible.
///
/// An agent names its files and processes as it likes. Control characters (C0 and C1) and those that change the direction
/// of writing are printed as `\u{1b}`.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if obeyed(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A command as one would type it.
pub(crate) fn command_line(argv: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%^~".contains(c);
    let words = argv.iter().map(|word| {
        let word = clean(word);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// CPU time with the precision that a person can use: `412ms`, `3.2s`, `1h5m`.
pub(crate) fn cpu(ns: u64) -> String {
    Duration(ns).to_string()
}

/// CPU time used and allowed.
pub(crate) fn cpu_of(spent_ns: u64, limit_ns: Option<u64>) -> String {
    match limit_ns {
        Some(limit) => format!("{}/{}", cpu(spent_ns), cpu(limit)),
        None => cpu(spent_ns),
    }
}

/// `1 refusal`, `2 refusals`.
pub(crate) fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// What the operating system said, in its own words and in the style of ours.
pub(crate) fn os_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    // An abbreviation keeps its capitals.
    if letters.clone().next().is_some_and(char::is_uppercase) { text.to_owned() } else { first + letters.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_made_visible() {
        assert_eq!(clean("/home/zoë/a b"), "/home/zoë/a b");
        assert_eq!(clean("a\u{1b}[2Jb\n\u{9b}c\u{202e}"), "a\\u{1b}[2Jb\\n\\u{9b}c\\u{202e}");
    }

    #[test]
    fn commands_are_quoted_where_they_must_be() {
        let argv = ["sh", "-c", "echo 'hi' | cat", "", "a=b"].map(String::from);
        assert_eq!(command_line(&argv), r"sh -c 'echo '\''hi'\'' | cat' '' a=b");
    }

    #[test]
    fn errors_of_the_system_are_lower_case_and_short() {
        assert_eq!(os_error(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(os_error(&io::Error::other("EOF too early")), "EOF too early");
    }
}
