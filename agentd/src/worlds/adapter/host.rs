//! Acts upon agents of this host, and words to its operators: effects that the host's own world takes in as commands.
//!
//! What comes of it is the number of the host's record, so that the chain of causes goes on there. Names that the capability
//! covers are compared with the name that the agent has now.

use agentd_air::{Scope, Value, any};
use agentd_model::{AgentNumber, CapabilityNumber, Duration};
use agentd_world::{Command, Refusal, State};

use super::{Job, Outcome};
use crate::core::{CommandError, Done, World};

/// Does it. For threads: waits until the host's world has it on disk.
pub fn perform(job: &Job, core: &World) -> Outcome {
    let Value::Record(fields) = &job.params else { return Outcome::Failed("the parameters are no record".into()) };
    let command = match job.kind.name() {
        "host.notify" => tell(fields),
        "host.revoke" => revoke(fields, job, &core.state()),
        kind => act(kind, fields, job, &core.state()),
    };
    let command = match command {
        Ok(command) => command,
        Err(why) => return Outcome::Failed(why),
    };
    match core.ask_blocking(command, job.principal()) {
        Ok(Done { seq, .. }) => Outcome::Done(Value::Record(vec![Value::Nat(seq.0)])),
        Err(CommandError::Refused(refusal)) if already(job.kind.name(), &refusal) => {
            Outcome::Failed(format!("nothing to do: {refusal}"))
        }
        Err(error) => Outcome::Failed(crate::errors::one_line(&error)),
    }
}

/// Whether the world refuses because it is so already.
fn already(kind: &str, refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Phase { .. } => matches!(kind, "host.freeze" | "host.thaw"),
        Refusal::Revoked { .. } => kind == "host.revoke",
        _ => false,
    }
}

fn tell(fields: &[Value]) -> Result<Command, String> {
    match fields {
        [Value::Text(subject), Value::Text(body), about] => {
            let about = match about {
                Value::Some(number) => Some(agent(number)?),
                _ => None,
            };
            Ok(Command::Tell { subject: subject.clone(), body: body.clone(), about })
        }
        _ => Err("the parameters are not those of a notice".into()),
    }
}

fn act(kind: &str, fields: &[Value], job: &Job, state: &State) -> Result<Command, String> {
    let agent = agent(fields.first().ok_or("there is no agent")?)?;
    covers(job, state, agent)?;
    match (kind, fields.get(1)) {
        ("host.freeze", _) => Ok(Command::Pause { agent }),
        ("host.thaw", _) => Ok(Command::Resume { agent }),
        ("host.kill", _) => Ok(Command::Signal { agent, signal: None }),
        ("host.grant", Some(Value::Duration(cpu))) => Ok(Command::TopUp { agent, cpu: Duration(*cpu) }),
        _ => Err(format!("no adapter does sys/{kind}@1")),
    }
}

/// Takes back what was lent to an agent.
fn revoke(fields: &[Value], job: &Job, state: &State) -> Result<Command, String> {
    let [Value::Nat(number), Value::Text(reason)] = fields else {
        return Err("the parameters are not those of a revocation".into());
    };
    let number = u32::try_from(*number).ok().map(CapabilityNumber);
    let found = number.and_then(|number| state.capability(number)).ok_or("there is no such capability")?;
    covers(job, state, found.agent)?;
    Ok(Command::Revoke { capability: found.grant.capability, reason: reason.clone() })
}

/// Whether the effect's own capability is about this agent.
fn covers(job: &Job, state: &State, agent: AgentNumber) -> Result<(), String> {
    let found = state.agent(agent).ok_or_else(|| format!("there is no agent {agent}"))?;
    match &job.scope {
        Scope::Agents(agents) if any(&agents.names, found.name.as_str()) => Ok(()),
        _ => Err(format!("the capability does not cover agent {}", found.name)),
    }
}

fn agent(value: &Value) -> Result<AgentNumber, String> {
    match value {
        Value::Nat(number) => {
            u32::try_from(*number).map(AgentNumber).map_err(|_too_large| format!("there is no agent {number}"))
        }
        _ => Err("there is no agent".into()),
    }
}
