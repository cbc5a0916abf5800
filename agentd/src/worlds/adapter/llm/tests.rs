//! Questions to a model server of the test's own, in both dialects, and what it may get wrong.

use std::fs;

use super::super::http::tests::{Server, failed, hold, wanted};
use super::*;

const KEY: &str = "sk-0123456789abcdef";

/// A file with the key, gone at the end of the test.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str, text: &str) -> KeyFile {
        let path = std::env::temp_dir().join(format!("agentd-llm-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        KeyFile(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn providers(kind: &str, server: &Server, more: &str) -> Providers {
    let address = server.address;
    Providers::parse(&format!("[providers.local]\nkind = \"{kind}\"\nurl = \"http://{address}/\"\n{more}")).unwrap()
}

fn job(provider: &str, model: &str, system: Option<&str>, max_tokens: u64) -> Job {
    let text = |text: &str| Value::Text(text.to_owned());
    let system = system.map_or(Value::None, |system| Value::Some(Box::new(text(system))));
    let params = vec![text(provider), text(model), system, text("2+2?"), Value::Nat(max_tokens)];
    let list = |name: &str| vec![name.to_owned()];
    let scope = Llm { providers: list("local"), models: list("small-*"), max_tokens: 100 };
    wanted("sys/llm@1", params, Scope::Llm(scope))
}

fn saying(status: u16, body: &str) -> Server {
    Server::saying(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn sent(server: &Server) -> (String, serde_json::Value) {
    let seen = server.seen();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), serde_json::from_str(body).unwrap())
}

fn reply(text: &str, input: u64, output: u64) -> Outcome {
    Outcome::Done(Value::Record(vec![Value::Text(text.to_owned()), Value::Nat(input), Value::Nat(output)]))
}

#[test]
fn a_question_in_the_dialect_of_openai() {
    let body = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"4"}}],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}"#;
    let server = saying(200, body);
    let key = KeyFile::new("openai", &format!("{KEY}\n"));
    let providers = providers("openai", &server, &format!("key_file = {:?}", key.0));
    assert_eq!(perform(&job("local", "small-1", Some("be brief"), 100), &providers), reply("4", 7, 1));
    let (head, body) = sent(&server);
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    let id = format!("idempotency-key: {}", "ab".repeat(32));
    for header in [&format!("authorization: Bearer {KEY}"), "content-type: application/json", &id] {
        assert!(head.lines().any(|line| line == header), "{header} in {head}");
    }
    let messages = json!([{ "role": "system", "content": "be brief" }, { "role": "user", "content": "2+2?" }]);
    assert_eq!(body, json!({ "model": "small-1", "messages": messages, "max_tokens": 100, "stream": false }));
}

#[test]
fn a_question_in_the_dialect_of_anthropic() {
    let body = r#"{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"4"},{"type":"text","text":"."}],"usage":{"input_tokens":7,"output_tokens":2}}"#;
    for system in [None, Some("be brief")] {
        let server = saying(200, body);
        let key = KeyFile::new(&format!("anthropic-{}", system.is_some()), KEY);
        let providers = providers("anthropic", &server, &format!("key_file = {:?}", key.0));
        assert_eq!(perform(&job("local", "small-1", system, 10), &providers), reply("4.", 7, 2));
        let (head, body) = sent(&server);
        assert!(head.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{head}");
        for header in [&format!("x-api-key: {KEY}"), "anthropic-version: 2023-06-01"] {
            assert!(head.lines().any(|line| line == header), "{header} in {head}");
        }
        assert_eq!(body.get("system"), system.map(|text| json!(text)).as_ref());
        assert_eq!(body["messages"], json!([{ "role": "user", "content": "2+2?" }]));
    }
}

#[test]
fn what_the_scope_does_not_cover_is_not_asked() {
    let providers = Providers::parse("[providers.local]\nkind = \"openai\"\nurl = \"http://127.0.0.1:1\"").unwrap();
    let mut other = job("local", "small-1", None, 1);
    other.scope = Scope::Any;
    for (job, why) in [
        (other, "the capability's scope is not one for language models"),
        (job("remote", "small-1", None, 1), "the capability does not cover the provider remote"),
        (job("local", "large-1", None, 1), "the capability does not cover the model large-1"),
        (job("local", "small-1", None, 101), "the capability covers 100 tokens, not 101"),
    ] {
        assert_eq!(failed(perform(&job, &providers)), format!("not sent: {why}"));
    }
    let reason = failed(perform(&job("local", "small-1", None, 1), &Providers::default()));
    assert_eq!(reason, "not sent: this host has no provider local");
}

#[test]
fn a_key_is_never_in_what_is_told() {
    let key = KeyFile::new("told", KEY);
    let key_file = format!("key_file = {:?}", key.0);
    let told = |status: u16, body: &str| {
        perform(&job("local", "small-1", None, 1), &providers("openai", &saying(status, body), &key_file))
    };
    let reason = failed(told(401, &format!(r#"{{"error":{{"message":"no such key:\n{KEY}, sorry"}}}}"#)));
    assert_eq!(reason, "the answer is 401: no such key: [key], sorry");
    // On the edge of what is kept, and in forms without a message.
    let edge = format!("{}{KEY}", "x".repeat(MAX_MESSAGE - 5));
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":1}"#;
    for (status, body) in [
        (500, edge.clone()),
        (500, format!(r#"{{"error":"{edge}"}}"#)),
        (302, format!(r#"{{"detail":"{}"}}"#, KEY.replace('-', "\\u002d"))),
        (200, format!(r#"{{"choices":"{KEY}"}}"#)),
        (200, format!(r#"{{"choices":"{}{KEY}"}}"#, "x".repeat(420))),
        (200, format!(r#"{{"choices":[{{"message":{{"content":"it is {KEY}"}}}}],{usage}}}"#)),
    ] {
        let outcome = format!("{:?}", told(status, &body));
        assert!(!outcome.contains("0123") && !outcome.contains(&KEY[..5]), "{outcome}");
    }
    let reason = failed(told(500, &"y".repeat(1000)));
    assert_eq!(reason, format!("the answer is 500: {}", "y".repeat(MAX_MESSAGE)));
}

#[test]
fn an_answer_that_is_none_is_told() {
    for (kind, body) in [
        ("openai", "{}"),
        ("openai", "no json"),
        ("openai", r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#),
        ("openai", r#"{"choices":[{"message":{"content":null}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#),
        ("openai", r#"{"choices":[{"message":{"content":"4"}}]}"#),
        ("anthropic", r#"{"content":[{"type":"text","text":"4"}],"usage":{"input_tokens":-1,"output_tokens":1}}"#),
    ] {
        let server = saying(200, body);
        let reason = failed(perform(&job("local", "small-1", None, 1), &providers(kind, &server, "")));
        assert!(reason.starts_with("the answer cannot be taken: "), "{body}: {reason}");
    }
}

#[test]
fn a_provider_may_take_its_time_but_no_more() {
    for timeout in ["\"300ms\"", "300"] {
        let server = Server::doing(hold);
        let outcome =
            perform(&job("local", "small-1", None, 1), &providers("openai", &server, &format!("timeout = {timeout}")));
        assert_eq!(outcome, Outcome::TimedOut(Duration::from_millis(300)));
    }
}

#[test]
fn a_key_that_is_none_is_not_sent() {
    let server = Server::doing(hold);
    for (name, text) in
        [("empty", "\n"), ("short", "abc"), ("two", "sk-01234567\nsk-01234567"), ("quoted", "\"01234567\"")]
    {
        let key = KeyFile::new(name, text);
        let providers = providers("openai", &server, &format!("key_file = {:?}", key.0));
        let reason = failed(perform(&job("local", "small-1", None, 1), &providers));
        assert_eq!(reason, "not sent: the provider's key file does not hold a key");
    }
    let reason =
        failed(perform(&job("local", "small-1", None, 1), &providers("openai", &server, "key_file = \"/none\"")));
    assert!(reason.starts_with("not sent: the provider's key cannot be read: No such file"), "{reason}");
}

#[test]
fn providers_are_read_and_what_is_wrong_is_named() {
    let text = "[providers.a]\nkind = \"openai\"\nurl = \"https://a.example/api/\"\n";
    let read = Providers::parse(text).unwrap();
    let provider = &read.by_name["a"];
    assert_eq!((provider.url.as_str(), provider.timeout), ("https://a.example/api", DEFAULT_TIMEOUT));
    assert!(Providers::parse("").unwrap().by_name.is_empty());
    let with = |more: &str| format!("{text}{more}\n");
    let of = |url: &str| format!("[providers.a]\nkind = \"openai\"\nurl = \"{url}\"\n");
    for (text, place) in [
        (with("key = \"sk-secret\""), "line 4: unknown field `key`"),
        (with("timeout = true"), "line 4: a time like"),
        (with("timeout = \"1 hour\""), "providers.a.timeout: "),
        (with("timeout = 0"), "providers.a.timeout: "),
        (with("timeout = \"61m\""), "providers.a.timeout: "),
        (with("key_file = \"keys/a\""), "providers.a.key_file: "),
        (of("ftp://a.example"), "providers.a.url: "),
        (of("https://sk-secret@a.example"), "providers.a.url: the URL holds a user"),
        (of("https://a.example?key=sk-secret"), "providers.a.url: "),
        ("[providers.a]\nkind = \"other\"\nurl = \"http://a\"".to_owned(), "line 2: unknown variant"),
        ("[providers.a]\nkind = \"openai\"".to_owned(), "line 1: missing field `url`"),
        ("[provider.a]".to_owned(), "line 1: unknown field `provider`"),
        ("x = \"sk-secret".to_owned(), "line 1: "),
        ("#".repeat(MAX_CONFIG_BYTES + 1), "there are more than 65536 bytes"),
    ] {
        let error = Providers::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(place) && !error.contains("sk-secret"), "{error}, not {place}");
    }
}
