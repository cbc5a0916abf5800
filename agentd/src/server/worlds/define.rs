//! What a world consists of: shown, proposed, rehearsed.

use agentd_air::{Definition, Definitions, Patch};
use agentd_engine::{Asked, Input, Stage};
use agentd_model::{Principal, Seq};
use agentd_protocol::{ErrorCode, ErrorObject, ProposalParams, ProposalView, ProposeParams};
use data_encoding::BASE64;
use serde_json::{Value as Json, json};

use super::text::changes;
use super::{asked, failed, find, on_thread, usage};
use crate::journal::Reader;
use crate::server::Service;
use crate::server::connection::Answer;
use crate::server::methods::{show, to_value};
use crate::worlds::rehearse::rehearse;

/// Inputs that a proposal is rehearsed on where nobody says how many.
const DEFAULT_INPUTS: u32 = 1000;

/// Everything that is defined, in the authoring form.
pub(super) fn document(definitions: &Definitions) -> Json {
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

pub(super) fn proposal_view(seq: Seq, proposal: &agentd_engine::Proposal) -> ProposalView {
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

pub(super) async fn propose(params: ProposeParams, by: Principal, service: &Service) -> Result<Answer, ErrorObject> {
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

pub(super) async fn shadow(params: ProposalParams, service: &Service) -> Result<Answer, ErrorObject> {
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
