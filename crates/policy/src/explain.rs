//! Why not, and what to type?
//!
//! A refusal becomes three kinds of lines: what was refused, why, and what a person types to ask for it. Two kinds of
//! readers act on them without thinking long, a tired person and a model, so a hint is never a command that destroys
//! something, and it never contains the agent's own command line, which may be one.
//!
//! The agent chooses names of files and of its processes. They are shown with control and direction characters
//! replaced, so that a name cannot forge a line of its own; a path that had any is never part of a command to paste.

use std::fmt;

use agentd_model::{AgentName, AgentSpec, Denial, DenialReason, DeniedObject, Hook, NetRule, Origin, PathRule, Rights};

use crate::path::{self, Pattern};

/// A refusal in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was refused.
    pub what: String,
    /// Why.
    pub why: Vec<String>,
    /// What can be done about it; the first is a command where there is one.
    pub hints: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.what)?;
        for why in &self.why {
            write!(f, "\nbecause: {why}")?;
        }
        for hint in &self.hints {
            write!(f, "\nhint:    {hint}")?;
        }
        Ok(())
    }
}

/// Explains a refusal of an agent that was spawned with `spec`.
pub fn explain(agent: &AgentName, spec: &AgentSpec, denial: &Denial) -> Explanation {
    let (why, hints) = match denial.reason {
        DenialReason::Rule { rule } => by_rule(spec, denial, rule),
        DenialReason::NothingFound => by_nothing(spec, denial),
        DenialReason::NamesVary => (
            vec!["it lies on a file system that takes many spellings for one name (case-insensitive), and the agent has \
                  rules about names, which such a spelling would go round"
                .to_owned()],
            vec![],
        ),
        DenialReason::Expired => (vec!["the rule that allowed it has expired".to_owned()], by_nothing(spec, denial).1),
        DenialReason::Capability { capability, because } => {
            (vec![format!("capability {capability}, which would allow it, {because}")], lend(agent, denial))
        }
        DenialReason::Exhausted => (
            vec!["the CPU budget is spent; new programs, processes and files wait for more".to_owned()],
            vec![format!("agentctl budget topup {agent} cpu:10m")],
        ),
        DenialReason::TooDeep => (
            vec![format!(
                "it lies more than {} directories deep, and rules are not looked for further up",
                agentd_abi::MAX_DEPTH
            )],
            vec![format!(
                "agentctl spawn --profile {} --allow RIGHTS:A-NEARER-DIRECTORY -- COMMAND",
                word(&spec.profile)
            )],
        ),
        DenialReason::NoPlace => (
            vec![
                "it has no place in a tree of files (an anonymous file, a detached mount), so no rule can allow it"
                    .to_owned(),
            ],
            vec!["use a file in the workspace or in /tmp instead".to_owned()],
        ),
        DenialReason::Guard => {
            (vec!["this is refused inside every agent; no rule and no option allows it".to_owned()], Vec::new())
        }
        DenialReason::Stranger => {
            let why = "the other process does not belong to this agent; no rule and no option allows it";
            (vec![why.to_owned()], Vec::new())
        }
    };
    Explanation { what: what(agent, denial), why, hints }
}

fn what(agent: &AgentName, denial: &Denial) -> String {
    let object = shown(&denial.object.to_string());
    let verb = denial.hook.verb();
    let right = if denial.right.is_empty() { String::new() } else { format!(", which needs {}", denial.right) };
    format!("{agent} may not {verb} {object}{right} (process {} {})", denial.pid, shown(&denial.comm))
}

fn by_rule(spec: &AgentSpec, denial: &Denial, number: u32) -> (Vec<String>, Vec<String>) {
    let Some(rule) = number.checked_sub(1).and_then(|index| spec.paths.get(index as usize)) else {
        return (vec![format!("rule {number} denies it")], Vec::new());
    };
    let mut why = vec![format!(
        "{} denies {} on {} and below ({})",
        rule_name(number),
        rule.deny,
        shown(&rule.path),
        rule.origin
    )];
    if !rule.deny.contains(denial.right) {
        why.push("more than one rule is about this place; the first of them is named".to_owned());
    }
    let mut hints = Vec::new();
    match &rule.origin {
        Origin::CommandLine { option } => hints.push(format!("the agent was spawned with {}", shown(option))),
        Origin::Profile { name, .. } => hints.push(format!("agentctl profile show {}", word(name))),
        Origin::BuiltIn => {}
    }
    hints.extend(excepting(spec, denial, rule));
    (why, hints)
}

/// How the object can be excepted from a denial, which is possible only where it lies below the denied place: on the
/// same place a denial wins.
fn excepting(spec: &AgentSpec, denial: &Denial, rule: &PathRule) -> Option<String> {
    let path = askable(denial)?;
    let denied_itself = match Pattern::of(&rule.path) {
        None => path == rule.path,
        Some(pattern) => {
            let mut names = path.rsplit('/');
            let last = names.next() == Some(pattern.name);
            last && pattern.parent.is_none_or(|parent| names.next() == Some(parent))
        }
    };
    Some(if denied_itself {
        "no option lifts a denial on the same place; a profile that does not have it can be made with extends"
            .to_owned()
    } else {
        format!("it is denied on purpose; to except this one: {}", spawn(spec, denial, &path))
    })
}

fn by_nothing(spec: &AgentSpec, denial: &Denial) -> (Vec<String>, Vec<String>) {
    match &denial.object {
        DeniedObject::File { .. } => {
            let why = format!("no rule of profile {} or of the command line allows it", shown(&spec.profile));
            let hint = match askable(denial) {
                Some(path) => spawn(spec, denial, &path),
                None => "allow a directory above it, by --allow RIGHTS:PATH at the next spawn".to_owned(),
            };
            (vec![why], vec![hint])
        }
        DeniedObject::Address { text } => {
            let why = "no network rule allows it".to_owned();
            let hint = net_rule(denial.hook, text).map(|rule| {
                format!("agentctl spawn --profile {} --net {} -- COMMAND", word(&spec.profile), word(&rule))
            });
            (vec![why], hint.into_iter().collect())
        }
        DeniedObject::Other { .. } => (vec!["no rule allows it".to_owned()], Vec::new()),
    }
}

/// The network rule for `tcp 10.0.0.1:443`, if that is what the text is.
fn net_rule(hook: Hook, text: &str) -> Option<String> {
    let (transport, address) = text.split_once(' ')?;
    let bind = if hook == Hook::Bind { "bind:" } else { "" };
    let rule = format!("{bind}{transport}:{address}");
    let one_place = NetRule::parse(&rule, &Origin::BuiltIn).ok()?.len() == 1;
    (one_place && matches!(transport, "tcp" | "udp")).then_some(rule)
}

fn spawn(spec: &AgentSpec, denial: &Denial, path: &str) -> String {
    let option = format!("{}:{path}", denial.right);
    format!("agentctl spawn --profile {} --allow {} -- COMMAND", word(&spec.profile), word(&option))
}

/// How it can be lent to the agent while it runs.
fn lend(agent: &AgentName, denial: &Denial) -> Vec<String> {
    let path = askable(denial);
    let command = |path: String| {
        let (path, rights) = (word(&path), denial.right);
        format!("agentctl capability grant {agent} --path {path} --ops {rights} --duration 1h")
    };
    path.into_iter().map(command).collect()
}

/// The path that a rule would have to allow; `None` where it cannot be written. What does not exist yet cannot be
/// allowed, so for a new name it is the directory.
fn askable(denial: &Denial) -> Option<String> {
    let DeniedObject::File { path, .. } = &denial.object else { return None };
    if denial.right.is_empty() || path.starts_with('…') || shown(path) != *path {
        return None;
    }
    let path = path::normal(path).ok().filter(|normal| normal == path)?;
    if !denial.right.contains(Rights::CREATE) {
        return Some(path);
    }
    let (parent, _) = path.rsplit_once('/')?;
    Some(if parent.is_empty() { "/".to_owned() } else { parent.to_owned() })
}

fn rule_name(number: u32) -> String {
    format!("rule {number}")
}

/// A text for the terminal: characters that would move the cursor, colour it or turn the direction are replaced.
fn shown(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if odd(c) { '\u{fffd}' } else { c }).collect()
}

/// A text as one word for a POSIX shell.
fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_-.,:+@%=[]".contains(&b);
    let bracket = text.contains(['[', ']']);
    if !text.is_empty() && text.bytes().all(plain) && !bracket {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
