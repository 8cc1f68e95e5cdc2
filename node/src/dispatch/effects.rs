//! Proposing commands, and carrying out what applying them asks of this node.

use bytes::BytesMut;
use fulmar_broker::state::command::{Command, Effect, Outcome, Owner, Settlement};
use fulmar_broker::{Epoch, SessionKey};

use super::Dispatch;
use super::publish::Nobody;
use super::receiver::Receiver;
use crate::cluster::replica;

/// Timer commands that one tick proposes at most.
const DUE_MAX: usize = 256;

impl Dispatch {
    /// Proposes commands, waits for their commit, and carries out the effects.
    ///
    /// # Errors
    /// If they were refused as a whole: nothing that depends on them may be acknowledged.
    pub fn propose(&self, commands: Vec<Command>) -> Result<Vec<Outcome>, replica::Error> {
        let (outcomes, effects) = self.replica.propose(commands)?;
        for effect in effects {
            self.carry_out(effect);
        }
        Ok(outcomes)
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Wake { key, owner } => {
                if let Some(receiver) = self.owned(&key, owner) {
                    receiver.outbound().wake();
                    receiver.signal();
                }
            }
            Effect::TakenOver { key, owner } => {
                if let Some(receiver) = self.owned(&key, owner) {
                    self.take_over(&receiver);
                }
            }
            Effect::Publish(publication) => self.publish_live(&publication),
            Effect::Deliver { key, owner, delivery } => {
                if let Some(receiver) = self.owned(&key, owner) {
                    let now_ms = self.now().mono_ms;
                    let pushed = receiver.outbound().push(delivery, None, now_ms, || Box::new(Nobody));
                    self.note_pushed(&receiver, &pushed);
                }
            }
            // The routes of a session leave with its connection.
            Effect::Ended { .. } => {}
        }
    }

    fn owned(&self, key: &SessionKey, owner: Owner) -> Option<std::sync::Arc<Receiver>> {
        let here = owner.node == self.replica.node() && owner.generation == self.replica.generation();
        self.receiver(key).filter(|receiver| here && receiver.epoch() == owner.epoch)
    }

    /// Proposes what a client has acknowledged of its durable queue; the PUBRELs that this allows go to `out`.
    pub fn settle(&self, receiver: &Receiver, out: &mut BytesMut) {
        let mut outbound = receiver.outbound();
        let settled = outbound.take_settled();
        let floor = outbound.settled_floor();
        drop(outbound);
        if settled.is_empty() {
            return;
        }
        let received = settled.received.clone();
        let settlement = Settlement {
            key: receiver.key().clone(),
            epoch: receiver.epoch(),
            floor,
            settled: settled.settled,
            received: settled.received,
            refused: settled.refused,
        };
        match self.propose(vec![Command::Settle(vec![settlement])]) {
            // A newer owner sends its own PUBRELs.
            Ok(_) if self.owner_epoch(receiver.key()) == Some(receiver.epoch()) => {
                receiver.outbound().release(&received, out);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, key = %receiver.key(), "acknowledgements not committed"),
        }
    }

    /// Wills, expiries and whatever else is due by log time. Called a few times a second.
    pub fn run_timers(&self) {
        loop {
            let due = {
                let state = self.replica.read();
                state.due(self.now().log, DUE_MAX)
            };
            if due.is_empty() {
                return;
            }
            let paced = due.len() >= DUE_MAX;
            if let Err(error) = self.propose(due) {
                tracing::error!(%error, "timers not committed");
                return;
            }
            if !paced {
                return;
            }
        }
    }

    /// The epoch that owns a session now, if any does.
    #[must_use]
    pub fn owner_epoch(&self, key: &SessionKey) -> Option<Epoch> {
        self.replica.read().session(key).and_then(|view| view.owner).map(|owner| owner.epoch)
    }
}
