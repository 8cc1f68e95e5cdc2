//! Bounds on what is replicated, and settlements, which make room again.

use fulmar_mqtt::{QoS, ReasonCode, TopicName};

use super::State;
use super::books::{Dropped, Fate};
use super::command::{Outcome, Settlement};
use super::ledger::ENTRY_BYTES;
use super::queue::Lost;
use super::session::Session;
use crate::key::SessionKey;

/// Tenths of the cluster's bytes above which durable publishes are refused. The rest is for what cannot be refused.
const PUBLISH_TENTHS_MAX: u64 = 8;

impl State {
    /// Whether a durable publish may add so many bytes.
    pub(super) fn durable_room(&self, more: u64) -> Result<(), ReasonCode> {
        let max = self.kept.limits.replicated_bytes_max;
        let mark = max / 10 * PUBLISH_TENTHS_MAX + max % 10 * PUBLISH_TENTHS_MAX / 10;
        if self.bytes().saturating_add(more) > mark { Err(ReasonCode::QuotaExceeded) } else { Ok(()) }
    }

    /// Whether the bound on replicated bytes has room for a durable message of so many bytes, whoever gets it.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.durable_room(bytes as u64 + ENTRY_BYTES).is_ok()
    }

    /// Whether a session's queue takes one more entry of this cost without dropping another.
    pub(super) fn queue_room(&self, key: &SessionKey, cost: u64) -> Result<(), ReasonCode> {
        let limits = &self.kept.limits;
        let queue = self.kept.sessions.get(key).and_then(Session::queue);
        let fits = queue.map_or(cost <= limits.queue_bytes_max, |queue| queue.fits(limits, 1, cost));
        if fits { Ok(()) } else { Err(ReasonCode::QuotaExceeded) }
    }

    /// What the node that accepts a publish asks before it takes it: how many receivers apply would serve. `bytes` as
    /// [`crate::Publication::bytes`] counts them. Apply itself drops the oldest of a full queue, for what
    /// was accepted cannot be refused any more.
    ///
    /// # Errors
    /// The cluster's bytes are above the mark, or the only receiver's queue is full.
    pub fn admit(
        &self,
        topic: &TopicName,
        qos: QoS,
        origin: Option<&SessionKey>,
        bytes: usize,
    ) -> Result<usize, ReasonCode> {
        let receivers = self.receivers_of(topic, qos, origin);
        let durable: Vec<_> = receivers.iter().filter(|receiver| receiver.qos > QoS::AtMostOnce).collect();
        if !durable.is_empty() {
            self.durable_room(bytes as u64 + ENTRY_BYTES * durable.len() as u64)?;
        }
        if let [receiver] = durable.as_slice() {
            self.queue_room(&receiver.key, ENTRY_BYTES + bytes as u64)?;
        }
        Ok(receivers.len())
    }

    /// Ends what has expired in the queue of a session that nobody owns.
    pub(super) fn purge_released(&mut self, key: &SessionKey) {
        let now = self.kept.now;
        self.change(key, |session, ledger, _| {
            let released = session.owner().is_none();
            if let Some(queue) = session.queue_if_any().filter(|_| released) {
                queue.purge(now, ledger, &mut Lost::default());
            }
        });
    }

    pub(super) fn settle(&mut self, settlements: &[Settlement]) -> Outcome {
        for settlement in settlements {
            self.settle_one(settlement);
        }
        Outcome::Done
    }

    fn settle_one(&mut self, settlement: &Settlement) {
        if self.current(&settlement.key, settlement.epoch).and_then(Session::queue).is_none() {
            return;
        }
        let now = self.kept.now;
        self.change(&settlement.key, |session, ledger, _| {
            let owned = session.owner().is_some();
            let queue = session.queue_mut();
            // By name first: what the floor covers as well has ended as its name says.
            for seq in &settlement.refused {
                queue.settle(*seq, Fate::Dropped(Dropped::Refused), ledger);
            }
            for seq in &settlement.settled {
                queue.settle(*seq, Fate::Delivered, ledger);
            }
            queue.settle_below(settlement.floor, now, ledger);
            for seq in &settlement.received {
                queue.received(*seq);
            }
            if !owned {
                queue.purge(now, ledger, &mut Lost::default());
            }
        });
    }
}
