//! Is every record of a journal still what it was?
//!
//! Opening trusts the saved state that it begins with, because the signed head vouches for everything before it. Here
//! everything is read: the chain from the first record that is there, each saved state against its record, every head that
//! was ever signed against its signature.

use std::path::Path;

use agentd_journal::{Body, Chain, Damage, DamageKind, Head, KeyChange};
use agentd_model::{PublicKey, Seq};
use rusqlite::{Connection, OpenFlags};

use super::{OpenError, hash_of_saved, read_head, read_record, read_signature};

/// What was verified.
#[derive(Clone, Copy, Debug)]
pub struct Verified {
    /// The first record; more than 1 where older ones were put away.
    pub first: Seq,
    /// The last.
    pub head: Head,
    /// Heads whose signatures were checked.
    pub signatures: u64,
    /// What the newest head is signed with.
    pub key: Option<PublicKey>,
}

/// Reads all of a journal. `seen` is called with each record's number, for progress.
pub fn verify<B: Body>(path: &Path, mut seen: impl FnMut(Seq)) -> Result<Verified, OpenError> {
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let damaged = |damage| OpenError::Damaged { path: path.to_owned(), damage };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(database)?;
    // One view of the file, whatever the writer does meanwhile.
    connection.execute_batch("BEGIN").map_err(database)?;
    let first: Option<i64> =
        connection.query_row("SELECT min(seq) FROM record", [], |row| row.get(0)).map_err(database)?;
    let first = Seq(first.unwrap_or(1) as u64);
    let mut chain = if first == Seq(1) { Chain::EMPTY } else { begin::<B>(&connection, first, path)? };
    let mut signatures = 0;
    let mut check = |chain: &Chain, needed: bool| {
        let found = read_signature(&connection, chain.seq).map_err(database)?;
        match found {
            None if !needed => Ok(()),
            Some((hash, _)) if hash != chain.head => Err(damaged(Damage { at: chain.seq, kind: DamageKind::Head })),
            found => {
                signatures += 1;
                chain.check_signature(found.as_ref().map(|(_, signature)| signature)).map_err(damaged)
            }
        }
    };
    check(&chain, first != Seq(1))?;
    let mut statement = connection.prepare("SELECT bytes FROM record WHERE seq > ?1 ORDER BY seq").map_err(database)?;
    let mut rows = statement.query([chain.seq.0 as i64]).map_err(database)?;
    while let Some(row) = rows.next().map_err(database)? {
        let bytes = row.get_ref(0).map_err(database)?.as_blob().map_err(|error| database(error.into()))?;
        let record = chain.check::<B>(bytes).map_err(damaged)?;
        check(&chain, record.event.key_change().is_some_and(KeyChange::ends_a_commit))?;
        seen(record.seq);
    }
    let (head, signature) = read_head(&connection).map_err(database)?;
    chain.check_end(&head, signature.as_ref()).map_err(damaged)?;
    let mut saved = connection.prepare("SELECT seq, bytes FROM saved").map_err(database)?;
    let rows = saved.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).map_err(database)?;
    for row in rows {
        let (seq, bytes) = row.map_err(database)?;
        let at = Seq(seq as u64);
        let record = read_record(&connection, at).map_err(database)?;
        let record = record.ok_or_else(|| damaged(Damage { at, kind: DamageKind::Missing }))?;
        Chain::resume::<B>(at, &record, hash_of_saved(&bytes)).map_err(damaged)?;
    }
    Ok(Verified { first, head: chain.head(), signatures, key: chain.signed_with })
}

/// The first record of a journal whose older ones were put away: it says which state was saved.
fn begin<B: Body>(connection: &Connection, first: Seq, path: &Path) -> Result<Chain, OpenError> {
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let bytes = read_record(connection, first).map_err(database)?.unwrap_or_default();
    let saved = agentd_journal::Record::<B>::decode(&bytes).ok().and_then(|record| record.event.saved_state());
    let state = saved.map_or(agentd_model::Hash::ZERO, |(state, _)| state);
    Chain::resume::<B>(first, &bytes, state).map_err(|damage| OpenError::Damaged { path: path.to_owned(), damage })
}
