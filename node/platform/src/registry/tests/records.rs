use super::*;

#[test]
fn what_is_expected_decides() {
    let mut bench = Bench::new();
    let first = bench.apply(&put(device("p", "d"), Expect::Absent)).unwrap();
    assert_eq!(first.oid.seconds(), 1_700_000_000);
    assert_eq!(bench.apply(&put(device("p", "d"), Expect::Absent)), Err(Rejection::Exists));
    assert_eq!(bench.apply(&put(device("p", "e"), Expect::Revision(1))), Err(Rejection::Missing));
    let stale = Expect::Revision(first.revision - 1);
    assert_eq!(bench.apply(&put(device("p", "d"), stale)), Err(Rejection::Conflict));
    bench.now_ms += 5000;
    let second = bench.apply(&put(device("p", "d"), Expect::Revision(first.revision))).unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.oid, first.oid, "an update keeps its place");
    let expect = Expect::Revision(first.revision);
    assert_eq!(bench.apply(&Change::Delete { kind: Kind::Device, id: "p_d".into(), expect }), Err(Rejection::Conflict));
    assert_eq!(bench.delete(Kind::Device, "p_d"), Ok(second));
    assert_eq!(bench.delete(Kind::Device, "p_d"), Err(Rejection::Missing));
    let again = bench.put(device("p", "d"));
    assert!(again.revision > second.revision && again.oid > second.oid, "a later one is another");
}

#[test]
fn what_is_referred_to_must_be_there_and_stays() {
    let mut bench = Bench::new();
    let elsewhere = Device { app_id: "none".into(), ..device("p", "d") };
    let lost = Product { app_id: "none".into(), ..product("q", Dialect::Huawei) };
    for (record, kind) in [
        (Record::from(device("none", "d")), Kind::Product),
        (elsewhere.into(), Kind::App),
        (below("p_none", device("p", "d")).into(), Kind::Device),
        (lost.into(), Kind::App),
        (access_key("ak", "none").into(), Kind::User),
        (authority("ca", "none").into(), Kind::Product),
    ] {
        assert_eq!(bench.apply(&put(record, Expect::Absent)), Err(Rejection::Dangling(kind)));
    }
    bench.put(authority("ca", ""));
    bench.put(user("u"));
    bench.put(access_key("ak", "u"));
    bench.put(device("p", "g"));
    bench.put(below("p_g", device("p", "d")));
    bench.put(authority("ca", "p"));
    let uses = |bench: &Bench| {
        let of = |kind, id, by| bench.registry.uses(kind, id, by);
        [
            of(Kind::App, "app", Kind::Product),
            of(Kind::App, "app", Kind::Device),
            of(Kind::Product, "p", Kind::Device),
            of(Kind::Product, "p", Kind::Authority),
            of(Kind::Device, "p_g", Kind::Device),
            of(Kind::User, "u", Kind::AccessKey),
        ]
    };
    assert_eq!(uses(&bench), [1, 2, 2, 1, 1, 1]);
    bench.put(below("p_g", device("p", "d")));
    assert_eq!(uses(&bench), [1, 2, 2, 1, 1, 1], "an update counts once");
    for (kind, id, by) in [
        (Kind::App, "app", Kind::Product),
        (Kind::Product, "p", Kind::Device),
        (Kind::Device, "p_g", Kind::Device),
        (Kind::User, "u", Kind::AccessKey),
    ] {
        assert_eq!(bench.delete(kind, id), Err(Rejection::InUse(by)));
    }
    for (kind, id) in [(Kind::Device, "p_d"), (Kind::Device, "p_g")] {
        bench.delete(kind, id).unwrap();
    }
    assert_eq!(bench.delete(Kind::Product, "p"), Err(Rejection::InUse(Kind::Authority)));
    for (kind, id) in
        [(Kind::Authority, "ca"), (Kind::Product, "p"), (Kind::App, "app"), (Kind::AccessKey, "ak"), (Kind::User, "u")]
    {
        bench.delete(kind, id).unwrap();
    }
    assert_eq!(uses(&bench), [0; 6]);
    assert!(bench.registry.records().next().is_none());
}

#[test]
fn some_things_never_change() {
    let mut bench = Bench::new();
    bench.put(product("q", Dialect::Huawei));
    bench.put(device("p", "d"));
    let moved = Device { product_id: "q".into(), ..device("p", "d") };
    let renamed = Device { node_id: "e".into(), ..device("p", "d") };
    for record in [Record::from(moved), renamed.into(), product("p", Dialect::Tencent).into()] {
        assert_eq!(bench.apply(&put(record, Expect::Anything)), Err(Rejection::Conflict));
    }
    let key = |text| Change::Key(Secret::new(text));
    bench.apply(&key("one")).unwrap();
    assert_eq!(bench.apply(&key("two")), Err(Rejection::Exists));
    assert!(bench.registry.key().is_some_and(|key| key.is(b"one")));
}

#[test]
fn there_is_one_default_app_and_it_stays() {
    let mut bench = Bench::new();
    assert!(bench.registry.default_app().is_none());
    let default = |id: &str| App { default: true, ..app(id) };
    bench.put(default("first"));
    bench.put(App { name: "renamed".into(), ..default("first") });
    assert_eq!(bench.apply(&put(default("second"), Expect::Absent)), Err(Rejection::Exists));
    assert_eq!(bench.apply(&put(default("app"), Expect::Anything)), Err(Rejection::Conflict));
    assert_eq!(bench.apply(&put(app("first"), Expect::Anything)), Err(Rejection::Conflict));
    assert_eq!(bench.delete(Kind::App, "first"), Err(Rejection::InUse(Kind::App)));
    assert_eq!(&*bench.registry.default_app().unwrap().record.name, "renamed");
}

#[test]
fn gateways_have_two_levels_below_them() {
    let mut bench = Bench::new();
    bench.put(device("p", "g"));
    bench.put(below("p_g", device("p", "one")));
    bench.put(below("p_one", device("p", "two")));
    let deep = Err(Rejection::Dangling(Kind::Device));
    assert_eq!(bench.apply(&put(below("p_two", device("p", "three")), Expect::Absent)), deep);
    bench.put(device("p", "alone"));
    assert_eq!(bench.apply(&put(below("p_two", device("p", "alone")), Expect::Anything)), deep);
    assert_eq!(bench.apply(&put(below("p_alone", device("p", "alone")), Expect::Anything)), deep, "of itself");
    let with_subs = below("p_alone", device("p", "g"));
    assert_eq!(bench.apply(&put(with_subs, Expect::Anything)), Err(Rejection::InUse(Kind::Device)));
    bench.put(Device { name: "other".into(), ..below("p_g", device("p", "one")) });
    bench.put(device("p", "two"));
    bench.put(below("p_two", device("p", "alone")));
    let of_two = bench.registry.devices_where(None, |device| *device.gateway_id == *"p_two");
    assert_eq!(of_two.map(|(device, _)| &*device.record.id).collect::<Vec<_>>(), ["p_alone"]);
}

#[test]
fn devices_are_found_by_id_name_and_place() {
    let mut bench = Bench::new();
    bench.put(product("h", Dialect::Huawei));
    let own = Device { id: "own".into(), ..device("h", "x") };
    let oid = bench.put(own.clone()).oid;
    bench.put(device("p", "x"));
    let id = |found: Option<(&Kept<Device>, &Presence)>| found.map(|(device, _)| device.record.id.to_string());
    assert_eq!(id(bench.registry.device_of("h", "x")).as_deref(), Some("own"));
    assert_eq!(id(bench.registry.device_of("p", "x")).as_deref(), Some("p_x"));
    assert_eq!(id(bench.registry.device_of("p", "y")), None);
    assert_eq!(id(bench.registry.device_by_oid(oid)).as_deref(), Some("own"));
    assert_eq!(bench.apply(&put(device("h", "x"), Expect::Absent)), Err(Rejection::Exists), "the name is taken");
    assert_eq!(
        bench.apply(&put(Device { id: "p_x".into(), ..device("h", "y") }, Expect::Absent)),
        Err(Rejection::Exists)
    );
    // The id of one may be the name of another.
    bench.put(Device { id: "h_z".into(), ..device("h", "y") });
    assert_eq!(id(bench.registry.device_of("h", "z")), None);
    assert_eq!(id(bench.registry.device_of("h", "y")).as_deref(), Some("h_z"));
    bench.put(Device { name: "again".into(), ..own });
    bench.delete(Kind::Device, "own").unwrap();
    assert_eq!(id(bench.registry.device_of("h", "x")), None);
    assert_eq!(id(bench.registry.device_by_oid(oid)), None);
}

#[test]
fn devices_are_listed_newest_first() {
    let mut bench = Bench::new();
    let oids: Vec<_> = ["a", "b", "c", "d"].map(|name| bench.put(device("p", name)).oid).into();
    bench.put(device("p", "b"));
    let names = |before| bench.registry.devices(before).map(|(d, _)| d.record.node_id.to_string()).collect::<String>();
    assert_eq!(names(None), "dcba");
    assert_eq!(names(Some(oids[2])), "ba");
    assert_eq!(names(Some(ObjectId::default())), "");
    assert_eq!(names(ObjectId::parse("ffffffffffffffffffffffff")), "dcba");
    assert_eq!(bench.registry.device_count(), 4);
    assert_eq!(ObjectId::parse(&oids[1].to_string()), Some(oids[1]));
}

#[test]
fn a_label_means_a_product_in_any_case() {
    let mut bench = Bench::new();
    bench.put(product("a1B2", Dialect::Aliyun));
    let found = |bench: &Bench, label: &str| bench.registry.product_by_label(label).map(|p| p.record.id.to_string());
    assert_eq!(found(&bench, "A1b2").as_deref(), Some("a1B2"));
    assert_eq!(found(&bench, "a1"), None);
    assert_eq!(bench.apply(&put(product("A1B2", Dialect::Aliyun), Expect::Absent)), Err(Rejection::Exists));
    bench.put(product("a1B2", Dialect::Aliyun));
    bench.delete(Kind::Product, "a1B2").unwrap();
    assert_eq!(found(&bench, "a1b2"), None);
}

#[test]
fn access_codes_are_found_by_their_key() {
    let mut bench = Bench::new();
    bench.put(access_code("MQTT", "one"));
    bench.put(access_code("AMQP", "two"));
    assert_eq!(&*bench.registry.access_code_by_key("two").unwrap().record.kind, "AMQP");
    bench.put(access_code("AMQP", "three"));
    assert!(bench.registry.access_code_by_key("two").is_none());
    assert_eq!(&*bench.registry.access_code("AMQP").unwrap().record.access_key, "three");
}

#[test]
fn only_devices_products_and_apps_are_told() {
    let mut bench = Bench::new();
    for (record, told) in [
        (Record::from(app("a")), true),
        (product("q", Dialect::Huawei).into(), true),
        (device("p", "d").into(), true),
        (user("u").into(), false),
        (access_key("ak", "u").into(), false),
        (access_code("MQTT", "k").into(), false),
        (authority("ca", "").into(), false),
        (sensoro("s").into(), false),
    ] {
        let one = |event: Event| if told { vec![event] } else { vec![] };
        bench.put(record.clone());
        assert_eq!(bench.events, one(Event::Created(record.clone())));
        bench.put(record.clone());
        assert_eq!(bench.events, one(Event::Updated(record.clone())));
        if record.kind() != Kind::User {
            bench.delete(record.kind(), record.id()).unwrap();
            assert_eq!(bench.events, one(Event::Deleted(record)));
        }
    }
}

#[test]
fn kinds_are_bounded() {
    let mut registry = Registry::default();
    let mut put = |record: Record| registry.apply(&put(record, Expect::Anything), NOW_MS, &mut vec![]);
    for number in 0..OTHERS_MAX {
        put(user(&number.to_string()).into()).unwrap();
    }
    assert_eq!(put(user("more").into()), Err(Rejection::Full));
    assert!(put(user("7").into()).is_ok(), "an update adds nothing");
    assert!(put(app("app").into()).is_ok(), "each kind has its own bound");
}

#[test]
fn rules_keep_their_subject_and_actions_their_rule() {
    let mut bench = Bench::new();
    assert_eq!(bench.apply(&put(rule("r", "nowhere"), Expect::Absent)), Err(Rejection::Dangling(Kind::App)));
    assert_eq!(bench.apply(&put(action("x", "r"), Expect::Absent)), Err(Rejection::Dangling(Kind::Rule)));
    bench.put(rule("r", "app"));
    bench.put(rule("every", ""));
    bench.put(action("x", "r"));
    assert_eq!(bench.events, [Event::Created(action("x", "r").into())]);
    let other = Rule { subject: Subject::StatusUpdate, ..rule("r", "app") };
    assert_eq!(bench.apply(&put(other, Expect::Anything)), Err(Rejection::Conflict));
    assert_eq!(bench.apply(&put(action("x", "every"), Expect::Anything)), Err(Rejection::Conflict));
    bench.put(Rule { active: true, ..rule("r", "") });
    assert!(matches!(&bench.events[..], [Event::Updated(Record::Rule(rule))] if rule.active));
    assert_eq!(bench.delete(Kind::Rule, "r"), Err(Rejection::InUse(Kind::RuleAction)));
    bench.delete(Kind::RuleAction, "x").unwrap();
    assert_eq!(bench.events, [Event::Deleted(action("x", "r").into())]);
    bench.delete(Kind::Rule, "r").unwrap();
    assert_eq!((bench.registry.rules().count(), bench.registry.rule_actions().count()), (1, 0));
}

#[test]
fn secrets_are_not_shown() {
    let mut bench = Bench::new();
    let secret = "TopSecretText";
    let hide = || Secret::new(secret);
    let auth = Auth { secret: Some(hide()), secondary_secret: Some(hide()), token: Some(hide()), ..Auth::default() };
    let records: [Record; 9] = [
        Product { secret: Some(hide()), ..product("s", Dialect::Tencent) }.into(),
        Device { auth, ..device("p", "d") }.into(),
        User { password_hash: hide(), ..user("u") }.into(),
        AccessKey { sk: hide(), ..access_key("ak", "u") }.into(),
        AccessCode { access_code: hide(), ..access_code("MQTT", "k") }.into(),
        Authority { key_pem: Some(hide()), ..authority("ca", "") }.into(),
        SensoroApp { secret: hide(), key: hide(), ..sensoro("s") }.into(),
        rule("r", "").into(),
        RuleAction { detail: secret.into(), ..action("x", "r") }.into(),
    ];
    let mut shown = format!("{:?}", Change::Key(hide()));
    bench.apply(&Change::Key(hide())).unwrap();
    for record in records {
        let change = put(record, Expect::Anything);
        shown += &format!("{change:?}");
        bench.apply(&change).unwrap();
        shown += &format!("{:?}", bench.events);
    }
    shown += &format!("{:?} {:?}", bench.registry, bench.registry.records().collect::<Vec<_>>());
    assert!(shown.contains("***") && !shown.contains(secret));
}

#[test]
fn what_cannot_be_is_not_restored() {
    let mut bench = Bench::new();
    bench.put(device("p", "d"));
    bench.connect("p_d", 3, Some("one"));
    let good: Vec<Filed> = bench.registry.records().collect();
    assert_eq!(good.len(), 3);
    type Damage = Box<dyn Fn(&mut Vec<Filed>)>;
    let damages: Vec<(Damage, &str)> = vec![
        (Box::new(|all| all.swap(0, 1)), "oid"),
        (Box::new(|all| all.push(all[2].clone())), "oid"),
        (Box::new(|all| all[2].revision = 0), "revision"),
        (Box::new(|all| all[2].revision = 99), "revision"),
        (Box::new(|all| all[2].presence = None), "presence"),
        (Box::new(|all| all[0].presence = Some(Presence::default())), "presence"),
        (Box::new(|all| all[2].presence.as_mut().unwrap().online = false), "presence"),
        (
            Box::new(|all| {
                let mut other = all[2].clone();
                other.oid = ObjectId::new(u32::MAX, other.oid.number());
                all.push(other);
            }),
            "record",
        ),
        (
            Box::new(|all| {
                let mut other = all[2].clone();
                other.oid = ObjectId::new(u32::MAX, other.oid.number());
                other.record = device("p", "e").into();
                all.push(other);
            }),
            "presence",
        ),
        (Box::new(|all| drop(all.remove(0))), "record"),
        (Box::new(|all| drop(all.remove(1))), "record"),
    ];
    for (at, (damage, field)) in damages.into_iter().enumerate() {
        let mut all = good.clone();
        damage(&mut all);
        let mut restoring = Restoring::new(None, bench.registry.last_revision());
        let restored = all.into_iter().try_for_each(|filed| restoring.add(filed)).and_then(|()| restoring.finish());
        assert_eq!(restored.map(|_| ()).map_err(|(field, _)| field), Err(field), "damage {at}");
    }
}

#[test]
fn a_gateway_has_so_many_behind_it_and_no_more() {
    let mut bench = Bench::new();
    bench.put(device("p", "g"));
    bench.put(device("p", "other"));
    for number in 0..5_000 {
        let sub = below("p_g", device("p", &number.to_string()));
        let change = Change::Put { record: Record::Device(Arc::new(sub)), expect: Expect::Absent };
        assert!(bench.registry.apply(&change, NOW_MS, &mut Vec::new()).is_ok());
    }
    assert_eq!(bench.apply(&put(below("p_g", device("p", "more")), Expect::Absent)), Err(Rejection::Full));
    assert_eq!(
        bench.apply(&put(below("p_g", device("p", "other")), Expect::Anything)),
        Err(Rejection::Full),
        "nor may one move there"
    );
    bench.put(Device { name: "renamed".into(), ..below("p_g", device("p", "7")) });
}
