//! Ways round by the kernel: mounts, namespaces, other processes, and the doors that no agent goes through.
//!
//! A stranger that an agent can see at all is one that root put into the agent's pid namespace; every other has no number
//! there. It runs as the same user, so nothing but the agent's own rules protects it.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::wait_for;
use crate::harness::{Bench, Case, Expect, FileSystem, Options, Test, Tree, case, daemon_pid, kernel, program};

const EPERM: Expect = Expect::Refused("EPERM");

pub(super) fn run(test: &mut Test) -> Result<()> {
    let tree = Tree::new("kernel", FileSystem::Overlay)?;
    for file in ["ok/a", "ok/m/a", "ok/old/a"] {
        tree.file(file, "content\n")?;
    }
    let options = Options::base().allow("all", tree.path("ok"));
    let mut bench = Bench::new("kernel", tree, &options)?;
    credentials(test, &mut bench)?;
    bench.run(test, MOUNTS)?;
    bench.run(test, NAMESPACES)?;
    bench.run(test, DOORS)?;
    rings(test, &mut bench)?;
    keys(test, &mut bench)?;
    let mut stranger = Stranger::start(&bench)?;
    bench.define("stranger", stranger.inside, stranger.outside);
    bench.define("child", 0, 0);
    bench.run(test, STRANGERS)?;
    signals(test, &mut bench, &mut stranger)?;
    invisible(test, &mut bench)?;
    own_places(test, &mut bench)?;
    daemon(test, &mut bench)?;
    unmarked(test, &bench)
}

/// What it was born with: no Linux capability, no way to get one, nobody else's groups.
fn credentials(test: &mut Test, bench: &mut Bench) -> Result<()> {
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let found = bench.try_inside(&format!("status {field}"))?.detail;
        test.same(field, found.trim_start_matches('0'), "");
    }
    test.same("NoNewPrivs", bench.try_inside("status NoNewPrivs")?.detail.as_str(), "1");
    test.same("its groups beside its own", bench.try_inside("status Groups")?.detail.as_str(), "");
    for kind in ["pid", "mnt", "ipc"] {
        let inside = bench.try_inside(&format!("own-namespace {kind}"))?.detail;
        let outside = bench.try_outside(&format!("own-namespace {kind}"))?.detail;
        test.check(!inside.is_empty() && inside != outside, || format!("it shares the {kind} namespace: {inside}"));
    }
    Ok(())
}

/// Without Linux capabilities none of these is possible for the user outside either; the hooks are a second door.
const MOUNTS: &[Case] = &[
    case("mount of a tmpfs").refused("mount-tmpfs @ok/m").with("EPERM").outside(EPERM),
    case("bind mount").refused("bind-mount @ok/old @ok/m").with("EPERM").outside(EPERM).allowed("read @ok/m/a"),
    case("a fresh /proc").refused("mount-proc @ok/m").with("EPERM").outside(EPERM),
    case("remount").refused("remount /").with("EPERM").outside(EPERM),
    case("moved mount").refused("move-mount /tmp @ok/m").with("EPERM").outside(EPERM),
    case("propagation").refused("make-shared /").with("EPERM").outside(EPERM),
    case("umount of its own /proc").refused("umount /proc").with("EPERM").outside(EPERM).allowed("list /proc/self/fd"),
    case("umount of its own /tmp").refused("umount /tmp").with("EPERM").outside(EPERM).allowed("list /tmp"),
    case("fsopen, fsmount").refused("fsopen tmpfs").with("EPERM").outside(EPERM),
    case("open_tree, move_mount").refused("open-tree-attach @ok/old @ok/m").with("EPERM").outside(EPERM),
    case("mount_setattr").refused("mount-setattr /").with("EPERM").outside(EPERM),
    case("pivot_root").refused("pivot-root @ok/m @ok/m").with("EPERM").outside(EPERM),
    case("chroot").refused("chroot @ok/m").with("EPERM").outside(EPERM).allowed("chdir @ok/m"),
];

/// Debian lets every user make user namespaces, in which they have every capability.
const NAMESPACES: &[Case] = &[
    case("a user namespace").refused("unshare user").with("EPERM").allowed("own-namespace user").by("user_namespace"),
    case("a user namespace by clone").refused("clone-user").with("EPERM").allowed("fork"),
    case("a user namespace by clone3").refused("clone3-user").with("EPERM").allowed("fork"),
    case("another root in a namespace").refused("swap-root @ok").with("EPERM"),
    case("a mount namespace").refused("unshare mnt").with("EPERM").outside(EPERM),
    case("a pid namespace").refused("unshare pid").with("EPERM").outside(EPERM),
    case("a network namespace").refused("unshare net").with("EPERM").outside(EPERM),
    case("its own namespace again").refused("setns /proc/self/ns/mnt mnt").with("EPERM").outside(EPERM),
    case("its own user namespace again")
        .refused("setns /proc/self/ns/user user")
        .with("EINVAL")
        .outside(Expect::Refused("EINVAL")),
];

const DOORS: &[Case] = &[
    case("a BPF map").refused("bpf-map").with("EPERM").outside(EPERM),
    case("a BPF program").refused("bpf-program").with("EPERM").outside(EPERM),
    case("our pins by bpf()")
        .refused("bpf-get /sys/fs/bpf/agentd/rules")
        .with("EPERM")
        .outside(Expect::Refused("EPERM|EACCES")),
    case("our pins as files").refused("list /sys/fs/bpf").with("EACCES|ENOENT").outside(Expect::Skip),
    case("perf events").refused("perf").with("EPERM|EACCES").outside(Expect::Skip),
    case("perf events of a processor").refused("perf-all").with("EPERM|EACCES").outside(Expect::Skip),
    case("real-time scheduling").refused("schedule 0 1 1").with("EPERM").outside(EPERM).allowed("schedule 0 3 0"),
    case("round robin").refused("schedule 0 2 1").with("EPERM").outside(EPERM).allowed("schedule 0 5 0"),
    case("deadline scheduling").refused("schedule-deadline").with("EPERM").outside(EPERM).allowed("affinity 0"),
    case("kexec").refused("kexec").with("EPERM").outside(EPERM),
    case("a module").refused("module").with("EPERM").outside(EPERM),
    case("removing a module").refused("module-delete btrfs").with("EPERM").outside(EPERM),
    case("reboot").refused("reboot").with("EPERM").outside(EPERM),
    case("the host's name").refused("set-hostname").with("EPERM").outside(EPERM),
    case("the clock").refused("set-clock").with("EPERM").outside(EPERM),
    case("settings of the kernel")
        .refused("write-to /proc/sys/kernel/hostname x")
        .with("EACCES")
        .outside(Expect::Refused("EACCES"))
        .allowed("read /proc/sys/kernel/hostname"),
    case("settings, as the user could")
        .refused("write-to /proc/sys/kernel/ns_last_pid 1")
        .with("EACCES|ENOENT")
        .outside(Expect::Refused("EACCES|EPERM|ENOENT")),
    case("the magic key").refused("write-to /proc/sysrq-trigger h").with("EACCES").outside(Expect::Refused("EACCES")),
    case("the kernel's memory").refused("read /proc/kcore").with("EACCES").outside(Expect::Refused("EACCES|EPERM")),
    case("the kernel's symbols").refused("read /proc/kallsyms").allowed("read /proc/version"),
    case("the kernel's log").refused("read /dev/kmsg").with("EACCES").outside(Expect::Skip),
    case("a disk").refused("read /dev/vda").with("EACCES").outside(Expect::Refused("EACCES")),
    case("the console")
        .refused("push-input /dev/ttyS0")
        .with("EACCES")
        .outside(Expect::Refused("EACCES"))
        .allowed("read /dev/null"),
    case("debugging files").refused("list /sys/kernel/tracing").with("EACCES").outside(Expect::Refused("EACCES")),
    case("what is known of devices").refused("list /sys/class").allowed("list /sys/devices/system/cpu"),
];

/// The hook refuses from 6.15 on, the system call filter before.
fn rings(test: &mut Test, bench: &mut Bench) -> Result<()> {
    for ring in ["uring", "uring-polled"] {
        let outside = bench.try_outside(ring)?;
        test.check(outside.is_ok(), || format!("{ring} outside came to {}", outside.outcome));
        bench.expect(test, "a ring", ring, EPERM)?;
    }
    let told = bench.agent.refusals()?.iter().any(|record| record["denial"]["hook"] == "io_uring");
    let by_hook = kernel() == "7.2";
    test.check(told == by_hook, || {
        format!("on {} the refusal of io_uring was {}reported", kernel(), if told { "" } else { "not " })
    });
    Ok(())
}

/// The user's secrets in the kernel: the user id is the same, the keys are not the agent's.
fn keys(test: &mut Test, bench: &mut Bench) -> Result<()> {
    let id = bench.try_outside("key-add")?;
    test.check(id.is_ok(), || format!("a key outside came to {}", id.outcome));
    let found = bench.try_outside("key-find")?;
    test.same("the key outside", found.detail.as_str(), "secret");
    bench.expect(test, "the user's key by its name", "key-find", Expect::Refused("EPERM|EACCES"))?;
    bench.expect(
        test,
        "the user's key by its number",
        &format!("key-read {}", id.detail),
        Expect::Refused("EPERM|EACCES"),
    )?;
    bench.try_outside(&format!("key-invalidate {}", id.detail))?;
    Ok(())
}

/// A process of the same user in the agent's pid namespace that is not of the agent.
struct Stranger {
    child: Child,
    inside: i32,
    outside: i32,
}

impl Stranger {
    fn start(bench: &Bench) -> Result<Stranger> {
        let init = bench.agent.init()?.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &init, "-p", "--setuid", "1000", "--setgid", "1000", "--", "sleep", "1000"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start nsenter")?;
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let outside = wait_for("the stranger", Duration::from_secs(20), || {
            let pid = fs::read_to_string(&children).unwrap_or_default();
            let pid = pid.trim().to_owned();
            let ready = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep");
            Ok(pid.parse::<i32>().ok().filter(|_| ready))
        })?;
        let status = fs::read_to_string(format!("/proc/{outside}/status"))?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("no NSpid")?;
        let inside = numbers.split_whitespace().last().context("no number")?.parse()?;
        Ok(Stranger { child, inside, outside })
    }

    fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.outside), nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

const STRANGERS: &[Case] = &[
    case("a signal").refused("kill %stranger 0").with("EPERM").allowed("kill-child").by("signal"),
    case("a signal by descriptor").refused("pidfd-signal %stranger").with("EPERM").allowed("kill-child"),
    case("tracing").refused("trace %stranger").with("EPERM").allowed("trace-child").by("ptrace"),
    case("seizing").refused("seize %stranger").with("EPERM").allowed("trace-child"),
    case("reading memory")
        .refused("peek %stranger")
        .with("EPERM")
        .outside(Expect::Refused("EFAULT"))
        .allowed("peek-child"),
    case("writing memory")
        .refused("poke %stranger")
        .with("EPERM")
        .outside(Expect::Refused("EFAULT"))
        .allowed("peek-child"),
    case("memory as a file").refused("memory %stranger").with("EACCES|EPERM").allowed("memory self"),
    case("memory as a file, written")
        .refused("memory-write %stranger")
        .with("EACCES|EPERM")
        .allowed("memory-write self"),
    case("a descriptor of it").refused("pidfd-getfd %stranger").with("EPERM").allowed("fork"),
    case("its environment")
        .refused("process-file %stranger environ")
        .with("EACCES|EPERM")
        .allowed("process-file self environ"),
    case("its mappings").refused("process-file %stranger maps").with("EACCES|EPERM").allowed("process-file self maps"),
    case("its program").refused("process-link %stranger exe").with("EACCES|EPERM").allowed("process-link self exe"),
    case("its root").refused("process-link %stranger root").with("EACCES|EPERM").allowed("process-link self root"),
    case("its descriptors")
        .refused("list /proc/%stranger/fd")
        .with("EACCES|EPERM|ENOENT")
        .outside(Expect::Skip)
        .allowed("list /proc/self/fd"),
    case("its namespaces")
        .refused("process-link %stranger ns/user")
        .with("EACCES|EPERM")
        .allowed("process-link self ns/user"),
    case("its limits").refused("limit %stranger").with("EPERM").allowed("limit 0"),
    case("its priority").refused("nice %stranger").with("EPERM|EACCES").allowed("nice 0").by("scheduler"),
    case("its processors").refused("affinity %stranger").with("EPERM").allowed("affinity 0"),
    case("its input and output priority").refused("io-priority %stranger").with("EPERM").allowed("io-priority 0"),
    case("its scheduling").refused("schedule %stranger 3 0").with("EPERM").allowed("schedule 0 3 0"),
];

/// A signal to everybody reaches its own and nobody else.
fn signals(test: &mut Test, bench: &mut Bench, stranger: &mut Stranger) -> Result<()> {
    bench.try_inside("kill-all")?;
    test.check(stranger.lives(), || "a signal to everybody reached a stranger".into());
    bench.expect(test, "a signal to init", "kill 1 9", Expect::Ok)?;
    bench.expect(test, "after a signal to its own init", "whoami", Expect::Ok)?;
    // The stranger, for its part, is outside every agent: nothing is refused to it that the kernel would not refuse.
    let mine = std::process::id();
    let outside = bench.try_outside(&format!("kill {mine} 0"))?;
    test.same("the user outside to root's process", outside.outcome.as_str(), "EPERM");
    Ok(())
}

/// The shim, the daemon and everybody else have no number in its namespace.
fn invisible(test: &mut Test, bench: &mut Bench) -> Result<()> {
    let init = bench.agent.init()?;
    let status = fs::read_to_string(format!("/proc/{init}/status"))?;
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?.trim().to_owned();
    for (who, pid) in [
        ("the shim", shim),
        ("the daemon", daemon_pid()?.to_string()),
        ("this scenario", std::process::id().to_string()),
    ] {
        for attempt in ["kill %s 9", "trace %s", "peek %s", "limit %s", "schedule %s 3 0", "pidfd %s"] {
            let attempt = attempt.replace("%s", &pid);
            bench.expect(test, who, &attempt, Expect::Refused("ESRCH"))?;
        }
        bench.expect(test, who, &format!("process-file {pid} status"), Expect::Refused("ENOENT"))?;
    }
    // Its own init is not dumpable: nobody looks into it.
    for (attempt, errors) in [
        ("trace 1", "EPERM"),
        ("peek 1", "EPERM"),
        ("memory 1", "EACCES|EPERM"),
        ("process-file 1 environ", "EACCES|EPERM"),
        ("process-link 1 root", "EACCES|EPERM"),
    ] {
        bench.expect(test, "its init", attempt, Expect::Refused(errors))?;
    }
    Ok(())
}

/// Its own cgroup, our pins, our state.
fn own_places(test: &mut Test, bench: &mut Bench) -> Result<()> {
    let init = bench.agent.init()?;
    let cgroup = fs::read_to_string(format!("/proc/{init}/cgroup"))?;
    let cgroup = cgroup.trim().strip_prefix("0::").context("no cgroup v2")?.to_owned();
    let no = Expect::Refused("EACCES|EPERM|ENOENT");
    for file in ["cgroup.freeze", "cgroup.kill", "cgroup.procs", "pids.max", "cgroup.subtree_control"] {
        bench.expect(test, "its own cgroup", &format!("write-to /sys/fs/cgroup{cgroup}/{file} 1"), no)?;
    }
    bench.expect(test, "a way out of its cgroup", "write-to /sys/fs/cgroup/cgroup.procs 0", no)?;
    bench.expect(test, "a cgroup of its own", &format!("mkdir /sys/fs/cgroup{cgroup}/mine"), no)?;
    bench.expect(test, "what it used", &format!("read /sys/fs/cgroup{cgroup}/cpu.stat"), Expect::Says("usage_usec"))?;
    for path in ["/sys/fs/bpf/agentd", "/var/lib/agentd", "/run/agentd/agents", "/etc/agentd"] {
        bench.expect(test, "places of the daemon", &format!("list {path}"), no)?;
        bench.expect(test, "places of the daemon", &format!("create {path}/new"), no)?;
    }
    bench.expect(test, "the journal", "read /var/lib/agentd/journal.sqlite", no)?;
    bench.expect(test, "the daemon's program", "write /usr/bin/agentd", Expect::Refused("EACCES|ETXTBSY"))?;
    Ok(())
}

/// An agent asks the daemon about itself and nothing else.
fn daemon(test: &mut Test, bench: &mut Bench) -> Result<()> {
    let socket = "/run/agentd/agents.sock";
    let mut ask = |method: &str, params: &str| -> Result<serde_json::Value> {
        let request = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{params}}}");
        let outcome = bench.agent.attempt(&["talk-to-daemon", socket, &request])?;
        serde_json::from_str(&outcome.detail)
            .with_context(|| format!("{method}: {} {:?}", outcome.outcome, outcome.detail))
    };
    for (method, params) in [
        ("agent.show", "{\"agent\":\"kernel\"}"),
        ("budget.show", "{\"agent\":\"kernel\"}"),
        ("why", "{}"),
        ("audit.read", "{\"last\":1}"),
    ] {
        let reply = ask(method, params)?;
        test.check(!reply["result"].is_null(), || format!("{method} about itself: {reply}"));
    }
    for (method, params) in [
        ("daemon.info", "{}"),
        ("agent.list", "{}"),
        ("agent.show", "{\"agent\":\"somebody\"}"),
        ("agent.spawn", "{\"argv\":[\"id\"],\"cwd\":\"/\"}"),
        ("agent.signal", "{\"agent\":\"kernel\"}"),
        ("agent.pause", "{\"agent\":\"kernel\"}"),
        ("agent.attach", "{\"agent\":\"kernel\"}"),
        ("budget.topup", "{\"agent\":\"kernel\",\"budget\":\"cpu:1h\"}"),
        ("audit.read", "{\"agent\":\"somebody\"}"),
    ] {
        let reply = ask(method, params)?;
        test.check(reply["error"]["code"] == 3, || format!("{method} from inside: {reply}"));
    }
    // Records of others: the start of the daemon is record 1 and nobody's.
    let reply = ask("why", "{\"record\":1}")?;
    test.check(reply["error"]["code"] == 3, || format!("the why of a record that is not its own: {reply}"));
    let records = ask("audit.read", "{}")?;
    let own = records["result"].as_array().is_some_and(|all| all.iter().all(|record| record["agent_name"] == "kernel"));
    test.check(own, || "audit.read from inside shows records of others".into());
    Ok(())
}

/// A process in an agent's cgroup that nobody marked can neither fork nor exec.
fn unmarked(test: &mut Test, bench: &Bench) -> Result<()> {
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", bench.agent.init()?))?;
    let procs = format!("/sys/fs/cgroup{}/cgroup.procs", cgroup.trim().strip_prefix("0::").context("no cgroup v2")?);
    let script = format!("echo $$ >{procs} || exit 9; (:) && exit 8; exec /bin/true");
    let output = program(Command::new("bash").args(["-c", &script]))?;
    test.check(output.status == 126 || output.status == 1 || output.status == 254, || {
        format!("an unmarked process in the cgroup: status {}, {}", output.status, output.stderr.trim())
    });
    Ok(())
}
