//! What do the system calls of everybody else cost, and those of an agent?
//!
//! One machine, in which the same program (`agentd/examples/measure.rs`) makes the same calls under each condition, turn
//! by turn. The machine is emulated: a figure alone means nothing, a ratio within a turn does.
//!
//! | condition | |
//! |---|---|
//! | none | no program of ours is in the kernel |
//! | unconfined | the daemon runs, all its programs are attached, the caller is no agent |
//! | confined | the caller is an agent, spawned as a user would (profile `base`); its decisions are cached |
//! | confined-1k | the same with a thousand rules more |
//! | walk | identity and rules of an agent without the daemon (`ebpf/examples/confine.rs`), and no cache: every open walks |
//! | landlock, landlock-1k | no program of ours; Landlock with the rules of `confined` that it can express |

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::figure::{Bound, Series};
use super::{Figure, Options, Sink, machine, program};
use crate::clock::Deadline;
use crate::{sh, signal};

const ROUNDS: usize = 6;
/// Samples of each call in a turn.
const SAMPLES: &str = "60";
const CALLS: [&str; 5] = ["open-3", "open-8", "open-16", "spawn", "connect"];

const MEASURE: &str = "/usr/local/bin/measure";
const CONFINE: &str = "/usr/local/bin/confine";
/// Where the files are that are opened; the rule is on it. Of depth 2.
const TREE: &str = "/srv/btrfs";
const MORE_RULES: usize = 1000;
/// What both kinds of rules let a program have besides.
const SYSTEM: [(&str, &str); 10] = [
    ("rx", "/usr"),
    ("rx", "/opt"),
    ("r", "/etc"),
    ("rw", "/dev/null"),
    ("rw", "/dev/zero"),
    ("rw", "/dev/urandom"),
    ("rw", "/dev/shm"),
    ("rw", "/proc"),
    ("rw", "/tmp"),
    ("r", "/sys/devices/system/cpu"),
];

pub(super) fn run(options: &Options, sink: Sink<'_>) -> Result<()> {
    if !options.machine {
        bail!("system calls are measured in a machine, and --no-vm forbids one");
    }
    let (measure, confine) = (program("measure")?, program("confine")?);
    let copies = [(measure.as_path(), MEASURE), (confine.as_path(), CONFINE)];
    machine::run("syscalls", options, options.rounds.unwrap_or(ROUNDS), &copies, sink)
}

/// Times by condition and call.
type Times = BTreeMap<(&'static str, String), Series>;

/// In the machine.
pub(super) fn here(options: &Options, sink: Sink<'_>) -> Result<()> {
    sh::quiet(Command::new(MEASURE).args(["tree", TREE, &MORE_RULES.to_string()]))?;
    let more: Vec<String> = (0..MORE_RULES).map(|number| format!("{TREE}/rules/{number}")).collect();
    let few_rules = rules("/run/few.rules", &[])?;
    let many_rules = rules("/run/many.rules", &more)?;
    let (few, many) = (profile("/run/few.toml", &[])?, profile("/run/many.toml", &more)?);
    limit_as_the_unit_does()?;
    let mut times = Times::new();
    for _ in 0..options.rounds.unwrap_or(ROUNDS) {
        signal::check()?;
        take(&mut times, "unconfined", measure())?;
        take(&mut times, "confined", as_agent(&few))?;
        take(&mut times, "confined-1k", as_agent(&many))?;
        stop_daemon()?;
        take(&mut times, "none", measure())?;
        take(&mut times, "landlock", with(measure(), &["--landlock", &few_rules]))?;
        take(&mut times, "landlock-1k", with(measure(), &["--landlock", &many_rules]))?;
        take(&mut times, "walk", walking())?;
        sh::quiet(Command::new(CONFINE).arg("--unpin"))?;
        sh::quiet(&mut Command::new("/usr/lib/agentd-vm/start-agentd"))?;
        limit_as_the_unit_does()?;
    }
    tell(&times, sink)
}

/// What the bounds are about: confined no slower than Landlock from depth 8 on and with many rules, everybody else as
/// without us.
fn tell(times: &Times, sink: Sink<'_>) -> Result<()> {
    let series = |condition: &'static str, call: &str| {
        times.get(&(condition, call.to_owned())).with_context(|| format!("{call} was not measured {condition}"))
    };
    for call in CALLS {
        let none = series("none", call)?;
        let mut figure = |condition: &'static str, peer: &'static str, bound: Bound| -> Result<()> {
            let figure = Figure::new("syscalls", &format!("{call}/{condition}"), "us", series(condition, call)?, bound);
            sink(figure.beside(peer, series(peer, call)?));
            Ok(())
        };
        // Noise is what half of the samples of `none` itself differ by.
        figure("unconfined", "none", Bound::Ratio(none.at(0.75) / none.at(0.25)))?;
        let deep = matches!(call, "open-8" | "open-16");
        let bound = |binds: bool| if binds { Bound::Ratio(1.0) } else { Bound::None };
        figure("confined", "landlock", bound(deep))?;
        figure("confined-1k", "landlock-1k", bound(deep))?;
        figure("walk", "landlock", Bound::None)?;
        figure("landlock", "none", Bound::None)?;
    }
    Ok(())
}

fn measure() -> Command {
    with(Command::new(MEASURE), &["calls", TREE, SAMPLES])
}

fn with(mut command: Command, words: &[&str]) -> Command {
    command.args(words);
    command
}

fn as_agent(profile: &str) -> Command {
    let mut spawn = Command::new("agentctl");
    spawn.args(["spawn", "--quiet", "--profile", profile, "--cwd", TREE]);
    spawn.args(["--net", "loopback", "--net", "bind:loopback", "--", MEASURE, "calls", TREE, SAMPLES]);
    spawn
}

fn walking() -> Command {
    let mut confine = Command::new(CONFINE);
    confine.arg("--no-cache").args(SYSTEM.map(|(rights, path)| format!("+{rights}:{path}")));
    confine.arg(format!("+r:{TREE}")).args(["--", MEASURE, "calls", TREE, SAMPLES]);
    confine
}

/// Writes a profile: `base`, the tree, and so many rules more.
fn profile(to: &str, more: &[String]) -> Result<String> {
    let paths: Vec<String> =
        std::iter::once(TREE).chain(more.iter().map(String::as_str)).map(|p| format!("{p:?}")).collect();
    let head = "name = \"bench\"\nabout = \"for measuring\"\nextends = [\"base\"]\n";
    let text = format!("{head}\n[[files]]\npath = [{}]\nallow = \"read\"\n", paths.join(", "));
    fs::write(to, text).with_context(|| format!("cannot write {to}"))?;
    Ok(to.to_owned())
}

/// The daemon in a machine runs without systemd; the unit gives it the open files that a thousand rules need.
fn limit_as_the_unit_does() -> Result<()> {
    sh::quiet(Command::new("prlimit").args(["--nofile=65536:65536", "--pid", &daemon()?]))
}

fn daemon() -> Result<String> {
    let lock = fs::read_to_string("/run/agentd/agentd.lock").context("agentd does not run")?;
    Ok(lock.trim().to_owned())
}

/// Writes rules as `measure` reads them.
fn rules(to: &str, more: &[String]) -> Result<String> {
    let mut text: String = SYSTEM.iter().map(|(rights, path)| format!("{rights} {path}\n")).collect();
    text += &format!("r {TREE}\n");
    text.extend(more.iter().map(|path| format!("r {path}\n")));
    fs::write(to, text).with_context(|| format!("cannot write {to}"))?;
    Ok(to.to_owned())
}

/// Runs it and keeps what it says, in microseconds.
fn take(times: &mut Times, condition: &'static str, mut command: Command) -> Result<()> {
    let said = sh::output(&mut command).with_context(|| format!("cannot measure {condition}"))?;
    for line in said.lines() {
        let mut words = line.split(' ');
        let call = words.next().unwrap_or_default();
        let samples = words.map(|word| word.parse::<f64>().map(|nanoseconds| nanoseconds / 1e3));
        let samples: Vec<f64> = samples.collect::<Result<_, _>>().with_context(|| format!("{line:?} is no samples"))?;
        times.entry((condition, call.to_owned())).or_default().extend(samples);
    }
    Ok(())
}

/// Ends the daemon and takes its programs out.
fn stop_daemon() -> Result<()> {
    let pid = daemon()?;
    let process = Path::new("/proc").join(&pid);
    sh::quiet(Command::new("kill").arg(&pid))?;
    let deadline = Deadline::after(Duration::from_secs(30));
    // The last agent may still be on its way out, and nothing is unloaded before it has gone.
    while process.exists() || !unloaded() {
        if deadline.passed() {
            bail!("agentd does not end, or its programs cannot be taken out");
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn unloaded() -> bool {
    sh::succeeds(Command::new("agentd").arg("--unload").stdin(Stdio::null()))
}
