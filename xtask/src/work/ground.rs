//! Where the jobs are done: a home with tools and a key in it, workspaces beside it, a daemon.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::shelf::Item;
use crate::clock::Deadline;
use crate::{paths, sh};

/// On this host, where every user can go and nothing else is.
const HERE: &str = "/srv/agentd-work";
/// User and group on this host: nobody that owns anything.
const USER: u32 = 47_115;
/// In a machine: on the disk, since its root is memory.
const GUEST: &str = "/srv/btrfs/work";
/// The home there, into which tools are copied before anything runs.
pub(crate) const GUEST_HOME: &str = "/srv/btrfs/work/home";
/// User and group `dev` of the machines.
const GUEST_USER: u32 = 1000;

/// The name that a key has in the home, and a text in it that must not get out.
pub(super) const KEY: &str = ".ssh/id_ed25519";
pub(super) const KEY_TEXT: &str = "NOT-REALLY-A-KEY-7f3a";

/// What holds the rules on files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// BPF LSM: everything, and every refusal is in the journal.
    Lsm,
    /// Landlock: no denial inside something allowed, and no refusal is told of.
    Landlock,
}

impl Tier {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tier::Lsm => "lsm",
            Tier::Landlock => "landlock",
        }
    }
}

/// The place.
pub(super) struct Ground {
    root: PathBuf,
    uid: u32,
    user: String,
    tier: Tier,
    daemon: Daemon,
    /// Options of `spawn` that this place needs.
    words: Vec<String>,
    /// Removed at the end.
    temporary: bool,
}

impl Ground {
    /// Makes it on this host.
    pub(super) fn on_this_host(daemon: Daemon, items: &[Item]) -> Result<Self> {
        let tier = daemon.tier()?;
        let root = PathBuf::from(HERE);
        if root.exists() {
            fs::remove_dir_all(&root).context("cannot clear what an earlier run left")?;
        }
        let home = root.join("home");
        for item in items {
            let to = home.join(&item.place);
            fs::create_dir_all(to.parent().unwrap_or(&home)).context("cannot make the home")?;
            // Links where the file system can: toolchains are large, and nobody writes to these.
            let from = item.from.canonicalize().context("cannot find a tool")?;
            let link = sh::quiet(sh::command("cp").args(["-alT", "--no-preserve=ownership"]).arg(&from).arg(&to));
            if link.is_err() && !to.exists() {
                sh::quiet(sh::command("cp").args(["-aT", "--no-preserve=ownership"]).arg(&from).arg(&to))?;
            }
        }
        let mut words: Vec<String> = Vec::new();
        match tier {
            Tier::Lsm => words.extend(["--require".into(), "lsm".into()]),
            Tier::Landlock => {
                words.extend(["--degraded".into(), "deny-inside-allow,denial-events,unix-sockets".into()]);
            }
        }
        // A user without a name has no home of its own, so the profile cannot name the tools. What it would say:
        for place in [".local", ".cargo/bin", ".rustup", ".npm-global"].map(|place| home.join(place)) {
            if place.exists() {
                words.extend(["--allow".into(), format!("read,exec:{}", place.display())]);
            }
        }
        words.extend(["--allow".into(), format!("read:{}", home.join(".gitconfig").display())]);
        let ground = Self { root, uid: USER, user: USER.to_string(), tier, daemon, words, temporary: true };
        ground.furnish()?;
        Ok(ground)
    }

    /// Uses what was copied into this machine, and makes it the home of `dev`.
    pub(super) fn in_this_machine() -> Result<Self> {
        let accounts = fs::read_to_string("/etc/passwd").context("cannot read the accounts")?;
        fs::write("/etc/passwd", accounts.replace(":/home/dev:", &format!(":{GUEST_HOME}:")))
            .context("cannot move the home of dev")?;
        let ground = Self {
            root: GUEST.into(),
            uid: GUEST_USER,
            user: "dev".into(),
            tier: Tier::Lsm,
            daemon: Daemon::running(),
            words: ["--require", "lsm"].map(str::to_owned).to_vec(),
            temporary: false,
        };
        ground.furnish()?;
        Ok(ground)
    }

    /// Puts into the home what every person has there.
    fn furnish(&self) -> Result<()> {
        let home = self.home();
        for place in [".ssh", ".local/bin", ".npm-global/bin", ".cargo/bin"] {
            fs::create_dir_all(home.join(place)).context("cannot make the home")?;
        }
        let git = "[user]\n\tname = Dev\n\temail = dev@localhost\n[init]\n\tdefaultBranch = main\n";
        fs::write(home.join(".gitconfig"), git).context("cannot write .gitconfig")?;
        fs::write(home.join(KEY), format!("{KEY_TEXT}\n")).context("cannot write a key")?;
        fs::write(home.join(".bashrc"), "# nothing\n").context("cannot write .bashrc")?;
        fs::write(home.join(".profile"), "# nothing\n").context("cannot write .profile")?;
        let codex = "lib/node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex";
        for (link, to) in [
            (".local/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js"),
            (".local/bin/npx", "../lib/node_modules/npm/bin/npx-cli.js"),
            (".local/bin/claude", "../share/claude/claude"),
            (".npm-global/bin/codex", &format!("../{codex}")),
            (".cargo/bin/cargo", "rustup"),
            (".cargo/bin/rustc", "rustup"),
        ] {
            let link = home.join(link);
            if link.parent().is_some_and(|folder| folder.join(to).exists()) && !link.is_symlink() {
                symlink(to, &link).context("cannot link a tool")?;
            }
        }
        if home.join(".rustup").exists() {
            // Rustup makes them when it is installed, and its `cargo` ends with an error where it cannot.
            for place in ["downloads", "tmp", "update-hashes"] {
                fs::create_dir_all(home.join(".rustup").join(place)).context("cannot make the home")?;
            }
            // And these are there wherever cargo ran before.
            for name in [".package-cache", ".package-cache-mutate", ".global-cache"] {
                let path = home.join(".cargo").join(name);
                fs::write(&path, "").context("cannot make the home")?;
                chown(&path, Some(self.uid), Some(self.uid)).context("cannot give the home away")?;
            }
        }
        chown(&home, Some(self.uid), Some(self.uid)).context("cannot give the home away")?;
        for name in [".gitconfig", ".bashrc", ".profile", ".ssh", KEY] {
            chown(home.join(name), Some(self.uid), Some(self.uid)).context("cannot give the home away")?;
        }
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(home.join(KEY), private).context("cannot set the mode of the key")
    }

    /// The home.
    pub(super) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// What enforces here.
    pub(super) fn tier(&self) -> Tier {
        self.tier
    }

    /// A folder of the user's beside the home with these files in it.
    pub(super) fn folder(&self, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for (path, text) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&dir)).context("cannot make a folder")?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.give(&dir)?;
        Ok(dir)
    }

    fn give(&self, path: &Path) -> Result<()> {
        sh::quiet(sh::command("chown").args(["-R", &format!("{0}:{0}", self.uid)]).arg(path))
    }

    /// A command of the user's, outside every agent, to prepare and to look.
    pub(super) fn outside(&self, program: &str, dir: &Path) -> Command {
        let mut command = sh::command(program);
        command.uid(self.uid).gid(self.uid).current_dir(dir).env("HOME", self.home());
        command
    }

    /// Runs a command as an agent in its workspace, to its end.
    pub(super) fn spawn(
        &self,
        agent: &str,
        dir: &Path,
        words: &[String],
        argv: &[&str],
        limit: Duration,
    ) -> Result<Ran> {
        let home = self.home();
        let mut command = self.daemon.command();
        command.args(["spawn", "--name", agent, "--profile", "coding", "--user", &self.user, "--cwd"]).arg(dir);
        command.args(&self.words).args(words);
        let own = [".local/bin", ".npm-global/bin", ".cargo/bin"].map(|place| home.join(place).display().to_string());
        command.args(["--env", &format!("PATH={}:/usr/local/bin:/usr/bin:/bin", own.join(":"))]);
        command.args(["--env", &format!("HOME={}", home.display())]);
        command.arg("--").args(argv);
        let text = tempfile(&self.root.join(format!("{agent}.out")))?;
        command.stdin(Stdio::null()).stdout(text.0).stderr(text.1);
        let mut client = command.spawn().context("cannot start agentctl")?;
        let deadline = Deadline::after(limit);
        let status = loop {
            if let Some(status) = client.try_wait().context("cannot wait for agentctl")? {
                break status.code();
            }
            if deadline.passed() {
                let _ = self.daemon.agentctl(&["kill", agent]);
                let _ = client.kill();
                let _ = client.wait();
                break None;
            }
            sleep(Duration::from_millis(50));
        };
        let said = fs::read(self.root.join(format!("{agent}.out"))).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok(Ran { status, said, denials: self.denials(agent)? })
    }

    /// Every refusal that the journal has of an agent.
    fn denials(&self, agent: &str) -> Result<Vec<Denial>> {
        // The kernel's reports come by a ring; `ps` is answered by the same loop that takes them.
        sleep(Duration::from_millis(300));
        let mut denials = Vec::new();
        for line in self.daemon.agentctl(&["audit", "--agent", agent, "-n", "all", "--json"])?.lines() {
            let record: Value = serde_json::from_str(line).with_context(|| format!("{line:?} is not JSON"))?;
            match record["event"].as_str() {
                Some("access_denied") => denials.push(Denial::read(&record["denial"])),
                Some("denials_suppressed") => denials.push(Denial { what: "suppressed".into(), ..Denial::default() }),
                _ => {}
            }
        }
        Ok(denials)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

fn tempfile(path: &Path) -> Result<(fs::File, fs::File)> {
    let file = fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let twin = file.try_clone().context("cannot share a file")?;
    Ok((file, twin))
}

/// What an agent left behind.
pub(super) struct Ran {
    /// Its exit status; `None`: its time was over.
    pub(super) status: Option<i32>,
    /// What it printed, both streams.
    pub(super) said: String,
    /// What the kernel refused it.
    pub(super) denials: Vec<Denial>,
}

/// A refusal as the journal has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Denial {
    /// Hook and right.
    pub(super) what: String,
    /// Which rule, or what else.
    pub(super) reason: String,
    /// Path, address or number.
    pub(super) object: String,
    /// Name of the process.
    pub(super) comm: String,
}

impl Denial {
    fn read(denial: &Value) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let object = &denial["object"];
        let path = [&object["file"]["path"], &object["address"]["text"], &object["other"]["detail"]];
        let object = path.into_iter().find(|value| !value.is_null()).unwrap_or(object);
        let reason = denial["reason"]["rule"]["rule"].as_u64();
        let reason = reason.map_or_else(|| text(&denial["reason"]).replace('_', " "), |rule| format!("rule {rule}"));
        Self {
            what: format!("{} {}", text(&denial["hook"]), text(&denial["right"])).trim().to_owned(),
            reason,
            object: text(object),
            comm: text(&denial["comm"]),
        }
    }
}

/// The daemon that agents are spawned by.
pub(super) struct Daemon {
    agentctl: PathBuf,
    socket: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// The one that is installed and runs.
    fn running() -> Self {
        Self { agentctl: "agentctl".into(), socket: "/run/agentd/agentd.sock".into(), child: None }
    }

    /// One of our own, beside whatever else runs on this host.
    pub(super) fn own(directory: &Path) -> Result<Self> {
        let words = own_words(directory);
        let log = fs::File::create(directory.join("log")).context("cannot create a log")?;
        let mut program = Command::new(&words[0]);
        program.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = program.spawn().context("cannot start agentd; is it built?")?;
        let agentctl = paths::shipped("agentctl");
        let daemon = Self { agentctl, socket: directory.join("run/agentd.sock"), child: Some(child) };
        let deadline = Deadline::after(Duration::from_secs(60));
        while daemon.agentctl(&["ps"]).is_err() {
            if deadline.passed() {
                bail!("agentd does not answer\n{}", fs::read_to_string(directory.join("log")).unwrap_or_default());
            }
            sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    /// Takes the kernel programs of our own daemon out, and what is left of its folders.
    pub(super) fn unload(directory: &Path) -> Result<()> {
        let mut words = own_words(directory);
        words.push("--unload".into());
        sh::quiet(Command::new(&words[0]).args(&words[1..]))?;
        for left in ["/sys/fs/bpf/agentd-work/net", "/sys/fs/bpf/agentd-work", "/sys/fs/cgroup/agentd-work"] {
            // Empty by now, or already gone.
            let _ = fs::remove_dir(left);
        }
        Ok(())
    }

    /// What it can enforce on files, by its own word.
    fn tier(&self) -> Result<Tier> {
        let rows = sh::output(Command::new(self.agentctl.with_file_name("agentd")).arg("--probe"))?;
        let files = rows.lines().find(|row| row.contains("\"domain\":\"files\"")).context("agentd says no tier")?;
        Ok(if files.contains("\"tier\":\"lsm\"") { Tier::Lsm } else { Tier::Landlock })
    }

    /// The command, ready for arguments, in an environment that is the same everywhere.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.agentctl);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("TERM", "dumb");
        command.env("AGENTD_SOCKET", &self.socket);
        command
    }

    /// Runs the command and returns what it printed.
    fn agentctl(&self, words: &[&str]) -> Result<String> {
        sh::output(self.command().args(words))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn own_words(directory: &Path) -> Vec<String> {
    let place = |name: &str| directory.join(name).display().to_string();
    let program = paths::shipped("agentd").display().to_string();
    let words = ["--state", &place("state"), "--runtime", &place("run"), "--bpffs", "/sys/fs/bpf/agentd-work"];
    let words = words.into_iter().chain(["--cgroup", "agentd-work"]);
    std::iter::once(program).chain(words.map(str::to_owned)).collect()
}
