//! How init gives up everything that the agent must not have.
//!
//! Order matters: what needs a capability comes before capabilities are dropped, and a change of user clears the
//! signal for a dead parent, so that is set after it. The filters come last, because they would be in the way.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use agentd_model::{AgentSpec, Rights};
use caps::CapSet;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::anchors::Found;
use super::lookup::step;
use super::sys;
use crate::launch::messages::{Failure, Note, NoteKind};
use crate::launch::{Confinement, Landlock, landlock, seccomp};

/// How much sooner than others the kernel kills an agent when memory runs out.
const OOM_SCORE: &str = "100";

/// The first capability that the `caps` crate does not know.
const FIRST_UNKNOWN_CAPABILITY: u8 = 41;

/// Gives up every right; from here on the caller is the agent. Gives the version of Landlock that holds it.
pub(crate) fn give_up(spec: &AgentSpec, confinement: Confinement, found: &[Found]) -> Result<Option<u32>, Failure> {
    limits()?;
    sys::new_keyring().map_err(step("make a keyring"))?;
    let denied = |what: &str| Failure::Step { what: what.to_owned(), errno: libc::EPERM };
    caps::clear(None, CapSet::Bounding).map_err(|_text| denied("drop the bounding capabilities"))?;
    sys::drop_newer_capabilities(FIRST_UNKNOWN_CAPABILITY);

    let groups: Vec<Gid> = spec.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    if uid.is_root() {
        return Err(denied("run an agent as root"));
    }
    setgroups(&groups).map_err(step("set the agent's groups"))?;
    setresgid(gid, gid, gid).map_err(step("set the agent's group"))?;
    setresuid(uid, uid, uid).map_err(step("set the agent's user"))?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|_text| denied("drop the capabilities"))?;
    }
    prctl::set_no_new_privs().map_err(step("set no_new_privs"))?;
    // The change of user has already done this; it keeps the agent from reading, tracing and steering its init.
    prctl::set_dumpable(false).map_err(step("protect init"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("tie the agent to its shim"))?;

    let version = match confinement.landlock {
        Landlock::Off => None,
        Landlock::On => {
            let failed = |error: io::Error| Failure::Step {
                what: format!("restrict the agent with Landlock: {error}"),
                errno: error.raw_os_error().unwrap_or(libc::EPERM),
            };
            Some(landlock::restrict(&allowed(spec, found)).map_err(failed)?)
        }
    };
    let filter = seccomp::filter(confinement.seccomp).map_err(|_error| denied("make a system call filter"))?;
    seccomp::install(&filter).map_err(|_error| denied("install the system call filter"))?;
    Ok(version)
}

fn allowed<'a>(spec: &AgentSpec, found: &'a [Found]) -> Vec<(Rights, &'a OwnedFd, bool)> {
    let notes = found.iter().flat_map(|found| found.notes.iter().map(move |note| (note, &found.file)));
    let object = |(note, file): (&Note, &'a OwnedFd)| match note.kind {
        NoteKind::Object { directory } => Some((spec.paths.get(note.rule)?.allow, file, directory)),
        NoteKind::Name { .. } | NoteKind::Way => None,
    };
    notes.filter_map(object).collect()
}

/// Limits and settings that an agent must not inherit from the daemon.
fn limits() -> Result<(), Failure> {
    for resource in [Resource::RLIMIT_NICE, Resource::RLIMIT_RTPRIO, Resource::RLIMIT_CORE] {
        setrlimit(resource, 0, 0).map_err(step(format!("set {resource:?}")))?;
    }
    sys::plain_scheduling().map_err(step("set fair scheduling"))?;
    fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(step("set oom_score_adj"))?;
    Ok(())
}
