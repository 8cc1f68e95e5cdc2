//! A compiled expression: a list of steps over a stack. Jumps go forward only, so each step runs at most once.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::error::Overrun;
use crate::function::Function;
use crate::limits::WORK_MAX;
use crate::value::Value;

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Name(String),
    Index(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Constant(Value),
    /// Pushes what a path leads to; `Null` where it leads nowhere.
    Path(Vec<Part>),
    Compare(Comparison),
    Arithmetic(Arithmetic),
    Negate,
    Not,
    And,
    Or,
    IsNull,
    /// Pops that many candidates and what they are compared with.
    In(usize),
    Call(Function, usize),
    /// Goes to a step if the top is false, and leaves it there: AND needs no right side.
    SkipIfFalse(usize),
    /// Goes to a step if the top is true, and leaves it there: OR needs no right side.
    SkipIfTrue(usize),
    /// Pops; goes to a step unless it was true: the next WHEN.
    SkipUnlessTrue(usize),
    Skip(usize),
}

/// What is left of an event's allowance.
#[derive(Debug)]
pub(crate) struct Work(usize);

impl Work {
    pub(crate) fn new() -> Work {
        Work(WORK_MAX)
    }

    pub(crate) fn spend(&mut self, units: usize) -> Result<(), Overrun> {
        self.0 = self.0.checked_sub(units).ok_or(Overrun::Work)?;
        Ok(())
    }
}

type Held<'e> = Cow<'e, Value>;

/// Runs a program over an event.
pub(crate) fn run<'e>(program: &'e [Step], event: &'e Value, work: &mut Work) -> Result<Held<'e>, Overrun> {
    let mut stack: Vec<Held<'e>> = Vec::new();
    let mut at = 0;
    while let Some(step) = program.get(at) {
        work.spend(1)?;
        at += 1;
        match step {
            Step::Constant(value) => stack.push(Cow::Borrowed(value)),
            Step::Path(parts) => {
                work.spend(parts.len())?;
                stack.push(Cow::Borrowed(follow(event, parts)));
            }
            Step::Compare(comparison) => {
                let (left, right) = pop_two(&mut stack);
                let found = compare(&left, &right, work)?;
                stack.push(truth(found.map(|found| comparison.holds(found))));
            }
            Step::Arithmetic(operation) => {
                let (left, right) = pop_two(&mut stack);
                stack.push(Cow::Owned(operation.apply(&left, &right)));
            }
            Step::Negate => {
                let value = pop(&mut stack);
                stack.push(Cow::Owned(Arithmetic::Subtract.apply(&Value::Int(0), &value)));
            }
            Step::Not => {
                let value = pop(&mut stack);
                stack.push(truth(as_truth(&value).map(|truth| !truth)));
            }
            Step::And => {
                let (left, right) = pop_two(&mut stack);
                stack.push(truth(match (as_truth(&left), as_truth(&right)) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                }));
            }
            Step::Or => {
                let (left, right) = pop_two(&mut stack);
                stack.push(truth(match (as_truth(&left), as_truth(&right)) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                }));
            }
            Step::IsNull => {
                let value = pop(&mut stack);
                stack.push(truth(Some(*value == Value::Null)));
            }
            Step::In(count) => {
                let candidates = pop_many(&mut stack, *count);
                let value = pop(&mut stack);
                let mut found = Some(false);
                for candidate in &candidates {
                    match compare(&value, candidate, work)? {
                        Some(Ordering::Equal) => {
                            found = Some(true);
                            break;
                        }
                        Some(_) => {}
                        None => found = None,
                    }
                }
                stack.push(truth(found));
            }
            Step::Call(function, count) => {
                let arguments = pop_many(&mut stack, *count);
                stack.push(function.call(&arguments, event, work)?);
            }
            Step::SkipIfFalse(to) => {
                if stack.last().and_then(|top| as_truth(top)) == Some(false) {
                    at = *to;
                }
            }
            Step::SkipIfTrue(to) => {
                if stack.last().and_then(|top| as_truth(top)) == Some(true) {
                    at = *to;
                }
            }
            Step::SkipUnlessTrue(to) => {
                if as_truth(&pop(&mut stack)) != Some(true) {
                    at = *to;
                }
            }
            Step::Skip(to) => at = *to,
        }
    }
    Ok(pop(&mut stack))
}

/// What a path leads to.
pub(crate) fn follow<'e>(event: &'e Value, parts: &[Part]) -> &'e Value {
    parts.iter().fold(event, |value, part| match part {
        Part::Name(name) => value.member(name),
        Part::Index(index) => value.element(*index),
    })
}

/// The truth of a condition: only a boolean has one, all else is unknown.
pub(crate) fn as_truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        _ => None,
    }
}

fn truth<'e>(known: Option<bool>) -> Held<'e> {
    Cow::Owned(known.map_or(Value::Null, Value::Bool))
}

fn compare(left: &Value, right: &Value, work: &mut Work) -> Result<Option<Ordering>, Overrun> {
    if let (Value::Text(left), Value::Text(right)) = (left, right) {
        work.spend(left.len().min(right.len()))?;
    }
    Ok(left.compare(right))
}

/// The compiler leaves an operand for every operator; were one missing, it would count as unknown.
fn pop<'e>(stack: &mut Vec<Held<'e>>) -> Held<'e> {
    debug_assert!(!stack.is_empty(), "an operator without operand");
    stack.pop().unwrap_or_default()
}

fn pop_two<'e>(stack: &mut Vec<Held<'e>>) -> (Held<'e>, Held<'e>) {
    let right = pop(stack);
    (pop(stack), right)
}

fn pop_many<'e>(stack: &mut Vec<Held<'e>>, count: usize) -> Vec<Held<'e>> {
    debug_assert!(stack.len() >= count, "a call without its arguments");
    stack.split_off(stack.len().saturating_sub(count))
}

impl Comparison {
    fn holds(self, found: Ordering) -> bool {
        match self {
            Comparison::Equal => found.is_eq(),
            Comparison::Unequal => found.is_ne(),
            Comparison::Less => found.is_lt(),
            Comparison::LessOrEqual => found.is_le(),
            Comparison::Greater => found.is_gt(),
            Comparison::GreaterOrEqual => found.is_ge(),
        }
    }
}

impl Arithmetic {
    /// Integers stay integers while the result is one and fits; else floats. `Null` if an operand is no number, the
    /// divisor is 0, or the result is not finite.
    fn apply(self, left: &Value, right: &Value) -> Value {
        if let (Value::Int(left), Value::Int(right)) = (left, right) {
            let exact = match self {
                Arithmetic::Add => left.checked_add(*right),
                Arithmetic::Subtract => left.checked_sub(*right),
                Arithmetic::Multiply => left.checked_mul(*right),
                Arithmetic::Divide if left.checked_rem(*right) == Some(0) => left.checked_div(*right),
                Arithmetic::Divide => None,
                Arithmetic::Remainder => left.checked_rem(*right),
            };
            if let Some(exact) = exact {
                return Value::Int(exact);
            }
        }
        let (Some(left), Some(right)) = (number(left), number(right)) else { return Value::Null };
        Value::finite(match self {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide => left / right,
            Arithmetic::Remainder => left % right,
        })
    }
}

#[allow(clippy::cast_precision_loss)] // the integer takes part in a calculation with floats
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}
