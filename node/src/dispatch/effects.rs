//! What applying commands asks of this node, and what this node proposes of its own accord.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fulmar_broker::insight::Stage;
use fulmar_broker::plane;
use fulmar_broker::state::command::{Command, Effect, Owner, Settlement};
use fulmar_broker::{Epoch, Generation, NodeId, SessionKey, steer};
use fulmar_platform::registry::{Event, Status};

use super::Dispatch;
use super::journal::Fact;
use super::publish::Nobody;
use super::receiver::Receiver;
use crate::cluster::links::Run;
use crate::cluster::{Listener, Seat, Taken};

impl Listener for Dispatch {
    fn carry_out(&self, effect: Effect) {
        self.journal.note(self.replica.applied(), &effect);
        self.tell_rules(&effect);
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
            Effect::Publish(publication) => self.publish_applied(&publication),
            Effect::Deliver { key, owner, delivery } => {
                if let Some(receiver) = self.owned(&key, owner) {
                    let now_ms = self.now().mono_ms;
                    let pushed = receiver.outbound().push(delivery, None, now_ms, || Box::new(Nobody));
                    self.note_pushed(&receiver, &pushed);
                }
            }
            Effect::Lost { key, owner, epoch, publication, expired } => {
                let owned = owner.map(|owner| (owner.node, owner.generation) == self.replica.run());
                self.queue_lost(key.identity(), owned, epoch.0, &publication, expired);
            }
            Effect::Queued { key, owner, epoch, publication, depth } => {
                let owned = owner.map(|owner| (owner.node, owner.generation) == self.replica.run());
                if owned.unwrap_or_else(|| self.chosen(key.identity())) {
                    let details = || vec![("queue", "durable".to_owned()), ("depth", depth.to_string())];
                    self.insight.hop(publication.trace, Stage::Queue, (key.identity(), epoch.0), details);
                }
            }
            Effect::Disconnect { key, owner, reason } => {
                if let Some(receiver) = self.owned(&key, owner) {
                    receiver.tell(|port| port.close(reason));
                }
            }
            Effect::News { key, owner, news } => {
                if let Some(receiver) = self.owned(&key, owner) {
                    receiver.tell(|port| port.news(news));
                }
            }
            Effect::Registry(Event::Status(status)) => {
                let Status { device, dialect, online, epoch, .. } = &status;
                tracing::debug!(%dialect, device = &*device.id, online, epoch, "status of a device");
            }
            // The rules have heard of it.
            Effect::Registry(_) => {}
            Effect::Plane(event) => match event {
                plane::Event::Mail(event) => self.mail_changed(&event),
                plane::Event::Task(event) => self.task_happened(&event),
                plane::Event::Backlog(_) => {}
            },
            Effect::Emptied(discarded) => {
                self.installed();
                let freed = std::thread::Builder::new().name("discarded".into()).spawn(move || discarded.let_go());
                if let Err(error) = freed {
                    tracing::debug!(%error, "what was replaced was freed by whoever applies");
                }
            }
            Effect::Restored => {
                tracing::info!("a backup was put back");
                self.installed();
            }
            Effect::Steer(steer::Event::Traces) => self.renew_traces(),
            Effect::Steer(event) => self.steering.happened(&event),
            // The routes of a session leave with its connection.
            Effect::Ended { .. } | Effect::Session(_) => {}
            // Also that of this node's own run: the older one's links are gone.
            Effect::NodeUp { .. } => {
                self.link_up();
                self.look_at_tasks();
            }
            Effect::NodeDown { node, generation } => {
                self.links().down(node, generation);
                self.calls.lose(|on| on == Some((node, generation)));
                self.forget_arrivals((node, generation));
                self.look_at_tasks();
            }
        }
    }

    fn lease_changed(&self) {
        self.tell_of_lease();
        self.look_at_tasks();
    }

    fn fenced(&self) {
        let receivers = self.receivers();
        tracing::warn!(connections = receivers.len(), "this run of the node was declared dead: its connections end");
        receivers.iter().for_each(|receiver| self.cut(receiver));
        self.forget_routes();
        self.links().fenced();
        self.calls.lose(|_| true);
    }

    fn members_changed(&self, index: u64, members: Vec<Seat>) {
        self.journal.note_fact(index, Fact::Members(members.into()));
    }

    fn installed(&self) {
        self.journal.installed(self.replica.applied());
        for receiver in self.receivers() {
            if self.catch_up(&receiver) {
                receiver.outbound().wake();
                receiver.signal();
                self.look_for_mail(&receiver);
            }
        }
        self.routes_changed();
        self.link_up();
        self.look_at_tasks();
        self.tell_rules_of_all();
        self.renew_traces();
        self.steering.all_changed();
        let state = self.replica.read();
        let alive: Vec<Run> = state.runs().filter(|run| run.alive).map(|run| (run.node, run.generation)).collect();
        drop(state);
        self.calls.lose(|on| on.is_some_and(|run| !alive.contains(&run)));
    }

    fn delivered(&self, from: (NodeId, Generation), frame: Bytes, taken: Taken) {
        self.deliver_frame(from, frame, taken);
    }
}

impl Dispatch {
    pub(super) fn owned(&self, key: &SessionKey, owner: Owner) -> Option<Arc<Receiver>> {
        let here = (owner.node, owner.generation) == self.replica.run();
        self.receiver(key).filter(|receiver| here && receiver.epoch() == owner.epoch)
    }

    /// Proposes what a client has acknowledged of its durable queue. PUBRELs leave once the PUBRECs before them are
    /// committed; everything else nobody waits for.
    pub fn settle(&self, receiver: &Arc<Receiver>) {
        let mut outbound = receiver.outbound();
        if !outbound.has_settled() {
            return;
        }
        let settled = outbound.take_settled();
        let floor = outbound.settled_floor();
        drop(outbound);
        let received = settled.received.clone();
        let settlement = Settlement {
            key: receiver.key().clone(),
            epoch: receiver.epoch(),
            floor,
            settled: settled.settled,
            received: settled.received,
            refused: settled.refused,
        };
        if received.is_empty() {
            self.replica.settle(settlement);
            return;
        }
        let receiver = receiver.clone();
        self.replica.propose(
            vec![Command::Settle(vec![settlement])],
            Box::new(move |committed| match committed {
                // One that was taken over meanwhile is closed, and takes nothing more: the newer owner sends its own.
                Ok(_) => {
                    let mut released = BytesMut::new();
                    let mut outbound = receiver.outbound();
                    outbound.release(&received, &mut released);
                    outbound.control(&released);
                    drop(outbound);
                    receiver.signal();
                }
                Err(error) => tracing::error!(%error, client = %receiver.key(), "acknowledgements not committed"),
            }),
        );
    }

    /// Ends a receiver as was decided while it could not be told: a newer claim has its session, or it is to be cut.
    /// Returns whether the session is still its own.
    pub fn catch_up(&self, receiver: &Arc<Receiver>) -> bool {
        let view = self.replica.read().session(receiver.key());
        let own = view.filter(|view| view.owner.is_some_and(|owner| owner.epoch == receiver.epoch()));
        match own {
            Some(view) => {
                if let Some(reason) = view.cut {
                    receiver.tell(|port| port.close(reason));
                }
                true
            }
            None => {
                self.take_over(receiver);
                false
            }
        }
    }

    /// The epoch that owns a session now, if any does.
    #[must_use]
    pub fn owner_epoch(&self, key: &SessionKey) -> Option<Epoch> {
        self.replica.read().session(key).and_then(|view| view.owner).map(|owner| owner.epoch)
    }
}
