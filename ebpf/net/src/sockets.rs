// SPDX-License-Identifier: GPL-2.0-only
//! The doors to the internet: connect, datagrams with an address, bind, and the making of sockets.
//!
//! Each hook is four steps: find the agent, bring the address into one form, decide, report. 1 lets the call pass,
//! 0 gives EPERM.
//!
//! **One form.** IPv4 is `::ffff:a.b.c.d`, so an IPv4-mapped IPv6 address is the same key. The unspecified destination
//! (0.0.0.0, `::`, `::ffff:0.0.0.0`) is a trap: the kernel makes it the loopback address or, on a bound socket, the
//! socket's own address, after the decision. It is therefore *rewritten* to loopback here, and what was judged is what is
//! used. For bind it means every address, and is judged as written.
//!
//! **TCP fast open.** `sendto(MSG_FASTOPEN)` connects through `__inet_stream_connect`, which asks the same connect hooks
//! (a native test holds this). The LSM hook `socket_connect` does not see it.
//!
//! **Other protocols.** Raw, ping, SCTP, MPTCP and UDP-Lite sockets have calls that reach none of the address hooks, so
//! they may not be made at all. The address hooks refuse them once more.

use agentd_abi::{WHY_GUARD, WHY_STRANGER};
use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_addr,
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use aya_log_ebpf::warn;

use crate::{
    decide::{IPPROTO_TCP, IPPROTO_UDP, Operation, Peer, decide},
    maps::{Counter, count},
    report::denied,
    who::{agent_of_current, nobody},
};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// `enum agentd_hook`.
const H_CONNECT: u32 = 28;
const H_SENDMSG: u32 = 29;
const H_BIND: u32 = 30;
const H_SOCKET: u32 = 31;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

const MAPPED: u32 = 0x0000_ffff_u32.to_be();
const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();
const LOOPBACK6: u32 = 1_u32.to_be();

/// May the task connect to this IPv4 address?
#[cgroup_sock_addr(connect4)]
pub(crate) fn net_connect4(ctx: SockAddrContext) -> i32 {
    let addr = destination4(ctx.sock_addr);
    judge(&ctx, H_CONNECT, Operation::Connect, addr)
}

/// May the task connect to this IPv6 address?
#[cgroup_sock_addr(connect6)]
pub(crate) fn net_connect6(ctx: SockAddrContext) -> i32 {
    let addr = destination6(ctx.sock_addr);
    judge(&ctx, H_CONNECT, Operation::Connect, addr)
}

/// May the task send a datagram to this IPv4 address?
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn net_sendmsg4(ctx: SockAddrContext) -> i32 {
    let addr = destination4(ctx.sock_addr);
    judge(&ctx, H_SENDMSG, Operation::Connect, addr)
}

/// May the task send a datagram to this IPv6 address?
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn net_sendmsg6(ctx: SockAddrContext) -> i32 {
    let addr = destination6(ctx.sock_addr);
    judge(&ctx, H_SENDMSG, Operation::Connect, addr)
}

/// May the task bind to this IPv4 address?
#[cgroup_sock_addr(bind4)]
pub(crate) fn net_bind4(ctx: SockAddrContext) -> i32 {
    let addr = [0, 0, MAPPED, ip4(ctx.sock_addr)];
    judge(&ctx, H_BIND, Operation::Bind, addr)
}

/// May the task bind to this IPv6 address?
#[cgroup_sock_addr(bind6)]
pub(crate) fn net_bind6(ctx: SockAddrContext) -> i32 {
    let addr = ip6(ctx.sock_addr);
    judge(&ctx, H_BIND, Operation::Bind, addr)
}

/// May the task have a socket of this protocol?
#[cgroup_sock(sock_create)]
pub(crate) fn net_socket(ctx: SockContext) -> i32 {
    // SAFETY: `sock` is the program's context; the verifier checks each access to it.
    let kind = unsafe { (&raw const (*ctx.sock).type_).read_volatile() };
    // SAFETY: as above.
    let protocol = unsafe { (&raw const (*ctx.sock).protocol).read_volatile() };
    // SAFETY: as above.
    let family = unsafe { (&raw const (*ctx.sock).family).read_volatile() };
    let peer = Peer { addr: [0; 4], port: 0, protocol, family };
    let Some((agent, number)) = agent_of_current() else {
        return stranger(&ctx, H_SOCKET, &peer);
    };
    count(Counter::Judged);
    match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_TCP) | (SOCK_DGRAM, IPPROTO_UDP) => ALLOW,
        _ => {
            denied(agent, number, H_SOCKET, WHY_GUARD, &peer);
            REFUSE
        }
    }
}

/// Steps one, three and four of every address hook.
#[inline(always)]
fn judge(ctx: &SockAddrContext, hook: u32, operation: Operation, addr: [u32; 4]) -> i32 {
    let peer = peer(ctx.sock_addr, addr);
    let Some((agent, number)) = agent_of_current() else {
        return stranger(ctx, hook, &peer);
    };
    count(Counter::Judged);
    match decide(number, operation, &peer) {
        Ok(()) => ALLOW,
        Err(reason) => {
            denied(agent, number, hook, reason, &peer);
            REFUSE
        }
    }
}

/// Refuses a task that is no agent's, as agent 0.
#[inline(always)]
fn stranger(ctx: &impl EbpfContext, hook: u32, peer: &Peer) -> i32 {
    warn!(ctx, "refused: the task is in no registered agent, hook {} pid {}", hook, ctx.tgid());
    count(Counter::Unregistered);
    if let Some(slot) = nobody() {
        denied(slot, 0, hook, WHY_STRANGER, peer);
    }
    REFUSE
}

#[inline(always)]
fn peer(ctx: *mut bpf_sock_addr, addr: [u32; 4]) -> Peer {
    // SAFETY: `ctx` is the program's context; the verifier checks each access to it, which must be whole words.
    let port = unsafe { (&raw const (*ctx).user_port).read_volatile() };
    // SAFETY: as above.
    let protocol = unsafe { (&raw const (*ctx).protocol).read_volatile() };
    // SAFETY: as above.
    let family = unsafe { (&raw const (*ctx).family).read_volatile() };
    Peer { addr, port: u16::from_be(port as u16), protocol, family }
}

#[inline(always)]
fn ip4(ctx: *mut bpf_sock_addr) -> u32 {
    // SAFETY: as in `peer`.
    unsafe { (&raw const (*ctx).user_ip4).read_volatile() }
}

#[inline(always)]
fn ip6(ctx: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: as in `peer`; only an address is taken.
    let words: *const u32 = unsafe { (&raw const (*ctx).user_ip6).cast() };
    let word = |at| {
        // SAFETY: `at` is below four.
        let word = unsafe { words.add(at) };
        // SAFETY: as in `peer`.
        unsafe { word.read_volatile() }
    };
    [word(0), word(1), word(2), word(3)]
}

/// The IPv4 destination, after the unspecified one was made loopback.
#[inline(always)]
fn destination4(ctx: *mut bpf_sock_addr) -> [u32; 4] {
    let mut ip = ip4(ctx);
    if ip == 0 {
        ip = LOOPBACK4;
        // SAFETY: as in `peer`; connect and sendmsg programs may write the address.
        unsafe { (&raw mut (*ctx).user_ip4).write_volatile(ip) };
    }
    [0, 0, MAPPED, ip]
}

/// The IPv6 destination, after the unspecified one was made loopback.
#[inline(always)]
fn destination6(ctx: *mut bpf_sock_addr) -> [u32; 4] {
    let mut addr = ip6(ctx);
    if addr[0] | addr[1] | addr[3] != 0 || (addr[2] != 0 && addr[2] != MAPPED) {
        return addr;
    }
    addr[3] = if addr[2] == 0 { LOOPBACK6 } else { LOOPBACK4 };
    // SAFETY: as in `peer`; only an address is taken, of the fourth of four words.
    let last: *mut u32 = unsafe { (&raw mut (*ctx).user_ip6[3]).cast() };
    // SAFETY: as in `peer`; connect and sendmsg programs may write the address.
    unsafe { last.write_volatile(addr[3]) };
    addr
}
