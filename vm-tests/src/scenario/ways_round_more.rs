//! Ways round that no single system call shows: packets, subvolumes, links that move, sockets, many spellings.
//!
//! Each is a script that an agent runs; a line says what was tried and what the kernel answered. Beside each way that is
//! closed the same script goes one that is open.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::wait_for;
use crate::harness::{FileSystem, Test, Tree, agentctl, agentctl_as, program};

const PATIENCE: Duration = Duration::from_secs(60);
const HEAD: &str = "import errno, fcntl, os, socket, struct, sys\n\
    def tried(what, f):\n    \
        try:\n        f(); said = 'OK'\n    \
        except OSError as e:\n        said = errno.errorcode[e.errno]\n    \
        print(what, '=', said, flush=True)\n";

pub(super) fn run(test: &mut Test) -> Result<()> {
    packets(test)?;
    subvolumes(test)?;
    spellings(test)?;
    exchanged(test)?;
    doors(test)
}

/// Runs a script in an agent and gives its answers by what was tried.
fn answers(words: &[&str], directory: &str, script: &str) -> Result<BTreeMap<String, String>> {
    let text = format!("{HEAD}{script}");
    let mut all = vec!["spawn", "-q", "--user", "dev", "--cwd", directory];
    all.extend(words);
    all.extend(["--", "python3", "-c", &text]);
    let output = agentctl(&all)?;
    let said = output.ok("the agent that tries")?;
    let pairs = said.lines().filter_map(|line| line.split_once(" = "));
    Ok(pairs.map(|(what, answer)| (what.to_owned(), answer.to_owned())).collect())
}

fn expect(test: &mut Test, found: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    for (what, answer) in expected {
        test.same(what, found.get(*what).map(String::as_str), Some(*answer));
    }
}

/// A packet goes where a routing header or a device says, and comes to a port that nobody bound.
fn packets(test: &mut Test) -> Result<()> {
    let script = "ip link add agentd0 type veth peer name agentd1 && ip addr add 10.77.0.1/24 dev agentd0 && \
                  ip -6 addr add fd77::1/64 dev agentd0 nodad && ip link set agentd0 up && ip link set agentd1 up";
    program(Command::new("sh").args(["-c", script]))?.ok("a device")?;
    let script = "route = bytes([0, 2, 2, 1, 0, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, 'fd77::2')\n\
        def routed():\n    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n    s.setsockopt(41, 57, route)\n    s.sendto(b'x', ('::1', 9))\n\
        def by_message():\n    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendmsg([b'x'], [(41, 57, route)], 0, ('::1', 9))\n\
        def by_device():\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    s.setsockopt(socket.SOL_SOCKET, 25, b'agentd0')\n    s.sendto(b'x', ('127.0.0.1', 9))\n\
        def plain():\n    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))\n\
        tried('a datagram', plain)\ntried('a routing header', routed)\ntried('one in a message', by_message)\ntried('a device', by_device)\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(2)\n\
        tried('a refused datagram', lambda: s.sendto(b'x', ('10.77.0.2', 9)))\n\
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nown.settimeout(10)\nown.bind(('127.0.0.1', 0))\n\
        open('ports', 'w').write('%d %d' % (s.getsockname()[1], own.getsockname()[1]))\nos.rename('ports', 'told')\n\
        tried('what comes to a bound port', lambda: own.recv(9))\n\
        try:\n    s.recv(9); print('what comes to a port of the kernel\\'s choice = OK')\nexcept TimeoutError:\n    print('what comes to a port of the kernel\\'s choice = nothing')\n";
    let tree = Tree::new("packets", FileSystem::Overlay)?;
    tree.file("here", "x")?;
    program(Command::new("chown").args(["-R", "dev:dev", &tree.path("")]))?.ok("chown")?;
    let told = tree.path("told");
    let sender = std::thread::spawn(move || -> Result<()> {
        wait_for("the ports", PATIENCE, || Ok(fs::exists(&told)?.then_some(())))?;
        let ports = fs::read_to_string(&told)?;
        let socket = std::net::UdpSocket::bind("10.77.0.1:0")?;
        let local = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let mut ports = ports.split(' ').map(str::parse::<u16>);
        let (foreign, own) = (ports.next().context("no port")??, ports.next().context("no port")??);
        for _ in 0..5 {
            socket.send_to(b"in", ("10.77.0.1", foreign))?;
            local.send_to(b"in", ("127.0.0.1", own))?;
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    });
    let all = format!("all:{}", tree.path(""));
    let found = answers(
        &["--profile", "base", "--net", "loopback", "--net", "bind:loopback", "--allow", &all],
        &tree.path(""),
        script,
    );
    sender.join().map_err(|_panic| anyhow::anyhow!("the sender broke off"))??;
    program(Command::new("ip").args(["link", "del", "agentd0"]))?.ok("ip link del")?;
    expect(
        test,
        &found?,
        &[
            ("a datagram", "OK"),
            ("a routing header", "EPERM"),
            ("one in a message", "EPERM"),
            ("a device", "EPERM"),
            ("a refused datagram", "EPERM"),
            ("what comes to a bound port", "OK"),
            ("what comes to a port of the kernel's choice", "nothing"),
        ],
    );
    Ok(())
}

/// A snapshot is a tree of new objects without the rules of the old ones.
fn subvolumes(test: &mut Test) -> Result<()> {
    let tree = Tree::new("snapshots", FileSystem::Btrfs)?;
    tree.file("ws/keys", "secret")?;
    program(Command::new("chown").args(["-R", "dev:dev", &tree.path("ws")]))?.ok("chown")?;
    let script = "d = os.open('.', os.O_RDONLY)\n\
        tried('a subvolume', lambda: fcntl.ioctl(d, 0x5000940e, bytearray(struct.pack('q4088s', 0, b'mine'))))\n\
        tried('a snapshot', lambda: fcntl.ioctl(d, 0x50009401, bytearray(struct.pack('q4088s', d, b'copy'))))\n\
        a, b = open('a', 'w+'), open('b', 'w+')\n\
        a.write('x' * 9000); a.flush()\n\
        tried('a clone of a file', lambda: fcntl.ioctl(b, 0x40049409, a.fileno()))\n\
        tried('the flags of a file', lambda: fcntl.ioctl(b, 0x80086601, bytearray(8)))\n";
    let all = format!("all:{}", tree.path("ws"));
    let keys = format!("all:{}", tree.path("ws/keys"));
    let found = answers(&["--profile", "base", "--allow", &all, "--deny", &keys], &tree.path("ws"), script)?;
    expect(
        test,
        &found,
        &[
            ("a subvolume", "EPERM"),
            ("a snapshot", "EPERM"),
            ("a clone of a file", "OK"),
            ("the flags of a file", "OK"),
        ],
    );
    Ok(())
}

/// An empty FAT12 file system of a megabyte, by hand: the machine has no program that makes one.
const FAT: &str = "import struct\nb = bytearray(512 * 2048)\nb[0:11] = b'\\xeb\\x3c\\x90MSDOS5.0'\n\
    struct.pack_into('<HBHBHHBHHHII', b, 11, 512, 1, 1, 1, 112, 2048, 0xf8, 6, 32, 64, 0, 0)\n\
    b[36], b[38] = 0x80, 0x29\nb[43:54], b[54:62] = b'NO NAME    ', b'FAT12   '\n\
    b[510:515] = b'\\x55\\xaa\\xf8\\xff\\xff'\nopen('/tmp/fat.img', 'wb').write(b)\n";

/// A profile without a rule about any name.
const PLAIN: &str = "name = 'plain'\n\
    [[files]]\npath = ['/usr', '/etc', '/dev', '/proc']\nallow = 'read,write,exec'\n\
    [[files]]\npath = '/srv/fat/ws'\nallow = 'all'\n";

/// Where one name has many spellings, rules about names cannot hold, so who has any gets nothing there. Who has none does.
fn spellings(test: &mut Test) -> Result<()> {
    program(Command::new("python3").args(["-c", FAT]))?.ok("a file system")?;
    let script = "for module in loop vfat nls_cp437 nls_ascii; do modprobe $module; done; mkdir -p /srv/fat && \
                  mount -o loop,uid=1000,gid=1000 /tmp/fat.img /srv/fat && mkdir /srv/fat/ws && echo x >/srv/fat/ws/a";
    program(Command::new("sh").args(["-c", script]))?.ok("a vfat")?;
    let script = "tried('a file', lambda: open('/srv/fat/ws/a').read())\n\
        tried('its other spelling', lambda: open('/srv/fat/ws/A').read())\n\
        tried('a directory', lambda: os.mkdir('/srv/fat/ws/New'))\n";
    let allow = ["--profile", "base", "--allow", "all:/srv/fat/ws"];
    let ruled = [allow.as_slice(), &["--deny", "all:**/a"]].concat();
    let found = answers(&ruled, "/srv", script)?;
    expect(test, &found, &[("a file", "EACCES"), ("its other spelling", "EACCES"), ("a directory", "EACCES")]);
    let why = agentctl(&["why", "--last"])?;
    test.contains("why", &why.stdout, "many spellings");
    fs::write("/srv/plain.toml", PLAIN)?;
    let found = answers(&["--profile", "/srv/plain.toml"], "/srv", script)?;
    expect(test, &found, &[("a file", "OK"), ("its other spelling", "OK"), ("a directory", "OK")]);
    program(Command::new("umount").arg("/srv/fat"))?.ok("umount")?;
    Ok(())
}

/// A workspace that becomes a link during the launch gives nothing but its own.
fn exchanged(test: &mut Test) -> Result<()> {
    let tree = Tree::new("exchanged", FileSystem::Overlay)?;
    tree.file("ws/sub/a", "own")?;
    tree.file("home/secret", "secret")?;
    program(Command::new("chown").args(["-R", "dev:dev", &tree.path("")]))?.ok("chown")?;
    let (sub, link) = (tree.path("ws/sub"), tree.path("ws/link"));
    std::os::unix::fs::symlink(tree.path("home"), &link)?;
    let script = format!(
        "import ctypes, time\nlibc = ctypes.CDLL(None)\nend = time.time() + 25\n\
         while time.time() < end: libc.renameat2(-100, {sub:?}.encode(), -100, {link:?}.encode(), 2)\n"
    );
    let mut swapper = Command::new("python3").args(["-c", &script]).spawn()?;
    let mut outcomes = BTreeMap::<i32, u32>::new();
    for turn in 0..25 {
        let name = format!("exchanged-{turn}");
        let output =
            agentctl(&["spawn", "-q", "--user", "dev", "--name", &name, "--cwd", &sub, "--", "cat", "secret"])?;
        *outcomes.entry(output.status).or_default() += 1;
        // Either the directory itself, where there is no secret, or an agent whose honest workspace is the other one
        // (agentctl resolved the link before it asked), or a refusal that names the link.
        let honest = output.stdout.is_empty() || crate::harness::view(&name)?["cwd"] == tree.path("home").as_str();
        test.check(honest, || format!("an agent of {sub} read {:?}", output.stdout));
    }
    swapper.kill()?;
    swapper.wait()?;
    test.check(!outcomes.is_empty(), || "no launch was tried".into());
    Ok(())
}

/// An agent has a socket where nobody is an operator; nobody fills the other one for everybody.
fn doors(test: &mut Test) -> Result<()> {
    let script = "def ask(path):\n    s = socket.socket(socket.AF_UNIX)\n    s.connect(path)\n\
        tried('its own socket', lambda: ask(os.environ['AGENTD_SOCKET']))\n\
        tried('the operators\\' socket', lambda: ask('/run/agentd/agentd.sock'))\n";
    let found = answers(&["--profile", "base"], "/srv", script)?;
    expect(test, &found, &[("its own socket", "OK"), ("the operators' socket", "EACCES")]);
    let outside = UnixStream::connect("/run/agentd/agents.sock")?;
    outside.set_read_timeout(Some(PATIENCE))?;
    let mut ask = &outside;
    let _ = std::io::Write::write_all(&mut ask, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.info\"}\n");
    let mut answer = [0; 16];
    let said = std::io::Read::read(&mut ask, &mut answer).unwrap_or(0);
    test.same("what a stranger hears at the agents' socket", said, 0);

    let held = "import socket, time\nall = []\nfor _ in range(1500):\n    s = socket.socket(socket.AF_UNIX)\n    \
        s.connect('/run/agentd/agentd.sock')\n    all.append(s)\nprint('held', flush=True)\ntime.sleep(60)\n";
    let mut holder = Command::new("setpriv");
    holder.args(["--reuid", "65534", "--clear-groups", "prlimit", "--nofile=4096", "python3", "-c", held]);
    let mut holder = holder.stdout(std::process::Stdio::piped()).spawn()?;
    let mut line = [0; 5];
    std::io::Read::read_exact(&mut holder.stdout.take().context("no output")?, &mut line)?;
    test.same("root beside somebody who holds all connections", agentctl(&["ps"])?.status, 0);
    test.same("an operator beside him", agentctl_as(1000, &["ps"])?.status, 0);
    holder.kill()?;
    holder.wait()?;
    Ok(())
}
