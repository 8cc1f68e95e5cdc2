//! What a node keeps on disk: who it is, and the log under Raft.

pub mod backups;
pub mod disk;
mod error;
mod files;
pub mod identity;
mod inspect;
mod layout;
pub mod log;
mod mark;
mod record;
mod sled;
pub mod snapshots;
mod stats;
#[cfg(test)]
mod tests;
pub mod verify;
mod workers;
