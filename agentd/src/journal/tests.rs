//! What was appended is there; what was changed, cut or torn is told.

use std::fs;
use std::path::PathBuf;

use agentd_journal::Signer;
use agentd_model::{AgentNumber, Event, Stamp, WorldId};

use super::*;

/// A directory of this test alone, gone when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("agentd-journal-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal.sqlite")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Counts.
#[derive(Default)]
struct Count(u64);

impl Fold for Count {
    type Body = Event;

    fn restore(bytes: &[u8]) -> Option<Count> {
        Some(Count(u64::from_be_bytes(bytes.try_into().ok()?)))
    }

    fn take(&mut self, record: &Record) {
        self.0 += u64::from(!matches!(record.event, Event::StateSaved { .. }));
    }
}

fn signer() -> Signer {
    Signer::from_seed(&[3; 32])
}

fn open(directory: &Directory) -> Result<(Opened<Count>, u64), OpenError> {
    let opened = Journal::open::<Count>(&directory.journal())?;
    let count = opened.state.0;
    Ok((opened, count))
}

fn commit(opened: &mut Opened<Count>, events: Vec<Event>, saved: Option<&[u8]>, signer: &Signer) {
    let mut records = vec![];
    for event in events {
        let agent = event.agent();
        let (seq, bytes) = opened.chain.append(Stamp::default(), None, event);
        records.push((seq, agent, bytes));
    }
    let rows: Vec<Row<'_>> =
        records.iter().map(|(seq, agent, bytes)| Row { seq: *seq, agent: *agent, bytes }).collect();
    let head = opened.chain.head();
    let signature = signer.sign_head(&head);
    opened.journal.append(&Commit { rows: &rows, head, signature, saved, blobs: &[] }).unwrap();
}

/// Appends an event for each agent; the first record of all begins the journal.
fn append(opened: &mut Opened<Count>, agents: std::ops::Range<u32>) {
    let first = opened.chain.seq == Seq(0);
    let begun = Event::JournalBegun { world: WorldId([1; 16]), key: signer().key() };
    let adopted = agents.skip(usize::from(first)).map(|agent| Event::AgentAdopted { agent: AgentNumber(agent) });
    let events = first.then_some(begun).into_iter().chain(adopted).collect();
    commit(opened, events, None, &signer());
}

fn save(opened: &mut Opened<Count>, count: u64) {
    let bytes = count.to_be_bytes();
    let event = Event::StateSaved { state: hash_of_saved(&bytes), key: signer().key() };
    commit(opened, vec![event], Some(&bytes), &signer());
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let directory = Directory::new("reopen");
    let (mut opened, _) = open(&directory).unwrap();
    append(&mut opened, 0..3);
    append(&mut opened, 3..5);
    let head = opened.chain;
    drop(opened);
    let (opened, count) = open(&directory).unwrap();
    assert_eq!((opened.chain, count, opened.torn_bytes), (head, 5, 0));
    let reader = Reader::open(&directory.journal()).unwrap();
    assert_eq!(reader.get::<Event>(Seq(5)).unwrap().unwrap().1, head.head);
    let of_two = reader.list::<Event>(Some(AgentNumber(2)), Seq(0), 10).unwrap();
    assert_eq!(of_two.iter().map(|(record, _)| record.seq).collect::<Vec<_>>(), [Seq(3)]);
    assert_eq!(reader.list::<Event>(None, Seq(1), 2).unwrap()[0].0.seq, Seq(4));
}

#[test]
fn a_changed_missing_or_cut_record_is_named() {
    for (statement, at) in [
        ("UPDATE record SET bytes = zeroblob(9) WHERE seq = 2", 2),
        ("DELETE FROM record WHERE seq = 2", 2),
        ("DELETE FROM record WHERE seq = 4", 4),
        ("UPDATE signature SET hash = zeroblob(32)", 4),
        ("UPDATE signature SET bytes = zeroblob(64)", 4),
    ] {
        let directory = Directory::new("damage");
        let (mut opened, _) = open(&directory).unwrap();
        append(&mut opened, 0..4);
        drop(opened);
        Connection::open(directory.journal()).unwrap().execute(statement, []).unwrap();
        match open(&directory) {
            Err(OpenError::Damaged { damage, .. }) => assert_eq!(damage.at, Seq(at), "{statement}"),
            Err(other) => panic!("{statement}: {other:?}"),
            Ok(_) => panic!("{statement}: opened"),
        }
    }
}

#[test]
fn opening_begins_at_the_newest_saved_state() {
    let directory = Directory::new("saved");
    let (mut opened, _) = open(&directory).unwrap();
    append(&mut opened, 0..3);
    save(&mut opened, 100);
    append(&mut opened, 3..5);
    drop(opened);
    let (mut opened, count) = open(&directory).unwrap();
    assert_eq!((count, opened.saved, opened.chain.seq), (102, Seq(4), Seq(6)));
    assert_eq!(verify::<Event>(&directory.journal(), |_| ()).unwrap().signatures, 3);
    // Older records may be damaged unseen by opening; who verifies sees it.
    let sql = |text: &str| Connection::open(directory.journal()).unwrap().execute(text, []).unwrap();
    sql("UPDATE record SET bytes = zeroblob(9) WHERE seq = 2");
    let at = |result| match result {
        Err(OpenError::Damaged { damage, .. }) => damage.at,
        other => panic!("{other:?}"),
    };
    assert_eq!(at(verify::<Event>(&directory.journal(), |_| ()).map(drop)), Seq(2));
    // What is before a saved state can be put away, and the rest still verifies.
    append(&mut opened, 5..6);
    drop(opened);
    sql("DELETE FROM record WHERE seq < 4");
    sql("DELETE FROM signature WHERE seq < 4");
    assert_eq!(verify::<Event>(&directory.journal(), |_| ()).unwrap().first, Seq(4));
    assert_eq!(open(&directory).unwrap().1, 103);
    // A saved state that is not the one that was recorded is damage.
    sql("UPDATE saved SET bytes = zeroblob(8)");
    assert_eq!(at(open(&directory).map(drop)), Seq(4));
    assert_eq!(at(verify::<Event>(&directory.journal(), |_| ()).map(drop)), Seq(4));
}

#[test]
fn what_is_taken_out_is_gone_and_the_rest_stands_by_itself() {
    let directory = Directory::new("prune");
    let path = directory.journal();
    let (mut opened, _) = open(&directory).unwrap();
    append(&mut opened, 0..500);
    save(&mut opened, 500);
    append(&mut opened, 500..503);
    let reader = Reader::open(&path).unwrap();
    let pages = || -> i64 { reader.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap() };
    let before = pages();
    // Only where a state was saved may a journal begin.
    assert_eq!(opened.journal.prune(Seq(400)).unwrap(), 0);
    assert_eq!(opened.journal.prune(Seq(501)).unwrap(), 500);
    assert_eq!(opened.journal.prune(Seq(501)).unwrap(), 0);
    assert!(pages() < before / 2, "{} pages of {before}", pages());
    assert_eq!(fs::metadata(&path).unwrap().len(), pages() as u64 * 4096);
    let verified = verify::<Event>(&path, |_| ()).unwrap();
    assert_eq!((verified.first, verified.head), (Seq(501), opened.chain.head()));
    assert_eq!((reader.first().unwrap(), reader.get::<Event>(Seq(500)).unwrap().is_none()), (Some(Seq(501)), true));
    // The state at the beginning stays, however often it is saved later: replay begins there.
    for count in [503, 503, 503] {
        save(&mut opened, count);
    }
    assert_eq!(reader.saved(Seq(501)).unwrap().map(|(seq, _)| seq), Some(Seq(501)));
    append(&mut opened, 503..505);
    drop(opened);
    assert_eq!(open(&directory).unwrap().1, 505);
}

#[test]
fn saved_states_are_few_and_at_every_depth() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection.execute("INSERT INTO record (seq, bytes) VALUES (1, x'')", []).unwrap();
    for newest in 1..=300 {
        connection.execute("INSERT INTO saved (seq, bytes) VALUES (?1, x'')", [newest]).unwrap();
        thin_out(&connection).unwrap();
        let mut statement = connection.prepare("SELECT seq FROM saved ORDER BY seq DESC").unwrap();
        let kept: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert!(kept.len() <= 16, "{kept:?}");
        for depth in 0..newest {
            // Whoever wants to keep so many keeps no more than twice as many.
            let found = kept.iter().map(|seq| newest - seq).find(|found| *found >= depth).unwrap();
            assert!(found <= 2 * depth.max(1), "{depth}: {kept:?}");
        }
    }
}

#[test]
fn a_rotation_that_the_old_key_did_not_sign_is_damage() {
    let next = Signer::from_seed(&[4; 32]);
    for (by, sound) in [(signer(), true), (next.clone(), false)] {
        let directory = Directory::new("rotation");
        let (mut opened, _) = open(&directory).unwrap();
        append(&mut opened, 0..2);
        commit(&mut opened, vec![Event::KeyRotated { key: next.key() }], None, &by);
        commit(&mut opened, vec![Event::AgentAdopted { agent: AgentNumber(7) }], None, &next);
        drop(opened);
        assert_eq!(open(&directory).is_ok(), sound);
        assert_eq!(verify::<Event>(&directory.journal(), |_| ()).is_ok(), sound);
    }
}

/// Copies the files as a crash would leave them: the writer has not closed, so the log is still there.
fn crash(from: &Directory, name: &str, keep: impl Fn(&mut Vec<u8>)) -> Directory {
    let to = Directory::new(name);
    fs::copy(from.journal(), to.journal()).unwrap();
    let mut log = fs::read(from.journal().with_extension("sqlite-wal")).unwrap();
    keep(&mut log);
    fs::write(to.journal().with_extension("sqlite-wal"), log).unwrap();
    to
}

#[test]
fn a_torn_tail_is_cut_and_told_and_loses_nothing_acknowledged() {
    let directory = Directory::new("torn");
    let (mut opened, _) = open(&directory).unwrap();
    append(&mut opened, 0..3);
    let written = || {
        let log = fs::read(directory.journal().with_extension("sqlite-wal")).unwrap();
        log.iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    let whole = written();
    append(&mut opened, 3..6);
    let end = written();

    let crashed = crash(&directory, "torn-whole", |_| ());
    let (found, count) = open(&crashed).unwrap();
    assert_eq!((count, found.torn_bytes), (6, 0));

    // Every way to stop inside the second transaction leaves the first one, whole, and says how much was cut.
    for cut in [1, 30, 100, 2000, 4000] {
        let crashed = crash(&directory, "torn-cut", |log| log.truncate(whole + cut));
        let (found, count) = open(&crashed).unwrap();
        assert_eq!(count, 3, "cut at {cut}");
        assert_eq!(found.torn_bytes > 0, cut >= 16, "cut at {cut}: {}", found.torn_bytes);
        drop(found);
        // The same where the file was long enough before: what did not arrive is still zero.
        let crashed = crash(&directory, "torn-room", |log| log[whole + cut..].fill(0));
        let (found, count) = open(&crashed).unwrap();
        assert_eq!((count, found.torn_bytes > 0), (3, cut >= 16), "zero from {cut}: {}", found.torn_bytes);
    }
    let crashed = crash(&directory, "torn-flip", |log| log[end - 1] ^= 1);
    let (found, count) = open(&crashed).unwrap();
    assert_eq!(count, 3);
    assert!(found.torn_bytes > 0);
}

#[test]
fn commits_write_over_bytes_that_the_log_has_already() {
    let directory = Directory::new("room");
    let (mut opened, _) = open(&directory).unwrap();
    let length = || fs::metadata(directory.journal().with_extension("sqlite-wal")).unwrap().len();
    let before = length();
    // Twice what SQLite keeps in the log: it goes round, and the file stays as it is.
    for agent in 0..2_500 {
        append(&mut opened, agent..agent + 1);
    }
    assert_eq!(length(), before);
}

#[test]
fn something_else_is_not_taken_for_a_journal() {
    let directory = Directory::new("other");
    fs::write(directory.journal(), "this is a letter, not a database, and it is long enough to be read as a header")
        .unwrap();
    assert!(matches!(open(&directory), Err(OpenError::Database { .. })));
}
