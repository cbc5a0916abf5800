//! One launch, from a checked request to the open gate.
//!
//! The order is the point. The cgroup exists before any process; the rules are in the kernel, and the process is marked,
//! before the gate opens; and the journal says that the agent was asked for, and that it starts, before its first
//! instruction. What takes time goes side by side: the disk writes while init makes the view and gives up its rights.
//!
//! Up to the gate nothing of the agent's has run, and whatever was made can be undone without a trace. So that much is
//! done while the disk still writes the request down (`docs/decisions/0006`). If the world refuses the request, the
//! preparation is dropped. If it fails, that is recorded once the request is.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use agentd_abi::Object;
use agentd_model::{AgentName, AgentNumber, AgentSpec, Domain, Tier};
use agentd_policy::compile::{CompileError, Resolved, Target, compile};
use agentd_world::Observation;
use tokio::sync::oneshot;

use super::berths::{Berth, Reserved};
use super::{Host, watcher};
use crate::cgroup::CgroupError;
use crate::core::{Launched, World};
use crate::enforcer::EnforceError;
use crate::launch::{Anchor, AnchorKind, AnchorUse, AtGate, LaunchError, LaunchRequest, OpenError, Pace, Seen, Start};

/// Why a launch did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot make {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no room for another agent in the kernel's table")]
    NoSlot,
    #[error("its shim has gone")]
    NoShim,
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Enforce(#[from] EnforceError),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("cannot attach to it")]
    Attach(#[source] io::Error),
    #[error("what its rules name was told apart in part only")]
    Unidentified,
    #[error("its start could not be recorded")]
    NotRecorded,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot watch its shim")]
    Watch(#[source] io::Error),
}

/// What a launch needs to know of an agent before the world has heard of it.
#[derive(Debug)]
pub struct Plan {
    /// Its number, and perhaps more.
    pub reserved: Reserved,
    /// Its name.
    pub name: AgentName,
    /// Everything else.
    pub spec: AgentSpec,
    /// Whether an attach stream is wanted.
    pub attach: bool,
}

/// Where the outcome of a launch is told, if anybody waits for it.
type Outcome = oneshot::Sender<Result<Launched, String>>;

/// A launch on its way to the gate, on a thread of its own. Dropped, it is undone and nobody hears of it.
pub struct Preparation {
    go: mpsc::SyncSender<Option<Outcome>>,
}

impl Preparation {
    /// Begins to make everything that an agent needs, up to its gate, where nothing of it has run yet.
    pub fn begin(host: Arc<Host>, world: World, plan: Plan) -> Preparation {
        let (go, told) = mpsc::sync_channel(1);
        let number = plan.reserved.agent();
        let threads = host.threads.clone();
        let body = move || {
            host.launches(number);
            let Plan { reserved, name, spec, attach } = plan;
            let hide = vec![host.places.bpffs.clone()];
            let request = LaunchRequest { name, spec, stdin: attach, hide, confinement: host.confinement() };
            let wanted = Wanted { agent: number, request, attach };
            let (berth, prepared) = match reserved.berth(&host) {
                Ok(mut berth) => {
                    let prepared = prepare(&host, &wanted, &mut berth);
                    (Some(berth), prepared)
                }
                Err(failure) => (None, Err(failure)),
            };
            match told.recv() {
                Ok(outcome) => come_about(&host, &world, &wanted, berth, prepared, outcome),
                // The world does not want the agent.
                Err(_) => {
                    drop(prepared);
                    berth.into_iter().for_each(|berth| berth.undo(&host));
                }
            }
            host.launched(number, &world);
            // The agent has just begun, and its client waits for it: what nobody waits for comes after that.
            std::thread::sleep(super::HEAD_START);
            host.berths.refill(&host);
        };
        if let Err(error) = threads.run(Box::new(body)) {
            tracing::error!(agent = %number, %error, "cannot start a thread for the launch");
        }
        Preparation { go }
    }

    /// The agent is in the journal: the launch may come about.
    pub fn go(self, outcome: Option<Outcome>) {
        // Refused only if there is no thread, which was told.
        let _ = self.go.send(outcome);
    }
}

/// What an agent is to be.
struct Wanted {
    agent: AgentNumber,
    request: LaunchRequest,
    attach: bool,
}

/// Takes a launch through the gate, or records that it failed.
fn come_about(
    host: &Arc<Host>,
    world: &World,
    wanted: &Wanted,
    berth: Option<Berth>,
    prepared: Result<Prepared, Failure>,
    mut outcome: Option<Outcome>,
) {
    let agent = wanted.agent;
    // Whoever asked may have gone; the agent runs all the same.
    let mut tell = |what| outcome.take().map(|waits| waits.send(what));
    let mut recorded = false;
    let result = prepared.and_then(|Prepared { seen, started, slot }| {
        let recording = world.sees(started);
        let gate = at_gate(host, wanted, seen, slot);
        recorded = recording.is_durable();
        let (gate, launched) = gate?;
        if !recorded {
            return Err(Failure::NotRecorded);
        }
        tracing::debug!(%agent, "stands at its gate, and its start is recorded");
        // That is all a client waits for: how the program fares it hears from the stream.
        tell(Ok(launched));
        open(host, world, agent, gate)
    });
    // What the journal says has started is released when the journal says that it has ended.
    if let Some(mut berth) = berth.filter(|_| !recorded) {
        berth.clear(host);
    }
    if let Err(failure) = result {
        let reason = crate::errors::one_line(&failure);
        tracing::warn!(%agent, reason, "the launch failed");
        world.saw_durably(Observation::LaunchFailed { agent, reason: reason.clone() });
        tell(Err(reason));
    }
}

/// An agent whose rules are in the kernel, and whose init gives up its rights.
struct Prepared {
    seen: Seen,
    started: Observation,
    slot: u32,
}

fn prepare(host: &Host, wanted: &Wanted, berth: &mut Berth) -> Result<Prepared, Failure> {
    let Wanted { agent, request, .. } = wanted;
    let spec = &request.spec;
    let (agent, slot, cgroup_id) = (*agent, berth.slot, berth.cgroup_id);
    berth.cgroup.limit(&spec.budget)?;
    if let Some(limit) = spec.budget.cpu {
        host.set_cpu(slot, agent, limit)?;
    }
    let state_dir = &berth.place.state_dir;
    own_home(state_dir, spec).map_err(|source| Failure::Directory { path: state_dir.clone(), source })?;
    let spare = berth.spare.take().ok_or(Failure::NoShim)?;
    let mut objects = Ok(Vec::new());
    let seen = match host.tiers.of(Domain::Files) {
        Tier::Lsm => spare.launch(request, |files| identify(host, files, &mut objects))?,
        // No program of the kernel would look at rules on files.
        _ => spare.launch(request, |_| ())?,
    };
    tracing::debug!(%agent, "has its view");
    let kernel_rules = load_rules(host, wanted, slot, seen.anchors(), objects?)?;
    tracing::debug!(%agent, kernel_rules, "has its rules");
    let (init_pid, shim_pid) = (seen.init_pid() as u32, seen.shim_pid() as u32);
    let gaps = spec.accepted_gaps.clone();
    let started = Observation::Started { agent, init_pid, shim_pid, cgroup_id, slot, kernel_rules, gaps };
    Ok(Prepared { seen, started, slot })
}

/// Waits until init has no rights left, and makes it the agent.
fn at_gate(host: &Host, wanted: &Wanted, seen: Seen, slot: u32) -> Result<(AtGate, Launched), Failure> {
    let mut gate = seen.wait()?;
    host.enforcer.mark(gate.init_pidfd(), slot, wanted.agent)?;
    let stream = wanted.attach.then(|| gate.attach(Pace::AgentWaits)).transpose().map_err(Failure::Attach)?;
    Ok((gate, Launched { stream, gaps: wanted.request.spec.accepted_gaps.clone() }))
}

/// Starts the agent's program. From here on the end of the agent is seen by the watcher.
fn open(host: &Arc<Host>, world: &World, agent: AgentNumber, gate: AtGate) -> Result<(), Failure> {
    let (mut shim, start) = gate.open()?;
    tracing::debug!(%agent, "its gate is open");
    if let Start::NotRunning { errno, program } = &start {
        tracing::info!(%agent, errno, program, "the program could not be run");
    }
    let watch = shim.watch().map_err(Failure::Watch)?;
    host.keep_shim(agent, shim);
    watcher::begin(host.clone(), world.clone(), agent, watch);
    Ok(())
}

/// An agent whose user has no home gets the one in its state directory, which it may pass through.
fn own_home(state_dir: &Path, spec: &AgentSpec) -> io::Result<()> {
    let home = state_dir.join(crate::places::HOME);
    let is_own = spec.env.iter().any(|(name, value)| name == "HOME" && Path::new(value) == home);
    if !is_own {
        return Ok(());
    }
    chown(&home, Some(spec.uid), Some(spec.gid))?;
    fs::set_permissions(state_dir, fs::Permissions::from_mode(0o711))
}

/// Adds what some files are to the kernel programs, until one cannot be told.
fn identify(host: &Host, files: &[BorrowedFd<'_>], objects: &mut Result<Vec<Object>, EnforceError>) {
    if let Ok(known) = objects {
        match host.enforcer.identify(files) {
            Ok(new) => known.extend(new),
            Err(error) => *objects = Err(error),
        }
    }
}

/// Compiles the rules to what they name in the agent's own view, and puts them into the kernel's tables; below the LSM
/// tier only those on addresses.
fn load_rules(
    host: &Host,
    wanted: &Wanted,
    slot: u32,
    anchors: &[Anchor],
    objects: Vec<Object>,
) -> Result<u32, Failure> {
    let (agent, AgentSpec { paths, nets, .. }) = (wanted.agent, &wanted.request.spec);
    let on_files = host.tiers.of(Domain::Files) == Tier::Lsm;
    // Paired by their order below: one that is missing would be a denial that is missing.
    if on_files && objects.len() != anchors.len() {
        return Err(Failure::Unidentified);
    }
    let paths = if on_files { paths.as_slice() } else { &[] };
    let resolved: Vec<Resolved> = anchors.iter().zip(objects).flat_map(resolve).collect();
    let compiled = compile(agent, paths, &resolved, nets)?;
    Ok(host.enforcer.load(slot, agent, &compiled)?)
}

fn resolve((anchor, object): (&Anchor, Object)) -> impl Iterator<Item = Resolved> {
    anchor.uses.iter().map(move |AnchorUse { rule, kind }| {
        let target = match kind {
            AnchorKind::Way => Target::Way { directory: object },
            AnchorKind::Object { directory } => Target::Object { object, directory: *directory },
            AnchorKind::Name { names } => match names.as_slice() {
                [only] => Target::Name { directory: object, name: only.clone().into_bytes() },
                [.., parent, last] => {
                    Target::Pattern { parent: Some(parent.clone().into_bytes()), name: last.clone().into_bytes() }
                }
                [] => unreachable!("an anchor by name has at least one name"),
            },
        };
        Resolved { rule: *rule, target }
    })
}
