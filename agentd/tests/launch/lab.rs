//! An agent without a daemon: a cgroup, directories and a request, launched as the daemon would, and removed at the end.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agentd::launch::{
    AtGate, Confinement, ExitRecord, Landlock, LaunchRequest, Pace, Place, Seccomp, Shim, ShimEvent, Start, launch,
};
use agentd_model::{AgentNumber, AgentSpec, Budget, ExitStatus, Origin, PathRule, Rights, Terminal};
use agentd_protocol::attach::{Decoder, Frame};

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_agentd");
pub(crate) const UID: u32 = 12345;
pub(crate) const GID: u32 = 23456;

pub(crate) fn code(code: u8) -> ExitStatus {
    ExitStatus::Code { code }
}

/// A cgroup, directories and a request; all removed at the end.
pub(crate) struct Lab {
    pub(crate) root: PathBuf,
    pub(crate) place: Place,
    pub(crate) request: LaunchRequest,
}

pub(crate) fn cgroup_root() -> PathBuf {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.procs").exists() { unified.into() } else { "/sys/fs/cgroup".into() }
}

impl Lab {
    pub(crate) fn new(argv: &[&str]) -> Lab {
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

    pub(crate) fn sh(script: &str) -> Lab {
        Lab::new(&["sh", "-c", script])
    }

    pub(crate) fn python(script: &str) -> Lab {
        Lab::new(&["/usr/bin/python3", "-c", script])
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn rule(mut self, path: &str, allow: &str, deny: &str) -> Lab {
        let rights = |text: &str| if text.is_empty() { Rights::NONE } else { text.parse().unwrap() };
        let origin = Origin::CommandLine { option: format!("--allow {allow}:{path}") };
        let rule = PathRule { path: path.into(), allow: rights(allow), deny: rights(deny), optional: false, origin };
        self.request.spec.paths.push(rule);
        self
    }

    pub(crate) fn pty(mut self, rows: u16, columns: u16) -> Lab {
        self.request.spec.terminal = Terminal::Pty { rows, columns };
        self
    }

    pub(crate) fn launch(&self) -> AtGate {
        launch(Path::new(SHIM), &self.place, &self.request).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub(crate) fn refused(&self) -> String {
        chain(&launch(Path::new(SHIM), &self.place, &self.request).expect_err("must be refused"))
    }

    pub(crate) fn start(&self) -> Running {
        let mut gate = self.launch();
        let attached = gate.attach(Pace::AgentWaits).unwrap();
        let init = gate.init_pidfd().try_clone_to_owned().unwrap();
        let (shim_pid, init_pid) = (gate.shim_pid(), gate.init_pid());
        let (shim, start) = gate.open().unwrap();
        Running { shim, start, client: Client::new(attached), shim_pid, init_pid, init }
    }

    /// Runs to the end.
    pub(crate) fn run(&self) -> Outcome {
        self.start().finish()
    }

    pub(crate) fn cgroup_is_empty(&self) -> bool {
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

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
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

pub(crate) struct Running {
    pub(crate) shim: Shim,
    pub(crate) start: Start,
    pub(crate) client: Client,
    pub(crate) shim_pid: i32,
    pub(crate) init_pid: i32,
    pub(crate) init: OwnedFd,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) notices: Vec<String>,
    pub(crate) record: ExitRecord,
    pub(crate) start: Start,
}

impl Running {
    pub(crate) fn finish(mut self) -> Outcome {
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

    pub(crate) fn init_is_dead(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.init.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        poll_now(&mut polled);
        polled.revents != 0
    }
}

#[allow(unsafe_code, reason = "one look at one descriptor")]
pub(crate) fn poll_now(polled: &mut libc::pollfd) {
    // SAFETY: one initialised entry, which outlives the call.
    unsafe { libc::poll(polled, 1, 0) };
}

/// The client's end of an attach stream.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) decoder: Decoder,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) notices: Vec<String>,
    pub(crate) exit: Option<ExitStatus>,
}

impl Client {
    pub(crate) fn new(fd: OwnedFd) -> Client {
        let stream = UnixStream::from(fd);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let decoder = Decoder::new();
        Client { stream, decoder, stdout: vec![], stderr: vec![], notices: vec![], exit: None }
    }

    pub(crate) fn say(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.say(&Frame::Stdin(text.into()));
    }

    /// Reads once. `false` at the end of the stream.
    pub(crate) fn hear(&mut self) -> bool {
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

    pub(crate) fn hear_until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.stdout).contains(text) {
            assert!(self.hear(), "the stream ended before {text:?}: {:?}", String::from_utf8_lossy(&self.stdout));
        }
    }

    pub(crate) fn hear_all(&mut self) -> ExitStatus {
        while self.hear() {}
        self.exit.expect("an exit frame is the last")
    }
}

#[allow(unsafe_code, reason = "a test must be able to kill")]
pub(crate) fn kill(pid: i32, signal: i32) {
    assert!(pid > 1);
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid, signal) };
}
