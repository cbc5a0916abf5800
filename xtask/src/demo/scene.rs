//! The stage of the demo: a home with something to lose, a repository, a daemon, an agent.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::clock::Deadline;
use crate::{paths, sh};

/// Where everything of the demo lies.
const STAGE: &str = "/srv/agentd-demo";
/// User and group of the agent: nobody that owns anything.
const USER: u32 = 47_114;

const SUM_C: &str = "int sum(int a, int b) { return a - b; }\n";
const TEST_C: &str = "int sum(int a, int b);\nint main(void) { return sum(20, 22) == 42 ? 0 : 1; }\n";
const MAKEFILE: &str = "CFLAGS = -O1\ncheck: sum.o test.o\n\t$(CC) -o $@ $^\ntest: check\n\t./check\n.PHONY: test\n.gitignore:\n\techo check > $@\n";

/// The files.
pub(super) struct Scene {
    root: PathBuf,
}

impl Scene {
    /// Makes home, repository and workspace.
    pub(super) fn set() -> Result<Self> {
        let scene = Self { root: STAGE.into() };
        if scene.root.exists() {
            fs::remove_dir_all(&scene.root).context("cannot clear the stage of an earlier demo")?;
        }
        for directory in ["home/.ssh", "home/documents", "upstream", "work", "data"] {
            fs::create_dir_all(scene.root.join(directory)).context("cannot make the stage")?;
        }
        scene.write("home/.ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\nnot really\n")?;
        scene.write("home/documents/thesis.txt", "Ten years of work.\n")?;
        scene.write("home/.gitconfig", "[user]\n\tname = Demo\n\temail = demo@localhost\n[safe]\n\tdirectory = *\n")?;
        scene.write("upstream/sum.c", SUM_C)?;
        scene.write("upstream/test.c", TEST_C)?;
        scene.write("upstream/Makefile", MAKEFILE)?;
        scene.write("work/agent.sh", include_str!("agent.sh"))?;
        fs::copy("/bin/true", scene.root.join("data/tool")).context("cannot copy a program")?;
        for script in ["work/agent.sh", "data/tool"] {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(scene.root.join(script), mode).context("cannot make it executable")?;
        }
        give(&scene.root)?;
        scene.git(&["init", "-q", "-b", "main"])?;
        scene.git(&["add", "-A"])?;
        scene.git(&["commit", "-q", "-m", "Start"])?;
        Ok(scene)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(self.root.join(path), text).with_context(|| format!("cannot write {path}"))
    }

    /// git in the upstream repository, as its owner.
    fn git(&self, words: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        git.args(words).current_dir(self.root.join("upstream")).env("HOME", self.root.join("home"));
        sh::quiet(git.uid(USER).gid(USER))
    }

    /// Whether everything in the home is as it was.
    pub(super) fn home_is_whole(&self) -> bool {
        ["home/.ssh/id_ed25519", "home/documents/thesis.txt", "home/.gitconfig"]
            .iter()
            .all(|file| self.root.join(file).is_file())
    }

    /// Whether no hook stands where git would run it.
    pub(super) fn no_hook(&self) -> bool {
        !self.root.join("work/project/.git/hooks/pre-commit").exists()
    }

    /// Tells the agent that something has happened.
    pub(super) fn signal(&self, what: &str) -> Result<()> {
        self.write(&format!("work/.{what}"), "")
    }

    /// Removes everything.
    pub(super) fn clear(&self) -> Result<()> {
        fs::remove_dir_all(&self.root).context("cannot clear the stage")
    }
}

/// Gives a tree to the agent's user.
fn give(path: &Path) -> Result<()> {
    chown(path, Some(USER), Some(USER)).with_context(|| format!("cannot give {} away", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
            give(&entry.context("cannot list the stage")?.path())?;
        }
    }
    Ok(())
}

/// The running daemon, by its process and the words it was started with.
pub(super) struct Daemon {
    pid: String,
    words: Vec<String>,
    lock: PathBuf,
    agentctl: PathBuf,
    socket: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// The one that is installed and runs.
    pub(super) fn running() -> Result<Self> {
        let lock = PathBuf::from("/run/agentd/agentd.lock");
        let pid = pid_in(&lock)?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).context("cannot see how agentd was started")?;
        let words = String::from_utf8_lossy(&words).trim_end_matches('\0').split('\0').map(str::to_owned).collect();
        let (agentctl, socket) = ("agentctl".into(), "/run/agentd/agentd.sock".into());
        Ok(Self { pid, words, lock, agentctl, socket, child: None })
    }

    /// One of the demo's own, beside whatever else runs on this host.
    pub(super) fn own(directory: &Path) -> Result<Self> {
        let release = paths::root().join("target/release");
        let mut daemon = Self {
            pid: String::new(),
            words: own_words(directory),
            lock: directory.join("run/agentd.lock"),
            agentctl: release.join("agentctl"),
            socket: directory.join("run/agentd.sock"),
            child: None,
        };
        daemon.start()?;
        Ok(daemon)
    }

    /// Takes the kernel programs of the demo's own daemon out.
    pub(super) fn unload(directory: &Path) -> Result<()> {
        let mut words = own_words(directory);
        words.push("--unload".into());
        sh::quiet(Command::new(&words[0]).args(&words[1..]))
    }

    /// Starts it again with the same words, and waits until it answers.
    pub(super) fn start(&mut self) -> Result<()> {
        let mut program = Command::new(&self.words[0]);
        program.args(&self.words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(program.process_group(0).spawn().context("cannot start agentd")?);
        let deadline = Deadline::after(Duration::from_secs(60));
        while self.agentctl(&["ps"]).is_err() {
            if deadline.passed() {
                bail!("agentd does not answer");
            }
            sleep(Duration::from_millis(100));
        }
        self.pid = pid_in(&self.lock)?;
        Ok(())
    }

    /// Kills it as no daemon should be killed.
    pub(super) fn kill(&mut self) -> Result<()> {
        sh::quiet(Command::new("kill").args(["-9", &self.pid]))?;
        if let Some(mut child) = self.child.take() {
            child.wait().context("cannot collect agentd")?;
        }
        let proc = PathBuf::from(format!("/proc/{}/cgroup", self.pid));
        let deadline = Deadline::after(Duration::from_secs(10));
        while proc.exists() && fs::read(&proc).is_ok() && !is_zombie(&self.pid) {
            if deadline.passed() {
                bail!("agentd does not die");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The command, ready for arguments.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.agentctl);
        command.env("AGENTD_SOCKET", &self.socket);
        command
    }

    /// Runs the command and returns what it printed.
    pub(super) fn agentctl(&self, words: &[&str]) -> Result<String> {
        sh::output(self.command().args(words))
    }

    fn budget(&self) -> Result<Value> {
        let text = self.agentctl(&["budget", "show", "demo", "--json"])?;
        serde_json::from_str(text.lines().next().unwrap_or_default()).context("the budget cannot be read")
    }

    /// CPU time used, in nanoseconds.
    pub(super) fn spent_ns(&self) -> Result<u64> {
        self.budget()?["cpu_spent_ns"].as_u64().context("the budget says no time")
    }

    /// The same, half a second later.
    pub(super) fn spent_ns_later(&self) -> Result<u64> {
        sleep(Duration::from_millis(500));
        self.spent_ns()
    }

    /// CPU time used of what is allowed, for people.
    pub(super) fn spent(&self) -> Result<String> {
        let budget = self.budget()?;
        let seconds = |key: &str| budget[key].as_f64().unwrap_or(0.0) / 1e9;
        Ok(format!("{:.3} s of {:.0} s", seconds("cpu_spent_ns"), seconds("cpu_limit_ns")))
    }

    /// Waits until the agent is where it should be in its life; false: it did not get there in time.
    pub(super) fn wait_for_phase(&self, phase: &str, limit: Duration) -> Result<bool> {
        let deadline = Deadline::after(limit);
        while !deadline.passed() {
            if self.agentctl(&["inspect", "demo", "--json"])?.contains(&format!("\"phase\":\"{phase}\"")) {
                return Ok(true);
            }
            sleep(Duration::from_millis(200));
        }
        Ok(false)
    }
}

impl Drop for Daemon {
    /// A daemon of the demo's own ends with the demo; one that was restarted for the host goes on.
    fn drop(&mut self) {
        if self.socket.starts_with("/run/agentd") {
            return;
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn own_words(directory: &Path) -> Vec<String> {
    let place = |name: &str| directory.join(name).display().to_string();
    let program = paths::shipped("agentd").display().to_string();
    let words = ["--state", &place("state"), "--runtime", &place("run"), "--bpffs", "/sys/fs/bpf/agentd-demo"];
    let words = words.into_iter().chain(["--cgroup", "agentd-demo"]);
    std::iter::once(program).chain(words.map(str::to_owned)).collect()
}

fn pid_in(lock: &Path) -> Result<String> {
    Ok(fs::read_to_string(lock).context("agentd does not run")?.trim().to_owned())
}

fn is_zombie(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// The agent, through the client that spawned it.
pub(super) struct Agent {
    client: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    told: HashMap<String, String>,
}

impl Agent {
    /// Spawns it in the foreground, as a user would.
    pub(super) fn spawn(scene: &Scene, daemon: &Daemon, budget: &str) -> Result<Self> {
        let place = |name: &str| scene.root.join(name).display().to_string();
        let mut command = daemon.command();
        command.args(["spawn", "--name", "demo", "--profile", "coding", "--budget", budget]);
        command.args(["--user", &USER.to_string(), "--cwd", &place("work")]);
        command.args(["--allow", &format!("read:{}", place("upstream"))]);
        command.args(["--allow", &format!("read:{}", place("data"))]);
        command.args(["--allow", &format!("read:{}", place("home/.gitconfig"))]);
        for (name, value) in [
            ("WORK", place("work")),
            ("UPSTREAM", place("upstream")),
            ("DATA", place("data")),
            ("HOME", place("home")),
            ("STRANGER", daemon.pid.clone()),
        ] {
            command.args(["--env", &format!("{name}={value}")]);
        }
        command.args(["--", "./agent.sh"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().context("cannot start agentctl")?;
        let output = client.stdout.take().context("agentctl has no output")?;
        Ok(Self { client, lines: BufReader::new(output).lines(), told: HashMap::new() })
    }

    /// Reads on until the agent has told of something.
    pub(super) fn wait(&mut self, name: &str) -> Result<()> {
        while !self.told.contains_key(name) {
            let Some(line) = self.lines.next() else {
                let mut said = String::new();
                if let Some(mut errors) = self.client.stderr.take() {
                    let _ = errors.read_to_string(&mut said);
                }
                bail!("the agent ended before it told of {name}\n{}", said.trim());
            };
            let line = line.context("cannot read the agent's output")?;
            if let Some((name, came)) = line.strip_prefix(":: ").and_then(|rest| rest.split_once(' ')) {
                self.told.insert(name.to_owned(), came.to_owned());
            }
        }
        Ok(())
    }

    /// What the agent says came of something.
    pub(super) fn told(&mut self, name: &str) -> Result<String> {
        self.wait(name)?;
        Ok(self.told.get(name).cloned().unwrap_or_default())
    }

    /// Waits for the end and returns the status that the client passes through.
    pub(super) fn finish(&mut self, limit: Duration) -> Result<i32> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(status) = self.client.try_wait().context("cannot wait for agentctl")? {
                return Ok(status.code().unwrap_or(-1));
            }
            if deadline.passed() {
                bail!("the agent does not end");
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
