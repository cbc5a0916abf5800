//! Rules as people write them: a path or an address, and what is allowed or denied there.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::Rights;

/// Where a rule was written, so that a refusal can say whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A profile, with the line of its file.
    #[n(0)]
    Profile {
        /// Name of the profile.
        #[n(0)]
        name: String,
        /// Line, from 1.
        #[n(1)]
        line: u32,
    },
    /// An option on the command line, as typed.
    #[n(1)]
    CommandLine {
        /// For example `--allow read:/srv/data`.
        #[n(0)]
        option: String,
    },
    /// What every agent gets: its own /proc, its private /tmp.
    #[n(2)]
    BuiltIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Profile { name, line } => write!(f, "profile {name}, line {line}"),
            Origin::CommandLine { option } => f.write_str(option),
            Origin::BuiltIn => f.write_str("built in"),
        }
    }
}

/// One rule about files: what is allowed and denied on a path and everything below it.
///
/// `path` is absolute, or a pattern `**/name` or `**/directory/name` that holds wherever such a name stands.
/// Patterns and paths that do not exist yet can only be denied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct PathRule {
    /// Absolute path or pattern.
    #[n(0)]
    pub path: String,
    /// Rights given.
    #[n(1)]
    pub allow: Rights,
    /// Rights refused; on the same object a denial wins.
    #[n(2)]
    pub deny: Rights,
    /// Whether the rule is left out where the path does not exist (a denial is then kept by name all the same).
    #[n(3)]
    pub optional: bool,
    /// Where it was written.
    #[n(4)]
    pub origin: Origin,
}

/// What may be done with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct NetOps {
    /// Connect, and send datagrams.
    #[n(0)]
    pub connect: bool,
    /// Bind.
    #[n(1)]
    pub bind: bool,
    /// TCP.
    #[n(2)]
    pub tcp: bool,
    /// UDP.
    #[n(3)]
    pub udp: bool,
}

/// One rule about the network; whatever no rule allows is denied.
///
/// Written `[connect:|bind:][tcp:|udp:]ADDRESS[/PREFIX][:PORT[-PORT]]`, for example `127.0.0.1:8080`, `tcp:10.0.0.0/8:443`,
/// `[::1]:1-1024`, `bind:127.0.0.0/8`, or `loopback`, `any`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct NetRule {
    /// Address, IPv4 as `::ffff:a.b.c.d`.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub addr: [u8; 16],
    /// Bits of `addr` that count, of 128.
    #[n(1)]
    pub prefix: u8,
    /// First port.
    #[n(2)]
    pub first_port: u16,
    /// Last port, included.
    #[n(3)]
    pub last_port: u16,
    /// What may be done.
    #[n(4)]
    pub ops: NetOps,
    /// Where it was written.
    #[n(5)]
    pub origin: Origin,
}

/// Why a text is not a network rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetRuleError {
    /// The address cannot be read.
    #[error("{text:?} is not an address; write 10.0.0.0/8:443, [::1]:8080, loopback or any")]
    Address {
        /// What was written.
        text: String,
    },
    /// The prefix is longer than the address.
    #[error("/{prefix} is longer than the address {addr}")]
    Prefix {
        /// Bits asked for.
        prefix: u32,
        /// The address.
        addr: IpAddr,
    },
    /// The ports cannot be read.
    #[error("{text:?} is not a port or a range of ports")]
    Ports {
        /// What was written.
        text: String,
    },
}

impl NetRule {
    /// Reads the written form; `loopback` gives two rules, one for each address family.
    pub fn parse(text: &str, origin: &Origin) -> Result<Vec<NetRule>, NetRuleError> {
        let mut rest = text.trim();
        let mut ops = NetOps { connect: true, bind: false, tcp: true, udp: true };
        loop {
            (ops, rest) = if let Some(rest) = rest.strip_prefix("connect:") {
                (NetOps { connect: true, bind: false, ..ops }, rest)
            } else if let Some(rest) = rest.strip_prefix("bind:") {
                (NetOps { connect: false, bind: true, ..ops }, rest)
            } else if let Some(rest) = rest.strip_prefix("tcp:") {
                (NetOps { tcp: true, udp: false, ..ops }, rest)
            } else if let Some(rest) = rest.strip_prefix("udp:") {
                (NetOps { tcp: false, udp: true, ..ops }, rest)
            } else {
                break;
            };
        }
        let (places, ports) = places(rest)?;
        let (first_port, last_port) = ports.map_or(Ok((0, u16::MAX)), parse_ports)?;
        let rule = |(addr, prefix)| NetRule { addr, prefix, first_port, last_port, ops, origin: origin.clone() };
        Ok(places.into_iter().map(rule).collect())
    }

    /// The address as people write it.
    pub fn address(&self) -> IpAddr {
        let addr = Ipv6Addr::from(self.addr);
        match addr.to_ipv4_mapped() {
            Some(v4) if self.prefix >= 96 => IpAddr::V4(v4),
            _ => IpAddr::V6(addr),
        }
    }
}

/// An address and how many of its 128 bits count.
type Place = ([u8; 16], u8);

/// Splits `ADDRESS[/PREFIX][:PORTS]`.
fn places(text: &str) -> Result<(Vec<Place>, Option<&str>), NetRuleError> {
    for (word, places) in [
        ("loopback", vec![mapped("127.0.0.0".parse::<IpAddr>(), 8), mapped("::1".parse::<IpAddr>(), 128)]),
        ("any", vec![Some(([0; 16], 0))]),
    ] {
        let ports =
            if text == word { Some(None) } else { text.strip_prefix(word).and_then(|r| r.strip_prefix(':')).map(Some) };
        if let Some(ports) = ports {
            return Ok((places.into_iter().flatten().collect(), ports));
        }
    }
    let bad = || NetRuleError::Address { text: text.to_owned() };
    let (host, after) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(bad)?,
        None => match text.find([':', '/']) {
            // More than one colon and no bracket: an IPv6 address without a port.
            Some(at) if text.matches(':').count() < 2 => text.split_at(at),
            _ => text.find('/').map_or((text, ""), |at| text.split_at(at)),
        },
    };
    let addr = IpAddr::from_str(host).ok().ok_or_else(bad)?;
    let (prefix, ports) = match after.strip_prefix('/') {
        Some(rest) => {
            let (prefix, ports) = rest.split_once(':').map_or((rest, None), |(prefix, ports)| (prefix, Some(ports)));
            (Some(prefix.parse::<u32>().ok().ok_or_else(bad)?), ports)
        }
        None if after.is_empty() => (None, None),
        None => (None, Some(after.strip_prefix(':').ok_or_else(bad)?)),
    };
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(bits);
    if prefix > bits {
        return Err(NetRuleError::Prefix { prefix, addr });
    }
    Ok((mapped(Ok(addr), prefix as u8).into_iter().collect(), ports))
}

/// An address as 128 bits, IPv4 mapped, with the host part cleared.
fn mapped(addr: Result<IpAddr, std::net::AddrParseError>, prefix: u8) -> Option<Place> {
    let (bytes, prefix) = match addr.ok()? {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 96 + prefix),
        IpAddr::V6(v6) => (v6.octets(), prefix),
    };
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) };
    Some(((u128::from_be_bytes(bytes) & mask).to_be_bytes(), prefix))
}

fn parse_ports(text: &str) -> Result<(u16, u16), NetRuleError> {
    let bad = || NetRuleError::Ports { text: text.to_owned() };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok().ok_or_else(bad)?, last.parse().ok().ok_or_else(bad)?);
    if first <= last { Ok((first, last)) } else { Err(bad()) }
}

impl fmt::Display for NetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ops.bind && !self.ops.connect {
            f.write_str("bind:")?;
        }
        match (self.ops.tcp, self.ops.udp) {
            (true, false) => f.write_str("tcp:")?,
            (false, true) => f.write_str("udp:")?,
            _ => {}
        }
        if self.prefix == 0 {
            f.write_str("any")?;
        } else {
            match self.address() {
                IpAddr::V4(v4) => write!(f, "{v4}/{}", self.prefix - 96)?,
                IpAddr::V6(v6) => write!(f, "[{v6}]/{}", self.prefix)?,
            }
        }
        match (self.first_port, self.last_port) {
            (0, u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match NetRule::parse(text, &Origin::BuiltIn) {
            Ok(rules) => rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn written_forms_read_back() {
        assert_eq!(shown("127.0.0.1:8080"), "127.0.0.1/32:8080");
        assert_eq!(shown("bind:tcp:10.1.2.3/8:80-90"), "bind:tcp:10.0.0.0/8:80-90");
        assert_eq!(shown("[::1]:443"), "[::1]/128:443");
        assert_eq!(shown("2001:db8::/32"), "[2001:db8::]/32");
        assert_eq!(shown("loopback:53"), "127.0.0.0/8:53 [::1]/128:53");
        assert_eq!(shown("any"), "any");
        assert_eq!(shown("::ffff:10.0.0.1"), "10.0.0.1/32");
    }

    #[test]
    fn nonsense_is_named() {
        assert!(shown("10.0.0.0/33").contains("/33 is longer"));
        assert!(shown("example.org:80").contains("is not an address"));
        assert!(shown("10.0.0.1:99999").contains("is not a port"));
        assert!(shown("10.0.0.1:90-80").contains("is not a port"));
    }
}
