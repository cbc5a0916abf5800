//! A connection to the daemon without agentctl between: JSON-RPC, a line each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const SOCKET: &str = "/run/agentd/agentd.sock";
const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: BufReader<UnixStream>,
}

impl Wire {
    /// Connects to the daemon.
    pub(crate) fn connect() -> Result<Wire> {
        let stream = UnixStream::connect(SOCKET).context("cannot reach the daemon")?;
        stream.set_read_timeout(Some(LIMIT)).context("cannot set a limit")?;
        Ok(Wire { stream: BufReader::new(stream) })
    }

    /// Asks for one thing. What the daemon refuses is an error with its words.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        writeln!(self.stream.get_mut(), "{request}").with_context(|| format!("cannot send {method}"))?;
        let mut line = String::new();
        if self.stream.read_line(&mut line).with_context(|| format!("no answer to {method}"))? == 0 {
            bail!("the daemon hung up before it answered {method}");
        }
        // A line that was cut off is no answer.
        let mut reply: Value = serde_json::from_str(&line).with_context(|| format!("{line:?} is no answer"))?;
        match reply.get("error") {
            Some(error) => bail!("{method} is refused: {error}"),
            None => Ok(reply["result"].take()),
        }
    }
}
