//! The daemon, the shim, the client die at any moment: no agent escapes, none is lost, and what was recorded stays.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::wait_for;
use crate::harness::{
    Bench, Detached, Expect, FileSystem, Options, Test, Tree, agentctl, daemon_pid, json, program, start_daemon,
    stop_daemon,
};

const PATIENCE: Duration = Duration::from_secs(60);
const JOURNAL: &str = "/var/lib/agentd/journal.sqlite";

pub(super) fn run(test: &mut Test) -> Result<()> {
    refusals_hold(test)?;
    ended_meanwhile(test)?;
    spent_meanwhile(test)?;
    shim(test)?;
    client(test)?;
    second(test)?;
    damaged(test)?;
    torn(test)?;
    full(test)
}

/// The daemon is killed while an agent tries what it may not; nothing gives way, and the next daemon takes over.
fn refusals_hold(test: &mut Test) -> Result<()> {
    let tree = Tree::new("death", FileSystem::Overlay)?;
    tree.file("ok/a", "content\n")?;
    tree.file("no/a", "content\n")?;
    tree.program("no/true", "/usr/bin/true")?;
    let options = Options::base().allow("all", tree.path("ok")).net("127.0.0.1:7777");
    let mut bench = Bench::new("death", tree, &options)?;
    let all = |test: &mut Test, bench: &mut Bench, when: &str| -> Result<()> {
        for (attempt, expect) in [
            ("read @no/a", Expect::Refused("EACCES")),
            ("exec @no/true", Expect::Refused("EACCES")),
            ("unlink @no/a", Expect::Refused("EACCES")),
            ("connect tcp 127.0.0.1:7778", Expect::Refused("EPERM")),
            ("unshare user", Expect::Refused("EPERM")),
            ("read @ok/a", Expect::Says("content")),
            ("exec /usr/bin/true", Expect::Says("exit 0")),
            ("connect tcp 127.0.0.1:7777", Expect::Ok),
        ] {
            bench.expect(test, when, attempt, expect)?;
        }
        Ok(())
    };
    all(test, &mut bench, "before")?;
    let denials = bench.agent.view()?["denials"].as_u64().unwrap_or(0);
    stop_daemon(Signal::SIGKILL)?;
    all(test, &mut bench, "without a daemon")?;
    let output = agentctl(&["ps"])?;
    test.same("ps without a daemon", output.status, 4);
    test.contains("ps without a daemon", &output.stderr, "hint:");
    let new = agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--", "true"])?;
    test.same("spawn without a daemon", new.status, 4);

    let _daemon = start_daemon()?;
    let view = bench.agent.view()?;
    test.same("phase after the restart", view["phase"].as_str(), Some("running"));
    wait_for("the refusals of the time between to be recorded", PATIENCE, || {
        Ok((bench.agent.view()?["denials"].as_u64() >= Some(denials + 5)).then_some(()))
    })?;
    let events = json(&["audit", "--agent", "death", "-n", "all"])?;
    test.check(events.iter().any(|record| record["event"] == "agent_adopted"), || "it was not adopted".into());
    all(test, &mut bench, "after the restart")?;
    wait_for("a new refusal", PATIENCE, || {
        Ok((bench.agent.view()?["denials"].as_u64() >= Some(denials + 10)).then_some(()))
    })?;
    let why = json(&["why", "--agent", "death"])?.into_iter().next().context("no why")?;
    test.contains("why after the restart", &why["what"].to_string(), "namespace");
    agentctl(&["pause", "death"])?.ok("pause after the restart")?;
    agentctl(&["resume", "death"])?.ok("resume after the restart")?;

    // An orderly end is no different.
    stop_daemon(Signal::SIGTERM)?;
    all(test, &mut bench, "after an orderly end of the daemon")?;
    let _daemon = start_daemon()?;
    all(test, &mut bench, "after the second restart")?;
    // Killed in the middle of starts, again and again.
    for _ in 0..3 {
        stop_daemon(Signal::SIGKILL)?;
        bench.expect(test, "between restarts", "read @no/a", Expect::Refused("EACCES"))?;
        drop(start_daemon()?);
    }
    test.same(
        "phase after five restarts",
        bench.agent.view()?["phase"].as_str().map(String::from),
        Some("running".into()),
    );
    let status = bench.agent.place().finish()?;
    test.same("its status reaches the client that outlived five daemons", status, 0);
    Ok(())
}

/// It ends while there is no daemon: its status is known to the next.
fn ended_meanwhile(test: &mut Test) -> Result<()> {
    let tree = Tree::new("meanwhile", FileSystem::Overlay)?;
    let options = Options::base().allow("all", tree.path("")).directory(tree.path(""));
    let agent = Detached::start(
        "meanwhile",
        &options,
        &["sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; echo said; exit 7"],
    )?;
    agent.wait_phase("running")?;
    let init = agent.view()?["init_pid"].as_i64().context("no init")?;
    stop_daemon(Signal::SIGKILL)?;
    tree.file("go", "")?;
    wait_for("its end", PATIENCE, || Ok((!fs::exists(format!("/proc/{init}"))?).then_some(())))?;
    let _daemon = start_daemon()?;
    test.same("status of one that ended meanwhile", agentctl(&["wait", "meanwhile"])?.status, 7);
    test.same("its log", agentctl(&["logs", "meanwhile"])?.stdout.as_str(), "said\n");
    Ok(())
}

/// It spends its budget while there is no daemon: the kernel kills it at the end of the grace, and the ledger is kept.
fn spent_meanwhile(test: &mut Test) -> Result<()> {
    let program = crate::harness::own_program()?;
    let options = Options::base().word("--budget", "cpu:2s");
    let agent = Detached::start("ledger", &options, &[&program, "burn", "threads", "1"])?;
    agent.wait_phase("running")?;
    stop_daemon(Signal::SIGKILL)?;
    let _daemon = start_daemon()?;
    let view = wait_for("the end of its budget", PATIENCE, || {
        let view = agent.view()?;
        Ok(["exhausted", "exited"].iter().any(|phase| view["phase"] == *phase).then_some(view))
    })?;
    test.check(view["cpu_spent_ns"].as_u64() >= Some(2_000_000_000), || {
        format!("spent after the restart: {}", view["cpu_spent_ns"])
    });
    Ok(())
}

/// With its shim an agent ends: nobody would hold the files that its rules name.
fn shim(test: &mut Test) -> Result<()> {
    let agent = Detached::start("orphan", &Options::base(), &["sleep", "1000"])?;
    agent.wait_phase("running")?;
    let (init, shim) = parents(&agent)?;
    kill(Pid::from_raw(shim), Signal::SIGKILL)?;
    wait_for("the end of the agent", PATIENCE, || Ok((!fs::exists(format!("/proc/{init}"))?).then_some(())))?;
    let view = agent.wait_phase("lost")?;
    test.check(view["reason"].as_str().is_some_and(|reason| !reason.is_empty()), || {
        format!("no reason is given: {view}")
    });
    let waited = agentctl(&["wait", "orphan"])?;
    test.same("wait for a lost agent", waited.status, 1);

    // And without a daemon too.
    let agent = Detached::start("orphan2", &Options::base(), &["sleep", "1000"])?;
    agent.wait_phase("running")?;
    let (init, shim) = parents(&agent)?;
    stop_daemon(Signal::SIGKILL)?;
    kill(Pid::from_raw(shim), Signal::SIGKILL)?;
    wait_for("the end of the agent", PATIENCE, || Ok((!fs::exists(format!("/proc/{init}"))?).then_some(())))?;
    let _daemon = start_daemon()?;
    agent.wait_phase("lost")?;
    Ok(())
}

/// Process ids of an agent's init and shim.
fn parents(agent: &Detached) -> Result<(i64, i32)> {
    let init = agent.view()?["init_pid"].as_i64().context("no init")?;
    let status = fs::read_to_string(format!("/proc/{init}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?;
    Ok((init, parent.trim().parse()?))
}

/// Without its client an agent runs on.
fn client(test: &mut Test) -> Result<()> {
    let tree = Tree::new("client", FileSystem::Overlay)?;
    tree.file("no/a", "content\n")?;
    let options = Options::base().directory(tree.path(""));
    let mut command = options.command("clientless");
    command.args(["--", "sh", "-c", "echo begins; while :; do sleep 0.1; done"]);
    let mut place = crate::harness::Place::start(&mut command)?;
    place.line(PATIENCE)?;
    kill(Pid::from_raw(place.pid()), Signal::SIGKILL)?;
    drop(place);
    let view = crate::harness::view("clientless")?;
    test.same("phase after its client was killed", view["phase"].as_str(), Some("running"));
    agentctl(&["kill", "clientless"])?.ok("kill")?;
    test.same("status", agentctl(&["wait", "clientless"])?.status, 137);
    Ok(())
}

/// One daemon at a time.
fn second(test: &mut Test) -> Result<()> {
    let pid = daemon_pid()?;
    let output = program(&mut Command::new("/usr/bin/agentd"))?;
    test.same("a second daemon", output.status, 1);
    test.contains("a second daemon", &output.stderr, &format!("another agentd is running as process {pid}"));
    test.same("the first still answers", agentctl(&["ps"])?.status, 0);
    let output = program(Command::new("/usr/bin/agentd").arg("--unload"))?;
    test.same("--unload while a daemon runs", output.status, 1);
    let output = program(Command::new("/usr/bin/agentd").arg("--frobnicate"))?;
    test.same("an unknown option", output.status, 2);
    Ok(())
}

fn sqlite(script: &str) -> Result<()> {
    let text = format!("import sqlite3\nc = sqlite3.connect({JOURNAL:?})\n{script}\nc.commit()\nc.close()\n");
    program(Command::new("python3").args(["-c", &text]))?.ok("python3").map(drop)
}

/// Runs `then` on a journal that was changed behind the daemon's back, and puts the old one back.
fn with_changed_journal(change: &str, then: impl FnOnce() -> Result<()>) -> Result<()> {
    stop_daemon(Signal::SIGTERM)?;
    // One file: what is in the log goes into the database.
    sqlite("c.execute('PRAGMA wal_checkpoint(TRUNCATE)')")?;
    let kept = fs::read(JOURNAL)?;
    let done = sqlite(change).and_then(|()| then());
    for rest in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{JOURNAL}{rest}"));
    }
    fs::write(JOURNAL, kept)?;
    drop(start_daemon()?);
    done
}

/// A record that was acknowledged and no longer verifies: refused, and named.
fn damaged(test: &mut Test) -> Result<()> {
    let cases = [
        (
            "a changed record",
            "c.execute(\"UPDATE record SET bytes = CAST(bytes || x'00' AS BLOB) WHERE seq = 5\")",
            "5",
        ),
        ("a record that is gone", "c.execute('DELETE FROM record WHERE seq = 6')", "6"),
        ("the last record gone", "c.execute('DELETE FROM record WHERE seq = (SELECT max(seq) FROM record)')", "record"),
        (
            "two records exchanged",
            "a, b = [c.execute('SELECT bytes FROM record WHERE seq = ?', (n,)).fetchone()[0] for n in (3, 4)]\nc.execute('UPDATE record SET bytes = ? WHERE seq = 3', (b,))",
            "3",
        ),
    ];
    for (about, change, named) in cases {
        let mut said = None;
        with_changed_journal(change, || {
            let before = fs::read(JOURNAL)?;
            let output = program(&mut Command::new("/usr/bin/agentd"))?;
            said = Some((output, fs::read(JOURNAL)? == before));
            Ok(())
        })?;
        let (output, untouched) = said.context("it did not run")?;
        test.same(&format!("{about}: status"), output.status, 1);
        test.contains(about, &output.stderr, "journal.sqlite");
        test.contains(about, &output.stderr, named);
        test.check(untouched, || format!("{about}: the journal was changed"));
    }
    test.same("after the journal was put back", agentctl(&["ps"])?.status, 0);
    Ok(())
}

/// The machine went down in the middle of a write that nobody was promised: it is cut, and told.
fn torn(test: &mut Test) -> Result<()> {
    let last = || -> Result<u64> {
        let records = json(&["audit", "-n", "1"])?;
        records.first().and_then(|record| record["seq"].as_u64()).context("no record")
    };
    let before = last()?;
    stop_daemon(Signal::SIGKILL)?;
    // The last frame again, as one that begins another transaction: right salts, and a checksum that is not of this place.
    let script = format!(
        "p = {JOURNAL:?} + '-wal'\nb = open(p, 'rb').read()\nassert len(b) > 4152, len(b)\nend = 32\n\
         while b[end + 8:end + 16] == b[16:24]: end += 4120\nassert end > 32\n\
         f = open(p, 'r+b')\nf.seek(end)\nf.write(b[32:32 + 2000])\n"
    );
    let appended = program(Command::new("python3").args(["-c", &script]))?;
    let log = fs::metadata("/var/log/agentd.log").map(|meta| meta.len()).unwrap_or(0) as usize;
    let _daemon = start_daemon()?;
    appended.ok("python3")?;
    let said = fs::read("/var/log/agentd.log")?;
    let said = String::from_utf8_lossy(&said[log.min(said.len())..]).into_owned();
    test.contains("the daemon's log after a torn write", &said, "unfinished write");
    test.check(last()? >= before, || "records were lost".into());
    Ok(())
}

/// No room on the disk: said, and nothing is begun that could not be written down.
fn full(test: &mut Test) -> Result<()> {
    let state = Tree::new("state", FileSystem::Tmpfs)?;
    let path = state.path("");
    program(Command::new("mount").args(["-o", "remount,size=1M", &path]))?.ok("mount")?;
    stop_daemon(Signal::SIGTERM)?;
    let mut daemon = Command::new("/usr/bin/agentd")
        .args(["--state", &path])
        .stderr(fs::OpenOptions::new().append(true).open("/var/log/agentd.log")?)
        .spawn()?;
    let done = on_a_full_disk(test, &state);
    kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM)?;
    daemon.wait()?;
    drop(start_daemon()?);
    done
}

fn on_a_full_disk(test: &mut Test, state: &Tree) -> Result<()> {
    wait_for("an answer", PATIENCE, || Ok((agentctl(&["ps"])?.status == 0).then_some(())))?;
    let first = agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--profile", "base", "--", "true"])?;
    test.same("spawn with room left", first.status, 0);
    program(Command::new("sh").args(["-c", &format!("cat /dev/zero >{}", state.path("filler"))]))?;
    let mut refused: Option<crate::harness::Output> = None;
    // The log of the database has some room of its own left.
    for _ in 0..100 {
        let output = agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--profile", "base", "--", "true"])?;
        if output.status != 0 {
            refused = Some(output);
            break;
        }
    }
    let output = refused.context("a full disk was never noticed")?;
    test.check(output.status == 1 || output.status == 125, || {
        format!("spawn on a full disk: status {}", output.status)
    });
    test.contains("spawn on a full disk", &output.stderr, "full");
    test.same("ps on a full disk", agentctl(&["ps"])?.status, 0);
    test.check(json(&["ps"])?.is_empty(), || "something was started that could not be written down".into());
    fs::remove_file(state.path("filler"))?;
    let again = agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--profile", "base", "--", "true"])?;
    test.check(again.status == 0, || {
        format!("spawn when there is room again: {} {}", again.status, again.stderr.trim())
    });
    Ok(())
}
