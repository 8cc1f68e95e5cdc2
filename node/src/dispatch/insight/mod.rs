//! What this node remembers of messages and clients, for whoever asks why: see [`fulmar_broker::insight`]. The hot path pays
//! one look at whether anything is traced, and a field that is 0.

mod trace;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fulmar_broker::Publication;
use fulmar_broker::insight::hops::TRACES_MAX;
use fulmar_broker::insight::top::{COUNTED_A_SECOND, ONE_IN};
use fulmar_broker::insight::{Incident, Ledger, Ring, Slow, Top, Usage, What, slow};
use fulmar_broker::outbound::{DropReason, Notes};
use fulmar_broker::steer::traces::Trace;
use fulmar_mqtt::TopicName;
use parking_lot::{Mutex, RwLock};

use super::{Dispatch, Receiver};
use crate::cluster::clock::wall_ms;
pub use trace::{Passing, keys_of};

/// Of this node. See the module.
#[derive(Default)]
pub struct Insight {
    /// Whether anything is traced.
    armed: AtomicBool,
    traces: RwLock<Arc<[Trace]>>,
    /// By the place of a trace: its number, and what was seen for it.
    rings: [Mutex<(u64, Ring)>; TRACES_MAX],
    messages: AtomicU64,
    ledger: Mutex<Ledger>,
    top: Mutex<Top>,
    slow: Mutex<Slow>,
}

impl std::fmt::Debug for Insight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Insight").finish_non_exhaustive()
    }
}

thread_local! {
    /// Which second this thread counts in, how many runs of it have come, and what one that is counted stands for.
    static COUNTED: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

impl Insight {
    /// Whether any message is traced now.
    #[must_use]
    pub fn armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Writes down that something rare has happened to a client.
    pub fn note(&self, client: &str, what: What, reason: &str, topic: &str, epoch: u64) {
        if !client.is_empty() {
            self.ledger.lock().note(client, what, reason, topic, epoch, wall_ms());
        }
    }

    /// A CONNECT was refused: known by its client id, its user name and its address.
    pub fn refused(&self, client_id: &str, user: Option<&str>, peer: SocketAddr, reason: &str) {
        self.note(client_id, What::ConnectRefused, reason, "", 0);
        if let Some(user) = user.filter(|user| *user != client_id) {
            self.note(user, What::ConnectRefused, reason, "", 0);
        }
        let address = peer.ip().to_canonical().to_string();
        self.note(&address, What::ConnectRefused, reason, "", 0);
    }

    /// What is kept of these names, the oldest first.
    #[must_use]
    pub fn incidents(&self, names: &[String]) -> Vec<Incident> {
        let ledger = self.ledger.lock();
        names.iter().flat_map(|name| ledger.of(name)).collect()
    }

    /// Incidents that are kept, and those that came too fast.
    #[must_use]
    pub fn incident_counts(&self) -> (u64, u64) {
        let ledger = self.ledger.lock();
        (ledger.len() as u64, ledger.missed())
    }

    /// Counts a run of messages on one topic, where it is its turn to be counted.
    pub fn used(&self, topic: &TopicName, messages: u64, bytes: impl FnOnce() -> u64, now_ms: u64) {
        let (second, before) = COUNTED.get();
        let runs = if second == now_ms / 1000 { before.saturating_add(1) } else { 1 };
        COUNTED.set((now_ms / 1000, runs));
        let stands_for = match runs {
            0..=COUNTED_A_SECOND => 1,
            _ if runs % ONE_IN == 0 => u64::from(ONE_IN),
            _ => return,
        };
        self.top.lock().add(topic, messages * stands_for, bytes() * stands_for, now_ms);
    }

    /// The most used topics here.
    #[must_use]
    pub fn top(&self, most: usize, now_ms: u64) -> Vec<Usage> {
        self.top.lock().read(most, now_ms)
    }

    /// The slowest receivers here.
    #[must_use]
    pub fn slow(&self, now_ms: u64) -> Vec<slow::SlowReceiver> {
        self.slow.lock().read(now_ms)
    }

    /// Takes what a receiver's way out has to tell.
    pub(crate) fn take(&self, receiver: &Receiver, notes: &Notes, now_ms: u64) {
        let (client, epoch) = (receiver.key().identity(), receiver.epoch().0);
        if notes.slowness.count > 0 {
            self.slow.lock().note(client, notes.slowness, now_ms);
        }
        for lost in &notes.lost {
            let reason = match lost.reason {
                None => "expired",
                // What has become of the session says it.
                Some(DropReason::SessionEnded | DropReason::Reassigned) => continue,
                Some(reason) => reason.as_str(),
            };
            let what = if lost.reason.is_none() { What::Expired } else { What::Dropped };
            self.note(client, what, reason, lost.topic.as_str(), epoch);
        }
        for (message, saw) in &notes.seen {
            self.saw(*message, client, epoch, *saw);
        }
    }
}

impl Dispatch {
    /// What this node remembers.
    #[must_use]
    pub fn insight(&self) -> &Insight {
        &self.insight
    }

    /// Takes what a receiver's way out has told.
    pub fn tell_notes(&self, receiver: &Receiver, notes: Option<Box<Notes>>, now_ms: u64) {
        if let Some(notes) = notes {
            self.insight.take(receiver, &notes, now_ms);
        }
    }

    /// Takes what a receiver's way out has to tell, if it is anything.
    pub fn take_notes(&self, receiver: &Receiver) {
        let notes = receiver.outbound().take_notes();
        if let Some(notes) = notes {
            self.insight.take(receiver, &notes, self.now().mono_ms);
        }
    }

    /// A message did not stay in a session's queue. Told by the session's node or, without one, by the node that is chosen
    /// for it.
    pub(super) fn queue_lost(
        &self,
        client: &str,
        owned: Option<bool>,
        epoch: u64,
        publication: &Publication,
        expired: bool,
    ) {
        if owned.unwrap_or_else(|| self.chosen(client)) {
            let (what, reason) = if expired { (What::Expired, "expired") } else { (What::Dropped, "queue_full") };
            self.insight.note(client, what, reason, publication.topic.as_str(), epoch);
            self.insight.dropped(publication.trace, client, epoch, reason);
        }
    }
}
