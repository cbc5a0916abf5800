//! What libbpf says, kept instead of printed.
//!
//! libbpf explains failures only through one process-wide print function. While a [`Capture`] lives, its words are
//! collected; they become part of the error. Captures exclude each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use libbpf_rs::{PrintLevel, set_print};

/// Longest text that is kept; a verifier log is told from its end.
const LIMIT: usize = 1 << 20;

static TURN: Mutex<()> = Mutex::new(());
static WORDS: Mutex<String> = Mutex::new(String::new());

/// Collects what libbpf says.
pub(crate) struct Capture {
    _turn: MutexGuard<'static, ()>,
}

impl Capture {
    pub(crate) fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        WORDS.lock().unwrap_or_else(PoisonError::into_inner).clear();
        set_print(Some((PrintLevel::Info, collect)));
        Self { _turn: turn }
    }

    /// What was said so far, at most so many lines from the end. That an object of some name did not load says nothing.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<&str> = words.lines().filter(|line| !line.contains("failed to load object")).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        set_print(None);
    }
}

fn collect(_level: PrintLevel, text: String) {
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if words.len() + text.len() <= LIMIT {
        words.push_str(&text);
    } else if text.len() <= LIMIT {
        *words = text;
    }
}
