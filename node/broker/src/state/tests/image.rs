use super::*;
use crate::state::books::Dropped;
use crate::state::image::{Builder, EntryPart, ImageError, PART_BYTES, Part, Place};
use crate::state::{Books, Snapshot};
use crate::steer;

fn build(parts: impl IntoIterator<Item = Part>) -> Result<Snapshot, ImageError> {
    let mut builder = Builder::default();
    parts.into_iter().try_for_each(|part| builder.add(part))?;
    builder.finish()
}

/// The snapshot, taken apart and put together.
pub(super) fn rebuilt(snapshot: &Snapshot) -> Snapshot {
    build(snapshot.parts()).unwrap()
}

/// Messages of retained store and queues, each as the number of the first place that holds the same one.
pub(super) fn sharing(snapshot: &Snapshot) -> Vec<usize> {
    let mut sessions: Vec<_> = snapshot.sessions.iter().collect();
    sessions.sort_unstable_by_key(|(key, _)| *key);
    let queued = sessions.iter().filter_map(|(_, session)| session.queue()).flat_map(Queue::iter);
    let all = snapshot.retained.iter().chain(queued.map(|(_, entry)| &entry.publication));
    let mut seen = BTreeMap::new();
    all.enumerate().map(|(at, publication)| *seen.entry(Arc::as_ptr(publication)).or_insert(at)).collect()
}

/// A state with something of everything.
pub(super) fn rich() -> Bench {
    let mut bench = Bench::new();
    let a = bench.session("a", &[("#", QoS::ExactlyOnce), ("$share/g/t", QoS::AtLeastOnce)]);
    bench.session("b", &[("t/+", QoS::AtLeastOnce), ("$share/g/t", QoS::AtLeastOnce), ("zero", QoS::AtMostOnce)]);
    bench.claim(Claim { will: Some(will("w", 9)), ..claim("c", TWO, 60) });
    bench.claim(claim("clean", TWO, 0));
    bench.subscribe("clean", Epoch(4), &[("$share/g/t", QoS::AtMostOnce), ("$share/live/t", QoS::AtMostOnce)]);
    bench.run(Command::SetRetained(Arc::new(message("only/kept", "1", QoS::AtMostOnce))));
    let expires_at = Some(LogTime(60_000));
    let origin = Some(key("a"));
    for (to, retain) in [("t/1", true), ("t/2", false), ("t", false)] {
        let qos = QoS::ExactlyOnce;
        bench.run(publish(Publication { retain, expires_at, origin: origin.clone(), ..message(to, "2", qos) }));
    }
    let received = Some((key("b"), Epoch(2), 77));
    let publication = Arc::new(message("t/3", "3", QoS::ExactlyOnce));
    bench.run(Command::Publish(Box::new(PublishCommand { publication, received, only: None, epoch: None })));
    let settlement =
        Settlement { key: key("a"), epoch: a, floor: 0, settled: vec![1], received: vec![0], refused: vec![] };
    bench.run(Command::Settle(vec![settlement]));
    bench.run(Command::LiveRoutes(Box::new(LiveRoutes {
        node: ONE,
        generation: Generation(1),
        add: vec![filter("live/#"), filter("live/+")],
        remove: vec![],
    })));
    bench.run_all(vec![up(NodeId(5), 1), Command::RemoveNode { node: NodeId(5) }]);
    bench.run(Command::NodeUp { node: ONE, generation: Generation(1), address: "one:7400".into() });
    bench.run(down(TWO));
    bench.release("b", Epoch(2));
    bench.pass_s(1);
    bench.run(down(TWO));
    bench.run_all(devices::seeds());
    bench.run(devices::put(devices::device("late", false, 60)));
    let exclusive_client_id = Some("client".into());
    bench.claim(Claim { key: devices::device_key("p_d"), exclusive_client_id, ..claim("", ONE, 60) });
    bench.run_all(vec![devices::shadow("p_d", false, 1), devices::shadow("p_late", true, 2)]);
    bench.run(Command::Registry(Box::new(fulmar_platform::registry::Change::Key(fulmar_platform::Secret::new("k")))));
    let (name, value) = (steer::settings::table::QUEUE_ENTRIES_MAX.into(), Some(steer::settings::Value::Number(77)));
    let setting = steer::settings::Change { name, value, by: "me".into(), version: None };
    bench.run(Command::Steer(Box::new(steer::Change::Setting(setting))));
    bench
}

#[test]
fn everything_comes_back() {
    let empty = State::new(Limits { sessions_max: 7, ..Limits::default() }).snapshot();
    assert_eq!(rebuilt(&empty), empty);
    let bench = rich();
    let snapshot = bench.state.snapshot();
    let restored = rebuilt(&snapshot);
    assert_eq!(restored, snapshot);
    assert_eq!(sharing(&restored), sharing(&snapshot));
    let names: std::collections::BTreeSet<_> = snapshot.parts().map(|part| part.name()).collect();
    assert_eq!(names.len(), 11, "all but continued subscriptions: {names:?}");
    let state = State::restore(restored);
    audit(&state);
    assert_eq!(state.generation_of(ONE), Some(Generation(1)));
    assert_eq!(state.generation_of(NodeId(7)), None);
    assert_eq!((state.limits().queue_entries_max, state.configured_limits().queue_entries_max), (77, 10_000));
    assert!(state.shared_group_is_durable(&filter("$share/g/t")));
    assert!(!state.shared_group_is_durable(&filter("$share/live/t")));
}

#[test]
fn messages_are_written_once() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.session(name, &[("#", QoS::AtLeastOnce)]);
    }
    for retain in [false, true] {
        bench.run(publish(Publication { retain, ..message("t", "x", QoS::AtLeastOnce) }));
    }
    let parts: Vec<_> = bench.state.snapshot().parts().collect();
    let of = |part: &Part| match part {
        Part::Retained(retained) => vec![(retained.body, true)],
        Part::Queue(entries) => entries.iter().map(|entry| (entry.body, entry.publication.is_some())).collect(),
        _ => vec![],
    };
    let found: Vec<_> = parts.iter().map(of).filter(|found| !found.is_empty()).collect();
    let rest = || vec![(1, false), (2, false)];
    assert_eq!(found, [vec![(2, true)], vec![(1, true), (2, false)], rest(), rest()]);
}

/// Long lists of one session and of one claim are cut, and none of the parts is large.
#[test]
fn long_lists_go_on_in_more_parts() {
    let mut bench = Bench::new();
    let epoch = bench.session("a", &[]);
    let long = "x".repeat(60_000);
    for number in 0..20 {
        bench.subscribe("a", epoch, &[(&format!("t/{number}/{long}"), QoS::AtLeastOnce)]);
    }
    for number in 0..100 {
        bench.publish(&format!("t/{}/{long}", number % 20), "", QoS::AtLeastOnce);
    }
    bench.subscribe("a", epoch, &(0..500).map(|_| ("u", QoS::AtLeastOnce)).collect::<Vec<_>>());
    bench.run(Command::SetLimits(Limits::default()));
    bench.claim(claim("a", TWO, 3600));
    bench.run_all((0..5000).map(|_| down(ONE)).collect());
    let snapshot = bench.state.snapshot();
    assert_eq!(rebuilt(&snapshot), snapshot);
    let mut counts = BTreeMap::new();
    for part in snapshot.parts() {
        *counts.entry(part.name()).or_insert(0) += 1;
        let bytes = match &part {
            Part::Queue(entries) => {
                entries.iter().map(|e| 64 + e.publication.as_ref().map_or(0, |p| p.bytes())).sum::<usize>()
            }
            Part::Subscriptions(list) => list.iter().map(|sub| sub.filter.as_str().len()).sum(),
            Part::Results(results) => results.outcomes.len() * 32,
            _ => 0,
        };
        assert!(bytes <= PART_BYTES + 66_000, "{} of {bytes} bytes", part.name());
    }
    assert!(counts["queue"] >= 50 && counts["subscriptions"] >= 18 && counts["results"] > RESULTS, "{counts:?}");
}

const RESULTS: usize = crate::state::RESULTS_KEPT;

/// One part changed, left out or sent twice: an error, or another snapshot; and never a panic.
#[test]
fn other_parts_are_another_snapshot() {
    let snapshot = rich().state.snapshot();
    let parts: Vec<Part> = snapshot.parts().collect();
    for at in 0..parts.len() {
        let without = parts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, part)| part.clone());
        assert_ne!(build(without).as_ref(), Ok(&snapshot), "without part {at}, {:?}", parts[at]);
        let twice = parts.iter().enumerate().flat_map(|(other, part)| vec![part.clone(); 1 + usize::from(other == at)]);
        assert_ne!(build(twice).as_ref(), Ok(&snapshot), "with part {at} twice, {:?}", parts[at]);
        for other in 0..at {
            let mut swapped = parts.clone();
            swapped.swap(at, other);
            let _ = build(swapped);
        }
    }
}

#[test]
fn errors_name_part_and_field() {
    fn head(change: impl Fn(&mut crate::state::image::Head) + 'static) -> Change {
        (
            0,
            Box::new(move |part| {
                if let Part::Head(head) = part {
                    change(head)
                }
            }),
        )
    }
    fn session(change: impl Fn(&mut crate::state::image::SessionPart) + 'static) -> Change {
        (
            4,
            Box::new(move |part| {
                if let Part::Session(session) = part {
                    change(session)
                }
            }),
        )
    }
    fn depot(change: impl Fn(&mut crate::state::image::DepotPart) + 'static) -> Change {
        session(move |session| change(session.depot.as_mut().unwrap()))
    }
    fn entry(change: impl Fn(&mut [EntryPart]) + 'static) -> Change {
        (
            5,
            Box::new(move |part| {
                if let Part::Queue(entries) = part {
                    change(entries)
                }
            }),
        )
    }
    fn other(at: usize, to: Part) -> Change {
        (at, Box::new(move |part| *part = to.clone()))
    }
    type Change = (usize, Box<dyn Fn(&mut Part)>);

    // Two origins, a retained message, and a session with two entries for it and two for another message.
    let mut bench = Bench::new();
    bench.session("a", &[("#", QoS::ExactlyOnce), ("$share/g/t", QoS::AtLeastOnce)]);
    for retain in [true, false] {
        bench.run(publish(Publication { retain, ..message("t", "x", QoS::AtLeastOnce) }));
    }
    let all: Vec<Part> = bench.state.snapshot().parts().collect();
    let driver = all.iter().rposition(|part| matches!(part, Part::Origin(_))).unwrap();
    let mut parts = vec![all[0].clone()];
    parts.push(all.iter().find(|p| matches!(p, Part::Origin(o) if o.node == ONE)).unwrap().clone());
    parts.push(all[driver].clone());
    parts.extend_from_slice(&all[all.len() - 4..]);
    let parts = parts;
    assert_eq!(
        parts.iter().map(Part::name).collect::<Vec<_>>(),
        ["head", "origin", "origin", "retained", "session", "queue", "end"]
    );
    assert!(build(parts.clone()).is_ok());
    let Part::Origin(run) = &parts[1] else { panic!() };
    let results = |seq| Part::Results(crate::state::image::ResultsPart { seq, outcomes: vec![] });
    let fallen = |node, generation| {
        Part::Fallen(crate::state::image::FallenPart { node, generation: Generation(generation), at: LogTime(0) })
    };
    let routes = |node, filters: &[&str]| {
        let filters = filters.iter().map(|text| filter(text)).collect();
        Part::LiveRoutes(crate::state::image::LiveRoutesPart { node, generation: Generation(1), filters })
    };
    let dead = |alive| Part::Origin(crate::state::image::OriginPart { alive, ..run.clone() });

    let changes: Vec<(Change, &str)> = vec![
        (head(|head| head.routes_at = 99), "part 0 (head): routes_at is 99, after the position"),
        (head(|head| head.books.created += 1), "part 0 (head): books do not balance"),
        (
            head(|head| head.books = Books { created: 1, ..head.books }.with_dropped(Dropped::Refused, u64::MAX)),
            "part 0 (head): books do not",
        ),
        (head(|head| head.bytes += 1), "part 7 (end): bytes are "),
        (head(|head| head.sessions = 2), "part 7 (end): sessions are 1; the head says 2"),
        (head(|head| head.retained = 0), "part 7 (end): retained are 1; the head says 0"),
        (head(|head| (head.books.created, head.books.queued) = (9, 9)), "part 7 (end): books.queued are "),
        (head(|head| head.removed = vec![TWO, ONE]), "part 0 (head): removed are not in order"),
        (head(|head| head.removed = vec![ONE]), "part 1 (origin): node 0000000000000001 was removed"),
        (other(2, routes(NodeId(7), &["a"])), "part 2 (live_routes): run 1 of 0000000000000007 is unknown"),
        (other(2, routes(ONE, &["b", "a"])), "part 2 (live_routes): filters are not in order"),
        (other(2, routes(ONE, &["a", "a"])), "part 2 (live_routes): filters are not in order"),
        (other(2, routes(ONE, &["$share/g/a"])), "part 2 (live_routes): filters have the shared $share/g/a"),
        (other(3, routes(ONE, &["a"])), "part 5 (queue): body 1 "),
        (other(6, routes(ONE, &["a"])), "part 6 (live_routes): it is out of place"),
        (head(|head| head.epoch_last = 0), "part 4 (session): epoch is 1; the last one given was 0"),
        (head(|head| head.bodies_made = 0), "part 3 (retained): body is 1; the last one given was 0"),
        (other(0, Part::End), "part 0 (end): it is out of place"),
        (other(0, results(1)), "part 0 (results): it is out of place"),
        (other(1, parts[0].clone()), "part 1 (head): it is out of place"),
        (other(1, parts[3].clone()), "part 2 (origin): it is out of place"),
        (other(1, dead(false)), "part 4 (session): place is run 1 of 0000000000000001, which is unknown"),
        (other(2, parts[1].clone()), "part 2 (origin): node 0000000000000001 has come before"),
        (other(2, fallen(ONE, 1)), "part 2 (fallen): generation 1 has not ended"),
        (other(2, fallen(NodeId(7), 1)), "part 2 (fallen): generation 1 has not ended"),
        (other(2, results(0)), "part 2 (results): seq is 0"),
        (other(2, results(1)), "part 2 (results): seq is 1, the origin's last is 0"),
        (other(3, results(1)), "part 4 (session): seq of the origin's last results is 1, not "),
        (other(3, parts[5].clone()), "part 3 (queue): body 1 has not come before"),
        (other(6, parts[4].clone()), "part 6 (session): key default/generic/a has come before"),
        (other(6, parts[3].clone()), "part 6 (retained): it is out of place"),
        (
            other(6, Part::Subscriptions(vec![subscription("#", QoS::AtMostOnce)])),
            "part 6 (subscriptions): subscriptions are not in order",
        ),
        (other(3, Part::Subscriptions(vec![])), "part 3 (subscriptions): it is out of place"),
        (
            (
                3,
                Box::new(|part| {
                    if let Part::Retained(kept) = part {
                        kept.body = 0
                    }
                }),
            ),
            "part 5 (queue): body 1 ",
        ),
        (
            (
                3,
                Box::new(|part| {
                    if let Part::Retained(kept) = part {
                        kept.body = 3
                    }
                }),
            ),
            "part 3 (retained): body is 3",
        ),
        (
            (
                3,
                Box::new(|part| {
                    if let Part::Retained(kept) = part {
                        Arc::make_mut(&mut kept.publication).payload = Bytes::new();
                    }
                }),
            ),
            "part 3 (retained): payload is empty",
        ),
        (session(|session| session.subscriptions.reverse()), "part 4 (session): subscriptions are not in order"),
        (session(|session| session.epoch = Epoch(0)), "part 4 (session): epoch is 0"),
        (
            session(|session| session.place = Place::Owned { node: ONE, generation: Generation(2) }),
            "part 4 (session): place is run 2",
        ),
        (session(|session| session.depot = None), "part 5 (queue): it is out of place"),
        (depot(|depot| depot.offered = 9), "part 4 (session): offered is 9, above 4"),
        (depot(|depot| depot.received = vec![2, 2]), "part 4 (session): received is not in order"),
        (depot(|depot| depot.received = vec![0]), "part 4 (session): received is not in order, or has 0"),
        (depot(|depot| depot.next_seq = 2), "part 5 (queue): seq 2 is not in order, or not below 2"),
        (depot(|depot| depot.next_seq = u64::MAX), "part 5 (queue): seq 0 is too far below"),
        (entry(|entries| entries.reverse()), "part 5 (queue): body 2 has not come before"),
        (entry(|entries| entries[1].seq = 0), "part 5 (queue): seq 0 is not in order"),
        (entry(|entries| entries[3].publication = entries[2].publication.clone()), "part 5 (queue): body 2 has come"),
        (entry(|entries| entries[0].qos = QoS::AtMostOnce), "part 5 (queue): qos is 0"),
        (
            entry(|entries| entries[0].phase = crate::state::command::Phase::Received),
            "part 5 (queue): phase is received",
        ),
        (entry(|entries| entries[0].group = Some(Arc::new(filter("t")))), "part 5 (queue): group is no shared filter"),
        (entry(|entries| entries[0].body = 0), "part 5 (queue): body 0 has not come before"),
        (
            entry(|entries| entries.iter_mut().for_each(|entry| entry.body = 2)),
            "part 5 (queue): body 2 has not come before",
        ),
        (other(5, Part::Queue(vec![])), "part 7 (end): books.queued are 0; the head says 4"),
    ];
    for ((at, change), wanted) in changes {
        let mut changed = parts.clone();
        change(&mut changed[at]);
        let error = build(changed).map(|_| ()).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
    let error = build(parts[..6].to_vec()).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "part 6 (end): it is missing");
    let mut late = parts.clone();
    late.push(Part::End);
    assert_eq!(build(late).map(|_| ()).unwrap_err().to_string(), "part 7 (end): it is out of place");
}
