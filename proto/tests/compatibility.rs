//! The messages are on disk and on the wire from the first commit, so a change to them must be seen and meant: samples
//! are encoded to kept bytes, and the schema is compared with a kept list that only grows. README.md has the rules.

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
    }
}

/// One of each command, every field set to something that is written.
fn commands() -> Vec<command::Command> {
    use command::Command as C;
    let publication = Some(publication());
    let received = || Some(ReceivedId { session: session(), packet_id: 65_535 });
    vec![
        C::NodeUp(NodeUp { run: Some(run()) }),
        C::NodeDown(NodeDown { run: Some(run()) }),
        C::Claim(Claim {
            key: Some(key("s1")),
            by: Some(run()),
            clean_start: true,
            expiry_s: 60,
            will: Some(Will { publication: publication.clone(), message_expiry_s: Some(0), delay_s: 5 }),
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
        C::Publish(Publish { publication: publication.clone(), received: received(), only: Some(key("s2")) }),
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
            }),
        }),
    ]
}

fn records() -> Vec<(String, Record)> {
    let record = |body| Record { format_version: FORMAT_VERSION, body: Some(body) };
    let mut records: Vec<(String, Record)> = commands()
        .into_iter()
        .map(|command| {
            let name = format!("{command:?}").split('(').next().unwrap_or_default().to_owned();
            let commands = vec![Command { command: Some(command) }];
            (name, record(record::Body::Batch(Batch { origin: Some(run()), seq: 9, at_ms: 1_000_001, commands })))
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
    records.push(("QueueEntry".to_owned(), record(record::Body::QueueEntry(entry))));
    records.push(("Retained".to_owned(), record(record::Body::Retained(publication()))));
    records
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
    let made: Vec<String> =
        records().iter().map(|(name, record)| format!("{name} {}", hex(&record.encode_to_vec()))).collect();
    let all = made.join("\n");
    assert_eq!(made.len(), kept.lines().count(), "samples and golden/records.hex differ in number; now:\n{all}");
    for ((name, record), (line, now)) in records().iter().zip(kept.lines().zip(&made)) {
        assert_eq!(line, now, "the bytes of {name} have changed: what is on disk could not be read");
        let bytes = line.split_once(' ').map(|(_, bytes)| unhex(bytes)).expect("name and bytes");
        assert_eq!(&Record::decode(bytes.as_slice()).expect("kept bytes decode"), record, "{name} reads differently");
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
