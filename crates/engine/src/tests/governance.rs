//! Who may change what a world consists of, when, and what is left of it then.

use agentd_air::{Change, NotApplicable};

use super::*;
use crate::state::OPEN_PROPOSALS;

/// A world under these rules for proposals.
fn under(proposals: &Json) -> World {
    let mut rules = rules();
    rules["proposals"] = proposals.clone();
    World::with(&[&nodes()[..], &[rules]].concat())
}

/// The same without `t/mute@1`.
fn smaller(world: &World) -> Definitions {
    let kept = world.state.definitions().iter().filter(|node| node.name().name() != "mute").cloned();
    let manifest = world.state.definitions().manifest();
    Definitions::new(kept, manifest.routes, manifest.triggers, manifest.policy).unwrap()
}

fn not_yet(proposal: Seq, missing: &str) -> Result<Vec<Draft>, Refusal> {
    Err(Refusal::NotYet { proposal, missing: missing.into() })
}

#[test]
fn a_proposal_needs_what_the_policy_in_force_says() {
    let mut world = under(&json!({"approvals": 2, "proposer_counts": true, "shadow": true}));
    let wanted = smaller(&world);
    let seq = world.propose(&wanted);
    assert_eq!(world.apply(seq, false), not_yet(seq, "a rehearsal"));
    let report = Content([1; 32]);
    world.take(Input::Rehearse { proposal: seq, report, inputs: 4, differences: 2 }).unwrap();
    assert_eq!(world.state.proposal(seq).unwrap().rehearsed, Some((report, 4, 2)));
    assert_eq!(world.apply(seq, false), not_yet(seq, "2 more approvals"));
    world.vote(seq, 1000).unwrap();
    world.vote(seq, 1000).unwrap();
    assert_eq!(world.apply(seq, false), not_yet(seq, "1 more approvals"));
    world.vote(seq, 1001).unwrap();
    let applied = world.apply(seq, false).unwrap();
    let manifest = wanted.manifest().hash();
    assert!(matches!(&applied[0].entry, Entry::Applied { manifest: found, .. } if *found == manifest));
    assert_eq!(applied[0].cause, Some(seq));
    assert_eq!(**world.state.definitions(), wanted);
}

#[test]
fn whoever_proposed_does_not_count_where_the_policy_says_so() {
    let mut world = under(&json!({"approvals": 1, "proposer_counts": false, "shadow": false}));
    let wanted = smaller(&world);
    let seq = world.propose(&wanted);
    world.vote(seq, 1000).unwrap();
    let missing = "1 more approvals of somebody else than who proposed it";
    assert_eq!(world.apply(seq, false), not_yet(seq, missing));
    world.vote(seq, 1001).unwrap();
    assert!(world.apply(seq, false).is_ok());
}

#[test]
fn without_a_policy_one_person_and_a_rehearsal_are_needed() {
    let mut world = World::empty();
    let seq = world.propose(&definitions(&nodes(), &wiring()));
    assert_eq!(world.apply(seq, false), not_yet(seq, "a rehearsal"));
    world.take(Input::Rehearse { proposal: seq, report: Content([1; 32]), inputs: 0, differences: 0 }).unwrap();
    assert_eq!(world.apply(seq, false), not_yet(seq, "1 more approvals"));
}

#[test]
fn one_no_is_the_end_of_a_proposal() {
    let mut world = World::new();
    let wanted = smaller(&world);
    let seq = world.propose(&wanted);
    world.vote(seq, 1000).unwrap();
    world.take(Input::Vote { proposal: seq, approve: false, by: user(1001), note: String::new() }).unwrap();
    assert_eq!(world.apply(seq, false), Err(Refusal::Decided(seq, "rejected")));
}

#[test]
fn of_two_proposals_for_one_manifest_the_second_is_stale() {
    let mut world = World::new();
    let wanted = smaller(&world);
    let (first, second) = (world.propose(&wanted), world.propose(&wanted));
    world.vote(first, 1000).unwrap();
    world.vote(second, 1000).unwrap();
    assert_eq!(world.state.candidate(second).unwrap(), wanted);
    world.apply(first, false).unwrap();
    let stale = |refusal| matches!(refusal, Refusal::Patch(NotApplicable::Base { .. }));
    assert!(stale(world.apply(second, false).unwrap_err()));
    assert!(stale(world.state.candidate(second).unwrap_err()));
}

#[test]
fn nothing_is_applied_while_something_is_on_its_way_unless_it_is_fenced() {
    let mut world = World::new();
    let seq = world.propose(&smaller(&world));
    world.vote(seq, 1000).unwrap();
    let (ready, begun, asked) = (world.wanted(&note("a")), world.wanted(&note("b")), world.wanted(&grant(1)));
    let keyed = world.wanted(&note_once("c", "k"));
    world.attempt(begun).unwrap();
    world.send("t/go@1", Value::Record(vec![]), None).unwrap();
    assert_eq!(world.apply(seq, false), Err(Refusal::NotQuiescent { effects: 5, plans: 1 }));
    let applied = world.apply(seq, true).unwrap();
    let Entry::Applied { fenced, .. } = &applied[0].entry else { panic!("{applied:?}") };
    assert_eq!(fenced.len(), 5);
    assert!(world.state.is_quiescent());
    // What was given up is neither attempted nor settled nor answered, and its key stays taken.
    assert_eq!(world.attempt(ready), Err(Refusal::NotOpen(ready)));
    assert_eq!(world.settle(&world.receipt(begun, 1)), Err(Refusal::NotOpen(begun)));
    assert_eq!(world.answer(asked, true), Err(Refusal::NotOpen(asked)));
    assert_eq!(words(&world.put(&note_once("c", "k"))), ["happened", "stepped", "again"]);
    assert_eq!(world.phase(keyed), None);
}

#[test]
fn a_fence_gives_up_plans_also_where_there_is_no_effect() {
    let mut world = World::new();
    let drafts = world.send("t/go@1", Value::Record(vec![]), None).unwrap();
    let intent = intents(&drafts)[0].id;
    world.attempt(intent).unwrap();
    world.settle(&world.receipt(intent, 1)).unwrap();
    let seq = world.propose(&smaller(&world));
    world.vote(seq, 1000).unwrap();
    assert_eq!(world.apply(seq, false), Err(Refusal::NotQuiescent { effects: 0, plans: 1 }));
    world.apply(seq, true).unwrap();
    assert_eq!(world.state.runs().count(), 0);
}

#[test]
fn cells_are_gone_only_where_their_schema_or_their_key_is_another() {
    let filled = || {
        let mut world = World::new();
        let told = Told { told: 1, last: "x".into() };
        world.put(&Output::keep().set(&told));
        world.put_at(1, &Output::keep().set(&told));
        world.put_at(2, &Output::keep().set(&told));
        world
    };
    let left = |change: fn(&mut Vec<Json>, &mut Json)| {
        let (mut world, mut nodes, mut wiring) = (filled(), [&nodes()[..], &[rules()]].concat(), wiring());
        change(&mut nodes, &mut wiring);
        world.become_(&definitions(&nodes, &wiring));
        (world.cell("t/puppet@1", None).is_some(), world.state.cells().filter(|(id, _)| id.key.is_some()).count())
    };
    fn module<'a>(nodes: &'a mut [Json], name: &str) -> &'a mut Json {
        nodes.iter_mut().find(|node| node["defmodule"] == name).unwrap()
    }
    // Another program, other limits, other effects: the state stays.
    assert_eq!(left(|_, _| ()), (true, 2));
    let other_program = |nodes: &mut Vec<Json>, _: &mut Json| {
        module(nodes, "t/puppet@1")["wasm"] = json!(wasm("other"));
        module(nodes, "t/cells@1")["limits"] = json!({"fuel": 5});
        module(nodes, "t/cells@1")["effects"] = json!([]);
    };
    assert_eq!(left(other_program), (true, 2));
    let other_schema = |nodes: &mut Vec<Json>, _: &mut Json| {
        nodes.push(json!({"defschema": "t/state@2", "type": {"record": [["told", "nat"], ["last", "text"]]}}));
        module(nodes, "t/puppet@1")["state"] = json!("t/state@2");
    };
    assert_eq!(left(other_schema), (false, 2));
    let other_key = |nodes: &mut Vec<Json>, wiring: &mut Json| {
        module(nodes, "t/cells@1")["key"] = json!("int");
        wiring["routes"].as_array_mut().unwrap().retain(|route| route.get("key").is_none());
    };
    assert_eq!(left(other_key), (true, 0));
    let no_module = |nodes: &mut Vec<Json>, wiring: &mut Json| {
        nodes.retain(|node| node["defmodule"] != "t/cells@1");
        for node in nodes.iter_mut().filter(|node| node.get("holders").is_some()) {
            node["holders"].as_array_mut().unwrap().retain(|holder| holder != "t/cells@1");
        }
        wiring["routes"].as_array_mut().unwrap().retain(|route| route["module"] != "t/cells@1");
    };
    assert_eq!(left(no_module), (true, 0));
}

#[test]
fn decided_proposals_are_forgotten_and_open_ones_are_not() {
    let mut world = World::new();
    let same = world.state.definitions().as_ref().clone();
    let open = world.propose(&same);
    for _ in 0..70 {
        let seq = world.propose(&same);
        world.take(Input::Vote { proposal: seq, approve: false, by: user(1), note: String::new() }).unwrap();
    }
    world.propose(&same);
    assert!(world.state.proposal(open).is_some());
    let decided = world.state.proposals().filter(|(_, proposal)| proposal.stage != Stage::Open).count();
    assert_eq!(decided, 64);
}

#[test]
fn a_world_listens_to_the_host_from_where_it_began_to() {
    let mut world = World::new();
    let seq = world.propose(&smaller(&world));
    world.vote(seq, 1000).unwrap();
    world.take(Input::Apply { proposal: seq, by: user(1000), fence: false, host: Seq(40) }).unwrap();
    assert_eq!(world.take(paused(1, 40)), Err(Refusal::Seen(Seq(40))));
    assert!(world.take(paused(1, 41)).is_ok());
    // A copy hears nothing, may do nothing, and nobody has said yes to anything, until definitions are applied here.
    let waiting = world.propose(&Definitions::default());
    world.taken_over();
    assert_eq!(world.state.name(), "there");
    assert_eq!(world.take(paused(1, 1000)), Err(Refusal::Seen(Seq(1000))));
    assert!(world.state.definitions().policy().is_none() && world.state.is_quiescent());
    assert_eq!(world.state.proposal(waiting), None);
}

#[test]
fn so_many_proposals_wait_and_no_more() {
    let mut world = World::empty();
    let base = world.state.definitions().manifest().hash();
    let patch = |n: usize| {
        let node = json!({"defschema": format!("t/s{n}@1"), "type": "int"});
        Box::new(Patch { base, changes: vec![Change::Add(Box::new(Definition::from_json(&node).unwrap()))] })
    };
    let open = world.state.proposals().filter(|(_, found)| found.stage == Stage::Open).count();
    let all: Vec<Seq> = (open..OPEN_PROPOSALS).map(|n| world.propose_patch(patch(n)).unwrap()).collect();
    assert_eq!(world.propose_patch(patch(1000)), Err(Refusal::Undecided));
    world.take(Input::Vote { proposal: all[0], approve: false, by: user(1000), note: String::new() }).unwrap();
    assert!(world.propose_patch(patch(1000)).is_ok());
}
