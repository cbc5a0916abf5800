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
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use agentd_abi::Object;
use agentd_model::{AgentName, AgentNumber, AgentSpec, Domain, Tier};
use agentd_policy::compile::{CompileError, Resolved, Target, compile};
use agentd_world::Observation;
use tokio::sync::oneshot;

use super::{Host, watcher};
use crate::cgroup::{Cgroup, CgroupError};
use crate::core::{Launched, World};
use crate::enforcer::{CpuLimits, EnforceError};
use crate::launch::{Anchor, AnchorKind, AnchorUse, AtGate, LaunchError, LaunchRequest, OpenError, Pace, Seen, Spare, Start};

/// The program that becomes the shim: this very one, also after it was replaced on disk by an upgrade.
const SELF: &str = "/proc/self/exe";

/// How long a new agent has the processors to itself before the next shim is made.
const HEAD_START: Duration = Duration::from_millis(20);

/// Shims that wait for a launch, so that a launch need not wait for a shim.
#[derive(Default)]
pub(super) struct Spares {
    ready: Mutex<Option<Spare>>,
}

impl Spares {
    fn take(&self) -> Result<Spare, LaunchError> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        ready.map_or_else(|| Spare::start(Path::new(SELF)), Ok)
    }

    /// Makes the next launch a quick one. A failure shows when somebody needs the shim.
    pub(super) fn refill(&self) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_none() {
            *ready = Spare::start(Path::new(SELF)).ok();
        }
    }
}

/// Why a launch did not come about.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot make {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no room for another agent in the kernel's table")]
    NoSlot,
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
    #[error("its start could not be recorded")]
    NotRecorded,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot watch its shim")]
    Watch(#[source] io::Error),
}

/// What a launch needs to know of an agent before the world has heard of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The number it will have; nobody else's, ever.
    pub agent: AgentNumber,
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
        let number = plan.agent;
        let body = move || {
            host.launches(number);
            let mut made = Made { host: &host, agent: number, slot: None, admitted: None, cgroup: None };
            let prepared = prepare(&host, &plan, &mut made);
            // An error: the world does not want the agent. Then what was made is undone by being dropped.
            if let Ok(outcome) = told.recv() {
                come_about(&host, &world, &plan, prepared, made, outcome);
            }
            host.launched(number, &world);
            // The agent has just begun, and its client waits for it: what nobody waits for comes after that.
            std::thread::sleep(HEAD_START);
            host.spares.refill();
        };
        if let Err(error) = std::thread::Builder::new().name(format!("launch-{number}")).spawn(body) {
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

/// Takes a launch through the gate, or records that it failed.
fn come_about(
    host: &Arc<Host>,
    world: &World,
    plan: &Plan,
    prepared: Result<Prepared, Failure>,
    made: Made<'_>,
    mut outcome: Option<Outcome>,
) {
    let agent = plan.agent;
    // Whoever asked may have gone; the agent runs all the same.
    let mut tell = |what| outcome.take().map(|waits| waits.send(what));
    let mut recorded = false;
    let result = prepared.and_then(|Prepared { seen, started }| {
        let recording = world.sees(started);
        let gate = at_gate(host, plan, seen, &made);
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
    if recorded {
        // What the journal says has started is released when the journal says that it has ended.
        made.keep();
    } else {
        drop(made);
    }
    if let Err(failure) = result {
        let reason = crate::errors::one_line(&failure);
        tracing::warn!(%agent, reason, "the launch failed");
        world.saw_durably(Observation::LaunchFailed { agent, reason: reason.clone() });
        tell(Err(reason));
    }
}

/// Undoes the parts of a launch that nothing else undoes, unless it is told that they are wanted.
struct Made<'a> {
    host: &'a Host,
    agent: AgentNumber,
    slot: Option<u32>,
    admitted: Option<u64>,
    cgroup: Option<Cgroup>,
}

impl Made<'_> {
    fn keep(mut self) {
        (self.slot, self.admitted, self.cgroup) = (None, None, None);
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
            watcher::remove_when_empty(cgroup);
        }
        if let (Some(slot), Some(cgroup_id)) = (self.slot, self.admitted) {
            let _ = self.host.enforcer.release(slot, self.agent, cgroup_id);
        }
        if let Some(slot) = self.slot {
            self.host.slots.give_back(slot);
        }
    }
}

/// An agent whose rules are in the kernel, and whose init gives up its rights.
struct Prepared {
    seen: Seen,
    started: Observation,
}

fn prepare(host: &Host, plan: &Plan, made: &mut Made<'_>) -> Result<Prepared, Failure> {
    let (agent, budget) = (plan.agent, &plan.spec.budget);
    let slot = host.slots.take().ok_or(Failure::NoSlot)?;
    made.slot = Some(slot);
    let cgroup = host.cgroups.of(agent);
    cgroup.create(budget)?;
    made.cgroup = Some(cgroup.clone());
    let cgroup_id = cgroup.id()?;
    // Before anything is in the cgroup, so that the kernel's sum and the cgroup's own are the same.
    host.enforcer.admit(slot, agent, cgroup_id, CpuLimits { limit: budget.cpu })?;
    made.admitted = Some(cgroup_id);

    let seen = host.spares.take()?.launch(&request(host, plan, &cgroup)?)?;
    tracing::debug!(%agent, "has its view");
    let kernel_rules = load_rules(host, plan, slot, seen.anchors())?;
    tracing::debug!(%agent, kernel_rules, "has its rules");
    let (init_pid, shim_pid) = (seen.init_pid() as u32, seen.shim_pid() as u32);
    let gaps = plan.spec.accepted_gaps.clone();
    let started = Observation::Started { agent, init_pid, shim_pid, cgroup_id, slot, kernel_rules, gaps };
    Ok(Prepared { seen, started })
}

/// Waits until init has no rights left, and makes it the agent.
fn at_gate(host: &Host, plan: &Plan, seen: Seen, made: &Made<'_>) -> Result<(AtGate, Launched), Failure> {
    let mut gate = seen.wait()?;
    let slot = made.slot.ok_or(Failure::NoSlot)?;
    host.enforcer.mark(gate.init_pidfd(), slot, plan.agent)?;
    let stream = plan.attach.then(|| gate.attach(Pace::AgentWaits)).transpose().map_err(Failure::Attach)?;
    Ok((gate, Launched { stream, gaps: plan.spec.accepted_gaps.clone() }))
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

/// Makes the agent's directories and says what the launcher is to do.
fn request(host: &Host, plan: &Plan, cgroup: &Cgroup) -> Result<LaunchRequest, Failure> {
    let Plan { agent, name, spec, attach } = plan;
    let (state_dir, runtime_dir) = (host.places.agent_state(*agent), host.places.agent_runtime(*agent));
    for directory in [&state_dir, &runtime_dir] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| Failure::Directory { path: directory.clone(), source })?;
    }
    own_home(&state_dir, spec).map_err(|source| Failure::Directory { path: state_dir.clone(), source })?;
    Ok(LaunchRequest {
        agent: *agent,
        name: name.clone(),
        spec: spec.clone(),
        cgroup: cgroup.path().to_owned(),
        state_dir,
        runtime_dir,
        stdin: *attach,
        hide: vec![host.places.bpffs.clone()],
        confinement: host.confinement(),
    })
}

/// An agent whose user has no home gets one of its own, below its state directory, which it may pass through.
fn own_home(state_dir: &Path, spec: &AgentSpec) -> io::Result<()> {
    let home = state_dir.join("home");
    let is_own = spec.env.iter().any(|(name, value)| name == "HOME" && Path::new(value) == home);
    if !is_own {
        return Ok(());
    }
    fs::create_dir_all(&home)?;
    chown(&home, Some(spec.uid), Some(spec.gid))?;
    fs::set_permissions(state_dir, fs::Permissions::from_mode(0o711))
}

/// Compiles the rules to what they name in the agent's own view, and puts them into the kernel's tables. Where no program
/// of the kernel would look at rules on files, only those on addresses are put there.
fn load_rules(host: &Host, plan: &Plan, slot: u32, anchors: &[Anchor]) -> Result<u32, Failure> {
    let Plan { agent, spec: AgentSpec { paths, nets, .. }, .. } = plan;
    let compiled = match host.tiers.of(Domain::Files) {
        Tier::Lsm => {
            let files: Vec<_> = anchors.iter().map(|anchor| anchor.file.as_fd()).collect();
            let objects = host.enforcer.identify(&files)?;
            let resolved: Vec<Resolved> = anchors.iter().zip(objects).flat_map(resolve).collect();
            compile(*agent, paths, &resolved, nets)?
        }
        _ => compile(*agent, &[], &[], nets)?,
    };
    Ok(host.enforcer.load(slot, *agent, &compiled)?)
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
