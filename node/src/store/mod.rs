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
pub mod pid;
mod record;
pub mod recovery;
mod sled;
pub mod snapshots;
mod stats;
#[cfg(test)]
mod tests;
pub mod verify;
mod workers;
