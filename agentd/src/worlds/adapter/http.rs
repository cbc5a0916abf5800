//! `sys/http@1`: one request over HTTP, one answer.
//!
//! ```text
//! not sent          refused here, by the scope or by HTTP itself; nothing has left this machine
//! could not connect no connection, so no request; nothing was asked of anybody
//! the answer did not come    the connection broke after it stood; nobody knows whether it was done
//! the answer cannot be taken somebody answered, and what came back is too long or not what it should be
//! ```
//!
//! Every reason begins with one of these, because what to do next depends on it. The line between the second and the third
//! is drawn where it is true: a connector at the end of the chain notes that the connection stands (with TLS, that the
//! handshake is over), and the first byte of the request goes out after that.
//!
//! The scope names hosts as they are written. A name covers whatever it resolves to, except addresses at which a cloud
//! hands out credentials of its machines: who controls a name could point it there. The check is on the addresses that are
//! connected to, because the resolver itself leaves the others out. An address is only ever asked for where the scope lists
//! it as it stands; `*` means every name.
//!
//! One connection for one request, no proxy, no cookies, no redirect followed, nothing decompressed: an answer is what the
//! named host said to this one request. Not here: retries, and names that resolve to this host or its network, which are
//! for the scope to list or not.

#[cfg(test)]
pub(super) mod tests;

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use agentd_air::{Hash, MAX_VALUE_BYTES, Name, Scope, Value};
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
};

use super::{Job, Outcome};

/// Most headers of a request or an answer.
const MAX_HEADERS: usize = 64;
/// Most bytes of all headers of a request or an answer.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Longest that any request may take, whatever a scope says.
const MAX_TIME: Duration = Duration::from_secs(3600);
/// Longest reason of an outcome, in characters.
const MAX_REASON: usize = 500;
/// Headers that say how the request is framed or what becomes of the connection.
const FRAMING: [HeaderName; 8] = [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
/// Where clouds hand out credentials over IPv6, beside link-local addresses: Amazon, Google.
const METADATA: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254)];

/// Does one request over HTTP; blocks until it is over.
pub fn perform(job: &Job) -> Outcome {
    match answer(job) {
        Ok(result) => done(&job.kind, result),
        Err(error) => error.into(),
    }
}

fn answer(job: &Job) -> Result<Value, SendError> {
    let Scope::Http(scope) = &job.scope else { return refused("the capability's scope is not one for HTTP") };
    let Value::Record(fields) = &job.params else { return refused("the parameters are not a request") };
    let [Value::Text(method), Value::Text(url), Value::Map(headers), Value::Bytes(body)] = &fields[..] else {
        return refused("the parameters are not a request");
    };
    if !scope.methods.contains(method) {
        return refused(format!("the capability does not cover the method {method}"));
    }
    let target = Target::parse(url).map_err(SendError::Refused)?;
    if !scope.hosts.iter().any(|entry| target.is_covered_by(entry)) {
        return refused(format!("the capability does not cover the host {}", target.place()));
    }
    if body.len() as u64 > scope.max_bytes {
        return refused(format!("the body is longer than {} bytes", scope.max_bytes));
    }
    let request = Request {
        method: method_of(method).map_err(SendError::Refused)?,
        headers: headers_of(headers, job.intent).map_err(SendError::Refused)?,
        target,
        body,
    };
    let most_bytes = usize::try_from(scope.max_bytes).unwrap_or(usize::MAX).min(MAX_VALUE_BYTES);
    let answer = send(&request, most_bytes, Duration::from_millis(scope.max_ms))?;
    let status = Value::Nat(answer.status.into());
    Ok(Value::Record(vec![status, map_of(&answer.headers)?, Value::Bytes(answer.body)]))
}

/// The outcome of what was done: the result, if it is one.
pub(super) fn done(kind: &Name, result: Value) -> Outcome {
    let Some(effect) = agentd_air::effect(kind) else {
        return Outcome::Failed(format!("the answer cannot be taken: {kind} is no kind of effect"));
    };
    match agentd_air::check(agentd_air::schemas(), &effect.result, &result) {
        Ok(()) => Outcome::Done(result),
        Err(wrong) => SendError::Unusable(wrong.to_string()).into(),
    }
}

fn method_of(text: &str) -> Result<Method, String> {
    match Method::from_bytes(text.as_bytes()) {
        // It asks for a connection to somewhere else.
        Ok(Method::CONNECT) | Err(_) => Err(format!("{} is not a method", one_line(text, 20))),
        Ok(method) => Ok(method),
    }
}

fn headers_of(entries: &[(Value, Value)], intent: Hash) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut bytes = 0;
    for entry in entries {
        let (Value::Text(name), Value::Text(value)) = entry else { return Err("a header is not text".to_owned()) };
        bytes += name.len() + value.len();
        if bytes > MAX_HEADER_BYTES || headers.len() == MAX_HEADERS {
            return Err(format!("there are more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them"));
        }
        let shown = one_line(name, 40);
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("{shown:?}: {error}"))?;
        if FRAMING.contains(&name) || name.as_str().starts_with("proxy-") || name == "keep-alive" {
            return Err(format!("the header {name} cannot be set"));
        }
        let value = HeaderValue::from_str(value).map_err(|error| format!("the header {name}: {error}"))?;
        headers.append(name, value);
    }
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        headers.insert(IDEMPOTENCY_KEY, intent_value(intent));
    }
    Ok(headers)
}

/// The header by which a server can know a request that it has seen before.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The value of [`IDEMPOTENCY_KEY`] for an intent.
pub(super) fn intent_value(intent: Hash) -> HeaderValue {
    match HeaderValue::from_str(&intent.to_string()) {
        Ok(value) => value,
        Err(error) => unreachable!("hex digits are a header's value: {error}"),
    }
}

fn map_of(headers: &HeaderMap) -> Result<Value, SendError> {
    let entry = |name: &HeaderName| {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (Value::Text(name.as_str().to_owned()), Value::Text(values.join(", ")))
    };
    Value::map(headers.keys().map(entry).collect()).map_err(|error| SendError::Unusable(error.to_string()))
}

/// Whom a URL asks, and for what.
#[derive(Clone, Debug)]
pub(super) struct Target {
    uri: Uri,
    /// As it is written; an address of version 6 with its brackets.
    host: String,
    port: u16,
    /// Whether the port is the one that the scheme has anyway.
    is_default_port: bool,
    /// Whether the host is an address, not a name.
    is_address: bool,
}

impl Target {
    /// Reads an absolute URL; the error says what is wrong with it, without telling the URL, which may hold a secret.
    pub(super) fn parse(url: &str) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|error| format!("the URL cannot be read: {error}"))?;
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err("the URL begins neither with http:// nor with https://".to_owned()),
        };
        let authority = uri.authority().ok_or("the URL has no host")?;
        if authority.as_str().contains('@') {
            return Err("the URL holds a user".to_owned());
        }
        let host = authority.host();
        let port = authority.port_u16();
        // A port that is empty or too large would be left out silently.
        if authority.as_str() != port.map_or(host.to_owned(), |port| format!("{host}:{port}")) {
            return Err("the URL has a port that is none".to_owned());
        }
        let is_address = is_address(host)?;
        let host = host.to_owned();
        let port = port.unwrap_or(default_port);
        Ok(Target { uri, host, port, is_default_port: port == default_port, is_address })
    }

    /// Host and port.
    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether an entry of a scope names this host and port.
    fn is_covered_by(&self, entry: &str) -> bool {
        match entry {
            "*" => !self.is_address,
            _ if entry.eq_ignore_ascii_case(&self.place()) => true,
            _ => self.is_default_port && entry.eq_ignore_ascii_case(&self.host),
        }
    }
}

/// Whether a host is an address or else a name.
///
/// What the system's resolver would read as an address and this does not, like `0x7f.1` or `2130706433`, is neither. It is
/// known by its last label, as a name's is never a number (RFC 1123, 2.1).
fn is_address(host: &str) -> Result<bool, String> {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_number = match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => last.bytes().all(|b| b.is_ascii_digit()),
    };
    let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) && !host.is_empty();
    match (is_address, is_name && !is_number) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err("the URL's host is neither a name nor an address in its usual form".to_owned()),
    }
}

/// A request that may be sent.
pub(super) struct Request<'a> {
    /// The method.
    pub(super) method: Method,
    /// Whom to ask.
    pub(super) target: Target,
    /// Headers, without those that frame the request.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: &'a [u8],
}

/// What came back.
pub(super) struct Answer {
    /// The status, of whatever kind.
    pub(super) status: u16,
    /// Headers, within the bounds.
    pub(super) headers: HeaderMap,
    /// The body, within the bounds.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// It may not or cannot be sent.
    #[error("not sent: {0}")]
    Refused(String),
    /// The request never went out.
    #[error("could not connect to {place}: {why}")]
    Unreachable {
        /// Host and port.
        place: String,
        /// What the system says.
        why: String,
    },
    /// Some of the request went out, and then the connection was gone.
    #[error("the answer did not come: {0}")]
    Lost(String),
    /// An answer came, and cannot be used.
    #[error("the answer cannot be taken: {0}")]
    Unusable(String),
    /// An answer came, and says no.
    #[error("the answer is {status}: {message}")]
    Declined {
        /// The status.
        status: u16,
        /// What it says, in one line.
        message: String,
    },
    /// Some of the request went out, and then the time was over.
    #[error("the answer did not come within {} ms", .0.as_millis())]
    Late(Duration),
}

impl From<SendError> for Outcome {
    fn from(error: SendError) -> Outcome {
        match error {
            SendError::Late(limit) => Outcome::TimedOut(limit),
            error => Outcome::Failed(one_line(&error.to_string(), MAX_REASON)),
        }
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, SendError> {
    Err(SendError::Refused(why.into()))
}

/// Text from outside, fit for a reason: without control characters, and cut.
pub(super) fn one_line(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

/// Sends one request over a connection of its own and reads the whole answer.
pub(super) fn send(request: &Request<'_>, most_bytes: usize, limit: Duration) -> Result<Answer, SendError> {
    let limit = limit.min(MAX_TIME);
    let (is_connected, is_late) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let agent = agent(&request.target, limit, &is_connected);
    // The library's own limit starts again with every write that gets something through, so that a peer that reads slowly
    // could hold the request several times as long. This one does not.
    let result = thread::scope(|scope| {
        let (over, wait) = mpsc::channel::<()>();
        let (line, is_late) = (agent.clone(), &is_late);
        let watch = move || {
            if wait.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                is_late.store(true, Ordering::SeqCst);
                line.shutdown();
            }
        };
        let started = thread::Builder::new().name("http-limit".to_owned()).spawn_scoped(scope, watch);
        started.map_err(|error| SendError::Refused(format!("there is no thread for it: {error}")))?;
        let result = exchange(&agent, request, most_bytes);
        drop(over);
        Ok(result)
    })?;
    let is_late = is_late.load(Ordering::SeqCst) || matches!(result, Err(Fault::Http(ureq::Error::Timeout(_))));
    match (is_connected.load(Ordering::SeqCst), is_late, result) {
        (false, late, Err(Fault::Http(error))) => {
            let why = if late { format!("not within {} ms", limit.as_millis()) } else { cause(&error) };
            Err(SendError::Unreachable { place: request.target.place(), why })
        }
        (_, true, _) => Err(SendError::Late(limit)),
        (_, _, Err(Fault::Http(error @ (ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..))))) => {
            Err(SendError::Unusable(cause(&error)))
        }
        (_, _, Err(Fault::Http(error))) => Err(SendError::Lost(cause(&error))),
        (_, _, Err(Fault::TooLong(what))) => Err(SendError::Unusable(what)),
        (_, _, Ok(answer)) => Ok(answer),
    }
}

/// What goes wrong during an exchange.
enum Fault {
    Http(ureq::Error),
    TooLong(String),
}

impl From<ureq::Error> for Fault {
    fn from(error: ureq::Error) -> Fault {
        Fault::Http(error)
    }
}

fn exchange(agent: &ureq::Agent, request: &Request<'_>, most_bytes: usize) -> Result<Answer, Fault> {
    let mut head = ureq::http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = request.target.uri.clone();
    *head.headers_mut() = request.headers.clone();
    // An empty body is said to be empty only where a server expects one.
    let has_body = !request.body.is_empty() || [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
    let response = if has_body { agent.run(head.map(|()| request.body))? } else { agent.run(head)? };
    let (parts, body) = response.into_parts();
    if parts.headers.len() > MAX_HEADERS {
        return Err(Fault::TooLong(format!("it has more than {MAX_HEADERS} headers")));
    }
    let mut bytes = Vec::new();
    let mut reader = body.into_reader().take(most_bytes as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(ureq::Error::from)?;
    if bytes.len() > most_bytes {
        return Err(Fault::TooLong(format!("its body is longer than {most_bytes} bytes")));
    }
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes })
}

/// What a reason says of a failure.
fn cause(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Other(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn agent(target: &Target, limit: Duration, is_connected: &Arc<AtomicBool>) -> ureq::Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Config::builder()
        .tls_config(tls)
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .user_agent("agentd")
        .accept_encoding(AutoHeaderValue::None)
        .max_response_header_size(MAX_HEADER_BYTES)
        .max_idle_connections(0)
        .timeout_global(Some(limit))
        .build();
    let connector =
        ().chain(TcpConnector::default())
            .chain(RustlsConnector::default())
            .chain(Connected { noted: Arc::clone(is_connected) });
    ureq::Agent::with_parts(config, connector, Addresses { any: target.is_address, system: DefaultResolver::default() })
}

/// The end of the chain: notes that the connection stands.
#[derive(Debug)]
struct Connected {
    noted: Arc<AtomicBool>,
}

impl<In: Transport> Connector<In> for Connected {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<In>, ureq::Error> {
        self.noted.store(chained.is_some(), Ordering::SeqCst);
        Ok(chained)
    }
}

/// The system's resolver without addresses that a name may not stand for.
#[derive(Debug)]
struct Addresses {
    /// Whether the host is an address, which the scope has listed.
    any: bool,
    system: DefaultResolver,
}

impl Resolver for Addresses {
    fn resolve(&self, uri: &Uri, config: &Config, within: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let all = self.system.resolve(uri, config, within)?;
        let mut kept = self.empty();
        for address in all.iter().filter(|address| self.any || !is_metadata(address.ip())) {
            kept.push(*address);
        }
        if kept.is_empty() {
            return Err(ureq::Error::Other("the name stands for a link-local address only".into()));
        }
        Ok(kept)
    }
}

/// Whether a cloud could hand out its machines' credentials at an address.
fn is_metadata(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            // A gateway translates 64:ff9b::a.b.c.d to a.b.c.d (RFC 6052, 2.1).
            let [.., a, b, c, d] = address.octets();
            let is_translated = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            let is_inside = is_translated && Ipv4Addr::new(a, b, c, d).is_link_local();
            address.is_unicast_link_local() || is_inside || METADATA.contains(&address)
        }
    }
}
