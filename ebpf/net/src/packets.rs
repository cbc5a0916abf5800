// SPDX-License-Identifier: GPL-2.0-only
//! What really leaves and what really arrives?
//!
//! The address hooks judge what a call names. A packet can go elsewhere all the same: a routing header (IPv6) or a source
//! route (IPv4) has a first stop that no hook saw; a socket that is bound to a device sends loopback addresses out by
//! it. And a datagram socket receives without ever having been bound: the kernel gives it a port when it sends, even
//! if that is refused then. So packets are looked at once more, outgoing and incoming, for the cgroup of their socket:
//!
//! - out: no routing header, no IPv4 options; loopback addresses by the loopback device only;
//! - in, UDP: from somewhere that the agent may send to, or to an address and port that it may bind.
//!
//! A packet has no task, so nothing is told with a name; refusals are counted in the agent as unreported ones, which the
//! next report carries.

use aya_ebpf::{
    helpers::generated::bpf_skb_ancestor_cgroup_id,
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    decide::{IPPROTO_TCP, IPPROTO_UDP, Operation, Peer, decide},
    maps::{AGENT_LEVEL, Counter, add, count},
    who::agent_of_cgroup,
};

const PASS: i32 = 1;
const DROP: i32 = 0;

const LOOPBACK_DEVICE: u32 = 1;
const ETH_P_IP: u32 = 0x0800_u32.to_be() >> 16;
const ETH_P_IPV6: u32 = 0x86dd_u32.to_be() >> 16;
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// Extension headers that are looked through; a packet with more is dropped.
const EXTENSIONS: usize = 6;

/// A packet as far as it matters.
struct Packet {
    /// Network byte order; IPv4 as `::ffff:a.b.c.d`.
    from: [u32; 4],
    to: [u32; 4],
    /// Where the transport header begins, and its protocol.
    transport: usize,
    protocol: u32,
    /// Whether somebody wrote a way into it.
    routed: bool,
}

/// May this packet of an agent's socket leave?
#[cgroup_skb(egress)]
pub(crate) fn net_egress(ctx: SkBuffContext) -> i32 {
    let Some(packet) = read(&ctx) else { return refuse(&ctx) };
    if packet.routed || (is_loopback(&packet.to) && device(&ctx) != LOOPBACK_DEVICE) {
        return refuse(&ctx);
    }
    PASS
}

/// May this packet reach an agent's socket?
#[cgroup_skb(ingress)]
pub(crate) fn net_ingress(ctx: SkBuffContext) -> i32 {
    let Some(packet) = read(&ctx) else { return refuse(&ctx) };
    match packet.protocol {
        // Connections were judged when they were made, and nobody listens without an address.
        IPPROTO_TCP => PASS,
        IPPROTO_UDP => datagram(&ctx, &packet),
        _ => refuse(&ctx),
    }
}

#[inline(always)]
fn datagram(ctx: &SkBuffContext, packet: &Packet) -> i32 {
    let (Ok(source), Ok(target)) = (ctx.load::<u16>(packet.transport), ctx.load::<u16>(packet.transport + 2)) else {
        return refuse(ctx);
    };
    let Some((_, number)) = agent_of_cgroup(cgroup(ctx)) else { return refuse(ctx) };
    let peer = |addr, port: u16| Peer { addr, port: u16::from_be(port), protocol: IPPROTO_UDP, family: 0 };
    let answers = decide(number, Operation::Connect, &peer(packet.from, source)).is_ok();
    if answers || decide(number, Operation::Bind, &peer(packet.to, target)).is_ok() { PASS } else { refuse(ctx) }
}

/// Drops a packet; it is counted with the refusals of its agent that were not told.
#[inline(always)]
fn refuse(ctx: &SkBuffContext) -> i32 {
    match agent_of_cgroup(cgroup(ctx)) {
        Some((agent, _)) => {
            // SAFETY: `agent` points to a value of the array map `agents` (who.rs); only an address is taken.
            add(unsafe { &raw mut (*agent).denials }, 1);
            // SAFETY: as above.
            add(unsafe { &raw mut (*agent).suppressed }, 1);
        }
        None => count(Counter::Unregistered),
    }
    DROP
}

/// The cgroup, at the agents' level, in which the packet's socket was made.
#[inline(always)]
fn cgroup(ctx: &SkBuffContext) -> u64 {
    let level = AGENT_LEVEL.load();
    // SAFETY: the context is the program's own; 0 if the socket's cgroup is not that deep.
    unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, level as i32) }
}

#[inline(always)]
fn device(ctx: &SkBuffContext) -> u32 {
    // SAFETY: the context is the program's own; the verifier checks each access to it.
    unsafe { (&raw const (*ctx.skb.skb).ifindex).read_volatile() }
}

#[inline(always)]
fn is_loopback(addr: &[u32; 4]) -> bool {
    let mapped = addr[0] == 0 && addr[1] == 0 && addr[2] == MAPPED && u32::from_be(addr[3]) >> 24 == 127;
    let v6 = addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && u32::from_be(addr[3]) == 1;
    mapped || v6
}

/// Reads the headers; `None`: they make no sense.
#[inline(always)]
fn read(ctx: &SkBuffContext) -> Option<Packet> {
    // SAFETY: the context is the program's own; the verifier checks each access to it.
    let protocol = unsafe { (&raw const (*ctx.skb.skb).protocol).read_volatile() };
    match protocol {
        ETH_P_IP => read4(ctx),
        ETH_P_IPV6 => read6(ctx),
        _ => None,
    }
}

#[inline(always)]
fn read4(ctx: &SkBuffContext) -> Option<Packet> {
    let head = ctx.load::<u8>(0).ok()?;
    let words = usize::from(head & 0xf);
    let (from, to) = (ctx.load::<u32>(12).ok()?, ctx.load::<u32>(16).ok()?);
    Some(Packet {
        from: [0, 0, MAPPED, from],
        to: [0, 0, MAPPED, to],
        transport: words * 4,
        protocol: u32::from(ctx.load::<u8>(9).ok()?),
        routed: words > 5,
    })
}

#[inline(always)]
fn read6(ctx: &SkBuffContext) -> Option<Packet> {
    let (from, to) = (ctx.load::<[u32; 4]>(8).ok()?, ctx.load::<[u32; 4]>(24).ok()?);
    let mut next = ctx.load::<u8>(6).ok()?;
    let (mut at, mut routed) = (40_usize, false);
    for _ in 0..EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(ctx.load::<u8>(at + 1).ok()?) + 1) * 8,
            FRAGMENT => 8,
            _ => return Some(Packet { from, to, transport: at, protocol: u32::from(next), routed }),
        };
        routed |= next == ROUTING;
        next = ctx.load::<u8>(at).ok()?;
        at += length;
    }
    None
}
