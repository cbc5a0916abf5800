//! Why? From a record back to what brought it about.

use agentd_journal::{Hash, Record};
use agentd_model::{AgentNumber, Event, Seq};
use agentd_protocol::{ErrorCode, ErrorObject, ExplanationView};
use agentd_world::State;

use super::Service;
use super::caller::Caller;
use super::views::record_struct;
use crate::journal::{ReadError, Reader};

/// Records that a chain of causes is followed for.
const LONGEST_CHAIN: usize = 16;

/// Explains one record to somebody who may see its agent.
pub(super) fn explain(seq: Seq, caller: Caller, service: &Service) -> Result<ExplanationView, ErrorObject> {
    let failed = |error: ReadError| ErrorObject::from_error(ErrorCode::Failed, &error);
    let reader = Reader::open(&service.places.journal()).map_err(failed)?;
    let found = reader.get::<Event>(seq).map_err(failed)?;
    let Some((record, hash)) = found else {
        caller.must_operate()?;
        return Err(ErrorObject::new(ErrorCode::Failed, format!("there is no record {seq}")).hint("agentctl audit"));
    };
    match record.event.agent() {
        Some(agent) => caller.must_see(agent)?,
        None => caller.must_operate()?,
    }
    let state = service.world.state();
    let chain = chain(&reader, &record).map_err(failed)?;
    let (what, because, hint) = words(&reader, &state, &record, &chain);
    Ok(ExplanationView {
        what,
        because,
        hint,
        chain: chain.iter().map(|(record, hash)| record_struct(&state, record, *hash)).collect(),
        record: record_struct(&state, &record, hash),
    })
}

/// The records that led to one, newest first.
fn chain(reader: &Reader, record: &Record) -> Result<Vec<(Record, Hash)>, ReadError> {
    let mut chain = Vec::new();
    let mut cause = record.cause;
    while let Some(seq) = cause.filter(|_| chain.len() < LONGEST_CHAIN) {
        let Some(found) = reader.get(seq)? else { break };
        cause = found.0.cause.filter(|next| *next < seq);
        chain.push(found);
    }
    Ok(chain)
}

/// One sentence, the reasons, and what to type.
fn words(
    reader: &Reader,
    state: &State,
    record: &Record,
    chain: &[(Record, Hash)],
) -> (String, Vec<String>, Option<String>) {
    let request = |agent: AgentNumber| {
        let in_chain = chain.iter().map(|(record, _)| record).find(|r| matches!(r.event, Event::AgentRequested { .. }));
        let from_state =
            || state.agent(agent).and_then(|a| reader.get(a.request).ok().flatten()).map(|(record, _)| record);
        in_chain.cloned().or_else(from_state).map(|record| record.event)
    };
    let asked = |agent: AgentNumber, mut because: Vec<String>| {
        if let Some(Event::AgentRequested { by, spec, .. }) = request(agent) {
            because.push(format!("{by} asked for the agent, under profile {}", spec.profile));
        }
        because
    };
    match &record.event {
        Event::AccessDenied { agent, denial } => match request(*agent) {
            Some(Event::AgentRequested { name, spec, .. }) => {
                let explanation = agentd_policy::explain::explain(&name, &spec, denial);
                let hint = (!explanation.hints.is_empty()).then(|| explanation.hints.join("\n"));
                (explanation.what, asked(*agent, explanation.why), hint)
            }
            _ => (format!("agent {agent} was refused {}", denial.object), vec![], None),
        },
        Event::BudgetExhausted { agent, spent, limit } => (
            format!("the agent was frozen, because it has used {spent} of {limit} CPU time"),
            asked(
                *agent,
                vec!["the kernel counts every task of the agent and refuses new work at the limit".to_owned()],
            ),
            Some(format!("agentctl budget topup {agent} cpu:10m")),
        ),
        Event::BudgetKilled { agent, spent } => (
            format!("the agent was killed by the kernel, having used {spent}"),
            asked(*agent, vec!["limit and grace were spent and nobody had frozen it".to_owned()]),
            None,
        ),
        Event::AgentFailed { agent, reason } => (format!("the agent never ran: {reason}"), asked(*agent, vec![]), None),
        Event::AgentLost { agent, reason } => {
            (format!("nobody saw how the agent ended: {reason}"), asked(*agent, vec![]), None)
        }
        Event::AgentRequested { by, .. } => (format!("{by} asked for it"), vec![], None),
        event => {
            let because = event.agent().map(|agent| asked(agent, vec![])).unwrap_or_default();
            (format!("record {} was not a refusal", record.seq), because, None)
        }
    }
}
