//! `cargo xtask vm`: a command, or a person, in a fresh virtual machine.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser};

use super::{Common, common, help, misuse, string, text, usage};
use crate::clock::{self, Stopwatch};
use crate::vm::machine::{Job, Stream};
use crate::vm::{self, Level, Machine, Platform, kernels};
use crate::{paths, sh, signal, ui};

const HELP: &str = "\
Run something in a fresh virtual machine.

Usage: cargo xtask vm exec [OPTIONS] -- COMMAND…   run it as root; its output and status are passed on
       cargo xtask vm shell [OPTIONS]              a root shell for people
       cargo xtask vm info                         what the machines are made of
       cargo xtask vm clean [--all]                remove images and templates that are not used now

In the machine, what was last built is installed and agentd runs. Changes are gone when it ends. There is a user
`dev` (uid 1000, in group agentd), a btrfs disk at /srv/btrfs, no network but loopback.

  --kernel K         6.1, 6.12 (default), 7.2 or all
  --bare             only the operating system: nothing of this project
  --cold             boot instead of starting from the saved machine
  --copy HOST:GUEST  copy a file or folder in (again and again)
  --env NAME=VALUE   set a variable for the command (again and again)
  --timeout SECONDS  end the machine then; the status is 124

If the machine itself fails, the status is 125.

Examples:
  cargo xtask vm exec -- agentctl doctor
  cargo xtask vm exec --kernel all --bare -- uname -r
  cargo xtask vm exec --copy target/release/probe:/tmp/probe -- sh -c '/tmp/probe | tail -1'
  cargo xtask vm shell --kernel 7.2
";

/// What was asked for.
struct Options {
    kernel: String,
    bare: bool,
    cold: bool,
    job: Job,
    timeout: Option<Duration>,
}

/// Dispatches the verbs.
pub(super) fn run(mut words: Parser) -> Result<ExitCode> {
    let verb = match words.next()? {
        None => return usage(HELP),
        Some(Arg::Value(verb)) => string(verb)?,
        Some(arg) => match common(&arg, HELP) {
            Some(Common::Help(text)) => return help(text),
            _ => return Err(arg.unexpected().into()),
        },
    };
    let parse = match verb.as_str() {
        "clean" => return clean(words),
        "exec" | "shell" | "info" => parse(words)?,
        other => return Err(misuse(format!("no machine command is called {other}; see `cargo xtask vm --help`"))),
    };
    let Some(options) = parse else { return help(HELP) };
    signal::listen()?;
    match verb.as_str() {
        "info" => {
            ui::say(format!("{:#}", vm::describe()?));
            Ok(ExitCode::SUCCESS)
        }
        "exec" if options.job.argv.is_empty() => usage(HELP),
        "exec" => exec(&options),
        _ => shell(&options),
    }
}

fn parse(mut words: Parser) -> Result<Option<Options>> {
    let kernel = kernels::DEFAULT.to_owned();
    let mut options = Options { kernel, bare: false, cold: false, job: Job::default(), timeout: None };
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("kernel") => options.kernel = text(&mut words)?,
            Arg::Long("bare") => options.bare = true,
            Arg::Long("cold") => options.cold = true,
            Arg::Long("timeout") => {
                let seconds = text(&mut words)?;
                options.timeout = Some(Duration::from_secs_f64(seconds.parse().context("--timeout takes seconds")?));
            }
            Arg::Long("copy") => {
                let pair = text(&mut words)?;
                let (from, to) = pair.split_once(':').context("--copy takes HOST:GUEST")?;
                if !to.starts_with('/') {
                    return Err(misuse(format!("--copy needs an absolute path in the machine, not {to:?}")));
                }
                options.job.copies.push((PathBuf::from(from), to.to_owned()));
            }
            Arg::Long("env") => {
                let pair = text(&mut words)?;
                let (name, value) = pair.split_once('=').context("--env takes NAME=VALUE")?;
                options.job.env.push((name.to_owned(), value.to_owned()));
            }
            // Everything from the first plain word on is the command, whether or not `--` came before it.
            Arg::Value(first) => {
                options.job.argv.push(string(first)?);
                for word in words.raw_args()? {
                    options.job.argv.push(string(word)?);
                }
            }
            other => match common(&other, HELP) {
                Some(Common::Help(_)) => return Ok(None),
                Some(Common::Taken) => {}
                None => return Err(other.unexpected().into()),
            },
        }
    }
    let known = kernels::labels();
    if options.kernel != "all" && !known.contains(&options.kernel.as_str()) {
        return Err(misuse(format!("no kernel is called {}; there are {} and all", options.kernel, known.join(", "))));
    }
    Ok(Some(options))
}

fn exec(options: &Options) -> Result<ExitCode> {
    if options.kernel != "all" {
        let status = exec_on(&options.kernel, options, |stream, bytes| match stream {
            Stream::Out => ui::pass_out(bytes),
            Stream::Err => ui::pass_err(bytes),
        })?;
        return Ok(ExitCode::from(status));
    }
    let mut first = 0;
    for label in kernels::labels() {
        let lines = Prefixed::new(label);
        let status = exec_on(label, options, |stream, bytes| lines.add(stream, bytes))?;
        lines.finish();
        if first == 0 {
            first = status;
        }
    }
    Ok(ExitCode::from(first))
}

fn exec_on(label: &str, options: &Options, sink: impl Fn(Stream, &[u8]) + Sync) -> Result<u8> {
    let platform = Platform::ensure(label)?;
    let level = level(options)?;
    // The clock starts when everything that is made once exists.
    if !options.cold {
        vm::prepare(&platform, &level)?;
    }
    let watch = Stopwatch::start();
    let mut machine = start(&platform, &level, options.cold)?;
    let started = watch.elapsed();
    let status = machine.stream(options.job.clone(), options.timeout, sink)?;
    drop(machine);
    let over =
        if status == 124 && options.timeout.is_some_and(|limit| watch.elapsed() >= limit) { ", time over" } else { "" };
    let how = if options.cold { "booted" } else { "restored" };
    ui::note(format!(
        "vm: {} ({label}), status {status}{over}, {how} in {:.2} s, {:.2} s in all",
        platform.kernel.release,
        started.as_secs_f64(),
        watch.elapsed().as_secs_f64()
    ));
    Ok(status)
}

fn level(options: &Options) -> Result<Level> {
    if options.bare { Ok(Level::Bare) } else { Level::product() }
}

fn start(platform: &Platform, level: &Level, cold: bool) -> Result<Machine> {
    if !cold {
        return Machine::restore(platform, level);
    }
    let mut machine = Machine::boot(platform)?;
    if let Level::Product(product) = level {
        vm::install(&mut machine, product)?;
    }
    Ok(machine)
}

fn shell(options: &Options) -> Result<ExitCode> {
    if !std::io::stdin().is_terminal() {
        bail!("a shell needs a terminal; use `cargo xtask vm exec` in scripts");
    }
    let label = if options.kernel == "all" { kernels::DEFAULT } else { &options.kernel };
    let platform = Platform::ensure(label)?;
    let mut machine = start(&platform, &level(options)?, options.cold)?;
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".into());
    let size = stty(&["size"])?;
    let (rows, columns) = size.trim().split_once(' ').unwrap_or(("24", "80"));
    let request = format!("terminal {:.6} {rows} {columns} {term}", clock::unix_seconds());
    ui::note(format!("vm: {} ({label}); leave with `exit`", platform.kernel.release));
    let saved = stty(&["-g"])?;
    stty(&["raw", "-echo"])?;
    let status = machine.shell(&request, serve);
    stty(&[saved.trim()])?;
    Ok(ExitCode::from(status?))
}

/// Copies between our terminal and the machine's until the shell ends.
fn serve(terminal: &UnixStream, done: &AtomicBool) {
    let Ok(mut to_guest) = terminal.try_clone() else { return };
    // Blocks in a read of the keyboard, so it cannot be joined; it ends with the process.
    std::thread::spawn(move || {
        let Ok(mut keyboard) = File::open("/dev/tty") else { return };
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = keyboard.read(&mut buffer) {
            if to_guest.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    let mut from_guest = terminal;
    let _ = from_guest.set_read_timeout(Some(Duration::from_millis(20)));
    let mut buffer = [0; 16 << 10];
    loop {
        let last = done.load(Ordering::Relaxed);
        match from_guest.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => ui::pass_out(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) && !last => {}
            Err(_) => return,
        }
    }
}

fn stty(words: &[&str]) -> Result<String> {
    let done = Command::new("stty").args(words).stdin(Stdio::inherit()).output().context("cannot start stty")?;
    if !done.status.success() {
        bail!("stty refuses {}", words.join(" "));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn clean(mut words: Parser) -> Result<ExitCode> {
    let mut all = false;
    while let Some(arg) = words.next()? {
        match arg {
            Arg::Long("all") => all = true,
            _ => return help(HELP),
        }
    }
    let gone = vm::clean(all)?;
    for entry in &gone {
        ui::say(format!("removed {}", entry.display()));
    }
    let cache = paths::cache()?;
    let size = sh::output(Command::new("du").args(["-sh"]).arg(&cache))?;
    ui::say(format!("{} removed; the cache holds {}", gone.len(), size.trim()));
    Ok(ExitCode::SUCCESS)
}

/// Puts the kernel's name before every line, whole lines at a time.
struct Prefixed {
    label: String,
    open: Mutex<[Vec<u8>; 2]>,
}

impl Prefixed {
    fn new(label: &str) -> Self {
        Self { label: format!("{label:>4} | "), open: Mutex::default() }
    }

    fn add(&self, stream: Stream, bytes: &[u8]) {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let line = &mut open[usize::from(stream == Stream::Err)];
        line.extend_from_slice(bytes);
        while let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            let whole: Vec<u8> = line.drain(..=end).collect();
            self.print(stream, &whole);
        }
    }

    /// Prints what is left without an end of line.
    fn finish(&self) {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (index, stream) in [Stream::Out, Stream::Err].into_iter().enumerate() {
            if !open[index].is_empty() {
                let mut rest = std::mem::take(&mut open[index]);
                rest.push(b'\n');
                self.print(stream, &rest);
            }
        }
    }

    fn print(&self, stream: Stream, line: &[u8]) {
        let whole = [self.label.as_bytes(), line].concat();
        match stream {
            Stream::Out => ui::pass_out(&whole),
            Stream::Err => ui::pass_err(&whole),
        }
    }
}
