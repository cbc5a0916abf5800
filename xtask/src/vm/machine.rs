//! A running machine.
//!
//! ```text
//! launch ─▶ (boot: wait for READY | restore: load the template's state) ─▶ run, run, … ─▶ drop
//! ```
//!
//! Dropping it ends QEMU and removes its sockets and disks. If this process is killed, the kernel ends QEMU, and the next
//! run of this tool removes the files.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Platform;
use super::guest::Control;
pub(crate) use super::guest::Job;
use super::power;
use super::qemu::{self, Files, Memory};
use super::qmp::Qmp;
use super::template::{self, Level, Template};
use crate::clock::Deadline;
use crate::store::{self, Scratch};
use crate::{sh, signal};

/// How long a cold boot may take; an emulated one on a busy host needs half a minute.
const BOOT: Duration = Duration::from_secs(180);

/// The disk that can be handed on, in the scratch directory.
const DATA: &str = "data.img";

/// A machine that waits for commands.
pub(crate) struct Machine {
    child: Child,
    pub(super) qmp: Qmp,
    pub(super) control: Control,
    out: UnixStream,
    err: UnixStream,
    terminal: UnixStream,
    copies: Vec<(std::path::PathBuf, String)>,
    scratch: Scratch,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit status; 124 if its time was over, as timeout(1) has it.
    pub(crate) status: u8,
    /// What it printed, both streams as they came.
    pub(crate) text: String,
}

/// How a command ended whose machine was to lose its power.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Before that.
    ByItself(Output),
    /// With it; what it had printed to standard output.
    Cut(String),
}

/// Which of its two streams a command wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

impl Machine {
    /// A fresh machine of this kernel from its template, which is made if it is not there.
    pub(crate) fn restore(platform: &Platform, level: &Level) -> Result<Self> {
        Self::restore_with(platform, level, None)
    }

    /// The same, with a disk that another machine has left behind.
    pub(super) fn restore_with(platform: &Platform, level: &Level, data: Option<&Path>) -> Result<Self> {
        let template = template::ensure(platform, level)?;
        let scratch = store::scratch("vm")?;
        if let Some(data) = data {
            power::hand_on(data, &scratch.path().join(DATA))?;
        }
        Self::restore_in(platform, &template, Memory::Private, scratch)
    }

    /// Boots without a template.
    pub(crate) fn boot(platform: &Platform) -> Result<Self> {
        let scratch = store::scratch("vm")?;
        let ram = scratch.path().join("ram");
        sparse(&ram, qemu::MEMORY)?;
        Self::boot_with(platform, scratch, &ram, Memory::Private)
    }

    pub(super) fn boot_with(platform: &Platform, scratch: Scratch, ram: &Path, memory: Memory) -> Result<Self> {
        let disk = scratch.path().join("btrfs.img");
        sparse(&disk, qemu::BTRFS_DISK)?;
        sh::quiet(sh::command("mkfs.btrfs").args(["-q", "-f"]).arg(&disk))?;
        let mut machine = Self::launch(platform, scratch, ram, memory, false)?;
        match machine.control.wait("READY", Some(Deadline::after(BOOT))) {
            Ok(Some(_)) => Ok(machine),
            Ok(None) => Err(machine.with_console(anyhow::anyhow!("the machine did not start within {BOOT:?}"))),
            Err(error) => Err(machine.with_console(error)),
        }
    }

    pub(super) fn restore_from(platform: &Platform, template: &Template, memory: Memory) -> Result<Self> {
        Self::restore_in(platform, template, memory, store::scratch("vm")?)
    }

    fn restore_in(platform: &Platform, template: &Template, memory: Memory, scratch: Scratch) -> Result<Self> {
        copy_sparse(&template.btrfs(), &scratch.path().join("btrfs.img"))?;
        let ram = match memory {
            Memory::Private => template.ram(),
            Memory::Written => {
                let ram = scratch.path().join("ram");
                copy_sparse(&template.ram(), &ram)?;
                ram
            }
        };
        let mut machine = Self::launch(platform, scratch, &ram, memory, true)?;
        machine.qmp.load(&template.state()).map_err(|error| machine.with_console(error))?;
        machine.qmp.ask("cont", json!({}))?;
        Ok(machine)
    }

    fn launch(platform: &Platform, scratch: Scratch, ram: &Path, memory: Memory, incoming: bool) -> Result<Self> {
        signal::check()?;
        sparse(&scratch.path().join("job.img"), qemu::JOB_DISK)?;
        if !scratch.path().join(DATA).exists() {
            sparse(&scratch.path().join(DATA), qemu::DATA_DISK)?;
        }
        let files = Files {
            kernel: &platform.kernel.image,
            initrd: &platform.initrd,
            root: &platform.image.disk,
            ram,
            dir: scratch.path(),
        };
        let log = File::create(scratch.path().join("qemu.log")).context("cannot create QEMU's log")?;
        let mut program = platform.qemu.program();
        program.args(qemu::arguments(&files, platform.accel, memory));
        if incoming {
            program.args(["-incoming", "defer"]);
        }
        // Its own group: a Ctrl-C at the terminal is for us, and we end it in order.
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let mut child = program.spawn().context("cannot start QEMU")?;
        let connected = (|| {
            let mut connect = |name: &str| connect(&scratch.path().join(name), &mut child);
            let qmp = Qmp::start(connect("qmp.sock")?)?;
            let control = Control::new(connect("control.sock")?)?;
            anyhow::Ok((qmp, control, connect("out.sock")?, connect("err.sock")?, connect("terminal.sock")?))
        })();
        match connected {
            Ok((qmp, control, out, err, terminal)) => {
                Ok(Self { child, qmp, control, out, err, terminal, copies: Vec::new(), scratch })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(scratch.path().join("qemu.log")).unwrap_or_default();
                Err(error.context(format!("QEMU did not start\n{}", log.trim())))
            }
        }
    }

    /// Copies a file or folder of the host in, when the next command runs.
    pub(crate) fn copy_in(&mut self, from: &Path, to: &str) {
        self.copies.push((from.to_owned(), to.to_owned()));
    }

    /// Runs a command as root and collects what it prints.
    pub(crate) fn run(&mut self, argv: &[&str], timeout: Duration) -> Result<Output> {
        let job = Job { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..Job::default() };
        self.run_job(job, timeout)
    }

    /// The same, for a command that needs files.
    pub(super) fn run_job(&mut self, job: Job, timeout: Duration) -> Result<Output> {
        let heard = Heard::default();
        let status = self.stream(job, Some(timeout), |_, bytes| heard.push(bytes))?;
        Ok(Output { status, text: heard.text() })
    }

    /// Runs a command until some time after its output was `enough`; then QEMU is killed, as when the power fails, and the
    /// data disk is left at `keep`.
    pub(super) fn run_until_cut(
        mut self,
        mut job: Job,
        timeout: Duration,
        enough: impl Fn(&str) -> bool + Sync,
        after: Duration,
        keep: &Path,
    ) -> Result<Ended> {
        job.copies.splice(0..0, self.copies.drain(..));
        let request = job.write(&self.scratch.path().join("job.img"))?;
        let (heard, complaints) = (Heard::default(), Heard::default());
        let (done, begin, cut) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let (out, err, control, child) = (&self.out, &self.err, &mut self.control, &mut self.child);
        let listen = |bytes: &[u8]| {
            heard.push(bytes);
            begin.fetch_or(enough(&heard.text()), Ordering::Relaxed);
        };
        let answer = thread::scope(|scope| {
            scope.spawn(|| forward(out, &done, listen));
            scope.spawn(|| forward(err, &done, |bytes| complaints.push(bytes)));
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if begin.load(Ordering::Relaxed) {
                        thread::sleep(after);
                        // A command that has ended by itself has something to say.
                        if done.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        cut.store(true, Ordering::Relaxed);
                        return child.kill();
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            });
            let sent = control.send(&request);
            let answer = sent.and_then(|()| control.wait("EXIT", Some(Deadline::after(timeout))));
            done.store(true, Ordering::Relaxed);
            answer
        });
        signal::check()?;
        if cut.into_inner() {
            self.child.wait().context("QEMU does not end")?;
            power::hand_on(&self.scratch.path().join(DATA), keep)?;
            return Ok(Ended::Cut(heard.text()));
        }
        match answer {
            Ok(status) => {
                let status = status.map_or(Ok(124), |status| status.parse()).context("no exit status")?;
                Ok(Ended::ByItself(Output { status, text: heard.text() + &complaints.text() }))
            }
            Err(error) => Err(self.with_console(error)),
        }
    }

    /// Runs a command and hands on what it prints as it comes.
    pub(crate) fn stream(
        &mut self,
        mut job: Job,
        timeout: Option<Duration>,
        sink: impl Fn(Stream, &[u8]) + Sync,
    ) -> Result<u8> {
        job.copies.splice(0..0, self.copies.drain(..));
        let request = job.write(&self.scratch.path().join("job.img"))?;
        let done = AtomicBool::new(false);
        let (out, err) = (&self.out, &self.err);
        let control = &mut self.control;
        let answer = thread::scope(|scope| {
            scope.spawn(|| forward(out, &done, |bytes| sink(Stream::Out, bytes)));
            scope.spawn(|| forward(err, &done, |bytes| sink(Stream::Err, bytes)));
            let answer = control.send(&request).and_then(|()| control.wait("EXIT", timeout.map(Deadline::after)));
            done.store(true, Ordering::Relaxed);
            answer
        });
        match answer {
            Ok(Some(status)) => status.parse().with_context(|| format!("{status:?} is no exit status")),
            Ok(None) => Ok(124),
            Err(error) if signal::pending() => Err(error),
            Err(error) => Err(self.with_console(error)),
        }
    }

    /// Lends the machine's terminal and starts a shell on it; `serve` copies bytes until the shell ends.
    pub(crate) fn shell(&mut self, request: &str, serve: impl FnOnce(&UnixStream, &AtomicBool) + Send) -> Result<u8> {
        self.control.send(request)?;
        let done = AtomicBool::new(false);
        let (terminal, control) = (&self.terminal, &mut self.control);
        let answer = thread::scope(|scope| {
            scope.spawn(|| serve(terminal, &done));
            let answer = control.wait("EXIT", None);
            done.store(true, Ordering::Relaxed);
            answer
        });
        answer?.unwrap_or_default().parse().context("the shell ended without a status")
    }

    /// The scratch directory, for what a template keeps.
    pub(super) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Adds the end of the console log to an error.
    fn with_console(&self, error: anyhow::Error) -> anyhow::Error {
        let read = |name: &str| fs::read(self.scratch.path().join(name)).unwrap_or_default();
        let said = [read("qemu.log"), read("console.log")].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let tail: Vec<&str> = said.lines().rev().take(25).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        if tail.is_empty() {
            error
        } else {
            error.context(format!("a machine failed; its console:\n{}", tail.join("\n")))
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Text that comes in pieces.
#[derive(Default)]
struct Heard(Mutex<Vec<u8>>);

impl Heard {
    /// Takes a piece.
    fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    /// Everything so far.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// Reads until the command is done and nothing more is in the pipe.
fn forward(mut stream: &UnixStream, done: &AtomicBool, sink: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
    loop {
        // Asked before the read: bytes that were written before the end are read after it.
        let last = done.load(Ordering::Relaxed);
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => sink(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if last {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn connect(path: &Path, child: &mut Child) -> Result<UnixStream> {
    let deadline = Deadline::after(Duration::from_secs(20));
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if deadline.passed() => {
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
            Err(_) => {}
        }
        if let Some(status) = child.try_wait().context("cannot ask for QEMU's status")? {
            bail!("QEMU ended with {status}");
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Makes a file of that size that takes no room yet.
pub(super) fn sparse(path: &Path, size: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.set_len(size).with_context(|| format!("cannot size {}", path.display()))
}

fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    sh::quiet(sh::command("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to))
}
