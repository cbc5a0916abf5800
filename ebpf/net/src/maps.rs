// SPDX-License-Identifier: GPL-2.0-only
//! What do these programs share with the daemon and the LSM programs?
//!
//! The first four maps are pinned by name; whoever comes first makes them, so the definitions must equal those in
//! `ebpf/lsm/maps.h` (the loader compares). The last belongs to these programs alone.

use core::arch::asm;

use agentd_abi::{Agent, EVENT_RING, MAX_AGENTS, MAX_NETS, Net};
use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, RingBuf},
};

/// The agents, by slot. Slot 0 is nobody's; its counters are those of cgroups that nobody registered.
#[map(name = "agents")]
pub(crate) static AGENTS: Array<Agent> = Array::with_max_entries(MAX_AGENTS, BPF_F_MMAPABLE);

/// Slot of the agent that owns a cgroup. Full: the daemon refuses to spawn.
#[map(name = "cgroup_agents")]
pub(crate) static CGROUP_AGENTS: HashMap<u64, u32> = HashMap::with_max_entries(MAX_AGENTS, 0);

/// [`agentd_abi::NetKey`] less its prefix: the agent's number, then the address, all in network byte order.
pub(crate) type Place = [u32; 5];

/// Which addresses an agent may use. Full: the daemon refuses the grant.
#[map(name = "nets")]
pub(crate) static NETS: LpmTrie<Place, agentd_abi::Net> = LpmTrie::with_max_entries(MAX_NETS, 0);

/// Refusals and processes. Full: a refusal is counted in its agent and carried by the next, a process in [`COUNTERS`].
#[map(name = "events")]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING, 0);

/// See [`Counter`].
#[map(name = "net_counters")]
pub(crate) static COUNTERS: Array<u64> = Array::with_max_entries(COUNTERS_LEN, 0);

/// Index in [`COUNTERS`]; `Counters` in `ebpf/src/net.rs` reads them in this order.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Counter {
    /// Calls judged inside agents.
    Judged = 0,
    /// Calls refused because the task is in no registered agent.
    Unregistered = 1,
    /// Process events that were not sent, because the ring was three quarters full.
    ProcessesLost = 2,
    /// Entries that contradict each other: a slot out of range, or taken by somebody else.
    Broken = 3,
}
const COUNTERS_LEN: u32 = 4;

/// Level, from the root of the cgroup tree, of an agent's own cgroup. Set by the loader; 0 refuses everything, because
/// the root is nobody's cgroup.
#[unsafe(no_mangle)]
pub(crate) static AGENT_LEVEL: Global<u32> = Global::new(0);

/// Byte offsets in `task_struct` and `linux_binprm`. Set by the loader from the kernel's BTF before the audit programs
/// are loaded; left at 0 they would read the first word, which the verifier refuses or which is no pid.
#[unsafe(no_mangle)]
pub(crate) static TASK_PID: Global<u32> = Global::new(0);
/// See [`TASK_PID`].
#[unsafe(no_mangle)]
pub(crate) static TASK_TGID: Global<u32> = Global::new(0);
/// See [`TASK_PID`].
#[unsafe(no_mangle)]
pub(crate) static TASK_PARENT: Global<u32> = Global::new(0);
/// See [`TASK_PID`].
#[unsafe(no_mangle)]
pub(crate) static TASK_EXIT_CODE: Global<u32> = Global::new(0);
/// See [`TASK_PID`].
#[unsafe(no_mangle)]
pub(crate) static BPRM_FILENAME: Global<u32> = Global::new(0);

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter as u32) {
        add(cell, 1);
    }
}

/// Adds to a word that other CPUs and the daemon add to at the same time.
///
/// By hand, because rustc gives the BPF target no read-modify-write atomics.
#[inline(always)]
pub(crate) fn add(cell: *mut u64, n: u64) {
    // SAFETY: every caller passes a pointer into an array map's value, which is aligned and never freed.
    unsafe { asm!("lock *(u64 *)({cell} + 0) += {n}", cell = in(reg) cell, n = in(reg) n) };
}

/// Takes all of such a word and leaves 0.
#[inline(always)]
pub(crate) fn take(cell: *mut u64) -> u64 {
    let mut word = 0_u64;
    // SAFETY: as in `add`.
    unsafe { asm!("{word} = xchg_64({cell} + 0, {word})", cell = in(reg) cell, word = inout(reg) word) };
    word
}

const _: () = assert!(size_of::<Place>() + 4 == size_of::<agentd_abi::NetKey>());
const _: () = assert!(size_of::<Net>() == 8 + 8 * agentd_abi::NET_PORTS);
