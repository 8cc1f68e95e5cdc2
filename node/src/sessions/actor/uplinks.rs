//! What ends in the platform: publishes that it reads and answers, and the books of what a client may not do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fulmar_broker::insight::What;
use fulmar_broker::session::{Denial, Input, Token};
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_broker::{Delivery, Now};
use fulmar_mqtt::{QoS, TopicName};
use fulmar_platform::registry::{Change, Kind, Record, Rejection};
use fulmar_platform::{Answers, Asked, Dialect, Downlink, Report, Told, Uplink};

use super::{State, Work};
use crate::cluster::clock::wall_ms;
use crate::dispatch::Passing;
use crate::dispatch::downlink::delivery;

/// Denials of one connection that are logged at info; more of them are logged at debug.
const DENIALS_SHOWN_MAX: u32 = 32;

/// What a client asks for that is on its way to the log at one time; nothing else bounds what comes with QoS 0.
const CHANGING_MAX: usize = 32;

/// Answers to the uplinks of one read, and their bytes, that are gathered before they go into the way out.
const GATHERED_MAX: usize = 64;
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// What an actor keeps about uplinks.
#[derive(Debug, Default)]
pub(super) struct Books {
    denials: u32,
    changing: Option<Arc<AtomicUsize>>,
    /// Devices that the client itself adds or deletes, until it is answered: it is not told of them as news.
    pub(super) asking: Vec<Box<str>>,
    pub(super) wishes: super::news::Wishes,
}

impl State {
    pub(super) fn dialect(&self) -> Dialect {
        Dialect::parse(self.receiver.key().dialect()).unwrap_or(Dialect::Generic)
    }

    /// Has the platform read a publish, and sends what it answers. That follows the acknowledgement, which waits for
    /// nothing but durable rules: a client may wait for the one before it looks for the other. But while a client does not take what it is
    /// sent, the acknowledgement waits until it does, and so does the client.
    pub(super) fn uplink(&mut self, token: Option<Token>, topic: &TopicName, payload: &Bytes, work: &mut Work) {
        let registry = self.dispatch.replica().read().registry().clone();
        let now_ms = wall_ms();
        let uplink = Uplink { topic, payload, registry: &registry, now_ms, entropy: rand::random() };
        let Answers { downlinks, reports, changes, asked, shadowed, problem } = self.session.voice().uplink(&uplink);
        let insight = self.dispatch.insight();
        insight.used(topic, 1, || payload.len() as u64, work.now.mono_ms);
        let trace = match insight.armed() {
            true => {
                let qos = if token.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                let passing = Passing { topic, payload, qos, packet_id: 0 };
                self.dispatch.begin_trace(&self.receiver, passing, None, true)
            }
            false => 0,
        };
        let (metrics, dialect) = (self.dispatch.metrics(), self.dialect());
        if let Some(problem) = problem {
            metrics.uplink_unread(dialect);
            tracing::debug!(client = %self.receiver.key(), topic = topic.as_str(), problem, "uplink not read");
        }
        for report in &reports {
            let kind = kind(report);
            metrics.reported(dialect, kind);
            self.dispatch.upgrade_told(report);
            tracing::debug!(client = %self.receiver.key(), device = &*report.device, kind, "reported");
            if let Told::Response(answer) = &report.what {
                self.dispatch.answered(self.receiver.key(), &report.request_id, answer);
            }
        }
        if !shadowed {
            self.note_reports(&reports, uplink.now_ms);
        }
        self.change(changes, &registry);
        let commands = self.offer_reports(&reports, (topic, trace), &registry, now_ms);
        let committing = self.append(commands, token);
        asked.into_iter().for_each(|asked| self.ask(asked));
        let deliveries = self.addressed(downlinks, work.now);
        let gathered: usize = work.downlinks.iter().map(|delivery| delivery.publication.bytes()).sum();
        if work.downlinks.len() >= GATHERED_MAX || gathered > GATHERED_BYTES_MAX {
            // Only what is in the way out is bounded.
            self.write_control(work);
            self.send_downlinks(work);
        }
        let taken = if deliveries.is_empty() || !self.dispatch.crowded(&self.receiver) {
            work.downlinks.extend(deliveries);
            true
        } else if token.is_none() {
            // Nobody waits for an acknowledgement, so nothing else would bound them.
            deliveries.iter().for_each(|_| self.dispatch.metrics().downlink_dropped("queue_full"));
            true
        } else {
            self.send_downlinks(work);
            let taken = self.dispatch.downlink(&self.receiver, deliveries, token);
            if let (Some(token), false, true) = (token, taken, committing) {
                self.waits_twice(token);
            }
            taken
        };
        if let (Some(token), true, false) = (token, taken, committing) {
            self.input(Input::Accepted { token, reason: fulmar_mqtt::ReasonCode::Success }, work);
        }
    }

    /// Sends what was answered in this handling, behind the acknowledgements of it.
    pub(super) fn send_downlinks(&self, work: &mut Work) {
        if !work.downlinks.is_empty() {
            self.dispatch.downlink(&self.receiver, std::mem::take(&mut work.downlinks), None);
        }
    }

    /// With which QoS at most the client gets what the platform says on a topic; `None`: it does not.
    pub(super) fn hears(&self, topic: &TopicName) -> Option<QoS> {
        self.session.granted(topic).or_else(|| self.session.voice().implicit(topic))
    }

    /// Each downlink once, with the QoS of the client's own subscription or that of the dialect.
    fn addressed(&self, downlinks: Vec<Downlink>, now: Now) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(downlinks.len());
        for downlink in downlinks {
            match self.hears(&downlink.topic) {
                Some(granted) => {
                    let qos = downlink.qos.min(granted);
                    deliveries.push(delivery(downlink, qos, now.log, None));
                }
                None => {
                    self.dispatch.metrics().downlink_dropped("not_subscribed");
                    let topic = downlink.topic.as_str();
                    tracing::debug!(client = %self.receiver.key(), topic, "downlink dropped: not subscribed");
                }
            }
        }
        deliveries
    }

    /// Books one more proposal of changes; `None`: there are too many under way, and this one is dropped.
    fn may_change(&mut self) -> Option<Arc<AtomicUsize>> {
        let changing = self.uplinks.changing.get_or_insert_default().clone();
        if changing.fetch_add(1, Ordering::AcqRel) >= CHANGING_MAX {
            changing.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(client = %self.receiver.key(), "too many changes at once: dropped");
            return None;
        }
        Some(changing)
    }

    /// Has what an uplink asks for committed, and the client answered by what it came to. If it is not committed there is
    /// no answer.
    fn ask(&mut self, mut asked: Asked) {
        let Some(changing) = self.may_change() else { return };
        let about: Vec<Box<str>> = asked.changes.iter().filter_map(added_or_deleted).collect();
        self.uplinks.asking.extend(about.iter().cloned());
        let changes = std::mem::take(&mut asked.changes);
        let commands = changes.into_iter().map(|change| Command::Registry(Box::new(change))).collect();
        let (receiver, dispatch) = (self.receiver.clone(), self.dispatch.clone());
        self.dispatch.replica().propose(
            commands,
            Box::new(move |committed| {
                changing.fetch_sub(1, Ordering::AcqRel);
                let downlinks = match committed {
                    Ok(outcomes) => asked.reply(&outcomes.into_iter().filter_map(came_to).collect::<Vec<_>>()),
                    Err(error) => {
                        tracing::error!(client = %receiver.key(), %error, "what a device has asked for is not committed");
                        Vec::new()
                    }
                };
                // Who is told that a device is there may ask any node for it.
                let index = dispatch.replica().applied();
                let tell = move || receiver.tell(|port| port.replies(downlinks, about));
                dispatch.replica().when_stable(index, Box::new(tell));
            }),
        );
    }

    /// What the client has asked for has come to something.
    pub(super) fn replies(&mut self, downlinks: Vec<Downlink>, about: &[Box<str>], work: &mut Work) {
        for device in about {
            if let Some(at) = self.uplinks.asking.iter().position(|asking| asking == device) {
                self.uplinks.asking.swap_remove(at);
            }
        }
        self.tell(downlinks, work);
    }

    /// Sends what nobody waits for, unless the client does not take what it is sent.
    pub(super) fn tell(&mut self, downlinks: Vec<Downlink>, work: &mut Work) {
        if self.session.ended() {
            return;
        }
        let deliveries = self.addressed(downlinks, work.now);
        if self.dispatch.crowded(&self.receiver) {
            deliveries.iter().for_each(|_| self.dispatch.metrics().downlink_dropped("queue_full"));
        } else {
            work.downlinks.extend(deliveries);
        }
    }

    /// Logs and counts what the client may not do.
    pub(super) fn denied(&mut self, denial: &Denial) {
        let (metrics, dialect) = (self.dispatch.metrics(), self.dialect());
        let (insight, epoch) = (self.dispatch.insight(), self.receiver.epoch().0);
        let (action, topic) = match denial {
            Denial::Lowered { filter, asked, granted } => {
                let reason = format!("QoS {} was asked for, QoS {} granted", *asked as u8, *granted as u8);
                insight.note(self.receiver.key().identity(), What::QosLowered, &reason, filter.as_str(), epoch);
                return;
            }
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
        let what = if action == "publish" { What::PublishDenied } else { What::SubscribeDenied };
        insight.note(key.identity(), what, "no permission", topic, epoch);
        if insight.armed()
            && let Denial::Publish(topic) = denial
        {
            // What it carried is not looked at any more.
            let passing = Passing { topic, payload: &Bytes::new(), qos: QoS::AtMostOnce, packet_id: 0 };
            let _ = self.dispatch.begin_trace(&self.receiver, passing, None, false);
        }
        if self.uplinks.denials < DENIALS_SHOWN_MAX {
            self.uplinks.denials += 1;
            tracing::info!(client = %key, action, topic, "no authorization");
        } else {
            tracing::debug!(client = %key, action, topic, "no authorization");
        }
    }
}

/// The device that a change adds or deletes.
fn added_or_deleted(change: &Change) -> Option<Box<str>> {
    match change {
        Change::Put { record: Record::Device(device), .. } => Some(device.id.clone()),
        Change::Delete { kind: Kind::Device, id, .. } => Some(id.clone()),
        _ => None,
    }
}

fn came_to(outcome: Outcome) -> Option<Result<(), Rejection>> {
    match outcome {
        Outcome::Registry(changed) => Some(changed.map(|_| ())),
        _ => None,
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
