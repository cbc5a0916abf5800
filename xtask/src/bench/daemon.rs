//! A daemon of the bench's own, beside whatever else runs on this host, and what agents in it use.
//!
//! Its programs are copies of what was built, so that a build that runs meanwhile changes nothing. Dropping it takes out
//! everything: agents, daemon, kernel programs, cgroup, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::Deadline;
use crate::{paths, sh};

const STAGE: &str = "/srv/agentd-bench";
const BPFFS: &str = "/sys/fs/bpf/agentd-bench";
const CGROUP: &str = "agentd-bench";

pub(super) struct Daemon {
    child: Child,
    gaps: Vec<&'static str>,
}

impl Daemon {
    /// Starts it and waits until it answers.
    pub(super) fn start() -> Result<Self> {
        let root = Path::new(STAGE);
        if root.exists() {
            // What an earlier bench that was killed has left. Refused while a daemon or an agent still runs there.
            let _ = unload();
            fs::remove_dir_all(root).context("cannot clear the stage of an earlier bench")?;
        }
        fs::create_dir_all(root.join("work")).context("cannot make the stage")?;
        for name in ["agentd", "agentctl"] {
            let from = paths::shipped(name);
            fs::copy(&from, root.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        let log = fs::File::create(root.join("log")).context("cannot make the daemon's log")?;
        let mut program = Command::new(root.join("agentd"));
        program.args(words()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let gaps = gaps(&root.join("agentd"))?;
        let mut daemon = Self { child: program.spawn().context("cannot start agentd")?, gaps };
        let deadline = Deadline::after(Duration::from_secs(60));
        while !sh::succeeds(daemon.agentctl().arg("ps")) {
            let ended = daemon.child.try_wait().context("cannot wait for agentd")?.is_some();
            if ended || deadline.passed() {
                let log = fs::read_to_string(root.join("log")).unwrap_or_default();
                bail!("agentd does not answer\n{}", log.trim());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    /// The command, ready for arguments.
    pub(super) fn agentctl(&self) -> Command {
        let mut command = Command::new(Path::new(STAGE).join("agentctl"));
        command.env("AGENTD_SOCKET", Path::new(STAGE).join("run/agentd.sock"));
        command
    }

    /// `agentctl spawn` with what it needs on this host, in a workspace that is nobody's home.
    pub(super) fn spawn(&self) -> Command {
        let mut command = self.agentctl();
        command.args(["spawn", "--quiet"]).args(&self.gaps).arg("--cwd").arg(self.workspace());
        command
    }

    /// Copies a program to where agents may run it.
    pub(super) fn place(&self, program: &Path) -> Result<PathBuf> {
        let to = self.workspace().join(program.file_name().unwrap_or(program.as_os_str()));
        fs::copy(program, &to).with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(to)
    }

    fn workspace(&self) -> PathBuf {
        Path::new(STAGE).join("work")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(cgroup) = cgroup() {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        }
        let _ = sh::quiet(Command::new("kill").arg(self.child.id().to_string()));
        let _ = self.child.wait();
        let _ = unload();
        if let Ok(cgroup) = cgroup() {
            for below in fs::read_dir(&cgroup).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(&cgroup);
        }
        let _ = fs::remove_dir_all(STAGE);
    }
}

/// The cgroup that the agents' cgroups are in.
pub(super) fn cgroup() -> Result<PathBuf> {
    Ok(cgroups()?.join(CGROUP))
}

/// Where cgroup v2 is mounted.
pub(super) fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the list of mounts")?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let place = line.and_then(|line| line.split(' ').nth(1));
    place.map(PathBuf::from).context("cgroup v2 is not mounted")
}

/// What an agent has to give up on this host, as words for `spawn`; none where the LSM enforces.
fn gaps(agentd: &Path) -> Result<Vec<&'static str>> {
    let rows = sh::output(Command::new(agentd).arg("--probe")).context("cannot ask what this host can enforce")?;
    let files = rows.lines().find(|row| row.contains("\"domain\":\"files\"")).unwrap_or_default();
    let whole = files.contains("\"tier\":\"lsm\"");
    Ok(if whole { vec![] } else { vec!["--degraded", "deny-inside-allow,denial-events,unix-sockets"] })
}

fn words() -> Vec<String> {
    let place = |name: &str| Path::new(STAGE).join(name).display().to_string();
    ["--state", &place("state"), "--runtime", &place("run"), "--bpffs", BPFFS, "--cgroup", CGROUP]
        .map(str::to_owned)
        .into()
}

fn unload() -> Result<()> {
    sh::quiet(Command::new(Path::new(STAGE).join("agentd")).args(words()).arg("--unload"))
}
