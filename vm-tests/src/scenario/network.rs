//! Addresses, ports, families: what a rule allows, and everything beside it.
//!
//! Servers of the scenario's own listen on loopback, so that "it was let out" is a connection that somebody accepted and
//! not only the lack of an error.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use anyhow::{Context, Result};

use crate::harness::{Bench, Case, Expect, FileSystem, Options, Test, Tree, case, program};

pub(super) fn run(test: &mut Test) -> Result<()> {
    // An address that is no loopback address, without a wire.
    let add = program(Command::new("ip").args(["address", "add", "10.9.8.7/24", "dev", "lo"]))?;
    add.ok("ip address add")?;
    let done = with_address(test);
    program(Command::new("ip").args(["address", "del", "10.9.8.7/24", "dev", "lo"]))?.ok("ip address del")?;
    done
}

fn with_address(test: &mut Test) -> Result<()> {
    let any = |port: u16| TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("cannot listen on {port}"));
    let _listeners = [any(7777)?, any(7778)?, any(8000)?, any(8099)?, any(8100)?];
    let _six = ["[::1]:7777", "[::1]:7778"].map(TcpListener::bind);
    let _datagrams = ["0.0.0.0:7777", "0.0.0.0:7778"].map(UdpSocket::bind);

    let tree = Tree::new("net", FileSystem::Overlay)?;
    tree.file("ok/a", "content\n")?;
    tree.file("no/a", "content\n")?;
    let options = Options::base()
        .allow("all", tree.path("ok"))
        .net("127.0.0.1:7777")
        .net("[::1]:7777")
        .net("tcp:127.0.0.0/8:8000-8099")
        .net("udp:10.9.8.0/24:53")
        .net("bind:127.0.0.1:9000-9010")
        .net("bind:udp:0.0.0.0:0");
    let mut bench = Bench::new("net", tree, &options)?;
    bench.run(test, ADDRESSES)?;
    bench.run(test, BINDS)?;
    bench.run(test, FAMILIES)?;
    unix(test, &mut bench)?;
    drop(bench);

    // Nothing at all is allowed by base; loopback is by a word.
    let tree = Tree::new("net2", FileSystem::Overlay)?;
    let mut bench = Bench::new("net2", tree, &Options::base())?;
    bench.expect(test, "base allows no address", "connect tcp 127.0.0.1:7777", EPERM)?;
    drop(bench);
    let tree = Tree::new("net3", FileSystem::Overlay)?;
    let mut bench = Bench::new("net3", tree, &Options::base().net("loopback"))?;
    bench.expect(test, "loopback", "connect tcp 127.0.0.1:7778", Expect::Ok)?;
    bench.expect(test, "loopback, version 6", "connect tcp [::1]:7778", Expect::Ok)?;
    bench.expect(test, "not loopback", "connect tcp 10.9.8.7:7778", EPERM)?;
    drop(bench);
    let tree = Tree::new("net4", FileSystem::Overlay)?;
    let mut bench = Bench::new("net4", tree, &Options::base().net("any:7778"))?;
    bench.expect(test, "any address at a port", "connect tcp 10.9.8.7:7778", Expect::Ok)?;
    bench.expect(test, "any address at another port", "connect tcp 10.9.8.7:7777", EPERM)?;
    Ok(())
}

const EPERM: Expect = Expect::Refused("EPERM");

const ADDRESSES: &[Case] = &[
    case("another port")
        .refused("connect tcp 127.0.0.1:7778")
        .with("EPERM")
        .allowed("connect tcp 127.0.0.1:7777")
        .by("connect"),
    case("another address").refused("connect tcp 127.0.0.2:7777").with("EPERM").allowed("connect tcp 127.0.0.2:8000"),
    case("the end of a range")
        .refused("connect tcp 127.0.0.1:8100")
        .with("EPERM")
        .allowed("connect tcp 127.0.0.1:8099"),
    case("outside a prefix").refused("connect tcp 10.9.8.7:8000").with("EPERM").allowed("connect tcp 127.9.8.7:8000"),
    case("version 6").refused("connect tcp [::1]:7778").with("EPERM").allowed("connect tcp [::1]:7777"),
    case("version 4 in version 6")
        .refused("connect-mapped 127.0.0.1:7778")
        .with("EPERM")
        .allowed("connect-mapped 127.0.0.1:7777"),
    case("no address is this host")
        .refused("connect tcp 0.0.0.0:7778")
        .with("EPERM")
        .allowed("connect tcp 0.0.0.0:7777"),
    case("no address of version 6 is this host")
        .refused("connect tcp [::]:7778")
        .with("EPERM")
        .allowed("connect tcp [::]:7777"),
    case("without waiting")
        .refused("connect-nonblocking 127.0.0.1:7778")
        .with("EPERM")
        .allowed("connect-nonblocking 127.0.0.1:7777"),
    case("a datagram")
        .refused("send udp 127.0.0.1:7778")
        .with("EPERM")
        .allowed("send udp 127.0.0.1:7777")
        .by("send_message"),
    case("a datagram of version 6").refused("send udp [::1]:7778").with("EPERM").allowed("send udp [::1]:7777"),
    case("a datagram in version 6")
        .refused("send-mapped 127.0.0.1:7778")
        .with("EPERM")
        .allowed("send-mapped 127.0.0.1:7777"),
    case("a datagram by sendmsg").refused("sendmsg 127.0.0.1:7778").with("EPERM").allowed("sendmsg 127.0.0.1:7777"),
    case("a datagram by sendmmsg").refused("sendmmsg 127.0.0.1:7778").with("EPERM").allowed("sendmmsg 127.0.0.1:7777"),
    case("a connected datagram")
        .refused("connect udp 127.0.0.1:7778")
        .with("EPERM")
        .allowed("connect udp 127.0.0.1:7777"),
    case("the other protocol")
        .refused("connect udp 127.0.0.1:8000")
        .with("EPERM")
        .allowed("connect tcp 127.0.0.1:8000"),
    case("the other protocol, to a name server")
        .refused("connect tcp 10.9.8.7:53")
        .with("EPERM")
        .allowed("send udp 10.9.8.7:53"),
    case("fast open").refused("send fastopen 127.0.0.1:7778").with("EPERM").allowed("send fastopen 127.0.0.1:7777"),
    case("fast open by connect")
        .refused("connect-fastopen 127.0.0.1:7778")
        .with("EPERM")
        .allowed("connect-fastopen 127.0.0.1:7777"),
];

const BINDS: &[Case] = &[
    case("another port").refused("bind tcp 127.0.0.1:9011").with("EPERM").allowed("bind tcp 127.0.0.1:9010").by("bind"),
    case("another address").refused("bind tcp 127.0.0.2:9000").with("EPERM").allowed("bind tcp 127.0.0.1:9000"),
    case("every address").refused("bind tcp 0.0.0.0:9000").with("EPERM").allowed("bind udp 127.0.0.1:9000"),
    case("every address of version 6").refused("bind tcp [::]:9000").with("EPERM"),
    case("where connecting is allowed")
        .refused("bind tcp 127.0.0.1:8050")
        .with("EPERM")
        .allowed("connect tcp 127.0.0.1:8050"),
    case("any port at any address").refused("bind tcp 0.0.0.0:0").with("EPERM").allowed("bind udp 0.0.0.0:0"),
    // Without bind the kernel chooses a port at every address.
    case("listening without an address").refused("listen-unbound").with("EPERM").allowed("bind tcp 127.0.0.1:9001"),
];

const FAMILIES: &[Case] = &[
    case("MPTCP").refused("socket 2 1 262").with("EPERM").allowed("socket 2 1 6").by("socket"),
    case("UDP-Lite").refused("socket 2 2 136").with("EPERM").outside(Expect::Skip).allowed("socket 2 2 17"),
    case("SCTP").refused("socket 2 5 132").with("EPERM").outside(Expect::Skip),
    case("SCTP, one to one").refused("socket 2 1 132").with("EPERM").outside(Expect::Skip),
    case("ping").refused("socket 2 2 1").with("EPERM|EACCES").outside(Expect::Skip),
    case("raw").refused("socket 2 3 1").with("EPERM").outside(EPERM),
    case("packets").refused("socket 17 3 768").with("EPERM").outside(EPERM),
    case("virtual machines").refused("socket 40 1 0").with("EPERM").outside(Expect::Skip),
    case("the kernel's ciphers").refused("socket 38 5 0").with("EPERM").outside(Expect::Skip).allowed("socket 1 1 0"),
    case("express data path").refused("socket 44 3 0").with("EPERM").outside(Expect::Skip),
    case("bluetooth").refused("socket 31 1 3").with("EPERM|EAFNOSUPPORT").outside(Expect::Skip),
    case("netlink beside routes").refused("socket 16 3 9").with("EPERM").outside(Expect::Skip).allowed("socket 16 3 0"),
    case("the journal of the kernel").refused("socket 16 3 4").with("EPERM").outside(Expect::Skip),
];

/// A socket with a path is a file; one without must be of the agent.
fn unix(test: &mut Test, bench: &mut Bench) -> Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
    let open = |path: &str| -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?)
    };
    let mut keep = Vec::new();
    let mut datagrams = Vec::new();
    for name in ["ok/sock", "no/sock"] {
        keep.push(UnixListener::bind(bench.tree.path(name))?);
        open(&bench.tree.path(name))?;
    }
    for name in ["ok/dgram", "no/dgram"] {
        datagrams.push(UnixDatagram::bind(bench.tree.path(name))?);
        open(&bench.tree.path(name))?;
    }
    keep.push(UnixListener::bind_addr(&SocketAddr::from_abstract_name("outside")?)?);
    datagrams.push(UnixDatagram::bind_addr(&SocketAddr::from_abstract_name("outside-datagrams")?)?);
    bench.run(test, UNIX)?;
    for name in ["ok/sock", "no/sock", "ok/dgram", "no/dgram"] {
        std::fs::remove_file(bench.tree.path(name))?;
    }
    Ok(())
}

const UNIX: &[Case] = &[
    case("a socket where nothing is allowed")
        .refused("unix-stream @no/sock")
        .allowed("unix-stream @ok/sock")
        .by("unix_socket"),
    case("datagrams there").refused("unix-datagram @no/dgram").allowed("unix-datagram @ok/dgram"),
    case("an abstract socket outside").refused("unix-stream @@outside").with("EPERM").allowed("unix-listen @@inside"),
    case("abstract datagrams outside").refused("unix-datagram @@outside-datagrams").with("EPERM").allowed("unix-pair"),
    case("a name where nothing may be created")
        .prepare("gone @no/mine; gone @ok/mine")
        .refused("unix-listen @no/mine")
        .allowed("unix-listen @ok/mine"),
];
