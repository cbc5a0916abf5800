//! The process that is measured by `cargo xtask bench`: what its own system calls cost it, and how it spends a budget.
//!
//! ```text
//! measure calls ROOT SAMPLES [--landlock FILE]   nanoseconds a call, one case a line: NAME SAMPLE SAMPLE …
//! measure tree ROOT RULES                        makes what `calls` opens, and RULES files that only rules are about
//! measure spin threads N | processes N | forks   uses CPU time until somebody ends it
//! ```
//!
//! The same program runs bare, beside the kernel programs, as an agent, and under Landlock; only what surrounds it
//! differs. A line of FILE is `RIGHTS PATH`, rights of `r`, `w` and `x`. Depth counts the names in the file's path.

#![allow(clippy::disallowed_methods, reason = "a stopwatch")]
#![allow(clippy::print_stdout, reason = "its only output")]

use std::error::Error;
use std::fs::{self, File};
use std::hint::{black_box, spin_loop};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Depths at which a file is opened.
const DEPTHS: [usize; 3] = [3, 8, 16];
/// Calls in one sample, so that the clock itself does not count.
const OPENS: u32 = 100;
const CONNECTS: u32 = 4;

fn main() -> Fallible<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["calls", root, samples] => calls(Path::new(root), samples.parse()?),
        ["calls", root, samples, "--landlock", rules] => {
            restrict(Path::new(rules))?;
            calls(Path::new(root), samples.parse()?)
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
                Command::new("/proc/self/exe").args(["spin", "threads", "1"]).spawn()?;
            }
            spin()
        }
        ["spin", "forks"] => loop {
            // Each lives for some milliseconds, less than a tick or two: nobody is there to be stopped for long.
            let _ = Command::new("/proc/self/exe").args(["spin", "briefly"]).status();
        },
        ["spin", "briefly"] => {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(3) {
                spin_loop();
            }
            Ok(())
        }
        _ => Err("measure calls ROOT SAMPLES [--landlock FILE] | tree ROOT RULES | spin …".into()),
    }
}

fn spin() -> Fallible<()> {
    loop {
        black_box(spin_loop());
    }
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

fn calls(root: &Path, samples: u32) -> Fallible<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
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
        cases[4].1.push(sample(CONNECTS, || {
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

/// What the rules of a file say, for good, in the words of Landlock; connections to the loopback as well.
fn restrict(rules: &Path) -> Fallible<()> {
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
    // Landlock has no ranges of ports: the ephemeral ones, one by one, would be 28,000 rules. A few stand for them.
    for port in [80, 443, 8080] {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    ruleset.restrict_self()?;
    Ok(())
}
