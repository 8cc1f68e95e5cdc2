//! What clients of either version may rely on.

mod inflight;
mod messages;
mod sessions;
mod shared;
mod v5;
mod wills;
