//! What the kernel programs report becomes observations.
//!
//! A sample is an allegation: ids, lengths and texts in it are checked here and nowhere else. Nothing in a sample can
//! make the daemon refuse or allow anything; the worst a wrong one can do is to be recorded.

use std::net::{IpAddr, Ipv6Addr};

use agentd_abi as abi;
use agentd_model::{
    AgentNumber, CapabilityNumber, Denial, DenialReason, DeniedObject, Duration, Hook, NotInForce, Rights,
};
use agentd_world::Observation;

/// Reads one event. `None`: it says nothing that is recorded.
pub fn read(event: abi::Event<'_>) -> Option<Observation> {
    let head = event.head();
    let agent = AgentNumber(head.agent);
    match event {
        abi::Event::File(file) => {
            let object = DeniedObject::File { path: path(file), dev: file.object.dev, ino: file.object.ino };
            let right = Rights::from_bits_truncate(file.right);
            Some(denied(head, reason(file.reason, file.rule_id), Hook::from_abi(file.hook), right, object))
        }
        abi::Event::Guard(guard) => {
            let object = DeniedObject::Other { detail: guard.detail };
            Some(denied(head, reason(guard.reason, 0), Hook::from_abi(guard.hook), Rights::NONE, object))
        }
        abi::Event::Net(net) => {
            let object = DeniedObject::Address { text: address(net) };
            Some(denied(head, reason(net.reason, 0), Hook::from_abi(net.hook), Rights::NONE, object))
        }
        abi::Event::Budget(budget) => {
            let spent = Duration(budget.spent_ns);
            match head.kind {
                abi::EV_CPU_WARN => Some(Observation::CpuWarning { agent, spent }),
                abi::EV_CPU_EXHAUSTED => Some(Observation::CpuExhausted { agent, spent }),
                _ => Some(Observation::CpuKilled { agent, spent }),
            }
        }
        // Forks and exits are the kernel's small change; programs are what an audit asks for.
        abi::Event::Process(process) if head.kind == abi::EV_EXEC => {
            Some(Observation::ProgramRun { agent, pid: head.pid, path: text(&process.path) })
        }
        abi::Event::Process(_) => None,
    }
}

fn denied(head: &abi::EventHead, reason: DenialReason, hook: Hook, right: Rights, object: DeniedObject) -> Observation {
    let denial = Denial { hook, reason, right, object, pid: head.pid, comm: text(&head.comm), mono_ns: head.time_ns };
    Observation::Denied { agent: AgentNumber(head.agent), denial: Box::new(denial), suppressed: head.suppressed }
}

fn reason(number: u32, rule: u32) -> DenialReason {
    let lent = |because| DenialReason::Capability { capability: CapabilityNumber(rule), because };
    match number {
        abi::WHY_ENDED => lent(NotInForce::Ended),
        abi::WHY_REVOKED => lent(NotInForce::Revoked),
        abi::WHY_NOT_YET => lent(NotInForce::NotYet),
        abi::WHY_RULE | abi::WHY_NAME => DenialReason::Rule { rule },
        abi::WHY_EXHAUSTED => DenialReason::Exhausted,
        abi::WHY_TOO_DEEP => DenialReason::TooDeep,
        abi::WHY_NO_PLACE => DenialReason::NoPlace,
        abi::WHY_GUARD => DenialReason::Guard,
        abi::WHY_STRANGER => DenialReason::Stranger,
        abi::WHY_EXPIRED => DenialReason::Expired,
        abi::WHY_NAMES_VARY => DenialReason::NamesVary,
        _ => DenialReason::NothingFound,
    }
}

/// Bytes up to the first NUL, as text.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The names of a file event, from the object up, as a path from the root down.
fn path(event: &abi::FileEvent) -> String {
    let used = (event.path_bytes as usize).min(abi::PATH_BYTES);
    let names: Vec<&[u8]> = event.path[..used].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let whole = event.levels < abi::MAX_DEPTH && used + 256 <= abi::PATH_BYTES;
    let mut path = String::from(if whole { "" } else { "…" });
    // The root of a mount calls itself "/"; so does the root of everything.
    for name in names.iter().rev().filter(|name| ***name != *b"/") {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(name));
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

fn address(event: &abi::NetEvent) -> String {
    let v6 = Ipv6Addr::from(event.addr);
    let ip = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4);
    let protocol = match event.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("protocol {other}"),
    };
    match ip {
        IpAddr::V4(v4) => format!("{protocol} {v4}:{}", event.port),
        IpAddr::V6(v6) => format!("{protocol} [{v6}]:{}", event.port),
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn file_event(names: &[&str]) -> abi::FileEvent {
        let mut event = abi::FileEvent::new_zeroed();
        event.head.kind = abi::EV_FILE_DENIED;
        event.head.agent = 7;
        event.head.comm[..3].copy_from_slice(b"cat");
        (event.hook, event.reason, event.right, event.rule_id) = (1, abi::WHY_RULE, abi::READ, 3);
        let mut at = 0;
        for name in names {
            event.path[at..at + name.len()].copy_from_slice(name.as_bytes());
            at += name.len() + 1;
        }
        (event.levels, event.path_bytes) = (names.len() as u32, at as u32);
        event
    }

    #[test]
    fn a_refused_file_is_read_with_its_path_the_right_way_round() {
        let event = file_event(&["id_ed25519", ".ssh", "dev", "home", "/"]);
        let Some(Observation::Denied { agent, denial, .. }) = read(abi::Event::parse(event.as_bytes()).unwrap()) else {
            panic!()
        };
        assert_eq!((agent, denial.comm.as_str()), (AgentNumber(7), "cat"));
        assert_eq!(denial.object.to_string(), "/home/dev/.ssh/id_ed25519");
        assert_eq!((denial.right, denial.reason), (Rights::READ, DenialReason::Rule { rule: 3 }));
    }

    #[test]
    fn lengths_that_lie_are_cut() {
        let mut event = file_event(&["x"]);
        event.path_bytes = u32::MAX;
        let Some(Observation::Denied { denial, .. }) = read(abi::Event::parse(event.as_bytes()).unwrap()) else {
            panic!()
        };
        assert_eq!(denial.object.to_string(), "…/x");
    }

    #[test]
    fn a_mapped_address_is_shown_as_what_it_is() {
        let mut event = abi::NetEvent { port: 443, protocol: 6, ..Default::default() };
        event.head.kind = abi::EV_NET_DENIED;
        event.addr = "10.1.2.3".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets();
        let Some(Observation::Denied { denial, .. }) = read(abi::Event::parse(event.as_bytes()).unwrap()) else {
            panic!()
        };
        assert_eq!(denial.object.to_string(), "tcp 10.1.2.3:443");
    }
}
