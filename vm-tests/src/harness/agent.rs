//! An agent whose program does what it is told.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::ctl::{agentctl, json, view};
use super::place::{Outcome, Place, own_program};

/// What an agent is started with, beside its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    words: Vec<String>,
    directory: Option<String>,
}

impl Options {
    /// Nothing but what `base` gives.
    pub(crate) fn base() -> Options {
        Options::default().word("--profile", "base")
    }

    /// An option of `agentctl spawn` with its value.
    pub(crate) fn word(mut self, option: &str, value: impl Into<String>) -> Options {
        self.words.extend([option.to_owned(), value.into()]);
        self
    }

    /// `--allow RIGHTS:PATH`.
    pub(crate) fn allow(self, rights: &str, path: impl AsRef<str>) -> Options {
        self.word("--allow", format!("{rights}:{}", path.as_ref()))
    }

    /// `--deny RIGHTS:PATH`.
    pub(crate) fn deny(self, rights: &str, path: impl AsRef<str>) -> Options {
        self.word("--deny", format!("{rights}:{}", path.as_ref()))
    }

    /// `--net RULE`.
    pub(crate) fn net(self, rule: &str) -> Options {
        self.word("--net", rule)
    }

    /// The working directory.
    pub(crate) fn directory(mut self, path: impl Into<String>) -> Options {
        self.directory = Some(path.into());
        self
    }

    /// The command line before the program of the agent.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new("agentctl");
        command.args(["spawn", "--user", "dev", "--name", name]).args(&self.words).args(["--cwd"]);
        command.arg(self.directory.as_deref().unwrap_or("/srv")).current_dir("/");
        command
    }
}

/// A running agent that tries things.
#[derive(Debug)]
pub(crate) struct Agent {
    name: String,
    place: Place,
}

impl Agent {
    /// Starts it and waits until it answers.
    pub(crate) fn start(name: &str, options: &Options) -> Result<Agent> {
        let mut command = options.command(name);
        command.args(["--", &own_program()?, "attempt"]);
        let mut place = Place::start(&mut command)?;
        match place.attempt(&["whoami"])? {
            Outcome { outcome, detail } if outcome == "ok" && detail.starts_with("1000 ") => {}
            Outcome { outcome, detail } => bail!("agent {name} does not start: {outcome} {detail} ({command:?})"),
        }
        Ok(Agent { name: name.to_owned(), place })
    }

    /// The one who tries.
    pub(crate) fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    /// Tries one thing inside.
    pub(crate) fn attempt(&mut self, words: &[&str]) -> Result<Outcome> {
        self.place.attempt(words)
    }

    /// As `inspect` shows it.
    pub(crate) fn view(&self) -> Result<Value> {
        view(&self.name)
    }

    /// Process id of its init, as the host counts.
    pub(crate) fn init(&self) -> Result<i32> {
        self.view()?["init_pid"].as_i64().map(|pid| pid as i32).context("the agent has no init")
    }

    /// The hooks whose refusals the journal has of it.
    pub(crate) fn refusals(&self) -> Result<Vec<Value>> {
        let records = json(&["audit", "--agent", &self.name, "-n", "all"])?;
        Ok(records.into_iter().filter(|record| record["event"] == "access_denied").collect())
    }
}

/// An agent that runs a command of its own, in nobody's foreground.
#[derive(Debug)]
pub(crate) struct Detached {
    name: String,
}

impl Detached {
    /// Starts it.
    pub(crate) fn start(name: &str, options: &Options, argv: &[&str]) -> Result<Detached> {
        let mut command = options.command(name);
        let output = super::ctl::program(command.arg("--detach").arg("--").args(argv))?;
        anyhow::ensure!(output.ok("agentctl spawn --detach")?.trim() == name, "spawn --detach prints another name");
        Ok(Detached { name: name.to_owned() })
    }

    /// As `inspect` shows it.
    pub(crate) fn view(&self) -> Result<Value> {
        view(&self.name)
    }

    /// Waits until it is in that phase of its life.
    pub(crate) fn wait_phase(&self, phase: &str) -> Result<Value> {
        let mut last = Value::Null;
        let limit = std::time::Duration::from_secs(60);
        let seen = crate::clock::wait_for(&format!("agent {} to be {phase}", self.name), limit, || {
            last = self.view()?;
            Ok((last["phase"] == phase).then(|| last.clone()))
        });
        seen.with_context(|| format!("it is {}: {last}", last["phase"]))
    }

    /// The directory of its cgroup.
    pub(crate) fn cgroup(&self) -> Result<String> {
        cgroup_of(self.view()?["init_pid"].as_i64().context("the agent has no init")?)
    }

    /// The names of the events that the journal has of it.
    pub(crate) fn events(&self) -> Result<Vec<String>> {
        let records = json(&["audit", "--agent", &self.name, "-n", "all"])?;
        Ok(records.iter().filter_map(|record| record["event"].as_str().map(ToOwned::to_owned)).collect())
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = agentctl(&["kill", &self.name]);
    }
}

/// The directory of a process's cgroup.
fn cgroup_of(pid: i64) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).context("the process is gone")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup v2")?;
    Ok(format!("/sys/fs/cgroup{}", path.trim()))
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = agentctl(&["kill", &self.name]);
    }
}
