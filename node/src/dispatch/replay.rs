//! Retained messages for new subscriptions: a walk over the map as it was at the subscribe, a page at a time, as fast
//! as the receiver takes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::outbound::REPLAY_QUEUED_MAX;
use fulmar_broker::retained::{Cursor, Retained};
use fulmar_broker::session::is_durable;
use fulmar_broker::state::command::{Command, Outcome, Replay as ReplayCommand, Subscription};
use fulmar_broker::{Delivery, Publication};
use fulmar_mqtt::{QoS, TopicName};

use super::Dispatch;
use super::receiver::Receiver;
use crate::cluster::PROPOSAL_BYTES_MAX;

/// Entries of the map that one step may visit.
const STEPS_MAX: usize = 4_096;

/// Milliseconds that a walk keeps its copy of the map; then it goes on in the current one.
const COPY_MS_MAX: u64 = 30_000;

/// Between two tries to queue a page for a session whose queue is full.
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(100);

/// What one receiver is still to be sent.
pub(super) struct Replay {
    copy: Retained,
    taken_at_ms: u64,
    walks: VecDeque<Walk>,
}

struct Walk {
    subscription: Subscription,
    after: Option<Cursor>,
}

impl Dispatch {
    /// Begins to send the retained messages that match a new subscription. `as_of`: those of its commit, for what goes
    /// through the durable queue.
    pub fn replay(self: &Arc<Self>, receiver: &Arc<Receiver>, subscription: Subscription, as_of: Option<&Retained>) {
        self.replay_sys(receiver, &subscription);
        if let Some(as_of) = as_of.filter(|as_of| !as_of.is_empty())
            && receiver.persistent()
            && subscription.options.qos != QoS::AtMostOnce
        {
            self.queue_later(receiver, subscription.clone(), as_of.clone());
        }
        // For live messages the route stands by now: what was set since the commit must be in the copy.
        let copy = self.replica.read().retained().clone();
        if copy.is_empty() {
            return;
        }
        let mut replays = receiver.replays();
        let taken_at_ms = self.now().mono_ms;
        let replay = replays
            .get_or_insert_with(|| Box::new(Replay { copy: Retained::default(), taken_at_ms, walks: VecDeque::new() }));
        // As of this subscribe; walks that are under way go on in it, a cursor being good in any copy.
        replay.copy = copy;
        replay.taken_at_ms = taken_at_ms;
        replay.walks.push_back(Walk { subscription, after: None });
        receiver.outbound().set_replaying(true);
        drop(replays);
        receiver.signal();
    }

    /// Live messages wait until the subscribe that has begun is answered, also those that it brings.
    pub fn hold(&self, receiver: &Receiver) {
        // Locked, so that a replay which ends at this moment sees it.
        let _replays = receiver.replays();
        receiver.hold(true);
        receiver.outbound().set_replaying(true);
    }

    /// Lets live messages flow again after a subscribe, unless a replay is under way.
    pub fn release_hold(&self, receiver: &Receiver) {
        let replays = receiver.replays();
        receiver.hold(false);
        if replays.is_none() {
            receiver.outbound().set_replaying(false);
            drop(replays);
            receiver.signal();
        }
    }

    /// Walks on, if a replay is under way and there is room. `true` if it can go on at once.
    pub(super) fn step_replay(&self, receiver: &Receiver) -> bool {
        let mut replays = receiver.replays();
        let Some(replay) = replays.as_mut() else { return false };
        let mut room = receiver.outbound().replay_room();
        if room < REPLAY_QUEUED_MAX / 2 {
            return false;
        }
        let now = self.now();
        if now.mono_ms.saturating_sub(replay.taken_at_ms) > COPY_MS_MAX {
            replay.copy = self.replica.read().retained().clone();
            replay.taken_at_ms = now.mono_ms;
        }
        while let Some(walk) = replay.walks.front_mut() {
            let page = replay.copy.walk(&walk.subscription.filter, walk.after.as_ref(), STEPS_MAX.min(room));
            let found = page.found.into_iter().filter(|publication| !publication.expired(now.log)).collect::<Vec<_>>();
            room = room.saturating_sub(found.len());
            self.send_page(receiver, &walk.subscription, found);
            walk.after = page.next;
            if walk.after.is_none() {
                replay.walks.pop_front();
            } else {
                return true;
            }
            if room == 0 {
                break;
            }
        }
        if replay.walks.is_empty() {
            *replays = None;
            receiver.outbound().set_replaying(receiver.held());
        }
        true
    }

    /// Adds to what is queued for a persistent session, one subscription after the other.
    fn queue_later(self: &Arc<Self>, receiver: &Arc<Receiver>, subscription: Subscription, copy: Retained) {
        let mut queueing = receiver.queueing();
        let begin = queueing.is_none();
        let waiting = queueing.get_or_insert_default();
        // Subscribed to again, it begins anew.
        waiting.retain(|(earlier, _)| earlier.filter != subscription.filter);
        waiting.push_back((subscription, copy));
        drop(queueing);
        if begin {
            tokio::spawn(self.clone().queue_all(receiver.clone()));
        }
    }

    async fn queue_all(self: Arc<Self>, receiver: Arc<Receiver>) {
        loop {
            let next = {
                let mut queueing = receiver.queueing();
                let next = queueing.as_mut().and_then(|waiting| waiting.pop_front());
                if next.is_none() {
                    *queueing = None;
                }
                next
            };
            let Some((subscription, copy)) = next else { return };
            self.queue_retained(&receiver, &subscription, &copy).await;
        }
    }

    /// Whether the session's queue is so full that a page need not be tried.
    fn queue_full(&self, receiver: &Receiver) -> bool {
        let state = self.replica.read();
        let entries = state.session(receiver.key()).map_or(0, |session| session.queue_entries);
        entries >= state.limits().queue_entries_max as usize / 2 && entries > 0
    }

    /// Queues the retained messages of QoS > 0 for a persistent session, page by page, so that they survive its
    /// connection. A page that its queue cannot hold yet waits until the client has taken some. With the connection
    /// ends the replay; what is left is not queued, and that is said.
    async fn queue_retained(&self, receiver: &Receiver, subscription: &Subscription, copy: &Retained) {
        let mut after = None;
        loop {
            let page = copy.walk(&subscription.filter, after.as_ref(), STEPS_MAX);
            let durable = page.found.iter().filter(|message| is_durable(message.qos, subscription.options.qos));
            let topics: Vec<TopicName> = durable.map(|message| message.topic.clone()).collect();
            for topics in pages(&topics) {
                let replay = ReplayCommand {
                    key: receiver.key().clone(),
                    epoch: receiver.epoch(),
                    filter: subscription.filter.clone(),
                    granted: subscription.options.qos,
                    subscription_ids: subscription.id.into_iter().collect(),
                    topics: topics.to_vec(),
                };
                loop {
                    while self.queue_full(receiver) && !receiver.outbound().closed() {
                        tokio::time::sleep(QUEUE_FULL_RETRY).await;
                    }
                    let queued = self.replica.commit(vec![Command::ReplayRetained(Box::new(replay.clone()))]).await;
                    match queued.as_deref() {
                        Ok([Outcome::Published { .. }]) => break,
                        Ok([Outcome::Refused(_)]) if !receiver.outbound().closed() => {
                            tokio::time::sleep(QUEUE_FULL_RETRY).await;
                        }
                        _ => {
                            let filter = &subscription.filter;
                            tracing::warn!(client = %receiver.key(), %filter, ?queued, "not all retained messages were queued");
                            return;
                        }
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return;
            }
        }
    }

    fn send_page(&self, receiver: &Receiver, subscription: &Subscription, found: Vec<Arc<Publication>>) {
        let own = |message: &Publication| message.origin.as_ref().is_some_and(|origin| origin.same(receiver.key()));
        let mut outbound = receiver.outbound();
        for message in found {
            let durable = receiver.persistent() && is_durable(message.qos, subscription.options.qos);
            let echo = subscription.options.no_local && own(&message);
            if !durable && !echo {
                outbound.push_replay(retained_delivery(message, subscription));
            }
        }
    }

    /// The node's own messages under `$SYS`; few, so sent at once.
    fn replay_sys(&self, receiver: &Receiver, subscription: &Subscription) {
        if !subscription.filter.as_str().starts_with("$SYS") {
            return;
        }
        let page = self.sys.lock().walk(&subscription.filter, None, STEPS_MAX);
        let mut outbound = receiver.outbound();
        for publication in page.found {
            outbound.push_replay(retained_delivery(publication, subscription));
        }
        drop(outbound);
        receiver.signal();
    }

    /// Publishes one of the node's own messages and keeps it for later subscribers.
    pub fn publish_sys(&self, publication: Publication) {
        let publication = Arc::new(publication);
        self.sys.lock().set(publication.clone());
        self.publish_live(&publication);
    }
}

/// Topics by what one command may carry of them.
fn pages(topics: &[TopicName]) -> impl Iterator<Item = &[TopicName]> {
    let mut bytes = 0;
    let mut count = 0;
    topics.chunk_by(move |one, _| {
        bytes += one.as_str().len();
        count += 1;
        let more = bytes < PROPOSAL_BYTES_MAX && count < REPLAY_QUEUED_MAX;
        if !more {
            (bytes, count) = (0, 0);
        }
        more
    })
}

/// [v5 MQTT-3.3.1-8] a message that is sent because of a subscribe has its retain flag set.
fn retained_delivery(publication: Arc<Publication>, subscription: &Subscription) -> Delivery {
    Delivery {
        qos: publication.qos.min(subscription.options.qos),
        retain: true,
        subscription_ids: subscription.id.into_iter().collect(),
        publication,
    }
}
