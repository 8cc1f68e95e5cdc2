//! What the lease says: while it is lost nothing is read, written or acknowledged, and no time passes for clients.

use std::sync::atomic::Ordering;

use super::Dispatch;

impl Dispatch {
    /// Whether this node holds its lease now, by the clock.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.replica.acts()
    }

    /// Until the lease is held.
    pub async fn acting(&self) {
        loop {
            // Before the look, so that a lease which comes back meanwhile is not missed.
            let thaw = self.thaw.notified();
            tokio::pin!(thaw);
            thaw.as_mut().enable();
            if self.acts() {
                return;
            }
            thaw.await;
        }
    }

    /// Has every connection look at the lease.
    pub(super) fn tell_of_lease(&self) {
        if self.acts() {
            self.thawed_ms.store(self.now().mono_ms, Ordering::Relaxed);
        }
        self.links.lease_changed();
        self.thaw.notify_waiters();
        self.receivers().iter().for_each(|receiver| receiver.signal());
    }
}
