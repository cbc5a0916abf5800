//! Which addresses?
//!
//! The kernel looks an address up once, in a trie, and the entry with the longest prefix decides alone. People write
//! rules that add up. So an entry is made to hold everything that its addresses may do: the ranges of each wider prefix
//! are copied into each narrower one.
//!
//! Nothing denies here. What no entry allows is refused, and so is every address without an entry.

use std::collections::BTreeSet;

use agentd_abi::{NET_BIND, NET_CONNECT, NET_PORTS, NET_TCP, NET_UDP, Net, NetKey, PortRange};
use agentd_model::{AgentNumber, NetOps, NetRule};

use crate::compile::{CompileError, Compiled};

/// What is asked about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetNeed {
    /// Connect, or send a datagram.
    Connect,
    /// Bind.
    Bind,
}

/// The transport of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The answer to one question about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetVerdict {
    /// Allowed.
    Allowed {
        /// Position of the rule, from 1, in the list of network rules.
        rule: u16,
    },
    /// No entry allows it.
    NothingFound,
}

/// Decides about an address; IPv4 as `::ffff:a.b.c.d`.
pub fn decide_net(compiled: &Compiled, addr: [u8; 16], port: u16, need: NetNeed, over: Transport) -> NetVerdict {
    let covers = |key: &NetKey| covers(&key.addr, (key.prefix_bits - AGENT_BITS) as u8, &addr);
    let longest = compiled.nets.iter().filter(|(key, _)| covers(key)).max_by_key(|(key, _)| key.prefix_bits);
    let ops = match need {
        NetNeed::Connect => NET_CONNECT,
        NetNeed::Bind => NET_BIND,
    } | match over {
        Transport::Tcp => NET_TCP,
        Transport::Udp => NET_UDP,
    };
    let allows = |range: &&PortRange| range.first <= port && port <= range.last && range.ops & ops == ops;
    match longest.and_then(|(_, net)| net.ports[..net.count as usize].iter().find(allows)) {
        Some(range) => NetVerdict::Allowed { rule: range.rule_id },
        None => NetVerdict::NothingFound,
    }
}

/// Bits of [`NetKey::agent`], which count as part of the prefix.
const AGENT_BITS: u32 = 32;

/// Makes the entries of `nets`, sorted by key.
pub(crate) fn compile(agent: AgentNumber, rules: &[NetRule]) -> Result<Vec<(NetKey, Net)>, CompileError> {
    let (needed, limit) = (rules.len(), usize::from(u16::MAX));
    if needed > limit {
        return Err(CompileError::Full { table: "nets", needed, limit });
    }
    let places: BTreeSet<(u8, [u8; 16])> = rules.iter().map(place).collect();
    let mut entries = Vec::new();
    for (prefix, addr) in places {
        let holds = |rule: &NetRule| rule.prefix <= prefix && covers(&rule.addr, rule.prefix, &addr);
        let here = rules.iter().zip(1u16..).filter(|(rule, _)| holds(rule));
        let ranges = united(here.filter_map(|(rule, id)| range(rule, id)).collect());
        if let Some(excess) = ranges.get(NET_PORTS..).and_then(<[PortRange]>::first) {
            let rule = &rules[usize::from(excess.rule_id) - 1];
            let address = NetRule { addr, prefix, first_port: 0, last_port: u16::MAX, ops: EVERYTHING, ..rule.clone() };
            return Err(CompileError::Ports {
                address: address.to_string(),
                needed: ranges.len(),
                limit: NET_PORTS,
                rule: rule.to_string(),
                origin: rule.origin.clone(),
            });
        }
        let mut net = Net { count: ranges.len() as u32, ..Net::default() };
        net.ports[..ranges.len()].copy_from_slice(&ranges);
        let key = NetKey { prefix_bits: AGENT_BITS + u32::from(prefix), agent: agent.0.to_be_bytes(), addr };
        entries.push((key, net));
    }
    entries.sort_by_key(|(key, _)| *key);
    Ok(entries)
}

const EVERYTHING: NetOps = NetOps { connect: true, bind: true, tcp: true, udp: true };

/// Prefix and address of a rule, the address without the bits that do not count. A rule that was not read by
/// [`NetRule::parse`] may have a prefix that is too long; the whole address is the narrowest that it can mean.
fn place(rule: &NetRule) -> (u8, [u8; 16]) {
    let prefix = rule.prefix.min(128);
    (prefix, (u128::from_be_bytes(rule.addr) & mask(prefix)).to_be_bytes())
}

/// Whether an address lies in a range of addresses.
fn covers(range: &[u8; 16], prefix: u8, addr: &[u8; 16]) -> bool {
    (u128::from_be_bytes(*range) ^ u128::from_be_bytes(*addr)) & mask(prefix) == 0
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

/// The ports of a rule; nothing where its operations are none, which allows nothing.
fn range(rule: &NetRule, id: u16) -> Option<PortRange> {
    let bit = |set: bool, bit: u16| if set { bit } else { 0 };
    let operations = bit(rule.ops.connect, NET_CONNECT) | bit(rule.ops.bind, NET_BIND);
    let protocols = bit(rule.ops.tcp, NET_TCP) | bit(rule.ops.udp, NET_UDP);
    let range = PortRange { first: rule.first_port, last: rule.last_port, ops: operations | protocols, rule_id: id };
    (operations != 0 && protocols != 0).then_some(range)
}

/// Fewer ranges that allow exactly the same. Sorted first, so that the order of rules does not show.
fn united(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_by_key(|range| (range.first, range.last, range.ops, range.rule_id));
    loop {
        let pair = (0..ranges.len())
            .flat_map(|a| (a + 1..ranges.len()).map(move |b| (a, b)))
            .find_map(|(a, b)| Some((a, b, union(&ranges[a], &ranges[b])?)));
        let Some((a, b, both)) = pair else {
            // The latest rule last: it is the one to be named when there are too many.
            ranges.sort_by_key(|range| (range.rule_id, range.first));
            return ranges;
        };
        ranges.remove(b);
        ranges[a] = both;
    }
}

/// One range that allows exactly what two allow, if there is one.
fn union(a: &PortRange, b: &PortRange) -> Option<PortRange> {
    let rule_id = a.rule_id.min(b.rule_id);
    let within = |inner: &PortRange, outer: &PortRange| {
        outer.first <= inner.first && inner.last <= outer.last && inner.ops & !outer.ops == 0
    };
    if within(b, a) {
        return Some(PortRange { rule_id: a.rule_id, ..*a });
    }
    if within(a, b) {
        return Some(PortRange { rule_id: b.rule_id, ..*b });
    }
    let touch = a.first <= b.last.saturating_add(1) && b.first <= a.last.saturating_add(1);
    if a.ops == b.ops && touch {
        return Some(PortRange { first: a.first.min(b.first), last: a.last.max(b.last), ops: a.ops, rule_id });
    }
    // Operations and protocols multiply: (connect, tcp) and (bind, udp) together would also give (bind, tcp).
    let factor = (a.ops ^ b.ops) & (NET_CONNECT | NET_BIND) == 0 || (a.ops ^ b.ops) & (NET_TCP | NET_UDP) == 0;
    let same_ports = (a.first, a.last) == (b.first, b.last);
    (same_ports && factor).then_some(PortRange { ops: a.ops | b.ops, rule_id, ..*a })
}
