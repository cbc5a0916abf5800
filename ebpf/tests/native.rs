//! What can be shown on a host without BPF LSM: layouts, identities, the CPU budget, adoption of pins.
//!
//! Needs root and BTF.

use std::fs::{self, File};
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentd_abi::*;
use agentd_ebpf::{AgentsCgroup, Domains, Identifier, Kernel, Limits, Options, Origin, Trial, TrialLevel, unpin_all};

/// A directory that is gone with its owner.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scratch(name: &str) -> Gone {
    let path = std::env::temp_dir().join(format!("agentd-ebpf-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("a scratch directory");
    Gone(path)
}

/// Where cgroup v2 is mounted.
fn cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the list of mounts");
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup v2 is mounted");
    line.split(' ').nth(1).expect("a mount has a place").into()
}

macro_rules! layout {
    ($($name:literal: $type:ident { $($member:ident $(= $c:literal)?),* $(,)? })*) => {
        fn mirrors() -> Vec<(&'static str, usize, Vec<(&'static str, usize)>)> {
            vec![$((
                $name,
                size_of::<$type>(),
                vec![$((stringify!($member), offset_of!($type, $member))),*],
            )),*]
        }
    };
}

layout! {
    "agentd_identity": Identity { slot, number }
    "agentd_agent": Agent {
        number, flags, generation, cgroup_id, cpu_limit_ns, cpu_warn_ns, cpu_kill_ns, name_lengths, cpu_spent_ns,
        exhausted_at_ns, exhausted, warned, denials, suppressed, report_window_ns, reports_in_window, reserved,
    }
    "agentd_object": Object { dev, reserved, ino }
    "agentd_rule_key": RuleKey { agent, dev, ino }
    "agentd_rule": Rule { allow, deny, flags, allow_id, deny_id, reserved, expires_ns }
    "agentd_capability": Capability { number, state, agent, reserved, from_ns, until_ns }
    "agentd_loan": Loan { rights, slot, number, object }
    "agentd_lent": Lent { loans }
    "agentd_name_key": NameKey { agent, dev, parent, name }
    "agentd_config": Config { abi_version, agents_level, agents_cgroup, build, loaded_ns }
    "agentd_net_key": NetKey { prefix_bits, agent, addr }
    "agentd_port_range": PortRange { first, last, ops, rule_id }
    "agentd_net": Net { count, reserved, ports }
    "agentd_event": EventHead { kind, agent, time_ns, pid, tid, suppressed, comm }
    "agentd_file_event": FileEvent {
        head, hook, reason, right, rule_id, object, levels, path_bytes, path,
    }
    "agentd_guard_event": GuardEvent { head, hook, reason, detail, detail2 }
    "agentd_net_event": NetEvent { head, hook, reason, port, protocol, family, addr }
    "agentd_budget_event": BudgetEvent { head, spent_ns, limit_ns }
    "agentd_process_event": ProcessEvent { head, parent_pid, status, path }
}

#[test]
fn the_mirror_is_what_the_compiler_made_of_the_header() {
    let compiled = Trial::layouts();
    for (name, size, members) in mirrors() {
        let found = compiled.get(name).unwrap_or_else(|| panic!("{name} is not in the object's BTF"));
        assert_eq!(found.size, size, "size of {name}");
        let members: Vec<(String, usize)> = members.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
        assert_eq!(found.members, members, "members of {name}");
    }
}

#[test]
fn a_loan_counts_while_its_capability_is_in_force_and_in_its_time() {
    const AGENT: u32 = 5;
    let trial = Trial::load(false).unwrap();
    let levels: Vec<TrialLevel> = [30, 20, 10]
        .map(|ino| TrialLevel { object: Some(Object { dev: 1, reserved: 0, ino }), name: Some(b"x".to_vec()) })
        .into();
    let file = RuleKey { agent: AGENT, dev: 1, ino: 30 };
    // Anything that sets the hint.
    trial.put_rule(&file, &Rule { expires_ns: NEVER, ..Rule::default() }).unwrap();
    let loan = |rights, slot, number| Loan { rights, slot, number, object: file.object() };
    let held = |number, state| Capability { number, state, agent: AGENT, reserved: 0, from_ns: 0, until_ns: NEVER };
    let lend = |loans: &[Loan]| {
        let mut lent = Lent::default();
        lent.loans[..loans.len()].copy_from_slice(loans);
        trial.put_lent(&file, &lent).unwrap();
    };
    let ask = |want| {
        let answer = trial.decide(AGENT, 0, &levels, want, false).unwrap();
        (answer.refused, answer.reason, answer.rule_id)
    };
    lend(&[loan(READ | WRITE, 3, 9)]);
    let nothing = (READ, WHY_NOTHING_FOUND, 0);
    for (number, state, from_ns, until_ns, wanted) in [
        (9, C_IN_FORCE, 0, NEVER, (0, 0, 0)),
        (9, C_PREPARED, 0, NEVER, nothing),
        (9, C_REVOKED, 0, NEVER, (READ, WHY_REVOKED, 9)),
        (9, C_IN_FORCE, 0, 1, (READ, WHY_ENDED, 9)),
        (9, C_IN_FORCE, NEVER - 1, NEVER, (READ, WHY_NOT_YET, 9)),
        // The slot is another's by now.
        (10, C_IN_FORCE, 0, NEVER, nothing),
        (0, C_IN_FORCE, 0, NEVER, nothing),
    ] {
        trial.put_capability(3, &Capability { from_ns, until_ns, ..held(number, state) }).unwrap();
        assert_eq!(ask(READ), wanted, "{number} {state} {from_ns} {until_ns}");
    }
    trial.put_capability(3, &Capability { agent: 6, ..held(9, C_IN_FORCE) }).unwrap();
    assert_eq!(ask(READ), nothing, "it is lent to another agent");
    trial.put_capability(3, &held(9, C_IN_FORCE)).unwrap();
    lend(&[Loan { object: 1, ..loan(READ | WRITE, 3, 9) }]);
    assert_eq!(ask(READ), nothing, "it is lent on another object");
    lend(&[loan(READ | WRITE, 3, 9)]);
    assert_eq!(ask(READ | EXEC), (EXEC, WHY_NOTHING_FOUND, 0), "no more than was lent");
    // Another one adds to it, and its end takes nothing from the first.
    lend(&[loan(READ | WRITE, 3, 9), loan(EXEC, 4, 12)]);
    trial.put_capability(4, &held(12, C_IN_FORCE)).unwrap();
    assert_eq!(ask(READ | EXEC), (0, 0, 0));
    trial.put_capability(4, &held(12, C_REVOKED)).unwrap();
    assert_eq!((ask(READ), ask(EXEC)), ((0, 0, 0), (EXEC, WHY_REVOKED, 12)));
    // A denial above does not reach below what was lent; one on the same object wins over it.
    let denies = Rule { deny: READ, deny_id: 2, expires_ns: NEVER, ..Rule::default() };
    trial.put_rule(&RuleKey { agent: AGENT, dev: 1, ino: 20 }, &denies).unwrap();
    assert_eq!(ask(READ), (0, 0, 0));
    trial.put_rule(&file, &denies).unwrap();
    assert_eq!(ask(READ), (READ, WHY_RULE, 2));
}

#[test]
fn a_file_is_identified_as_stat_shows_it_where_stat_is_honest() {
    let identifier = Identifier::load().unwrap();
    let scratch = scratch("identify");
    let mut paths = vec![scratch.0.clone(), "/proc/self".into(), "/dev/null".into(), "/".into()];
    paths.push(scratch.0.join("file"));
    fs::write(scratch.0.join("file"), "").unwrap();
    let shm = Path::new("/dev/shm");
    if shm.exists() {
        paths.push(shm.into());
    }
    for path in paths {
        let file = File::open(&path).unwrap();
        let meta = file.metadata().unwrap();
        let found = identifier.identify(&[file.as_fd()]).unwrap()[0];
        let dev = kernel_encoding::of(meta.dev());
        assert_eq!((found.object.dev, found.object.ino), (dev, meta.ino()), "{}", path.display());
        assert_eq!(found.directory, meta.is_dir(), "{}", path.display());
    }
}

/// `st_dev` in the kernel's own encoding.
mod kernel_encoding {
    pub(super) fn of(dev: u64) -> u32 {
        (libc::major(dev) << 20) | libc::minor(dev)
    }
}

#[test]
fn the_cpu_budget_counts_what_cpu_stat_counts_and_the_pins_are_adopted() {
    let parent = Cgroups(cgroups().join(format!("agentd-test-{}", std::process::id())));
    let agent_cgroup = parent.0.join("a1");
    let inner = agent_cgroup.join("inner");
    fs::create_dir_all(&inner).unwrap();
    let options = Options {
        bpffs: format!("/sys/fs/bpf/agentd-test-{}", std::process::id()).into(),
        agents_cgroup: AgentsCgroup::at(&parent.0).unwrap(),
        domains: Domains::CpuOnly,
        no_cache: false,
    };
    let kernel = Kernel::load(&options).unwrap();
    assert_eq!(kernel.origin(), Origin::Loaded);
    let again = Kernel::load(&options).unwrap();
    assert_eq!(again.origin(), Origin::Adopted, "the same build finds its own pins");

    let cgroup_id = fs::metadata(&agent_cgroup).unwrap().ino();
    let maps = kernel.maps();
    maps.put_agent(3, &Agent { number: 77, generation: 1, cgroup_id, ..Default::default() });
    maps.set_limits(3, Limits { limit_ns: 250_000_000, warn_ns: 200_000_000, kill_ns: 300_000_000 });
    maps.put_cgroup(cgroup_id, 3).unwrap();
    let mut events = maps.events().unwrap();

    // Half of the work in a cgroup below the agent's.
    let spin = |cgroup: &Path| {
        let join = format!("echo $$ > {}/cgroup.procs; exec sh -c 'while :; do :; done'", cgroup.display());
        Command::new("sh").args(["-c", &join]).spawn().unwrap()
    };
    let mut children = [spin(&agent_cgroup), spin(&inner)];
    let statuses: Vec<_> = children.iter_mut().map(|child| child.wait().unwrap()).collect();
    for status in statuses {
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }

    let stat = fs::read_to_string(agent_cgroup.join("cpu.stat")).unwrap();
    let usage: u64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap();
    let agent = again.maps().read_agent(3);
    let spent = agent.cpu_spent_ns / 1000;
    assert!(usage.abs_diff(spent) <= 1000, "cpu.stat {usage} us, counted {spent} us");
    assert!(agent.exhausted != 0 && agent.warned == 1 && agent.exhausted_at_ns != 0);

    let mut kinds = Vec::new();
    events.drain(|event| kinds.push(event.unwrap().head().kind)).unwrap();
    assert_eq!(kinds, [EV_CPU_WARN, EV_CPU_EXHAUSTED, EV_CPU_KILLED]);

    maps.clear_exhausted(3);
    assert_eq!(maps.read_agent(3).exhausted, 0);
    assert_eq!(maps.read_agent(3).cpu_spent_ns, agent.cpu_spent_ns, "a top-up does not touch what was spent");

    // Rules: all or none.
    let rule = Rule { allow: READ, allow_id: 1, expires_ns: NEVER, ..Default::default() };
    let keys =
        |agent, count: u64| (0..count).map(move |ino| (RuleKey { agent, dev: 1, ino }, rule)).collect::<Vec<_>>();
    maps.put_rules(&keys(1, 10)).unwrap();
    let refused = maps.put_rules(&keys(2, u64::from(MAX_RULES))).unwrap_err();
    assert_eq!(refused.to_string(), format!("the kernel table `rules` is full ({MAX_RULES} entries)"));
    assert!(maps.rule(&RuleKey { agent: 2, dev: 1, ino: 0 }).is_none(), "nothing of it stayed");
    maps.put_rules(&keys(2, u64::from(MAX_RULES) - 10)).unwrap();
    maps.remove_rules_of(2).unwrap();
    assert_eq!(maps.rule(&RuleKey { agent: 1, dev: 1, ino: 3 }), Some(rule));

    drop((kernel, again, events));
    unpin_all(&options.bpffs).unwrap();
    let _ = fs::remove_dir(&options.bpffs);
}

/// Cgroups that are gone with their owner.
struct Cgroups(PathBuf);

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for below in ["a1/inner", "a1", ""] {
            let _ = fs::remove_dir(self.0.join(below));
        }
    }
}
