//! Devices and their sessions.

use fulmar_mqtt::ReasonCode;
use fulmar_platform::registry::{
    App, Auth, Change, Device, Event, Expect, Kind, Patch, Product, Record, Registration, Rejection, Section,
    ShadowChange, ShadowPart, Status, Versioning,
};
use fulmar_platform::{Dialect, Downlink, Secret};

use super::*;
use crate::state::command::News;

pub(super) fn device_key(id: &str) -> SessionKey {
    SessionKey::new("default", "aliyun", id)
}

/// A device of the product `p`.
pub(super) fn device(node_id: &str, frozen: bool, timeout_s: u32) -> Record {
    Record::Device(Arc::new(Device {
        id: format!("p_{node_id}").into(),
        product_id: "p".into(),
        app_id: "app".into(),
        node_id: node_id.into(),
        name: "".into(),
        description: "".into(),
        gateway_id: "".into(),
        auth: Auth { secret: Some(Secret::new("s")), timeout_s, ..Auth::default() },
        frozen,
        fw_version: "".into(),
        sw_version: "".into(),
        sdk_version: "".into(),
        extension_info: "".into(),
        tags: vec![],
        endpoint: None,
        sensoro_app_id: "".into(),
        created_ms: 0,
    }))
}

pub(super) fn put(record: Record) -> Command {
    Command::Registry(Box::new(Change::Put { record, expect: Expect::Anything }))
}

pub(super) fn delete(id: &str) -> Command {
    let expect = Expect::Anything;
    Command::Registry(Box::new(Change::Delete { kind: Kind::Device, id: id.into(), expect }))
}

pub(super) fn disconnect(id: &str) -> Command {
    Command::Registry(Box::new(Change::Disconnect { device: id.into() }))
}

/// An app, the product `p` of Aliyun, and the devices `p_d` and `p_e`.
pub(super) fn seeds() -> Vec<Command> {
    let app = App { id: "app".into(), name: "".into(), default: true, created_ms: 0 };
    let product = Product {
        id: "p".into(),
        app_id: "app".into(),
        name: "".into(),
        dialect: Dialect::Aliyun,
        secret: None,
        registration: Registration::Off,
        device_type: "".into(),
        protocol_type: "".into(),
        data_format: "".into(),
        manufacturer_name: "".into(),
        industry: "".into(),
        description: "".into(),
        model: "".into(),
        topics: vec![],
        endpoint: None,
        messages_require_subscribe: false,
        created_ms: 0,
    };
    let records = [Record::App(Arc::new(app)), Record::Product(Arc::new(product))];
    records.into_iter().chain([device("d", false, 0), device("e", false, 0)]).map(put).collect()
}

fn seeded() -> Bench {
    let mut bench = Bench::new();
    bench.pass_s(1000);
    bench.run_all(seeds());
    bench
}

fn of_device(id: &str, node: NodeId, expiry_s: u32, client_id: Option<&str>) -> Claim {
    let exclusive_client_id = client_id.map(Into::into);
    Claim { key: device_key(id), exclusive_client_id, ..claim("", node, expiry_s) }
}

/// (device, online, epoch, time) of what was told of devices in the last batch.
fn statuses(effects: &[Effect]) -> Vec<(String, bool, u64, u64)> {
    let status = |effect: &Effect| match effect {
        Effect::Registry(Event::Status(Status { device, online, epoch, at_ms, .. })) => {
            Some((device.id.to_string(), *online, *epoch, *at_ms))
        }
        _ => None,
    };
    effects.iter().filter_map(status).collect()
}

fn disconnects(effects: &[Effect]) -> Vec<(String, Epoch, ReasonCode)> {
    let cut = |effect: &Effect| match effect {
        Effect::Disconnect { key, owner, reason } => Some((key.identity().to_owned(), owner.epoch, *reason)),
        _ => None,
    };
    effects.iter().filter_map(cut).collect()
}

#[test]
fn a_claim_needs_a_device_that_is_not_frozen() {
    let mut bench = seeded();
    bench.run(put(device("e", true, 0)));
    let with_key = |key| Command::Claim(Box::new(Claim { key, ..claim("", ONE, 0) }));
    for (dialect, identity, admitted) in [
        ("aliyun", "p_d", true),
        ("aliyun", "p_e", false),
        ("aliyun", "p_none", false),
        ("huawei", "p_d", false),
        ("huawei", "register/p_d", true),
        ("aliyun", "register/x", true),
        ("generic", "p_e", true),
        ("sensoro", "p_e", true),
        ("unheard-of", "p_e", true),
    ] {
        let outcome = bench.run(with_key(SessionKey::new("default", dialect, identity)));
        let refused = outcome == Outcome::Refused(ReasonCode::NotAuthorized);
        assert_eq!(refused, !admitted, "{dialect} {identity}: {outcome:?}");
    }
    assert_eq!(bench.state.registry().device("p_d").unwrap().1.epoch, 1);
}

#[test]
fn a_claim_counts_for_the_record_that_let_the_client_in() {
    let mut bench = seeded();
    let judged = |bench: &Bench, key: &SessionKey| crate::state::judged_by(bench.state.registry(), key);
    let judged_by = judged(&bench, &device_key("p_d"));
    assert!(judged_by.is_some());
    let of_old = || Command::Claim(Box::new(Claim { judged_by, ..of_device("p_d", ONE, 60, None) }));
    let Record::Device(mut changed) = device("d", false, 0) else { unreachable!() };
    Arc::make_mut(&mut changed).auth.secret = Some(Secret::new("another"));
    bench.run(put(Record::Device(changed)));
    bench.run(disconnect("p_d"));
    assert_eq!(bench.run(of_old()), Outcome::Registry(Err(Rejection::Conflict)), "the old secret let it in");
    assert!(bench.state.session(&device_key("p_d")).is_none());
    let judged_by = judged(&bench, &device_key("p_d"));
    bench.claim(Claim { judged_by, ..of_device("p_d", ONE, 60, None) });
    for none in [SessionKey::new("default", "huawei", "register/p_d"), SessionKey::new("default", "generic", "p_d")] {
        assert_eq!(judged(&bench, &none), None);
    }
}

#[test]
fn sessions_say_who_is_online() {
    let mut bench = seeded();
    assert!(!bench.state.device_online("p_d"));
    let first = bench.claim(of_device("p_d", ONE, 60, None)).epoch;
    assert_eq!(statuses(&bench.effects), [("p_d".into(), true, first.0, 1_000_000)]);
    assert!(bench.state.device_online("p_d"));
    // Taken over: online goes on, and the older connection's end is no news.
    bench.pass_s(1);
    let second = bench.claim(of_device("p_d", TWO, 0, None)).epoch;
    assert_eq!(statuses(&bench.effects), [("p_d".into(), true, second.0, 1_001_000)]);
    let release = |epoch| {
        let key = device_key("p_d");
        Command::Release(Release { key, epoch, discard_will: true, expiry_s: None, sent_below: None })
    };
    assert_eq!(bench.run(release(first)), Outcome::Stale);
    assert!(statuses(&bench.effects).is_empty() && bench.state.device_online("p_d"));
    // A clean session that another claims: nobody is told of an end.
    let third = bench.claim(of_device("p_d", ONE, 0, None)).epoch;
    assert_eq!(statuses(&bench.effects), [("p_d".into(), true, third.0, 1_001_000)]);
    bench.pass_s(1);
    bench.run(release(third));
    assert_eq!(statuses(&bench.effects), [("p_d".into(), false, third.0, 1_002_000)]);
    assert!(!bench.state.device_online("p_d"));
    let presence = bench.state.registry().device("p_d").unwrap().1;
    assert_eq!((presence.active_ms, presence.changed_ms), (1_000_000, 1_002_000));
}

#[test]
fn a_dead_node_s_devices_went_when_it_died() {
    let mut bench = seeded();
    let epoch = bench.claim(of_device("p_d", ONE, 60, None)).epoch;
    let moved = bench.claim(of_device("p_e", ONE, 0, None)).epoch;
    bench.pass_s(5);
    bench.run(down(ONE));
    assert!(statuses(&bench.effects).is_empty(), "this is settled later");
    assert!(bench.state.registry().device("p_d").unwrap().1.online);
    assert!(!bench.state.device_online("p_d"), "but nobody is shown as connected to a dead node");
    bench.pass_s(5);
    // One is claimed before it is settled.
    let new = bench.claim(of_device("p_e", TWO, 0, None)).epoch;
    let wanted = [("p_e".into(), false, moved.0, 1_005_000), ("p_e".into(), true, new.0, 1_010_000)];
    assert_eq!(statuses(&bench.effects), wanted);
    let effects = bench.settle_due();
    assert_eq!(statuses(&effects), [("p_d".into(), false, epoch.0, 1_005_000)]);
    assert!(bench.state.device_online("p_e"));
}

#[test]
fn a_client_id_is_of_one_connection() {
    let mut bench = seeded();
    let first = bench.claim(of_device("p_d", ONE, 60, Some("same"))).epoch;
    assert!(disconnects(&bench.effects).is_empty());
    bench.claim(of_device("p_e", TWO, 60, Some("same")));
    assert_eq!(disconnects(&bench.effects), [("p_d".into(), first, ReasonCode::AdministrativeAction)]);
    assert!(bench.state.device_online("p_d"), "until its owner lets go");
    bench.claim(of_device("p_e", ONE, 60, Some("same")));
    assert!(disconnects(&bench.effects).is_empty());
    bench.run(down(ONE));
    bench.claim(of_device("p_d", TWO, 60, Some("same")));
    assert!(disconnects(&bench.effects).is_empty(), "nobody is there any more");
}

#[test]
fn a_connection_is_cut_by_what_becomes_of_its_device() {
    for (command, reason, stays) in [
        (put(device("d", true, 0)), Some(ReasonCode::NotAuthorized), true),
        (delete("p_d"), Some(ReasonCode::NotAuthorized), false),
        (disconnect("p_d"), Some(ReasonCode::AdministrativeAction), true),
        (put(device("d", false, 9)), None, true),
        (put(device("e", true, 0)), None, true),
    ] {
        let mut bench = seeded();
        let epoch = bench.claim(of_device("p_d", ONE, 60, None)).epoch;
        let filters = vec![subscription("t", QoS::AtLeastOnce)];
        bench.run(Command::Subscribe { key: device_key("p_d"), epoch, filters });
        bench.publish("t", "x", QoS::AtLeastOnce);
        assert!(matches!(bench.run(command.clone()), Outcome::Registry(Ok(_))));
        let wanted: Vec<_> = reason.map(|reason| ("p_d".to_owned(), epoch, reason)).into_iter().collect();
        assert_eq!(disconnects(&bench.effects), wanted, "{command:?}");
        assert_eq!(bench.state.session(&device_key("p_d")).is_some(), stays);
        assert_eq!(bench.state.books().dropped(crate::state::Dropped::SessionDiscarded), u64::from(!stays));
        let ended = bench.effects.contains(&Effect::Ended { key: device_key("p_d"), epoch });
        assert_eq!(ended, !stays);
        let view = bench.state.session(&device_key("p_d"));
        assert_eq!(view.and_then(|view| view.cut), reason.filter(|_| stays), "whoever is told late reads it");
        // Again: whoever is still there is cut again.
        bench.run(command.clone());
        let again: Vec<_> = wanted.into_iter().filter(|_| stays).collect();
        assert_eq!(disconnects(&bench.effects), again);
        // Nothing of it is left for the next connection.
        bench.run(put(device("d", false, 0)));
        bench.claim(of_device("p_d", TWO, 60, None));
        assert_eq!(bench.state.session(&device_key("p_d")).unwrap().cut, None);
    }
}

#[test]
fn a_session_is_ended_for_whom_it_was_meant() {
    let mut bench = Bench::new();
    let old = bench.claim(claim("a", ONE, 60)).epoch;
    bench.run(Command::Subscribe { key: key("a"), epoch: old, filters: vec![subscription("t", QoS::AtLeastOnce)] });
    bench.publish("t", "x", QoS::AtLeastOnce);
    assert_eq!(bench.state.census().iter().collect::<Vec<_>>(), [(&key("a"), old)]);
    let new = bench.claim(claim("a", TWO, 60)).epoch;
    let end = |epoch| Command::EndSession { key: key("a"), epoch, reason: ReasonCode::NotAuthorized };
    assert_eq!(bench.run(end(old)), Outcome::Stale, "who came in since has its own right");
    assert!(bench.state.session(&key("a")).is_some());
    assert_eq!(bench.run(end(new)), Outcome::Done);
    assert_eq!(disconnects(&bench.effects), [("a".to_owned(), new, ReasonCode::NotAuthorized)]);
    assert!(bench.effects.contains(&Effect::Ended { key: key("a"), epoch: new }));
    assert_eq!(bench.state.session_count(), 0);
    assert_eq!(bench.state.books().dropped(crate::state::Dropped::SessionDiscarded), 1);
    assert_eq!(bench.run(end(new)), Outcome::Stale);
}

#[test]
fn a_deleted_device_of_a_dead_node_leaves_nothing() {
    for expiry_s in [0, 60] {
        let mut bench = seeded();
        bench.claim(of_device("p_d", ONE, expiry_s, None));
        bench.run(down(ONE));
        bench.run(delete("p_d"));
        assert!(disconnects(&bench.effects).is_empty());
        assert_eq!(bench.state.session_count(), 0);
        assert!(bench.state.kept.origins.fallen().next().is_none(), "the run owns nothing any more");
        assert_eq!(bench.run(disconnect("p_d")), Outcome::Registry(Err(Rejection::Missing)));
    }
}

#[test]
fn devices_that_never_connect_are_deleted() {
    let mut bench = seeded();
    bench.run_all(vec![put(device("late", false, 60)), put(device("seen", false, 60))]);
    assert_eq!(bench.state.next_due(), Some(LogTime(1_060_000)));
    bench.claim(of_device("p_seen", ONE, 0, None));
    bench.pass_s(59);
    assert!(bench.state.due(bench.at, 9).is_empty());
    bench.pass_s(1);
    let effects = bench.settle_due();
    assert!(matches!(effects.as_slice(), [Effect::Registry(Event::Deleted(record))] if record.id() == "p_late"));
    assert_eq!(bench.state.registry().device_count(), 3);
    assert_eq!(bench.state.next_due(), None);
}

/// `p_s`, behind `p_d`.
fn sub_device() -> Record {
    let Record::Device(sub) = device("s", false, 0) else { unreachable!("it is a device") };
    Record::Device(Arc::new(Device { gateway_id: "p_d".into(), ..Device::clone(&sub) }))
}

/// A wish of a device, or a report.
pub(super) fn shadow(device: &str, wish: bool, value: u64) -> Command {
    let merge = Patch::Merge(Section::read(&format!(r#"{{"x":{value}}}"#), 0).unwrap().properties());
    let (reported, desired) = if wish { (Patch::Keep, merge) } else { (merge, Patch::Keep) };
    let part = ShadowPart { service: "s".into(), reported, desired, version: Versioning::Next, reported_ms: 0 };
    let change = ShadowChange::Update(vec![part]);
    Command::Registry(Box::new(Change::Shadow { device: device.into(), change }))
}

/// Who is told what.
fn news(effects: &[Effect]) -> Vec<(String, Epoch, String)> {
    let told = |effect: &Effect| match effect {
        Effect::News { key, owner, news } => {
            let news = match news {
                News::Desired(device) => format!("desired {}", device.id),
                News::SubDevice { device, added } => format!("{} {added}", device.id),
                News::Downlink(downlink) => downlink.topic.as_str().to_owned(),
            };
            Some((key.identity().to_owned(), owner.epoch, news))
        }
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

#[test]
fn a_sub_device_is_there_by_its_gateway() {
    let mut bench = seeded();
    let online = |device: &str, epoch: Epoch, online: bool| {
        Command::Registry(Box::new(Change::SubDevice { device: device.into(), epoch: epoch.0, online }))
    };
    let refused = |rejection| Outcome::Registry(Err(rejection));
    bench.run(put(sub_device()));
    assert_eq!(bench.run(online("p_s", Epoch(1), true)), refused(Rejection::Conflict), "the gateway is not there");
    assert_eq!(bench.run(online("p_d", Epoch(1), true)), refused(Rejection::Dangling(Kind::Device)));
    let first = bench.claim(of_device("p_d", ONE, 60, None)).epoch;
    assert!(matches!(bench.run(online("p_s", first, true)), Outcome::Registry(Ok(_))));
    assert_eq!(statuses(&bench.effects), [("p_s".into(), true, first.0, 1_000_000)]);
    assert!(bench.state.device_online("p_s"));
    bench.run(online("p_s", first, true));
    assert!(statuses(&bench.effects).is_empty(), "it is so already");
    bench.run(online("p_s", first, false));
    assert_eq!(statuses(&bench.effects), [("p_s".into(), false, first.0, 1_000_000)]);
    bench.run(online("p_s", first, true));
    // Another connection of the gateway has said nothing of it.
    let second = bench.claim(of_device("p_d", TWO, 60, None)).epoch;
    let wanted = [("p_s".into(), false, first.0, 1_000_000), ("p_d".into(), true, second.0, 1_000_000)];
    assert_eq!(statuses(&bench.effects), wanted);
    assert_eq!(bench.run(online("p_s", first, true)), refused(Rejection::Conflict));
    bench.run(online("p_s", second, true));
    assert!(bench.state.device_online("p_s"));
    bench.run(down(TWO));
    assert!(!bench.state.device_online("p_s"), "nor is one behind a gateway of a dead node");
    let effects = bench.settle_due();
    let gone: Vec<_> = statuses(&effects).into_iter().map(|(id, online, ..)| (id, online)).collect();
    assert_eq!(gone, [("p_d".into(), false), ("p_s".into(), false)]);
    // One that goes to another gateway is not there by what the first one has said.
    let third = bench.claim(of_device("p_d", ONE, 60, None)).epoch;
    bench.run(online("p_s", third, true));
    let Record::Device(sub) = sub_device() else { unreachable!("it is a device") };
    bench.run(put(Record::Device(Arc::new(Device { gateway_id: "p_e".into(), ..Device::clone(&sub) }))));
    assert_eq!(statuses(&bench.effects).len(), 1);
    assert!(!bench.state.device_online("p_s"));
    audit(&bench.state);
}

#[test]
fn the_owner_of_a_device_hears_of_it() {
    let mut bench = seeded();
    bench.run_all(vec![put(sub_device()), shadow("p_d", true, 1)]);
    assert!(news(&bench.effects).is_empty(), "nobody is there");
    let tell = |device: &str| {
        let downlink = Downlink { topic: topic("t"), payload: "x".into(), qos: QoS::AtLeastOnce };
        Command::Registry(Box::new(Change::Tell { device: device.into(), downlink }))
    };
    assert_eq!(bench.run(tell("p_d")), Outcome::Registry(Err(Rejection::Conflict)));
    assert_eq!(bench.run(tell("p_none")), Outcome::Registry(Err(Rejection::Missing)));
    let epoch = bench.claim(of_device("p_d", ONE, 60, None)).epoch;
    let told = |what: &str| vec![("p_d".to_owned(), epoch, what.to_owned())];
    for (command, wanted) in [
        (shadow("p_d", true, 2), told("desired p_d")),
        (shadow("p_s", true, 2), told("desired p_s")),
        (shadow("p_s", false, 1), told("desired p_s")),
        (shadow("p_s", false, 2), vec![]),
        (shadow("p_e", true, 2), vec![]),
        (tell("p_d"), told("t")),
        (tell("p_s"), told("t")),
        (delete("p_s"), told("p_s false")),
        (put(sub_device()), told("p_s true")),
        (put(device("other", false, 0)), vec![]),
    ] {
        assert!(matches!(bench.run(command.clone()), Outcome::Registry(Ok(_))), "{command:?}");
        assert_eq!(news(&bench.effects), wanted, "{command:?}");
    }
}
