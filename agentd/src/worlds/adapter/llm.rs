//! `sys/llm@1`: one question to a language model, one answer.
//!
//! A world names a provider; where that is and with which key it is asked is the host's configuration, which no world sees.
//! So a key is read from its file for each question and goes into one header, and whatever a provider says is searched for
//! it before it is told: an outcome is recorded and stays for ever.
//!
//! Two dialects, `openai` (which most local servers speak) and `anthropic`. The question is put without streaming, and of
//! the answer the text and the number of tokens are read. An answer that does not say what it cost is none.
//!
//! Not here: retries, conversations, tools. A conversation is state, which a world has.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentd_air::{Llm, Scope, Type, Value};
use serde::Deserialize;
use serde_json::json;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::http::{self, Answer, IDEMPOTENCY_KEY, Request, SendError, Target};
use super::{Job, Outcome};

/// Longest configuration.
const MAX_CONFIG_BYTES: usize = 64 << 10;
/// How long a provider may take where nothing is said; there is no more than an hour.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest timeout of a provider.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Most bytes of a provider's answer.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Longest error that is read for its message.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Most characters of a provider's message.
const MAX_MESSAGE: usize = 300;
/// Shortest key. A shorter one is no secret, and could not be taken out of texts without spoiling them.
const MIN_KEY_BYTES: usize = 8;
/// Longest key.
const MAX_KEY_BYTES: usize = 4 << 10;
/// What stands where a key stood.
const REDACTED: &str = "[key]";

/// Who answers questions, by the names that worlds use.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    by_name: BTreeMap<String, Provider>,
}

#[derive(Clone, Debug)]
struct Provider {
    dialect: Dialect,
    /// Without a slash at the end.
    url: String,
    key_file: Option<PathBuf>,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dialect {
    OpenAi,
    Anthropic,
}

/// Why a text does not say who the providers are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvidersError {
    /// It is too long.
    #[error("there are more than {} bytes", MAX_CONFIG_BYTES)]
    TooLong,
    /// It is not of the form.
    #[error("line {line}: {message}")]
    Form {
        /// Counted from 1.
        line: usize,
        /// What is wrong there; never the line itself, which may hold what was meant to be secret.
        message: String,
    },
    /// A provider has a value that cannot be.
    #[error("providers.{provider}.{key}: {message}")]
    Value {
        /// Name of the provider.
        provider: String,
        /// Key in its table.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    providers: BTreeMap<String, WrittenProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProvider {
    kind: Dialect,
    url: String,
    key_file: Option<PathBuf>,
    timeout: Option<WrittenTime>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a time like \"120s\", or milliseconds")]
enum WrittenTime {
    Millis(u64),
    Text(String),
}

impl Providers {
    /// Reads `[providers.NAME]` tables: `kind`, `url`, and optionally `key_file`, `timeout`.
    pub fn parse(text: &str) -> Result<Providers, ProvidersError> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(ProvidersError::TooLong);
        }
        let written: Written = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let message = http::one_line(error.message(), MAX_MESSAGE);
            ProvidersError::Form { line: before.matches('\n').count() + 1, message }
        })?;
        let provider = |(name, written): (String, WrittenProvider)| match Provider::of(written) {
            Ok(provider) => Ok((name, provider)),
            Err((key, message)) => Err(ProvidersError::Value { provider: name, key, message }),
        };
        Ok(Providers { by_name: written.providers.into_iter().map(provider).collect::<Result<_, _>>()? })
    }
}

impl Provider {
    fn of(written: WrittenProvider) -> Result<Provider, (&'static str, String)> {
        let url = written.url.trim_end_matches('/').to_owned();
        if url.contains(['?', '#']) {
            return Err(("url", "a base URL has neither query nor fragment".to_owned()));
        }
        Target::parse(&url).map_err(|message| ("url", message))?;
        if written.key_file.as_deref().is_some_and(Path::is_relative) {
            return Err(("key_file", "the path is not absolute".to_owned()));
        }
        let timeout = written.timeout.map_or(Some(DEFAULT_TIMEOUT), |time| time.read());
        let timeout = timeout.filter(|time| !time.is_zero() && *time <= MAX_TIMEOUT);
        let timeout = timeout.ok_or_else(|| ("timeout", "it is not a time like \"120s\", up to an hour".to_owned()))?;
        Ok(Provider { dialect: written.kind, url, key_file: written.key_file, timeout })
    }

    /// The key, if there is one.
    fn key(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.key_file else { return Ok(None) };
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_KEY_BYTES as u64 + 1).read_to_string(&mut text));
        // Not where it is: the path is the host's, and the reason is for the world.
        read.map_err(|error| format!("the provider's key cannot be read: {error}"))?;
        let key = text.trim();
        // Nothing that JSON would escape, so that it is found wherever it is quoted.
        let is_plain = key.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if is_plain && (MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&key.len()) {
            Ok(Some(key.to_owned()))
        } else {
            Err("the provider's key file does not hold a key".to_owned())
        }
    }
}

impl WrittenTime {
    fn read(self) -> Option<Duration> {
        match self {
            WrittenTime::Millis(ms) => Some(Duration::from_millis(ms)),
            WrittenTime::Text(text) => {
                match agentd_air::from_json(agentd_air::schemas(), &Type::Duration, &json!(text)) {
                    Ok(Value::Duration(ns)) => Some(Duration::from_nanos(ns)),
                    _ => None,
                }
            }
        }
    }
}

/// Puts one question to a language model; blocks until it is answered.
pub fn perform(job: &Job, providers: &Providers) -> Outcome {
    let (question, provider, key) = match admitted(job, providers) {
        Ok(admitted) => admitted,
        Err(why) => return SendError::Refused(why).into(),
    };
    let redact = |text: &str| key.as_ref().map_or(text.to_owned(), |key| text.replace(key, REDACTED));
    let answer = request(job, &question, provider, key.as_deref()).and_then(|(target, headers, body)| {
        http::send(&Request { method: Method::POST, target, headers, body: &body }, MAX_ANSWER_BYTES, provider.timeout)
    });
    match answer.and_then(|answer| read(provider.dialect, &answer, redact)) {
        Ok(Reply { text, input, output }) => http::done(
            &job.kind,
            Value::Record(vec![Value::Text(redact(&text)), Value::Nat(input), Value::Nat(output)]),
        ),
        Err(error) => match error.into() {
            Outcome::Failed(why) => Outcome::Failed(redact(&why)),
            outcome => outcome,
        },
    }
}

/// The parameters, as they came.
struct Question<'a> {
    model: &'a str,
    system: Option<&'a str>,
    prompt: &'a str,
    max_tokens: u64,
}

/// The question, whom to ask and the key, if the scope covers it.
fn admitted<'a>(
    job: &'a Job,
    providers: &'a Providers,
) -> Result<(Question<'a>, &'a Provider, Option<String>), String> {
    let Scope::Llm(Llm { providers: named, models, max_tokens: most }) = &job.scope else {
        return Err("the capability's scope is not one for language models".to_owned());
    };
    let wrong = || "the parameters are not a question".to_owned();
    let Value::Record(fields) = &job.params else { return Err(wrong()) };
    let [Value::Text(provider), Value::Text(model), system, Value::Text(prompt), Value::Nat(max_tokens)] = &fields[..]
    else {
        return Err(wrong());
    };
    let system = match system {
        Value::None => None,
        Value::Some(text) => match &**text {
            Value::Text(text) => Some(text.as_str()),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    if !named.contains(provider) {
        return Err(format!("the capability does not cover the provider {provider}"));
    }
    if !agentd_air::any(models, model) {
        return Err(format!("the capability does not cover the model {model}"));
    }
    if max_tokens > most {
        return Err(format!("the capability covers {most} tokens, not {max_tokens}"));
    }
    let found = providers.by_name.get(provider).ok_or_else(|| format!("this host has no provider {provider}"))?;
    let question = Question { model, system, prompt, max_tokens: *max_tokens };
    Ok((question, found, found.key()?))
}

/// Whom to ask, the headers and the body.
fn request(
    job: &Job,
    question: &Question<'_>,
    provider: &Provider,
    key: Option<&str>,
) -> Result<(Target, HeaderMap, Vec<u8>), SendError> {
    let Question { model, system, prompt, max_tokens } = question;
    let user = json!({ "role": "user", "content": prompt });
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(IDEMPOTENCY_KEY, http::intent_value(job.intent));
    let (path, body, key_header) = match provider.dialect {
        Dialect::OpenAi => {
            let system = system.map(|text| json!({ "role": "system", "content": text }));
            let messages: Vec<_> = system.into_iter().chain([user]).collect();
            let body = json!({ "model": model, "messages": messages, "max_tokens": max_tokens, "stream": false });
            ("/v1/chat/completions", body, key.map(|key| (AUTHORIZATION, format!("Bearer {key}"))))
        }
        Dialect::Anthropic => {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
            let mut body = json!({ "model": model, "messages": [user], "max_tokens": max_tokens, "stream": false });
            if let Some(text) = system {
                body["system"] = json!(text);
            }
            ("/v1/messages", body, key.map(|key| (HeaderName::from_static("x-api-key"), key.to_owned())))
        }
    };
    if let Some((name, value)) = key_header {
        let value = HeaderValue::try_from(value).map_err(|error| SendError::Refused(format!("the key: {error}")))?;
        headers.insert(name, value);
    }
    let target = Target::parse(&format!("{}{path}", provider.url)).map_err(SendError::Refused)?;
    Ok((target, headers, body.to_string().into_bytes()))
}

/// What a model said and what that was in tokens.
struct Reply {
    text: String,
    input: u64,
    output: u64,
}

#[derive(Deserialize)]
struct OpenAiReply {
    choices: Vec<OpenAiChoice>,
    usage: OpenAiUsage,
}

#[derive(Deserialize)]
struct OpenAiChoice {
    message: OpenAiMessage,
}

#[derive(Deserialize)]
struct OpenAiMessage {
    content: Option<String>,
}

#[derive(Deserialize)]
struct OpenAiUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct AnthropicReply {
    content: Vec<AnthropicPart>,
    usage: AnthropicUsage,
}

/// A part of an answer; parts of other kinds than text have none.
#[derive(Deserialize)]
struct AnthropicPart {
    text: Option<String>,
}

#[derive(Deserialize)]
struct AnthropicUsage {
    input_tokens: u64,
    output_tokens: u64,
}

fn read(dialect: Dialect, answer: &Answer, redact: impl Fn(&str) -> String) -> Result<Reply, SendError> {
    if !(200..300).contains(&answer.status) {
        // Redacted before it is cut: half a key is also one.
        let message = http::one_line(&redact(&message_of(&answer.body)), MAX_MESSAGE);
        return Err(SendError::Declined { status: answer.status, message });
    }
    let wrong = |error: serde_json::Error| SendError::Unusable(redact(&error.to_string()));
    match dialect {
        Dialect::OpenAi => {
            let reply: OpenAiReply = serde_json::from_slice(&answer.body).map_err(wrong)?;
            let text = reply.choices.into_iter().next().and_then(|choice| choice.message.content);
            let text = text.ok_or_else(|| SendError::Unusable("it has no text".to_owned()))?;
            Ok(Reply { text, input: reply.usage.prompt_tokens, output: reply.usage.completion_tokens })
        }
        Dialect::Anthropic => {
            let reply: AnthropicReply = serde_json::from_slice(&answer.body).map_err(wrong)?;
            let text = reply.content.into_iter().filter_map(|part| part.text).collect();
            Ok(Reply { text, input: reply.usage.input_tokens, output: reply.usage.output_tokens })
        }
    }
}

/// What an error's body says: the message in it where it has one in the usual place, or all of it.
fn message_of(body: &[u8]) -> String {
    let body = &body[..body.len().min(MAX_ERROR_BYTES)];
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::from_utf8_lossy(body).into_owned();
    };
    let places = [json.pointer("/error/message"), json.pointer("/error"), json.pointer("/message")];
    let message = places.into_iter().flatten().find_map(serde_json::Value::as_str);
    message.map_or_else(|| json.to_string(), str::to_owned)
}
