//! A clustered, actor-based MQTT message router. `ARCHITECTURE.md` beside this crate is the map.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dispatch;
pub mod doors;
pub mod node;
pub mod operations;
pub mod rule_engine;
pub mod sessions;
pub mod store;
pub mod telemetry;
pub mod tls;
