//! Devices and their sessions.

use fulmar_mqtt::ReasonCode;
use fulmar_platform::registry::{
    App, Auth, Change, Device, Event, Expect, Kind, Product, Record, Registration, Rejection, Status,
};
use fulmar_platform::{Dialect, Secret};

use super::*;

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
        // Again, it is frozen already, or there is nobody.
        bench.run(command.clone());
        let again: Vec<_> = wanted.into_iter().filter(|(_, _, reason)| *reason != ReasonCode::NotAuthorized).collect();
        assert_eq!(disconnects(&bench.effects), again);
    }
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
