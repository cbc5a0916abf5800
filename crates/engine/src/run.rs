//! An input and everything that follows from it: the cascade.
//!
//! Events wait in a queue, first in, first out. An event goes to the modules that its routes name, in their order, then to
//! the plans that it starts, then to the plans that wait for it. A step's own events go to the end of the queue, its
//! effects are authorised at once. Whoever asked for an effect that is refused is told so in the same cascade, by a
//! `sys/receipt@1` with the status `refused`; there is nobody else to wait for.
//!
//! A cascade has a limit. What does not fit is not looked at, and a record says so.

use std::collections::VecDeque;

use agentd_air::{
    Decision, Hash as Content, Limits, Module, Name, Resolve as _, Strictness, Type, Value, decode, encode, schemas,
};
use agentd_model::{Seq, Stamp};
use agentd_reducer::abi;
use minicbor::bytes::{ByteArray, ByteVec};

use crate::entry::{Entry, Grant, Intent, Origin, Outcome, Ruling, Source};
use crate::plan::{Happening, Instance, Wanted};
use crate::receipt::Receipt;
use crate::state::{CellId, State};

/// Records of one input after which nothing more is begun. A step that was begun is ended, with all that it raises and wants.
pub const MAX_CASCADE: usize = 1000;

/// Most events and most effects of one step.
const MAX_OUTPUTS: usize = 64;

/// What runs reducers.
pub trait Reducers {
    /// Runs one step: the same answer for the same request, on every host.
    fn step(&self, request: &Request<'_>) -> Result<Ran, HostFailure>;
}

/// One step to run.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Hash of the WASM.
    pub wasm: &'a Content,
    /// What it may use.
    pub limits: Limits,
    /// Encoded [`abi::Input`].
    pub input: &'a [u8],
}

/// What came of running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It returned bytes.
    Done {
        /// They should be an [`abi::Output`].
        output: Vec<u8>,
        /// Fuel used.
        fuel: u64,
    },
    /// It trapped.
    Trapped(String),
    /// It reached a limit.
    Limited(String),
}

/// The host could not run it, which says nothing about the reducer. Whatever the state has become is to be thrown away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reducer could not be run: {0}")]
pub struct HostFailure(pub String);

/// An entry on its way to the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its number.
    pub seq: Seq,
    /// What brought it about.
    pub cause: Option<Seq>,
    /// What happened.
    pub entry: Entry,
}

impl State {
    /// Takes in an entry that was accepted, and everything that follows from it.
    pub fn run(&mut self, reducers: &dyn Reducers, entry: Entry, stamp: Stamp) -> Result<Vec<Draft>, HostFailure> {
        let cause = self.cause_of(&entry);
        let mut cascade = Cascade { state: self, reducers, stamp, drafts: Vec::new(), queue: VecDeque::new() };
        cascade.input(entry, cause)?;
        cascade.finish()?;
        Ok(cascade.drafts)
    }

    /// What an input answers to.
    fn cause_of(&self, entry: &Entry) -> Option<Seq> {
        let wanted = |intent: &Content| self.open.get(intent).map(|open| open.wanted);
        match entry {
            Entry::Answered { intent, .. } | Entry::Attempted { intent, .. } => wanted(intent),
            Entry::Settled { receipt } => Receipt::claimed(receipt).ok().and_then(|receipt| wanted(&receipt.intent)),
            Entry::Rehearsed { proposal, .. } | Entry::Voted { proposal, .. } | Entry::Applied { proposal, .. } => {
                Some(*proposal)
            }
            _ => None,
        }
    }
}

struct Cascade<'a> {
    state: &'a mut State,
    reducers: &'a dyn Reducers,
    stamp: Stamp,
    drafts: Vec<Draft>,
    queue: VecDeque<Task>,
}

/// Something that follows.
enum Task {
    /// An event goes where its routes lead.
    Route { seq: Seq, schema: Name, value: Vec<u8>, key: Option<ByteVec> },
    /// Whoever asked for an effect is told what came of it.
    Tell { seq: Seq, origin: Origin, intent: Content, value: Value },
}

impl Cascade<'_> {
    fn emit(&mut self, entry: Entry, cause: Option<Seq>) -> Seq {
        let seq = Seq(self.state.height.0 + 1);
        self.state.fold(seq, self.stamp, &entry);
        self.drafts.push(Draft { seq, cause, entry });
        seq
    }

    fn input(&mut self, entry: Entry, cause: Option<Seq>) -> Result<(), HostFailure> {
        // Looked up before the entry is folded, because it settles what it is about.
        let told = self.told(&entry);
        let event = match &entry {
            // What nobody listens to leads nowhere.
            Entry::Happened { schema, value, key, .. } if self.listens(schema) => {
                Some((schema.clone(), value.to_vec(), key.clone()))
            }
            _ => None,
        };
        let seq = self.emit(entry, cause);
        if let Some((schema, value, key)) = event {
            self.queue.push_back(Task::Route { seq, schema, value, key });
        }
        if let Some((origin, intent, value)) = told {
            self.queue.push_back(Task::Tell { seq, origin, intent, value });
        }
        Ok(())
    }

    fn listens(&self, schema: &Name) -> bool {
        let definitions = &self.state.definitions;
        definitions.routes().iter().any(|route| route.event == *schema)
            || definitions.triggers().iter().any(|trigger| trigger.event == *schema)
            || !self.state.runs.is_empty()
    }

    /// Who is to be told what, if the entry settles an effect.
    fn told(&self, entry: &Entry) -> Option<(Origin, Content, Value)> {
        let (intent, status, result) = match entry {
            Entry::Settled { receipt } => {
                let receipt = Receipt::claimed(receipt).ok()?;
                (receipt.intent, receipt.status.word(), receipt.result)
            }
            Entry::Answered { intent, allow: false, .. } => (*intent, "refused", None),
            _ => return None,
        };
        let open = self.state.open.get(&intent)?;
        let value = receipt_value(intent, &open.intent.kind, status, result.map(Vec::from));
        Some((open.intent.origin.clone(), intent, value))
    }

    fn finish(&mut self) -> Result<(), HostFailure> {
        while let Some(task) = self.queue.pop_front() {
            if self.drafts.len() >= MAX_CASCADE {
                let (seq, at) = match task {
                    Task::Route { seq, schema, .. } => (seq, format!("event {schema} of record {seq}")),
                    Task::Tell { seq, intent, .. } => (seq, format!("what came of effect {intent}")),
                };
                self.emit(Entry::Cut { at }, Some(seq));
                return Ok(());
            }
            match task {
                Task::Route { seq, schema, value, key } => self.route(seq, &schema, &value, key)?,
                Task::Tell { seq, origin, intent, value } => self.tell(seq, origin, intent, &value)?,
            }
        }
        Ok(())
    }

    /// An event goes to modules, to plans that it starts, and to plans that wait for it.
    fn route(&mut self, seq: Seq, schema: &Name, value: &[u8], key: Option<ByteVec>) -> Result<(), HostFailure> {
        let definitions = self.state.definitions.clone();
        // Encoded by us, so it decodes; what does not is of a schema that has since been taken away.
        let of = definitions.schema(schema);
        let decoded = of.and_then(|of| decode(definitions.as_ref(), of, value, Strictness::Canonical).ok());
        for route in definitions.routes().iter().filter(|route| route.event == *schema) {
            let Some(module) = definitions.module(&route.module) else { continue };
            let cell = match (&module.key, &route.key) {
                (None, _) => None,
                (Some(_), Some(field)) => of.zip(decoded.as_ref()).and_then(|(of, value)| key_in(of, value, field)),
                // A sender's key was checked; that of a cell which raises an event may be of another type.
                (Some(of), None) => {
                    let fits = |key: &ByteVec| decode(definitions.as_ref(), of, key, Strictness::Canonical).is_ok();
                    key.clone().filter(fits)
                }
            };
            self.step(seq, module, cell, schema, value)?;
        }
        let Some(decoded) = decoded else { return Ok(()) };
        let waiting: Vec<Seq> = self.state.runs.keys().copied().collect();
        for trigger in definitions.triggers().iter().filter(|trigger| trigger.event == *schema) {
            let Some(plan) = definitions.plan(&trigger.plan) else { continue };
            let instance = Instance::start(plan, &decoded);
            let entry = Entry::PlanStarted { plan: plan.name.clone(), instance: save(&instance) };
            let run = self.emit(entry, Some(seq));
            self.go_on(run, seq, None)?;
        }
        for run in waiting {
            self.go_on(run, seq, Some(Happening::Event { schema, value: &decoded }))?;
        }
        Ok(())
    }

    /// Whoever asked for an effect is told what came of it.
    fn tell(&mut self, seq: Seq, origin: Origin, intent: Content, value: &Value) -> Result<(), HostFailure> {
        match origin {
            Origin::Module { name, key } => {
                let definitions = self.state.definitions.clone();
                match definitions.module(&name) {
                    Some(module) if module.takes.contains(receipt_schema()) => {
                        self.step(seq, module, key, receipt_schema(), &encode(value))
                    }
                    _ => Ok(()),
                }
            }
            Origin::Plan { run, .. } => self.go_on(run, seq, Some(Happening::Receipt { intent, value })),
        }
    }

    /// One step of one reducer.
    fn step(
        &mut self,
        cause: Seq,
        module: &Module,
        key: Option<ByteVec>,
        schema: &Name,
        value: &[u8],
    ) -> Result<(), HostFailure> {
        let at = |outcome| Entry::Stepped { module: module.name.clone(), wasm: module.wasm, key: key.clone(), outcome };
        if module.key.is_some() && key.is_none() {
            let why = format!("the event {schema} has no key for a cell");
            self.emit(at(Outcome::Refused { why }), Some(cause));
            return Ok(());
        }
        let id = CellId { module: module.name.clone(), key: key.clone() };
        let input = abi::Input {
            version: abi::VERSION,
            context: abi::Context {
                wall_ns: self.stamp.wall_ns,
                logical_ns: self.state.logical_ns,
                seq: cause.0,
                entropy: ByteArray::from(self.entropy(cause, &id)),
                key: key.clone(),
            },
            state: self.state.cells.get(&id).map(|state| ByteVec::from(state.to_vec())),
            event: abi::Event { schema: schema.to_string(), value: ByteVec::from(value.to_vec()) },
        };
        let input = to_bytes(&input);
        let ran = self.reducers.step(&Request { wasm: &module.wasm, limits: module.limits, input: &input })?;
        let (output, fuel) = match ran {
            Ran::Done { output, fuel } => (output, fuel),
            Ran::Trapped(trap) => {
                self.emit(at(Outcome::Trapped { trap }), Some(cause));
                return Ok(());
            }
            Ran::Limited(limit) => {
                self.emit(at(Outcome::Limited { limit }), Some(cause));
                return Ok(());
            }
        };
        match self.look(module, &output, fuel) {
            Err(why) => drop(self.emit(at(Outcome::Refused { why }), Some(cause))),
            Ok((outcome, raises, effects)) => {
                let seq = self.emit(at(outcome), Some(cause));
                for (schema, value) in raises {
                    self.raise(schema, value, key.clone(), seq);
                }
                for (index, effect) in effects.into_iter().enumerate() {
                    let origin = Origin::Module { name: module.name.clone(), key: key.clone() };
                    self.want(seq, index as u32, origin, Some(module.wasm), effect)?;
                }
            }
        }
        Ok(())
    }

    /// Checks what a step gave, and makes it canonical.
    #[allow(clippy::type_complexity, reason = "the three parts of an output, used in one place")]
    fn look(
        &self,
        module: &Module,
        output: &[u8],
        fuel: u64,
    ) -> Result<(Outcome, Vec<(Name, Vec<u8>)>, Vec<abi::Effect>), String> {
        let definitions = self.state.definitions.as_ref();
        let output: abi::Output =
            minicbor::decode(output).map_err(|error| format!("the output is not one: {error}"))?;
        if output.raises.len() > MAX_OUTPUTS || output.effects.len() > MAX_OUTPUTS {
            return Err(format!("more than {MAX_OUTPUTS} events or effects in one step"));
        }
        let canonical = |schema: &Name, bytes: &[u8]| {
            let of = definitions.schema(schema).ok_or_else(|| format!("there is no schema {schema}"))?;
            let value = decode(definitions, of, bytes, Strictness::Lenient);
            value.map(|value| encode(&value)).map_err(|wrong| format!("{schema}: {wrong}"))
        };
        let outcome = match output.state {
            abi::Change::Keep => Outcome::Kept { fuel },
            abi::Change::Delete => Outcome::Deleted { fuel },
            abi::Change::Set(state) => {
                let state = canonical(&module.state, &state).map_err(|why| format!("state: {why}"))?;
                Outcome::Set { state: state.into(), fuel }
            }
        };
        let mut raises = Vec::new();
        for raise in output.raises {
            let schema: Name = raise.schema.parse().map_err(|error| format!("{error}"))?;
            if !module.raises.contains(&schema) {
                return Err(format!("it does not say that it raises {schema}"));
            }
            let value = canonical(&schema, &raise.value)?;
            raises.push((schema, value));
        }
        Ok((outcome, raises, output.effects))
    }

    fn raise(&mut self, schema: Name, value: Vec<u8>, key: Option<ByteVec>, cause: Seq) {
        let entry = Entry::Happened {
            schema: schema.clone(),
            value: value.clone().into(),
            key: key.clone(),
            from: Source::Raised,
        };
        let seq = self.emit(entry, Some(cause));
        self.queue.push_back(Task::Route { seq, schema, value, key });
    }

    /// An effect is asked for: capability, then policy, and whoever asked is told at once if the answer is no.
    fn want(
        &mut self,
        cause: Seq,
        index: u32,
        origin: Origin,
        wasm: Option<Content>,
        effect: abi::Effect,
    ) -> Result<Content, HostFailure> {
        let abi::Effect { kind, capability, params, key } = effect;
        let answer = self.state.authorise(origin.name(), &kind, &capability, &params);
        let params = answer.params.map_or(params, ByteVec::from);
        let identity = Identity { world: self.state.world, origin: &origin, kind: &kind, capability: &capability };
        let id = match &key {
            Some(key) => identity.keyed(key),
            None => identity.emitted(wasm, cause, index, &params),
        };
        let known = self.state.open.contains_key(&id) || self.state.settled.contains_key(&id);
        if known {
            self.emit(Entry::WantedAgain { intent: id }, Some(cause));
            return Ok(id);
        }
        let refused = match (&answer.grant, &answer.ruling) {
            (Grant::Refused { .. }, _) => true,
            (_, Some(Ruling { decision, .. })) => *decision == Decision::Deny,
            (_, None) => true,
        };
        // A kind that nobody knows has no name to record; the refusal says what was asked for.
        let named = kind.parse().unwrap_or_else(|_unknown| unknown_kind().clone());
        let value = refused.then(|| receipt_value(id, &named, "refused", None));
        let intent = Intent { id, kind: named, capability, params, origin: origin.clone(), key };
        let entry = Entry::Wanted { intent: Box::new(intent), grant: answer.grant, ruling: answer.ruling };
        let seq = self.emit(entry, Some(cause));
        if let Some(value) = value {
            self.queue.push_back(Task::Tell { seq, origin, intent: id, value });
        }
        Ok(id)
    }

    /// A plan goes on as far as it can.
    fn go_on(&mut self, run: Seq, cause: Seq, happening: Option<Happening<'_>>) -> Result<(), HostFailure> {
        let definitions = self.state.definitions.clone();
        let Some(found) = self.state.runs.get(&run) else { return Ok(()) };
        let (name, saved) = (found.plan.clone(), found.instance.clone());
        let (Some(plan), Ok(mut instance)) = (definitions.plan(&name), minicbor::decode::<Instance>(&saved)) else {
            return Ok(());
        };
        if let Some(Happening::Event { schema, .. }) = &happening
            && !instance.waits_for_event(plan, schema)
        {
            return Ok(());
        }
        let before = self.state.height;
        let mut wanted = VecDeque::from(instance.go_on(plan, &definitions, happening));
        let mut index = 0;
        while let Some(next) = wanted.pop_front() {
            match next {
                Wanted::Emit { step, effect, capability, params } => {
                    let origin = Origin::Plan { name: name.clone(), run, step };
                    let effect = abi::Effect {
                        kind: effect.to_string(),
                        capability: capability.to_string(),
                        params: params.into(),
                        key: None,
                    };
                    let intent = self.want(cause, index, origin, None, effect)?;
                    index += 1;
                    wanted.extend(instance.go_on(plan, &definitions, Some(Happening::Emitted { step, intent })));
                }
                Wanted::Raise { event, value, .. } => self.raise(event, value, None, cause),
                Wanted::End { .. } => {}
            }
        }
        let (ended, after) = (instance.ended().map(ToString::to_string), save(&instance));
        // An event that it does not want leaves no trace.
        if after == saved && index == 0 && ended.is_none() && self.state.height == before {
            return Ok(());
        }
        self.emit(Entry::PlanWent { run, instance: after, ended }, Some(cause));
        Ok(())
    }

    /// Random bytes of one step alone.
    fn entropy(&self, event: Seq, cell: &CellId) -> [u8; 32] {
        let mut bytes = self.stamp.entropy.0.to_vec();
        bytes.extend(event.0.to_be_bytes());
        bytes.extend(to_bytes(cell));
        Content::of("agentd 2026-11-21 entropy of a step v1", &bytes).0
    }
}

/// What an intent's identity is made of.
struct Identity<'a> {
    world: agentd_model::WorldId,
    origin: &'a Origin,
    kind: &'a str,
    capability: &'a str,
}

impl Identity<'_> {
    /// Of an effect with a key: whenever the same origin asks for the same kind with it, it is the same effect.
    fn keyed(&self, key: &ByteVec) -> Content {
        let parts = (self.world, self.origin, self.kind, self.capability, key);
        Content::of("agentd 2026-11-21 intent with a key v1", &to_bytes(&parts))
    }

    /// Of an effect without: each time another.
    fn emitted(&self, wasm: Option<Content>, step: Seq, index: u32, params: &ByteVec) -> Content {
        let parts = (self.world, self.origin, self.kind, self.capability, wasm, step, index, params);
        Content::of("agentd 2026-11-21 intent v1", &to_bytes(&parts))
    }
}

fn to_bytes<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_else(|error| unreachable!("writing to memory cannot be refused: {error}"))
}

fn save(instance: &Instance) -> ByteVec {
    to_bytes(instance).into()
}

/// The key of a cell as a field of an event holds it.
fn key_in(of: &Type, value: &Value, field: &str) -> Option<ByteVec> {
    let (Type::Record(fields), Value::Record(values)) = (of, value) else { return None };
    let at = fields.iter().position(|found| found.name == field)?;
    values.get(at).map(|value| encode(value).into())
}

/// What whoever asked for an effect is told: a `sys/receipt@1`.
fn receipt_value(intent: Content, kind: &Name, status: &str, result: Option<Vec<u8>>) -> Value {
    let result = result.map_or(Value::None, |bytes| Value::Some(Box::new(Value::Bytes(bytes))));
    Value::Record(vec![Value::Hash(intent), Value::Text(kind.to_string()), Value::Text(status.to_owned()), result])
}

/// The schema of receipts.
fn receipt_schema() -> &'static Name {
    named("sys/receipt@1")
}

/// Stands where the kind is no name at all.
fn unknown_kind() -> &'static Name {
    static UNKNOWN: std::sync::LazyLock<Option<Name>> = std::sync::LazyLock::new(|| "sys/unknown@1".parse().ok());
    UNKNOWN.as_ref().unwrap_or_else(|| unreachable!("a constant"))
}

fn named(text: &str) -> &'static Name {
    let found = schemas().keys().find(|name| name.to_string() == text);
    found.unwrap_or_else(|| unreachable!("every world has {text}"))
}
