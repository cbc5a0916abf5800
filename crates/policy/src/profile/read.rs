//! Text becomes a profile.
//!
//! The reader walks the TOML tree itself, instead of deriving a deserialiser, because a mistake has to be reported with its
//! place and with what would be right, and all mistakes of a file together: a person who checks a profile wants to
//! correct it once. So every step notes its problem and goes on; only at the end is the profile given out or not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use agentd_model::{Budget, NetRule, Origin, Rights};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Position, Problem, ProblemKind, Rejected};
use super::template::{BUILT_IN, Template};
use super::{FileEntry, MAX_PROFILE_BYTES, MAX_PROFILE_RULES, NetEntry, Profile, Vars};
use crate::path::{self, Pattern};
use crate::suggest::nearest;

const TOP_KEYS: [&str; 9] = ["name", "about", "extends", "vars", "files", "net", "env", "tmp", "budget"];
const FILE_KEYS: [&str; 4] = ["path", "allow", "deny", "optional"];
const RIGHT_WORDS: [&str; 7] = ["read", "write", "exec", "create", "delete", "change", "all"];

type Key<'i> = Spanned<Cow<'i, str>>;
type Value<'i> = Spanned<DeValue<'i>>;

/// Reads and checks the text of one profile.
pub(super) fn read(text: &str) -> Result<Profile, Rejected> {
    let mut reader = Reader { lines: line_starts(text), text, problems: Vec::new() };
    if text.len() > MAX_PROFILE_BYTES {
        reader.problem(0, ProblemKind::TooLong);
        return Err(Rejected { problems: reader.problems });
    }
    let profile = match DeTable::parse(text) {
        Ok(table) => Some(reader.profile(table.get_ref())),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            reader.problem(start, ProblemKind::Toml { message: error.message().replace('\n', ", ") });
            None
        }
    };
    reader.problems.sort_by_key(|problem| problem.at);
    match profile {
        Some(profile) if reader.problems.is_empty() => Ok(profile),
        _ => Err(Rejected { problems: reader.problems }),
    }
}

/// Offsets at which the lines of a text begin.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

struct Reader<'t> {
    text: &'t str,
    lines: Vec<usize>,
    problems: Vec<Problem>,
}

/// A string and where it stands.
struct Written<'v> {
    text: &'v str,
    offset: usize,
}

impl Reader<'_> {
    fn position(&self, offset: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        Position { line: line as u32, column: column as u32 + 1 }
    }

    fn problem(&mut self, offset: usize, kind: ProblemKind) {
        let at = self.position(offset);
        self.problems.push(Problem { at, kind });
    }

    /// The value, or nothing and a note of its problem.
    fn noted<T>(&mut self, offset: usize, result: Result<T, ProblemKind>) -> Option<T> {
        result.map_err(|kind| self.problem(offset, kind)).ok()
    }

    fn profile(&mut self, table: &DeTable<'_>) -> Profile {
        self.known_keys(table, "a profile", &TOP_KEYS);
        let own = get(table, "vars").map(|(key, value)| self.vars(key, value)).unwrap_or_default();
        let mut profile = Profile {
            name: String::new(),
            about: String::new(),
            extends: Vec::new(),
            files: Vec::new(),
            nets: Vec::new(),
            env_pass: Vec::new(),
            env_set: BTreeMap::new(),
            tmp_directories: Vec::new(),
            budget: Budget::default(),
            vars: own,
        };
        match get(table, "name") {
            Some((key, value)) => profile.name = self.name(key, value).unwrap_or_default(),
            None => {
                let example = "name = \"my-profile\"";
                self.problem(0, ProblemKind::Missing { key: "name", table: "the profile", example });
            }
        }
        if let Some((key, value)) = get(table, "about")
            && let Some(about) = self.string(key.get_ref(), value)
        {
            profile.about = about.text.to_owned();
        }
        if let Some((key, value)) = get(table, "extends") {
            for base in self.strings(key.get_ref(), value) {
                if profile.extends.iter().any(|(name, _)| name == base.text) {
                    let line = self.position(key.span().start).line;
                    self.problem(base.offset, ProblemKind::Duplicate { what: base.text.to_owned(), line });
                }
                profile.extends.push((base.text.to_owned(), self.position(base.offset)));
            }
        }
        for entry in self.tables(table, "files") {
            self.files(entry, &mut profile);
        }
        for entry in self.tables(table, "net") {
            self.net(entry, &mut profile.nets);
        }
        if let Some(env) = self.table(table, "env", &["pass", "set"]) {
            self.env(env, &mut profile);
        }
        if let Some(tmp) = self.table(table, "tmp", &["directories"]) {
            self.tmp(tmp, &mut profile.tmp_directories);
        }
        if let Some(budget) = self.table(table, "budget", &["default"])
            && let Some((key, value)) = get(budget, "default")
            && let Some(text) = self.string(key.get_ref(), value)
        {
            profile.budget =
                self.noted(text.offset, text.text.parse().map_err(ProblemKind::Budget)).unwrap_or_default();
        }
        profile
    }

    fn name(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<String> {
        let name = self.string(key.get_ref(), value)?;
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let good = name.text.starts_with(|c: char| c.is_ascii_lowercase()) && name.text.bytes().all(fits);
        if !good || name.text.len() > 48 {
            self.problem(name.offset, ProblemKind::Name { name: name.text.to_owned() });
        }
        Some(name.text.to_owned())
    }

    fn vars(&mut self, key: &Key<'_>, value: &Value<'_>) -> BTreeMap<String, Template> {
        let mut vars = BTreeMap::new();
        let Some(table) = self.is_table(key, value) else { return vars };
        for (key, value) in table {
            let name = key.get_ref();
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if BUILT_IN.contains(&name.as_ref()) || name.is_empty() || !name.bytes().all(fits) {
                self.problem(key.span().start, ProblemKind::VariableName { name: name.to_string() });
                continue;
            }
            let Some(text) = self.string(name, value) else { continue };
            if let Some(template) = self.noted(text.offset, Template::parse(text.text, std::iter::empty())) {
                vars.insert(name.to_string(), template);
            }
        }
        vars
    }

    fn files(&mut self, table: &Spanned<DeValue<'_>>, profile: &mut Profile) {
        let Some(entry) = table.get_ref().as_table() else { return };
        self.known_keys(entry, "[[files]]", &FILE_KEYS);
        let allow = get(entry, "allow").and_then(|(key, value)| self.rights(key, value));
        let deny = get(entry, "deny").and_then(|(key, value)| self.rights(key, value));
        let optional = get(entry, "optional").map(|(key, value)| (key, self.boolean(key.get_ref(), value)));
        // With an unknown key, that was already told: it was meant to be one of the two.
        let said = entry.keys().any(|key| !matches!(key.get_ref().as_ref(), "path" | "optional"));
        if !said {
            self.problem(table.span().start, ProblemKind::NothingSaid);
        }
        if let (Some((key, _)), None) = (optional, get(entry, "allow")) {
            self.problem(key.span().start, ProblemKind::OptionalDenial);
        }
        let (allow, deny) = (allow.unwrap_or_default(), deny.unwrap_or_default());
        let both = allow.intersection(deny.closed_for_denial());
        if !both.is_empty() {
            self.problem(table.span().start, ProblemKind::Contradiction { rights: both });
        }
        let Some((key, value)) = get(entry, "path") else {
            let example = "path = \"${workspace}\"";
            self.problem(table.span().start, ProblemKind::Missing { key: "path", table: "[[files]]", example });
            return;
        };
        for written in self.strings(key.get_ref(), value) {
            let own = &profile.vars;
            let Some(path) = self.noted(written.offset, Template::parse(written.text, own.keys().map(String::as_str)))
            else {
                continue;
            };
            let Some(sample) = self.noted(written.offset, checked(&path, written.text, own)) else { continue };
            if Pattern::of(&sample).is_some() && !allow.is_empty() {
                self.problem(written.offset, ProblemKind::AllowPattern { path: written.text.to_owned() });
            }
            let same = |other: &&FileEntry| {
                let allows_again = !other.allow.is_empty() && !allow.is_empty();
                let denies_again = !other.deny.is_empty() && !deny.is_empty();
                (allows_again || denies_again)
                    && path::normal(&other.path.fill(&Vars::sample(), own)).as_ref() == Ok(&sample)
            };
            if let Some(first) = profile.files.iter().find(same) {
                let what = format!("a rule for {}", written.text);
                let line = first.at.line;
                self.problem(written.offset, ProblemKind::Duplicate { what, line });
            }
            if profile.files.len() == MAX_PROFILE_RULES {
                return self.problem(written.offset, ProblemKind::TooManyRules);
            }
            // A denial is kept by name where the path does not exist: it is never an error that it does not.
            let optional = allow.is_empty() || matches!(optional, Some((_, Some(true))));
            let at = self.position(written.offset);
            profile.files.push(FileEntry { path, allow, deny: deny.closed_for_denial(), optional, at });
        }
    }

    fn rights(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<Rights> {
        let text = self.string(key.get_ref(), value)?;
        let rights = text.text.parse().map_err(|error: agentd_model::RightsError| {
            let suggestion = nearest(&error.word, RIGHT_WORDS).map(str::to_owned);
            ProblemKind::Rights { error, suggestion }
        });
        self.noted(text.offset, rights)
    }

    fn net(&mut self, table: &Spanned<DeValue<'_>>, nets: &mut Vec<NetEntry>) {
        let Some(entry) = table.get_ref().as_table() else { return };
        self.known_keys(entry, "[[net]]", &["allow"]);
        let Some((key, value)) = get(entry, "allow") else {
            let example = "allow = \"loopback\"";
            self.problem(table.span().start, ProblemKind::Missing { key: "allow", table: "[[net]]", example });
            return;
        };
        for rule in self.strings(key.get_ref(), value) {
            let parsed = NetRule::parse(rule.text, &Origin::BuiltIn).map_err(ProblemKind::Net);
            if self.noted(rule.offset, parsed).is_none() {
                continue;
            }
            if let Some(first) = nets.iter().find(|other| other.allow == rule.text) {
                let (what, line) = (rule.text.to_owned(), first.at.line);
                self.problem(rule.offset, ProblemKind::Duplicate { what, line });
            }
            nets.push(NetEntry { allow: rule.text.to_owned(), at: self.position(rule.offset) });
        }
    }

    fn env(&mut self, env: &DeTable<'_>, profile: &mut Profile) {
        if let Some((key, value)) = get(env, "pass") {
            for name in self.strings(key.get_ref(), value) {
                if !is_env_name(name.text.strip_suffix('*').unwrap_or(name.text)) {
                    let rest = ", and a * at the end for any rest";
                    self.problem(name.offset, ProblemKind::EnvName { name: name.text.to_owned(), rest });
                } else if profile.env_pass.iter().any(|other| other == name.text) {
                    let line = self.position(key.span().start).line;
                    self.problem(name.offset, ProblemKind::Duplicate { what: name.text.to_owned(), line });
                }
                profile.env_pass.push(name.text.to_owned());
            }
        }
        let Some(set) = self.table(env, "set", &[]) else { return };
        for (key, value) in set {
            let name = key.get_ref();
            if !is_env_name(name) {
                self.problem(key.span().start, ProblemKind::EnvName { name: name.to_string(), rest: "" });
            }
            let Some(text) = self.string(name, value) else { continue };
            if text.text.contains('\0') {
                self.problem(text.offset, ProblemKind::EnvValue);
            }
            let template = Template::parse(text.text, profile.vars.keys().map(String::as_str));
            if let Some(template) = self.noted(text.offset, template) {
                profile.env_set.insert(name.to_string(), template);
            }
        }
    }

    fn tmp(&mut self, tmp: &DeTable<'_>, directories: &mut Vec<String>) {
        let Some((key, value)) = get(tmp, "directories") else { return };
        for directory in self.strings(key.get_ref(), value) {
            let rooted = path::normal(&format!("/{}", directory.text)).ok().filter(|path| path != "/");
            match rooted {
                Some(path) if !directory.text.starts_with('/') => directories.push(path[1..].to_owned()),
                _ => {
                    let path = directory.text.to_owned();
                    self.problem(directory.offset, ProblemKind::TmpDirectory { path });
                }
            }
        }
    }

    fn known_keys(&mut self, table: &DeTable<'_>, place: &'static str, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let suggestion = nearest(key.get_ref(), known.iter().copied()).map(str::to_owned);
            let (key, start) = (key.get_ref().to_string(), key.span().start);
            self.problem(start, ProblemKind::UnknownKey { key, table: place, known: known.join(", "), suggestion });
        }
    }

    fn wrong(&mut self, key: &str, value: &Value<'_>, wanted: &'static str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problem(value.span().start, ProblemKind::WrongType { key: key.to_owned(), found, wanted });
    }

    fn string<'v>(&mut self, key: &str, value: &'v Value<'_>) -> Option<Written<'v>> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong(key, value, "a string, in quotation marks");
        }
        text.map(|text| Written { text, offset: value.span().start })
    }

    /// One string, or a list of them.
    fn strings<'v>(&mut self, key: &str, value: &'v Value<'_>) -> Vec<Written<'v>> {
        match value.get_ref() {
            DeValue::String(text) => vec![Written { text, offset: value.span().start }],
            DeValue::Array(list) => list.iter().filter_map(|item| self.string(key, item)).collect(),
            _ => {
                self.wrong(key, value, "a string or a list of strings");
                Vec::new()
            }
        }
    }

    fn boolean(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong(key, value, "true or false");
        }
        truth
    }

    fn is_table<'v, 'i>(&mut self, key: &Key<'_>, value: &'v Value<'i>) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(key.get_ref(), value, "a table");
        }
        table
    }

    /// The table under a key; with `known` empty, its keys are free.
    fn table<'v, 'i>(&mut self, parent: &'v DeTable<'i>, key: &'static str, known: &[&str]) -> Option<&'v DeTable<'i>> {
        let (written, value) = get(parent, key)?;
        let table = self.is_table(written, value)?;
        if !known.is_empty() {
            self.known_keys(table, key, known);
        }
        Some(table)
    }

    /// The tables of a `[[key]]`.
    fn tables<'v, 'i>(&mut self, parent: &'v DeTable<'i>, key: &'static str) -> Vec<&'v Value<'i>> {
        let Some((_, value)) = get(parent, key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(list) if list.iter().all(|item| item.get_ref().is_table()) => list.iter().collect(),
            _ => {
                self.wrong(key, value, if key == "files" { "[[files]] tables" } else { "[[net]] tables" });
                Vec::new()
            }
        }
    }
}

fn get<'v, 'i>(table: &'v DeTable<'i>, key: &str) -> Option<(&'v Key<'i>, &'v Value<'i>)> {
    table.iter().find(|(k, _)| k.get_ref().as_ref() == key)
}

fn is_env_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The path of a rule with ordinary values for its variables, in normal form; messages show it as written.
fn checked(path: &Template, written: &str, own: &BTreeMap<String, Template>) -> Result<String, ProblemKind> {
    path::normal(&path.fill(&Vars::sample(), own)).map_err(|error| ProblemKind::Path(error.about(written)))
}
