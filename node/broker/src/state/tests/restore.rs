//! A backup put back, step by step, into another cluster.

use super::image::{rebuilt, rich};
use super::*;
use crate::state::image::{Head, Part, Place};
use crate::state::{ENDED, RestoreStep, Snapshot};
use crate::steer;

/// Head, and the parts that are sent: at most one in a step, so that each place is one to break off at.
fn backup(snapshot: &Snapshot) -> (Head, Vec<Part>) {
    let mut parts = snapshot.parts().collect::<Vec<_>>();
    let Part::Head(head) = parts.remove(0) else { panic!() };
    let begins = |part: &Part| matches!(part, Part::Registry(_) | Part::Retained(_) | Part::Session(_));
    let first = parts.iter().position(begins).unwrap();
    (*head, parts.drain(first..).filter(|part| *part != Part::End).collect())
}

fn begin(bench: &mut Bench, id: u64, replace: bool, head: &Head) -> Outcome {
    bench.run(Command::Restore(Box::new(RestoreStep::Begin { id, replace, head: Box::new(head.clone()) })))
}

fn step(bench: &mut Bench, id: u64, number: u64, parts: &[Part]) -> Outcome {
    bench.run(Command::Restore(Box::new(RestoreStep::Parts { id, number, parts: parts.to_vec() })))
}

fn end(bench: &mut Bench, id: u64, number: u64) -> Outcome {
    bench.run(Command::Restore(Box::new(RestoreStep::End { id, number })))
}

/// Puts a backup back; after each step the state is also taken apart and put together, as a node that starts would.
fn restore(bench: &mut Bench, id: u64, replace: bool, snapshot: &Snapshot) {
    let (head, parts) = backup(snapshot);
    assert_eq!(begin(bench, id, replace, &head), Outcome::Done);
    for (number, part) in (0..).zip(&parts) {
        assert_eq!(step(bench, id, number, std::slice::from_ref(part)), Outcome::Done, "{part:?}");
        assert_eq!(rebuilt(&bench.state.snapshot()), bench.state.snapshot());
        bench.state = State::restore(rebuilt(&bench.state.snapshot()));
    }
    assert_eq!(end(bench, id, parts.len() as u64), Outcome::Done);
    assert!(bench.effects.contains(&Effect::Restored));
}

/// What is to be the same, whatever cluster it is in.
fn essence(snapshot: &Snapshot, epochs: u64, revisions: u64) -> Vec<Part> {
    let (_, parts) = backup(snapshot);
    let of_nodes = |part: &Part| matches!(part, Part::Steer(filed) if matches!(**filed, steer::Filed::Alarm(_) | steer::Filed::Trace(_)));
    let moved = parts.into_iter().filter(|part| !of_nodes(part)).map(|part| match part {
        Part::Session(mut session) => {
            session.epoch.0 -= epochs;
            session.place = Place::Released { at: LogTime(0) };
            session.cut = None;
            Part::Session(session)
        }
        Part::Registry(mut filed) => {
            filed.revision -= revisions;
            if let Some(presence) = filed.presence.as_mut().filter(|presence| presence.epoch > 0) {
                presence.epoch -= epochs;
            }
            Part::Registry(filed)
        }
        Part::Plane(filed) => Part::Plane(Box::new(filed.unowned())),
        part => part,
    });
    moved.collect()
}

#[test]
fn everything_is_put_back_into_a_fresh_cluster() {
    let old = rich();
    let snapshot = old.state.snapshot();
    let mut bench = Bench::new();
    bench.pass_s(1000);
    restore(&mut bench, 7, false, &snapshot);
    let restored = bench.state.snapshot();
    assert_eq!(essence(&restored, 0, 0), essence(&snapshot, 0, 0));
    assert_eq!(super::image::sharing(&restored), super::image::sharing(&snapshot));
    assert!(!bench.state.restoring());
    assert_eq!(bench.state.generation_of(ONE), Some(Generation(1)), "runs are its own");
    assert!(bench.state.removed(ENDED) && !bench.state.removed(NodeId(5)));
    let (books, before) = (bench.state.books(), old.state.books());
    assert_eq!((books.created, books.queued, books.delivered), (before.created, before.queued, before.delivered));
    // Nobody is connected: what follows a death follows.
    let effects = bench.settle_due();
    assert!(!bench.state.runs().any(|run| run.node == ENDED));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Registry(_))), "a device is offline: {effects:?}");
    assert_eq!(bench.state.session(&key("a")).unwrap().owner, None);
    assert_eq!(bench.state.session(&key("clean")), None, "it ended with its connection");
    assert!(bench.state.session(&key("c")).unwrap().has_will, "its delay runs from the restore");
    bench.pass_s(10);
    bench.settle_due();
    assert!(!bench.state.session(&key("c")).unwrap().has_will);
    // Another claim is newer than all of the backup.
    let last = snapshot.epoch_last;
    let claimed = bench.claim(claim("a", ONE, 3600));
    assert!(claimed.session_present && claimed.epoch.0 > last);
}

/// What is derived from the state is there without a start too.
#[test]
fn a_node_that_stays_up_finds_what_was_put_back() {
    let (head, parts) = backup(&rich().state.snapshot());
    let mut bench = Bench::new();
    assert_eq!(begin(&mut bench, 1, false, &head), Outcome::Done);
    for (number, part) in (0..).zip(&parts) {
        assert_eq!(step(&mut bench, 1, number, std::slice::from_ref(part)), Outcome::Done, "{part:?}");
    }
    assert_eq!(end(&mut bench, 1, parts.len() as u64), Outcome::Done);
    let started = State::restore(rebuilt(&bench.state.snapshot()));
    let names = |state: &State| -> Vec<SessionKey> {
        state.sessions_from(std::ops::Bound::Unbounded).map(|(key, _)| key.clone()).collect()
    };
    assert_eq!((names(&bench.state).len() as u64, names(&bench.state)), (head.sessions, names(&started)));
    assert_eq!(bench.state.next_due(), started.next_due());
}

#[test]
fn expiries_begin_anew() {
    let mut old = Bench::new();
    let epoch = old.session("a", &[("#", QoS::AtLeastOnce)]);
    old.release("a", epoch);
    old.pass_s(3000);
    let mut bench = Bench::new();
    bench.at = LogTime(100_000_000);
    restore(&mut bench, 1, false, &old.state.snapshot());
    assert_eq!(bench.state.session(&key("a")).unwrap().ends_at, Some(bench.at.plus_s(3600)));
}

#[test]
fn until_it_has_ended_nobody_is_served() {
    let (head, parts) = backup(&rich().state.snapshot());
    let mut bench = Bench::new();
    assert_eq!(begin(&mut bench, 1, false, &head), Outcome::Done);
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Emptied(_))));
    assert!(bench.state.restoring());
    let refused = Outcome::Refused(fulmar_mqtt::ReasonCode::ServerUnavailable);
    assert_eq!(bench.run(Command::Claim(Box::new(claim("x", ONE, 0)))), refused);
    assert_eq!(bench.publish("t", "x", QoS::AtLeastOnce), refused);
    assert_eq!(bench.run_all(devices::seeds()).pop(), Some(refused));
    assert_eq!(bench.run(up(NodeId(4), 1)), Outcome::Done, "the cluster goes on");
    bench.pass_s(1_000_000);
    assert_eq!((bench.state.due(bench.at, usize::MAX), bench.state.next_due()), (vec![], None));
    // Steps in order, once each, of this restore.
    assert_eq!(step(&mut bench, 2, 0, &parts[..1]), Outcome::Stale);
    assert_eq!(step(&mut bench, 1, 1, &parts[..1]), Outcome::Stale);
    assert_eq!(step(&mut bench, 1, 0, &parts[..1]), Outcome::Done);
    assert_eq!(step(&mut bench, 1, 0, &parts[..1]), Outcome::Stale);
    // All of them, before it ends.
    let unfit = Outcome::Refused(fulmar_mqtt::ReasonCode::ImplementationSpecificError);
    assert_eq!(end(&mut bench, 1, 1), unfit);
    assert_eq!(end(&mut bench, 1, 7), Outcome::Stale);
    assert!(bench.state.restoring());
    // Only another one that replaces gets it out of this.
    assert_eq!(begin(&mut bench, 2, false, &head), Outcome::Stale);
    assert_eq!(begin(&mut bench, 1, true, &head), Outcome::Stale);
    restore(&mut bench, 2, true, &rich().state.snapshot());
    assert_eq!(step(&mut bench, 1, 1, &parts[1..2]), Outcome::Stale);
    bench.claim(claim("x", ONE, 0));
}

#[test]
fn data_is_only_replaced_on_demand() {
    let old = rich().state.snapshot();
    let (head, _) = backup(&old);
    let mut bench = Bench::new();
    let epoch = bench.session("mine", &[("t/#", QoS::AtLeastOnce)]);
    bench.publish("t/1", "x", QoS::AtLeastOnce);
    assert_eq!(bench.state.occupants(), [("sessions", 1)]);
    assert_eq!(begin(&mut bench, 1, false, &head), Outcome::Stale);
    assert!(!bench.state.restoring());
    assert_eq!(bench.payloads("mine"), ["x"]);
    restore(&mut bench, 1, true, &old);
    assert_eq!(bench.state.session(&key("mine")), None);
    assert_eq!(essence(&bench.state.snapshot(), epoch.0, 0), essence(&old, 0, 0), "epochs are above all older ones");
    let mut again = rich();
    let (epochs, revisions) = (old.epoch_last, old.registry.last_revision());
    restore(&mut again, 9, true, &old);
    assert_eq!(essence(&again.state.snapshot(), epochs, revisions), essence(&old, 0, 0));
    let (_, parts) = backup(&again.state.snapshot());
    assert!(parts.len() > 5);
}

/// Parts that are not as they were, in another order, or of something else are refused or taken; and never a panic, nor
/// a state that no snapshot can be made of.
#[test]
fn wrong_parts_do_no_harm() {
    let (head, parts) = backup(&rich().state.snapshot());
    for (first, second) in (0..parts.len()).flat_map(|one| (0..parts.len()).map(move |other| (one, other))) {
        let mut bench = Bench::new();
        begin(&mut bench, 1, false, &head);
        let mut changed = parts.clone();
        changed.swap(first, second);
        let outcomes: Vec<Outcome> =
            (0..).zip(&changed).map(|(at, part)| step(&mut bench, 1, at, std::slice::from_ref(part))).collect();
        let all = outcomes.iter().all(|outcome| *outcome == Outcome::Done);
        assert!(all || end(&mut bench, 1, parts.len() as u64) == Outcome::Stale);
    }
    for broken in [
        Head { epoch_last: u64::MAX, ..head.clone() },
        Head { registry_last: u64::MAX, ..head.clone() },
        Head { books: crate::state::Books { created: 1, ..head.books }, ..head.clone() },
    ] {
        let mut bench = Bench::new();
        bench.session("a", &[]);
        let unfit = Outcome::Refused(fulmar_mqtt::ReasonCode::ImplementationSpecificError);
        let outcome = begin(&mut bench, 1, true, &broken);
        assert!(outcome == unfit || bench.state.session(&key("a")).is_none(), "{outcome:?}");
    }
}
