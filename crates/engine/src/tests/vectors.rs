//! Are the formats still what `docs/format/journal.json` and `docs/format/receipt.json` say?
//!
//! Each file is read as another implementer would: bytes are decoded, hashed, chained and verified, and come to what stands
//! beside them. Then it is compared with what is written today, so that neither can change alone; where they differ, the
//! test shows what would have to be in the file.

use std::fmt::{Debug, Write as _};

use agentd_journal::{Body, Head, Signature, Verifier, hash_of_record, key_id};
use agentd_model::{AgentNumber, Duration, Event, PublicKey};
use coset::{CoseSign1, TaggedCborSerializable as _};
use serde::{Deserialize, Serialize};

use super::*;

const JOURNAL: &str = include_str!("../../../../docs/format/journal.json");
const RECEIPT: &str = include_str!("../../../../docs/format/receipt.json");

/// One record, and what it says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    about: String,
    seq: Seq,
    previous: Hash,
    stamp: Clocks,
    cause: Option<Seq>,
    body: Json,
    cbor: String,
    hash: Hash,
}

/// A stamp; not every reader of JSON keeps numbers of 64 bits.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Clocks {
    wall_ns: String,
    mono_ns: String,
    entropy: Entropy,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    about: String,
    seq: Seq,
    key: PublicKey,
    message: String,
    signature: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    about: String,
    bodies: String,
    records: Vec<Row>,
    heads: Vec<Signed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Journals {
    seeds: Vec<String>,
    journals: Vec<Journal>,
    refused: Vec<Refused>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    about: String,
    cbor: String,
    error: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    about: String,
    receipt: Json,
    result: Option<String>,
    payload: String,
    message: String,
    cbor: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipts {
    seed: String,
    key: PublicKey,
    key_id: String,
    world: WorldId,
    receipts: Vec<Vector>,
    refused: Vec<Refused>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

fn seeded(seed: &str) -> Signer {
    Signer::from_seed(&unhex(seed).try_into().unwrap())
}

/// A list with one item a line.
fn lines<T: Serialize>(items: &[T]) -> String {
    let lines: Vec<String> = items.iter().map(|item| format!("  {}", serde_json::to_string(item).unwrap())).collect();
    format!("[\n{}\n]", lines.join(",\n"))
}

fn clocks(stamp: Stamp) -> Clocks {
    Clocks { wall_ns: stamp.wall_ns.to_string(), mono_ns: stamp.mono_ns.to_string(), entropy: stamp.entropy }
}

fn same(file: &str, found: &str, written: &str) {
    assert!(found == written, "docs/format/{file} is not what is written; that would be:\n{written}");
}

// Journals: read.

fn check<B: Body + Debug + Serialize>(journal: &Journal) {
    let mut chain = Chain::EMPTY;
    let mut heads = journal.heads.iter();
    for row in &journal.records {
        let (about, bytes) = (&row.about, unhex(&row.cbor));
        let record: Record<B> = chain.check(&bytes).unwrap_or_else(|damage| panic!("{about}: {damage:?}"));
        assert_eq!((record.seq, record.previous, record.cause), (row.seq, row.previous, row.cause), "{about}");
        assert_eq!((clocks(record.stamp), hash_of_record(&bytes)), (clocks(record.stamp), row.hash), "{about}");
        assert_eq!(clocks(record.stamp), row.stamp, "{about}");
        assert_eq!(serde_json::to_value(&record.event).unwrap(), row.body, "{about}");
        assert_eq!(hex(&record.encode()), row.cbor, "{about}");
        if let Some(signed) = heads.as_slice().first().filter(|signed| signed.seq == row.seq) {
            heads.next();
            let mut message = b"agentd journal head v2\0".to_vec();
            message.extend(row.seq.0.to_be_bytes());
            message.extend(row.hash.0);
            assert_eq!(hex(&message), signed.message, "{}", signed.about);
            let signature = Signature(unhex(&signed.signature).try_into().unwrap());
            let head = Head { seq: row.seq, hash: row.hash };
            assert_eq!(Verifier::new(signed.key).check_head(&head, &signature), Ok(()), "{}", signed.about);
            assert_eq!(chain.check_end(&head, Some(&signature)), Ok(()), "{}", signed.about);
        }
    }
    assert_eq!(heads.count(), 0, "every head is at the end of a record");
}

#[test]
fn journals_read_as_they_say() {
    let file: Journals = serde_json::from_str(JOURNAL).unwrap();
    for journal in &file.journals {
        match journal.bodies.as_str() {
            "host" => check::<Event>(journal),
            "world" => check::<Entry>(journal),
            other => panic!("{}: no bodies of {other}", journal.about),
        }
    }
    for Refused { about, cbor, error } in &file.refused {
        let found = Record::<Event>::decode(&unhex(cbor)).unwrap_err();
        assert_eq!(found.to_string(), *error, "{about}");
    }
    assert!(file.seeds.iter().all(|seed| seed.len() == 64));
}

// Journals: written.

const SEEDS: [[u8; 32]; 2] = [[7; 32], [8; 32]];

fn stamp(number: u64) -> Stamp {
    let entropy = if number.is_multiple_of(2) { Entropy::default() } else { Entropy([0xee; 16]) };
    Stamp { wall_ns: 1_795_261_000_000_000_000 + number, mono_ns: 77 + number, entropy }
}

/// Writes a journal: each record with what it is about, and a head after those that say so.
struct Writer {
    chain: Chain,
    rows: Vec<Row>,
    heads: Vec<Signed>,
}

impl Writer {
    fn new() -> Writer {
        Writer { chain: Chain::EMPTY, rows: Vec::new(), heads: Vec::new() }
    }

    fn add<B: Body + Serialize>(&mut self, about: &str, cause: Option<u64>, event: B) {
        let (previous, body) = (self.chain.head, serde_json::to_value(&event).unwrap());
        let stamp = stamp(self.chain.seq.0);
        let (seq, bytes) = self.chain.append(stamp, cause.map(Seq), event);
        let (cause, hash) = (cause.map(Seq), self.chain.head);
        let (about, stamp, cbor) = (about.to_owned(), clocks(stamp), hex(&bytes));
        self.rows.push(Row { about, seq, previous, stamp, cause, body, cbor, hash });
    }

    fn head(&mut self, about: &str, signer: &Signer) {
        let head = self.chain.head();
        let message = [&b"agentd journal head v2\0"[..], &head.seq.0.to_be_bytes(), &head.hash.0].concat();
        let (message, signature) = (hex(&message), hex(&signer.sign_head(&head).0));
        self.heads.push(Signed { about: about.into(), seq: head.seq, key: signer.key(), message, signature });
    }

    fn json(&self, about: &str, bodies: &str) -> String {
        let (records, heads) = (lines(&self.rows), lines(&self.heads));
        format!("{{\"about\": {about:?}, \"bodies\": {bodies:?}, \"records\": {records}, \"heads\": {heads}}}")
    }
}

fn host_journal(first: &Signer, second: &Signer) -> String {
    let mut writer = Writer::new();
    writer.add("genesis", None, Event::JournalBegun { world: WorldId([1; 16]), key: first.key() });
    writer.head("the first commit", first);
    let (spent, limit) = (Duration(240_000_000), Duration(300_000_000));
    writer.add("a warning", None, Event::BudgetWarned { agent: AgentNumber(3), spent, limit });
    writer.add("what follows from it", Some(2), Event::AgentPaused { agent: AgentNumber(3), by: Principal::Daemon });
    writer.head("one commit of two records", first);
    writer.add("another key", None, Event::KeyRotated { key: second.key() });
    writer.head("the old key vouches for the new one", first);
    writer.add("goes on", None, Event::AgentAdopted { agent: AgentNumber(3) });
    writer.head("the new key signs", second);
    writer.json("the host's journal", "host")
}

fn world_journal(first: &Signer, second: &Signer) -> String {
    let mut writer = Writer::new();
    let world = WorldId([2; 16]);
    writer.add("genesis", None, Entry::Begun { world, name: "build".into(), key: first.key() });
    let patch = Patch { base: Definitions::default().manifest().hash(), changes: vec![] };
    let (patch, by, note) = (patch.encode().into(), user(1000), "nothing yet".to_owned());
    writer.add("a proposal", None, Entry::Proposed { patch, by, note });
    let (module, cell) = (name("acme/counter@1"), Some(ByteVec::from(vec![0x03])));
    let from = Source::Sent { by: user(1000) };
    let value = ByteVec::from(vec![0x81, 0x05]);
    writer.add("an event", None, Entry::Happened { schema: name("acme/count@1"), value, key: cell.clone(), from });
    let outcome = Outcome::Set { state: vec![0x81, 0x0c].into(), fuel: 1234 };
    writer.add(
        "a step",
        Some(3),
        Entry::Stepped { module: module.clone(), wasm: Content([5; 32]), key: cell, outcome },
    );
    let (kind, capability) = (name("sys/timer@1"), "acme/timer@1".to_owned());
    let origin = Origin::Module { name: module, key: None };
    let params = ByteVec::from(vec![0x81, 0x18, 0x2a]);
    let intent = Intent { id: Content([6; 32]), kind, capability, params, origin, key: None };
    let ruling = Ruling { policy: Some(name("acme/rules@1")), rule: Some(0), decision: agentd_air::Decision::Allow };
    let grant = Grant::Covered { by: Content([4; 32]) };
    writer.add("an intent", Some(4), Entry::Wanted { intent: Box::new(intent), grant, ruling: Some(ruling) });
    writer.head("one commit", first);
    writer.add("an attempt", Some(5), Entry::Attempted { intent: Content([6; 32]), attempt: 1 });
    writer.add("a saved state", None, Entry::StateSaved { state: Hash([3; 32]), key: first.key() });
    writer.head("a commit whose last record saves the state", first);
    writer.add("records are taken out", None, Entry::Pruned { first: Seq(7), by: user(1000) });
    writer.head("the journal may begin at record 7", first);
    writer.add("another host goes on", None, Entry::TakenOver { name: "build-2".into(), key: second.key() });
    writer.head("its own key vouches", second);
    writer.json("a world's journal", "world")
}

#[test]
fn journals_are_written_as_they_read() {
    let (first, second) = (Signer::from_seed(&SEEDS[0]), Signer::from_seed(&SEEDS[1]));
    let event = Event::AgentAdopted { agent: AgentNumber(3) };
    let mut chain = Chain::EMPTY;
    let (_, good) = chain.append(Stamp::default(), None, event);
    let refused = |about: &str, cbor: Vec<u8>| {
        let error = Record::<Event>::decode(&cbor).unwrap_err().to_string();
        Refused { about: about.into(), cbor: hex(&cbor), error }
    };
    let mut later = good.clone();
    later[1] = 9;
    let mut longer = good.clone();
    longer.splice(2..3, [0x18, good[2]]);
    let refused = [
        refused("another version", later),
        refused("a number in a longer form", longer),
        refused("a byte too many", [&good[..], &[0]].concat()),
    ];
    let written = format!(
        "{{\"seeds\": {},\n\"journals\": [{},\n{}],\n\"refused\": {}}}\n",
        serde_json::to_string(&SEEDS.map(|seed| hex(&seed))).unwrap(),
        host_journal(&first, &second),
        world_journal(&first, &second),
        lines(&refused)
    );
    same("journal.json", JOURNAL, &written);
}

// Receipts.

#[test]
fn receipts_read_as_they_say() {
    let file: Receipts = serde_json::from_str(RECEIPT).unwrap();
    let signer = seeded(&file.seed);
    assert_eq!((signer.key(), hex(&key_id(signer.key()))), (file.key, file.key_id));
    for vector in &file.receipts {
        let (about, bytes) = (&vector.about, unhex(&vector.cbor));
        let receipt =
            Receipt::verified(&bytes, file.world, file.key).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(serde_json::to_value(&receipt).unwrap(), vector.receipt, "{about}");
        assert_eq!(receipt.result.as_ref().map(|result| hex(result)), vector.result, "{about}");
        assert_eq!(hex(&receipt.sign(&signer)), vector.cbor, "{about}");
        // By hand: the payload is in the bytes, and the message is what is signed.
        let cose = CoseSign1::from_tagged_slice(&bytes).unwrap();
        assert_eq!(hex(cose.payload.as_ref().unwrap()), vector.payload, "{about}");
        let signature = Signature(cose.signature.clone().try_into().unwrap());
        assert_eq!(Verifier::new(file.key).check(&unhex(&vector.message), &signature), Ok(()), "{about}");
    }
    for Refused { about, cbor, error } in &file.refused {
        let found = Receipt::verified(&unhex(cbor), file.world, file.key).unwrap_err();
        assert_eq!(found.to_string(), *error, "{about}");
    }
}

#[test]
fn receipts_are_written_as_they_read() {
    let (signer, stranger) = (Signer::from_seed(&SEEDS[0]), Signer::from_seed(&SEEDS[1]));
    let world = WorldId([2; 16]);
    let receipt = |status, change: fn(&mut Receipt)| {
        let mut receipt = Receipt::new(world, Content([6; 32]), "timer/1", 1, status);
        (receipt.began_ns, receipt.ended_ns) = (1000, 2000);
        but(receipt, change)
    };
    let done = || receipt(Status::Done, |receipt| receipt.result = Some(vec![0x81, 0x18, 0x2a].into()));
    let why = |receipt: &mut Receipt| receipt.reason = Some("no answer".into());
    let of = |about: &str, receipt: &Receipt| {
        let bytes = receipt.sign(&signer);
        let cose = CoseSign1::from_tagged_slice(&bytes).unwrap();
        Vector {
            about: about.into(),
            receipt: serde_json::to_value(receipt).unwrap(),
            result: receipt.result.as_ref().map(|result| hex(result)),
            payload: hex(cose.payload.as_ref().unwrap()),
            message: hex(&cose.tbs_data(b"agentd receipt v1")),
            cbor: hex(&bytes),
        }
    };
    let vectors = [
        of("done, with a result", &done()),
        of("failed, with a reason", &receipt(Status::Failed, why)),
        of("timed out in the second attempt", &but(receipt(Status::TimedOut, why), |receipt| receipt.attempt = 2)),
        of("interrupted: nobody knows", &receipt(Status::Interrupted, |_| ())),
    ];
    let good = done().sign(&signer);
    let refused = |about: &str, cbor: Vec<u8>| {
        let error = Receipt::verified(&cbor, world, signer.key()).unwrap_err().to_string();
        Refused { about: about.into(), cbor: hex(&cbor), error }
    };
    let mut added = CoseSign1::from_tagged_slice(&good).unwrap();
    added.unprotected = coset::HeaderBuilder::new().key_id(vec![1]).build();
    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let refused = [
        refused("somebody else's key", done().sign(&stranger)),
        refused("another world's", but(done(), |receipt| receipt.world = WorldId([3; 16])).sign(&signer)),
        refused("an unprotected header", added.to_tagged_vec().unwrap()),
        refused("a length in a longer form", [&[0xd2, 0x98, 0x04], &good[2..]].concat()),
        refused("a bit of the signature", flipped),
    ];
    let written = format!(
        "{{\"seed\": {:?}, \"key\": \"{}\", \"key_id\": {:?},\n\"world\": \"{world}\",\n\"receipts\": {},\n\"refused\": {}}}\n",
        hex(&SEEDS[0]),
        signer.key(),
        hex(&key_id(signer.key())),
        lines(&vectors),
        lines(&refused)
    );
    same("receipt.json", RECEIPT, &written);
}
