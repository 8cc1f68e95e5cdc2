//! What a node remembers of its messages and clients, so that somebody may ask why: hops of traced messages, rare events by
//! client, the most used topics, slow receivers; and what follows from all of it. Bounded, and without a clock: callers say
//! when. Absent here: who asks whom, which is `operations`' business.

pub mod hops;
pub mod ledger;
pub mod slow;
pub mod top;
pub mod why;

pub use hops::{Hop, Ring, Stage};
pub use ledger::{Incident, Ledger, What};
pub use slow::{Slow, Slowness};
pub use top::{Top, Usage};
