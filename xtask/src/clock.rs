//! The only place in this crate that reads a clock.
//!
//! A tool that reports how long its steps took has to; nothing it builds depends on the answer, except the time that a
//! restored machine is told.

#![expect(clippy::disallowed_methods, reason = "a build tool measures its own steps; no replay depends on them")]

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Measures from its start.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl fmt::Display for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.elapsed().as_secs_f64())
    }
}

/// A moment by which something must have happened.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// That long from now.
    pub(crate) fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// True once the moment has come.
    pub(crate) fn passed(self) -> bool {
        Instant::now() >= self.0
    }
}

/// Seconds since 1970 with fractions, as `date -s @…` takes them.
pub(crate) fn unix_seconds() -> f64 {
    now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The wall clock, for time stamps of files only.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
