//! Claims, takeover and release.

use super::*;
use crate::state::{Dropped, WILL_PAYLOAD_BYTES_MAX};
use fulmar_mqtt::ReasonCode;

#[test]
fn a_claim_takes_over_and_resumes() {
    let mut bench = Bench::new();
    let first = bench.session("a", &[("t/+", QoS::ExactlyOnce)]);
    bench.publish("t/1", "one", QoS::AtLeastOnce);
    let received = Some((key("a"), first, 7));
    let publication = Arc::new(message("none", "x", QoS::ExactlyOnce));
    bench.run(Command::Publish(Box::new(PublishCommand { publication, received, only: None, epoch: None })));
    let claimed = bench.claim(claim("a", TWO, 3600));
    let owner = claimed.previous.unwrap();
    assert_eq!((owner.node, owner.epoch), (ONE, first));
    assert_eq!(bench.effects, [Effect::TakenOver { key: key("a"), owner }]);
    assert!(claimed.session_present && claimed.epoch > first);
    assert_eq!(claimed.subscriptions, [subscription("t/+", QoS::ExactlyOnce)]);
    assert_eq!((claimed.received.as_slice(), claimed.queue_floor), ([7].as_slice(), 0));
    assert!(bench.queue("a")[0].before_claim, "the old owner may have sent it");
    bench.publish("t/2", "two", QoS::AtLeastOnce);
    assert!(!bench.queue("a")[1].before_claim);
    // The old epoch can do nothing any more.
    assert_eq!(bench.release("a", first), Outcome::Stale);
    assert_eq!(bench.subscribe("a", first, &[("u", QoS::AtLeastOnce)]), Outcome::Stale);
    let filters = vec![filter("t/+")];
    assert_eq!(bench.run(Command::Unsubscribe { key: key("a"), epoch: first, filters }), Outcome::Stale);
    let release = Command::ReleaseReceived { key: key("a"), epoch: first, packet_id: 7 };
    assert_eq!(bench.run(release), Outcome::Stale);
    bench.settle("a", first, 10, &[0, 1]);
    assert_eq!(bench.payloads("a"), ["one", "two"]);
    assert!(bench.state.read_queue(&key("a"), first, 0, 10, 1000).is_empty());
    bench.settle("a", claimed.epoch, 2, &[]);
    assert_eq!(bench.state.books().delivered, 2);
    assert_eq!(bench.state.session(&key("a")).unwrap().queue_floor, 2);
}

#[test]
fn what_ends_a_session() {
    // (expiry of the old session, released first, seconds until the claim, clean start) -> present
    let table = [
        (3600, false, 0, false, true),
        (3600, true, 3599, false, true),
        (3600, true, 3600, false, false),
        (3600, false, 0, true, false),
        (3600, true, 0, true, false),
        (0, false, 0, false, false),
        (0, true, 0, false, false),
    ];
    for (expiry_s, released, wait_s, clean_start, present) in table {
        let mut bench = Bench::new();
        let old = bench.claim(claim("a", ONE, expiry_s)).epoch;
        bench.subscribe("a", old, &[("t", QoS::AtLeastOnce)]);
        if released {
            bench.release("a", old);
            bench.pass_s(wait_s);
        }
        bench.publish("t", "x", QoS::AtLeastOnce);
        let queued = bench.state.books().queued;
        assert_eq!(queued, u64::from(expiry_s > 0));
        let claimed = bench.claim(Claim { clean_start, ..claim("a", TWO, 60) });
        assert_eq!(claimed.session_present, present, "{expiry_s} {released} {wait_s} {clean_start}");
        assert_eq!(claimed.subscriptions.len(), usize::from(present));
        assert_eq!(claimed.previous.is_some(), !released);
        let ended = Effect::Ended { key: key("a"), epoch: old };
        assert_eq!(bench.effects.contains(&ended), !present && (expiry_s > 0 || !released));
        assert_eq!(bench.state.has_durable_match(&topic("t")), present);
        let books = bench.state.books();
        assert_eq!(books.dropped_total(), if present { 0 } else { queued });
        assert!(claimed.epoch > old, "an epoch is never used twice");
    }
}

#[test]
fn a_release_keeps_or_ends() {
    // (expiry at CONNECT, at DISCONNECT) -> expiry in force, `None` if the session is gone
    let table = [
        (60, None, Some(60)),
        (60, Some(10), Some(10)),
        (60, Some(u32::MAX), Some(1000)),
        (60, Some(0), None),
        (0, None, None),
        (0, Some(60), None),
        (2000, None, Some(1000)),
    ];
    for (connect, disconnect, expected) in table {
        let mut bench = Bench::with(Limits { session_expiry_s_max: 1000, ..Limits::default() });
        let epoch = bench.claim(claim("a", ONE, connect)).epoch;
        bench.subscribe("a", epoch, &[("t", QoS::AtLeastOnce), ("$share/g/t", QoS::AtLeastOnce)]);
        let release = Release { key: key("a"), epoch, discard_will: true, expiry_s: disconnect, sent_below: None };
        assert_eq!(bench.run(Command::Release(release.clone())), Outcome::Done);
        let view = bench.state.session(&key("a"));
        assert_eq!(view.as_ref().map(|view| view.expiry_s), expected, "{connect} {disconnect:?}");
        assert_eq!(bench.state.has_durable_match(&topic("t")), expected.is_some());
        let again = if expected.is_some() { Outcome::Done } else { Outcome::Stale };
        bench.pass_s(1);
        assert_eq!(bench.run(Command::Release(release)), again);
        assert_eq!(bench.state.session(&key("a")), view, "a release is not repeated");
    }
}

#[test]
fn resumed_as_clean_it_has_no_durable_routes() {
    let mut bench = Bench::new();
    bench.session("a", &[("t", QoS::AtLeastOnce), ("$share/g/t", QoS::AtLeastOnce)]);
    bench.publish("t", "before", QoS::AtLeastOnce);
    let version = bench.state.subscriptions_version();
    let claimed = bench.claim(claim("a", TWO, 0));
    assert!(claimed.session_present && claimed.subscriptions.len() == 2);
    assert!(bench.state.subscriptions_version() > version);
    assert!(!bench.state.has_durable_match(&topic("t")));
    assert!(!bench.state.shared_group_is_durable(&filter("$share/g/t")));
    assert_eq!(bench.payloads("a"), ["before", "before"]);
    bench.release("a", claimed.epoch);
    assert_eq!(bench.state.books().dropped(Dropped::SessionDiscarded), 2);
}

#[test]
fn bounds_on_claims() {
    let mut bench = Bench::with(Limits { sessions_max: 2, ..Limits::default() });
    bench.claim(claim("a", ONE, 60));
    bench.claim(claim("b", ONE, 0));
    let before = bench.state.session_count();
    let refused = bench.run(Command::Claim(Box::new(claim("c", ONE, 60))));
    assert_eq!((refused, bench.state.session_count()), (Outcome::Refused(ReasonCode::QuotaExceeded), before));
    bench.claim(claim("a", TWO, 60));
    for (bytes, fits) in [(WILL_PAYLOAD_BYTES_MAX, true), (WILL_PAYLOAD_BYTES_MAX + 1, false)] {
        let publication = Publication { payload: vec![0; bytes].into(), ..message("w", "", QoS::AtMostOnce) };
        let will = Some(Will { publication: Arc::new(publication), ..will("w", 0) });
        let outcome = bench.run(Command::Claim(Box::new(Claim { will, ..claim("a", TWO, 60) })));
        assert_eq!(matches!(outcome, Outcome::Claimed(_)), fits, "{bytes}");
    }
}

#[test]
fn a_dead_owner_is_nobody() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[("t", QoS::AtLeastOnce)]);
    bench.publish("t", "x", QoS::AtLeastOnce);
    assert!(matches!(bench.effects[..], [Effect::Wake { .. }]));
    bench.run(down(ONE));
    bench.publish("t", "y", QoS::AtLeastOnce);
    assert_eq!(bench.effects, [], "nobody to wake");
    assert_eq!(bench.state.session(&key("a")).unwrap().owner, None);
    let claimed = bench.claim(claim("a", TWO, 3600));
    assert_eq!((claimed.previous, claimed.session_present), (None, true));
    assert_eq!(bench.payloads("a"), ["x", "y"]);
    assert!(claimed.epoch > epoch);
}

#[test]
fn a_wake_is_told_once_and_only_to_the_current_owner() {
    let mut bench = Bench::new();
    bench.session("a", &[("t", QoS::AtLeastOnce)]);
    let commands = (0..5).map(|_| publish(message("t", "x", QoS::AtLeastOnce))).collect();
    bench.run_all(commands);
    assert_eq!(bench.effects.len(), 1);
    let claim = Command::Claim(Box::new(claim("a", TWO, 60)));
    bench.run_all(vec![publish(message("t", "x", QoS::AtLeastOnce)), claim]);
    assert!(matches!(bench.effects[..], [Effect::TakenOver { .. }]));
}

#[test]
fn only_what_may_have_been_sent_is_marked_so() {
    let again = |bench: &Bench| bench.queue("a").iter().map(|entry| entry.before_claim).collect::<Vec<_>>();
    let release = |epoch, sent_below| {
        Command::Release(Release { key: key("a"), epoch, discard_will: false, expiry_s: None, sent_below })
    };
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[("t", QoS::AtLeastOnce)]);
    for text in ["0", "1", "2"] {
        bench.publish("t", text, QoS::AtLeastOnce);
    }
    bench.run(release(epoch, Some(2)));
    bench.publish("t", "3", QoS::AtLeastOnce);
    let epoch = bench.claim(claim("a", ONE, 3600)).epoch;
    assert_eq!(again(&bench), [true, true, false, false]);
    bench.run(release(epoch, Some(1)));
    let epoch = bench.claim(claim("a", ONE, 3600)).epoch;
    assert_eq!(again(&bench), [true, true, false, false], "what an earlier owner sent stays sent");
    bench.run(release(epoch, None));
    bench.claim(claim("a", ONE, 3600));
    assert_eq!(again(&bench), [true; 4], "nobody knows");
}
