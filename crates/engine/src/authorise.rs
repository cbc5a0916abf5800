//! May this effect ever, and should it now?
//!
//! Two questions, always in this order. The *capability* that the effect names: is it of this kind, does this module or plan
//! hold it, has it not expired, does it cover the parameters. Then the *policy*: the first rule that matches decides; no
//! rule, or no policy, is a no. Both answers stand in the record of the intent.
//!
//! An adapter looks at the scope again when it acts: here the parameters are only read, there they are real.

use agentd_air::{Decision, Definition, Effect, Name, Scope, Strictness, Value, any, decode, effect, encode, schemas};

use crate::entry::{Grant, Ruling};
use crate::state::State;

/// The answer to both questions, and the parameters in canonical form if they are what the kind says.
pub(crate) struct Answer {
    pub(crate) grant: Grant,
    pub(crate) ruling: Option<Ruling>,
    pub(crate) params: Option<Vec<u8>>,
}

impl State {
    /// Asks both.
    pub(crate) fn authorise(&self, origin: &Name, kind: &str, capability: &str, params: &[u8]) -> Answer {
        match self.covered(origin, kind, capability, params) {
            Err(why) => Answer { grant: Grant::Refused { why }, ruling: None, params: None },
            Ok((kind, capability, by, params)) => {
                let ruling = self.ruling(&kind, &capability, origin);
                Answer { grant: Grant::Covered { by }, ruling: Some(ruling), params: Some(params) }
            }
        }
    }

    /// Kind, capability, its hash, canonical parameters; or the reason why not.
    #[allow(clippy::type_complexity, reason = "four answers to one question, used in one place")]
    fn covered(
        &self,
        origin: &Name,
        kind: &str,
        capability: &str,
        params: &[u8],
    ) -> Result<(Name, Name, agentd_air::Hash, Vec<u8>), String> {
        let kind: Name = kind.parse().map_err(|error| format!("{error}"))?;
        let known: &Effect = effect(&kind).ok_or_else(|| format!("there is no kind of effect {kind}"))?;
        if let Some(module) = self.definitions.module(origin)
            && !module.effects.contains(&kind)
        {
            return Err(format!("{origin} does not say that it asks for {kind}"));
        }
        let name: Name = capability.parse().map_err(|error| format!("{error}"))?;
        let found = self.definitions.capability(&name).ok_or_else(|| format!("there is no capability {name}"))?;
        if found.effect != kind {
            return Err(format!("capability {name} is for {}", found.effect));
        }
        if !found.holders.contains(origin) {
            return Err(format!("{origin} does not hold capability {name}"));
        }
        if found.expires_ns.is_some_and(|expires| self.logical_ns >= expires) {
            return Err(format!("capability {name} has expired"));
        }
        let value = decode(schemas(), &known.params, params, Strictness::Lenient)
            .map_err(|wrong| format!("the parameters are not those of {kind}: {wrong}"))?;
        scope_covers(&found.scope, &kind, &value).map_err(|why| format!("capability {name}: {why}"))?;
        let by = Definition::Capability(found.clone()).hash();
        Ok((kind, name, by, encode(&value)))
    }

    fn ruling(&self, kind: &Name, capability: &Name, origin: &Name) -> Ruling {
        let policy = self.definitions.policy();
        let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
        let rule = rules.iter().position(|rule| rule.when.matches(kind, capability, origin));
        let decision = rule.and_then(|at| rules.get(at)).map_or(Decision::Deny, |rule| rule.decide);
        Ruling { policy: policy.map(|policy| policy.name.clone()), rule: rule.map(|at| at as u32), decision }
    }
}

/// Whether parameters lie within a scope, as far as they themselves can tell.
fn scope_covers(scope: &Scope, kind: &Name, params: &Value) -> Result<(), String> {
    let Value::Record(fields) = params else { return Err("the parameters are no record".into()) };
    let text = |at: usize| match fields.get(at) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "",
    };
    let within = |what: &str, allowed: &[String], found: &str| {
        if any(allowed, found) { Ok(()) } else { Err(format!("it does not cover {what} {found}")) }
    };
    match (scope, kind.name()) {
        (Scope::Http(http), "http") => {
            within("method", &http.methods, text(0))?;
            let rest = text(1).split_once("://").map(|(_, rest)| rest).unwrap_or_default();
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
            // `http://allowed:80@elsewhere` begins like a host that is allowed and goes elsewhere.
            if host.contains(['@', '\\']) {
                return Err(format!("{host} is no host"));
            }
            within("host", &http.hosts, &host)
        }
        (Scope::Exec(exec), "exec") => {
            let program = match fields.first() {
                Some(Value::List(argv)) => argv.first(),
                _ => None,
            };
            let Some(Value::Text(program)) = program else { return Err("there is no program".into()) };
            within("program", &exec.programs, program)?;
            let directory = text(1);
            let inside = |root: &String| {
                let rest = directory.strip_prefix(root.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let plain = directory.starts_with('/') && !directory.split('/').any(|part| part == "..");
            if plain && exec.directories.iter().any(inside) {
                Ok(())
            } else {
                Err(format!("it does not cover directory {directory}"))
            }
        }
        (Scope::Llm(llm), "llm") => {
            within("provider", &llm.providers, text(0))?;
            within("model", &llm.models, text(1))?;
            match fields.get(4) {
                Some(Value::Nat(tokens)) if *tokens <= llm.max_tokens => Ok(()),
                _ => Err(format!("it covers at most {} tokens", llm.max_tokens)),
            }
        }
        // Names are the host's to know; its adapter asks.
        (Scope::Agents(_), name) if name.starts_with("host.") => Ok(()),
        (Scope::Any, "http" | "exec" | "llm") => Err("it needs a scope for this kind of effect".into()),
        // Whatever is done to agents, but for words about them.
        (Scope::Any, name) if name.starts_with("host.") && name != "host.notify" => {
            Err("it needs a scope for this kind of effect".into())
        }
        (Scope::Any, _) => Ok(()),
        (_, name) => Err(format!("its scope is not one for sys/{name}@1")),
    }
}
