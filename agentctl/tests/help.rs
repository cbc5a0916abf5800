//! The help of every command, as a person sees it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use insta::assert_snapshot;
use support::Fake;

#[test]
fn every_command_helps() {
    let fake = Fake::silent();
    assert_snapshot!("agentctl", fake.run(&["--help"]));
    for command in
        ["spawn", "attach", "logs", "wait", "ps", "inspect", "pause", "resume", "kill", "why", "audit", "doctor"]
    {
        assert_snapshot!(command, fake.run(&[command, "--help"]));
    }
    for (group, commands) in [("budget", &["show", "topup"][..]), ("profile", &["list", "show", "check"])] {
        assert_snapshot!(group, fake.run(&[group, "-h"]));
        for command in commands {
            assert_snapshot!(format!("{group}-{command}"), fake.run(&[group, command, "-h"]));
        }
    }
    assert_snapshot!("completions", fake.run(&["completions", "-h"]));
    assert_snapshot!("man", fake.run(&["man", "-h"]));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let fake = Fake::silent();
    assert_eq!(fake.run(&["man", "--dir", "man"]), "── stderr\n── exit 0");
    let mut pages: Vec<String> = std::fs::read_dir(fake.dir.join("man"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    assert_snapshot!("manual", pages.join("\n"));
}

#[test]
fn completions_do_not_speak_of_what_is_hidden() {
    let fake = Fake::silent();
    for shell in ["bash", "zsh", "fish"] {
        let script = fake.run(&["completions", shell]);
        assert!(script.contains("spawn") && script.contains("topup"), "{shell}");
        assert!(!script.contains("canary"), "{shell}");
    }
}
