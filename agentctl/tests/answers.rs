//! What commands print, for people and as JSON.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use insta::assert_snapshot;
use serde_json::{Value, json};
use support::{Answer, Fake, agent, denial, record};

fn agents() -> Value {
    json!([
        agent(json!({})),
        agent(json!({
            "agent": 8, "name": "agent-8", "phase": "exhausted", "argv": ["sh", "-c", "while :; do :; done"],
            "cpu_spent_ns": 300_100_000u64, "cpu_limit_ns": 300_000_000u64, "denials": 3, "last_denial": 41,
            "tiers": [{"domain": "files", "tier": "landlock", "reason": "bpf is not in the lsm= list"}],
            "gaps": ["denial-events", "deny-inside-allow"],
        })),
        agent(json!({
            "agent": 9, "name": "evil", "phase": "exited", "argv": ["\u{1b}]0;owned\u{7}", "it's"], "cpu_limit_ns": null,
            "status": {"signal": {"signal": 9}},
        })),
    ])
}

#[test]
fn ps_is_a_table_or_objects() {
    let fake = Fake::new(|_, _| Answer::Result(agents()));
    assert_snapshot!("ps", fake.run(&["ps", "--all"]));
    assert_snapshot!("ps-json", fake.run(&["ps", "--json"]));
    assert_eq!(fake.asked("agent.list"), [json!({"all": true}), json!({"all": false})]);
}

#[test]
fn no_agents_is_not_a_table() {
    let fake = Fake::new(|_, _| Answer::Result(json!([])));
    assert_snapshot!("ps-none", fake.run(&["ps"]));
    assert_eq!(fake.run(&["ps", "--quiet"]), "── stderr\n── exit 0");
    assert_eq!(fake.run(&["ps", "--json"]), "── stderr\n── exit 0");
}

#[test]
fn inspect_shows_rules_and_where_they_were_written() {
    let fake = Fake::new(|_, _| {
        Answer::Result(agent(json!({
            "denials": 3, "last_denial": 41, "gaps": ["denial-events"],
            "detail": {
                "terminal": {"pty": {"rows": 24, "columns": 80}},
                "budget": {"cpu": 3_600_000_000_000u64, "memory": 4_294_967_296u64, "pids": null},
                "paths": [
                    {"path": "/usr", "allow": "read,exec", "deny": "", "optional": false,
                     "origin": {"profile": {"name": "base", "line": 14}}},
                    {"path": "**/.ssh", "allow": "", "deny": "read,write,exec,create,delete", "optional": false,
                     "origin": {"command_line": {"option": "--deny all:**/.ssh"}}},
                ],
                "nets": [{"addr": [0,0,0,0,0,0,0,0,0,0,255,255,127,0,0,0], "prefix": 104, "first_port": 8080, "last_port": 8080,
                          "ops": {"connect": true, "bind": false, "tcp": true, "udp": false}, "origin": "built_in"}],
            }
        })))
    });
    assert_snapshot!("inspect", fake.run(&["inspect", "optimizer"]));
    assert_eq!(fake.asked("agent.show"), [json!({"agent": "optimizer"})]);
}

fn budget(name: &str, spent: u64, exhausted: bool) -> Value {
    json!({"agent": 7, "name": name, "cpu_spent_ns": spent, "cpu_limit_ns": 300_000_000u64, "exhausted": exhausted,
           "limits": {"cpu": 300_000_000u64, "memory": 536_870_912u64, "pids": 64}})
}

#[test]
fn budgets_are_shown_to_the_millisecond() {
    let fake = Fake::new(|method, params| {
        Answer::Result(match (method, params["agent"].as_str()) {
            ("agent.list", _) => agents(),
            ("budget.topup", _) => budget("optimizer", 300_412_345, false),
            (_, Some("8")) => budget("agent-8", 300_412_345, true),
            _ => budget("optimizer", 1_234_567, false),
        })
    });
    assert_snapshot!("budget-show", fake.run(&["budget", "show"]));
    assert_snapshot!("budget-show-json", fake.run(&["budget", "show", "--json", "8"]));
    assert_snapshot!("budget-topup", fake.run(&["budget", "topup", "optimizer", "cpu:10m"]));
    assert_eq!(fake.asked("budget.topup"), [json!({"agent": "optimizer", "budget": "cpu:10m"})]);
}

/// One record of each kind.
fn journal() -> Vec<Value> {
    let user = json!({"user": {"uid": 1000}});
    let events = [
        json!({"event": "daemon_started", "version": "0.1.0", "boot_id": "b", "kernel": "6.12.8", "tiers": {"rows": [
            ["files", "lsm", null], ["guard", "lsm", null], ["network", "cgroup_bpf", null], ["memory", "nothing", "no controller"]]}}),
        json!({"event": "agent_requested", "agent": 7, "name": "optimizer", "by": user, "spec": {
            "argv": ["make", "-j", "a b"], "env": [], "cwd": "/w", "uid": 1000, "gid": 1000, "groups": [],
            "terminal": "pipes", "profile": "coding", "paths": [], "nets": [],
            "budget": {"cpu": 300_000_000u64, "memory": null, "pids": 64}, "accepted_gaps": [], "tmp_directories": []}}),
        json!({"event": "agent_started", "agent": 7, "init_pid": 4242, "shim_pid": 4241, "cgroup_id": 99, "slot": 1,
               "kernel_rules": 61, "gaps": ["unix-sockets"], "boot_id": "b"}),
        json!({"event": "agent_failed", "agent": 7, "reason": "no such program: mkae"}),
        denial("/home/zoe/.ssh/id_ed25519"),
        denial("/tmp/\u{1b}[2J\nfake"),
        json!({"event": "access_denied", "agent": 7, "denial": {"hook": "connect", "reason": "nothing_found", "right": "",
            "object": {"address": {"text": "tcp 10.0.0.1:443"}}, "pid": 4301, "comm": "curl", "mono_ns": 9}}),
        json!({"event": "access_denied", "agent": 7, "denial": {"hook": "ptrace", "reason": "stranger", "right": "",
            "object": {"other": {"detail": 1}}, "pid": 4302, "comm": "gdb", "mono_ns": 9}}),
        json!({"event": "access_denied", "agent": 7, "denial": {"hook": "signal", "reason": "stranger", "right": "",
            "object": {"other": {"detail": 9}}, "pid": 4302, "comm": "sh", "mono_ns": 9}}),
        json!({"event": "access_denied", "agent": 7, "denial": {"hook": "bpf", "reason": "guard", "right": "",
            "object": {"other": {"detail": 5}}, "pid": 4302, "comm": "bpftool", "mono_ns": 9}}),
        json!({"event": "budget_warned", "agent": 7, "spent": 240_000_000u64, "limit": 300_000_000u64}),
        json!({"event": "budget_exhausted", "agent": 7, "spent": 300_100_000u64, "limit": 300_000_000u64}),
        json!({"event": "budget_topped_up", "agent": 7, "added": 600_000_000_000u64, "limit": 600_300_000_000u64, "by": user}),
        json!({"event": "budget_killed", "agent": 7, "spent": 5_000_000_000u64}),
        json!({"event": "agent_paused", "agent": 7, "by": "daemon"}),
        json!({"event": "agent_resumed", "agent": 7, "by": {"agent": {"agent": 3}}}),
        json!({"event": "agent_signalled", "agent": 7, "signal": 15, "by": user}),
        json!({"event": "agent_signalled", "agent": 7, "signal": null, "by": user}),
        json!({"event": "agent_exited", "agent": 7, "status": {"code": {"code": 2}}, "spent": 1_500_000_000u64}),
        json!({"event": "agent_lost", "agent": 7, "reason": "the host was restarted"}),
        json!({"event": "agent_adopted", "agent": 7}),
        json!({"event": "program_run", "agent": 7, "pid": 4300, "path": "/usr/bin/git"}),
        json!({"event": "denials_suppressed", "agent": 7, "count": 99_000}),
    ];
    let named = |(seq, event): (u64, Value)| record(seq, event.get("agent").map(|_| "optimizer"), event);
    (1..).zip(events).map(named).collect()
}

/// Answers `audit.read` as the daemon does, with replies of at most ten records.
fn read(params: &Value) -> Answer {
    let after = params["after"].as_u64().unwrap_or(0);
    let mut records: Vec<Value> = journal().into_iter().filter(|r| r["seq"].as_u64() > Some(after)).collect();
    if let Some(last) = params["last"].as_u64() {
        records.drain(..records.len().saturating_sub(last as usize));
    }
    records.truncate(10);
    Answer::Result(records.into())
}

#[test]
fn audit_tells_every_kind_of_event() {
    let fake = Fake::new(|_, params| read(params));
    let told = fake.run(&["audit"]);
    assert_eq!(told.lines().count(), journal().len() + 2, "{told}");
    assert_snapshot!("audit", told);
    assert_snapshot!("audit-json", fake.run(&["audit", "--json", "-n", "2", "--agent", "optimizer"]));
    assert_eq!(fake.asked("audit.read").last().unwrap()["agent"], "optimizer");
    assert_eq!(fake.run(&["audit", "-n", "all"]), fake.run(&["audit"]));
    assert_eq!(fake.run(&["audit", "--after", "23"]), "── stderr\n── exit 0");
}

#[test]
fn audit_follows_without_gap_or_repetition() {
    let fake = Fake::new(|method, params| match method {
        "audit.read" => read(params),
        _ => {
            let journal = journal();
            // One record that was already read, two that came since; then the daemon stops.
            Answer::Series(
                json!([journal[22]]),
                vec![
                    record(24, Some("optimizer"), denial("/etc/shadow")),
                    record(25, Some("optimizer"), json!({"event": "agent_adopted", "agent": 7})),
                ],
            )
        }
    });
    let mut child =
        fake.command(&["audit", "--follow", "-n", "1"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let seen: Vec<String> = lines.by_ref().take(3).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_snapshot!("audit-follow", seen.join("\n"));
    assert_eq!(fake.asked("audit.follow")[0]["after"], 23);
}

#[test]
fn why_walks_from_a_refusal_to_whoever_wrote_the_rule() {
    let fake = Fake::new(|_, _| {
        let journal = journal();
        Answer::Result(json!({
            "record": journal[4], "what": "agent optimizer may not read /home/zoe/.ssh/id_ed25519",
            "because": ["rule 12 denies read on **/.ssh", "rule 12 was written in profile base, line 120"],
            "hint": "agentctl spawn --allow read:/home/zoe/.ssh/id_ed25519 …",
            "chain": [journal[4], journal[2], journal[1]],
        }))
    });
    assert_snapshot!("why", fake.run(&["why", "--last"]));
    assert_snapshot!("why-json", fake.run(&["why", "5", "--json"]));
    fake.run(&["why", "--agent", "optimizer"]);
    let none = Value::Null;
    assert_eq!(
        fake.asked("why"),
        [
            json!({"record": none, "agent": none}),
            json!({"record": 5, "agent": none}),
            json!({"record": none, "agent": "optimizer"}),
        ]
    );
}

#[test]
fn verbs_are_quiet_and_say_what_they_would_do() {
    let fake = Fake::new(|_, _| Answer::Result(agent(json!({}))));
    for verb in ["pause", "resume", "kill"] {
        assert_eq!(fake.run(&[verb, "optimizer", "8"]), "── stderr\n── exit 0");
    }
    assert_eq!(fake.asked("agent.pause"), [json!({"agent": "optimizer"}), json!({"agent": "8"})]);
    assert_snapshot!("kill-dry-run", fake.run(&["kill", "--dry-run", "optimizer"]));
    assert_snapshot!("kill-signal-dry-run", fake.run(&["kill", "--dry-run", "-s", "term", "optimizer"]));
    assert_eq!(fake.asked("agent.signal").len(), 2, "a dry run sends nothing");
    fake.run(&["kill", "--signal", "SIGHUP", "optimizer"]);
    assert_eq!(fake.asked("agent.signal")[2], json!({"agent": "optimizer", "signal": 1}));
}

#[test]
fn logs_are_copied_and_followed_to_the_end() {
    let dir = std::env::temp_dir().join(format!("agentctl-log-{}", std::process::id()));
    std::fs::write(&dir, "first\n\u{1b}[1msecond").unwrap();
    let path = dir.clone();
    let fake = Fake::new(move |method, _| match method {
        "agent.logs" => Answer::File(json!({"ended": false}), std::fs::File::open(&path).unwrap().into()),
        _ => {
            let mut log = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            std::io::Write::write_all(&mut log, b"\nlast\n").unwrap();
            Answer::Result(json!({"agent": 7, "status": {"code": {"code": 0}}, "reason": null}))
        }
    });
    assert_eq!(fake.run(&["logs", "optimizer"]), "first\n\u{1b}[1msecond── stderr\n── exit 0");
    assert_eq!(fake.run(&["logs", "-f", "optimizer"]), "first\n\u{1b}[1msecond\nlast\n── stderr\n── exit 0");
    std::fs::remove_file(dir).unwrap();
}

#[test]
fn profiles_need_no_daemon() {
    let fake = Fake::silent();
    let profiles = fake.dir.join("profiles");
    std::fs::create_dir(&profiles).unwrap();
    std::fs::write(profiles.join("strict.toml"), "name = \"strict\"\nabout = \"less\"\nextends = [\"base\"]\n")
        .unwrap();
    std::fs::write(profiles.join("lost.toml"), "name = \"lost\"\nextends = [\"codign\"]\n").unwrap();
    let bad = "name = \"bad\"\n[[files]]\npath = \"/srv\"\nalow = \"read\"\n\n[budget]\ndefault = \"cpu:1x\"\n";
    std::fs::write(fake.dir.join("bad.toml"), bad).unwrap();
    let run = |words: &[&str]| fake.run(&[&["profile", "--dir", "profiles"], words].concat());
    assert_snapshot!("profile-list-host", run(&["list"]));
    assert_snapshot!("profile-show-strict", run(&["show", "strict"]));
    assert_snapshot!("profile-show-unknown", run(&["show", "strct"]));
    assert_snapshot!("profile-check-good", run(&["check", "profiles/strict.toml"]));
    assert_snapshot!("profile-check-bad", run(&["check", "bad.toml", "profiles/lost.toml"]));
    assert_snapshot!("profile-check-bad-json", run(&["check", "--json", "bad.toml"]));
}
