//! The methods `world.*`: who may, what is asked of which world, what is shown.
//!
//! Operators only. Whatever reads a journal, compiles or runs reducers does so on a thread of its own, beside the world's.

mod copies;
mod define;
mod effects;
mod look;
mod text;
mod why;

use agentd_air::{Name, Resolve as _, Type, from_json};
use agentd_engine::{Asked, Entry, Input, Stage, State};
use agentd_model::{Principal, Seq};
use agentd_protocol::{
    ErrorCode, ErrorObject, KeyView, Method, PruneParams, PruneView, RecordedView, ReplayView, SendParams, VerifyView,
    WorldView,
};

pub(super) use copies::Uploads;

use super::Service;
use super::caller::Caller;
use super::connection::Answer;
use super::methods::show;
use crate::journal::{self, Reader};
use crate::worlds::rehearse::replay;
use crate::worlds::{AskError, Handle, Pruned, WorldError, beginning};

/// Does one method.
pub(super) async fn call(method: Method, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let by = caller.principal;
    match method {
        Method::KeyShow {} => {
            let current = service.worlds.keyring().current().map_err(|error| failed(&error))?.key();
            let mut behind = Vec::new();
            for handle in service.worlds.list() {
                if handle.look(State::key).await.map_err(asked)? != current {
                    behind.push(handle.name);
                }
            }
            show(&KeyView { key: current.to_string(), behind })
        }
        Method::KeyRotate {} => rotate(service).await,
        Method::WorldInit(params) => {
            let (worlds, outside, name) = (service.worlds.clone(), service.outside.clone(), params.world);
            let handle = on_thread(move || worlds.create(&name, &outside).map_err(wrong_world)).await?;
            show(&world_view(&handle, false).await?)
        }
        Method::WorldList {} => {
            let mut views = Vec::new();
            for handle in service.worlds.list() {
                views.push(world_view(&handle, false).await?);
            }
            show(&views)
        }
        Method::WorldShow(params) => show(&world_view(&find(service, &params.world)?, true).await?),
        Method::WorldSend(params) => send(params, by, service).await,
        Method::WorldCells(params) => look::cells(params, service).await,
        Method::WorldRecords(params) => look::records(params, service).await,
        Method::WorldDefs(params) => {
            let handle = find(service, &params.world)?;
            let json = handle.look(|state| define::document(state.definitions())).await.map_err(asked)?;
            Ok(Answer::Value(json))
        }
        Method::WorldPropose(params) => define::propose(params, by, service).await,
        Method::WorldShadow(params) => define::shadow(params, service).await,
        Method::WorldVote(params) => {
            let (proposal, approve) = (Seq(params.proposal), params.approve.unwrap_or(false));
            let input = Input::Vote { proposal, approve, by, note: params.note };
            take(&find(service, &params.world)?, input).await
        }
        Method::WorldApply(params) => {
            let host = reader_head(service)?;
            let input = Input::Apply { proposal: Seq(params.proposal), by, fence: params.fence, host };
            take(&find(service, &params.world)?, input).await
        }
        Method::WorldEffects(params) => {
            let handle = find(service, &params.world)?;
            show(
                &handle
                    .look(|state| state.open().map(effects::effect_view).collect::<Vec<_>>())
                    .await
                    .map_err(asked)?,
            )
        }
        Method::WorldAnswer(params) => effects::answer(params, by, service).await,
        Method::WorldWhy(params) => why::why(params, service).await,
        Method::WorldReceipt(params) => look::receipt(params, service).await,
        Method::WorldVerify(params) => verify(&params.world, service).await,
        Method::WorldPrune(params) => prune(params, by, service).await,
        Method::WorldReplay(params) => {
            let handle = find(service, &params.world)?;
            let reducers = service.worlds.reducers_of(&handle);
            let replayed = on_thread(move || {
                let replayed = replay(&handle.path, &reducers, |_| ());
                let replayed = replayed.map_err(|error| ErrorObject::from_error(ErrorCode::Failed, &error))?;
                Ok(ReplayView {
                    world: handle.name.clone(),
                    records: replayed.records,
                    seq: replayed.state.height().0,
                    state: replayed.state.hash().to_string(),
                })
            });
            show(&replayed.await?)
        }
        Method::WorldExport(params) => copies::export(&params.world, service).await,
        Method::WorldUpload {} => copies::upload(service),
        Method::WorldImport(params) => copies::import(params, service).await,
        Method::WorldFork(params) => copies::fork(params, service).await,
        _ => Err(ErrorObject::new(ErrorCode::Bug, "nobody answers this method")),
    }
}

fn find(service: &Service, name: &str) -> Result<Handle, ErrorObject> {
    service.worlds.get(name).map_err(wrong_world)
}

fn wrong_world(error: WorldError) -> ErrorObject {
    let code = match &error {
        WorldError::Name(_) => ErrorCode::Usage,
        _ => ErrorCode::Failed,
    };
    let hint = match &error {
        WorldError::Unknown(_) => Some("agentctl world list"),
        WorldError::Name(_) => Some("agentctl world init watch"),
        _ => None,
    };
    let object = ErrorObject::from_error(code, &error);
    hint.into_iter().fold(object, ErrorObject::hint)
}

fn asked(error: AskError) -> ErrorObject {
    let code = match &error {
        AskError::Refused(_) => ErrorCode::Refused,
        _ => ErrorCode::Failed,
    };
    ErrorObject::from_error(code, &error)
}

fn usage(error: impl std::fmt::Display) -> ErrorObject {
    ErrorObject::new(ErrorCode::Usage, error.to_string())
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ErrorObject {
    ErrorObject::from_error(ErrorCode::Failed, error)
}

/// Runs something that takes its time beside the runtime.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ErrorObject> + Send + 'static,
) -> Result<T, ErrorObject> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ErrorObject::from_error(ErrorCode::Bug, &error)),
    }
}

async fn take(handle: &Handle, input: impl Into<Asked>) -> Result<Answer, ErrorObject> {
    let record = handle.ask(input).await.map_err(asked)?;
    show(&RecordedView { record: record.0 })
}

async fn send(params: SendParams, by: Principal, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let schema: Name = params.event.parse().map_err(usage)?;
    let definitions = handle.look(|state| state.definitions().clone()).await.map_err(asked)?;
    let of = definitions.schema(&schema).ok_or_else(|| {
        ErrorObject::new(ErrorCode::Usage, format!("there is no schema {schema}"))
            .hint(format!("agentctl world def {}", params.world))
    })?;
    let wrong = |what: &str, wrong: agentd_air::Wrong| usage(format!("the {what} is wrong: {wrong}"));
    let value = from_json(definitions.as_ref(), of, &params.value).map_err(|error| wrong("value", error))?;
    let key_type = definitions.routes().iter().filter(|route| route.event == schema && route.key.is_none());
    let key_type: Option<Type> = key_type.filter_map(|route| definitions.module(&route.module)?.key.clone()).next();
    let key = match (params.key, key_type) {
        (None, _) => None,
        (Some(json), Some(of)) => {
            Some(from_json(definitions.as_ref(), &of, &json).map_err(|error| wrong("key", error))?)
        }
        (Some(_), None) => return Err(usage(format!("nothing that takes {schema} asks its sender for a key"))),
    };
    take(&handle, Input::Event { schema, value, key, by }).await
}

/// The newest record of the host's world.
fn reader_head(service: &Service) -> Result<Seq, ErrorObject> {
    let head = Reader::open(&service.places.journal()).and_then(|reader| reader.head());
    Ok(head.map_err(|error| failed(&error))?.map_or(Seq(0), |(head, _)| head.seq))
}

async fn world_view(handle: &Handle, with_state: bool) -> Result<WorldView, ErrorObject> {
    let name = handle.name.clone();
    let look = move |state: &State| WorldView {
        world: name,
        id: state.world().to_string(),
        seq: state.height().0,
        state: with_state.then(|| state.hash().to_string()),
        manifest: state.definitions().manifest().hash().to_string(),
        key: state.key().to_string(),
        events: state.events(),
        cells: state.cells().count() as u64,
        effects: state.open().count() as u64,
        plans: state.runs().count() as u64,
        proposals: state
            .proposals()
            .filter(|(_, p)| p.stage == Stage::Open)
            .map(|(seq, p)| define::proposal_view(seq, p))
            .collect(),
    };
    handle.look(look).await.map_err(asked)
}

async fn verify(name: &str, service: &Service) -> Result<Answer, ErrorObject> {
    let host = name == "host";
    let path = if host { service.places.journal() } else { find(service, name)?.path };
    let verified = on_thread(move || {
        let verified = if host {
            journal::verify::<agentd_model::Event>(&path, |_| ())
        } else {
            journal::verify::<Entry>(&path, |_| ())
        };
        verified.map_err(|error| failed(&error))
    })
    .await?;
    show(&VerifyView {
        first: verified.first.0,
        seq: verified.head.seq.0,
        head: verified.head.hash.to_string(),
        signatures: verified.signatures,
        key: verified.key.map(|key| key.to_string()).unwrap_or_default(),
    })
}

async fn prune(params: PruneParams, by: Principal, service: &Service) -> Result<Answer, ErrorObject> {
    if params.world == "host" {
        return Err(usage("the host's own journal is kept whole"));
    }
    let handle = find(service, &params.world)?;
    let pruned = if params.dry_run {
        let path = handle.path.clone();
        let (now, first) = on_thread(move || beginning(&path, params.keep).map_err(|error| failed(&error))).await?;
        // With nothing to keep the state would be saved first.
        let height = handle.look(State::height).await.map_err(asked)?;
        let first = if params.keep == 0 { Seq(height.0 + 1) } else { first.max(now) };
        Pruned { first, removed: first.0 - now.0 }
    } else {
        handle.prune(params.keep, by).await.map_err(asked)?
    };
    let bytes = std::fs::metadata(&handle.path).map_or(0, |file| file.len());
    show(&PruneView { world: handle.name, first: pruned.first.0, removed: pruned.removed, bytes })
}

/// A new key for the host, vouched for by the old one in every journal.
async fn rotate(service: &Service) -> Result<Answer, ErrorObject> {
    // One after the other, so that all end up under the same key.
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one = ONE.lock().await;
    let next = service.worlds.keyring().rotate().map_err(|error| failed(&error))?;
    let (core, signer) = (service.world.clone(), next.clone());
    let mut behind = Vec::new();
    if !on_thread(move || Ok(core.rotate(signer))).await? {
        behind.push("host".to_owned());
    }
    for handle in service.worlds.list() {
        if let Err(error) = handle.rotate(next.clone()).await {
            tracing::warn!(world = handle.name, %error, "the world goes on under the old key");
            behind.push(handle.name);
        }
    }
    show(&KeyView { key: next.key().to_string(), behind })
}
