//! A model server on loopback that follows a plan, and remembers what it was told.
//!
//! It is no model: it has a list of acts, and asks the client for the next one each time it is called. Which one is next
//! it reads from the request: as many as the conversation already holds results of. So a repeated request gets the same
//! answer, and a question beside the conversation (a title, a summary) gets a few words and disturbs nothing.
//!
//! What a client says of itself proves nothing; the results that it sent here are what its tools really answered.
//!
//! Not here: usage, prices, keys, errors to practise on. One request a connection, one thread a request.

mod anthropic;
mod openai;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The longest request that is read; a client's first one has 100–200 KB.
const LONGEST: usize = 32 << 20;

/// One thing that the model asks its client to do.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Look at a file with the client's own tool.
    Read(String),
    /// Replace a line of a file with the client's own tool.
    Edit { file: String, old: String, new: String },
    /// Run a command with the client's shell tool.
    Shell(String),
}

/// Which language a client speaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    /// `POST /v1/messages`.
    Anthropic,
    /// `POST /v1/responses`.
    OpenAi,
}

/// What a reply holds, before it is put into a dialect.
enum Reply {
    /// The plan goes on.
    Act(Act),
    /// The plan is done, or the question was not part of it.
    Words(&'static str),
}

/// What the server saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// What came of each act, in the order of the plan, as the client's tools told it.
    pub(super) results: Vec<String>,
    /// Method and path of everything that was asked.
    pub(super) requests: Vec<String>,
    /// Whether the client was told that the plan is done.
    pub(super) ended: bool,
    /// Everything that was sent, to look for what should not be in it.
    pub(super) sent: String,
    /// Why a request could not be answered.
    pub(super) problems: Vec<String>,
}

/// A running server; it ends with this process.
pub(super) struct Model {
    port: u16,
    record: Arc<Mutex<Record>>,
}

impl Model {
    /// Listens on a port of its own.
    pub(super) fn start(dialect: Dialect, plan: Vec<Act>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on loopback")?;
        let port = listener.local_addr().context("cannot see the port")?.port();
        let record = Arc::new(Mutex::new(Record::default()));
        let shared = Arc::clone(&record);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, plan) = (Arc::clone(&shared), plan.clone());
                thread::spawn(move || {
                    if let Err(error) = serve(stream, dialect, &plan, &shared) {
                        held(&shared).problems.push(format!("{error:#}"));
                    }
                });
            }
        });
        Ok(Self { port, record })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it has seen so far.
    pub(super) fn record(&self) -> Record {
        held(&self.record).clone()
    }
}

fn held(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, dialect: Dialect, plan: &[Act], record: &Mutex<Record>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).context("cannot set a timeout")?;
    let mut reader = BufReader::new(stream.try_clone().context("cannot share a connection")?);
    let Some((method, path, body)) = request(&mut reader)? else { return Ok(()) };
    held(record).requests.push(format!("{method} {path}"));
    let place = path.split('?').next().unwrap_or_default();
    let (kind, answer) = match (method.as_str(), dialect) {
        ("POST", Dialect::Anthropic) if place.ends_with("/count_tokens") => json_answer(&json!({"input_tokens": 1000})),
        ("POST", Dialect::Anthropic) if place.ends_with("/messages") => {
            let asked: Value = serde_json::from_slice(&body).context("a request is not JSON")?;
            let reply = next(plan, anthropic::results(&asked), anthropic::has_tools(&asked), &body, record);
            ("200 OK\r\ncontent-type: text/event-stream", anthropic::events(&reply))
        }
        ("POST", Dialect::OpenAi) if place.ends_with("/responses") => {
            let asked: Value = serde_json::from_slice(&body).context("a request is not JSON")?;
            let reply = next(plan, openai::results(&asked), openai::has_tools(&asked), &body, record);
            ("200 OK\r\ncontent-type: text/event-stream", openai::events(&reply, &asked)?)
        }
        ("GET", _) if place.ends_with("/models") => json_answer(&json!({"object": "list", "data": [], "models": []})),
        ("HEAD", _) => ("200 OK", String::new()),
        _ => ("404 Not Found\r\ncontent-type: application/json", "{}".into()),
    };
    let head = format!("HTTP/1.1 {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
    let mut stream = stream;
    // Who asks and goes away has no need of an answer.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes()));
    Ok(())
}

fn json_answer(value: &Value) -> (&'static str, String) {
    ("200 OK\r\ncontent-type: application/json", value.to_string())
}

/// Notes what came, and decides how the plan goes on.
fn next(plan: &[Act], results: Vec<String>, has_tools: bool, body: &[u8], record: &Mutex<Record>) -> Reply {
    let mut record = held(record);
    record.sent.push_str(&String::from_utf8_lossy(body));
    if !has_tools {
        return Reply::Words("A small task");
    }
    let done = results.len();
    if done >= record.results.len() {
        record.results = results;
    }
    match plan.get(done) {
        Some(act) => Reply::Act(act.clone()),
        None => {
            record.ended = true;
            Reply::Words("All done.")
        }
    }
}

/// Reads a request; `None` if the client connected and said nothing.
fn request(reader: &mut BufReader<TcpStream>) -> Result<Option<(String, String, Vec<u8>)>> {
    let mut line = String::new();
    reader.read_line(&mut line).context("cannot read a request")?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).context("cannot read a request")?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().context("a length is no number")?,
            "transfer-encoding" | "content-encoding" => bail!("a request comes in {}, which is not read", value.trim()),
            _ => {}
        }
    }
    if length > LONGEST {
        bail!("a request has {length} bytes");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).context("a request ends early")?;
    Ok(Some((method, path, body)))
}

/// Server-sent events, each with its name and data.
fn stream_of(events: &[Value]) -> String {
    let name = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", name(event))).collect()
}

/// The text in a result, however deep it lies: clients send a string, a list of blocks, or an object around one.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        Value::Object(fields) => fields
            .get("text")
            .or_else(|| fields.get("content"))
            .or_else(|| fields.get("output"))
            .map_or_else(String::new, text_of),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Vec<Act> {
        vec![Act::Shell("true".into()), Act::Read("/a".into())]
    }

    fn asked(results: usize) -> Value {
        let block = json!({"type": "tool_result", "content": [{"type": "text", "text": "came"}]});
        let messages: Vec<Value> = (0..results).map(|_| json!({"role": "user", "content": [block]})).collect();
        json!({"tools": [{"name": "Bash"}], "messages": messages})
    }

    #[test]
    fn a_repeated_request_gets_the_same_act() {
        let record = Mutex::default();
        for _ in 0..2 {
            let reply = next(&plan(), anthropic::results(&asked(1)), true, b"", &record);
            assert!(matches!(reply, Reply::Act(Act::Read(_))));
        }
        assert_eq!(held(&record).results, ["came"]);
        assert!(!held(&record).ended);
    }

    #[test]
    fn a_question_beside_the_conversation_changes_nothing() {
        let record = Mutex::default();
        next(&plan(), anthropic::results(&asked(1)), true, b"", &record);
        assert!(matches!(next(&plan(), vec![], false, b"", &record), Reply::Words(_)));
        assert_eq!(held(&record).results.len(), 1);
    }
}
