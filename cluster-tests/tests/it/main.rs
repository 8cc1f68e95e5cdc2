//! What a node, and a cluster of nodes, promises, asked of real processes from outside. Each test starts what it needs, or
//! shares a node with those that run at the same time; everything listens on 127.0.0.1.

// All of this binary is tests; clippy sees that only of functions that carry the attribute.
#![allow(clippy::unwrap_used)]

mod applications;
mod backup;
mod books;
mod certificates;
mod cluster;
mod commands;
mod ctl;
mod dev;
mod devices;
mod doors;
mod durability;
mod hostile;
mod lifecycle;
mod messages;
mod otlp;
mod play;
mod protocol;
mod proxied;
mod resources;
mod rest;
mod rules;
mod serve;
mod shadow;
mod steer;
mod support;
mod tasks;
mod watch;
mod why;
