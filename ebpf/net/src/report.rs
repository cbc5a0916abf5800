// SPDX-License-Identifier: GPL-2.0-only
//! What does the daemon hear of a refusal?
//!
//! Every refusal is counted in its agent. At most [`REPORTS_PER_SECOND`] of them are sent; the others are counted in
//! `suppressed`, and the next one that is sent carries and clears that number. The LSM programs use the same fields in
//! the same way, so the limit is one for both. The window is not locked: on several CPUs a few reports more may pass.
//! Nothing here can change a verdict.

use agentd_abi::{Agent, EV_NET_DENIED, EventHead, NetEvent};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns};

use crate::{
    decide::Peer,
    maps::{EVENTS, add, take},
};

/// Events of refusals that one agent can cause in a second.
const REPORTS_PER_SECOND: u32 = 200;
const SECOND_NS: u64 = 1_000_000_000;

/// The head of an event about the current task.
#[inline(always)]
pub(crate) fn head(kind: u32, agent: u32, suppressed: u64) -> EventHead {
    let task = bpf_get_current_pid_tgid();
    EventHead {
        kind,
        agent,
        // SAFETY: takes nothing, reads a clock.
        time_ns: unsafe { bpf_ktime_get_ns() },
        pid: (task >> 32) as u32,
        tid: task as u32,
        suppressed,
        comm: bpf_get_current_comm().unwrap_or_default(),
    }
}

/// Counts a refusal and, within the limit, sends it.
#[inline(always)]
pub(crate) fn denied(agent: *mut Agent, number: u32, hook: u32, reason: u32, peer: &Peer) {
    // SAFETY: `agent` points to a value of the array map `agents` (who.rs); only an address is taken.
    let denials = unsafe { &raw mut (*agent).denials };
    // SAFETY: as above.
    let suppressed = unsafe { &raw mut (*agent).suppressed };
    add(denials, 1);
    if !within_limit(agent) {
        add(suppressed, 1);
        return;
    }
    let carried = take(suppressed);
    let Some(mut event) = EVENTS.reserve::<NetEvent>(0) else {
        add(suppressed, carried + 1);
        return;
    };
    event.write(NetEvent {
        head: head(EV_NET_DENIED, number, carried),
        hook,
        reason,
        port: peer.port,
        protocol: peer.protocol as u16,
        family: peer.family,
        addr: bytes(peer.addr),
    });
    event.submit(0);
}

/// Whether the agent may send one more event in this second; takes it if so.
#[inline(always)]
fn within_limit(agent: *mut Agent) -> bool {
    // SAFETY: takes nothing, reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: `agent` points to a value of the array map `agents` (who.rs); only an address is taken.
    let window = unsafe { &raw mut (*agent).report_window_ns };
    // SAFETY: as above.
    let reports = unsafe { &raw mut (*agent).reports_in_window };
    // SAFETY: aligned, never freed; other CPUs may write at the same time, hence volatile.
    let start = unsafe { window.read_volatile() };
    if now.wrapping_sub(start) >= SECOND_NS {
        // SAFETY: as above.
        unsafe { window.write_volatile(now) };
        // SAFETY: as above.
        unsafe { reports.write_volatile(1) };
        return true;
    }
    // SAFETY: as above.
    let sent = unsafe { reports.read_volatile() };
    if sent >= REPORTS_PER_SECOND {
        return false;
    }
    // SAFETY: as above.
    unsafe { reports.write_volatile(sent + 1) };
    true
}

/// Four words as they lie in memory.
#[inline(always)]
fn bytes(addr: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute(addr) }
}
