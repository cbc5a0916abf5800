//! The network programs outlive who loaded them, are replaced without a gap, and tell what processes do.

mod net_world;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use agentd_abi::{EV_EXEC, EV_EXIT, EV_FORK, ProcessEvent};
use agentd_ebpf::net::{LoadError, Net, OBJECT, Options};
use agentd_ebpf::{AgentsCgroup, Domains, Kernel, Origin};
use net_world::{CONNECT, Puppet, TCP, TestEvent, World, within};

const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;

#[test]
fn the_puppet() {
    net_world::puppet::perform();
}

/// Loads the programs and waits to be killed; only as a process of its own.
#[test]
fn the_daemon() {
    let Some(bpffs) = std::env::var_os("AGENTD_NET_DAEMON") else { return };
    let agents_cgroup = std::env::var_os("AGENTD_NET_CGROUP").expect("a cgroup").into();
    let _net = Net::load(&Options { object: OBJECT, bpffs: bpffs.into(), agents_cgroup }).expect("loaded");
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn links_survive_kill_9_and_are_found_again() {
    let Some(world) = World::new() else { return };
    let mut daemon = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "the_daemon", "--nocapture"])
        .env("AGENTD_NET_DAEMON", &world.bpffs)
        .env("AGENTD_NET_CGROUP", &world.parent)
        .stdout(Stdio::null())
        .spawn()
        .expect("a daemon");
    let ready = || world.bpffs.join("net").exists() && world.link_folders().iter().any(|name| name.starts_with("net-"));
    within(Duration::from_secs(30), || ready().then_some(())).expect("a daemon that has loaded");
    daemon.kill().expect("kill -9");
    daemon.wait().expect("its end");

    let agent = world.agent(1, 41);
    world.allow(&agent, "127.0.0.1/32", &[(9, 9, CONNECT | TCP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    assert_eq!(
        (puppet.call("tcp 127.0.0.1:9"), puppet.call("tcp 127.0.0.1:8")),
        (ECONNREFUSED, EPERM),
        "nobody is there"
    );
    let folders = world.link_folders();
    let programs = link_programs(&world);

    let mut net = world.load();
    assert_eq!(net.origin(), Origin::Adopted);
    assert_eq!((world.link_folders(), link_programs(&world)), (folders, programs), "the very same programs");
    assert!(net.counters().expect("counters").judged > 0, "counted before this load");
    assert!(net.audit().is_ok());
    puppet.move_to(&world.cgroup("strange"));
    assert_eq!(puppet.call("tcp 127.0.0.1:9"), EPERM);
    let mut log = net.take_log().expect("the log of the reused programs");
    let lines = log.drain();
    assert!(lines.iter().any(|line| line.text.contains("no registered agent")), "{lines:?}");
    assert!(net.take_log().is_none());
}

#[test]
fn another_build_takes_over_and_a_torn_one_is_repaired() {
    let Some(world) = World::new() else { return };
    drop(world.load());
    let agent = world.agent(1, 41);
    world.allow(&agent, "127.0.0.1/32", &[(9, 9, CONNECT | TCP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    let before = world.link_folders();

    // Bytes behind the end of an ELF file mean nothing but make it another build.
    let mut other = aligned(OBJECT);
    other.extend_from_slice(&[0; 8]);
    let net = Net::load(&Options { object: &other, ..world.options() }).expect("the other build");
    assert_eq!(net.origin(), Origin::Loaded);
    let after = world.link_folders();
    assert_eq!(after.len(), 1, "{after:?}");
    assert_ne!(before, after);
    assert_eq!((puppet.call("tcp 127.0.0.1:9"), puppet.call("tcp 127.0.0.1:8")), (ECONNREFUSED, EPERM));

    let folder = world.bpffs.join("net").join(&after[0]);
    fs::remove_file(folder.join("net_connect4")).expect("a pin");
    fs::create_dir(world.bpffs.join("net/new-0123456789abcdef")).expect("a folder left by a load that died");
    fs::create_dir(world.bpffs.join("net/other")).expect("somebody else's folder");
    let mut refused = || puppet.call("tcp 127.0.0.1:8") == EPERM;
    within(Duration::from_secs(2), || (!refused()).then_some(())).expect("the hook goes with its pin");
    let net = Net::load(&Options { object: &other, ..world.options() }).expect("repaired");
    assert_eq!(net.origin(), Origin::Loaded);
    assert_eq!(puppet.call("tcp 127.0.0.1:8"), EPERM);
    let mut folders = world.link_folders();
    folders.sort();
    assert_eq!(folders, [after[0].clone(), "other".to_owned()]);
    fs::remove_dir(world.bpffs.join("net/other")).expect("somebody else's folder");

    Net::detach(&world.bpffs).expect("detached");
    let mut refused = || puppet.call("tcp 127.0.0.1:8") == EPERM;
    within(Duration::from_secs(2), || (!refused()).then_some(())).expect("free, after the last pin is gone");
}

#[test]
fn refusals_hold_while_builds_change() {
    let Some(world) = World::new() else { return };
    drop(world.load());
    let agent = world.agent(1, 41);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    let done = std::sync::atomic::AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut calls = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(puppet.call("tcp 127.0.0.1:8"), EPERM, "call {calls}");
                calls += 1;
            }
            calls
        });
        for build in 1..=4 {
            let mut object = aligned(OBJECT);
            object.extend_from_slice(&vec![0; build]);
            Net::load(&Options { object: &object, ..world.options() }).expect("another build");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        caller.join().expect("the caller")
    });
    assert!(calls > 100, "{calls} calls");
}

#[test]
fn pinned_maps_of_another_shape_are_refused_by_name() {
    let Some(world) = World::new() else { return };
    drop(world.load());
    Net::detach(&world.bpffs).expect("detached");
    let maps = world.bpffs.join("maps");
    fs::rename(maps.join("cgroup_agents"), maps.join("kept")).expect("renamed");
    fs::rename(maps.join("nets"), maps.join("cgroup_agents")).expect("renamed");
    let Err(error) = Net::load(&world.options()) else { panic!("loaded with a trie for a hash") };
    assert!(matches!(&error, LoadError::Mismatch { path, .. } if path.ends_with("cgroup_agents")), "{error:?}");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert_eq!(cause, "its type is LpmTrie, the contract says Hash");
    assert_eq!(world.link_folders(), [""; 0]);
}

#[test]
fn the_maps_of_the_c_programs_are_opened() {
    let Some(world) = World::new() else { return };
    let agents_cgroup = AgentsCgroup::at(&world.parent).expect("the cgroup");
    let bpffs = world.bpffs.clone();
    let options = agentd_ebpf::Options { bpffs, agents_cgroup, domains: Domains::CpuOnly, no_cache: false };
    let kernel = Kernel::load(&options).expect("the budget programs");
    drop(world.load());
    let agent = world.agent(1, 41);
    world.allow(&agent, "127.0.0.1/32", &[(9, 9, CONNECT | TCP)]);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    assert_eq!((puppet.call("tcp 127.0.0.1:9"), puppet.call("tcp 127.0.0.1:8")), (ECONNREFUSED, EPERM));

    drop(kernel);
    assert_eq!(
        Kernel::load(&options).expect("the budget programs").origin(),
        Origin::Adopted,
        "we have left its pins alone"
    );
    assert_eq!(world.load().origin(), Origin::Adopted);
    agentd_ebpf::unpin_all(&world.bpffs).expect("our pins are not in its way");
}

#[test]
fn a_folder_that_is_no_cgroup_is_refused() {
    let Some(world) = World::new() else { return };
    let error = Net::load(&Options { agents_cgroup: "/proc".into(), ..world.options() }).err().expect("refused");
    assert!(matches!(error, LoadError::Cgroup { .. }), "{error:?}");
}

#[test]
fn forks_execs_and_exits_are_told() {
    let Some(world) = World::new() else { return };
    let net = world.load();
    net.audit().expect("the audit programs load on this kernel");
    let agent = world.agent(1, 41);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    world.events();
    assert_eq!(puppet.call("run /bin/false"), 0);
    assert_eq!(puppet.call("run /nonexistent/program"), 2);
    assert_eq!(puppet.call("thread"), 0, "threads are not told");
    let events = world.events();
    let of = |kind| {
        let events = events.iter().filter_map(|event| match event {
            TestEvent::Process(event) if event.head.kind == kind => Some(*event),
            _ => None,
        });
        events.collect::<Vec<ProcessEvent>>()
    };
    let (forks, execs, exits) = (of(EV_FORK), of(EV_EXEC), of(EV_EXIT));

    assert_eq!((forks.len(), execs.len(), exits.len()), (2, 1, 2), "the second exec failed");
    let child = forks[0].head.pid;
    assert!(child != 0 && child != puppet.pid());
    for fork in &forks {
        assert_eq!((fork.head.agent, fork.parent_pid, fork.head.tid), (41, puppet.pid(), fork.head.pid));
    }
    assert_eq!((execs[0].head.agent, execs[0].head.pid, execs[0].parent_pid), (41, child, puppet.pid()));
    assert!(execs[0].path.starts_with(b"/bin/false\0"), "{:?}", &execs[0].path[..16]);
    assert_eq!(&execs[0].head.comm[..6], b"false\0");
    assert_eq!(
        (exits[0].head.pid, exits[0].parent_pid, exits[0].status),
        (child, puppet.pid(), 1 << 8),
        "a wait status"
    );
    assert_eq!(exits[1].head.pid, forks[1].head.pid);

    let pid = puppet.pid();
    drop(puppet);
    let ended = || {
        world.events().into_iter().find_map(|event| match event {
            TestEvent::Process(event) if event.head.kind == EV_EXIT && event.head.pid == pid => Some(event.status),
            _ => None,
        })
    };
    assert_eq!(within(Duration::from_secs(2), ended), Some(9), "killed");
    Puppet::start(None).call("run /bin/true");
    assert!(world.events().is_empty(), "nothing is told about strangers");
}

#[test]
fn a_full_ring_loses_processes_by_count_before_it_loses_refusals() {
    let Some(world) = World::new() else { return };
    let net = world.load();
    let agent = world.agent(1, 41);
    let mut puppet = Puppet::start(Some(&agent.cgroup));
    // 8 MiB in samples of 320 bytes, three a process: about 6,600 processes to three quarters.
    let script = world.bpffs.parent().expect("scratch").with_extension("sh");
    fs::write(&script, "#!/bin/sh\ni=0\nwhile [ $i -lt 11000 ]; do (:); i=$((i+1)); done\n").expect("a script");
    Command::new("chmod").arg("+x").arg(&script).status().expect("chmod");
    assert_eq!(puppet.call(format!("run {}", script.display())), 0);
    fs::remove_file(&script).expect("the script");
    let lost = net.counters().expect("counters").processes_lost;
    assert!(lost > 0, "the ring did not fill");
    assert_eq!(puppet.call("tcp 127.0.0.1:8"), EPERM);
    let events = world.events();
    assert!(matches!(events.last(), Some(TestEvent::Net(_))), "the refusal found room");
    let told = events.iter().filter(|event| matches!(event, TestEvent::Process(_))).count() as u64;
    assert!(told > 15_000, "{told} told, {lost} lost");
}

/// The programs behind the pinned links, as the kernel numbers them.
fn link_programs(world: &World) -> Vec<(String, u32)> {
    let folder = world.bpffs.join("net").join(&world.link_folders()[0]);
    let mut programs = Vec::new();
    for entry in fs::read_dir(folder).expect("links") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name != "counters" {
            let link = aya::programs::links::PinnedLink::from_pin(&path).expect("a link");
            let link: aya::programs::links::FdLink = link.into();
            programs.push((name, link.info().expect("its state").program_id()));
        }
    }
    programs.sort();
    programs
}

/// A copy of the object; the parser wants it aligned, which the allocator does for large blocks.
fn aligned(object: &[u8]) -> Vec<u8> {
    object.to_vec()
}
