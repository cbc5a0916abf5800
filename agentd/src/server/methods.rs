//! The methods: who may, what is asked of the core, what is shown.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use agentd_model::{AgentNumber, Budget, Principal};
use agentd_protocol::{
    AgentParams, ErrorCode, ErrorObject, LogsReply, Method, SignalParams, SpawnParams, SpawnReply, TopUpParams,
    WaitReply, WhyParams,
};
use agentd_world::{Agent, Command, End, Refusal};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::caller::Caller;
use super::connection::Answer;
use super::views::{agent_view, budget_view, daemon_view};
use super::{Service, audit, capability, why, worlds};
use crate::assemble::{Assembled, assemble};
use crate::core::{CommandError, LaunchTicket};
use crate::host::{Plan, Preparation};

/// Does one method.
pub(super) async fn call(method: Method, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    match method {
        Method::DaemonInfo {} => {
            caller.must_operate()?;
            show(&daemon_view(service))
        }
        Method::AgentSpawn(params) => spawn(*params, caller, service).await,
        Method::AgentList { all } => {
            caller.must_operate()?;
            let state = service.world.state();
            let shown = state.agents().filter(|agent| all || agent.is_live());
            show(&shown.map(|agent| agent_view(agent, service, false)).collect::<Vec<_>>())
        }
        Method::AgentShow(params) => show(&agent_view(&*find(&params.agent, caller, service)?, service, true)),
        Method::AgentAttach(params) => attach(&params, caller, service).await,
        Method::AgentLogs(params) => logs(&params, caller, service),
        Method::AgentWait(params) => wait(&params, caller, service).await,
        Method::AgentPause(params) => steer(&params.agent, caller, service, |agent| Command::Pause { agent }).await,
        Method::AgentResume(params) => steer(&params.agent, caller, service, |agent| Command::Resume { agent }).await,
        Method::AgentSignal(SignalParams { agent, signal }) => match signal {
            Some(signal) if !(1..=64).contains(&signal) => {
                Err(ErrorObject::new(ErrorCode::Usage, format!("there is no signal {signal}")))
            }
            _ => steer(&agent, caller, service, |agent| Command::Signal { agent, signal }).await,
        },
        Method::BudgetShow(params) => show(&budget_view(&*find(&params.agent, caller, service)?, service)),
        Method::BudgetTopUp(params) => top_up(&params, caller, service).await,
        Method::CapabilityGrant(params) => capability::grant(params, caller, service).await,
        Method::CapabilityList { agent } => capability::list(agent.as_deref(), caller, service),
        Method::CapabilityShow { capability } => capability::show(capability, caller, service),
        Method::CapabilityRevoke { capability, reason } => {
            capability::revoke(capability, reason, caller, service).await
        }
        Method::Why(params) => explain(&params, caller, service),
        Method::AuditRead(params) => {
            let agent = audit_of(params.agent.as_deref(), caller, service)?;
            audit::read(&params, agent, service).map(Answer::Value)
        }
        Method::AuditFollow(params) => {
            let agent = audit_of(params.agent.as_deref(), caller, service)?;
            audit::Follow::new(&params, agent, service).map(|(past, follow)| Answer::Follow(past, follow))
        }
        method => worlds::call(method, caller, service).await,
    }
}

pub(super) fn show(value: &impl Serialize) -> Result<Answer, ErrorObject> {
    to_value(value).map(Answer::Value)
}

pub(super) fn to_value(value: &impl Serialize) -> Result<Value, ErrorObject> {
    serde_json::to_value(value).map_err(|error| ErrorObject::from_error(ErrorCode::Bug, &error))
}

/// The agent that is meant, if the caller may see it.
pub(super) fn find(text: &str, caller: Caller, service: &Service) -> Result<Arc<Agent>, ErrorObject> {
    let state = service.world.state();
    let found = state.find(text);
    match found {
        Some(agent) => caller.must_see(agent.number).map(|()| agent.clone()),
        None => {
            // Whoever may not see agents is not told which exist.
            caller.must_operate()?;
            Err(ErrorObject::new(ErrorCode::Failed, format!("there is no agent {text}")).hint("agentctl ps --all"))
        }
    }
}

fn audit_of(agent: Option<&str>, caller: Caller, service: &Service) -> Result<Option<AgentNumber>, ErrorObject> {
    match (agent, caller.principal) {
        (Some(agent), _) => find(agent, caller, service).map(|agent| Some(agent.number)),
        (None, Principal::Agent { agent }) => Ok(Some(agent)),
        (None, _) => caller.must_operate().map(|()| None),
    }
}

async fn spawn(params: SpawnParams, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let (reply, stream) = start(params, caller.uid(), caller.principal, service).await?;
    let value = to_value(&reply)?;
    Ok(match stream {
        Some(stream) => Answer::File(value, stream),
        None => Answer::Value(value),
    })
}

/// Starts an agent: reserved, assembled, recorded, launched. `uid` is whose agents may run as whom.
pub(crate) async fn start(
    params: SpawnParams,
    uid: u32,
    by: Principal,
    service: &Service,
) -> Result<(SpawnReply, Option<OwnedFd>), ErrorObject> {
    let reserved = service.host.reserve();
    let agent = reserved.agent();
    let Assembled { name, spec } = match assemble(&params, uid, agent, service) {
        Ok(assembled) => assembled,
        Err(error) => {
            service.host.give_back(reserved);
            return Err(error);
        }
    };
    let plan = Plan { reserved, name: name.clone(), spec: spec.clone(), attach: params.attach };
    let preparation = Preparation::begin(service.host.clone(), service.world.clone(), plan);
    let (outcome, launched) = oneshot::channel();
    let ticket = LaunchTicket { agent, go: Box::new(|| preparation.go(Some(outcome))) };
    let command = Command::Spawn { agent, name: name.clone(), spec: Box::new(spec) };
    service.world.ask(command, by, Some(ticket)).await.map_err(refused)?;
    let name = name.to_string();
    let launched = launched.await.ok().ok_or_else(|| ErrorObject::new(ErrorCode::Failed, "agentd is stopping"))?;
    match launched {
        Ok(launched) => {
            let gaps = launched.gaps.iter().map(|gap| gap.meaning().to_owned()).collect();
            Ok((SpawnReply { agent, name, gaps }, launched.stream))
        }
        Err(reason) => {
            let mut error = ErrorObject::new(ErrorCode::Failed, format!("cannot start agent {name}"));
            error.data.causes.push(reason);
            Err(error)
        }
    }
}

/// A refusal of the world, with its exit code and a way on.
pub(super) fn refused(error: CommandError) -> ErrorObject {
    let hint = match &error {
        CommandError::Refused(Refusal::NameInUse { name, .. }) => Some(format!("agentctl inspect {name}")),
        CommandError::Refused(Refusal::Phase { name, .. }) => Some(format!("agentctl inspect {name}")),
        CommandError::Refused(Refusal::NoBudget { name }) => Some(format!("agentctl budget show {name}")),
        CommandError::Refused(Refusal::Full { .. }) => Some("agentctl ps".to_owned()),
        CommandError::Refused(Refusal::NoCapability { .. }) => Some("agentctl capability list".to_owned()),
        CommandError::Refused(Refusal::Revoked { record, .. }) => Some(format!("agentctl why {record}")),
        _ => None,
    };
    let object = ErrorObject::from_error(ErrorCode::Failed, &error);
    hint.into_iter().fold(object, ErrorObject::hint)
}

async fn steer(
    text: &str,
    caller: Caller,
    service: &Service,
    command: impl FnOnce(AgentNumber) -> Command,
) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let agent = find(text, caller, service)?.number;
    service.world.ask(command(agent), caller.principal, None).await.map_err(refused)?;
    let state = service.world.state();
    let agent = state.agent(agent).ok_or_else(|| ErrorObject::new(ErrorCode::Bug, "the agent is gone"))?;
    show(&agent_view(agent, service, false))
}

async fn top_up(params: &TopUpParams, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let agent = find(&params.agent, caller, service)?.number;
    let budget: Budget = params.budget.parse().map_err(|error| ErrorObject::from_error(ErrorCode::Usage, &error))?;
    let cpu = match budget {
        Budget { cpu: Some(cpu), memory: None, pids: None } => cpu,
        _ => return Err(ErrorObject::new(ErrorCode::Usage, "only cpu can be topped up; write cpu:10m")),
    };
    service.world.ask(Command::TopUp { agent, cpu }, caller.principal, None).await.map_err(refused)?;
    let state = service.world.state();
    let agent = state.agent(agent).ok_or_else(|| ErrorObject::new(ErrorCode::Bug, "the agent is gone"))?;
    show(&budget_view(agent, service))
}

async fn attach(params: &AgentParams, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let agent = find(&params.agent, caller, service)?;
    if !agent.is_live() {
        let text = format!("agent {} is {}", agent.name, agent.phase());
        return Err(ErrorObject::new(ErrorCode::Failed, text).hint(format!("agentctl logs {}", agent.name)));
    }
    let (host, number) = (service.host.clone(), agent.number);
    let stream = tokio::task::spawn_blocking(move || host.attach(number)).await;
    match stream {
        Ok(Ok(stream)) => Ok(Answer::File(to_value(&serde_json::json!({ "agent": number }))?, stream)),
        Ok(Err(error)) => Err(ErrorObject::from_error(ErrorCode::Failed, &error)),
        Err(error) => Err(ErrorObject::from_error(ErrorCode::Bug, &error)),
    }
}

fn logs(params: &AgentParams, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let agent = find(&params.agent, caller, service)?;
    let path = service.places.agent_state(agent.number).join("output.log");
    match std::fs::File::open(&path) {
        Ok(file) => Ok(Answer::File(to_value(&LogsReply { ended: !agent.is_live() })?, file.into())),
        Err(error) => {
            let mut object = ErrorObject::new(ErrorCode::Failed, format!("agent {} has no log", agent.name));
            object.data.causes.push(error.to_string());
            Err(object)
        }
    }
}

async fn wait(params: &AgentParams, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    let number = find(&params.agent, caller, service)?.number;
    let mut watch = service.world.watch();
    loop {
        let agent = watch.borrow_and_update().agent(number).cloned();
        let end = agent.as_ref().and_then(|agent| agent.end.as_ref());
        let (status, reason) = match (&agent, end) {
            (_, Some(End::Exited { status, .. })) => (Some(*status), None),
            (_, Some(End::Failed { reason } | End::Lost { reason })) => (None, Some(reason.clone())),
            (None, _) => (None, Some("its end is in the journal".to_owned())),
            (Some(_), None) => {
                if watch.changed().await.is_err() {
                    return Err(ErrorObject::new(ErrorCode::Failed, "agentd is stopping"));
                }
                continue;
            }
        };
        return show(&WaitReply { agent: number, status, reason });
    }
}

fn explain(params: &WhyParams, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    let state = service.world.state();
    let seq = match (params.record, &params.agent, caller.principal) {
        (Some(record), _, _) => Some(agentd_model::Seq(record)),
        (None, Some(agent), _) => find(agent, caller, service)?.last_denial,
        (None, None, Principal::Agent { agent }) => state.agent(agent).and_then(|agent| agent.last_denial),
        (None, None, _) => state.last_denial(),
    };
    let Some(seq) = seq else {
        caller.must_operate()?;
        return Err(ErrorObject::new(ErrorCode::Failed, "nothing was refused").hint("agentctl audit"));
    };
    show(&why::explain(seq, caller, service)?)
}
