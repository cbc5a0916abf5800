//! The doctor with a daemon that keeps its promises, and with one that does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use agentd_model::ExitStatus;
use agentd_protocol::attach::Frame;
use serde_json::{Value, json};
use support::{Answer, Fake, agent};

fn tier(domain: &str, tier: &str, reason: Option<&str>) -> Value {
    json!({"domain": domain, "tier": tier, "reason": reason})
}

/// What an agent under rules would print.
fn inside(words: &[Value], keeps: bool) -> (String, ExitStatus) {
    let say = |what: &str, forbidden: bool, errno: Option<i32>, amount: u64| {
        json!({"v": 1, "what": what, "forbidden": forbidden, "errno": errno, "amount": amount}).to_string() + "\n"
    };
    let refused = |errno| keeps.then_some(errno);
    let lines = match words[2].as_str().unwrap() {
        "try" => vec![
            say("open", true, Some(13), 0),
            say("exec", true, refused(13), 0),
            say("connect", true, refused(1), 0),
            say("open", false, None, 0),
            say("exec", false, None, 0),
            say("connect", false, (!keeps).then_some(111), 0),
            say("userns", true, Some(1), 0),
        ],
        "threads" => vec![say("threads", false, None, if keeps { 14 } else { 64 })],
        "memory" if keeps => return (String::new(), ExitStatus::Signal { signal: 9 }),
        "memory" => vec![say("memory", false, None, 192)],
        other => panic!("no canary says {other}"),
    };
    (lines.concat(), ExitStatus::Code { code: 0 })
}

fn daemon(tiers: Vec<Value>, keeps: bool) -> Fake {
    let looked = AtomicBool::new(false);
    Fake::new(move |method, params| match method {
        "daemon.info" => {
            Answer::Result(json!({"version": "0.1.0", "protocol": 1, "pid": 1, "kernel": "6.12.8", "tiers": tiers,
            "agents": 0, "journal_seq": 1, "journal_head": "00"}))
        }
        "agent.spawn" => {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let words = params["argv"].as_array().unwrap();
            assert!(std::path::Path::new(words[0].as_str().unwrap()).is_file(), "the canary's program is there");
            if words[2] != "spin" {
                let (text, status) = inside(words, keeps);
                let mut bytes = Vec::new();
                Frame::Stdout(text.into_bytes()).encode(&mut bytes);
                Frame::Exit(status).encode(&mut bytes);
                ours.write_all(&bytes).unwrap();
            }
            Answer::File(json!({"agent": 7, "name": "agent-7", "gaps": []}), OwnedFd::from(theirs))
        }
        "budget.show" => {
            let spent = if keeps { 103_400_000u64 } else { 900_000_000 };
            let exhausted = looked.swap(true, Ordering::Relaxed);
            Answer::Result(json!({"agent": 7, "name": "agent-7", "cpu_spent_ns": spent, "cpu_limit_ns": 100_000_000,
                "exhausted": exhausted, "limits": {"cpu": 50_000_000, "memory": null, "pids": null}}))
        }
        "agent.signal" => Answer::Result(agent(json!({}))),
        other => panic!("the doctor does not ask {other}"),
    })
}

/// Whether this host lets an ordinary process make a user namespace is its own affair.
fn without_guard(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("guard") && !line.contains("\"guard\"")).collect::<Vec<_>>().join("\n")
}

fn all() -> Vec<Value> {
    vec![
        tier("files", "lsm", None),
        tier("guard", "lsm", None),
        tier("network", "cgroup-bpf", None),
        tier("cpu", "tracepoint", None),
        tier("mem", "controller", None),
        tier("pids", "controller", None),
    ]
}

#[test]
fn promises_that_are_kept_are_proven() {
    let fake = daemon(all(), true);
    insta::assert_snapshot!("kept", without_guard(&fake.run(&["doctor"])));
    insta::assert_snapshot!("kept-json", without_guard(&fake.run(&["doctor", "--json"])));
    let left = std::fs::read_dir(&fake.dir).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(left, 0, "nothing of the canary stays");
    let spawned = fake.asked("agent.spawn");
    assert!(spawned.iter().all(|s| s["profile"] == json!({"name": "base"})));
    assert_eq!(fake.asked("agent.signal").len(), spawned.len(), "no canary runs on");
}

#[test]
fn promises_that_are_not_kept_are_named() {
    let fake = daemon(all(), false);
    insta::assert_snapshot!("broken", without_guard(&fake.run(&["doctor"])));
}

#[test]
fn a_lesser_host_is_told_how_to_get_better() {
    let tiers = vec![
        tier("files", "landlock", Some("bpf is not in the lsm= list of this boot (lockdown,capability,yama)")),
        tier("cpu", "polling", Some("no BTF of the kernel at /sys/kernel/btf/vmlinux")),
        tier("mem", "nothing", Some("no memory controller is delegated")),
    ];
    insta::assert_snapshot!("lesser", daemon(tiers, true).run(&["doctor"]));
}
