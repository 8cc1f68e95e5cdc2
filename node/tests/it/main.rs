//! Tests of the whole crate: the walls of the repository, and the configuration as people write it.

mod config;
mod tidy;
