//! What an expression comes to.
//!
//! Every value here has a type. That of a path is the type of what it leads to; an operation gives a bool, a text, an `int`,
//! or a `nat` beyond that. Where a type is asked for (parameters, events, the other side of a comparison), what is built
//! is built for it and what is there is fitted to it, at its top: an option is put around it or taken away, `int`, `nat`,
//! `time` and `duration` become each other where the number allows it and a `dec` where it has few enough digits, a text
//! becomes bytes. Anything else has to be of that very type, so no record passes for another with fields of the same kinds.
//!
//! - A text that is written in the plan also stands for a `dec`, `time`, `duration`, `hash` or `uuid`, as in JSON.
//! - A list also builds a map: its items are lists of a key and a value. Optional fields at the end of a record may be left out.
//! - Records, lists, cases and none have no type of their own. So they cannot be assigned or be the result of an `end`: they
//!   are built where they are used.
//! - `and` and `or` stop at the first that decides. `eq` of an option and a value is that of the value; none equals none.
//! - A result of a step is there once the step is done; that of a skipped one never is. `steps.ID.result.…`, where the step
//!   waited for a receipt, leads into what came of the effect, by the result type of its kind.
//!
//! What one expression may read and make is bounded, and so is its depth. Both bounds are part of what a replay repeats.

use std::cmp::Ordering;

use agentd_air::{
    Act, Dec, Definitions, Expr, MAX_RESOLVED_DEPTH, MAX_VALUE_BYTES, Name, Op, Plan, Resolve, Strictness, TwiceError,
    Type, Value, What, Wrong,
};

use super::{Instance, Kept, Progress, RECEIPT, place};

/// Deepest expression.
const MAX_DEPTH: usize = 32;
/// Most bytes that one expression reads and makes, on the way too; each part of it counts as one more.
const MAX_WORK: usize = 16 * MAX_VALUE_BYTES;

static BOOL: Type = Type::Bool;
static INT: Type = Type::Int;
static NAT: Type = Type::Nat;
static TEXT: Type = Type::Text;
static HASH: Type = Type::Hash;

/// Why an expression has no value, or a step cannot be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A part of it has none.
    #[error("{at}: {fault}")]
    At { at: String, fault: Box<Fault> },
    #[error("there is no {0} here")]
    Unknown(String),
    #[error("step {step} {why}")]
    NoResult { step: String, why: &'static str },
    #[error("it is none")]
    IsNone,
    #[error("{0} can only be built where a type is known")]
    Untyped(&'static str),
    #[error("expected {needed}, found {found}")]
    Other { needed: &'static str, found: &'static str },
    #[error("expected {kind}, found {kind} of another type")]
    OtherType { kind: &'static str },
    #[error("{number} is no {needed}")]
    Range { number: i128, needed: &'static str },
    #[error("{one} and {other} cannot be compared")]
    Kinds { one: &'static str, other: &'static str },
    #[error("{0} has no order")]
    Unordered(&'static str),
    #[error("it takes {0}")]
    Takes(&'static str),
    #[error(transparent)]
    Twice(TwiceError),
    #[error("the number is beyond 64 bits")]
    Overflow,
    #[error(transparent)]
    Wrong(#[from] Wrong),
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("it reads and makes more than {MAX_WORK} bytes")]
    TooMuch,
    #[error("there is no kind of effect {0}")]
    NoEffect(Name),
    #[error("there will be no receipt: step {0} does not ask for its effect before this")]
    NoReceipt(String),
}

impl Fault {
    /// The same, seen from one step further out.
    pub(super) fn at(self, at: &str) -> Fault {
        Fault::At { at: at.to_owned(), fault: Box::new(self) }
    }
}

/// What an expression can see.
pub(super) struct Given<'a> {
    run: &'a Instance,
    plan: &'a Plan,
    types: &'a Definitions,
    event: Option<(&'a Name, &'a Value)>,
    /// What is left of [`MAX_WORK`].
    left: usize,
}

/// A value and its type.
struct Typed<'a> {
    value: Value,
    of: &'a Type,
}

impl<'a> Given<'a> {
    pub(super) fn new(
        run: &'a Instance,
        plan: &'a Plan,
        types: &'a Definitions,
        event: Option<(&'a Name, &'a Value)>,
    ) -> Given<'a> {
        Given { run, plan, types, event, left: MAX_WORK }
    }

    /// A value of a type, canonical.
    pub(super) fn value(mut self, expr: &Expr, of: &'a Type) -> Result<Vec<u8>, Fault> {
        let found = self.eval(expr, Some(of), MAX_DEPTH)?;
        agentd_air::check(self.types, of, &found.value)?;
        Ok(agentd_air::encode(&found.value))
    }

    /// A value of its own type.
    pub(super) fn kept(mut self, expr: &Expr) -> Result<Kept, Fault> {
        let found = self.eval(expr, None, MAX_DEPTH)?;
        agentd_air::check(self.types, found.of, &found.value)?;
        Ok(Kept::new(found.of.clone(), &found.value))
    }

    /// A condition.
    pub(super) fn truth(mut self, expr: &Expr) -> Result<bool, Fault> {
        self.bool(expr, MAX_DEPTH)
    }

    fn eval(&mut self, expr: &Expr, want: Option<&'a Type>, levels: usize) -> Result<Typed<'a>, Fault> {
        let levels = levels.checked_sub(1).ok_or(Fault::TooDeep)?;
        self.spend(1)?;
        let found = match expr {
            Expr::Bool(yes) => Typed { value: Value::Bool(*yes), of: &BOOL },
            Expr::Number(number) => Typed { value: Value::Int(*number), of: &INT },
            Expr::Text(text) => self.text(text, want)?,
            Expr::Get(path) => self.get(path).map_err(|fault| fault.at(path))?,
            Expr::Op(op, operands) => {
                let word = |fault: Fault| fault.at(&format!("{op:?}").to_lowercase());
                self.operation(*op, operands, levels).map_err(word)?
            }
            Expr::Record(_) | Expr::List(_) | Expr::Case(..) | Expr::None => {
                let of = want.ok_or_else(|| Fault::Untyped(kind(expr)))?;
                return Ok(Typed { value: self.build(expr, of, levels)?, of });
            }
        };
        match want {
            None => Ok(found),
            Some(of) => Ok(Typed { value: self.fit(found, of)?, of }),
        }
    }

    fn text(&mut self, text: &str, want: Option<&'a Type>) -> Result<Typed<'a>, Fault> {
        self.spend(text.len())?;
        match want.map(|of| self.base(of)).transpose()? {
            Some(of @ (Type::Dec | Type::Time | Type::Duration | Type::Hash | Type::Uuid)) => {
                Ok(Typed { value: agentd_air::from_json(self.types, of, &text.into())?, of })
            }
            _ => Ok(Typed { value: Value::Text(text.to_owned()), of: &TEXT }),
        }
    }

    /// Builds what has no type of its own.
    fn build(&mut self, expr: &Expr, of: &'a Type, levels: usize) -> Result<Value, Fault> {
        match (self.resolve(of)?, expr) {
            (Type::Option(_), Expr::None) => Ok(Value::None),
            (Type::Option(of), _) => Ok(Value::Some(Box::new(self.build(expr, of, levels)?))),
            (Type::Record(fields), Expr::Record(exprs)) => {
                if exprs.len() > fields.len() {
                    return Err(Fault::Unknown(format!("field number {}", fields.len())));
                }
                let mut values = Vec::with_capacity(fields.len());
                for (at, field) in fields.iter().enumerate() {
                    let value = match exprs.get(at) {
                        Some(expr) => self.eval(expr, Some(&field.of), levels).map(|found| found.value),
                        None if field.of.is_optional(self.types) => Ok(Value::None),
                        None => Err(Fault::IsNone),
                    };
                    values.push(value.map_err(|fault| fault.at(&field.name))?);
                }
                Ok(Value::Record(values))
            }
            (Type::List(of), Expr::List(exprs)) => {
                let items = exprs.iter().enumerate().map(|(at, expr)| {
                    let item = self.eval(expr, Some(of), levels).map_err(|fault| fault.at(&format!("item {at}")))?;
                    Ok(item.value)
                });
                items.collect::<Result<_, _>>().map(Value::List)
            }
            (Type::Map(key, of), Expr::List(exprs)) => {
                let entries = exprs.iter().map(|expr| match expr {
                    Expr::List(pair) if pair.len() == 2 => {
                        let key = self.eval(&pair[0], Some(key), levels)?.value;
                        Ok((key, self.eval(&pair[1], Some(of), levels)?.value))
                    }
                    _ => Err(Fault::Takes("lists of a key and a value")),
                });
                Value::map(entries.collect::<Result<_, _>>()?).map_err(Fault::Twice)
            }
            (Type::Variant(cases), Expr::Case(name, payload)) => {
                let case = (0u32..).zip(cases).find(|(_, case)| case.name == *name);
                let (index, case) = case.ok_or_else(|| Fault::Unknown(format!("case {name}")))?;
                let payload = match (&case.payload, payload) {
                    (None, None) => None,
                    (Some(of), Some(expr)) => {
                        let payload = self.eval(expr, Some(of), levels).map_err(|fault| fault.at(name))?;
                        Some(Box::new(payload.value))
                    }
                    (Some(_), None) => return Err(Fault::Takes("a value").at(name)),
                    (None, Some(_)) => return Err(Fault::Takes("no value").at(name)),
                };
                Ok(Value::Variant(index, payload))
            }
            (of, _) => Err(Fault::Other { needed: of.kind(), found: kind(expr) }),
        }
    }

    /// Makes a value one of another type, as the head of this file says.
    fn fit(&self, found: Typed<'a>, of: &'a Type) -> Result<Value, Fault> {
        let (have, need) = (self.base(found.of)?, self.base(of)?);
        let fits = have == need
            || is_whole(have) && (is_whole(need) || *need == Type::Dec)
            || *have == Type::Text && *need == Type::Bytes;
        let optional = matches!(self.resolve(of)?, Type::Option(_));
        let value = match bare(found.value) {
            _ if !fits && have.kind() == need.kind() => return Err(Fault::OtherType { kind: need.kind() }),
            _ if !fits => return Err(Fault::Other { needed: need.kind(), found: have.kind() }),
            Value::None if optional => return Ok(Value::None),
            Value::None => return Err(Fault::IsNone),
            value if have == need => value,
            Value::Text(text) => Value::Bytes(text.into_bytes()),
            value => {
                let number = whole(&value).ok_or(Fault::Overflow)?;
                of_number(number, need).ok_or(Fault::Range { number, needed: need.kind() })?
            }
        };
        Ok(if optional { Value::Some(Box::new(value)) } else { value })
    }

    /// What a path leads to.
    fn get(&mut self, path: &str) -> Result<Typed<'a>, Fault> {
        let names: Vec<&str> = path.split('.').collect();
        match names.as_slice() {
            ["input", fields @ ..] => {
                let root = self.read(&self.run.input.of, &self.run.input.bytes, Strictness::Canonical)?;
                self.walk(root, fields)
            }
            ["event", fields @ ..] => {
                let (schema, value) = self.event.ok_or_else(|| Fault::Unknown("event".to_owned()))?;
                let of = schema_of(self.types, schema)?;
                self.spend(agentd_air::encoded_len(value))?;
                self.walk(Typed { value: value.clone(), of }, fields)
            }
            ["steps", id, fields @ ..] => self.step(id, fields),
            _ => Err(Fault::Unknown(format!("{path:?}"))),
        }
    }

    fn step(&mut self, id: &str, fields: &[&str]) -> Result<Typed<'a>, Fault> {
        let at = place(self.plan, id).ok_or_else(|| Fault::Unknown(format!("step {id}")))?;
        let none = |why| Fault::NoResult { step: id.to_owned(), why };
        let (act, progress) = (&self.plan.steps[at].act, &self.run.progress[at]);
        let kept = match (act, progress) {
            (_, Progress::Skipped) => return Err(none("was skipped")),
            (_, Progress::Emitted { intent, .. }) => {
                return self.walk(Typed { value: Value::Hash(*intent), of: &HASH }, fields);
            }
            (Act::AwaitReceipt { of }, Progress::Done { .. }) => return self.receipt(of, fields),
            (_, Progress::Done { result }) => result.as_ref().ok_or_else(|| none("has no result"))?,
            _ => return Err(none("is not done")),
        };
        let root = self.read(&kept.of, &kept.bytes, Strictness::Canonical)?;
        self.walk(root, fields)
    }

    /// The receipt of the effect that a step asked for, or what is in it.
    fn receipt(&mut self, of: &str, fields: &[&str]) -> Result<Typed<'a>, Fault> {
        let lost = || Fault::Unknown(format!("receipt of step {of}"));
        let at = place(self.plan, of).ok_or_else(lost)?;
        let (Act::Emit { effect, .. }, Progress::Emitted { receipt: Some(kept), .. }) =
            (&self.plan.steps[at].act, &self.run.progress[at])
        else {
            return Err(lost());
        };
        let root = self.read(&RECEIPT, &kept.bytes, Strictness::Canonical)?;
        let ["result", within, ..] = fields else { return self.walk(root, fields) };
        let kind = agentd_air::effect(effect).ok_or_else(|| Fault::NoEffect(effect.clone()))?;
        match bare(self.walk(root, &["result"])?.value) {
            Value::Bytes(bytes) => {
                let result = self.read(&kind.result, &bytes, Strictness::Lenient)?;
                self.walk(result, &fields[1..])
            }
            _ => Err(Fault::IsNone.at(&format!("before {within}"))),
        }
    }

    fn read(&mut self, of: &'a Type, bytes: &[u8], strictness: Strictness) -> Result<Typed<'a>, Fault> {
        self.spend(bytes.len())?;
        Ok(Typed { value: agentd_air::decode(self.types, of, bytes, strictness)?, of })
    }

    fn walk(&self, root: Typed<'a>, fields: &[&str]) -> Result<Typed<'a>, Fault> {
        fields.iter().try_fold(root, |found, name| match (self.base(found.of)?, bare(found.value)) {
            (_, Value::None) => Err(Fault::IsNone.at(&format!("before {name}"))),
            (Type::Record(fields), Value::Record(mut values)) => {
                let at = fields.iter().position(|field| field.name == *name).filter(|at| *at < values.len());
                let at = at.ok_or_else(|| Fault::Unknown(format!("field {name}")))?;
                Ok(Typed { value: values.swap_remove(at), of: &fields[at].of })
            }
            (of, _) => Err(Fault::Other { needed: "record", found: of.kind() }.at(&format!("before {name}"))),
        })
    }

    fn operation(&mut self, op: Op, operands: &[Expr], levels: usize) -> Result<Typed<'a>, Fault> {
        let bool = |yes| Ok(Typed { value: Value::Bool(yes), of: &BOOL });
        match (op, operands) {
            (Op::Eq, [one, other]) => bool(self.compare(one, other, levels)?.0),
            (Op::Ne, [one, other]) => bool(!self.compare(one, other, levels)?.0),
            (Op::Lt, [one, other]) => bool(self.compare(one, other, levels)?.1?.is_lt()),
            (Op::Le, [one, other]) => bool(self.compare(one, other, levels)?.1?.is_le()),
            (Op::Gt, [one, other]) => bool(self.compare(one, other, levels)?.1?.is_gt()),
            (Op::Ge, [one, other]) => bool(self.compare(one, other, levels)?.1?.is_ge()),
            (Op::And | Op::Or, [_, ..]) => {
                for operand in operands {
                    if self.bool(operand, levels)? == (op == Op::Or) {
                        return bool(op == Op::Or);
                    }
                }
                bool(op == Op::And)
            }
            (Op::Not, [operand]) => bool(!self.bool(operand, levels)?),
            (Op::Sub, [_, _]) => self.number(i128::checked_sub, operands, levels),
            (Op::Add, [_, ..]) => self.number(i128::checked_add, operands, levels),
            (Op::Mul, [_, ..]) => self.number(i128::checked_mul, operands, levels),
            (Op::Concat, [_, ..]) => {
                let mut all = String::new();
                for operand in operands {
                    let found = self.present(operand, levels)?;
                    let number = whole(&found);
                    let part = match (found, number) {
                        (_, Some(number)) => number.to_string(),
                        (Value::Dec(dec), _) => dec.to_string(),
                        (Value::Text(text), _) => text,
                        (value, _) => return Err(Fault::Other { needed: "text", found: value.kind() }),
                    };
                    self.spend(part.len())?;
                    all.push_str(&part);
                }
                Ok(Typed { value: Value::Text(all), of: &TEXT })
            }
            (Op::Len, [operand]) => {
                let length = match self.present(operand, levels)? {
                    Value::List(items) => items.len(),
                    Value::Text(text) => text.chars().count(),
                    value => return Err(Fault::Other { needed: "list or text", found: value.kind() }),
                };
                Ok(Typed { value: Value::Nat(length as u64), of: &NAT })
            }
            _ => Err(Fault::Takes("another number of operands")),
        }
    }

    /// A value that is not none, without an option around it.
    fn present(&mut self, expr: &Expr, levels: usize) -> Result<Value, Fault> {
        match bare(self.eval(expr, None, levels)?.value) {
            Value::None => Err(Fault::IsNone),
            value => Ok(value),
        }
    }

    fn bool(&mut self, expr: &Expr, levels: usize) -> Result<bool, Fault> {
        match self.present(expr, levels)? {
            Value::Bool(yes) => Ok(yes),
            value => Err(Fault::Other { needed: "bool", found: value.kind() }),
        }
    }

    /// Whole numbers taken together from the left; neither they nor what is on the way may leave 64 bits.
    fn number(
        &mut self,
        combine: fn(i128, i128) -> Option<i128>,
        operands: &[Expr],
        levels: usize,
    ) -> Result<Typed<'a>, Fault> {
        let mut all = None;
        for operand in operands {
            let value = self.present(operand, levels)?;
            let next = whole(&value).ok_or(Fault::Other { needed: "whole number", found: value.kind() })?;
            let sum = all.map_or(Some(next), |all| combine(all, next));
            all = Some(sum.filter(|sum| (i64::MIN.into()..=u64::MAX.into()).contains(sum)).ok_or(Fault::Overflow)?);
        }
        let number = all.ok_or(Fault::Overflow)?;
        let of = if i64::try_from(number).is_ok() { &INT } else { &NAT };
        Ok(Typed { value: of_number(number, of).ok_or(Fault::Overflow)?, of })
    }

    /// Whether two values are equal, and their order, if they have one. What is written in the plan takes the other's type.
    fn compare(&mut self, one: &Expr, other: &Expr, levels: usize) -> Result<(bool, Result<Ordering, Fault>), Fault> {
        let written = |expr: &Expr| !matches!(expr, Expr::Get(_) | Expr::Op(..) | Expr::Bool(_) | Expr::Number(_));
        let (one, other) = if written(one) && !written(other) {
            let other = self.eval(other, None, levels)?;
            (self.eval(one, Some(other.of), levels)?, other)
        } else {
            let one = self.eval(one, None, levels)?;
            let want = written(other).then_some(one.of);
            (one, self.eval(other, want, levels)?)
        };
        let (left, right) = (self.base(one.of)?, self.base(other.of)?);
        let is_number = |of: &Type| is_whole(of) || *of == Type::Dec;
        if left != right && !(is_number(left) && is_number(right)) {
            return Err(Fault::Kinds { one: left.kind(), other: right.kind() });
        }
        let (one, other) = (bare(one.value), bare(other.value));
        let order = match (&one, &other) {
            (Value::None, _) | (_, Value::None) => Err(Fault::IsNone),
            (Value::Text(one), Value::Text(other)) => Ok(one.cmp(other)),
            (one, other) => order(one, other).ok_or(Fault::Unordered(left.kind())),
        };
        Ok((order.as_ref().map_or(one == other, |order| order.is_eq()), order))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(bytes).ok_or(Fault::TooMuch)?;
        Ok(())
    }

    /// The type that a name stands for.
    fn resolve(&self, of: &'a Type) -> Result<&'a Type, Fault> {
        let mut of = of;
        for _ in 0..MAX_RESOLVED_DEPTH {
            let Type::Ref(name) = of else { return Ok(of) };
            of = schema_of(self.types, name)?;
        }
        Err(Fault::TooDeep)
    }

    /// The same, and that of the value where it is an option.
    fn base(&self, of: &'a Type) -> Result<&'a Type, Fault> {
        match self.resolve(of)? {
            Type::Option(of) => self.resolve(of),
            of => Ok(of),
        }
    }
}

pub(super) fn schema_of<'a>(types: &'a Definitions, name: &Name) -> Result<&'a Type, Fault> {
    types.schema(name).ok_or_else(|| Fault::Wrong(What::UnknownSchema(name.clone()).into()))
}

/// The word for what is built.
fn kind(expr: &Expr) -> &'static str {
    match expr {
        Expr::Record(_) => "record",
        Expr::List(_) => "list",
        Expr::Case(..) => "variant",
        Expr::None => "none",
        _ => "value",
    }
}

fn is_whole(of: &Type) -> bool {
    matches!(of, Type::Int | Type::Nat | Type::Time | Type::Duration)
}

/// A value without the option around it.
fn bare(value: Value) -> Value {
    match value {
        Value::Some(value) => *value,
        value => value,
    }
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Nat(number) | Value::Time(number) | Value::Duration(number) => Some((*number).into()),
        _ => None,
    }
}

fn of_number(number: i128, of: &Type) -> Option<Value> {
    Some(match of {
        Type::Int => Value::Int(number.try_into().ok()?),
        Type::Nat => Value::Nat(number.try_into().ok()?),
        Type::Time => Value::Time(number.try_into().ok()?),
        Type::Duration => Value::Duration(number.try_into().ok()?),
        Type::Dec => Value::Dec(i64::try_from(number).ok()?.into()),
        _ => return None,
    })
}

/// The order of two numbers; `None` where one is something else.
fn order(one: &Value, other: &Value) -> Option<Ordering> {
    // A whole number is below 2^64 and a decimal one has at most 18 places, so this stays within 128 bits.
    let scaled = |number: i128, dec: &Dec| {
        let power = |exponent: i8| 10i128.pow(u32::from(exponent.unsigned_abs()));
        let (raise, lower) = if dec.exponent() < 0 { (power(dec.exponent()), 1) } else { (1, power(dec.exponent())) };
        (number * raise).cmp(&(i128::from(dec.mantissa()) * lower))
    };
    match (one, other) {
        (Value::Dec(one), Value::Dec(other)) => Some(one.cmp(other)),
        (Value::Dec(dec), number) => Some(scaled(whole(number)?, dec).reverse()),
        (number, Value::Dec(dec)) => Some(scaled(whole(number)?, dec)),
        (one, other) => Some(whole(one)?.cmp(&whole(other)?)),
    }
}
