//! `cargo xtask test`: every test, on this host and in machines.
//!
//! Order: tools, build, tests of the workspace, of the sample reducers and of the fuzz targets on this host, then each
//! scenario of the `vm-tests` package on each kernel, in a machine of its own with what was built installed and the daemon
//! running. Two machines run at a time. A scenario is a subcommand of one program, which says itself what it has (`vm-tests
//! list --json`) and on which kernels it makes sense. Real work (`cargo xtask work`) is done on this host and in machines like
//! any other scenario.
//!
//! Nothing is skipped in silence: what did not run is counted and named with its reason.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser};
use serde_json::Value;

use super::build::{self, cargo};
use super::work::in_machine;
use super::{Common, common, help, misuse, setup, sim, string, text};
use crate::clock::Stopwatch;
use crate::demo::GUEST_WASM;
use crate::vm::{self, Level, Machine, Platform, kernels};
use crate::{paths, sh, signal, ui, work};

const HELP: &str = "\
Run the tests.

Usage: cargo xtask test [FILTER] [--native|--vm] [--kernel K] [--fresh]

  FILTER       only scenarios and tests whose name contains it
  --native     only the tests that run on this host
  --vm         only the scenarios in machines
  --kernel K   6.1, 6.12, 7.2 or all (the default)
  --fresh      ignore every cache

The last line counts the scenarios: `N passed, N failed, N skipped`.

Examples:
  cargo xtask test
  cargo xtask test --vm --kernel 6.12 exec
";

/// Machines at a time; each is one emulated processor and a gigabyte.
const MACHINES: usize = 2;
/// A scenario that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(600);
/// The only scenario that needs more than one machine.
const POWER_CUTS: &str = "power_cuts";
const GUEST_PROGRAM: &str = "/usr/lib/agentd-vm/vm-tests";

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) filter: String,
    pub(super) native: bool,
    pub(super) machines: bool,
    pub(super) kernel: String,
}

impl Default for Selection {
    fn default() -> Self {
        Self { filter: String::new(), native: true, machines: true, kernel: "all".into() }
    }
}

/// What came of the scenarios.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Name and reason.
    pub(super) skipped: Vec<String>,
}

/// Runs the command.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let mut selection = Selection::default();
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("native") => selection.machines = false,
            Arg::Long("vm") => selection.native = false,
            Arg::Long("kernel") => selection.kernel = text(&mut words)?,
            Arg::Value(filter) if selection.filter.is_empty() => selection.filter = string(filter)?,
            other => match common(&other, HELP) {
                Some(Common::Help(text)) => return help(text),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    if !selection.native && !selection.machines {
        return Err(misuse("--native and --vm leave nothing to run".into()));
    }
    if selection.kernel != "all" && !kernels::labels().contains(&selection.kernel.as_str()) {
        let known = kernels::labels().join(", ");
        return Err(misuse(format!("no kernel is called {}; there are {known} and all", selection.kernel)));
    }
    signal::listen()?;
    prepare(&selection)?;
    let mut skipped = Vec::new();
    let mut native = if selection.native { native(&selection.filter) } else { Ok(()) };
    if selection.native && native.is_ok() {
        native = work_here(&selection.filter).map(|unable| skipped = unable);
    }
    if let Err(error) = &native {
        ui::error(error);
    }
    let tally = if selection.machines { machines(&selection)? } else { Tally::default() };
    for reason in skipped.iter().chain(&tally.skipped) {
        ui::say(format!("skipped: {reason}"));
    }
    if selection.machines {
        ui::say(format!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len()));
    }
    Ok(if native.is_ok() && tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tools, what is used, and the build.
pub(super) fn prepare(selection: &Selection) -> Result<()> {
    if setup::is_root()? {
        let plan = setup::Plan { machines: selection.machines, dry_run: false };
        if setup::perform(plan)? != ExitCode::SUCCESS {
            bail!("the machine is not set up");
        }
    } else if selection.machines {
        for line in vm::summary()? {
            ui::say(line);
        }
    }
    build::everything()
}

/// The tests of the workspace, of the sample reducers and of the fuzz targets on this host.
pub(super) fn native(filter: &str) -> Result<()> {
    let filter = Some(filter).filter(|filter| !filter.is_empty());
    ui::step("cargo test --workspace", || sh::run(cargo().args(["test", "--quiet", "--workspace"]).args(filter)))?;
    sim::seeds()?;
    ui::step("cargo test the sample reducers", || {
        let mut test = cargo();
        test.current_dir(build::samples()).args(["test", "--quiet", "--locked"]);
        sh::run(test.arg("--target-dir").arg(paths::target().join("wasm/build")).args(filter))
    })?;
    ui::step("cargo test the fuzz targets", || {
        let mut test = cargo();
        test.current_dir(paths::root().join("fuzz")).args(["test", "--quiet", "--locked"]);
        sh::run(test.arg("--target-dir").arg(paths::target().join("fuzz")).args(filter))
    })
}

/// Real work on this host. What did not work is printed; what could not be tried is given back.
fn work_here(filter: &str) -> Result<Vec<String>> {
    let root = setup::is_root()?;
    let (mut able, mut unable) = (Vec::new(), Vec::new());
    for job in work::chosen(filter) {
        match work::missing(job.tools).or_else(|| (!root).then(|| "agentd needs root".to_owned())) {
            None => able.push(job),
            Some(reason) => unable.push(format!("work: {} on this host: {reason}", job.name)),
        }
    }
    let failed = if able.is_empty() { 0 } else { work::on_this_host(&able)? };
    if failed > 0 {
        bail!("{failed} jobs of real work were hindered on this host");
    }
    Ok(unable)
}

/// A scenario or a job on one kernel.
struct Case {
    what: What,
    kernel: String,
}

enum What {
    Scenario(String),
    PowerCuts,
    Work(&'static work::Job),
}

impl Case {
    fn name(&self) -> String {
        match &self.what {
            What::Scenario(name) => name.clone(),
            What::PowerCuts => POWER_CUTS.into(),
            What::Work(job) => format!("work: {}", job.name),
        }
    }
}

/// The scenarios in machines.
pub(super) fn machines(selection: &Selection) -> Result<Tally> {
    let program = ui::step("build the scenarios", build_scenarios)?;
    let (cases, skipped) = choose(&program, selection)?;
    let mut labels: Vec<&str> = cases.iter().map(|case| case.kernel.as_str()).collect();
    labels.dedup();
    let level = Level::product()?;
    let mut platforms = Vec::new();
    for label in labels {
        let platform = Platform::ensure(label)?;
        vm::prepare(&platform, &level)?;
        platforms.push(platform);
    }
    let queue = Mutex::new(VecDeque::from(cases));
    let tally = Mutex::new(Tally { skipped, ..Tally::default() });
    thread::scope(|scope| {
        for _ in 0..MACHINES {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
                    let Some(case) = next.filter(|_| !signal::pending()) else { return };
                    let passed = report(&case, &platforms, &level, &program);
                    let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if passed { tally.passed += 1 } else { tally.failed += 1 }
                }
            });
        }
    });
    signal::check()?;
    Ok(tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn build_scenarios() -> Result<PathBuf> {
    sh::run(cargo().args(["build", "--quiet", "--release", "-p", "vm-tests"]))?;
    let program = paths::target().join("release/vm-tests");
    if !program.is_file() {
        bail!("the package vm-tests builds no program of that name");
    }
    Ok(program)
}

/// Cases in the order of the kernel table, and what is left out with the reason.
fn choose(program: &Path, selection: &Selection) -> Result<(Vec<Case>, Vec<String>)> {
    let listing = sh::output(sh::command(&program.to_string_lossy()).args(["list", "--json"]))
        .context("vm-tests does not say what scenarios it has")?;
    let mut rows: Vec<Value> = Vec::new();
    for line in listing.lines() {
        rows.push(serde_json::from_str(line).with_context(|| format!("vm-tests lists {line:?}, which is not JSON"))?);
    }
    let (mut cases, mut skipped) = (Vec::new(), Vec::new());
    for label in kernels::labels() {
        if selection.kernel != "all" && selection.kernel != label {
            continue;
        }
        for row in &rows {
            let name = row["name"].as_str().context("vm-tests lists a scenario without a name")?;
            if !name.contains(&selection.filter) {
                continue;
            }
            let on: Vec<&str> = row["kernels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if on.is_empty() || on.contains(&label) || on.contains(&"all") {
                cases.push(Case { what: What::Scenario(name.into()), kernel: label.into() });
            } else {
                skipped.push(format!("{name} on {label}: only for {}", on.join(", ")));
            }
        }
        if POWER_CUTS.contains(&selection.filter) {
            cases.push(Case { what: What::PowerCuts, kernel: label.into() });
        }
        let wanted = |job: &&work::Job| job.everywhere || label == kernels::DEFAULT;
        for job in work::chosen(&selection.filter).into_iter().filter(wanted) {
            match work::missing(job.tools) {
                None => cases.push(Case { what: What::Work(job), kernel: label.into() }),
                Some(reason) => skipped.push(format!("work: {} on {label}: {reason}", job.name)),
            }
        }
    }
    Ok((cases, skipped))
}

/// Runs a case and prints its line.
fn report(case: &Case, platforms: &[Platform], level: &Level, program: &Path) -> bool {
    let watch = Stopwatch::start();
    let outcome = run_case(case, platforms, level, program);
    let passed = matches!(&outcome, Ok(output) if output.status == 0);
    let word = if passed { "ok  " } else { "FAIL" };
    let mut text = format!("{word} {:>4}  {} ({watch})", case.kernel, case.name());
    match outcome {
        Ok(output) if !passed => {
            let lines: Vec<&str> = output.text.lines().collect();
            for line in &lines[lines.len().saturating_sub(30)..] {
                text += &format!("\n        {line}");
            }
            text += &format!("\n        status {}", output.status);
        }
        Err(error) => text += &format!("\n        {error:#}").replace('\n', "\n        "),
        Ok(_) => {}
    }
    ui::say(text);
    passed
}

/// Puts in the scenarios, and what worlds are made of: the sample reducers with their definitions.
fn equip(machine: &mut Machine, program: &Path) -> Result<()> {
    machine.copy_in(program, GUEST_PROGRAM);
    let folder = paths::target().join("wasm");
    for item in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = item.context("cannot list the sample reducers")?.path();
        if let (Some("wasm" | "json"), Some(name)) = (path.extension().and_then(|e| e.to_str()), path.file_name()) {
            machine.copy_in(&path, &format!("{GUEST_WASM}/{}", name.to_string_lossy()));
        }
    }
    Ok(())
}

fn run_case(case: &Case, platforms: &[Platform], level: &Level, program: &Path) -> Result<vm::Output> {
    let platform = platforms.iter().find(|platform| platform.kernel.label == case.kernel);
    let platform = platform.context("a case names a kernel without a platform")?;
    match &case.what {
        What::PowerCuts => vm::power::cuts(platform, level, GUEST_PROGRAM, |machine| equip(machine, program)),
        What::Scenario(name) => {
            let mut machine = Machine::restore(platform, level)?;
            equip(&mut machine, program)?;
            machine.run(&[GUEST_PROGRAM, "run", name], LIMIT)
        }
        What::Work(job) => {
            let text = Mutex::new(Vec::new());
            let hear = |bytes: &[u8]| {
                text.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
            };
            let status = in_machine(platform, level, job, hear)?;
            let text = text.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            Ok(vm::Output { status, text: String::from_utf8_lossy(&text).into_owned() })
        }
    }
}
