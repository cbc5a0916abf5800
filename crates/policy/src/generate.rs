//! Which cases are worth asking twice?
//!
//! The differential test asks the kernel programs and [`decide`](crate::decide) the same questions. This module makes
//! them: from a number, always the same [`Scene`], so that a failure is reported as one number. A scene is one agent's
//! compiled rules and some questions about them.
//!
//! Scenes are made to be awkward. There are few objects and few names, so that rules meet: several on one object, names
//! that are the name of something else too, equal inode numbers on different devices, patterns whose directory is the
//! root of a mount, names of 63, 64 and 255 bytes, objects that do not exist, trees deeper than the walk, permissions
//! whose time is over. Questions are asked from every level of a tree, so also about its root.

use agentd_abi::{MAX_DEPTH, NEVER, Object};
use agentd_model::{AgentNumber, Origin, PathRule, Rights};

use crate::compile::{Compiled, Resolved, Target, compile};
use crate::decide::Level;

/// The compiled rules of one agent, and questions about them.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What it was made from.
    pub seed: u64,
    /// Entries for the kernel's tables.
    pub compiled: Compiled,
    /// The questions.
    pub questions: Vec<Question>,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// From the object up to the root.
    pub levels: Vec<Level>,
    /// What is needed; at least one right.
    pub need: Rights,
}

/// Questions in each scene.
pub const QUESTIONS: usize = 25;

/// Makes one scene. Some permissions expire at `now_ns` or before and no longer hold; others expire an hour later.
pub fn scene(seed: u64, agent: AgentNumber, now_ns: u64) -> Scene {
    let mut dice = Dice::new(seed);
    let tree = Tree::new(&mut dice);
    let mut rules = Vec::new();
    let mut resolved = Vec::new();
    for index in 0..dice.below(12) as usize {
        let target = tree.target(&mut dice);
        let by_name = !matches!(target, Target::Object { .. });
        let deny = if by_name || dice.one_in(4) { dice.rights() } else { Rights::NONE };
        let allow = if by_name { Rights::NONE } else { dice.rights() };
        let path = "/generated".to_owned();
        rules.push(PathRule { path, allow, deny, optional: true, origin: Origin::BuiltIn });
        // A denial is often kept by object and by name.
        if by_name && dice.one_in(3) {
            resolved.push(Resolved { rule: index, target: tree.object_target(&mut dice) });
        }
        resolved.push(Resolved { rule: index, target });
    }
    let mut compiled = compile(agent, &rules, &resolved, &[]).expect("generated rules are within every limit");
    for rule in compiled.rules.values_mut().chain(compiled.names.values_mut()) {
        // The compiler denies only, by name; the kernel would also take permissions there.
        if rule.allow == 0 && dice.one_in(8) {
            (rule.allow, rule.allow_id) = (dice.rights().bits(), 1 + dice.below(12));
        }
        rule.expires_ns = match dice.below(6) {
            0 => now_ns.saturating_sub(u64::from(dice.below(1000))),
            1 => now_ns.saturating_add(3_600_000_000_000),
            _ => NEVER,
        };
    }
    let questions = (0..QUESTIONS).map(|_| tree.question(&mut dice)).collect();
    Scene { seed, compiled, questions }
}

/// A chain of directories; every question starts somewhere on it or at a name beside it.
struct Tree {
    /// From the deepest up to the root.
    levels: Vec<Level>,
}

/// A few short names that meet each other often, and the longest ones.
fn name(dice: &mut Dice) -> Vec<u8> {
    const SHORT: [&[u8]; 8] = [b"a", b"b", b"src", b"hooks", b".git", b".ssh", b"config", b"\xff\xfe"];
    const LENGTHS: [usize; 6] = [7, 8, 62, 63, 64, 255];
    if dice.one_in(6) {
        return vec![b'x'; LENGTHS[dice.below(LENGTHS.len() as u32) as usize]];
    }
    SHORT[dice.below(SHORT.len() as u32) as usize].to_owned()
}

/// A name that rules can be about.
fn ruled_name(dice: &mut Dice) -> Vec<u8> {
    let mut name = name(dice);
    name.truncate(agentd_abi::NAME_BYTES - 1);
    name
}

fn object(dice: &mut Dice) -> Object {
    // Equal inodes on different devices, as on btrfs subvolumes; a high inode and the highest minor among them.
    const DEVICES: [u32; 3] = [8 << 20 | 1, 0xf_fffe, 0x30];
    let ino = match dice.below(30) {
        0 => u64::MAX - 1,
        1 => 1 << 32,
        other => u64::from(other) + 256,
    };
    Object { dev: DEVICES[dice.below(3) as usize], reserved: 0, ino }
}

impl Tree {
    fn new(dice: &mut Dice) -> Tree {
        let depth = match dice.below(8) {
            0 => MAX_DEPTH - 2 + dice.below(5),
            1 => 1,
            _ => 2 + dice.below(14),
        };
        // Half of the deep trees are of objects that no rule is about, else hardly a walk would come to their end.
        let strange = depth > 20 && dice.one_in(2);
        let mut levels = Vec::new();
        for step in 1..depth {
            // A mount: its root has no name, the level above is the directory it is mounted on.
            let before_is_root = levels.last().is_some_and(|level: &Level| level.name.is_none());
            let name = if !levels.is_empty() && !before_is_root && dice.one_in(7) { None } else { Some(name(dice)) };
            let drawn = object(dice);
            let ino = if strange { 1_000_000 + u64::from(step) } else { drawn.ino };
            levels.push(Level { object: Some(Object { ino, ..drawn }), name });
        }
        levels.push(Level { object: Some(object(dice)), name: None });
        Tree { levels }
    }

    /// An object on the chain, or now and then one that is not.
    fn object(&self, dice: &mut Dice) -> Object {
        let on_chain = self.levels[dice.below(self.levels.len() as u32) as usize].object;
        on_chain.filter(|_| !dice.one_in(8)).unwrap_or_else(|| object(dice))
    }

    fn object_target(&self, dice: &mut Dice) -> Target {
        Target::Object { object: self.object(dice), directory: dice.one_in(2) }
    }

    fn target(&self, dice: &mut Dice) -> Target {
        match dice.below(6) {
            0 => Target::Name { directory: self.object(dice), name: ruled_name(dice) },
            1 => Target::Pattern { parent: Some(ruled_name(dice)), name: ruled_name(dice) },
            2 if dice.one_in(2) => Target::Pattern { parent: None, name: ruled_name(dice) },
            _ => self.object_target(dice),
        }
    }

    fn question(&self, dice: &mut Dice) -> Question {
        let start = if dice.one_in(2) { 0 } else { dice.below(self.levels.len() as u32) as usize };
        let mut levels = self.levels[start..].to_vec();
        match dice.below(4) {
            // A name that does not exist yet.
            0 => levels.insert(0, Level { object: None, name: Some(name(dice)) }),
            // Another object beside the chain.
            1 => levels.insert(0, Level { object: Some(object(dice)), name: Some(name(dice)) }),
            _ => {}
        }
        Question { levels, need: if dice.one_in(2) { dice.right() } else { dice.rights() } }
    }
}

/// xorshift64*: a sequence from a number, good enough to be various.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        // Neighbouring seeds are spread by splitmix64; the state of a xorshift is never 0.
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Dice((state ^ state >> 31).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u32) -> u32 {
        (((self.next() >> 32) * u64::from(limit)) >> 32) as u32
    }

    fn one_in(&mut self, chances: u32) -> bool {
        self.below(chances) == 0
    }

    fn right(&mut self) -> Rights {
        Rights::from_bits_truncate(1 << self.below(5))
    }

    fn rights(&mut self) -> Rights {
        Rights::from_bits_truncate(1 + self.below(31))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::decide::{DeniedBy, Verdict, decide, full_rights};

    const NOW: u64 = 5_000_000;

    #[test]
    fn the_same_seed_makes_the_same_scene() {
        let shown = |seed| format!("{:?}", scene(seed, AgentNumber(3), NOW));
        assert_eq!(shown(0), shown(0));
        assert_ne!(shown(0), shown(1));
    }

    #[test]
    fn ten_thousand_questions_meet_every_kind_of_answer() {
        let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
        for seed in 0..600 {
            let scene = scene(seed, AgentNumber(3), NOW);
            for Question { levels, need } in &scene.questions {
                let verdict = decide(&scene.compiled, levels, *need, NOW);
                let kind = match verdict {
                    Verdict::Allowed => "allowed",
                    Verdict::Denied { by: DeniedBy::Object, .. } => "denied by object",
                    Verdict::Denied { by: DeniedBy::Name, .. } => "denied by name",
                    Verdict::NothingFound { expired: 0, .. } => "nothing found",
                    Verdict::NothingFound { .. } => "expired",
                    Verdict::TooDeep { .. } => "too deep",
                };
                *kinds.entry(kind).or_default() += 1;
                let full = full_rights(&scene.compiled, levels, NOW);
                assert_eq!(verdict == Verdict::Allowed, full.contains(*need), "seed {seed}");
                if let Verdict::Denied { rule, rights, .. } = verdict {
                    assert!(rule > 0 && need.contains(rights), "seed {seed}");
                }
            }
        }
        assert!(kinds.values().sum::<u32>() >= 10_000);
        assert_eq!(kinds.len(), 6, "{kinds:?}");
        assert!(kinds.values().all(|count| *count >= 100), "{kinds:?}");
    }
}
