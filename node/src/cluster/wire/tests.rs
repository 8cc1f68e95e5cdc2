use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fulmar_broker::state::RestoreStep;
use fulmar_broker::state::command::*;
use fulmar_broker::{LogTime, Publication, Via};
use fulmar_mqtt::packet::{RetainHandling, SubscriptionOptions};
use fulmar_mqtt::property::{ForwardProperties, ForwardProperty};

use super::*;

fn key(identity: &str) -> SessionKey {
    SessionKey::new("default", "generic", identity)
}

fn topic_name(text: &str) -> TopicName {
    TopicName::new(text).expect("a topic name")
}

fn topic_filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("a topic filter")
}

/// A publication with everything, and one with as little as there can be.
fn publications() -> [Publication; 2] {
    let forward = ForwardProperties::from_properties(&[
        ForwardProperty::User("b".into(), "2".into()),
        ForwardProperty::ContentType("text".into()),
        ForwardProperty::User("a".into(), "1".into()),
    ])
    .expect("properties that are forwarded");
    [
        Publication {
            topic: topic_name("a/\u{e9}"),
            payload: Bytes::from_static(&[0, 255, 128]),
            qos: QoS::ExactlyOnce,
            retain: true,
            forward,
            origin: Some(key("p")),
            accepted_at: LogTime(u64::MAX),
            expires_at: Some(LogTime(0)),
            via: Via::Client,
            trace: 0x0005_0000_0000_0007,
        },
        Publication {
            topic: topic_name("a"),
            payload: Bytes::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            forward: ForwardProperties::default(),
            origin: None,
            accepted_at: LogTime(0),
            expires_at: None,
            via: Via::Server,
            trace: 0,
        },
    ]
}

/// Every command, with all its fields and with none that can be absent.
fn commands() -> Vec<Command> {
    let (node, generation, epoch) = (NodeId(u64::MAX), Generation(3), Epoch(7));
    let mut commands = vec![
        Command::NodeUp { node, generation, address: "h\u{e9}:7400".into() },
        Command::NodeUp { node, generation, address: "".into() },
        Command::NodeDown { node, generation: Generation(0) },
        Command::Unsubscribe { key: key("s"), epoch, filters: vec![topic_filter("a/#"), topic_filter("$share/g/+")] },
        Command::ReleaseReceived { key: key("s"), epoch, packet_id: 65_535 },
        Command::Settle(Vec::new()),
        Command::Settle(vec![
            Settlement {
                key: key("s"),
                epoch,
                floor: u64::MAX,
                settled: vec![1, u64::MAX],
                received: vec![2],
                refused: vec![3],
            },
            Settlement { key: key(""), epoch, floor: 0, settled: vec![], received: vec![], refused: vec![] },
        ]),
        Command::FireWill { key: key("s"), epoch },
        Command::LiveRoutes(Box::new(LiveRoutes {
            node,
            generation,
            add: vec![topic_filter("a/#"), topic_filter("+")],
            remove: vec![topic_filter("b")],
        })),
        Command::LiveRoutes(Box::new(LiveRoutes { node, generation, add: vec![], remove: vec![] })),
        Command::RemoveNode { node },
        Command::Expand,
        Command::ForgetRoutes { node, generation },
        Command::ExpireSession { key: key("s"), epoch: Epoch(0) },
        Command::EndSession { key: key("s"), epoch, reason: fulmar_mqtt::ReasonCode::AdministrativeAction },
        Command::ExpireRetained(vec![topic_name("a/b"), topic_name("a")]),
        Command::SetLimits(Limits::default()),
        Command::SetLimits(Limits { sessions_max: 0, queue_ttl_s: 1, rule_backlog_bytes_max: 0, ..Limits::default() }),
        Command::Release(Release { key: key("s"), epoch, discard_will: true, expiry_s: Some(0), sent_below: Some(7) }),
        Command::Release(Release { key: key("s"), epoch, discard_will: false, expiry_s: None, sent_below: None }),
        Command::ReplayRetained(Box::new(Replay {
            key: key("s"),
            epoch,
            filter: topic_filter("a/+"),
            granted: QoS::AtLeastOnce,
            subscription_ids: [1, 268_435_455, 3].into_iter().collect(),
            topics: vec![topic_name("a/b"), topic_name("a/c")],
        })),
    ];
    for retain_handling in [RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never] {
        for (qos, flag) in [(QoS::AtMostOnce, false), (QoS::AtLeastOnce, true), (QoS::ExactlyOnce, false)] {
            let options = SubscriptionOptions { qos, no_local: flag, retain_as_published: !flag, retain_handling };
            let subscription = Subscription { filter: topic_filter("a"), options, id: flag.then_some(9) };
            commands.push(Command::Subscribe { key: key("s"), epoch, filters: vec![subscription] });
        }
    }
    for publication in publications().map(Arc::new) {
        let full = publication.qos == QoS::ExactlyOnce;
        let will = Will { publication: publication.clone(), message_expiry_s: full.then_some(0), delay_s: 5 };
        let claim = Claim {
            key: key("s"),
            node,
            generation,
            clean_start: full,
            expiry_s: 60,
            will: full.then_some(will.clone()),
            exclusive_client_id: full.then(|| "c\u{e9}".into()),
            judged_by: full.then_some(u64::MAX),
        };
        commands.push(Command::Claim(Box::new(claim.clone())));
        commands.push(Command::Claim(Box::new(Claim { will: Some(will), ..claim })));
        commands.push(Command::Publish(Box::new(PublishCommand {
            publication: publication.clone(),
            received: full.then(|| (key("s"), epoch, 1)),
            only: (!full).then(|| key("t")),
            epoch: full.then_some(epoch),
        })));
        commands.push(Command::Announce(publication.clone()));
        commands.push(Command::SetRetained(Arc::new(Publication { via: Via::Will, ..(*publication).clone() })));
    }
    commands.extend(registry::tests::changes().into_iter().map(|change| Command::Registry(Box::new(change))));
    let head = Box::new(fulmar_broker::state::image::Head { epoch_last: 7, ..Default::default() });
    let parts = vec![fulmar_broker::state::image::Part::Subscriptions(vec![]), fulmar_broker::state::image::Part::End];
    for step in [
        RestoreStep::Begin { id: u64::MAX, replace: true, head },
        RestoreStep::Parts { id: 1, number: 2, parts },
        RestoreStep::End { id: 1, number: 3 },
    ] {
        commands.push(Command::Restore(Box::new(step)));
    }
    commands.extend(plane::changes().into_iter().map(|change| Command::Plane(Box::new(change))));
    commands.extend(steer::tests::changes().into_iter().map(|change| Command::Steer(Box::new(change))));
    commands
}

fn batch(commands: Vec<Command>) -> Batch {
    Batch { node: NodeId(1), generation: Generation(2), seq: 3, term: None, at: LogTime(4), commands }
}

#[test]
fn every_command_comes_back() {
    let commands = commands();
    let kinds: std::collections::HashSet<_> = commands.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 25, "a command is missing from the samples");
    for command in &commands {
        assert_eq!(Command::from_message(command.to_message()).as_ref(), Ok(command));
    }
    let batch = batch(commands);
    let unnumbered = Batch { seq: 0, term: Some(0), ..batch.clone() };
    for batch in [batch, unnumbered] {
        assert_eq!(decode_batch(encode_batch(&batch)), Ok(batch));
    }
}

#[test]
fn properties_keep_their_order() {
    let [publication, _] = publications();
    let back = Publication::from_message(publication.to_message()).expect("as it was");
    assert!(back.forward.iter().eq(publication.forward.iter()));
}

/// Truncated and altered records are refused or read as something else, and never panic.
#[test]
fn damaged_records_are_no_panic() {
    let bytes = encode_batch(&batch(commands()));
    for length in 0..bytes.len() {
        assert!(decode_batch(bytes.slice(..length)).is_err(), "cut to {length} of {} bytes", bytes.len());
    }
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xFF] {
            let mut damaged = BytesMut::from(bytes.as_ref());
            damaged[at] ^= flip;
            let _ = decode_batch(damaged.freeze());
        }
    }
}

#[test]
fn errors_name_the_field() {
    use proto::command::Command as C;
    let good = || publications()[0].to_message();
    let publish = |publication| C::Publish(proto::Publish { publication: Some(publication), ..Default::default() });
    let session = || session(&key("s"), Epoch(1));
    let run = || Some(proto::NodeRun { node: 1, generation: 1 });
    let subscription = || proto::Subscription { filter: "a".into(), ..Default::default() };
    let subscribe =
        |filter| C::Subscribe(proto::Subscribe { session: session(), filters: vec![subscription(), filter] });
    let nobody = || Some(proto::SessionKey { tenant: vec![0xFF].into(), ..Default::default() });
    for (command, wanted) in [
        (C::NodeUp(proto::NodeUp::default()), "node_up.run is missing"),
        (C::NodeUp(proto::NodeUp { run: run(), address: vec![0xFF].into() }), "node_up.address is not UTF-8"),
        (C::RemoveNode(proto::RemoveNode { node: 0 }), "remove_node.node is missing"),
        (C::ForgetRoutes(proto::ForgetRoutes { run: None }), "forget_routes.run is missing"),
        (C::LiveRoutes(proto::LiveRoutes::default()), "live_routes.run is missing"),
        (
            C::LiveRoutes(proto::LiveRoutes { run: run(), add: vec!["a".into(), "a#".into()], remove: vec![] }),
            "live_routes.add[1] has a '#'",
        ),
        (
            C::LiveRoutes(proto::LiveRoutes { run: run(), add: vec![], remove: vec!["".into()] }),
            "live_routes.remove[0] is empty",
        ),
        (C::NodeDown(proto::NodeDown { run: Some(Default::default()) }), "node_down.run.node is missing"),
        (C::Claim(proto::Claim { by: None, ..Default::default() }), "claim.by is missing"),
        (C::Claim(proto::Claim { by: run(), ..Default::default() }), "claim.key is missing"),
        (C::Claim(proto::Claim { by: run(), key: nobody(), ..Default::default() }), "claim.key.tenant is not UTF-8"),
        (
            C::Claim(proto::Claim {
                by: run(),
                key: Some(Default::default()),
                will: Some(Default::default()),
                ..Default::default()
            }),
            "claim.will.publication is missing",
        ),
        (
            C::Claim(proto::Claim {
                by: run(),
                key: Some(Default::default()),
                exclusive_client_id: Some(vec![0xFF].into()),
                ..Default::default()
            }),
            "claim.exclusive_client_id is not UTF-8",
        ),
        (C::Registry(Box::new(proto::RegistryChange { change: None })), "registry.change is missing"),
        (C::Release(proto::Release::default()), "release.session is missing"),
        (C::EndSession(proto::EndSession::default()), "end_session.session is missing"),
        (
            C::EndSession(proto::EndSession {
                session: Some(proto::SessionEpoch { key: key("s").to_message().into(), epoch: 1 }),
                reason: 5,
            }),
            "end_session.reason is 5, out of its range",
        ),
        (C::FireWill(proto::FireWill { session: Some(Default::default()) }), "fire_will.session.key is missing"),
        (
            publish(proto::Publication { format_version: 0, ..good() }),
            "publish.publication.format_version has the format version 0; this program reads 1 to 1",
        ),
        (
            publish(proto::Publication { format_version: 2, ..good() }),
            "publish.publication.format_version has the format version 2; this program reads 1 to 1",
        ),
        (publish(proto::Publication { via: 0, ..good() }), "publish.publication.via has the unknown value 0"),
        (publish(proto::Publication { qos: 3, ..good() }), "publish.publication.qos has the unknown value 3"),
        (publish(proto::Publication { qos: -1, ..good() }), "publish.publication.qos has the unknown value -1"),
        (
            publish(proto::Publication { topic: "a/#".into(), ..good() }),
            "publish.publication.topic contains a wildcard, which a topic name may not",
        ),
        (publish(proto::Publication { topic: vec![0xFF].into(), ..good() }), "publish.publication.topic is not UTF-8"),
        (publish(proto::Publication { origin: nobody(), ..good() }), "publish.publication.origin.tenant is not UTF-8"),
        (
            C::Publish(proto::Publish {
                publication: Some(good()),
                received: Some(proto::ReceivedId { session: session(), packet_id: 65_536 }),
                only: None,
                origin_epoch: None,
            }),
            "publish.received.packet_id is 65536, out of its range",
        ),
        (
            C::ReleaseReceived(proto::ReleaseReceived {
                received: Some(proto::ReceivedId { session: session(), packet_id: 0 }),
            }),
            "release_received.received.packet_id is 0, out of its range",
        ),
        (subscribe(proto::Subscription::default()), "subscribe.filters[1].filter is empty"),
        (
            subscribe(proto::Subscription { id: Some(0), ..subscription() }),
            "subscribe.filters[1].id is 0, out of its range",
        ),
        (
            subscribe(proto::Subscription { retain_handling: 9, ..subscription() }),
            "subscribe.filters[1].retain_handling has the unknown value 9",
        ),
        (
            C::Unsubscribe(proto::Unsubscribe { session: session(), filters: vec!["a".into(), "a#".into()] }),
            "unsubscribe.filters[1] has a '#' that is not alone in the last level",
        ),
        (
            C::ReplayRetained(proto::ReplayRetained {
                session: session(),
                filter: "a".into(),
                subscription_ids: vec![1, 268_435_456],
                ..Default::default()
            }),
            "replay_retained.subscription_ids[1] is 268435456, out of its range",
        ),
        (
            C::Settle(proto::Settle { settlements: vec![Default::default()] }),
            "settle.settlements[0].session is missing",
        ),
        (C::ExpireRetained(proto::ExpireRetained { topics: vec!["+".into()] }), "expire_retained.topics[0] contains a"),
        (C::SetLimits(proto::SetLimits { limits: None }), "set_limits.limits is missing"),
        (C::Restore(proto::Restore { id: 1, step: None }), "restore.step is missing"),
        (
            C::Restore(proto::Restore {
                id: 1,
                step: Some(proto::restore::Step::Begin(proto::RestoreBegin { replace: false, head: Bytes::new() })),
            }),
            "restore.begin.head.format_version has the format version 0",
        ),
        (
            C::Restore(proto::Restore {
                id: 1,
                step: Some(proto::restore::Step::Parts(proto::RestoreParts { number: 0, parts: vec![vec![9].into()] })),
            }),
            "restore.parts.parts[0] is no message",
        ),
    ] {
        let error = Command::from_message(proto::Command { command: Some(command) }).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
    let properties = publish(proto::Publication { properties: vec![0x01].into(), ..good() });
    let error = Command::from_message(proto::Command { command: Some(properties) }).expect_err("half a property");
    assert!(error.to_string().starts_with("publish.publication.properties are not forwarded properties: "), "{error}");
}

#[test]
fn errors_name_the_place_in_a_record() {
    let record = |format_version, body| proto::Record { format_version, body }.encode_to_vec().into();
    let batch = |batch| Some(proto::record::Body::Batch(batch));
    let good =
        || proto::Batch { origin: Some(proto::NodeRun { node: 1, generation: 1 }), seq: 1, ..Default::default() };
    for (bytes, wanted) in [
        (record(0, None), "format_version has the format version 0; this program reads 1 to 1"),
        (record(1, None), "batch is missing"),
        (record(1, Some(proto::record::Body::Retained(Default::default()))), "batch is missing"),
        (record(1, batch(proto::Batch { origin: None, ..good() })), "batch.origin is missing"),
        (
            record(1, batch(proto::Batch { commands: vec![proto::Command { command: None }], ..good() })),
            "batch.commands[0].command is missing",
        ),
        (Bytes::from_static(&[0xFF]), "the message is no message: "),
    ] {
        let error = decode_batch(bytes).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
}
