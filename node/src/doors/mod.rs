//! Where bytes come in: only here are ports bound. Doors know sessions and dispatch, never each other.

pub mod mqtt;
pub mod probes;
