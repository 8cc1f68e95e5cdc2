//! Who is connected here, as only this node knows it: where clients come from, and what they listen to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fulmar_broker::LogTime;
use fulmar_broker::state::Wanted;

use super::Dispatch;
use super::receiver::Receiver;

/// What a client has said of itself, and where it is.
#[derive(Debug, Clone)]
pub struct Guest {
    pub peer: SocketAddr,
    /// Over TLS.
    pub encrypted: bool,
    pub connected_at: LogTime,
    /// `None`: it is the identity of its session.
    pub client_id: Option<Box<str>>,
    /// As the client has sent it.
    pub user_name: Option<Box<str>>,
    /// Seconds, as the client has asked for it.
    pub keep_alive_s: u16,
    pub clean_start: bool,
}

impl Receiver {
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Counts publications that have come from the client.
    pub fn count_received(&self, count: u64) {
        self.received.fetch_add(count, Ordering::Relaxed);
    }

    /// Publications that have come from the client since it connected.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Dispatch {
    /// Receivers of clean sessions whose subscriptions are among those that are wanted: nobody but this node knows of them.
    /// At most so many.
    #[must_use]
    pub fn own_subscribers(&self, wanted: Wanted<'_>, max: usize) -> Vec<Arc<Receiver>> {
        let mut found: Vec<Arc<Receiver>> = Vec::new();
        self.each_live(wanted, |receiver| {
            if !receiver.persistent() {
                found.push(receiver.clone());
            }
            found.len() >= max
        });
        // One that matches by several filters is there several times.
        found.sort_unstable_by_key(|receiver| receiver.id());
        found.dedup_by_key(|receiver| receiver.id());
        found
    }
}
