//! The part of a bench that runs in a machine: this program again, copied in.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Figure, Options, Sink};
use crate::vm::machine::{Job, Stream};
use crate::vm::{self, Level, Machine, Platform};
use crate::{signal, ui};

const LIMIT: Duration = Duration::from_secs(1800);
const PROGRAM: &str = "/usr/local/bin/xtask";

/// Runs `xtask bench --here NAME` in a fresh machine with what was built, and hands its figures on.
pub(super) fn run(
    name: &str,
    options: &Options,
    rounds: usize,
    copies: &[(&Path, &str)],
    sink: Sink<'_>,
) -> Result<()> {
    let platform = Platform::ensure(&options.kernel)?;
    let level = Level::product()?;
    vm::prepare(&platform, &level)?;
    let mut machine = Machine::restore(&platform, &level)?;
    ui::note(format!("machine: Debian's {}", platform.kernel.release));
    machine.copy_in(&std::env::current_exe().context("cannot find this program")?, PROGRAM);
    for (from, to) in copies {
        machine.copy_in(from, to);
    }
    let rounds = rounds.to_string();
    let argv = [PROGRAM, "bench", "--rounds", &rounds, "--here", name].map(str::to_owned).to_vec();
    let said = Mutex::new(Vec::new());
    let status = machine.stream(Job { argv, ..Job::default() }, Some(LIMIT), |stream, bytes| match stream {
        Stream::Out => said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes),
        Stream::Err => ui::pass_err(bytes),
    })?;
    signal::check()?;
    if status != 0 {
        bail!("the part in the machine ended with status {status}");
    }
    let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
    for line in String::from_utf8_lossy(&said).lines() {
        sink(Figure::read(line)?);
    }
    Ok(())
}
