//! What every world has without defining it: the kinds of effects, and the events of the host.
//!
//! Names under `sys/`. A kind of effect is the type of its parameters, the type of what comes of it, and whether doing it
//! twice is as good as doing it once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::{Name, Type};

/// A kind of effect.
#[derive(Debug)]
pub struct Effect {
    /// Its name.
    pub name: Name,
    /// Type of its parameters.
    pub params: Type,
    /// Type of its result.
    pub result: Type,
    /// Whether an adapter may do it again when nobody knows whether it was done.
    pub repeatable: bool,
    /// One line for people.
    pub about: &'static str,
}

/// Name, parameters, result, repeatable, about.
const EFFECTS: &[(&str, &str, &str, bool, &str)] = &[
    (
        "sys/http@1",
        r#"{"record":[["method","text"],["url","text"],["headers",{"map":["text","text"]}],["body","bytes"]]}"#,
        r#"{"record":[["status","nat"],["headers",{"map":["text","text"]}],["body","bytes"]]}"#,
        false,
        "a request over HTTP",
    ),
    (
        "sys/exec@1",
        r#"{"record":[["argv",{"list":"text"}],["directory","text"],["input","bytes"]]}"#,
        r#"{"record":[["code","int"],["output","bytes"],["agent","nat"],["cpu","duration"]]}"#,
        false,
        "a program, run as an agent under a profile",
    ),
    ("sys/blob.put@1", r#"{"record":[["bytes","bytes"]]}"#, r#"{"record":[["blob","hash"]]}"#, true, "keep bytes"),
    ("sys/blob.get@1", r#"{"record":[["blob","hash"]]}"#, r#"{"record":[["bytes","bytes"]]}"#, true, "bytes by hash"),
    ("sys/timer@1", r#"{"record":[["at","time"]]}"#, r#"{"record":[["at","time"]]}"#, true, "wait until a time"),
    (
        "sys/llm@1",
        r#"{"record":[["provider","text"],["model","text"],["system",{"option":"text"}],["prompt","text"],["max_tokens","nat"]]}"#,
        r#"{"record":[["text","text"],["input_tokens","nat"],["output_tokens","nat"]]}"#,
        false,
        "a question to a language model",
    ),
    (
        "sys/introspect@1",
        r#"{"record":[["what",{"variant":[["manifest"],["height"],["cell",{"record":[["module","text"],["key",{"option":"bytes"}]]}]]}]]}"#,
        r#"{"record":[["height","nat"],["value",{"option":"bytes"}]]}"#,
        true,
        "what this world knows of itself",
    ),
    (
        "sys/host.freeze@1",
        r#"{"record":[["agent","nat"],["reason","text"]]}"#,
        r#"{"record":[["record","nat"]]}"#,
        true,
        "freeze an agent",
    ),
    (
        "sys/host.thaw@1",
        r#"{"record":[["agent","nat"],["reason","text"]]}"#,
        r#"{"record":[["record","nat"]]}"#,
        true,
        "thaw an agent",
    ),
    (
        "sys/host.kill@1",
        r#"{"record":[["agent","nat"],["reason","text"]]}"#,
        r#"{"record":[["record","nat"]]}"#,
        true,
        "kill everything in an agent",
    ),
    (
        "sys/host.grant@1",
        r#"{"record":[["agent","nat"],["cpu","duration"]]}"#,
        r#"{"record":[["record","nat"]]}"#,
        false,
        "give an agent more CPU time",
    ),
    (
        "sys/host.revoke@1",
        r#"{"record":[["capability","nat"],["reason","text"]]}"#,
        r#"{"record":[["record","nat"]]}"#,
        true,
        "take back rights that were lent to an agent",
    ),
    (
        "sys/host.notify@1",
        r#"{"record":[["subject","text"],["body","text"],["agent",{"option":"nat"}]]}"#,
        r#"{"record":[["record","nat"]]}"#,
        false,
        "tell the operators",
    ),
];

/// Name and type of the host's events, and of what a reducer is told of its effects.
const SCHEMAS: &[(&str, &str)] = &[
    (
        "sys/agent-requested@1",
        r#"{"record":[["agent","nat"],["name","text"],["by","text"],["argv",{"list":"text"}],["profile","text"],["record","nat"],["wall","time"]]}"#,
    ),
    ("sys/agent-started@1", r#"{"record":[["agent","nat"],["name","text"],["record","nat"],["wall","time"]]}"#),
    (
        "sys/agent-failed@1",
        r#"{"record":[["agent","nat"],["name","text"],["reason","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/access-denied@1",
        r#"{"record":[["agent","nat"],["name","text"],["hook","text"],["object","text"],["right","text"],["reason","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/budget-warned@1",
        r#"{"record":[["agent","nat"],["name","text"],["spent","duration"],["limit","duration"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/budget-exhausted@1",
        r#"{"record":[["agent","nat"],["name","text"],["spent","duration"],["limit","duration"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/agent-paused@1",
        r#"{"record":[["agent","nat"],["name","text"],["by","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/agent-resumed@1",
        r#"{"record":[["agent","nat"],["name","text"],["by","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/agent-exited@1",
        r#"{"record":[["agent","nat"],["name","text"],["status","text"],["spent","duration"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/agent-lost@1",
        r#"{"record":[["agent","nat"],["name","text"],["reason","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/capability-granted@1",
        r#"{"record":[["agent","nat"],["name","text"],["capability","nat"],["rights","text"],["by","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/capability-revoked@1",
        r#"{"record":[["agent","nat"],["name","text"],["capability","nat"],["reason","text"],["by","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/program-run@1",
        r#"{"record":[["agent","nat"],["name","text"],["path","text"],["record","nat"],["wall","time"]]}"#,
    ),
    (
        "sys/receipt@1",
        r#"{"record":[["intent","hash"],["kind","text"],["status","text"],["result",{"option":"bytes"}]]}"#,
    ),
];

fn parse_name(text: &str) -> Name {
    text.parse().unwrap_or_else(|error| unreachable!("a constant: {error}"))
}

fn parse_type(text: &str) -> Type {
    serde_json::from_str(text).unwrap_or_else(|error| unreachable!("a constant: {error}"))
}

static ALL: LazyLock<BTreeMap<Name, Effect>> = LazyLock::new(|| {
    let effect = |(name, params, result, repeatable, about): &(&str, &str, &str, bool, &'static str)| {
        let (params, result) = (parse_type(params), parse_type(result));
        (parse_name(name), Effect { name: parse_name(name), params, result, repeatable: *repeatable, about })
    };
    EFFECTS.iter().map(effect).collect()
});

static BUILT_IN: LazyLock<BTreeMap<Name, Type>> =
    LazyLock::new(|| SCHEMAS.iter().map(|(name, of)| (parse_name(name), parse_type(of))).collect());

/// Every kind of effect, by name.
pub fn effects() -> &'static BTreeMap<Name, Effect> {
    &ALL
}

/// One kind of effect.
pub fn effect(name: &Name) -> Option<&'static Effect> {
    ALL.get(name)
}

/// Schemas that every world has.
pub fn schemas() -> &'static BTreeMap<Name, Type> {
    &BUILT_IN
}

/// Names of the host's events: what a world may subscribe to.
pub fn host_events() -> impl Iterator<Item = &'static Name> {
    BUILT_IN.keys().filter(|name| name.name() != "receipt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_reads_and_every_type_is_sound() {
        for effect in effects().values() {
            effect.params.check(schemas()).unwrap();
            effect.result.check(schemas()).unwrap();
            assert!(effect.name.is_reserved());
        }
        for (name, of) in schemas() {
            of.check(schemas()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(host_events().count(), SCHEMAS.len() - 1);
    }
}
