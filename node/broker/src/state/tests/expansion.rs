//! A publish to more sessions than one step takes.

use super::*;
use crate::state::{Dropped, EXPANSION_STEP_MAX};

const Q1: QoS = QoS::AtLeastOnce;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("s{n:03}")).collect()
}

fn many(count: usize) -> Bench {
    let mut bench = Bench::new();
    for name in names(count) {
        bench.session(&name, &[("t", Q1)]);
    }
    bench
}

fn got(bench: &Bench, count: usize) -> Vec<usize> {
    names(count).iter().map(|name| bench.queue(name).len()).collect()
}

#[test]
fn it_is_committed_once_and_goes_by_steps() {
    let count = 2 * EXPANSION_STEP_MAX + 1;
    let mut bench = many(count);
    assert_eq!(bench.run(Command::Expand), Outcome::Stale);
    let receivers = u32::try_from(count).unwrap();
    assert_eq!(bench.publish("t", "x", Q1), Outcome::Published { receivers });
    assert_eq!((bench.state.books().created, bench.state.books().queued), (count as u64, count as u64));
    assert_eq!((bench.state.expanding(), got(&bench, count)), (count as u64, vec![0; count]));
    assert!(bench.effects.is_empty());
    let bytes = bench.state.bytes();
    assert_eq!(bench.state.next_due(), Some(bench.at));
    assert_eq!(bench.state.due(bench.at, 9), [Command::Expand, Command::Expand, Command::Expand]);
    assert_eq!(bench.state.due(bench.at, 1), [Command::Expand]);
    for left in [EXPANSION_STEP_MAX + 1, 1, 0] {
        assert_eq!(bench.run(Command::Expand), Outcome::Done);
        assert_eq!(bench.state.expanding(), left as u64);
        assert!(bench.effects.iter().all(|effect| matches!(effect, Effect::Wake { .. })));
        assert!((1..=EXPANSION_STEP_MAX).contains(&bench.effects.len()));
        assert_eq!(bench.state.bytes(), bytes, "counted from the publish on");
        bench.state = State::restore(image::rebuilt(&bench.state.snapshot()));
    }
    assert_eq!(got(&bench, count), vec![1; count]);
    assert_eq!(bench.run(Command::Expand), Outcome::Stale);
    assert!(bench.state.next_due().is_none());
}

#[test]
fn nothing_overtakes_it() {
    let count = EXPANSION_STEP_MAX + 2;
    let mut bench = many(count);
    for payload in ["1", "2"] {
        bench.publish("t", payload, Q1);
    }
    bench.session("late", &[("t", Q1), ("u", Q1)]);
    bench.publish("u", "other", Q1);
    bench.publish("t", "3", Q1);
    let only = |name: &str| PublishCommand {
        publication: Arc::new(message("down", "4", Q1)),
        received: None,
        only: Some(key(name)),
        epoch: None,
    };
    bench.run(Command::Publish(Box::new(only("s000"))));
    assert_eq!(bench.payloads("late"), [""; 0]);
    bench.settle_due();
    assert_eq!(bench.payloads("s000"), ["1", "2", "3", "4"]);
    assert_eq!(bench.payloads("s001"), ["1", "2", "3"]);
    assert_eq!(bench.payloads("late"), ["other", "3"], "who was not there at the publish does not get it");
    bench.publish("u", "at once", Q1);
    assert_eq!(bench.payloads("late"), ["other", "3", "at once"]);
}

#[test]
fn who_has_gone_meanwhile_gets_nothing_later() {
    let count = EXPANSION_STEP_MAX + 1;
    let mut bench = many(count);
    bench.publish("t", "1", Q1);
    bench.publish("t", "2", Q1);
    // One begins anew, one ends, one only changes its owner.
    bench.claim(Claim { clean_start: true, ..claim("s000", ONE, 60) });
    let epoch = bench.state.session(&key("s001")).unwrap().epoch;
    let (key, discard_will, expiry_s) = (key("s001"), false, Some(0));
    bench.run(Command::Release(Release { key, epoch, discard_will, expiry_s, sent_below: None }));
    bench.claim(claim("s002", TWO, 60));
    assert_eq!(bench.state.books().dropped(Dropped::SessionDiscarded), 4);
    bench.settle_due();
    assert_eq!(got(&bench, 3), [0, 0, 2]);
    assert_eq!(bench.state.books().queued, 2 * (count as u64 - 2));
}

#[test]
fn what_expires_meanwhile_is_booked_so() {
    let count = EXPANSION_STEP_MAX + 1;
    let mut bench = many(count);
    bench.run(publish(Publication { expires_at: Some(LogTime(500)), ..message("t", "x", Q1) }));
    bench.run(Command::Expand);
    bench.pass_s(1);
    bench.run(Command::Expand);
    assert_eq!((bench.state.books().expired, bench.state.expanding()), (1, 0));
}
