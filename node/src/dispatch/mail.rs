//! What follows from the messages to devices in the log: the session that is to send one is told, who waits for one hears of
//! it, and so do the rules.

use std::collections::HashMap;
use std::sync::Arc;

use fulmar_broker::Delivery;
use fulmar_broker::outbound::Pushed;
use fulmar_broker::plane::mail::{self, Answer, Cached, Phase};
use fulmar_broker::plane::{self, Change};
use fulmar_broker::state::State;
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_platform::dialect::time;
use fulmar_platform::event::{Event, Subject};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;

use super::publish::Nobody;
use super::{Dispatch, Receiver};

/// Requests that wait here for what becomes of a message; further ones are answered at once.
const WAITERS_MAX: usize = 10_000;

/// Who waits for a message, by its number.
#[derive(Debug, Default)]
pub(super) struct Post(Mutex<HashMap<u64, oneshot::Sender<(Phase, u64)>>>);

/// What creating a message came to.
#[derive(Debug)]
pub struct Posted {
    pub answer: Answer,
    /// Told once more is known of it than that it waits, with the index of the entry that says so. Dropped where that is
    /// not heard of.
    pub outcome: Option<oneshot::Receiver<(Phase, u64)>>,
    /// Of its entry.
    pub index: u64,
}

impl Dispatch {
    /// Proposes a change of messages. `None`: it was not committed.
    pub async fn post(&self, change: mail::Change) -> Option<Posted> {
        let (done, posted) = oneshot::channel();
        let this = self.this.clone();
        self.replica.propose(
            vec![Command::Plane(Box::new(Change::Mail(change)))],
            Box::new(move |committed| {
                let answer = committed.ok().and_then(|outcomes| outcomes.into_iter().next());
                let (Some(Outcome::Plane(plane::Answer::Mail(answer))), Some(dispatch)) = (answer, this.upgrade())
                else {
                    return;
                };
                // Nothing later is applied before this returns: whoever begins to wait here misses nothing.
                let outcome = dispatch.wait(&answer);
                let index = dispatch.replica.applied();
                // Whoever asked may have gone meanwhile.
                let _ = done.send(Posted { answer, outcome, index });
            }),
        );
        posted.await.ok()
    }

    fn wait(&self, answer: &Answer) -> Option<oneshot::Receiver<(Phase, u64)>> {
        let Answer::Created { seq, phase: Phase::Waiting { .. }, .. } = answer else { return None };
        let mut waiters = self.post.0.lock();
        if waiters.len() >= WAITERS_MAX {
            waiters.retain(|_, waiter| !waiter.is_closed());
        }
        if waiters.len() >= WAITERS_MAX {
            return None;
        }
        let (told, outcome) = oneshot::channel();
        waiters.insert(*seq, told);
        Some(outcome)
    }

    /// A message is new, or its state has changed. On the thread that applies the log.
    pub(super) fn mail_changed(&self, event: &mail::Event) {
        let mail::Event { device, cached, .. } = event;
        let state = self.replica.read();
        let session = state.registry().connected_through(device).and_then(|id| state.session_of_device(id));
        let owner = state.device_owner(device);
        let tells = event.told && state.chosen(device) == Some(self.replica.run());
        let app_id = state.registry().device(device).filter(|_| tells).map(|(kept, _)| kept.record.app_id.clone());
        drop(state);
        if cached.phase == (Phase::Waiting { parked: false }) {
            if let (Some(key), Some(owner)) = (session, owner)
                && let Some(receiver) = self.owned(&key, owner)
            {
                receiver.tell_of_mail();
            }
        } else if let Some(waiter) = self.post.0.lock().remove(&cached.seq) {
            // Whoever waits may have given up.
            let _ = waiter.send((cached.phase, self.replica.applied()));
        }
        if let Some(app_id) = app_id {
            self.proclaim(Subject::MessageStatusUpdate, &app_id, || notice(&self.replica.read(), event));
        }
    }

    /// Has a session that may have messages waiting look for them.
    pub fn look_for_mail(&self, receiver: &Receiver) {
        if self.replica.read().plane().mail.awaits(receiver.key().identity()) {
            receiver.tell_of_mail();
        }
    }

    /// Puts a message into a receiver's way out; its acknowledgement is heard of by `tag`. `false`: the receiver is gone.
    #[must_use]
    pub fn hand_mail(&self, receiver: &Arc<Receiver>, delivery: Delivery, tag: u64) -> bool {
        let now_ms = self.now().mono_ms;
        let pushed = receiver.outbound().push_tagged(delivery, tag, now_ms, || Box::new(Nobody));
        self.note_pushed(receiver, &pushed);
        receiver.signal();
        pushed != Pushed::Gone
    }
}

/// What applications are told: header and body, and beside them the older flat form, so that both readings work. `None`:
/// the device is gone.
fn notice(state: &State, event: &mail::Event) -> Option<Event> {
    let mail::Event { device, cached, at, .. } = event;
    let registry = state.registry();
    let record = Arc::clone(&registry.device(device)?.0.record);
    let Cached { seq, phase, message, .. } = cached;
    let (status, timestamp) = (phase.status().as_str(), time::compact(at.0));
    let mut body = json!({
        "message_id": message.id,
        "name": message.name,
        "status": status,
        "topic": message.to.topic(registry, &record).map(|topic| topic.as_str().to_owned()),
        "timestamp": timestamp,
    });
    if let Some((code, text)) = phase.failure().map(mail::Failure::error) {
        body["error_info"] = json!({ "error_code": code, "error_msg": text });
    }
    let flat = json!({
        "message_id": message.id,
        "name": message.name,
        "device_id": device,
        "status": status,
        "timestamp": timestamp,
    });
    Some(Event {
        subject: Subject::MessageStatusUpdate,
        app_id: record.app_id.clone(),
        device: Some(record),
        // A message has each status once.
        request_id: format!("{seq:016x}-{}", status.to_ascii_lowercase()).into(),
        at_ms: at.0,
        body: Arc::new(body),
        flat: Arc::new(flat),
    })
}
