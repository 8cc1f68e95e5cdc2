//! Messages for the device of the session, and for those that are reached through it.
//!
//! What becomes of a message is committed before it is written, under the session's epoch: so of two owners only one sends it,
//! and a copy of QoS 0 is never sent twice. Copies of QoS 1 are sent until they are acknowledged: on a connection of MQTT 3.x
//! again with their packet id and DUP, as the vendor has it, which 3.1.1 leaves open [v3.1.1 4.4]; on one of MQTT 5, which
//! forbids that [v5 MQTT-4.4.0-1], only on the next connection. What is sent again on another connection is a publish of its
//! own there, without DUP: these sessions end with their connections, so the client knows no packet id any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fulmar_broker::plane::mail::{Answer, Became, Cached, Change, Note, Phase, ROUNDS_MAX};
use fulmar_broker::plane::{self, Change as PlaneChange};
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_broker::{Delivery, Now, Publication};
use fulmar_mqtt::packet::SubscriptionIds;
use fulmar_mqtt::{QoS, Version};
use fulmar_platform::Downlink;
use fulmar_platform::message::{Message, needs_subscription};

use super::State;
use crate::cluster::Committed;
use crate::dispatch::downlink::publication;

/// Sends of one burst, and milliseconds between them.
const SENDS: u8 = 3;
const SEND_EVERY_MS: u64 = 2_000;

/// Milliseconds between the beginnings of two rounds.
const ROUND_EVERY_MS: u64 = 10_000;

/// Milliseconds between two looks for room.
const ROOM_EVERY_MS: u64 = 100;

/// Messages, and about how many bytes of them, whose notes are on their way to the log.
const NOTED_MAX: usize = 64;
const NOTED_BYTES_MAX: usize = 1 << 20;

/// Messages that one look goes over.
const VISITED_MAX: usize = 256;

/// What an actor keeps about messages: nothing, mostly.
#[derive(Debug, Default)]
pub(super) struct Desk(Option<Box<Open>>);

#[derive(Debug, Default)]
struct Open {
    /// Messages up to this number have been looked at.
    cursor: u64,
    /// What is on its way to the log, in order.
    noted: VecDeque<Vec<Noted>>,
    /// Sent here with QoS 1 and not acknowledged, by their numbers.
    flights: BTreeMap<u64, Flight>,
    /// When to look again, because there was no room or too much to go over.
    look_ms: Option<u64>,
    /// Not after the first flight wants something.
    wake_ms: Option<u64>,
}

/// What is said of a message, and what it is, so that it can be sent whatever becomes of it meanwhile.
#[derive(Debug)]
struct Noted {
    note: Note,
    message: Arc<Message>,
    /// Rounds that it was sent in before.
    rounds: u8,
    /// It is no first send.
    round: bool,
    /// It is not kept: there is no other round.
    fleeting: bool,
    /// The client has acknowledged an earlier send meanwhile: it is not sent once more.
    answered: bool,
}

/// A message that was sent here with QoS 1.
#[derive(Debug)]
struct Flight {
    device: Box<str>,
    message: Arc<Message>,
    /// In this burst, which has begun then.
    sends: u8,
    since_ms: u64,
    /// `None`: it rests until the client subscribes anew.
    next_ms: Option<u64>,
    rounds: u8,
    round: bool,
    fleeting: bool,
}

impl Desk {
    /// When [`State::tend_mail`] next has something to do, in milliseconds of the monotonic clock.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let open = self.0.as_deref()?;
        open.look_ms.into_iter().chain(open.wake_ms).min()
    }
}

impl Open {
    fn is_noted(&self, seq: u64) -> bool {
        self.noted.iter().flatten().any(|noted| noted.note.seq == seq)
    }

    fn wake(&mut self, at_ms: u64) {
        self.wake_ms = Some(self.wake_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }
}

impl State {
    /// Goes over the messages that have come since the last look.
    pub(super) fn look_for_mail(&mut self, now: Now) {
        self.receiver.looks_for_mail();
        self.look(now);
    }

    /// Goes over all messages again: the client has subscribed.
    pub(super) fn look_again_for_mail(&mut self, now: Now) {
        if let Some(open) = &mut self.mail.0 {
            open.cursor = 0;
        }
        self.look(now);
    }

    /// Nothing could be written, nor heard, until now.
    pub(super) fn thaw_mail(&mut self, now: Now) {
        if let Some(open) = &mut self.mail.0 {
            let later_ms = now.mono_ms + SEND_EVERY_MS;
            open.flights.values_mut().filter_map(|flight| flight.next_ms.as_mut()).for_each(|at| *at = later_ms);
            open.wake_ms = Some(later_ms);
        }
        self.look_again_for_mail(now);
    }

    /// Notes what is to become of messages, as far as there is room for them.
    fn look(&mut self, now: Now) {
        if let Some(open) = &mut self.mail.0 {
            open.look_ms = None;
        }
        if self.session.ended() {
            return;
        }
        if !self.dispatch.acts() {
            self.mail.0.get_or_insert_default().look_ms = Some(now.mono_ms + ROOM_EVERY_MS);
            return;
        }
        // Before the state is read: who fills the way out reads the state under its lock.
        let (mut messages, mut bytes) = self.receiver.outbound().room();
        let dispatch = Arc::clone(&self.dispatch);
        let state = dispatch.replica().read();
        let (key, mail, registry) = (self.receiver.key(), &state.plane().mail, state.registry());
        if !mail.awaits(key.identity()) || state.session_of_device(key.identity()).as_ref() != Some(key) {
            return;
        }
        let open = self.mail.0.get_or_insert_default();
        let (mut under_way, mut weight) = (0, 0);
        for noted in open.noted.iter().flatten() {
            under_way += 1;
            weight += noted.message.bytes();
        }
        messages = messages.saturating_sub(under_way);
        bytes = bytes.saturating_sub(weight);
        let mut notes: Vec<Noted> = Vec::new();
        for (visited, (device, cached)) in mail.open(key.identity(), open.cursor).enumerate() {
            if under_way + notes.len() >= NOTED_MAX {
                break; // it goes on once they are committed
            }
            if visited == VISITED_MAX {
                open.look_ms = Some(now.mono_ms);
                break;
            }
            let Some((record, _)) = registry.device(device) else { continue };
            let topic = cached.message.to.topic(registry, &record.record);
            let granted = topic.as_ref().and_then(|topic| self.session.granted(topic));
            let implicit = || {
                let unasked = !needs_subscription(registry, &record.record);
                topic.as_ref().filter(|_| unasked).and_then(|topic| self.session.voice().implicit(topic))
            };
            let heard = granted.or_else(implicit);
            let resting = open.flights.get(&cached.seq).is_none_or(|flight| flight.next_ms.is_none());
            let here = open.flights.contains_key(&cached.seq);
            let again = resting && (!here || self.session.version() != Version::V5);
            let became = became(cached, granted, heard).filter(|_| again && !open.is_noted(cached.seq));
            if let Some(became) = became {
                let size = cached.message.bytes();
                let sends = matches!(became, Became::Handed | Became::Sent);
                if sends && (messages == 0 || size > bytes || (weight > 0 && weight + size > NOTED_BYTES_MAX)) {
                    open.look_ms = Some(now.mono_ms + ROOM_EVERY_MS);
                    break;
                }
                if sends {
                    (messages, bytes, weight) = (messages - 1, bytes - size, weight + size);
                }
                notes.push(Noted::of(device, cached, became));
            }
            open.cursor = cached.seq;
        }
        drop(state);
        self.note(notes);
    }

    fn note(&mut self, noted: Vec<Noted>) {
        if noted.is_empty() {
            return;
        }
        let notes = noted.iter().map(|noted| noted.note.clone()).collect();
        let change = PlaneChange::Mail(Change::Note { epoch: self.receiver.epoch(), notes });
        self.mail.0.get_or_insert_default().noted.push_back(noted);
        let receiver = self.receiver.clone();
        self.dispatch.replica().propose(
            vec![Command::Plane(Box::new(change))],
            Box::new(move |committed| receiver.tell(|port| port.noted(committed))),
        );
    }

    /// What was noted first is committed: what is to be sent is sent.
    pub(super) fn noted(&mut self, committed: Committed, now: Now) {
        let Some(noted) = self.mail.0.as_mut().and_then(|open| open.noted.pop_front()) else { return };
        let holds = match committed.as_deref() {
            Ok([Outcome::Plane(plane::Answer::Mail(Answer::Noted(holds)))]) => holds.as_slice(),
            Ok(_) => &[],
            Err(error) => {
                tracing::error!(client = %self.receiver.key(), %error, "what became of messages is not committed");
                &[]
            }
        };
        for (at, noted) in noted.into_iter().enumerate() {
            let holds = holds.get(at).copied().unwrap_or(false);
            match noted.note.became {
                Became::Handed if holds => {
                    self.forget(noted.note.seq);
                    self.hand(&noted.note.device, &noted.message, QoS::AtMostOnce, 0, now);
                }
                Became::Sent if holds && !noted.answered => self.burst(noted, now),
                // The client may have subscribed since: then the look that followed has passed this one over.
                Became::NotSubscribed if holds => self.look_from(noted.note.seq),
                // It was deleted or replaced, or another connection has it by now.
                _ => self.forget(noted.note.seq),
            }
        }
        self.look(now);
        if self
            .mail
            .0
            .as_ref()
            .is_some_and(|open| open.noted.is_empty() && open.flights.is_empty() && open.look_ms.is_none())
        {
            self.mail.0 = None; // an idle session owns no memory for it
        }
    }

    /// The next look goes over this message again.
    fn look_from(&mut self, seq: u64) {
        if let Some(open) = &mut self.mail.0 {
            open.cursor = open.cursor.min(seq.saturating_sub(1));
        }
    }

    fn forget(&mut self, seq: u64) {
        if let Some(open) = &mut self.mail.0 {
            open.flights.remove(&seq);
        }
    }

    /// Begins to send a message with QoS 1, here for the first time or once more.
    fn burst(&mut self, noted: Noted, now: Now) {
        let Noted { note: Note { device, seq, .. }, message, rounds, round, fleeting, .. } = noted;
        let known = self.mail.0.as_ref().is_some_and(|open| open.flights.contains_key(&seq));
        if !known && !self.hand(&device, &message, QoS::AtLeastOnce, seq, now) {
            return;
        }
        let (sends, next_ms) = if known { (0, now.mono_ms) } else { (1, now.mono_ms + SEND_EVERY_MS) };
        let next_ms = match self.session.version() {
            // It is sent once here, and has as long as the others to be answered.
            Version::V5 => now.mono_ms + SEND_EVERY_MS * u64::from(SENDS),
            _ => next_ms,
        };
        let open = self.mail.0.get_or_insert_default();
        let (since_ms, next) = (now.mono_ms, Some(next_ms));
        let flight = Flight { device, message, sends, since_ms, next_ms: next, rounds, round, fleeting };
        open.flights.insert(seq, flight);
        open.wake(next_ms);
    }

    /// The message as the client gets it; `None` if its device is gone.
    fn delivery(&self, device: &str, message: &Message, qos: QoS, now: Now) -> Option<Delivery> {
        let state = self.dispatch.replica().read();
        let registry = state.registry();
        let downlink = message.downlink(registry, &registry.device(device)?.0.record)?;
        drop(state);
        let publication = publication(Downlink { qos, ..downlink }, now.log);
        let publication = Arc::new(Publication { forward: message.forward(), ..publication });
        Some(Delivery { publication, qos, retain: false, subscription_ids: SubscriptionIds::default() })
    }

    fn hand(&self, device: &str, message: &Message, qos: QoS, tag: u64, now: Now) -> bool {
        let delivery = self.delivery(device, message, qos, now);
        let handed = delivery.is_some_and(|delivery| self.dispatch.hand_mail(&self.receiver, delivery, tag));
        if !handed {
            self.dispatch.metrics().downlink_dropped("session_ended");
        }
        handed
    }

    /// The client has answered these.
    pub(super) fn acknowledged(&mut self, tags: &[u64]) {
        let Some(open) = &mut self.mail.0 else { return };
        for noted in open.noted.iter_mut().flatten().filter(|noted| tags.contains(&noted.note.seq)) {
            noted.answered = true;
        }
        let answered = tags.iter().filter_map(|seq| {
            let flight = open.flights.remove(seq)?;
            Some(flight.noted(*seq, Became::Acknowledged))
        });
        let answered = answered.collect();
        self.note(answered);
    }

    /// Does what is due: looks for room, and sends again what was not acknowledged.
    pub(super) fn tend_mail(&mut self, now: Now) {
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now.mono_ms);
        let Some(open) = &self.mail.0 else { return };
        let (look, wake) = (is_due(open.look_ms), is_due(open.wake_ms));
        if look {
            self.look(now);
        }
        if wake {
            self.send_again(now);
        }
    }

    fn send_again(&mut self, now: Now) {
        let Some(mut open) = self.mail.0.take() else { return };
        let mut over: Vec<Noted> = Vec::new();
        let mut gone: Vec<u64> = Vec::new();
        let mut full = false;
        for (seq, flight) in
            open.flights.iter_mut().filter(|(_, flight)| flight.next_ms.is_some_and(|at| at <= now.mono_ms))
        {
            let state = self.dispatch.replica().read();
            let stands = state.plane().mail.find(&flight.device, *seq).is_some_and(|cached| cached.phase.open());
            drop(state);
            if !stands {
                gone.push(*seq); // deleted, or its time is over
            } else if self.session.version() != Version::V5 && flight.sends < SENDS && full {
                flight.next_ms = Some(now.mono_ms + ROOM_EVERY_MS);
            } else if self.session.version() != Version::V5 && flight.sends < SENDS {
                let delivery = self.delivery(&flight.device, &flight.message, QoS::AtLeastOnce, now);
                let sent = delivery.is_some_and(|delivery| self.receiver.outbound().resend(*seq, &delivery, now.log));
                full = !sent;
                if sent {
                    flight.sends += 1;
                    self.receiver.signal();
                }
                flight.next_ms = Some(now.mono_ms + if sent { SEND_EVERY_MS } else { ROOM_EVERY_MS });
            } else if flight.fleeting || (flight.round && flight.rounds >= ROUNDS_MAX) {
                gone.push(*seq);
                over.push(flight.noted(*seq, Became::Unanswered));
            } else if !flight.round || self.session.version() == Version::V5 {
                flight.next_ms = None;
            } else if now.mono_ms < flight.since_ms + ROUND_EVERY_MS {
                flight.next_ms = Some(flight.since_ms + ROUND_EVERY_MS);
            } else {
                flight.next_ms = None; // until that is committed
                over.push(flight.noted(*seq, Became::Sent));
            }
        }
        gone.iter().for_each(|seq| drop(open.flights.remove(seq)));
        open.wake_ms = open.flights.values().filter_map(|flight| flight.next_ms).min();
        self.mail.0 = Some(open);
        self.note(over);
    }
}

/// What is to become of a message, given with which QoS the client has subscribed, and hears it.
fn became(cached: &Cached, granted: Option<QoS>, heard: Option<QoS>) -> Option<Became> {
    match (cached.phase, heard) {
        (Phase::Waiting { .. }, Some(QoS::AtMostOnce)) => Some(Became::Handed),
        (Phase::Waiting { .. }, Some(_)) => Some(Became::Sent),
        (Phase::Waiting { parked }, None) => (!parked).then_some(Became::NotSubscribed),
        (Phase::Sent { .. }, None) => None,
        (Phase::Sent { rounds, .. }, Some(_)) if rounds >= ROUNDS_MAX => Some(Became::Unanswered),
        // What has begun with QoS 1 goes on so, also before the client has subscribed again.
        (Phase::Sent { .. }, Some(_)) if granted != Some(QoS::AtMostOnce) => Some(Became::Sent),
        (Phase::Sent { .. }, Some(_)) => Some(Became::Handed),
        _ => None,
    }
}

impl Noted {
    fn of(device: &str, cached: &Cached, became: Became) -> Noted {
        let (rounds, round) = match cached.phase {
            Phase::Sent { rounds, .. } => (rounds + 1, true),
            _ => (0, false),
        };
        Noted {
            note: Note { device: device.into(), seq: cached.seq, became },
            message: Arc::clone(&cached.message),
            rounds,
            round,
            fleeting: cached.ttl_min == 0,
            answered: false,
        }
    }
}

impl Flight {
    fn noted(&self, seq: u64, became: Became) -> Noted {
        Noted {
            note: Note { device: self.device.clone(), seq, became },
            message: Arc::clone(&self.message),
            rounds: self.rounds + 1,
            round: true,
            fleeting: self.fleeting,
            answered: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_broker::LogTime;
    use fulmar_platform::message::{Destination, Form};

    use super::*;

    #[test]
    fn what_becomes_of_a_message_at_a_connection() {
        let message = Message {
            id: "m".into(),
            name: None,
            content: "".into(),
            object: false,
            form: Form::Raw,
            to: Destination::System,
            properties: None,
        };
        let cached =
            |phase| Cached { seq: 1, created: LogTime(0), ttl_min: 5, phase, message: Arc::new(message.clone()) };
        let (waiting, parked) = (Phase::Waiting { parked: false }, Phase::Waiting { parked: true });
        let sent = |rounds| Phase::Sent { at: LogTime(0), rounds };
        let (zero, one) = (Some(QoS::AtMostOnce), Some(QoS::AtLeastOnce));
        for (phase, granted, heard, wanted) in [
            (waiting, None, None, Some(Became::NotSubscribed)),
            (parked, None, None, None),
            (parked, zero, zero, Some(Became::Handed)),
            (waiting, None, zero, Some(Became::Handed)),
            (waiting, one, one, Some(Became::Sent)),
            (sent(0), None, None, None),
            (sent(0), None, zero, Some(Became::Sent)),
            (sent(4), one, one, Some(Became::Sent)),
            (sent(5), one, one, Some(Became::Unanswered)),
            (sent(1), zero, zero, Some(Became::Handed)),
            (Phase::Delivered { at: LogTime(0) }, one, one, None),
        ] {
            assert_eq!(became(&cached(phase), granted, heard), wanted, "{phase:?} {granted:?} {heard:?}");
        }
    }
}
