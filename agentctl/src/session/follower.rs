//! What the daemon has to say about the agent in front of us: that its budget is spent, that somebody froze it.
//!
//! Nothing depends on it. It is not opened for a session that is over in an instant, and when it breaks it is opened
//! again after a while: the daemon may be restarting.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use agentd_model::{Event, Principal};
use agentd_protocol::{AuditParams, Method, RecordView};

use crate::client::Client;
use crate::clock::Stopwatch;
use crate::text;

/// A session that lasts this long is worth a second connection.
const FIRST: Duration = Duration::from_millis(250);
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(2);
/// A line that has begun must be whole by then; the session waits for it.
const WHOLE_LINE: Duration = Duration::from_millis(200);
/// Enough of the past to tell whether the agent is frozen now.
const PAST: u32 = 32;

/// The second connection.
pub(super) struct Follower<'a> {
    socket: &'a Path,
    name: &'a str,
    client: Option<Client>,
    since: Stopwatch,
    wait: Duration,
    seen: u64,
    notices: Vec<String>,
}

impl<'a> Follower<'a> {
    /// Not connected yet.
    pub(super) fn new(socket: &'a Path, name: &'a str) -> Follower<'a> {
        let since = Stopwatch::start();
        Follower { socket, name, client: None, since, wait: FIRST, seen: 0, notices: Vec::new() }
    }

    /// How long until there is something to do without anything having been said.
    pub(super) fn due(&self) -> Option<Duration> {
        match &self.client {
            Some(client) if client.has_line() => Some(Duration::ZERO),
            Some(_) => None,
            None => Some(self.wait.saturating_sub(self.since.elapsed())),
        }
    }

    /// What to poll.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.client.as_ref().map(AsFd::as_fd)
    }

    /// Connects where it is time to, and reads where there is something.
    pub(super) fn turn(&mut self, speaks: bool) {
        let Some(client) = &mut self.client else {
            if self.since.elapsed() >= self.wait {
                self.client = self.open();
                (self.since, self.wait) = (Stopwatch::start(), AGAIN);
            }
            return;
        };
        if !speaks && !client.has_line() {
            return;
        }
        match client.records() {
            Ok(Some(records)) => self.take(&records),
            _ => (self.client, self.since) = (None, Stopwatch::start()),
        }
    }

    /// What is to be told, once.
    pub(super) fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn open(&self) -> Option<Client> {
        let mut client = Client::connect(self.socket).ok()?;
        client.limit_wait(WHOLE_LINE).ok()?;
        let params = AuditParams { agent: Some(self.name.to_owned()), after: None, last: Some(PAST) };
        client.send(&Method::AuditFollow(params)).ok()?;
        Some(client)
    }

    /// Of several records, the last that matters tells how things stand now.
    fn take(&mut self, records: &[RecordView]) {
        let new = records.iter().filter(|record| record.seq > self.seen);
        let told = new.filter_map(|record| tell(&record.event, self.name)).next_back();
        self.seen = self.seen.max(records.last().map_or(0, |record| record.seq));
        // How it came to run as it always did is nothing to tell at the beginning.
        self.notices.extend(told.filter(|told| records.len() == 1 || told.frozen).map(|told| told.text));
    }
}

struct Told {
    text: String,
    frozen: bool,
}

/// What a person in front of the agent wants to know at once.
fn tell(event: &Event, name: &str) -> Option<Told> {
    let frozen = |text| Some(Told { text, frozen: true });
    let thawed = |text| Some(Told { text, frozen: false });
    match event {
        Event::BudgetExhausted { limit, .. } => frozen(format!(
            "{name} has used its CPU budget of {limit} and is frozen; agentctl budget topup {name} cpu:{limit}"
        )),
        Event::BudgetToppedUp { added, by, .. } => thawed(format!("{} gave {name} {added} more CPU time", who(by))),
        Event::BudgetKilled { spent, .. } => thawed(format!(
            "{name} was killed by the kernel after {} of CPU time, beyond its budget",
            text::cpu(spent.0)
        )),
        Event::AgentPaused { by, .. } => frozen(format!("{} paused {name}; agentctl resume {name}", who(by))),
        Event::AgentResumed { by, .. } => thawed(format!("{} resumed {name}", who(by))),
        _ => None,
    }
}

fn who(by: &Principal) -> String {
    by.to_string()
}
