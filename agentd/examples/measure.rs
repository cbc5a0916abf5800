//! The process that is measured by `cargo xtask bench`: what its own system calls cost it, and how it spends a budget.
//!
//! ```text
//! measure calls ROOT SAMPLES [--landlock FILE]   nanoseconds a call, one case a line: NAME SAMPLE SAMPLE …
//! measure tree ROOT RULES                        makes what `calls` opens, and RULES files that only rules are about
//! measure spin threads N | processes N | forks   uses CPU time until somebody ends it
//! measure revoke ROUNDS FILE                     nanoseconds from the request to take a right to FILE back until it is refused,
//!                                                to an agent that opens it, to one that reads it, and until the answer
//! measure refusals open|read FILE                the agent of that: says when it may, and when no more
//! ```
//!
//! The same program runs bare, beside the kernel programs, as an agent, and under Landlock; only what surrounds it
//! differs. A line of FILE is `RIGHTS PATH`, rights of `r`, `w` and `x`. Depth counts the names in the file's path.

#![allow(clippy::disallowed_methods, reason = "a stopwatch")]
#![allow(clippy::print_stdout, reason = "its only output")]

use std::error::Error;
use std::fs::{self, File};
use std::hint::spin_loop;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Depths at which a file is opened.
const DEPTHS: [usize; 3] = [3, 8, 16];
/// Calls in one sample: enough that the clock itself does not count, and few, so that on a busy host most samples are
/// not interrupted.
const OPENS: u32 = 20;

fn main() -> Fallible<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["calls", root, samples, ref how @ ..] => {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            match *how {
                [] => {}
                ["--landlock", rules] => restrict(Path::new(rules), listener.local_addr()?.port())?,
                _ => return Err("calls takes only --landlock FILE".into()),
            }
            calls(Path::new(root), samples.parse()?, &listener)
        }
        ["tree", root, rules] => tree(Path::new(root), rules.parse()?),
        ["spin", "threads", count] => {
            for _ in 1..count.parse::<u32>()? {
                std::thread::spawn(spin);
            }
            spin()
        }
        ["spin", "processes", count] => {
            for _ in 1..count.parse::<u32>()? {
                if child()? {
                    break;
                }
            }
            spin()
        }
        ["spin", "forks"] => forks(),
        ["revoke", rounds, file] => {
            for how in ["open", "read"] {
                revoke(rounds.parse()?, how, file)?;
            }
            Ok(())
        }
        ["refusals", how, file] => refusals(how == "read", Path::new(file)),
        _ => Err("measure calls ROOT SAMPLES [--landlock FILE] | tree ROOT RULES | spin … | revoke ROUNDS FILE".into()),
    }
}

fn spin() -> ! {
    loop {
        spin_loop();
    }
}

/// Forks without end; a few children at a time, each of which is gone within a millisecond or two.
fn forks() -> Fallible<()> {
    let mut alive = 0;
    loop {
        match child() {
            Ok(true) => {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(1) {
                    spin_loop();
                }
                std::process::exit(0);
            }
            Ok(false) => alive += 1,
            // Refused because the budget is spent: uses up what is left like everybody else.
            Err(_) => spin_loop(),
        }
        if alive == 4 {
            nix::sys::wait::wait()?;
            alive -= 1;
        }
    }
}

/// Forks; true in the child.
fn child() -> nix::Result<bool> {
    #![allow(unsafe_code, reason = "std forks only to run another program")]
    // SAFETY: this process has one thread.
    Ok(unsafe { nix::unistd::fork() }?.is_child())
}

/// CLOCK_MONOTONIC, which an agent reads as everybody else does.
fn monotonic() -> Fallible<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?.into())
}

/// Says `on` when a file may be used, and the time at which it may be no more; again and again, until nobody listens.
fn refusals(reads: bool, path: &Path) -> Fallible<()> {
    let mut stdout = std::io::stdout();
    loop {
        let file = loop {
            match File::open(path) {
                Ok(file) => break file,
                Err(_refused) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        writeln!(stdout, "on")?;
        let mut byte = [0];
        while if reads { file.read_at(&mut byte, 0).is_ok() } else { File::open(path).is_ok() } {}
        writeln!(stdout, "{}", monotonic()?.as_nanos())?;
    }
}

/// Lends and takes back, and prints how long the taking back took: to the refusal, and to the answer.
fn revoke(rounds: u32, how: &str, file: &str) -> Fallible<()> {
    let me = std::env::current_exe()?;
    let mut agent = Command::new("agentctl");
    agent.args(["spawn", "--quiet", "--profile", "base", "--cwd", "/srv", "--name", how, "--"]);
    let mut agent = agent.arg(me).args(["refusals", how, file]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(agent.stdout.take().ok_or("no output")?).lines();
    let mut next = || -> Fallible<String> { Ok(lines.next().ok_or("the agent has ended")??) };
    let mut daemon = BufReader::new(UnixStream::connect("/run/agentd/agentd.sock")?);
    let mut ask = |method: &str, params: serde_json::Value| -> Fallible<serde_json::Value> {
        let request = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        daemon.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        daemon.read_line(&mut line)?;
        let mut reply: serde_json::Value = serde_json::from_str(&line)?;
        if reply.get("error").is_some() { Err(line.into()) } else { Ok(reply["result"].take()) }
    };
    let (mut refused, mut answered) = (vec![], vec![]);
    for _ in 0..rounds {
        let lent = ask("capability.grant", serde_json::json!({ "agent": how, "paths": [file], "ops": "read" }))?;
        assert_eq!(next()?, "on");
        std::thread::sleep(Duration::from_millis(5));
        let begin = monotonic()?;
        ask("capability.revoke", serde_json::json!({ "capability": lent["capability"] }))?;
        answered.push((monotonic()? - begin).as_nanos());
        let at = Duration::from_nanos(next()?.parse()?);
        refused.push(at.saturating_sub(begin).as_nanos());
    }
    for (name, times) in [("refused", refused), ("answered", answered)] {
        let times: Vec<String> = times.iter().map(ToString::to_string).collect();
        println!("{how}-{name} {}", times.join(" "));
    }
    let ended = Command::new("agentctl").args(["kill", "--quiet", how]).status()?;
    agent.wait()?;
    if ended.success() { Ok(()) } else { Err("the agent could not be ended".into()) }
}

fn file_at(root: &Path, depth: usize) -> PathBuf {
    let above = root.components().count() - 1;
    let directories = depth.saturating_sub(above + 1);
    let mut path = root.to_owned();
    path.extend((0..directories).map(|level| format!("d{level}")));
    path.join("file")
}

fn tree(root: &Path, rules: u32) -> Fallible<()> {
    for depth in DEPTHS {
        let file = file_at(root, depth);
        fs::create_dir_all(file.parent().unwrap_or(root))?;
        fs::write(file, "")?;
    }
    let directory = root.join("rules");
    fs::create_dir_all(&directory)?;
    for number in 0..rules {
        fs::write(directory.join(number.to_string()), "")?;
    }
    Ok(())
}

fn calls(root: &Path, samples: u32, listener: &TcpListener) -> Fallible<()> {
    let address = listener.local_addr()?;
    let mut cases: Vec<(String, Vec<f64>)> = DEPTHS.map(|depth| (format!("open-{depth}"), vec![])).into();
    cases.extend([("spawn".into(), vec![]), ("connect".into(), vec![])]);
    let files = DEPTHS.map(|depth| file_at(root, depth));
    for _ in 0..samples {
        for (file, (_, times)) in files.iter().zip(&mut cases) {
            times.push(sample(OPENS, || File::open(file).map(drop))?);
        }
        cases[3].1.push(sample(1, || {
            Command::new("/bin/true").stdin(Stdio::null()).status().map(|status| assert!(status.success()))
        })?);
        cases[4].1.push(sample(1, || {
            let client = TcpStream::connect(address)?;
            listener.accept().map(|accepted| drop((client, accepted)))
        })?);
    }
    for (name, times) in cases {
        let times: Vec<String> = times.iter().map(|time| format!("{time:.0}")).collect();
        println!("{name} {}", times.join(" "));
    }
    Ok(())
}

/// Nanoseconds that one call takes, over so many.
fn sample(count: u32, mut call: impl FnMut() -> std::io::Result<()>) -> std::io::Result<f64> {
    let start = Instant::now();
    for _ in 0..count {
        call()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(count))
}

/// What the rules of a file say, for good, in the words of Landlock, and one port to connect to.
fn restrict(rules: &Path, port: u16) -> Fallible<()> {
    let abi = ABI::V4;
    let mut ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(abi))?.handle_access(AccessNet::ConnectTcp)?.create()?;
    for line in fs::read_to_string(rules)?.lines() {
        let (rights, path) = line.split_once(' ').ok_or("a line is RIGHTS PATH")?;
        let mut access: BitFlags<AccessFs> = BitFlags::EMPTY;
        for right in rights.chars() {
            access |= match right {
                'r' => AccessFs::ReadFile | AccessFs::ReadDir,
                'w' => AccessFs::WriteFile | AccessFs::Truncate,
                'x' => AccessFs::Execute.into(),
                _ => return Err("rights are of rwx".into()),
            };
        }
        if !Path::new(path).is_dir() {
            access &= AccessFs::from_file(abi);
        }
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    }
    ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    ruleset.restrict_self()?;
    Ok(())
}
