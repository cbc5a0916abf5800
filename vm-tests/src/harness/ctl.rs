//! `agentctl` and the daemon, as a person at a shell uses them.

use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::clock::wait_for;

/// A command that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(90);

/// What a command left behind.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Its exit code, or 128 + the signal.
    pub(crate) status: i32,
    /// What it answered.
    pub(crate) stdout: String,
    /// What else it said.
    pub(crate) stderr: String,
}

impl Output {
    /// The standard output, if it went well.
    pub(crate) fn ok(self, what: &str) -> Result<String> {
        ensure!(self.status == 0, "{what}: status {}, {}{}", self.status, self.stderr.trim(), self.stdout.trim());
        Ok(self.stdout)
    }
}

/// Runs a program to its end.
pub(crate) fn program(command: &mut Command) -> Result<Output> {
    let name = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    finish(child, &name, LIMIT)
}

/// Waits for the end of a child whose output is piped.
fn finish(mut child: Child, name: &str, limit: Duration) -> Result<Output> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || text(stdout));
    let err = std::thread::spawn(move || text(stderr));
    let ended = wait_for(&format!("the end of {name}"), limit, || Ok(child.try_wait()?));
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let stdout = out.join().unwrap_or_default();
    let stderr = err.join().unwrap_or_default();
    let status = ended.with_context(|| format!("it said: {stdout}{stderr}"))?;
    let status = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
    Ok(Output { status, stdout, stderr })
}

fn text(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs agentctl as root.
pub(crate) fn agentctl(words: &[&str]) -> Result<Output> {
    program(Command::new("agentctl").args(words).current_dir("/"))
}

/// Runs agentctl as another user.
pub(crate) fn agentctl_as(uid: u32, words: &[&str]) -> Result<Output> {
    program(Command::new("agentctl").args(words).current_dir("/").uid(uid).gid(uid))
}

/// What agentctl prints as JSON, one object a line.
pub(crate) fn json(words: &[&str]) -> Result<Vec<Value>> {
    let mut all = words.to_vec();
    all.push("--json");
    let output = agentctl(&all)?.ok(&format!("agentctl {}", all.join(" ")))?;
    let read = |line: &str| serde_json::from_str(line).with_context(|| format!("{line:?} is not JSON"));
    output.lines().map(read).collect()
}

/// One agent, as `inspect` shows it.
pub(crate) fn view(agent: &str) -> Result<Value> {
    json(&["inspect", agent])?.into_iter().next().with_context(|| format!("nothing is shown of agent {agent}"))
}

/// Process id of the running daemon.
pub(crate) fn daemon_pid() -> Result<i32> {
    let text = fs::read_to_string("/run/agentd/agentd.lock").context("there is no daemon's lock")?;
    text.trim().parse().context("the lock holds no process id")
}

/// Sends the daemon a signal.
pub(crate) fn signal_daemon(signal: nix::sys::signal::Signal) -> Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon_pid()?), signal).context("cannot signal the daemon")
}

/// Ends the daemon with a signal and waits until it is gone. It is the child of nobody here, so its pid is looked at.
pub(crate) fn stop_daemon(signal: nix::sys::signal::Signal) -> Result<()> {
    let pid = daemon_pid()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).context("cannot signal the daemon")?;
    wait_for("the end of the daemon", Duration::from_secs(20), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
    })
}

/// Starts the daemon and waits until it answers.
pub(crate) fn start_daemon() -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open("/var/log/agentd.log")?;
    let mut child =
        Command::new("/usr/bin/agentd").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    wait_for("an answer of the daemon", Duration::from_secs(60), || {
        if let Some(status) = child.try_wait()? {
            bail!("agentd has ended with {status}: {}", tail("/var/log/agentd.log"));
        }
        Ok((agentctl(&["ps"])?.status == 0).then_some(()))
    })?;
    Ok(child)
}

/// The end of a text file.
fn tail(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}
