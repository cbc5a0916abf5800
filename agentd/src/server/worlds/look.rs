//! What is to be seen of a world: its cells, its records, its receipts.

use agentd_air::{Definitions, Name, from_json};
use agentd_engine::{CellId, Entry, Receipt, State};
use agentd_model::Seq;
use agentd_protocol::{
    CellView, CellsParams, ErrorCode, ErrorObject, LINE_LIMIT, ReceiptView, RecordParams, RecordsParams,
    WorldRecordView,
};
use data_encoding::BASE64;
use serde_json::{Value as Json, json};

use super::text::{result_json, typed_json, value_json, view};
use super::{asked, failed, find, on_thread, usage};
use crate::journal::{ReadError, Reader};
use crate::server::Service;
use crate::server::connection::Answer;
use crate::server::methods::{show, to_value};
use crate::worlds::state_at;

/// Records given where the request does not say how many.
const DEFAULT_LAST: u32 = 100;
/// Longest entry that is shown whole, as JSON.
const LONGEST_ENTRY: usize = 64 << 10;
/// Cells given at most.
const MOST_CELLS: usize = 10_000;

pub(super) async fn cells(params: CellsParams, service: &Service) -> Result<Answer, ErrorObject> {
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

pub(super) async fn records(params: RecordsParams, service: &Service) -> Result<Answer, ErrorObject> {
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

pub(super) async fn receipt(params: RecordParams, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let path = handle.path.clone();
    let shown = on_thread(move || {
        let error = |error: ReadError| failed(&error);
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
