//! What every test of the network programs needs: a private bpffs, a cgroup for agents, agents, and puppets in them.
//!
//! A puppet is this test binary once more, started with `AGENTD_NET_PUPPET`: it reads one call a line, makes it, and
//! answers with its errno. So the calls come from a process that really sits in an agent's cgroup. All traffic is loopback.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod puppet;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agentd_abi::{Agent, Event, Net as NetEntry, NetEvent, NetKey, PortRange, ProcessEvent};
use agentd_ebpf::net::{Net, OBJECT, Options};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) use puppet::Puppet;

/// Bits of [`PortRange::ops`], shorter.
pub(crate) const CONNECT: u16 = agentd_abi::NET_CONNECT;
pub(crate) const BIND: u16 = agentd_abi::NET_BIND;
pub(crate) const TCP: u16 = agentd_abi::NET_TCP;
pub(crate) const UDP: u16 = agentd_abi::NET_UDP;

pub(crate) struct World {
    pub(crate) bpffs: PathBuf,
    pub(crate) parent: PathBuf,
    scratch: PathBuf,
}

/// An agent that is registered.
pub(crate) struct TestAgent {
    pub(crate) cgroup: PathBuf,
    pub(crate) number: u32,
}

impl World {
    /// `None`, with a word about it, where the test cannot run: without root nothing can be mounted or loaded.
    pub(crate) fn new() -> Option<World> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not run: needs root");
            return None;
        }
        let name = format!("agentd-net-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = std::env::temp_dir().join(&name);
        fs::create_dir(&scratch).expect("a scratch folder");
        mount(Some("bpf"), &scratch, Some("bpf"), MsFlags::empty(), None::<&str>).expect("bpffs");
        let bpffs = scratch.join("agentd");
        fs::create_dir(&bpffs).expect("a folder in bpffs");
        let parent = cgroup_root().join(name);
        fs::create_dir(&parent).expect("a cgroup");
        Some(World { bpffs, parent, scratch })
    }

    pub(crate) fn options(&self) -> Options<'static> {
        Options { object: OBJECT, bpffs: self.bpffs.clone(), agents_cgroup: self.parent.clone() }
    }

    pub(crate) fn load(&self) -> Net {
        Net::load(&self.options()).expect("the network programs")
    }

    /// Makes a cgroup that nobody registers.
    pub(crate) fn cgroup(&self, name: &str) -> PathBuf {
        let path = self.parent.join(name);
        fs::create_dir(&path).expect("a cgroup");
        path
    }

    /// Makes and registers an agent; call after `load`.
    pub(crate) fn agent(&self, slot: u32, number: u32) -> TestAgent {
        use std::os::unix::fs::MetadataExt as _;
        let cgroup = self.cgroup(&format!("agent-{number}"));
        let id = fs::metadata(&cgroup).expect("the cgroup").ino();
        let agent = Agent { number, cgroup_id: id, ..Agent::default() };
        self.set_agent(slot, &agent);
        let mut cgroups: HashMap<MapData, u64, u32> =
            HashMap::try_from(Map::HashMap(self.pin("cgroup_agents"))).expect("a hash");
        cgroups.insert(id, slot, 0).expect("an entry");
        TestAgent { cgroup, number }
    }

    /// Puts one entry: what `agent` may do with addresses in `place`, for example `127.0.0.0/8`.
    pub(crate) fn allow(&self, agent: &TestAgent, place: &str, ranges: &[(u16, u16, u16)]) {
        let mut entry = NetEntry { count: ranges.len() as u32, ..NetEntry::default() };
        for (range, &(first, last, ops)) in entry.ports.iter_mut().zip(ranges) {
            *range = PortRange { first, last, ops, rule_id: 1 };
        }
        let (addr, prefix) = place.split_once('/').expect("ADDRESS/PREFIX");
        let prefix: u32 = prefix.parse().expect("a prefix");
        let (addr, prefix) = match addr.parse().expect("an address") {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 96 + prefix),
            IpAddr::V6(v6) => (v6.octets(), prefix),
        };
        let key = NetKey { prefix_bits: 32 + prefix, agent: agent.number.to_be_bytes(), addr };
        let mut data = [0; 20];
        data.copy_from_slice(&key.as_bytes()[4..]);
        let mut nets: LpmTrie<MapData, [u8; 20], [u8; size_of::<NetEntry>()]> =
            LpmTrie::try_from(Map::LpmTrie(self.pin("nets"))).expect("a trie");
        let value = <[u8; size_of::<NetEntry>()]>::try_from(entry.as_bytes()).expect("a value");
        nets.insert(&Key::new(key.prefix_bits, data), value, 0).expect("an entry");
    }

    /// The slot as the kernel has it now.
    pub(crate) fn slot(&self, slot: u32) -> Agent {
        let bytes = self.agents().get(&slot, 0).expect("a slot");
        Agent::read_from_bytes(&bytes).expect("an agent")
    }

    pub(crate) fn set_agent(&self, slot: u32, agent: &Agent) {
        self.agents()
            .set(slot, <[u8; size_of::<Agent>()]>::try_from(agent.as_bytes()).expect("a value"), 0)
            .expect("a slot");
    }

    /// All events that wait, in order.
    pub(crate) fn events(&self) -> Vec<TestEvent> {
        let mut ring = RingBuf::try_from(Map::RingBuf(self.pin("events"))).expect("a ring");
        let mut events = Vec::new();
        while let Some(sample) = ring.next() {
            events.push(match Event::parse(&sample).expect("an event") {
                Event::Net(event) => TestEvent::Net(*event),
                Event::Process(event) => TestEvent::Process(*event),
                other => panic!("unexpected {other:?}"),
            });
        }
        events
    }

    /// Refusals among the events that wait; the others are dropped.
    pub(crate) fn refusals(&self) -> Vec<NetEvent> {
        let events = self.events().into_iter();
        events.filter_map(|event| if let TestEvent::Net(event) = event { Some(event) } else { None }).collect()
    }

    /// Folders of network links.
    pub(crate) fn link_folders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.bpffs.join("net")).expect("links");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    fn agents(&self) -> Array<MapData, [u8; size_of::<Agent>()]> {
        Array::try_from(Map::Array(self.pin("agents"))).expect("an array")
    }

    fn pin(&self, name: &str) -> MapData {
        MapData::from_pin(self.bpffs.join("maps").join(name)).expect("a pinned map")
    }
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a few thousand at the most")]
pub(crate) enum TestEvent {
    Net(NetEvent),
    Process(ProcessEvent),
}

impl Drop for World {
    fn drop(&mut self) {
        let detached = Net::detach(&self.bpffs);
        let _ = umount2(&self.scratch, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.scratch);
        remove_cgroup(&self.parent);
        detached.expect("detached");
    }
}

/// Removes a cgroup and those below it, once their processes are gone.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = within(Duration::from_secs(2), || fs::remove_dir(path).ok());
}

/// Asks again until there is an answer; `None` after the time.
pub(crate) fn within<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    const PAUSE: Duration = Duration::from_millis(2);
    for _ in 0..time.as_millis() / PAUSE.as_millis() {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        std::thread::sleep(PAUSE);
    }
    ask()
}

fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("a cgroup v2 file system");
    PathBuf::from(line.split(' ').nth(1).expect("a mount point"))
}
