use std::ops::Bound;

use super::super::looks::Wanted;
use super::*;

#[test]
fn what_becomes_of_a_session_is_told_in_order() {
    let mut bench = Bench::new();
    let first = bench.claim(claim("a", ONE, 60)).epoch;
    let connected = |node, epoch, resumed| SessionEvent::Connected {
        key: key("a"),
        owner: super::super::command::Owner { node, generation: Generation(1), epoch },
        persistent: true,
        resumed,
    };
    assert_eq!(bench.told, [connected(ONE, first, false)]);
    let second = bench.claim(claim("a", TWO, 60)).epoch;
    assert_eq!(bench.told, [connected(TWO, second, true)], "a takeover is another one");
    bench.release("a", first);
    assert_eq!(bench.told, [], "an older connection says nothing");
    bench.release("a", second);
    let gone = SessionEvent::Disconnected { key: key("a"), epoch: second };
    assert_eq!(bench.told, [gone]);
    bench.release("a", second);
    assert_eq!(bench.told, [], "it is told once");
}

#[test]
fn the_sessions_of_a_dead_node_are_told_of_once_by_whatever_settles_them() {
    let mut bench = Bench::new();
    let epoch = bench.claim(claim("a", TWO, 60)).epoch;
    bench.run(down(TWO));
    assert_eq!(bench.told, [], "this is settled later");
    bench.claim(claim("a", ONE, 60));
    let gone = SessionEvent::Disconnected { key: key("a"), epoch };
    assert_eq!((bench.told.len(), &bench.told[0]), (2, &gone));
}

#[test]
fn sessions_are_paged_in_the_order_of_their_keys() {
    let mut bench = Bench::new();
    for name in ["c", "a", "b", "d"] {
        bench.claim(claim(name, ONE, 60));
    }
    let names = |state: &State, from: Bound<&SessionKey>| -> Vec<String> {
        state.sessions_from(from).map(|(key, _)| key.identity().to_owned()).collect()
    };
    assert_eq!(names(&bench.state, Bound::Unbounded), ["a", "b", "c", "d"]);
    assert_eq!(names(&bench.state, Bound::Excluded(&key("b"))), ["c", "d"]);
    assert_eq!(names(&bench.state, Bound::Included(&key("bb"))), ["c", "d"], "a marker need not be there");
    let epoch = bench.claim(claim("c", ONE, 0)).epoch;
    bench.release("c", epoch);
    assert_eq!(names(&bench.state, Bound::Unbounded), ["a", "b", "d"]);
    let restored = State::restore(bench.state.snapshot());
    assert_eq!(names(&restored, Bound::Unbounded), ["a", "b", "d"]);
}

#[test]
fn who_gets_a_topic_is_known_with_the_filter_that_says_so() {
    let mut bench = Bench::new();
    bench.session("a", &[("t/+", QoS::AtLeastOnce), ("t/#", QoS::AtMostOnce), ("other", QoS::AtLeastOnce)]);
    let epoch = bench.session("b", &[("$share/g/t/1", QoS::AtLeastOnce)]);
    bench.release("b", epoch);
    let found = |wanted: Wanted<'_>, max: usize| -> Vec<(String, String, bool)> {
        let found = bench.state.subscribers(wanted, max).into_iter();
        let told = |one: crate::state::Subscriber| {
            (one.key.identity().to_owned(), one.subscription.filter.as_str().to_owned(), one.connected)
        };
        found.map(told).collect()
    };
    let of = |name: &str, filter: &str, connected| (name.to_owned(), filter.to_owned(), connected);
    let all = [of("a", "t/#", true), of("a", "t/+", true), of("b", "$share/g/t/1", false)];
    assert_eq!(found(Wanted::Topic(&topic("t/1")), 100), all);
    assert_eq!(found(Wanted::Topic(&topic("t/1")), 1).len(), 1);
    assert_eq!(found(Wanted::Filter(&filter("t/#")), 100), all[..1]);
    assert_eq!(found(Wanted::Filter(&filter("$share/g/t/1")), 100), all[2..]);
    assert_eq!(found(Wanted::Filter(&filter("t/1")), 100), []);
}
