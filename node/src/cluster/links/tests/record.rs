//! The layout.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use fulmar_broker::{Epoch, Generation, LogTime, Publication, SessionKey, Via};
use fulmar_mqtt::property::{ForwardProperties, ForwardProperty};
use fulmar_mqtt::{QoS, TopicFilter, TopicName};
use proptest::prelude::*;

use crate::cluster::links::record::{Head, Malformed, Member, Record, Records, Writer};

const HEAD: Head = Head { to: Generation(300), settled: 7 };

fn key() -> impl Strategy<Value = SessionKey> {
    ("[a-c]{0,2}", "[xy]", "[a-zé]{0,3}").prop_map(|(tenant, dialect, id)| SessionKey::new(&tenant, &dialect, &id))
}

fn properties() -> impl Strategy<Value = ForwardProperties> {
    let text = || "[a-z]{0,5}".prop_map(ByteString::from);
    let user = (text(), text()).prop_map(|(name, value)| ForwardProperty::User(name, value));
    prop::collection::vec(user, 0..3).prop_map(|all| ForwardProperties::from_properties(&all).unwrap())
}

fn record() -> impl Strategy<Value = Record> {
    let filter = "[a-c]{1,2}".prop_map(|text| Arc::new(TopicFilter::new(format!("$share/g/{text}/#")).unwrap()));
    let member =
        (key(), any::<u64>(), filter).prop_map(|(key, epoch, filter)| Member { key, epoch: Epoch(epoch), filter });
    let qos = prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    let via = prop_oneof![Just(Via::Client), Just(Via::Will), Just(Via::Server)];
    let times = (any::<u64>(), prop::option::of(any::<u64>()));
    (
        ("[ab]{1,2}", prop::collection::vec(any::<u8>(), 0..200), qos, any::<bool>()),
        (properties(), prop::option::of(key()), times, via),
        prop::option::of(member),
    )
        .prop_map(|((topic, payload, qos, retain), (forward, origin, (accepted, expires), via), member)| Record {
            publication: Arc::new(Publication {
                topic: TopicName::new(topic).unwrap(),
                payload: payload.into(),
                qos,
                retain,
                forward,
                origin,
                accepted_at: LogTime(accepted),
                expires_at: expires.map(LogTime),
                via,
                trace: accepted.wrapping_mul(expires.is_some().into()),
            }),
            member,
        })
}

fn written(records: &[Record]) -> Bytes {
    let mut writer = Writer::new(HEAD);
    let before = writer.len();
    let size: usize = records.iter().map(|record| writer.put(&record.publication, record.member.as_ref())).sum();
    assert_eq!(writer.len(), before + size);
    writer.finish()
}

#[test]
fn what_repeats_is_written_once() {
    let origin = Some(SessionKey::new("default", "generic", "publisher"));
    let record = |topic: &str| Record {
        publication: Arc::new(Publication {
            origin: origin.clone(),
            ..super::publication(topic, b"0123456789", QoS::AtLeastOnce)
        }),
        member: None,
    };
    let one = written(&[record("a/long/topic/name")]).len();
    let two = written(&[record("a/long/topic/name"), record("a/long/topic/name")]).len();
    assert_eq!(two - one, 2 + 1 + 1 + 10, "flags, time, length and payload");
}

#[test]
fn payloads_are_slices_of_the_frame() {
    let record = Record { publication: Arc::new(super::publication("t", &[5; 1000], QoS::AtMostOnce)), member: None };
    let frame = written(&[record]);
    let read = Records::new(frame.clone()).unwrap().next().unwrap().unwrap();
    let payload = read.publication.payload.as_ptr() as usize;
    let within = frame.as_ptr() as usize..frame.as_ptr() as usize + frame.len();
    assert!(within.contains(&payload));
}

#[test]
fn what_is_wrong_is_named() {
    let frame = |bytes: &[u8]| {
        let mut out = BytesMut::from(&[1u8, 5, 1][..]);
        out.put_slice(bytes);
        out.freeze()
    };
    let cases: &[(&[u8], Malformed)] = &[
        (&[0], Malformed::Short),
        (&[3, 0, 1, b't', 0, 0], Malformed::Flags),
        (&[0, 3, 1, b't', 0, 0], Malformed::Flags),
        (&[0, 8, 1, b't', 0, 0], Malformed::Short),
        (&[0, 16, 1, b't', 0, 0], Malformed::Flags),
        (&[0x10, 4, 1, b't', 0, 0], Malformed::Flags),
        (&[0x08, 0, 0, 0], Malformed::Reference),
        (&[0x10, 0, 1, b't', 0, 0], Malformed::Reference),
        (&[0, 0, 1, b'#', 0, 0], Malformed::Topic),
        (&[0, 0, 0, 0, 0], Malformed::Topic),
        (&[0, 0, 1, 0xff, 0, 0], Malformed::Topic),
        (&[0, 0, 1, b't', 0, 9, 1], Malformed::Short),
        (&[0, 0, 1, b't', 255, 255, 255, 255, 255, 255, 255, 255, 255, 2, 0], Malformed::Number),
        (&[0, 0, 1, b't', 255, 255, 255, 255, 255, 255, 255, 255, 255, 129, 0], Malformed::Number),
        (&[0, 4, 1, b't', 1, 0xff, 0, 0, 0, 0], Malformed::Text),
        (&[0x80, 0, 1, b't', 0, 1, 0x7f, 0], Malformed::Properties),
        (&[0x20, 0, 1, b't', 0, 0, 0, 0, 0, 1, 1, b't'], Malformed::Topic),
    ];
    for (bytes, wanted) in cases {
        let mut records = Records::new(frame(bytes)).unwrap();
        assert_eq!(records.next(), Some(Err(*wanted)), "{bytes:?}");
        assert_eq!(records.next(), None, "{bytes:?}");
    }
    assert_eq!(Records::new(Bytes::from_static(&[2, 0, 0])).unwrap_err(), Malformed::Version(2));
    assert_eq!(Records::new(Bytes::from_static(&[])).unwrap_err(), Malformed::Short);
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(record(), 0..20)) {
        let read = Records::new(written(&records)).unwrap();
        prop_assert_eq!(read.head(), HEAD);
        let read: Vec<Record> = read.map(Result::unwrap).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn nothing_that_is_read_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(records) = Records::new(bytes.into()) {
            records.for_each(drop);
        }
    }

    #[test]
    fn a_changed_frame_is_read_or_refused(
        records in prop::collection::vec(record(), 1..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = written(&records).to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(records) = Records::new(bytes.into()) {
            records.for_each(drop);
        }
    }
}
