//! What was appended is there; what was changed, cut or torn is told.

use std::fs;
use std::path::PathBuf;

use agentd_model::{AgentNumber, Event, Stamp};

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

fn open(directory: &Directory) -> Result<(Opened, usize), OpenError> {
    let mut count = 0;
    let opened = Journal::open(&directory.journal(), |_| count += 1)?;
    Ok((opened, count))
}

fn append(opened: &mut Opened, agents: std::ops::Range<u32>) {
    let mut rows = vec![];
    for agent in agents.map(AgentNumber) {
        let (seq, bytes) = opened.chain.append(Stamp::default(), None, Event::AgentAdopted { agent });
        rows.push(Row { seq, agent: Some(agent), bytes });
    }
    opened.journal.append(&rows, &opened.chain).unwrap();
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
    assert_eq!(reader.get(Seq(5)).unwrap().unwrap().1, head.head);
    let of_two = reader.list(Some(AgentNumber(2)), Seq(0), 10).unwrap();
    assert_eq!(of_two.iter().map(|(record, _)| record.seq).collect::<Vec<_>>(), [Seq(3)]);
    assert_eq!(reader.list(None, Seq(1), 2).unwrap()[0].0.seq, Seq(4));
}

#[test]
fn a_changed_missing_or_cut_record_is_named() {
    for (statement, at) in [
        ("UPDATE record SET bytes = zeroblob(9) WHERE seq = 2", 2),
        ("DELETE FROM record WHERE seq = 2", 2),
        ("DELETE FROM record WHERE seq = 4", 4),
        ("UPDATE head SET hash = zeroblob(32)", 4),
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
