//! A daemon that says what a test tells it to, and agentctl run against it in an environment of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test file is its own program and uses a part of this")]

use std::io::{BufRead, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

/// What the daemon does with a request.
pub(crate) enum Answer {
    /// Gives a result.
    Result(Value),
    /// Gives a result and a file beside it.
    File(Value, OwnedFd),
    /// Gives an error.
    Error(Value),
    /// Gives a result, and then notifications.
    Series(Value, Vec<Value>),
    /// Says something that is not an answer.
    Raw(String),
    /// Hangs up.
    HangUp,
}

/// A daemon in a directory of its own; both are gone when this is dropped.
pub(crate) struct Fake {
    pub(crate) dir: PathBuf,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Fake {
    /// A daemon that answers every request, on any connection, with what the function gives for its method and parameters.
    pub(crate) fn new(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> Fake {
        let fake = Fake::silent();
        let listener = UnixListener::bind(fake.socket()).unwrap();
        let (answer, requests) = (Arc::new(answer), fake.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, requests) = (answer.clone(), requests.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &*answer, &requests));
            }
        });
        fake
    }

    /// A directory in which nobody listens.
    pub(crate) fn silent() -> Fake {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("agentctl-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().canonicalize().unwrap().join(name);
        std::fs::create_dir(&dir).unwrap();
        Fake { dir, requests: Default::default() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("agentd.sock")
    }

    /// The parameters of every request of a method so far.
    pub(crate) fn asked(&self, method: &str) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|r| r["method"] == method).map(|r| r["params"].clone()).collect()
    }

    /// agentctl with these arguments, nothing on its input, and nothing of the environment of whoever tests.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentctl"));
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("TZ", "UTC");
        command.env("AGENTD_SOCKET", self.socket()).env("XDG_CACHE_HOME", &self.dir).current_dir(&self.dir);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it and gives what it printed, and its exit status, as one text.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.show(&self.command(arguments).output().unwrap())
    }

    /// What a program printed and how it ended, with names of this run replaced.
    pub(crate) fn show(&self, output: &Output) -> String {
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        let text = format!("{out}── stderr\n{err}── exit {}", output.status.code().unwrap_or(-1));
        text.replace(&self.dir.display().to_string(), "DIR")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn serve(stream: &UnixStream, answer: &(dyn Fn(&str, &Value) -> Answer + Send + Sync), requests: &Mutex<Vec<Value>>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).unwrap();
        requests.lock().unwrap().push(request.clone());
        let id = request["id"].clone();
        let result = |value: Value| json!({"jsonrpc": "2.0", "id": id, "result": value}).to_string() + "\n";
        let sent = match answer(request["method"].as_str().unwrap(), &request["params"]) {
            Answer::Result(value) => send(stream, &result(value), None),
            Answer::File(value, file) => send(stream, &result(value), Some(&file)),
            Answer::Error(error) => {
                send(stream, &(json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string() + "\n"), None)
            }
            Answer::Series(value, notifications) => send(stream, &result(value), None).and_then(|()| {
                notifications.into_iter().try_for_each(|params| {
                    let line = json!({"jsonrpc": "2.0", "method": "audit.record", "params": params}).to_string() + "\n";
                    send(stream, &line, None)
                })
            }),
            Answer::Raw(text) => send(stream, &text, None),
            Answer::HangUp => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn send(stream: &UnixStream, line: &str, file: Option<&OwnedFd>) -> rustix::io::Result<()> {
    let files: Vec<_> = file.into_iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    }
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        let sent = sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)?;
        rest = &rest[sent..];
        control.clear();
    }
    Ok(())
}

/// An agent as `agent.list` shows it, with some fields changed.
pub(crate) fn agent(changes: Value) -> Value {
    let mut agent = json!({
        "agent": 7, "name": "optimizer", "phase": "running", "argv": ["make", "test"], "cwd": "/home/zoe/parser",
        "uid": 1000, "profile": "coding", "by": {"user": {"uid": 1000}},
        "requested": {"wall_ns": 1_700_000_000_000_000_000u64, "mono_ns": 5}, "init_pid": 4242, "cgroup_id": 99,
        "cpu_spent_ns": 3_200_000_000u64, "cpu_limit_ns": 3_600_000_000_000u64, "denials": 0, "last_denial": null,
        "tiers": [
            {"domain": "files", "tier": "lsm", "reason": null}, {"domain": "guard", "tier": "lsm", "reason": null},
            {"domain": "network", "tier": "cgroup-bpf", "reason": null}, {"domain": "cpu", "tier": "tracepoint", "reason": null}
        ],
        "gaps": [], "status": null, "reason": null
    });
    merge(&mut agent, changes);
    agent
}

/// A record as `audit.read` shows it.
pub(crate) fn record(seq: u64, name: Option<&str>, event: Value) -> Value {
    let mut record = json!({
        "seq": seq, "hash": format!("{seq:064x}"), "cause": null, "agent_name": name,
        "stamp": {"wall_ns": 1_700_000_000_000_000_000u64 + seq * 1_000_000_000, "mono_ns": seq},
    });
    merge(&mut record, event);
    record
}

fn merge(into: &mut Value, changes: Value) {
    if let (Value::Object(into), Value::Object(changes)) = (into, changes) {
        into.extend(changes);
    }
}

/// A refusal as an event.
pub(crate) fn denial(path: &str) -> Value {
    json!({"event": "access_denied", "agent": 7, "denial": {
        "hook": "open", "reason": {"rule": {"rule": 12}}, "right": "read",
        "object": {"file": {"path": path, "dev": 1, "ino": 2}}, "pid": 4300, "comm": "cat", "mono_ns": 9
    }})
}

/// Waits until a condition holds; a test that would wait for ever fails instead.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what} did not come about in ten seconds");
}
