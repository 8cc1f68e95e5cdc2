//! Who gets messages live, and the runs of nodes.

use super::*;
use crate::state::{BatchError, NodeRun, ROUTES_FORGOTTEN_MAX};

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const FIRST: Generation = Generation(1);

fn routes(node: NodeId, generation: u64, add: &[&str], remove: &[&str]) -> Command {
    let filters = |texts: &[&str]| texts.iter().map(|text| filter(text)).collect();
    let (add, remove) = (filters(add), filters(remove));
    Command::LiveRoutes(Box::new(LiveRoutes { node, generation: Generation(generation), add, remove }))
}

fn nodes(bench: &Bench, to: &str, qos: QoS) -> Vec<u64> {
    bench.state.live_nodes(&topic(to), qos).iter().map(|(node, _)| node.0).collect()
}

/// The answers, against what a look at every session says.
pub(super) fn check_answers(state: &State) {
    for to in ["t", "t/u", "v", "t/w"].map(topic) {
        for qos in [Q0, Q1] {
            let mut found = std::collections::BTreeSet::new();
            for (node, generation, filter) in state.kept.live_routes.iter() {
                if filter.matches(&to) && state.kept.origins.alive(node, generation) {
                    found.insert((node, generation));
                }
            }
            for (key, session) in state.kept.sessions.iter().filter(|(_, session)| session.persistent()) {
                let owner = state.session(key).and_then(|view| view.owner);
                let plain = session.subscriptions().iter().filter(|sub| sub.filter.shared().is_none());
                let live = plain.filter(|sub| sub.options.qos.min(qos) == Q0);
                if let (Some(owner), true) = (owner, live.into_iter().any(|sub| sub.filter.matches(&to))) {
                    found.insert((owner.node, owner.generation));
                }
            }
            assert_eq!(state.live_nodes(&to, qos), found.into_iter().collect::<Vec<_>>(), "{to} {qos:?}");
            let inner = |filter: &Arc<TopicFilter>| {
                let shared = filter.shared().map(|(_, inner)| TopicFilter::new(inner).unwrap());
                shared.is_some_and(|inner| inner.matches(&to))
            };
            let live =
                |filter: &&Arc<TopicFilter>| inner(filter) && (qos == Q0 || !state.shared_group_is_durable(filter));
            let mut groups: Vec<_> = state.kept.groups.keys().filter(live).cloned().collect();
            groups.sort_unstable();
            assert_eq!(state.live_groups(&to, qos), groups, "{to} {qos:?}");
        }
    }
    for filter in state.kept.groups.keys() {
        let members = state.shared_members(filter);
        assert!(members.is_sorted_by(|one, next| one.key < next.key));
        let online = |member: &crate::state::SharedMember| {
            let view = state.session(&member.key).unwrap();
            let sub = state.subscriptions(&member.key).iter().find(|sub| sub.filter == **filter).unwrap();
            view.owner == Some(member.owner) && (sub.options, sub.id) == (member.options, member.id)
        };
        assert!(members.iter().all(online));
    }
}
/// What the last batch has made nodes do, without the alarms that follow from runs.
fn of_runs(bench: &Bench) -> Vec<Effect> {
    bench.effects.iter().filter(|effect| !matches!(effect, Effect::Steer(_))).cloned().collect()
}

#[test]
fn announced_filters_lead_to_runs_that_are_alive() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(routes(ONE, 1, &["t/+", "t/+", "$share/g/x"], &[])), Outcome::Done);
    assert_eq!(bench.run(routes(TWO, 1, &["t/#", "u"], &["u"])), Outcome::Done);
    assert_eq!(bench.run(routes(NodeId(7), 1, &["t/#"], &[])), Outcome::Stale);
    assert_eq!(bench.run(routes(ONE, 2, &["t/#"], &[])), Outcome::Stale);
    for qos in [Q0, Q1] {
        assert_eq!(nodes(&bench, "t/1", qos), [1, 2]);
        assert_eq!(nodes(&bench, "t", qos), [2]);
        assert_eq!(nodes(&bench, "u", qos), [0; 0]);
        assert_eq!(nodes(&bench, "x", qos), [0; 0]);
    }
    let version = bench.state.subscriptions_version();
    bench.run(routes(ONE, 1, &["t/+"], &["never/there"]));
    assert_eq!(bench.state.subscriptions_version(), version, "nothing has changed");
    bench.run(down(TWO));
    assert_eq!(of_runs(&bench), [Effect::NodeDown { node: TWO, generation: FIRST }]);
    assert_eq!(nodes(&bench, "t/1", Q1), [1]);
    assert_eq!(bench.run(routes(TWO, 1, &["t/#"], &[])), Outcome::Stale);
    bench.run(up(TWO, 2));
    assert_eq!(nodes(&bench, "t/1", Q1), [1], "a new run has announced nothing");
    bench.run(routes(TWO, 2, &["t/#"], &[]));
    assert_eq!(bench.state.live_nodes(&topic("t"), Q0), [(TWO, Generation(2))]);
    bench.run(routes(ONE, 1, &[], &["t/+"]));
    assert_eq!(nodes(&bench, "t/1", Q1), [2]);
}

#[test]
fn what_an_ended_run_announced_goes_by_steps() {
    let mut bench = Bench::new();
    let count = ROUTES_FORGOTTEN_MAX + 10;
    let texts: Vec<String> = (0..count).map(|n| format!("t/{n}")).collect();
    bench.run(routes(ONE, 1, &texts.iter().map(String::as_str).collect::<Vec<_>>(), &[]));
    let forget = Command::ForgetRoutes { node: ONE, generation: FIRST };
    assert_eq!(bench.run(forget.clone()), Outcome::Stale, "it is alive");
    bench.run(up(ONE, 2));
    let effects =
        [Effect::NodeDown { node: ONE, generation: FIRST }, Effect::NodeUp { node: ONE, generation: Generation(2) }];
    assert_eq!(of_runs(&bench), effects);
    assert_eq!((bench.state.next_due(), bench.state.live.len()), (Some(bench.at), count));
    assert_eq!(bench.state.due(bench.at, 9), vec![forget.clone()]);
    bench.run(forget.clone());
    assert_eq!(bench.state.live.len(), 10);
    bench.settle_due();
    assert!(bench.state.live.is_empty() && bench.state.next_due().is_none());
    assert_eq!(bench.run(forget), Outcome::Stale);
}

#[test]
fn what_persistent_sessions_get_live_goes_to_their_owner() {
    let mut bench = Bench::new();
    let zero = bench.session("zero", &[("t", Q0), ("$share/g/t", Q0)]);
    assert_eq!((nodes(&bench, "t", Q0), nodes(&bench, "t", Q1)), (vec![1], vec![1]));
    assert!(!bench.state.has_durable_match(&topic("u")));
    bench.session("one", &[("u", Q1)]);
    assert_eq!((nodes(&bench, "u", Q0), nodes(&bench, "u", Q1)), (vec![1], vec![]));
    assert!(bench.state.has_durable_match(&topic("u")));
    // The route moves with the claim.
    let version = bench.state.subscriptions_version();
    let moved = bench.claim(claim("zero", TWO, 3600)).epoch;
    assert!(moved > zero && bench.state.subscriptions_version() > version);
    assert_eq!(nodes(&bench, "t", Q1), [2]);
    bench.release("zero", moved);
    assert_eq!(nodes(&bench, "t", Q0), [0; 0]);
    let again = bench.claim(claim("zero", TWO, 3600)).epoch;
    assert_eq!(nodes(&bench, "t", Q1), [2]);
    bench.run(down(TWO));
    assert_eq!(nodes(&bench, "t", Q1), [0; 0]);
    bench.settle_due();
    assert_eq!(bench.state.session(&key("zero")).unwrap().epoch, again);
    // A grant that changes moves it from one kind to the other.
    let epoch = bench.claim(claim("zero", ONE, 3600)).epoch;
    bench.subscribe("zero", epoch, &[("t", Q1)]);
    assert_eq!((nodes(&bench, "t", Q0), nodes(&bench, "t", Q1)), (vec![1], vec![]));
    bench.subscribe("zero", epoch, &[("t", Q0)]);
    assert_eq!((nodes(&bench, "t", Q1), bench.state.has_durable_match(&topic("t"))), (vec![1], true));
    bench.run(Command::Unsubscribe { key: key("zero"), epoch, filters: vec![filter("t"), filter("$share/g/t")] });
    assert_eq!((nodes(&bench, "t", Q0), bench.state.has_durable_match(&topic("t"))), (vec![], false));
    // A claim of a session without subscriptions changes nothing.
    let version = bench.state.subscriptions_version();
    bench.claim(claim("zero", ONE, 3600));
    assert_eq!(bench.state.subscriptions_version(), version);
}

#[test]
fn groups_and_their_members() {
    let mut bench = Bench::new();
    let clean = bench.claim(claim("clean", ONE, 0)).epoch;
    bench.subscribe("clean", clean, &[("$share/live/t", Q1), ("$share/mixed/#", Q0)]);
    bench.session("durable", &[("$share/mixed/#", Q1)]);
    let found = |bench: &Bench, qos| {
        bench.state.live_groups(&topic("t"), qos).iter().map(|group| group.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(&bench, Q1), ["$share/live/t"]);
    assert_eq!(found(&bench, Q0), ["$share/live/t", "$share/mixed/#"]);
    let members = |bench: &Bench| {
        let members = bench.state.shared_members(&filter("$share/mixed/#"));
        members.iter().map(|m| (m.key.identity().to_owned(), m.options.qos)).collect::<Vec<_>>()
    };
    assert_eq!(members(&bench), [("clean".to_owned(), Q0), ("durable".to_owned(), Q1)]);
    bench.release("durable", Epoch(2));
    assert_eq!(members(&bench), [("clean".to_owned(), Q0)]);
    assert!(bench.state.shared_members(&filter("$share/nobody/#")).is_empty());
    bench.release("clean", clean);
    assert_eq!((found(&bench, Q1), found(&bench, Q0)), (vec![], vec!["$share/mixed/#".to_owned()]));
}

#[test]
fn runs_and_addresses() {
    let mut bench = Bench::new();
    let at = |address: &str| Command::NodeUp { node: ONE, generation: FIRST, address: address.into() };
    let told = [Effect::NodeUp { node: ONE, generation: FIRST }];
    // (address, effects, address then)
    for (address, effects, then) in
        [("a:1", &told[..], "a:1"), ("a:1", &[], "a:1"), ("", &[], "a:1"), ("b:1", &told, "b:1")]
    {
        assert_eq!(bench.run(at(address)), Outcome::Done);
        assert_eq!(of_runs(&bench), effects, "{address}");
        assert_eq!(bench.state.runs().next().unwrap().address, then);
    }
    // A run that announces itself in its own first batch is told once.
    let mut effects = Vec::new();
    let own = Command::NodeUp { node: TWO, generation: Generation(5), address: "c:1".into() };
    let batch = Batch { node: TWO, generation: Generation(5), seq: 1, term: None, at: LogTime(0), commands: vec![own] };
    bench.state.apply(&batch, &mut effects).unwrap();
    let ended = Effect::NodeDown { node: TWO, generation: FIRST };
    assert_eq!(effects, [ended, Effect::NodeUp { node: TWO, generation: Generation(5) }]);
    let runs: Vec<NodeRun> = bench.state.runs().collect();
    assert_eq!(runs.iter().map(|run| run.node.0).collect::<Vec<_>>(), [1, 2, 9]);
    assert_eq!(runs[1], NodeRun { node: TWO, generation: Generation(5), alive: true, address: "c:1".into() });
    bench.run(Command::NodeDown { node: TWO, generation: Generation(7) });
    let down = |generation| Effect::NodeDown { node: TWO, generation: Generation(generation) };
    assert_eq!(of_runs(&bench), [down(5), down(7)]);
    assert!(!bench.state.runs().nth(1).unwrap().alive);
}

#[test]
fn a_removed_node_never_comes_back() {
    let mut bench = Bench::new();
    let epoch = bench.claim(claim("s", TWO, 3600)).epoch;
    bench.subscribe("s", epoch, &[("t", Q0)]);
    bench.run(routes(TWO, 1, &["t"], &[]));
    assert_eq!(bench.run(Command::RemoveNode { node: TWO }), Outcome::Done);
    assert_eq!(of_runs(&bench), [Effect::NodeDown { node: TWO, generation: FIRST }]);
    assert_eq!(bench.run(Command::RemoveNode { node: TWO }), Outcome::Stale);
    assert!(bench.state.removed(TWO) && !bench.state.removed(ONE));
    assert_eq!(bench.run(up(TWO, 9)), Outcome::Stale);
    assert_eq!(bench.run(Command::NodeDown { node: TWO, generation: Generation(9) }), Outcome::Stale);
    assert_eq!(bench.run(Command::Claim(Box::new(claim("other", TWO, 0)))), Outcome::Stale);
    for seq in [0, 1] {
        let (node, generation, commands) = (TWO, Generation(9), vec![]);
        let batch = Batch { node, generation, seq, term: None, at: LogTime(0), commands };
        assert_eq!(bench.state.apply(&batch, &mut Vec::new()), Err(BatchError::Removed));
    }
    assert_eq!(nodes(&bench, "t", Q0), [0; 0]);
    bench.settle_due();
    assert_eq!(bench.state.session(&key("s")).unwrap().owner, None);
    assert!(bench.state.kept.live_routes.iter().next().is_none());
    assert!(State::restore(bench.state.snapshot()).removed(TWO));
    // One that nobody has heard of can be removed too.
    assert_eq!(bench.run(Command::RemoveNode { node: NodeId(77) }), Outcome::Done);
    assert_eq!(of_runs(&bench), []);
}

#[test]
fn batches_without_number() {
    let mut bench = Bench::new();
    let batch = |node, generation, commands| Batch {
        node,
        generation: Generation(generation),
        seq: 0,
        term: Some(3),
        at: LogTime(9),
        commands,
    };
    let before = bench.state.snapshot();
    let unknown = bench.state.apply(&batch(NodeId(7), 1, vec![down(ONE)]), &mut bench.effects);
    assert_eq!((unknown, bench.state.snapshot() == before), (Err(BatchError::Unknown), true));
    let seq = bench.state.applied_seq(NodeId(9), FIRST);
    for outcome in [Outcome::Done, Outcome::Stale] {
        let applied = bench.state.apply(&batch(NodeId(9), 1, vec![down(ONE)]), &mut bench.effects);
        assert_eq!(applied, Ok(vec![outcome]), "each is applied");
    }
    assert_eq!(bench.state.applied_seq(NodeId(9), FIRST), seq);
    assert_eq!(bench.state.outcomes_of(NodeId(9), FIRST, 0), None);
    assert_eq!(bench.state.outcomes_of(NodeId(9), FIRST, seq), Some(vec![Outcome::Done]));
    assert_eq!(bench.state.outcomes_of(NodeId(9), FIRST, seq + 1), None);
    // It announces nothing, also where it names a run that has not begun or has ended.
    for generation in [1, 8] {
        bench.state.apply(&batch(ONE, generation, vec![]), &mut bench.effects).unwrap();
        assert!(!bench.state.runs().next().unwrap().alive);
    }
    assert_eq!((bench.state.generation_of(ONE), bench.state.now()), (Some(FIRST), LogTime(9)));
}
