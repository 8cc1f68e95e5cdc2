//! Retained messages.

use super::*;
use crate::state::command::Replay;
use fulmar_mqtt::ReasonCode;

const Q1: QoS = QoS::AtLeastOnce;

fn set(to: &str, payload: &str) -> Command {
    Command::SetRetained(Arc::new(Publication { retain: true, ..message(to, payload, Q1) }))
}

fn replay(epoch: Epoch, topics: &[&str]) -> Command {
    Command::ReplayRetained(Box::new(Replay {
        key: key("a"),
        epoch,
        filter: filter("r/#"),
        granted: QoS::ExactlyOnce,
        subscription_ids: [3].into_iter().collect(),
        topics: topics.iter().map(|text| topic(text)).collect(),
    }))
}

#[test]
fn set_replace_clear() {
    let mut bench = Bench::new();
    for (payload, bytes) in [("x", 4), ("longer", 9), ("", 0), ("", 0)] {
        assert_eq!(bench.run(set("r/1", payload)), Outcome::Done);
        assert_eq!(bench.state.bytes(), if payload.is_empty() { 0 } else { RETAINED_BYTES + bytes });
    }
    bench.run(publish(Publication { retain: true, ..message("r/2", "x", QoS::AtMostOnce) }));
    assert!(bench.state.retained().get(&topic("r/2")).is_some());
    bench.run(publish(message("r/2", "not retained", QoS::AtMostOnce)));
    assert_eq!(bench.state.retained().get(&topic("r/2")).unwrap().payload, "x");
}

#[test]
fn a_retained_message_is_counted_once_with_the_queues_that_refer_to_it() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[("r/#", Q1)]);
    bench.run(publish(Publication { retain: true, ..message("r/1", "payload", Q1) }));
    let body = 10;
    assert_eq!(bench.state.bytes(), RETAINED_BYTES + body + ENTRY_BYTES);
    assert_eq!(bench.run(replay(epoch, &["r/1", "r/none", "other"])), Outcome::Published { receivers: 1 });
    assert_eq!(bench.state.bytes(), RETAINED_BYTES + body + 2 * ENTRY_BYTES);
    let again = &bench.queue("a")[1].delivery;
    assert!(again.retain && again.subscription_ids.as_slice() == [3] && again.qos == Q1);
    bench.run(set("r/1", ""));
    assert_eq!(bench.state.bytes(), body + 2 * ENTRY_BYTES, "now only the queue holds it");
    bench.run(set("r/1", "new"));
    assert_eq!(bench.run(replay(epoch, &["r/1"])), Outcome::Published { receivers: 1 });
    assert_eq!(bench.payloads("a"), ["payload", "payload", "new"]);
    bench.settle("a", epoch, 9, &[]);
    assert_eq!(bench.state.bytes(), RETAINED_BYTES + 6);
}

#[test]
fn what_is_not_replayed() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[]);
    let mut sub = subscription("r/#", Q1);
    sub.options.no_local = true;
    bench.run(Command::Subscribe { key: key("a"), epoch, filters: vec![sub] });
    let expires_at = Some(LogTime(5000));
    let expiring = Publication { expires_at, ..message("r/expired", "x", Q1) };
    let own = Publication { origin: Some(key("a")), ..message("r/own", "x", Q1) };
    let live = message("r/live", "x", QoS::AtMostOnce);
    for publication in [expiring, own, live, message("other", "x", Q1)] {
        bench.run(Command::SetRetained(Arc::new(publication)));
    }
    bench.pass_s(5);
    let topics = ["r/expired", "r/own", "r/live", "other"];
    assert_eq!(bench.run(replay(epoch, &topics)), Outcome::Published { receivers: 1 });
    assert!(matches!(&bench.effects[..], [Effect::Deliver { delivery, .. }] if delivery.retain));
    assert_eq!(bench.run(replay(Epoch(99), &topics)), Outcome::Stale);
    assert!(bench.queue("a").is_empty());
}

#[test]
fn expired_ones_are_cleared_when_due() {
    let mut bench = Bench::new();
    let expiring = |s| {
        let publication = Publication { expires_at: Some(LogTime(0).plus_s(s)), ..message("r/1", "x", Q1) };
        Command::SetRetained(Arc::new(publication))
    };
    bench.run(expiring(5));
    assert_eq!(bench.state.next_due(), Some(LogTime(5000)));
    bench.pass_s(5);
    let late = bench.state.due(bench.at, 10);
    assert_eq!(late, [Command::ExpireRetained(vec![topic("r/1")])]);
    bench.run(expiring(50));
    bench.run_all(late);
    assert_eq!(bench.state.retained().len(), 1, "the newer one stays");
    bench.pass_s(45);
    bench.settle_due();
    assert_eq!((bench.state.retained().len(), bench.state.bytes(), bench.state.next_due()), (0, 0, None));
}

#[test]
fn bounds_on_retained() {
    let full = Outcome::Refused(ReasonCode::QuotaExceeded);
    let mut bench = Bench::with(Limits { retained_max: 1, ..Limits::default() });
    bench.run(set("r/1", "x"));
    assert_eq!(bench.run(set("r/2", "x")), full);
    assert_eq!([bench.run(set("r/1", "y")), bench.run(set("r/2", ""))], [Outcome::Done, Outcome::Done]);
    let both = publish(Publication { retain: true, ..message("r/2", "x", Q1) });
    bench.session("a", &[("r/#", Q1)]);
    assert_eq!(bench.run(both), full);
    assert_eq!(bench.state.books().created, 0);
    let max = 2 * RETAINED_BYTES;
    let mut bench = Bench::with(Limits { replicated_bytes_max: max, ..Limits::default() });
    assert_eq!([bench.run(set("r/1", "xx")), bench.run(set("r/2", &"x".repeat(99)))], [Outcome::Done, full]);
}

#[test]
fn a_page_that_does_not_fit_waits() {
    let mut bench = Bench::with(Limits { queue_entries_max: 3, ..Limits::default() });
    let epoch = bench.session("a", &[("t", Q1)]);
    let topics = ["r/1", "r/2", "r/3"];
    topics.iter().for_each(|to| drop(bench.run(set(to, to))));
    bench.publish("t", "x", Q1);
    assert_eq!(bench.run(replay(epoch, &topics)), Outcome::Refused(ReasonCode::QuotaExceeded));
    bench.settle("a", epoch, 1, &[]);
    assert_eq!(bench.run(replay(epoch, &topics)), Outcome::Published { receivers: 3 });
    assert_eq!(bench.payloads("a"), topics);
}
