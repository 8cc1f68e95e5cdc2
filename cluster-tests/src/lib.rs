//! What tests and measurements of Fulmar stand on: real processes ([`harness`]), faults between them ([`proxy`]), an
//! independent client ([`client`]), a client that can say anything ([`raw`]), devices of four clouds ([`devices`]) and the
//! REST API that registers them ([`rest`]), the gRPC API for admins ([`admin`]), a load that outlives nodes ([`load`]), oracles
//! ([`history`], [`sequence`], [`histogram`]), promises of a cluster under faults ([`scenarios`]),
//! the manifests of `k8s/` with processes for containers ([`play`]), what a node says of itself
//! ([`metrics`]) and what the kernel knows of a process and a disk ([`proc`], [`disk`]). Absent here: any code of the broker;
//! only the codec is shared, and `client` judges without it; and the messages for admins.

pub mod admin;
pub mod applications;
pub mod client;
pub mod devices;
pub mod disk;
pub mod harness;
pub mod histogram;
pub mod history;
pub mod load;
pub mod metrics;
pub mod play;
pub mod proc;
pub mod proxy;
pub mod raw;
pub mod rest;
pub mod scenarios;
pub mod sequence;
pub mod sys;
pub mod wait;

pub use wait::wait_for;
