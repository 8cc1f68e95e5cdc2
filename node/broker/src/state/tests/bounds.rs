//! Bounds, and what happens at each.

use super::*;
use crate::state::Dropped;
use crate::state::command::Phase;
use crate::state::ledger::Ledger;
use crate::state::queue::{Entry, NEVER, SPAN_MAX};
use fulmar_mqtt::ReasonCode;

const Q1: QoS = QoS::AtLeastOnce;
const FULL: Outcome = Outcome::Refused(ReasonCode::QuotaExceeded);

#[test]
fn a_full_queue_drops_the_oldest() {
    let by_count = Limits { queue_entries_max: 3, ..Limits::default() };
    let by_bytes = Limits { queue_bytes_max: 3 * (ENTRY_BYTES + 2) + 5, ..Limits::default() };
    for limits in [by_count, by_bytes] {
        let mut bench = Bench::with(limits);
        let epoch = bench.session("a", &[("t", QoS::ExactlyOnce)]);
        bench.publish("t", "0", QoS::ExactlyOnce);
        let settlement =
            Settlement { key: key("a"), epoch, floor: 0, settled: vec![], received: vec![0], refused: vec![] };
        bench.run(Command::Settle(vec![settlement]));
        (1..6).for_each(|n| drop(bench.publish("t", &n.to_string(), Q1)));
        assert_eq!(bench.payloads("a"), ["0", "4", "5"], "what the client has received is completed");
        assert_eq!(bench.state.books().dropped(Dropped::QueueFull), 3);
    }
    let mut bench = Bench::with(by_bytes);
    bench.session("a", &[("t", Q1)]);
    bench.publish("t", "x", Q1);
    assert_eq!(bench.publish("t", &"x".repeat(1000), Q1), Outcome::Published { receivers: 0 });
    assert_eq!(bench.payloads("a"), ["x"], "what can never fit drops nothing");
}

#[test]
fn where_one_receiver_is_addressed_a_full_queue_refuses() {
    let mut bench = Bench::with(Limits { queue_entries_max: 1, ..Limits::default() });
    bench.session("a", &[("t", Q1)]);
    let downlink = |name: &str, qos| {
        let publication = Arc::new(message("t", "x", qos));
        Command::Publish(Box::new(PublishCommand { publication, received: None, only: Some(key(name)), epoch: None }))
    };
    let admit = |bench: &Bench| bench.state.admit(&topic("t"), Q1, None, 2);
    assert_eq!(admit(&bench), Ok(1));
    assert_eq!(bench.run(downlink("a", Q1)), Outcome::Published { receivers: 1 });
    assert_eq!(bench.run(downlink("a", Q1)), FULL);
    assert_eq!(bench.run(downlink("nobody", Q1)), Outcome::Published { receivers: 0 });
    assert_eq!(bench.run(downlink("a", QoS::AtMostOnce)), Outcome::Published { receivers: 1 });
    assert!(matches!(bench.effects[..], [Effect::Deliver { .. }]));
    assert_eq!(admit(&bench), Err(ReasonCode::QuotaExceeded));
    bench.session("b", &[("t", Q1)]);
    assert_eq!(admit(&bench), Ok(2), "a fan-out drops the oldest instead");
    assert_eq!(bench.state.books().dropped_total(), 0);
}

#[test]
fn above_four_fifths_durable_publishes_are_refused() {
    let mut bench = Bench::with(Limits { replicated_bytes_max: 2000, ..Limits::default() });
    let epoch = bench.session("a", &[("t", Q1)]);
    let publisher = bench.session("p", &[]);
    let cost = ENTRY_BYTES + 2;
    while bench.state.bytes() + cost <= 1600 {
        assert_eq!(bench.publish("t", "x", Q1), Outcome::Published { receivers: 1 });
    }
    let before = bench.state.snapshot();
    let publication = Arc::new(message("t", "x", QoS::ExactlyOnce));
    let received = Some((key("p"), publisher, 4));
    assert_eq!(
        bench.run(Command::Publish(Box::new(PublishCommand { publication, received, only: None, epoch: None }))),
        FULL
    );
    assert_eq!(bench.state.admit(&topic("t"), Q1, None, 2), Err(ReasonCode::QuotaExceeded));
    assert_eq!(bench.state.bytes(), before.ledger.bytes);
    assert_eq!(bench.state.snapshot().sessions, before.sessions, "and its packet id is not taken");
    // What adds nothing goes through.
    assert_eq!(bench.publish("nobody", "x", Q1), Outcome::Published { receivers: 0 });
    bench.settle("a", epoch, 2, &[]);
    assert_eq!(bench.publish("t", "x", Q1), Outcome::Published { receivers: 1 });
}

#[test]
fn a_will_that_finds_no_bytes_is_booked() {
    let mut bench = Bench::with(Limits { replicated_bytes_max: 200, ..Limits::default() });
    bench.session("watcher", &[("w", Q1), ("other", Q1)]);
    let epoch = bench.claim(Claim { will: Some(will("w", 0)), ..claim("a", ONE, 60) }).epoch;
    let refused = Claim { will: Some(will(&"w".repeat(99), 0)), ..claim("b", ONE, 60) };
    assert_eq!(bench.run(Command::Claim(Box::new(refused))), FULL);
    bench.run(Command::SetLimits(Limits { replicated_bytes_max: 50, ..Limits::default() }));
    bench.release("a", epoch);
    assert!(matches!(bench.effects[..], [Effect::Publish(_)]), "live receivers get it");
    assert_eq!(bench.state.books().dropped(Dropped::ClusterFull), 1);
}

#[test]
fn a_message_is_counted_once_for_all_its_receivers() {
    let mut bench = Bench::new();
    let epochs: Vec<_> = (0..10).map(|n| bench.session(&format!("s{n}"), &[("t", Q1)])).collect();
    let body = 1 + 1000;
    bench.publish("t", &"x".repeat(1000), Q1);
    assert_eq!(bench.state.bytes(), 10 * ENTRY_BYTES + body);
    bench.settle_due(); // there are more receivers than one step takes
    let arcs: Vec<_> = (0..10).map(|n| bench.queue(&format!("s{n}"))[0].delivery.publication.clone()).collect();
    assert!(arcs.iter().all(|p| Arc::ptr_eq(p, &arcs[0])));
    for (n, epoch) in epochs.iter().enumerate() {
        assert_eq!(bench.state.bytes(), (10 - n as u64) * ENTRY_BYTES + body);
        bench.settle(&format!("s{n}"), *epoch, 1, &[]);
    }
    assert_eq!(bench.state.bytes(), 0);
}

#[test]
fn the_unsettled_span_stays_below_the_packet_ids() {
    let limits = Limits { queue_entries_max: u32::MAX, ..Limits::default() };
    let (mut ledger, mut queue) = (Ledger::default(), Queue::default());
    let publication = Arc::new(message("t", "x", Q1));
    let push = |queue: &mut Queue, ledger: &mut Ledger, phase| {
        let body = ledger.hold(&publication, 1, false);
        let (publication, subscription_ids) = (Arc::clone(&publication), Default::default());
        let (expires_at, group, qos, retain) = (NEVER, None, QoS::ExactlyOnce, false);
        let entry = Entry { publication, body, expires_at, subscription_ids, group, qos, retain, phase };
        let room = queue.make_room(&limits, entry.cost(), ledger, &mut crate::state::queue::Lost::default());
        if room {
            queue.push(entry);
            ledger.queued();
        }
        room
    };
    let now = LogTime(0);
    for seq in 0..SPAN_MAX {
        assert!(push(&mut queue, &mut ledger, Phase::Queued));
        if seq > 0 {
            queue.settle(seq, super::super::books::Fate::Delivered, &mut ledger);
        }
    }
    assert_eq!((queue.len(), queue.next_seq - queue.floor()), (1, SPAN_MAX));
    assert!(!queue.fits(&limits, 1, 1));
    assert!(push(&mut queue, &mut ledger, Phase::Queued), "the oldest, which holds the span open, goes");
    assert_eq!((queue.len(), ledger.books.dropped(Dropped::QueueFull)), (1, 1));
    queue.received(queue.floor());
    for _ in 1..SPAN_MAX {
        assert!(push(&mut queue, &mut ledger, Phase::Queued));
        queue.settle(queue.next_seq - 1, super::super::books::Fate::Delivered, &mut ledger);
    }
    assert!(!push(&mut queue, &mut ledger, Phase::Queued), "one that the client has received may not go");
    queue.settle_below(u64::MAX, now, &mut ledger);
    assert_eq!(ledger.books.unaccounted() + i128::from(ledger.books.queued), 0);
}
