//! What a world was, it stays: a bundle that was written once comes out with the state that it had then.

use std::process::Command;

/// Both are described in the README beside them.
const BUNDLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vm-tests/fixtures/counter.world");
const STATE: &str = include_str!("../../vm-tests/fixtures/counter.state");

/// Replays the bundle with a claim about its state; gives the status and what was said.
fn replay(claimed: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentd"));
    let output = command.args(["replay", BUNDLE, "--state", claimed]).output().expect("agentd can be started");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn an_old_bundle_comes_out_as_it_was() {
    let (status, said) = replay(STATE.trim());
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains(STATE.trim()), "{said}");
}

#[test]
fn another_claim_about_it_is_refused() {
    let (status, said) = replay(&"0".repeat(64));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("was claimed to be"), "{said}");
}
