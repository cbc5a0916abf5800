//! The program that `cargo xtask bench journal|replay` measures with: worlds beside the plainest things that could do it.
//!
//! ```text
//! worlds writers DIR WRITERS MS ROUNDS   durable, acknowledged events a second: a world, bare SQLite, preallocated O_DSYNC
//! worlds make DIR EVENTS counter.wasm    a world of so many events, counted by a reducer
//! worlds open DIR                        milliseconds to open it, and the most memory that took
//! worlds replay DIR                      events a second, every input run again
//! ```
//!
//! All three that write have one thread that takes what has come in, at most 256 at a time, writes it in one step and then
//! answers: what differs is what is written. An event is a record with 512 bytes in it.

#![allow(clippy::disallowed_methods, reason = "a stopwatch")]
#![allow(clippy::print_stdout, reason = "its only output")]

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use agentd::clock::{Clock as _, HostClock};
use agentd::keyring::Keyring;
use agentd::worlds::adapter::{Blobs, Job, Outcome, Outside};
use agentd::worlds::reducers::{Blobs as Wasm, Modules, WorldReducers};
use agentd::worlds::rehearse::replay;
use agentd::worlds::{Handle, Worlds, keeper};
use agentd_air::{Definition, Definitions, Name, Value};
use agentd_engine::{Asked, Input, Keeper, SAVE_EVERY};
use agentd_model::{Principal, Seq};
use rusqlite::{Connection, params};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const BATCH: usize = 256;
const BY: Principal = Principal::User { uid: 0 };

fn main() -> Fallible<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["writers", dir, writers, ms, rounds] => {
            measure_writers(Path::new(dir), writers.parse()?, ms.parse()?, rounds.parse()?)
        }
        ["make", dir, events, wasm] => make(Path::new(dir), events.parse()?, Path::new(wasm)),
        ["open", dir] => measure_open(Path::new(dir)),
        ["replay", dir] => measure_replay(Path::new(dir)),
        _ => Err("worlds writers DIR WRITERS MS ROUNDS | make DIR EVENTS WASM | open DIR | replay DIR".into()),
    }
}

fn event_name() -> Fallible<Name> {
    Ok("bench/event@1".parse()?)
}

/// 512 bytes and what belongs around them.
fn event() -> Fallible<Input> {
    Ok(Input::Event {
        schema: event_name()?,
        value: Value::Record(vec![Value::Bytes(vec![0x5a; 512])]),
        key: None,
        by: BY,
    })
}

/// Definitions of a world that takes events and has no rules.
fn plain() -> Fallible<Definitions> {
    let schema = serde_json::json!({ "defschema": "bench/event@1", "type": { "record": [["bytes", "bytes"]] } });
    Ok(Definitions::new([Definition::from_json(&schema)?], vec![], vec![], None)?)
}

/// Definitions of the sample counter.
fn counter(wasm: &Path) -> Fallible<Definitions> {
    let air = fs::read_to_string(wasm.with_extension("json"))?;
    let hash = agentd::worlds::reducers::hash_of(&fs::read(wasm)?).to_string();
    let air: serde_json::Value = serde_json::from_str(&air.replace("file:counter.wasm", &hash))?;
    let nodes = air["definitions"].as_array().into_iter().flatten();
    let nodes = nodes.map(Definition::from_json).collect::<Result<Vec<_>, _>>()?;
    Ok(Definitions::new(nodes, serde_json::from_value(air["routes"].clone())?, vec![], None)?)
}

/// What puts definitions into force: proposed, rehearsed (on nothing), approved, applied.
fn define(ask: &mut dyn FnMut(Asked) -> Fallible<Seq>, definitions: &Definitions, wasm: Option<&Path>) -> Fallible<()> {
    let patch = Box::new(Definitions::default().difference(definitions));
    let blobs = match wasm {
        Some(path) => {
            let bytes = fs::read(path)?;
            vec![(agentd::worlds::reducers::hash_of(&bytes), bytes)]
        }
        None => vec![],
    };
    let note = String::new;
    let proposal = ask(Asked { input: Input::Propose { patch, by: BY, note: note() }, blobs })?;
    let report = agentd_air::Hash([0; 32]);
    ask(Input::Rehearse { proposal, report, inputs: 0, differences: 0 }.into())?;
    ask(Input::Vote { proposal, approve: true, by: BY, note: note() }.into())?;
    ask(Input::Apply { proposal, by: BY, fence: false, host: Seq(0) }.into())?;
    Ok(())
}

/// Effects reach nothing here.
struct Nothing;

impl Outside for Nothing {
    fn perform(&self, _: &Job) -> (&'static str, Outcome, Blobs) {
        ("bench/1", Outcome::Failed("nothing is outside".into()), vec![])
    }
}

/// Something that takes events, each acknowledged when it is durable.
trait Store: Send + Sync {
    fn put(&self);
}

impl Store for Handle {
    fn put(&self) {
        static EVENT: LazyLock<Option<Input>> = LazyLock::new(|| event().ok());
        let Some(event) = EVENT.clone() else { return };
        if let Err(error) = self.ask_blocking(event) {
            panic!("an event was not taken: {error}");
        }
    }
}

/// A thread that writes what has come in, and then answers.
struct Grouped(SyncSender<SyncSender<()>>);

impl Store for Grouped {
    fn put(&self) {
        let (reply, answer) = sync_channel(1);
        if self.0.send(reply).is_ok() {
            let _ = answer.recv();
        }
    }
}

fn grouped(mut write: impl FnMut(usize) -> Fallible<()> + Send + 'static) -> Grouped {
    let (inbox, messages): (_, Receiver<SyncSender<()>>) = sync_channel(1024);
    std::thread::spawn(move || {
        while let Ok(first) = messages.recv() {
            let mut batch = vec![first];
            while let Some(next) = (batch.len() < BATCH).then(|| messages.try_recv().ok()).flatten() {
                batch.push(next);
            }
            if let Err(error) = write(batch.len()) {
                panic!("a peer cannot write: {error}");
            }
            for reply in batch {
                let _ = reply.send(());
            }
        }
    });
    Grouped(inbox)
}

fn bare_sqlite(path: &Path) -> Fallible<Grouped> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE record (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT")?;
    let bytes = vec![0x5a_u8; 640];
    let mut seq = 0_i64;
    Ok(grouped(move |rows| {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO record (seq, bytes) VALUES (?1, ?2)")?;
            for _ in 0..rows {
                seq += 1;
                insert.execute(params![seq, bytes])?;
            }
        }
        Ok(transaction.commit()?)
    }))
}

fn direct_appends(path: &Path) -> Fallible<Grouped> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let room = 256 << 20;
    let zeros = vec![0; 1 << 20];
    for _ in 0..room / zeros.len() {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(path)?;
    let (bytes, mut at) = (vec![0x5a_u8; 640], 0);
    Ok(grouped(move |rows| {
        let chunk = bytes.repeat(rows);
        if at + chunk.len() > room {
            at = 0;
            file.seek(SeekFrom::Start(0))?;
        }
        at += chunk.len();
        Ok(file.write_all(&chunk)?)
    }))
}

fn measure_writers(dir: &Path, writers: usize, ms: u64, rounds: usize) -> Fallible<()> {
    fs::create_dir_all(dir)?;
    let worlds =
        Worlds::new(&dir.join("worlds"), Keyring::open(&dir.join("keys"))?, Arc::new(HostClock), Modules::new()?);
    let outside: Arc<dyn Outside> = Arc::new(Nothing);
    let handle = worlds.create("bench", &outside)?;
    define(&mut |asked| Ok(handle.ask_blocking(asked)?), &plain()?, None)?;
    let stores: [(&str, Arc<dyn Store>); 3] = [
        ("world", Arc::new(handle)),
        ("sqlite", Arc::new(bare_sqlite(&dir.join("bare.sqlite"))?)),
        ("o_dsync", Arc::new(direct_appends(&dir.join("appends"))?)),
    ];
    for (_, store) in &stores {
        rate(store, writers, 300);
    }
    for round in 0..rounds {
        let mut row = serde_json::json!({ "writers": writers, "round": round });
        // Who begins changes from round to round.
        for at in 0..stores.len() {
            let (name, store) = &stores[(at + round) % stores.len()];
            row[*name] = rate(store, writers, ms).into();
        }
        println!("{row}");
    }
    worlds.close();
    Ok(())
}

/// Events a second, over so many milliseconds.
fn rate(store: &Arc<dyn Store>, writers: usize, ms: u64) -> f64 {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    store.put();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(ms));
        stop.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("journal.sqlite")
}

fn reducers(dir: &Path) -> Fallible<WorldReducers> {
    Ok(WorldReducers::new(Arc::new(Modules::new()?), Wasm::Journal(journal(dir))))
}

fn make(dir: &Path, events: u64, wasm: &Path) -> Fallible<()> {
    fs::create_dir_all(dir)?;
    let signer = Keyring::open(&dir.join("keys"))?.current()?;
    let (state, chain, saved, disk) = keeper::open(&journal(dir))?;
    let mut keeper = Keeper::new(state, chain, saved, disk, signer);
    let (clock, reducers) = (HostClock, reducers(dir)?);
    let stamp = clock.stamp();
    let begin = Input::Begin {
        world: agentd_model::WorldId(stamp.entropy.0),
        name: "bench".into(),
        key: keeper.signer().key(),
    };
    keeper.turn(vec![begin.into()], stamp, &reducers)?;
    let mut ask = |asked: Asked| {
        let mut turn = keeper.turn(vec![asked], clock.stamp(), &reducers)?;
        Ok(turn.answers.remove(0)?)
    };
    define(&mut ask, &counter(wasm)?, Some(wasm))?;
    let value = Value::Record(vec![Value::Int(1)]);
    let one = Input::Event { schema: "demo/count@1".parse()?, value, key: None, by: BY };
    let began = Instant::now();
    let mut left = events;
    while left > 0 {
        let batch = left.min(4096);
        let asked = (0..batch).map(|_| Asked::from(one.clone())).collect();
        keeper.turn(asked, clock.stamp(), &reducers)?;
        left -= batch;
    }
    let seconds = began.elapsed().as_secs_f64();
    let row = serde_json::json!({
        "events": events, "records": keeper.chain().seq.0, "per_second": events as f64 / seconds, "save_every": SAVE_EVERY,
    });
    println!("{row}");
    Ok(())
}

fn measure_open(dir: &Path) -> Fallible<()> {
    let began = Instant::now();
    let (state, chain, saved, _journal) = keeper::open(&journal(dir))?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    let row = serde_json::json!({
        "ms": ms, "mib": peak / 1024.0, "records": chain.seq.0, "events": state.events(), "read": chain.seq.0 - saved.0,
    });
    println!("{row}");
    Ok(())
}

fn measure_replay(dir: &Path) -> Fallible<()> {
    let (path, reducers) = (journal(dir), reducers(dir)?);
    let work = move || {
        let began = Instant::now();
        let replayed = replay(&path, &reducers, |_| ()).map_err(|error| error.to_string())?;
        let seconds = began.elapsed().as_secs_f64();
        Ok::<_, String>((replayed.state.events() as f64 / seconds, replayed.state.events()))
    };
    let thread = std::thread::Builder::new().stack_size(4 << 20).spawn(work)?;
    let (per_second, events) = thread.join().map_err(|_panic| "the replay ended early")??;
    println!("{}", serde_json::json!({ "per_second": per_second, "events": events }));
    Ok(())
}
