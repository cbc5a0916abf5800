//! How far is each task?
//!
//! ```text
//! nothing ── created ──▶ open ── started ──▶ running ── finished ──▶ done
//!    ▲                    │                     │
//!    └──── cancelled ─────┘                     └────── cancelled ──▶ cancelled
//! ```
//!
//! One cell for each task, keyed by the task's id. What the drawing does not show is refused: the cell stays, and
//! `demo/task-refused@1` says why. A task that was cancelled before anybody began is forgotten, and may be created again.

#![no_std]

extern crate alloc;

use alloc::string::String;

use agentd_reducer::{Context, Decode, Encode, Event, Output, StepError, minicbor, reducer};

reducer!(step);

/// `demo/task@1`
#[derive(Encode, Decode)]
enum Task {
    #[n(0)]
    Created(#[n(0)] String),
    #[n(1)]
    Started,
    #[n(2)]
    Finished,
    #[n(3)]
    Cancelled(#[n(0)] String),
}

/// The cell.
#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    title: String,
    #[n(1)]
    phase: Phase,
    #[n(2)]
    changes: u64,
}

#[derive(Clone, Copy, PartialEq, Encode, Decode)]
enum Phase {
    #[n(0)]
    Open,
    #[n(1)]
    Running,
    #[n(2)]
    Done,
    #[n(3)]
    Cancelled,
}

/// `demo/task-refused@1`
#[derive(Encode, Decode)]
struct Refused<'a> {
    #[n(0)]
    task: &'a str,
    #[n(1)]
    reason: &'a str,
}

/// Moves a task along the drawing.
fn step(context: &Context, state: Option<State>, event: &Event) -> Result<Output, StepError> {
    if event.schema != "demo/task@1" {
        return Err(event.unknown());
    }
    let task = context.key::<&str>()?;
    Ok(match (state, event.decode::<Task>()?) {
        (None, Task::Created(title)) => Output::keep().set(&State { title, phase: Phase::Open, changes: 1 }),
        (None, _) => refuse(task, "there is no such task"),
        (Some(_), Task::Created(_)) => refuse(task, "there is one already"),
        (Some(state), change) => match (state.phase, change) {
            (Phase::Open, Task::Started) => enter(state, Phase::Running),
            (Phase::Open, Task::Cancelled(_)) => Output::keep().delete(),
            (Phase::Running, Task::Finished) => enter(state, Phase::Done),
            (Phase::Running, Task::Cancelled(_)) => enter(state, Phase::Cancelled),
            (Phase::Open, _) => refuse(task, "it has not been started"),
            (Phase::Running, _) => refuse(task, "it is running"),
            (Phase::Done, _) => refuse(task, "it is done"),
            (Phase::Cancelled, _) => refuse(task, "it was cancelled"),
        },
    })
}

fn enter(state: State, phase: Phase) -> Output {
    Output::keep().set(&State { phase, changes: state.changes + 1, ..state })
}

fn refuse(task: &str, reason: &str) -> Output {
    Output::keep().raise("demo/task-refused@1", &Refused { task, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(state: Option<State>, task: &Task) -> Output {
        step(&Context::at(0).with_key("t1"), state, &Event::new("demo/task@1", task)).unwrap()
    }

    fn at(phase: Phase, changes: u64) -> State {
        State { title: "write".into(), phase, changes }
    }

    fn cancelled() -> Task {
        Task::Cancelled("not needed".into())
    }

    #[test]
    fn the_drawing_is_what_happens() {
        assert_eq!(take(None, &Task::Created("write".into())), Output::keep().set(&at(Phase::Open, 1)));
        assert_eq!(take(Some(at(Phase::Open, 1)), &Task::Started), Output::keep().set(&at(Phase::Running, 2)));
        assert_eq!(take(Some(at(Phase::Running, 2)), &Task::Finished), Output::keep().set(&at(Phase::Done, 3)));
        assert_eq!(take(Some(at(Phase::Running, 2)), &cancelled()), Output::keep().set(&at(Phase::Cancelled, 3)));
        assert_eq!(take(Some(at(Phase::Open, 1)), &cancelled()), Output::keep().delete());
    }

    #[test]
    fn what_the_drawing_does_not_show_is_refused_and_changes_nothing() {
        let refused = |state, task: &Task, reason| assert_eq!(take(state, task), refuse("t1", reason));
        for task in [Task::Started, Task::Finished, cancelled()] {
            refused(None, &task, "there is no such task");
            refused(Some(at(Phase::Done, 3)), &task, "it is done");
            refused(Some(at(Phase::Cancelled, 3)), &task, "it was cancelled");
        }
        for phase in [Phase::Open, Phase::Running, Phase::Done, Phase::Cancelled] {
            refused(Some(at(phase, 2)), &Task::Created("again".into()), "there is one already");
        }
        refused(Some(at(Phase::Open, 1)), &Task::Finished, "it has not been started");
        refused(Some(at(Phase::Running, 2)), &Task::Started, "it is running");
    }

    #[test]
    fn a_task_needs_an_id() {
        let event = Event::new("demo/task@1", &Task::Started);
        assert!(matches!(step(&Context::at(0), None, &event), Err(StepError::Key(None))));
    }
}
