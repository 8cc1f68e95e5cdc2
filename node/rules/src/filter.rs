//! A `where`: which events a rule is for.

use crate::compile::Compiler;
use crate::error::{Error, Overrun};
use crate::program::{self, Step, Work};
use crate::value::Value;

/// A compiled condition. An empty text is one that every event meets.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Empty: always true.
    steps: Vec<Step>,
}

impl Filter {
    /// Compiles a text.
    ///
    /// # Errors
    /// Where it stops making sense, and why.
    pub fn parse(text: &str) -> Result<Filter, Error> {
        let mut compiler = Compiler::new(text)?;
        if !compiler.at_end() {
            compiler.expression()?;
            compiler.expect_end()?;
        }
        Ok(Filter { steps: compiler.take_steps() })
    }

    /// Whether an event meets the condition. Unknown (a path that leads nowhere, a comparison of different kinds) is
    /// no, and so is NOT unknown.
    ///
    /// # Errors
    /// A bound was hit.
    pub fn matches(&self, event: &Value) -> Result<bool, Overrun> {
        if self.steps.is_empty() {
            return Ok(true);
        }
        let result = program::run(&self.steps, event, &mut Work::new())?;
        Ok(program::as_truth(&result) == Some(true))
    }
}
