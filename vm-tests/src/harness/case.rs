//! A case: one way to a thing that is denied, and its two twins.
//!
//! ```text
//! prepare   by the user, outside
//! refused   outside: it works there, so the way itself is open
//!           inside:  the error that is expected, and nothing in the tree has changed
//! allowed   inside:  the same way to what is allowed works, so the refusal is not of the way
//! ```
//!
//! Attempts are written as on a command line; `@` before a word stands for the tree, `;` parts steps.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{Agent, Options, Outcome, Place, Test, Tree};

/// What an attempt must come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// It is done.
    Ok,
    /// It is done and says this.
    Says(&'static str),
    /// One of these errors, named as in errno(3).
    Refused(&'static str),
    /// The twin outside makes no sense.
    Skip,
}

impl Expect {
    fn holds(self, outcome: &Outcome) -> bool {
        match self {
            Expect::Ok => outcome.is_ok(),
            Expect::Says(text) => outcome.is_ok() && outcome.detail.contains(text),
            Expect::Refused(names) => names.split('|').any(|name| name == outcome.outcome),
            Expect::Skip => true,
        }
    }
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    about: &'static str,
    prepare: &'static str,
    refused: &'static str,
    inside: Expect,
    outside: Expect,
    allowed: &'static str,
    twin: Expect,
    hook: &'static str,
}

/// A case about something; refused means `EACCES` unless it is said otherwise.
pub(crate) const fn case(about: &'static str) -> Case {
    Case {
        about,
        prepare: "",
        refused: "",
        inside: Expect::Refused("EACCES"),
        outside: Expect::Ok,
        allowed: "",
        twin: Expect::Ok,
        hook: "",
    }
}

impl Case {
    /// What the user does before each try.
    pub(crate) const fn prepare(self, steps: &'static str) -> Case {
        Case { prepare: steps, ..self }
    }

    /// What is refused inside and done outside.
    pub(crate) const fn refused(self, attempt: &'static str) -> Case {
        Case { refused: attempt, ..self }
    }

    /// With which error it is refused.
    pub(crate) const fn with(self, errors: &'static str) -> Case {
        Case { inside: Expect::Refused(errors), ..self }
    }

    /// What comes of it inside, where that is no error.
    pub(crate) const fn inside(self, expect: Expect) -> Case {
        Case { inside: expect, ..self }
    }

    /// What comes of it outside, where it is not simply done.
    pub(crate) const fn outside(self, expect: Expect) -> Case {
        Case { outside: expect, ..self }
    }

    /// What is done inside: the positive twin.
    pub(crate) const fn allowed(self, attempt: &'static str) -> Case {
        Case { allowed: attempt, ..self }
    }

    /// What comes of the twin, where it is not simply done.
    pub(crate) const fn twin(self, expect: Expect) -> Case {
        Case { twin: expect, ..self }
    }

    /// The hook that has to have reported it.
    pub(crate) const fn by(self, hook: &'static str) -> Case {
        Case { hook, ..self }
    }
}

/// A tree, an agent with rules on it, and somebody outside.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) tree: Tree,
    pub(crate) agent: Agent,
    pub(crate) outside: Place,
    /// Stand for other words, with `%` before them: process ids, ports; as the agent knows them, and as others do.
    pub(crate) words: BTreeMap<String, [String; 2]>,
}

impl Bench {
    /// Starts the agent and the other.
    pub(crate) fn new(name: &str, tree: Tree, options: &Options) -> Result<Bench> {
        let agent = Agent::start(name, options)?;
        let outside = Place::outside(super::DEV)?;
        Ok(Bench { tree, agent, outside, words: BTreeMap::new() })
    }

    /// Runs cases and then looks whether every refusal was reported by the hook that is named.
    pub(crate) fn run(&mut self, test: &mut Test, cases: &[Case]) -> Result<()> {
        for case in cases {
            self.case(test, case).with_context(|| format!("case \"{}\"", case.about))?;
        }
        let refusals = self.agent.refusals()?;
        for case in cases.iter().filter(|case| !case.hook.is_empty()) {
            let told = refusals.iter().any(|record| record["denial"]["hook"] == case.hook);
            test.check(told, || format!("{}: no refusal by {} is in the journal", case.about, case.hook));
        }
        Ok(())
    }

    fn case(&mut self, test: &mut Test, case: &Case) -> Result<()> {
        if !case.refused.is_empty() {
            if !matches!(case.outside, Expect::Skip) {
                self.prepare(case)?;
                let outcome = self.try_outside(case.refused)?;
                test.check(case.outside.holds(&outcome), || {
                    told(case, "outside", case.refused, &outcome, case.outside)
                });
            }
            self.prepare(case)?;
            let before = self.tree.look();
            let outcome = self.try_inside(case.refused)?;
            test.check(case.inside.holds(&outcome), || told(case, "inside", case.refused, &outcome, case.inside));
            if matches!(case.inside, Expect::Refused(_)) {
                let changed = changes(&before, &self.tree.look());
                test.check(changed.is_empty(), || format!("{}: {:?} changed {changed}", case.about, case.refused));
            }
        }
        if !case.allowed.is_empty() {
            self.prepare(case)?;
            let outcome = self.try_inside(case.allowed)?;
            test.check(case.twin.holds(&outcome), || told(case, "its twin inside", case.allowed, &outcome, case.twin));
        }
        Ok(())
    }

    fn prepare(&mut self, case: &Case) -> Result<()> {
        for step in case.prepare.split(';').filter(|step| !step.trim().is_empty()) {
            let outcome = self.try_outside(step)?;
            anyhow::ensure!(outcome.is_ok(), "cannot prepare {step:?}: {} {}", outcome.outcome, short(&outcome.detail));
        }
        Ok(())
    }

    /// Tries something inside the agent.
    pub(crate) fn try_inside(&mut self, attempt: &str) -> Result<Outcome> {
        let words = self.words(attempt, 0);
        self.agent.attempt(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Tries something outside.
    pub(crate) fn try_outside(&mut self, attempt: &str) -> Result<Outcome> {
        let words = self.words(attempt, 1);
        self.outside.attempt(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Gives a word a meaning inside and outside.
    pub(crate) fn define(&mut self, word: &str, inside: impl ToString, outside: impl ToString) {
        self.words.insert(word.to_owned(), [inside.to_string(), outside.to_string()]);
    }

    /// Tries inside and notes if it comes to something else.
    pub(crate) fn expect(&mut self, test: &mut Test, about: &str, attempt: &str, expect: Expect) -> Result<Outcome> {
        let outcome = self.try_inside(attempt)?;
        test.check(expect.holds(&outcome), || {
            format!(
                "{about}: {attempt:?} came to {} ({:?}) instead of {expect:?}",
                outcome.outcome,
                short(&outcome.detail)
            )
        });
        Ok(outcome)
    }

    fn words(&self, attempt: &str, side: usize) -> Vec<String> {
        attempt
            .split_whitespace()
            .map(|word| match (word.strip_prefix('@'), word.strip_prefix('%')) {
                (Some(below), _) if !below.starts_with('@') => self.tree.path(below),
                (_, Some(name)) => self.words.get(name).map_or_else(|| word.to_owned(), |sides| sides[side].clone()),
                _ => word.to_owned(),
            })
            .collect()
    }
}

/// As much of an answer as belongs into a message.
fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(100).collect()
}

fn told(case: &Case, place: &str, attempt: &str, outcome: &Outcome, expect: Expect) -> String {
    format!(
        "{}: {place}, {attempt:?} came to {} ({:?}) instead of {expect:?}",
        case.about,
        outcome.outcome,
        short(&outcome.detail)
    )
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let mut changed: Vec<&str> =
        before.iter().filter(|(path, was)| after.get(*path) != Some(was)).map(|(p, _)| p.as_str()).collect();
    changed.extend(after.keys().filter(|path| !before.contains_key(*path)).map(String::as_str));
    changed.join(" ")
}
