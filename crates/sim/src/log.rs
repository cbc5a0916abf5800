//! What a story leaves behind: its lines, which are the same for the same seed, and how often what happened.

use std::collections::BTreeMap;

use agentd_engine::Entry;

/// Lines in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// The lines.
    pub(crate) lines: Vec<String>,
    /// How often what happened.
    pub(crate) tally: Tally,
}

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

impl Tally {
    /// Adds another story's.
    pub fn add(&mut self, other: &Tally) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// How often this happened.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

impl Log {
    /// Writes a line and counts what it is about.
    pub(crate) fn line(&mut self, what: &'static str, text: impl std::fmt::Display) {
        self.count(what, 1);
        self.lines.push(format!("{what}: {text}"));
    }

    /// Counts what only a record tells.
    pub(crate) fn record(&mut self, entry: &Entry) {
        match entry {
            Entry::Applied { fenced, .. } => self.count("fenced", fenced.len() as u64),
            Entry::WantedAgain { .. } => self.count("wanted again", 1),
            Entry::PlanWent { ended: Some(_), .. } => self.count("plans ended", 1),
            Entry::Cut { .. } => self.count("cascades cut", 1),
            Entry::StateSaved { .. } => self.count("saved", 1),
            _ => {}
        }
    }

    /// Only counts.
    pub(crate) fn count(&mut self, what: &'static str, by: u64) {
        *self.tally.0.entry(what).or_default() += by;
    }
}
