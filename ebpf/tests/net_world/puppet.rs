//! A process that makes calls on demand.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen, sendto,
    socket,
};

const MARK: &str = "=>";

pub(crate) struct Puppet {
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Puppet {
    /// Starts one; in `cgroup` before its first call, if given.
    pub(crate) fn start(cgroup: Option<&Path>) -> Puppet {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "the_puppet", "--nocapture", "--test-threads=1"]).env("AGENTD_NET_PUPPET", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a puppet");
        let (calls, answers) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let mut puppet = Puppet { child, calls, answers: BufReader::new(answers) };
        if let Some(cgroup) = cgroup {
            puppet.move_to(cgroup);
        }
        assert_eq!(puppet.call("nothing"), 0);
        puppet
    }

    pub(crate) fn move_to(&self, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), self.pid().to_string()).expect("moved");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes one call; its errno, 0 if it went well.
    pub(crate) fn call(&mut self, call: impl std::fmt::Display) -> i32 {
        writeln!(self.calls, "{call}").expect("a puppet that listens");
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).expect("an answer"), 0, "the puppet has gone");
            // libtest writes the name of the test in front of the first answer.
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.trim().parse().expect("an errno");
            }
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side: answers calls until the test is gone. Returns at once in the process of the tests themselves.
pub(crate) fn perform() {
    if std::env::var_os("AGENTD_NET_PUPPET").is_none() {
        return;
    }
    for line in std::io::stdin().lines() {
        let line = line.expect("a call");
        let words: Vec<&str> = line.split(' ').collect();
        let errno = match make(&words) {
            Ok(()) => 0,
            Err(errno) => errno as i32,
        };
        writeln!(std::io::stdout(), "{MARK}{errno}").expect("a test that listens");
    }
}

fn make(words: &[&str]) -> Result<(), Errno> {
    match *words {
        ["nothing"] => Ok(()),
        // Many times the same; the answer to the last.
        ["times", count, ref call @ ..] => {
            let count: u32 = count.parse().expect("a number");
            (1..count).for_each(|_| _ = make(call));
            make(call)
        }
        ["tcp", to] => connect(of(to, SockType::Stream)?.as_raw_fd(), &place(to)),
        ["tcp-from", from, to] => {
            let socket = of(from, SockType::Stream)?;
            bind(socket.as_raw_fd(), &place(from))?;
            connect(socket.as_raw_fd(), &place(to))
        }
        ["fast-open", to] => {
            let socket = of(to, SockType::Stream)?;
            let flags = MsgFlags::from_bits_retain(0x2000_0000); // MSG_FASTOPEN
            sendto(socket.as_raw_fd(), b"x", &place(to), flags).map(drop)
        }
        ["udp", to] => sendto(of(to, SockType::Datagram)?.as_raw_fd(), b"x", &place(to), MsgFlags::empty()).map(drop),
        // A datagram to an IPv4 address from an IPv6 socket, and the other spelling of the same.
        ["udp-6", to] => {
            let socket = make_socket(AddressFamily::Inet6, SockType::Datagram, None)?;
            sendto(socket.as_raw_fd(), b"x", &place(to), MsgFlags::empty()).map(drop)
        }
        ["udp-connect", to] => connect(of(to, SockType::Datagram)?.as_raw_fd(), &place(to)),
        ["bind-tcp", at] => bind(of(at, SockType::Stream)?.as_raw_fd(), &place(at)),
        ["bind-udp", at] => bind(of(at, SockType::Datagram)?.as_raw_fd(), &place(at)),
        ["listen-unbound"] => {
            let socket = make_socket(AddressFamily::Inet, SockType::Stream, None)?;
            listen(&socket, Backlog::new(1)?)
        }
        ["raw"] => make_socket(AddressFamily::Inet, SockType::Raw, SockProtocol::Icmp).map(drop),
        ["ping"] => make_socket(AddressFamily::Inet6, SockType::Datagram, SockProtocol::IcmpV6).map(drop),
        ["unix"] => make_socket(AddressFamily::Unix, SockType::Stream, None).map(drop),
        ["socket"] => make_socket(AddressFamily::Inet, SockType::Stream, None).map(drop),
        ["thread"] => std::thread::spawn(|| Ok(())).join().expect("a thread"),
        ["run", program] => Command::new(program)
            .status()
            .map(drop)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default())),
        _ => panic!("unknown call {words:?}"),
    }
}

fn of(addr: &str, kind: SockType) -> Result<OwnedFd, Errno> {
    let v4 = addr.parse::<SocketAddr>().expect("an address").is_ipv4();
    make_socket(if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }, kind, None)
}

fn make_socket(
    family: AddressFamily,
    kind: SockType,
    protocol: impl Into<Option<SockProtocol>>,
) -> Result<OwnedFd, Errno> {
    socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)
}

fn place(addr: &str) -> SockaddrStorage {
    SockaddrStorage::from(addr.parse::<SocketAddr>().expect("an address"))
}
