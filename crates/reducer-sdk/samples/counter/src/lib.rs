//! How much was counted, and which hundreds were passed?
//!
//! The smallest reducer that does something: one cell, one event in, one event out.

#![no_std]

use agentd_reducer::{Context, Decode, Encode, Event, Output, StepError, minicbor, reducer};

reducer!(step);

/// `demo/count@1`
#[derive(Encode, Decode)]
struct Count {
    #[n(0)]
    by: i64,
}

/// The cell.
#[derive(Default, Encode, Decode)]
struct State {
    #[n(0)]
    total: i64,
    #[n(1)]
    events: u64,
}

/// `demo/milestone@1`
#[derive(Encode, Decode)]
struct Milestone {
    #[n(0)]
    total: i64,
}

/// Adds, and raises a milestone if that took the total to or over a multiple of 100, upwards.
///
/// # Panics
/// If the total no longer fits: the event has no outcome rather than a wrong one.
fn step(_: &Context, state: Option<State>, event: &Event) -> Result<Output, StepError> {
    let State { total: before, events } = state.unwrap_or_default();
    match event.schema.as_str() {
        "demo/count@1" => {
            let total = before.checked_add(event.decode::<Count>()?.by).expect("the total fits");
            let output = Output::keep().set(&State { total, events: events + 1 });
            if hundreds(total) > hundreds(before) {
                return Ok(output.raise("demo/milestone@1", &Milestone { total }));
            }
            Ok(output)
        }
        _ => Err(event.unknown()),
    }
}

fn hundreds(total: i64) -> i64 {
    total.div_euclid(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(state: Option<(i64, u64)>, by: i64) -> Output {
        let state = state.map(|(total, events)| State { total, events });
        step(&Context::at(0), state, &Event::new("demo/count@1", &Count { by })).unwrap()
    }

    fn set(total: i64, events: u64) -> Output {
        Output::keep().set(&State { total, events })
    }

    fn milestone(total: i64, events: u64) -> Output {
        set(total, events).raise("demo/milestone@1", &Milestone { total })
    }

    #[test]
    fn it_adds_up() {
        assert_eq!(count(None, 5), set(5, 1));
        assert_eq!(count(Some((5, 1)), 94), set(99, 2));
        assert_eq!(count(Some((99, 2)), -200), set(-101, 3));
    }

    #[test]
    fn a_hundred_is_passed_once_and_upwards() {
        assert_eq!(count(Some((99, 2)), 1), milestone(100, 3));
        assert_eq!(count(Some((100, 3)), 1), set(101, 4));
        assert_eq!(count(Some((99, 1)), 500), milestone(599, 2));
        assert_eq!(count(Some((100, 1)), -1), set(99, 2));
        assert_eq!(count(Some((-1, 1)), 1), milestone(0, 2));
    }

    #[test]
    #[should_panic(expected = "the total fits")]
    fn a_total_that_does_not_fit_is_no_total() {
        count(Some((i64::MAX, 1)), 1);
    }

    #[test]
    fn other_events_have_no_rule() {
        let event = Event::new("demo/other@1", &1_u64);
        assert!(matches!(step(&Context::at(0), None, &event), Err(StepError::Schema(_))));
    }
}
