//! Sessions as actors: CONNECT to CONNACK, batches of packets to the session machine, its outputs to dispatch and to
//! the way out. One actor per connected client; a session without a connection is state, not an actor.

pub mod actor;
pub mod authenticate;
mod certificate;
mod flapping;
pub mod open;
mod pace;

pub use actor::{Batch, Message};
pub use open::{Opened, Refused, Sessions};
