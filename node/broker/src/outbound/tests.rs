//! The way out by itself: what is pushed, what is written, what is booked.

use std::sync::Mutex;

use bytes::Bytes;
use fulmar_mqtt::codec::{Decoder, Role};
use fulmar_mqtt::packet::{Decoded, Publish};
use fulmar_mqtt::property::ForwardProperties;

use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, ReasonCode};

use super::*;
use crate::key::{LogTime, Now};
use crate::publication::Via;
use crate::state::command::Phase;

const NOW: Now = Now { mono_ms: 1_000, log: LogTime(10_000) };

fn settings() -> Settings {
    Settings {
        version: Version::V5,
        receive_maximum: 3,
        packet_bytes_max: u32::MAX,
        topic_alias_maximum: 0,
        queue_messages_max: 4,
        queue_bytes_max: 1 << 20,
        topic_prefix: "",
    }
}

fn publication(topic: &str, qos: QoS) -> Publication {
    Publication {
        topic: TopicName::new(topic.to_owned()).unwrap(),
        payload: Bytes::from_static(b"payload"),
        qos,
        retain: false,
        forward: ForwardProperties::default(),
        origin: None,
        accepted_at: LogTime(10_000),
        expires_at: None,
        via: Via::Client,
        trace: 0,
    }
}

fn delivery(topic: &str, qos: QoS) -> Delivery {
    let publication = Arc::new(publication(topic, qos));
    Delivery { publication, qos, retain: false, subscription_ids: Default::default() }
}

fn entry(seq: u64, qos: QoS) -> QueueEntry {
    QueueEntry { seq, delivery: delivery("d", qos), phase: Phase::Queued, before_claim: false }
}

struct Told(Arc<Mutex<Vec<u32>>>, u32);

impl Waiter for Told {
    fn taken(&self) {
        self.0.lock().unwrap().push(self.1);
    }
}

fn push(outbound: &mut Outbound, topic: &str, qos: QoS) -> Pushed {
    outbound.push(delivery(topic, qos), None, NOW.mono_ms, || panic!("nobody waits"))
}

/// What is written now, decoded.
fn written(outbound: &mut Outbound) -> Vec<Packet> {
    // A client reads CONNACK before anything else.
    let mut out = BytesMut::from(&[0x20, 3, 0, 0, 0][..]);
    outbound.fill(NOW, &mut out, 1 << 20).iter().for_each(|waiter| waiter.taken());
    let mut decoder = Decoder::new(Role::Client, u32::MAX >> 4);
    decoder.set_version(outbound.version());
    let mut packets = Vec::new();
    while let Some(decoded) = decoder.decode(&mut out).unwrap() {
        let Decoded::Packet(packet) = decoded else { panic!("{decoded:?}") };
        packets.push(packet);
    }
    packets.remove(0);
    packets
}

fn topics(packets: &[Packet]) -> Vec<(String, u16)> {
    let publish = |packet: &Packet| match packet {
        Packet::Publish(Publish { topic: Some(topic), packet_id, .. }) => (topic.to_string(), *packet_id),
        other => panic!("{other:?}"),
    };
    packets.iter().map(publish).collect()
}

fn acknowledge(outbound: &mut Outbound, packet: Packet) -> BytesMut {
    let mut out = BytesMut::new();
    outbound.acknowledge(&packet, NOW.mono_ms, &mut out);
    out
}

fn balance(tally: &Tally, open: usize) {
    let ended = tally.delivered[1] + tally.expired[1] + tally.dropped[1].iter().sum::<u64>();
    assert_eq!(tally.created[1], ended + open as u64, "the books of QoS > 0 balance: {tally:?}");
}

#[test]
fn the_window_holds_back_qos_1_and_lets_qos_0_pass() {
    let mut outbound = Outbound::new(settings(), 0);
    for topic in ["a", "b", "c", "d"] {
        push(&mut outbound, topic, QoS::AtLeastOnce);
    }
    assert_eq!(topics(&written(&mut outbound)), [("a".into(), 1), ("b".into(), 2), ("c".into(), 3)]);
    push(&mut outbound, "e", QoS::AtMostOnce);
    assert_eq!(topics(&written(&mut outbound)), [("e".into(), 0)]);
    acknowledge(&mut outbound, Packet::PubAck(Ack::success(2)));
    assert_eq!(topics(&written(&mut outbound)), [("d".into(), 4)]);
    let open = outbound.open();
    assert_eq!(open, 3);
    balance(&outbound.take_tally(), open);
}

#[test]
fn without_congestion_the_order_is_that_of_the_pushes() {
    let mut outbound = Outbound::new(settings(), 0);
    push(&mut outbound, "a", QoS::AtLeastOnce);
    push(&mut outbound, "b", QoS::AtMostOnce);
    push(&mut outbound, "c", QoS::AtLeastOnce);
    let order: Vec<String> = topics(&written(&mut outbound)).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(order, ["a", "b", "c"]);
}

#[test]
fn at_the_bound_qos_0_displaces_the_oldest_qos_0() {
    let mut outbound = Outbound::new(settings(), 0);
    for topic in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(push(&mut outbound, topic, QoS::AtMostOnce), Pushed::Taken);
    }
    let order: Vec<String> = topics(&written(&mut outbound)).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(order, ["c", "d", "e", "f"]);
    let tally = outbound.take_tally();
    assert_eq!(tally.dropped[0][DropReason::QueueFull as usize], 2);
    assert_eq!((tally.created[0], tally.delivered[0]), (6, 4));
}

#[test]
fn at_the_bound_publishers_of_qos_1_wait_in_order_and_are_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut outbound = Outbound::new(settings(), 0);
    for number in 0..6u32 {
        let told = told.clone();
        let pushed =
            outbound.push(delivery(&number.to_string(), QoS::AtLeastOnce), None, 500, || Box::new(Told(told, number)));
        assert_eq!(pushed, if number < 4 { Pushed::Taken } else { Pushed::Waiting });
    }
    assert_eq!(outbound.stalled_ms(700), Some(200));
    assert_eq!(topics(&written(&mut outbound)).len(), 3);
    assert_eq!(*told.lock().unwrap(), [4, 5]);
    assert_eq!(outbound.stalled_ms(700), None);
    for id in 1..=3 {
        acknowledge(&mut outbound, Packet::PubAck(Ack::success(id)));
    }
    let order: Vec<String> = topics(&written(&mut outbound)).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(order, ["3", "4", "5"]);
}

#[test]
fn what_was_not_written_can_be_unsaid() {
    let mut outbound = Outbound::new(settings(), 0);
    outbound.control(&[0x40, 2, 0, 1]);
    outbound.unsay();
    outbound.close(&[0xe0, 1, 0x8b], DropReason::SessionEnded);
    let mut out = BytesMut::new();
    outbound.fill(NOW, &mut out, 1024);
    assert_eq!(out[..], [0xe0, 1, 0x8b]);
}

#[test]
fn a_close_books_everything_and_tells_who_waits() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut outbound = Outbound::new(settings(), 0);
    for number in 0..6u32 {
        let told = told.clone();
        outbound.push(delivery("t", QoS::AtLeastOnce), None, 0, || Box::new(Told(told, number)));
    }
    written(&mut outbound);
    acknowledge(&mut outbound, Packet::PubAck(Ack::success(1)));
    let (waiters, orphans) = outbound.close(b"bye", DropReason::SessionEnded);
    waiters.iter().for_each(|waiter| waiter.taken());
    assert_eq!(*told.lock().unwrap(), [4, 5]);
    assert!(orphans.is_empty());
    let tally = outbound.take_tally();
    assert_eq!((tally.delivered[1], tally.dropped[1][DropReason::SessionEnded as usize]), (1, 5));
    balance(&tally, 0);
    assert_eq!(push(&mut outbound, "late", QoS::AtLeastOnce), Pushed::Gone);
    let mut out = BytesMut::new();
    assert!(!outbound.finished());
    outbound.fill(NOW, &mut out, 1 << 20);
    assert_eq!(&out[..], b"bye");
    assert!(outbound.finished());
}

#[test]
fn shared_messages_that_lose_their_receiver_are_handed_back() {
    let mut outbound = Outbound::new(settings(), 0);
    let group = Some(Arc::new(TopicFilter::new("$share/g/#".to_owned()).unwrap()));
    for (topic, qos) in [("one", QoS::AtLeastOnce), ("two", QoS::ExactlyOnce), ("three", QoS::AtLeastOnce)] {
        outbound.push(delivery(topic, qos), group.clone(), 0, || panic!("nobody waits"));
    }
    written(&mut outbound);
    outbound.push(delivery("queued", QoS::AtLeastOnce), group, 0, || panic!("nobody waits"));
    let (_, orphans) = outbound.close(b"", DropReason::SessionEnded);
    let mut names: Vec<&str> = orphans.iter().map(|orphan| orphan.publication.topic.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "queued", "three"], "what may have been received as QoS 2 is not sent to another");
    balance(&outbound.take_tally(), 0);
}

#[test]
fn qos_2_is_released_after_pubrec_and_done_after_pubcomp() {
    let mut outbound = Outbound::new(settings(), 0);
    push(&mut outbound, "a", QoS::ExactlyOnce);
    written(&mut outbound);
    acknowledge(&mut outbound, Packet::PubAck(Ack::success(1)));
    acknowledge(&mut outbound, Packet::PubComp(Ack::success(1)));
    assert_eq!(outbound.open(), 1, "neither answers a PUBLISH of QoS 2");
    assert_eq!(&acknowledge(&mut outbound, Packet::PubRec(Ack::success(1)))[..], [0x62, 2, 0, 1]);
    assert_eq!(&acknowledge(&mut outbound, Packet::PubRec(Ack::success(1)))[..], [0x62, 2, 0, 1], "again, if asked");
    acknowledge(&mut outbound, Packet::PubComp(Ack::success(1)));
    assert_eq!((outbound.open(), outbound.take_tally().delivered[1]), (0, 1));
    assert_eq!(&acknowledge(&mut outbound, Packet::PubRec(Ack::success(9)))[..], [0x62, 4, 0, 9, 0x92, 0]);
}

#[test]
fn an_error_ends_the_delivery() {
    let mut outbound = Outbound::new(settings(), 0);
    push(&mut outbound, "a", QoS::ExactlyOnce);
    push(&mut outbound, "b", QoS::AtLeastOnce);
    written(&mut outbound);
    let refused = |id| Ack::with_reason(id, ReasonCode::QuotaExceeded);
    assert!(acknowledge(&mut outbound, Packet::PubRec(refused(1))).is_empty());
    acknowledge(&mut outbound, Packet::PubAck(refused(2)));
    assert_eq!(outbound.take_tally().dropped[1][DropReason::Refused as usize], 2);
    assert_eq!(outbound.open(), 0);
}

#[test]
fn what_has_expired_is_not_written_and_what_lives_says_how_long() {
    let mut outbound = Outbound::new(settings(), 0);
    for (topic, expires_at) in [("dead", 10_000), ("alive", 12_500)] {
        let publication = Publication { expires_at: Some(LogTime(expires_at)), ..publication(topic, QoS::AtMostOnce) };
        let delivery = Delivery { publication: Arc::new(publication), ..delivery("x", QoS::AtMostOnce) };
        outbound.push(delivery, None, 0, || panic!("nobody waits"));
    }
    let packets = written(&mut outbound);
    assert!(
        matches!(&packets[..], [Packet::Publish(publish)] if publish.properties.message_expiry_s == Some(3)),
        "{packets:?}"
    );
    assert_eq!(outbound.take_tally().expired[0], 1);
}

#[test]
fn a_packet_larger_than_the_client_takes_is_dropped_and_booked() {
    let mut outbound = Outbound::new(Settings { packet_bytes_max: 14, topic_alias_maximum: 5, ..settings() }, 0);
    push(&mut outbound, "long/topic", QoS::AtLeastOnce);
    push(&mut outbound, "long/topic", QoS::AtMostOnce);
    assert_eq!(written(&mut outbound), []);
    let tally = outbound.take_tally();
    assert_eq!([0, 1].map(|class| tally.dropped[class][DropReason::PacketTooLarge as usize]), [1, 1]);
    assert_eq!(outbound.open(), 0);
}

#[test]
fn a_topic_is_written_once_and_then_its_alias() {
    let mut outbound = Outbound::new(Settings { topic_alias_maximum: 1, ..settings() }, 0);
    for topic in ["a", "a", "b"] {
        push(&mut outbound, topic, QoS::AtMostOnce);
    }
    let seen: Vec<(Option<String>, Option<u16>)> = written(&mut outbound)
        .into_iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => (publish.topic.map(|t| t.to_string()), publish.properties.topic_alias),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, [(Some("a".into()), Some(1)), (None, Some(1)), (Some("b".into()), None)]);
}

#[test]
fn topics_are_written_without_their_prefix() {
    let mut outbound = Outbound::new(Settings { topic_prefix: "$push/", ..settings() }, 0);
    for topic in ["$push/app/a", "app/b"] {
        push(&mut outbound, topic, QoS::AtMostOnce);
    }
    let topic = |packet| match packet {
        Packet::Publish(publish) => publish.topic.map(|topic| topic.to_string()),
        other => panic!("{other:?}"),
    };
    let seen: Vec<_> = written(&mut outbound).into_iter().map(topic).collect();
    assert_eq!(seen, [Some("app/a".to_owned()), Some("app/b".to_owned())]);
}

#[test]
fn there_is_room_until_half_of_the_queue_is_full() {
    let mut outbound = Outbound::new(settings(), 0);
    for roomy in [true, true, true, false] {
        assert_eq!(outbound.roomy(), roomy);
        push(&mut outbound, "a", QoS::AtMostOnce);
    }
}

#[test]
fn nothing_live_overtakes_a_replay() {
    let mut outbound = Outbound::new(settings(), 0);
    outbound.set_replaying(true);
    push(&mut outbound, "live", QoS::AtMostOnce);
    assert_eq!(written(&mut outbound), []);
    outbound.push_replay(delivery("retained", QoS::AtMostOnce));
    outbound.set_replaying(false);
    let order: Vec<String> = topics(&written(&mut outbound)).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(order, ["retained", "live"]);
}

#[test]
fn durable_entries_have_computed_ids_and_are_settled_by_number() {
    let mut outbound = Outbound::new(settings(), 65_533);
    assert_eq!(outbound.wants().map(|(from, _)| from), Some(65_533));
    outbound.feed((65_533..65_538).map(|seq| entry(seq, QoS::AtLeastOnce)).collect());
    let packets = written(&mut outbound);
    let ids: Vec<u16> = topics(&packets).into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [65_534, 65_535, 1]);
    assert_eq!((outbound.sent_below(), outbound.settled_floor()), (65_536, 65_533));
    acknowledge(&mut outbound, Packet::PubAck(Ack::success(65_535)));
    assert_eq!(outbound.take_settled().settled, [65_534]);
    assert_eq!(outbound.settled_floor(), 65_533);
    acknowledge(&mut outbound, Packet::PubAck(Ack::success(65_534)));
    acknowledge(&mut outbound, Packet::PubAck(Ack::success(1)));
    assert_eq!(outbound.settled_floor(), 65_536);
    assert_eq!(outbound.open(), 0, "durable deliveries are not in these books");
}

#[test]
fn a_durable_qos_2_entry_is_released_once_its_pubrec_is_committed() {
    let mut outbound = Outbound::new(settings(), 0);
    outbound.feed(vec![entry(0, QoS::ExactlyOnce)]);
    written(&mut outbound);
    assert!(acknowledge(&mut outbound, Packet::PubRec(Ack::success(1))).is_empty());
    let settled = outbound.take_settled();
    assert_eq!(settled.received, [0]);
    let mut out = BytesMut::new();
    outbound.release(&settled.received, &mut out);
    assert_eq!(&out[..], [0x62, 2, 0, 1]);
    acknowledge(&mut outbound, Packet::PubComp(Ack::success(1)));
    assert_eq!(outbound.take_settled().settled, [0]);
}

#[test]
fn a_new_owner_sends_again_what_may_have_been_sent() {
    let mut outbound = Outbound::new(settings(), 0);
    let received = QueueEntry { phase: Phase::Received, ..entry(0, QoS::ExactlyOnce) };
    let sent = QueueEntry { before_claim: true, ..entry(1, QoS::AtLeastOnce) };
    outbound.feed(vec![received, sent, entry(2, QoS::AtLeastOnce)]);
    let packets = written(&mut outbound);
    assert_eq!(packets[0], Packet::PubRel(Ack::success(1)));
    let dups: Vec<bool> =
        packets[1..].iter().map(|packet| matches!(packet, Packet::Publish(publish) if publish.dup)).collect();
    assert_eq!(dups, [true, false]);
}

#[test]
fn at_a_shutdown_what_the_window_allows_is_written_before_the_last_bytes() {
    let mut outbound = Outbound::new(settings(), 0);
    for topic in ["a", "b", "c", "d"] {
        push(&mut outbound, topic, QoS::AtLeastOnce);
    }
    outbound.close_after_queue(&[0xe0, 1, 0x8b]);
    assert_eq!(push(&mut outbound, "late", QoS::AtLeastOnce), Pushed::Gone);
    assert!(outbound.ready() && !outbound.finished());
    let packets = written(&mut outbound);
    assert_eq!(topics(&packets[..3]).len(), 3);
    assert!(
        matches!(&packets[3], Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::ServerShuttingDown)
    );
    assert!(outbound.finished());
    balance(&outbound.take_tally(), 0);
}

#[test]
fn an_expired_durable_entry_is_passed_over_and_moves_the_floor() {
    let mut outbound = Outbound::new(settings(), 0);
    let dead = Publication { expires_at: Some(LogTime(9_000)), ..publication("d", QoS::AtLeastOnce) };
    let mut first = entry(0, QoS::AtLeastOnce);
    first.delivery.publication = Arc::new(dead);
    outbound.feed(vec![first, entry(1, QoS::AtLeastOnce)]);
    assert_eq!(topics(&written(&mut outbound)), [("d".into(), 2)]);
    assert!(outbound.has_settled());
    assert_eq!((outbound.take_settled().passed, outbound.settled_floor()), (true, 1));
}

#[test]
fn a_tagged_delivery_is_written_again_until_it_is_acknowledged() {
    let mut outbound = Outbound::new(Settings { receive_maximum: 1, ..settings() }, 0);
    assert_eq!(outbound.room(), (4, usize::MAX));
    for (tag, topic) in [(7, "a"), (8, "b")] {
        let pushed = outbound.push_tagged(delivery(topic, QoS::AtLeastOnce), tag, 0, || panic!("nobody waits"));
        assert_eq!(pushed, Pushed::Taken);
    }
    let again = |outbound: &mut Outbound, tag, topic| outbound.resend(tag, &delivery(topic, QoS::AtLeastOnce), NOW.log);
    assert!(!again(&mut outbound, 7, "a"), "it has not been sent yet");
    let sent = |packets: Vec<Packet>| -> Vec<(u16, bool, String)> {
        let publish = |packet| match packet {
            Packet::Publish(Publish { packet_id, dup, topic, .. }) => {
                (packet_id, dup, topic.unwrap().as_str().to_owned())
            }
            other => panic!("{other:?}"),
        };
        packets.into_iter().map(publish).collect()
    };
    assert_eq!(sent(written(&mut outbound)), [(1, false, "a".to_owned())]);
    assert!(again(&mut outbound, 7, "a"));
    assert!(!again(&mut outbound, 7, "a"), "the client has not been written the last one");
    assert!(!again(&mut outbound, 8, "b"), "the window is full");
    assert_eq!(sent(written(&mut outbound)), [(1, true, "a".to_owned())]);
    let mut out = BytesMut::new();
    outbound.acknowledge(&Packet::PubAck(Ack::success(1)), 0, &mut out);
    assert_eq!(outbound.take_acknowledged(), [7]);
    assert!(outbound.take_acknowledged().is_empty());
    assert!(!again(&mut outbound, 7, "a"), "it is over");
    assert_eq!(sent(written(&mut outbound)), [(2, false, "b".to_owned())]);
    outbound.close(&[], DropReason::SessionEnded);
    assert_eq!((outbound.room(), again(&mut outbound, 8, "b")), ((0, 0), false));
    assert_eq!(outbound.take_tally().delivered, [0, 1], "sends are not deliveries");
}

#[test]
fn while_memory_is_short_the_oldest_of_qos_0_go_and_publishers_wait() {
    let settings = Settings { queue_messages_max: 1000, receive_maximum: 1, ..settings() };
    let mut outbound = Outbound::new(settings, 0);
    for number in 0..100 {
        push(&mut outbound, &format!("zero/{number}"), QoS::AtMostOnce);
    }
    for number in 0..60 {
        push(&mut outbound, &format!("one/{number}"), QoS::AtLeastOnce);
    }
    let bytes = outbound.live_bytes();
    assert!(outbound.set_short(true).is_empty());
    assert!(outbound.live_bytes() < bytes && outbound.live_bytes() > 0);
    let tally = outbound.take_tally();
    assert_eq!(tally.dropped[0][DropReason::MemoryHigh as usize], 96, "64 may wait, and 60 of QoS 1 stay");
    assert_eq!(tally.dropped[1], [0; DROP_REASONS.len()]);
    // A newer one of QoS 0 takes the place of an older one, one of QoS 1 waits.
    assert_eq!(push(&mut outbound, "newest", QoS::AtMostOnce), Pushed::Taken);
    let told = Arc::default();
    let pushed = outbound.push(delivery("late", QoS::AtLeastOnce), None, 0, || Box::new(Told(Arc::clone(&told), 1)));
    assert_eq!(pushed, Pushed::Waiting);
    let waiters = outbound.set_short(false);
    assert_eq!(waiters.len(), 1, "there is room again");
    assert_eq!(outbound.take_tally().dropped[0][DropReason::MemoryHigh as usize], 1);
    assert!(topics(&written(&mut outbound)).iter().any(|(topic, _)| topic == "newest"));
}
