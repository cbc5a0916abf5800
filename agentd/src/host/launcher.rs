//! One launch, from the request in the journal to the open gate.
//!
//! The order is the point. The cgroup exists before any process; the rules are in the kernel, and the process is marked,
//! before the gate opens; and the journal says that the agent started before its first instruction. Whatever fails on the
//! way undoes what was made, and the journal says that the agent failed.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentd_abi::Object;
use agentd_model::{AgentNumber, AgentSpec, Domain, Gap, Tier};
use agentd_policy::compile::{CompileError, Resolved, Target, compile};
use agentd_world::{Agent, Observation};
use tokio::sync::oneshot;

use super::{Host, watcher};
use crate::cgroup::{Cgroup, CgroupError};
use crate::core::{LaunchTicket, Launched, World};
use crate::enforcer::{CpuLimits, EnforceError};
use crate::launch::{Anchor, AnchorKind, AnchorUse, LaunchError, LaunchRequest, OpenError, Pace, Spare, Start};

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

/// Starts a launch on a thread of its own.
pub(super) fn begin(host: Arc<Host>, world: World, agent: Arc<Agent>, ticket: Option<LaunchTicket>) {
    let number = agent.number;
    let name = format!("launch-{number}");
    let body = move || {
        let mut client = Client::of(ticket);
        host.launches(agent.number);
        let result = launch(&host, &world, &agent, &mut client);
        host.launched(agent.number, &world);
        if let Err(failure) = result {
            let reason = crate::errors::one_line(&failure);
            tracing::warn!(agent = %agent.number, reason, "the launch failed");
            world.saw_durably(Observation::LaunchFailed { agent: agent.number, reason: reason.clone() });
            client.tell(Err(reason));
        }
        // The agent has just begun, and its client waits for it: what nobody waits for comes after that.
        std::thread::sleep(HEAD_START);
        host.spares.refill();
    };
    if let Err(error) = std::thread::Builder::new().name(name).spawn(body) {
        tracing::error!(agent = %number, %error, "cannot start a thread for the launch");
    }
}

/// Whoever asked for the agent, if anybody waits.
struct Client {
    attach: bool,
    outcome: Option<oneshot::Sender<Result<Launched, String>>>,
}

impl Client {
    fn of(ticket: Option<LaunchTicket>) -> Client {
        ticket.map_or(Client { attach: false, outcome: None }, |ticket| Client {
            attach: ticket.attach,
            outcome: Some(ticket.outcome),
        })
    }

    /// Tells how it went, the first time. Whoever asked may have gone; the agent runs all the same.
    fn tell(&mut self, outcome: Result<Launched, String>) {
        if let Some(waits) = self.outcome.take() {
            let _ = waits.send(outcome);
        }
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

fn launch(host: &Arc<Host>, world: &World, agent: &Arc<Agent>, client: &mut Client) -> Result<(), Failure> {
    let number = agent.number;
    let mut made = Made { host, agent: number, slot: None, admitted: None, cgroup: None };

    let slot = host.slots.take().ok_or(Failure::NoSlot)?;
    made.slot = Some(slot);
    let cgroup = host.cgroups.of(number);
    cgroup.create(&agent.spec.budget)?;
    made.cgroup = Some(cgroup.clone());
    let cgroup_id = cgroup.id()?;
    // Before anything is in the cgroup, so that the kernel's sum and the cgroup's own are the same.
    host.enforcer.admit(slot, number, cgroup_id, CpuLimits { limit: agent.spec.budget.cpu })?;
    made.admitted = Some(cgroup_id);
    tracing::debug!(agent = %number, "has its cgroup");

    let request = request(host, agent, &cgroup, client.attach)?;
    let seen = host.spares.take()?.launch(&request)?;
    tracing::debug!(agent = %number, "has its view");
    let kernel_rules = load_rules(host, agent, slot, seen.anchors())?;
    tracing::debug!(agent = %number, kernel_rules, "has its rules");
    let mut gate = seen.wait()?;
    tracing::debug!(agent = %number, "stands at its gate");
    host.enforcer.mark(gate.init_pidfd(), slot, number)?;
    let stream = client.attach.then(|| gate.attach(Pace::AgentWaits)).transpose().map_err(Failure::Attach)?;

    let gaps: Vec<Gap> = agent.spec.accepted_gaps.clone();
    let (init_pid, shim_pid) = (gate.init_pid() as u32, gate.shim_pid() as u32);
    let started =
        Observation::Started { agent: number, init_pid, shim_pid, cgroup_id, slot, kernel_rules, gaps: gaps.clone() };
    if !world.saw_durably(started) {
        return Err(Failure::NotRecorded);
    }
    tracing::debug!(agent = %number, "its start is recorded");
    // That is all a client waits for: how the program fares it hears from the stream.
    client.tell(Ok(Launched { stream, gaps }));
    let (mut shim, start) = gate.open()?;
    tracing::debug!(agent = %number, "its gate is open");
    if let Start::NotRunning { errno, program } = &start {
        tracing::info!(agent = %number, errno, program, "the program could not be run");
    }
    let watch = shim.watch().map_err(Failure::Watch)?;
    host.keep_shim(number, shim);
    watcher::begin(host.clone(), world.clone(), number, watch);
    // From here on the end of the agent, seen by the watcher, is what releases everything.
    made.keep();
    Ok(())
}

/// Makes the agent's directories and says what the launcher is to do.
fn request(host: &Host, agent: &Agent, cgroup: &Cgroup, attach: bool) -> Result<LaunchRequest, Failure> {
    let (state_dir, runtime_dir) = (host.places.agent_state(agent.number), host.places.agent_runtime(agent.number));
    for directory in [&state_dir, &runtime_dir] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| Failure::Directory { path: directory.clone(), source })?;
    }
    own_home(&state_dir, agent).map_err(|source| Failure::Directory { path: state_dir.clone(), source })?;
    Ok(LaunchRequest {
        agent: agent.number,
        name: agent.name.clone(),
        spec: agent.spec.as_ref().clone(),
        cgroup: cgroup.path().to_owned(),
        state_dir,
        runtime_dir,
        stdin: attach,
        hide: vec![host.places.bpffs.clone()],
        confinement: host.confinement(),
    })
}

/// An agent whose user has no home gets one of its own, below its state directory, which it may pass through.
fn own_home(state_dir: &Path, agent: &Agent) -> io::Result<()> {
    let home = state_dir.join("home");
    let is_own = agent.spec.env.iter().any(|(name, value)| name == "HOME" && Path::new(value) == home);
    if !is_own {
        return Ok(());
    }
    fs::create_dir_all(&home)?;
    chown(&home, Some(agent.spec.uid), Some(agent.spec.gid))?;
    fs::set_permissions(state_dir, fs::Permissions::from_mode(0o711))
}

/// Compiles the rules to what they name in the agent's own view, and puts them into the kernel's tables. Where no program
/// of the kernel would look at rules on files, only those on addresses are put there.
fn load_rules(host: &Host, agent: &Agent, slot: u32, anchors: &[Anchor]) -> Result<u32, Failure> {
    let AgentSpec { paths, nets, .. } = agent.spec.as_ref();
    let compiled = match host.tiers.of(Domain::Files) {
        Tier::Lsm => {
            let files: Vec<_> = anchors.iter().map(|anchor| anchor.file.as_fd()).collect();
            let objects = host.enforcer.identify(&files)?;
            let resolved: Vec<Resolved> = anchors.iter().zip(objects).flat_map(resolve).collect();
            compile(agent.number, paths, &resolved, nets)?
        }
        _ => compile(agent.number, &[], &[], nets)?,
    };
    Ok(host.enforcer.load(slot, agent.number, &compiled)?)
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
