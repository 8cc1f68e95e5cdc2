//! What tests and measurements of Fulmar stand on: real processes ([`harness`]), an independent client ([`client`]), a
//! client that can say anything ([`raw`]), oracles ([`sequence`], [`histogram`]), what a node says of itself ([`metrics`])
//! and what the kernel knows of a process and a disk ([`proc`], [`disk`]). Absent here: any code of the broker; only the codec is shared, and `client` judges without it.

pub mod client;
pub mod disk;
pub mod harness;
pub mod histogram;
pub mod metrics;
pub mod proc;
pub mod raw;
pub mod sequence;
pub mod sys;
pub mod wait;

pub use wait::wait_for;
