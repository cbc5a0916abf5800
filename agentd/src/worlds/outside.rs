//! The adapters of this host, behind one door.

use std::sync::{OnceLock, Weak};

use agentd_air::Value;
use agentd_model::Hash;

use super::adapter::llm::Providers;
use super::adapter::{Blobs, Job, Outcome, Outside, exec, host, http, llm};
use super::reducers::hash_of;
use crate::core::World;
use crate::journal::Reader;
use crate::places::Places;
use crate::server::Service;

/// What effects reach on this host.
pub struct HostOutside {
    core: World,
    places: Places,
    runtime: tokio::runtime::Handle,
    service: OnceLock<Weak<Service>>,
}

impl HostOutside {
    /// Over the host's world. Agents can be started from [`HostOutside::serve`] on.
    pub fn new(core: World, places: Places, runtime: tokio::runtime::Handle) -> HostOutside {
        HostOutside { core, places, runtime, service: OnceLock::new() }
    }

    /// Gives it what agents are started with.
    pub fn serve(&self, service: Weak<Service>) {
        // Said once, by whoever starts the daemon.
        let _ = self.service.set(service);
    }

    fn exec(&self, job: &Job) -> Outcome {
        match self.service.get().and_then(Weak::upgrade) {
            Some(service) => exec::perform(job, &service, &self.runtime),
            None => Outcome::Failed("agentd is not ready, or stopping".into()),
        }
    }

    fn llm(&self, job: &Job) -> Outcome {
        let path = self.places.providers();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return Outcome::Failed(format!("{}: {error}", path.display())),
        };
        match Providers::parse(&text) {
            Ok(providers) => llm::perform(job, &providers),
            Err(error) => Outcome::Failed(format!("{}: {}", path.display(), crate::errors::one_line(&error))),
        }
    }
}

impl Outside for HostOutside {
    fn perform(&self, job: &Job) -> (&'static str, Outcome, Blobs) {
        match job.kind.name() {
            "http" => ("http/1", http::perform(job), vec![]),
            "llm" => ("llm/1", self.llm(job), vec![]),
            "exec" => ("exec/1", self.exec(job), vec![]),
            "blob.put" => put(job),
            "blob.get" => ("blob/1", get(job), vec![]),
            "introspect" => ("introspect/1", introspect(job), vec![]),
            name if name.starts_with("host.") => ("host/1", host::perform(job, &self.core), vec![]),
            name => ("agentd/1", Outcome::Failed(format!("no adapter does sys/{name}@1")), vec![]),
        }
    }
}

fn field(job: &Job, at: usize) -> Option<&Value> {
    match &job.params {
        Value::Record(fields) => fields.get(at),
        _ => None,
    }
}

fn put(job: &Job) -> (&'static str, Outcome, Blobs) {
    let Some(Value::Bytes(bytes)) = field(job, 0) else {
        return ("blob/1", Outcome::Failed("there are no bytes".into()), vec![]);
    };
    let hash = hash_of(bytes);
    ("blob/1", Outcome::Done(Value::Record(vec![Value::Hash(hash)])), vec![(hash, bytes.clone())])
}

fn get(job: &Job) -> Outcome {
    let Some(Value::Hash(hash)) = field(job, 0) else { return Outcome::Failed("there is no hash".into()) };
    match Reader::open(&job.path).and_then(|reader| reader.blob(Hash(hash.0))) {
        Ok(Some(bytes)) => Outcome::Done(Value::Record(vec![Value::Bytes(bytes)])),
        Ok(None) => Outcome::Failed(format!("there is no blob {hash}")),
        Err(error) => Outcome::Failed(crate::errors::one_line(&error)),
    }
}

/// What the world knows of itself, as of the last record.
fn introspect(job: &Job) -> Outcome {
    let state = match super::state_at(&job.path, agentd_model::Seq(u64::MAX >> 1)) {
        Ok(state) => state,
        Err(error) => return Outcome::Failed(crate::errors::one_line(&error)),
    };
    let some = |bytes: Vec<u8>| Value::Some(Box::new(Value::Bytes(bytes)));
    let value = match field(job, 0) {
        Some(Value::Variant(0, _)) => minicbor::to_vec(state.definitions().manifest()).map_or(Value::None, some),
        Some(Value::Variant(1, _)) => Value::None,
        Some(Value::Variant(2, Some(cell))) => {
            let Value::Record(fields) = cell.as_ref() else { return Outcome::Failed("there is no cell".into()) };
            let [Value::Text(module), key] = fields.as_slice() else {
                return Outcome::Failed("there is no cell".into());
            };
            let module = match module.parse() {
                Ok(module) => module,
                Err(error) => return Outcome::Failed(format!("{error}")),
            };
            let key = match key {
                Value::Some(bytes) => match bytes.as_ref() {
                    Value::Bytes(bytes) => Some(bytes.clone().into()),
                    _ => None,
                },
                _ => None,
            };
            state.cell(&agentd_engine::CellId { module, key }).map_or(Value::None, |bytes| some(bytes.to_vec()))
        }
        _ => return Outcome::Failed("there is nothing of that kind".into()),
    };
    Outcome::Done(Value::Record(vec![Value::Nat(state.height().0), value]))
}
