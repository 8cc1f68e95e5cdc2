//! The replicated state as this node holds it, and the clock that it is stamped with. One node applies its own
//! commands directly; what a command means, and what applying it yields, is the same under a replicated log.

pub mod clock;
pub mod replica;
pub mod wire;

pub use clock::Clock;
pub use replica::Replica;
