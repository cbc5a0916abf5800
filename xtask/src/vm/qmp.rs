//! QEMU's control socket: one JSON object a line, a reply for each request, events in between.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::clock::Deadline;

/// An open control socket.
pub(super) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes the connected socket through its greeting.
    pub(super) fn start(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(30))).context("cannot set a timeout")?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        qmp.receive()?;
        qmp.ask("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Sends a request and waits for its reply.
    pub(super) fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.reader.get_mut(), "{request}").context("QEMU does not listen")?;
        loop {
            let reply = self.receive()?;
            if let Some(error) = reply.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or("no reason"));
            }
            if let Some(value) = reply.get("return") {
                return Ok(value.clone());
            }
        }
    }

    /// Writes everything but the memory, which the memory file already holds, to a file.
    pub(super) fn save(&mut self, to: &Path) -> Result<()> {
        self.ask("stop", json!({}))?;
        self.ignore_shared_memory()?;
        self.ask("migrate", json!({ "uri": format!("file:{}", to.display()) }))?;
        self.wait_migrated()
    }

    /// Reads it back and lets the machine go on.
    pub(super) fn load(&mut self, from: &Path) -> Result<()> {
        self.ignore_shared_memory()?;
        self.ask("migrate-incoming", json!({ "uri": format!("file:{}", from.display()) }))?;
        self.wait_migrated()
    }

    fn ignore_shared_memory(&mut self) -> Result<()> {
        let capability = json!({ "capability": "x-ignore-shared", "state": true });
        self.ask("migrate-set-capabilities", json!({ "capabilities": [capability] })).map(|_| ())
    }

    fn wait_migrated(&mut self) -> Result<()> {
        let deadline = Deadline::after(Duration::from_secs(60));
        while !deadline.passed() {
            let state = self.ask("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed") => bail!("QEMU could not move the machine: {}", state["error-desc"]),
                _ => std::thread::sleep(Duration::from_millis(3)),
            }
        }
        bail!("QEMU did not move the machine within 60 s")
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("QEMU does not answer")? == 0 {
            bail!("QEMU has ended");
        }
        serde_json::from_str(&line).context("QEMU's answer is not JSON")
    }
}
