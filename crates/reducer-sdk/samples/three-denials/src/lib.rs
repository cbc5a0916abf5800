//! Which agent was refused three times in a minute? It is frozen, and somebody is told.
//!
//! One cell for each agent, keyed by its number, with the times of the refusals that still count. All times are the
//! refusals' own (`wall`), not when the world heard of them. A wall clock can be set back, so two refusals lie within a
//! minute whichever came first.
//!
//! Whoever emits an effect is also told what became of it. Nothing follows from that here.

#![no_std]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use agentd_reducer::{Context, Decode, Encode, Event, Output, StepError, minicbor, reducer};

reducer!(step);

/// How long a refusal counts.
const WINDOW_NS: u64 = 60_000_000_000;
/// Refusals that are too many.
const LIMIT: usize = 3;

/// `sys/access-denied@1`
#[derive(Clone, Encode, Decode)]
struct Denied {
    #[n(0)]
    agent: u64,
    #[n(1)]
    name: String,
    #[n(2)]
    hook: String,
    #[n(3)]
    object: String,
    #[n(4)]
    right: String,
    #[n(5)]
    reason: String,
    /// Its position in the host's journal.
    #[n(6)]
    record: u64,
    /// Nanoseconds since 1970.
    #[n(7)]
    wall: u64,
}

/// The cell; never more than two, and no two of them further apart than a minute.
#[derive(Default, Encode, Decode)]
struct State {
    #[n(0)]
    refusals: Vec<u64>,
}

/// Parameters of `sys/host.freeze@1`.
#[derive(Encode, Decode)]
struct Freeze<'a> {
    #[n(0)]
    agent: u64,
    #[n(1)]
    reason: &'a str,
}

/// Parameters of `sys/host.notify@1`.
#[derive(Encode, Decode)]
struct Notify<'a> {
    #[n(0)]
    subject: &'a str,
    #[n(1)]
    body: &'a str,
    #[n(2)]
    agent: Option<u64>,
}

/// Counts refusals, and does something about the third.
fn step(_: &Context, state: Option<State>, event: &Event) -> Result<Output, StepError> {
    match event.schema.as_str() {
        "sys/access-denied@1" => Ok(denied(state.unwrap_or_default(), &event.decode()?)),
        "sys/receipt@1" => Ok(Output::keep()),
        _ => Err(event.unknown()),
    }
}

fn denied(State { mut refusals }: State, denied: &Denied) -> Output {
    refusals.retain(|at| at.abs_diff(denied.wall) <= WINDOW_NS);
    refusals.push(denied.wall);
    if refusals.len() < LIMIT {
        return Output::keep().set(&State { refusals });
    }
    let Denied { agent, name, right, object, record, .. } = denied;
    let subject = format!("{name} is frozen");
    let body = format!("Agent {name} was refused three times within a minute, last {right} on {object}.");
    // The same refusal, heard of twice, freezes once.
    Output::keep()
        .set(&State::default())
        .effect_once(
            "sys/host.freeze@1",
            "acme/freeze@1",
            &Freeze { agent: *agent, reason: "three refusals within a minute" },
            record,
        )
        .effect_once(
            "sys/host.notify@1",
            "acme/notify@1",
            &Notify { subject: &subject, body: &body, agent: Some(*agent) },
            record,
        )
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use agentd_reducer::abi::{Change, Effect};

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// Takes refusals at these seconds one after the other; returns each step's effects and the last state.
    fn play(seconds: &[u64]) -> (Vec<Vec<Effect>>, Vec<u64>) {
        let (mut state, mut effects) = (None, Vec::new());
        for (record, second) in (100..).zip(seconds) {
            let denied = Denied {
                agent: 7,
                name: "crawler".into(),
                hook: "file_open".into(),
                object: "/etc/shadow".into(),
                right: "read".into(),
                reason: "no rule".into(),
                record,
                wall: second * SECOND_NS,
            };
            let event = Event::new("sys/access-denied@1", &denied);
            let output = step(&Context::at(0).with_key(&7_u64), state.take(), &event).unwrap();
            let Change::Set(bytes) = output.state else { panic!("a refusal is always counted") };
            state = Some(minicbor::decode::<State>(&bytes).unwrap());
            effects.push(output.effects);
        }
        let seconds = state.unwrap_or_default().refusals.into_iter().map(|at| at / SECOND_NS).collect();
        (effects, seconds)
    }

    #[test]
    fn three_within_a_minute_freeze_and_tell_and_start_over() {
        let (effects, left) = play(&[1000, 1030, 1060, 1061]);
        assert_eq!(effects.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 2, 0]);
        assert_eq!(left, [1061]);

        let [freeze, notify] = &effects[2][..] else { panic!("two effects") };
        assert_eq!((freeze.kind.as_str(), freeze.capability.as_str()), ("sys/host.freeze@1", "acme/freeze@1"));
        let params: Freeze<'_> = minicbor::decode(&freeze.params).unwrap();
        assert_eq!((params.agent, params.reason), (7, "three refusals within a minute"));
        assert_eq!((notify.kind.as_str(), notify.capability.as_str()), ("sys/host.notify@1", "acme/notify@1"));
        let params: Notify<'_> = minicbor::decode(&notify.params).unwrap();
        assert_eq!(params.subject, "crawler is frozen");
        assert_eq!(params.body, "Agent crawler was refused three times within a minute, last read on /etc/shadow.");
        assert_eq!(params.agent, Some(7));
        // The record of the third, 102.
        let key = Some(vec![0x18, 102].into());
        assert_eq!([&freeze.key, &notify.key], [&key, &key]);
    }

    #[test]
    fn slower_than_that_is_no_matter() {
        let (effects, left) = play(&[1000, 1031, 1062, 1093, 1124]);
        assert!(effects.iter().all(Vec::is_empty));
        assert_eq!(left, [1093, 1124]);
    }

    #[test]
    fn a_clock_that_was_set_back_neither_hides_nor_invents() {
        assert_eq!(play(&[1000, 990, 980]).0[2].len(), 2);
        assert_eq!(play(&[1000, 1040, 930]), (vec![vec![], vec![], vec![]], vec![930]));
    }

    #[test]
    fn receipts_are_heard_and_change_nothing() {
        let receipt = Event::new("sys/receipt@1", &(1, 2, 3, 4));
        assert_eq!(step(&Context::at(0), None, &receipt).unwrap(), Output::keep());
    }
}
