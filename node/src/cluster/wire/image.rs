//! Parts of a snapshot of the replicated state.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use fulmar_broker::state::command::{Claimed, Limits, Outcome, Owner, Phase, Subscription, Will};
use fulmar_broker::state::image::{
    DepotPart, EntryPart, ExpansionPart, FallenPart, Head, LiveRoutesPart, OriginPart, Part, Place, ReceiverPart,
    ResultsPart, RetainedPart, SessionPart,
};
use fulmar_broker::state::{Books, Dropped};
use fulmar_broker::{Epoch, LogTime, Publication};
use fulmar_mqtt::TopicFilter;
use fulmar_proto::Message as _;
use fulmar_proto::types::v1::{self as proto, outcome::Outcome as OutcomeMessage, snapshot_record::Part as Message};

use super::{
    Error, Problem, Wire, check_version, copied, each, field, filter, node, optional, packet_id, present, qos, reason,
    required, subscription_ids, text,
};

/// A part as a stored record.
#[must_use]
pub fn encode_part(part: &Part) -> Bytes {
    let part = Some(part.to_message());
    proto::SnapshotRecord { format_version: proto::FORMAT_VERSION, part }.encode_to_vec().into()
}

/// A stored record as the part that it must be, whose bytes are slices of the record.
///
/// # Errors
/// The first field that is not as it must be.
pub fn decode_part(bytes: Bytes) -> Result<Part, Error> {
    let record = proto::SnapshotRecord::decode(bytes).map_err(|error| Error::new("", Problem::NotProtobuf(error)))?;
    check_version(record.format_version)?;
    Part::from_message(present("part", record.part)?)
}

impl Wire for Part {
    type Message = Message;

    fn to_message(&self) -> Message {
        match self {
            Part::Head(head) => Message::Head(head.to_message()),
            Part::Origin(origin) => Message::Origin(origin.to_message()),
            Part::Results(results) => Message::Results(results.to_message()),
            Part::Fallen(fallen) => Message::Fallen(fallen.to_message()),
            Part::LiveRoutes(routes) => Message::LiveRoutes(routes.to_message()),
            Part::Registry(filed) => Message::Registry(Box::new(filed.to_message())),
            Part::Retained(retained) => Message::Retained(retained.to_message()),
            Part::Session(session) => Message::Session(session.to_message()),
            Part::Subscriptions(list) => {
                Message::Subscriptions(proto::SnapshotSubscriptions { subscriptions: messages(list) })
            }
            Part::Queue(entries) => Message::Queue(proto::SnapshotQueue { entries: messages(entries) }),
            Part::Expansion(expansion) => Message::Expansion(expansion.to_message()),
            Part::Plane(filed) => Message::Plane(Box::new(filed.to_message())),
            Part::Steer(filed) => Message::Steer(Box::new(filed.to_message())),
            Part::End => Message::End(proto::SnapshotEnd {}),
        }
    }

    fn from_message(message: Message) -> Result<Part, Error> {
        Ok(match message {
            Message::Head(head) => Part::Head(Box::new(field("head", head)?)),
            Message::Origin(origin) => Part::Origin(field("origin", origin)?),
            Message::Results(results) => Part::Results(field("results", results)?),
            Message::Fallen(fallen) => Part::Fallen(field("fallen", fallen)?),
            Message::LiveRoutes(routes) => Part::LiveRoutes(field("live_routes", routes)?),
            Message::Registry(filed) => Part::Registry(Box::new(field("registry", *filed)?)),
            Message::Retained(retained) => Part::Retained(field("retained", retained)?),
            Message::Session(session) => Part::Session(Box::new(field("session", session)?)),
            Message::Subscriptions(list) => {
                Part::Subscriptions(each("subscriptions.subscriptions", list.subscriptions, Wire::from_message)?)
            }
            Message::Queue(queue) => Part::Queue(each("queue.entries", queue.entries, Wire::from_message)?),
            Message::Expansion(expansion) => Part::Expansion(field("expansion", expansion)?),
            Message::Plane(filed) => Part::Plane(Box::new(field("plane", *filed)?)),
            Message::Steer(filed) => Part::Steer(Box::new(field("steer", *filed)?)),
            Message::End(proto::SnapshotEnd {}) => Part::End,
        })
    }
}

fn messages<T: Wire>(list: &[T]) -> Vec<T::Message> {
    list.iter().map(Wire::to_message).collect()
}

/// The shared subscription that chose a session; empty if none did.
fn group_bytes(group: Option<&Arc<TopicFilter>>) -> Bytes {
    group.map(|filter| copied(filter.as_str())).unwrap_or_default()
}

fn group(name: &str, bytes: Bytes) -> Result<Option<Arc<TopicFilter>>, Error> {
    let group = Some(bytes).filter(|bytes| !bytes.is_empty()).map(filter).transpose();
    group.map(|group| group.map(Arc::new)).map_err(|error| error.within(name))
}

fn received(ids: &[u16]) -> Vec<u32> {
    ids.iter().copied().map(u32::from).collect()
}

impl Wire for Head {
    type Message = proto::SnapshotHead;

    fn to_message(&self) -> proto::SnapshotHead {
        proto::SnapshotHead {
            limits: Some(self.limits.to_message()),
            now_ms: self.now.0,
            position: self.position,
            routes_at: self.routes_at,
            epoch_last: self.epoch_last,
            bodies_made: self.bodies_made,
            books: Some(self.books.to_message()),
            bytes: self.bytes,
            sessions: self.sessions,
            retained: self.retained,
            removed: self.removed.iter().map(|node| node.0).collect(),
            registry_key: self.registry_key.as_ref().map(Wire::to_message),
            registry_last: self.registry_last,
            devices: self.devices,
            restoring: self.restoring.as_deref().map(|restore| Box::new(restore.to_message())),
        }
    }

    fn from_message(message: proto::SnapshotHead) -> Result<Head, Error> {
        Ok(Head {
            limits: required::<Limits>("limits", message.limits)?,
            now: LogTime(message.now_ms),
            position: message.position,
            routes_at: message.routes_at,
            epoch_last: message.epoch_last,
            bodies_made: message.bodies_made,
            books: required("books", message.books)?,
            bytes: message.bytes,
            sessions: message.sessions,
            retained: message.retained,
            removed: each("removed", message.removed, |id| node("", id))?,
            registry_key: optional("registry_key", message.registry_key)?,
            registry_last: message.registry_last,
            devices: message.devices,
            restoring: optional("restoring", message.restoring.map(|restore| *restore))?.map(Box::new),
        })
    }
}

impl Wire for Books {
    type Message = proto::Books;

    fn to_message(&self) -> proto::Books {
        proto::Books {
            created: self.created,
            delivered: self.delivered,
            queued: self.queued,
            expired: self.expired,
            queue_full: self.dropped(Dropped::QueueFull),
            cluster_full: self.dropped(Dropped::ClusterFull),
            session_discarded: self.dropped(Dropped::SessionDiscarded),
            session_expired: self.dropped(Dropped::SessionExpired),
            refused: self.dropped(Dropped::Refused),
            downgraded: self.dropped(Dropped::Downgraded),
        }
    }

    fn from_message(message: proto::Books) -> Result<Books, Error> {
        let mut books = Books::default();
        (books.created, books.delivered) = (message.created, message.delivered);
        (books.queued, books.expired) = (message.queued, message.expired);
        Ok(books
            .with_dropped(Dropped::QueueFull, message.queue_full)
            .with_dropped(Dropped::ClusterFull, message.cluster_full)
            .with_dropped(Dropped::SessionDiscarded, message.session_discarded)
            .with_dropped(Dropped::SessionExpired, message.session_expired)
            .with_dropped(Dropped::Refused, message.refused)
            .with_dropped(Dropped::Downgraded, message.downgraded))
    }
}

impl Wire for OriginPart {
    type Message = proto::SnapshotOrigin;

    fn to_message(&self) -> proto::SnapshotOrigin {
        let run = Some((self.node, self.generation).to_message());
        proto::SnapshotOrigin { run, alive: self.alive, applied: self.applied, address: copied(&self.address) }
    }

    fn from_message(message: proto::SnapshotOrigin) -> Result<OriginPart, Error> {
        let (node, generation) = required("run", message.run)?;
        let address = text("address", message.address)?;
        Ok(OriginPart { node, generation, alive: message.alive, applied: message.applied, address })
    }
}

impl Wire for ResultsPart {
    type Message = proto::SnapshotResults;

    fn to_message(&self) -> proto::SnapshotResults {
        proto::SnapshotResults { seq: self.seq, outcomes: messages(&self.outcomes) }
    }

    fn from_message(message: proto::SnapshotResults) -> Result<ResultsPart, Error> {
        let outcomes = each("outcomes", message.outcomes, Wire::from_message)?;
        Ok(ResultsPart { seq: message.seq, outcomes })
    }
}

impl Wire for Outcome {
    type Message = proto::Outcome;

    fn to_message(&self) -> proto::Outcome {
        let existed = |existed: &[bool]| proto::OutcomeExisted { existed: existed.to_vec() };
        let outcome = match self {
            Outcome::Done => OutcomeMessage::Done(proto::OutcomeDone {}),
            Outcome::Claimed(claimed) => OutcomeMessage::Claimed(claimed.to_message()),
            Outcome::Subscribed(before) => OutcomeMessage::Subscribed(existed(before)),
            Outcome::Unsubscribed(before) => OutcomeMessage::Unsubscribed(existed(before)),
            Outcome::Published { receivers } => {
                OutcomeMessage::Published(proto::OutcomePublished { receivers: *receivers })
            }
            Outcome::Shared { receivers, groups } => {
                let groups = groups.iter().map(|group| copied(group.as_str())).collect();
                OutcomeMessage::Shared(proto::OutcomeShared { receivers: *receivers, groups })
            }
            Outcome::Registry(changed) => OutcomeMessage::Registry(changed.to_message()),
            Outcome::Plane(answer) => OutcomeMessage::Plane(Box::new(answer.to_message())),
            Outcome::Steer(answer) => OutcomeMessage::Steer(answer.to_message()),
            Outcome::Stale => OutcomeMessage::Stale(proto::OutcomeStale {}),
            Outcome::Refused(reason) => OutcomeMessage::Refused(proto::OutcomeRefused { reason: reason.byte().into() }),
        };
        proto::Outcome { outcome: Some(outcome) }
    }

    fn from_message(message: proto::Outcome) -> Result<Outcome, Error> {
        Ok(match present("outcome", message.outcome)? {
            OutcomeMessage::Done(proto::OutcomeDone {}) => Outcome::Done,
            OutcomeMessage::Claimed(claimed) => Outcome::Claimed(Box::new(field("claimed", claimed)?)),
            OutcomeMessage::Subscribed(before) => Outcome::Subscribed(before.existed),
            OutcomeMessage::Unsubscribed(before) => Outcome::Unsubscribed(before.existed),
            OutcomeMessage::Published(published) => Outcome::Published { receivers: published.receivers },
            OutcomeMessage::Shared(shared) => Outcome::Shared {
                receivers: shared.receivers,
                groups: each("shared.groups", shared.groups, |bytes| filter(bytes).map(Arc::new))?,
            },
            OutcomeMessage::Stale(proto::OutcomeStale {}) => Outcome::Stale,
            OutcomeMessage::Plane(answer) => Outcome::Plane(field("plane", *answer)?),
            OutcomeMessage::Steer(answer) => Outcome::Steer(field("steer", answer)?),
            OutcomeMessage::Registry(changed) => Outcome::Registry(field("registry", changed)?),
            OutcomeMessage::Refused(refused) => Outcome::Refused(reason("refused.reason", refused.reason)?),
        })
    }
}

impl Wire for Claimed {
    type Message = proto::OutcomeClaimed;

    fn to_message(&self) -> proto::OutcomeClaimed {
        proto::OutcomeClaimed {
            epoch: self.epoch.0,
            session_present: self.session_present,
            previous: self.previous.as_ref().map(Wire::to_message),
            subscriptions: messages(&self.subscriptions),
            received: received(&self.received),
            queue_floor: self.queue_floor,
        }
    }

    fn from_message(message: proto::OutcomeClaimed) -> Result<Claimed, Error> {
        Ok(Claimed {
            epoch: Epoch(message.epoch),
            session_present: message.session_present,
            previous: optional("previous", message.previous)?,
            subscriptions: each("subscriptions", message.subscriptions, Subscription::from_message)?,
            received: each("received", message.received, |id| packet_id("", id))?,
            queue_floor: message.queue_floor,
        })
    }
}

impl Wire for Owner {
    type Message = proto::Owner;

    fn to_message(&self) -> proto::Owner {
        proto::Owner { run: Some((self.node, self.generation).to_message()), epoch: self.epoch.0 }
    }

    fn from_message(message: proto::Owner) -> Result<Owner, Error> {
        let (node, generation) = required("run", message.run)?;
        Ok(Owner { node, generation, epoch: Epoch(message.epoch) })
    }
}

impl Wire for FallenPart {
    type Message = proto::SnapshotFallen;

    fn to_message(&self) -> proto::SnapshotFallen {
        proto::SnapshotFallen { run: Some((self.node, self.generation).to_message()), at_ms: self.at.0 }
    }

    fn from_message(message: proto::SnapshotFallen) -> Result<FallenPart, Error> {
        let (node, generation) = required("run", message.run)?;
        Ok(FallenPart { node, generation, at: LogTime(message.at_ms) })
    }
}

impl Wire for LiveRoutesPart {
    type Message = proto::SnapshotLiveRoutes;

    fn to_message(&self) -> proto::SnapshotLiveRoutes {
        proto::SnapshotLiveRoutes {
            run: Some((self.node, self.generation).to_message()),
            filters: self.filters.iter().map(|filter| copied(filter.as_str())).collect(),
        }
    }

    fn from_message(message: proto::SnapshotLiveRoutes) -> Result<LiveRoutesPart, Error> {
        let (node, generation) = required("run", message.run)?;
        Ok(LiveRoutesPart { node, generation, filters: each("filters", message.filters, filter)? })
    }
}

impl Wire for RetainedPart {
    type Message = proto::SnapshotRetained;

    fn to_message(&self) -> proto::SnapshotRetained {
        proto::SnapshotRetained { publication: Some(self.publication.to_message()), body: self.body }
    }

    fn from_message(message: proto::SnapshotRetained) -> Result<RetainedPart, Error> {
        let publication = Arc::new(required::<Publication>("publication", message.publication)?);
        Ok(RetainedPart { publication, body: message.body })
    }
}

impl Wire for SessionPart {
    type Message = proto::SnapshotSession;

    fn to_message(&self) -> proto::SnapshotSession {
        let (owner, released_at_ms) = match self.place {
            Place::Owned { node, generation } => (Some((node, generation).to_message()), None),
            Place::Released { at } => (None, Some(at.0)),
        };
        proto::SnapshotSession {
            key: Some(self.key.to_message()),
            epoch: self.epoch.0,
            owner,
            released_at_ms,
            expiry_s: self.expiry_s,
            will: self.will.as_ref().map(|will| will.to_message()),
            subscriptions: messages(&self.subscriptions),
            depot: self.depot.as_ref().map(Wire::to_message),
            cut: self.cut.map(|reason| reason.byte().into()),
        }
    }

    fn from_message(message: proto::SnapshotSession) -> Result<SessionPart, Error> {
        let place = match (optional("owner", message.owner)?, message.released_at_ms) {
            (Some((node, generation)), None) => Place::Owned { node, generation },
            (None, Some(at)) => Place::Released { at: LogTime(at) },
            (None, None) => return Err(Error::new("owner", Problem::Missing)),
            (Some(_), Some(_)) => return Err(Error::new("released_at_ms", Problem::Unwanted)),
        };
        Ok(SessionPart {
            key: required("key", message.key)?,
            epoch: Epoch(message.epoch),
            place,
            expiry_s: message.expiry_s,
            will: optional::<Will>("will", message.will)?.map(Arc::new),
            subscriptions: each("subscriptions", message.subscriptions, Wire::from_message)?,
            depot: optional("depot", message.depot)?,
            cut: message.cut.map(|byte| reason("cut", byte)).transpose()?,
        })
    }
}

impl Wire for DepotPart {
    type Message = proto::SnapshotDepot;

    fn to_message(&self) -> proto::SnapshotDepot {
        proto::SnapshotDepot {
            next_seq: self.next_seq,
            offered: self.offered,
            expires_next_ms: self.expires_next.map(|at| at.0),
            received: received(&self.received),
        }
    }

    fn from_message(message: proto::SnapshotDepot) -> Result<DepotPart, Error> {
        Ok(DepotPart {
            next_seq: message.next_seq,
            offered: message.offered,
            expires_next: message.expires_next_ms.map(LogTime),
            received: each("received", message.received, |id| packet_id("", id))?,
        })
    }
}

impl Wire for EntryPart {
    type Message = proto::SnapshotEntry;

    fn to_message(&self) -> proto::SnapshotEntry {
        proto::SnapshotEntry {
            seq: self.seq,
            body: self.body,
            publication: self.publication.as_ref().map(|publication| publication.to_message()),
            expires_at_ms: self.expires_at.map(|at| at.0),
            subscription_ids: self.subscription_ids.to_vec(),
            group: group_bytes(self.group.as_ref()),
            qos: self.qos as i32,
            retain: self.retain,
            phase: match self.phase {
                Phase::Queued => proto::Phase::Queued,
                Phase::Received => proto::Phase::Received,
            }
            .into(),
        }
    }

    fn from_message(message: proto::SnapshotEntry) -> Result<EntryPart, Error> {
        let phase = match proto::Phase::try_from(message.phase) {
            Ok(proto::Phase::Queued) => Phase::Queued,
            Ok(proto::Phase::Received) => Phase::Received,
            Err(_) => return Err(Error::new("phase", Problem::Unknown(message.phase))),
        };
        Ok(EntryPart {
            seq: message.seq,
            body: message.body,
            publication: optional::<Publication>("publication", message.publication)?.map(Arc::new),
            expires_at: message.expires_at_ms.map(LogTime),
            subscription_ids: subscription_ids("subscription_ids", message.subscription_ids)?,
            group: group("group", message.group)?,
            qos: qos("qos", message.qos)?,
            retain: message.retain,
            phase,
        })
    }
}

impl Wire for ExpansionPart {
    type Message = proto::SnapshotExpansion;

    fn to_message(&self) -> proto::SnapshotExpansion {
        proto::SnapshotExpansion {
            continues: self.continues,
            body: self.body,
            publication: self.publication.as_ref().map(|publication| publication.to_message()),
            expires_at_ms: self.expires_at.map(|at| at.0),
            receivers: messages(&self.receivers),
        }
    }

    fn from_message(message: proto::SnapshotExpansion) -> Result<ExpansionPart, Error> {
        Ok(ExpansionPart {
            continues: message.continues,
            body: message.body,
            publication: optional::<Publication>("publication", message.publication)?.map(Arc::new),
            expires_at: message.expires_at_ms.map(LogTime),
            receivers: each("receivers", message.receivers, Wire::from_message)?,
        })
    }
}

impl Wire for ReceiverPart {
    type Message = proto::SnapshotReceiver;

    fn to_message(&self) -> proto::SnapshotReceiver {
        proto::SnapshotReceiver {
            key: Some(self.key.to_message()),
            qos: self.qos as i32,
            retain_as_published: self.retain_as_published,
            subscription_ids: self.subscription_ids.to_vec(),
            group: group_bytes(self.group.as_ref()),
        }
    }

    fn from_message(message: proto::SnapshotReceiver) -> Result<ReceiverPart, Error> {
        Ok(ReceiverPart {
            key: required("key", message.key)?,
            qos: qos("qos", message.qos)?,
            retain_as_published: message.retain_as_published,
            subscription_ids: subscription_ids("subscription_ids", message.subscription_ids)?,
            group: group("group", message.group)?,
        })
    }
}
