//! The jobs: what each is given, what it does, and how it is judged.

mod client;
mod tools;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::ground::{Denial, Ground, Ran, Tier};
use super::shelf::Tool;

/// One job.
pub(crate) struct Job {
    /// Its name, also the agent's.
    pub(crate) name: &'static str,
    /// What it needs.
    pub(crate) tools: &'static [Tool],
    /// Whether the tests run it on every kernel; the others differ from kernel to kernel in nothing that matters.
    pub(crate) everywhere: bool,
    /// Prepares, runs and judges.
    run: fn(&Ground, &Job) -> Result<Outcome>,
    /// Refusals that stay, each with its reason.
    expected: &'static [Expected],
}

/// A refusal that a job meets and that stays: it hinders nothing, or it is what the job is there to show.
struct Expected {
    /// Name of the process, or nothing for any.
    comm: &'static str,
    /// Part of the object's path or address.
    object: &'static str,
    /// Why it is refused.
    why: &'static str,
}

/// What came of a job.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What is not as it should be.
    pub(super) wrong: Vec<String>,
    /// What is worth knowing.
    pub(super) noted: Vec<String>,
    /// What the agent printed.
    pub(super) said: String,
}

impl Outcome {
    fn of(ran: &Ran) -> Self {
        let mut outcome = Self { said: ran.said.clone(), ..Self::default() };
        match ran.status {
            Some(0) => {}
            Some(status) => outcome.wrong.push(format!("it ended with status {status}")),
            None => outcome.wrong.push("it did not end in time".into()),
        }
        outcome
    }

    fn check(&mut self, holds: bool, claim: impl Into<String>) {
        if !holds {
            self.wrong.push(claim.into());
        }
    }
}

/// Longest time of one job: machines without KVM are twenty times slower than this host.
const LIMIT: Duration = Duration::from_secs(900);

/// cargo asks for the locks of its caches and notes what it used last, and goes on without. The user's cargo waits for
/// the locks and deletes by the notes.
const CARGO_CACHES: &str = "the user's cargo caches are never written";
/// `bash -l` reads one, Claude Code the other before each of its shells, and both go on without.
const START_FILES: &str = "start files of the user may hold tokens";

/// All of them, the cheapest first.
pub(crate) const JOBS: [Job; 7] = [
    Job {
        name: "git",
        tools: &[],
        everywhere: true,
        run: tools::git,
        // git tries a hard link once, and copies. A link would give the file all rights of the workspace.
        expected: &[Expected {
            comm: "git",
            object: "upstream/.git/objects/",
            why: "no second name for what is only read",
        }],
    },
    Job { name: "make", tools: &[], everywhere: true, run: tools::make, expected: &[] },
    Job { name: "python", tools: &[Tool::Wheels], everywhere: false, run: tools::python, expected: &[] },
    Job { name: "npm", tools: &[Tool::Node], everywhere: false, run: tools::npm, expected: &[] },
    Job {
        name: "cargo",
        tools: &[Tool::Rust],
        everywhere: false,
        run: tools::cargo,
        expected: &[
            Expected { comm: "cargo", object: "/.cargo/.package-cache", why: CARGO_CACHES },
            Expected { comm: "cargo", object: "/.cargo/.global-cache", why: CARGO_CACHES },
        ],
    },
    Job { name: "codex", tools: &[Tool::Codex], everywhere: true, run: client::codex, expected: client::REFUSED },
    Job { name: "claude", tools: &[Tool::Claude], everywhere: false, run: client::claude, expected: client::REFUSED },
];

/// Runs a job and looks at what the kernel refused meanwhile.
pub(super) fn perform(ground: &Ground, job: &Job) -> Result<Outcome> {
    (job.run)(ground, job)
}

/// Adds the refusals that nobody expected to what is wrong, and names those that are.
fn judge_denials(job: &Job, denials: &[Denial], outcome: &mut Outcome) {
    let mut lines: Vec<(bool, String, usize)> = Vec::new();
    for denial in denials {
        let fits = |expected: &&Expected| {
            (expected.comm.is_empty() || denial.comm == expected.comm) && denial.object.contains(expected.object)
        };
        let known = job.expected.iter().find(fits);
        let text = format!("refused: {} {} ({}; {})", denial.what, denial.object, denial.comm, denial.reason);
        let text = known.map_or_else(|| text.clone(), |expected| format!("{text}: {}", expected.why));
        match lines.iter_mut().find(|(_, line, _)| *line == text) {
            Some((_, _, count)) => *count += 1,
            None => lines.push((known.is_some(), text, 1)),
        }
    }
    for (known, text, count) in lines {
        let text = if count > 1 { format!("{text} ×{count}") } else { text };
        if known { outcome.noted.push(text) } else { outcome.wrong.push(text) }
    }
}

/// Runs a script as an agent in a fresh workspace with these files.
fn script(
    ground: &Ground,
    job: &Job,
    files: &[(&str, &str)],
    text: &str,
    words: &[String],
) -> Result<(PathBuf, Outcome)> {
    let dir = ground.folder(job.name, files)?;
    let ran = ground.spawn(job.name, &dir, words, &["bash", "-c", text], LIMIT)?;
    let mut outcome = Outcome::of(&ran);
    judge_denials(job, &ran.denials, &mut outcome);
    Ok((dir, outcome))
}

/// Whether refusals are told of, and rules inside what is allowed hold.
fn complete(ground: &Ground) -> bool {
    ground.tier() == Tier::Lsm
}
