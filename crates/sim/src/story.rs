//! One story: a world from its beginning, what befalls it, and how it ends.
//!
//! Most steps are a turn of the keeper, with inputs from the actors, receipts of the adapters and what is due. The others
//! are time, adapters at work, keys that are changed, and everything that can go wrong: the daemon killed between two calls
//! or within a commit, a full drive, a flush that fails, a platter that rots, a host that cannot run a reducer. At the end
//! nothing goes wrong any more; then every effect must come to its end.

mod trouble;

use std::cell::RefCell;
use std::rc::Rc;

use agentd_engine::{DiskFailure, Input, Keeper, Open, Phase, State, Turn, TurnError};
use agentd_journal::Signer;
use agentd_model::Principal;

use crate::actors::{Actors, Sent};
use crate::adapters::{Adapters, Job};
use crate::claims::{Broken, Claims, Fact};
use crate::clock::Clock;
use crate::definitions::name;
use crate::disk::{Drive, Fault, Shared};
use crate::log::{Log, Tally};
use crate::recovery::{self, Follower};
use crate::reducers::Natives;
use crate::rng::Rng;
use crate::sabotage::Sabotage;

/// Steps of a story, unless somebody wants another number.
pub const STEPS: u64 = 45;

/// Rounds after which every effect must have ended, once nothing goes wrong any more.
const ROUNDS: usize = 60;

/// How a story is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many steps before it ends.
    pub steps: u64,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// The only claim that watches.
    pub only: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Options {
        Options { steps: STEPS, sabotage: None, only: None }
    }
}

/// A story that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What happened, line by line.
    pub lines: Vec<String>,
    /// How often what happened.
    pub tally: Tally,
    /// The claim that does not hold, where the story broke off.
    pub broken: Option<Broken>,
}

/// Tells the story of a seed.
pub fn tell(seed: u64, options: &Options) -> Told {
    let mut story = Story::new(seed, options.clone());
    let broken = story.run().err();
    let Log { lines, tally } = story.log;
    Told { lines, tally, broken }
}

/// Who looks at facts, and at the platter with them.
struct Watch {
    claims: Claims,
    follower: Follower,
    drive: Shared,
}

impl Watch {
    fn see(&mut self, fact: &Fact<'_>) -> Result<(), Broken> {
        let drive = self.drive.0.borrow();
        self.claims.see(fact, self.follower.rows(&drive))
    }
}

struct Story {
    options: Options,
    rng: Rng,
    clock: Clock,
    drive: Shared,
    keeper: Option<Keeper<Shared>>,
    keys: Vec<Signer>,
    natives: Natives,
    adapters: Adapters,
    actors: Actors,
    watch: Watch,
    save_every: u64,
    log: Log,
}

/// Why a world is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// The daemon starts: what the last one left behind is looked after.
    Start,
    /// The same daemon goes back to what is on the disk.
    Again,
}

impl Story {
    fn new(seed: u64, options: Options) -> Story {
        let mut rng = Rng::new(seed);
        let drive = Drive::new(rng.split(1), options.sabotage);
        let drive = Shared(Rc::new(RefCell::new(drive)));
        let claims = Claims::new(options.only);
        Story {
            clock: Clock::new(rng.split(2)),
            keeper: None,
            keys: vec![Signer::from_seed(&rng.bytes())],
            natives: Natives::new(options.sabotage),
            adapters: Adapters::new(rng.split(3)),
            actors: Actors::new(rng.split(4)),
            watch: Watch { claims, follower: Follower::default(), drive: drive.clone() },
            save_every: 10 + rng.below(60),
            log: Log::default(),
            options,
            rng,
            drive,
        }
    }

    fn run(&mut self) -> Result<(), Broken> {
        self.open(Opening::Start, None)?;
        for _ in 0..self.options.steps {
            self.clock.pass();
            self.step()?;
        }
        self.end()
    }

    fn step(&mut self) -> Result<(), Broken> {
        match self.rng.below(100) {
            0..=57 => self.inputs(),
            58..=79 => self.adapters_work(),
            80..=84 => self.change_keys(),
            85..=87 => self.kill(),
            88..=89 => self.close(),
            90..=94 => {
                let faults = [Fault::Full, Fault::FlushFails, Fault::PowerBeforeFlush, Fault::PowerAfterFlush];
                self.drive.0.borrow_mut().fault = self.rng.pick(&faults).copied();
                Ok(())
            }
            95 => {
                self.natives.fails.set(true);
                Ok(())
            }
            96..=97 => self.rot(),
            _ => {
                let seconds = self.clock.jump();
                self.log.line("clock", format_args!("set by {seconds} s"));
                Ok(())
            }
        }
    }

    fn keeper(&self) -> &Keeper<Shared> {
        self.keeper.as_ref().unwrap_or_else(|| unreachable!("between steps the world is open"))
    }

    /// Some inputs in one turn, and receipts that have come.
    fn inputs(&mut self) -> Result<(), Broken> {
        let keeper = self.keeper.as_ref().unwrap_or_else(|| unreachable!("between steps the world is open"));
        let (state, signer) = (keeper.state(), keeper.signer());
        let sent: Vec<Sent> =
            (0..self.rng.below(4)).map(|_| self.actors.send(state, &self.adapters.told, signer)).collect();
        self.with_receipts(sent)?;
        self.due()
    }

    /// A turn with what adapters have to tell, some of it twice.
    fn with_receipts(&mut self, mut sent: Vec<Sent>) -> Result<(), Broken> {
        let came: Vec<_> = std::mem::take(&mut self.adapters.came);
        for came in &came {
            let bytes = came.receipt(self.keeper().state().world()).sign(self.keeper().signer());
            for _ in 0..1 + u64::from(self.rng.percent(15)) {
                let receipt = Sent::new("a receipt", Input::Receipt { bytes: bytes.clone() });
                sent.insert(self.rng.index(sent.len() + 1), receipt);
            }
            self.adapters.told.push(bytes);
        }
        if !self.turn(sent)? {
            // The daemon lives on, and with it what adapters have told it.
            self.adapters.came.extend(came);
        }
        Ok(())
    }

    /// Effects that are due are attempted.
    fn due(&mut self) -> Result<(), Broken> {
        let mut due = self.keeper().due();
        // A loop that looked too early attempts what is attempted already, in the same turn or in a later one.
        if self.rng.percent(10) {
            due.extend(due.clone());
        }
        if self.rng.percent(10) {
            let open: Vec<_> = self.keeper().state().open().map(|open| open.intent.id).collect();
            due.extend(self.rng.pick(&open).map(|intent| Input::Attempt { intent: *intent }.into()));
        }
        if self.options.sabotage == Some(Sabotage::ActsBeforeTheCommit) {
            let ready = self.keeper().state().open().filter(|open| open.phase == Phase::Ready);
            let ready: Vec<Open> = ready.cloned().collect();
            for open in ready {
                self.watch.see(&Fact::Done { intent: open.intent.id, kind: &open.intent.kind, attempt: 1 })?;
            }
        }
        let sent = due.into_iter().map(|asked| Sent { what: "an attempt", asked, impossible: false });
        self.turn(sent.collect()).map(drop)
    }

    /// A turn. False if nothing came of it and the same daemon goes on.
    fn turn(&mut self, sent: Vec<Sent>) -> Result<bool, Broken> {
        let Some(keeper) = self.keeper.as_mut().filter(|_| !sent.is_empty()) else { return Ok(true) };
        let before = keeper.state().clone();
        let stamp = self.clock.stamp();
        let (known, asked): (Vec<_>, Vec<_>) =
            sent.into_iter().map(|sent| ((sent.what, sent.impossible), sent.asked)).unzip();
        match keeper.turn(asked, stamp, &self.natives) {
            Ok(turn) => self.answered(&known, turn, &before).map(|()| true),
            Err(error) => self.failed(&error, &before),
        }
    }

    fn answered(&mut self, known: &[(&'static str, bool)], turn: Turn, before: &State) -> Result<(), Broken> {
        let Turn { answers, records, perform } = turn;
        self.log.count("records", records.len() as u64);
        let mut taken = 0;
        for ((what, impossible), answer) in known.iter().zip(&answers) {
            match answer {
                Ok(seq) => self.log.line(what, format_args!("record {seq}")),
                Err(refusal) => self.log.line("refused", format_args!("{what}: {refusal}")),
            }
            taken += usize::from(answer.is_ok());
            if *impossible {
                self.watch.see(&Fact::Impossible { what, taken: answer.is_ok() })?;
            }
        }
        for (record, hash) in &records {
            self.log.record(&record.event);
            self.watch.see(&Fact::Acknowledged { seq: record.seq, hash: *hash })?;
        }
        let saved = |entry: &agentd_engine::Entry| matches!(entry, agentd_engine::Entry::StateSaved { .. });
        let recorded = records.iter().filter(|(record, _)| record.event.is_input() && !saved(&record.event)).count();
        self.watch.see(&Fact::Taken { answered: taken, recorded })?;
        if taken == 0 {
            self.note_refusals();
            let after = self.keeper.as_ref().map_or(before, |keeper| keeper.state());
            self.watch.see(&Fact::Refused { before, after })?;
        }
        for job in perform.iter().filter_map(Job::of) {
            self.log.line("may", format_args!("{} {} attempt {}", job.kind, job.intent, job.attempt));
            self.adapters.take(job);
        }
        Ok(())
    }

    /// What a loop could think useful, and may not do.
    fn note_refusals(&mut self) {
        if self.options.sabotage != Some(Sabotage::NotesRefusals) {
            return;
        }
        let value = agentd_air::Value::Record(vec![agentd_air::Value::Int(0)]);
        let note = Input::Event { schema: name("sim/add@1"), value, key: None, by: Principal::Daemon };
        let stamp = self.clock.stamp();
        if let Some(keeper) = self.keeper.as_mut() {
            drop(keeper.turn(vec![note.into()], stamp, &self.natives));
        }
    }

    /// A turn failed: the world is opened again, by this daemon or by the next one.
    fn failed(&mut self, error: &TurnError, before: &State) -> Result<bool, Broken> {
        self.log.line("failed", error);
        match error {
            TurnError::Disk(DiskFailure::Unknown(_)) => {
                self.dies(true);
                self.open(Opening::Start, None).map(|()| true)
            }
            TurnError::Disk(DiskFailure::Refused(_)) | TurnError::Host(_) => {
                self.keeper = None;
                self.open(Opening::Again, None)?;
                let after = self.keeper.as_ref().map_or(before, |keeper| keeper.state());
                self.watch.see(&Fact::CameToNothing { before, after })?;
                Ok(false)
            }
            TurnError::Broken => unreachable!("a keeper that failed is thrown away"),
        }
    }

    /// Some effects begin, some end.
    fn adapters_work(&mut self) -> Result<(), Broken> {
        for _ in 0..1 + self.rng.below(6) {
            if self.rng.percent(50) {
                self.one_begins()?
            } else {
                self.one_ends()?
            };
        }
        Ok(())
    }

    fn one_begins(&mut self) -> Result<bool, Broken> {
        let Some(job) = self.adapters.next() else { return Ok(false) };
        let phase = self.keeper().state().open_intent(&job.intent).map(|open| open.phase);
        let may = phase == Some(Phase::Attempted { attempt: job.attempt });
        if !may && self.options.sabotage != Some(Sabotage::IgnoresTheFence) {
            self.log.line("given up", job.intent);
            return Ok(true);
        }
        self.log.line("begins", job.intent);
        self.watch.see(&Fact::Begins { intent: job.intent, attempt: job.attempt })?;
        self.adapters.begin(job);
        Ok(true)
    }

    fn one_ends(&mut self) -> Result<bool, Broken> {
        let Some((job, done)) = self.adapters.end(self.clock.wall_ns()) else { return Ok(false) };
        if done {
            self.log.line("done", format_args!("{} {}", job.kind, job.intent));
            self.watch.see(&Fact::Done { intent: job.intent, kind: &job.kind, attempt: job.attempt })?;
        }
        Ok(true)
    }

    /// Nothing goes wrong any more, and every effect comes to its end.
    fn end(&mut self) -> Result<(), Broken> {
        self.drive.0.borrow_mut().fault = None;
        self.natives.fails.set(false);
        self.kill()?;
        for _ in 0..ROUNDS {
            self.clock.pass();
            let asked = self.keeper().state().open().filter(|open| open.phase == Phase::Asked);
            let by = Principal::User { uid: 1000 };
            let answers: Vec<Sent> = asked
                .map(|open| {
                    let (intent, allow) = (open.intent.id, open.intent.id.0[0] % 2 == 0);
                    Sent::new("an answer", Input::Answer { intent, allow, by, note: String::new() })
                })
                .collect();
            self.turn(answers)?;
            self.due()?;
            while self.one_begins()? {}
            while self.one_ends()? {}
            self.with_receipts(Vec::new())?;
            if self.adapters.idle() && self.keeper().state().open().next().is_none() {
                break;
            }
        }
        let still_open = self.keeper().state().open().count();
        self.close()?;
        match recovery::open(&self.drive, self.options.sabotage) {
            Ok(opened) => {
                self.watch.see(&Fact::Opened { opened: &opened, before: None, reducers: Some(&self.natives) })?;
                self.watch.see(&Fact::End { opened: &opened, still_open })
            }
            Err(error) => Err(Broken { claim: "acknowledged_is_durable", why: error.to_string() }),
        }
    }
}
