//! Tests of the whole crate: the walls of the repository, the configuration as people write it, and the log at its fail
//! points.

mod config;
mod log_faults;
mod snapshot_faults;
mod tidy;
mod verify;
