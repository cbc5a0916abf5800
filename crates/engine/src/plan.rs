//! Runs of plans: what is wanted next, given what has happened so far.
//!
//! An [`Instance`] is one run. It is told what happens and says what it wants; whoever keeps it does that, and saves it in
//! between. It is total: an expression that cannot be evaluated ends the run as [`Ending::Failed`], which is an outcome like
//! any other and is recorded.
//!
//! ```text
//!            an edge taken                  ┌─▶ Awaiting ──what it waits for──┐
//! Waiting ───────────────────▶ its act ─────┼─▶ Asked ──its id──▶ Emitted     ├─▶ Done
//!    │                                      └─────────────────────────────────┘
//!    └──no edge taken──▶ Skipped
//! ```
//!
//! - A step is looked at when each step with an edge into it is settled: emitted, done or skipped. All its guards are then
//!   evaluated, once. So a guard may name any of these steps, and a false one costs its step only if no other edge is taken.
//! - Of the steps that can be done, the first by position is done next, until there is none. That is a turn.
//! - An effect's step is emitted when the run has been told the id of the intent, which is what its result is. Its receipt is
//!   kept from then on, so one that comes before anybody waits for it is not lost.
//! - An event is offered to every step that waited for it before the turn, in order of position; each may take it.
//! - What was wanted before a failure, or before an `end`, stays wanted.
//!
//! **Invariant:** no step is done twice. So a run ends, once everything that it waits for has come.
//! **Invariant:** a run that nothing from outside could move on has ended.
//!
//! Not here: whether an effect may be done, and which events there are. The plan is one that [`Definitions`] has checked: its
//! names are unique, its edges lead from step to step and not in a circle.

mod expr;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::LazyLock;

use agentd_air::{Act, Definition, Definitions, Expr, Hash, Name, Plan, Strictness, Type, Value, Wrong};
use minicbor::{Decode, Encode};

use expr::{Fault, Given, schema_of};

/// Type of what comes of an effect.
static RECEIPT: LazyLock<Type> = LazyLock::new(|| {
    let name = "sys/receipt@1".parse();
    Type::Ref(name.unwrap_or_else(|error| unreachable!("a constant: {error}")))
});

/// One run of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Instance {
    /// Name of the plan.
    #[n(0)]
    pub plan: Name,
    /// Hash of its definition when the run started. A run does not go on under another one.
    #[n(1)]
    pub definition: Hash,
    #[n(2)]
    input: Kept,
    #[n(3)]
    progress: Vec<Progress>,
    #[n(4)]
    ending: Option<Ending>,
}

/// A value of a run as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// Its type.
    #[n(0)]
    pub of: Type,
    /// Its canonical bytes.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Progress {
    /// A step before it is not settled.
    #[n(0)]
    Waiting,
    /// No edge into it was taken.
    #[n(1)]
    Skipped,
    /// It wants an effect and was not yet told the id of the intent.
    #[n(2)]
    Asked,
    /// It has asked for an effect.
    #[n(3)]
    Emitted {
        /// Id of the intent.
        #[n(0)]
        intent: Hash,
        /// What came of it, if a step of the plan waits for that.
        #[n(1)]
        receipt: Option<Kept>,
    },
    /// It waits for a receipt or an event.
    #[n(4)]
    Awaiting,
    /// It is done.
    #[n(5)]
    Done {
        /// Its result, if it has one. That of a step that waited for a receipt is with the step that asked for the effect.
        #[n(0)]
        result: Option<Kept>,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ending {
    /// At an `end`, or because nothing was left to do.
    #[n(0)]
    Ended {
        /// What the `end` says comes of it.
        #[n(0)]
        result: Option<Kept>,
    },
    /// At an expression that has no value, or at a receipt that cannot come.
    #[n(1)]
    Failed {
        /// Name of the step.
        #[n(0)]
        step: String,
        /// Why.
        #[n(1)]
        reason: String,
    },
    /// The plan is another than the one that was started.
    #[n(2)]
    Replaced,
}

/// What a run wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An effect. Has to be answered with [`Happening::Emitted`], also if it is denied.
    Emit {
        /// Position of the step.
        step: u32,
        /// Kind of effect.
        effect: Name,
        /// Capability under which it is asked for.
        capability: Name,
        /// Its parameters, canonical, checked against the type of the kind.
        params: Vec<u8>,
    },
    /// An event.
    Raise {
        /// Position of the step.
        step: u32,
        /// Its schema.
        event: Name,
        /// Its value, canonical, checked against the schema.
        value: Vec<u8>,
    },
    /// No more. Always the last.
    End {
        /// How it ended, also [`Instance::ended`].
        ending: Ending,
    },
}

/// What a run is told.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// The effect that a step wanted has an id.
    Emitted {
        /// Position of the step.
        step: u32,
        /// Id of the intent.
        intent: Hash,
    },
    /// What came of an effect. Others' are not taken, nor a second one.
    Receipt {
        /// Id of the intent.
        intent: Hash,
        /// Of schema `sys/receipt@1`.
        value: &'a Value,
    },
    /// An event.
    Event {
        /// Its schema.
        schema: &'a Name,
        /// Its value.
        value: &'a Value,
    },
}

/// The position of a step that cannot be done, and why.
type Failure = (usize, Fault);

impl Instance {
    /// A run that has not done anything; `input` is of the schema that the plan says.
    pub fn start(plan: &Plan, input: &Value) -> Instance {
        Instance {
            plan: plan.name.clone(),
            definition: Definition::Plan(plan.clone()).hash(),
            input: Kept::new(Type::Ref(plan.input.clone()), input),
            progress: vec![Progress::Waiting; plan.steps.len()],
            ending: None,
        }
    }

    /// Goes on as far as it can. Right after the start nothing has happened yet. A run that has ended wants nothing.
    pub fn go_on(&mut self, plan: &Plan, types: &Definitions, happening: Option<Happening<'_>>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        if self.ending.is_some() {
            return wanted;
        }
        let same = self.progress.len() == plan.steps.len() && self.definition == Definition::Plan(plan.clone()).hash();
        let ending = if same {
            let turn = self.take(plan, types, happening).and_then(|()| self.turn(plan, types, &mut wanted));
            turn.unwrap_or_else(|(at, fault)| {
                Some(Ending::Failed { step: plan.steps[at].id.clone(), reason: fault.to_string() })
            })
        } else {
            Some(Ending::Replaced)
        };
        if let Some(ending) = ending {
            self.ending = Some(ending.clone());
            wanted.push(Wanted::End { ending });
        }
        wanted
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Each step's progress, in the order of the plan.
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }

    /// Whether a step waits for an event of this schema.
    pub fn waits_for_event(&self, plan: &Plan, schema: &Name) -> bool {
        let waits = |(step, progress): (&agentd_air::PlanStep, &Progress)| {
            *progress == Progress::Awaiting && matches!(&step.act, Act::AwaitEvent { event, .. } if event == schema)
        };
        self.ending.is_none() && plan.steps.iter().zip(&self.progress).any(waits)
    }

    /// Whether it asked for this effect, has not ended, and has kept no receipt of it.
    pub fn waits_for_receipt(&self, of: &Hash) -> bool {
        let waits =
            |progress: &Progress| matches!(progress, Progress::Emitted { intent, receipt: None } if intent == of);
        self.ending.is_none() && self.progress.iter().any(waits)
    }

    /// Takes in what happened, without doing anything.
    fn take(&mut self, plan: &Plan, types: &Definitions, happening: Option<Happening<'_>>) -> Result<(), Failure> {
        match happening {
            None => {}
            Some(Happening::Emitted { step, intent }) => {
                let at = usize::try_from(step).ok();
                if let Some(progress @ Progress::Asked) = at.and_then(|at| self.progress.get_mut(at)) {
                    *progress = Progress::Emitted { intent, receipt: None };
                }
            }
            Some(Happening::Receipt { intent, value }) => self.take_receipt(plan, intent, value),
            Some(Happening::Event { schema, value }) => {
                for (at, step) in plan.steps.iter().enumerate() {
                    let Act::AwaitEvent { event, condition } = &step.act else { continue };
                    if event != schema || self.progress[at] != Progress::Awaiting {
                        continue;
                    }
                    let given = Given::new(self, plan, types, Some((schema, value)));
                    let met = condition.as_ref().map_or(Ok(true), |condition| given.truth(condition));
                    if met.map_err(|fault| (at, fault))? {
                        let result = Some(Kept::new(Type::Ref(schema.clone()), value));
                        self.progress[at] = Progress::Done { result };
                    }
                }
            }
        }
        Ok(())
    }

    fn take_receipt(&mut self, plan: &Plan, of: Hash, value: &Value) {
        let asked = self.progress.iter_mut().zip(&plan.steps).find_map(|(progress, step)| match progress {
            Progress::Emitted { intent, receipt: receipt @ None } if *intent == of => Some((receipt, &step.id)),
            _ => None,
        });
        let Some((receipt, id)) = asked else { return };
        let awaits = |act: &Act| matches!(act, Act::AwaitReceipt { of } if of == id);
        if plan.steps.iter().any(|step| awaits(&step.act)) {
            *receipt = Some(Kept::new(RECEIPT.clone(), value));
        }
        for (progress, step) in self.progress.iter_mut().zip(&plan.steps) {
            if *progress == Progress::Awaiting && awaits(&step.act) {
                *progress = Progress::Done { result: None };
            }
        }
    }

    /// Does what can be done, in order.
    fn turn(&mut self, plan: &Plan, types: &Definitions, wanted: &mut Vec<Wanted>) -> Result<Option<Ending>, Failure> {
        let mut before = vec![Vec::new(); plan.steps.len()];
        for edge in &plan.edges {
            if let (Some(from), Some(to)) = (place(plan, &edge.from), place(plan, &edge.to)) {
                before[to].push((from, edge.when.as_ref()));
            }
        }
        let settled = |progress: &[Progress], at: usize| {
            before[at].iter().all(|(from, _)| progress[*from].is_done() || progress[*from] == Progress::Skipped)
        };
        let next = |progress: &[Progress]| {
            (0..progress.len()).find(|at| progress[*at] == Progress::Waiting && settled(progress, *at))
        };
        while let Some(at) = next(&self.progress) {
            let done = if self.is_taken(plan, types, &before[at]).map_err(|fault| (at, fault))? {
                self.act(plan, types, at).map_err(|fault| (at, fault))?
            } else {
                (Progress::Skipped, None)
            };
            self.progress[at] = done.0;
            match done.1 {
                Some(Wanted::End { ending }) => return Ok(Some(ending)),
                more => wanted.extend(more),
            }
        }
        self.rest(plan)
    }

    /// Whether a step is done, by the edges into it.
    fn is_taken(&self, plan: &Plan, types: &Definitions, edges: &[(usize, Option<&Expr>)]) -> Result<bool, Fault> {
        let mut taken = edges.is_empty();
        for (from, guard) in edges {
            let guarded = || guard.map_or(Ok(true), |guard| Given::new(self, plan, types, None).truth(guard));
            let id = &plan.steps[*from].id;
            taken |=
                self.progress[*from].is_done() && guarded().map_err(|fault| fault.at(&format!("guard from {id}")))?;
        }
        Ok(taken)
    }

    /// What doing a step makes of it, and what it wants.
    fn act(&self, plan: &Plan, types: &Definitions, at: usize) -> Result<(Progress, Option<Wanted>), Fault> {
        let given = Given::new(self, plan, types, None);
        let step = u32::try_from(at).unwrap_or(u32::MAX);
        Ok(match &plan.steps[at].act {
            Act::Emit { effect, capability, params } => {
                let kind = agentd_air::effect(effect).ok_or_else(|| Fault::NoEffect(effect.clone()))?;
                let params = given.value(params, &kind.params)?;
                let (effect, capability) = (effect.clone(), capability.clone());
                (Progress::Asked, Some(Wanted::Emit { step, effect, capability, params }))
            }
            Act::AwaitReceipt { of } => match place(plan, of).map(|asked| &self.progress[asked]) {
                Some(Progress::Emitted { receipt: Some(_), .. }) => (Progress::Done { result: None }, None),
                _ => (Progress::Awaiting, None),
            },
            Act::AwaitEvent { .. } => (Progress::Awaiting, None),
            Act::Raise { event, value } => {
                let schema = schema_of(types, event)?;
                let value = given.value(value, schema)?;
                (Progress::Done { result: None }, Some(Wanted::Raise { step, event: event.clone(), value }))
            }
            Act::Assign { value } => (Progress::Done { result: Some(given.kept(value)?) }, None),
            Act::End { result } => {
                let result = result.as_ref().map(|result| given.kept(result)).transpose()?;
                (Progress::Done { result: result.clone() }, Some(Wanted::End { ending: Ending::Ended { result } }))
            }
        })
    }

    /// What to make of it that nothing more can be done now: it waits, or has ended.
    fn rest(&self, plan: &Plan) -> Result<Option<Ending>, Failure> {
        let (mut open, mut receipts) = (false, Vec::new());
        for (at, (step, progress)) in plan.steps.iter().zip(&self.progress).enumerate() {
            match (&step.act, progress) {
                (_, Progress::Asked) | (Act::AwaitEvent { .. }, Progress::Awaiting) => open = true,
                (Act::AwaitReceipt { of }, Progress::Awaiting) => match place(plan, of).map(|of| &self.progress[of]) {
                    Some(Progress::Asked | Progress::Emitted { .. }) => open = true,
                    asked => receipts.push((at, of, asked == Some(&Progress::Skipped))),
                },
                _ => {}
            }
        }
        match receipts.into_iter().find(|(_, _, skipped)| *skipped || !open) {
            Some((at, of, _)) => Err((at, Fault::NoReceipt(of.clone()))),
            None if open => Ok(None),
            None => Ok(Some(Ending::Ended { result: None })),
        }
    }
}

impl Kept {
    fn new(of: Type, value: &Value) -> Kept {
        Kept { of, bytes: agentd_air::encode(value) }
    }

    /// The value, if it still is one of its type: a schema may have changed since.
    pub fn read(&self, types: &Definitions) -> Result<Value, Wrong> {
        agentd_air::decode(types, &self.of, &self.bytes, Strictness::Canonical)
    }
}

impl Progress {
    /// Whether the edges out of the step can be taken.
    fn is_done(&self) -> bool {
        matches!(self, Progress::Emitted { .. } | Progress::Done { .. })
    }
}

impl fmt::Display for Ending {
    /// Prints it for people; a result is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Ended { .. } => f.write_str("ended"),
            Ending::Failed { step, reason } => write!(f, "failed at step {step}: {reason}"),
            Ending::Replaced => f.write_str("the plan was replaced while it ran"),
        }
    }
}

/// The position of a step.
fn place(plan: &Plan, id: &str) -> Option<usize> {
    plan.steps.iter().position(|step| step.id == id)
}
