//! A launched agent is what the launcher says it is: run as root on a Linux host, with cgroups of its own making.
//!
//! Nothing is skipped: a host that cannot do what a test is about fails it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for something else")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agentd::launch::{
    Anchor, AnchorKind, AtGate, Confinement, ExitRecord, Landlock, LaunchError, LaunchRequest, Pace, Place, Seccomp,
    Shim, ShimEvent, Spare, Start, landlock_abi, launch, read_exit_record,
};
use agentd_model::{AgentNumber, AgentSpec, Budget, ExitStatus, Origin, PathRule, Rights, Terminal};
use agentd_protocol::attach::{Decoder, Frame};

const SHIM: &str = env!("CARGO_BIN_EXE_agentd");
const UID: u32 = 12345;
const GID: u32 = 23456;

fn code(code: u8) -> ExitStatus {
    ExitStatus::Code { code }
}

/// A cgroup, directories and a request; all removed at the end.
struct Lab {
    root: PathBuf,
    place: Place,
    request: LaunchRequest,
}

fn cgroup_root() -> PathBuf {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.procs").exists() { unified.into() } else { "/sys/fs/cgroup".into() }
}

impl Lab {
    fn new(argv: &[&str]) -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("agentd-test-{}-{number}", std::process::id());
        // Below /tmp on purpose: the workspace must stay visible.
        let root = PathBuf::from("/tmp").join(&tag);
        let cgroup = cgroup_root().join(&tag);
        let work = root.join("work");
        for dir in [&cgroup, &work, &root.join("state"), &root.join("run")] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&work, Some(UID), Some(GID)).unwrap();
        let spec = AgentSpec {
            argv: argv.iter().map(ToString::to_string).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello there".into())],
            cwd: work.to_str().unwrap().into(),
            uid: UID,
            gid: GID,
            groups: vec![111, 222],
            terminal: Terminal::Pipes,
            profile: "test".into(),
            paths: vec![],
            nets: vec![],
            budget: Budget::default(),
            accepted_gaps: vec![],
            tmp_directories: vec![],
        };
        let (agent, state_dir, runtime_dir) = (AgentNumber(number), root.join("state"), root.join("run"));
        let place = Place { agent, cgroup, state_dir, runtime_dir };
        let request = LaunchRequest {
            name: format!("test-{number}").parse().unwrap(),
            spec,
            stdin: false,
            hide: vec![],
            confinement: Confinement { landlock: Landlock::Off, seccomp: Seccomp::Nothing },
        };
        Lab { root, place, request }
    }

    fn sh(script: &str) -> Lab {
        Lab::new(&["sh", "-c", script])
    }

    fn python(script: &str) -> Lab {
        Lab::new(&["/usr/bin/python3", "-c", script])
    }

    fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    fn rule(mut self, path: &str, allow: &str, deny: &str) -> Lab {
        let rights = |text: &str| if text.is_empty() { Rights::NONE } else { text.parse().unwrap() };
        let origin = Origin::CommandLine { option: format!("--allow {allow}:{path}") };
        let rule = PathRule { path: path.into(), allow: rights(allow), deny: rights(deny), optional: false, origin };
        self.request.spec.paths.push(rule);
        self
    }

    fn pty(mut self, rows: u16, columns: u16) -> Lab {
        self.request.spec.terminal = Terminal::Pty { rows, columns };
        self
    }

    fn launch(&self) -> AtGate {
        launch(Path::new(SHIM), &self.place, &self.request).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    fn refused(&self) -> String {
        chain(&launch(Path::new(SHIM), &self.place, &self.request).expect_err("must be refused"))
    }

    fn start(&self) -> Running {
        let mut gate = self.launch();
        let attached = gate.attach(Pace::AgentWaits).unwrap();
        let init = gate.init_pidfd().try_clone_to_owned().unwrap();
        let (shim_pid, init_pid) = (gate.shim_pid(), gate.init_pid());
        let (shim, start) = gate.open().unwrap();
        Running { shim, start, client: Client::new(attached), shim_pid, init_pid, init }
    }

    /// Runs to the end.
    fn run(&self) -> Outcome {
        self.start().finish()
    }

    fn cgroup_is_empty(&self) -> bool {
        fs::read_to_string(self.place.cgroup.join("cgroup.procs")).unwrap().is_empty()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let cgroup = &self.place.cgroup;
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        wait_for("the cgroup is removed", || fs::remove_dir(cgroup).is_ok());
        fs::remove_dir_all(&self.root).unwrap();
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if !std::thread::panicking() {
        panic!("waited for: {what}");
    }
}

struct Running {
    shim: Shim,
    start: Start,
    client: Client,
    shim_pid: i32,
    init_pid: i32,
    init: OwnedFd,
}

#[derive(Debug)]
struct Outcome {
    status: ExitStatus,
    stdout: String,
    stderr: String,
    notices: Vec<String>,
    record: ExitRecord,
    start: Start,
}

impl Running {
    fn finish(mut self) -> Outcome {
        let status = self.client.hear_all();
        let mut watch = self.shim.watch().unwrap();
        let record = loop {
            match watch.next().expect("an exit").unwrap() {
                ShimEvent::Exited(record) => break record,
                ShimEvent::Started | ShimEvent::NotStarted { .. } | ShimEvent::Status(_) => {}
                ShimEvent::Gone => panic!("gone before it ended"),
            }
        };
        assert_eq!(watch.next().unwrap().unwrap(), ShimEvent::Gone);
        self.shim.taken().unwrap();
        assert!(watch.next().is_none());
        self.shim.reap().unwrap();
        assert_eq!(record.status, status);
        Outcome {
            status,
            stdout: String::from_utf8_lossy(&self.client.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.client.stderr).into_owned(),
            notices: std::mem::take(&mut self.client.notices),
            record,
            start: self.start,
        }
    }

    fn init_is_dead(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.init.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        poll_now(&mut polled);
        polled.revents != 0
    }
}

#[allow(unsafe_code, reason = "one look at one descriptor")]
fn poll_now(polled: &mut libc::pollfd) {
    // SAFETY: one initialised entry, which outlives the call.
    unsafe { libc::poll(polled, 1, 0) };
}

/// The client's end of an attach stream.
struct Client {
    stream: UnixStream,
    decoder: Decoder,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    notices: Vec<String>,
    exit: Option<ExitStatus>,
}

impl Client {
    fn new(fd: OwnedFd) -> Client {
        let stream = UnixStream::from(fd);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let decoder = Decoder::new();
        Client { stream, decoder, stdout: vec![], stderr: vec![], notices: vec![], exit: None }
    }

    fn say(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn type_in(&mut self, text: &str) {
        self.say(&Frame::Stdin(text.into()));
    }

    /// Reads once. `false` at the end of the stream.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; 65536];
        let count = match self.stream.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}; so far {:?}", String::from_utf8_lossy(&self.stdout)),
        };
        self.decoder.push(&bytes[..count]);
        while let Some(frame) = self.decoder.next_frame().unwrap() {
            match frame {
                Frame::Stdout(bytes) => self.stdout.extend(bytes),
                Frame::Stderr(bytes) => self.stderr.extend(bytes),
                Frame::Notice(text) => self.notices.push(text),
                Frame::Exit(status) => self.exit = Some(status),
                other => panic!("a shim does not say {other:?}"),
            }
        }
        count > 0
    }

    fn hear_until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.stdout).contains(text) {
            assert!(self.hear(), "the stream ended before {text:?}: {:?}", String::from_utf8_lossy(&self.stdout));
        }
    }

    fn hear_all(&mut self) -> ExitStatus {
        while self.hear() {}
        self.exit.expect("an exit frame is the last")
    }
}

#[test]
fn the_exit_status_is_the_programs_own() {
    for (script, status) in [
        ("exit 0", code(0)),
        ("exit 3", code(3)),
        ("kill -TERM $$", ExitStatus::Signal { signal: 15 }),
        ("kill -KILL $$", ExitStatus::Signal { signal: 9 }),
        // A real-time signal, which not every library knows.
        ("kill -40 $$", ExitStatus::Signal { signal: 40 }),
    ] {
        let lab = Lab::sh(script);
        let outcome = lab.run();
        assert_eq!(outcome.status, status, "{script}");
        assert_eq!(outcome.start, Start::Running);
        assert!(outcome.record.witnessed);
        assert!(outcome.record.cpu_ns.is_some_and(|ns| ns > 0), "{:?}", outcome.record);
        assert_eq!(read_exit_record(&lab.place.state_dir).unwrap(), Some(outcome.record));
    }
}

#[test]
fn what_cannot_be_run_is_said_and_has_envs_status() {
    let lab = Lab::new(&["no-such-program"]);
    let outcome = lab.run();
    assert_eq!(outcome.status, code(127));
    assert_eq!(outcome.start, Start::NotRunning { errno: libc::ENOENT, program: "no-such-program".into() });
    assert_eq!(outcome.notices, ["cannot run \"no-such-program\": No such file or directory (os error 2)"]);

    let lab = Lab::new(&["/etc/passwd"]);
    let outcome = lab.run();
    assert_eq!((outcome.status, outcome.start), {
        (code(126), Start::NotRunning { errno: libc::EACCES, program: "/etc/passwd".into() })
    });

    // A script without #! is run by the shell, as execvp(3) has it.
    let lab = Lab::new(&["./script", "a b"]);
    fs::write(lab.work().join("script"), "echo \"<$1>\"").unwrap();
    fs::set_permissions(lab.work().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(lab.run().stdout, "<a b>\n");
}

#[test]
fn the_program_finds_nothing_of_the_daemon() {
    let lab = Lab::sh("ls -l /proc/self/fd | awk '{print $9}' | sort | tr '\\n' ' '; echo; env | sort; umask");
    // Descriptors of this process, without close-on-exec, must not get through.
    let leak = fs::File::open("/etc/hostname").unwrap();
    set_inheritable(&leak);
    let outcome = lab.run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    // 3 is the directory that ls itself reads.
    assert_eq!(lines[0].trim(), "0 1 2 3");
    let work = lab.work();
    let expected = ["GREETING=hello there", "PATH=/usr/bin:/bin", &format!("PWD={}", work.display())];
    let environment: Vec<&str> = lines[1..].iter().copied().filter(|l| !l.starts_with("_=")).collect();
    assert_eq!(&environment[..3], expected);
    assert_eq!(environment.last(), Some(&"0022"));
}

#[allow(unsafe_code, reason = "to leak a descriptor on purpose")]
fn set_inheritable(file: &fs::File) {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
}

fn status_of(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

#[test]
fn the_program_has_no_rights_but_its_users() {
    let script = "cat /proc/self/status; echo Limits:; cat /proc/self/limits; \
                  echo \"oom: $(cat /proc/self/oom_score_adj)\"";
    let outcome = Lab::sh(script).run();
    let status = status_of(&outcome.stdout);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Uid"], format!("{UID} {UID} {UID} {UID}"));
    assert_eq!(status["Gid"], format!("{GID} {GID} {GID} {GID}"));
    assert_eq!(status["Groups"], "111 222");
    assert_eq!(status["oom"], "100");
    assert_eq!(status["SigBlk"], "0000000000000000");
    assert_eq!(status["SigIgn"], "0000000000000000");
    let limit = |name: &str| {
        let line = outcome.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        line[26..].split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    for name in ["Max core file size", "Max nice priority", "Max realtime priority"] {
        assert_eq!(limit(name), "0 0", "{name}");
    }
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let own = own.lines().find(|line| line.starts_with("Max open files")).unwrap()[26..].to_owned();
    assert_eq!(limit("Max open files"), own.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
}

#[test]
fn root_is_refused() {
    let mut lab = Lab::sh("true");
    lab.request.spec.uid = 0;
    assert!(lab.refused().contains("cannot run an agent as root"));
    assert!(lab.cgroup_is_empty());
}

#[test]
fn namespaces_are_its_own_and_proc_shows_only_itself() {
    let outcome = Lab::sh("readlink /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/ipc /proc/self/ns/net; \
                           ls /proc | grep -c '^[0-9]'; echo $$; cat /proc/1/comm; ls /proc/1/fd; cat /proc/self/cgroup")
    .run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for (line, name) in lines.iter().zip(["pid", "mnt", "ipc"]) {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(*line, ours.to_str().unwrap(), "{name}");
    }
    assert_eq!(lines[3], fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    let processes: u32 = lines[4].parse().unwrap();
    assert!(processes <= 4, "init, sh, ls, grep; not {processes}");
    assert_eq!(lines[5], "2");
    assert_eq!(lines[6], "agentd-init");
    assert!(outcome.stderr.contains("Permission denied"), "init's descriptors are out of reach: {}", outcome.stderr);
}

#[test]
fn the_cgroup_is_the_one_given() {
    let lab = Lab::sh("cat /proc/self/cgroup");
    let name = lab.place.cgroup.file_name().unwrap().to_str().unwrap().to_owned();
    let outcome = lab.run();
    assert!(outcome.stdout.lines().any(|line| line.starts_with("0::") && line.ends_with(&name)), "{}", outcome.stdout);
}

#[test]
fn tmp_is_private_and_the_workspace_below_it_is_not_lost() {
    fs::write("/tmp/agentd-test-outside", "secret").unwrap();
    let lab = Lab::sh(
        "ls -A /tmp; echo --; ls -A /var/tmp /dev/shm; echo --; stat -c %a /tmp; touch /tmp/mine /dev/shm/mine; \
         echo made > result; pwd; cat extra/file",
    );
    let extra = lab.root.join("extra");
    fs::create_dir(&extra).unwrap();
    fs::write(extra.join("file"), "from outside").unwrap();
    std::os::unix::fs::symlink(&extra, lab.work().join("extra")).unwrap();
    // Named through the link; kept where it really is.
    let path = lab.work().join("extra");
    let lab = lab.rule(path.to_str().unwrap(), "read", "");
    let outcome = lab.run();
    let tag = lab.root.file_name().unwrap().to_str().unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(&lines[..2], [tag, "--"], "only the way to the workspace: {outcome:?}");
    assert!(outcome.stdout.contains("1777\n"));
    assert!(outcome.stdout.ends_with(&format!("{}\nfrom outside", lab.work().display())), "{outcome:?}");
    assert_eq!(fs::read_to_string(lab.work().join("result")).unwrap(), "made\n");
    assert!(!Path::new("/tmp/mine").exists());
    assert!(!Path::new("/dev/shm/mine").exists());
    fs::remove_file("/tmp/agentd-test-outside").unwrap();
}

#[test]
fn directories_in_the_private_tmp_are_made_for_the_agent() {
    let mut lab = Lab::sh("stat -c '%a %u %g' /tmp/claude /tmp/claude/deep; touch /tmp/claude/deep/x && echo ok");
    lab.request.spec.tmp_directories = vec!["/tmp/claude".into(), "/tmp/claude/deep".into()];
    assert_eq!(lab.run().stdout, format!("700 {UID} {GID}\n700 {UID} {GID}\nok\n"));
    for astray in ["/etc/agentd-test", "/tmp/../etc/agentd-test"] {
        lab.request.spec.tmp_directories = vec![astray.into()];
        assert!(lab.refused().contains("it is in no private place"), "{}", lab.refused());
    }
}

#[test]
fn hidden_directories_are_empty() {
    let mut lab = Lab::sh("ls -A \"$SECRETS\" | wc -l; touch \"$SECRETS/x\"");
    let secrets = PathBuf::from(format!("/var/lib/{}", lab.root.file_name().unwrap().to_str().unwrap()));
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("key"), "secret").unwrap();
    lab.request.spec.env.push(("SECRETS".into(), secrets.to_str().unwrap().into()));
    lab.request.hide = vec![secrets.clone(), "/does/not/exist".into()];
    let outcome = lab.run();
    assert_eq!(outcome.stdout, "0\n");
    assert!(outcome.stderr.contains("Permission denied"));
    // No rule brings it back, and neither does a workspace around it.
    let key = secrets.join("key");
    let mut lab = lab.rule(key.to_str().unwrap(), "read", "");
    assert!(lab.refused().contains("key does not exist"), "{}", lab.refused());
    lab.request.spec.paths.clear();
    let inner = lab.work().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("key"), "secret").unwrap();
    lab.request.hide = vec![inner.clone()];
    lab.request.spec.env.push(("SECRETS".into(), inner.to_str().unwrap().into()));
    lab.request.spec.env.retain(|(_, value)| value != secrets.to_str().unwrap());
    assert_eq!(lab.run().stdout, "0\n");
    fs::remove_dir_all(secrets).unwrap();
}

#[test]
fn streams_stay_apart_and_input_comes_through() {
    let mut lab = Lab::sh("echo out; echo err >&2; cat; echo end > /dev/stderr");
    lab.request.stdin = true;
    let mut running = lab.start();
    running.client.type_in("typed ");
    running.client.type_in("in");
    running.client.say(&Frame::StdinEof);
    let outcome = running.finish();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(0), "out\ntyped in"));
    assert_eq!(outcome.stderr, "err\nend\n", "and /dev/stderr can be opened again");
}

#[test]
fn without_input_there_is_dev_null() {
    let outcome = Lab::sh("readlink /proc/self/fd/0; cat").run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(0), "/dev/null\n"));
}

#[test]
fn a_pty_is_a_terminal_of_its_own() {
    let lab = Lab::sh(
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; tty; ls /dev/pts; \
         stat -c %u $(tty); trap 'stty size; echo resized' WINCH; echo ready; until read line; do :; done; echo got $line; \
         echo through > /dev/tty; python3 -c 'import os; print(os.openpty()[1] > 0)'; sleep 60",
    )
    .pty(30, 97);
    let mut running = lab.start();
    running.client.hear_until("ready");
    let text = String::from_utf8_lossy(&running.client.stdout).into_owned();
    assert!(text.starts_with("terminal\r\n30 97\r\n/dev/pts/0\r\n"), "{text}");
    assert!(text.contains(&format!("\r\n{UID}\r\n")), "{text}");
    running.client.say(&Frame::Resize { rows: 50, columns: 60 });
    running.client.hear_until("50 60\r\nresized");
    running.client.type_in("some input\r");
    running.client.hear_until("got some input");
    running.client.hear_until("through");
    running.client.hear_until("True");
    // Ctrl-C is a byte; the terminal makes a signal of it.
    running.client.type_in("\x03");
    let outcome = running.finish();
    assert_eq!(outcome.status, ExitStatus::Signal { signal: 2 }, "{outcome:?}");
}

#[test]
fn no_output_is_lost_at_the_end_of_a_pty() {
    for round in 0..20 {
        let outcome = Lab::sh("seq 1 2000").pty(24, 80).run();
        assert!(outcome.stdout.ends_with("1999\r\n2000\r\n"), "round {round}: {:?}", outcome.stdout.len());
    }
}

#[test]
fn end_of_input_ends_a_reader_on_a_pty() {
    let lab = Lab::new(&["cat"]).pty(24, 80);
    let mut running = lab.start();
    running.client.type_in("line\r");
    running.client.hear_until("line\r\nline\r\n");
    running.client.say(&Frame::StdinEof);
    assert_eq!(running.finish().status, code(0));
}

#[test]
fn signals_reach_the_programs_group() {
    // The shell waits for its child; both are in the group.
    let lab = Lab::sh("trap 'echo trapped; exit 5' TERM; echo ready; sleep 1000 & wait; wait");
    let mut running = lab.start();
    running.client.hear_until("ready");
    running.shim.signal(15).unwrap();
    let outcome = running.finish();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(5), "ready\ntrapped\n"));

    // By a frame, and the child does not hear of it from its parent.
    let lab = Lab::python(
        "import os, signal\nsignal.signal(2, signal.SIG_DFL)\npid = os.fork()\nif pid == 0:\n    print('ready', flush=True)\n    signal.pause()\n\
         signal.signal(2, lambda *a: None)\nos.write(1, b'steady')\nprint('child', os.waitpid(pid, 0)[1])",
    );
    let mut running = lab.start();
    running.client.hear_until("ready");
    running.client.hear_until("steady");
    running.client.say(&Frame::Signal(2));
    let outcome = running.finish();
    assert!(outcome.stdout.ends_with("child 2\n"), "{outcome:?}");
    assert_eq!(outcome.status, code(0));
}

#[test]
fn orphans_are_reaped_and_nothing_outlives_the_program() {
    let lab = Lab::sh(
        "for i in 1 2 3 4 5; do (sh -c 'exit 0' &) ; done; sleep 0.3; \
         ps -e -o stat= 2>/dev/null | grep -c Z; (setsid sleep 1000 >/dev/null 2>&1 &); trap '' TERM; exit 7",
    );
    let running = lab.start();
    let outcome = running.finish();
    assert_eq!(outcome.status, code(7));
    assert_eq!(outcome.stdout, "0\n", "no zombies: {outcome:?}");
    assert!(lab.cgroup_is_empty());
}

#[test]
fn the_agent_cannot_harm_its_init() {
    let outcome = Lab::sh(
        "kill -KILL 1; kill -TERM 1; kill -STOP 1; (exec 3</proc/1/mem) 2>/dev/null || echo no mem; \
         cat /proc/1/environ 2>/dev/null || echo no environ; sleep 0.1; echo alive; exit 4",
    )
    .run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(4), "no mem\nno environ\nalive\n"));
    let outcome = Lab::python(
        "import ctypes,os\nlibc=ctypes.CDLL(None,use_errno=True)\nr=libc.ptrace(16,1,0,0)\nprint(r,os.strerror(ctypes.get_errno()))",
    )
    .run();
    assert_eq!(outcome.stdout, "-1 Operation not permitted\n", "{outcome:?}");
}

#[test]
fn a_killed_shim_takes_the_agent_with_it() {
    let lab = Lab::sh("echo ready; sleep 1000");
    let mut running = lab.start();
    running.client.hear_until("ready");
    assert!(!lab.cgroup_is_empty());
    kill(running.shim_pid, libc::SIGKILL);
    wait_for("all of the agent is dead", || lab.cgroup_is_empty());
    wait_for("init is dead", || running.init_is_dead());
    let mut watch = running.shim.watch().unwrap();
    assert!(watch.all(|event| matches!(event, Ok(ShimEvent::Started))), "and nothing but the end is told");
    running.shim.reap().unwrap();
    assert_eq!(read_exit_record(&lab.place.state_dir).unwrap(), None);
}

#[allow(unsafe_code, reason = "a test must be able to kill")]
fn kill(pid: i32, signal: i32) {
    assert!(pid > 1);
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid, signal) };
}

#[test]
fn a_killed_init_is_told_from_an_exit() {
    let lab = Lab::sh("echo ready; sleep 1000");
    let mut running = lab.start();
    running.client.hear_until("ready");
    kill(running.init_pid, libc::SIGKILL);
    let outcome = running.finish();
    assert_eq!(outcome.status, ExitStatus::Signal { signal: 9 });
    assert!(!outcome.record.witnessed);
    assert!(lab.cgroup_is_empty());
}

#[test]
fn a_dropped_gate_leaves_nothing() {
    let lab = Lab::sh("echo ran > ran");
    let gate = lab.launch();
    let shim = gate.shim_pid();
    assert!(!lab.cgroup_is_empty());
    drop(gate);
    assert!(lab.cgroup_is_empty(), "dead when the drop returns");
    assert!(!Path::new(&format!("/proc/{shim}")).exists());
    assert!(!lab.work().join("ran").exists());
}

/// Not a test of its own: what a daemon does, in a process that can be killed. Does nothing unless asked.
#[test]
fn as_another_daemon() {
    let Some(request) = std::env::var_os("AGENTD_TEST_REQUEST") else { return };
    let (place, request): (Place, LaunchRequest) = serde_json::from_slice(&fs::read(request).unwrap()).unwrap();
    let gate = launch(Path::new(SHIM), &place, &request).unwrap();
    let _shim = match std::env::var("AGENTD_TEST_OPEN").is_ok() {
        true => Some(gate.open().unwrap()),
        false => {
            std::mem::forget(gate);
            None
        }
    };
    fs::write(place.state_dir.join("reached"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts another daemon, waits until it has launched, and kills it.
fn launch_and_die(lab: &Lab, open: bool) {
    let file = lab.root.join("request.json");
    fs::write(&file, serde_json::to_vec(&(&lab.place, &lab.request)).unwrap()).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_another_daemon"]).env("AGENTD_TEST_REQUEST", file);
    command.stdout(std::process::Stdio::null());
    if open {
        command.env("AGENTD_TEST_OPEN", "1");
    }
    let mut daemon = command.spawn().unwrap();
    wait_for("the other daemon has launched", || lab.place.state_dir.join("reached").exists());
    assert!(!lab.cgroup_is_empty());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_daemon_that_dies_at_the_gate_leaves_nothing() {
    let lab = Lab::sh("echo ran > ran");
    launch_and_die(&lab, false);
    wait_for("nothing is left", || lab.cgroup_is_empty());
    wait_for("its socket is gone", || !lab.place.runtime_dir.join("shim.sock").exists());
    assert!(!lab.work().join("ran").exists());
}

#[test]
fn an_agent_outlives_its_daemon_and_is_found_again() {
    let mut lab = Lab::sh("echo before; cat; exit 9");
    lab.request.stdin = true;
    launch_and_die(&lab, true);
    assert!(!lab.cgroup_is_empty());
    let mode = fs::metadata(lab.place.runtime_dir.join("shim.sock")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut shim = Shim::connect(&lab.place.runtime_dir).unwrap();
    shim.ask_status().unwrap();
    let mut watch = shim.watch().unwrap();
    let Some(Ok(ShimEvent::Status(status))) = watch.next() else { panic!("no status") };
    assert_eq!((status.agent, status.exit), (lab.place.agent, None));
    let mut client = Client::new(shim.attach(Pace::ClientDrops).unwrap());
    client.type_in("hello");
    client.say(&Frame::StdinEof);
    assert_eq!(client.hear_all(), code(9));
    assert_eq!(client.stdout, b"hello");
    let Some(Ok(ShimEvent::Exited(record))) = watch.next() else { panic!("no exit") };
    assert_eq!(record.status, code(9));
    shim.taken().unwrap();
    assert_eq!(watch.by_ref().last().unwrap().unwrap(), ShimEvent::Gone);
    assert!(Shim::connect(&lab.place.runtime_dir).is_err());
    assert_eq!(read_exit_record(&lab.place.state_dir).unwrap(), Some(record));
    assert_eq!(fs::read_to_string(lab.place.state_dir.join("output.log")).unwrap(), "before\nhello");
}

#[test]
fn an_exit_that_no_daemon_saw_is_on_disk() {
    let lab = Lab::sh("while ! test -e go; do sleep 0.05; done; exit 11");
    launch_and_die(&lab, true);
    fs::write(lab.work().join("go"), "").unwrap();
    wait_for("the shim has gone", || !lab.place.runtime_dir.join("shim.sock").exists());
    let record = read_exit_record(&lab.place.state_dir).unwrap().unwrap();
    assert_eq!((record.status, record.witnessed), (code(11), true));
}

#[test]
fn the_log_holds_both_outputs() {
    let lab = Lab::sh("echo one; echo two >&2; sleep 0.05; echo three");
    let outcome = lab.run();
    assert_eq!(outcome.record.log_lost_bytes, 0);
    let log = fs::read_to_string(lab.place.state_dir.join("output.log")).unwrap();
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
}

#[test]
fn a_foreground_client_gets_every_byte_however_slow_it_is() {
    let lab = Lab::sh("head -c 6000000 /dev/zero; echo done >&2");
    let mut running = lab.start();
    std::thread::sleep(Duration::from_millis(300));
    // The agent waits meanwhile: nobody has read.
    assert!(!running.init_is_dead());
    let status = running.client.hear_all();
    assert_eq!((status, running.client.stdout.len()), (code(0), 6_000_000));
}

#[test]
fn a_late_client_that_does_not_read_is_dropped_and_the_agent_goes_on() {
    let lab = Lab::sh("read line; head -c 6000000 /dev/zero; echo end");
    let mut lab = lab;
    lab.request.stdin = true;
    let (shim, _) = lab.launch().open().unwrap();
    let mut slow = Client::new(shim.attach(Pace::ClientDrops).unwrap());
    slow.type_in("go\n");
    let log = lab.place.state_dir.join("output.log");
    wait_for("all output is logged", || fs::metadata(&log).is_ok_and(|log| log.len() == 6_000_004));
    while slow.hear() {}
    assert_eq!(slow.notices, ["detached: output came faster than it was read"]);
    assert_eq!(slow.exit, None);
    shim.taken().unwrap();
}

fn python_denied(script: &str) -> Lab {
    let preamble = "import ctypes, errno, os, socket, sys\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def call(number, *args):\n\
        \x20   ctypes.set_errno(0)\n\
        \x20   libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])\n\
        \x20   return errno.errorcode.get(ctypes.get_errno(), 'OK')\n\
        def attempt(what):\n\
        \x20   try:\n\
        \x20       what(); return 'OK'\n\
        \x20   except OSError as e:\n\
        \x20       return errno.errorcode[e.errno]\n";
    Lab::python(&format!("{preamble}{script}"))
}

#[test]
fn the_small_filters_refuse_what_no_hook_sees() {
    let script = "print(call(425, 1, 0), call(426, 0), call(427, 0), call(248, 0), call(249, 0), call(250, 0), attempt(lambda: socket.socket(socket.AF_VSOCK)))";
    let mut lab = python_denied(script);
    lab.request.confinement.seccomp = Seccomp::UnseenAndUring;
    assert!(lab.run().stdout.starts_with("EPERM EPERM EPERM EPERM EPERM EPERM "));
    let mut lab = python_denied(script);
    lab.request.confinement.seccomp = Seccomp::Unseen;
    let answers = lab.run().stdout;
    let answers: Vec<&str> = answers.split_whitespace().collect();
    assert!(answers[..3].iter().all(|answer| *answer != "EPERM"), "io_uring is left to the hook: {answers:?}");
    assert_eq!(answers[3..6], ["EPERM"; 3], "keys");
    let lab = python_denied("print(call(425, 1, 0), open('/proc/self/status').read().split('Seccomp:')[1].split()[0])");
    // Without a filter the kernel itself answers, to a null pointer.
    assert_eq!(lab.run().stdout, "EFAULT 0\n");
}

#[test]
fn the_fallback_filter_refuses_what_the_kernel_programs_would() {
    let numbers = [
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("chroot", libc::SYS_chroot),
        ("pivot_root", libc::SYS_pivot_root),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("setns", libc::SYS_setns),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("process_madvise", libc::SYS_process_madvise),
        ("init_module", libc::SYS_init_module),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("sched_setattr", libc::SYS_sched_setattr),
    ];
    let list = numbers.iter().map(|(name, number)| format!("({name:?},{number})")).collect::<Vec<_>>().join(",");
    let script = format!(
        "print([name for name, number in [{list}] if call(number, 0, 0, 0, 0, 0) != 'EPERM'])\n\
         print(call({unshare}, {userns}), call({unshare}, 0x80), call({unshare}, 0x200), call({clone}, {userns} | 17))\n\
         print(call({clone3}, 0, 0), call({getpid} | 0x40000000))\n\
         for policy in (0, 3, 5, 1, 2, 6, 7, 0x40000001):\n\
         \x20   print(policy, call({scheduler}, 0, policy, ctypes.byref(ctypes.c_int(0))))\n",
        unshare = libc::SYS_unshare,
        userns = libc::CLONE_NEWUSER,
        clone = libc::SYS_clone,
        clone3 = libc::SYS_clone3,
        getpid = libc::SYS_getpid,
        scheduler = libc::SYS_sched_setscheduler,
    );
    let mut lab = python_denied(&script);
    lab.request.confinement.seccomp = Seccomp::Fallback;
    let outcome = lab.run();
    assert_eq!(
        outcome.stdout,
        "[]\nEPERM EPERM OK EPERM\nENOSYS ENOSYS\n\
         0 OK\n3 OK\n5 OK\n1 EPERM\n2 EPERM\n6 EPERM\n7 EPERM\n1073741825 EPERM\n",
        "{outcome:?}"
    );
}

#[test]
fn the_fallback_filter_lets_only_sockets_with_rules_through() {
    let script = "\
for family, kind, protocol in [(1, 1, 0), (1, 2, 0), (1, 5, 0), (2, 1, 0), (2, 1, 6), (2, 2, 17), (10, 1, 0), (10, 2 | 0o2000000, 0), (16, 3, 0)]:\n\
\x20   print(attempt(lambda: socket.socket(family, kind, protocol)), end=' ')\n\
print()\n\
for family, kind, protocol in [(2, 3, 0), (2, 3, 1), (2, 1, 262), (2, 2, 136), (2, 2, 1), (10, 3 | 0o4000, 58), (10, 1, 132), (16, 3, 12), (17, 3, 0), (38, 5, 0), (40, 1, 0), (2, 10, 0)]:\n\
\x20   print(attempt(lambda: socket.socket(family, kind, protocol)), end=' ')\n\
print()\n\
s = socket.socket()\n\
print(attempt(lambda: s.sendto(b'x', 0x20000000, ('127.0.0.1', 9))), attempt(lambda: s.sendmsg([b'x'], [], 0x20000000, ('127.0.0.1', 9))))\n\
print(call(307, s.fileno(), 0, 0, 0x20000000))\n\
a, b = socket.socketpair()\n\
a.sendmsg([b'fine'])\n\
print(b.recv(10))\n";
    let mut lab = python_denied(script);
    lab.request.confinement.seccomp = Seccomp::Fallback;
    let outcome = lab.run();
    let all = |word: &str, times: usize| format!("{}\n", format!("{word} ").repeat(times));
    let expected = format!("{}{}EPERM EPERM\nEPERM\nb'fine'\n", all("OK", 9), all("EPERM", 12));
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
}

#[test]
fn real_work_goes_on_under_the_fallback_filter() {
    let mut lab = Lab::sh(
        "python3 -c 'import threading, subprocess; t = threading.Thread(target=lambda: print(1)); t.start(); t.join(); \
         print(subprocess.check_output([\"echo\", \"2\"]).decode())' && git init -q repo && cd repo && echo x > f && \
         git add f && git -c user.name=a -c user.email=b commit -qm c && strace -f -o trace true && test -s trace && echo ok",
    );
    lab.request.spec.env.push(("HOME".into(), lab.work().to_str().unwrap().into()));
    lab.request.confinement.seccomp = Seccomp::Fallback;
    let outcome = lab.run();
    assert!(outcome.stdout.ends_with("ok\n"), "{outcome:?}");
}

fn system(lab: Lab) -> Lab {
    let readable = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc"];
    let lab = readable
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .fold(lab, |lab, path| lab.rule(path, "read,exec", ""));
    let work = lab.work();
    lab.rule(work.to_str().unwrap(), "all", "").rule("/dev/null", "read,write", "").rule("/tmp", "all", "")
}

#[test]
fn landlock_allows_what_the_rules_say_and_nothing_else() {
    let outside = PathBuf::from(format!("/opt/agentd-test-landlock-{}", std::process::id()));
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    for (name, mode) in [("secret", 0o666), ("single", 0o666), ("tool", 0o755)] {
        fs::copy("/bin/true", outside.join(name)).unwrap();
        fs::set_permissions(outside.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let script = format!(
        "cd {out} || exit 1; for f in secret single; do (cat $f >/dev/null) && echo read $f; (: >> $f) && echo wrote $f; done; \
         (: > new) || echo no new; ls . >/dev/null || echo no list; ./tool || echo no tool; mkdir d || echo no mkdir; \
         rm secret || echo no rm; cat /etc/passwd >/dev/null || echo no passwd; cd {work}; \
         cp /bin/true tool; ./tool && echo tool ran; mkdir d && mv d e && rmdir e && echo made; \
         echo a > /tmp/a && mkdir sub && cp /tmp/a sub/a && mkdir t && echo x > t/x && mv t/x sub/x && echo moved; \
         (exec 3<> /dev/null) && echo null; test -t 1 || echo pipes",
        out = outside.display(),
        work = "$OLDPWD",
    );
    let mut lab = Lab::sh(&script);
    lab.request.confinement.landlock = Landlock::On;
    let lab = system(lab).rule(outside.join("single").to_str().unwrap(), "read", "");
    let gate = lab.launch();
    assert!(landlock_abi().is_some(), "this kernel has no Landlock");
    assert_eq!(gate.landlock_abi(), landlock_abi());
    drop(gate);
    let outcome = lab.run();
    fs::remove_dir_all(outside).unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let expected = [
        "read single",
        "no new",
        "no list",
        "no tool",
        "no mkdir",
        "no rm",
        "no passwd",
        "tool ran",
        "made",
        "moved",
        "null",
        "pipes",
    ];
    assert_eq!(lines, expected, "{outcome:?}");
}

#[test]
fn landlock_closes_abstract_sockets_and_signals_to_the_outside() {
    assert!(landlock_abi().is_some_and(|abi| abi >= 6), "this kernel's Landlock has no scopes");
    use std::os::linux::net::SocketAddrExt;
    let name = format!("agentd-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let script = format!("print(attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0{name}')))");
    let open = python_denied(&script);
    assert_eq!(open.run().stdout, "OK\n", "the positive twin");
    let mut lab = system(python_denied(&script)).rule("/etc", "read", "");
    lab.request.confinement.landlock = Landlock::On;
    let outcome = lab.run();
    assert_eq!(outcome.stdout, "EPERM\n", "{outcome:?}");
}

/// (device, inode)
fn identity(file: &impl AsFd) -> (u64, u64) {
    let file = fs::File::from(file.as_fd().try_clone_to_owned().unwrap());
    let metadata = file.metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

fn identity_at(path: &Path) -> (u64, u64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.dev(), metadata.ino())
}

#[test]
fn anchors_are_what_the_agent_will_see() {
    let lab = Lab::sh("true");
    let work = lab.work();
    fs::create_dir(work.join("real")).unwrap();
    fs::write(work.join("real/file"), "").unwrap();
    std::os::unix::fs::symlink("real/file", work.join("link")).unwrap();
    std::os::unix::fs::symlink("gone/target", work.join("dangling")).unwrap();
    let at = |path: &str| format!("{}/{path}", work.display());
    let lab = lab
        .rule(&at(""), "all", "")
        .rule(&at("link"), "", "write")
        .rule(&at("missing"), "", "all")
        .rule(&at("no/such/dir"), "", "all")
        .rule(&at("dangling"), "", "all")
        .rule("**/.git/hooks", "", "write")
        .rule("/tmp", "all", "")
        .rule("/tmp/agentd-unseen", "", "read")
        .rule("/etc/passwd", "read", "");
    let mut lab = lab.rule("/does/not/exist", "read", "");
    lab.request.spec.paths.last_mut().unwrap().optional = true;
    fs::write("/tmp/agentd-unseen", "on the host, not in the agent's view").unwrap();
    let gate = lab.launch();
    let uses = || gate.anchors().iter().flat_map(|a| a.uses.iter().map(|of_rule| (of_rule, identity(&a.file))));
    let of = |rule: usize| -> Vec<_> {
        let of_rule = uses().filter(|(a, _)| a.rule == rule && a.kind != AnchorKind::Way);
        of_rule.map(|(a, file)| (a.kind.clone(), file)).collect()
    };
    let ways: Vec<_> = uses().filter(|(a, _)| a.kind == AnchorKind::Way).map(|(_, file)| file).collect();
    let name = |names: &[&str]| AnchorKind::Name { names: names.iter().map(ToString::to_string).collect() };
    let (directory, file) = (AnchorKind::Object { directory: true }, AnchorKind::Object { directory: false });
    let here = identity_at(&work);
    assert_eq!(of(0), [(directory.clone(), here)]);
    assert_eq!(
        of(1),
        [
            (name(&["link"]), here),
            (file.clone(), identity_at(&work.join("real/file"))),
            (name(&["file"]), identity_at(&work.join("real"))),
        ]
    );
    assert_eq!(of(2), [(name(&["missing"]), here)]);
    assert_eq!(of(3), [(name(&["no", "such", "dir"]), here)]);
    assert_eq!(of(4), [(name(&["dangling"]), here), (name(&["gone", "target"]), here)]);
    assert_eq!(of(5), []);
    let tmp = of(6);
    assert_eq!(tmp.len(), 1);
    assert_ne!(tmp[0].1, identity_at(Path::new("/tmp")), "its own /tmp, not the host's");
    assert_eq!(of(7), [(name(&["agentd-unseen"]), tmp[0].1)]);
    assert_eq!(of(8), [(file, identity_at(Path::new("/etc/passwd")))]);
    let names_or_way = |a: &&Anchor| a.uses.iter().any(|of_rule| !matches!(of_rule.kind, AnchorKind::Object { .. }));
    let shared: Vec<_> = gate.anchors().iter().filter(names_or_way).map(|anchor| identity(&anchor.file)).collect();
    assert_eq!(shared.len(), shared.iter().collect::<BTreeSet<_>>().len(), "no directory is opened twice");
    assert_eq!(of(9), []);
    for above in [here, identity_at(&work.join("real")), tmp[0].1] {
        assert_eq!(ways.iter().filter(|way| **way == above).count(), 1, "each directory above a denial, once");
    }
    fs::remove_file("/tmp/agentd-unseen").unwrap();
}

#[test]
fn a_rule_on_a_missing_path_is_refused_by_name() {
    let lab = Lab::sh("true").rule("/no/such/place", "read", "");
    let Err(LaunchError::Missing { path, origin }) = launch(Path::new(SHIM), &lab.place, &lab.request) else {
        panic!("must be refused")
    };
    assert_eq!((path.as_str(), origin.to_string().as_str()), ("/no/such/place", "--allow read:/no/such/place"));
    assert!(lab.cgroup_is_empty());
}

#[test]
fn what_does_not_work_is_named() {
    let mut lab = Lab::sh("true");
    lab.request.spec.cwd = "/no/such/directory".into();
    let outcome = lab.run();
    assert_eq!(outcome.status, code(125));
    assert_eq!(outcome.notices, ["cannot enter \"/no/such/directory\": No such file or directory (os error 2)"]);
    let mut lab = Lab::sh("true");
    let real = std::mem::replace(&mut lab.place.cgroup, "/no/such/cgroup".into());
    assert!(lab.refused().starts_with("cannot open cgroup /no/such/cgroup: No such file"), "{}", lab.refused());
    lab.place.cgroup = real;
    let error = launch(Path::new("/no/such/agentd"), &lab.place, &lab.request).unwrap_err();
    assert!(chain(&error).starts_with("cannot start the shim /no/such/agentd: No such file"));
    // A program that is no shim.
    let error = launch(Path::new("/bin/true"), &lab.place, &lab.request).unwrap_err();
    assert!(chain(&error).contains("broke off"), "{}", chain(&error));
    let empty = Lab::new(&[""]);
    assert!(empty.refused().contains("no program is given"));
}

#[test]
fn many_anchors_pass_and_stay_open() {
    let mut lab = Lab::sh("true");
    for number in 0..1000 {
        let path = lab.work().join(format!("f{number}"));
        fs::write(&path, "").unwrap();
        lab = lab.rule(path.to_str().unwrap(), "read", "");
    }
    let gate = lab.launch();
    assert_eq!(gate.anchors().len(), 1000);
    let held = fs::read_dir(format!("/proc/{}/fd", gate.shim_pid())).unwrap().count();
    assert!(held >= 1000, "the shim holds {held}");
}

#[test]
fn a_spare_shim_serves_and_an_unused_one_ends() {
    let lab = Lab::sh("exit 6");
    let spare = Spare::start(Path::new(SHIM), &lab.place).unwrap();
    wait_for("its init waits", || !lab.cgroup_is_empty());
    drop(spare);
    wait_for("nothing is left", || lab.cgroup_is_empty());
    let spare = Spare::start(Path::new(SHIM), &lab.place).unwrap();
    let mut gate = spare.launch(&lab.request, |_| ()).unwrap().wait().unwrap();
    let mut client = Client::new(gate.attach(Pace::AgentWaits).unwrap());
    let (shim, _) = gate.open().unwrap();
    assert_eq!(client.hear_all(), code(6));
    shim.taken().unwrap();
}

#[test]
fn a_hundred_at_once() {
    let labs: Vec<Lab> = (0..100).map(|n| Lab::sh(&format!("echo {n}; exit {n}"))).collect();
    std::thread::scope(|scope| {
        for (number, lab) in labs.iter().enumerate() {
            scope.spawn(move || {
                let outcome = lab.run();
                assert_eq!((outcome.status, outcome.stdout), (code(number as u8), format!("{number}\n")));
            });
        }
    });
}

#[test]
fn a_fork_bomb_ends_with_its_program() {
    let lab = Lab::python(
        "import os, time\nfor _ in range(6):\n    os.fork()\nif os.getpid() != 2:\n    time.sleep(1000)\ntime.sleep(0.2)\nos._exit(8)",
    );
    let outcome = lab.run();
    assert_eq!(outcome.status, code(8), "{outcome:?}");
    assert!(lab.cgroup_is_empty());
}
