// SPDX-License-Identifier: GPL-2.0-only
//! Which processes does an agent make, what do they become, and how do they end?
//!
//! For the audit trail only: nothing is decided here, and an event may be lost (counted) when the ring is three quarters
//! full, so that a fork loop cannot push out refusals. Threads are not reported, only processes. A fork is reported by
//! the parent's cgroup: what the daemon clones into an agent first shows up with its exec. An exit is reported when the
//! first thread of the process ends.
//!
//! BTF-typed tracepoints: no tracefs is needed, and their links can be pinned, so the audit survives the daemon. Fields
//! are read at offsets that the loader took from the kernel's BTF; to the verifier they are constants, and it checks
//! each against the same BTF.

use agentd_abi::{EV_EXEC, EV_EXIT, EV_FORK, EVENT_RING, ProcessEvent};
use aya_ebpf::{
    Global, helpers::generated::bpf_probe_read_kernel_str, macros::btf_tracepoint, maps::ring_buf::RingBufEntry,
    programs::BtfTracePointContext,
};

use crate::{
    maps::{BPRM_FILENAME, Counter, EVENTS, TASK_EXIT_CODE, TASK_PARENT, TASK_PID, TASK_TGID, count},
    report::head,
    who::agent_of_current,
};

/// `BPF_RB_AVAIL_DATA`: bytes that wait to be read.
const AVAILABLE: u64 = 0;
const PATH_BYTES: usize = 256;

/// A kernel structure, of which only single words are read.
#[repr(C)]
struct Opaque([u8; 0]);

/// A process was made.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn net_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child): (*const Opaque, *const Opaque) = (ctx.arg(0), ctx.arg(1));
    let (pid, tid): (u32, u32) = (field(child, &TASK_TGID), field(child, &TASK_PID));
    if pid != tid {
        return 0;
    }
    if let Some(mut event) = begin(EV_FORK, field(parent, &TASK_TGID), 0) {
        let written = event.as_mut_ptr();
        // SAFETY: `begin` has written the whole of it.
        unsafe { (*written).head.pid = pid };
        // SAFETY: as above.
        unsafe { (*written).head.tid = tid };
        event.submit(0);
    }
    0
}

/// A process became another program.
#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn net_exec(ctx: BtfTracePointContext) -> i32 {
    let (task, program): (*const Opaque, *const Opaque) = (ctx.arg(0), ctx.arg(2));
    let parent: *const Opaque = field(task, &TASK_PARENT);
    if let Some(mut event) = begin(EV_EXEC, field(parent, &TASK_TGID), 0) {
        let name: *const u8 = field(program, &BPRM_FILENAME);
        // SAFETY: `begin` has written the whole of it; only an address is taken.
        let path = unsafe { &raw mut (*event.as_mut_ptr()).path };
        // SAFETY: writes at most PATH_BYTES, with a NUL; a bad `name` is an error code, and the path stays empty.
        unsafe { bpf_probe_read_kernel_str(path.cast(), PATH_BYTES as u32, name.cast()) };
        event.submit(0);
    }
    0
}

/// A process ended.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn net_exit(ctx: BtfTracePointContext) -> i32 {
    let task: *const Opaque = ctx.arg(0);
    let (pid, tid): (u32, u32) = (field(task, &TASK_TGID), field(task, &TASK_PID));
    if pid != tid {
        return 0;
    }
    let parent: *const Opaque = field(task, &TASK_PARENT);
    if let Some(event) = begin(EV_EXIT, field(parent, &TASK_TGID), field(task, &TASK_EXIT_CODE)) {
        event.submit(0);
    }
    0
}

/// An event about the current task, if it is an agent's and the ring has room.
#[inline(always)]
fn begin(kind: u32, parent_pid: u32, status: i32) -> Option<RingBufEntry<ProcessEvent>> {
    let (_, number) = agent_of_current()?;
    if EVENTS.query(AVAILABLE) > u64::from(EVENT_RING) / 4 * 3 {
        count(Counter::ProcessesLost);
        return None;
    }
    let Some(mut event) = EVENTS.reserve::<ProcessEvent>(0) else {
        count(Counter::ProcessesLost);
        return None;
    };
    event.write(ProcessEvent { head: head(kind, number, 0), parent_pid, status, path: [0; PATH_BYTES] });
    Some(event)
}

/// Reads one word of a kernel structure.
#[inline(always)]
fn field<T: Copy>(object: *const Opaque, offset: &Global<u32>) -> T {
    // SAFETY: the offset is a member of that structure, says the loader, and the verifier checks it.
    let word: *const T = unsafe { object.byte_add(offset.load() as usize) }.cast();
    // SAFETY: as above; a stale pointer reads as 0, the kernel catches the fault.
    unsafe { word.read_volatile() }
}
