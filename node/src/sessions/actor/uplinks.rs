//! What ends in the platform: publishes that it reads and answers, and the books of what a client may not do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fulmar_broker::session::{Denial, Input, Token};
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_broker::{Delivery, Now};
use fulmar_mqtt::TopicName;
use fulmar_platform::registry::Change;
use fulmar_platform::{Answers, Dialect, Downlink, Report, Told, Uplink};

use super::{State, Work};
use crate::cluster::clock::wall_ms;
use crate::dispatch::downlink::delivery;

/// Denials of one connection that are logged at info; more of them are logged at debug.
const DENIALS_SHOWN_MAX: u32 = 32;

/// Uplinks whose changes of the registry are on their way to the log; nothing else bounds those of QoS 0.
const CHANGING_MAX: usize = 32;

/// What an actor keeps about uplinks.
#[derive(Debug, Default)]
pub(super) struct Books {
    denials: u32,
    changing: Option<Arc<AtomicUsize>>,
}

impl State {
    fn dialect(&self) -> Dialect {
        Dialect::parse(self.receiver.key().dialect()).unwrap_or(Dialect::Generic)
    }

    /// Has the platform read a publish, and sends what it answers. That follows the acknowledgement, which waits for
    /// nothing: a client may wait for the one before it looks for the other. But while a client does not take what it is
    /// sent, the acknowledgement waits until it does, and so does the client.
    pub(super) fn uplink(&mut self, token: Option<Token>, topic: &TopicName, payload: &Bytes, work: &mut Work) {
        let registry = self.dispatch.replica().read().registry().clone();
        let uplink = Uplink { topic, payload, registry: &registry, now_ms: wall_ms(), entropy: rand::random() };
        let Answers { downlinks, reports, changes, problem } = self.session.voice().uplink(&uplink);
        let (metrics, dialect) = (self.dispatch.metrics(), self.dialect());
        if let Some(problem) = problem {
            metrics.uplink_unread(dialect);
            tracing::debug!(key = %self.receiver.key(), topic = topic.as_str(), problem, "uplink not read");
        }
        for report in &reports {
            let kind = kind(report);
            metrics.reported(dialect, kind);
            tracing::debug!(key = %self.receiver.key(), device = &*report.device, kind, "reported");
        }
        self.change(changes);
        let deliveries = self.addressed(downlinks, work.now);
        let taken = if deliveries.is_empty() || !self.dispatch.crowded(&self.receiver) {
            work.downlinks.extend(deliveries);
            true
        } else if token.is_none() {
            // Nobody waits for an acknowledgement, so nothing else would bound them.
            deliveries.iter().for_each(|_| self.dispatch.metrics().downlink_dropped("queue_full"));
            true
        } else {
            self.send_downlinks(work);
            self.dispatch.downlink(&self.receiver, deliveries, token)
        };
        if let (Some(token), true) = (token, taken) {
            self.input(Input::Accepted { token, reason: fulmar_mqtt::ReasonCode::Success }, work);
        }
    }

    /// Sends what was answered in this handling, behind the acknowledgements of it.
    pub(super) fn send_downlinks(&self, work: &mut Work) {
        if !work.downlinks.is_empty() {
            self.dispatch.downlink(&self.receiver, std::mem::take(&mut work.downlinks), None);
        }
    }

    /// Each downlink once, with the QoS of the client's own subscription or that of the dialect.
    fn addressed(&self, downlinks: Vec<Downlink>, now: Now) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(downlinks.len());
        for downlink in downlinks {
            let granted = self.session.granted(&downlink.topic);
            match granted.or_else(|| self.session.voice().implicit(&downlink.topic)) {
                Some(granted) => {
                    let qos = downlink.qos.min(granted);
                    deliveries.push(delivery(downlink, qos, now.log));
                }
                None => {
                    self.dispatch.metrics().downlink_dropped("not_subscribed");
                    let topic = downlink.topic.as_str();
                    tracing::debug!(key = %self.receiver.key(), topic, "downlink dropped: not subscribed");
                }
            }
        }
        deliveries
    }

    /// Proposes what an uplink changes in the registry.
    fn change(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let changing = self.uplinks.changing.get_or_insert_default().clone();
        if changing.fetch_add(1, Ordering::AcqRel) >= CHANGING_MAX {
            changing.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(key = %self.receiver.key(), "too many changes at once: dropped");
            return;
        }
        let key = self.receiver.key().clone();
        let commands = changes.into_iter().map(|change| Command::Registry(Box::new(change))).collect();
        self.dispatch.replica().propose(
            commands,
            Box::new(move |committed| {
                changing.fetch_sub(1, Ordering::AcqRel);
                match committed {
                    Ok(outcomes) => outcomes.iter().for_each(|outcome| {
                        if let Outcome::Registry(Err(rejection)) = outcome {
                            tracing::info!(%key, %rejection, "change of a device rejected");
                        }
                    }),
                    Err(error) => tracing::error!(%key, %error, "change of a device not committed"),
                }
            }),
        );
    }

    /// Logs and counts what the client may not do.
    pub(super) fn denied(&mut self, denial: &Denial) {
        let (metrics, dialect) = (self.dispatch.metrics(), self.dialect());
        let (action, topic) = match denial {
            Denial::Publish(topic) => {
                metrics.publish_denied(dialect);
                ("publish", topic.as_str())
            }
            Denial::Subscribe(filter) => {
                metrics.subscribe_denied(dialect);
                ("subscribe", filter.as_str())
            }
        };
        let key = self.receiver.key();
        if self.uplinks.denials < DENIALS_SHOWN_MAX {
            self.uplinks.denials += 1;
            tracing::info!(%key, action, topic, "no authorization");
        } else {
            tracing::debug!(%key, action, topic, "no authorization");
        }
    }
}

fn kind(report: &Report) -> &'static str {
    match &report.what {
        Told::Properties(_) => "properties",
        Told::Event(_) => "event",
        Told::Message { .. } => "message",
        Told::Response(_) => "response",
        Told::Version { .. } => "version",
        Told::Upgrade(_) => "upgrade",
    }
}
