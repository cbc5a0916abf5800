//! Why is it so? From a record back to where it began and on to what came of it, across to the host's world and back.

use std::collections::BTreeMap;

use agentd_engine::{Entry, Receipt, Source};
use agentd_journal::{Hash, Record};
use agentd_model::{Event, Principal, Seq};
use agentd_protocol::{ErrorCode, ErrorObject, RecordParams, WhyGraph, WhyNode};
use serde_json::Value as Json;

use super::text::sentence;
use super::{asked, failed, find, on_thread};
use crate::journal::{Hashed, ReadError, Reader};
use crate::server::Service;
use crate::server::connection::Answer;
use crate::server::methods::{show, to_value};

/// From a record back to where it began, and on to what came of it; across to the host's world and back.
pub(super) async fn why(params: RecordParams, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let (world, definitions) =
        handle.look(|state| (state.world(), state.definitions().clone())).await.map_err(asked)?;
    let (path, host) = (handle.path.clone(), service.places.journal());
    let graph = on_thread(move || {
        let error = |error: ReadError| failed(&error);
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
        let mut known: BTreeMap<Seq, _> = chain.into_iter().map(|record| (record.seq, record)).collect();
        for (record, _) in later {
            if record.cause.is_some_and(|cause| known.contains_key(&cause)) {
                known.insert(record.seq, record);
            }
        }
        let mut graph = WhyGraph { record: params.record, nodes: vec![], edges: vec![] };
        let host = HostRecords(Reader::open(&host).map_err(error)?);
        for record in known.values() {
            let id = record.seq.to_string();
            let done_there = match (&record.event, record.cause) {
                (Entry::Settled { receipt }, Some(cause)) => {
                    host.done_by(Principal::World { world, intent: cause }, receipt)?
                }
                _ => None,
            };
            if let Some(cause) = record.cause.filter(|_| done_there.is_none()) {
                graph.edges.push((cause.to_string(), id.clone()));
            }
            if let Entry::Happened { from: Source::Host { seq, hash }, .. } = &record.event
                && let Some(node) = host.the_one(*seq, *hash)?
            {
                graph.edges.push((node.id.clone(), id.clone()));
                add(&mut graph, node);
            }
            let text = sentence(&definitions, &record.event);
            graph.nodes.push(WhyNode { id: id.clone(), wall_ns: record.stamp.wall_ns, text });
            // What the host did because of it.
            if let Some(node) = done_there {
                let from = record.cause.map_or(id.clone(), |cause| cause.to_string());
                graph.edges.push((from, node.id.clone()));
                graph.edges.push((node.id.clone(), id));
                add(&mut graph, node);
            }
        }
        graph.edges.dedup();
        Ok(graph)
    });
    show(&graph.await?)
}

fn add(graph: &mut WhyGraph, node: WhyNode) {
    if !graph.nodes.iter().any(|known| known.id == node.id) {
        graph.nodes.push(node);
    }
}

/// This host's own journal. A world that came from elsewhere names records of another host's, which are not looked for here.
struct HostRecords(Reader);

impl HostRecords {
    /// The record of this number, if it is the one with this hash.
    fn the_one(&self, seq: Seq, hash: Hash) -> Result<Option<WhyNode>, ErrorObject> {
        let found = self.get(seq)?.filter(|(_, found)| *found == hash);
        found.map(|(record, _)| node(&record)).transpose()
    }

    /// The record that a receipt of one of the host's own adapters names, if it was for that effect.
    fn done_by(&self, by: Principal, receipt: &[u8]) -> Result<Option<WhyNode>, ErrorObject> {
        let receipt = Receipt::claimed(receipt).ok().filter(|receipt| receipt.adapter == "host/1");
        let seq = receipt.and_then(|receipt| minicbor::decode::<(u64,)>(receipt.result.as_ref()?).ok());
        let found = seq.map(|(seq,)| self.get(Seq(seq))).transpose()?.flatten();
        found.filter(|(record, _)| record.event.by() == Some(by)).map(|(record, _)| node(&record)).transpose()
    }

    fn get(&self, seq: Seq) -> Result<Option<Hashed>, ErrorObject> {
        self.0.get::<Event>(seq).map_err(|error| failed(&error))
    }
}

fn node(record: &Record) -> Result<WhyNode, ErrorObject> {
    let json = to_value(&record.event)?;
    let kind = json.get("event").and_then(Json::as_str).unwrap_or_default().replace('_', " ");
    let agent = record.event.agent().map(|agent| format!(", agent {agent}")).unwrap_or_default();
    let object = match &record.event {
        Event::AccessDenied { denial, .. } => format!(": {} {}", denial.hook.verb(), denial.object),
        Event::OperatorsTold { subject, .. } => format!(": {subject}"),
        _ => String::new(),
    };
    let text = format!("{kind}{agent}{object}");
    Ok(WhyNode { id: format!("host:{}", record.seq), wall_ns: record.stamp.wall_ns, text })
}
