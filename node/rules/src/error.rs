//! Why text is no rule, and why a rule could not be finished for an event.

use thiserror::Error;

use crate::limits;

/// Where text stops making sense, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("at column {column}: {problem}")]
pub struct Error {
    /// In bytes, from 1. One past the end where something is missing.
    pub column: usize,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("expected {wanted}, found {found}")]
    Expected { wanted: &'static str, found: String },
    #[error("longer than {} characters", limits::TEXT_BYTES_MAX)]
    TooLong,
    #[error("nested deeper than {} levels", limits::DEPTH_MAX)]
    TooDeep,
    #[error("only ASCII is allowed")]
    NotAscii,
    #[error("unexpected character '{0}'")]
    Character(char),
    #[error("{0} has no end")]
    Unterminated(&'static str),
    #[error("the number does not fit")]
    Number,
    #[error("there is no function {0}")]
    NoFunction(String),
    #[error("{name} takes {wanted} arguments, not {found}")]
    Arguments { name: &'static str, wanted: &'static str, found: usize },
    #[error("a constant or function needs a name: AS name")]
    NeedsName,
    #[error("a name is at most {} characters long", limits::ALIAS_CHARS_MAX)]
    LongName,
    #[error("two items are named {0}")]
    SameName(String),
}

/// A bound that an evaluation hit. The event counts as not matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Overrun {
    #[error("the rule is too much work for this event")]
    Work,
    #[error("the projection is larger than {} bytes", limits::OUTPUT_BYTES_MAX)]
    Output,
}
