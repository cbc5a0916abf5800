//! What can this host enforce?
//!
//! Each domain is tried, not looked up: a program that does nothing is loaded, attached and, for the LSM, called. The
//! answer carries the kernel's own error, for `agentctl doctor`.

use std::ffi::OsStr;
use std::fmt;

use libbpf_rs::{Link, MapCore, MapFlags, Object};
use nix::unistd::{getpgid, getpid};

use crate::capture::Capture;
use crate::object::{self, KernelTypes};
use crate::settings::Settings;

/// Whether one domain works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A program was loaded and attached, and where that can be seen, called.
    Works,
    /// It was not.
    Fails {
        /// Which step.
        step: Step,
        /// The kernel's error number, if it gave one.
        errno: Option<i32>,
        /// What libbpf or the kernel said, in one line.
        said: String,
    },
}

impl Proof {
    /// Whether the domain works.
    pub fn works(&self) -> bool {
        *self == Proof::Works
    }
}

/// A step of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The kernel describes its types (CONFIG_DEBUG_INFO_BTF).
    Types,
    /// The verifier takes the program.
    Load,
    /// The program is hooked in.
    Attach,
    /// The hook calls it (`bpf` in the kernel's `lsm=` list).
    Call,
    /// The kernel has every mandatory hook.
    Hooks,
    /// The kernel always runs them.
    Skipped,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Types => "the kernel does not describe its types",
            Step::Load => "the kernel refuses to load the program",
            Step::Attach => "the kernel refuses to attach the program",
            Step::Call => "the kernel attaches the program but does not call it (is `bpf` in lsm= ?)",
            Step::Hooks => "the kernel lacks a hook",
            Step::Skipped => "the kernel does not always run the program",
        })
    }
}

/// What this host can enforce with the programs of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// Files, execution, processes: BPF LSM.
    pub lsm: Proof,
    /// CPU budgets: the scheduler's tracepoint.
    pub cpu: Proof,
    /// Whether the fast way of reading kernel memory is there (6.2 on); without it decisions take four times as long.
    pub fast_walk: bool,
}

/// Tries each domain.
pub fn probe() -> Support {
    let types = match KernelTypes::read() {
        Ok(types) => types,
        Err(error) => {
            let fails = failure(Step::Types, &error, None);
            return Support { lsm: fails.clone(), cpu: fails, fast_walk: false };
        }
    };
    let mut lsm = attempt("probe_lsm", true);
    if lsm.works()
        && let Some(hook) = crate::hooks::missing(&types).first()
    {
        lsm = Proof::Fails { step: Step::Hooks, errno: None, said: hook.hook.to_owned() };
    }
    if lsm.works()
        && let Some(said) = crate::preemption::skips_hooks()
    {
        lsm = Proof::Fails { step: Step::Skipped, errno: None, said };
    }
    Support { lsm, cpu: attempt("probe_budget", false), fast_walk: types.can_cast() }
}

fn attempt(program: &str, call: bool) -> Proof {
    let capture = Capture::start();
    let loaded = load(program);
    let object = match loaded {
        Ok(object) => object,
        Err(error) => return failure(Step::Load, &error, Some(&capture)),
    };
    let link = match attach(&object, program) {
        Ok(link) => link,
        Err(error) => return failure(Step::Attach, &error, Some(&capture)),
    };
    if call {
        // Any answer will do; the question is whether the hook was called on the way.
        let _ = getpgid(Some(getpid()));
        let called = object.maps().any(|map| {
            map.name() == OsStr::new("called")
                && matches!(map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY), Ok(Some(value)) if value[0] == 1)
        });
        if !called {
            return Proof::Fails { step: Step::Call, errno: None, said: String::new() };
        }
    }
    drop(link);
    Proof::Works
}

fn load(program: &str) -> Result<Object, libbpf_rs::Error> {
    let mut object = object::open(object::PROBE, &Settings::default())?;
    for mut candidate in object.progs_mut() {
        let wanted = candidate.name() == OsStr::new(program);
        candidate.set_autoload(wanted);
    }
    object.load()
}

fn attach(object: &Object, program: &str) -> Result<Link, libbpf_rs::Error> {
    for candidate in object.progs_mut() {
        if candidate.name() == OsStr::new(program) {
            return candidate.attach();
        }
    }
    Err(libbpf_rs::Error::from_raw_os_error(libc::ENOENT))
}

fn failure(step: Step, error: &libbpf_rs::Error, capture: Option<&Capture>) -> Proof {
    let said = capture.map(|capture| capture.tail(1)).filter(|line| !line.is_empty());
    Proof::Fails { step, errno: errno(error), said: said.unwrap_or_else(|| error.to_string()) }
}

/// The error number behind a libbpf error. libbpf-rs 0.26 keeps it only in the text that the standard library gives an
/// error of the system, `… (os error 7)`, at the end of the chain.
pub(crate) fn errno(error: &libbpf_rs::Error) -> Option<i32> {
    let text = format!("{error:#}");
    let (_, tail) = text.rsplit_once("(os error ")?;
    tail.split_once(')')?.0.parse().ok()
}
