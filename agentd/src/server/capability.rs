//! The methods `capability.*`: rights lent to an agent that runs.
//!
//! A grant is looked up and told to the kernel programs first, where it does not count; then it is recorded, and from the
//! record on it counts. A revocation is recorded, then told to the kernel in one store; whoever asked for it is answered
//! after that, so from the answer on every decision of every processor refuses.

use std::path::Path;

use agentd_capability::Claims;
use agentd_model::{CapabilityNumber, Duration, Entropy, Grant, Rights, Stamp};
use agentd_protocol::{CapabilityView, ErrorCode, ErrorObject, GrantParams, TokenView};
use agentd_world::{Capability, Command, State};

use super::Service;
use super::caller::Caller;
use super::connection::Answer;
use super::methods::{find, refused};
use crate::clock::{Clock as _, HostClock};
use crate::core::CommandError;
use crate::host::{LendError, Lending};

const SECOND: u64 = 1_000_000_000;

/// Lends rights.
pub(super) async fn grant(params: GrantParams, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let agent = find(&params.agent, caller, service)?;
    let rights: Rights = params.ops.parse().map_err(|error| ErrorObject::from_error(ErrorCode::Usage, &error))?;
    let place = |path: &String| absolute(path, &agent.spec.cwd).map(|path| (path, rights));
    let wanted: Vec<(String, Rights)> = params.paths.iter().map(place).collect::<Result<_, _>>()?;
    if wanted.is_empty() || rights.is_empty() {
        return Err(ErrorObject::new(ErrorCode::Usage, "nothing is to be lent").hint(EXAMPLE));
    }
    if wanted.len() > PATHS_LIMIT {
        let text = format!("a capability is about {PATHS_LIMIT} places at most; lend the directory that they are in");
        return Err(ErrorObject::new(ErrorCode::Usage, text));
    }
    let stamp = HostClock.stamp();
    let ends = params.duration.map(|text| ends(&text, stamp)).transpose()?;
    let (until_wall_ns, until_mono_ns) = ends.unzip();

    let (host, state) = (service.host.clone(), service.world.state());
    let number = agent.number;
    let lending = tokio::task::spawn_blocking(move || Lending::prepare(&host, &state, &agent, &wanted, until_mono_ns));
    let lending =
        lending.await.map_err(|error| ErrorObject::from_error(ErrorCode::Bug, &error))?.map_err(unlendable)?;

    let claims = Claims {
        issuer: service
            .world
            .state()
            .world()
            .ok_or_else(|| ErrorObject::new(ErrorCode::Bug, "a journal without an id"))?,
        holder: number,
        expires: until_wall_ns.map(|ns| ns / SECOND),
        not_before: stamp.wall_ns / SECOND,
        issued: stamp.wall_ns / SECOND,
        id: Entropy(stamp.entropy.0),
        rights: lending.loans.iter().map(|loan| (loan.path.clone(), loan.rights)).collect(),
        number: lending.capability,
    };
    let signer = service.worlds.keyring().current();
    let signer = signer.map_err(|error| ErrorObject::from_error(ErrorCode::Failed, &error))?;
    let grant = Grant {
        capability: lending.capability,
        loans: lending.loans.clone(),
        until_wall_ns,
        until_mono_ns,
        slot: lending.slot,
        token: claims.sign(&signer),
    };
    let command = Command::Grant { agent: number, grant: Box::new(grant) };
    let (world, by, capability) = (service.world.clone(), caller.principal, lending.capability);
    // Not given up when the caller hangs up: what is in the journal is not to be forgotten by the kernel.
    let recorded = tokio::spawn(async move {
        world.ask(command, by, None).await?;
        lending.keep();
        Ok::<_, CommandError>(())
    });
    recorded.await.map_err(|error| ErrorObject::from_error(ErrorCode::Bug, &error))?.map_err(refused)?;
    shown(&service.world.state(), capability, service, false)
}

/// Files and directories of one capability.
const PATHS_LIMIT: usize = 64;
const EXAMPLE: &str = "agentctl capability grant AGENT --path src --ops read,write --duration 1h";

/// A path from the agent's working directory, without detours.
fn absolute(path: &str, cwd: &str) -> Result<String, ErrorObject> {
    let joined = Path::new(cwd).join(path);
    let text = joined.to_str().unwrap_or(path);
    agentd_policy::path::normal(text).map_err(|error| ErrorObject::from_error(ErrorCode::Usage, &error))
}

/// When a duration from now is over, by the wall clock and by the kernel's. To the second that the token can say, and never
/// later than was asked for.
fn ends(text: &str, now: Stamp) -> Result<(u64, u64), ErrorObject> {
    let Duration(ns) = text.parse::<Duration>().map_err(|error| ErrorObject::from_error(ErrorCode::Usage, &error))?;
    if ns < SECOND {
        return Err(ErrorObject::new(ErrorCode::Usage, "rights are lent for a second or longer").hint(EXAMPLE));
    }
    let end = now.wall_ns.checked_add(ns).map(|end| end / SECOND * SECOND);
    let end = end.and_then(|end| Some((end, now.mono_ns.checked_add(end.saturating_sub(now.wall_ns))?)));
    end.ok_or_else(|| ErrorObject::new(ErrorCode::Usage, format!("{text} from now is beyond all clocks")))
}

fn unlendable(error: LendError) -> ErrorObject {
    let hint = match &error {
        LendError::Fixed { .. } => Some("agentctl doctor".to_owned()),
        LendError::Missing { path } => {
            let parent = Path::new(path).parent().and_then(Path::to_str).unwrap_or("/");
            Some(format!("a directory lends what will be below it: --path {parent}"))
        }
        LendError::Link { .. } => Some("name the place where it leads".to_owned()),
        LendError::OtherNames { .. } => Some("copy it, or lend the directory that it is in".to_owned()),
        LendError::NotRunning(agent) => Some(format!("agentctl inspect {agent}")),
        _ => None,
    };
    hint.into_iter().fold(ErrorObject::from_error(ErrorCode::Failed, &error), ErrorObject::hint)
}

/// Those of one agent, or all.
pub(super) fn list(agent: Option<&str>, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    let state = service.world.state();
    let of = match agent {
        Some(agent) => Some(find(agent, caller, service)?.number),
        None => caller.must_operate().map(|()| None)?,
    };
    let lent = state.capabilities().filter(|capability| of.is_none_or(|agent| capability.agent == agent));
    super::methods::show(&lent.map(|capability| view(capability, &state, service, false)).collect::<Vec<_>>())
}

/// One, with its token.
pub(super) fn show(number: u32, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    let state = service.world.state();
    match state.capability(CapabilityNumber(number)) {
        Some(capability) => caller.must_see(capability.agent)?,
        None => caller.must_operate()?,
    }
    shown(&state, CapabilityNumber(number), service, true)
}

/// Takes back.
pub(super) async fn revoke(
    number: u32,
    reason: String,
    caller: Caller,
    service: &Service,
) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let capability = CapabilityNumber(number);
    service.world.ask(Command::Revoke { capability, reason }, caller.principal, None).await.map_err(refused)?;
    shown(&service.world.state(), capability, service, false)
}

fn shown(state: &State, capability: CapabilityNumber, service: &Service, token: bool) -> Result<Answer, ErrorObject> {
    let found = state.capability(capability).ok_or_else(|| {
        let missing = agentd_world::Refusal::NoCapability { capability };
        ErrorObject::from_error(ErrorCode::Failed, &missing).hint("agentctl capability list")
    })?;
    super::methods::show(&view(found, state, service, token))
}

fn view(capability: &Capability, state: &State, service: &Service, token: bool) -> CapabilityView {
    let Capability { agent, grant, by, granted, at, revoked } = capability;
    let holder = state.agent(*agent);
    let is_live = holder.is_some_and(|agent| agent.is_live());
    let is_over = !is_live || grant.until_mono_ns.is_some_and(|until| until <= HostClock.stamp().mono_ns);
    let counts = || service.host.enforcer.counts(grant.slot, grant.capability);
    let state = match revoked {
        Some(_) => "revoked",
        None if is_over => "ended",
        None if counts() => "in force",
        None => "unknown",
    };
    CapabilityView {
        capability: grant.capability.0,
        agent: *agent,
        name: holder.map_or_else(|| agent.to_string(), |agent| agent.name.to_string()),
        loans: grant.loans.clone(),
        state: state.to_owned(),
        until_wall_ns: grant.until_wall_ns,
        by: *by,
        at: *at,
        granted: granted.0,
        revoked: revoked.map(|record| record.0),
        token: token.then(|| token_view(&grant.token, service)).flatten(),
    }
}

/// What the token says, if a key of this host signed it.
fn token_view(token: &[u8], service: &Service) -> Option<TokenView> {
    let keys = service.worlds.keyring().keys();
    let (key, claims) = keys.into_iter().find_map(|key| Some((key, Claims::verified(token, key).ok()?)))?;
    Some(TokenView {
        key: key.to_string(),
        issuer: claims.issuer.to_string(),
        holder: claims.holder.to_string(),
        id: claims.id.to_string(),
        issued: claims.issued,
        not_before: claims.not_before,
        expires: claims.expires,
        rights: claims.rights.into_iter().map(|(path, rights)| (path, rights.to_string())).collect(),
    })
}
