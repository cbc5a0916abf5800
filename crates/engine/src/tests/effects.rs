//! From what a step asks for to what it is told: who hears of a refusal, what a key makes one, and how plans hear of it.

use super::*;

fn told(times: u64, last: &str) -> Option<Told> {
    Some(Told { told: times, last: last.into() })
}

#[test]
fn an_effect_goes_from_wanted_to_settled_and_its_origin_is_told() {
    let mut world = World::new();
    let drafts = world.put(&note("a"));
    assert_eq!(words(&drafts), ["happened", "stepped", "wanted"]);
    let intent = intents(&drafts)[0].id;
    assert_eq!(world.phase(intent), Some(Phase::Ready));
    let attempted = world.attempt(intent).unwrap();
    assert_eq!(attempted[0].entry, Entry::Attempted { intent, attempt: 1 });
    assert_eq!(attempted[0].cause, Some(drafts[2].seq), "an attempt is because of what was wanted");
    let settled = world.settle(&world.receipt(intent, 1)).unwrap();
    assert_eq!(words(&settled), ["settled", "stepped"]);
    assert_eq!(settled[0].cause, Some(drafts[2].seq));
    assert_eq!((world.phase(intent), world.cell("t/puppet@1", None)), (None, told(1, "done")));
    for (status, word) in
        [(Status::Failed, "failed"), (Status::TimedOut, "timed_out"), (Status::Interrupted, "interrupted")]
    {
        let intent = world.wanted(&note("a"));
        world.attempt(intent).unwrap();
        let receipt = but(world.receipt(intent, 1), |receipt| (receipt.status, receipt.result) = (status, None));
        world.settle(&receipt).unwrap();
        assert_eq!(world.cell("t/puppet@1", None).unwrap().last, word);
    }
}

#[test]
fn a_refused_effect_tells_its_origin_in_the_same_cascade() {
    let mut world = World::new();
    // By the capability.
    let drafts = world.put(&Output::keep().effect("sys/timer@1", "t/no@1", &(1_u64,)));
    assert_eq!(words(&drafts), ["happened", "stepped", "wanted", "stepped"]);
    assert_eq!(drafts[3].cause, Some(drafts[2].seq));
    assert_eq!(world.cell("t/puppet@1", None), told(1, "refused"));
    // Of a kind that nobody knows.
    let drafts = world.put(&Output::keep().effect("?", "t/no@1", &(1_u64,)));
    assert_eq!(intents(&drafts)[0].kind, name("sys/unknown@1"));
    assert_eq!(world.cell("t/puppet@1", None), told(2, "refused"));
    // The cell that asked, and no other.
    world.put_at(4, &Output::keep().effect("sys/timer@1", "t/timer@1", &(1_u64,)));
    assert_eq!(world.cell("t/cells@1", Some(4)), told(1, "refused"));
    assert_eq!(world.cell("t/puppet@1", None), told(2, "refused"));
    assert!(world.state.is_quiescent());
    // By the policy.
    let mut lawless = World::with(&nodes());
    lawless.put(&note("a"));
    assert_eq!(lawless.cell("t/puppet@1", None), told(1, "refused"));
}

#[test]
fn a_module_that_does_not_take_receipts_is_not_told() {
    let mut nodes = nodes();
    let puppet = nodes.iter_mut().find(|node| node["defmodule"] == "t/puppet@1").unwrap();
    puppet["takes"] = json!(["t/do@1"]);
    let mut world = World::with(&nodes);
    assert_eq!(words(&world.put(&note("a"))), ["happened", "stepped", "wanted"]);
}

#[test]
fn a_person_says_yes_or_no() {
    let mut world = World::new();
    let (yes, no) = (world.wanted(&grant(1)), world.wanted(&grant(2)));
    assert_eq!((world.phase(yes), world.phase(no)), (Some(Phase::Asked), Some(Phase::Asked)));
    assert_eq!(words(&world.answer(yes, true).unwrap()), ["answered"]);
    assert_eq!(world.phase(yes), Some(Phase::Ready));
    assert_eq!(words(&world.answer(no, false).unwrap()), ["answered", "stepped"]);
    assert_eq!((world.phase(no), world.cell("t/puppet@1", None)), (None, told(1, "refused")));
    assert_eq!(world.answer(no, true), Err(Refusal::NotOpen(no)));
}

#[test]
fn a_copy_does_not_do_what_the_original_has_on_its_way() {
    let mut world = World::new();
    let first = world.wanted(&note_once("a", "k"));
    world.attempt(first).unwrap();
    let receipt = world.receipt(first, 1);
    world.taken_over();
    assert_eq!((world.phase(first), world.settle(&receipt)), (None, Err(Refusal::NotOpen(first))));
    let drafts = world.put(&note_once("b", "k"));
    assert_eq!(drafts.last().unwrap().entry, Entry::WantedAgain { intent: first });
    // Under another key it is another effect, which nothing allows yet.
    let drafts = world.put(&note_once("c", "other"));
    assert!(drafts.iter().any(|draft| matches!(draft.entry, Entry::Wanted { .. })));
    assert!(world.state.is_quiescent());
}

#[test]
fn one_key_is_one_effect_of_one_origin() {
    let mut world = World::new();
    let first = world.wanted(&note_once("a", "k"));
    let again = |world: &mut World| {
        let drafts = world.put(&note_once("b", "k"));
        assert_eq!(words(&drafts), ["happened", "stepped", "again"]);
        assert_eq!(drafts[2].entry, Entry::WantedAgain { intent: first });
    };
    again(&mut world);
    world.attempt(first).unwrap();
    again(&mut world);
    world.settle(&world.receipt(first, 1)).unwrap();
    again(&mut world);
    // Another key, and the same key of another cell, are other effects.
    let other_key = world.wanted(&note_once("a", "l"));
    let cells = [world.put_at(1, &note_once("a", "k")), world.put_at(2, &note_once("a", "k"))];
    let ids = [first, other_key, intents(&cells[0])[0].id, intents(&cells[1])[0].id];
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    // Without a key, each time another.
    assert_ne!(world.wanted(&note("a")), world.wanted(&note("a")));
    // Twice in one step.
    let twice = note_once("a", "m").effect_once("sys/host.notify@1", "t/notify@1", &("a", "", None::<u64>), &"m");
    assert_eq!(words(&world.put(&twice)), ["happened", "stepped", "wanted", "again"]);
    let twice = note("a").effect("sys/host.notify@1", "t/notify@1", &("a", "", None::<u64>));
    let drafts = world.put(&twice);
    assert_ne!(intents(&drafts)[0].id, intents(&drafts)[1].id);
}

#[test]
fn what_a_person_refused_is_not_asked_again_and_what_a_rule_refused_is() {
    let mut world = World::new();
    let asks = Output::keep().effect_once("sys/host.grant@1", "t/grant@1", &(1_u64, 5_u64), &"k");
    let intent = world.wanted(&asks);
    world.answer(intent, false).unwrap();
    assert_eq!(words(&world.put(&asks)), ["happened", "stepped", "again"]);
    let never = Output::keep().effect_once("sys/timer@1", "t/no@1", &(1_u64,), &"k");
    for _ in 0..2 {
        assert_eq!(words(&world.put(&never)), ["happened", "stepped", "wanted", "stepped"]);
    }
}

#[test]
fn a_plan_asks_is_told_and_goes_on() {
    let mut world = World::new();
    let go = Value::Record(vec![]);
    let drafts = world.send("t/go@1", go.clone(), None).unwrap();
    assert_eq!(words(&drafts), ["happened", "started", "wanted", "went"]);
    let run = drafts[1].seq;
    let intent = intents(&drafts)[0];
    assert_eq!(intent.origin, Origin::Plan { name: name("t/plan@1"), run, step: 0 });
    let id = intent.id;
    world.attempt(id).unwrap();
    let settled = world.settle(&world.receipt(id, 1)).unwrap();
    assert_eq!(words(&settled), ["settled", "went"]);
    assert_eq!(world.state.runs().count(), 1);
    // An event starts another run, and ends the one that waits for it.
    let drafts = world.send("t/go@1", go, None).unwrap();
    assert_eq!(words(&drafts), ["happened", "started", "wanted", "went", "went"]);
    assert!(matches!(&drafts[4].entry, Entry::PlanWent { run: ended, ended: Some(_), .. } if *ended == run));
    assert_eq!(world.state.runs().map(|(seq, _)| seq).collect::<Vec<_>>(), [drafts[1].seq]);
}

#[test]
fn a_plan_is_told_of_a_refusal() {
    let mut lawless = World::with(&nodes());
    let drafts = lawless.send("t/go@1", Value::Record(vec![]), None).unwrap();
    assert_eq!(words(&drafts), ["happened", "started", "wanted", "went", "went"]);
    assert_eq!(drafts[4].cause, Some(drafts[2].seq));
}
