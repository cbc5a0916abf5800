//! A replay that finds nothing, and the record that it names for each way to change a journal.

use agentd_air::Decision;

use super::*;

/// A journal with one of everything, and the state that it leads to.
fn lived() -> World {
    let mut world = World::new();
    world.put(&Output::keep().set(&Told { told: 0, last: "first".into() }));
    let noted = world.wanted(&note("a"));
    let asked = world.wanted(&grant(1));
    world.attempt(noted).unwrap();
    world.settle(&world.receipt(noted, 1)).unwrap();
    world.answer(asked, false).unwrap();
    world.put_bytes(b"trap");
    world.put_at(3, &Output::keep().raise("t/to@1", &(ByteVec::from(b"luck".to_vec()),)));
    world.send("t/go@1", Value::Record(vec![]), None).unwrap();
    world.wall_ns = NOW + 7;
    world.take(paused(4, 1)).unwrap();
    let state = world.state.hash();
    world.wall_ns = NOW;
    world.save(state);
    world.put(&note_once("a", "k"));
    world.put(&note_once("a", "k"));
    world
}

impl World {
    fn save(&mut self, state: Hash) {
        let entry = Entry::StateSaved { state, key: signer().key() };
        let stamp = Stamp { wall_ns: self.wall_ns, ..Stamp::default() };
        let seq = Seq(self.state.height().0 + 1);
        self.state.fold(seq, stamp, &entry);
        let previous = self.chain.head;
        self.chain.append(stamp, None, entry.clone());
        self.records.push(Record { seq, previous, stamp, cause: None, event: entry });
    }
}

fn again(records: &[Record<Entry>]) -> Result<State, Divergence> {
    crate::replay(State::default(), &Puppets, records)
}

/// The position of the nth record like this.
fn find(records: &[Record<Entry>], nth: usize, like: impl Fn(&Entry) -> bool) -> usize {
    let mut found = (0..records.len()).filter(|at| like(&records[*at].event));
    found.nth(nth).unwrap()
}

/// Changes one record and says which one the replay names.
fn named(at: usize, change: impl Fn(&mut Record<Entry>)) -> (i64, Divergence) {
    let mut records = lived().records;
    change(&mut records[at]);
    let divergence = again(&records).unwrap_err();
    let found = match &divergence {
        Divergence::Record { at, .. } | Divergence::State { at, .. } | Divergence::Receipt { at, .. } => at.0,
        other => panic!("{other:?}"),
    };
    (found as i64 - records[at].seq.0 as i64, divergence)
}

#[test]
fn what_happened_happens_again() {
    let world = lived();
    assert_eq!(again(&world.records).unwrap(), world.state);
    // Also from a state that was saved on the way.
    for from in [5, 12, world.records.len() - 3] {
        let mut folded = State::default();
        for record in &world.records[..from] {
            folded.fold(record.seq, record.stamp, &record.event);
        }
        let restored = State::restore(&folded.save()).unwrap();
        let rest = &world.records[from..];
        if rest[0].event.is_input() {
            assert_eq!(crate::replay(restored, &Puppets, rest).unwrap(), world.state);
        }
    }
}

#[test]
fn a_changed_outcome_is_named() {
    let records = lived().records;
    let step = find(&records, 0, |entry| matches!(entry, Entry::Stepped { .. }));
    let (off, divergence) = named(step, |record| {
        let Entry::Stepped { outcome, .. } = &mut record.event else { unreachable!() };
        *outcome = Outcome::Kept { fuel: 3 };
    });
    assert_eq!(off, 0);
    let text = divergence.to_string();
    assert!(text.contains("\"kept\"") && text.contains("\"set\""), "{text}");
    // More fuel is another outcome too.
    assert_eq!(
        named(step, |record| {
            let Entry::Stepped { outcome: Outcome::Set { fuel, .. }, .. } = &mut record.event else { unreachable!() };
            *fuel += 1;
        })
        .0,
        0
    );
}

#[test]
fn a_changed_decision_is_named() {
    let records = lived().records;
    let asked = find(&records, 1, |entry| matches!(entry, Entry::Wanted { .. }));
    let off = named(asked, |record| {
        let Entry::Wanted { ruling: Some(ruling), .. } = &mut record.event else { unreachable!() };
        ruling.decision = Decision::Allow;
    });
    assert_eq!(off.0, 0);
    let off = named(asked, |record| {
        let Entry::Wanted { intent, .. } = &mut record.event else { unreachable!() };
        intent.id = Content([1; 32]);
    });
    assert_eq!(off.0, 0);
}

#[test]
fn another_cause_and_another_time_are_named() {
    let records = lived().records;
    let step = find(&records, 1, |entry| matches!(entry, Entry::Stepped { .. }));
    assert_eq!(named(step, |record| record.cause = Some(Seq(1))).0, 0);
    // A step has the time of its input, so a later one cannot be slipped into the logical clock.
    assert_eq!(named(step, |record| record.stamp.wall_ns += 1).0, 0);
    assert_eq!(named(step, |record| record.stamp.entropy.0[0] ^= 1).0, 0);
}

#[test]
fn a_changed_input_is_named_where_something_else_follows_from_it() {
    let records = lived().records;
    let first = find(&records, 0, |entry| matches!(entry, Entry::Happened { .. }));
    let off = named(first, |record| {
        let Entry::Happened { value, .. } = &mut record.event else { unreachable!() };
        *value = bytes(&(ByteVec::from(bytes(&Output::keep().delete())),)).into();
    });
    assert_eq!(off.0, 1);
    // Other luck.
    let lucky = find(&records, 0, |entry| matches!(entry, Entry::Happened { schema, .. } if schema.name() == "at"));
    assert_eq!(named(lucky, |record| record.stamp.entropy.0[0] ^= 1).0, 1);
    let answered = find(&records, 0, |entry| matches!(entry, Entry::Answered { .. }));
    let off = named(answered, |record| {
        let Entry::Answered { allow, .. } = &mut record.event else { unreachable!() };
        *allow = true;
    });
    assert_eq!(off.0, 1);
}

#[test]
fn a_forged_receipt_is_named() {
    let world = lived();
    let settled = find(&world.records, 0, |entry| matches!(entry, Entry::Settled { .. }));
    let (off, divergence) = named(settled, |record| {
        let Entry::Settled { receipt } = &mut record.event else { unreachable!() };
        let claimed = Receipt::claimed(receipt).unwrap();
        *receipt = claimed.sign(&Signer::from_seed(&[8; 32])).into();
    });
    assert_eq!(off, 0);
    assert!(matches!(divergence, Divergence::Receipt { why: NotAReceipt::Signature(_), .. }));
}

#[test]
fn another_saved_state_is_named() {
    let saved = find(&lived().records, 0, |entry| matches!(entry, Entry::StateSaved { .. }));
    let (off, divergence) = named(saved, |record| {
        let Entry::StateSaved { state, .. } = &mut record.event else { unreachable!() };
        state.0[0] ^= 1;
    });
    assert_eq!(off, 0);
    assert!(matches!(divergence, Divergence::State { .. }));
}

#[test]
fn records_left_out_put_in_or_swapped_are_named() {
    let world = lived();
    let step = find(&world.records, 0, |entry| matches!(entry, Entry::Stepped { .. }));
    let at = |records: &[Record<Entry>]| match again(records).unwrap_err() {
        Divergence::Record { at, found, expected } => (at, found, expected),
        other => panic!("{other:?}"),
    };
    let next = world.records[step + 1].seq;
    let mut without = world.records.clone();
    without.remove(step);
    assert_eq!(at(&without).0, next);
    let mut twice = world.records.clone();
    twice.insert(step, twice[step].clone());
    let (named, _, expected) = at(&twice);
    assert_eq!((named, expected.as_str()), (world.records[step].seq, "nothing"));
    let mut swapped = world.records.clone();
    swapped.swap(step - 1, step);
    let (named, found, expected) = at(&swapped);
    assert_eq!((named, expected.as_str()), (world.records[step].seq, "nothing"), "{found}");
    // Something that no reducer raised.
    let mut slipped = world.records.clone();
    let mut raised = slipped[step].clone();
    raised.event = Entry::Happened {
        schema: name("t/do@1"),
        value: bytes(&(ByteVec::from(vec![]),)).into(),
        key: None,
        from: Source::Raised,
    };
    slipped.insert(step + 1, raised);
    assert_eq!(at(&slipped).2, "nothing");
}

#[test]
fn a_journal_that_ends_too_early_says_how_much_is_missing() {
    let world = lived();
    let step = find(&world.records, 0, |entry| matches!(entry, Entry::Stepped { .. }));
    let input = world.records[step - 1].seq;
    assert_eq!(again(&world.records[..step]), Err(Divergence::Short { at: input, missing: 1 }));
}

#[test]
fn a_host_that_cannot_is_no_divergence_of_the_journal() {
    struct Broken;
    impl Reducers for Broken {
        fn step(&self, _: &Request<'_>) -> Result<Ran, HostFailure> {
            Err(HostFailure("no memory".into()))
        }
    }
    let failed = crate::replay(State::default(), &Broken, &lived().records);
    assert_eq!(failed, Err(Divergence::Host(HostFailure("no memory".into()))));
}
