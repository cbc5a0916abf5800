//! The methods `world.*`: who may, what is asked of which world, what is shown.
//!
//! Operators only. Whatever reads a journal, compiles or runs reducers does so on a thread of its own, beside the world's.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use agentd_air::{Definition, Definitions, Name, Patch, Resolve as _, Type, from_json};
use agentd_engine::{Asked, CellId, Entry, Input, Phase, Receipt, Stage, State};
use agentd_model::{Principal, Seq};
use agentd_protocol::{
    AnswerParams, CellView, CellsParams, CopyParams, EffectView, ErrorCode, ErrorObject, LINE_LIMIT, Method,
    ProposalParams, ProposalView, ProposeParams, ReceiptView, RecordParams, RecordedView, RecordsParams, ReplayView,
    SendParams, UploadReply, VerifyView, WhyGraph, WhyNode, WorldRecordView, WorldView,
};
use data_encoding::BASE64;
use serde_json::{Value as Json, json};

use super::Service;
use super::caller::Caller;
use super::connection::Answer;
use super::methods::{show, to_value};
use super::world_text::{changes, params_json, result_json, sentence, typed_json, value_json, view};
use crate::journal::{self, Reader};
use crate::worlds::rehearse::{rehearse, replay};
use crate::worlds::{AskError, Handle, WorldError, bundle, state_at};

/// Records given where the request does not say how many.
const DEFAULT_LAST: u32 = 100;
/// Longest entry that is shown whole, as JSON.
const LONGEST_ENTRY: usize = 64 << 10;
/// Cells given at most.
const MOST_CELLS: usize = 10_000;
/// Inputs that a proposal is rehearsed on where nobody says how many.
const DEFAULT_INPUTS: u32 = 1000;
/// Bundles that are being uploaded at a time.
const MOST_UPLOADS: usize = 8;

/// Bundles that are being uploaded.
#[derive(Default)]
pub(super) struct Uploads {
    next: AtomicU64,
    files: Mutex<HashMap<u64, File>>,
}

/// Does one method.
pub(super) async fn call(method: Method, caller: Caller, service: &Service) -> Result<Answer, ErrorObject> {
    caller.must_operate()?;
    let by = caller.principal;
    match method {
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
        Method::WorldCells(params) => cells(params, service).await,
        Method::WorldRecords(params) => records(params, service).await,
        Method::WorldDefs(params) => {
            let handle = find(service, &params.world)?;
            let json = handle.look(|state| document(state.definitions())).await.map_err(asked)?;
            Ok(Answer::Value(json))
        }
        Method::WorldPropose(params) => propose(params, by, service).await,
        Method::WorldShadow(params) => shadow(params, service).await,
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
            show(&handle.look(|state| state.open().map(effect_view).collect::<Vec<_>>()).await.map_err(asked)?)
        }
        Method::WorldAnswer(params) => answer(params, by, service).await,
        Method::WorldWhy(params) => why(params, service).await,
        Method::WorldReceipt(params) => receipt(params, service).await,
        Method::WorldVerify(params) => verify(&params.world, service).await,
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
        Method::WorldExport(params) => export(&params.world, service).await,
        Method::WorldUpload {} => upload(service),
        Method::WorldImport(params) => import(params, service).await,
        Method::WorldFork(params) => fork(params, service).await,
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
            .map(|(seq, p)| proposal_view(seq, p))
            .collect(),
    };
    handle.look(look).await.map_err(asked)
}

fn proposal_view(seq: Seq, proposal: &agentd_engine::Proposal) -> ProposalView {
    let word = match proposal.stage {
        Stage::Open => "open",
        Stage::Rejected => "rejected",
        Stage::Applied => "applied",
    };
    ProposalView {
        proposal: seq.0,
        by: proposal.by.to_string(),
        note: proposal.note.clone(),
        stage: word.to_owned(),
        approved: proposal.approved.iter().copied().collect(),
        differences: proposal.rehearsed.map(|(_, _, differences)| differences),
        changes: Patch::decode(&proposal.patch).map(|patch| changes(&patch)).unwrap_or_default(),
    }
}

fn effect_view(open: &agentd_engine::Open) -> EffectView {
    let phase = match open.phase {
        Phase::Asked => "asked",
        Phase::Ready => "ready",
        Phase::Attempted { .. } => "attempted",
    };
    EffectView {
        effect: open.intent.id.to_string(),
        kind: open.intent.kind.to_string(),
        origin: open.intent.origin.name().to_string(),
        params: params_json(&open.intent),
        record: open.wanted.0,
        phase: phase.to_owned(),
    }
}

/// Everything that is defined, in the authoring form.
fn document(definitions: &Definitions) -> Json {
    let manifest = definitions.manifest();
    let nodes: Vec<Json> = definitions.iter().map(Definition::to_json).collect();
    json!({
        "definitions": nodes,
        "routes": manifest.routes,
        "triggers": manifest.triggers,
        "policy": manifest.policy,
        "manifest": manifest.hash(),
    })
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

async fn cells(params: CellsParams, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let module: Option<Name> = params.module.as_deref().map(str::parse).transpose().map_err(usage)?;
    let key = params.key;
    let look = move |state: &State| -> Result<Vec<CellView>, ErrorObject> {
        let definitions = state.definitions();
        let wanted = match (&module, &key) {
            (Some(name), Some(json)) => {
                let of = definitions.module(name).and_then(|module| module.key.as_ref());
                let of = of.ok_or_else(|| usage(format!("{name} keeps no cells by key")))?;
                let value = from_json(definitions.as_ref(), of, json);
                let value = value.map_err(|wrong| usage(format!("the key is wrong: {wrong}")))?;
                Some(agentd_air::encode(&value))
            }
            _ => None,
        };
        let shown = state.cells().filter(|(id, _)| {
            module.as_ref().is_none_or(|name| id.module == *name)
                && wanted.as_ref().is_none_or(|key| id.key.as_deref() == Some(key))
        });
        Ok(shown.take(MOST_CELLS).map(|(id, bytes)| cell_view(definitions, id, bytes)).collect())
    };
    let cells = match params.at {
        None => handle.look(look).await.map_err(asked)??,
        Some(at) => {
            let path = handle.path.clone();
            on_thread(move || look(&state_at(&path, Seq(at)).map_err(|error| failed(&error))?)).await?
        }
    };
    show(&cells)
}

fn cell_view(definitions: &Definitions, id: &CellId, bytes: &[u8]) -> CellView {
    let module = definitions.module(&id.module);
    let key = match (module.and_then(|module| module.key.as_ref()), &id.key) {
        (Some(of), Some(key)) => typed_json(definitions, of, key),
        _ => Json::Null,
    };
    let state = module.map_or(Json::Null, |module| value_json(definitions, &module.state, bytes));
    CellView { module: id.module.to_string(), key, state }
}

async fn records(params: RecordsParams, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let definitions = handle.look(|state| state.definitions().clone()).await.map_err(asked)?;
    let path = handle.path.clone();
    let views = on_thread(move || {
        let reader = Reader::open(&path).map_err(|error| failed(&error))?;
        let after = Seq(params.after.unwrap_or(0));
        let found = match (params.last, params.after) {
            (None, Some(_)) => reader.page::<Entry>(None, after, 1024),
            (last, _) => reader.list::<Entry>(None, after, last.unwrap_or(DEFAULT_LAST).min(4096)),
        };
        let found = found.map_err(|error| failed(&error))?;
        let mut shown = found.iter().map(|(record, hash)| view(&definitions, record, *hash)).collect::<Vec<_>>();
        shown.iter_mut().for_each(shorten);
        // Of the newest so many, the oldest are left out if not all fit; of those after one, the newest.
        if params.after.is_none() {
            shown.reverse();
        }
        let mut room = LINE_LIMIT - (16 << 10);
        let mut views: Vec<WorldRecordView> = Vec::new();
        for view in shown {
            let bytes = to_value(&view)?.to_string().len() + 1;
            match room.checked_sub(bytes) {
                Some(rest) => room = rest,
                None => break,
            }
            views.push(view);
        }
        if params.after.is_none() {
            views.reverse();
        }
        Ok(views)
    });
    show(&views.await?)
}

/// Leaves out what would fill a line by itself; the sentence stays.
fn shorten(view: &mut WorldRecordView) {
    let bytes = view.entry.to_string().len();
    if bytes > LONGEST_ENTRY {
        view.entry = json!({ "entry": view.entry["entry"].clone(), "left_out_bytes": bytes });
    }
}

/// All that is to be defined becomes a patch; a patch is one already.
fn patch_of(air: &Json, now: &Definitions) -> Result<Patch, ErrorObject> {
    if air.get("changes").is_some() {
        return serde_json::from_value(air.clone()).map_err(|error| usage(format!("this is no patch: {error}")));
    }
    let list = |key: &str| air.get(key).cloned().unwrap_or_else(|| json!([]));
    let known = ["definitions", "routes", "triggers", "policy", "manifest"];
    let keys = air.as_object().into_iter().flat_map(|object| object.keys());
    if let Some(unknown) = keys.into_iter().find(|key| !known.contains(&key.as_str())) {
        return Err(usage(format!("{unknown} is no part of definitions; there are {}", known.join(", "))));
    }
    let mut nodes = Vec::new();
    for (at, node) in list("definitions").as_array().into_iter().flatten().enumerate() {
        let node = Definition::from_json(node).map_err(|error| usage(format!("definitions[{at}]: {error}")))?;
        nodes.push(node);
    }
    let read = |key: &str, error: serde_json::Error| usage(format!("{key}: {error}"));
    let routes = serde_json::from_value(list("routes")).map_err(|error| read("routes", error))?;
    let triggers = serde_json::from_value(list("triggers")).map_err(|error| read("triggers", error))?;
    let policy = air.get("policy").cloned().unwrap_or(Json::Null);
    let policy = serde_json::from_value(policy).map_err(|error| read("policy", error))?;
    let wanted = Definitions::new(nodes, routes, triggers, policy).map_err(usage)?;
    Ok(now.difference(&wanted))
}

async fn propose(params: ProposeParams, by: Principal, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let definitions = handle.look(|state| state.definitions().clone()).await.map_err(asked)?;
    let modules = service.worlds.modules().clone();
    let (path, ProposeParams { mut air, wasm, note, .. }) = (handle.path.clone(), params);
    let (patch, blobs) = on_thread(move || {
        let mut blobs = Vec::new();
        for (name, base64) in &wasm {
            let bytes = BASE64.decode(base64.as_bytes()).map_err(|error| usage(format!("{name}: {error}")))?;
            let hash = modules.compile(&bytes).map_err(|error| {
                let mut object = failed(&error);
                object.message = format!("{name}: {}", object.message);
                object
            })?;
            replace(&mut air, name, &hash.to_string());
            blobs.push((hash, bytes));
        }
        let patch = patch_of(&air, &definitions)?;
        if patch.changes.is_empty() {
            return Err(ErrorObject::new(ErrorCode::Failed, "the world is so already"));
        }
        // What is run must be there and must be one before anybody says yes to it.
        let reader = Reader::open(&path).map_err(|error| failed(&error))?;
        let next = definitions.patched(&patch).map_err(usage)?;
        for node in next.iter() {
            let Definition::Module(module) = node else { continue };
            let known = blobs.iter().any(|(hash, _)| *hash == module.wasm);
            let kept = reader.has_blob(agentd_model::Hash(module.wasm.0)).map_err(|error| failed(&error))?;
            if !known && !kept {
                return Err(usage(format!("{}: the WASM {} is not there", module.name, module.wasm)));
            }
        }
        Ok((patch, blobs))
    })
    .await?;
    let input = Input::Propose { patch: Box::new(patch), by, note };
    let proposal = handle.ask(Asked { input, blobs }).await.map_err(asked)?;
    let view = handle.look(move |state| state.proposal(proposal).map(|found| proposal_view(proposal, found)));
    show(&view.await.map_err(asked)?)
}

/// Puts a hash where the authoring form names a file.
fn replace(json: &mut Json, from: &str, to: &str) {
    match json {
        Json::String(text) if text == from => to.clone_into(text),
        Json::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        Json::Object(fields) => fields.values_mut().for_each(|item| replace(item, from, to)),
        _ => {}
    }
}

async fn shadow(params: ProposalParams, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let proposal = Seq(params.proposal);
    let candidate = handle.look(move |state| state.candidate(proposal)).await.map_err(asked)?;
    let candidate = candidate.map_err(|refusal| ErrorObject::from_error(ErrorCode::Refused, &refusal))?;
    let (host, core) = (service.places.journal(), service.world.clone());
    let (path, reducers) = (handle.path.clone(), service.worlds.reducers_of(&handle));
    let most = params.inputs.unwrap_or(DEFAULT_INPUTS) as usize;
    let report = on_thread(move || {
        let state = core.state();
        let name_of = |agent| state.agent(agent).map(|agent| agent.name.to_string());
        rehearse(&path, &host, name_of, candidate, most, &reducers).map_err(|error| failed(&error))
    })
    .await?;
    let json = to_value(&report)?;
    let bytes = json.to_string().into_bytes();
    let hash = crate::worlds::reducers::hash_of(&bytes);
    let input = Input::Rehearse {
        proposal,
        report: hash,
        inputs: report.inputs + report.host_events,
        differences: report.differences(),
    };
    handle.ask(Asked { input, blobs: vec![(hash, bytes)] }).await.map_err(asked)?;
    Ok(Answer::Value(json))
}

async fn answer(params: AnswerParams, by: Principal, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let prefix = params.effect.clone();
    let look = move |state: &State| -> Vec<_> {
        state.open().map(|open| open.intent.id).filter(|id| id.to_string().starts_with(&prefix)).collect()
    };
    let found = handle.look(look).await.map_err(asked)?;
    let hint = format!("agentctl world effects {}", params.world);
    let intent = match found.as_slice() {
        [intent] => *intent,
        [] => {
            return Err(
                ErrorObject::new(ErrorCode::Failed, format!("there is no open effect {}", params.effect)).hint(hint)
            );
        }
        _ => return Err(usage(format!("several effects begin with {}", params.effect)).hint(hint)),
    };
    take(&handle, Input::Answer { intent, allow: params.allow, by, note: params.note }).await
}

/// From a record back to where it began, and on to what came of it; across to the host's world and back.
async fn why(params: RecordParams, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let definitions = handle.look(|state| state.definitions().clone()).await.map_err(asked)?;
    let (path, host) = (handle.path.clone(), service.places.journal());
    let graph = on_thread(move || {
        let error = |error: crate::journal::ReadError| failed(&error);
        let reader = Reader::open(&path).map_err(error)?;
        let mut chain = Vec::new();
        let mut next = Some(Seq(params.record));
        while let Some(seq) = next.filter(|_| chain.len() < 64) {
            let Some((record, _)) = reader.get::<Entry>(seq).map_err(error)? else { break };
            next = record.cause.filter(|cause| *cause < seq);
            chain.push(record);
        }
        let Some(root) = chain.last().map(|record| record.seq) else {
            return Err(ErrorObject::new(ErrorCode::Failed, format!("there is no record {}", params.record)));
        };
        // What follows from the same beginning, as far as one looks.
        let later = reader.page::<Entry>(None, root, 512).map_err(error)?;
        let mut known: std::collections::BTreeMap<Seq, _> =
            chain.into_iter().map(|record| (record.seq, record)).collect();
        for (record, _) in later {
            if record.cause.is_some_and(|cause| known.contains_key(&cause)) {
                known.insert(record.seq, record);
            }
        }
        let mut graph = WhyGraph { record: params.record, nodes: vec![], edges: vec![] };
        let host_reader = Reader::open(&host).map_err(error)?;
        for record in known.values() {
            let id = record.seq.to_string();
            let through_host = match &record.event {
                Entry::Settled { receipt } => host_record(receipt),
                _ => None,
            };
            if let Some(cause) = record.cause.filter(|_| through_host.is_none()) {
                graph.edges.push((cause.to_string(), id.clone()));
            }
            if let Entry::Happened { from: agentd_engine::Source::Host { seq, .. }, .. } = &record.event {
                host_node(&host_reader, *seq, &mut graph)?;
                graph.edges.push((format!("host:{seq}"), id.clone()));
            }
            let text = sentence(&definitions, &record.event);
            graph.nodes.push(WhyNode { id: id.clone(), wall_ns: record.stamp.wall_ns, text });
            // What the host did because of it.
            if let Some(seq) = through_host {
                host_node(&host_reader, seq, &mut graph)?;
                let from = record.cause.map_or(id.clone(), |cause| cause.to_string());
                graph.edges.push((from, format!("host:{seq}")));
                graph.edges.push((format!("host:{seq}"), id));
            }
        }
        graph.edges.dedup();
        Ok(graph)
    });
    show(&graph.await?)
}

/// The host's record that a receipt of one of the host's own adapters names.
fn host_record(receipt: &[u8]) -> Option<Seq> {
    let receipt = Receipt::claimed(receipt).ok().filter(|receipt| receipt.adapter == "host/1")?;
    let (seq,): (u64,) = minicbor::decode(receipt.result.as_ref()?).ok()?;
    Some(Seq(seq))
}

fn host_node(reader: &Reader, seq: Seq, graph: &mut WhyGraph) -> Result<(), ErrorObject> {
    let id = format!("host:{seq}");
    if graph.nodes.iter().any(|node| node.id == id) {
        return Ok(());
    }
    let found = reader.get::<agentd_model::Event>(seq).map_err(|error| failed(&error))?;
    if let Some((record, _)) = found {
        let json = to_value(&record.event)?;
        let kind = json.get("event").and_then(Json::as_str).unwrap_or_default().replace('_', " ");
        let agent = record.event.agent().map(|agent| format!(", agent {agent}")).unwrap_or_default();
        let object = match &record.event {
            agentd_model::Event::AccessDenied { denial, .. } => format!(": {} {}", denial.hook.verb(), denial.object),
            agentd_model::Event::OperatorsTold { subject, .. } => format!(": {subject}"),
            _ => String::new(),
        };
        graph.nodes.push(WhyNode { id, wall_ns: record.stamp.wall_ns, text: format!("{kind}{agent}{object}") });
    }
    Ok(())
}

async fn receipt(params: RecordParams, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let path = handle.path.clone();
    let shown = on_thread(move || {
        let error = |error: crate::journal::ReadError| failed(&error);
        let reader = Reader::open(&path).map_err(error)?;
        let found = reader.get::<Entry>(Seq(params.record)).map_err(error)?;
        let Some((record, _)) = found else {
            return Err(ErrorObject::new(ErrorCode::Failed, format!("there is no record {}", params.record)));
        };
        let Entry::Settled { receipt: bytes } = &record.event else {
            return Err(ErrorObject::new(ErrorCode::Failed, format!("record {} holds no receipt", params.record)));
        };
        let receipt = Receipt::claimed(bytes).map_err(|error| failed(&error))?;
        let wanted = record.cause.map(|cause| reader.get::<Entry>(cause)).transpose().map_err(error)?.flatten();
        let kind = match wanted.map(|(record, _)| record.event) {
            Some(Entry::Wanted { intent, .. }) => intent.kind,
            _ => return Err(ErrorObject::new(ErrorCode::Failed, "what it answers to is not there any more")),
        };
        let state = state_at(&path, Seq(record.seq.0 - 1)).map_err(error)?;
        let verified = Receipt::verified(bytes, state.world(), state.key()).is_ok();
        Ok(ReceiptView {
            record: record.seq.0,
            effect: receipt.intent.to_string(),
            kind: kind.to_string(),
            adapter: receipt.adapter.clone(),
            attempt: receipt.attempt,
            status: receipt.status.word().to_owned(),
            result: result_json(&kind, &receipt),
            reason: receipt.reason.clone(),
            began_ns: receipt.began_ns,
            ended_ns: receipt.ended_ns,
            key: state.key().to_string(),
            verified,
            cose: BASE64.encode(bytes),
        })
    });
    show(&shown.await?)
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

/// A file without a name, for a bundle on its way.
fn nameless(service: &Service) -> Result<File, ErrorObject> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let directory = &service.places.state;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let opened = options.clone().custom_flags(libc::O_TMPFILE).open(directory).or_else(|error| {
        // Not every file system has files without a name; there it loses the one it had.
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error);
        }
        let path = directory.join(format!("bundle-{}", service.uploads.next.fetch_add(1, Ordering::Relaxed)));
        let file = options.create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path).map(|()| file)
    });
    opened.map_err(|error| {
        let mut object = ErrorObject::new(ErrorCode::Failed, format!("cannot make a file in {}", directory.display()));
        object.data.causes.push(error.to_string());
        object
    })
}

async fn export(name: &str, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, name)?;
    let file = nameless(service)?;
    let seq = handle.look(State::height).await.map_err(asked)?;
    let (head, file) = on_thread(move || {
        let written = bundle::write(&handle.path, &handle.name, seq, &file).map_err(|error| failed(&error))?;
        use std::io::Seek as _;
        let mut file = file;
        file.rewind().map_err(|error| failed(&error))?;
        Ok((written, file))
    })
    .await?;
    let value = json!({ "world": name, "seq": head.seq.0, "head": head.hash.to_string() });
    Ok(Answer::File(value, OwnedFd::from(file)))
}

fn upload(service: &Service) -> Result<Answer, ErrorObject> {
    let file = nameless(service)?;
    let given = file.try_clone().map_err(|error| failed(&error))?;
    let upload = service.uploads.next.fetch_add(1, Ordering::Relaxed);
    let mut files = service.uploads.files.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever began and never came back makes room.
    while files.len() >= MOST_UPLOADS {
        let oldest = files.keys().min().copied();
        oldest.map(|oldest| files.remove(&oldest));
    }
    files.insert(upload, file);
    Ok(Answer::File(to_value(&UploadReply { upload })?, given.into()))
}

async fn import(params: CopyParams, service: &Service) -> Result<Answer, ErrorObject> {
    let file = {
        let mut files = service.uploads.files.lock().unwrap_or_else(PoisonError::into_inner);
        params.upload.and_then(|upload| files.remove(&upload))
    };
    let mut file = file.ok_or_else(|| usage("there is no such upload"))?;
    let (worlds, outside, name) = (service.worlds.clone(), service.outside.clone(), params.name);
    let handle = on_thread(move || {
        use std::io::Seek as _;
        file.rewind().map_err(|error| failed(&error))?;
        let filled =
            worlds.adopt(&name, &outside, |path| bundle::read_into(path, &file).map(drop).map_err(WorldError::from));
        filled.map_err(wrong_world)
    })
    .await?;
    show(&world_view(&handle, true).await?)
}

async fn fork(params: CopyParams, service: &Service) -> Result<Answer, ErrorObject> {
    let from = find(service, &params.world.unwrap_or_default())?;
    let height = from.look(State::height).await.map_err(asked)?;
    let at = params.at.map_or(height, Seq);
    if at > height {
        return Err(usage(format!("the world {} has {height} records", from.name)));
    }
    let file = nameless(service)?;
    let (worlds, outside, name) = (service.worlds.clone(), service.outside.clone(), params.name);
    let handle = on_thread(move || {
        use std::io::Seek as _;
        let mut file = file;
        bundle::write(&from.path, &from.name, at, &file).map_err(|error| failed(&error))?;
        file.rewind().map_err(|error| failed(&error))?;
        let filled =
            worlds.adopt(&name, &outside, |path| bundle::read_into(path, &file).map(drop).map_err(WorldError::from));
        filled.map_err(wrong_world)
    })
    .await?;
    show(&world_view(&handle, true).await?)
}

/// A new key for the host, vouched for by the old one in every journal.
async fn rotate(service: &Service) -> Result<Answer, ErrorObject> {
    let next = service.worlds.keyring().rotate().map_err(|error| failed(&error))?;
    let (core, signer) = (service.world.clone(), next.clone());
    let recorded = on_thread(move || Ok(core.rotate(signer))).await?;
    if !recorded {
        return Err(ErrorObject::new(
            ErrorCode::Failed,
            "the host's journal does not take the new key now; the next start does",
        ));
    }
    for handle in service.worlds.list() {
        handle.rotate(next.clone()).await.map_err(asked)?;
    }
    Ok(Answer::Value(json!({ "key": next.key() })))
}
