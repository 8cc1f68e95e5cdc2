//! Watching what becomes of sessions, devices and the cluster: first everything that is there, or what has happened since
//! a revision, then each applied entry that did something, once and in order. The revision is the entry's index, the same
//! on every node: whoever loses the node that serves it goes on at another one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::SessionKey;
use fulmar_broker::state::command::SessionEvent;
use fulmar_broker::steer::alarms;
use fulmar_platform::dialect::time;
use fulmar_platform::registry::{Device, Registry};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::nodes::node_name;
use super::{Error, Operations};
use crate::cluster::Seat;
use crate::dispatch::Stage;
use crate::dispatch::journal::{Fact, Lost};

/// Watches that a node serves at a time.
pub(super) const WATCHES_MAX: usize = 256;

/// Elements of one document of what is there.
const PAGE: usize = 200;

/// Of these, looked at before others have a turn.
const TURN: usize = 2_000;

/// Documents that wait for a watcher.
const PARTS_MAX: usize = 16;

/// What happens within so long is read together: the work for a watcher does not grow with the pace of the log.
const GATHER: Duration = Duration::from_millis(20);

/// A watcher to whom nothing happens is told how far the log has come, so that it can go on from there.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Between two looks at what is observed of the cluster.
const OBSERVE_EVERY: Duration = Duration::from_millis(500);

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// Whose identity begins so, and of this dialect.
    Sessions {
        prefix: Option<String>,
        dialect: Option<String>,
    },
    /// Of one product, or one device.
    Devices {
        product_id: Option<String>,
        device_id: Option<String>,
    },
    Alarms,
    Cluster,
}

/// Why a watch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    #[error("the watcher was too slow: what comes next is not kept any more; watch again from the start")]
    Slow,
    #[error("this node is leaving; go on at another one, from the last revision")]
    Leaving,
}

/// Documents, and in the end why there are no more.
pub type Watch = mpsc::Receiver<Result<Value, WatchEnd>>;

/// One watch being served.
struct Server {
    operations: Operations,
    watched: Watched,
    parts: mpsc::Sender<Result<Value, WatchEnd>>,
    _permit: OwnedSemaphorePermit,
}

/// Why serving ends.
enum End {
    /// Nobody listens any more.
    Gone,
    Told(WatchEnd),
}

impl Drop for Server {
    fn drop(&mut self) {
        self.operations.dispatch.metrics().watches.dec();
    }
}

impl Operations {
    /// Watches from a revision on, or from what is there.
    ///
    /// # Errors
    /// Too many watch already, or this node is leaving.
    pub fn watch(&self, watched: Watched, revision: Option<u64>) -> Result<Watch, Error> {
        let metrics = self.dispatch.metrics();
        if *self.dispatch.stage().borrow() != Stage::Serving {
            return Err(Error::Unavailable);
        }
        let Ok(permit) = self.watches.clone().try_acquire_owned() else {
            metrics.watch_ended("too_many");
            return Err(Error::Full);
        };
        let (parts, watch) = mpsc::channel(PARTS_MAX);
        metrics.watches.inc();
        let server = Server { operations: self.clone(), watched, parts: parts.clone(), _permit: permit };
        let dispatch = self.dispatch.clone();
        tokio::spawn(async move {
            if let Err(End::Told(end)) = server.serve(revision).await {
                dispatch.metrics().watch_ended(match end {
                    WatchEnd::Slow => "slow",
                    WatchEnd::Leaving => "leaving",
                });
                // Whoever watched may have gone.
                let _ = parts.send(Err(end)).await;
            }
        });
        Ok(watch)
    }
}

impl Server {
    async fn send(&self, document: Value) -> Result<(), End> {
        let mut stage = self.operations.dispatch.stage();
        tokio::select! {
            sent = self.parts.send(Ok(document)) => sent.map_err(|_| End::Gone),
            // The sender is in dispatch, which is held here.
            _ = stage.wait_for(|stage| *stage != Stage::Serving) => Err(End::Told(WatchEnd::Leaving)),
        }
    }

    async fn serve(&self, mut revision: Option<u64>) -> Result<(), End> {
        loop {
            let (from, given) = match revision.take() {
                Some(revision) => (revision, true),
                None => (self.current().await?, false),
            };
            let lost = self.follow(from, given).await?;
            let why = match lost {
                Lost::TooOld => "the revision is older than what this node keeps",
                Lost::Installed => "this node has skipped entries with a snapshot",
            };
            self.send(json!({ "kind": "reset", "revision": from, "reason": why })).await?;
        }
    }

    /// Tells of entries behind `at`, until some are missing. `given`: somebody else said where to begin.
    async fn follow(&self, mut at: u64, mut given: bool) -> Result<Lost, End> {
        let dispatch = &self.operations.dispatch;
        let (mut progress, mut stage) = (dispatch.replica().progress(), dispatch.stage());
        let mut told = Instant::now();
        let mut observed = Value::Null;
        loop {
            if *stage.borrow_and_update() != Stage::Serving {
                return Err(End::Told(WatchEnd::Leaving));
            }
            if !dispatch.acts() {
                tokio::select! {
                    () = dispatch.acting() => {}
                    _ = stage.changed() => {}
                    () = self.parts.closed() => return Err(End::Gone),
                }
                continue;
            }
            let through = *progress.borrow_and_update();
            let reading = match dispatch.journal().read(at, through, |fact| self.wants(fact)) {
                Ok(reading) => reading,
                Err(Lost::TooOld) if !given => return Err(End::Told(WatchEnd::Slow)),
                Err(lost) => return Ok(lost),
            };
            given = false;
            for (index, facts) in reading.entries {
                let events: Vec<Value> = facts.iter().filter_map(|fact| self.event(fact)).collect();
                if !events.is_empty() {
                    self.send(json!({ "kind": "changed", "revision": index, "events": events })).await?;
                    told = Instant::now();
                }
            }
            at = reading.through;
            if at < through {
                continue;
            }
            if self.watched == Watched::Cluster {
                let now = self.observe();
                if now != observed {
                    let mut document = now.clone();
                    document["kind"] = "observed".into();
                    document["revision"] = at.into();
                    self.send(document).await?;
                    observed = now;
                }
            }
            if told.elapsed() >= PROGRESS_EVERY {
                self.send(json!({ "kind": "progress", "revision": at })).await?;
                told = Instant::now();
            }
            let pause = if self.watched == Watched::Cluster { OBSERVE_EVERY } else { PROGRESS_EVERY };
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return Err(End::Told(WatchEnd::Leaving)) },
                _ = stage.changed() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.parts.closed() => return Err(End::Gone),
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    fn wants(&self, fact: &Fact) -> bool {
        match (&self.watched, fact) {
            (
                Watched::Sessions { prefix, dialect },
                Fact::Session(SessionEvent::Connected { key, .. } | SessionEvent::Disconnected { key, .. })
                | Fact::SessionEnded { key, .. },
            ) => takes_session(prefix.as_deref(), dialect.as_deref(), key),
            (Watched::Devices { product_id, device_id }, Fact::Device(status)) => {
                takes_device(product_id.as_deref(), device_id.as_deref(), &status.device)
            }
            (Watched::Alarms, Fact::Alarm(_))
            | (Watched::Cluster, Fact::NodeUp { .. } | Fact::NodeDown { .. } | Fact::Members(_)) => true,
            _ => false,
        }
    }

    fn event(&self, fact: &Fact) -> Option<Value> {
        Some(match fact {
            Fact::Session(SessionEvent::Connected { key, owner, persistent, resumed }) => {
                let mut event = session_json("connected", key, owner.epoch.0);
                event["node"] = node_name(owner.node).into();
                event["persistent"] = (*persistent).into();
                event["resumed"] = (*resumed).into();
                event
            }
            Fact::Session(SessionEvent::Disconnected { key, epoch }) => session_json("disconnected", key, epoch.0),
            Fact::SessionEnded { key, epoch } => session_json("ended", key, epoch.0),
            Fact::Device(status) => {
                let mut event = device_json(&status.device, status.dialect.as_str(), status.online);
                event["epoch"] = status.epoch.into();
                event["time"] = time::iso_ms(status.at_ms).into();
                event
            }
            Fact::NodeUp { node, generation } => {
                json!({ "what": "up", "node": node_name(*node), "generation": generation.0 })
            }
            Fact::NodeDown { node, generation } => {
                json!({ "what": "down", "node": node_name(*node), "generation": generation.0 })
            }
            Fact::Alarm(alarms::Event::Raised(alarm)) => json!({ "what": "raised", "alarm": alarm_json(alarm) }),
            Fact::Alarm(alarms::Event::Cleared(past)) => json!({ "what": "cleared", "alarm": past_json(past) }),
            Fact::Members(members) => members_json(members),
        })
    }

    /// Tells everything that is there; the revision from which it goes on.
    async fn current(&self) -> Result<u64, End> {
        let replica = self.operations.dispatch.replica();
        let revision = match &self.watched {
            Watched::Sessions { prefix, dialect } => {
                let (census, revision) = replica.read_at(|state, index| (state.census(), index));
                let wanted = |key: &SessionKey| takes_session(prefix.as_deref(), dialect.as_deref(), key);
                let all = census.held().map(|(key, epoch, owner, persistent)| {
                    wanted(key).then(|| {
                        let what = if owner.is_some() { "connected" } else { "disconnected" };
                        let mut event = session_json(what, key, epoch.0);
                        event["persistent"] = persistent.into();
                        if let Some(owner) = owner {
                            event["node"] = node_name(owner.node).into();
                        }
                        event
                    })
                });
                self.pages(revision, all).await?;
                revision
            }
            Watched::Devices { product_id, device_id } => {
                let (registry, revision) = replica.read_at(|state, index| (state.registry().clone(), index));
                let all = devices(&registry, product_id.as_deref(), device_id.as_deref());
                self.pages(revision, all).await?;
                revision
            }
            Watched::Alarms => {
                let (alarms, revision) = replica.read_at(|state, index| (state.steer().alarms.clone(), index));
                let active = alarms.active().map(|alarm| Some(json!({ "what": "raised", "alarm": alarm_json(alarm) })));
                self.pages(revision, active).await?;
                revision
            }
            Watched::Cluster => {
                let (runs, revision) = replica.read_at(|state, index| (state.runs().collect::<Vec<_>>(), index));
                // Read behind it: a change in between is told again, and none is missed.
                let members = replica.view().members;
                let seats: Vec<Seat> = members
                    .into_iter()
                    .map(|member| Seat {
                        node: member.node,
                        address: member.address,
                        votes: member.role != crate::cluster::Role::Learner,
                    })
                    .collect();
                let known: BTreeSet<_> = seats.iter().map(|seat| seat.node).collect();
                let state = runs.iter().filter(|run| known.contains(&run.node)).map(|run| {
                    let what = if run.alive { "up" } else { "down" };
                    Some(json!({ "what": what, "node": node_name(run.node), "generation": run.generation.0 }))
                });
                self.pages(revision, std::iter::once(Some(members_json(&seats))).chain(state)).await?;
                revision
            }
        };
        self.send(json!({ "kind": "synced", "revision": revision })).await?;
        Ok(revision)
    }

    async fn pages(&self, revision: u64, all: impl Iterator<Item = Option<Value>> + Send) -> Result<(), End> {
        let (mut page, mut looked) = (Vec::new(), 0);
        for event in all {
            page.extend(event);
            looked += 1;
            if page.len() == PAGE {
                let events = std::mem::take(&mut page);
                self.send(json!({ "kind": "current", "revision": revision, "events": events })).await?;
            }
            if looked % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        if !page.is_empty() {
            self.send(json!({ "kind": "current", "revision": revision, "events": page })).await?;
        }
        Ok(())
    }

    /// What this node sees of the cluster at this moment, beside what the log says.
    fn observe(&self) -> Value {
        let replica = self.operations.dispatch.replica();
        let (leader, term) = replica.leader();
        json!({
            "leader": leader.map(node_name),
            "term": term,
            "reaches": replica.reached().into_iter().map(node_name).collect::<Vec<_>>(),
        })
    }
}

fn takes_session(prefix: Option<&str>, dialect: Option<&str>, key: &SessionKey) -> bool {
    prefix.is_none_or(|prefix| key.identity().starts_with(prefix))
        && dialect.is_none_or(|dialect| key.dialect() == dialect)
}

fn takes_device(product: Option<&str>, id: Option<&str>, device: &Device) -> bool {
    product.is_none_or(|product| *device.product_id == *product) && id.is_none_or(|id| *device.id == *id)
}

fn session_json(what: &str, key: &SessionKey, epoch: u64) -> Value {
    json!({
        "what": what,
        "session": key.to_string(),
        "dialect": key.dialect(),
        "identity": key.identity(),
        "epoch": epoch,
    })
}

fn device_json(device: &Arc<Device>, dialect: &str, online: bool) -> Value {
    json!({
        "device_id": device.id,
        "product_id": device.product_id,
        "dialect": dialect,
        "status": if online { "ONLINE" } else { "OFFLINE" },
    })
}

fn members_json(members: &[Seat]) -> Value {
    let members = members
        .iter()
        .map(|seat| json!({ "node": node_name(seat.node), "address": seat.address, "votes": seat.votes }));
    json!({ "what": "members", "members": members.collect::<Vec<_>>() })
}

fn devices<'a>(
    registry: &'a Registry,
    product: Option<&'a str>,
    id: Option<&'a str>,
) -> impl Iterator<Item = Option<Value>> + Send + 'a {
    registry.devices_where(None, move |device| takes_device(product, id, device)).map(|(kept, presence)| {
        let dialect = registry.dialect_of(&kept.record).map_or("", |dialect| dialect.as_str());
        let mut event = device_json(&kept.record, dialect, presence.online);
        event["epoch"] = presence.epoch.into();
        // One that has never connected is as it was made.
        let at_ms = if presence.changed_ms > 0 { presence.changed_ms } else { kept.record.created_ms };
        event["time"] = time::iso_ms(at_ms).into();
        Some(event)
    })
}

/// An alarm as it is shown.
#[must_use]
pub fn alarm_json(alarm: &alarms::Alarm) -> Value {
    let severity = match alarm.severity {
        alarms::Severity::Warning => "warning",
        alarms::Severity::Critical => "critical",
    };
    json!({
        "name": alarm.name,
        "subject": alarm.subject,
        "severity": severity,
        "message": alarm.message,
        "since": time::iso_ms(alarm.since.0),
        "node": alarm.node.map(node_name),
    })
}

/// One that is over.
#[must_use]
pub fn past_json(past: &alarms::Past) -> Value {
    let mut json = alarm_json(&past.alarm);
    json["cleared"] = time::iso_ms(past.cleared.0).into();
    if !past.by.is_empty() {
        json["cleared_by"] = (*past.by).into();
    }
    json
}
