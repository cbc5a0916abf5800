// SPDX-License-Identifier: GPL-2.0-only
//! May this agent use that address and port?
//!
//! The entry with the longest prefix decides alone; the daemon has copied into it what wider prefixes allow. The port must
//! lie in one of its ranges that has both the operation and the protocol. No entry, no range: refused. There are no
//! denials to weigh, so order never matters.

use agentd_abi::{NET_BIND, NET_CONNECT, NET_PORTS, NET_TCP, NET_UDP, WHY_GUARD, WHY_NOTHING_FOUND};
use aya_ebpf::maps::lpm_trie::Key;

use crate::maps::{NETS, Place};

/// Protocol numbers of `<linux/in.h>`.
pub(crate) const IPPROTO_TCP: u32 = 6;
/// See [`IPPROTO_TCP`].
pub(crate) const IPPROTO_UDP: u32 = 17;

/// What is to be done with an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Connect, or send a datagram.
    Connect,
    /// Bind.
    Bind,
}

/// An address and what stands around it in a call.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    /// Network byte order; IPv4 as `::ffff:a.b.c.d`.
    pub(crate) addr: [u32; 4],
    /// Host byte order.
    pub(crate) port: u16,
    /// `IPPROTO_…`
    pub(crate) protocol: u32,
    /// `AF_…` of the socket.
    pub(crate) family: u32,
}

/// `Ok`, or the reason (`WHY_…`) of the refusal.
#[inline(always)]
pub(crate) fn decide(agent: u32, operation: Operation, peer: &Peer) -> Result<(), u32> {
    let protocol = match peer.protocol {
        IPPROTO_TCP => NET_TCP,
        IPPROTO_UDP => NET_UDP,
        _ => return Err(WHY_GUARD),
    };
    let wanted = protocol
        | match operation {
            Operation::Connect => NET_CONNECT,
            Operation::Bind => NET_BIND,
        };
    let place: Place = [agent.to_be(), peer.addr[0], peer.addr[1], peer.addr[2], peer.addr[3]];
    let Some(net) = NETS.get(Key::new(8 * size_of::<Place>() as u32, place)) else {
        return Err(WHY_NOTHING_FOUND);
    };
    // Eight turns at the most, one comparison of the count each: 8 * ~8 instructions for the verifier.
    for at in 0..NET_PORTS {
        if at as u32 >= net.count {
            break;
        }
        let range = &net.ports[at];
        if range.ops & wanted == wanted && range.first <= peer.port && peer.port <= range.last {
            return Ok(());
        }
    }
    Err(WHY_NOTHING_FOUND)
}
