//! The canaries: places to try, agents that try, and what their answers mean.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use agentd_model::{ExitStatus, Gap};
use agentd_protocol::attach::{Decoder, Frame};
use agentd_protocol::{
    AgentParams, AgentView, BudgetView, DaemonView, Method, ProfileChoice, SignalParams, SpawnParams, SpawnReply,
    TerminalChoice,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::Context;
use crate::client::Client;
use crate::clock::Stopwatch;
use crate::command::canary::Tried;
use crate::failure::{Exit, Failure};
use crate::text;

use super::Verdict;

/// No canary needs longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// CPU budget that is used up.
const CPU_MS: u64 = 100;
/// What may be used beyond it: the grace after which the kernel kills, and what passes where the daemon looks from time to time.
const OVERSHOOT_MS: [(&str, u64); 2] = [("tracepoint", 250), ("polling", 2_000)];
/// Limit on processes, and what is tried.
const PIDS: (u64, u64) = (16, 64);
/// Limit on memory in megabytes, and what is touched.
const MEMORY: (u64, u64) = (64, 192);

/// What was found out about one domain.
pub(super) struct Finding {
    /// The domain's name.
    pub(super) domain: &'static str,
    /// Whether it held.
    pub(super) verdict: Verdict,
    /// What was seen.
    pub(super) proof: String,
}

/// The places and ports that canaries try; gone when this is dropped.
pub(super) struct Trial {
    root: PathBuf,
    allowed_port: TcpListener,
    forbidden_port: TcpListener,
}

/// What an agent printed and how it ended.
struct Ran {
    tried: Vec<Tried>,
    errors: String,
    status: Option<ExitStatus>,
}

impl Trial {
    /// Makes the places. Everybody on the host may use them, so that only an agent's rules can be in the way.
    pub(super) fn set_up() -> Result<Trial, Failure> {
        let cannot = |what: &str| {
            let message = format!("cannot prepare the canary: {what}");
            move |error: io::Error| Failure::io(message, &error)
        };
        let root = place().ok_or_else(|| {
            Failure::new(Exit::Failed, "cannot prepare the canary: found no directory for it outside /tmp")
                .hint("XDG_CACHE_HOME=$PWD agentctl doctor")
        })?;
        let trial = Trial {
            root,
            allowed_port: TcpListener::bind("127.0.0.1:0").map_err(cannot("no port on loopback"))?,
            forbidden_port: TcpListener::bind("127.0.0.1:0").map_err(cannot("no port on loopback"))?,
        };
        let in_root = || cannot(&trial.root.display().to_string());
        set_mode(&trial.root, 0o755).map_err(in_root())?;
        for name in ["allowed", "forbidden"] {
            let place = trial.root.join(name);
            fs::create_dir(&place).map_err(in_root())?;
            fs::write(place.join("file"), "canary\n").map_err(in_root())?;
            fs::write(place.join("program"), "#!/bin/sh\nexit 0\n").map_err(in_root())?;
            for (path, mode) in [(place.clone(), 0o755), (place.join("file"), 0o644), (place.join("program"), 0o755)] {
                set_mode(&path, mode).map_err(in_root())?;
            }
        }
        // A copy, because ours may lie where the agent's user cannot reach it.
        let own = std::env::current_exe().map_err(cannot("cannot find our own program"))?;
        fs::copy(own, trial.program()).map_err(in_root())?;
        set_mode(&trial.program(), 0o755).map_err(in_root())?;
        Ok(trial)
    }

    fn program(&self) -> PathBuf {
        self.root.join("allowed/agentctl")
    }

    /// Runs every canary that this host has a promise for.
    pub(super) fn run(&self, context: &Context, daemon: &DaemonView) -> Vec<Finding> {
        let tier = |domain: &str| {
            let tier = daemon.tiers.iter().find(|view| view.domain == domain).map(|view| view.tier.as_str());
            tier.filter(|tier| *tier != "nothing")
        };
        let mut findings = self.doors(context);
        if let Some(tier) = tier("cpu") {
            findings.push(found("cpu", self.cpu(context, tier)));
        }
        if tier("mem").is_some() {
            findings.push(found("mem", self.memory(context)));
        }
        if tier("pids").is_some() {
            findings.push(found("pids", self.pids(context)));
        }
        findings
    }

    /// Files, guard and network: the canary tries, and once outside.
    fn doors(&self, context: &Context) -> Vec<Finding> {
        let words = self.try_words();
        let outside = self.outside(&words);
        let inside = self.agent(context, &words, None).and_then(|ran| match (&ran.tried[..], &outside) {
            ([], _) => Err(Failure::new(Exit::Failed, format!("the canary said nothing: {}", ran.errors.trim()))),
            (_, Err(error)) => Err(error.clone()),
            (_, Ok(outside)) => Ok((ran.tried, outside)),
        });
        let judge = |domain, kinds: &[&str]| match &inside {
            Ok((inside, outside)) => judge(domain, kinds, inside, outside),
            Err(error) => found(domain, Err(error.clone())),
        };
        let mut network = judge("network", &["connect"]);
        if network.verdict == Verdict::Kept && self.was_reached() {
            network.verdict = Verdict::Broken;
            network.proof = "connect was refused, and yet a connection came".to_owned();
        }
        vec![judge("files", &["open", "exec"]), judge("guard", &["userns"]), network]
    }

    fn try_words(&self) -> Vec<String> {
        let port = |listener: &TcpListener| listener.local_addr().map_or(0, |addr| addr.port()).to_string();
        let place = |name| self.root.join(name).display().to_string();
        let ports = [port(&self.allowed_port), port(&self.forbidden_port)];
        ["try".to_owned(), place("allowed"), place("forbidden")].into_iter().chain(ports).collect()
    }

    /// Runs the canary as an ordinary process.
    fn outside(&self, words: &[String]) -> Result<Vec<Tried>, Failure> {
        let cannot = |error| Failure::io("cannot run the canary outside an agent", &error);
        let mut command = Command::new(self.program());
        let output = command.arg("canary").args(words).stdin(Stdio::null()).output().map_err(cannot)?;
        while self.accept() {}
        Ok(read(&output.stdout))
    }

    /// Takes a connection to the forbidden port; false if none waits.
    fn accept(&self) -> bool {
        self.forbidden_port.set_nonblocking(true).is_ok() && self.forbidden_port.accept().is_ok()
    }

    fn was_reached(&self) -> bool {
        self.accept()
    }

    /// Runs the canary as an agent to its end.
    fn agent(&self, context: &Context, words: &[String], budget: Option<String>) -> Result<Ran, Failure> {
        let (reply, stream, mut client) = self.spawn(context, words, budget)?;
        let ran = collect(stream);
        // Nothing of a canary stays, whatever became of it.
        let _ = kill(&mut client, &reply.name);
        ran.map_err(|error| Failure::io("cannot read what the canary says", &error))
    }

    fn spawn(
        &self,
        context: &Context,
        words: &[String],
        budget: Option<String>,
    ) -> Result<(SpawnReply, OwnedFd, Client), Failure> {
        let program = self.program().display().to_string();
        let port = self.allowed_port.local_addr().map_or(0, |addr| addr.port());
        let params = SpawnParams {
            argv: [program, "canary".to_owned()].into_iter().chain(words.iter().cloned()).collect(),
            cwd: self.root.join("allowed").display().to_string(),
            profile: ProfileChoice::Name("base".to_owned()),
            env: std::env::var("PATH").ok().map(|path| ("PATH".to_owned(), path)).into_iter().collect(),
            allow: vec![format!("read,exec:{}", self.root.join("allowed").display())],
            net: vec![format!("connect:tcp:127.0.0.1:{port}")],
            budget,
            terminal: TerminalChoice::Pipes,
            attach: true,
            // What this host cannot promise is another row's answer.
            degraded: Gap::ALL.iter().map(ToString::to_string).collect(),
            ..SpawnParams::default()
        };
        let mut client = context.client()?;
        let (reply, stream) = client.call_for_file(&Method::AgentSpawn(Box::new(params)))?;
        Ok((reply, stream, client))
    }

    /// Spins until the budget is spent, then looks whether it really stands still.
    fn cpu(&self, context: &Context, tier: &str) -> Result<(Verdict, String), Failure> {
        let (reply, stream, mut client) = self.spawn(context, &["spin".to_owned()], Some(format!("cpu:{CPU_MS}ms")))?;
        let spent = spin_until_spent(&mut client, &reply.name);
        let _ = kill(&mut client, &reply.name);
        drop(stream);
        let spent = spent?;
        let most = OVERSHOOT_MS.iter().find(|(name, _)| *name == tier).map_or(250, |(_, ms)| *ms);
        let shown = format!("{}.{:01}ms", spent / 1_000_000, spent / 100_000 % 10);
        Ok(if spent <= (CPU_MS + most) * 1_000_000 {
            (Verdict::Kept, format!("a budget of {CPU_MS}ms stopped an agent after {shown}"))
        } else {
            (Verdict::Broken, format!("a budget of {CPU_MS}ms let an agent run for {shown}"))
        })
    }

    fn pids(&self, context: &Context) -> Result<(Verdict, String), Failure> {
        let (limit, most) = PIDS;
        let ran = self.agent(context, &["threads".to_owned(), most.to_string()], Some(format!("pids:{limit}")))?;
        let Some(threads) = ran.tried.first().map(|tried| tried.amount) else {
            return Ok((Verdict::Broken, format!("the canary said nothing: {}", ran.errors.trim())));
        };
        let verdict = if (1..limit).contains(&threads) { Verdict::Kept } else { Verdict::Broken };
        Ok((verdict, format!("a limit of {limit} let {threads} of {most} threads start")))
    }

    fn memory(&self, context: &Context) -> Result<(Verdict, String), Failure> {
        let (limit, most) = MEMORY;
        let ran = self.agent(context, &["memory".to_owned(), most.to_string()], Some(format!("mem:{limit}M")))?;
        Ok(match (ran.tried.first(), ran.status) {
            (Some(tried), _) if tried.amount <= limit => (
                Verdict::Kept,
                format!("a limit of {limit}M kept an agent of {most}M at {}M, the rest in swap", tried.amount),
            ),
            (Some(tried), _) => (Verdict::Broken, format!("a limit of {limit}M let an agent have {}M", tried.amount)),
            (None, Some(ExitStatus::Signal { signal: 9 })) => {
                (Verdict::Kept, format!("a limit of {limit}M ended an agent that wanted {most}M"))
            }
            (None, _) => (Verdict::Broken, format!("the canary said nothing: {}", ran.errors.trim())),
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn found(domain: &'static str, result: Result<(Verdict, String), Failure>) -> Finding {
    let (verdict, proof) = result.unwrap_or_else(|failure| {
        let texts: Vec<String> = [vec![failure.message], failure.causes].concat();
        (Verdict::Broken, format!("could not be tried: {}", texts.join(": ")))
    });
    Finding { domain, verdict, proof }
}

/// What the canary's attempts say about one domain: the forbidden refused, the allowed not, and outside everything done.
fn judge(domain: &'static str, kinds: &[&str], inside: &[Tried], outside: &[Tried]) -> Finding {
    let (mut good, mut bad, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for kind in kinds {
        let of = |list: &[Tried], forbidden| {
            list.iter().find(|tried| tried.what == *kind && tried.forbidden == forbidden).cloned()
        };
        match (of(inside, true), of(outside, true)) {
            (None, _) => bad.push(format!("{kind} was not tried")),
            (Some(tried), _) if tried.errno.is_none() => bad.push(format!("forbidden {kind} worked")),
            (Some(_), None) => unknown.push(format!("{kind} could not be tried outside")),
            (Some(_), Some(plain)) if plain.errno.is_some() => {
                unknown.push(format!("{kind} fails outside an agent too ({})", errno(plain.errno)));
            }
            (Some(tried), _) if !tried.is_refused() => {
                bad.push(format!("forbidden {kind} failed for another reason ({})", errno(tried.errno)));
            }
            _ => good.push(format!("{kind} refused")),
        }
        if let Some(twin) = of(inside, false).filter(|twin| twin.errno.is_some()) {
            bad.push(format!("allowed {kind} did not work ({})", errno(twin.errno)));
        }
    }
    if bad.is_empty() && inside.iter().any(|tried| kinds.contains(&tried.what.as_str()) && !tried.forbidden) {
        good.push("what is allowed works".to_owned());
    }
    let (verdict, texts) = match (bad.is_empty(), unknown.is_empty()) {
        (false, _) => (Verdict::Broken, bad),
        (true, false) => (Verdict::NotShown, unknown),
        (true, true) => (Verdict::Kept, good),
    };
    Finding { domain, verdict, proof: texts.join(", ") }
}

fn errno(errno: Option<i32>) -> String {
    match errno {
        Some(0) | None => "it ended badly".to_owned(),
        Some(number) => text::os_error(&io::Error::from_raw_os_error(number)),
    }
}

/// A new directory that no profile allows and that the agent's user can reach: not below /tmp, which agents have for
/// themselves, nor /run, where often nothing can be executed.
fn place() -> Option<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")).filter(|_| !root);
    let fixed = ["/var/lib", "/var/cache", "/srv"].map(PathBuf::from);
    let name = format!("agentctl-doctor-{}", std::process::id());
    cache.into_iter().chain(home).chain(fixed).map(|base| base.join(&name)).find(|path| {
        // The cache of a person who has never had one.
        let parent = path.parent().filter(|parent| !parent.exists() && !root);
        parent.is_none_or(|parent| fs::create_dir_all(parent).is_ok()) && fs::create_dir(path).is_ok()
    })
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// What a canary printed; lines that are not its own are left out.
fn read(bytes: &[u8]) -> Vec<Tried> {
    String::from_utf8_lossy(bytes).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Reads an agent's stream to its end.
fn collect(stream: OwnedFd) -> io::Result<Ran> {
    let watch = Stopwatch::start();
    let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), None);
    let mut decoder = Decoder::new();
    let mut file = File::from(stream);
    let mut bytes = [0; 16 * 1024];
    while status.is_none() {
        let left = PATIENCE.saturating_sub(watch.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)], Some(&left))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let read = io::Read::read(&mut file, &mut bytes)?;
        if read == 0 {
            break;
        }
        decoder.push(&bytes[..read]);
        while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            match frame {
                Frame::Stdout(bytes) => out.extend(bytes),
                Frame::Stderr(bytes) => err.extend(bytes),
                Frame::Notice(text) => err.extend(text.bytes()),
                Frame::Exit(exit) => status = Some(exit),
                _ => {}
            }
        }
    }
    Ok(Ran { tried: read(&out), errors: String::from_utf8_lossy(&err).into_owned(), status })
}

/// CPU time used once the daemon says that the budget is spent and the time stands still.
fn spin_until_spent(client: &mut Client, name: &str) -> Result<u64, Failure> {
    let params = || AgentParams { agent: name.to_owned() };
    let watch = Stopwatch::start();
    let mut before = None;
    loop {
        let view: BudgetView = client.call(&Method::BudgetShow(params()))?;
        if view.exhausted && before == Some(view.cpu_spent_ns) {
            return Ok(view.cpu_spent_ns);
        }
        if watch.elapsed() > PATIENCE {
            let agent: AgentView = client.call(&Method::AgentShow(params()))?;
            let message =
                format!("the budget was not spent in {} s; the canary is {}", PATIENCE.as_secs(), agent.phase);
            return Err(Failure::new(Exit::Failed, message));
        }
        before = view.exhausted.then_some(view.cpu_spent_ns);
        std::thread::sleep(Duration::from_millis(if view.exhausted { 200 } else { 10 }));
    }
}

fn kill(client: &mut Client, name: &str) -> Result<(), Failure> {
    let params = SignalParams { agent: name.to_owned(), signal: None };
    client.call::<AgentView>(&Method::AgentSignal(params))?;
    Ok(())
}
