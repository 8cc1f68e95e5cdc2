//! The rule language: what an event must look like (`where`), and what is kept of it (`select`).
//!
//! Text is compiled once, to a flat program whose jumps only go forward, so that each step runs at most once for an
//! event. What is too long, too deep or too much work is an error with a name ([`limits`]), never a long wait.
//! Absent here: JSON text, subjects, actions, clocks. An event comes as a [`Value`] and leaves as one.

mod compile;
mod error;
mod filter;
mod function;
mod lex;
pub mod limits;
mod program;
mod projection;
mod value;

pub use error::{Error, Overrun, Problem};
pub use filter::Filter;
pub use projection::Projection;
pub use value::Value;
