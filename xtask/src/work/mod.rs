//! Real work, done by agents under the profile `coding` as it is shipped.
//!
//! A profile that refuses everything is safe and useless; these jobs are the other half of the promise. Each is what a
//! person would let an agent do: git, make, cargo, npm, a virtual environment with pytest, and the two clients that most
//! people use, against a model server of our own. A client's exit status proves nothing (it ends with 0 when every
//! command it ran was refused), so a job is judged by the files it left and, for clients, by what their tools answered.
//!
//! Every refusal during a job is a finding: it either hindered the work or is noise in the journal. Those that stay
//! have a line with their reason in `jobs.rs`; any other one fails the job. The clients' jobs also ask for two things that
//! no agent may do, so that a profile which allows everything fails as well.
//!
//! ```text
//! shelf: what a job needs from this host ─┬─▶ ground on this host: own daemon, a user without a name, tools by --allow
//!                                         └─▶ ground in a machine: the installed daemon, user dev, tools in ~/…, no option
//! ```
//!
//! In a machine the profile stands alone: not one `--allow` for the tools, because they lie where people have them.

mod ground;
mod jobs;
mod model;
mod shelf;

use anyhow::{Context as _, Result};

pub(crate) use self::ground::GUEST_HOME;
use self::ground::{Daemon, Ground};
pub(crate) use self::jobs::{JOBS, Job};
pub(crate) use self::shelf::{items, missing};
use crate::clock::Stopwatch;
use crate::{signal, store, ui};

/// Jobs whose name contains the filter.
pub(crate) fn chosen(filter: &str) -> Vec<&'static Job> {
    JOBS.iter().filter(|job| job.name.contains(filter)).collect()
}

/// Runs jobs on this host with a daemon of our own. Returns how many failed.
pub(crate) fn on_this_host(jobs: &[&Job]) -> Result<usize> {
    let mut wanted = Vec::new();
    for job in jobs {
        wanted.extend(items(job.tools)?);
    }
    let scratch = store::scratch("work")?;
    let daemon = Daemon::own(scratch.path())?;
    let done = Ground::on_this_host(daemon, &wanted).and_then(|ground| all(&ground, jobs));
    let unloaded = Daemon::unload(scratch.path());
    done.and_then(|failed| unloaded.map(|()| failed))
}

/// Runs jobs with the daemon that runs in this machine. Returns how many failed.
pub(crate) fn in_this_machine(jobs: &[&Job]) -> Result<usize> {
    all(&Ground::in_this_machine()?, jobs)
}

fn all(ground: &Ground, jobs: &[&Job]) -> Result<usize> {
    let mut failed = 0;
    for job in jobs {
        signal::check()?;
        failed += usize::from(!one(ground, job).with_context(|| format!("cannot run {}", job.name))?);
    }
    Ok(failed)
}

/// Runs one and prints what came of it; false if anything was not as it should be.
fn one(ground: &Ground, job: &Job) -> Result<bool> {
    let watch = Stopwatch::start();
    let outcome = jobs::perform(ground, job)?;
    let word = if outcome.wrong.is_empty() { "ok  " } else { "FAIL" };
    ui::say(format!("{word} {:<8} {:<7} ({watch})", job.name, ground.tier().name()));
    for line in &outcome.wrong {
        ui::say(format!("     wrong: {line}"));
    }
    for line in &outcome.noted {
        ui::say(format!("     noted: {line}"));
    }
    if !outcome.wrong.is_empty() {
        for line in outcome.said.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev() {
            ui::say(format!("     said:  {line}"));
        }
    }
    Ok(outcome.wrong.is_empty())
}
