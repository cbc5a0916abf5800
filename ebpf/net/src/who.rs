// SPDX-License-Identifier: GPL-2.0-only
//! Which agent is the current task?
//!
//! The ancestor of its cgroup at the agents' level, so that cgroups which an agent makes below its own stay the agent.
//! `bpf_get_current_ancestor_cgroup_id` is there for socket address, socket and tracing programs alike from 6.1 on; the
//! helpers that ask for the cgroup of a socket are not. The slot must confirm the cgroup, so a stale entry of
//! `cgroup_agents` gives nobody the rights of whoever took the slot next.

use agentd_abi::Agent;
use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;

use crate::maps::{AGENT_LEVEL, AGENTS, CGROUP_AGENTS, Counter, count};

/// The agent of the current task, and its number; `None` if its cgroup is not registered.
#[inline(always)]
pub(crate) fn agent_of_current() -> Option<(*mut Agent, u32)> {
    let level = AGENT_LEVEL.load();
    // SAFETY: takes a number and gives one; 0 if the task is not that deep.
    agent_of_cgroup(unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) })
}

/// The agent that owns a cgroup, and its number; `None` if the cgroup is not registered.
#[inline(always)]
pub(crate) fn agent_of_cgroup(cgroup: u64) -> Option<(*mut Agent, u32)> {
    // SAFETY: the value is read at once, and an update replaces it as a whole.
    let slot = unsafe { CGROUP_AGENTS.get(cgroup) };
    let slot = *slot?;
    let Some(agent) = AGENTS.get_ptr_mut(slot) else {
        count(Counter::Broken);
        return None;
    };
    // SAFETY: a pointer to a value of an array map, which is never freed; the daemon may write at the same time.
    let number = unsafe { (&raw const (*agent).number).read_volatile() };
    // SAFETY: as above.
    let owner = unsafe { (&raw const (*agent).cgroup_id).read_volatile() };
    if slot == 0 || number == 0 || owner != cgroup {
        count(Counter::Broken);
        return None;
    }
    Some((agent, number))
}

/// The slot whose counters and report limit stand for all tasks that belong to nobody.
#[inline(always)]
pub(crate) fn nobody() -> Option<*mut Agent> {
    AGENTS.get_ptr_mut(0)
}
