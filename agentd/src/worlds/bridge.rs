//! What happens on the host, told to the worlds that listen: each event once, in order, also across restarts.
//!
//! A world's state says which record of the host it took last. The bridge reads on from there, in the host's journal, and
//! waits for each answer before the next record, so nothing overtakes. A world that cannot take an event now (its disk is
//! full) is offered it again later; the others do not wait for it.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use agentd_engine::{Input, Refusal, project};
use agentd_model::{Event, Seq};

use super::{AskError, Handle, Worlds};
use crate::core::World;
use crate::journal::Reader;

/// How often worlds are looked at when the host has nothing new: one may have begun to listen.
const IDLE: Duration = Duration::from_millis(500);
/// How long one world keeps the others waiting: it may have much to catch up with, or be taking out old records.
const PATIENCE: Duration = Duration::from_millis(250);
/// Records read at a time.
const PAGE: u32 = 512;

/// Tells the worlds until the daemon stops.
pub(super) async fn run(core: World, journal: std::path::PathBuf, worlds: Weak<Worlds>) {
    let mut fresh = core.follow();
    let mut read: HashMap<std::path::PathBuf, Option<Seq>> = HashMap::new();
    loop {
        let Some(worlds) = worlds.upgrade() else { return };
        for handle in worlds.list() {
            let read = read.entry(handle.path.clone()).or_default();
            match tokio::time::timeout(PATIENCE, tell(&handle, &core, &journal, read)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(world = handle.name, %error, "the world is told later"),
                Err(_busy) => tracing::debug!(world = handle.name, "the world is busy, and told later"),
            }
        }
        drop(worlds);
        // Whoever lags, or is idle, looks at the disk; the record itself is not needed.
        let next = tokio::time::timeout(IDLE, fresh.recv()).await;
        if matches!(next, Ok(Err(tokio::sync::broadcast::error::RecvError::Closed))) {
            return;
        }
    }
}

/// Tells one world what is new. `read` is the record up to which the host's journal was read for it, also if this is cut
/// short; `None`: it does not listen.
async fn tell(
    handle: &Handle,
    core: &World,
    journal: &std::path::Path,
    read: &mut Option<Seq>,
) -> Result<(), AskError> {
    let (listens, cursor) = handle
        .look(|state| {
            let definitions = state.definitions();
            let listens: Vec<_> =
                agentd_air::host_events().filter(|name| definitions.subscribes(name)).cloned().collect();
            (listens, state.host_cursor())
        })
        .await?;
    if listens.is_empty() {
        *read = None;
        return Ok(());
    }
    let mut after = read.unwrap_or(cursor).max(cursor);
    loop {
        let reader = Reader::open(journal);
        let page = reader.and_then(|reader| reader.page::<Event>(None, after, PAGE));
        let page = page.map_err(|error| AskError::NotRecorded(crate::errors::one_line(&error)))?;
        if page.is_empty() {
            *read = Some(after);
            return Ok(());
        }
        let state = core.state();
        for (record, hash) in &page {
            let name_of = |agent| state.agent(agent).map(|agent| agent.name.to_string());
            if let Some((schema, value)) = project(record, name_of).filter(|(schema, _)| listens.contains(schema)) {
                match handle.ask(Input::Host { schema, value, seq: record.seq, hash: *hash }).await {
                    // Taken before: by whoever wrote the state that the cursor was read from.
                    Ok(_) | Err(AskError::Refused(Refusal::Seen(_))) => {}
                    Err(AskError::Refused(refusal)) => {
                        tracing::warn!(world = handle.name, record = %record.seq, %refusal, "an event of the host is not taken");
                    }
                    Err(error) => return Err(error),
                }
            }
            after = record.seq;
            *read = Some(after);
        }
    }
}
