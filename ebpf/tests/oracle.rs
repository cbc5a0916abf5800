//! The kernel programs and `agentd_policy::decide` answer alike, over generated cases.
//!
//! Runs the programs' own decision on this host through test-run; needs root and a kernel with BTF, not BPF LSM.

use agentd_abi::{WHY_EXPIRED, WHY_NAME, WHY_NOTHING_FOUND, WHY_RULE, WHY_TOO_DEEP, name_hash};
use agentd_ebpf::{Answer, Trial, TrialLevel};
use agentd_model::{AgentNumber, Rights};
use agentd_policy::decide::{DeniedBy, Level, Verdict, decide, full_rights};
use agentd_policy::generate::scene;

const AGENT: u32 = 7;
/// 25 questions each.
const SCENES: u64 = 800;

fn levels(levels: &[Level]) -> Vec<TrialLevel> {
    levels.iter().map(|level| TrialLevel { object: level.object, name: level.name.clone() }).collect()
}

/// The oracle's verdict in the terms of the kernel's report.
fn expected(verdict: Verdict) -> (u32, u32, u32) {
    let bits = |rights: Rights| rights.bits();
    match verdict {
        Verdict::Allowed => (0, 0, 0),
        Verdict::Denied { rights, rule, by: DeniedBy::Object } => (bits(rights), WHY_RULE, rule),
        Verdict::Denied { rights, rule, by: DeniedBy::Name } => (bits(rights), WHY_NAME, rule),
        Verdict::NothingFound { rights, expired: 0 } => (bits(rights), WHY_NOTHING_FOUND, 0),
        Verdict::NothingFound { rights, expired } => (bits(rights), WHY_EXPIRED, expired),
        Verdict::TooDeep { rights } => (bits(rights), WHY_TOO_DEEP, 0),
    }
}

#[test]
fn both_answer_alike() {
    let trial = Trial::load(false).unwrap();
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let now = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    let mut asked = 0;
    for seed in 0..SCENES {
        let scene = scene(seed, AgentNumber(AGENT), now);
        trial.clear_rules().unwrap();
        for (key, rule) in &scene.compiled.rules {
            trial.put_rule(key, rule).unwrap();
        }
        for (key, rule) in &scene.compiled.names {
            trial.put_name(key, rule).unwrap();
        }
        for question in &scene.questions {
            let chain = levels(&question.levels);
            let lengths = scene.compiled.name_lengths;
            let Answer { refused, reason, rule_id, .. } =
                trial.decide(AGENT, lengths, &chain, question.need.bits(), false).unwrap();
            let oracle = decide(&scene.compiled, &question.levels, question.need, now);
            assert_eq!((refused, reason, rule_id), expected(oracle), "seed {seed}: {question:?} oracle {oracle:?}");
            let whole = trial.decide(AGENT, lengths, &chain, Rights::ALL.bits(), true).unwrap();
            let full = full_rights(&scene.compiled, &question.levels, now);
            assert_eq!(whole.granted, full.bits(), "seed {seed}: all rights of {question:?}");
            asked += 1;
        }
    }
    assert!(asked >= 10_000, "only {asked} questions");
}

#[test]
fn names_hash_alike() {
    let trial = Trial::load(false).unwrap();
    for length in 0..=80usize {
        let name: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8 | 1).collect();
        assert_eq!(trial.hash_name(&name).unwrap(), name_hash(&name).unwrap_or(0), "a name of {length} bytes");
    }
}
