use super::*;

#[test]
fn a_device_comes_and_goes() {
    let mut bench = Bench::new();
    let put_at = bench.put(device("p", "d")).revision;
    assert!(bench.connect("p_none", 1, None).is_none() && bench.events.is_empty());
    bench.connect("p_d", 5, None);
    let record = bench.registry.device("p_d").unwrap().0.record.clone();
    let status = |online, epoch, at_ms| {
        vec![Event::Status(Status { device: record.clone(), dialect: Dialect::Aliyun, online, epoch, at_ms })]
    };
    assert_eq!(bench.events, status(true, 5, NOW_MS));
    let active_at = bench.registry.device("p_d").unwrap().0.revision;
    assert!(active_at > put_at, "whoever takes it for inactive must look again");
    bench.now_ms += 1;
    bench.connect("p_d", 7, None);
    assert_eq!(bench.events, status(true, 7, NOW_MS + 1));
    assert_eq!(bench.registry.device("p_d").unwrap().0.revision, active_at);
    bench.disconnect("p_d", 5);
    assert!(bench.events.is_empty() && bench.presence("p_d").online, "an older connection's end is no news");
    bench.now_ms += 1;
    bench.disconnect("p_d", 7);
    assert_eq!(bench.events, status(false, 7, NOW_MS + 2));
    bench.disconnect("p_d", 7);
    assert!(bench.events.is_empty());
    let gone = Presence { active_ms: NOW_MS, changed_ms: NOW_MS + 2, epoch: 7, online: false, client_id: None };
    assert_eq!(*bench.presence("p_d"), gone);
    bench.put(Device { name: "renamed".into(), ..device("p", "d") });
    assert_eq!(*bench.presence("p_d"), gone, "an update leaves it");
    bench.delete(Kind::Device, "p_d").unwrap();
    bench.put(device("p", "d"));
    assert_eq!(*bench.presence("p_d"), Presence::default(), "a new one has none");
}

#[test]
fn a_frozen_device_is_not_admitted() {
    let mut bench = Bench::new();
    bench.put(device("p", "d"));
    assert!(bench.registry.admits("p_d") && !bench.registry.admits("p_e"));
    bench.put(Device { frozen: true, ..device("p", "d") });
    assert!(!bench.registry.admits("p_d"));
}

#[test]
fn a_client_id_has_one_device_of_a_product() {
    let mut bench = Bench::new();
    bench.put(product("q", Dialect::Aliyun));
    for name in ["a", "b", "c"] {
        bench.put(device("p", name));
    }
    bench.put(device("q", "a"));
    assert_eq!(bench.connect("p_a", 1, Some("one")), None);
    assert_eq!(bench.connect("q_a", 2, Some("one")), None, "another product");
    assert_eq!(bench.connect("p_a", 3, Some("one")), None, "itself");
    assert_eq!(bench.connect("p_b", 4, Some("one")).as_deref(), Some("p_a"));
    assert!(bench.presence("p_a").online, "until its own connection has ended");
    assert_eq!(bench.connect("p_c", 5, Some("one")).as_deref(), Some("p_b"));
    bench.disconnect("p_a", 3);
    bench.disconnect("p_b", 4);
    assert_eq!(bench.connect("p_a", 6, Some("one")).as_deref(), Some("p_c"), "whose end does not free another's");
    assert_eq!(bench.connect("p_a", 7, None), None);
    assert_eq!(bench.connect("p_b", 8, Some("one")), None, "it is free");
    bench.disconnect("p_b", 8);
    assert_eq!(bench.connect("p_c", 9, Some("one")), None);
    bench.delete(Kind::Device, "p_c").unwrap();
    assert_eq!(bench.connect("p_a", 10, Some("one")), None);
}

#[test]
fn the_time_to_connect_begins_when_a_device_becomes_direct() {
    let mut bench = Bench::new();
    bench.now_ms = 10_000_000;
    bench.put(device("p", "gateway"));
    bench.put(timed(60, below("p_gateway", device("p", "sub"))));
    bench.put(timed(60, device("p", "other")));
    bench.put(timed(60, below("p_other", device("p", "last"))));
    assert_eq!(bench.registry.next_due(), None);
    bench.now_ms += 500_000;
    bench.put(timed(60, device("p", "sub")));
    assert_eq!(bench.registry.next_due(), Some(10_560_000), "not from its creation, which is long ago");
    bench.now_ms += 10_000;
    bench.put(Device { name: "renamed".into(), ..timed(60, device("p", "sub")) });
    assert_eq!(bench.registry.next_due(), Some(10_560_000), "another change of it adds nothing");
    let due = bench.registry.due(10_560_000, 9);
    assert!(matches!(due.as_slice(), [Change::Delete { id, .. }] if **id == *"p_sub"), "{due:?}");
    // A gateway waits from when its last sub-device has gone.
    bench.connect("p_sub", 1, None);
    bench.delete(Kind::Device, "p_last").unwrap();
    assert_eq!(bench.registry.next_due(), Some(10_570_000));
}

#[test]
fn a_device_that_never_connects_is_due() {
    let mut bench = Bench::new();
    bench.now_ms = 10_000_999;
    bench.put(timed(60, device("p", "late")));
    bench.put(timed(30, device("p", "early")));
    bench.put(timed(0, device("p", "free")));
    bench.put(timed(10, below("p_free", device("p", "sub"))));
    let due = |bench: &Bench, at: u64, most| -> Vec<Change> { bench.registry.due(at, most) };
    let names = |changes: Vec<Change>| {
        let name = |change: &Change| match change {
            Change::Delete { id, .. } => id.to_string(),
            other => panic!("{other:?}"),
        };
        changes.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(bench.registry.next_due(), Some(10_030_000));
    assert!(due(&bench, 10_029_999, 9).is_empty());
    assert_eq!(names(due(&bench, 10_030_000, 9)), ["p_early"]);
    assert_eq!(names(due(&bench, u64::MAX, 9)), ["p_early", "p_late"]);
    assert_eq!(names(due(&bench, u64::MAX, 1)), ["p_early"]);
    // A gateway cannot be deleted while it has sub-devices, so it is not due.
    bench.put(timed(10, below("p_early", device("p", "sub"))));
    assert_eq!(names(due(&bench, u64::MAX, 9)), ["p_late"]);
    bench.delete(Kind::Device, "p_sub").unwrap();
    let deletes = due(&bench, u64::MAX, 9);
    assert_eq!(names(deletes.clone()), ["p_early", "p_late"]);
    // One connects before the delete is applied, the other gets more time.
    bench.connect("p_early", 1, None);
    bench.put(timed(90, device("p", "late")));
    for delete in &deletes {
        assert_eq!(bench.apply(delete), Err(Rejection::Conflict));
    }
    bench.disconnect("p_early", 1);
    assert_eq!(bench.registry.next_due(), Some(10_090_000), "who has been there may go");
    for delete in due(&bench, 10_090_000, 9) {
        bench.apply(&delete).unwrap();
    }
    assert!(bench.registry.device("p_late").is_none());
    assert_eq!(bench.registry.next_due(), None);
}
