//! Sessions as people see them: what the state has of each, and what only the node of its connection knows, which is
//! asked for it. Pages are in the order of the keys, and are read a bounded piece at a time.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::state::SessionView;
use fulmar_broker::state::command::{Command, Outcome, Subscription, Will};
use fulmar_broker::{Epoch, LogTime, NodeId, SessionKey};
use fulmar_mqtt::{ReasonCode, Version};
use fulmar_platform::dialect::time;
use serde_json::{Value, json};

use super::nodes::node_name;
use super::{COMMIT, Error, Operations, TRIES_MAX};
use crate::dispatch::Receiver;

/// Sessions that are looked at while the state is held, and for one page.
const SLICE: usize = 1_000;
const LOOKED_MAX: usize = 200_000;

/// Unacknowledged deliveries that are shown.
const UNACKNOWLEDGED_MAX: usize = 100;

/// Which sessions are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// How the identity begins, what is in it: the client id of a generic client, the id of a device.
    pub prefix: Option<String>,
    pub contains: Option<String>,
    pub dialect: Option<String>,
    /// Where it is connected.
    pub node: Option<NodeId>,
    pub connected: Option<bool>,
    pub persistent: Option<bool>,
    /// Where its client connects from.
    pub address: Option<IpAddr>,
}

/// A session, and what the node of its connection says of it, if it has one.
#[derive(Debug, Clone)]
pub struct SessionRow {
    pub key: SessionKey,
    pub view: SessionView,
    pub guest: Option<Value>,
}

/// A page, in the order of the keys.
#[derive(Debug, Clone, Default)]
pub struct SessionPage {
    pub rows: Vec<SessionRow>,
    /// Of all sessions that there are.
    pub count: usize,
    /// What the next page is asked for with; `None`: there is none.
    pub marker: Option<SessionKey>,
    /// The entry at which the state stood.
    pub revision: u64,
}

/// All of one session.
#[derive(Debug, Clone)]
pub struct SessionDetail {
    pub row: SessionRow,
    pub will: Option<Arc<Will>>,
    /// `None`: only its node knows, which was not reached.
    pub subscriptions: Option<Vec<Subscription>>,
    /// When the oldest message of its queue was accepted.
    pub oldest: Option<LogTime>,
    pub revision: u64,
}

/// The session of a name: tenant, dialect and identity, with slashes between.
#[must_use]
pub fn key_of(name: &str) -> Option<SessionKey> {
    let mut parts = name.splitn(3, '/');
    let key = SessionKey::new(parts.next()?, parts.next()?, parts.next()?);
    let whole = [key.tenant(), key.dialect(), key.identity()].iter().all(|part| !part.is_empty());
    whole.then_some(key)
}

impl SessionFilter {
    fn takes(&self, key: &SessionKey, view: &SessionView) -> bool {
        let is = |wanted: Option<bool>, it: bool| wanted.is_none_or(|wanted| wanted == it);
        self.prefix.as_ref().is_none_or(|prefix| key.identity().starts_with(prefix.as_str()))
            && self.contains.as_ref().is_none_or(|part| key.identity().contains(part.as_str()))
            && self.dialect.as_ref().is_none_or(|dialect| key.dialect() == dialect)
            && self.node.is_none_or(|node| view.owner.is_some_and(|owner| owner.node == node))
            && is(self.connected, view.owner.is_some())
            && is(self.persistent, view.expiry_s > 0)
            && (self.address.is_none() || view.owner.is_some())
    }

    /// What only the node of the connection can say.
    fn takes_guest(&self, guest: Option<&Value>) -> bool {
        let Some(wanted) = self.address else { return true };
        let address = guest.and_then(|guest| guest["address"].as_str()?.parse::<SocketAddr>().ok());
        address.is_some_and(|address| address.ip().to_canonical() == wanted.to_canonical())
    }
}

impl Operations {
    /// A page of sessions behind a marker.
    pub async fn list_sessions(&self, filter: &SessionFilter, marker: Option<SessionKey>, limit: usize) -> SessionPage {
        let mut page = SessionPage { marker, ..SessionPage::default() };
        let mut looked = 0;
        loop {
            // The state is let go of between two pieces.
            let (mut found, last) = self.dispatch.replica().read_at(|state, index| {
                (page.revision, page.count) = (index, state.session_count());
                let from = page.marker.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let (mut found, mut last, mut seen) = (Vec::new(), None, 0);
                for (key, view) in state.sessions_from(from) {
                    seen += 1;
                    if filter.takes(key, &view) {
                        found.push(SessionRow { key: key.clone(), view, guest: None });
                    }
                    if seen == SLICE || page.rows.len() + found.len() >= limit {
                        last = Some(key.clone());
                        break;
                    }
                }
                looked += seen;
                (found, last)
            });
            self.ask_guests(&mut found, false).await;
            page.rows.extend(found.into_iter().filter(|row| filter.takes_guest(row.guest.as_ref())));
            page.marker = last;
            if page.marker.is_none() || page.rows.len() >= limit || looked >= LOOKED_MAX {
                return page;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Asks the nodes of connections for what only they know. Of a node that does not answer nothing is known.
    async fn ask_guests(&self, rows: &mut [SessionRow], whole: bool) {
        let mut by_node: BTreeMap<NodeId, Vec<Value>> = BTreeMap::new();
        for row in rows.iter() {
            if let Some(owner) = row.view.owner {
                by_node.entry(owner.node).or_default().push(row.key.to_string().into());
            }
        }
        let asked = by_node.into_iter().map(|(node, keys)| async move {
            self.dispatch.consult(node, "guests", json!({ "sessions": keys, "whole": whole })).await
        });
        let mut known: HashMap<String, Value> = HashMap::new();
        for answer in futures_util::future::join_all(asked).await {
            match answer {
                Ok(Value::Object(mut answer)) => {
                    if let Some(Value::Object(guests)) = answer.remove("guests") {
                        known.extend(guests);
                    }
                }
                Ok(_) => {}
                Err(problem) => tracing::debug!(problem, "a node does not say who is connected to it"),
            }
        }
        for row in rows {
            let epoch = row.view.epoch.0;
            row.guest = known.remove(&row.key.to_string()).filter(|guest| guest["epoch"] == epoch);
        }
    }

    /// What this node knows of clients that are connected to it.
    pub(super) fn own_guests(&self, document: &Value) -> Value {
        let whole = document["whole"] == true;
        let keys = document["sessions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let known = keys.take(SLICE).filter_map(|name| {
            let receiver = self.dispatch.receiver(&key_of(name)?)?;
            Some((name.to_owned(), guest_json(&receiver, whole)))
        });
        json!({ "guests": known.collect::<serde_json::Map<String, Value>>() })
    }

    /// All of one session.
    ///
    /// # Errors
    /// There is none.
    pub async fn show_session(&self, key: &SessionKey) -> Result<SessionDetail, Error> {
        let detail = self.dispatch.replica().read_at(|state, revision| {
            let view = state.session(key)?;
            let row = SessionRow { key: key.clone(), view, guest: None };
            let subscriptions = Some(state.subscriptions(key).to_vec());
            let (will, oldest) = (state.will_of(key).cloned(), state.queue_oldest(key));
            Some(SessionDetail { row, will, subscriptions, oldest, revision })
        });
        let mut detail = detail.ok_or_else(|| Error::SessionMissing { session: key.to_string() })?;
        self.ask_guests(std::slice::from_mut(&mut detail.row), true).await;
        // What a session that ends with its connection has subscribed to only its node knows.
        if detail.row.view.expiry_s == 0 && detail.row.view.owner.is_some() {
            let known = detail.row.guest.is_some();
            detail.subscriptions = if known { self.subscriptions_of(&detail.row).await } else { None };
        }
        Ok(detail)
    }

    /// Ends the connection of a session, which stays for as long as it is to; answered when the log says so.
    ///
    /// # Errors
    /// It has none, or its node is not reached.
    pub async fn disconnect_session(&self, key: &SessionKey) -> Result<(), Error> {
        let view = self.dispatch.replica().read().session(key);
        let view = view.ok_or_else(|| Error::SessionMissing { session: key.to_string() })?;
        let owner = view.owner.ok_or_else(|| Error::NotConnected { session: key.to_string() })?;
        let unreached = |problem| Error::NodeUnreached { node: node_name(owner.node), problem };
        let asked = json!({ "session": key.to_string(), "epoch": owner.epoch.0 });
        self.dispatch.consult(owner.node, "disconnect", asked).await.map_err(unreached)?;
        let gone = async {
            let mut progress = self.dispatch.replica().progress();
            while self.dispatch.owner_epoch(key) == Some(owner.epoch) {
                if progress.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(COMMIT, gone).await.map_err(|_| Error::Unavailable)
    }

    /// Ends a connection of this node; `false` if it has none of that epoch.
    pub(super) fn close_here(&self, key: &SessionKey, epoch: Epoch) -> bool {
        let receiver = self.dispatch.receiver(key).filter(|receiver| receiver.epoch() == epoch);
        if let Some(receiver) = &receiver {
            receiver.tell(|port| port.close(ReasonCode::AdministrativeAction));
        }
        receiver.is_some()
    }

    /// Ends a session for good, with its connection, its subscriptions and its queue.
    ///
    /// # Errors
    /// There is none, or the log takes nothing.
    pub async fn clear_session(&self, key: &SessionKey) -> Result<(), Error> {
        let replica = self.dispatch.replica();
        for _ in 0..TRIES_MAX {
            let view = replica.read().session(key);
            let epoch = view.ok_or_else(|| Error::SessionMissing { session: key.to_string() })?.epoch;
            let end = Command::EndSession { key: key.clone(), epoch, reason: ReasonCode::AdministrativeAction };
            let finish = async {
                let (outcomes, index) = replica.commit_at(vec![end]).await;
                let done = outcomes.ok()?.first() == Some(&Outcome::Done);
                let known = !done || !self.dispatch.links().connected() || replica.stable(index).await;
                known.then_some(done)
            };
            let ended = tokio::time::timeout(COMMIT, finish).await.ok().flatten();
            if ended.ok_or(Error::Unavailable)? {
                return Ok(());
            }
            // Somebody has claimed it in between.
        }
        Err(Error::Unavailable)
    }

    /// Of a session that ends with its connection, from its node.
    async fn subscriptions_of(&self, row: &SessionRow) -> Option<Vec<Subscription>> {
        let owner = row.view.owner?;
        let asked = json!({ "session": row.key.to_string() });
        let answer = self.dispatch.consult(owner.node, "subscribers", asked).await.ok()?;
        let rows = answer["subscriptions"].as_array()?;
        rows.iter().map(|row| super::subscriptions::subscription_of(row).map(|(_, own)| own)).collect()
    }
}

/// For a session's actor to say what it has subscribed to.
pub(super) const ACTOR: Duration = Duration::from_secs(1);

/// What this node knows of a client.
fn guest_json(receiver: &Receiver, whole: bool) -> Value {
    let guest = receiver.guest();
    let mut json = json!({
        "epoch": receiver.epoch().0,
        "address": guest.peer.to_string(),
        "connected_at": time::iso_ms(guest.connected_at.0),
        "client_id": guest.client_id.as_deref().unwrap_or(receiver.key().identity()),
    });
    if whole {
        let look = receiver.outbound().look(UNACKNOWLEDGED_MAX);
        let unacknowledged = look.unacknowledged.iter().map(|one| {
            json!({ "packet_id": one.packet_id, "qos": one.qos as u8, "received": one.received, "sequence": one.seq })
        });
        json["unacknowledged"] = unacknowledged.collect();
        let more = json!({
            "protocol": match look.version { Version::V31 => "3.1", Version::V311 => "3.1.1", Version::V5 => "5" },
            "encrypted": guest.encrypted,
            "keep_alive_s": guest.keep_alive_s,
            "clean_start": guest.clean_start,
            "messages_in": receiver.received(),
            "messages_out": look.delivered,
            "dropped": look.dropped,
            "live_queued": look.queued,
            "live_queued_bytes": look.queued_bytes,
            "publishers_waiting": look.waiting,
            "inflight": look.inflight,
            "receive_maximum": look.receive_maximum,
        });
        if let (Some(json), Value::Object(more)) = (json.as_object_mut(), more) {
            json.extend(more);
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_names_that_are_read_back() {
        for identity in ["a", "with/slash", "/", "ä b"] {
            let key = SessionKey::new("default", "generic", identity);
            assert_eq!(key_of(&key.to_string()), Some(key));
        }
        for wrong in ["", "a", "default/generic", "default/generic/", "//x", "/generic/x"] {
            assert_eq!(key_of(wrong), None, "{wrong}");
        }
    }
}
