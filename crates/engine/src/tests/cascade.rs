//! In which order things follow, what a step may not do, and where a cascade ends.

use super::*;

fn raise(schema: &str, output: &Output) -> Output {
    Output::keep().raise(schema, &(ByteVec::from(bytes(output)),))
}

fn told(told: u64, last: &str) -> Told {
    Told { told, last: last.into() }
}

#[test]
fn an_event_is_followed_by_its_steps_and_what_they_raise_waits_its_turn() {
    let mut world = World::new();
    // One step raises two events; what the first of them brings about comes before the second is looked at, but behind it.
    let first = raise("t/do@1", &Output::keep().set(&told(3, "last")));
    let second = Output::keep().set(&told(2, "middle"));
    let both = Output::keep()
        .set(&told(1, "first"))
        .raise("t/do@1", &(ByteVec::from(bytes(&first)),))
        .raise("t/do@1", &(ByteVec::from(bytes(&second)),));
    let drafts = world.put(&both);
    let expected = ["happened", "stepped", "raised", "raised", "stepped", "raised", "stepped", "stepped"];
    assert_eq!(words(&drafts), expected);
    assert_eq!(world.cell("t/puppet@1", None), Some(told(3, "last")));
    let first = drafts[0].seq.0 as i64;
    let causes: Vec<i64> = drafts.iter().map(|draft| draft.cause.map_or(-1, |cause| cause.0 as i64 - first)).collect();
    assert_eq!(causes, [-1, 0, 1, 1, 2, 4, 3, 5]);
}

#[test]
fn routes_are_taken_in_their_order_and_each_sees_the_event() {
    let mut wiring = wiring();
    let routes = wiring["routes"].as_array_mut().unwrap();
    routes.insert(0, json!({"event": "t/do@1", "module": "t/mute@1"}));
    let mut world = World::empty();
    world.become_(&definitions(&[&nodes()[..], &[rules()]].concat(), &wiring));
    let drafts = world.put(&Output::keep().set(&told(1, "both")));
    let modules: Vec<String> = outcomes(&drafts).into_iter().map(|(module, _)| module).collect();
    assert_eq!(modules, ["t/mute@1", "t/puppet@1"]);
    // What one may not do is no reason against the other.
    let drafts = world.put(&note("a"));
    assert_eq!(words(&drafts), ["happened", "stepped", "wanted", "stepped", "wanted"]);
    assert!(matches!(&drafts[2].entry, Entry::Wanted { grant: Grant::Refused { .. }, .. }));
    assert!(matches!(&drafts[4].entry, Entry::Wanted { grant: Grant::Covered { .. }, .. }));
}

#[test]
fn a_step_that_fails_leaves_its_cell_and_nothing_follows() {
    let mut world = World::new();
    world.put(&Output::keep().set(&told(1, "kept")));
    let sixty_five = (0..65).fold(Output::keep(), |output, _| output.raise("t/do@1", &(ByteVec::from(vec![]),)));
    let thick = (0..65).fold(Output::keep(), |output, _| output.effect("sys/timer@1", "t/timer@1", &(1_u64,)));
    let cases: [(Vec<u8>, Outcome); 9] = [
        (b"trap".to_vec(), Outcome::Trapped { trap: "unreachable".into() }),
        (b"limit".to_vec(), Outcome::Limited { limit: "fuel".into() }),
        (b"rubbish".to_vec(), refused("the output is not one: ")),
        (bytes(&Output::keep().set("no state")), refused("state: t/state@1: expected record")),
        (bytes(&raise("t/at@1", &Output::keep())), refused("it does not say that it raises t/at@1")),
        (bytes(&raise("t/no@1", &Output::keep())), refused("it does not say that it raises t/no@1")),
        (bytes(&Output::keep().raise("t/do@1", &5_u64)), refused("t/do@1: expected record")),
        (bytes(&sixty_five), refused("more than 64 events or effects in one step")),
        (bytes(&thick), refused("more than 64 events or effects in one step")),
    ];
    for (output, expected) in cases {
        // The good half of an answer does not count either.
        let drafts = world.put_bytes(&output);
        assert_eq!(words(&drafts), ["happened", "stepped"]);
        let (_, outcome) = outcomes(&drafts).remove(0);
        assert!(!outcome.is_done());
        match (outcome, &expected) {
            (Outcome::Refused { why }, Outcome::Refused { why: front }) => {
                assert!(why.starts_with(front.as_str()), "{why:?} does not begin with {front:?}");
            }
            (found, expected) => assert_eq!(found, expected),
        }
        assert_eq!(world.cell("t/puppet@1", None), Some(told(1, "kept")));
    }
    let drafts = world.put(&Output::keep().delete());
    assert_eq!(outcomes(&drafts)[0].1, &Outcome::Deleted { fuel: 3 });
    assert_eq!(world.cell("t/puppet@1", None), None);
}

fn refused(why: &str) -> Outcome {
    Outcome::Refused { why: why.into() }
}

#[test]
fn what_a_step_gives_becomes_canonical() {
    let mut world = World::new();
    // {told: 1, last: "a"} with the number in a longer form.
    let lenient = Output { state: abi::Change::Set(vec![0x82, 0x18, 0x01, 0x61, b'a'].into()), ..Output::keep() };
    world.put(&lenient);
    let id = CellId { module: name("t/puppet@1"), key: None };
    assert_eq!(world.state.cell(&id), Some(&[0x82, 0x01, 0x61, b'a'][..]));
}

/// Raises itself, and itself, so deep: a chain that doubles.
fn doubling(deep: u32) -> Output {
    (0..deep).fold(Output::keep(), |inner, _| {
        let inner = ByteVec::from(bytes(&inner));
        Output::keep().raise("t/do@1", &(inner.clone(),)).raise("t/do@1", &(inner,))
    })
}

#[test]
fn a_cascade_ends_at_its_limit_and_says_where() {
    let mut world = World::new();
    assert_eq!(words(&world.put(&doubling(7))).last(), Some(&"stepped"));
    let drafts = world.put(&doubling(10));
    // The last task that was begun is not broken off.
    assert!((MAX_CASCADE + 1..MAX_CASCADE + 5).contains(&drafts.len()), "{}", drafts.len());
    let last = drafts.last().unwrap();
    let Entry::Cut { at } = &last.entry else { panic!("{last:?}") };
    assert_eq!(*at, format!("event t/do@1 of record {}", last.cause.unwrap()));
    assert_eq!(words(&drafts).iter().filter(|word| **word == "cut").count(), 1);
    // The world goes on.
    assert_eq!(words(&world.put(&Output::keep())), ["happened", "stepped"]);
}

#[test]
fn a_cell_is_known_by_its_key_however_it_was_named() {
    let mut world = World::new();
    world.put_at(3, &Output::keep().set(&told(1, "field")));
    let output = bytes(&Output::keep().set(&told(2, "sender")));
    world.send("t/to@1", Value::Record(vec![Value::Bytes(output)]), Some(Value::Nat(4))).unwrap();
    assert_eq!(world.cell("t/cells@1", Some(3)), Some(told(1, "field")));
    assert_eq!(world.cell("t/cells@1", Some(4)), Some(told(2, "sender")));
    // A cell raises for itself: the key goes with the event.
    world.put_at(5, &raise("t/to@1", &Output::keep().set(&told(3, "own"))));
    assert_eq!(world.cell("t/cells@1", Some(5)), Some(told(3, "own")));
    // From a module without keys there is none to go with it.
    let drafts = world.put(&raise("t/to@1", &Output::keep()));
    assert_eq!(outcomes(&drafts)[1].1, &refused("the event t/to@1 has no key for a cell"));
}

#[test]
fn a_cells_key_is_no_key_for_a_module_with_keys_of_another_type() {
    let mut nodes = nodes();
    nodes.push(json!({"defmodule": "t/named@1", "wasm": wasm("puppet"), "state": "t/state@1", "key": "text",
        "takes": ["t/to@1"]}));
    nodes.push(rules());
    let mut wiring = wiring();
    wiring["routes"][1] = json!({"event": "t/to@1", "module": "t/named@1"});
    let mut world = World::empty();
    world.become_(&definitions(&nodes, &wiring));
    let drafts = world.put_at(5, &raise("t/to@1", &Output::keep().set(&told(1, "wrong cell"))));
    assert_eq!(outcomes(&drafts)[1], ("t/named@1".into(), &refused("the event t/to@1 has no key for a cell")));
    assert_eq!(world.state.cells().count(), 0);
}

#[test]
fn a_step_has_one_clock_that_never_goes_back_and_luck_of_its_own() {
    let mut world = World::new();
    world.wall_ns = NOW + 50;
    world.take(paused(1, 1)).unwrap();
    world.wall_ns = NOW;
    let seq = world.take(paused(2, 2)).unwrap()[0].seq;
    assert_eq!(world.cell("t/cells@1", Some(2)), Some(told(seq.0, &(NOW + 50).to_string())));
    let luck = |world: &mut World, cell: u64| {
        let value = Value::Record(vec![Value::Nat(cell), Value::Bytes(b"luck".to_vec())]);
        world.send("t/at@1", value, None).unwrap();
        world.cell("t/cells@1", Some(cell)).unwrap().told
    };
    let draws: Vec<u64> = (10..20).map(|cell| luck(&mut world, cell)).collect();
    let distinct: std::collections::BTreeSet<_> = draws.iter().collect();
    assert!(distinct.len() > 5, "{draws:?}");
}

#[test]
fn a_host_that_cannot_run_a_reducer_says_nothing_about_it() {
    let world = World::new();
    let value = Value::Record(vec![Value::Bytes(b"host".to_vec())]);
    let entry = world.state.accept(Input::Event { schema: name("t/do@1"), value, key: None, by: user(1) }).unwrap();
    let failed = world.state.clone().run(&Puppets, entry, Stamp::default());
    assert_eq!(failed, Err(HostFailure("no memory".into())));
}
