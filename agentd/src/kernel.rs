//! The adapter to the kernel programs, and to hosts that refuse them.
//!
//! [`start`] tries what the kernel takes, loads or takes over the best of it, and says for each domain what enforces it
//! and why it is not something better. A host that takes no LSM programs still gets CPU accounting and network rules; a
//! host that takes none at all still runs agents, with less, and says so.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentd_abi as abi;
use agentd_ebpf::net::{self, Net};
use agentd_ebpf::{AgentsCgroup, Domains, Identifier, Kernel, Limits, Options, Proof, Table, WriteError};
use agentd_model::{AgentNumber, CapabilityNumber, Domain, Tier, Tiers};
use agentd_policy::compile::Compiled;
use agentd_world::Observation;

use crate::cgroup::{Cgroup, Cgroups};
use crate::clock::{Clock as _, HostClock};
use crate::core::World;
use crate::enforcer::{CpuLimits, EnforceError, Enforcer, LoanOn};
use crate::places::Places;

/// How long the reader of the kernel's reports sleeps at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the kernel programs could not be started though this host takes them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The programs could not be loaded or taken over.
    #[error("cannot start the kernel programs")]
    Load(#[from] agentd_ebpf::LoadError),
    /// The network programs could not be loaded or taken over.
    #[error("cannot start the network programs")]
    Net(#[from] net::LoadError),
    /// The agents' cgroup cannot be looked at.
    #[error("cannot read {path}")]
    Cgroup {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What was started.
pub struct Loaded {
    /// The port.
    pub enforcer: Arc<dyn Enforcer>,
    /// What enforces what.
    pub tiers: Tiers,
    /// Whether the LSM has a hook on io_uring.
    pub uring_hook: bool,
    programs: Option<Arc<Programs>>,
    net_log: Option<net::NetLog>,
}

/// Starts whatever this host takes.
pub fn start(places: &Places, cgroups: &Cgroups) -> Result<Loaded, StartError> {
    // Rules on btrfs need the module's types, which are there only once the module is.
    let support = agentd_ebpf::probe();
    let cgroup = |source| StartError::Cgroup { path: cgroups.parent().to_owned(), source };
    let domains = match (support.lsm.works(), support.cpu.works()) {
        (true, true) => Some(Domains::All),
        (false, true) => Some(Domains::CpuOnly),
        // Without the tracepoint there is no kernel that has the LSM; whatever this is, we do not trust it.
        (_, false) => None,
    };
    let mut tiers = tiers(&support, cgroups);
    let Some(domains) = domains else {
        return Ok(Loaded { enforcer: Arc::new(Bare), tiers, uring_hook: false, programs: None, net_log: None });
    };
    let agents_cgroup = AgentsCgroup::at(cgroups.parent()).map_err(cgroup)?;
    let options = Options { bpffs: places.bpffs.clone(), agents_cgroup, domains, no_cache: false };
    let kernel = Kernel::load(&options)?;
    tracing::info!(origin = ?kernel.origin(), programs = kernel.links().len(), "kernel programs");
    let uring_hook = kernel.links().iter().any(|name| name == "uring_guard");

    let net_log = start_network(places, cgroups, &mut tiers)?;
    let (identifier, unidentified) = match Identifier::load() {
        Ok(identifier) => (Some(identifier), None),
        Err(error) => (None, Some(crate::errors::one_line(&error))),
    };
    if let Some(reason) = &unidentified {
        tracing::warn!(reason, "files cannot be identified; rules on files fall back to Landlock");
        set(&mut tiers, Domain::Files, Tier::Landlock, Some(reason.clone()));
    }
    let programs = Arc::new(Programs { kernel, identifier, owners: Mutex::default() });
    Ok(Loaded { enforcer: programs.clone(), tiers, uring_hook, programs: Some(programs), net_log })
}

/// What would enforce what, without starting anything.
pub fn probe(cgroups: &Cgroups) -> Tiers {
    let mut tiers = tiers(&agentd_ebpf::probe(), cgroups);
    match net::probe() {
        Ok(()) => set(&mut tiers, Domain::Network, Tier::CgroupBpf, None),
        Err(error) => set(&mut tiers, Domain::Network, Tier::Nothing, Some(crate::errors::one_line(&error))),
    }
    tiers
}

/// Network rules need only the cgroup; where the kernel refuses them, that is a tier and not an error.
fn start_network(places: &Places, cgroups: &Cgroups, tiers: &mut Tiers) -> Result<Option<net::NetLog>, StartError> {
    if let Err(error) = net::probe() {
        set(tiers, Domain::Network, Tier::Nothing, Some(crate::errors::one_line(&error)));
        return Ok(None);
    }
    let options =
        net::Options { object: net::OBJECT, bpffs: places.bpffs.clone(), agents_cgroup: cgroups.parent().to_owned() };
    let mut network = Net::load(&options)?;
    set(tiers, Domain::Network, Tier::CgroupBpf, None);
    if let Err(error) = network.audit() {
        tracing::warn!(error = crate::errors::one_line(error), "programs that agents run are not recorded");
    }
    Ok(network.take_log())
}

/// Clears the kernel's tables of agents that have ended, where a daemon that stopped had not got round to it. Agents in
/// whose cgroup something still runs are left alone, whatever the journal says.
pub fn forget_ended(places: &Places, cgroups: &Cgroups, is_live: impl Fn(AgentNumber) -> bool) {
    let Ok(maps) = agentd_ebpf::Maps::open(&agentd_ebpf::maps_dir(&places.bpffs)) else {
        // Tables of another layout, or none. Nobody can say whom they are for, but somebody who has no processes.
        if !cgroups.present().into_iter().any(|agent| cgroups.of(agent).is_populated()) {
            let _ = unload(places);
        }
        return;
    };
    let registered: Vec<(u32, abi::Agent)> = maps.agents().collect();
    for (slot, account) in registered {
        let agent = AgentNumber(account.number);
        if is_live(agent) || is_still_populated(&cgroups.of(agent)) {
            continue;
        }
        tracing::info!(%agent, "clearing the kernel's tables of an agent that has ended");
        let cleared = maps.remove_cgroup(account.cgroup_id).and_then(|()| maps.remove_rules_of(agent.0));
        match cleared {
            Ok(()) => maps.free_agent(slot),
            Err(error) => tracing::warn!(%agent, error = crate::errors::one_line(&error), "it stays in the tables"),
        }
    }
}

/// Whether something runs there and does not end by itself, as a berth does when its daemon has been killed.
fn is_still_populated(cgroup: &Cgroup) -> bool {
    for _ in 0..50 {
        if !cgroup.is_populated() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Takes the kernel programs out.
pub fn unload(places: &Places) -> Result<(), StartError> {
    Net::detach(&places.bpffs)?;
    agentd_ebpf::unpin_all(&places.bpffs)?;
    // Empty now, or not ours.
    let _ = std::fs::remove_dir(places.bpffs.join("net"));
    let _ = std::fs::remove_dir(&places.bpffs);
    Ok(())
}

fn set(tiers: &mut Tiers, domain: Domain, tier: Tier, reason: Option<String>) {
    tiers.rows.retain(|(row, _, _)| *row != domain);
    tiers.rows.push((domain, tier, reason));
    tiers.rows.sort_by_key(|(domain, _, _)| *domain);
}

/// One row a domain, from what was tried.
fn tiers(support: &agentd_ebpf::Support, cgroups: &Cgroups) -> Tiers {
    let mut tiers = Tiers { rows: vec![] };
    let said = |proof: &Proof| match proof {
        Proof::Works => None,
        Proof::Fails { step, errno, said } => {
            let errno = errno.map(|errno| format!(" ({})", nix::errno::Errno::from_raw(errno))).unwrap_or_default();
            Some(format!("{step}{errno}: {said}").trim_end_matches([':', ' ']).to_owned())
        }
    };
    let landlock = match crate::launch::landlock_abi() {
        Some(_) => Tier::Landlock,
        None => Tier::Nothing,
    };
    let confined = if support.lsm.works() { Tier::Lsm } else { landlock };
    set(&mut tiers, Domain::Files, confined, said(&support.lsm));
    set(&mut tiers, Domain::Guard, if support.lsm.works() { Tier::Lsm } else { Tier::Landlock }, said(&support.lsm));
    set(&mut tiers, Domain::Network, Tier::Nothing, said(&support.cpu));
    set(
        &mut tiers,
        Domain::Cpu,
        if support.cpu.works() { Tier::Tracepoint } else { Tier::Polling },
        said(&support.cpu),
    );
    for (domain, controller) in [(Domain::Memory, "memory"), (Domain::Pids, "pids")] {
        if cgroups.has(controller) {
            set(&mut tiers, domain, Tier::Controller, None);
        } else {
            set(&mut tiers, domain, Tier::Nothing, Some(format!("no {controller} controller is delegated")));
        }
    }
    tiers
}

impl Loaded {
    /// Starts to read what the kernel programs report. `spent` is called at once, on the reader's thread, when they have
    /// marked an agent as exhausted; everything, this too, goes to the world.
    pub fn listen(mut self, world: World, spent: impl Fn(AgentNumber) + Send + 'static) {
        let Some(programs) = self.programs.take() else { return };
        let mut log = self.net_log.take();
        let body = move || {
            if let Err(error) = read_reports(&programs, &world, &spent, &mut log) {
                tracing::error!(error, "the kernel's reports cannot be read; refusals hold, and are not recorded");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("reports".into()).spawn(body) {
            tracing::error!(%error, "cannot start a thread for the kernel's reports");
        }
    }
}

fn read_reports(
    programs: &Programs,
    world: &World,
    spent: &dyn Fn(AgentNumber),
    log: &mut Option<net::NetLog>,
) -> Result<(), String> {
    let mut reader = programs.kernel.maps().events().map_err(|error| crate::errors::one_line(&error))?;
    loop {
        reader.wait(PATIENCE).map_err(|error| crate::errors::one_line(&error))?;
        let drained = reader.drain(|event| match event {
            Ok(event) => {
                let Some(observation) = crate::reports::read(event) else { return };
                if let Observation::CpuExhausted { agent, .. } = &observation {
                    spent(*agent);
                }
                world.saw(observation);
            }
            Err(error) => tracing::warn!(?error, "a report of the kernel cannot be read"),
        });
        drained.map_err(|error| crate::errors::one_line(&error))?;
        for line in log.iter_mut().flat_map(net::NetLog::drain) {
            tracing::debug!(?line, "network programs");
        }
    }
}

/// The kernel programs of this host.
struct Programs {
    kernel: Kernel,
    identifier: Option<Identifier>,
    /// Held while a slot gets or loses its agent, and while something is written for the one that has it.
    owners: Mutex<()>,
}

fn refused(what: &'static str) -> impl Fn(WriteError) -> EnforceError {
    move |source| EnforceError { what, source: source.into() }
}

impl Programs {
    /// The agent's slot, if it is still this agent's.
    fn holds(&self, slot: u32, agent: AgentNumber) -> Option<abi::Agent> {
        Some(self.kernel.maps().read_agent(slot)).filter(|account| account.number == agent.0)
    }
}

fn kernel_limits(limits: CpuLimits) -> Limits {
    let (limit_ns, warn_ns, kill_ns) = limits.thresholds();
    Limits { limit_ns, warn_ns, kill_ns }
}

impl Enforcer for Programs {
    fn identify(&self, files: &[BorrowedFd<'_>]) -> Result<Vec<abi::Object>, EnforceError> {
        let Some(identifier) = &self.identifier else { return Ok(vec![abi::Object::default(); files.len()]) };
        let found = identifier.identify(files);
        let found =
            found.map_err(|source| EnforceError { what: "identify what the rules name", source: source.into() })?;
        Ok(found.into_iter().map(|found| found.object).collect())
    }

    fn admit(&self, slot: u32, agent: AgentNumber, cgroup_id: u64, limits: CpuLimits) -> Result<(), EnforceError> {
        let Limits { limit_ns, warn_ns, kill_ns } = kernel_limits(limits);
        let account = abi::Agent {
            number: agent.0,
            generation: HostClock.stamp().mono_ns,
            cgroup_id,
            cpu_limit_ns: limit_ns,
            cpu_warn_ns: warn_ns,
            cpu_kill_ns: kill_ns,
            ..abi::Agent::default()
        };
        let maps = self.kernel.maps();
        let _owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        maps.put_agent(slot, &account);
        maps.put_cgroup(cgroup_id, slot).map_err(|error| {
            maps.free_agent(slot);
            refused("admit the agent")(error)
        })
    }

    fn load(&self, slot: u32, agent: AgentNumber, rules: &Compiled) -> Result<u32, EnforceError> {
        let maps = self.kernel.maps();
        let put = || {
            maps.put_rules(&rules.rules.iter().map(|(key, rule)| (*key, *rule)).collect::<Vec<_>>())?;
            maps.put_names(&rules.names.iter().map(|(key, rule)| (*key, *rule)).collect::<Vec<_>>())?;
            maps.put_nets(&rules.nets)
        };
        put().map_err(|error| {
            let _ = maps.remove_rules_of(agent.0);
            refused("load the agent's rules")(error)
        })?;
        maps.set_rule_state(slot, rules.flags, rules.name_lengths, HostClock.stamp().mono_ns);
        Ok((rules.rules.len() + rules.names.len() + rules.nets.len()) as u32)
    }

    fn mark(&self, pidfd: BorrowedFd<'_>, slot: u32, agent: AgentNumber) -> Result<(), EnforceError> {
        let identity = abi::Identity { slot, number: agent.0 };
        self.kernel.maps().set_identity(pidfd, identity).map_err(refused("mark the agent's first process"))
    }

    fn set_cpu(&self, slot: u32, agent: AgentNumber, limits: CpuLimits) -> Result<(), EnforceError> {
        if let Some(account) = self.holds(slot, agent) {
            self.kernel.maps().set_limits(slot, kernel_limits(limits));
            if limits.limit.is_none_or(|limit| account.cpu_spent_ns < limit.0) {
                self.kernel.maps().clear_exhausted(slot);
            }
        }
        Ok(())
    }

    fn prepare(
        &self,
        (slot, agent): (u32, AgentNumber),
        capability: CapabilityNumber,
        loans: &[LoanOn],
        until_ns: Option<u64>,
    ) -> Result<u32, EnforceError> {
        let what = "lend the rights";
        let maps = self.kernel.maps();
        // Whoever has the slot has it until this is done.
        let _owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if self.holds(slot, agent).is_none() {
            return Err(EnforceError { what, source: "the agent has ended".into() });
        }
        let (number, until_ns) = (capability.0, until_ns.unwrap_or(abi::NEVER));
        let place = maps
            .prepare_capability(abi::Capability { number, agent: agent.0, until_ns, ..abi::Capability::default() })
            .ok_or_else(|| refused(what)(WriteError::Full { table: Table::Capabilities }))?;
        let entry = |LoanOn { object, rights, .. }: &LoanOn| {
            let key = abi::RuleKey { agent: agent.0, dev: object.dev, ino: object.ino };
            (key, abi::Loan { rights: *rights, slot: place, number, object: key.object() })
        };
        let entries: Vec<(abi::RuleKey, abi::Loan)> = loans.iter().map(entry).collect();
        if let Err(error) = maps.lend(&entries, HostClock.stamp().mono_ns) {
            maps.free_capability(place, number);
            return Err(refused(what)(error));
        }
        let on_file = loans.iter().any(|loan| !loan.directory);
        maps.set_lent(slot, if on_file { abi::F_FILE_RULES } else { 0 }, HostClock.stamp().mono_ns);
        Ok(place)
    }

    fn set_capability(&self, slot: u32, capability: CapabilityNumber, in_force: bool) -> bool {
        let state = if in_force { abi::C_IN_FORCE } else { abi::C_REVOKED };
        self.kernel.maps().set_capability(slot, capability.0, state)
    }

    fn counts(&self, slot: u32, capability: CapabilityNumber) -> bool {
        let found = self.kernel.maps().read_capability(slot);
        found.number == capability.0 && found.state == abi::C_IN_FORCE
    }

    fn forget(&self, slot: u32, capability: CapabilityNumber, agent: AgentNumber, on: &[abi::Object]) {
        let maps = self.kernel.maps();
        maps.free_capability(slot, capability.0);
        let key = |object: &abi::Object| abi::RuleKey { agent: agent.0, dev: object.dev, ino: object.ino };
        if let Err(error) = maps.unlend(&on.iter().map(key).collect::<Vec<_>>(), capability.0) {
            tracing::warn!(%capability, error = crate::errors::one_line(&error), "loans that count no more stay in the tables");
        }
    }

    fn sweep(&self, holder: &dyn Fn(u32, CapabilityNumber) -> Option<AgentNumber>) -> Result<u32, EnforceError> {
        let holder = |slot, number| holder(slot, CapabilityNumber(number)).map(|agent| agent.0);
        self.kernel.maps().sweep_capabilities(holder).map_err(refused("forget what a daemon has left behind"))
    }

    fn account(&self, slot: u32, agent: AgentNumber) -> Option<abi::Agent> {
        self.holds(slot, agent)
    }

    fn registered(&self) -> Vec<(u32, AgentNumber)> {
        self.kernel.maps().agents().map(|(slot, account)| (slot, AgentNumber(account.number))).collect()
    }

    fn release(&self, slot: u32, agent: AgentNumber, cgroup_id: u64) -> Result<(), EnforceError> {
        let maps = self.kernel.maps();
        maps.remove_cgroup(cgroup_id).map_err(refused("take the agent's cgroup out"))?;
        {
            let _owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            if self.holds(slot, agent).is_some() {
                maps.free_agent(slot);
            }
        }
        maps.remove_rules_of(agent.0).map_err(refused("take the agent's rules out"))
    }
}

/// A host that takes no kernel programs at all.
struct Bare;

impl Enforcer for Bare {
    fn identify(&self, files: &[BorrowedFd<'_>]) -> Result<Vec<abi::Object>, EnforceError> {
        Ok(vec![abi::Object::default(); files.len()])
    }

    fn admit(&self, _: u32, _: AgentNumber, _: u64, _: CpuLimits) -> Result<(), EnforceError> {
        Ok(())
    }

    fn load(&self, _: u32, _: AgentNumber, _: &Compiled) -> Result<u32, EnforceError> {
        Ok(0)
    }

    fn mark(&self, _: BorrowedFd<'_>, _: u32, _: AgentNumber) -> Result<(), EnforceError> {
        Ok(())
    }

    fn set_cpu(&self, _: u32, _: AgentNumber, _: CpuLimits) -> Result<(), EnforceError> {
        Ok(())
    }

    fn prepare(
        &self,
        _: (u32, AgentNumber),
        _: CapabilityNumber,
        _: &[LoanOn],
        _: Option<u64>,
    ) -> Result<u32, EnforceError> {
        Err(EnforceError { what: "lend the rights", source: "this host takes no kernel programs".into() })
    }

    fn set_capability(&self, _: u32, _: CapabilityNumber, _: bool) -> bool {
        false
    }

    fn counts(&self, _: u32, _: CapabilityNumber) -> bool {
        false
    }

    fn forget(&self, _: u32, _: CapabilityNumber, _: AgentNumber, _: &[abi::Object]) {}

    fn sweep(&self, _: &dyn Fn(u32, CapabilityNumber) -> Option<AgentNumber>) -> Result<u32, EnforceError> {
        Ok(0)
    }

    fn account(&self, _: u32, _: AgentNumber) -> Option<abi::Agent> {
        None
    }

    fn registered(&self) -> Vec<(u32, AgentNumber)> {
        vec![]
    }

    fn release(&self, _: u32, _: AgentNumber, _: u64) -> Result<(), EnforceError> {
        Ok(())
    }
}
