// SPDX-License-Identifier: GPL-2.0-only
//! Which addresses may an agent use, and which processes did it make?
//!
//! ```text
//! cgroup/connect4, connect6    connect() to an IPv4 or IPv6 address, TCP fast open                sockets.rs
//! cgroup/sendmsg4, sendmsg6    a datagram sent with an address                                    sockets.rs
//! cgroup/bind4, bind6          bind()                                                             sockets.rs
//! cgroup/sock_create           socket() of AF_INET or AF_INET6 that is neither TCP nor UDP        sockets.rs
//! cgroup_skb/egress, ingress   where packets really go, and who may send datagrams                packets.rs
//! tp_btf/sched_process_*       fork, exec and exit, for the audit trail                           audit.rs
//! ```
//!
//! The first nine are attached to the parent cgroup of all agents and refuse alone. They see every internet socket that
//! was *made* inside that cgroup, whoever uses it: the kernel runs them for the cgroup of the socket. They ask who the
//! *task* is, and a task that is not in the cgroup of a registered agent is refused. So a cgroup that nobody registered
//! has no network, and a socket that left its agent is dead to strangers.
//!
//! Not here, because these hooks cannot see it; the LSM programs, seccomp and the launcher must:
//! - a socket made outside and handed in (inherited or received): its cgroup is not ours, the hooks stay silent;
//! - families other than AF_INET and AF_INET6 (unix, netlink, packet, vsock, …);
//! - listen() without bind(): the kernel picks a port of its own, on every address, and no cgroup hook is asked;
//! - what is said over a connection that was allowed, and connections that exist when a rule is taken away.
//!
//! Only UAPI contexts and BTF-typed tracepoints are used, so there is nothing to relocate but four offsets, which the
//! loader reads from the kernel's BTF ([`maps`]).

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod audit;
mod decide;
mod maps;
mod packets;
mod report;
mod sockets;
mod who;

/// Unreachable: whatever could panic is removed by the optimiser, and the verifier would refuse the loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
