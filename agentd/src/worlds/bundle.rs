//! A world as one file, to be carried elsewhere, verified there and replayed.
//!
//! ```text
//! file = "agentd world bundle 1\n" item…
//! item = length (4 bytes, big endian) ‖ CBOR
//!        [0, name text, seq uint, hash bytes(32)]      first: what the world is called, and its head
//!        [1, hash bytes(32), bytes]                    a blob
//!        [2, seq uint, bytes]                          a saved state: where the journal begins later than at 1
//!        [3, hash bytes(32), bytes]                    a record, in order, with its hash
//!        [4, seq uint, hash bytes(32), bytes(64)]      a signed head, behind its record
//!        [5, hash bytes(32)]                           last: BLAKE3 of everything before this item
//! ```
//!
//! Nothing in it needs to be believed. Records carry each other's hashes and heads are signed; blobs are known by their
//! hashes. The hashes beside the records and at the end are there to name the place when a byte is wrong.

use std::io::{self, Read, Write};
use std::path::Path;

use agentd_engine::Entry;
use agentd_journal::{Body as _, Chain, Damage, DamageKind, Hash, Head, Record, Signature, hash_of_record};
use agentd_model::Seq;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::journal::hash_of_saved;

const MAGIC: &[u8] = b"agentd world bundle 1\n";
/// Longest item: a blob of the largest module, a saved state of many cells.
const LONGEST: u32 = 1 << 30;

/// Why a file is not a bundle that may be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It does not begin like one.
    #[error("this is not a bundle of a world")]
    Magic,
    /// It ends too early, or cannot be read.
    #[error("the bundle cannot be read")]
    Io(#[from] io::Error),
    /// Something in it is no item.
    #[error("item {at} of the bundle is damaged: {why}")]
    Item {
        /// Which, from 1.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// A record or a head does not verify.
    #[error("the bundle is damaged")]
    Damaged(#[from] Damage),
    /// A blob is not what its hash says.
    #[error("blob {0} is not what its hash says")]
    Blob(Hash),
    /// The end does not fit the rest.
    #[error("the hash at the end of the bundle is not that of its bytes")]
    End,
    /// What is to be copied was taken out of the journal.
    #[error("the journal begins at record {first}; what was before is not known any more")]
    Pruned {
        /// Its first record.
        first: Seq,
    },
    /// The journal that it is read into, or comes from, refuses.
    #[error("cannot use the journal")]
    Database(#[from] rusqlite::Error),
}

#[derive(Encode, Decode)]
enum Item {
    #[n(0)]
    Head(#[n(0)] String, #[n(1)] Seq, #[n(2)] Hash),
    #[n(1)]
    Blob(#[n(0)] Hash, #[n(1)] ByteVec),
    #[n(2)]
    Saved(#[n(0)] Seq, #[n(1)] ByteVec),
    #[n(3)]
    Record(#[n(0)] Hash, #[n(1)] ByteVec),
    #[n(4)]
    Signed(#[n(0)] Seq, #[n(1)] Hash, #[n(2)] ByteVec),
    #[n(5)]
    End(#[n(0)] Hash),
}

/// Writes a world as it was at the newest signed head that is not newer than `most`. Gives that head.
pub fn write(journal: &Path, name: &str, most: Seq, out: impl Write) -> Result<Head, BundleError> {
    let connection = Connection::open_with_flags(journal, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // One view of the file, whatever its writer does meanwhile.
    connection.execute_batch("BEGIN")?;
    let newest = connection
        .query_row(
            "SELECT seq, hash FROM signature WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1",
            [most.0 as i64],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?)),
        )
        .optional()?;
    let first: Option<i64> = connection.query_row("SELECT min(seq) FROM record", [], |row| row.get(0))?;
    let first = Seq(first.unwrap_or(1) as u64);
    let (seq, hash) = newest.ok_or_else(|| match first {
        Seq(1) => BundleError::from(Damage { at: first, kind: DamageKind::Missing }),
        first => BundleError::Pruned { first },
    })?;
    let head = Head { seq: Seq(seq as u64), hash: Hash(hash) };
    let mut out = Hashing { inner: io::BufWriter::new(out), hasher: blake3::Hasher::new() };
    out.write_all(MAGIC)?;
    put(&mut out, &Item::Head(name.to_owned(), head.seq, head.hash))?;
    let mut blobs = connection.prepare("SELECT hash, bytes FROM blob ORDER BY hash")?;
    let mut rows = blobs.query([])?;
    while let Some(row) = rows.next()? {
        put(&mut out, &Item::Blob(Hash(row.get(0)?), row.get::<_, Vec<u8>>(1)?.into()))?;
    }
    if first > Seq(1) {
        let saved = connection
            .query_row("SELECT bytes FROM saved WHERE seq = ?1", [first.0 as i64], |row| row.get::<_, Vec<u8>>(0));
        put(&mut out, &Item::Saved(first, saved?.into()))?;
    }
    let mut records = connection.prepare(
        "SELECT record.seq, record.bytes, signature.hash, signature.bytes FROM record LEFT JOIN signature USING (seq)
         WHERE record.seq <= ?1 ORDER BY record.seq",
    )?;
    let mut rows = records.query([seq])?;
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(1)?;
        put(&mut out, &Item::Record(hash_of_record(&bytes), bytes.into()))?;
        if let (Some(hash), Some(signature)) = (row.get::<_, Option<[u8; 32]>>(2)?, row.get::<_, Option<Vec<u8>>>(3)?) {
            put(&mut out, &Item::Signed(Seq(row.get::<_, i64>(0)? as u64), Hash(hash), signature.into()))?;
        }
    }
    let end = Hash(*out.hasher.finalize().as_bytes());
    put(&mut out, &Item::End(end))?;
    out.inner.flush()?;
    Ok(head)
}

/// What a bundle holds, verified.
#[derive(Clone, Debug)]
pub struct Contents {
    /// What the world is called.
    pub name: String,
    /// Where its chain ends.
    pub chain: Chain,
    /// Its first record.
    pub first: Seq,
    /// Heads whose signatures were checked.
    pub signatures: u64,
    /// Blobs.
    pub blobs: u64,
}

/// Where what is in a bundle goes, as it is verified.
pub trait Sink {
    /// A blob.
    fn blob(&mut self, hash: Hash, bytes: &[u8]) -> Result<(), BundleError>;
    /// A saved state.
    fn saved(&mut self, seq: Seq, bytes: &[u8]) -> Result<(), BundleError>;
    /// A record.
    fn record(&mut self, seq: Seq, bytes: &[u8]) -> Result<(), BundleError>;
    /// A signed head.
    fn signed(&mut self, head: Head, signature: &Signature) -> Result<(), BundleError>;
}

/// Keeps nothing: for those who only want to know.
pub struct Nowhere;

impl Sink for Nowhere {
    fn blob(&mut self, _: Hash, _: &[u8]) -> Result<(), BundleError> {
        Ok(())
    }
    fn saved(&mut self, _: Seq, _: &[u8]) -> Result<(), BundleError> {
        Ok(())
    }
    fn record(&mut self, _: Seq, _: &[u8]) -> Result<(), BundleError> {
        Ok(())
    }
    fn signed(&mut self, _: Head, _: &Signature) -> Result<(), BundleError> {
        Ok(())
    }
}

/// Reads a bundle and verifies all of it on the way into a sink.
pub fn read(input: impl Read, sink: &mut dyn Sink) -> Result<Contents, BundleError> {
    let mut input = io::BufReader::new(input);
    let mut hasher = blake3::Hasher::new();
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic).map_err(|_short| BundleError::Magic)?;
    if magic != *MAGIC {
        return Err(BundleError::Magic);
    }
    hasher.update(&magic);
    let mut at = 1;
    let Item::Head(name, seq, hash) = take(&mut input, &mut hasher, at)?.0 else {
        return Err(BundleError::Item { at, why: "it does not begin with its head".into() });
    };
    let told = Head { seq, hash };
    let mut reading = Reading { chain: Chain::EMPTY, first: Seq(1), signatures: 0, blobs: 0, saved: None, owed: false };
    let mut newest = None;
    loop {
        at += 1;
        let before = Hash(*hasher.finalize().as_bytes());
        match take(&mut input, &mut hasher, at)?.0 {
            Item::Head(..) => return Err(BundleError::Item { at, why: "it has two heads".into() }),
            Item::Blob(hash, bytes) => {
                if Hash(*blake3::hash(&bytes).as_bytes()) != hash {
                    return Err(BundleError::Blob(hash));
                }
                reading.blobs += 1;
                sink.blob(hash, &bytes)?;
            }
            Item::Saved(seq, bytes) => {
                reading.saved = Some((seq, hash_of_saved(&bytes)));
                sink.saved(seq, &bytes)?;
            }
            Item::Record(hash, bytes) => {
                let seq = reading.record(hash, &bytes)?;
                sink.record(seq, &bytes)?;
            }
            Item::Signed(seq, hash, bytes) => {
                let signature = reading.signed(seq, hash, &bytes)?;
                newest = Some(signature);
                sink.signed(Head { seq, hash }, &signature)?;
            }
            Item::End(hash) if hash == before => break,
            Item::End(_) => return Err(BundleError::End),
        }
    }
    let mut more = [0; 1];
    if input.read(&mut more)? != 0 {
        return Err(BundleError::End);
    }
    reading.settle()?;
    reading.chain.check_end(&told, newest.as_ref())?;
    let Reading { chain, first, signatures, blobs, .. } = reading;
    Ok(Contents { name, chain, first, signatures, blobs })
}

/// What has been read so far.
struct Reading {
    chain: Chain,
    first: Seq,
    signatures: u64,
    blobs: u64,
    saved: Option<(Seq, Hash)>,
    /// The newest record has to be signed and has not been yet.
    owed: bool,
}

impl Reading {
    fn record(&mut self, hash: Hash, bytes: &[u8]) -> Result<Seq, BundleError> {
        self.settle()?;
        let at = match (&self.saved, self.chain.seq) {
            (Some((seq, _)), Seq(0)) => *seq,
            _ => Seq(self.chain.seq.0 + 1),
        };
        if hash_of_record(bytes) != hash {
            return Err(Damage { at, kind: DamageKind::Hash }.into());
        }
        match (&self.saved, self.chain.seq) {
            (Some((seq, state)), Seq(0)) => {
                self.chain = Chain::resume::<Entry>(*seq, bytes, *state)?;
                (self.first, self.owed) = (*seq, true);
            }
            _ => {
                let record: Record<Entry> = self.chain.check(bytes)?;
                self.owed = record.event.key_change().is_some_and(agentd_journal::KeyChange::ends_a_commit);
            }
        }
        Ok(at)
    }

    fn signed(&mut self, seq: Seq, hash: Hash, bytes: &[u8]) -> Result<Signature, BundleError> {
        let damage = |kind| Damage { at: seq, kind };
        if (Head { seq, hash }) != self.chain.head() {
            return Err(damage(DamageKind::Head).into());
        }
        let no_key = agentd_model::PublicKey([0; 32]);
        let wrong = || damage(DamageKind::Signature(self.chain.signed_with.unwrap_or(no_key)));
        let signature = Signature(bytes.try_into().map_err(|_wrong_length| wrong())?);
        self.chain.check_signature(Some(&signature))?;
        self.signatures += 1;
        self.owed = false;
        Ok(signature)
    }

    fn settle(&self) -> Result<(), BundleError> {
        if self.owed { Ok(self.chain.check_signature(None)?) } else { Ok(()) }
    }
}

/// Reads a bundle into a new journal, and verifies all of it on the way. The file must not be there.
pub fn read_into(journal: &Path, input: impl Read) -> Result<Contents, BundleError> {
    let mut connection = Connection::open(journal)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(crate::journal::SCHEMA)?;
    let transaction = connection.transaction()?;
    let contents = read(input, &mut Into(&transaction))?;
    transaction.commit()?;
    Ok(contents)
}

struct Into<'a>(&'a rusqlite::Transaction<'a>);

impl Sink for Into<'_> {
    fn blob(&mut self, hash: Hash, bytes: &[u8]) -> Result<(), BundleError> {
        let mut insert = self.0.prepare_cached("INSERT OR IGNORE INTO blob (hash, bytes) VALUES (?1, ?2)")?;
        insert.execute(params![hash.0.as_slice(), bytes])?;
        Ok(())
    }

    fn saved(&mut self, seq: Seq, bytes: &[u8]) -> Result<(), BundleError> {
        self.0.execute("INSERT INTO saved (seq, bytes) VALUES (?1, ?2)", params![seq.0 as i64, bytes])?;
        Ok(())
    }

    fn record(&mut self, seq: Seq, bytes: &[u8]) -> Result<(), BundleError> {
        let mut insert = self.0.prepare_cached("INSERT INTO record (seq, bytes) VALUES (?1, ?2)")?;
        insert.execute(params![seq.0 as i64, bytes])?;
        Ok(())
    }

    fn signed(&mut self, head: Head, signature: &Signature) -> Result<(), BundleError> {
        let mut insert = self.0.prepare_cached("INSERT INTO signature (seq, hash, bytes) VALUES (?1, ?2, ?3)")?;
        insert.execute(params![head.seq.0 as i64, head.hash.0.as_slice(), signature.0.as_slice()])?;
        Ok(())
    }
}

fn put(out: &mut impl Write, item: &Item) -> io::Result<()> {
    let bytes = minicbor::to_vec(item).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&bytes)
}

fn take(input: &mut impl Read, hasher: &mut blake3::Hasher, at: u64) -> Result<(Item, usize), BundleError> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    hasher.update(&length);
    let length = u32::from_be_bytes(length);
    let item = |why: String| BundleError::Item { at, why };
    if length > LONGEST {
        return Err(item(format!("it says that it has {length} bytes")));
    }
    let mut bytes = Vec::new();
    // Taken as it comes, so that a length that lies costs nothing.
    input.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(BundleError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    hasher.update(&bytes);
    let decoded: Item = minicbor::decode(&bytes).map_err(|error| item(error.to_string()))?;
    if minicbor::to_vec(&decoded).ok().as_deref() != Some(&bytes) {
        return Err(item("not in canonical form".into()));
    }
    Ok((decoded, bytes.len()))
}

/// Hashes what it passes on.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
