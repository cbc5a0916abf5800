//! Records for people and programs: read from disk, then followed as they come.

use std::collections::VecDeque;
use std::sync::Arc;

use agentd_journal::{Hash, Record};
use agentd_model::{AgentNumber, Seq};
use agentd_protocol::{AuditParams, ErrorCode, ErrorObject, LINE_LIMIT};
use agentd_world::State;
use serde_json::Value;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::Service;
use super::views::record_view;
use crate::core::World;
use crate::journal::Reader;

/// Records given where the request does not say how many.
const DEFAULT_LAST: u32 = 1000;
/// Most that are read from the disk at a time; whoever wants more asks for those after the last, or follows.
const PAGE: u32 = 4096;

/// A series of records: first those on disk, then the new ones, each once.
pub(super) struct Follow {
    world: World,
    live: Receiver<Arc<(Record, Hash)>>,
    agent: Option<AgentNumber>,
    last: Seq,
    journal: std::path::PathBuf,
    /// A page of what is on disk and has not been given yet.
    missed: VecDeque<(Record, Hash)>,
    /// Whether the disk may have more than that.
    behind: bool,
}

/// Records of the past.
pub(super) fn read(params: &AuditParams, agent: Option<AgentNumber>, service: &Service) -> Result<Value, ErrorObject> {
    let records = list(&service.places.journal(), agent, params)?;
    Ok(Value::Array(fitting(&service.world.state(), &records)))
}

/// As many records, oldest first, as fit on a line; whoever wants more asks for those after the last.
fn fitting(state: &State, records: &[(Record, Hash)]) -> Vec<Value> {
    let mut room = LINE_LIMIT - (16 << 10);
    let mut fitting = Vec::new();
    for (record, hash) in records {
        let view = record_view(state, record, *hash);
        let bytes = view.to_string().len() + 1;
        match room.checked_sub(bytes) {
            Some(rest) => room = rest,
            None => break,
        }
        fitting.push(view);
    }
    fitting
}

fn list(
    journal: &std::path::Path,
    agent: Option<AgentNumber>,
    params: &AuditParams,
) -> Result<Vec<(Record, Hash)>, ErrorObject> {
    let after = Seq(params.after.unwrap_or(0));
    let read = |reader: Reader| match (params.last, params.after) {
        (None, Some(_)) => reader.page(agent, after, PAGE),
        (last, _) => reader.list(agent, after, last.unwrap_or(DEFAULT_LAST).min(16 * PAGE)),
    };
    Reader::open(journal).and_then(read).map_err(|error| ErrorObject::from_error(ErrorCode::Failed, &error))
}

impl Follow {
    /// Begins to follow. The live end is opened first, so that nothing falls between it and the disk.
    pub(super) fn new(
        params: &AuditParams,
        agent: Option<AgentNumber>,
        service: &Service,
    ) -> Result<(Value, Follow), ErrorObject> {
        let live = service.world.follow();
        let journal = service.places.journal();
        let past = list(&journal, agent, params)?;
        let state = service.world.state();
        let fitting = fitting(&state, &past);
        // What does not fit on the first line follows as if it had just come.
        let missed: VecDeque<_> = past[fitting.len()..].to_vec().into();
        let shown = past[..fitting.len()].last();
        let last = shown.map_or(Seq(params.after.unwrap_or(0)), |(record, _)| record.seq);
        let (world, behind) = (service.world.clone(), true);
        Ok((Value::Array(fitting), Follow { world, live, agent, last, journal, missed, behind }))
    }

    /// The next record, or the end of the daemon.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            let (record, hash) = match self.missed.pop_front() {
                Some(found) => found,
                None if self.behind => {
                    let params = AuditParams { after: Some(self.last.0), ..Default::default() };
                    self.missed = list(&self.journal, self.agent, &params).ok()?.into();
                    self.behind = !self.missed.is_empty();
                    continue;
                }
                None => match self.live.recv().await {
                    Ok(found) => (found.0.clone(), found.1),
                    Err(RecvError::Lagged(_)) => {
                        // Too slow for the live end: what was missed is on disk.
                        self.behind = true;
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
            };
            let wanted = self.agent.is_none() || self.agent == record.event.agent();
            if record.seq > self.last && wanted {
                self.last = record.seq;
                return Some(record_view(&self.world.state(), &record, hash));
            }
        }
    }
}
