//! What scenarios are made of: trees of files, processes that try things, agents, and the list of what did not hold.
//!
//! A failed expectation is noted and the scenario goes on, so that one run shows everything; only what makes the rest
//! meaningless (no agent, no answer) ends it.

mod agent;
mod case;
mod ctl;
mod place;
mod rpc;
mod tree;

pub(crate) use self::agent::{Agent, Detached, Options};
pub(crate) use self::case::{Bench, Case, Expect, case};
pub(crate) use self::ctl::{
    Output, agentctl, agentctl_as, daemon_pid, json, program, signal_daemon, start_daemon, stop_daemon, view,
};
pub(crate) use self::place::{Outcome, Place, own_program};
pub(crate) use self::rpc::Wire;
pub(crate) use self::tree::{FileSystem, Tree};

use crate::ui;

/// The user that agents run as.
pub(crate) const DEV: u32 = 1000;

/// What did not hold so far.
#[derive(Debug, Default)]
pub(crate) struct Test {
    failures: Vec<String>,
    checks: u32,
}

impl Test {
    /// Notes a claim that does not hold.
    pub(crate) fn check(&mut self, holds: bool, claim: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.fail(claim());
        }
    }

    /// Two values that have to be the same.
    pub(crate) fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, wanted: T) {
        self.check(found == wanted, || format!("{what}: {found:?} instead of {wanted:?}"));
    }

    /// A text that has to contain another.
    pub(crate) fn contains(&mut self, what: &str, text: &str, part: &str) {
        self.check(text.contains(part), || format!("{what}: {part:?} is not in {:?}", text.trim()));
    }

    /// Notes something that did not hold.
    pub(crate) fn fail(&mut self, what: String) {
        ui::line(&format!("not ok: {what}"));
        self.failures.push(what);
    }

    /// Whether everything held so far.
    pub(crate) fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    /// How many claims were looked at, and those that did not hold.
    pub(crate) fn result(self) -> (u32, Vec<String>) {
        (self.checks, self.failures)
    }
}

/// Release of the running kernel, as `6.12`.
pub(crate) fn kernel() -> String {
    let release =
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    release.split(['.', '-', '+']).take(2).collect::<Vec<_>>().join(".")
}
