//! What goes wrong: the shape on the terminal and the exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::process::Stdio;

use insta::assert_snapshot;
use serde_json::{Value, json};
use support::{Answer, Fake, agent};

#[test]
fn a_daemon_that_does_not_run_is_said_with_the_command_that_starts_it() {
    let fake = Fake::silent();
    let said = fake.run(&["ps"]).replace("systemctl start agentd", "agentd &");
    assert_snapshot!("no-daemon", said);
    for command in [&["spawn", "--", "true"][..], &["doctor"], &["why"], &["audit", "-f"], &["attach", "x"]] {
        assert!(fake.run(command).ends_with("── exit 4"), "{command:?}");
    }
    // A socket that nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(fake.socket()).unwrap());
    assert!(fake.run(&["ps"]).ends_with("── exit 4"));
}

fn error(code: i32) -> Value {
    json!({"code": code, "message": "cannot start agent optimizer", "data": {
        "causes": ["this host cannot enforce mem: no memory controller is delegated", "cgroup.controllers has \u{1b}[1mcpu"],
        "hint": "agentctl spawn --degraded memory -- make"}})
}

#[test]
fn what_the_daemon_refuses_is_told_with_causes_and_hint() {
    let fake = Fake::new(|_, params| Answer::Error(error(params["agent"].as_str().unwrap().parse().unwrap())));
    assert_snapshot!("refused", fake.run(&["inspect", "3"]));
    let code = |agent: &str| fake.command(&["pause", "--", agent]).output().unwrap().status.code().unwrap();
    assert_eq!(["1", "2", "3", "70", "-32601", "-32600"].map(code), [1, 2, 3, 70, 1, 70]);
}

#[test]
fn a_spawn_that_did_not_start_is_125_only_in_the_foreground() {
    for (code, foreground, detached) in
        [(1, 125, 1), (2, 2, 2), (3, 3, 3), (70, 70, 70), (126, 126, 126), (127, 127, 127)]
    {
        let fake = Fake::new(move |_, _| Answer::Error(error(code)));
        let status = |words: &[&str]| fake.command(words).output().unwrap().status.code();
        assert_eq!(status(&["spawn", "--", "make"]), Some(foreground));
        assert_eq!(status(&["spawn", "--detach", "--", "make"]), Some(detached));
    }
}

#[test]
fn a_daemon_that_misbehaves_is_named() {
    let said = |answer: fn() -> Answer| {
        let fake = Fake::new(move |_, _| answer());
        fake.run(&["ps"]).replace("systemctl start agentd", "agentd &")
    };
    let all = [
        said(|| Answer::HangUp),
        said(|| Answer::Raw("hello\n".into())),
        said(|| Answer::Result(json!({"not": "a list"}))),
        said(|| Answer::Raw("{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":[]}\n".into())),
        said(|| Answer::Raw("x".repeat((1 << 20) + 2))),
    ];
    assert_snapshot!("misbehaving", all.join("\n\n"));
}

#[test]
fn wrong_usage_is_told_in_our_shape() {
    let fake = Fake::silent();
    std::fs::write(fake.dir.join("mine.toml"), "").unwrap();
    let all = [
        &["spawn"][..],
        &["spawn", "--budgt", "cpu:1h", "--", "make"],
        &["spawn", "--budget", "gpu:1h", "--", "make"],
        &["spawn", "--budget", "cpu:1y", "--", "make"],
        &["spawn", "--name", "Opt", "--", "make"],
        &["spawn", "--allow", "raed:/srv", "--", "make"],
        &["spawn", "--allow", "/srv", "--", "make"],
        &["spawn", "--net", "example.org:80", "--", "make"],
        &["spawn", "--env", "X", "--", "make"],
        &["spawn", "--degraded", "everything", "--", "make"],
        &["spawn", "--require", "lsm", "--degraded", "files", "--", "make"],
        &["spawn", "--cwd", "nowhere", "--", "make"],
        &["spawn", "--cwd", "mine.toml", "--", "make"],
        &["spawn", "--profile", "./nothing.toml", "--", "make"],
        &["spawn", "--profile", "mine.toml", "--", "make"],
        &["kill", "--signal", "NOPE", "optimizer"],
        &["why", "first"],
        &["wat"],
        &["logs", "--json", "optimizer"],
    ];
    let told = all.map(|words| format!("$ agentctl {}\n{}", words.join(" "), fake.run(words)));
    for told in &told {
        assert!(told.ends_with("── exit 2"), "{told}");
    }
    assert_snapshot!("usage", told.join("\n\n"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let many: Vec<Value> = (0..1000).map(|n| agent(json!({"agent": n}))).collect();
    let fake = Fake::new(move |_, _| Answer::Result(many.clone().into()));
    for words in [&["ps"][..], &["ps", "--json"], &["--help"], &["completions", "bash"], &["profile", "show", "base"]] {
        let mut child = fake.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{words:?}"
        );
    }
}

#[test]
fn colour_is_for_terminals_and_can_be_forced_off() {
    let fake = Fake::new(|_, _| Answer::Result(json!([agent(json!({}))])));
    assert!(!fake.run(&["ps"]).contains('\u{1b}'), "no colour into a pipe");
    let forced = |words: &[&str]| {
        let output = fake.command(words).env("CLICOLOR_FORCE", "1").output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains('\u{1b}')
    };
    assert!(forced(&["ps"]));
    assert!(!forced(&["ps", "--no-color"]));
    let output = fake.command(&["ps"]).env("CLICOLOR_FORCE", "0").env("NO_COLOR", "1").output().unwrap();
    assert!(!output.stdout.contains(&0x1b));
}
