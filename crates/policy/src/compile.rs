//! Which entries do the kernel's tables get?
//!
//! A rule is about a path; the kernel knows objects and names. The launcher looks every path up in the agent's own view
//! of the files and says what it found: [`Resolved`]. From rules and findings this module makes the entries, and
//! nothing else does, so that what is enforced can be recomputed from what is journalled.
//!
//! - The same object may be reached by several rules (`/bin` and `/usr/bin`). Their rights are united, denials too; the
//!   kernel lets a denial win. So the order of rules never matters.
//! - A denial is kept by object and by name. By object alone it would end when the file is replaced; by name alone it
//!   would not hold for another hard link.
//! - A denial by name is worth nothing if the directory before it can be renamed, changed, and renamed back
//!   (`mv .git g; edit g/hooks; mv g .git`), or if a symbolic link can be put in its place. So the names before the last
//!   are *kept* ([`R_KEEP`]): the directory of a pattern by its name, the directories on the way to a place by object.
//! - A denial on a path of which more than the last component is missing becomes a pattern of its last two names. That
//!   refuses more than was asked for, wherever those two names follow each other, and never less.
//! - Whatever does not fit is an error that names the rule. Nothing is left out silently, except a rule that is marked
//!   optional and allows something that does not exist.

use std::collections::BTreeMap;

use agentd_abi::{
    ANYWHERE, F_FILE_RULES, F_NAMES, MAX_NAMES, MAX_NETS, MAX_RULES, NAME_BYTES, NEVER, NameKey, Net, NetKey, Object,
    R_KEEP, R_NAMES, Rule, RuleKey, name_hash,
};
use agentd_model::{AgentNumber, NetRule, Origin, PathRule};

use crate::net;
use crate::path::Pattern;

/// What the launcher found for a rule. A rule may have several: the object that is there now, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Position, from 0, in the list of rules.
    pub rule: usize,
    /// What was found.
    pub target: Target,
}

/// Something in the agent's view of the files that a rule can sit on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file or directory that exists.
    Object {
        /// Which.
        object: Object,
        /// Whether it is a directory.
        directory: bool,
    },
    /// A name directly below a directory, whether it exists or not. Only denials are kept so.
    Name {
        /// The directory.
        directory: Object,
        /// The name: one component.
        name: Vec<u8>,
    },
    /// A directory on the way to a denied place, itself not part of the rule. It is kept where it is, so that the way goes
    /// on leading to that place.
    Way {
        /// The directory.
        directory: Object,
    },
    /// A name anywhere. Only denials are kept so. Patterns of the rules themselves need no finding.
    Pattern {
        /// Name of the directory it stands in; `None`: any.
        parent: Option<Vec<u8>>,
        /// The name: one component.
        name: Vec<u8>,
    },
}

/// Everything that the kernel has to know about one agent's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Whose rules.
    pub agent: u32,
    /// Entries on objects.
    pub rules: BTreeMap<RuleKey, Rule>,
    /// Entries on names.
    pub names: BTreeMap<NameKey, Rule>,
    /// `F_…` bits for the agent's entry.
    pub flags: u32,
    /// Bit n: some name rule is about a name of n bytes.
    pub name_lengths: u64,
    /// Entries on networks, sorted by key.
    pub nets: Vec<(NetKey, Net)>,
}

/// Why rules cannot be enforced as they stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A finding for a rule that was not asked about.
    #[error("the launcher reports on rule {rule}, but there are {rules}")]
    NoSuchRule {
        /// Position, from 0.
        rule: usize,
        /// How many there are.
        rules: usize,
    },
    /// What is to be allowed does not exist.
    #[error("{path} does not exist ({origin})")]
    NotFound {
        /// The path.
        path: String,
        /// Who wrote it.
        origin: Origin,
    },
    /// A denial for which the launcher found neither an object nor a name.
    #[error("no place was found for the denial on {path} ({origin})")]
    Unplaced {
        /// The path.
        path: String,
        /// Who wrote it.
        origin: Origin,
    },
    /// A name that the kernel cannot compare.
    #[error("a denial on {path} needs the name {name:?}, which is not one of 1 to {} bytes ({origin})", NAME_BYTES - 1)]
    Name {
        /// The name.
        name: String,
        /// The path.
        path: String,
        /// Who wrote it.
        origin: Origin,
    },
    /// A table is too small.
    #[error("{needed} entries are needed in the kernel table {table}, which holds {limit}")]
    Full {
        /// Name of the table.
        table: &'static str,
        /// Entries that the rules need.
        needed: usize,
        /// Entries that fit.
        limit: usize,
    },
    /// Too many different port ranges for one range of addresses.
    #[error("{address} has {needed} different port ranges, {limit} is the limit; the last is {rule} ({origin})")]
    Ports {
        /// The addresses.
        address: String,
        /// Ranges that the rules need, after merging.
        needed: usize,
        /// Ranges that fit.
        limit: usize,
        /// The rule that is too much.
        rule: String,
        /// Who wrote it.
        origin: Origin,
    },
}

/// Makes the entries of an agent's rules.
pub fn compile(
    agent: AgentNumber,
    paths: &[PathRule],
    resolved: &[Resolved],
    nets: &[NetRule],
) -> Result<Compiled, CompileError> {
    let mut compiled = Compiled { agent: agent.0, ..Compiled::default() };
    let mut found = vec![Found::default(); paths.len()];
    for Resolved { rule: index, target } in resolved {
        let no_such_rule = || CompileError::NoSuchRule { rule: *index, rules: paths.len() };
        let rule = paths.get(*index).ok_or_else(no_such_rule)?;
        compiled.place(id_of(*index), rule, target)?;
        match target {
            Target::Object { .. } => found[*index].object = true,
            Target::Way { .. } => {}
            Target::Name { .. } | Target::Pattern { .. } => found[*index].name = true,
        }
    }
    for (index, rule) in paths.iter().enumerate() {
        if let Some(Pattern { parent, name }) = Pattern::of(&rule.path) {
            let bytes = |text: &str| text.as_bytes().to_owned();
            let target = Target::Pattern { parent: parent.map(bytes), name: bytes(name) };
            compiled.place(id_of(index), rule, &target)?;
            found[index].name = true;
        }
        found[index].check(rule)?;
    }
    compiled.nets = net::compile(agent, nets)?;
    let sizes = [
        ("rules", compiled.rules.len(), MAX_RULES),
        ("names", compiled.names.len(), MAX_NAMES),
        ("nets", compiled.nets.len(), MAX_NETS),
    ];
    for (table, needed, limit) in sizes {
        if needed > limit as usize {
            return Err(CompileError::Full { table, needed, limit: limit as usize });
        }
    }
    Ok(compiled)
}

/// Rules are counted from 1 in the kernel, where 0 is none.
fn id_of(index: usize) -> u32 {
    u32::try_from(index + 1).expect("an agent has fewer than 2^32 rules")
}

/// What was found for one rule, all findings together.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    object: bool,
    name: bool,
}

impl Found {
    fn check(self, rule: &PathRule) -> Result<(), CompileError> {
        let unplaced = !rule.deny.is_empty() && !self.object && !self.name;
        // A name cannot be allowed, so only an object carries an allowance.
        let not_found = !rule.allow.is_empty() && !self.object && !rule.optional;
        if !unplaced && !not_found {
            return Ok(());
        }
        let (path, origin) = (rule.path.clone(), rule.origin.clone());
        Err(if unplaced { CompileError::Unplaced { path, origin } } else { CompileError::NotFound { path, origin } })
    }
}

impl Compiled {
    fn place(&mut self, id: u32, rule: &PathRule, target: &Target) -> Result<(), CompileError> {
        let (allow, deny) = (rule.allow.bits(), rule.deny.bits());
        match target {
            Target::Object { object, directory } => {
                merge(self.entry(*object), allow, deny, id);
                self.flags |= if *directory { 0 } else { F_FILE_RULES };
            }
            // What cannot be denied by name needs no entry; whether an allowance found its object is checked at the end.
            _ if deny == 0 => {}
            Target::Name { directory, name } => {
                let hash = self.note_name(name, rule)?;
                self.entry(*directory).flags |= R_NAMES;
                let key = NameKey { agent: self.agent, dev: directory.dev, parent: directory.ino, name: hash };
                merge(self.names.entry(key).or_insert(EMPTY), 0, deny, id);
            }
            Target::Way { directory } => keep(self.entry(*directory), id),
            Target::Pattern { parent, name } => {
                let hash = self.note_name(name, rule)?;
                let parent = match parent {
                    Some(parent) => self.keep_name(parent, rule, id)?,
                    None => 0,
                };
                let key = NameKey { agent: self.agent, dev: ANYWHERE, parent, name: hash };
                merge(self.names.entry(key).or_insert(EMPTY), 0, deny, id);
            }
        }
        Ok(())
    }

    fn entry(&mut self, object: Object) -> &mut Rule {
        let key = RuleKey { agent: self.agent, dev: object.dev, ino: object.ino };
        self.rules.entry(key).or_insert(EMPTY)
    }

    /// Keeps the name of a pattern's directory; returns its hash.
    fn keep_name(&mut self, parent: &[u8], rule: &PathRule, id: u32) -> Result<u64, CompileError> {
        let hash = self.note_name(parent, rule)?;
        let key = NameKey { agent: self.agent, dev: ANYWHERE, parent: 0, name: hash };
        keep(self.names.entry(key).or_insert(EMPTY), id);
        Ok(hash)
    }

    fn note_name(&mut self, name: &[u8], rule: &PathRule) -> Result<u64, CompileError> {
        let hash = hashed(name, rule)?;
        self.flags |= F_NAMES;
        self.name_lengths |= 1 << name.len();
        Ok(hash)
    }
}

const EMPTY: Rule = Rule { allow: 0, deny: 0, flags: 0, allow_id: 0, deny_id: 0, reserved: 0, expires_ns: NEVER };

fn merge(into: &mut Rule, allow: u32, deny: u32, id: u32) {
    if allow != 0 {
        into.allow |= allow;
        into.allow_id = first(into.allow_id, id);
    }
    if deny != 0 {
        // The id of a rule that only keeps the place gives way to that of one that denies.
        into.deny_id = if into.deny == 0 { id } else { first(into.deny_id, id) };
        into.deny |= deny;
    }
}

fn keep(into: &mut Rule, id: u32) {
    into.flags |= R_KEEP;
    if into.deny == 0 {
        into.deny_id = first(into.deny_id, id);
    }
}

fn first(old: u32, id: u32) -> u32 {
    if old == 0 { id } else { old.min(id) }
}

fn hashed(name: &[u8], rule: &PathRule) -> Result<u64, CompileError> {
    let component = !name.contains(&b'/') && name != b"." && name != b"..";
    name_hash(name).filter(|_| component).ok_or_else(|| CompileError::Name {
        name: String::from_utf8_lossy(name).into_owned(),
        path: rule.path.clone(),
        origin: rule.origin.clone(),
    })
}
