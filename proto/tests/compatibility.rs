//! The messages are on disk and on the wire from the first commit, so a change to them must be seen and meant: samples
//! are encoded to kept bytes, and the schema is compared with a kept list that only grows. README.md has the rules.

#[path = "compatibility/registry.rs"]
mod registry;

use std::collections::BTreeSet;

use fulmar_proto::Message;
use fulmar_proto::types::v1::*;

fn key(identity: &'static str) -> SessionKey {
    SessionKey { tenant: "default".into(), dialect: "generic".into(), identity: identity.into() }
}

fn run() -> NodeRun {
    NodeRun { node: 0x0102_0304_0506_0708, generation: 3 }
}

fn session() -> Option<SessionEpoch> {
    Some(SessionEpoch { key: Some(key("s1")), epoch: 7 })
}

fn publication() -> Publication {
    Publication {
        format_version: FORMAT_VERSION,
        topic: "a/b".into(),
        payload: vec![0, 255].into(),
        qos: Qos::ExactlyOnce.into(),
        retain: true,
        properties: vec![0x01, 0x01].into(),
        origin: Some(key("p")),
        accepted_at_ms: 1_000_000,
        expires_at_ms: Some(0),
        via: Via::Client.into(),
        trace: 0,
    }
}

/// One of each command, every field set to something that is written.
fn commands() -> Vec<command::Command> {
    use command::Command as C;
    let publication = Some(publication());
    let received = || Some(ReceivedId { session: session(), packet_id: 65_535 });
    vec![
        C::NodeUp(NodeUp { run: Some(run()), address: Default::default() }),
        C::NodeDown(NodeDown { run: Some(run()) }),
        C::Claim(Claim {
            key: Some(key("s1")),
            by: Some(run()),
            clean_start: true,
            expiry_s: 60,
            will: Some(Will { publication: publication.clone(), message_expiry_s: Some(0), delay_s: 5 }),
            exclusive_client_id: None,
            judged_by: None,
        }),
        C::Release(Release { session: session(), discard_will: true, expiry_s: Some(0), sent_below: Some(9) }),
        C::Subscribe(Subscribe {
            session: session(),
            filters: vec![Subscription {
                filter: "$share/g/a/+".into(),
                qos: Qos::AtLeastOnce.into(),
                no_local: true,
                retain_as_published: true,
                retain_handling: RetainHandling::Never.into(),
                id: Some(268_435_455),
            }],
        }),
        C::Unsubscribe(Unsubscribe { session: session(), filters: vec!["a/#".into(), "b".into()] }),
        C::Publish(Publish {
            publication: publication.clone(),
            received: received(),
            only: Some(key("s2")),
            origin_epoch: None,
        }),
        C::SetRetained(SetRetained { publication }),
        C::ReleaseReceived(ReleaseReceived { received: received() }),
        C::Settle(Settle {
            settlements: vec![Settlement {
                session: session(),
                floor: 1 << 33,
                settled: vec![1 << 33, 5],
                received: vec![6],
                refused: vec![7, 8],
            }],
        }),
        C::ReplayRetained(ReplayRetained {
            session: session(),
            filter: "a/#".into(),
            granted_qos: Qos::AtLeastOnce.into(),
            subscription_ids: vec![1, 300],
            topics: vec!["a/b".into(), "a".into()],
        }),
        C::FireWill(FireWill { session: session() }),
        C::ExpireSession(ExpireSession { session: session() }),
        C::ExpireRetained(ExpireRetained { topics: vec!["a/b".into(), "a".into()] }),
        C::SetLimits(SetLimits {
            limits: Some(Limits {
                replicated_bytes_max: 1 << 30,
                queue_entries_max: 10_000,
                queue_bytes_max: 1 << 26,
                session_expiry_s_max: 604_800,
                sessions_max: 2_000_000,
                retained_max: 2_000_001,
                queue_ttl_s: 1,
                rule_backlog_bytes_max: None,
            }),
        }),
    ]
}

/// A message that is stored by itself.
#[derive(Debug, PartialEq)]
enum Sample {
    Record(Record),
    LogEntry(LogEntry),
    Snapshot(SnapshotRecord),
}

impl Sample {
    fn encoded(&self) -> Vec<u8> {
        match self {
            Sample::Record(message) => message.encode_to_vec(),
            Sample::LogEntry(message) => message.encode_to_vec(),
            Sample::Snapshot(message) => message.encode_to_vec(),
        }
    }

    /// The message of the same kind that these bytes are.
    fn read(&self, bytes: &[u8]) -> Result<Sample, fulmar_proto::DecodeError> {
        Ok(match self {
            Sample::Record(_) => Sample::Record(Record::decode(bytes)?),
            Sample::LogEntry(_) => Sample::LogEntry(LogEntry::decode(bytes)?),
            Sample::Snapshot(_) => Sample::Snapshot(SnapshotRecord::decode(bytes)?),
        })
    }
}

/// In the order of golden/records.hex: what is new comes last.
fn samples() -> Vec<(String, Sample)> {
    use snapshot_record::Part as P;
    let record = |body| Sample::Record(Record { format_version: FORMAT_VERSION, body: Some(body) });
    let mut samples: Vec<(String, Sample)> = commands()
        .into_iter()
        .map(|command| {
            let name = format!("{command:?}").split('(').next().unwrap_or_default().to_owned();
            (name, record(record::Body::Batch(batch(command))))
        })
        .collect();
    let entry = QueueEntry {
        format_version: FORMAT_VERSION,
        seq: 70_000,
        publication: Some(publication()),
        granted_qos: Qos::ExactlyOnce.into(),
        retain: true,
        subscription_ids: vec![1, 2],
        phase: Phase::Received.into(),
        epoch: 7,
        accepted_by: Some(run()),
    };
    samples.push(("QueueEntry".to_owned(), record(record::Body::QueueEntry(entry))));
    samples.push(("Retained".to_owned(), record(record::Body::Retained(publication()))));
    samples.extend(log_entries().map(|(name, body)| {
        let position = Some(LogPosition { term: 3, leader: 0x0102_0304_0506_0708, index: 70_000 });
        let entry = LogEntry { format_version: FORMAT_VERSION, position, body };
        (format!("LogEntry.{name}"), Sample::LogEntry(entry))
    }));
    samples.extend(parts().into_iter().map(|part| {
        let name = format!("{part:?}").split('(').next().unwrap_or_default().to_owned();
        let name =
            if matches!(&part, P::Session(session) if session.owner.is_none()) { "Released".into() } else { name };
        let record = SnapshotRecord { format_version: FORMAT_VERSION, part: Some(part) };
        (format!("Snapshot.{name}"), Sample::Snapshot(record))
    }));
    let publish = Publish { publication: Some(publication()), received: None, only: None, origin_epoch: Some(7) };
    let commands = vec![Command { command: Some(command::Command::Publish(publish)) }];
    let batch = Batch { origin: Some(run()), seq: 9, at_ms: 1_000_001, commands, term: None };
    samples.push(("Publish.origin_epoch".to_owned(), record(record::Body::Batch(batch))));
    samples.extend(later_samples());
    samples
}

/// What has come since the first ones, in the order in which it came.
fn later_samples() -> Vec<(String, Sample)> {
    use command::Command as C;
    use snapshot_record::Part as P;
    let record = |body| Sample::Record(Record { format_version: FORMAT_VERSION, body: Some(body) });
    let filters = || vec!["a/#".into(), "b".into()];
    let of_command = |(name, command): (&str, C)| (name.to_owned(), record(record::Body::Batch(batch(command))));
    let mut samples: Vec<(String, Sample)> = [
        ("NodeUp.address", C::NodeUp(NodeUp { run: Some(run()), address: "a:7400".into() })),
        ("LiveRoutes", C::LiveRoutes(LiveRoutes { run: Some(run()), add: filters(), remove: vec!["c/+".into()] })),
        ("RemoveNode", C::RemoveNode(RemoveNode { node: 0x0102_0304_0506_0708 })),
        ("ForgetRoutes", C::ForgetRoutes(ForgetRoutes { run: Some(run()) })),
    ]
    .map(of_command)
    .into();
    let unnumbered = Batch { origin: Some(run()), seq: 0, at_ms: 1_000_001, commands: vec![], term: Some(0) };
    samples.push(("Batch.term".to_owned(), record(record::Body::Batch(unnumbered))));
    samples.extend(
        [
            ("Head.removed", P::Head(SnapshotHead { removed: vec![1, u64::MAX], ..Default::default() })),
            (
                "Origin.address",
                P::Origin(SnapshotOrigin { run: Some(run()), address: "a:7400".into(), ..Default::default() }),
            ),
            ("LiveRoutes", P::LiveRoutes(SnapshotLiveRoutes { run: Some(run()), filters: filters() })),
        ]
        .map(|(name, part)| {
            let record = SnapshotRecord { format_version: FORMAT_VERSION, part: Some(part) };
            (format!("Snapshot.{name}"), Sample::Snapshot(record))
        }),
    );
    samples.push(("Expand".to_owned(), record(record::Body::Batch(batch(C::Expand(Expand {}))))));
    let receiver = SnapshotReceiver {
        key: Some(key("s1")),
        qos: Qos::AtLeastOnce.into(),
        retain_as_published: true,
        subscription_ids: vec![1, 300],
        group: "$share/g/a".into(),
    };
    let expansion = SnapshotExpansion {
        continues: true,
        body: 4,
        publication: Some(publication()),
        expires_at_ms: Some(0),
        receivers: vec![receiver, SnapshotReceiver { key: Some(key("s0")), ..Default::default() }],
    };
    let record = SnapshotRecord { format_version: FORMAT_VERSION, part: Some(P::Expansion(expansion)) };
    samples.push(("Snapshot.Expansion".to_owned(), Sample::Snapshot(record)));
    samples.extend(registry::samples());
    let claim = Claim { key: Some(key("s1")), by: Some(run()), judged_by: Some(u64::MAX), ..Default::default() };
    samples.extend(
        [
            ("Claim.judged_by", C::Claim(claim)),
            ("EndSession", C::EndSession(EndSession { session: session(), reason: 0x87 })),
        ]
        .map(of_command),
    );
    let cut = SnapshotSession { key: Some(key("s1")), owner: Some(run()), cut: Some(0x98), ..Default::default() };
    let record = SnapshotRecord { format_version: FORMAT_VERSION, part: Some(P::Session(cut)) };
    samples.push(("Snapshot.Session.cut".to_owned(), Sample::Snapshot(record)));
    samples
}

fn batch(command: command::Command) -> Batch {
    let commands = vec![Command { command: Some(command) }];
    Batch { origin: Some(run()), seq: 9, at_ms: 1_000_001, commands, term: None }
}

fn log_entries() -> [(&'static str, Option<log_entry::Body>); 3] {
    let membership = Membership {
        voter_sets: vec![VoterSet { nodes: vec![1, 2] }, VoterSet { nodes: vec![2, u64::MAX] }],
        members: vec![
            Member { node: 1, address: "a:7400".to_owned() },
            Member { node: 2, address: String::new() },
            Member { node: u64::MAX, address: "c:7400".to_owned() },
        ],
    };
    let command = command::Command::NodeUp(NodeUp { run: Some(run()), address: Default::default() });
    [
        ("Blank", None),
        ("Batch", Some(log_entry::Body::Batch(batch(command)))),
        ("Membership", Some(log_entry::Body::Membership(membership))),
    ]
}

/// One of each part of a snapshot, every field set to something that is written.
fn parts() -> Vec<snapshot_record::Part> {
    use snapshot_record::Part as P;
    let limits = commands().into_iter().find_map(|command| match command {
        command::Command::SetLimits(set) => set.limits,
        _ => None,
    });
    let subscription = |filter: &'static str| Subscription {
        filter: filter.into(),
        qos: Qos::AtLeastOnce.into(),
        retain_as_published: true,
        ..Default::default()
    };
    let books = Books {
        created: 54,
        delivered: 1,
        queued: 2,
        expired: 3,
        queue_full: 4,
        cluster_full: 5,
        session_discarded: 6,
        session_expired: 7,
        refused: 8,
        downgraded: 18,
    };
    let claimed = OutcomeClaimed {
        epoch: 7,
        session_present: true,
        previous: Some(Owner { run: Some(run()), epoch: 6 }),
        subscriptions: vec![subscription("a/#")],
        received: vec![1, 65_535],
        queue_floor: 70_000,
    };
    let outcomes = [
        outcome::Outcome::Done(OutcomeDone {}),
        outcome::Outcome::Claimed(claimed),
        outcome::Outcome::Subscribed(OutcomeExisted { existed: vec![true, false] }),
        outcome::Outcome::Unsubscribed(OutcomeExisted { existed: vec![false, true] }),
        outcome::Outcome::Published(OutcomePublished { receivers: 3 }),
        outcome::Outcome::Stale(OutcomeStale {}),
        outcome::Outcome::Refused(OutcomeRefused { reason: 0x97 }),
    ];
    let session = SnapshotSession {
        key: Some(key("s1")),
        epoch: 7,
        owner: Some(run()),
        released_at_ms: None,
        expiry_s: 60,
        will: Some(Will { publication: Some(publication()), message_expiry_s: Some(0), delay_s: 5 }),
        subscriptions: vec![subscription("$share/g/a"), subscription("a/#")],
        depot: Some(SnapshotDepot { next_seq: 70_002, offered: 70_001, expires_next_ms: Some(0), received: vec![3] }),
        cut: None,
    };
    let released = SnapshotSession { key: Some(key("s2")), released_at_ms: Some(0), ..Default::default() };
    let first = SnapshotEntry {
        seq: 70_000,
        body: 4,
        publication: Some(publication()),
        expires_at_ms: Some(0),
        subscription_ids: vec![1, 300],
        group: "$share/g/a".into(),
        qos: Qos::ExactlyOnce.into(),
        retain: true,
        phase: Phase::Received.into(),
    };
    let second = SnapshotEntry { seq: 70_001, body: 4, qos: Qos::AtLeastOnce.into(), ..Default::default() };
    vec![
        P::Head(SnapshotHead {
            limits,
            now_ms: 1_000_001,
            position: 400,
            routes_at: 300,
            epoch_last: 7,
            bodies_made: 5,
            books: Some(books),
            bytes: 1 << 33,
            sessions: 2,
            retained: 1,
            ..Default::default()
        }),
        P::Origin(SnapshotOrigin { run: Some(run()), alive: true, applied: 9, address: Default::default() }),
        P::Results(SnapshotResults {
            seq: 9,
            outcomes: outcomes.map(|outcome| Outcome { outcome: Some(outcome) }).to_vec(),
        }),
        P::Fallen(SnapshotFallen { run: Some(run()), at_ms: 1_000_000 }),
        P::Retained(SnapshotRetained { publication: Some(publication()), body: 5 }),
        P::Session(session),
        P::Session(released),
        P::Subscriptions(SnapshotSubscriptions { subscriptions: vec![subscription("b")] }),
        P::Queue(SnapshotQueue { entries: vec![first, second] }),
        P::End(SnapshotEnd {}),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
        .collect()
}

/// The kept file is one line for each sample: its name and its bytes.
#[test]
fn samples_encode_to_the_kept_bytes_and_back() {
    let kept = include_str!("golden/records.hex");
    let samples = samples();
    let made: Vec<String> = samples.iter().map(|(name, sample)| format!("{name} {}", hex(&sample.encoded()))).collect();
    let all = made.join("\n");
    assert_eq!(made.len(), kept.lines().count(), "samples and golden/records.hex differ in number; now:\n{all}");
    for ((name, sample), (line, now)) in samples.iter().zip(kept.lines().zip(&made)) {
        assert_eq!(line, now, "the bytes of {name} have changed: what is on disk could not be read");
        let bytes = line.split_once(' ').map(|(_, bytes)| unhex(bytes)).expect("name and bytes");
        assert_eq!(&sample.read(&bytes).expect("kept bytes decode"), sample, "{name} reads differently");
    }
}

/// Every field and enum value as `message number name type`, and every reserved number as `message number reserved`.
fn schema() -> BTreeSet<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let folder = format!("{root}/fulmar/types/v1");
    let files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of .proto files")
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "proto"))
        .collect();
    let set = protox::compile(files, [root]).expect("the .proto files compile");
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("fulmar.")) {
        for message in &file.message_type {
            let owner = format!("{}.{}", file.package(), message.name());
            assert!(message.nested_type.is_empty(), "{owner}: messages do not nest, this list would not see them");
            assert!(message.enum_type.is_empty(), "{owner}: enums do not nest, this list would not see them");
            for field in &message.field {
                let kind = match field.type_name() {
                    "" => format!("{:?}", field.r#type()).to_lowercase(),
                    name => name.trim_start_matches('.').to_owned(),
                };
                let label = match field.label() {
                    label if format!("{label:?}") == "Repeated" => "repeated ",
                    _ if field.proto3_optional() => "optional ",
                    _ => "",
                };
                lines.insert(format!("{owner} {} {} {label}{kind}", field.number(), field.name()));
            }
            for range in &message.reserved_range {
                for number in range.start()..range.end() {
                    lines.insert(format!("{owner} {number} reserved"));
                }
            }
        }
        for item in &file.enum_type {
            let owner = format!("{}.{}", file.package(), item.name());
            for value in &item.value {
                lines.insert(format!("{owner} {} {}", value.number(), value.name()));
            }
            for range in &item.reserved_range {
                for number in range.start()..=range.end() {
                    lines.insert(format!("{owner} {number} reserved"));
                }
            }
        }
    }
    lines
}

/// What is wrong with a schema, given the kept one.
fn differences(kept: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in kept.difference(now) {
        let number = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        if !now.contains(&format!("{number} reserved")) {
            wrong.push(format!("changed or removed, and its number is not reserved: {line}"));
        }
    }
    for line in now.difference(kept) {
        wrong.push(format!("not in golden/schema.txt, add it: {line}"));
    }
    wrong
}

#[test]
fn the_schema_only_grows() {
    let kept = include_str!("golden/schema.txt").lines().map(str::to_owned).collect();
    let wrong = differences(&kept, &schema());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_changed_schema_is_noticed() {
    let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
    let kept = set(&["p.M 1 a uint32", "p.M 2 b bytes"]);
    assert!(differences(&kept, &kept).is_empty());
    assert_eq!(differences(&kept, &set(&["p.M 1 a uint32"])).len(), 1, "removed");
    assert_eq!(differences(&kept, &set(&["p.M 1 a uint64", "p.M 2 b bytes"])).len(), 2, "another type");
    assert_eq!(differences(&kept, &set(&["p.M 1 a uint32", "p.M 3 b bytes"])).len(), 2, "another number");
    let reserved = set(&["p.M 1 a uint32", "p.M 2 reserved"]);
    assert_eq!(differences(&kept, &reserved).len(), 1, "reserved: only the new line is missing from the kept list");
    assert!(differences(&set(&["p.M 1 a uint32", "p.M 2 b bytes", "p.M 2 reserved"]), &reserved).is_empty());
}
