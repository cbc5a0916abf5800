//! The maps, typed.
//!
//! One owner writes (the daemon); the programs read, and count. A table that is full is an error that names it and leaves
//! everything as it was.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use agentd_abi::{
    Agent, C_PREPARED, C_REVOKED, Capability, Config, F_LENT, HINT_WORDS, Identity, Lent, Loan, MAX_AGENTS,
    MAX_CAPABILITIES, MAX_LENT, MAX_NAMES, MAX_NETS, MAX_RULES, NameKey, Net, NetKey, Rule, RuleKey,
};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::agents::{Agents, Capabilities, Hints};
use crate::events::{EventReader, OpenEventsError};
use crate::support::errno;

/// A table in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Table {
    /// Agents by slot.
    Agents,
    /// Slots by cgroup.
    CgroupAgents,
    /// Rules on objects.
    Rules,
    /// Which rules there may be.
    Hints,
    /// What capabilities lend.
    Lent,
    /// Capabilities by slot.
    Capabilities,
    /// Rules about names.
    Names,
    /// Rules about addresses.
    Nets,
    /// Identities of tasks.
    TaskAgent,
    /// What the loader was told.
    Config,
    /// Events.
    Events,
}

impl Table {
    /// Name of the map and of its pin.
    pub fn name(self) -> &'static str {
        match self {
            Table::Agents => "agents",
            Table::CgroupAgents => "cgroup_agents",
            Table::Rules => "rules",
            Table::Hints => "hints",
            Table::Lent => "lent",
            Table::Capabilities => "capabilities",
            Table::Names => "names",
            Table::Nets => "nets",
            Table::TaskAgent => "task_agent",
            Table::Config => "config",
            Table::Events => "events",
        }
    }

    /// How many entries it holds.
    pub fn limit(self) -> u32 {
        match self {
            Table::Agents | Table::CgroupAgents => MAX_AGENTS,
            Table::Rules => MAX_RULES,
            Table::Hints => HINT_WORDS,
            Table::Lent => MAX_LENT,
            Table::Capabilities => MAX_CAPABILITIES,
            Table::Names => MAX_NAMES,
            Table::Nets => MAX_NETS,
            Table::TaskAgent => u32::MAX,
            Table::Config => 1,
            Table::Events => agentd_abi::EVENT_RING,
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a map could not be changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It has no room.
    #[error("the kernel table `{table}` is full ({} entries)", .table.limit())]
    Full {
        /// Which.
        table: Table,
    },
    /// As many capabilities as there can be lend rights on one object to one agent.
    #[error("{} capabilities lend rights on one object to one agent already", agentd_abi::LENDERS)]
    Lenders,
    /// The kernel refused.
    #[error("cannot write the kernel table `{table}`")]
    Refused {
        /// Which.
        table: Table,
        /// Why.
        #[source]
        source: libbpf_rs::Error,
    },
}

/// Why the pinned maps could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenMapsError {
    /// One of them is not there, or not what its name says.
    #[error("cannot open the pinned map `{table}`")]
    Open {
        /// Which.
        table: Table,
        /// Why.
        #[source]
        source: libbpf_rs::Error,
    },
    /// A table could not be mapped into memory.
    #[error("cannot map the tables that are shared with the kernel programs into memory")]
    Map(#[source] nix::errno::Errno),
}

/// CPU time in nanoseconds; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// At this spend the agent is exhausted.
    pub limit_ns: u64,
    /// At this spend one warning is sent.
    pub warn_ns: u64,
    /// At this spend whoever runs gets SIGKILL.
    pub kill_ns: u64,
}

/// The maps of one host. `Send` and `Sync`; the daemon's one owner of state uses it.
pub struct Maps {
    agents: Agents,
    /// Held while rules come or go. Taking rules away makes the hints anew from the rules that are left; rules that came
    /// in between would lose theirs, and not be seen.
    changing: Mutex<()>,
    hints: Hints,
    capabilities: Capabilities,
    /// Held while it is said which capability is in a slot, and whether it is in force.
    slots: Mutex<()>,
    cgroup_agents: MapHandle,
    rules: MapHandle,
    lent: MapHandle,
    names: MapHandle,
    nets: MapHandle,
    task_agent: MapHandle,
    config: MapHandle,
    events: MapHandle,
}

impl Maps {
    /// Opens the pinned maps in a directory of bpffs.
    pub fn open(directory: &Path) -> Result<Self, OpenMapsError> {
        let open = |table: Table| {
            MapHandle::from_pinned_path(directory.join(table.name()))
                .map_err(|source| OpenMapsError::Open { table, source })
        };
        let agents = open(Table::Agents)?;
        Ok(Self {
            agents: Agents::map(agents.as_fd()).map_err(OpenMapsError::Map)?,
            changing: Mutex::new(()),
            hints: Hints::map(open(Table::Hints)?.as_fd()).map_err(OpenMapsError::Map)?,
            slots: Mutex::new(()),
            capabilities: Capabilities::map(open(Table::Capabilities)?.as_fd()).map_err(OpenMapsError::Map)?,
            cgroup_agents: open(Table::CgroupAgents)?,
            rules: open(Table::Rules)?,
            lent: open(Table::Lent)?,
            names: open(Table::Names)?,
            nets: open(Table::Nets)?,
            task_agent: open(Table::TaskAgent)?,
            config: open(Table::Config)?,
            events: open(Table::Events)?,
        })
    }

    /// Puts an agent into a free slot (from 1 on). From then on its rules count for every task with its identity.
    pub fn put_agent(&self, slot: u32, agent: &Agent) {
        self.agents.write(slot, agent);
    }

    /// Reads an agent's slot; each member is exact, but not all are of the same instant.
    pub fn read_agent(&self, slot: u32) -> Agent {
        self.agents.read(slot)
    }

    /// Frees a slot. Tasks that still carry the agent's identity are refused everything.
    pub fn free_agent(&self, slot: u32) {
        self.agents.slot(slot).number().store(0, Ordering::SeqCst);
    }

    /// The slots in use.
    pub fn agents(&self) -> impl Iterator<Item = (u32, Agent)> + '_ {
        (1..MAX_AGENTS).map(|slot| (slot, self.agents.read(slot))).filter(|(_, agent)| agent.number != 0)
    }

    /// Tells the programs what kinds of rules an agent has now, and makes every kept decision about it worthless.
    ///
    /// Call it before new kinds of rules are put, with the flags that hold afterwards, and again, with another
    /// generation, after rules have changed.
    pub fn set_rule_state(&self, slot: u32, flags: u32, name_lengths: u64, generation: u64) {
        let s = self.agents.slot(slot);
        s.name_lengths().store(name_lengths, Ordering::SeqCst);
        s.flags().store(flags, Ordering::SeqCst);
        s.generation().store(generation, Ordering::SeqCst);
    }

    /// Sets an agent's limits; a warning or an exhaustion that has happened stays until [`Self::clear_exhausted`].
    pub fn set_limits(&self, slot: u32, limits: Limits) {
        let s = self.agents.slot(slot);
        s.cpu_kill_ns().store(limits.kill_ns, Ordering::SeqCst);
        s.cpu_warn_ns().store(limits.warn_ns, Ordering::SeqCst);
        s.cpu_limit_ns().store(limits.limit_ns, Ordering::SeqCst);
    }

    /// Lets an agent go on after a top-up: new limits first, then this. The warning can be sent again.
    pub fn clear_exhausted(&self, slot: u32) {
        let s = self.agents.slot(slot);
        s.exhausted_at_ns().store(0, Ordering::SeqCst);
        s.warned().store(0, Ordering::SeqCst);
        s.exhausted().store(0, Ordering::SeqCst);
    }

    /// Sets what has been spent before: for an agent that is adopted after a reboot.
    pub fn set_spent(&self, slot: u32, spent_ns: u64) {
        self.agents.slot(slot).cpu_spent_ns().store(spent_ns, Ordering::SeqCst);
    }

    /// Says which slot a cgroup belongs to; its CPU time counts from then on.
    pub fn put_cgroup(&self, cgroup_id: u64, slot: u32) -> Result<(), WriteError> {
        put(&self.cgroup_agents, Table::CgroupAgents, &cgroup_id, &slot)
    }

    /// Takes a cgroup out. It may be gone already.
    pub fn remove_cgroup(&self, cgroup_id: u64) -> Result<(), WriteError> {
        remove(&self.cgroup_agents, Table::CgroupAgents, &cgroup_id)
    }

    /// Makes a task (and from then on its children) part of an agent. The task must not run yet.
    pub fn set_identity(&self, task: BorrowedFd<'_>, identity: Identity) -> Result<(), WriteError> {
        put(&self.task_agent, Table::TaskAgent, &task.as_raw_fd(), &identity)
    }

    /// The identity that a task carries.
    pub fn identity(&self, task: BorrowedFd<'_>) -> Option<Identity> {
        get(&self.task_agent, &task.as_raw_fd())
    }

    /// Puts rules on objects: all of them or, with an error, none. Their keys are new, as those of a new agent are.
    pub fn put_rules(&self, entries: &[(RuleKey, Rule)]) -> Result<(), WriteError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // First the hints: a rule without one would not be seen.
        entries.iter().for_each(|(key, _)| self.hints.set(key));
        put_all(&self.rules, Table::Rules, entries)
    }

    /// Puts rules about names: all of them or, with an error, none. Their keys are new.
    pub fn put_names(&self, entries: &[(NameKey, Rule)]) -> Result<(), WriteError> {
        put_all(&self.names, Table::Names, entries)
    }

    /// Puts rules about addresses: all of them or, with an error, none. Their keys are new.
    pub fn put_nets(&self, entries: &[(NetKey, Net)]) -> Result<(), WriteError> {
        put_all(&self.nets, Table::Nets, entries)
    }

    /// Takes single rules away. Those that are not there are passed over.
    pub fn remove_rules(&self, keys: &[RuleKey]) -> Result<(), WriteError> {
        keys.iter().try_for_each(|key| remove(&self.rules, Table::Rules, key))
    }

    /// Takes single rules about names away.
    pub fn remove_names(&self, keys: &[NameKey]) -> Result<(), WriteError> {
        keys.iter().try_for_each(|key| remove(&self.names, Table::Names, key))
    }

    /// Takes single rules about addresses away.
    pub fn remove_nets(&self, keys: &[NetKey]) -> Result<(), WriteError> {
        keys.iter().try_for_each(|key| remove(&self.nets, Table::Nets, key))
    }

    /// Takes every rule of an agent away: on objects, names and addresses. Reads the whole tables.
    pub fn remove_rules_of(&self, agent: u32) -> Result<(), WriteError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let big_endian = agent.to_be_bytes();
        remove_where(&self.rules, Table::Rules, |key: &RuleKey| key.agent == agent)?;
        remove_where(&self.lent, Table::Lent, |key: &RuleKey| key.agent == agent)?;
        let left = self.rules.keys().chain(self.lent.keys());
        let left: Vec<RuleKey> = left.filter_map(|key| RuleKey::read_from_bytes(&key).ok()).collect();
        self.hints.replace(&left);
        remove_where(&self.names, Table::Names, |key: &NameKey| key.agent == agent)?;
        remove_where(&self.nets, Table::Nets, |key: &NetKey| key.agent == big_endian)
    }

    /// Puts a capability into a free slot, not in force; `None`: there is none.
    pub fn prepare_capability(&self, capability: Capability) -> Option<u32> {
        let _slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (1..MAX_CAPABILITIES).find(|slot| self.capabilities.number(*slot).load(Ordering::SeqCst) == 0)?;
        self.capabilities.write(free, &Capability { state: C_PREPARED, ..capability });
        Some(free)
    }

    /// Says whether a capability is in force (`C_…`). Every processor knows it with its next decision. False: the slot is
    /// another's.
    pub fn set_capability(&self, slot: u32, number: u32, state: u32) -> bool {
        let _slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = self.capabilities.read(slot).number == number;
        if ours {
            self.capabilities.state(slot).store(state, Ordering::SeqCst);
        }
        ours
    }

    /// A capability, or whatever else is in its slot.
    pub fn read_capability(&self, slot: u32) -> Capability {
        self.capabilities.read(slot)
    }

    /// Frees the slot of a capability, if it is still its own. What was lent by it counts no more.
    pub fn free_capability(&self, slot: u32, number: u32) {
        let _slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if self.capabilities.read(slot).number == number {
            self.capabilities.number(slot).store(0, Ordering::SeqCst);
        }
    }

    /// Lends rights on objects: on all of them or, with an error, on none that was not lent before. Loans of capabilities
    /// that are over give way. Afterwards the agent is to be told ([`Self::set_lent`]).
    pub fn lend(&self, loans: &[(RuleKey, Loan)], now_ns: u64) -> Result<(), WriteError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let put_all = || loans.iter().try_for_each(|(key, loan)| self.lend_one(key, loan, now_ns));
        put_all().inspect_err(|_| {
            for (key, loan) in loans {
                // What cannot be taken away counts only while its capability is in force, which it will not be.
                let _ = self.unlend_one(key, loan.number);
            }
        })
    }

    fn lend_one(&self, key: &RuleKey, loan: &Loan, now_ns: u64) -> Result<(), WriteError> {
        let mut lent: Lent = get(&self.lent, key).unwrap_or_default();
        let is_over = |old: &Loan| {
            let lender = (old.rights != 0).then(|| self.read_capability(old.slot));
            lender.is_none_or(|lender| {
                let over = lender.state == C_REVOKED || lender.until_ns <= now_ns;
                lender.number != old.number || over
            })
        };
        let place = lent.loans.iter().position(is_over).ok_or(WriteError::Lenders)?;
        lent.loans[place] = *loan;
        // The hint, without which nobody looks, before what is to be seen.
        self.hints.set(key);
        put(&self.lent, Table::Lent, key, &lent)
    }

    /// Makes an agent's programs look for what is lent, and what was decided about it worthless.
    pub fn set_lent(&self, slot: u32, flags: u32, generation: u64) {
        let s = self.agents.slot(slot);
        s.flags().fetch_or(flags | F_LENT, Ordering::SeqCst);
        s.generation().store(generation, Ordering::SeqCst);
    }

    /// Takes the loans of a capability on these objects away.
    pub fn unlend(&self, keys: &[RuleKey], number: u32) -> Result<(), WriteError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().try_for_each(|key| self.unlend_one(key, number))
    }

    fn unlend_one(&self, key: &RuleKey, number: u32) -> Result<(), WriteError> {
        let Some(mut lent) = get::<_, Lent>(&self.lent, key) else { return Ok(()) };
        for loan in lent.loans.iter_mut().filter(|loan| loan.number == number) {
            *loan = Loan::default();
        }
        match lent.loans.iter().any(|loan| loan.rights != 0) {
            true => put(&self.lent, Table::Lent, key, &lent),
            false => remove(&self.lent, Table::Lent, key),
        }
    }

    /// Forgets capabilities and loans that a daemon left behind that ended in the middle. `holder` tells whom the capability with
    /// a number in a slot is lent to, if anybody knows of it. Gives the highest number found, which nobody may be given again.
    pub fn sweep_capabilities(&self, holder: impl Fn(u32, u32) -> Option<u32>) -> Result<u32, WriteError> {
        let mut highest = 0;
        for slot in 1..MAX_CAPABILITIES {
            let found = self.read_capability(slot);
            highest = highest.max(found.number);
            if found.number != 0 && holder(slot, found.number) != Some(found.agent) {
                self.free_capability(slot, found.number);
            }
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<RuleKey> = self.lent.keys().filter_map(|key| RuleKey::read_from_bytes(&key).ok()).collect();
        for key in keys {
            let lent: Lent = get(&self.lent, &key).unwrap_or_default();
            for loan in lent.loans.iter().filter(|loan| loan.rights != 0) {
                highest = highest.max(loan.number);
                if holder(loan.slot, loan.number) != Some(key.agent) {
                    self.unlend_one(&key, loan.number)?;
                }
            }
        }
        Ok(highest)
    }

    /// What is lent on an object, for `inspect` and tests.
    pub fn lent(&self, key: &RuleKey) -> Option<Lent> {
        get(&self.lent, key)
    }

    /// The rule on an object, for `inspect` and tests.
    pub fn rule(&self, key: &RuleKey) -> Option<Rule> {
        get(&self.rules, key)
    }

    /// What the loader was told.
    pub fn config(&self) -> Option<Config> {
        get(&self.config, &0u32)
    }

    pub(crate) fn set_config(&self, config: &Config) -> Result<(), WriteError> {
        put(&self.config, Table::Config, &0u32, config)
    }

    /// Opens the reading side of the events; there may be one at a time.
    pub fn events(&self) -> Result<EventReader, OpenEventsError> {
        let copy = MapHandle::try_from(&self.events).map_err(OpenEventsError::from_libbpf)?;
        EventReader::open(copy)
    }
}

fn put<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: &MapHandle,
    table: Table,
    key: &K,
    value: &V,
) -> Result<(), WriteError> {
    map.update(key.as_bytes(), value.as_bytes(), MapFlags::ANY).map_err(|source| not_written(table, source))
}

fn not_written(table: Table, source: libbpf_rs::Error) -> WriteError {
    match errno(&source) {
        Some(libc::E2BIG | libc::ENOSPC) => WriteError::Full { table },
        _ => WriteError::Refused { table, source },
    }
}

fn get<K: IntoBytes + Immutable, V: FromBytes + KnownLayout + Immutable>(map: &MapHandle, key: &K) -> Option<V> {
    let bytes = map.lookup(key.as_bytes(), MapFlags::ANY).ok().flatten()?;
    V::read_from_bytes(&bytes).ok()
}

fn remove<K: IntoBytes + Immutable>(map: &MapHandle, table: Table, key: &K) -> Result<(), WriteError> {
    match map.delete(key.as_bytes()) {
        Err(source) if errno(&source) != Some(libc::ENOENT) => Err(WriteError::Refused { table, source }),
        _ => Ok(()),
    }
}

/// Puts all entries, in one call where the kernel has one; at a refusal takes all of them out.
fn put_all<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: &MapHandle,
    table: Table,
    entries: &[(K, V)],
) -> Result<(), WriteError> {
    let put_each = || entries.iter().try_for_each(|(key, value)| put(map, table, key, value));
    let put_together = || {
        let keys: Vec<u8> = entries.iter().flat_map(|(key, _)| key.as_bytes()).copied().collect();
        let values: Vec<u8> = entries.iter().flat_map(|(_, value)| value.as_bytes()).copied().collect();
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
            .map_err(|source| not_written(table, source))
    };
    let all = match table {
        _ if entries.is_empty() => Ok(()),
        // The kernel's tries take no batches before Linux 5.14, and a handful of addresses is not worth one.
        Table::Nets => put_each(),
        _ => put_together(),
    };
    if all.is_err() {
        for (key, _) in entries {
            // Some were never put.
            let _ = map.delete(key.as_bytes());
        }
    }
    all
}

fn remove_where<K>(map: &MapHandle, table: Table, doomed: impl Fn(&K) -> bool) -> Result<(), WriteError>
where
    K: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    // First all keys: an iteration during which keys vanish starts again from the beginning.
    let keys: Vec<K> =
        map.keys().filter_map(|bytes| K::read_from_bytes(&bytes).ok()).filter(|key| doomed(key)).collect();
    keys.iter().try_for_each(|key| remove(map, table, key))
}
