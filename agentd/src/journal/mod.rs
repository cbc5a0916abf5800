//! The journal on disk: SQLite holds the records, one writer appends them.
//!
//! Two tables. `record(seq, bytes)` holds the records as `agentd_journal` specifies them; `head(seq, hash)` has one row,
//! the newest record and its hash, and is written in the same transaction. The database is in WAL mode with
//! `synchronous = FULL`, so a transaction that [`Journal::append`] returned from is on disk.
//!
//! Opening reads everything: the chain is verified from the first record to the head. What was cut off by a crash never
//! got as far as a commit; it lies in the write-ahead log, and [`Opened::torn_bytes`] says how much of it there was.
//! Damage to what was committed is an error that names the record; nothing is ever repaired silently.
//!
//! The writer lives on the core's thread; [`Reader`]s have their own connections and see committed records only.

mod wal;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentd_journal::{Chain, Damage, DecodeError, Hash, Record};
use agentd_model::{AgentNumber, Seq};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

/// The one writer.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
}

/// A journal that was opened, and what was found in it.
pub struct Opened {
    /// The writer.
    pub journal: Journal,
    /// Where the chain ends.
    pub chain: Chain,
    /// Bytes of an unfinished write that a crash left behind and that were cut.
    pub torn_bytes: u64,
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

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS record (seq INTEGER PRIMARY KEY, agent INTEGER, bytes BLOB NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS record_agent ON record (agent, seq) WHERE agent IS NOT NULL;
    CREATE TABLE IF NOT EXISTS head (only INTEGER PRIMARY KEY CHECK (only = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
";

/// A record as the writer takes it.
pub struct Row {
    /// Its position.
    pub seq: Seq,
    /// The agent it is about.
    pub agent: Option<AgentNumber>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Journal {
    /// Opens or makes the journal, and hands every record to `replay`, oldest first.
    pub fn open(path: &Path, mut replay: impl FnMut(Record)) -> Result<Opened, OpenError> {
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
        connection.execute_batch(SCHEMA).map_err(database)?;

        let mut chain = Chain::EMPTY;
        let mut statement = connection.prepare("SELECT bytes FROM record ORDER BY seq").map_err(database)?;
        let mut rows = statement.query([]).map_err(database)?;
        while let Some(row) = rows.next().map_err(database)? {
            let bytes: Vec<u8> = row.get(0).map_err(database)?;
            replay(chain.check(&bytes).map_err(damaged)?);
        }
        drop(rows);
        drop(statement);
        chain.check_end(&read_head(&connection).map_err(database)?).map_err(damaged)?;
        // A full disk is no reason not to start: what cannot be written later is refused then.
        if let Err(error) = wal::make_room(&path.with_extension("sqlite-wal")) {
            tracing::warn!(%error, "no room can be made for the journal's log");
        }
        Ok(Opened { journal: Journal { connection, path: path.to_owned() }, chain, torn_bytes })
    }

    /// Appends records and the head that they make, in one transaction; on disk when it returns.
    pub fn append(&mut self, rows: &[Row], head: &Chain) -> Result<(), AppendError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            {
                let mut insert =
                    transaction.prepare_cached("INSERT INTO record (seq, agent, bytes) VALUES (?1, ?2, ?3)")?;
                for row in rows {
                    insert.execute(params![row.seq.0 as i64, row.agent.map(|agent| agent.0), row.bytes])?;
                }
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO head (only, seq, hash) VALUES (1, ?1, ?2)")?
                    .execute(params![head.seq.0 as i64, head.head.0.as_slice()])?;
            }
            transaction.commit()
        };
        write(&mut self.connection).map_err(|source| AppendError { path: self.path.clone(), source })
    }
}

fn read_head(connection: &Connection) -> Result<Chain, rusqlite::Error> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?));
    let head = connection.query_row("SELECT seq, hash FROM head", [], row).optional()?;
    Ok(head.map_or(Chain::EMPTY, |(seq, hash)| Chain { seq: Seq(seq as u64), head: Hash(hash) }))
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
}

/// A record with its hash.
pub type Hashed = (Record, Hash);

impl Reader {
    /// Opens a second, reading connection to a journal that the writer has opened.
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(Reader { connection })
    }

    /// One record.
    pub fn get(&self, seq: Seq) -> Result<Option<Hashed>, ReadError> {
        let mut statement = self.connection.prepare_cached("SELECT bytes FROM record WHERE seq = ?1")?;
        let bytes: Option<Vec<u8>> = statement.query_row([seq.0 as i64], |row| row.get(0)).optional()?;
        bytes.map(decode).transpose()
    }

    /// The first `most` records after `after`, oldest first; only those about `agent`, if one is given.
    pub fn page(&self, agent: Option<AgentNumber>, after: Seq, most: u32) -> Result<Vec<Hashed>, ReadError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT bytes FROM record WHERE seq > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY seq LIMIT ?3",
        )?;
        let rows = statement.query_map(params![after.0 as i64, agent.map(|agent| agent.0), most], |row| row.get(0))?;
        rows.map(|bytes| decode(bytes?)).collect()
    }

    /// Records after `after`, oldest first; only those about `agent`, if one is given; the newest `last` of them.
    pub fn list(&self, agent: Option<AgentNumber>, after: Seq, last: u32) -> Result<Vec<Hashed>, ReadError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT bytes FROM record WHERE seq > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY seq DESC LIMIT ?3",
        )?;
        let rows = statement.query_map(params![after.0 as i64, agent.map(|agent| agent.0), last], |row| row.get(0))?;
        let mut records = rows.map(|bytes| decode(bytes?)).collect::<Result<Vec<_>, ReadError>>()?;
        records.reverse();
        Ok(records)
    }
}

fn decode(bytes: Vec<u8>) -> Result<Hashed, ReadError> {
    Ok((Record::decode(&bytes)?, Hash::of_record(&bytes)))
}

#[cfg(test)]
mod tests;
