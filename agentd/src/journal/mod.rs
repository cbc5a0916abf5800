//! A journal on disk: SQLite holds the records, one writer appends them.
//!
//! ```text
//! record    seq, agent, bytes      what happened, as `agentd_journal` specifies it; agent is an index
//! signature seq, hash, bytes       each head that was acknowledged, and who vouches for it; the newest is the head
//! saved     seq, bytes             the state, as the record of that number says; the newest two are kept, older ones ever
//!                                  farther apart, and one at the beginning if older records were taken out
//! blob      hash, bytes            large values, by their hash
//! ```
//!
//! Records, their head's signature and what they refer to are written in one transaction. The database is in WAL mode with
//! `synchronous = FULL`, so a transaction that [`Journal::append`] returned from is on disk.
//!
//! Opening reads what came after the newest saved state and verifies it up to the signed head; [`verify`] reads everything.
//! What was cut off by a crash never got as far as a commit; it lies in the write-ahead log, and
//! [`Opened::torn_bytes`] says how much of it there was. Damage to what was committed is an error that names the record;
//! nothing is ever repaired silently.
//!
//! The writer lives on one thread; [`Reader`]s have their own connections and see committed records only.

mod verify;
mod wal;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentd_journal::{
    Body, Chain, Damage, DamageKind, DecodeError, Hash, Head, KeyChange, Record, Signature, hash_of_record,
};
use agentd_model::{AgentNumber, Event, Seq};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

pub use verify::{Verified, verify};

/// The one writer.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
}

/// A journal that was opened, and what was found in it.
pub struct Opened<S> {
    /// The writer.
    pub journal: Journal,
    /// Where the chain ends.
    pub chain: Chain,
    /// The state that its records make.
    pub state: S,
    /// The record with which the newest saved state was saved, from where reading began; 0: it began at the beginning.
    pub saved: Seq,
    /// Bytes of an unfinished write that a crash left behind and that were cut.
    pub torn_bytes: u64,
}

/// A state that is a fold over records.
pub trait Fold: Default {
    /// What the records say.
    type Body: Body;

    /// The state as it was saved, if this program can read it.
    fn restore(bytes: &[u8]) -> Option<Self>;

    /// Takes in what happened next.
    fn take(&mut self, record: &Record<Self::Body>);
}

/// Why a journal could not be opened for appending.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A record that was acknowledged no longer verifies.
    #[error("{path} cannot be trusted")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        damage: Damage,
    },
    /// The file is not a journal, or SQLite cannot read it.
    #[error("cannot read {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk refused.
    #[error("cannot open {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why records were not appended. None of them was.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the journal {path}")]
pub struct AppendError {
    /// The file.
    pub path: PathBuf,
    /// What SQLite says; a full disk is `database or disk is full`.
    #[source]
    pub source: rusqlite::Error,
}

impl AppendError {
    /// Whether nobody can say what is on the disk now: a read, a write or a flush failed, and the kernel may have thrown away
    /// what it could not write. Whoever goes on would write over a guess, so the daemon ends and opens the journal anew.
    pub fn is_unknown(&self) -> bool {
        matches!(
            self.source.sqlite_error_code(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
    }
}

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS record (seq INTEGER PRIMARY KEY, agent INTEGER, bytes BLOB NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS record_agent ON record (agent, seq) WHERE agent IS NOT NULL;
    CREATE TABLE IF NOT EXISTS signature (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS saved (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS blob (hash BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// Context of the hash of saved bytes.
const SAVED: &str = "agentd 2026-11-21 saved state v1";

/// What a record of a saved state says of it.
pub fn hash_of_saved(bytes: &[u8]) -> Hash {
    Hash(blake3::derive_key(SAVED, bytes))
}

/// A record as the writer takes it.
pub struct Row<'a> {
    /// Its position.
    pub seq: Seq,
    /// The agent it is about.
    pub agent: Option<AgentNumber>,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What goes to the disk together.
pub struct Commit<'a> {
    /// Records, in order.
    pub rows: &'a [Row<'a>],
    /// The head that they make.
    pub head: Head,
    /// Who vouches for it.
    pub signature: Signature,
    /// The state, if the last row says that it was saved.
    pub saved: Option<&'a [u8]>,
    /// Values that the records refer to.
    pub blobs: &'a [(Hash, Vec<u8>)],
}

impl Journal {
    /// Opens or makes a journal, and folds its records from the newest saved state on.
    pub fn open<S: Fold>(path: &Path) -> Result<Opened<S>, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let database = |source| OpenError::Database { path: path.to_owned(), source };
        let damaged = |damage| OpenError::Damaged { path: path.to_owned(), damage };
        // Before SQLite sees the log, because opening cuts it.
        let torn_bytes = wal::torn_bytes(&path.with_extension("sqlite-wal")).map_err(io)?;
        let connection = Connection::open(path).map_err(database)?;
        // One writer: whoever else holds the lock is a mistake, and waiting would hold up every refusal.
        connection.busy_timeout(Duration::ZERO).map_err(database)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(database)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(database)?;
        connection.pragma_update(None, "journal_size_limit", wal::ROOM as i64).map_err(database)?;
        connection.execute_batch(SCHEMA).map_err(database)?;

        let (mut chain, mut state, saved) = start::<S>(&connection).map_err(database)?.map_err(damaged)?;
        let mut statement =
            connection.prepare("SELECT bytes FROM record WHERE seq > ?1 ORDER BY seq").map_err(database)?;
        let mut rows = statement.query([saved.0 as i64]).map_err(database)?;
        while let Some(row) = rows.next().map_err(database)? {
            let bytes = row.get_ref(0).map_err(database)?.as_blob().map_err(|error| database(error.into()))?;
            let record = chain.check::<S::Body>(bytes).map_err(damaged)?;
            if record.event.key_change().is_some_and(KeyChange::ends_a_commit) {
                let signature = read_signature(&connection, record.seq).map_err(database)?;
                chain.check_signature(signature.as_ref().map(|(_, signature)| signature)).map_err(damaged)?;
            }
            state.take(&record);
        }
        drop(rows);
        drop(statement);
        let (head, signature) = read_head(&connection).map_err(database)?;
        chain.check_end(&head, signature.as_ref()).map_err(damaged)?;
        // A full disk is no reason not to start: what cannot be written later is refused then.
        if let Err(error) = wal::make_room(&path.with_extension("sqlite-wal")) {
            tracing::warn!(%error, "no room can be made for the journal's log");
        }
        Ok(Opened { journal: Journal { connection, path: path.to_owned() }, chain, state, saved, torn_bytes })
    }

    /// Appends records and all that belongs to them, in one transaction; on disk when it returns.
    pub fn append(&mut self, commit: &Commit<'_>) -> Result<(), AppendError> {
        let step = |sql: &str| self.connection.prepare_cached(sql)?.execute([]);
        let write = || {
            // As `Connection::transaction` does it, but for reading these two words anew each time.
            step("BEGIN")?;
            let written = write(&self.connection, commit).and_then(|()| step("COMMIT").map(drop));
            if written.is_err() && !self.connection.is_autocommit() {
                // What failed first is what is told.
                let _ = step("ROLLBACK");
            }
            written
        };
        write().map_err(|source| AppendError { path: self.path.clone(), source })
    }

    /// Takes out every record before `first`, with which a state was saved, and gives the room back to the disk. Takes as
    /// long as copying what stays. Gives how many records went.
    pub fn prune(&mut self, first: Seq) -> Result<u64, AppendError> {
        let prune = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let mut removed = 0;
            let is_beginning = "SELECT 1 FROM saved JOIN signature USING (seq) JOIN record USING (seq) WHERE seq = ?1";
            if transaction.prepare(is_beginning)?.exists([first.0 as i64])? {
                removed = transaction.execute("DELETE FROM record WHERE seq < ?1", [first.0 as i64])?;
                transaction.execute("DELETE FROM signature WHERE seq < ?1", [first.0 as i64])?;
                transaction.execute("DELETE FROM saved WHERE seq < ?1", [first.0 as i64])?;
            }
            transaction.commit().map(|()| removed as u64)
        };
        let removed = prune(&mut self.connection).map_err(|source| AppendError { path: self.path.clone(), source })?;
        // The records are gone, whatever comes of this: what is not given back is used again.
        let vacuumed = self.connection.execute_batch("VACUUM");
        let shortened = vacuumed.and_then(|()| {
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
        });
        match shortened.map_err(|source| AppendError { path: self.path.clone(), source }) {
            Ok(false) => {}
            Ok(true) => tracing::info!(path = %self.path.display(), "somebody reads; the room is given back later"),
            Err(error) if error.is_unknown() => return Err(error),
            Err(error) => tracing::warn!(error = crate::errors::one_line(&error), "the room is not given back"),
        }
        if let Err(error) = wal::make_room(&self.path.with_extension("sqlite-wal")) {
            tracing::warn!(%error, "no room can be made for the journal's log");
        }
        Ok(removed)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn write(transaction: &Connection, commit: &Commit<'_>) -> Result<(), rusqlite::Error> {
    for (hash, bytes) in commit.blobs {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO blob (hash, bytes) VALUES (?1, ?2)")?
            .execute(params![hash.0.as_slice(), bytes])?;
    }
    let mut insert = transaction.prepare_cached("INSERT INTO record (seq, agent, bytes) VALUES (?1, ?2, ?3)")?;
    for row in commit.rows {
        insert.execute(params![row.seq.0 as i64, row.agent.map(|agent| agent.0), row.bytes])?;
    }
    let (seq, hash) = (commit.head.seq.0 as i64, commit.head.hash.0);
    transaction.prepare_cached("INSERT INTO signature (seq, hash, bytes) VALUES (?1, ?2, ?3)")?.execute(params![
        seq,
        hash.as_slice(),
        commit.signature.0.as_slice()
    ])?;
    if let Some(bytes) = commit.saved {
        transaction.execute("INSERT INTO saved (seq, bytes) VALUES (?1, ?2)", params![seq, bytes])?;
        thin_out(transaction)?;
    }
    Ok(())
}

/// Keeps of the saved states the newest two and, of the older ones, fewer the older they are: a journal of any length has a
/// few, and can begin at about any depth.
fn thin_out(connection: &Connection) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT seq FROM saved ORDER BY seq DESC")?;
    let mut kept = statement.query_map([], |row| row.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?;
    let beginning: i64 = connection.query_row("SELECT min(seq) FROM record", [], |row| row.get(0))?;
    let mut at = 2;
    while at + 1 < kept.len() {
        let (newest, newer, older) = (kept[0], kept[at - 1], kept[at + 1]);
        // Without it, those beside it are still close together, seen from here.
        if newer - older <= (newest - older) / 2 && kept[at] != beginning {
            connection.execute("DELETE FROM saved WHERE seq = ?1", [kept.remove(at)])?;
        } else {
            at += 1;
        }
    }
    Ok(())
}

/// Where reading begins: at the newest state that this program can read, else at the first record.
#[allow(clippy::type_complexity, reason = "two kinds of failure, kept apart because one names a record")]
fn start<S: Fold>(connection: &Connection) -> Result<Result<(Chain, S, Seq), Damage>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT seq, bytes FROM saved ORDER BY seq DESC")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    for row in rows {
        let (seq, bytes) = row?;
        let seq = Seq(seq as u64);
        let Some(record) = read_record(connection, seq)? else {
            return Ok(Err(Damage { at: seq, kind: DamageKind::Missing }));
        };
        let chain = match Chain::resume::<S::Body>(seq, &record, hash_of_saved(&bytes)) {
            Ok(chain) => chain,
            Err(damage) => return Ok(Err(damage)),
        };
        // A state of another version of this program is no damage; an older one may do, or the records themselves.
        if let Some(mut state) = S::restore(&bytes) {
            // It was saved just before the record that says so.
            if let Ok(record) = Record::decode(&record) {
                state.take(&record);
            }
            return Ok(Ok((chain, state, seq)));
        }
    }
    Ok(Ok((Chain::EMPTY, S::default(), Seq(0))))
}

fn read_record(connection: &Connection, seq: Seq) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM record WHERE seq = ?1")?;
    statement.query_row([seq.0 as i64], |row| row.get(0)).optional()
}

fn read_signature(connection: &Connection, seq: Seq) -> Result<Option<(Hash, Signature)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT hash, bytes FROM signature WHERE seq = ?1")?;
    let row = statement.query_row([seq.0 as i64], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, [u8; 64]>(1)?)));
    Ok(row.optional()?.map(|(hash, bytes)| (Hash(hash), Signature(bytes))))
}

/// The head that was acknowledged last.
fn read_head(connection: &Connection) -> Result<(Head, Option<Signature>), rusqlite::Error> {
    let newest: Option<i64> = connection.query_row("SELECT max(seq) FROM signature", [], |row| row.get(0))?;
    let Some(seq) = newest.map(|seq| Seq(seq as u64)) else {
        return Ok((Head { seq: Seq(0), hash: Hash::ZERO }, None));
    };
    let found = read_signature(connection, seq)?;
    let hash = found.map_or(Hash::ZERO, |(hash, _)| hash);
    Ok((Head { seq, hash }, found.map(|(_, signature)| signature)))
}

/// Reads committed records while the writer writes.
pub struct Reader {
    connection: Connection,
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// SQLite refused.
    #[error("cannot read the journal")]
    Database(#[from] rusqlite::Error),
    /// A record does not decode.
    #[error("a record of the journal cannot be read")]
    Record(#[from] DecodeError),
    /// What is asked for was taken out.
    #[error("the journal begins at record {first}; what was before is not known any more")]
    Pruned {
        /// Its first record.
        first: Seq,
    },
}

/// A record with its hash.
pub type Hashed<B = Event> = (Record<B>, Hash);

impl Reader {
    /// Opens a second, reading connection to a journal that the writer has opened.
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(Reader { connection })
    }

    /// The same, and sees the journal as it is at the first question, whatever is appended or taken out later.
    pub fn snapshot(path: &Path) -> Result<Reader, ReadError> {
        let reader = Reader::open(path)?;
        reader.connection.execute_batch("BEGIN")?;
        Ok(reader)
    }

    /// One record.
    pub fn get<B: Body>(&self, seq: Seq) -> Result<Option<Hashed<B>>, ReadError> {
        read_record(&self.connection, seq)?.map(decode).transpose()
    }

    /// The first `most` records after `after`, oldest first; only those about `agent`, if one is given.
    pub fn page<B: Body>(
        &self,
        agent: Option<AgentNumber>,
        after: Seq,
        most: u32,
    ) -> Result<Vec<Hashed<B>>, ReadError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT bytes FROM record WHERE seq > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY seq LIMIT ?3",
        )?;
        let rows = statement.query_map(params![after.0 as i64, agent.map(|agent| agent.0), most], |row| row.get(0))?;
        rows.map(|bytes| decode(bytes?)).collect()
    }

    /// Records after `after`, oldest first; only those about `agent`, if one is given; the newest `last` of them.
    pub fn list<B: Body>(
        &self,
        agent: Option<AgentNumber>,
        after: Seq,
        last: u32,
    ) -> Result<Vec<Hashed<B>>, ReadError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT bytes FROM record WHERE seq > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY seq DESC LIMIT ?3",
        )?;
        let rows = statement.query_map(params![after.0 as i64, agent.map(|agent| agent.0), last], |row| row.get(0))?;
        let mut records = rows.map(|bytes| decode(bytes?)).collect::<Result<Vec<_>, ReadError>>()?;
        records.reverse();
        Ok(records)
    }

    /// The head that was acknowledged last, and who vouches for it; `None` before the first record.
    pub fn head(&self) -> Result<Option<(Head, Signature)>, ReadError> {
        let (head, signature) = read_head(&self.connection)?;
        Ok(signature.map(|signature| (head, signature)))
    }

    /// The newest saved state that is not newer than a record, and the record with which it was saved.
    pub fn saved(&self, most: Seq) -> Result<Option<(Seq, Vec<u8>)>, ReadError> {
        let mut statement =
            self.connection.prepare_cached("SELECT seq, bytes FROM saved WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1")?;
        let row = statement.query_row([most.0 as i64], |row| Ok((Seq(row.get::<_, i64>(0)? as u64), row.get(1)?)));
        Ok(row.optional()?)
    }

    /// The first record, as far as older ones were taken out; `None` before the first.
    pub fn first(&self) -> Result<Option<Seq>, ReadError> {
        let first: Option<i64> = self.connection.query_row("SELECT min(seq) FROM record", [], |row| row.get(0))?;
        Ok(first.map(|seq| Seq(seq as u64)))
    }

    /// The bytes of one record.
    pub fn bytes(&self, seq: Seq) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(read_record(&self.connection, seq)?)
    }

    /// Whether a value is there.
    pub fn has_blob(&self, hash: Hash) -> Result<bool, ReadError> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM blob WHERE hash = ?1")?;
        Ok(statement.exists([hash.0.as_slice()])?)
    }

    /// A value by its hash.
    pub fn blob(&self, hash: Hash) -> Result<Option<Vec<u8>>, ReadError> {
        let mut statement = self.connection.prepare_cached("SELECT bytes FROM blob WHERE hash = ?1")?;
        Ok(statement.query_row([hash.0.as_slice()], |row| row.get(0)).optional()?)
    }
}

fn decode<B: Body>(bytes: Vec<u8>) -> Result<Hashed<B>, ReadError> {
    Ok((Record::decode(&bytes)?, hash_of_record(&bytes)))
}

#[cfg(test)]
mod tests;
