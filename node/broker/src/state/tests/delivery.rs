//! Matching at apply, queues and settlements.

use super::*;
use crate::state::Dropped;
use crate::state::command::Phase;

fn with_id(text: &str, qos: QoS, id: u32) -> Subscription {
    Subscription { id: Some(id), ..subscription(text, qos) }
}

#[test]
fn one_entry_per_session_with_the_highest_qos_and_all_ids() {
    // (published, filters) -> (delivered, ids), `None` without an entry
    let (q0, q1, q2) = (QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce);
    let table = [
        (q2, vec![with_id("t", q1, 1), with_id("+", q2, 2), with_id("#", q0, 3)], Some((q2, vec![1, 2, 3]))),
        (q1, vec![with_id("t", q1, 5), with_id("+", q2, 5)], Some((q1, vec![5, 5]))),
        (q2, vec![with_id("t", q1, 1), with_id("u", q2, 2)], Some((q1, vec![1]))),
        (q2, vec![with_id("t", q0, 1)], None),
        (q0, vec![with_id("t", q2, 1)], None),
        (q1, vec![subscription("t", q1)], Some((q1, vec![]))),
    ];
    for (published, filters, expected) in table {
        let mut bench = Bench::new();
        let epoch = bench.session("a", &[]);
        bench.run(Command::Subscribe { key: key("a"), epoch, filters: filters.clone() });
        let outcome = bench.publish("t", "x", published);
        assert_eq!(outcome, Outcome::Published { receivers: u32::from(expected.is_some()) }, "{filters:?}");
        let found: Vec<_> = bench.queue("a");
        let got = found.first().map(|e| {
            let mut ids = e.delivery.subscription_ids.to_vec();
            ids.sort_unstable();
            (e.delivery.qos, ids)
        });
        assert_eq!(got, expected, "{published:?} {filters:?}");
        assert!(found.len() < 2);
    }
}

#[test]
fn clean_sessions_are_not_matched() {
    let mut bench = Bench::new();
    let epoch = bench.claim(claim("a", ONE, 0)).epoch;
    bench.subscribe("a", epoch, &[("t", QoS::AtLeastOnce)]);
    assert_eq!(bench.publish("t", "x", QoS::AtLeastOnce), Outcome::Published { receivers: 0 });
    assert!(!bench.state.has_durable_match(&topic("t")));
}

#[test]
fn subscriptions_come_and_go() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[]);
    let q1 = QoS::AtLeastOnce;
    assert_eq!(bench.subscribe("a", epoch, &[("t", q1), ("u", q1)]), Outcome::Subscribed(vec![false, false]));
    assert_eq!(bench.subscribe("a", epoch, &[("t", QoS::AtMostOnce)]), Outcome::Subscribed(vec![true]));
    assert!(!bench.state.has_durable_match(&topic("t")) && bench.state.has_durable_match(&topic("u")));
    assert!(bench.state.receives_durably(&key("a"), &topic("u")));
    assert!(!bench.state.receives_durably(&key("a"), &topic("t")));
    let version = bench.state.subscriptions_version();
    let filters = vec![filter("u"), filter("nothing")];
    let outcome = bench.run(Command::Unsubscribe { key: key("a"), epoch, filters });
    assert_eq!(outcome, Outcome::Unsubscribed(vec![true, false]));
    assert!(!bench.state.has_durable_match(&topic("u")));
    assert!(bench.state.subscriptions_version() > version);
    let version = bench.state.subscriptions_version();
    bench.publish("u", "x", q1);
    assert_eq!(bench.state.subscriptions_version(), version);
    let many: Vec<String> = (0..1000).map(|n| format!("f/{n}")).collect();
    let many: Vec<_> = many.iter().map(|text| (text.as_str(), q1)).collect();
    assert!(matches!(bench.subscribe("a", epoch, &many), Outcome::Refused(_)));
    assert!(matches!(bench.subscribe("a", epoch, &many[..999]), Outcome::Subscribed(_)));
}

#[test]
fn no_local_goes_by_identity() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[]);
    let mut own = subscription("t", QoS::AtLeastOnce);
    own.options.no_local = true;
    bench.run(Command::Subscribe { key: key("a"), epoch, filters: vec![own] });
    let from =
        |origin: Option<&str>| publish(Publication { origin: origin.map(key), ..message("t", "x", QoS::AtLeastOnce) });
    for (origin, receivers) in [(Some("a"), 0), (Some("b"), 1), (None, 1)] {
        assert_eq!(bench.run(from(origin)), Outcome::Published { receivers }, "{origin:?}");
    }
    // Another subscription of the same session still gets it.
    bench.subscribe("a", epoch, &[("+", QoS::AtLeastOnce)]);
    assert_eq!(bench.run(from(Some("a"))), Outcome::Published { receivers: 1 });
}

#[test]
fn retain_as_published() {
    for (rap, retain, expected) in [(true, true, true), (true, false, false), (false, true, false)] {
        let mut bench = Bench::new();
        let epoch = bench.session("a", &[("+", QoS::AtLeastOnce)]);
        let mut sub = subscription("t", QoS::AtLeastOnce);
        sub.options.retain_as_published = rap;
        bench.run(Command::Subscribe { key: key("a"), epoch, filters: vec![sub] });
        bench.run(publish(Publication { retain, ..message("t", "x", QoS::AtLeastOnce) }));
        assert_eq!(bench.queue("a")[0].delivery.retain, expected);
    }
}

#[test]
fn qos_2_is_taken_once() {
    let mut bench = Bench::new();
    let publisher = bench.session("p", &[]);
    bench.session("a", &[("t", QoS::ExactlyOnce)]);
    let command = |epoch, packet_id| {
        let publication = Arc::new(message("t", "x", QoS::ExactlyOnce));
        let received = Some((key("p"), epoch, packet_id));
        Command::Publish(Box::new(PublishCommand { publication, received, only: None, epoch: None }))
    };
    assert_eq!(bench.run(command(publisher, 5)), Outcome::Published { receivers: 1 });
    assert_eq!(bench.run(command(publisher, 5)), Outcome::Published { receivers: 0 });
    assert_eq!(bench.run(command(Epoch(999), 6)), Outcome::Stale);
    assert_eq!(bench.queue("a").len(), 1);
    let release = Command::ReleaseReceived { key: key("p"), epoch: publisher, packet_id: 5 };
    assert_eq!([bench.run(release.clone()), bench.run(release)], [Outcome::Done, Outcome::Done]);
    assert_eq!(bench.run(command(publisher, 5)), Outcome::Published { receivers: 1 });
    assert_eq!(bench.queue("a").len(), 2);
}

#[test]
fn settlements() {
    // (floor, settled, received, refused) -> (left, delivered, refused)
    let table = [
        (0, vec![], vec![], vec![], vec![0, 1, 2, 3], 0, 0),
        (2, vec![], vec![], vec![], vec![2, 3], 2, 0),
        (1, vec![2], vec![], vec![], vec![1, 3], 2, 0),
        (3, vec![0, 1], vec![], vec![2], vec![3], 2, 1),
        (9, vec![], vec![], vec![3, 3, 77], vec![], 3, 1),
        (0, vec![], vec![1], vec![], vec![0, 1, 2, 3], 0, 0),
    ];
    for (floor, settled, received, refused, left, delivered, dropped) in table {
        let mut bench = Bench::new();
        let epoch = bench.session("a", &[("t", QoS::ExactlyOnce)]);
        (0..4).for_each(|n| drop(bench.publish("t", &n.to_string(), QoS::ExactlyOnce)));
        let settlement = Settlement { key: key("a"), epoch, floor, settled, received: received.clone(), refused };
        for _ in 0..2 {
            bench.run(Command::Settle(vec![settlement.clone()]));
            assert_eq!(bench.queue("a").iter().map(|e| e.seq).collect::<Vec<_>>(), left);
            assert_eq!(bench.state.books().delivered, delivered);
            assert_eq!(bench.state.books().dropped(Dropped::Refused), dropped);
        }
        for entry in bench.queue("a") {
            assert_eq!(entry.phase == Phase::Received, received.contains(&entry.seq));
        }
    }
}

#[test]
fn reading_stops_at_both_bounds() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[("t", QoS::AtLeastOnce)]);
    (0..6).for_each(|_| drop(bench.publish("t", "123456789", QoS::AtLeastOnce)));
    let read = |from, entries, bytes| {
        let found = bench.state.read_queue(&key("a"), epoch, from, entries, bytes);
        found.iter().map(|e| e.seq).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 10, 1000), [0, 1, 2, 3, 4, 5]);
    assert_eq!(read(2, 2, 1000), [2, 3]);
    assert_eq!(read(0, 10, 25), [0, 1], "ten bytes each");
    assert_eq!(read(0, 10, 1), [0], "one at least");
    assert!(read(6, 10, 1000).is_empty() && read(0, 0, 1000).is_empty());
}

#[test]
fn expired_entries_are_not_read_and_are_booked() {
    let expiring = |s| Publication { expires_at: Some(LogTime(0).plus_s(s)), ..message("t", "x", QoS::AtLeastOnce) };
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[("t", QoS::AtLeastOnce)]);
    bench.run_all(vec![publish(expiring(5)), publish(expiring(50)), publish(expiring(5))]);
    bench.pass_s(5);
    bench.run_all(vec![publish(expiring(5))]);
    assert_eq!(bench.state.books().expired, 1, "it had expired before it was applied");
    assert_eq!(bench.queue("a").iter().map(|e| e.seq).collect::<Vec<_>>(), [1]);
    assert_eq!(bench.state.books().queued, 3, "an owner may be sending them");
    bench.settle("a", epoch, 1, &[]);
    assert_eq!((bench.state.books().expired, bench.state.books().delivered), (2, 0));
    bench.settle("a", epoch, 3, &[1, 2]);
    assert_eq!((bench.state.books().expired, bench.state.books().delivered), (2, 2), "named: it was acknowledged");
}

#[test]
fn expired_entries_of_the_absent_end_by_timer() {
    let mut bench = Bench::with(Limits { queue_ttl_s: 100, ..Limits::default() });
    let epoch = bench.session("a", &[("t", QoS::ExactlyOnce)]);
    let expires_at = Some(LogTime(0).plus_s(5));
    bench.run(publish(Publication { expires_at, ..message("t", "begun", QoS::ExactlyOnce) }));
    bench.release("a", epoch);
    bench.run(publish(Publication { expires_at, ..message("t", "new", QoS::ExactlyOnce) }));
    bench.publish("t", "bounded", QoS::AtLeastOnce);
    assert_eq!(bench.state.next_due(), Some(LogTime(5000)));
    bench.pass_s(5);
    bench.settle_due();
    assert_eq!(bench.payloads("a"), ["begun", "bounded"], "a QoS 2 delivery that may have begun is completed");
    assert_eq!(bench.state.next_due(), Some(LogTime(100_000)));
    bench.pass_s(95);
    bench.settle_due();
    assert_eq!(bench.payloads("a"), ["begun"]);
    assert_eq!(bench.state.books().expired, 2);
}
