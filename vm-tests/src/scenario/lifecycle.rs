//! From the first instruction to the exit status: what a person at a shell sees.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::wait_for;
use crate::harness::{Detached, FileSystem, Options, Place, Test, Tree, agentctl, agentctl_as, json, program};

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(test: &mut Test) -> Result<()> {
    statuses(test)?;
    streams(test)?;
    terminal(test)?;
    detached(test)?;
    attached(test)?;
    names(test)?;
    strangers(test)?;
    mounted_just_now(test)?;
    views(test)?;
    nothing_stays(test)
}

fn spawn(words: &[&str]) -> Result<crate::harness::Output> {
    let mut all = vec!["spawn", "--user", "dev", "--profile", "base", "--cwd", "/srv", "--"];
    all.extend(words);
    agentctl(&all)
}

/// The agent's own status comes back, and env(1)'s where it never ran.
fn statuses(test: &mut Test) -> Result<()> {
    for (words, status) in [
        (["true"].as_slice(), 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["/no/such/program"], 127),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
        // Not executable by the rules, whatever its mode says.
        (&["/usr/lib/../../etc/skel/.profile"], 126),
    ] {
        let output = spawn(words)?;
        test.check(output.status == status, || {
            format!("{words:?}: status {} instead of {status}: {}", output.status, output.stderr.trim())
        });
    }
    let broken = agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--allow", "read:/srv/none", "--", "true"])?;
    test.same("status where it could not be started", broken.status, 125);
    Ok(())
}

/// Three pipes, each by itself; the environment of the profile and no more; no process beside its own.
fn streams(test: &mut Test) -> Result<()> {
    let output = spawn(&["sh", "-c", "echo out; echo err >&2; cat; exit 3"])?;
    test.same("standard output", output.stdout.as_str(), "out\n");
    test.contains("standard error", &output.stderr, "err\n");
    test.same("status", output.status, 3);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "seq 100000 | agentctl spawn --user dev --profile base --cwd /srv -- sha1sum; seq 100000 | sha1sum",
    ]);
    let piped = program(&mut command)?;
    let sums: Vec<&str> = piped.stdout.lines().collect();
    test.check(sums.len() == 2 && sums[0] == sums[1], || {
        format!("a long input arrives as it was: {sums:?} {:?}", piped.stderr)
    });
    let long = spawn(&["seq", "100000"])?;
    test.same("length of a long output", long.stdout.len(), 588_895);
    let mut command = Command::new("agentctl");
    command.args(["spawn", "--user", "dev", "--profile", "base", "--cwd", "/srv", "--", "env"]);
    let environment =
        program(command.env("SECRET_TOKEN", "x").env("LD_PRELOAD", "").env("SSH_AUTH_SOCK", "/x"))?.stdout;
    for name in ["SECRET_TOKEN", "LD_PRELOAD", "SSH_AUTH_SOCK"] {
        test.check(!environment.contains(name), || format!("{name} went into the agent"));
    }
    for line in ["HOME=/home/dev", "USER=dev"] {
        test.contains("the environment", &environment, line);
    }
    let processes = spawn(&["sh", "-c", "ls /proc | grep -c '^[0-9]'; echo $$; ls -A /tmp | wc -l"])?.stdout;
    let lines: Vec<&str> = processes.lines().collect();
    test.check(lines.first().and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n <= 5), || {
        format!("it sees {processes:?} processes")
    });
    test.same("files in its /tmp", lines.last().copied(), Some("0"));
    Ok(())
}

/// On a terminal it gets one of its own, of the same size.
fn terminal(test: &mut Test) -> Result<()> {
    let inner =
        "stty rows 33 cols 77; agentctl spawn --user dev --profile base --cwd /srv -- sh -c 'tty; stty size; exit 3'";
    let mut command = Command::new("script");
    let output = program(command.args(["-qec", inner, "/dev/null"]))?;
    test.contains("its terminal", &output.stdout, "/dev/pts/");
    test.contains("its size", &output.stdout, "33 77");
    test.same("status through a terminal", output.status, 3);
    Ok(())
}

fn waiting(tree: &Tree, name: &str, then: &str) -> Result<Detached> {
    let script = format!("echo begins; while [ ! -e go ]; do sleep 0.05; done; {then}");
    let options = Options::base().allow("all", tree.path("")).directory(tree.path(""));
    Detached::start(name, &options, &["sh", "-c", &script])
}

/// In nobody's foreground: paused, resumed, waited for, its log read while it runs and after.
fn detached(test: &mut Test) -> Result<()> {
    let tree = Tree::new("life", FileSystem::Overlay)?;
    let agent = waiting(&tree, "life", "echo ends; exit 5")?;
    agent.wait_phase("running")?;
    agentctl(&["pause", "life"])?.ok("pause")?;
    let cgroup = agent.cgroup()?;
    wait_for("it to be frozen", PATIENCE, || {
        Ok(fs::read_to_string(format!("{cgroup}/cgroup.events"))?.contains("frozen 1").then_some(()))
    })?;
    test.same("phase", agent.view()?["phase"].as_str().map(String::from), Some("paused".into()));
    tree.file("go", "")?;
    agentctl(&["resume", "life"])?.ok("resume")?;
    test.same("status of wait", agentctl(&["wait", "life"])?.status, 5);
    test.same("status of wait, again", agentctl(&["wait", "life"])?.status, 5);
    test.same("its log", agentctl(&["logs", "life"])?.stdout.as_str(), "begins\nends\n");
    test.same("its log, followed", agentctl(&["logs", "--follow", "life"])?.stdout.as_str(), "begins\nends\n");
    let view = agent.view()?;
    test.same("phase at the end", view["phase"].as_str(), Some("exited"));
    for event in ["agent_requested", "agent_started", "agent_paused", "agent_resumed", "agent_exited"] {
        test.check(agent.events()?.iter().any(|found| found == event), || format!("no event {event}"));
    }
    for verb in ["pause", "resume", "kill", "attach"] {
        let output = agentctl(&[verb, "life"])?;
        test.check(output.status == 1, || format!("{verb} of an agent that has ended: {}", output.status));
    }

    let sleeper = Detached::start(
        "sleeper",
        &Options::base(),
        &["sh", "-c", "trap 'echo caught; exit 9' TERM; while :; do sleep 0.05; done"],
    )?;
    sleeper.wait_phase("running")?;
    let plan = agentctl(&["kill", "--dry-run", "sleeper"])?.ok("kill --dry-run")?;
    test.contains("what kill would do", &plan, "would kill everything");
    // The trap is set when the first sleep has begun.
    wait_for("its shell to sleep", PATIENCE, || {
        let count = fs::read_to_string(format!("{}/cgroup.procs", sleeper.cgroup()?))?.lines().count();
        Ok((count >= 3).then_some(()))
    })?;
    agentctl(&["kill", "--signal", "TERM", "sleeper"])?.ok("kill --signal")?;
    test.same("status after a signal that it answers", agentctl(&["wait", "sleeper"])?.status, 9);

    let frozen = Detached::start("frozen", &Options::base(), &["sleep", "1000"])?;
    frozen.wait_phase("running")?;
    agentctl(&["pause", "frozen"])?.ok("pause")?;
    agentctl(&["kill", "frozen"])?.ok("kill")?;
    test.same("status of one killed while frozen", agentctl(&["wait", "frozen"])?.status, 137);
    Ok(())
}

/// Two sit in front of one agent: both see what it prints, and how it ends.
fn attached(test: &mut Test) -> Result<()> {
    let tree = Tree::new("attached", FileSystem::Overlay)?;
    let options = Options::base().allow("all", tree.path("")).directory(tree.path(""));
    let script = "while [ ! -e go ]; do echo tick; sleep 0.05; done; seq 1000; exit 6";
    let agent = Detached::start("attached", &options, &["sh", "-c", script])?;
    agent.wait_phase("running")?;
    let attach = || Place::start(Command::new("agentctl").args(["attach", "attached"]));
    let mut clients = [attach()?, attach()?];
    for client in &mut clients {
        test.check(client.line(PATIENCE)?.is_some(), || "attach shows nothing of a running agent".into());
    }
    tree.file("go", "")?;
    for client in &mut clients {
        let mut last = String::new();
        while let Some(line) = client.line(PATIENCE)? {
            last = line;
        }
        test.same("the last line that attach shows", last.as_str(), "1000\n");
        test.same("status of attach", client.finish()?, 6);
    }
    Ok(())
}

/// Names: in use, free again, wrong; numbers; unknown ones; and who may ask.
fn names(test: &mut Test) -> Result<()> {
    let first = Detached::start("twice", &Options::base(), &["sleep", "1000"])?;
    let again = agentctl(&[
        "spawn",
        "--user",
        "dev",
        "--cwd",
        "/srv",
        "--profile",
        "base",
        "--name",
        "twice",
        "--detach",
        "--",
        "true",
    ])?;
    test.same("a name in use, detached", again.status, 1);
    test.contains("a name in use", &again.stderr, "twice is in use");
    let again =
        agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--profile", "base", "--name", "twice", "--", "true"])?;
    test.same("a name in use, in the foreground", again.status, 125);
    let number = first.view()?["agent"].as_u64().context("no number")?;
    let by_number = agentctl(&["inspect", &number.to_string()])?.ok("inspect by number")?;
    test.contains("inspect by number", &by_number, "twice");
    drop(first);
    test.same("wait after kill", agentctl(&["wait", "twice"])?.status, 137);
    let free =
        agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--profile", "base", "--name", "twice", "--", "true"])?;
    test.same("the name of one that has ended", free.status, 0);
    for name in ["Upper", "-x", "12", "a b"] {
        let output = agentctl(&["spawn", "--name", name, "--", "true"])?;
        test.same(&format!("the name {name:?}"), output.status, 2);
    }
    for words in [
        ["inspect", "nobody"],
        ["wait", "nobody"],
        ["kill", "nobody"],
        ["logs", "nobody"],
        ["attach", "nobody"],
        ["pause", "nobody"],
    ] {
        let output = agentctl(&words)?;
        test.same(&format!("{words:?}"), output.status, 1);
        test.contains(&format!("{words:?}"), &output.stderr, "there is no agent nobody");
    }
    // dev is an operator, nobody (65534) is not; and no operator becomes somebody else.
    test.same("ps as an operator", agentctl_as(1000, &["ps"])?.status, 0);
    test.same("ps as nobody", agentctl_as(65534, &["ps"])?.status, 3);
    let other = agentctl_as(1000, &["spawn", "--user", "root", "--cwd", "/srv", "--profile", "base", "--", "id"])?;
    test.check(other.status == 2 || other.status == 3, || {
        format!("an operator as root: status {}, {}", other.status, other.stdout)
    });
    let own = agentctl_as(1000, &["spawn", "--cwd", "/srv", "--profile", "base", "--", "id", "-u"])?;
    test.same("an operator's agent runs as the operator", own.stdout.trim(), "1000");
    let dedicated = agentctl(&["spawn", "--cwd", "/srv", "--profile", "base", "--", "id", "-u"])?;
    let uid = dedicated.stdout.trim().parse::<u32>().unwrap_or(0);
    test.check(uid > 65536, || format!("root's agent without a user runs as {uid}: {}", dedicated.stderr.trim()));
    Ok(())
}

/// What is printed as JSON: one object a line, with its version and what people build upon.
fn views(test: &mut Test) -> Result<()> {
    let agent = Detached::start(
        "viewed",
        &Options::base().word("--budget", "cpu:1h"),
        &["sh", "-c", "cat /home/dev/.profile; sleep 1000"],
    )?;
    agent.wait_phase("running")?;
    wait_for("a refusal", PATIENCE, || Ok((agent.view()?["denials"].as_u64() > Some(0)).then_some(())))?;
    let fields: [(&[&str], &[&str]); 6] = [
        (&["ps"], &["v", "agent", "name", "phase", "argv", "uid", "cpu_spent_ns", "cpu_limit_ns", "denials", "tiers"]),
        (&["inspect", "viewed"], &["v", "agent", "init_pid", "cgroup_id", "requested", "by", "detail", "last_denial"]),
        (&["why", "--agent", "viewed"], &["v", "what", "because", "record", "chain", "hint"]),
        (&["audit", "--agent", "viewed"], &["v", "seq", "hash", "stamp", "event"]),
        (&["budget", "show", "viewed"], &["v", "cpu_spent_ns", "cpu_limit_ns", "exhausted", "limits"]),
        (&["wait", "sleeper"], &["v", "agent", "status"]),
    ];
    for (words, fields) in fields {
        let objects = if words[0] == "wait" {
            let line = agentctl(&[words, &["--json"]].concat())?.stdout;
            vec![serde_json::from_str(&line).with_context(|| format!("{words:?} prints {line:?}"))?]
        } else {
            json(words)?
        };
        let object = objects
            .iter()
            .find(|object| words[0] != "ps" || object["name"] == "viewed")
            .context("nothing was printed")?;
        for field in fields {
            test.check(object.get(field).is_some(), || format!("{words:?} --json has no {field}: {object}"));
        }
    }
    let why = json(&["why", "--agent", "viewed"])?.into_iter().next().context("no why")?;
    test.contains("why", &why["what"].to_string(), "/home/dev/.profile");
    test.same("the refused right", why["record"]["denial"]["right"].as_str(), Some("read"));
    // The chain of hashes is whole and in order.
    let records = json(&["audit", "-n", "all"])?;
    let numbers: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
    test.check(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), || "the numbers of records have gaps".into());
    Ok(())
}

/// Agents that root starts at the same moment have nothing in common: neither user nor home.
fn strangers(test: &mut Test) -> Result<()> {
    let script = "for n in 1 2 3 4 5 6; do agentctl spawn -q --profile base --cwd /srv -- sh -c 'id -u; echo $HOME; touch $HOME/x && echo mine' & done; wait";
    let said = program(Command::new("sh").args(["-c", script]))?.ok("six agents at once")?;
    let of = |wanted: fn(&str) -> bool| said.lines().filter(|line| wanted(line)).collect::<Vec<_>>();
    let (users, homes) = (of(|line| line.parse::<u32>().is_ok()), of(|line| line.starts_with('/')));
    let distinct = |of: &[&str]| of.iter().collect::<BTreeSet<_>>().len();
    test.same("different users", (users.len(), distinct(&users)), (6, 6));
    test.same("different homes", (homes.len(), distinct(&homes)), (6, 6));
    test.same("homes of their own", of(|line| line == "mine").len(), 6);
    Ok(())
}

/// What the daemon has ready for the next agent knows nothing of mounts yet: the agent sees those of its own start.
fn mounted_just_now(test: &mut Test) -> Result<()> {
    spawn(&["true"])?.ok("an agent before the mount")?;
    // Long enough for the next one to be ready.
    std::thread::sleep(Duration::from_secs(2));
    let tree = Tree::new("mounted", FileSystem::Tmpfs)?;
    let file = tree.file("new", "fresh")?;
    let output = agentctl(&[
        "spawn",
        "--user",
        "dev",
        "--profile",
        "base",
        "--cwd",
        "/srv",
        "--allow",
        &format!("read:{}", tree.path("")),
        "--",
        "cat",
        &file,
    ])?;
    test.same("a file on a disk that was mounted just now", output.stdout.as_str(), "fresh");
    Ok(())
}

/// Agents that have ended leave no process, no cgroup, no socket.
fn nothing_stays(test: &mut Test) -> Result<()> {
    wait_for("every agent to end", PATIENCE, || Ok(json(&["ps"])?.is_empty().then_some(())))?;
    let agents = json(&["ps", "--all"])?;
    let numbers: Vec<u64> = agents.iter().filter_map(|agent| agent["agent"].as_u64()).collect();
    test.check(!numbers.is_empty(), || "no agent ever was".into());
    let left = || -> Vec<String> {
        let directories = |path: &str| {
            let all = fs::read_dir(path).into_iter().flatten().flatten().map(|item| item.path());
            let paths = all.filter(|path| path.is_dir()).map(|path| path.display().to_string());
            let (of_nobody, of_agents): (Vec<_>, Vec<_>) = paths.partition(|path| {
                let number = path.rsplit(['-', '/']).next().and_then(|number| number.parse::<u64>().ok());
                number.is_some_and(|number| !numbers.contains(&number))
            });
            // What the daemon has ready for the next agent has a number that no agent has had, not always the highest.
            if of_nobody.len() <= 1 { of_agents } else { [of_agents, of_nobody].concat() }
        };
        [directories("/sys/fs/cgroup/agentd"), directories("/run/agentd/agents")].concat()
    };
    let settled = wait_for("what agents leave behind to go", PATIENCE, || Ok(left().is_empty().then_some(())));
    test.check(settled.is_ok(), || format!("left behind: {:?}", left()));
    Ok(())
}
