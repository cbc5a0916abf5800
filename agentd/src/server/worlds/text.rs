//! What happened in a world, for people and as JSON.

use agentd_air::{Decision, Definitions, Name, Patch, Resolve as _, Strictness, Type, decode, effect, to_json};
use agentd_engine::{Entry, Grant, Intent, Outcome, Receipt, Source};
use agentd_journal::{Hash, Record};
use agentd_protocol::WorldRecordView;
use serde_json::{Value as Json, json};

/// Longest value in a sentence, in characters.
const SHOWN: usize = 160;

/// A value of a schema as JSON; hex where the schema is not there any more.
pub(super) fn value_json(definitions: &Definitions, schema: &Name, bytes: &[u8]) -> Json {
    definitions.schema(schema).map_or_else(|| hex(bytes), |of| typed_json(definitions, of, bytes))
}

/// A value of a type as JSON.
pub(super) fn typed_json(definitions: &Definitions, of: &Type, bytes: &[u8]) -> Json {
    let value = decode(definitions, of, bytes, Strictness::Lenient).ok();
    value.and_then(|value| to_json(definitions, of, &value).ok()).unwrap_or_else(|| hex(bytes))
}

/// The parameters of an effect as JSON.
pub(super) fn params_json(intent: &Intent) -> Json {
    let none = Definitions::default();
    effect(&intent.kind).map_or_else(|| hex(&intent.params), |kind| typed_json(&none, &kind.params, &intent.params))
}

/// What came of an effect as JSON.
pub(super) fn result_json(kind: &Name, receipt: &Receipt) -> Json {
    let none = Definitions::default();
    match (&receipt.result, effect(kind)) {
        (Some(bytes), Some(kind)) => typed_json(&none, &kind.result, bytes),
        (Some(bytes), None) => hex(bytes),
        (None, _) => Json::Null,
    }
}

fn hex(bytes: &[u8]) -> Json {
    Json::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn short(json: &Json) -> String {
    let text = json.to_string();
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

/// What changes under a patch, one line each.
pub(super) fn changes(patch: &Patch) -> Vec<String> {
    use agentd_air::Change;
    let line = |change: &Change| match change {
        Change::Add(new) => format!("+ {} {}", new.word(), new.name()),
        Change::Replace { new, .. } => format!("~ {} {}", new.word(), new.name()),
        Change::Remove { name, .. } => format!("- {name}"),
        Change::Routes(routes) => {
            let routes: Vec<String> =
                routes.iter().map(|route| format!("{} → {}", route.event, route.module)).collect();
            format!("= routes {}", routes.join(", "))
        }
        Change::Triggers(triggers) => format!("= {} triggers", triggers.len()),
        Change::Policy(policy) => format!("= policy {}", policy.as_ref().map_or("none".into(), ToString::to_string)),
    };
    patch.changes.iter().map(line).collect()
}

/// A record as it is shown.
pub(super) fn view(definitions: &Definitions, record: &Record<Entry>, hash: Hash) -> WorldRecordView {
    WorldRecordView {
        seq: record.seq.0,
        hash: hash.to_string(),
        wall_ns: record.stamp.wall_ns,
        cause: record.cause.map(|seq| seq.0),
        input: record.event.is_input(),
        text: sentence(definitions, &record.event),
        entry: serde_json::to_value(&record.event).unwrap_or_else(|error| json!({ "error": error.to_string() })),
    }
}

/// What happened, in one sentence.
pub(super) fn sentence(definitions: &Definitions, entry: &Entry) -> String {
    match entry {
        Entry::Begun { name, key, .. } => format!("world {name} begins; heads are signed with {key}"),
        Entry::KeyRotated { key } => format!("from here on heads are signed with {key}"),
        Entry::TakenOver { name, key } => format!("goes on as {name}, under key {key}"),
        Entry::StateSaved { state, .. } => format!("state saved as {state}"),
        Entry::Happened { schema, value, from, .. } => {
            let value = short(&value_json(definitions, schema, value));
            match from {
                Source::Sent { by } => format!("{by} sent {schema} {value}"),
                Source::Host { seq, .. } => format!("the host's record {seq}: {schema} {value}"),
                Source::Raised => format!("raised {schema} {value}"),
            }
        }
        Entry::Stepped { module, outcome, key, .. } => {
            let cell = key.as_ref().and_then(|key| {
                let of = definitions.module(module)?.key.as_ref()?;
                Some(format!("[{}]", short(&typed_json(definitions, of, key))))
            });
            let cell = cell.unwrap_or_default();
            let state = |bytes: &[u8]| match definitions.module(module) {
                Some(module) => short(&value_json(definitions, &module.state, bytes)),
                None => short(&hex(bytes)),
            };
            match outcome {
                Outcome::Kept { .. } => format!("{module}{cell} keeps its state"),
                Outcome::Set { state: bytes, .. } => format!("{module}{cell} becomes {}", state(bytes)),
                Outcome::Deleted { .. } => format!("{module}{cell} is deleted"),
                Outcome::Trapped { trap } => format!("{module}{cell} trapped: {trap}"),
                Outcome::Limited { limit } => format!("{module}{cell} reached its limit of {limit}"),
                Outcome::Refused { why } => format!("{module}{cell} gave what it may not: {why}"),
            }
        }
        Entry::Wanted { intent, grant, ruling } => {
            let what = format!("{} wants {} {}", intent.origin.name(), intent.kind, short(&params_json(intent)));
            let answer = match (grant, ruling) {
                (Grant::Refused { why }, _) => format!("refused: {why}"),
                (_, None) => "refused".into(),
                (_, Some(ruling)) => {
                    let by = match (&ruling.policy, ruling.rule) {
                        (Some(policy), Some(rule)) => format!("rule {rule} of {policy}"),
                        (Some(policy), None) => format!("no rule of {policy}"),
                        (None, _) => "no policy".into(),
                    };
                    let word = match ruling.decision {
                        Decision::Allow => "allowed by",
                        Decision::Deny => "denied by",
                        Decision::RequireApproval => "a person is to decide, by",
                    };
                    format!("{} covers it; {word} {by}", intent.capability)
                }
            };
            format!("{what}; {answer}")
        }
        Entry::WantedAgain { intent } => format!("wanted again: {intent}, which is one effect"),
        Entry::Answered { allow, by, note, .. } => {
            let note = if note.is_empty() { String::new() } else { format!(": {note}") };
            format!("{by} {} the effect{note}", if *allow { "allows" } else { "refuses" })
        }
        Entry::Attempted { attempt: 1, .. } => "an adapter takes the effect".into(),
        Entry::Attempted { attempt, .. } => format!("an adapter takes the effect again, attempt {attempt}"),
        Entry::Settled { receipt } => match Receipt::claimed(receipt) {
            Ok(receipt) => {
                let reason = receipt.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                format!("receipt of {}: {}{reason}", receipt.adapter, receipt.status.word())
            }
            Err(error) => error.to_string(),
        },
        Entry::Proposed { by, note, patch } => {
            let changes = Patch::decode(patch).map(|patch| changes(&patch).join(", ")).unwrap_or_default();
            let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
            format!("{by} proposes {changes}{note}")
        }
        Entry::Rehearsed { proposal, inputs, differences, .. } => {
            format!("proposal {proposal} rehearsed on {inputs} inputs: {differences} differences")
        }
        Entry::Voted { proposal, approve, by, note } => {
            let note = if note.is_empty() { String::new() } else { format!(": {note}") };
            format!("{by} {} proposal {proposal}{note}", if *approve { "approves" } else { "rejects" })
        }
        Entry::Applied { proposal, manifest, by, fenced, .. } => {
            let fenced = if fenced.is_empty() { String::new() } else { format!("; {} effects given up", fenced.len()) };
            format!("{by} applies proposal {proposal}; manifest {manifest}{fenced}")
        }
        Entry::PlanStarted { plan, .. } => format!("plan {plan} starts"),
        Entry::PlanWent { run, ended: None, .. } => format!("the plan of record {run} goes on"),
        Entry::PlanWent { run, ended: Some(how), .. } => format!("the plan of record {run} is over: {how}"),
        Entry::Pruned { first, by } => format!("{by} has the records before {first} taken out"),
        Entry::Cut { at } => format!("more follows than may; not looked at: {at}"),
    }
}
