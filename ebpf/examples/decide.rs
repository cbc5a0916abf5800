//! `bench decide`: what does one decision cost on this host?
//!
//! Prints one JSON object a line. Runs the programs' own decision through test-run over a file that is 14 levels below
//! the rule, cached and by walking, with few and with ten thousand rules. Needs root and BTF, not BPF LSM. One run asks
//! 20,000 times; p50 and p99 are over runs, which are all told as well.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use agentd_abi::{Agent, NEVER, READ, Rule, RuleKey};
use agentd_ebpf::{Identifier, Trial};

const NUMBER: u32 = 7;
const ROUNDS: u64 = 20_000;
const RUNS: usize = 41;
/// Directories between the rule's and the file: 14 levels are looked at.
const BELOW: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::temp_dir().join(format!("agentd-decide-{}", std::process::id()));
    let mut deep = base.clone();
    for level in 0..BELOW {
        deep.push(format!("d{level}"));
    }
    fs::create_dir_all(&deep)?;
    let file = deep.join("file");
    fs::write(&file, "")?;
    let file = fs::File::open(file)?;
    let object = Identifier::load()?.identify(&[fs::File::open(&base)?.as_fd()])?[0].object;

    let cases = [
        ("cached", false, 10, 50),
        ("walk-14", true, 10, 320),
        ("cached-10k", false, 10_000, 50),
        ("walk-14-10k", true, 10_000, 320),
    ];
    for (case, walk, rules, bound) in cases {
        let runs = measure(&file, walk, rules, (object.dev, object.ino))?;
        let (p50, p99) = (runs[RUNS / 2], runs[RUNS * 99 / 100]);
        writeln!(
            std::io::stdout(),
            "{{\"bench\":\"decide\",\"case\":\"{case}\",\"unit\":\"ns\",\"p50\":{p50:.1},\"p99\":{p99:.1},\"n\":{RUNS},\
             \"peer\":null,\"peer_p50\":null,\"ratio\":null,\"bound\":{bound},\"runs\":{runs:.1?}}}"
        )?;
    }
    fs::remove_dir_all(&base)?;
    Ok(())
}

fn measure(file: &fs::File, walk: bool, rules: u64, (dev, ino): (u32, u64)) -> Result<Vec<f64>, Box<dyn Error>> {
    let trial = Trial::load(walk)?;
    let agent = Agent { number: NUMBER, generation: rules, ..Default::default() };
    trial.put_agent(&agent, own_pidfd()?.as_fd())?;
    let allow = Rule { allow: READ, allow_id: 1, expires_ns: NEVER, ..Default::default() };
    trial.put_rule(&RuleKey { agent: NUMBER, dev, ino }, &allow)?;
    for other in 1..rules {
        trial.put_rule(&RuleKey { agent: NUMBER, dev: u32::MAX - 9, ino: other }, &allow)?;
    }
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let (time, allowed) = trial.measure(file.as_fd(), ROUNDS, READ)?;
        if !allowed {
            return Err("the decision that is measured is a refusal".into());
        }
        times.push(time.as_nanos() as f64 / ROUNDS as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn own_pidfd() -> Result<OwnedFd, Box<dyn Error>> {
    pidfd::own()
}

/// The pidfd of this process.
mod pidfd {
    #![allow(unsafe_code, reason = "neither std nor nix opens a pidfd")]
    use super::*;

    pub(super) fn own() -> Result<OwnedFd, Box<dyn Error>> {
        // SAFETY: pidfd_open takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        // SAFETY: the descriptor was just made for us.
        Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
    }
}
