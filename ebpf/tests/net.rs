//! The network programs refuse what they should, and nothing else, on the kernel at hand.
//!
//! Runs natively as root: these programs load where LSM programs do not.

mod net_world;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use agentd_abi::{WHY_GUARD, WHY_NOTHING_FOUND, WHY_STRANGER};
use net_world::{BIND, CONNECT, Puppet, TCP, UDP, World};

const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;

#[test]
fn the_puppet() {
    net_world::puppet::perform();
}

#[test]
fn the_probe_leaves_nothing() {
    let Some(_world) = World::new() else { return };
    agentd_ebpf::net::probe().expect("this host can confine the network");
}

#[test]
fn tcp_is_allowed_by_address_prefix_and_port() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    let (open, shut) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
    world.allow(&agent, "127.0.0.1/32", &[(open.1, open.1, CONNECT | TCP), (7, 9, CONNECT | TCP)]);
    world.allow(&agent, "127.1.0.0/16", &[(0, u16::MAX, CONNECT | TCP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));

    assert_eq!(puppet.call(format!("tcp 127.0.0.1:{}", open.1)), 0);
    assert_eq!(puppet.call(format!("tcp 127.0.0.1:{}", shut.1)), EPERM);
    assert_eq!(puppet.call("tcp 127.0.0.1:6"), EPERM);
    assert_eq!(puppet.call("tcp 127.0.0.1:7"), ECONNREFUSED, "first of a range, allowed, nobody there");
    assert_eq!(puppet.call("tcp 127.0.0.1:9"), ECONNREFUSED, "last of a range");
    assert_eq!(puppet.call("tcp 127.0.0.1:10"), EPERM);
    assert_eq!(puppet.call("tcp 127.1.2.3:10"), ECONNREFUSED, "inside the prefix");
    assert_eq!(puppet.call("tcp 127.2.2.3:10"), EPERM, "outside the prefix");
}

#[test]
fn the_longest_prefix_decides_alone() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    world.allow(&agent, "::/0", &[(0, u16::MAX, CONNECT | TCP)]);
    world.allow(&agent, "127.0.0.5/32", &[(80, 80, CONNECT | TCP)]);
    world.allow(&agent, "127.0.0.6/32", &[]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));

    assert_eq!(puppet.call("tcp 127.0.0.4:9"), ECONNREFUSED);
    assert_eq!(puppet.call("tcp 127.0.0.5:80"), ECONNREFUSED);
    assert_eq!(puppet.call("tcp 127.0.0.5:9"), EPERM);
    assert_eq!(puppet.call("tcp 127.0.0.6:80"), EPERM);
}

#[test]
fn every_of_the_eight_ranges_counts_and_no_more() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    let ranges: Vec<_> = (1..=8).map(|at| (at * 10, at * 10, CONNECT | TCP)).collect();
    world.allow(&agent, "127.0.0.1/32", &ranges);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    for port in 1..=9 {
        let expected = if port <= 8 { ECONNREFUSED } else { EPERM };
        assert_eq!(puppet.call(format!("tcp 127.0.0.1:{}", port * 10)), expected, "port {}", port * 10);
    }
}

#[test]
fn ipv6_and_mapped_ipv4_decide_alike() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    let (six, four) = (listener("[::1]:0"), listener("127.0.0.1:0"));
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    assert_eq!(puppet.call(format!("tcp [::1]:{}", six.1)), EPERM);
    assert_eq!(puppet.call(format!("tcp [::ffff:127.0.0.1]:{}", four.1)), EPERM);

    world.allow(&agent, "::1/128", &[(six.1, six.1, CONNECT | TCP)]);
    world.allow(&agent, "127.0.0.1/32", &[(four.1, four.1, CONNECT | TCP)]);
    assert_eq!(puppet.call(format!("tcp [::1]:{}", six.1)), 0);
    assert_eq!(puppet.call("tcp [::1]:9"), EPERM);
    assert_eq!(puppet.call(format!("tcp [::ffff:127.0.0.1]:{}", four.1)), 0);
    assert_eq!(puppet.call("tcp [::ffff:127.0.0.1]:9"), EPERM);
}

#[test]
fn datagrams_are_judged_with_and_without_connect() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = socket.local_addr().expect("an address").port();
    world.allow(&agent, "127.0.0.1/32", &[(port, port, CONNECT | UDP), (9, 9, CONNECT | TCP)]);
    world.allow(&agent, "::1/128", &[(port, port, CONNECT | UDP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));

    assert_eq!(puppet.call(format!("udp 127.0.0.1:{port}")), 0);
    assert_eq!(socket.recv(&mut [0; 8]).expect("the datagram"), 1);
    assert_eq!(puppet.call(format!("udp-6 [::ffff:127.0.0.1]:{port}")), 0);
    assert_eq!(puppet.call(format!("udp-6 127.0.0.1:{port}")), 0, "an IPv4 address on an IPv6 socket");
    assert_eq!(puppet.call(format!("udp [::1]:{port}")), 0);
    assert_eq!(puppet.call(format!("udp-connect 127.0.0.1:{port}")), 0);
    for call in
        ["udp 127.0.0.1:9", "udp-6 [::ffff:127.0.0.1]:9", "udp-6 127.0.0.1:9", "udp [::1]:9", "udp-connect 127.0.0.1:9"]
    {
        assert_eq!(puppet.call(call), EPERM, "{call}: port 9 is for TCP only");
    }
    assert_eq!(puppet.call(format!("tcp 127.0.0.1:{port}")), EPERM, "the other port is for UDP only");
}

#[test]
fn bind_is_a_right_of_its_own() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    world.allow(&agent, "127.0.0.0/8", &[(0, 0, BIND | TCP), (40000, 60000, BIND | TCP | UDP), (9, 9, CONNECT | TCP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));

    assert_eq!(puppet.call("bind-tcp 127.0.0.1:0"), 0, "port 0 is in a range that begins with 0");
    assert_eq!(puppet.call("bind-udp 127.0.0.1:0"), EPERM, "port 0 is for TCP only");
    assert_eq!(puppet.call("bind-udp 127.0.0.1:40001"), 0);
    assert_eq!(puppet.call("bind-tcp [::ffff:127.0.0.1]:40002"), 0);
    assert_eq!(puppet.call("bind-tcp 127.0.0.1:9"), EPERM, "may connect there, not bind");
    assert_eq!(puppet.call("bind-tcp 0.0.0.0:40003"), EPERM, "every address is more than loopback");
    assert_eq!(puppet.call("bind-tcp [::]:40004"), EPERM);
    assert_eq!(puppet.call("bind-tcp [::1]:40005"), EPERM);
    assert_eq!(puppet.call("tcp 127.0.0.1:40001"), EPERM, "may bind there, not connect");
    assert_eq!(puppet.call("listen-unbound"), 0, "no cgroup hook sees it; an LSM hook must");
}

#[test]
fn the_unspecified_destination_is_loopback() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    // Reachable at 127.0.0.9 only: a socket bound there must not reach it through 0.0.0.0.
    let (own, four, six) = (listener("127.0.0.9:0"), listener("127.0.0.1:0"), listener("[::1]:0"));
    world.allow(&agent, "127.0.0.9/32", &[(0, 0, BIND | TCP)]);
    world.allow(&agent, "0.0.0.0/32", &[(0, u16::MAX, CONNECT | TCP)]);
    world.allow(&agent, "::/128", &[(0, u16::MAX, CONNECT | TCP)]);
    for call in ["tcp 0.0.0.0", "tcp [::]", "tcp [::ffff:0.0.0.0]", "tcp-from 127.0.0.9:0 0.0.0.0"] {
        assert_eq!(puppet.call(format!("{call}:{}", own.1)), EPERM, "{call}: a rule about 0.0.0.0 or :: says nothing");
    }

    world.allow(&agent, "127.0.0.1/32", &[(0, u16::MAX, CONNECT | TCP)]);
    world.allow(&agent, "::1/128", &[(0, u16::MAX, CONNECT | TCP)]);
    assert_eq!(puppet.call(format!("tcp 0.0.0.0:{}", four.1)), 0);
    assert_eq!(puppet.call(format!("tcp [::ffff:0.0.0.0]:{}", four.1)), 0);
    assert_eq!(puppet.call(format!("tcp [::]:{}", six.1)), 0);
    assert_eq!(
        puppet.call(format!("tcp-from 127.0.0.9:0 0.0.0.0:{}", own.1)),
        ECONNREFUSED,
        "goes where it was judged"
    );
}

#[test]
fn tcp_fast_open_is_seen_by_the_connect_hooks() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    let (open, shut) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
    world.allow(&agent, "127.0.0.1/32", &[(open.1, open.1, CONNECT | TCP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    assert_eq!(puppet.call(format!("fast-open 127.0.0.1:{}", open.1)), 0);
    assert_eq!(puppet.call(format!("fast-open 127.0.0.1:{}", shut.1)), EPERM);
}

#[test]
fn other_protocols_have_no_sockets() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(1, 41);
    world.allow(&agent, "::/0", &[(0, u16::MAX, CONNECT | BIND | TCP | UDP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    assert_eq!(puppet.call("socket"), 0);
    assert_eq!(puppet.call("unix"), 0, "not asked here");
    assert!(world.refusals().is_empty());
    assert_eq!(puppet.call("raw"), EPERM);
    let refusals = world.refusals();
    assert_eq!(refusals.len(), 1);
    assert_eq!((refusals[0].hook, refusals[0].reason, refusals[0].protocol, refusals[0].family), (31, WHY_GUARD, 1, 2));
    assert_eq!(Puppet::start(None).call("raw"), 0, "outside, root may");
}

#[test]
fn nested_cgroups_stay_the_agent_and_strange_ones_have_nothing() {
    let Some(world) = World::new() else { return };
    let net = world.load();
    let agent = world.agent(1, 41);
    let other = world.agent(2, 42);
    let (_listener, open) = listener("127.0.0.1:0");
    world.allow(&agent, "127.0.0.1/32", &[(9, 9, CONNECT | TCP)]);
    world.allow(&other, "127.0.0.1/32", &[(open, open, CONNECT | TCP)]);
    let deep = agent.cgroup.join("a/b");
    std::fs::create_dir_all(&deep).expect("cgroups");
    let (allowed, refused) = ("tcp 127.0.0.1:9", format!("tcp 127.0.0.1:{open}"));

    let mut puppet = Puppet::start(Some(&deep));
    assert_eq!((puppet.call(allowed), puppet.call(&refused)), (ECONNREFUSED, EPERM), "nested");
    puppet.move_to(&other.cgroup);
    assert_eq!((puppet.call(allowed), puppet.call(&refused)), (EPERM, 0), "agents do not share rules");
    assert_eq!(world.refusals().iter().map(|event| event.head.agent).collect::<Vec<_>>(), [41, 42]);

    let strange = world.cgroup("strange");
    puppet.move_to(&strange);
    for call in [allowed, "udp 127.0.0.1:9", "bind-tcp 127.0.0.1:0", "socket"] {
        assert_eq!(puppet.call(call), EPERM, "{call} in a cgroup that nobody registered");
    }
    puppet.move_to(&world.parent);
    assert_eq!(puppet.call(allowed), EPERM, "in the parent cgroup itself");
    let refusals = world.refusals();
    assert!(refusals.iter().all(|event| event.head.agent == 0 && event.reason == WHY_STRANGER), "{refusals:?}");
    assert_eq!(net.counters().expect("counters").unregistered, 5);

    assert_eq!(Puppet::start(None).call(&refused), 0, "outside");
    assert_eq!(world.slot(1).denials + world.slot(2).denials, 2);
}

#[test]
fn a_slot_that_was_given_away_gives_nothing() {
    let Some(world) = World::new() else { return };
    let net = world.load();
    let agent = world.agent(1, 41);
    world.allow(&agent, "::/0", &[(0, u16::MAX, CONNECT | TCP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    assert_eq!(puppet.call("tcp 127.0.0.1:9"), ECONNREFUSED);
    let mut slot = world.slot(1);
    slot.cgroup_id += 1;
    world.set_agent(1, &slot);
    assert_eq!(puppet.call("tcp 127.0.0.1:9"), EPERM, "taken by another cgroup");
    slot.cgroup_id -= 1;
    slot.number = 0;
    world.set_agent(1, &slot);
    assert_eq!(puppet.call("tcp 127.0.0.1:9"), EPERM, "free");
    assert!(net.counters().expect("counters").broken >= 2);
}

#[test]
fn a_refusal_is_reported_in_full_and_floods_are_counted() {
    let Some(world) = World::new() else { return };
    let _net = world.load();
    let agent = world.agent(3, 77);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    assert_eq!(puppet.call("udp 127.0.0.2:5353"), EPERM);
    let [event] = world.refusals()[..] else { panic!("one event") };
    assert_eq!((event.head.agent, event.head.pid, event.head.suppressed), (77, puppet.pid(), 0));
    assert_eq!((event.hook, event.reason, event.family), (29, WHY_NOTHING_FOUND, 2));
    assert_eq!((event.port, event.protocol), (5353, 17));
    assert_eq!(event.addr, Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().octets());
    assert!(event.head.comm.starts_with(b"the_puppet"), "{:?}", event.head.comm);
    assert!(event.head.time_ns > 0);

    assert_eq!(puppet.call("times 20000 udp 127.0.0.2:5353"), EPERM);
    let events = world.refusals();
    let slot = world.slot(3);
    assert_eq!(slot.denials, 20_001);
    let told = events.iter().map(|event| 1 + event.head.suppressed).sum::<u64>();
    assert_eq!(told + slot.suppressed, 20_000, "sent, carried or still to be carried: nothing is lost");
    assert!(events.len() < 10_000, "{} of 20000 were sent", events.len());

    // The next second, without waiting for it.
    let silent = slot.suppressed;
    world.set_agent(3, &agentd_abi::Agent { report_window_ns: 0, ..slot });
    assert_eq!(puppet.call("udp 127.0.0.2:5353"), EPERM);
    let [event] = world.refusals()[..] else { panic!("one event") };
    assert_eq!((event.head.suppressed, world.slot(3).suppressed), (silent, 0), "carried, and carried once");
}

fn listener(at: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind(at).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}
