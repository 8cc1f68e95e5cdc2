//! This node's part in the cluster: the Raft log under the replicated state, what is proposed to it, and the clock that
//! it is stamped with.

mod acks;
pub mod backup;
mod batcher;
mod bootstrap;
pub mod calls;
pub mod clock;
mod context;
mod core;
pub mod disk;
mod gate;
mod handover;
mod lag;
mod leader;
mod lease;
pub mod links;
mod member;
mod membership;
pub mod peers;
pub mod raft;
mod reach;
pub mod recover;
pub mod replica;
mod service;
mod start;
#[cfg(test)]
mod tests;
mod view;
mod waits;
pub mod wire;

pub use batcher::{PROPOSAL_BYTES_MAX, in_parts};
pub use bootstrap::Bootstrap;
pub use clock::Clock;
pub use context::Context;
pub use replica::{Committed, Error, Figures, Listener, Replica, Reply, Seat, Taken, Then};
pub use service::PeerService;
pub use start::{Doors, Settings, StartError, Step, Steps, start};
pub use view::{Census, ClusterView, MemberView, Role};
pub use waits::Waits;
