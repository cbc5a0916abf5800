//! Changing what a world consists of: typed changes, each with the hash of what it replaces.
//!
//! A patch says which manifest it was made for. It applies to that one and to no other, as a whole or not at all, and what
//! comes of it is checked as if somebody had written it new: names resolve, types are sound, nobody defines what is `sys`.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::define::canonical;
use crate::{Act, Definition, Hash, Limits, MAX_STEPS, Manifest, Module, Name, Plan, Policy, Resolve, Route, Trigger};
use crate::{Type, builtin};

/// Most bytes of a patch, as CBOR.
pub const MAX_PATCH_BYTES: usize = 256 << 10;

/// Deepest nesting of CBOR that definitions may have: what is read recursively must not be able to fill a stack.
pub const MAX_NESTING: usize = 192;

/// Whether CBOR items lie within each other at most so deep. What is no CBOR is found out by whoever decodes it.
pub fn nested_within(bytes: &[u8], most: usize) -> bool {
    use minicbor::data::Type;
    let mut open: Vec<u64> = Vec::new();
    let mut decoder = minicbor::Decoder::new(bytes);
    while decoder.position() < bytes.len() {
        let items = match decoder.datatype() {
            Ok(Type::Array) => decoder.array(),
            Ok(Type::Map) => decoder.map().map(|pairs| pairs.map(|pairs| pairs.saturating_mul(2))),
            Ok(Type::Tag) => decoder.tag().map(|_| Some(1)),
            // Of unknown length: nothing that is canonical has them.
            Ok(Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef) => return false,
            _ => decoder.skip().map(|()| Some(0)),
        };
        let Ok(items) = items.map(|items| items.unwrap_or(0)) else { return true };
        if items > 0 {
            open.push(items);
            if open.len() > most {
                return false;
            }
            continue;
        }
        // The item is complete, and with it perhaps the one around it.
        while let Some(left) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
    }
    true
}

/// Changes to a world's definitions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Hash of the manifest that it is for.
    #[n(0)]
    pub base: Hash,
    /// What changes, in this order.
    #[n(1)]
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// A definition under a name that is free.
    #[n(0)]
    Add(#[n(0)] Box<Definition>),
    /// Another definition under its name.
    #[n(1)]
    Replace {
        /// Hash of what is there.
        #[n(0)]
        old: Hash,
        /// What is to be there.
        #[n(1)]
        new: Box<Definition>,
    },
    /// A definition no more.
    #[n(2)]
    Remove {
        /// Its name.
        #[n(0)]
        name: Name,
        /// Hash of what is there.
        #[n(1)]
        old: Hash,
    },
    /// All routes anew.
    #[n(3)]
    Routes(#[n(0)] Vec<Route>),
    /// All triggers anew.
    #[n(4)]
    Triggers(#[n(0)] Vec<Trigger>),
    /// Another policy in force.
    #[n(5)]
    Policy(#[n(0)] Option<Name>),
}

impl Patch {
    /// What proposals and records call it by.
    pub fn hash(&self) -> Hash {
        Hash::of("agentd 2026-11-21 air patch v1", &canonical(self))
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        canonical(self)
    }

    /// Reads canonical bytes, and refuses every other encoding of the same patch.
    pub fn decode(bytes: &[u8]) -> Result<Patch, NotApplicable> {
        if !nested_within(bytes, MAX_NESTING) {
            return Err(NotApplicable::Bytes { reason: format!("nested deeper than {MAX_NESTING}") });
        }
        let patch: Patch =
            minicbor::decode(bytes).map_err(|error| NotApplicable::Bytes { reason: error.to_string() })?;
        if canonical(&patch) != bytes {
            return Err(NotApplicable::Bytes { reason: "not in canonical form".into() });
        }
        Ok(patch)
    }
}

/// Everything that is defined in a world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    nodes: BTreeMap<Name, Definition>,
    routes: Vec<Route>,
    triggers: Vec<Trigger>,
    policy: Option<Name>,
    types: BTreeMap<Name, Type>,
}

/// Why a patch cannot be applied. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotApplicable {
    /// It is no patch.
    #[error("the bytes are not a patch: {reason}")]
    Bytes {
        /// Why not.
        reason: String,
    },
    /// The world has changed since it was made.
    #[error("the patch was made for manifest {wanted}, and the world is at {found}")]
    Base {
        /// What it was made for.
        wanted: Hash,
        /// What there is.
        found: Hash,
    },
    /// Something is there already.
    #[error("{0} is defined already")]
    Exists(Name),
    /// Something is not there.
    #[error("{0} is not defined")]
    Missing(Name),
    /// Something is not what the patch says it replaces.
    #[error("{name} is {found}, and the patch replaces {wanted}")]
    Stale {
        /// Which definition.
        name: Name,
        /// What the patch says is there.
        wanted: Hash,
        /// What is there.
        found: Hash,
    },
    /// What comes of it does not hold together.
    #[error(transparent)]
    Unsound(#[from] Unsound),
}

/// What does not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Unsound {
    /// Which definition, or `routes`, `triggers`, `policy`.
    pub at: String,
    /// What is wrong with it.
    pub what: String,
}

impl Definitions {
    /// Definitions that were read one by one, checked as a whole.
    pub fn new(
        nodes: impl IntoIterator<Item = Definition>,
        routes: Vec<Route>,
        triggers: Vec<Trigger>,
        policy: Option<Name>,
    ) -> Result<Definitions, NotApplicable> {
        let mut definitions = Definitions { routes, triggers, policy, ..Definitions::default() };
        for node in nodes {
            definitions.add(node)?;
        }
        definitions.check()?;
        Ok(definitions)
    }

    /// The manifest.
    pub fn manifest(&self) -> Manifest {
        Manifest {
            definitions: self.nodes.iter().map(|(name, node)| (name.clone(), node.hash())).collect(),
            routes: self.routes.clone(),
            triggers: self.triggers.clone(),
            policy: self.policy.clone(),
        }
    }

    /// Every definition, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Definition> {
        self.nodes.values()
    }

    /// One definition.
    pub fn get(&self, name: &Name) -> Option<&Definition> {
        self.nodes.get(name)
    }

    /// A module.
    pub fn module(&self, name: &Name) -> Option<&Module> {
        match self.nodes.get(name) {
            Some(Definition::Module(module)) => Some(module),
            _ => None,
        }
    }

    /// A plan.
    pub fn plan(&self, name: &Name) -> Option<&Plan> {
        match self.nodes.get(name) {
            Some(Definition::Plan(plan)) => Some(plan),
            _ => None,
        }
    }

    /// A capability.
    pub fn capability(&self, name: &Name) -> Option<&crate::Capability> {
        match self.nodes.get(name) {
            Some(Definition::Capability(capability)) => Some(capability),
            _ => None,
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<&Policy> {
        match self.policy.as_ref().and_then(|name| self.nodes.get(name)) {
            Some(Definition::Policy(policy)) => Some(policy),
            _ => None,
        }
    }

    /// Events to modules.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Events to plans.
    pub fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    /// Whether anything takes events of this schema.
    pub fn subscribes(&self, event: &Name) -> bool {
        self.routes.iter().any(|route| route.event == *event)
            || self.triggers.iter().any(|trigger| trigger.event == *event)
            || self.awaited().any(|name| name == event)
    }

    fn awaited(&self) -> impl Iterator<Item = &Name> {
        let plans = self.nodes.values().filter_map(|node| match node {
            Definition::Plan(plan) => Some(plan),
            _ => None,
        });
        plans.flat_map(|plan| &plan.steps).filter_map(|step| match &step.act {
            Act::AwaitEvent { event, .. } => Some(event),
            _ => None,
        })
    }

    /// The changes that make `wanted` out of these.
    pub fn difference(&self, wanted: &Definitions) -> Patch {
        let mut changes = Vec::new();
        for (name, node) in &self.nodes {
            if !wanted.nodes.contains_key(name) {
                changes.push(Change::Remove { name: name.clone(), old: node.hash() });
            }
        }
        for (name, new) in &wanted.nodes {
            match self.nodes.get(name) {
                None => changes.push(Change::Add(Box::new(new.clone()))),
                Some(old) if old != new => {
                    changes.push(Change::Replace { old: old.hash(), new: Box::new(new.clone()) });
                }
                Some(_) => {}
            }
        }
        if self.routes != wanted.routes {
            changes.push(Change::Routes(wanted.routes.clone()));
        }
        if self.triggers != wanted.triggers {
            changes.push(Change::Triggers(wanted.triggers.clone()));
        }
        if self.policy != wanted.policy {
            changes.push(Change::Policy(wanted.policy.clone()));
        }
        Patch { base: self.manifest().hash(), changes }
    }

    /// What these become under a patch.
    pub fn patched(&self, patch: &Patch) -> Result<Definitions, NotApplicable> {
        let found = self.manifest().hash();
        if found != patch.base {
            return Err(NotApplicable::Base { wanted: patch.base, found });
        }
        let mut next = self.clone();
        for change in &patch.changes {
            next.change(change)?;
        }
        next.check()?;
        Ok(next)
    }

    fn change(&mut self, change: &Change) -> Result<(), NotApplicable> {
        match change {
            Change::Add(new) => self.add(new.as_ref().clone())?,
            Change::Replace { old, new } => {
                self.remove(new.name(), *old)?;
                self.add(new.as_ref().clone())?;
            }
            Change::Remove { name, old } => self.remove(name, *old)?,
            Change::Routes(routes) => self.routes.clone_from(routes),
            Change::Triggers(triggers) => self.triggers.clone_from(triggers),
            Change::Policy(policy) => self.policy.clone_from(policy),
        }
        Ok(())
    }

    fn add(&mut self, node: Definition) -> Result<(), NotApplicable> {
        let name = node.name().clone();
        if self.nodes.contains_key(&name) {
            return Err(NotApplicable::Exists(name));
        }
        if let Definition::Schema(schema) = &node {
            self.types.insert(name.clone(), schema.of.clone());
        }
        self.nodes.insert(name, node);
        Ok(())
    }

    fn remove(&mut self, name: &Name, wanted: Hash) -> Result<(), NotApplicable> {
        let found = self.nodes.get(name).ok_or_else(|| NotApplicable::Missing(name.clone()))?.hash();
        if found != wanted {
            return Err(NotApplicable::Stale { name: name.clone(), wanted, found });
        }
        self.nodes.remove(name);
        self.types.remove(name);
        Ok(())
    }

    /// Whether everything resolves and fits together.
    fn check(&self) -> Result<(), Unsound> {
        for (name, node) in &self.nodes {
            let unsound = |what: String| Unsound { at: format!("{} {name}", node.word()), what };
            if name.is_reserved() {
                return Err(unsound("the name space sys is the daemon's".into()));
            }
            match node {
                Definition::Schema(schema) => schema.of.check(self).map_err(|error| unsound(error.to_string()))?,
                Definition::Module(module) => self.check_module(module).map_err(unsound)?,
                Definition::Plan(plan) => self.check_plan(plan).map_err(unsound)?,
                Definition::Capability(capability) => {
                    known_effect(&capability.effect).map_err(unsound)?;
                    for holder in &capability.holders {
                        if self.module(holder).is_none() && self.plan(holder).is_none() {
                            return Err(unsound(format!("{holder} is no module and no plan")));
                        }
                    }
                }
                Definition::Policy(policy) => {
                    if policy.proposals.approvals == 0 {
                        return Err(unsound("a proposal needs at least one approval".into()));
                    }
                }
            }
        }
        self.check_wiring()
    }

    fn known_schema(&self, name: &Name) -> Result<(), String> {
        if self.schema(name).is_some() { Ok(()) } else { Err(format!("there is no schema {name}")) }
    }

    fn check_module(&self, module: &Module) -> Result<(), String> {
        self.known_schema(&module.state)?;
        for name in module.takes.iter().chain(&module.raises) {
            self.known_schema(name)?;
        }
        if let Some(name) = module.raises.iter().find(|name| name.is_reserved()) {
            return Err(format!("it may not raise {name}"));
        }
        module.effects.iter().try_for_each(known_effect)?;
        if module.key.as_ref().is_some_and(|key| !key.is_key()) {
            return Err("a key is an int, a nat, a text, a hash or a uuid".into());
        }
        let Limits { fuel, memory, output } = module.limits;
        if fuel > Limits::MOST.fuel || memory > Limits::MOST.memory || output > Limits::MOST.output {
            let Limits { fuel, memory, output } = Limits::MOST;
            return Err(format!("at most {fuel} of fuel, {memory} bytes of memory, {output} bytes of output"));
        }
        Ok(())
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), String> {
        self.known_schema(&plan.input)?;
        if plan.steps.is_empty() || plan.steps.len() > MAX_STEPS {
            return Err(format!("a plan has 1 to {MAX_STEPS} steps"));
        }
        let place = |id: &String| {
            plan.steps.iter().position(|step| step.id == *id).ok_or_else(|| format!("there is no step {id}"))
        };
        for (at, step) in plan.steps.iter().enumerate() {
            let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if step.id.is_empty() || !step.id.bytes().all(named) {
                return Err(format!("{:?} is no name for a step: a-z, 0-9, _", step.id));
            }
            if place(&step.id)? != at {
                return Err(format!("two steps are called {}", step.id));
            }
            match &step.act {
                Act::Emit { effect, capability, .. } => {
                    known_effect(effect)?;
                    if self.capability(capability).is_none() {
                        return Err(format!("there is no capability {capability}"));
                    }
                }
                Act::AwaitEvent { event, .. } => self.known_schema(event)?,
                Act::Raise { event, .. } => {
                    self.known_schema(event)?;
                    if event.is_reserved() {
                        return Err(format!("it may not raise {event}"));
                    }
                }
                Act::AwaitReceipt { of } => {
                    if !matches!(plan.steps[place(of)?].act, Act::Emit { .. }) {
                        return Err(format!("step {of} asks for no effect"));
                    }
                }
                Act::Assign { .. } | Act::End { .. } => {}
            }
        }
        // Taken in an order in which every step comes after those before it; what is left then goes in a circle.
        let mut missing = vec![0; plan.steps.len()];
        for edge in &plan.edges {
            place(&edge.from)?;
            missing[place(&edge.to)?] += 1;
        }
        let mut ready: Vec<usize> = (0..missing.len()).filter(|step| missing[*step] == 0).collect();
        let mut taken = 0;
        while let Some(step) = ready.pop() {
            taken += 1;
            for edge in plan.edges.iter().filter(|edge| edge.from == plan.steps[step].id) {
                let to = place(&edge.to)?;
                missing[to] -= 1;
                if missing[to] == 0 {
                    ready.push(to);
                }
            }
        }
        if taken == plan.steps.len() { Ok(()) } else { Err("its steps go in a circle".into()) }
    }

    fn check_wiring(&self) -> Result<(), Unsound> {
        let unsound = |at: &str, what: String| Unsound { at: at.to_owned(), what };
        for route in &self.routes {
            let at = format!("route {} → {}", route.event, route.module);
            let module = self.module(&route.module).ok_or_else(|| unsound(&at, "there is no such module".into()))?;
            if !module.takes.contains(&route.event) {
                return Err(unsound(&at, "the module does not take it".into()));
            }
            match (&module.key, &route.key) {
                (None, Some(_)) => return Err(unsound(&at, "the module has no keys".into())),
                (Some(key), Some(field)) if self.key_type(&route.event, field).as_ref() != Some(key) => {
                    return Err(unsound(&at, format!("the event has no field {field} of the type of the key")));
                }
                _ => {}
            }
        }
        for trigger in &self.triggers {
            let at = format!("trigger {} → {}", trigger.event, trigger.plan);
            let plan = self.plan(&trigger.plan).ok_or_else(|| unsound(&at, "there is no such plan".into()))?;
            if plan.input != trigger.event {
                return Err(unsound(&at, format!("the plan starts with {}", plan.input)));
            }
        }
        match &self.policy {
            Some(name) if self.policy().is_none() => Err(unsound("policy", format!("there is no policy {name}"))),
            _ => Ok(()),
        }
    }

    /// The type of a field of an event.
    fn key_type(&self, event: &Name, field: &str) -> Option<Type> {
        match self.schema(event)? {
            Type::Record(fields) => fields.iter().find(|found| found.name == field).map(|found| found.of.clone()),
            _ => None,
        }
    }
}

impl Resolve for Definitions {
    fn schema(&self, name: &Name) -> Option<&Type> {
        if name.is_reserved() { builtin::schemas().get(name) } else { self.types.get(name) }
    }
}

fn known_effect(name: &Name) -> Result<(), String> {
    if builtin::effect(name).is_some() { Ok(()) } else { Err(format!("there is no kind of effect {name}")) }
}

#[cfg(test)]
mod tests;
