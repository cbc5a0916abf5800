//! A state is saved and restored with everything in it, and its hash is about everything in it.

use super::*;

/// With something in every field.
fn full() -> World {
    let mut world = World::new();
    world.wall_ns = NOW + 3;
    world.put(&Output::keep().set(&Told { told: 2, last: "x".into() }));
    world.put_at(7, &Output::keep().set(&Told { told: 3, last: "é".into() }));
    let begun = world.wanted(&timer(9));
    world.attempt(begun).unwrap();
    world.attempt(begun).unwrap();
    world.wanted(&note("ready"));
    world.wanted(&grant(1));
    let settled = world.wanted(&note_once("a", "k"));
    world.attempt(settled).unwrap();
    world.settle(&world.receipt(settled, 1)).unwrap();
    world.send("t/go@1", Value::Record(vec![]), None).unwrap();
    world.take(paused(4, 12)).unwrap();
    let same = world.state.definitions().as_ref().clone();
    let proposal = world.propose(&same);
    world.vote(proposal, 1).unwrap();
    world.take(Input::Rehearse { proposal, report: Content([1; 32]), inputs: 4, differences: 2 }).unwrap();
    world
}

#[test]
fn all_of_it_comes_back() {
    let world = full();
    let saved = world.state.save();
    let restored = State::restore(&saved).unwrap();
    assert_eq!(restored, world.state);
    assert_eq!((restored.save(), restored.hash()), (saved, world.state.hash()));
    assert_eq!(State::restore(&State::default().save()), Some(State::default()));
    // And goes on the same way.
    let mut other = World { state: restored, chain: world.chain, records: Vec::new(), wall_ns: NOW };
    let mut world = World { wall_ns: NOW, ..world };
    assert_eq!(world.put(&note_once("a", "k")), other.put(&note_once("a", "k")));
    assert_eq!(other.state, world.state);
}

#[test]
fn every_accessor_sees_what_is_there() {
    let state = full().state;
    assert_eq!((state.world(), state.name(), state.key()), (WorldId([1; 16]), "test", signer().key()));
    assert_eq!((state.open().count(), state.runs().count(), state.host_cursor()), (4, 1, Seq(12)));
    assert_eq!((state.cells().count(), state.logical_ns()), (3, NOW + 3));
    assert_eq!(state.proposals().count(), 2);
    assert!(state.events() > 5 && !state.is_quiescent());
}

#[test]
fn a_change_anywhere_is_another_hash() {
    let mut world = full();
    let before = world.state.hash();
    let mut seen = std::collections::BTreeSet::from([before]);
    world.put(&Output::keep());
    assert!(seen.insert(world.state.hash()), "height and events");
    world.put_at(7, &Output::keep().delete());
    assert!(seen.insert(world.state.hash()), "a cell");
    let intent = world.state.open().next().unwrap().intent.id;
    let phase = world.phase(intent);
    world.state.open.get_mut(&intent).unwrap().phase = Phase::Attempted { attempt: 99 };
    assert!(seen.insert(world.state.hash()), "a phase");
    world.state.open.get_mut(&intent).unwrap().phase = phase.unwrap();
    assert!(!seen.insert(world.state.hash()), "the same is the same");
    world.state.settled.clear();
    assert!(seen.insert(world.state.hash()), "settled effects");
    world.state.host_cursor = Seq(0);
    assert!(seen.insert(world.state.hash()), "the host's record");
}

#[test]
fn another_version_and_rubbish_are_not_restored() {
    let mut saved = full().state.save();
    assert_eq!((saved[0] & 0xe0, saved[1]), (0x80, 1), "an array, then the version");
    assert_eq!(State::restore(&saved[..saved.len() - 1]), None);
    saved[1] = 2;
    assert_eq!(State::restore(&saved), None);
    assert_eq!(State::restore(b"rubbish"), None);
    assert_eq!(State::restore(&[]), None);
}

#[test]
fn folding_what_was_recorded_needs_no_reducer() {
    let world = full();
    let mut folded = State::default();
    for record in &world.records {
        folded.fold(record.seq, record.stamp, &record.event);
    }
    assert_eq!(folded, world.state);
}
