//! Each refusal, by an input that deserves it. `World::take` sees to it that nothing changes.

use agentd_air::{Change, MAX_PATCH_BYTES, NotApplicable};
use agentd_model::AgentNumber;

use super::*;

fn agent() -> Principal {
    Principal::Agent { agent: AgentNumber(3) }
}

#[test]
fn a_world_begins_once_and_first() {
    let begin = || Input::Begin { world: WorldId([2; 16]), name: "again".into(), key: signer().key() };
    assert_eq!(World::empty().take(begin()), Err(Refusal::Beginning));
    let nothing = State::default();
    assert!(nothing.accept(begin()).is_ok());
    assert_eq!(nothing.accept(paused(1, 1)), Err(Refusal::Beginning));
}

#[test]
fn events_need_a_schema_that_is_not_the_hosts_and_a_value_of_it() {
    let mut world = World::new();
    let record = || Value::Record(vec![Value::Bytes(vec![])]);
    assert_eq!(world.send("t/no@1", record(), None), Err(Refusal::UnknownSchema(name("t/no@1"))));
    assert_eq!(world.send("sys/receipt@1", record(), None), Err(Refusal::Reserved(name("sys/receipt@1"))));
    let wrong = world.send("t/do@1", Value::Record(vec![Value::Nat(1)]), None).unwrap_err();
    assert_eq!(wrong.to_string(), "the value is not a t/do@1: output: expected bytes, found nat");
    assert!(matches!(wrong, Refusal::Value { .. }));
}

#[test]
fn a_cell_that_the_sender_names_needs_a_key_of_its_type() {
    let mut world = World::new();
    let record = || Value::Record(vec![Value::Bytes(bytes(&Output::keep()))]);
    let refused = |refusal: Refusal| match refusal {
        Refusal::Key { module, wanted: "nat", why } if module == name("t/cells@1") => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(world.send("t/to@1", record(), None).unwrap_err()), "the event names none");
    let text = Value::Text("one".into());
    assert_eq!(refused(world.send("t/to@1", record(), Some(text)).unwrap_err()), "expected nat, found text");
    assert!(world.send("t/to@1", record(), Some(Value::Nat(1))).is_ok());
}

#[test]
fn a_record_of_the_host_is_taken_once_and_in_order() {
    let mut world = World::new();
    assert!(world.take(paused(1, 5)).is_ok());
    assert_eq!(world.take(paused(1, 5)), Err(Refusal::Seen(Seq(5))));
    assert_eq!(world.take(paused(1, 4)), Err(Refusal::Seen(Seq(4))));
    assert!(world.take(paused(1, 9)).is_ok());
    assert_eq!(world.state.host_cursor(), Seq(9));
}

#[test]
fn what_is_not_open_can_be_neither_answered_nor_attempted_nor_settled() {
    let mut world = World::new();
    let intent = Content([5; 32]);
    assert_eq!(world.answer(intent, true), Err(Refusal::NotOpen(intent)));
    assert_eq!(world.attempt(intent), Err(Refusal::NotOpen(intent)));
    assert_eq!(world.settle(&world.receipt(intent, 1)), Err(Refusal::NotOpen(intent)));
}

#[test]
fn every_phase_takes_what_belongs_to_it() {
    let mut world = World::new();
    let (asked, ready) = (world.wanted(&grant(1)), world.wanted(&note("a")));
    let phase = |intent, phase| Err(Refusal::Phase { intent, phase });
    assert_eq!(world.attempt(asked), phase(asked, "waiting for a person"));
    assert_eq!(world.answer(ready, true), phase(ready, "already allowed"));
    assert_eq!(world.settle(&world.receipt(asked, 1)), phase(asked, "not being done"));
    assert_eq!(world.settle(&world.receipt(ready, 1)), phase(ready, "not being done"));
    world.attempt(ready).unwrap();
    // A note cannot be repeated, a timer can.
    assert_eq!(world.attempt(ready), phase(ready, "being done, and is not done twice"));
    let timer = world.wanted(&timer(9));
    world.attempt(timer).unwrap();
    world.attempt(timer).unwrap();
    assert_eq!(world.phase(timer), Some(Phase::Attempted { attempt: 2 }));
}

#[test]
fn only_people_answer_and_vote() {
    let mut world = World::new();
    let intent = world.wanted(&grant(1));
    let by = agent();
    let answer = Input::Answer { intent, allow: true, by, note: String::new() };
    assert_eq!(world.take(answer), Err(Refusal::NoPerson(by)));
    let proposal = world.propose(&definitions(&nodes(), &wiring()));
    for by in [agent(), Principal::Daemon, Principal::World { world: WorldId([1; 16]), intent: Seq(1) }] {
        let vote = Input::Vote { proposal, approve: true, by, note: String::new() };
        assert_eq!(world.take(vote), Err(Refusal::NoPerson(by)));
    }
}

#[test]
fn notes_have_an_end() {
    let mut world = World::new();
    let intent = world.wanted(&grant(1));
    let note = |length: usize| "x".repeat(length);
    let answer = |note: String| Input::Answer { intent, allow: true, by: user(1), note };
    assert_eq!(world.take(answer(note(1001))), Err(Refusal::Text { what: "note", most: 1000 }));
    assert!(world.take(answer(note(1000))).is_ok());
}

#[test]
fn patches_have_an_end_and_fit() {
    let mut world = World::new();
    let base = world.state.definitions().manifest().hash();
    let remove = |number: usize| Change::Remove { name: name(&format!("t/x{number}@1")), old: Content([1; 32]) };
    let long = Patch { base, changes: (0..8000).map(remove).collect() };
    let length = long.encode().len();
    assert!(length > MAX_PATCH_BYTES);
    assert_eq!(world.propose_patch(Box::new(long)), Err(Refusal::TooLong(length)));
    let missing = Patch { base, changes: vec![remove(1)] };
    let refusal = Refusal::Patch(NotApplicable::Missing(name("t/x1@1")));
    assert_eq!(world.propose_patch(Box::new(missing)), Err(refusal));
    let stale = Patch { base: Content([1; 32]), changes: vec![] };
    let refusal = Refusal::Patch(NotApplicable::Base { wanted: Content([1; 32]), found: base });
    assert_eq!(world.propose_patch(Box::new(stale)), Err(refusal));
}

#[test]
fn nothing_is_said_of_proposals_that_are_not_there_or_decided() {
    let mut world = World::new();
    let rehearse = |proposal| Input::Rehearse { proposal, report: Content([1; 32]), inputs: 0, differences: 0 };
    let seq = Seq(77);
    assert_eq!(world.vote(seq, 1), Err(Refusal::NoProposal(seq)));
    assert_eq!(world.apply(seq, false), Err(Refusal::NoProposal(seq)));
    assert_eq!(world.take(rehearse(seq)), Err(Refusal::NoProposal(seq)));
    assert_eq!(world.state.candidate(seq), Err(Refusal::NoProposal(seq)));
    let same = world.state.definitions().as_ref().clone();
    let rejected = world.propose(&same);
    let no = Input::Vote { proposal: rejected, approve: false, by: user(1), note: String::new() };
    world.take(no).unwrap();
    let applied = world.propose(&same);
    world.vote(applied, 1).unwrap();
    world.apply(applied, false).unwrap();
    for (seq, word) in [(rejected, "rejected"), (applied, "applied")] {
        assert_eq!(world.vote(seq, 1), Err(Refusal::Decided(seq, word)));
        assert_eq!(world.apply(seq, false), Err(Refusal::Decided(seq, word)));
        assert_eq!(world.take(rehearse(seq)), Err(Refusal::Decided(seq, word)));
    }
}
