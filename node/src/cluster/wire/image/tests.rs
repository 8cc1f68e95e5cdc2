use bytes::BytesMut;
use fulmar_broker::state::State;
use fulmar_broker::state::command::{Batch, Claim, Command, PublishCommand};
use fulmar_broker::state::image::{Builder, RestorePart};
use fulmar_broker::{Generation, NodeId, SessionKey, Via};
use fulmar_mqtt::packet::{RetainHandling, SubscriptionOptions};
use fulmar_mqtt::property::{ForwardProperties, ForwardProperty};
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};
use fulmar_platform::registry::{Change, Device, Expect, Record};
use fulmar_platform::{Dialect, Secret};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::cluster::wire::registry;

const PARTS: u32 = 12;

/// Parts of any content that a message can carry.
struct Random(StdRng);

impl Random {
    fn number(&mut self) -> u64 {
        let bits = self.0.random_range(0..=64);
        self.0.random::<u64>().checked_shr(bits).unwrap_or(0)
    }

    fn text(&mut self) -> String {
        (0..self.0.random_range(1..20)).map(|_| ['a', 'z', '9', '\u{e9}', '/'][self.0.random_range(0..5)]).collect()
    }

    fn list<T>(&mut self, one: impl Fn(&mut Random) -> T) -> Vec<T> {
        (0..self.0.random_range(0..4)).map(|_| one(self)).collect()
    }

    fn some<T>(&mut self, one: impl Fn(&mut Random) -> T) -> Option<T> {
        self.0.random::<bool>().then(|| one(self))
    }

    fn one_of<T>(&mut self, mut all: Vec<T>) -> T {
        let at = self.0.random_range(0..all.len());
        all.swap_remove(at)
    }

    fn bytes(&mut self) -> Bytes {
        self.list(|random| random.0.random::<u8>()).into()
    }

    fn qos(&mut self) -> QoS {
        QoS::from_bits(self.0.random_range(0..3)).unwrap()
    }

    fn node(&mut self) -> NodeId {
        NodeId(self.number().max(1))
    }

    fn key(&mut self) -> SessionKey {
        SessionKey::new(&self.text(), &self.text(), &self.text())
    }

    fn packet_ids(&mut self) -> Vec<u16> {
        self.list(|random| random.0.random_range(1..=u16::MAX))
    }

    fn publication(&mut self) -> Arc<Publication> {
        let properties = self.list(|random| ForwardProperty::User(random.text().into(), random.text().into()));
        Arc::new(Publication {
            topic: TopicName::new(self.text()).unwrap(),
            payload: self.bytes(),
            qos: self.qos(),
            retain: self.0.random(),
            forward: ForwardProperties::from_properties(&properties).unwrap(),
            origin: self.some(Random::key),
            accepted_at: LogTime(self.number()),
            expires_at: self.some(|random| LogTime(random.number())),
            via: [Via::Client, Via::Will, Via::Server][self.0.random_range(0..3)],
            trace: u64::from(self.0.random_range(0..3u8)) << 48,
        })
    }

    fn subscription(&mut self) -> Subscription {
        let handling = [RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never];
        let share = if self.0.random() { "$share/g/" } else { "" };
        Subscription {
            filter: TopicFilter::new(format!("{share}{}/#", self.text())).unwrap(),
            options: SubscriptionOptions {
                qos: self.qos(),
                no_local: self.0.random(),
                retain_as_published: self.0.random(),
                retain_handling: handling[self.0.random_range(0..3)],
            },
            id: self.some(|random| random.0.random_range(1..=268_435_455)),
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.0.random_range(0..8) {
            0 => Outcome::Done,
            1 => Outcome::Claimed(Box::new(Claimed {
                epoch: Epoch(self.number()),
                session_present: self.0.random(),
                previous: self.some(|random| Owner {
                    node: random.node(),
                    generation: Generation(random.number()),
                    epoch: Epoch(random.number()),
                }),
                subscriptions: self.list(Random::subscription),
                received: self.packet_ids(),
                queue_floor: self.number(),
            })),
            2 => Outcome::Subscribed(self.list(|random| random.0.random())),
            3 => Outcome::Unsubscribed(self.list(|random| random.0.random())),
            4 => Outcome::Published { receivers: self.0.random() },
            5 => Outcome::Stale,
            6 => Outcome::Registry(self.one_of(registry::tests::outcomes())),
            _ => Outcome::Refused([ReasonCode::QuotaExceeded, ReasonCode::PacketTooLarge][self.0.random_range(0..2)]),
        }
    }

    fn books(&mut self) -> Books {
        let mut books = Books::default();
        (books.created, books.delivered) = (self.number(), self.number());
        (books.queued, books.expired) = (self.number(), self.number());
        fulmar_broker::state::DROPPED
            .iter()
            .fold(books, |books, (reason, _)| books.with_dropped(*reason, self.number()))
    }

    fn limits(&mut self) -> Limits {
        Limits {
            replicated_bytes_max: self.number(),
            queue_entries_max: self.0.random(),
            queue_bytes_max: self.number(),
            session_expiry_s_max: self.0.random(),
            sessions_max: self.number(),
            retained_max: self.number(),
            queue_ttl_s: self.0.random(),
            rule_backlog_bytes_max: self.number(),
        }
    }

    fn entry(&mut self) -> EntryPart {
        EntryPart {
            seq: self.number(),
            body: self.number(),
            publication: self.some(Random::publication),
            expires_at: self.some(|random| LogTime(random.number())),
            subscription_ids: self.list(|random| random.0.random_range(1..=268_435_455)).into(),
            group: self.some(|random| Arc::new(random.subscription().filter)),
            qos: self.qos(),
            retain: self.0.random(),
            phase: if self.0.random() { Phase::Queued } else { Phase::Received },
        }
    }

    fn session(&mut self) -> SessionPart {
        SessionPart {
            key: self.key(),
            epoch: Epoch(self.number()),
            place: match self.0.random() {
                true => Place::Owned { node: self.node(), generation: Generation(self.number()) },
                false => Place::Released { at: LogTime(self.number()) },
            },
            expiry_s: self.0.random(),
            will: self.some(|random| {
                let (publication, message_expiry_s) = (random.publication(), random.some(|random| random.0.random()));
                Arc::new(Will { publication, message_expiry_s, delay_s: random.0.random() })
            }),
            subscriptions: self.list(Random::subscription),
            depot: self.some(|random| DepotPart {
                next_seq: random.number(),
                offered: random.number(),
                expires_next: random.some(|random| LogTime(random.number())),
                received: random.packet_ids(),
            }),
            cut: self.some(|random| {
                [ReasonCode::NotAuthorized, ReasonCode::AdministrativeAction][random.0.random_range(0..2)]
            }),
        }
    }

    fn part(&mut self, which: u32) -> Part {
        match which {
            0 => Part::Head(Box::new(Head {
                limits: self.limits(),
                now: LogTime(self.number()),
                position: self.number(),
                routes_at: self.number(),
                epoch_last: self.number(),
                bodies_made: self.number(),
                books: self.books(),
                bytes: self.number(),
                sessions: self.number(),
                retained: self.number(),
                removed: self.list(Random::node),
                registry_key: self.some(|random| Secret::new(&random.text())),
                registry_last: self.number(),
                devices: self.number(),
                restoring: self.some(|random| {
                    let head = Head { epoch_last: random.number(), ..Head::default() };
                    let [id, steps, epochs, revisions] = [(); 4].map(|()| random.number());
                    Box::new(RestorePart { id, steps, epochs, revisions, head, session: random.some(Random::key) })
                }),
            })),
            1 => Part::Origin(OriginPart {
                node: self.node(),
                generation: Generation(self.number()),
                alive: self.0.random(),
                applied: self.number(),
                address: self.some(Random::text).unwrap_or_default().into(),
            }),
            2 => Part::Results(ResultsPart { seq: self.number(), outcomes: self.list(Random::outcome) }),
            3 => Part::Fallen(FallenPart {
                node: self.node(),
                generation: Generation(self.number()),
                at: LogTime(self.number()),
            }),
            4 => Part::Retained(RetainedPart { publication: self.publication(), body: self.number() }),
            5 => Part::Session(Box::new(self.session())),
            6 => Part::Subscriptions(self.list(Random::subscription)),
            7 => Part::Queue(self.list(Random::entry)),
            9 => Part::Expansion(ExpansionPart {
                continues: self.0.random(),
                body: self.number(),
                publication: self.some(Random::publication),
                expires_at: self.some(|random| LogTime(random.number())),
                receivers: self.list(|random| ReceiverPart {
                    key: random.key(),
                    qos: random.qos(),
                    retain_as_published: random.0.random(),
                    subscription_ids: random.list(|random| random.0.random_range(1..=268_435_455)).into(),
                    group: random.some(|random| Arc::new(random.subscription().filter)),
                }),
            }),
            8 => Part::LiveRoutes(LiveRoutesPart {
                node: self.node(),
                generation: Generation(self.number()),
                filters: self.list(|random| random.subscription().filter),
            }),
            10 => Part::Registry(Box::new(self.one_of(registry::tests::filed()))),
            _ => Part::End,
        }
    }
}

#[test]
fn every_part_comes_back() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = Random(StdRng::seed_from_u64(seed));
    let mut kinds = std::collections::HashSet::new();
    for number in 0..200 * PARTS {
        let part = random.part(number % PARTS);
        kinds.insert(std::mem::discriminant(&part));
        assert_eq!(decode_part(encode_part(&part)).as_ref(), Ok(&part));
    }
    assert_eq!(kinds.len(), PARTS as usize);
}

/// Truncated and altered records are refused or read as something else, and never panic.
#[test]
fn damaged_records_are_no_panic() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = Random(StdRng::seed_from_u64(seed));
    for number in 0..20 * PARTS {
        let bytes = encode_part(&random.part(number % PARTS));
        for length in 0..bytes.len() {
            let _ = decode_part(bytes.slice(..length));
        }
        for at in 0..bytes.len() {
            let mut damaged = BytesMut::from(bytes.as_ref());
            damaged[at] ^= 1 << random.0.random_range(0..8);
            let _ = decode_part(damaged.freeze());
        }
    }
}

#[test]
fn a_state_comes_back() {
    let (node, generation) = (NodeId(1), Generation(1));
    let key = |name: &str| SessionKey::new("default", "generic", name);
    let mut commands = Vec::new();
    let mut random = Random(StdRng::seed_from_u64(7));
    for (number, name) in ["a", "b", "c"].iter().enumerate() {
        let claim = Claim {
            key: key(name),
            node,
            generation,
            clean_start: false,
            expiry_s: 60,
            will: None,
            exclusive_client_id: None,
            judged_by: None,
        };
        commands.push(Command::Claim(Box::new(claim)));
        let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let filters = ["#", "$share/g/#"].map(|text| TopicFilter::new(text).unwrap());
        let filters = filters.map(|filter| Subscription { filter, options, id: Some(5) }).to_vec();
        commands.push(Command::Subscribe { key: key(name), epoch: Epoch(number as u64 + 1), filters });
    }
    for _ in 0..50 {
        let publication = Publication { expires_at: None, ..random.publication().as_ref().clone() };
        let publish = PublishCommand { publication: Arc::new(publication), received: None, only: None, epoch: None };
        commands.push(Command::Publish(Box::new(publish)));
    }
    let mut expect = [Expect::Absent, Expect::Anything].into_iter().cycle();
    let mut put = |record| Box::new(Change::Put { record, expect: expect.next().unwrap() });
    let records = registry::tests::records();
    let suits = |record: &&Record| !matches!(record, Record::Product(product) if product.dialect != Dialect::Aliyun);
    let named = |id: &str| records.iter().filter(suits).find(|record| record.id() == id).cloned().unwrap();
    // What the device refers to, and everything that refers to nothing or to that.
    for record in [named("a"), named("p\u{e9}"), named("u"), named("MQTT"), named("s")] {
        commands.push(Command::Registry(put(record)));
    }
    if let (Record::Device(device), Record::Device(bare)) = (named("p_n"), named("p_n")) {
        let gateway = Device {
            id: "g".into(),
            node_id: "g".into(),
            gateway_id: "".into(),
            product_id: "p\u{e9}".into(),
            ..(*bare).clone()
        };
        let device = Device { product_id: "p\u{e9}".into(), frozen: false, ..(*device).clone() };
        commands.extend([gateway, device].map(|device| Command::Registry(put(Record::Device(Arc::new(device))))));
    }
    commands.push(Command::Registry(Box::new(Change::Key(Secret::new("k")))));
    let key = SessionKey::new("default", "aliyun", "p_n");
    let (will, exclusive_client_id) = (None, Some("c".into()));
    let claim =
        Claim { key, node, generation, clean_start: true, expiry_s: 0, will, exclusive_client_id, judged_by: None };
    commands.push(Command::Claim(Box::new(claim)));
    commands.push(Command::Registry(Box::new(Change::Disconnect { device: "p_n".into() })));
    let mut state = State::new(Limits::default());
    state.apply(&Batch { node, generation, seq: 1, term: None, at: LogTime(5), commands }, &mut Vec::new()).unwrap();
    assert!(state.device_online("p_n") && state.registry().records().count() == 7);
    let snapshot = state.snapshot();
    let mut builder = Builder::default();
    for part in snapshot.parts() {
        builder.add(decode_part(encode_part(&part)).unwrap()).unwrap();
    }
    assert_eq!(builder.finish().unwrap(), snapshot);
    assert!(state.books().queued > 50);
}

#[test]
fn errors_name_the_field() {
    let key = || Some(SessionKey::new("", "", "").to_message());
    let session = || proto::SnapshotSession { key: key(), released_at_ms: Some(1), ..Default::default() };
    let results = |outcome| {
        let outcomes = vec![proto::Outcome { outcome: Some(OutcomeMessage::Stale(proto::OutcomeStale {})) }, outcome];
        Message::Results(proto::SnapshotResults { seq: 1, outcomes })
    };
    let refused = |reason| proto::Outcome { outcome: Some(OutcomeMessage::Refused(proto::OutcomeRefused { reason })) };
    let claimed = |claimed| proto::Outcome { outcome: Some(OutcomeMessage::Claimed(claimed)) };
    let entry = |entry| Message::Queue(proto::SnapshotQueue { entries: vec![Default::default(), entry] });
    let limits = Some(Limits::default().to_message());
    for (message, wanted) in [
        (Message::Head(Default::default()), "head.limits is missing"),
        (Message::Head(proto::SnapshotHead { limits, ..Default::default() }), "head.books is missing"),
        (Message::Origin(Default::default()), "origin.run is missing"),
        (
            Message::Expansion(proto::SnapshotExpansion { receivers: vec![Default::default()], ..Default::default() }),
            "expansion.receivers[0].key is missing",
        ),
        (
            Message::Expansion(proto::SnapshotExpansion {
                receivers: vec![proto::SnapshotReceiver { key: key(), group: "a#".into(), ..Default::default() }],
                ..Default::default()
            }),
            "expansion.receivers[0].group has a '#'",
        ),
        (Message::LiveRoutes(Default::default()), "live_routes.run is missing"),
        (Message::Registry(Default::default()), "registry.oid is 0, out of its range"),
        (
            results(proto::Outcome { outcome: Some(OutcomeMessage::Registry(Default::default())) }),
            "results.outcomes[1].registry.outcome is missing",
        ),
        (
            Message::LiveRoutes(proto::SnapshotLiveRoutes {
                run: Some(proto::NodeRun { node: 1, generation: 1 }),
                filters: vec!["".into()],
            }),
            "live_routes.filters[0] is empty",
        ),
        (Message::Fallen(proto::SnapshotFallen { run: Some(Default::default()), at_ms: 1 }), "fallen.run.node is"),
        (results(proto::Outcome { outcome: None }), "results.outcomes[1].outcome is missing"),
        (results(refused(5)), "results.outcomes[1].refused.reason is 5, out of its range"),
        (results(refused(0x197)), "results.outcomes[1].refused.reason is 407, out of its range"),
        (
            results(claimed(proto::OutcomeClaimed { received: vec![1, 65_536], ..Default::default() })),
            "results.outcomes[1].claimed.received[1] is 65536, out of its range",
        ),
        (
            results(claimed(proto::OutcomeClaimed { previous: Some(Default::default()), ..Default::default() })),
            "results.outcomes[1].claimed.previous.run is missing",
        ),
        (Message::Retained(Default::default()), "retained.publication is missing"),
        (Message::Session(Default::default()), "session.owner is missing"),
        (Message::Session(proto::SnapshotSession { key: None, ..session() }), "session.key is missing"),
        (
            Message::Session(proto::SnapshotSession { cut: Some(0x197), ..session() }),
            "session.cut is 407, out of its range",
        ),
        (
            Message::Session(proto::SnapshotSession {
                owner: Some(proto::NodeRun { node: 1, generation: 1 }),
                ..session()
            }),
            "session.released_at_ms is there beside what it excludes",
        ),
        (
            Message::Session(proto::SnapshotSession { will: Some(Default::default()), ..session() }),
            "session.will.publication is missing",
        ),
        (
            Message::Session(proto::SnapshotSession { subscriptions: vec![Default::default()], ..session() }),
            "session.subscriptions[0].filter is empty",
        ),
        (
            Message::Session(proto::SnapshotSession {
                depot: Some(proto::SnapshotDepot { received: vec![0], ..Default::default() }),
                ..session()
            }),
            "session.depot.received[0] is 0, out of its range",
        ),
        (
            Message::Subscriptions(proto::SnapshotSubscriptions { subscriptions: vec![Default::default()] }),
            "subscriptions.subscriptions[0].filter is empty",
        ),
        (entry(proto::SnapshotEntry { qos: 3, ..Default::default() }), "queue.entries[1].qos has the unknown value 3"),
        (entry(proto::SnapshotEntry { phase: 2, ..Default::default() }), "queue.entries[1].phase has the unknown"),
        (entry(proto::SnapshotEntry { group: "a#".into(), ..Default::default() }), "queue.entries[1].group has a '#'"),
        (
            entry(proto::SnapshotEntry { subscription_ids: vec![0], ..Default::default() }),
            "queue.entries[1].subscription_ids[0] is 0",
        ),
        (
            entry(proto::SnapshotEntry { publication: Some(Default::default()), ..Default::default() }),
            "queue.entries[1].publication.format_version has the format version 0",
        ),
    ] {
        let record = proto::SnapshotRecord { format_version: proto::FORMAT_VERSION, part: Some(message) };
        let error = decode_part(record.encode_to_vec().into()).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
    let record = |format_version| proto::SnapshotRecord { format_version, part: None }.encode_to_vec().into();
    assert_eq!(decode_part(record(1)).unwrap_err().to_string(), "part is missing");
    assert!(decode_part(record(2)).unwrap_err().to_string().starts_with("format_version has the format version 2"));
    assert!(decode_part(Bytes::from_static(&[0xFF])).unwrap_err().to_string().starts_with("the message is no message"));
}

#[test]
fn the_shared_subscriptions_that_were_served_come_back() {
    let groups = ["$share/g/t", "$share/h/+"].map(|text| Arc::new(TopicFilter::new(text).unwrap())).to_vec();
    let outcome = Outcome::Shared { receivers: 3, groups };
    assert_eq!(Outcome::from_message(outcome.to_message()), Ok(outcome));
}
