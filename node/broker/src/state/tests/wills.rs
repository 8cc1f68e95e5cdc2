//! Wills, expiries and what is due.

use super::*;
use crate::state::{DUE_MAX, Dropped};

fn fired(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Publish(_))).count()
}

#[test]
fn a_claim_settles_the_older_will() {
    // (delay, released first, seconds until the claim, clean start, old expiry) -> fired at the claim
    let table = [
        (0, false, 0, false, 3600, true),
        (30, false, 0, false, 3600, false),
        (30, false, 0, true, 3600, true),
        (30, true, 29, false, 3600, false),
        (30, true, 30, false, 3600, true),
        (30, true, 29, true, 3600, true),
        (30, true, 10, false, 10, true),
        (30, false, 0, false, 0, true),
    ];
    for (delay_s, released, wait_s, clean_start, expiry_s, expected) in table {
        let mut bench = Bench::new();
        let claimed = bench.claim(Claim { will: Some(will("w", delay_s)), ..claim("a", ONE, expiry_s) });
        if released {
            bench.release("a", claimed.epoch);
            assert_eq!(fired(&bench.effects), 0);
            bench.pass_s(wait_s);
        }
        bench.claim(Claim { clean_start, ..claim("a", TWO, 60) });
        let label = format!("{delay_s} {released} {wait_s} {clean_start} {expiry_s}");
        assert_eq!(fired(&bench.effects), usize::from(expected), "{label}");
        assert!(!bench.state.session(&key("a")).unwrap().has_will);
        assert_eq!(bench.state.bytes(), 0);
    }
}

#[test]
fn a_will_fires_after_its_delay_or_with_the_session() {
    // (delay, expiry, discarded) -> seconds after the release
    let table = [
        (0, 60, false, Some(0)),
        (20, 60, false, Some(20)),
        (20, 10, false, Some(10)),
        (20, 0, false, Some(0)),
        (0, 60, true, None),
        (20, 60, true, None),
    ];
    for (delay_s, expiry_s, discard_will, expected) in table {
        for dies in [false, true] {
            let mut bench = Bench::new();
            bench.session("watcher", &[("w", QoS::AtLeastOnce)]);
            let mut its = will("w", delay_s);
            its.message_expiry_s = Some(100);
            let mine = Claim { will: Some(its), ..claim("a", TWO, expiry_s) };
            let epoch = bench.claim(mine).epoch;
            bench.pass_s(1000);
            if dies && !discard_will {
                bench.run(down(TWO));
                bench.settle_due();
            } else {
                bench.run(Command::Release(Release {
                    key: key("a"),
                    epoch,
                    discard_will,
                    expiry_s: None,
                    sent_below: None,
                }));
            }
            let due_at = expected.map(|s| LogTime(0).plus_s(1000 + s));
            let mut at = bench.queue("watcher").first().map(|_| bench.at);
            for _ in 0..70 {
                let early = Command::FireWill { key: key("a"), epoch };
                bench.run(early);
                bench.settle_due();
                at = at.or(bench.queue("watcher").first().map(|_| bench.at));
                bench.pass_s(1);
            }
            assert_eq!(at, due_at, "{delay_s} {expiry_s} {discard_will} {dies}");
            assert_eq!(bench.state.books().created, u64::from(expected.is_some()), "once");
            assert!(bench.state.session(&key("a")).is_none(), "expired by now");
            if let Some(entry) = bench.queue("watcher").first() {
                let publication = &entry.delivery.publication;
                assert_eq!((publication.via, publication.accepted_at), (Via::Will, due_at.unwrap()));
                assert_eq!(publication.expires_at, due_at.map(|at| at.plus_s(100)));
            }
        }
    }
}

#[test]
fn a_will_may_be_retained_and_reaches_its_own_session() {
    let mut bench = Bench::new();
    let publication = Publication { retain: true, ..message("w", "gone", QoS::AtLeastOnce) };
    let its = Will { publication: Arc::new(publication), ..will("w", 0) };
    let epoch = bench.claim(Claim { will: Some(its), ..claim("a", ONE, 60) }).epoch;
    bench.subscribe("a", epoch, &[("w", QoS::AtLeastOnce)]);
    bench.release("a", epoch);
    assert!(matches!(&bench.effects[..], [Effect::Publish(p)] if p.via == Via::Will && p.origin.is_none()));
    assert_eq!(bench.payloads("a"), ["gone"]);
    assert!(bench.state.retained().get(&topic("w")).is_some());
}

#[test]
fn a_dead_nodes_sessions_are_settled_in_steps_from_the_time_it_died() {
    let mut bench = Bench::new();
    let count = DUE_MAX * 2 + 10;
    for n in 0..count {
        bench.claim(Claim { will: Some(will("w", 10)), ..claim(&format!("s{n}"), TWO, 20) });
    }
    bench.claim(claim("clean", TWO, 0));
    bench.pass_s(100);
    bench.run(down(TWO));
    assert_eq!(bench.effects[0], Effect::NodeDown { node: TWO, generation: Generation(1) });
    assert!(matches!(bench.effects[1..], [Effect::Steer(_)]), "an alarm, and nothing else: {:?}", bench.effects);
    assert_eq!(bench.state.next_due(), Some(bench.at));
    bench.pass_s(5);
    let step = bench.state.due(bench.at, 1000);
    assert_eq!(step.len(), DUE_MAX);
    assert_eq!(bench.state.due(bench.at, 3).len(), 3);
    bench.run_all(step.clone());
    bench.run_all(step);
    assert_eq!(fired(&bench.settle_due()), 0, "delays count from the end of the node");
    assert!(bench.state.session(&key("clean")).is_none());
    assert_eq!(bench.state.next_due(), Some(LogTime(0).plus_s(110)));
    bench.pass_s(5);
    assert_eq!(fired(&bench.settle_due()), count);
    assert_eq!(bench.state.session_count(), count);
    bench.pass_s(10);
    let ended = bench.settle_due();
    assert_eq!(ended.iter().filter(|effect| matches!(effect, Effect::Ended { .. })).count(), count);
    assert_eq!((bench.state.session_count(), bench.state.next_due()), (0, None));
}

#[test]
fn an_expired_session_books_its_queue() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[("t", QoS::AtLeastOnce)]);
    bench.publish("t", "x", QoS::AtLeastOnce);
    bench.release("a", epoch);
    let expire = Command::ExpireSession { key: key("a"), epoch };
    bench.pass_s(3599);
    bench.run(expire.clone());
    assert_eq!(bench.state.session_count(), 1, "not yet");
    bench.pass_s(1);
    assert_eq!([bench.run(expire.clone()), bench.run(expire)], [Outcome::Done, Outcome::Stale]);
    assert_eq!(bench.state.books().dropped(Dropped::SessionExpired), 1);
    assert_eq!(bench.state.bytes(), 0);
}

#[test]
fn what_the_server_says_is_queued_and_told_to_every_node() {
    let mut bench = Bench::new();
    bench.session("a", &[("t", QoS::AtLeastOnce)]);
    for (to, receivers) in [("t", 1), ("nobody", 0)] {
        let said = Publication { retain: true, ..message(to, "x", QoS::AtLeastOnce) };
        let outcome = bench.run(Command::Announce(Arc::new(said)));
        assert_eq!(outcome, Outcome::Published { receivers });
        assert_eq!(fired(&bench.effects), 1, "{to}");
    }
    assert_eq!((bench.state.retained().len(), bench.state.books().queued), (0, 1));
    bench.run(Command::SetLimits(Limits { replicated_bytes_max: 1, ..Limits::default() }));
    let said = message("t", "x", QoS::AtLeastOnce);
    assert!(matches!(bench.run(Command::Announce(Arc::new(said))), Outcome::Refused(_)));
    assert_eq!(fired(&bench.effects), 0);
}
