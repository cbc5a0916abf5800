//! May it?
//!
//! The decision that the kernel programs make, a second time and in words. This one is the oracle: a differential test
//! feeds both the same cases, and where they differ, the kernel side is wrong or this page is.
//!
//! A question is a chain of [`Level`]s, from the object up to the root, and the rights that are needed. At each level up
//! to four entries speak, and their masks are united:
//!
//! 1. the entry on the object;
//! 2. the entry on the object's name in the very directory that is the next level, if that directory's entry has
//!    [`R_NAMES`];
//! 3. the pattern of the directory's name ([`directory_name`]) and this name;
//! 4. the pattern of this name alone.
//!
//! What they deny is denied, and the walk ends. What they allow is no longer needed. When nothing is needed the answer is
//! yes; when there are no more levels it is no. So the nearest level that mentions a right decides it, a denial wins on
//! the same level, and the order in which rules were written does not exist here.
//!
//! An entry whose time is over no longer allows; it denies as before, because the end of a permission must not be the
//! end of a prohibition.

use agentd_abi::{ANYWHERE, F_NAMES, MAX_DEPTH, NameKey, Object, R_KEEP, R_NAMES, Rule, RuleKey, name_hash};
use agentd_model::Rights;

use crate::compile::Compiled;

/// One step of the way from an object up to the root of the agent's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The object; `None` where the name does not exist yet.
    pub object: Option<Object>,
    /// Its name in the next level; `None` at the root of a mount, whose next level is the directory it is mounted on.
    pub name: Option<Vec<u8>>,
}

/// The name of the directory that holds the object of a level: of the next level, or, where that is the root of a mount,
/// of the directory it is mounted on.
pub fn directory_name(levels: &[Level], depth: usize) -> Option<&[u8]> {
    let named = |depth: usize| levels.get(depth).and_then(|level| level.name.as_deref());
    named(depth + 1).or_else(|| named(depth + 2))
}

/// The answer to one question about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every needed right is allowed.
    Allowed,
    /// A rule denies some of what was needed.
    Denied {
        /// What it denies of what was still needed.
        rights: Rights,
        /// Position of the rule, from 1.
        rule: u32,
        /// What the rule sits on.
        by: DeniedBy,
    },
    /// Up to the root nothing allows these.
    NothingFound {
        /// What is still needed.
        rights: Rights,
        /// Where some of it would be allowed, had the time of a rule not been over: the position of the last rule on the
        /// way that would have allowed anything needed; else 0.
        expired: u32,
    },
    /// There are more levels than are walked, and those that were did not suffice.
    TooDeep {
        /// What is still needed.
        rights: Rights,
    },
}

/// What a denying rule sits on. Where both deny, the object is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedBy {
    /// An object.
    Object,
    /// A name.
    Name,
}

/// Decides whether all needed rights are allowed on the object of the first level.
pub fn decide(compiled: &Compiled, levels: &[Level], need: Rights, now_ns: u64) -> Verdict {
    let (mut need, mut lapsed, mut lapsed_id) = (need.bits(), 0, 0);
    for depth in 0..levels.len() {
        if depth == MAX_DEPTH as usize {
            return Verdict::TooDeep { rights: Rights::from_bits_truncate(need) };
        }
        let entries = entries(compiled, levels, depth);
        let denied = entries.denied() & need;
        if denied != 0 {
            let (rule, by) = entries.denier(denied);
            return Verdict::Denied { rights: Rights::from_bits_truncate(denied), rule, by };
        }
        for rule in entries.expired(now_ns).filter(|rule| rule.allow & need != 0) {
            lapsed |= rule.allow & need;
            lapsed_id = rule.allow_id;
        }
        need &= !entries.allowed(now_ns);
        if need == 0 {
            return Verdict::Allowed;
        }
    }
    let expired = if lapsed & need != 0 { lapsed_id } else { 0 };
    Verdict::NothingFound { rights: Rights::from_bits_truncate(need), expired }
}

/// All rights that the agent has on the object of the first level: those for which [`decide`] says yes.
pub fn full_rights(compiled: &Compiled, levels: &[Level], now_ns: u64) -> Rights {
    let (mut open, mut had) = (Rights::ALL.bits(), 0);
    for depth in 0..levels.len().min(MAX_DEPTH as usize) {
        let entries = entries(compiled, levels, depth);
        open &= !entries.denied();
        had |= open & entries.allowed(now_ns);
        open &= !had;
    }
    Rights::from_bits_truncate(had)
}

/// Whether a directory, by its object, or anything of this name must keep its place: no rename from or to it, no removal
/// of the object, no symbolic link of the name. Gives the position of the rule that relies on it.
pub fn kept(compiled: &Compiled, object: Option<Object>, name: &[u8]) -> Option<u32> {
    let keeps = |rule: &&Rule| rule.flags & R_KEEP != 0;
    let by_object = object.and_then(|object| rule_on(compiled, object)).filter(keeps);
    let by_name = || named(compiled, name).and_then(|hash| pattern(compiled, 0, hash)).filter(keeps);
    by_object.or_else(by_name).map(|rule| rule.deny_id)
}

/// The entries that speak at one level, the object's first.
struct Entries<'c>([Option<&'c Rule>; 4]);

fn entries<'c>(compiled: &'c Compiled, levels: &[Level], depth: usize) -> Entries<'c> {
    let level = &levels[depth];
    let object = level.object.and_then(|object| rule_on(compiled, object));
    let Some(name) = level.name.as_ref().and_then(|name| named(compiled, name)) else {
        return Entries([object, None, None, None]);
    };
    let exact = levels.get(depth + 1).and_then(|next| next.object).and_then(|directory| {
        rule_on(compiled, directory).filter(|rule| rule.flags & R_NAMES != 0)?;
        let key = NameKey { agent: compiled.agent, dev: directory.dev, parent: directory.ino, name };
        compiled.names.get(&key)
    });
    let parent = directory_name(levels, depth).and_then(name_hash);
    let in_directory = parent.and_then(|parent| pattern(compiled, parent, name));
    Entries([object, exact, in_directory, pattern(compiled, 0, name)])
}

fn rule_on(compiled: &Compiled, object: Object) -> Option<&Rule> {
    compiled.rules.get(&RuleKey { agent: compiled.agent, dev: object.dev, ino: object.ino })
}

/// The hash of a name, if the agent has a rule about any name of this length.
fn named(compiled: &Compiled, name: &[u8]) -> Option<u64> {
    let hash = name_hash(name)?;
    (compiled.flags & F_NAMES != 0 && compiled.name_lengths >> name.len() & 1 == 1).then_some(hash)
}

fn pattern(compiled: &Compiled, parent: u64, name: u64) -> Option<&Rule> {
    compiled.names.get(&NameKey { agent: compiled.agent, dev: ANYWHERE, parent, name })
}

impl Entries<'_> {
    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().flatten().copied()
    }

    fn denied(&self) -> u32 {
        self.all().fold(0, |mask, rule| mask | rule.deny)
    }

    fn allowed(&self, now_ns: u64) -> u32 {
        self.all().filter(|rule| rule.expires_ns > now_ns).fold(0, |mask, rule| mask | rule.allow)
    }

    fn expired(&self, now_ns: u64) -> impl Iterator<Item = &Rule> {
        self.all().filter(move |rule| rule.expires_ns <= now_ns)
    }

    fn denier(&self, denied: u32) -> (u32, DeniedBy) {
        let first = self.0.iter().position(|rule| rule.is_some_and(|rule| rule.deny & denied != 0));
        let first = first.expect("some entry denies what the union of the entries denies");
        let by = if first == 0 { DeniedBy::Object } else { DeniedBy::Name };
        (self.0[first].map_or(0, |rule| rule.deny_id), by)
    }
}
