//! Shared subscriptions.

use super::*;
use crate::state::Dropped;

const GROUP: &str = "$share/g/t";
const Q1: QoS = QoS::AtLeastOnce;

fn held(bench: &Bench, names: &[&str]) -> Vec<usize> {
    names.iter().map(|name| bench.queue(name).len()).collect()
}

/// What a publish comes to that the group gets through the log.
fn served(receivers: u32) -> Outcome {
    Outcome::Shared { receivers, groups: vec![Arc::new(filter(GROUP))] }
}

#[test]
fn the_outcome_says_whether_the_log_has_served_the_group() {
    let mut bench = Bench::new();
    let clean = bench.claim(claim("clean", ONE, 0)).epoch;
    bench.subscribe("clean", clean, &[(GROUP, Q1)]);
    let publisher = bench.claim(claim("p", ONE, 60)).epoch;
    let publish = |packet_id| {
        let publication = Arc::new(message("t", "x", QoS::ExactlyOnce));
        let received = Some((key("p"), publisher, packet_id));
        Command::Publish(Box::new(PublishCommand { publication, received, only: None, epoch: None }))
    };
    assert_eq!(bench.run(publish(1)), Outcome::Published { receivers: 0 }, "live: the accepting node chooses");
    bench.session("durable", &[(GROUP, Q1)]);
    assert_eq!(bench.run(publish(2)), served(1));
    assert_eq!(bench.run(publish(2)), served(0), "sent again, it has been served");
}

#[test]
fn durable_as_soon_as_one_member_is_persistent() {
    let mut bench = Bench::new();
    let clean = bench.claim(claim("clean", ONE, 0)).epoch;
    bench.subscribe("clean", clean, &[(GROUP, Q1)]);
    assert!(!bench.state.shared_group_is_durable(&filter(GROUP)));
    assert!(!bench.state.has_durable_match(&topic("t")));
    let durable = bench.session("durable", &[(GROUP, Q1)]);
    assert!(bench.state.shared_group_is_durable(&filter(GROUP)) && bench.state.has_durable_group(&topic("t")));
    assert!(!bench.state.shared_group_is_durable(&filter("$share/h/t")));
    (0..10).for_each(|_| drop(bench.publish("t", "x", Q1)));
    assert_eq!(held(&bench, &["clean", "durable"]), [5, 5], "in turns, the clean member too");
    let filters = vec![filter(GROUP)];
    bench.run(Command::Unsubscribe { key: key("durable"), epoch: durable, filters });
    assert!(!bench.state.shared_group_is_durable(&filter(GROUP)));
    assert_eq!(bench.publish("t", "x", Q1), Outcome::Published { receivers: 0 });
}

#[test]
fn offline_members_only_if_none_is_online() {
    let mut bench = Bench::new();
    let epochs: Vec<_> = ["a", "b", "c"].map(|name| (name, bench.session(name, &[(GROUP, Q1)]))).to_vec();
    bench.release("a", epochs[0].1);
    bench.run(Command::Claim(Box::new(claim("b", TWO, 60))));
    bench.run(down(ONE)); // c's owner
    (0..4).for_each(|_| drop(bench.publish("t", "x", Q1)));
    assert_eq!(held(&bench, &["a", "b", "c"]), [0, 4, 0]);
    bench.run(down(TWO));
    (0..3).for_each(|_| drop(bench.publish("t", "x", Q1)));
    assert_eq!(held(&bench, &["a", "b", "c"]), [1, 5, 1]);
    // QoS 0 goes to somebody online or to nobody.
    assert_eq!(bench.publish("t", "x", QoS::AtMostOnce), Outcome::Published { receivers: 0 });
}

#[test]
fn a_full_member_is_passed_over() {
    let mut bench = Bench::with(Limits { queue_entries_max: 2, ..Limits::default() });
    for name in ["a", "b"] {
        bench.session(name, &[(GROUP, Q1)]);
    }
    let settle = bench.state.session(&key("b")).unwrap().epoch;
    (0..4).for_each(|_| drop(bench.publish("t", "x", Q1)));
    bench.settle("b", settle, 9, &[]);
    (0..2).for_each(|_| drop(bench.publish("t", "x", Q1)));
    assert_eq!((held(&bench, &["a", "b"]), bench.state.books().dropped_total()), (vec![2, 2], 0));
}

#[test]
fn qos_0_is_delivered_by_the_chosen_owner() {
    let mut bench = Bench::new();
    bench.session("a", &[(GROUP, QoS::AtMostOnce)]);
    assert_eq!(bench.publish("t", "x", Q1), served(1));
    let [Effect::Deliver { key: to, delivery, .. }] = &bench.effects[..] else { panic!("{:?}", bench.effects) };
    assert_eq!((to, delivery.qos), (&key("a"), QoS::AtMostOnce));
    assert_eq!(bench.state.books().created, 0);
}

#[test]
fn what_a_gone_member_held() {
    // (published, grant of the other) -> (moved to the other, handed over live, dropped)
    let table = [
        (QoS::AtLeastOnce, Some(QoS::ExactlyOnce), 1, 0, 0),
        (QoS::AtLeastOnce, Some(QoS::AtMostOnce), 0, 1, 0),
        (QoS::AtLeastOnce, None, 0, 0, 1),
        (QoS::ExactlyOnce, Some(QoS::ExactlyOnce), 0, 0, 1),
    ];
    for (published, other, moved, live, dropped) in table {
        for clean_start in [false, true] {
            let mut bench = Bench::new();
            let gone = bench.session("gone", &[(GROUP, QoS::ExactlyOnce)]);
            bench.publish("t", "x", published);
            assert_eq!(held(&bench, &["gone"]), [1]);
            if let Some(qos) = other {
                let epoch = bench.session("other", &[]);
                let mut sub = subscription(GROUP, qos);
                sub.id = Some(9);
                bench.run(Command::Subscribe { key: key("other"), epoch, filters: vec![sub] });
            }
            if clean_start {
                bench.claim(Claim { clean_start, ..claim("gone", TWO, 60) });
            } else {
                let release =
                    Release { key: key("gone"), epoch: gone, discard_will: true, expiry_s: Some(0), sent_below: None };
                bench.run(Command::Release(release));
            }
            assert_eq!(held(&bench, &["other"]), [moved]);
            assert!(bench.queue("other").iter().all(|e| e.delivery.subscription_ids.as_slice() == [9]));
            assert_eq!(bench.effects.iter().filter(|e| matches!(e, Effect::Deliver { .. })).count(), live);
            assert_eq!(bench.state.books().dropped(Dropped::Downgraded), live as u64);
            assert_eq!(bench.state.books().dropped(Dropped::SessionDiscarded), dropped);
            assert_eq!(bench.state.books().created, 1);
            assert_eq!(bench.effects.iter().any(|e| matches!(e, Effect::Wake { .. })), moved > 0);
        }
    }
}

#[test]
fn refused_is_not_offered_again() {
    let mut bench = Bench::new();
    let epochs = ["a", "b"].map(|name| bench.session(name, &[(GROUP, Q1)]));
    bench.publish("t", "x", Q1);
    let (name, epoch) = if bench.queue("a").is_empty() { ("b", epochs[1]) } else { ("a", epochs[0]) };
    let refused = vec![0];
    let settlement = Settlement { key: key(name), epoch, floor: 1, settled: vec![], received: vec![], refused };
    bench.run(Command::Settle(vec![settlement]));
    assert_eq!((held(&bench, &["a", "b"]), bench.state.books().dropped(Dropped::Refused)), (vec![0, 0], 1));
}

#[test]
fn one_session_may_get_it_both_ways() {
    let mut bench = Bench::with(Limits { queue_entries_max: 1, ..Limits::default() });
    bench.session("a", &[(GROUP, Q1), ("t", Q1)]);
    // The second entry pushes out the first of the same message: counted once, given back once.
    assert_eq!(bench.publish("t", "x", Q1), served(2));
    assert_eq!((held(&bench, &["a"]), bench.state.books().dropped(Dropped::QueueFull)), (vec![1], 1));
}
