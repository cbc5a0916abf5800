//! A bundle in which one byte is another is no bundle, and whoever reads it says where.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use agentd_air::{Definition, Definitions, Hash as Content, Value};
use agentd_engine::{Asked, HostFailure, Input, Keeper, Ran, Reducers, Request};
use agentd_journal::Signer;
use agentd_model::{Entropy, Principal, Stamp, WorldId};
use serde_json::json;

use super::*;
use crate::journal::Journal;
use crate::worlds::keeper;
use crate::worlds::reducers::hash_of;

const PERSON: Principal = Principal::User { uid: 1000 };

/// A directory of this test alone, gone when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("agentd-bundle-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// This world has no modules.
struct Nobody;

impl Reducers for Nobody {
    fn step(&self, _: &Request<'_>) -> Result<Ran, HostFailure> {
        Err(HostFailure("there is no module".into()))
    }
}

fn stamp(at: u64) -> Stamp {
    Stamp { wall_ns: 1_800_000_000_000_000_000 + at, mono_ns: at, entropy: Entropy([at as u8; 16]) }
}

fn turn(keeper: &mut Keeper<Journal>, asked: Vec<Asked>, at: u64) {
    let turn = keeper.turn(asked, stamp(at), &Nobody).unwrap();
    turn.answers.into_iter().for_each(|answer| assert!(answer.unwrap().0 > 0));
}

fn event(n: u64) -> Input {
    let schema = "t/count@1".parse().unwrap();
    Input::Event { schema, value: Value::Record(vec![Value::Nat(n)]), key: None, by: PERSON }
}

/// A world with a blob, definitions, events, a saved state and two keys.
fn world(journal: &Path) {
    let (state, chain, saved, disk) = keeper::open(journal).unwrap();
    let old = Signer::from_seed(&[5; 32]);
    let key = old.key();
    let mut keeper = Keeper::new(state, chain, saved, disk, old).saving_every(8);
    let schema = json!({"defschema": "t/count@1", "type": {"record": [["n", "nat"]]}});
    let schema = Definition::from_json(&schema).unwrap();
    let wanted = Definitions::new([schema], vec![], vec![], None).unwrap();
    let patch = Box::new(Definitions::default().difference(&wanted));
    let blob = b"a report".to_vec();
    let (report, proposal) = (Content([2; 32]), Seq(2));
    let inputs = [
        Input::Begin { world: WorldId([1; 16]), name: "counts".into(), key },
        Input::Propose { patch, by: PERSON, note: "what is counted".into() },
        Input::Rehearse { proposal, report, inputs: 0, differences: 0 },
        Input::Vote { proposal, approve: true, by: PERSON, note: String::new() },
        Input::Apply { proposal, by: PERSON, fence: false, host: Seq(0) },
        event(1),
        event(2),
        event(3),
    ];
    let mut asked: Vec<Asked> = inputs.into_iter().map(Asked::from).collect();
    asked[1].blobs.push((hash_of(&blob), blob));
    turn(&mut keeper, asked, 3);
    keeper.rotate(Signer::from_seed(&[6; 32]), stamp(4), &Nobody).unwrap();
    turn(&mut keeper, vec![event(4).into(), event(5).into()], 5);
}

fn bundle(journal: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(journal, "counts", Seq(u64::from(u32::MAX)), &mut bytes).unwrap();
    bytes
}

/// Where the bytes of each record are in a bundle.
fn records(bundle: &[u8], first: u64) -> Vec<(Seq, Range<usize>)> {
    let (mut at, mut seq, mut found) = (MAGIC.len(), first, Vec::new());
    while at < bundle.len() {
        let length = u32::from_be_bytes(bundle[at..at + 4].try_into().unwrap()) as usize;
        let item = at + 4..at + 4 + length;
        at = item.end;
        if let Item::Record(_, bytes) = minicbor::decode(&bundle[item.clone()]).unwrap() {
            // An item ends with the bytes of its record.
            let record = item.end - bytes.len()..item.end;
            assert_eq!(&bundle[record.clone()], bytes.as_slice());
            found.push((Seq(seq), record));
            seq += 1;
        }
    }
    found
}

/// Changes bytes one at a time; none may be accepted, and within a record its number has to be told.
fn no_change_is_accepted(bundle: &[u8], first: u64, places: Range<usize>) {
    const THREADS: usize = 4;
    let records = records(bundle, first);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (records, places) = (&records, places.clone());
            scope.spawn(move || places.skip(thread).step_by(THREADS).for_each(|at| is_refused(bundle, records, at)));
        }
    });
}

fn is_refused(bundle: &[u8], records: &[(Seq, Range<usize>)], at: usize) {
    let mut changed = bundle.to_vec();
    changed[at] ^= 1 << (at % 8);
    let told = match read(changed.as_slice(), &mut Nowhere) {
        Err(error) => error,
        Ok(_) => panic!("byte {at} of {} is another, and nobody minds", bundle.len()),
    };
    if let Some((seq, _)) = records.iter().find(|(_, bytes)| bytes.contains(&at)) {
        let BundleError::Damaged(damage) = &told else { panic!("byte {at}, of record {seq}: {told}") };
        assert_eq!(damage.at, *seq, "byte {at}: {damage}");
    }
}

#[test]
fn no_byte_of_a_bundle_can_be_another_and_a_record_is_named() {
    let directory = Directory::new("whole");
    let journal = directory.0.join("journal.sqlite");
    world(&journal);
    let bundle = bundle(&journal);
    let contents = read(bundle.as_slice(), &mut Nowhere).unwrap();
    assert_eq!((contents.first, contents.chain.seq, contents.blobs), (Seq(1), Seq(12), 1));
    assert_eq!(records(&bundle, 1).len(), 12);
    no_change_is_accepted(&bundle, 1, 0..bundle.len());
    for cut in (0..bundle.len()).step_by(7) {
        assert!(read(&bundle[..cut], &mut Nowhere).is_err(), "cut at {cut}");
    }
    assert!(matches!(read([&bundle[..], &[0]].concat().as_slice(), &mut Nowhere), Err(BundleError::End)));
}

#[test]
fn a_bundle_that_begins_with_a_saved_state_is_no_less_sure() {
    let directory = Directory::new("later");
    let journal = directory.0.join("journal.sqlite");
    world(&journal);
    let connection = Connection::open(&journal).unwrap();
    let saved: i64 = connection.query_row("SELECT max(seq) FROM saved", [], |row| row.get(0)).unwrap();
    connection.execute("DELETE FROM record WHERE seq < ?1", [saved]).unwrap();
    connection.execute("DELETE FROM signature WHERE seq < ?1", [saved]).unwrap();
    drop(connection);
    let first = saved as u64;
    let bundle = bundle(&journal);
    let contents = read(bundle.as_slice(), &mut Nowhere).unwrap();
    assert_eq!((contents.first, contents.chain.seq), (Seq(first), Seq(12)));
    // What is different from the other one: the saved state, and the record that says so.
    let record = records(&bundle, first)[0].1.clone();
    no_change_is_accepted(&bundle, first, 0..record.end);
    let copy = directory.0.join("copy.sqlite");
    read_into(&copy, bundle.as_slice()).unwrap();
    let (one, other) = (keeper::open(&journal).unwrap().0, keeper::open(&copy).unwrap().0);
    assert_eq!(one.hash(), other.hash());
}
