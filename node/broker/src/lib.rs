//! What the router decides: sessions, delivery windows, routing structures and the replicated state.
//! Absent here: sockets, tasks, disks, clocks and randomness. Every entry takes the time; every result is a value.

pub mod insight;
pub mod key;
pub mod outbound;
pub mod plane;
pub mod publication;
pub mod retained;
pub mod session;
pub mod state;
pub mod steer;
pub mod trie;

pub use key::{Epoch, Generation, LogTime, NodeId, Now, SessionKey};
pub use publication::{Delivery, Publication, Via};
