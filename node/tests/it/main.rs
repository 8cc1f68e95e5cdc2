//! Tests of the whole crate: the walls of the repository, the configuration as people write it, the gRPC
//! door of a whole node, and the log at its fail points.

mod admin;
mod config;
mod console;
mod log_faults;
mod metrics;
mod snapshot_faults;
mod tidy;
mod verify;
