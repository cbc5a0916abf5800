//! The host's events as a world sees them: `sys/…`.
//!
//! A projection: what a rule can be about, in the types of AIR, with the number of the host's record, so that a chain of
//! causes can be followed across.

use agentd_air::{Name, Value, schemas};
use agentd_journal::Record;
use agentd_model::{AgentNumber, Event};

/// The schema and the value of an event of the host, if it is one that worlds may see. `name_of` knows agents' names.
pub fn project(record: &Record<Event>, name_of: impl Fn(AgentNumber) -> Option<String>) -> Option<(Name, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let number = |agent: &AgentNumber| Value::Nat(u64::from(agent.0));
    let name = |agent: &AgentNumber| Value::Text(name_of(*agent).unwrap_or_default());
    let (schema, mut fields) = match &record.event {
        Event::AgentRequested { agent, name, spec, by } => {
            let argv = spec.argv.iter().map(|word| text(word)).collect();
            let fields = vec![
                number(agent),
                text(&name.to_string()),
                text(&by.to_string()),
                Value::List(argv),
                text(&spec.profile),
            ];
            ("agent-requested", fields)
        }
        Event::AgentStarted { agent, .. } => ("agent-started", vec![number(agent), name(agent)]),
        Event::AgentFailed { agent, reason } => ("agent-failed", vec![number(agent), name(agent), text(reason)]),
        Event::AccessDenied { agent, denial } => {
            let fields = vec![
                number(agent),
                name(agent),
                text(&word(&denial.hook)),
                text(&denial.object.to_string()),
                text(&denial.right.to_string()),
                text(&word(&denial.reason)),
            ];
            ("access-denied", fields)
        }
        Event::BudgetWarned { agent, spent, limit } => {
            let fields = vec![number(agent), name(agent), Value::Duration(spent.0), Value::Duration(limit.0)];
            ("budget-warned", fields)
        }
        Event::BudgetExhausted { agent, spent, limit } => {
            let fields = vec![number(agent), name(agent), Value::Duration(spent.0), Value::Duration(limit.0)];
            ("budget-exhausted", fields)
        }
        Event::AgentPaused { agent, by } => ("agent-paused", vec![number(agent), name(agent), text(&by.to_string())]),
        Event::AgentResumed { agent, by } => ("agent-resumed", vec![number(agent), name(agent), text(&by.to_string())]),
        Event::CapabilityGranted { agent, grant, by } => {
            let (capability, rights) = (Value::Nat(u64::from(grant.capability.0)), text(&grant.rights()));
            ("capability-granted", vec![number(agent), name(agent), capability, rights, text(&by.to_string())])
        }
        Event::CapabilityRevoked { agent, capability, reason, by } => {
            let capability = Value::Nat(u64::from(capability.0));
            ("capability-revoked", vec![number(agent), name(agent), capability, text(reason), text(&by.to_string())])
        }
        Event::AgentExited { agent, status, spent } => {
            let fields = vec![number(agent), name(agent), text(&status.to_string()), Value::Duration(spent.0)];
            ("agent-exited", fields)
        }
        Event::AgentLost { agent, reason } => ("agent-lost", vec![number(agent), name(agent), text(reason)]),
        Event::ProgramRun { agent, path, .. } => ("program-run", vec![number(agent), name(agent), text(path)]),
        _ => return None,
    };
    fields.push(Value::Nat(record.seq.0));
    fields.push(Value::Time(record.stamp.wall_ns));
    let name = schemas().keys().find(|name| name.name() == schema)?;
    Some((name.clone(), Value::Record(fields)))
}

/// The first word of a value as JSON has it: what a unit or tagged variant is called.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Object(map)) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}
