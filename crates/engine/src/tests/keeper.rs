//! The loop on a disk that says yes, no, or nothing certain.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use agentd_journal::Verifier;

use super::*;

/// What was committed, and how the next commits end.
#[derive(Default)]
struct Memory {
    rows: Vec<(Seq, Vec<u8>)>,
    heads: Vec<(agentd_journal::Head, agentd_journal::Signature)>,
    saved: Vec<(Seq, Vec<u8>)>,
    blobs: usize,
    fails: VecDeque<DiskFailure>,
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Memory>>);

impl Disk for Shared {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DiskFailure> {
        let mut memory = self.0.borrow_mut();
        if let Some(failure) = memory.fails.pop_front() {
            return Err(failure);
        }
        memory.rows.extend(commit.rows.to_vec());
        memory.heads.push((commit.head, commit.signature));
        memory.saved.extend(commit.saved.map(|saved| (commit.head.seq, saved.to_vec())));
        memory.blobs += commit.blobs.len();
        Ok(())
    }
}

struct Kept {
    keeper: Keeper<Shared>,
    disk: Shared,
}

impl Kept {
    fn new() -> Kept {
        let World { state, chain, .. } = World::new();
        let disk = Shared::default();
        Kept { keeper: Keeper::new(state, chain, Seq(0), disk.clone(), signer()), disk }
    }

    fn turn(&mut self, inputs: Vec<Input>) -> Result<Turn, TurnError> {
        let asked = inputs.into_iter().map(Asked::from).collect();
        self.keeper.turn(asked, Stamp { wall_ns: NOW, ..Stamp::default() }, &Puppets)
    }

    fn put(&mut self, output: &Output) -> Turn {
        self.turn(vec![put(output)]).unwrap()
    }

    fn ready(&self) -> Vec<Content> {
        self.keeper.state().open().map(|open| open.intent.id).collect()
    }
}

fn put(output: &Output) -> Input {
    put_bytes(bytes(output))
}

fn put_bytes(output: Vec<u8>) -> Input {
    let value = Value::Record(vec![Value::Bytes(output)]);
    Input::Event { schema: name("t/do@1"), value, key: None, by: user(1) }
}

#[test]
fn a_turn_is_one_commit_with_an_answer_for_each_input() {
    let mut kept = Kept::new();
    let first = kept.keeper.chain().seq.0 + 1;
    let turn = kept.turn(vec![put(&note("a")), paused(1, 0), put(&Output::keep())]).unwrap();
    assert_eq!(turn.answers, [Ok(Seq(first)), Err(Refusal::Seen(Seq(0))), Ok(Seq(first + 3))]);
    let memory = kept.disk.0.borrow();
    assert_eq!((memory.heads.len(), memory.rows.len(), turn.records.len()), (1, 5, 5));
    let (head, signature) = &memory.heads[0];
    assert_eq!(*head, kept.keeper.chain().head());
    assert_eq!(Verifier::new(signer().key()).check_head(head, signature), Ok(()));
    assert_eq!(turn.records.last().unwrap().1, head.hash);
}

#[test]
fn refusals_alone_do_not_reach_the_disk() {
    let mut kept = Kept::new();
    let before = kept.keeper.state().clone();
    assert_eq!(kept.turn(vec![paused(1, 0)]).unwrap().answers, [Err(Refusal::Seen(Seq(0)))]);
    assert_eq!(*kept.keeper.state(), before);
    assert!(kept.disk.0.borrow().heads.is_empty());
}

#[test]
fn after_a_failure_the_keeper_says_nothing_else() {
    for failure in [DiskFailure::Refused("full".into()), DiskFailure::Unknown("gone".into())] {
        let mut kept = Kept::new();
        kept.disk.0.borrow_mut().fails.push_back(failure.clone());
        assert_eq!(kept.turn(vec![put(&note("a"))]).unwrap_err(), TurnError::Disk(failure));
        assert_eq!(kept.turn(vec![put(&note("a"))]).unwrap_err(), TurnError::Broken);
        assert_eq!(kept.turn(vec![]).unwrap_err(), TurnError::Broken);
        let rotated = kept.keeper.rotate(Signer::from_seed(&[8; 32]), Stamp::default(), &Puppets);
        assert_eq!(rotated, Err(TurnError::Broken));
        assert!(kept.disk.0.borrow().rows.is_empty());
    }
    let mut kept = Kept::new();
    let failed = kept.turn(vec![put(&note("a")), put_bytes(b"host".to_vec())]);
    assert_eq!(failed.unwrap_err(), TurnError::Host(HostFailure("no memory".into())));
    assert_eq!(kept.turn(vec![]).unwrap_err(), TurnError::Broken);
    assert!(kept.disk.0.borrow().rows.is_empty());
}

#[test]
fn an_effect_is_performed_after_its_attempt_and_once_for_it() {
    let mut kept = Kept::new();
    assert!(kept.put(&note("a")).perform.is_empty());
    kept.put(&timer(5));
    let due = kept.keeper.due();
    assert_eq!(due.len(), 2);
    // Asked for twice in one turn: what cannot be repeated is attempted once, what can be is handed out once.
    let twice: Vec<Input> = due.iter().chain(&due).map(|asked| asked.input.clone()).collect();
    let turn = kept.turn(twice).unwrap();
    assert_eq!(turn.answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    let mut performed: Vec<_> = turn.perform.iter().map(|open| (open.intent.kind.to_string(), open.phase)).collect();
    performed.sort_by(|one, other| one.0.cmp(&other.0));
    let attempt = |attempt| Phase::Attempted { attempt };
    assert_eq!(performed, [("sys/host.notify@1".into(), attempt(1)), ("sys/timer@1".into(), attempt(2))]);
    assert!(kept.keeper.due().is_empty());
}

#[test]
fn what_is_settled_in_the_turn_of_its_attempt_is_not_performed() {
    let mut kept = Kept::new();
    kept.put(&note("a"));
    let intent = kept.ready()[0];
    let state = kept.keeper.state();
    let receipt = Receipt::new(state.world(), intent, "test/1", 1, Status::Failed).sign(&signer());
    let turn = kept.turn(vec![Input::Attempt { intent }, Input::Receipt { bytes: receipt }]).unwrap();
    assert!(turn.answers.iter().all(Result::is_ok) && turn.perform.is_empty());
}

#[test]
fn what_was_left_behind_is_done_again_or_told_that_nobody_knows() {
    let mut kept = Kept::new();
    kept.put(&note("a"));
    kept.put(&timer(5));
    kept.put(&note("not begun"));
    let begun: Vec<Content> = kept.ready().into_iter().take(3).collect();
    let begun: Vec<Input> = begun.into_iter().map(|intent| Input::Attempt { intent }).collect();
    kept.turn(begun).unwrap();
    kept.put(&note("ready"));
    let left = kept.keeper.left_behind(NOW + 9);
    assert_eq!(left.len(), 3);
    let turn = kept.turn(left.into_iter().map(|asked| asked.input).collect()).unwrap();
    assert!(turn.answers.iter().all(Result::is_ok));
    assert_eq!(turn.perform.len(), 1);
    assert_eq!(turn.perform[0].phase, Phase::Attempted { attempt: 2 });
    let interrupted = turn.records.iter().filter_map(|(record, _)| match &record.event {
        Entry::Settled { receipt } => Some(Receipt::claimed(receipt).unwrap()),
        _ => None,
    });
    for receipt in interrupted {
        assert_eq!((receipt.status, receipt.began_ns), (Status::Interrupted, NOW + 9));
        assert!(receipt.reason.is_some());
    }
    assert_eq!(kept.keeper.due().len(), 1);
}

#[test]
fn the_state_is_saved_every_so_often_and_opens_from_there() {
    let World { state, chain, .. } = World::new();
    let (start, disk) = (chain.seq, Shared::default());
    let keeper = Keeper::new(state, chain, start, disk.clone(), signer()).saving_every(6);
    let mut kept = Kept { keeper, disk };
    for _ in 0..7 {
        kept.put(&Output::keep().set(&Told { told: 1, last: "x".into() }));
    }
    let memory = kept.disk.0.borrow();
    assert_eq!(memory.saved.len(), 2);
    let (at, saved) = &memory.saved[1];
    let row = |at: Seq| &memory.rows.iter().find(|(seq, _)| *seq == at).unwrap().1;
    let mut state = State::restore(saved).unwrap();
    let mut opened = Chain::resume::<Entry>(*at, row(*at), state.hash()).unwrap();
    let record = Record::<Entry>::decode(row(*at)).unwrap();
    state.fold(record.seq, record.stamp, &record.event);
    for (_, bytes) in memory.rows.iter().filter(|(seq, _)| seq > at) {
        let record = opened.check::<Entry>(bytes).unwrap();
        state.fold(record.seq, record.stamp, &record.event);
    }
    assert_eq!((&state, &opened), (kept.keeper.state(), kept.keeper.chain()));
}

#[test]
fn a_change_of_keys_is_a_commit_of_its_own_that_the_right_key_vouches_for() {
    let mut kept = Kept::new();
    let (second, third) = (Signer::from_seed(&[8; 32]), Signer::from_seed(&[9; 32]));
    kept.keeper.rotate(second.clone(), Stamp::default(), &Puppets).unwrap();
    kept.put(&Output::keep());
    kept.keeper.take_over("there".into(), third.clone(), Stamp::default(), &Puppets).unwrap();
    kept.put(&Output::keep());
    let memory = kept.disk.0.borrow();
    let signed_by = |at: usize, signer: &Signer| {
        let (head, signature) = &memory.heads[at];
        Verifier::new(signer.key()).check_head(head, signature).is_ok()
    };
    for (at, signer) in [(0, &signer()), (1, &second), (2, &third), (3, &third)] {
        assert!(signed_by(at, signer), "head {at}");
    }
    assert_eq!((kept.keeper.state().key(), kept.keeper.signer().key()), (third.key(), third.key()));
    assert_eq!(kept.keeper.state().name(), "there");
}

#[test]
fn values_go_to_the_disk_with_the_input_that_refers_to_them() {
    let mut kept = Kept::new();
    let blob = (Content([1; 32]), vec![1]);
    let taken = Asked { input: put(&Output::keep()), blobs: vec![blob.clone()] };
    let refused = Asked { input: paused(1, 0), blobs: vec![blob] };
    kept.keeper.turn(vec![taken, refused], Stamp::default(), &Puppets).unwrap();
    assert_eq!(kept.disk.0.borrow().blobs, 1);
}
