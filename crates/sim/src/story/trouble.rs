//! What goes wrong: a daemon that ends in every way there is, keys that change, a platter that rots. And how a world comes
//! back after each of them.

use std::ops::RangeInclusive;

use agentd_engine::{Asked, Input, Keeper, State};
use agentd_journal::Signer;
use agentd_model::{Principal, Seq, WorldId};

use super::{Opening, Story};
use crate::actors::Sent;
use crate::claims::{Broken, Fact};
use crate::definitions::variants;
use crate::frame;
use crate::recovery::{self, OpenError};
use crate::sabotage::Sabotage;

impl Story {
    /// The daemon is no more, and with it what it had not flushed, if the power failed as well.
    pub(super) fn dies(&mut self, power_fails: bool) {
        self.keeper = None;
        let had = self.adapters.killed();
        if self.options.sabotage == Some(Sabotage::DoesItAgain) {
            had.into_iter().for_each(|job| self.adapters.begin(job));
        }
        if power_fails {
            self.drive.0.borrow_mut().power_fails();
        }
    }

    pub(super) fn kill(&mut self) -> Result<(), Broken> {
        let power_fails = self.rng.percent(50);
        let how = if power_fails { "the power fails" } else { "killed" };
        self.log.line("killed", how);
        self.dies(power_fails);
        self.open(Opening::Start, None)
    }

    pub(super) fn close(&mut self) -> Result<(), Broken> {
        self.log.line("closed", "in peace");
        let before = self.keeper.take().map(|keeper| keeper.state().clone());
        self.dies(false);
        self.open(Opening::Start, before.as_ref())
    }

    /// Opens what the drive has, and goes on with it.
    pub(super) fn open(&mut self, opening: Opening, before: Option<&State>) -> Result<(), Broken> {
        let opened = loop {
            match recovery::open(&self.drive, self.options.sabotage) {
                Ok(opened) => break opened,
                Err(OpenError::PowerFailed) => self.log.line("opened", "not: the power fails"),
                Err(error @ OpenError::Damaged(_)) => {
                    let why = format!("a platter on which nothing rotted is refused: {error}");
                    return Err(Broken { claim: "acknowledged_is_durable", why });
                }
            }
        };
        let (at, saved) = (opened.chain.seq, opened.saved);
        self.log.line("opened", format_args!("at {at}, saved at {saved}, {} bytes cut", opened.cut));
        if opened.cut > 0 {
            self.log.count("torn writes cut", 1);
        }
        self.natives.fails.set(false);
        let deep = self.rng.percent(25);
        self.watch.see(&Fact::Opened { opened: &opened, before, reducers: deep.then_some(&self.natives) })?;
        let signer = self.keys.iter().find(|signer| opened.chain.key.is_none_or(|key| key == signer.key()));
        let signer = signer.unwrap_or_else(|| unreachable!("no key is ever lost")).clone();
        let keeper = Keeper::new(opened.state, opened.chain, saved, self.drive.clone(), signer);
        let left = keeper.left_behind(self.clock.wall_ns());
        self.keeper = Some(keeper.saving_every(self.save_every));
        if at == Seq(0) {
            self.begin()?;
        }
        if opening == Opening::Start {
            let left = left.into_iter().map(|asked| Sent { what: "left behind", asked, impossible: false });
            self.turn(left.collect())?;
        }
        Ok(())
    }

    /// The first records: a world, and what it consists of.
    fn begin(&mut self) -> Result<(), Broken> {
        let key = self.keeper().signer().key();
        let world = WorldId(self.rng.bytes());
        self.turn(vec![Sent::new("genesis", Input::Begin { world, name: "sim".into(), key })])?;
        self.settle_in()
    }

    /// Definitions for a world that has none, or may do nothing with those it has.
    fn settle_in(&mut self) -> Result<(), Broken> {
        let Some(wanted) = variants().first() else { return Ok(()) };
        let by = Principal::User { uid: 1000 };
        let state = self.keeper().state();
        let (proposal, patch) = (Seq(state.height().0 + 1), Box::new(state.definitions().difference(wanted)));
        let (note, report) = (String::new(), agentd_air::Hash([2; 32]));
        let rehearse = Input::Rehearse { proposal, report, inputs: 0, differences: 0 };
        let first = vec![
            Sent::new("a proposal", Input::Propose { patch, by, note: note.clone() }),
            Sent {
                what: "a rehearsal",
                asked: Asked { input: rehearse, blobs: vec![(report, vec![2])] },
                impossible: false,
            },
            Sent::new("a vote", Input::Vote { proposal, approve: true, by, note }),
            Sent::new("an application", Input::Apply { proposal, by, fence: false, host: self.actors.host }),
        ];
        self.turn(first).map(drop)
    }

    /// Another key signs, or another host goes on.
    pub(super) fn change_keys(&mut self) -> Result<(), Broken> {
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let before = keeper.state().clone();
        let next = Signer::from_seed(&self.rng.bytes());
        self.keys.push(next.clone());
        let stamp = self.clock.stamp();
        let (what, done) = if self.rng.percent(70) {
            ("key", keeper.rotate(next, stamp, &self.natives))
        } else {
            ("taken over", keeper.take_over("elsewhere".into(), next, stamp, &self.natives))
        };
        let head = keeper.chain().head();
        match done {
            Ok(seq) => {
                self.log.line(what, format_args!("record {seq}"));
                self.watch.see(&Fact::Acknowledged { seq, hash: head.hash })?;
                if what == "taken over" { self.settle_in() } else { Ok(()) }
            }
            Err(error) => self.failed(&error, &before).map(drop),
        }
    }

    /// The daemon ends; something below what was acknowledged rots; it starts and must say so; a copy is put in place.
    pub(super) fn rot(&mut self) -> Result<(), Broken> {
        let before = self.keeper.take().map(|keeper| keeper.state().clone());
        self.dies(false);
        let platter = self.drive.0.borrow().platter().to_vec();
        if let Some((at, bytes, records)) = self.damage(&platter) {
            self.log.line("rotten", format_args!("one of records {records:?}"));
            self.drive.0.borrow_mut().overwrite(at, &bytes);
            let fault = self.drive.0.borrow_mut().fault.take();
            let rotten = self.drive.0.borrow().platter().to_vec();
            let named = match recovery::open(&self.drive, self.options.sabotage) {
                Err(OpenError::Damaged(damage)) => Some(damage.at),
                _ => None,
            };
            let touched = self.drive.0.borrow().platter() != rotten;
            self.watch.see(&Fact::Rotten { records, named, touched })?;
            self.drive.0.borrow_mut().overwrite(0, &platter);
            self.drive.0.borrow_mut().fault = fault;
        }
        self.open(Opening::Start, before.as_ref())
    }

    /// Bytes to put somewhere on the platter, and the records of which one must then be named.
    fn damage(&mut self, platter: &[u8]) -> Option<(usize, Vec<u8>, RangeInclusive<Seq>)> {
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some((frame, next)) = frame::read(platter, at, frames.len() as u64) {
            frames.push((at, frame));
            at = next;
        }
        let newest = frames.len().checked_sub(1)?;
        let index = self.rng.index(frames.len());
        let (at, frame) = frames.get_mut(index)?;
        let (first, last) = (frame.rows.first()?.0, frame.rows.last()?.0);
        if index < newest && self.rng.percent(60) {
            let place = *at + self.rng.index(frame::extent(platter, *at)?);
            return Some((place, vec![platter[place] ^ (1 << self.rng.below(8))], first..=last));
        }
        // Somebody who knows the format: the frame checks, and a record in it is another one.
        let row = self.rng.index(frame.rows.len());
        let (seq, bytes) = frame.rows.get_mut(row)?;
        let seq = *seq;
        let byte = self.rng.index(bytes.len());
        bytes[byte] ^= 1 << self.rng.below(8);
        Some((*at, frame.encode(index as u64), seq..=Seq(seq.0 + 1)))
    }
}
