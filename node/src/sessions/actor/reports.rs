//! What devices report, as events for rules, and the acknowledgement that waits until durable rules have theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fulmar_broker::session::Token;
use fulmar_broker::state::command::Command;
use fulmar_mqtt::{ReasonCode, TopicName};
use fulmar_platform::dialect::time;
use fulmar_platform::event::{Event, Subject};
use fulmar_platform::registry::Registry;
use fulmar_platform::{Report, Told};
use serde_json::{Value, json};

use super::State;
use crate::cluster::{Committed, in_parts};
use crate::dispatch::Receiver;

/// Reports of QoS 0 of one connection that are on their way to durable rules; nothing else bounds those.
const APPENDING_MAX: usize = 256;

/// What an actor keeps about reports.
#[derive(Debug, Default)]
pub(super) struct Reported {
    appending: Option<Arc<AtomicUsize>>,
    /// Uplinks that wait for the log and for the client to take what it is sent: the first of both is ignored.
    twice: Vec<Token>,
}

impl State {
    /// Offers reports to the rules. What durable ones make of them is to be committed.
    pub(super) fn offer_reports(
        &self,
        reports: &[Report],
        (topic, trace): (&TopicName, u64),
        registry: &Registry,
        now_ms: u64,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        for report in reports {
            let Some(subject) = subject(report) else { continue };
            let Some((device, _)) = registry.device(&report.device) else { continue };
            let device = &device.record;
            if !self.dispatch.rules_want(subject, &device.app_id) {
                continue;
            }
            let event = Event {
                subject,
                app_id: device.app_id.clone(),
                device: Some(device.clone()),
                request_id: report.request_id.clone(),
                at_ms: now_ms,
                body: body(report, now_ms).into(),
                flat: Value::Null.into(),
            };
            commands.extend(self.dispatch.offer_reported(&event, topic, trace));
        }
        commands
    }

    /// Has commands committed, and the uplink answered after that; a client whose report was not committed is cut, so that
    /// it sends again. `true`: the answer waits for it.
    pub(super) fn append(&mut self, commands: Vec<Command>, token: Option<Token>) -> bool {
        if commands.is_empty() {
            return false;
        }
        let appending = self.reported.appending.get_or_insert_default().clone();
        if appending.fetch_add(1, Ordering::AcqRel) >= APPENDING_MAX && token.is_none() {
            appending.fetch_sub(1, Ordering::AcqRel);
            self.dispatch.metrics().rule_events.dropped.inc();
            return false;
        }
        let mut parts = in_parts(commands);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let receiver = self.receiver.clone();
            let reply = move |committed: Committed| {
                if let Err(error) = committed {
                    not_committed(&receiver, error, token);
                }
            };
            self.dispatch.replica().propose(part, Box::new(reply));
        }
        let receiver = self.receiver.clone();
        let reply = move |committed: Committed| {
            appending.fetch_sub(1, Ordering::AcqRel);
            match (committed, token) {
                (Ok(_), Some(token)) => receiver.tell(|port| port.accepted(token, None)),
                (Ok(_), None) => {}
                (Err(error), token) => not_committed(&receiver, error, token),
            }
        };
        // Answered in the order of the proposals: with the last one all are committed.
        self.dispatch.replica().propose(last, Box::new(reply));
        token.is_some()
    }

    /// An uplink waits for two things.
    pub(super) fn waits_twice(&mut self, token: Token) {
        self.reported.twice.push(token);
    }

    /// Whether an uplink still waits for another thing.
    pub(super) fn waits_on(&mut self, token: Token) -> bool {
        let found = self.reported.twice.iter().position(|other| *other == token);
        found.map(|at| self.reported.twice.swap_remove(at)).is_some()
    }
}

fn not_committed(receiver: &Receiver, error: crate::cluster::Error, token: Option<Token>) {
    tracing::error!(client = %receiver.key(), %error, "report not committed for durable rules");
    if token.is_some() {
        receiver.tell(|port| port.close(ReasonCode::UnspecifiedError));
    }
}

fn subject(report: &Report) -> Option<Subject> {
    match &report.what {
        Told::Properties(_) => Some(Subject::PropertyReport),
        Told::Message { .. } => Some(Subject::MessageReport),
        _ => None,
    }
}

fn body(report: &Report, now_ms: u64) -> Value {
    match &report.what {
        Told::Properties(services) => {
            let mut services = services.clone();
            for service in services.as_array_mut().into_iter().flatten() {
                if let Some(service) = service.as_object_mut() {
                    let timed = service.get("event_time").is_some_and(Value::is_string);
                    if !timed {
                        service.insert("event_time".to_owned(), time::compact(now_ms).into());
                    }
                }
            }
            json!({ "services": services })
        }
        Told::Message { topic, payload } => {
            let mut body = json!({ "topic": topic.as_str() });
            let text = std::str::from_utf8(payload);
            body["content"] = match (serde_json::from_slice(payload), text) {
                (Ok(value), _) => value,
                (Err(_), Ok(text)) => text.into(),
                (Err(_), Err(_)) => {
                    body["content_encoding"] = "base64".into();
                    STANDARD.encode(payload).into()
                }
            };
            body
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn report(what: Told) -> Report {
        Report { device: "p_n".into(), request_id: "r".into(), what }
    }

    fn message(payload: &'static [u8]) -> Value {
        let topic = TopicName::new("$oc/devices/p_n/sys/messages/up").expect("a topic");
        body(&report(Told::Message { topic, payload: Bytes::from_static(payload) }), 0)
    }

    #[test]
    fn a_message_is_json_or_text_or_base64() {
        let topic = "$oc/devices/p_n/sys/messages/up";
        assert_eq!(message(b"{\"a\": [1]}"), json!({"topic": topic, "content": {"a": [1]}}));
        assert_eq!(message(b"12"), json!({"topic": topic, "content": 12}));
        assert_eq!(message(b"{half"), json!({"topic": topic, "content": "{half"}));
        assert_eq!(message(b""), json!({"topic": topic, "content": ""}));
        let binary = json!({"topic": topic, "content": "AP8=", "content_encoding": "base64"});
        assert_eq!(message(&[0, 255]), binary);
    }

    #[test]
    fn services_have_a_time() {
        let services = json!([{"service_id": "s", "properties": {"p": 1}}, {"service_id": "t", "event_time": "T"}]);
        let body = body(&report(Told::Properties(services)), 1_449_922_332_000);
        assert_eq!(body["services"][0]["event_time"], "20151212T121212Z");
        assert_eq!(body["services"][1]["event_time"], "T");
    }
}
