//! Logs and metrics. Names of metrics start with `fulmar_`; labels come from closed lists.

pub mod log;
pub mod metrics;

pub use metrics::Metrics;
