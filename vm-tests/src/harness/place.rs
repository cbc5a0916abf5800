//! Somebody who tries things: a process of this program, inside an agent or beside all of them, at the other end of two pipes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::attempt;

/// An answer that takes longer does not come.
const LIMIT: Duration = Duration::from_secs(60);

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `ok`, the name of an errno, `signal N`, or `silence` where nobody was left to answer.
    pub(crate) outcome: String,
    /// What else there is to say.
    pub(crate) detail: String,
}

impl Outcome {
    /// Whether it was done.
    pub(crate) fn is_ok(&self) -> bool {
        self.outcome == "ok"
    }
}

/// The one who tries.
#[derive(Debug)]
pub(crate) struct Place {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Place {
    /// Starts one beside every agent.
    pub(crate) fn outside(uid: u32) -> Result<Place> {
        Place::start(Command::new(own_program()?).arg("attempt").current_dir("/").uid(uid).gid(uid))
    }

    /// Starts a command that ends up in `vm-tests attempt`.
    pub(crate) fn start(command: &mut Command) -> Result<Place> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("a child without output")?);
        let stderr = child.stderr.take();
        Ok(Place { child, stdin, stdout, stderr })
    }

    /// Tries one thing.
    pub(crate) fn attempt(&mut self, words: &[&str]) -> Result<Outcome> {
        self.ask(words)?;
        self.answer(&words.join(" "))
    }

    /// Begins an attempt whose answer may be a while in coming.
    pub(crate) fn ask(&mut self, words: &[&str]) -> Result<()> {
        let line = serde_json::to_string(words)? + "\n";
        let stdin = self.stdin.as_mut().context("its input is closed")?;
        // A broken pipe shows as silence.
        let _ = stdin.write_all(line.as_bytes());
        Ok(())
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self, limit: Duration) -> Result<Option<String>> {
        if self.stdout.buffer().is_empty() {
            let timeout = PollTimeout::from(u16::try_from(limit.as_millis()).unwrap_or(u16::MAX));
            let ready = poll(&mut [PollFd::new(self.stdout.get_ref().as_fd(), PollFlags::POLLIN)], timeout)?;
            if ready == 0 {
                bail!("nothing came in {} s", limit.as_secs());
            }
        }
        let mut line = String::new();
        Ok((self.stdout.read_line(&mut line)? > 0).then_some(line))
    }

    /// The answer to what was asked.
    pub(crate) fn answer(&mut self, what: &str) -> Result<Outcome> {
        match self.line(LIMIT).with_context(|| format!("no answer to {what:?}"))? {
            Some(line) => {
                let (outcome, detail) =
                    attempt::parse_answer(&line).with_context(|| format!("{line:?} is no answer"))?;
                Ok(Outcome { outcome, detail })
            }
            None => Ok(Outcome { outcome: "silence".into(), detail: self.said() }),
        }
    }

    /// What it said on standard error, once it has ended.
    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text.trim().to_owned()
    }

    /// Its process: itself outside, agentctl for an agent.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Lets it end, and gives its exit code.
    pub(crate) fn finish(&mut self) -> Result<i32> {
        self.stdin = None;
        let status = crate::clock::wait_for("the end of the one who tries", LIMIT, || Ok(self.child.try_wait()?))?;
        Ok(status.code().unwrap_or(-1))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where this program is.
pub(crate) fn own_program() -> Result<String> {
    Ok(std::env::current_exe().context("this program does not know where it is")?.display().to_string())
}
