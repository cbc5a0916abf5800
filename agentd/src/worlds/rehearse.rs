//! A world run again: as it was, to see that it was so; or under other definitions, to see what would be different.

use std::path::Path;

use agentd_air::Definitions;
use agentd_engine::{Divergence, Entry, HostFailure, Input, Replay, Report, State, project, shadow};
use agentd_model::{Event, Seq, Stamp};

use super::disk::{each_after, state_in};
use super::reducers::WorldReducers;
use crate::journal::{ReadError, Reader};

/// Why a world could not be run again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RehearseError {
    /// Its journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It comes out differently.
    #[error(transparent)]
    Diverged(#[from] Divergence),
    /// This host cannot run a reducer.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

/// What a replay has seen.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The state at the end.
    pub state: State,
    /// Where it began: the first record, or where a state was saved.
    pub from: Seq,
    /// Records that were compared.
    pub records: u64,
}

/// Runs every input of a journal again and compares every record.
pub fn replay(path: &Path, reducers: &WorldReducers, mut seen: impl FnMut(Seq)) -> Result<Replayed, RehearseError> {
    let reader = Reader::snapshot(path)?;
    let first = reader.page::<Entry>(None, Seq(0), 1)?.pop();
    let mut state = State::default();
    let mut from = Seq(0);
    if let Some((record, _)) = first.filter(|(record, _)| record.seq > Seq(1))
        && let Some((at, bytes)) = reader.saved(record.seq)?
        && let Some(saved) = State::restore(&bytes)
    {
        state = saved;
        state.fold(record.seq, record.stamp, &record.event);
        from = at;
    }
    let mut replay = Replay::new(state);
    let (mut records, mut failed) = (0, None);
    each_after(&reader, from, |record, _| match replay.take(reducers, record) {
        Ok(()) => {
            records += 1;
            seen(record.seq);
            true
        }
        Err(error) => {
            failed = Some(error);
            false
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Replayed { state: replay.finish()?, from, records }),
    }
}

/// Rehearses other definitions on the last `most` inputs of a world, and on as many events of the host that only they
/// listen to.
pub fn rehearse(
    path: &Path,
    host: &Path,
    name_of: impl Fn(agentd_model::AgentNumber) -> Option<String>,
    candidate: Definitions,
    most: usize,
    reducers: &WorldReducers,
) -> Result<Report, RehearseError> {
    let reader = Reader::snapshot(path)?;
    let mut inputs: Vec<(Stamp, Seq, Entry)> = Vec::new();
    let newest = reader.head()?.map_or(Seq(0), |(head, _)| head.seq);
    // Backwards by pages until there are enough, or no older ones any more.
    let mut before = newest;
    let floor = Seq(reader.first()?.map_or(0, |first| first.0 - 1));
    while before > floor && inputs.len() < most {
        let after = Seq(before.0.saturating_sub(1024)).max(floor);
        let page = reader.page::<Entry>(None, after, (before.0 - after.0) as u32)?;
        let mut older: Vec<_> = page
            .into_iter()
            .filter(|(record, _)| record.event.is_input() && !is_bookkeeping(&record.event))
            .map(|(record, _)| (record.stamp, record.seq, record.event))
            .collect();
        older.append(&mut inputs);
        inputs = older;
        before = after;
    }
    let cut = inputs.len().saturating_sub(most);
    let inputs = inputs.split_off(cut);
    let then = match inputs.first() {
        Some((_, seq, _)) => state_in(&reader, Seq(seq.0 - 1))?,
        None => state_in(&reader, newest)?,
    };
    let now = state_in(&reader, newest)?;
    let heard = heard(host, &now, &candidate, most, name_of)?;
    let inputs: Vec<_> = inputs.into_iter().map(|(stamp, _, entry)| (stamp, entry)).collect();
    Ok(shadow(&then, candidate, &inputs, &heard, reducers)?)
}

/// What the journal says of itself, which is the same in every line.
fn is_bookkeeping(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Begun { .. }
            | Entry::StateSaved { .. }
            | Entry::KeyRotated { .. }
            | Entry::TakenOver { .. }
            | Entry::Pruned { .. }
    )
}

/// The newest events of the host that the candidate listens to and the world does not.
fn heard(
    host: &Path,
    now: &State,
    candidate: &Definitions,
    most: usize,
    name_of: impl Fn(agentd_model::AgentNumber) -> Option<String>,
) -> Result<Vec<(Stamp, Input)>, ReadError> {
    let fresh: Vec<_> = agentd_air::host_events()
        .filter(|name| candidate.subscribes(name) && !now.definitions().subscribes(name))
        .collect();
    if fresh.is_empty() {
        return Ok(vec![]);
    }
    let reader = Reader::open(host)?;
    let newest = reader.head()?.map_or(Seq(0), |(head, _)| head.seq);
    let mut heard: Vec<(Stamp, Input)> = Vec::new();
    let mut before = newest;
    while before > Seq(0) && heard.len() < most {
        let after = Seq(before.0.saturating_sub(1024));
        let page = reader.page::<Event>(None, after, (before.0 - after.0) as u32)?;
        let mut older: Vec<_> = page
            .iter()
            .filter_map(|(record, hash)| {
                let (schema, value) = project(record, &name_of).filter(|(schema, _)| fresh.contains(&schema))?;
                Some((record.stamp, Input::Host { schema, value, seq: record.seq, hash: *hash }))
            })
            .collect();
        older.append(&mut heard);
        heard = older;
        before = after;
    }
    let cut = heard.len().saturating_sub(most);
    let mut heard = heard.split_off(cut);
    // What is rehearsed is another line: the host's records are new to it.
    heard.sort_by_key(|(_, input)| match input {
        Input::Host { seq, .. } => *seq,
        _ => Seq(0),
    });
    Ok(heard)
}
