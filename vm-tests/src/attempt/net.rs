//! Attempts on sockets. Addresses are written as `127.0.0.1:80` and `[::1]:80`.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::{Done, number, silent};
use crate::sys::{Arg, call, open_call};

const TCP: (i32, i32) = (libc::SOCK_STREAM, 0);
const UDP: (i32, i32) = (libc::SOCK_DGRAM, 0);

pub(super) fn perform(name: &str, words: &[&str]) -> Option<Done> {
    Some(match (name, words) {
        ("connect", ["tcp", to]) => connect(TCP, to),
        ("connect", ["udp", to]) => connect(UDP, to),
        ("connect", ["mptcp", to]) => connect((libc::SOCK_STREAM, libc::IPPROTO_MPTCP), to),
        ("connect-nonblocking", [to]) => match connect((libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0), to) {
            Err(Errno::EINPROGRESS) => Ok("in progress".into()),
            done => done,
        },
        ("connect-mapped", [to]) => connect_mapped(TCP, to),
        ("send-mapped", [to]) => mapped(to).and_then(|bytes| send_bytes(UDP, libc::AF_INET6, &bytes, 0)),
        ("send", ["udp", to]) => send(UDP, to, 0),
        ("send", ["fastopen", to]) => send(TCP, to, libc::MSG_FASTOPEN),
        ("sendmsg", [to]) => send_message(to, false),
        ("sendmmsg", [to]) => send_message(to, true),
        ("connect-fastopen", [to]) => connect_fastopen(to),
        ("bind", [kind, at]) => bind(if *kind == "udp" { UDP } else { TCP }, at),
        ("listen-unbound", []) => socket(libc::AF_INET, TCP)
            .and_then(|s| silent(call(libc::SYS_listen, &mut [Arg::Int(s.as_raw_fd().into()), Arg::Int(1)]))),
        ("socket", [family, kind, protocol]) => {
            silent(socket(number(family) as i32, (number(kind) as i32, number(protocol) as i32)))
        }
        ("unix-stream", [path]) => unix(libc::SOCK_STREAM, path),
        ("unix-datagram", [path]) => unix_send(path),
        ("unix-listen", [path]) => unix_listen(path),
        ("unix-pair", []) => {
            std::os::unix::net::UnixStream::pair().map_err(|e| super::io_errno(&e)).map(|_| String::new())
        }
        _ => return None,
    })
}

fn socket(family: i32, (kind, protocol): (i32, i32)) -> Result<OwnedFd, Errno> {
    let kind = i64::from(kind | libc::SOCK_CLOEXEC);
    open_call(libc::SYS_socket, &mut [Arg::Int(family.into()), Arg::Int(kind), Arg::Int(protocol.into())])
}

/// An address as the kernel reads it, with its family.
fn address(text: &str) -> Result<(i32, Vec<u8>), Errno> {
    let address: SocketAddr = text.parse().ok().ok_or(Errno::EINVAL)?;
    Ok(match address {
        SocketAddr::V4(v4) => {
            let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
            (libc::AF_INET, bytes)
        }
        SocketAddr::V6(v6) => (libc::AF_INET6, bytes6(v6.port(), v6.ip().octets())),
    })
}

fn bytes6(port: u16, ip: [u8; 16]) -> Vec<u8> {
    let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(ip);
    bytes.extend([0; 4]);
    bytes
}

/// An IPv4 address in the clothes of an IPv6 one.
fn mapped(text: &str) -> Result<Vec<u8>, Errno> {
    match text.parse().ok().ok_or(Errno::EINVAL)? {
        SocketAddr::V4(v4) => Ok(bytes6(v4.port(), v4.ip().to_ipv6_mapped().octets())),
        SocketAddr::V6(_) => Err(Errno::EINVAL),
    }
}

/// Nobody listening is an answer too: the connection was let out.
fn through(done: Result<i64, Errno>) -> Done {
    match done {
        Ok(_) => Ok("connected".into()),
        Err(Errno::ECONNREFUSED) => Ok("nobody listens".into()),
        Err(errno) => Err(errno),
    }
}

fn connect_to(socket: &OwnedFd, bytes: &[u8]) -> Result<i64, Errno> {
    let mut args = [Arg::Int(socket.as_raw_fd().into()), Arg::In(bytes), Arg::Int(bytes.len() as i64)];
    call(libc::SYS_connect, &mut args)
}

fn connect(kind: (i32, i32), to: &str) -> Done {
    let (family, bytes) = address(to)?;
    through(connect_to(&socket(family, kind)?, &bytes))
}

fn connect_mapped(kind: (i32, i32), to: &str) -> Done {
    through(connect_to(&socket(libc::AF_INET6, kind)?, &mapped(to)?))
}

fn send(kind: (i32, i32), to: &str, flags: i32) -> Done {
    let (family, bytes) = address(to)?;
    send_bytes(kind, family, &bytes, flags)
}

fn send_bytes(kind: (i32, i32), family: i32, bytes: &[u8], flags: i32) -> Done {
    let socket = socket(family, kind)?;
    through(call(
        libc::SYS_sendto,
        &mut [
            Arg::Int(socket.as_raw_fd().into()),
            Arg::In(b"x"),
            Arg::Int(1),
            Arg::Int(flags.into()),
            Arg::In(bytes),
            Arg::Int(bytes.len() as i64),
        ],
    ))
}

/// sendmsg() and sendmmsg() with an address.
fn send_message(to: &str, many: bool) -> Done {
    let (family, bytes) = address(to)?;
    let socket = socket(family, UDP)?;
    let byte = *b"x";
    let part = [byte.as_ptr() as u64, 1];
    // struct msghdr: name, length of it, parts, how many, three more; struct mmsghdr has one more.
    let head = [bytes.as_ptr() as u64, bytes.len() as u64, part.as_ptr() as u64, 1, 0, 0, 0, 0];
    let head: Vec<u8> = head.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let fd = Arg::Int(socket.as_raw_fd().into());
    let mut args =
        if many { vec![fd, Arg::In(&head), Arg::Int(1), Arg::Int(0)] } else { vec![fd, Arg::In(&head), Arg::Int(0)] };
    let done = call(if many { libc::SYS_sendmmsg } else { libc::SYS_sendmsg }, &mut args);
    through(done)
}

/// A connection that leaves with the first bytes, later.
fn connect_fastopen(to: &str) -> Done {
    let (family, bytes) = address(to)?;
    let socket = socket(family, TCP)?;
    let fd = i64::from(socket.as_raw_fd());
    call(
        libc::SYS_setsockopt,
        &mut [
            Arg::Int(fd),
            Arg::Int(libc::IPPROTO_TCP.into()),
            Arg::Int(libc::TCP_FASTOPEN_CONNECT.into()),
            Arg::In(&1u32.to_ne_bytes()),
            Arg::Int(4),
        ],
    )?;
    connect_to(&socket, &bytes).or_else(|errno| if errno == Errno::ECONNREFUSED { Ok(0) } else { Err(errno) })?;
    through(call(libc::SYS_write, &mut [Arg::Int(fd), Arg::In(b"x"), Arg::Int(1)]))
}

fn bind(kind: (i32, i32), at: &str) -> Done {
    let (family, bytes) = address(at)?;
    let socket = socket(family, kind)?;
    let mut args = [Arg::Int(socket.as_raw_fd().into()), Arg::In(&bytes), Arg::Int(bytes.len() as i64)];
    silent(call(libc::SYS_bind, &mut args))
}

/// A pathname, or, after `@@`, an abstract name.
fn unix_address(path: &str) -> Vec<u8> {
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    match path.strip_prefix("@@") {
        Some(name) => bytes.extend(std::iter::once(0).chain(name.bytes())),
        None => bytes.extend(path.bytes().chain(std::iter::once(0))),
    }
    bytes
}

fn unix(kind: i32, path: &str) -> Done {
    silent(connect_to(&socket(libc::AF_UNIX, (kind, 0))?, &unix_address(path)))
}

fn unix_send(path: &str) -> Done {
    send_bytes((libc::SOCK_DGRAM, 0), libc::AF_UNIX, &unix_address(path), 0)
}

/// Listens, and connects to itself.
fn unix_listen(path: &str) -> Done {
    let listener = socket(libc::AF_UNIX, (libc::SOCK_STREAM, 0))?;
    let bytes = unix_address(path);
    let fd = i64::from(listener.as_raw_fd());
    call(libc::SYS_bind, &mut [Arg::Int(fd), Arg::In(&bytes), Arg::Int(bytes.len() as i64)])?;
    call(libc::SYS_listen, &mut [Arg::Int(fd), Arg::Int(1)])?;
    unix(libc::SOCK_STREAM, path)
}
