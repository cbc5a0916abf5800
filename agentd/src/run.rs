//! From the start of the daemon to its end: recover, load, adopt, listen.
//!
//! ```text
//! lock ─▶ journal ─▶ kernel programs ─▶ core ─▶ adopt what runs ─▶ socket ─▶ READY=1 … SIGTERM ─▶ agents go on
//! ```
//!
//! Nothing is served before everything that ran is either adopted or settled. An end of the daemon is never the end of an
//! agent: links and maps are pinned, shims hold the streams, the journal says what is what.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agentd_model::{AgentNumber, Event, Tiers};
use agentd_world::State;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup::Cgroups;
use crate::clock::HostClock;
use crate::core::Core;
use crate::host::{Host, HostPerformer, adopt, begin_polling};
use crate::journal::Journal;
use crate::kernel;
use crate::keyring::{KeyError, Keyring};
use crate::places::Places;
use crate::server::{self, Door, Service};
use crate::worlds::adapter::Outside;
use crate::worlds::reducers::Modules;
use crate::worlds::{HostOutside, Worlds};

/// How often, and after which pauses, a daemon asks for the lock of the one before it: for two seconds.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the daemon could not start. Nothing has changed, agents that run go on.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("agentd needs root, because it loads kernel programs and starts agents as other users")]
    NotRoot,
    #[error("another agentd is running{0}")]
    Running(String),
    #[error("cannot use {path}")]
    Place {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Journal(#[from] crate::journal::OpenError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("this host cannot run reducers")]
    Modules(#[source] agentd_wasm::EngineError),
    #[error("there is no cgroup v2 tree on this host")]
    NoCgroups,
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    #[error(transparent)]
    Kernel(#[from] kernel::StartError),
    #[error("agent {0} runs; without the kernel programs it would be free")]
    AgentsRun(AgentNumber),
    #[error("the start could not be recorded")]
    NotRecorded,
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl StartError {
    /// Something to type.
    fn hint(&self) -> Option<&'static str> {
        match self {
            StartError::NotRoot => Some("sudo agentd"),
            StartError::Running(_) => Some("agentctl doctor"),
            StartError::AgentsRun(_) => Some("agentctl ps"),
            StartError::NoCgroups => Some("mount -t cgroup2 none /sys/fs/cgroup"),
            StartError::Journal(crate::journal::OpenError::Damaged { .. }) => {
                Some("keep the file for an inquiry; agentd --state DIR begins another journal")
            }
            _ => None,
        }
    }
}

/// Writes to standard output.
pub fn say(text: &str) {
    // A closed pipe is no error.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Writes one line of an error to standard error.
pub fn complain(kind: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {text}");
}

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(places: &Places) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AGENTD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).init();
    ended(start(places))
}

/// Tries what this host takes and prints one line of JSON for each domain. Changes nothing that lasts.
pub fn probe(places: &Places) -> ExitCode {
    let tiers = open_cgroups(places).map(|cgroups| kernel::probe(&cgroups));
    ended(tiers.map(|tiers| {
        for (domain, tier, reason) in &tiers.rows {
            say(&format!("{}\n", serde_json::json!({ "domain": domain, "tier": tier, "reason": reason })));
        }
    }))
}

/// Takes the kernel programs out.
pub fn unload(places: &Places) -> ExitCode {
    let unload = || {
        let _lock = lock(places)?;
        let cgroups = open_cgroups(places)?;
        if let Some(agent) = running(&cgroups) {
            return Err(StartError::AgentsRun(agent));
        }
        kernel::unload(places)?;
        cgroups.remove();
        Ok(())
    };
    ended(unload())
}

/// An agent that runs. What a daemon that has just been killed had ready for its next one ends by itself, a little later.
fn running(cgroups: &Cgroups) -> Option<AgentNumber> {
    for _ in 0..50 {
        cgroups.present().into_iter().find(|agent| cgroups.of(*agent).is_populated())?;
        std::thread::sleep(Duration::from_millis(20));
    }
    cgroups.present().into_iter().find(|agent| cgroups.of(*agent).is_populated())
}

fn ended(result: Result<(), StartError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    complain("error", &error.to_string());
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        complain("cause", &cause.to_string());
        source = cause.source();
    }
    if let Some(hint) = error.hint() {
        complain("hint ", hint);
    }
    ExitCode::FAILURE
}

/// The running daemon holds this lock; it ends with the process, however that ends.
fn lock(places: &Places) -> Result<Flock<fs::File>, StartError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    make_directory(&places.runtime, 0o755)?;
    make_directory(&places.state, 0o711)?;
    // Each agent's own directory says who may enter; on the way to it an agent passes through.
    make_directory(&places.agents_state(), 0o711)?;
    set_mode(&places.agents_state(), 0o711)?;
    let path = places.lock();
    let place = |source| StartError::Place { path: path.display().to_string(), source };
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(place)?;
    match patient_lock(file) {
        Some(mut lock) => {
            lock.set_len(0).map_err(place)?;
            writeln!(lock, "{}", std::process::id()).map_err(place)?;
            Ok(lock)
        }
        None => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let pid = pid.trim();
            Err(StartError::Running(if pid.is_empty() { String::new() } else { format!(" as process {pid}") }))
        }
    }
}

/// Takes the lock, also of a daemon that was killed a moment ago: its threads, and a shim that it was about to start, hold
/// its open files until they are gone.
fn patient_lock(mut file: fs::File) -> Option<Flock<fs::File>> {
    for _ in 0..LOCK_TRIES {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((file, _)) => file,
        };
        std::thread::sleep(LOCK_PAUSE);
    }
    None
}

fn make_directory(path: &Path, mode: u32) -> Result<(), StartError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| StartError::Place { path: path.display().to_string(), source })
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StartError> {
    let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set.map_err(|source| StartError::Place { path: path.display().to_string(), source })
}

fn start(places: &Places) -> Result<(), StartError> {
    let _lock = lock(places)?;
    let keyring = Keyring::open(&places.keys())?;
    let opened = Journal::open::<State>(&places.journal())?;
    let signer = opened.chain.key.map_or_else(|| keyring.current(), |key| keyring.get(key))?;
    let (torn_bytes, chain, state) = (opened.torn_bytes, opened.chain, &opened.state);
    if torn_bytes > 0 {
        tracing::warn!(
            bytes = torn_bytes,
            "an unfinished write at the end of the journal was cut; nothing in it was acknowledged"
        );
    }
    tracing::info!(records = chain.seq.0, head = %chain.head, "the journal is whole");

    let cgroups = open_cgroups(places)?;
    let boot_id = crate::boot::boot_id();
    kernel::forget_ended(places, &cgroups, |agent| {
        let started = state.agent(agent).filter(|agent| agent.is_live()).and_then(|agent| agent.started.as_ref());
        started.is_some_and(|started| started.boot_id == boot_id)
    });
    let loaded = kernel::start(places, &cgroups)?;
    for (domain, tier, reason) in &loaded.tiers.rows {
        tracing::info!(%domain, %tier, reason = reason.as_deref(), "enforced by");
    }

    let boot_id = crate::boot::boot_id();
    let host =
        Arc::new(Host::new(places.clone(), cgroups, loaded.enforcer.clone(), loaded.tiers.clone(), loaded.uring_hook));
    let (core, world) = Core::new(opened, signer, Arc::new(HostClock));
    let performer = HostPerformer::new(host.clone(), world.clone());
    let core = std::thread::Builder::new().name("core".into()).spawn(move || core.run(performer));
    let core = core.map_err(StartError::Runtime)?;
    if !world.record(started(&boot_id, &loaded.tiers)) {
        return Err(StartError::NotRecorded);
    }
    let current = keyring.current()?;
    if chain.key.is_some_and(|key| key != current.key()) && !world.rotate(current) {
        return Err(StartError::NotRecorded);
    }
    let adopted = adopt(&host, &world, &boot_id);
    let (freezer, known) = (host.clone(), world.clone());
    loaded.listen(world.clone(), move |agent| {
        known.state().agent(agent).into_iter().for_each(|agent| freezer.freeze_spent(agent));
    });
    begin_polling(host.clone(), world.clone());

    let modules = Modules::kept_in(&places.modules()).map_err(StartError::Modules)?;
    let worlds = Arc::new(Worlds::new(&places.worlds(), keyring, Arc::new(HostClock), modules));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    runtime.block_on(async {
        let path = places.socket();
        let listener = server::listen(&path);
        let listener = listener.map_err(|source| StartError::Place { path: path.display().to_string(), source })?;
        let inside = server::listen(&places.agents_socket());
        let inside = inside.map_err(|source| StartError::Place { path: path.display().to_string(), source })?;
        let outside = Arc::new(HostOutside::new(world.clone(), places.clone(), tokio::runtime::Handle::current()));
        let doors: Arc<dyn Outside> = outside.clone();
        let service = Service::new(world.clone(), host.clone(), places.clone(), worlds.clone(), doors.clone());
        let service = Arc::new(service);
        outside.serve(Arc::downgrade(&service));
        worlds.open_all(&doors);
        worlds.listen(world.clone(), &places.journal());
        let server = tokio::spawn(server::serve(listener, Door::Everybody, service.clone()));
        let server_inside = tokio::spawn(server::serve(inside, Door::Agents, service));
        tracing::info!(adopted, socket = %path.display(), "ready");
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate()).map_err(StartError::Runtime)?,
            signal(SignalKind::interrupt()).map_err(StartError::Runtime)?,
        );
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        server.abort();
        server_inside.abort();
        worlds.close();
        world.stop().await;
        Ok::<(), StartError>(())
    })?;
    host.close();
    // The core has written what it took; agents go on without us.
    let _ = core.join();
    tracing::info!("stopped; agents go on");
    drop(runtime);
    Ok(())
}

fn open_cgroups(places: &Places) -> Result<Cgroups, StartError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(Cgroups::open(&Places::cgroup_root(&mountinfo).ok_or(StartError::NoCgroups)?, &places.cgroup)?)
}

fn started(boot_id: &str, tiers: &Tiers) -> Event {
    Event::DaemonStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id.to_owned(),
        kernel: crate::boot::kernel_release(),
        tiers: tiers.clone(),
    }
}
