//! The store against power loss, damage, and itself.

mod damage;
pub(super) mod disk;
mod log;
mod power;
mod recovery;
mod tail;
