//! Times the launcher alone against bubblewrap with the same namespaces: `launch_try AGENTD [ROUNDS [RULES]]`, as root.
//!
//! No daemon, no journal, no kernel rules: what is measured is from the request to the exit frame at the client.

#![allow(clippy::disallowed_methods, reason = "a stopwatch")]
#![allow(clippy::print_stdout, reason = "its only output")]

use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use agentd::launch::{Confinement, Landlock, LaunchRequest, Pace, Place, Seccomp, ShimEvent, Spare, launch};
use agentd_model::{AgentNumber, AgentSpec, Budget, Origin, PathRule, Rights, Terminal};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let program = PathBuf::from(args.next().ok_or("launch_try AGENTD [ROUNDS [RULES]]")?);
    let rounds: usize = args.next().map_or(Ok(200), |n| n.parse())?;
    let rules: usize = args.next().map_or(Ok(0), |n| n.parse())?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    let root = if unified.join("cgroup.procs").exists() { unified } else { Path::new("/sys/fs/cgroup") };
    let cgroup = root.join(format!("launch-try-{}", std::process::id()));
    let dir = std::env::temp_dir().join(format!("launch-try-{}", std::process::id()));
    fs::create_dir(&cgroup)?;
    fs::create_dir(&dir)?;
    let files = fs::read_dir("/usr/bin")?.flatten().map(|entry| entry.path());
    let rule = |path: PathBuf| PathRule {
        path: path.display().to_string(),
        allow: Rights::READ,
        deny: Rights::NONE,
        optional: true,
        origin: Origin::BuiltIn,
    };
    let (state_dir, runtime_dir) = (dir.clone(), dir.clone());
    let place = Place { agent: AgentNumber(1), cgroup: cgroup.clone(), state_dir, runtime_dir };
    let mut request = LaunchRequest {
        name: "try".parse()?,
        spec: AgentSpec {
            argv: vec!["/bin/true".into()],
            env: vec![],
            cwd: "/".into(),
            uid: 65534,
            gid: 65534,
            groups: vec![],
            terminal: Terminal::Pipes,
            profile: String::new(),
            paths: files.take(rules).map(rule).collect(),
            nets: vec![],
            budget: Budget::default(),
            accepted_gaps: vec![],
            tmp_directories: vec![],
        },
        stdin: false,
        hide: vec![],
        confinement: Confinement { landlock: Landlock::Off, seccomp: Seccomp::Nothing },
    };
    let mut series: Vec<(&str, Vec<f64>)> =
        ["bare", "bwrap", "launch", "launch-spare", "to-gate-spare", "launch-spare-pty", "launch-spare-fallback"]
            .map(|name| (name, vec![]))
            .into();
    let mut spare = Some(Spare::start(&program, &place)?);
    for _ in 0..rounds {
        for (name, times) in &mut series {
            request.spec.terminal =
                if name.ends_with("pty") { Terminal::Pty { rows: 24, columns: 80 } } else { Terminal::Pipes };
            let (landlock, seccomp) = match name.ends_with("fallback") {
                true => (Landlock::On, Seccomp::Fallback),
                false => (Landlock::Off, Seccomp::Nothing),
            };
            let mut fallback = request.clone();
            fallback.confinement = Confinement { landlock, seccomp };
            if landlock == Landlock::On {
                fallback.spec.paths.extend(
                    ["/usr", "/lib", "/lib64", "/bin", "/etc"]
                        .map(|path| PathRule { allow: Rights::READ.union(Rights::EXEC), ..rule(path.into()) }),
                );
            }
            let start = Instant::now();
            let end = match *name {
                "bare" => run("/bin/true", &[])?,
                "bwrap" => run("bwrap", &BWRAP)?,
                _ => {
                    let spare = if *name == "launch" { None } else { spare.take() };
                    let mut gate = match spare {
                        Some(spare) => spare.launch(&fallback, |_| ())?.wait()?,
                        None => launch(&program, &place, &fallback)?,
                    };
                    let gate_time = Instant::now();
                    let client = gate.attach(Pace::AgentWaits)?;
                    let (mut shim, _) = gate.open()?;
                    let mut bytes = Vec::new();
                    let _ = UnixStream::from(client).read_to_end(&mut bytes);
                    let end = Instant::now();
                    assert_eq!(bytes, [6, 2, 0, 0, 0, 0, 0], "an exit frame with status 0");
                    shim.taken()?;
                    let mut watch = shim.watch()?;
                    while !matches!(watch.next().transpose()?, Some(ShimEvent::Gone) | None) {}
                    while watch.next().transpose()?.is_some() {}
                    shim.reap()?;
                    if name.starts_with("to-gate") { gate_time } else { end }
                }
            };
            times.push((end - start).as_secs_f64() * 1e3);
            spare = match spare.take() {
                Some(spare) => Some(spare),
                None => Some(Spare::start(&program, &place)?),
            };
            // Let the spare come to its wait.
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }
    for (name, mut times) in series {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get(((times.len() - 1) as f64 * share) as usize).copied().unwrap_or(0.0);
        println!("{name:24} p50 {:6.2} ms   p99 {:6.2} ms   min {:6.2} ms", at(0.5), at(0.99), at(0.0));
    }
    fs::remove_dir(&cgroup)?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

const BWRAP: [&str; 10] =
    ["--unshare-pid", "--unshare-ipc", "--dev-bind", "/", "/", "--proc", "/proc", "--tmpfs", "/tmp", "/bin/true"];

fn run(program: &str, args: &[&str]) -> Result<Instant, Box<dyn Error>> {
    Command::new(program).args(args).stdout(Stdio::null()).status()?;
    Ok(Instant::now())
}
