//! The decision without the hooks: for tests and measurements.
//!
//! Loads `lsm/trial.bpf.c`, which runs the programs' own decision over levels that the caller made up, or over one of
//! the caller's open files. Works on hosts without BPF LSM. Nothing here is pinned or attached; the maps are private.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use agentd_abi::{Agent, Capability, Identity, Lent, NAME_BYTES, NameKey, Object, Rule, RuleKey};
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::{HasSize, MapCore, MapFlags, ProgramInput};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::capture::Capture;
use crate::object::{self, KernelTypes};
use crate::settings::Settings;

/// The slot that the trial's agent has.
const SLOT: u32 = 1;

/// One level on the way from an object to the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialLevel {
    /// `None` if the name does not exist.
    pub object: Option<Object>,
    /// `None` for the root of a mount.
    pub name: Option<Vec<u8>>,
}

/// What the programs answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What was wanted and not had; 0: allowed.
    pub refused: u32,
    /// What was granted on the way.
    pub granted: u32,
    /// `WHY_…`, 0 if nothing was refused.
    pub reason: u32,
    /// Position of the rule in the way, 0 if there is none.
    pub rule_id: u32,
}

/// The programs could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the trial programs: {said}")]
pub struct LoadTrialError {
    step: &'static str,
    said: String,
    #[source]
    source: libbpf_rs::Error,
}

/// The loaded programs.
pub struct Trial {
    object: libbpf_rs::Object,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawLevel {
    dev: u32,
    exists: u32,
    ino: u64,
    length: u32,
    reserved: u32,
    name: [u8; NAME_BYTES],
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawAnswer {
    hash: u64,
    refused: u32,
    granted: u32,
    reason: u32,
    rule_id: u32,
}

/// How the compiler laid out one structure of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes.
    pub size: usize,
    /// Names and offsets of the members, in order.
    pub members: Vec<(String, usize)>,
}

impl Trial {
    /// Every structure of the contract, as the C compiler laid it out.
    pub fn layouts() -> BTreeMap<String, Layout> {
        let mut layouts = BTreeMap::new();
        let Ok(Some(btf)) = Btf::from_raw("trial", object::TRIAL.bytes()) else { return layouts };
        for found in btf.type_by_kind::<Struct<'_>>() {
            let Some(name) = found.name().and_then(OsStr::to_str) else { continue };
            let members = found.iter().map(|member| {
                let at = match member.attr {
                    MemberAttr::Normal { offset } | MemberAttr::BitField { offset, .. } => offset as usize / 8,
                };
                (member.name.map_or_else(String::new, |name| name.to_string_lossy().into_owned()), at)
            });
            layouts.insert(name.to_owned(), Layout { size: found.size(), members: members.collect() });
        }
        layouts
    }

    /// Loads the programs; `no_cache` makes [`Self::measure`] walk every time.
    pub fn load(no_cache: bool) -> Result<Self, LoadTrialError> {
        let capture = Capture::start();
        let failed = |source| LoadTrialError { step: "load", said: capture.tail(12), source };
        let types = KernelTypes::read().map_err(failed)?;
        let settings = Settings {
            secret_a: 0x1234_5678_9abc_def0,
            secret_b: 0x0fed_cba9_8765_4321,
            can_cast: u32::from(types.can_cast()),
            no_cache: u32::from(no_cache),
            ..Default::default()
        };
        let object = object::open(object::TRIAL, &settings).and_then(libbpf_rs::OpenObject::load).map_err(failed)?;
        Ok(Self { object })
    }

    /// Makes the agent that the questions are about, and a task of it.
    pub fn put_agent(&self, agent: &Agent, task: BorrowedFd<'_>) -> Result<(), LoadTrialError> {
        self.put("agents", &SLOT, agent)?;
        self.put("task_agent", &task.as_fd().as_raw_fd(), &Identity { slot: SLOT, number: agent.number })
    }

    /// Puts a rule on an object.
    pub fn put_rule(&self, key: &RuleKey, rule: &Rule) -> Result<(), LoadTrialError> {
        let (word, mask) = key.hint();
        let held = self.map("hints")?.lookup(&word.to_ne_bytes(), MapFlags::ANY);
        let held = held.map_err(|source| failed("read a map of", source))?.unwrap_or_default();
        let held = u64::read_from_bytes(&held).unwrap_or_default();
        self.put("hints", &word, &(held | mask))?;
        self.put("rules", key, rule)
    }

    /// Puts a rule about a name.
    pub fn put_name(&self, key: &NameKey, rule: &Rule) -> Result<(), LoadTrialError> {
        self.put("names", key, rule)
    }

    /// Puts a capability into a slot.
    pub fn put_capability(&self, slot: u32, capability: &Capability) -> Result<(), LoadTrialError> {
        self.put("capabilities", &slot, capability)
    }

    /// Says what is lent on an object; a rule on it sets the hint.
    pub fn put_lent(&self, key: &RuleKey, lent: &Lent) -> Result<(), LoadTrialError> {
        self.put("lent", key, lent)
    }

    /// Takes all rules away.
    pub fn clear_rules(&self) -> Result<(), LoadTrialError> {
        for key in self.map("rules")?.keys().filter_map(|key| RuleKey::read_from_bytes(&key).ok()) {
            self.put("hints", &key.hint().0, &0u64)?;
        }
        for table in ["rules", "lent", "names"] {
            let map = self.map(table)?;
            let keys: Vec<Vec<u8>> = map.keys().collect();
            for key in keys {
                map.delete(&key).map_err(|source| failed("clear the rules of", source))?;
            }
        }
        Ok(())
    }

    /// Asks about a chain of levels, from the object up. `whole` settles every right instead of stopping at a refusal.
    pub fn decide(
        &self,
        agent: u32,
        name_lengths: u64,
        levels: &[TrialLevel],
        want: u32,
        whole: bool,
    ) -> Result<Answer, LoadTrialError> {
        for (depth, level) in (0u32..).zip(levels) {
            self.put("levels", &depth, &raw(level))?;
        }
        let mut arguments = [u64::from(agent), levels.len() as u64, u64::from(want), name_lengths, u64::from(whole)];
        self.run("decide_levels", arguments.as_mut_bytes())?;
        let RawAnswer { refused, granted, reason, rule_id, .. } = self.answer()?;
        Ok(Answer { refused, granted, reason, rule_id })
    }

    /// Hashes a name as the programs do; 0 if no rule can be about it.
    pub fn hash_name(&self, name: &[u8]) -> Result<u64, LoadTrialError> {
        self.put("levels", &0u32, &raw(&TrialLevel { object: None, name: Some(name.to_owned()) }))?;
        self.run("hash_name", [0u64].as_mut_bytes())?;
        Ok(self.answer()?.hash)
    }

    /// Asks so many times about an open file, for the task of [`Self::put_agent`], which must be the caller.
    /// `rounds` is a multiple of four. Gives the CPU time of all rounds together, and whether the last was allowed.
    pub fn measure(&self, file: BorrowedFd<'_>, rounds: u64, want: u32) -> Result<(Duration, bool), LoadTrialError> {
        let mut arguments = [rounds, u64::from(want), u64::from(file.as_raw_fd().unsigned_abs())];
        // Time on the CPU: a run is longer than a slice of a busy host's scheduler.
        let before = now();
        let refused = self.run("measure", arguments.as_mut_bytes())?;
        Ok((now().saturating_sub(before), refused == 0))
    }

    fn map(&self, name: &str) -> Result<libbpf_rs::Map<'_>, LoadTrialError> {
        self.object
            .maps()
            .find(|map| map.name() == OsStr::new(name))
            .ok_or_else(|| failed("find a map of", libbpf_rs::Error::from_raw_os_error(libc::ENOENT)))
    }

    fn put<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
        &self,
        table: &str,
        key: &K,
        value: &V,
    ) -> Result<(), LoadTrialError> {
        self.map(table)?
            .update(key.as_bytes(), value.as_bytes(), MapFlags::ANY)
            .map_err(|source| failed("fill a map of", source))
    }

    fn run(&self, name: &str, arguments: &mut [u8]) -> Result<u32, LoadTrialError> {
        let program = self
            .object
            .progs_mut()
            .find(|program| program.name() == OsStr::new(name))
            .ok_or_else(|| failed("find one of", libbpf_rs::Error::from_raw_os_error(libc::ENOENT)))?;
        let input = ProgramInput { context_in: Some(arguments), ..Default::default() };
        program.test_run(input).map(|output| output.return_value).map_err(|source| failed("run", source))
    }

    fn answer(&self) -> Result<RawAnswer, LoadTrialError> {
        let bytes = self
            .map("answers")?
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| failed("read the answer of", source))?
            .unwrap_or_default();
        RawAnswer::read_from_bytes(&bytes)
            .ok()
            .ok_or_else(|| failed("read the answer of", libbpf_rs::Error::from_raw_os_error(libc::EIO)))
    }
}

/// CPU time of this thread.
fn now() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn failed(step: &'static str, source: libbpf_rs::Error) -> LoadTrialError {
    LoadTrialError { step, said: String::new(), source }
}

fn raw(level: &TrialLevel) -> RawLevel {
    let name = level.name.as_deref().unwrap_or_default();
    let kept = name.len().min(NAME_BYTES);
    let mut padded = [0; NAME_BYTES];
    padded[..kept].copy_from_slice(&name[..kept]);
    RawLevel {
        dev: level.object.map_or(0, |object| object.dev),
        exists: u32::from(level.object.is_some()),
        ino: level.object.map_or(0, |object| object.ino),
        length: name.len() as u32,
        reserved: 0,
        name: padded,
    }
}
