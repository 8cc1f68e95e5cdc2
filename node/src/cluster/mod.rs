//! This node's part in the cluster: the Raft log under the replicated state, what is proposed to it, and the clock that
//! it is stamped with.

mod batcher;
pub mod clock;
pub mod raft;
pub mod replica;
mod start;
#[cfg(test)]
mod tests;
pub mod wire;

pub use batcher::PROPOSAL_BYTES_MAX;
pub use clock::Clock;
pub use replica::{Committed, Error, Figures, Listener, Replica, Reply, Taken, Then};
pub use start::{Settings, StartError, start};
