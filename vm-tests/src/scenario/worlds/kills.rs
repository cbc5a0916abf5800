//! The daemon is killed in the middle of writes, again and again: what it acknowledged is there, in order, and nothing twice.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::World;
use crate::clock::{now, wait_for};
use crate::harness::{Test, Wire, agentctl, start_daemon, stop_daemon};

/// So often at least.
const KILLS: u32 = 15;
/// So long at least, where that is more often.
const LASTS: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
/// Writers at a time, so that commits are of several events.
const WRITERS: i64 = 3;

/// What a writer was told: the record of each number that it sent.
type Told = Vec<(u64, i64)>;

pub(super) fn run(test: &mut Test) -> Result<()> {
    let world = World::with("killed", "counter")?;
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let (told, kills) = thread::scope(|scope| {
        let (done, count) = (&done, &count);
        let writers: Vec<_> = (0..WRITERS).map(|n| scope.spawn(move || write(world, n, done, count))).collect();
        let kills = kill_again_and_again(count);
        done.store(true, Ordering::Relaxed);
        let told: Vec<Told> = writers.into_iter().map(|writer| writer.join().unwrap_or_default()).collect();
        kills.map(|kills| (told, kills))
    })?;
    let acknowledged: usize = told.iter().map(Vec::len).sum();
    test.check(kills >= KILLS, || format!("the daemon was killed {kills} times"));
    test.check(acknowledged > 100, || format!("only {acknowledged} events were acknowledged"));
    let sent = happened(world)?;
    nothing_is_lost(test, &told, &sent);
    consistent(test, world, &sent, &format!("after {kills} kills"))
}

/// The journal verifies, replay gives the same state, and the counter has counted what is recorded; no number is there twice.
pub(super) fn consistent(test: &mut Test, world: World, sent: &BTreeMap<u64, i64>, when: &str) -> Result<()> {
    let verified = agentctl(&["world", "journal", "verify", world.0])?;
    test.check(verified.status == 0, || format!("journal verify {when}: {}", verified.stderr.trim()));
    let replayed = agentctl(&["world", "replay", world.0, "--state", &world.state()?])?;
    test.check(replayed.status == 0, || format!("replay {when}: {}", replayed.stderr.trim()));
    let cell = world.counter(None)?;
    let (events, total) = (cell["events"].as_u64().unwrap_or(0), cell["total"].as_i64().unwrap_or(0));
    test.same(&format!("events that the counter counted {when}"), events, sent.len() as u64);
    test.same(&format!("their total {when}"), total, sent.values().sum());
    let mut numbers: Vec<i64> = sent.values().copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    test.same(&format!("numbers that were sent once and recorded {when}"), sent.len(), numbers.len());
    Ok(())
}

/// Sends one number after the other, none twice, until it is told to stop. A number that was not acknowledged may have
/// become a record or not: it is left alone.
fn write(world: World, writer: i64, done: &AtomicBool, count: &AtomicU64) -> Told {
    let (mut told, mut number, mut wire) = (Told::new(), writer, None);
    while !done.load(Ordering::Relaxed) {
        let Some(open) = wire.as_mut() else {
            wire = Wire::connect().ok();
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        number += WRITERS;
        let value = json!({ "world": world.0, "event": "demo/count@1", "value": { "by": number } });
        match open.ask("world.send", value).ok().and_then(|answer| answer["record"].as_u64()) {
            Some(record) => {
                told.push((record, number));
                count.fetch_add(1, Ordering::Relaxed);
            }
            None => wire = None,
        }
    }
    told
}

/// Kills the daemon at moments that nobody chose: while it starts, or some acknowledged events later.
fn kill_again_and_again(count: &AtomicU64) -> Result<u32> {
    let begin = now();
    let mut kills = 0;
    let mut random = fs::File::open("/dev/urandom").context("no random numbers")?;
    let mut up_to = |most: u64| -> Result<u64> {
        let mut bytes = [0; 8];
        random.read_exact(&mut bytes).context("no random numbers")?;
        Ok(u64::from_ne_bytes(bytes) % (most + 1))
    };
    let acknowledged = |more: u64| {
        let before = count.load(Ordering::Relaxed);
        wait_for("events to be acknowledged", PATIENCE, || {
            Ok((count.load(Ordering::Relaxed) >= before + more).then_some(()))
        })
    };
    acknowledged(20)?;
    stop_daemon(Signal::SIGKILL)?;
    while kills < KILLS || now() - begin < LASTS {
        let mut daemon = start()?;
        if up_to(2)? > 0 {
            acknowledged(1 + up_to(30)?)?;
        }
        thread::sleep(Duration::from_micros(up_to(200_000)?));
        daemon.kill().context("cannot kill the daemon")?;
        daemon.wait().context("cannot wait for the daemon")?;
        kills += 1;
    }
    drop(start_daemon()?);
    Ok(kills)
}

/// Starts the daemon and does not wait until it answers.
fn start() -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open("/var/log/agentd.log")?;
    let mut command = Command::new("/usr/bin/agentd");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("cannot start agentd")
}

/// Every number that was sent to the world, by its record, read a page at a time.
pub(super) fn happened(world: World) -> Result<BTreeMap<u64, i64>> {
    let mut wire = Wire::connect()?;
    let (mut sent, mut after) = (BTreeMap::new(), 0);
    loop {
        let page = wire.ask("world.records", json!({ "world": world.0, "after": after }))?;
        let page: Vec<Value> = page.as_array().cloned().context("no records")?;
        if page.is_empty() {
            return Ok(sent);
        }
        for record in page {
            let seq = record["seq"].as_u64().context("a record without a number")?;
            anyhow::ensure!(seq == after + 1, "record {seq} follows {after}");
            after = seq;
            let text = record["text"].as_str().unwrap_or_default();
            if let Some((_, value)) = text.split_once("sent demo/count@1 ") {
                let value: Value = serde_json::from_str(value).with_context(|| format!("{value:?} is no value"))?;
                sent.insert(seq, value["by"].as_i64().context("a value without its number")?);
            }
        }
    }
}

/// Every acknowledged record is where it was said to be, as what it was.
pub(super) fn all_there(test: &mut Test, told: &[(u64, i64)], sent: &BTreeMap<u64, i64>) {
    for (record, number) in told {
        test.check(sent.get(record) == Some(number), || {
            format!("record {record} was acknowledged as {number} and is {:?}", sent.get(record))
        });
    }
}

/// Every acknowledged record is there; each writer's are in the order in which it wrote.
fn nothing_is_lost(test: &mut Test, told: &[Told], sent: &BTreeMap<u64, i64>) {
    told.iter().for_each(|told| all_there(test, told, sent));
    for (writer, told) in told.iter().enumerate() {
        let ordered = told.is_sorted_by(|one, next| one.0 < next.0);
        test.check(ordered, || format!("the records of writer {writer} are not in its order"));
    }
}
