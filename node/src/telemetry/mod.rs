//! Logs, metrics and traces; README.md beside this file is the reference. Names of metrics start with `fulmar_`; labels
//! come from closed lists.

pub mod log;
pub mod metrics;
pub mod otlp;
pub mod resources;
pub mod spans;

pub use metrics::Metrics;
