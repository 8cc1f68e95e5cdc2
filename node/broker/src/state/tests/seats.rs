//! Connections of applications.

use fulmar_mqtt::ReasonCode;
use fulmar_platform::Secret;
use fulmar_platform::registry::{AccessCode, Change, Expect, Record, Rejection};

use super::*;

const REFUSED: Outcome = Outcome::Refused(ReasonCode::NotAuthorized);

fn application(name: &str) -> SessionKey {
    SessionKey::new("default", "application", name)
}

fn claims(name: &str, node: NodeId) -> Command {
    Command::Claim(Box::new(Claim { key: application(name), ..claim("", node, 0) }))
}

fn code(access_key: &str) -> Command {
    let code =
        AccessCode { kind: "MQTT".into(), access_key: access_key.into(), access_code: Secret::new("s"), created_ms: 0 };
    let record = Record::AccessCode(Arc::new(code));
    Command::Registry(Box::new(Change::Put { record, expect: Expect::Anything }))
}

fn cut(access_key: &str) -> Command {
    Command::Registry(Box::new(Change::DisconnectApplication { access_key: access_key.into() }))
}

fn cuts(effects: &[Effect]) -> Vec<&str> {
    let cut = effects.iter().filter_map(|effect| match effect {
        Effect::Disconnect { key, .. } => Some(key.identity()),
        _ => None,
    });
    cut.collect()
}

/// Ten connections of `k`, on both nodes.
fn full() -> Bench {
    let mut bench = Bench::new();
    for number in 0..10 {
        let node = if number % 2 == 0 { ONE } else { TWO };
        assert!(matches!(bench.run(claims(&format!("k/{number}"), node)), Outcome::Claimed(_)), "{number}");
    }
    bench
}

#[test]
fn the_eleventh_connection_of_an_access_key_is_refused() {
    let mut bench = full();
    assert_eq!((bench.run(claims("k/10", ONE)), bench.state.applications()), (REFUSED, 10));
    assert!(bench.state.session(&application("k/0")).is_some_and(|view| view.owner.is_some()), "the others go on");
    // Neither another key's connections count, nor a takeover of one's own.
    assert!(matches!(bench.run(claims("other/1", ONE)), Outcome::Claimed(_)));
    assert!(matches!(bench.run(claims("k/3", ONE)), Outcome::Claimed(_)));
    assert_eq!(bench.run(claims("k/10", TWO)), REFUSED);
    let epoch = bench.state.session(&application("k/4")).expect("is connected").epoch;
    bench.run(Command::Release(Release {
        key: application("k/4"),
        epoch,
        discard_will: true,
        expiry_s: None,
        sent_below: None,
    }));
    assert!(matches!(bench.run(claims("k/10", TWO)), Outcome::Claimed(_)), "one has left");
    assert_eq!(bench.run(claims("k/11", ONE)), REFUSED);
}

#[test]
fn what_a_dead_run_held_is_free_at_once() {
    let mut bench = full();
    bench.run(down(TWO));
    assert_eq!(bench.state.applications(), 5);
    for number in 10..15 {
        assert!(matches!(bench.run(claims(&format!("k/{number}"), ONE)), Outcome::Claimed(_)), "{number}");
    }
    assert_eq!(bench.run(claims("k/15", ONE)), REFUSED);
    bench.settle_due();
    assert_eq!((bench.run(claims("k/15", ONE)), bench.state.applications()), (REFUSED, 10));
}

#[test]
fn a_key_that_is_void_is_cut_and_one_that_is_not_stays() {
    let mut bench = full();
    bench.run(code("k"));
    assert_eq!(bench.run(cut("k")), Outcome::Registry(Err(Rejection::Conflict)));
    assert_eq!(cuts(&bench.effects), [] as [&str; 0]);
    let outcomes = bench.run_all(vec![code("l"), cut("k")]);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Registry(Ok(_)))));
    assert_eq!(cuts(&bench.effects).len(), 10);
    assert!(matches!(bench.run(cut("unheard-of")), Outcome::Registry(Ok(_))));
    assert_eq!(cuts(&bench.effects), [] as [&str; 0]);
}
