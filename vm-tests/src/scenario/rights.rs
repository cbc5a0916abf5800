//! Rights that are lent to a running agent: they count at once, end by the kernel's clock, and are taken back also from what
//! is open; with the daemon, and without it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::clock::wait_for;
use crate::harness::{
    Agent, FileSystem, Options, Output, Test, Tree, agentctl, agentctl_as, json, signal_daemon, start_daemon,
    stop_daemon,
};

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(test: &mut Test) -> Result<()> {
    for on in FileSystem::ALL {
        lent(test, on)?;
    }
    together(test)?;
    kept(test)?;
    another_of_that_number(test)?;
    ends(test)?;
    by_a_world(test)?;
    without_the_daemon(test)?;
    refused(test)
}

/// Lends, and gives the capability's number.
fn grant(words: &[&str]) -> Result<u64> {
    let view = json(&[&["capability", "grant"], words].concat())?.pop().context("grant says nothing")?;
    view["capability"].as_u64().with_context(|| format!("no number in {view}"))
}

fn revoke(capability: u64) -> Result<Output> {
    agentctl(&["capability", "revoke", &capability.to_string()])
}

fn state(capability: u64) -> Result<Value> {
    let view = json(&["capability", "inspect", &capability.to_string()])?.pop().context("inspect says nothing")?;
    Ok(view["state"].clone())
}

/// What an agent may do now, one claim a line.
fn may(test: &mut Test, agent: &mut Agent, about: &str, claims: &[(&[&str], bool)]) -> Result<()> {
    for (words, wanted) in claims {
        let outcome = agent.attempt(words)?;
        let refused = outcome.outcome == "EACCES" || outcome.outcome == "EPERM";
        test.check(if *wanted { outcome.is_ok() } else { refused }, || {
            format!("{about}: {words:?} gives {} {}", outcome.outcome, outcome.detail)
        });
    }
    Ok(())
}

fn tree(on: FileSystem) -> Result<Tree> {
    let tree = Tree::new("rights", on)?;
    tree.directory("dir/sub")?;
    for file in ["dir/sub/f", "single", "other", "denied"] {
        tree.file(file, "content\n")?;
    }
    Ok(tree)
}

/// A file and a directory: not before, now, no more; and what was opened meanwhile as well.
fn lent(test: &mut Test, on: FileSystem) -> Result<()> {
    let tree = tree(on)?;
    let [single, other, denied, file] = ["single", "other", "denied", "dir/sub/f"].map(|name| tree.path(name));
    let new = tree.path("dir/sub/new");
    let name = format!("lent-{on:?}").to_lowercase();
    let options = Options::base().directory(tree.path("")).deny("write", &denied);
    let mut agent = Agent::start(&name, &options)?;
    let about = |when: &str| format!("{on:?}, {when}");
    may(test, &mut agent, &about("before"), &[(&["read", &single], false), (&["read", &file], false)])?;

    let on_file = grant(&[&name, "--path", "single", "--ops", "read,write"])?;
    let on_directory = grant(&[&name, "--path", &tree.path("dir"), "--ops", "read,write,create", "--duration", "1h"])?;
    let on_denied = grant(&[&name, "--path", &denied, "--ops", "read,write"])?;
    may(
        test,
        &mut agent,
        &about("lent"),
        &[
            (&["hold-written", "file", &single], true),
            (&["read-held", "file"], true),
            (&["write-held", "file"], true),
            (&["hold-map", "map", &single], true),
            (&["hold-written", "late", &single], true),
            (&["hold-written", "below", &file], true),
            (&["create", &new], true),
            (&["list", &tree.path("dir")], true),
            (&["read", &denied], true),
            // No more than that.
            (&["write", &denied], false),
            (&["unlink", &single], false),
            (&["unlink", &new], false),
            (&["exec", &single], false),
            (&["read", &other], false),
            (&["create", &tree.path("elsewhere")], false),
        ],
    )?;
    // The right is on the file, not on its name.
    let moved = tree.path("moved");
    fs::rename(&single, &moved)?;
    may(test, &mut agent, &about("renamed"), &[(&["read", &moved], true), (&["write-held", "file"], true)])?;
    fs::rename(&other, &single)?;
    may(test, &mut agent, &about("another file of that name"), &[(&["read", &single], false)])?;

    revoke(on_file)?.ok("capability revoke")?;
    may(
        test,
        &mut agent,
        &about("taken back"),
        &[
            (&["read-held", "file"], false),
            (&["write-held", "file"], false),
            (&["truncate-held", "file"], false),
            (&["reopen-held", "file"], false),
            (&["map-held", "late"], false),
            (&["read", &moved], false),
            // What was mapped stays mapped; the manual says so.
            (&["store-held", "map"], true),
            // The other ones count on.
            (&["read-held", "below"], true),
            (&["write-held", "below"], true),
            (&["read", &denied], true),
        ],
    )?;
    explained(test, &agent, on_file)?;
    revoke(on_directory)?.ok("capability revoke")?;
    revoke(on_denied)?.ok("capability revoke")?;
    may(
        test,
        &mut agent,
        &about("all taken back"),
        &[
            (&["read-held", "below"], false),
            (&["create", &tree.path("dir/newer")], false),
            (&["list", &tree.path("dir")], false),
            (&["read", &denied], false),
            // What no capability gave is not touched by any of this.
            (&["read", "/etc/passwd"], true),
            (&["write", "/dev/null"], true),
        ],
    )?;
    Ok(())
}

/// The record of a refusal that this capability is the reason of.
fn refusal(agent: &Agent, capability: u64, because: &str) -> Result<u64> {
    let wanted = serde_json::json!({ "capability": { "capability": capability, "because": because } });
    wait_for(&format!("a refusal because capability {capability} is {because}"), PATIENCE, || {
        let refusals = agent.refusals()?;
        let found = refusals.iter().rfind(|record| record["denial"]["reason"] == wanted);
        Ok(found.and_then(|record| record["seq"].as_u64()))
    })
}

/// A refusal names the capability, and what to type.
fn explained(test: &mut Test, agent: &Agent, capability: u64) -> Result<()> {
    let record = refusal(agent, capability, "revoked")?;
    let why = agentctl(&["why", &record.to_string()])?.ok("why")?;
    test.contains("why", &why, &format!("capability {capability}, which would allow it, was taken back"));
    test.contains("why", &why, "agentctl capability grant lent-");
    Ok(())
}

/// Several on one object: each gives what it gives, and ends by itself; there is room for so many, not for one more, and room
/// again when one is over.
fn together(test: &mut Test) -> Result<()> {
    let tree = tree(FileSystem::Overlay)?;
    let file = tree.path("single");
    let mut agent = Agent::start("together", &Options::base().directory(tree.path("")))?;
    let lend = |ops: &str| grant(&["together", "--path", "single", "--ops", ops]);
    let (reads, writes) = (lend("read")?, lend("read,write")?);
    let both: &[(&[&str], bool)] = &[(&["read", &file], true), (&["write", &file], true)];
    may(test, &mut agent, "two on one file", both)?;
    revoke(writes)?.ok("capability revoke")?;
    may(test, &mut agent, "one of two", &[(&["read", &file], true), (&["write", &file], false)])?;
    let more = [lend("read")?, lend("read")?, lend("read")?];
    let before = json(&["capability", "list"])?.len();
    let full = agentctl(&["capability", "grant", "together", "--path", "single", "--ops", "read"])?;
    test.same("a fifth capability on one file: status", full.status, 1);
    test.contains("a fifth capability on one file", &full.stderr, "4 capabilities lend rights on one object");
    test.same("capabilities after that", json(&["capability", "list"])?.len(), before);
    revoke(more[0])?.ok("capability revoke")?;
    let again = lend("write")?;
    may(test, &mut agent, "in the place of one that is over", both)?;
    for capability in [reads, more[1], more[2], again] {
        revoke(capability)?.ok("capability revoke")?;
    }
    may(test, &mut agent, "none", &[(&["read", &file], false), (&["write", &file], false)])
}

/// Who is lent everything on a file moves it to no place of his own, where it would stay his.
fn kept(test: &mut Test) -> Result<()> {
    for on in FileSystem::ALL {
        let tree = tree(on)?;
        tree.directory("own")?;
        let name = format!("keeper-{on:?}").to_lowercase();
        let options = Options::base().directory(tree.path("")).allow("all", tree.path("own"));
        let mut agent = Agent::start(&name, &options)?;
        let capability = grant(&[&name, "--path", "dir", "--ops", "all"])?;
        let [file, linked, moved] = ["dir/sub/f", "own/linked", "own/moved"].map(|name| tree.path(name));
        let (renamed, beside) = (tree.path("dir/g"), tree.path("dir/sub/beside"));
        may(
            test,
            &mut agent,
            &format!("{on:?}, lent all"),
            &[
                (&["write", &file], true),
                (&["link", &file, &linked], false),
                (&["rename", &file, &moved], false),
                (&["link", &file, &beside], true),
                (&["unlink", &beside], true),
                // Within what is lent, and out of what is his own into it.
                (&["rename", &file, &renamed], true),
                (&["create", &tree.path("own/new")], true),
                (&["rename", &renamed, &file], true),
            ],
        )?;
        revoke(capability)?.ok("capability revoke")?;
        let gone: &[(&[&str], bool)] = &[(&["read", &file], false), (&["write", &tree.path("own/new")], true)];
        may(test, &mut agent, &format!("{on:?}, nothing lent"), gone)?;
    }
    Ok(())
}

/// A file that is gone leaves its number to another one, which is lent to nobody; nor is one whose inode was forgotten.
fn another_of_that_number(test: &mut Test) -> Result<()> {
    for on in FileSystem::ALL {
        let tree = tree(on)?;
        let single = tree.path("single");
        let name = format!("number-{on:?}").to_lowercase();
        let mut agent = Agent::start(&name, &Options::base().directory(tree.path("")))?;
        grant(&[&name, "--path", "single", "--ops", "read"])?;
        fs::write("/proc/sys/vm/drop_caches", "2")?;
        may(test, &mut agent, &format!("{on:?}, inodes forgotten"), &[(&["read", &single], true)])?;
        fs::remove_file(&single)?;
        fs::write("/proc/sys/vm/drop_caches", "2")?;
        let others: Vec<String> =
            (0..200).map(|number| tree.file(&format!("n{number}"), "secret")).collect::<Result<_>>()?;
        for other in &others {
            let outcome = agent.attempt(&["read", other])?;
            test.check(outcome.outcome == "EACCES", || format!("{on:?}: {other} is read: {}", outcome.detail));
        }
    }
    Ok(())
}

/// The kernel ends it, whether anybody looks or not.
fn ends(test: &mut Test) -> Result<()> {
    let tree = tree(FileSystem::Overlay)?;
    let file = tree.path("single");
    let mut agent = Agent::start("ends", &Options::base().directory(tree.path("")))?;
    let capability = grant(&["ends", "--path", "single", "--ops", "read", "--duration", "4s"])?;
    may(test, &mut agent, "in its time", &[(&["hold", "file", &file], true), (&["read-held", "file"], true)])?;
    test.same("state in its time", state(capability)?, "in force".into());
    signal_daemon(Signal::SIGSTOP)?;
    let ended = wait_for("the end of a capability", PATIENCE, || {
        Ok((!agent.attempt(&["read-held", "file"])?.is_ok()).then_some(()))
    });
    let opened = agent.attempt(&["read", &file]);
    signal_daemon(Signal::SIGCONT)?;
    ended?;
    test.same("open after its end", opened?.outcome.as_str(), "EACCES");
    test.same("state after its end", state(capability)?, "ended".into());
    refusal(&agent, capability, "ended").map(drop)
}

/// Killed in between: what counted counts, what was taken back does not, and the next daemon knows both.
fn without_the_daemon(test: &mut Test) -> Result<()> {
    let tree = tree(FileSystem::Overlay)?;
    let [single, other] = ["single", "other"].map(|name| tree.path(name));
    let mut agent = Agent::start("orphan", &Options::base().directory(tree.path("")))?;
    let stays = grant(&["orphan", "--path", "single", "--ops", "read"])?;
    let goes = grant(&["orphan", "--path", "other", "--ops", "read"])?;
    may(test, &mut agent, "before", &[(&["hold", "other", &other], true)])?;
    revoke(goes)?.ok("capability revoke")?;
    stop_daemon(Signal::SIGKILL)?;
    let claims: &[(&[&str], bool)] =
        &[(&["read", &single], true), (&["read", &other], false), (&["read-held", "other"], false)];
    may(test, &mut agent, "daemon killed", claims)?;
    start_daemon()?;
    may(test, &mut agent, "next daemon", claims)?;
    test.same("state of the one that stays", state(stays)?, "in force".into());
    test.same("state of the one that goes", state(goes)?, "revoked".into());
    revoke(stays)?.ok("capability revoke")?;
    may(test, &mut agent, "taken back by the next daemon", &[(&["read", &single], false)])?;
    let again = grant(&["orphan", "--path", "single", "--ops", "read"])?;
    test.check(again > stays.max(goes), || format!("capability {again} after {stays} and {goes}"));
    may(test, &mut agent, "lent by the next daemon", &[(&["read", &single], true)])
}

/// A world may take back what its own capability covers, and nothing else.
fn by_a_world(test: &mut Test) -> Result<()> {
    let tree = tree(FileSystem::Overlay)?;
    let file = tree.path("single");
    let mut covered = Agent::start("covered", &Options::base().directory(tree.path("")))?;
    let mut other = Agent::start("uncovered", &Options::base().directory(tree.path("")))?;
    let [on_covered, on_other] =
        ["covered", "uncovered"].map(|name| grant(&[name, "--path", "single", "--ops", "read"]));
    let (on_covered, on_other) = (on_covered?, on_other?);
    let definitions = tree.file("taker.json", &taker().to_string())?;
    agentctl(&["world", "init", "taker"])?.ok("world init")?;
    let view = json(&["world", "propose", "taker", &definitions])?.pop().context("no proposal")?;
    let proposal = view["proposal"].to_string();
    for verb in ["shadow", "approve", "apply"] {
        agentctl(&["world", verb, "taker", &proposal])?.ok(verb)?;
    }
    for (capability, done) in [(on_covered, "done"), (on_other, "failed")] {
        let value = serde_json::json!({ "capability": capability }).to_string();
        let sent = agentctl(&["world", "event", "send", "taker", "t/over@1", &value])?.ok("event")?;
        let after = sent.trim().trim_start_matches("record ").to_owned();
        let receipt = wait_for("the receipt", PATIENCE, || {
            let records = json(&["world", "journal", "tail", "taker", "-n", "20"])?;
            let settled = records.into_iter().filter(|record| record["entry"]["entry"] == "settled");
            let since = |record: &Value| record["seq"].as_u64() > after.parse().ok();
            Ok(settled.filter(since).find_map(|record| record["seq"].as_u64()))
        })?;
        let receipt =
            json(&["world", "receipt", "verify", "taker", &receipt.to_string()])?.pop().context("no receipt")?;
        test.same(&format!("receipt for capability {capability}"), receipt["status"].as_str(), Some(done));
    }
    may(test, &mut covered, "taken back by a world", &[(&["read", &file], false)])?;
    may(test, &mut other, "not that world's to take", &[(&["read", &file], true)])
}

/// A world that takes back the capability with a number, from agents of one name.
fn taker() -> Value {
    let params = serde_json::json!({ "record": [{ "get": "input.capability" }, { "text": "the world says so" }] });
    let take = serde_json::json!({ "effect": "sys/host.revoke@1", "capability": "t/take@1", "params": params });
    serde_json::json!({
        "definitions": [
            { "defschema": "t/over@1", "type": { "record": [["capability", "nat"]] } },
            { "defplan": "t/plan@1", "input": "t/over@1",
              "steps": [
                  { "id": "take", "do": { "emit": take } },
                  { "id": "taken", "do": { "await_receipt": { "of": "take" } } },
              ],
              "edges": [{ "from": "take", "to": "taken" }] },
            { "defcap": "t/take@1", "effect": "sys/host.revoke@1", "holders": ["t/plan@1"],
              "scope": { "agents": { "names": ["covered"] } } },
            { "defpolicy": "t/rules@1", "rules": [{ "when": { "effect": "sys/host.revoke@1" }, "decide": "allow" }],
              "proposals": { "approvals": 1, "proposer_counts": true, "shadow": true } },
        ],
        "triggers": [{ "event": "t/over@1", "plan": "t/plan@1" }],
        "policy": "t/rules@1",
    })
}

/// What cannot be lent is named, and nothing changes.
fn refused(test: &mut Test) -> Result<()> {
    let tree = tree(FileSystem::Overlay)?;
    std::os::unix::fs::symlink("single", tree.path("link"))?;
    fs::hard_link(tree.path("other"), tree.path("twice"))?;
    let mut agent = Agent::start("picky", &Options::base().directory(tree.path("")))?;
    let before = json(&["capability", "list"])?.len();
    for (words, status, part) in [
        (["picky", "--path", "absent", "--ops", "read"].as_slice(), 1, "does not exist"),
        (&["picky", "--path", "link", "--ops", "read"], 1, "symbolic link"),
        (&["picky", "--path", "single", "--ops", "raed"], 2, "not a right"),
        (&["picky", "--path", "single", "--ops", "read", "--duration", "10ms"], 2, "a second or longer"),
        (&["picky", "--path", "single", "--ops", "read", "--duration", "soon"], 2, "soon"),
        (&["nobody", "--path", "single", "--ops", "read"], 1, "there is no agent nobody"),
        (&["picky", "--ops", "read"], 2, "--path"),
        (&["picky", "--path", "/dev/null", "--ops", "read"], 1, "neither a file nor a directory"),
        (&["picky", "--path", "twice", "--ops", "read"], 1, "hard links"),
        (&["picky", "--path", "/var/lib/agentd/journal.sqlite", "--ops", "read"], 1, "agentd's own"),
    ] {
        let output = agentctl(&[&["capability", "grant"], words].concat())?;
        test.same(&format!("{words:?}: status"), output.status, status);
        test.contains(&format!("{words:?}"), &output.stderr, part);
    }
    let stranger = agentctl_as(65534, &["capability", "grant", "picky", "--path", "single", "--ops", "read"])?;
    test.check(stranger.status != 0, || "somebody who is no operator lends rights".into());
    test.same("capabilities after refusals", json(&["capability", "list"])?.len(), before);
    may(test, &mut agent, "after refusals", &[(&["read", &tree.path("single")], false)])?;

    let capability = grant(&["picky", "--path", "single", "--ops", "read"])?;
    let text = capability.to_string();
    let page = agentctl(&["capability", "inspect", &text])?.ok("capability inspect")?;
    for part in ["in force", "signed with", "read on", "inode"] {
        test.contains("capability inspect", &page, part);
    }
    revoke(capability)?.ok("capability revoke")?;
    for (number, part) in [(text.as_str(), "was taken back already"), ("4000000", "there is no capability 4000000")] {
        let output = agentctl(&["capability", "revoke", number])?;
        test.same(&format!("revoke {number}: status"), output.status, 1);
        test.contains(&format!("revoke {number}"), &output.stderr, part);
    }
    agentctl(&["kill", "picky"])?.ok("kill")?;
    agentctl(&["wait", "picky"])?;
    let ended = agentctl(&["capability", "grant", "picky", "--path", "single", "--ops", "read"])?;
    test.same("a grant to an agent that has ended: status", ended.status, 1);
    test.contains("a grant to an agent that has ended", &ended.stderr, "does not run");
    Ok(())
}
