//! What devices report, for applications of Sensoro's push service: a device that is bound to an AppID has its property
//! reports made into records. These go to the clients of that AppID, and to its callback address, signed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fulmar_broker::state::command::Command;
use fulmar_mqtt::QoS;
use fulmar_platform::dialect::sensoro;
use fulmar_platform::event::{Event, Subject};
use fulmar_platform::registry::{Device, SensoroApp};
use parking_lot::Mutex;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::sinks::webhook::{self, Posted};
use crate::cluster::clock::wall_ms;
use crate::dispatch::Dispatch;
use crate::dispatch::downlink::publication;

/// Records that wait for one callback address.
const QUEUE_MAX: usize = 1000;

/// Callback addresses that something waits for; a record for one more is dropped.
const QUEUES_MAX: usize = 1000;

/// How often a record is posted, and the pause after the first time; each next one is twice as long.
const TRIES_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// A queue in which nothing comes for so long ends.
const IDLE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone)]
pub struct Sensoro {
    dispatch: Weak<Dispatch>,
    /// By AppID.
    callbacks: Arc<Mutex<HashMap<Box<str>, mpsc::Sender<Bytes>>>>,
}

impl Sensoro {
    #[must_use]
    pub fn new(dispatch: &Arc<Dispatch>) -> Sensoro {
        Sensoro { dispatch: Arc::downgrade(dispatch), callbacks: Arc::default() }
    }

    /// Whether such an event may be one of a device that is bound.
    #[must_use]
    pub fn wants(&self, subject: Subject) -> bool {
        let any = |dispatch: Arc<Dispatch>| dispatch.replica().read().registry().sensoro_apps().next().is_some();
        subject == Subject::PropertyReport && self.dispatch.upgrade().is_some_and(any)
    }

    /// Takes an event, if it is one of a device that is bound. What has to be in the log for it is given back, as
    /// [`crate::dispatch::events::Rules::offer`] does.
    #[must_use]
    pub fn offer(&self, event: &Event) -> Vec<Command> {
        let Some(device) = event.device.as_ref().filter(|device| !device.sensoro_app_id.is_empty()) else {
            return Vec::new();
        };
        let Some(dispatch) = self.dispatch.upgrade().filter(|_| event.subject == Subject::PropertyReport) else {
            return Vec::new();
        };
        let app =
            dispatch.replica().read().registry().sensoro_app(&device.sensoro_app_id).map(|app| app.record.clone());
        let Some(app) = app else { return Vec::new() };
        let mut commands = Vec::new();
        for record in records(event, device) {
            let pushed = match sensoro::push(&app, record, rand::random()) {
                Ok(pushed) => pushed,
                Err(problem) => {
                    dispatch.metrics().sensoro("unencryptable");
                    tracing::warn!(app = &*app.id, %problem, "a record was not pushed");
                    continue;
                }
            };
            if let Some(first) = pushed.first().filter(|_| !app.callback_url.is_empty()) {
                self.post(&dispatch, &app, first.payload.clone());
            }
            let accepted_at = dispatch.now().log;
            for downlink in pushed {
                let qos = downlink.qos;
                let publication = Arc::new(publication(downlink, accepted_at));
                match qos {
                    QoS::AtMostOnce => dispatch.publish_everywhere(&publication),
                    // Sessions that wait get it too.
                    _ => commands.push(Command::Announce(publication)),
                }
            }
            dispatch.metrics().sensoro("pushed");
        }
        commands
    }

    /// Queues a record for the callback address of its application.
    fn post(&self, dispatch: &Arc<Dispatch>, app: &Arc<SensoroApp>, record: Bytes) {
        let mut callbacks = self.callbacks.lock();
        let known = callbacks.get(&app.id).filter(|queue| !queue.is_closed()).cloned();
        let queue = match known {
            Some(queue) => queue,
            None if callbacks.len() >= QUEUES_MAX && !callbacks.contains_key(&app.id) => {
                dispatch.metrics().sensoro("queue_full");
                return;
            }
            None => {
                let (queue, waiting) = mpsc::channel(QUEUE_MAX);
                callbacks.insert(app.id.clone(), queue.clone());
                tokio::spawn(work(self.clone(), app.id.clone(), waiting));
                queue
            }
        };
        if queue.try_send(record).is_err() {
            dispatch.metrics().sensoro("queue_full");
        }
    }
}

/// Posts what waits for one application, in order.
async fn work(sensoro: Sensoro, app: Box<str>, mut waiting: mpsc::Receiver<Bytes>) {
    let mut client: Option<Client> = None;
    loop {
        let Ok(Some(record)) = tokio::time::timeout(IDLE, waiting.recv()).await else {
            // Whoever has sent meanwhile did so before this, under the lock.
            let mut callbacks = sensoro.callbacks.lock();
            if waiting.is_empty() {
                callbacks.remove(&app);
                return;
            }
            continue;
        };
        let mut pause = PAUSE;
        for attempt in 1..=TRIES_MAX {
            let Some(dispatch) = sensoro.dispatch.upgrade() else { return };
            // As it is now: it may have been changed since.
            let kept = dispatch.replica().read().registry().sensoro_app(&app).map(|app| app.record.clone());
            let Some(kept) = kept.filter(|kept| !kept.callback_url.is_empty()) else { break };
            let posted = attempt_post(&mut client, &kept, record.clone()).await;
            dispatch.metrics().webhook(posted.outcome());
            match posted {
                Posted::Taken => break,
                Posted::Failed(problem) if attempt < TRIES_MAX => {
                    tracing::debug!(app = &*app, problem, attempt, "a record was not taken by its callback address");
                    drop(dispatch);
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Posted::Failed(problem) | Posted::Refused(problem) => {
                    dispatch.metrics().sensoro("callback_failed");
                    tracing::warn!(app = &*app, problem, "a record was not taken by its callback address");
                    break;
                }
            }
        }
    }
}

async fn attempt_post(client: &mut Option<Client>, app: &SensoroApp, record: Bytes) -> Posted {
    let ready = match client {
        Some(ready) => ready.clone(),
        None => {
            match webhook::client(None, true).and_then(|builder| builder.build().map_err(|error| error.to_string())) {
                Ok(made) => client.insert(made).clone(),
                Err(problem) => return Posted::Failed(problem),
            }
        }
    };
    let Ok(url) = Url::parse(&app.callback_url) else {
        return Posted::Refused("the callback address cannot be read".to_owned());
    };
    let headers = webhook::sensoro_headers(&app.secret, &app.callback_url, &record, &wall_ms().to_string());
    webhook::post(&ready, url, headers, record).await
}

/// A record for each service that is reported.
fn records(event: &Event, device: &Device) -> Vec<Value> {
    let services = event.body.get("services").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let several = services.len() > 1;
    let record = |(at, service): (usize, &Value)| {
        let id = if several { format!("{}-{at}", event.request_id) } else { event.request_id.to_string() };
        json!({
            "appId": device.sensoro_app_id,
            "sn": device.node_id,
            "type": "text",
            "deviceType": "node",
            "createdTime": event.at_ms,
            "msgId": id,
            "data": service.get("properties").cloned().unwrap_or_default(),
        })
    };
    services.iter().enumerate().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_is_a_record() {
        let mut device = Device::new("p", "space", "n", 0);
        device.sensoro_app_id = "foobar".into();
        let event = |services: Value| Event {
            subject: Subject::PropertyReport,
            app_id: "space".into(),
            device: Some(Arc::new(device.clone())),
            request_id: "r".into(),
            at_ms: 7,
            body: Arc::new(json!({ "services": services })),
            flat: Arc::new(Value::Null),
        };
        let one = json!({"service_id": "a", "properties": {"battery": 93}});
        let record = |id: &str, data: Value| {
            json!({
                "appId": "foobar", "sn": "n", "type": "text", "deviceType": "node", "createdTime": 7, "msgId": id,
                "data": data,
            })
        };
        assert_eq!(records(&event(json!([one])), &device), [record("r", json!({"battery": 93}))]);
        let two = records(&event(json!([one, {"service_id": "b"}])), &device);
        assert_eq!(two, [record("r-0", json!({"battery": 93})), record("r-1", Value::Null)]);
        assert_eq!(records(&event(Value::Null), &device), [] as [Value; 0]);
    }
}
