//! Reducers as Rust functions, known by made-up hashes.
//!
//! Functions of their input, like WASM: what they answer depends on nothing else, also where they trap, reach a limit or
//! answer rubbish. All of that is chosen by a number in the event.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use agentd_air::Hash;
use agentd_engine::{HostFailure, Ran, Reducers, Request};
use agentd_reducer::abi::{Effect, Input, Output};
use agentd_reducer::{Decode, Encode, StepError};
use minicbor::bytes::ByteVec;

use crate::sabotage::Sabotage;

/// The hash that stands for the WASM of a function.
pub(crate) fn wasm(name: &str) -> Hash {
    Hash::of("agentd-sim 2026-11-21 reducer v1", name.as_bytes())
}

/// Runs them.
#[derive(Default)]
pub(crate) struct Natives {
    /// Makes the next step fail for a reason that is the host's.
    pub(crate) fails: Cell<bool>,
    asked: RefCell<BTreeMap<Hash, u64>>,
    sabotage: Option<Sabotage>,
}

impl Natives {
    /// With or without a reducer that cheats.
    pub(crate) fn new(sabotage: Option<Sabotage>) -> Natives {
        Natives { sabotage, ..Natives::default() }
    }
}

impl Reducers for Natives {
    fn step(&self, request: &Request<'_>) -> Result<Ran, HostFailure> {
        if self.fails.take() {
            return Err(HostFailure("no memory for an instance".into()));
        }
        let mut asked = self.asked.borrow_mut();
        let times = asked.entry(*request.wasm).or_default();
        *times += 1;
        let twist = if self.sabotage == Some(Sabotage::ReducerRemembers) { (*times % 2) as i64 } else { 0 };
        Ok(step(request, twist))
    }
}

fn step(request: &Request<'_>, twist: i64) -> Ran {
    let of = |name: &str| *request.wasm == wasm(name);
    let answer = match () {
        () if of("counter") => {
            agentd_reducer::run(request.input, |_, state, event| counter(state, event.decode::<Add>()?.by + twist))
        }
        () if of("counter twice") => {
            agentd_reducer::run(request.input, |_, state, event| counter(state, 2 * event.decode::<Add>()?.by))
        }
        () if of("cells") => agentd_reducer::run(request.input, cells),
        () if of("listener") => agentd_reducer::run(request.input, listener),
        () if of("ring") => agentd_reducer::run(request.input, ring),
        () if of("odd") => return odd(request.input),
        () => return Ran::Trapped("there is no such function".into()),
    };
    match answer {
        Ok(output) => Ran::Done { output, fuel: request.input.len() as u64 },
        Err(error) => Ran::Trapped(error.to_string()),
    }
}

/// `sim/add@1`.
#[derive(Encode, Decode)]
struct Add {
    #[n(0)]
    by: i64,
}

/// `sim/total@1`.
#[derive(Encode, Decode)]
struct Total {
    #[n(0)]
    total: i64,
}

fn counter(state: Option<Total>, by: i64) -> Result<Output, StepError> {
    let before = state.map_or(0, |state| state.total);
    Ok(Output::keep().set(&Total { total: before.wrapping_add(by) }))
}

/// `sim/ask@1`: something for a cell to do, and what it should write on it.
#[derive(Encode, Decode)]
struct Ask {
    #[n(0)]
    cell: u64,
    #[n(1)]
    what: u64,
    #[n(2)]
    note: String,
}

/// `sys/receipt@1`.
#[derive(Encode, Decode)]
struct Told {
    #[n(0)]
    intent: Hash,
    #[n(1)]
    kind: String,
    #[n(2)]
    status: String,
    #[n(3)]
    result: Option<ByteVec>,
}

/// `sim/cell@1`.
#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    asked: u64,
    #[n(1)]
    told: u64,
    #[n(2)]
    luck: u64,
    #[n(3)]
    last: String,
}

/// How many things a cell knows to do.
pub(crate) const DEEDS: u64 = 16;

/// Those that it asks for under a key.
pub(crate) const ONCE: [u64; 3] = [1, 3, 14];

fn cells(
    context: &agentd_reducer::Context,
    state: Option<State>,
    event: &agentd_reducer::Event,
) -> Result<Output, StepError> {
    let mut state = state.unwrap_or(State { asked: 0, told: 0, luck: 0, last: String::new() });
    // The entropy of a step is part of its input, so it may become part of its outcome.
    state.luck = u64::from(context.entropy[0]);
    if event.schema == "sys/receipt@1" {
        let told: Told = event.decode()?;
        state.told += 1;
        // What failed is tried again, with luck, and under a key: the second time it is the same effect.
        let again = told.status == "failed" && told.intent.0[0].is_multiple_of(2);
        state.last = told.status;
        let output = Output::keep().set(&state);
        return Ok(if again {
            output.effect_once("sys/timer@1", "sim/timer@1", &(context.logical_ns,), &told.intent)
        } else {
            output
        });
    }
    let ask: Ask = event.decode()?;
    state.asked += 1;
    let (notify, freeze) = ((ask.note.as_str(), "", None::<u64>), (ask.cell, ask.note.as_str()));
    let http = |url: &str| ("GET".to_owned(), url.to_owned(), BTreeMap::<String, String>::new(), ByteVec::from(vec![]));
    let output = Output::keep().set(&state);
    Ok(match ask.what % DEEDS {
        0 => output.effect("sys/host.notify@1", "sim/notify@1", &notify),
        1 => output.effect_once("sys/host.notify@1", "sim/notify@1", &notify, &ask.note),
        2 => output.effect("sys/host.freeze@1", "sim/freeze@1", &freeze),
        3 => output.effect_once("sys/host.freeze@1", "sim/freeze@1", &freeze, &ask.note),
        4 => output.effect("sys/timer@1", "sim/timer@1", &(context.logical_ns + 1_000_000_000,)),
        5 => output.effect("sys/host.grant@1", "sim/grant@1", &(ask.cell, 1_000_000_u64)),
        6 => output.effect("sys/http@1", "sim/http@1", &http("http://127.0.0.1:8080/a")),
        7 => output.effect("sys/http@1", "sim/http@1", &http("http://127.0.0.1:80@example.org/")),
        8 => output.effect("sys/teleport@1", "sim/notify@1", &notify),
        9 => output.effect("sys/host.notify@1", "sim/freeze@1", &notify),
        10 => output
            .effect("sys/host.freeze@1", "sim/freeze@1", &freeze)
            .effect("sys/host.notify@1", "sim/notify@1", &notify)
            .raise("sim/add@1", &Add { by: 1 }),
        11 => output.effect("sys/host.thaw@1", "sim/thaw@1", &freeze),
        12 => output.delete(),
        13 => output.effect("sys/blob.put@1", "sim/blob@1", &(ByteVec::from(ask.note.into_bytes()),)),
        14 => output.effect_once("sys/host.grant@1", "sim/grant@1", &(ask.cell, 1_000_000_u64), &ask.note),
        _ => Output::keep(),
    })
}

/// `sys/agent-paused@1`, as far as it matters here.
#[derive(Encode, Decode)]
struct Paused {
    #[n(0)]
    agent: u64,
}

fn listener(
    _: &agentd_reducer::Context,
    state: Option<Total>,
    event: &agentd_reducer::Event,
) -> Result<Output, StepError> {
    let paused: Paused = event.decode()?;
    let total = state.map_or(1, |state| state.total + 1);
    let output = Output::keep().set(&Total { total });
    // The third time, an operator is told.
    Ok(if total % 3 == 0 { output.effect("sys/host.thaw@1", "sim/thaw@1", &(paused.agent, "again")) } else { output })
}

/// `sim/ring@1`.
#[derive(Encode, Decode)]
struct Ring {
    #[n(0)]
    left: u64,
}

fn ring(_: &agentd_reducer::Context, state: Option<Total>, event: &agentd_reducer::Event) -> Result<Output, StepError> {
    let Ring { left } = event.decode()?;
    let output = Output::keep().set(&Total { total: state.map_or(1, |state| state.total + 1) });
    let Some(left) = left.checked_sub(1) else { return Ok(output) };
    let next = Ring { left };
    Ok(output.raise("sim/ring@1", &next).raise("sim/ring@1", &next))
}

/// How many odd things there are.
pub(crate) const ODDITIES: u64 = 9;

/// Does what a reducer should not.
fn odd(input: &[u8]) -> Ran {
    let Ok(input) = minicbor::decode::<Input>(input) else { return Ran::Trapped("the input is not one".into()) };
    let how = minicbor::decode::<(u64,)>(&input.event.value).map_or(0, |(how,)| how);
    let done = |output: &Output| Ran::Done { output: minicbor::to_vec(output).unwrap_or_default(), fuel: 1 };
    let add = Add { by: 1 };
    let rubbish = |kind: &str, capability: &str| Effect {
        kind: kind.into(),
        capability: capability.into(),
        params: ByteVec::from(vec![0xff, 0x00]),
        key: None,
    };
    match how % ODDITIES {
        0 => Ran::Trapped("unreachable".into()),
        1 => Ran::Limited("fuel".into()),
        2 => Ran::Done { output: b"rubbish".to_vec(), fuel: 1 },
        3 => done(&Output::keep().set("a text")),
        4 => done(&Output::keep().raise("sim/ask@1", &add)),
        5 => done(&(0..65).fold(Output::keep(), |output, _| output.raise("sim/add@1", &add))),
        6 => {
            let mut output = Output::keep().set(&Total { total: 7 });
            output.effects.push(rubbish("no name", "no name"));
            output.effects.push(rubbish("sys/host.notify@1", "sim/notify@1"));
            done(&output)
        }
        7 => done(&Output::keep().raise("sim/add@1", "no record")),
        _ => done(&Output::keep().set(&Total { total: 1 }).raise("sim/add@1", &add)),
    }
}
