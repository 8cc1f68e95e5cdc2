//! What tests and measurements of Fulmar stand on: real processes ([`harness`]), an independent client ([`client`]), a
//! client that can say anything ([`raw`]), oracles ([`sequence`], [`histogram`]) and what the kernel knows of a process
//! ([`proc`]). Absent here: any code of the broker; only the codec is shared, and `client` judges without it.

pub mod client;
pub mod harness;
pub mod histogram;
pub mod proc;
pub mod raw;
pub mod sequence;
pub mod sys;
pub mod wait;

pub use wait::wait_for;
