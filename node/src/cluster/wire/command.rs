//! Batches and the commands in them.

use std::sync::Arc;

use fulmar_broker::state::command::{
    Batch, Claim, Command, Limits, LiveRoutes, PublishCommand, Release, Replay, Settlement, Subscription, Will,
};
use fulmar_broker::{LogTime, Publication};
use fulmar_mqtt::TopicFilter;
use fulmar_mqtt::packet::{RetainHandling, SubscriptionOptions};
use fulmar_platform::registry::Change;
use fulmar_proto::types::v1::{self as proto, command::Command as Message};

use super::{
    Error, Problem, Wire, copied, each, filter, node, optional, present, qos, reason, required, session,
    subscription_id, subscription_ids, text, topic,
};

impl Wire for Batch {
    type Message = proto::Batch;

    fn to_message(&self) -> proto::Batch {
        proto::Batch {
            origin: Some((self.node, self.generation).to_message()),
            seq: self.seq,
            at_ms: self.at.0,
            commands: self.commands.iter().map(Wire::to_message).collect(),
            term: self.term,
        }
    }

    fn from_message(message: proto::Batch) -> Result<Batch, Error> {
        let (node, generation) = required("origin", message.origin)?;
        let commands = each("commands", message.commands, Command::from_message)?;
        let at = LogTime(message.at_ms);
        Ok(Batch { node, generation, seq: message.seq, term: message.term, at, commands })
    }
}

impl Wire for Command {
    type Message = proto::Command;

    fn to_message(&self) -> proto::Command {
        let command = match self {
            Command::NodeUp { node, generation, address } => Message::NodeUp(proto::NodeUp {
                run: Some((*node, *generation).to_message()),
                address: copied(address),
            }),
            Command::NodeDown { node, generation } => {
                Message::NodeDown(proto::NodeDown { run: Some((*node, *generation).to_message()) })
            }
            Command::Claim(claim) => Message::Claim(claim.to_message()),
            Command::Release(release) => Message::Release(release.to_message()),
            Command::Subscribe { key, epoch, filters } => Message::Subscribe(proto::Subscribe {
                session: session(key, *epoch),
                filters: filters.iter().map(Wire::to_message).collect(),
            }),
            Command::Unsubscribe { key, epoch, filters } => Message::Unsubscribe(proto::Unsubscribe {
                session: session(key, *epoch),
                filters: filters.iter().map(|filter| copied(filter.as_str())).collect(),
            }),
            Command::Publish(publish) => Message::Publish(publish.to_message()),
            Command::Announce(publication) => {
                Message::Announce(proto::Announce { publication: Some(publication.to_message()) })
            }
            Command::SetRetained(publication) => {
                Message::SetRetained(proto::SetRetained { publication: Some(publication.to_message()) })
            }
            Command::ReleaseReceived { key, epoch, packet_id } => Message::ReleaseReceived(proto::ReleaseReceived {
                received: Some((key.clone(), *epoch, *packet_id).to_message()),
            }),
            Command::Settle(settlements) => {
                Message::Settle(proto::Settle { settlements: settlements.iter().map(Wire::to_message).collect() })
            }
            Command::ReplayRetained(replay) => Message::ReplayRetained(replay.to_message()),
            Command::FireWill { key, epoch } => Message::FireWill(proto::FireWill { session: session(key, *epoch) }),
            Command::ExpireSession { key, epoch } => {
                Message::ExpireSession(proto::ExpireSession { session: session(key, *epoch) })
            }
            Command::EndSession { key, epoch, reason } => {
                Message::EndSession(proto::EndSession { session: session(key, *epoch), reason: reason.byte().into() })
            }
            Command::ExpireRetained(topics) => Message::ExpireRetained(proto::ExpireRetained {
                topics: topics.iter().map(|topic| copied(topic.as_str())).collect(),
            }),
            Command::SetLimits(limits) => Message::SetLimits(proto::SetLimits { limits: Some(limits.to_message()) }),
            Command::LiveRoutes(routes) => Message::LiveRoutes(routes.to_message()),
            Command::RemoveNode { node } => Message::RemoveNode(proto::RemoveNode { node: node.0 }),
            Command::Expand => Message::Expand(proto::Expand {}),
            Command::Registry(change) => Message::Registry(Box::new(change.to_message())),
            Command::Plane(change) => Message::Plane(Box::new(change.to_message())),
            Command::Restore(step) => Message::Restore(step.to_message()),
            Command::Steer(change) => Message::Steer(Box::new(change.to_message())),
            Command::ForgetRoutes { node, generation } => {
                Message::ForgetRoutes(proto::ForgetRoutes { run: Some((*node, *generation).to_message()) })
            }
        };
        proto::Command { command: Some(command) }
    }

    fn from_message(message: proto::Command) -> Result<Command, Error> {
        let message = present("command", message.command)?;
        let name = name(&message);
        command(message).map_err(|error| error.within(name))
    }
}

/// The field of the oneof, for errors.
fn name(message: &Message) -> &'static str {
    match message {
        Message::NodeUp(_) => "node_up",
        Message::NodeDown(_) => "node_down",
        Message::Claim(_) => "claim",
        Message::Release(_) => "release",
        Message::Subscribe(_) => "subscribe",
        Message::Unsubscribe(_) => "unsubscribe",
        Message::Publish(_) => "publish",
        Message::SetRetained(_) => "set_retained",
        Message::ReleaseReceived(_) => "release_received",
        Message::Settle(_) => "settle",
        Message::ReplayRetained(_) => "replay_retained",
        Message::FireWill(_) => "fire_will",
        Message::ExpireSession(_) => "expire_session",
        Message::EndSession(_) => "end_session",
        Message::ExpireRetained(_) => "expire_retained",
        Message::SetLimits(_) => "set_limits",
        Message::LiveRoutes(_) => "live_routes",
        Message::RemoveNode(_) => "remove_node",
        Message::ForgetRoutes(_) => "forget_routes",
        Message::Expand(_) => "expand",
        Message::Registry(_) => "registry",
        Message::Plane(_) => "plane",
        Message::Steer(_) => "steer",
        Message::Announce(_) => "announce",
        Message::Restore(_) => "restore",
    }
}

fn command(message: Message) -> Result<Command, Error> {
    Ok(match message {
        Message::NodeUp(up) => {
            let (node, generation) = required("run", up.run)?;
            Command::NodeUp { node, generation, address: text("address", up.address)? }
        }
        Message::NodeDown(down) => {
            let (node, generation) = required("run", down.run)?;
            Command::NodeDown { node, generation }
        }
        Message::Claim(claim) => Command::Claim(Box::new(Claim::from_message(claim)?)),
        Message::Release(release) => Command::Release(Release::from_message(release)?),
        Message::Subscribe(subscribe) => {
            let (key, epoch) = required("session", subscribe.session)?;
            Command::Subscribe { key, epoch, filters: each("filters", subscribe.filters, Subscription::from_message)? }
        }
        Message::Unsubscribe(unsubscribe) => {
            let (key, epoch) = required("session", unsubscribe.session)?;
            Command::Unsubscribe { key, epoch, filters: each("filters", unsubscribe.filters, filter)? }
        }
        Message::Publish(publish) => Command::Publish(Box::new(PublishCommand::from_message(publish)?)),
        Message::Announce(announce) => {
            Command::Announce(Arc::new(required::<Publication>("publication", announce.publication)?))
        }
        Message::SetRetained(set) => {
            Command::SetRetained(Arc::new(required::<Publication>("publication", set.publication)?))
        }
        Message::ReleaseReceived(release) => {
            let (key, epoch, packet_id) = required("received", release.received)?;
            Command::ReleaseReceived { key, epoch, packet_id }
        }
        Message::Settle(settle) => Command::Settle(each("settlements", settle.settlements, Settlement::from_message)?),
        Message::ReplayRetained(replay) => Command::ReplayRetained(Box::new(Replay::from_message(replay)?)),
        Message::FireWill(fire) => {
            let (key, epoch) = required("session", fire.session)?;
            Command::FireWill { key, epoch }
        }
        Message::ExpireSession(expire) => {
            let (key, epoch) = required("session", expire.session)?;
            Command::ExpireSession { key, epoch }
        }
        Message::EndSession(end) => {
            let (key, epoch) = required("session", end.session)?;
            Command::EndSession { key, epoch, reason: reason("reason", end.reason)? }
        }
        Message::ExpireRetained(expire) => Command::ExpireRetained(each("topics", expire.topics, topic)?),
        Message::SetLimits(set) => Command::SetLimits(required("limits", set.limits)?),
        Message::LiveRoutes(routes) => Command::LiveRoutes(Box::new(LiveRoutes::from_message(routes)?)),
        Message::RemoveNode(remove) => Command::RemoveNode { node: node("node", remove.node)? },
        Message::Expand(proto::Expand {}) => Command::Expand,
        Message::Registry(change) => Command::Registry(Box::new(Change::from_message(*change)?)),
        Message::Plane(change) => Command::Plane(Box::new(Wire::from_message(*change)?)),
        Message::Restore(step) => Command::Restore(Box::new(Wire::from_message(step)?)),
        Message::Steer(change) => Command::Steer(Box::new(Wire::from_message(*change)?)),
        Message::ForgetRoutes(forget) => {
            let (node, generation) = required("run", forget.run)?;
            Command::ForgetRoutes { node, generation }
        }
    })
}

impl Wire for Claim {
    type Message = proto::Claim;

    fn to_message(&self) -> proto::Claim {
        proto::Claim {
            key: Some(self.key.to_message()),
            by: Some((self.node, self.generation).to_message()),
            clean_start: self.clean_start,
            expiry_s: self.expiry_s,
            will: self.will.as_ref().map(Wire::to_message),
            exclusive_client_id: self.exclusive_client_id.as_deref().map(copied),
            judged_by: self.judged_by,
        }
    }

    fn from_message(message: proto::Claim) -> Result<Claim, Error> {
        let (node, generation) = required("by", message.by)?;
        let client_id = message.exclusive_client_id.map(|client_id| text("exclusive_client_id", client_id));
        Ok(Claim {
            key: required("key", message.key)?,
            node,
            generation,
            clean_start: message.clean_start,
            expiry_s: message.expiry_s,
            will: optional("will", message.will)?,
            exclusive_client_id: client_id.transpose()?,
            judged_by: message.judged_by,
        })
    }
}

impl Wire for Will {
    type Message = proto::Will;

    fn to_message(&self) -> proto::Will {
        proto::Will {
            publication: Some(self.publication.to_message()),
            message_expiry_s: self.message_expiry_s,
            delay_s: self.delay_s,
        }
    }

    fn from_message(message: proto::Will) -> Result<Will, Error> {
        Ok(Will {
            publication: Arc::new(required::<Publication>("publication", message.publication)?),
            message_expiry_s: message.message_expiry_s,
            delay_s: message.delay_s,
        })
    }
}

impl Wire for Release {
    type Message = proto::Release;

    fn to_message(&self) -> proto::Release {
        proto::Release {
            session: session(&self.key, self.epoch),
            discard_will: self.discard_will,
            expiry_s: self.expiry_s,
            sent_below: self.sent_below,
        }
    }

    fn from_message(message: proto::Release) -> Result<Release, Error> {
        let (key, epoch) = required("session", message.session)?;
        Ok(Release {
            key,
            epoch,
            discard_will: message.discard_will,
            expiry_s: message.expiry_s,
            sent_below: message.sent_below,
        })
    }
}

impl Wire for Subscription {
    type Message = proto::Subscription;

    fn to_message(&self) -> proto::Subscription {
        proto::Subscription {
            filter: copied(self.filter.as_str()),
            qos: self.options.qos as i32,
            no_local: self.options.no_local,
            retain_as_published: self.options.retain_as_published,
            retain_handling: self.options.retain_handling as i32,
            id: self.id,
        }
    }

    fn from_message(message: proto::Subscription) -> Result<Subscription, Error> {
        let retain_handling = match proto::RetainHandling::try_from(message.retain_handling) {
            Ok(proto::RetainHandling::Always) => RetainHandling::Always,
            Ok(proto::RetainHandling::IfNew) => RetainHandling::IfNew,
            Ok(proto::RetainHandling::Never) => RetainHandling::Never,
            Err(_) => return Err(Error::new("retain_handling", Problem::Unknown(message.retain_handling))),
        };
        Ok(Subscription {
            filter: filter(message.filter).map_err(|error| error.within("filter"))?,
            options: SubscriptionOptions {
                qos: qos("qos", message.qos)?,
                no_local: message.no_local,
                retain_as_published: message.retain_as_published,
                retain_handling,
            },
            id: message.id.map(|id| subscription_id("id", id)).transpose()?,
        })
    }
}

impl Wire for PublishCommand {
    type Message = proto::Publish;

    fn to_message(&self) -> proto::Publish {
        proto::Publish {
            publication: Some(self.publication.to_message()),
            received: self.received.as_ref().map(Wire::to_message),
            only: self.only.as_ref().map(Wire::to_message),
            origin_epoch: self.epoch.map(|epoch| epoch.0),
        }
    }

    fn from_message(message: proto::Publish) -> Result<PublishCommand, Error> {
        Ok(PublishCommand {
            publication: Arc::new(required::<Publication>("publication", message.publication)?),
            received: optional("received", message.received)?,
            only: optional("only", message.only)?,
            epoch: message.origin_epoch.map(fulmar_broker::Epoch),
        })
    }
}

impl Wire for Settlement {
    type Message = proto::Settlement;

    fn to_message(&self) -> proto::Settlement {
        proto::Settlement {
            session: session(&self.key, self.epoch),
            floor: self.floor,
            settled: self.settled.clone(),
            received: self.received.clone(),
            refused: self.refused.clone(),
        }
    }

    fn from_message(message: proto::Settlement) -> Result<Settlement, Error> {
        let (key, epoch) = required("session", message.session)?;
        Ok(Settlement {
            key,
            epoch,
            floor: message.floor,
            settled: message.settled,
            received: message.received,
            refused: message.refused,
        })
    }
}

impl Wire for Replay {
    type Message = proto::ReplayRetained;

    fn to_message(&self) -> proto::ReplayRetained {
        proto::ReplayRetained {
            session: session(&self.key, self.epoch),
            filter: copied(self.filter.as_str()),
            granted_qos: self.granted as i32,
            subscription_ids: self.subscription_ids.to_vec(),
            topics: self.topics.iter().map(|topic| copied(topic.as_str())).collect(),
        }
    }

    fn from_message(message: proto::ReplayRetained) -> Result<Replay, Error> {
        let (key, epoch) = required("session", message.session)?;
        Ok(Replay {
            key,
            epoch,
            filter: filter(message.filter).map_err(|error| error.within("filter"))?,
            granted: qos("granted_qos", message.granted_qos)?,
            subscription_ids: subscription_ids("subscription_ids", message.subscription_ids)?,
            topics: each("topics", message.topics, topic)?,
        })
    }
}

impl Wire for LiveRoutes {
    type Message = proto::LiveRoutes;

    fn to_message(&self) -> proto::LiveRoutes {
        let copied = |filters: &[TopicFilter]| filters.iter().map(|filter| copied(filter.as_str())).collect();
        proto::LiveRoutes {
            run: Some((self.node, self.generation).to_message()),
            add: copied(&self.add),
            remove: copied(&self.remove),
        }
    }

    fn from_message(message: proto::LiveRoutes) -> Result<LiveRoutes, Error> {
        let (node, generation) = required("run", message.run)?;
        let (add, remove) = (each("add", message.add, filter)?, each("remove", message.remove, filter)?);
        Ok(LiveRoutes { node, generation, add, remove })
    }
}

impl Wire for Limits {
    type Message = proto::Limits;

    fn to_message(&self) -> proto::Limits {
        proto::Limits {
            replicated_bytes_max: self.replicated_bytes_max,
            queue_entries_max: self.queue_entries_max,
            queue_bytes_max: self.queue_bytes_max,
            session_expiry_s_max: self.session_expiry_s_max,
            sessions_max: self.sessions_max,
            retained_max: self.retained_max,
            queue_ttl_s: self.queue_ttl_s,
            rule_backlog_bytes_max: Some(self.rule_backlog_bytes_max),
        }
    }

    /// 0 is a bound like any other. Records of before there were backlogs do not name theirs.
    fn from_message(message: proto::Limits) -> Result<Limits, Error> {
        Ok(Limits {
            replicated_bytes_max: message.replicated_bytes_max,
            queue_entries_max: message.queue_entries_max,
            queue_bytes_max: message.queue_bytes_max,
            session_expiry_s_max: message.session_expiry_s_max,
            sessions_max: message.sessions_max,
            retained_max: message.retained_max,
            queue_ttl_s: message.queue_ttl_s,
            rule_backlog_bytes_max: message
                .rule_backlog_bytes_max
                .unwrap_or_else(|| Limits::default().rule_backlog_bytes_max),
        })
    }
}
