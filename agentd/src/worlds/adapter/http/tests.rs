//! Requests against a server of the test's own: what the scope allows, what it refuses, and what servers may get wrong.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use agentd_air::Http;
use agentd_model::{Seq, WorldId};
use nix::sys::socket::{setsockopt, sockopt};

use super::*;

/// Longer than any test waits for anything that will come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody on this host who takes one connection.
pub(in crate::worlds::adapter) struct Server {
    pub(in crate::worlds::adapter) address: SocketAddr,
    seen: Receiver<String>,
}

impl Server {
    /// Reads one request, says the answer and closes.
    pub(in crate::worlds::adapter) fn saying(answer: impl Into<Vec<u8>>) -> Server {
        let answer = answer.into();
        Server::doing(move |line| drop(line.write_all(&answer)))
    }

    /// Reads one request and does something.
    pub(in crate::worlds::adapter) fn doing(act: impl FnOnce(&mut TcpStream) + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = mpsc::channel();
        thread::spawn(move || {
            let (mut line, _) = listener.accept().unwrap();
            line.set_read_timeout(Some(PATIENCE)).unwrap();
            line.set_write_timeout(Some(PATIENCE)).unwrap();
            let _ = tell.send(read_request(&mut line));
            act(&mut line);
        });
        Server { address, seen }
    }

    /// What it was asked.
    pub(in crate::worlds::adapter) fn seen(&self) -> String {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

fn read_request(line: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The beginning of TLS is all there is to see of it.
        if bytes.first() == Some(&0x16) {
            return text;
        }
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        match line.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return text,
        }
    }
}

/// Waits until the other side has closed.
pub(in crate::worlds::adapter) fn hold(line: &mut TcpStream) {
    while line.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
}

/// A job that some world asks for.
pub(in crate::worlds::adapter) fn wanted(kind: &str, params: Vec<Value>, scope: Scope) -> Job {
    Job {
        world: WorldId([1; 16]),
        name: "test".to_owned(),
        path: PathBuf::new(),
        intent: Hash([0xab; 32]),
        wanted: Seq(1),
        kind: kind.parse().unwrap(),
        params: Value::Record(params),
        scope,
    }
}

fn job(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8], hosts: &[String]) -> Job {
    let text = |text: &str| Value::Text(text.to_owned());
    let headers = headers.iter().map(|(name, value)| (text(name), text(value))).collect();
    let params = vec![text(method), text(url), Value::map(headers).unwrap(), Value::Bytes(body.to_vec())];
    let methods = vec!["GET".to_owned(), "POST".to_owned(), "CONNECT".to_owned(), "LIST".to_owned(), "A B".to_owned()];
    let scope = Http { hosts: hosts.to_vec(), methods, max_bytes: 1000, max_ms: 10_000 };
    wanted("sys/http@1", params, Scope::Http(scope))
}

/// A job to get something from a server that the scope lists.
fn get(server: &Server) -> Job {
    job("GET", &server.url(), &[], b"", &[server.address.to_string()])
}

fn within(mut job: Job, ms: u64) -> Job {
    let Scope::Http(scope) = &mut job.scope else { unreachable!("made so") };
    scope.max_ms = ms;
    job
}

#[track_caller]
pub(in crate::worlds::adapter) fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn answered(outcome: Outcome) -> (u64, Vec<(String, String)>, Vec<u8>) {
    let Outcome::Done(Value::Record(fields)) = outcome else { panic!("{outcome:?}") };
    let [Value::Nat(status), Value::Map(headers), Value::Bytes(body)] = &fields[..] else { panic!("{fields:?}") };
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    (*status, headers.iter().map(|(name, value)| (text(name), text(value))).collect(), body.clone())
}

#[test]
fn a_request_goes_out_as_asked_and_its_answer_comes_back() {
    let server = Server::saying(
        "HTTP/1.1 404 No\r\nX-One: 1\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 3\r\n\r\nno\n",
    );
    let url = format!("http://{}/a%20b?c=d#e", server.address);
    let outcome = perform(&job("POST", &url, &[("X-Two", "2")], b"hello", &[server.address.to_string()]));
    let (status, headers, body) = answered(outcome);
    assert_eq!((status, &body[..]), (404, &b"no\n"[..]));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(headers, [pair("x-one", "1"), pair("set-cookie", "a=1, b=2"), pair("content-length", "3")]);

    let seen = server.seen();
    assert!(seen.starts_with("POST /a%20b?c=d HTTP/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nhello"), "{seen}");
    let id = format!("\r\nidempotency-key: {}\r\n", "ab".repeat(32));
    let host = format!("\r\nhost: {}\r\n", server.address);
    for header in [&id, &host, "\r\nx-two: 2\r\n", "\r\ncontent-length: 5\r\n", "\r\nuser-agent: agentd\r\n"] {
        assert!(seen.contains(header), "{header:?} in {seen}");
    }
    assert!(!seen.contains("accept-encoding"), "{seen}");
}

#[test]
fn a_key_of_ones_own_and_a_method_of_ones_own_stay() {
    let server = Server::saying("HTTP/1.1 204 Done\r\n\r\n");
    let hosts = [server.address.to_string()];
    assert_eq!(answered(perform(&job("LIST", &server.url(), &[("Idempotency-Key", "mine")], b"", &hosts))).0, 204);
    let seen = server.seen();
    assert!(seen.starts_with("LIST / HTTP/1.1\r\n") && seen.contains("\r\nidempotency-key: mine\r\n"), "{seen}");
    assert!(!seen.contains(&"ab".repeat(32)) && !seen.contains("content-length"), "{seen}");
}

#[test]
fn what_the_scope_does_not_cover_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (url, port, hosts) = (format!("http://{address}/"), address.port(), [address.to_string()]);
    let mut other = job("GET", &url, &[], b"", &hosts);
    other.scope = Scope::Any;
    let user = format!("http://user:secret@{address}/");
    for (job, why) in [
        (other, "the capability's scope is not one for HTTP"),
        (job("DELETE", &url, &[], b"", &hosts), "the capability does not cover the method DELETE"),
        (job("get", &url, &[], b"", &hosts), "the capability does not cover the method get"),
        (job("CONNECT", &url, &[], b"", &hosts), "CONNECT is not a method"),
        (job("A B", &url, &[], b"", &hosts), "A B is not a method"),
        (job("GET", &url, &[], &[0; 1001], &hosts), "the body is longer than 1000 bytes"),
        (job("GET", &url, &[], b"", &[]), "the capability does not cover the host 127.0.0.1:"),
        (job("GET", &url, &[], b"", &["*".to_owned()]), "the capability does not cover the host 127.0.0.1:"),
        (job("GET", &url, &[], b"", &["127.0.0.1".to_owned()]), "the capability does not cover the host 127.0.0.1:"),
        (job("GET", &url, &[], b"", &["127.0.0.1:1".to_owned()]), "the capability does not cover the host 127.0.0.1:"),
        (job("GET", &format!("http://localhost:{port}"), &[], b"", &hosts), "does not cover the host localhost:"),
        (job("GET", &user, &[], b"", &hosts), "the URL holds a user"),
        (job("GET", "http://169.254.169.254/", &[], b"", &["*".to_owned()]), "does not cover the host 169.254.169.254"),
        (job("GET", "http://2852039166/", &[], b"", &["*".to_owned()]), "neither a name nor an address"),
        (job("GET", "ftp://a.example/", &[], b"", &["*".to_owned()]), "begins neither with http://"),
        (job("GET", "/etc/passwd", &[], b"", &["*".to_owned()]), "begins neither with http://"),
        (job("GET", "http://a.example/\r\nX: y", &[], b"", &["*".to_owned()]), "the URL cannot be read"),
    ] {
        let reason = failed(perform(&job));
        assert!(reason.starts_with("not sent: ") && reason.contains(why), "{reason}, not {why}");
        assert!(!reason.contains("secret"), "{reason}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_header_cannot_become_two_nor_frame_the_request() {
    for (name, value) in [
        ("X", "a\r\nY: b"),
        ("X", "a\nb"),
        ("X", "a\0"),
        ("X\r\nY", "b"),
        ("X Y", "b"),
        ("X:", "b"),
        ("", "b"),
        ("Host", "b"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
        ("Proxy-Authorization", "b"),
        ("X", &"a".repeat(MAX_HEADER_BYTES)),
    ] {
        let reason = failed(perform(&job("GET", "http://a.example/", &[(name, value)], b"", &["*".to_owned()])));
        assert!(reason.starts_with("not sent: ") && !reason.contains(char::is_control), "{reason}");
        assert!(reason.contains("header"), "{reason}");
    }
}

#[test]
fn a_url_names_one_host_and_one_port() {
    for (url, entries, others) in [
        (
            "http://Api.example/x",
            &["api.example", "API.EXAMPLE:80", "*"][..],
            &["api.example:443", "pi.example", "*.example"][..],
        ),
        ("https://api.example", &["api.example", "api.example:443"], &["api.example:80", "api.example."]),
        ("http://api.example:443", &["api.example:443"], &["api.example"]),
        ("http://10.0.0.1", &["10.0.0.1", "10.0.0.1:80"], &["*", "10.0.0.1:8080"]),
        ("http://[::1]:81/", &["[::1]:81"], &["*", "[::1]", "::1:81", "[0:0:0:0:0:0:0:1]:81"]),
    ] {
        let target = Target::parse(url).unwrap();
        assert!(entries.iter().all(|entry| target.is_covered_by(entry)), "{url}");
        assert!(!others.iter().any(|entry| target.is_covered_by(entry)), "{url}");
    }
    for url in [
        "",
        "http:",
        "http://",
        "http:///x",
        "http://a:99999/",
        "http://a:/",
        "http://a@b/",
        "http://[fe80::1%25eth0]/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://127.0.0.01/",
        "http://1.2.3.4./",
        "http://a.0xff/",
        "http://a%2eb/",
        "http://[1.2.3.4]/",
        "http://a b/",
        "HTTPX://a/",
    ] {
        assert!(Target::parse(url).is_err(), "{url}");
    }
}

#[test]
fn a_name_does_not_stand_for_an_address_of_metadata() {
    for (address, expected) in [
        ("169.254.169.254", true),
        ("169.254.0.1", true),
        ("169.253.0.1", false),
        ("127.0.0.1", false),
        ("fe80::1", true),
        ("febf::1", true),
        ("fec0::1", false),
        ("::ffff:169.254.169.254", true),
        ("64:ff9b::169.254.169.254", true),
        ("64:ff9b::8.8.8.8", false),
        ("fd00:ec2::254", true),
        ("::1", false),
    ] {
        assert_eq!(is_metadata(address.parse().unwrap()), expected, "{address}");
    }
    // A name would come to this: its address is looked up, but nobody has listed the address itself.
    let target = Target { is_address: false, ..Target::parse("http://169.254.169.254/").unwrap() };
    let request = Request { method: Method::GET, target, headers: HeaderMap::new(), body: b"" };
    let error = send(&request, 10, PATIENCE).err().unwrap();
    assert_eq!(
        error.to_string(),
        "could not connect to 169.254.169.254:80: the name stands for a link-local address only"
    );
}

#[test]
fn a_redirect_is_a_result() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let to = elsewhere.local_addr().unwrap();
    for rest in ["Content-Length: 2\r\n\r\ngo", "Content-Length: 0\r\n\r\n", "\r\n"] {
        let server = Server::saying(format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/\r\n{rest}"));
        let (status, headers, body) = answered(perform(&get(&server)));
        assert_eq!(status, 302);
        assert!(headers.contains(&("location".to_owned(), format!("http://{to}/"))));
        assert_eq!(body, rest.split_once("\r\n\r\n").map_or("", |(_, body)| body).as_bytes());
    }
    assert_eq!(elsewhere.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn an_answer_that_is_too_long_is_none() {
    let body = |count: usize| "x".repeat(count);
    let chunked = |count| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{count:x}\r\n{}\r\n0\r\n\r\n", body(count))
    };
    let counted = |count| format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n{}", body(count));
    let closed = |count| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", body(count));
    for (most, more) in [(counted(1000), counted(1001)), (chunked(1000), chunked(1001)), (closed(1000), closed(1001))] {
        assert_eq!(answered(perform(&get(&Server::saying(most)))).2, body(1000).as_bytes());
        let reason = failed(perform(&get(&Server::saying(more))));
        assert_eq!(reason, "the answer cannot be taken: its body is longer than 1000 bytes");
    }
    // No end of it.
    let endless = Server::doing(|line| {
        let _ = line.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while line.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert!(failed(perform(&get(&endless))).contains("longer than 1000 bytes"));
}

#[test]
fn headers_without_end_are_no_answer() {
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let with = |headers: String| Server::saying(format!("HTTP/1.1 204 OK\r\n{headers}\r\n"));
    assert_eq!(answered(perform(&get(&with(many(MAX_HEADERS))))).1.len(), MAX_HEADERS);
    for headers in [many(MAX_HEADERS + 1), many(1000), format!("x: {}\r\n", "y".repeat(MAX_HEADER_BYTES))] {
        let reason = failed(perform(&get(&with(headers))));
        assert!(reason.starts_with("the answer cannot be taken: "), "{reason}");
    }
    assert!(failed(perform(&get(&Server::saying("SSH-2.0-x\r\n\r\n")))).starts_with("the answer cannot be taken: "));
}

#[test]
fn what_takes_too_long_ends() {
    let limit = 300;
    let late = Outcome::TimedOut(Duration::from_millis(limit));
    let drip = |line: &mut TcpStream| {
        let _ = line.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n");
        while line.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(perform(&within(get(&Server::doing(hold)), limit)), late);
    assert_eq!(perform(&within(get(&Server::doing(drip)), limit)), late);
}

#[test]
fn a_peer_that_reads_slowly_does_not_hold_a_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    setsockopt(&listener.as_fd(), sockopt::RcvBuf, &2048).unwrap();
    let address = listener.local_addr().unwrap();
    let (over, wait) = mpsc::channel::<()>();
    thread::spawn(move || {
        let (mut line, _) = listener.accept().unwrap();
        while wait.recv_timeout(Duration::from_millis(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = line.read(&mut [0; 2048]);
        }
    });
    let target = Target::parse(&format!("http://{address}/")).unwrap();
    // More than the kernel takes in for the peer.
    let body = vec![0; 32 << 20];
    let request = Request { method: Method::POST, target, headers: HeaderMap::new(), body: &body };
    assert!(matches!(send(&request, 10, Duration::from_millis(300)), Err(SendError::Late(_))));
    drop(over);
}

#[test]
fn nothing_asked_and_nothing_heard_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reason = failed(perform(&job("GET", &format!("http://{closed}/"), &[], b"", &[closed.to_string()])));
    assert!(reason.starts_with(&format!("could not connect to {closed}: Connection refused")), "{reason}");

    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    for answer in ["", "HTTP/1.1 200", half] {
        let reason = failed(perform(&get(&Server::saying(answer))));
        assert!(reason.starts_with("the answer did not come: "), "{reason}");
    }

    // No certificate, no connection; and while there is no connection, nothing has been asked.
    let server = Server::saying("HTTP/1.1 200 OK\r\n\r\n");
    let url = format!("https://{}/", server.address);
    let reason = failed(perform(&job("GET", &url, &[], b"", &[server.address.to_string()])));
    assert!(reason.starts_with(&format!("could not connect to {}: ", server.address)), "{reason}");
    let server = Server::doing(hold);
    let url = format!("https://{}/", server.address);
    let reason = failed(perform(&within(job("GET", &url, &[], b"", &[server.address.to_string()]), 300)));
    assert_eq!(reason, format!("could not connect to {}: not within 300 ms", server.address));
}
