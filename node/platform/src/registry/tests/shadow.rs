use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::*;

fn merge(value: Value) -> Patch {
    match value {
        Value::Object(members) => Patch::Merge(members),
        _ => Patch::Keep,
    }
}

fn report(service: &str, properties: Value) -> ShadowPart {
    let reported = merge(properties);
    ShadowPart { service: service.into(), reported, desired: Patch::Keep, version: Versioning::Keep, reported_ms: 0 }
}

fn desire(service: &str, desired: Patch, version: Versioning) -> ShadowPart {
    ShadowPart { service: service.into(), reported: Patch::Keep, desired, version, reported_ms: 0 }
}

fn update(parts: Vec<ShadowPart>) -> Change {
    Change::Shadow { device: "p_d".into(), change: ShadowChange::Update(parts) }
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.put(device("p", "d"));
    bench
}

fn service(bench: &Bench, id: &str) -> ShadowService {
    bench.registry.shadow("p_d").unwrap().service(id).unwrap().clone()
}

fn json_of(section: &Section) -> Value {
    Value::Object(section.properties())
}

#[test]
fn reports_and_wishes_are_merged() {
    let mut bench = bench();
    assert!(bench.registry.shadow("p_d").is_none());
    assert!(update(vec![report("b", json!({}))]).is_report());
    assert!(!update(vec![report("b", json!({})), desire("b", Patch::Clear, Versioning::Keep)]).is_report());
    bench.apply(&update(vec![report("b", json!({"x": 1, "y": [1.5]})), report("a", json!({"z": null}))])).unwrap();
    let wish = desire("b", merge(json!({"x": 2, "w": {"deep": true}})), Versioning::Next);
    bench.apply(&update(vec![wish])).unwrap();
    assert!(matches!(&*bench.events, [Event::Desired(device)] if *device.id == *"p_d"));
    let kept = service(&bench, "b");
    assert_eq!(json_of(&kept.reported), json!({"x": 1, "y": [1.5]}));
    assert_eq!((kept.version, kept.desired.event_ms), (1, NOW_MS));
    assert_eq!(Value::Object(kept.difference()), json!({"x": 2, "w": {"deep": true}}));
    assert_eq!(json_of(&service(&bench, "a").reported), json!({}));
    bench.apply(&update(vec![report("b", json!({"x": 2, "y": null, "w": {"deep": true}}))])).unwrap();
    assert!(bench.events.is_empty(), "there is nothing left to wish");
    assert_eq!(json_of(&service(&bench, "b").reported), json!({"x": 2, "w": {"deep": true}}));
    bench.apply(&update(vec![desire("b", merge(json!({"x": null})), Versioning::Next)])).unwrap();
    assert_eq!(json_of(&service(&bench, "b").desired), json!({"w": {"deep": true}}));
    bench.apply(&update(vec![desire("b", Patch::Clear, Versioning::Next)])).unwrap();
    assert_eq!((json_of(&service(&bench, "b").desired), service(&bench, "b").version), (json!({}), 3));
}

#[test]
fn versions_are_checked() {
    let mut bench = bench();
    let mut to = |version| bench.apply(&update(vec![desire("s", merge(json!({"x": 1})), version)])).map(|_| ());
    let conflict = Err(Rejection::Conflict);
    assert_eq!(to(Versioning::After(1)), conflict);
    assert_eq!(to(Versioning::After(0)), Ok(()));
    assert_eq!(to(Versioning::After(0)), conflict);
    assert_eq!(to(Versioning::Set(1)), conflict);
    assert_eq!(to(Versioning::Set(u64::MAX)), Ok(()));
    assert_eq!(to(Versioning::Next), Ok(()));
    assert_eq!(to(Versioning::Set(u64::MAX)), conflict);
    assert_eq!(to(Versioning::Reset), Ok(()));
    assert_eq!(to(Versioning::Set(1)), Ok(()));
    assert_eq!(service(&bench, "s").version, 1);
    // All of it or nothing.
    let parts = vec![report("other", json!({"x": 1})), desire("s", Patch::Clear, Versioning::After(9))];
    assert_eq!(bench.apply(&update(parts)), Err(Rejection::Conflict));
    assert!(bench.registry.shadow("p_d").unwrap().service("other").is_none());
}

#[test]
fn shadows_are_bounded_and_go_with_their_devices() {
    let mut bench = bench();
    let large = json!({"x": "y".repeat(SHADOW_BYTES_MAX)});
    assert_eq!(bench.apply(&update(vec![report("s", large)])), Err(Rejection::TooLarge));
    let many = (0..=SHADOW_SERVICES_MAX).map(|at| report(&at.to_string(), json!({}))).collect();
    assert_eq!(bench.apply(&update(many)), Err(Rejection::TooLarge));
    let named = "s".repeat(SHADOW_SERVICE_BYTES_MAX + 1);
    assert_eq!(bench.apply(&update(vec![report(&named, json!({}))])), Err(Rejection::TooLarge));
    assert_eq!(bench.registry.shadow_count(), 0);
    bench.apply(&update(vec![report("s", json!({"x": 1}))])).unwrap();
    bench.put(Device { name: "other".into(), ..device("p", "d") });
    assert_eq!(bench.registry.shadow_count(), 1);
    bench.apply(&Change::Shadow { device: "p_d".into(), change: ShadowChange::Delete }).unwrap();
    assert!(bench.registry.shadow("p_d").is_none());
    bench.apply(&update(vec![report("s", json!({"x": 1}))])).unwrap();
    bench.delete(Kind::Device, "p_d").unwrap();
    assert_eq!(bench.registry.shadow_count(), 0);
    assert_eq!(bench.apply(&update(vec![report("s", json!({}))])), Err(Rejection::Missing));
    bench.put(device("p", "d"));
    assert!(bench.registry.shadow("p_d").is_none(), "another device of the name");
}

#[test]
fn bytes_of_a_typical_shadow() {
    let mut bench = bench();
    let reported = json!({"temperature": 21.5, "humidity": 40, "battery": 97, "mode": "auto", "alarm": false});
    bench.apply(&update(vec![report("Climate", reported)])).unwrap();
    bench.apply(&update(vec![desire("Climate", merge(json!({"mode": "eco"})), Versioning::Next)])).unwrap();
    let kept = service(&bench, "Climate");
    let text = kept.id.len() + kept.reported.text().len() + kept.desired.text().len();
    let whole = text + size_of::<ShadowService>() + size_of::<Shadow>() + 2 * size_of::<usize>();
    assert!(whole < 320, "{whole} bytes beside the entry of the map");
}

/// What is desired, what is reported, and the version.
type Sides = (Map<String, Value>, Map<String, Value>, u64);

/// What a shadow is to be, kept without its code.
#[derive(Default, Clone)]
struct Modelled {
    services: BTreeMap<String, Sides>,
}

fn patched(side: &mut Map<String, Value>, patch: &Patch) {
    match patch {
        Patch::Keep => {}
        Patch::Clear => side.clear(),
        Patch::Merge(more) => {
            side.extend(more.clone());
            side.retain(|_, value| !value.is_null());
        }
    }
}

fn any_patch() -> impl proptest::strategy::Strategy<Value = Patch> {
    use proptest::prelude::*;
    let value = prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), any::<f64>().prop_map(|x| json!(x))];
    let members = proptest::collection::btree_map("[a-c]", value, 0..3);
    let merge = members.prop_map(|members| Patch::Merge(members.into_iter().collect()));
    prop_oneof![1 => Just(Patch::Keep), 1 => Just(Patch::Clear), 4 => merge]
}

proptest::proptest! {
    #[test]
    fn shadows_are_what_a_model_says(parts in proptest::collection::vec(
        (0u8..3, any_patch(), any_patch(), 0u8..5, 0u64..4), 1..30,
    )) {
        let (mut bench, mut model) = (bench(), Modelled::default());
        for (service, reported, desired, version, number) in parts {
            let id = service.to_string();
            let version = match version {
                0 => Versioning::Keep,
                1 => Versioning::Next,
                2 => Versioning::After(number),
                3 => Versioning::Set(number),
                _ => Versioning::Reset,
            };
            let before = model.services.get(&id).map_or(0, |it| it.2);
            let after = match version {
                Versioning::Keep => Some(before),
                Versioning::Next => Some(before + 1),
                Versioning::After(wanted) => (before == wanted).then_some(before + 1),
                Versioning::Set(new) => (new > before).then_some(new),
                Versioning::Reset => Some(0),
            };
            let part = ShadowPart {
                service: id.as_str().into(), reported: reported.clone(), desired: desired.clone(), version, reported_ms: 0,
            };
            let outcome = bench.apply(&update(vec![part]));
            proptest::prop_assert_eq!(outcome.is_ok(), after.is_some());
            if let Some(after) = after {
                let it = model.services.entry(id).or_default();
                patched(&mut it.0, &reported);
                patched(&mut it.1, &desired);
                it.2 = after;
            }
            let kept = bench.registry.shadow("p_d").map(|shadow| Shadow::clone(shadow)).unwrap_or_default();
            let shown: BTreeMap<String, _> = kept
                .services
                .iter()
                .map(|it| (it.id.to_string(), (it.reported.properties(), it.desired.properties(), it.version)))
                .collect();
            proptest::prop_assert_eq!(&shown, &model.services);
            for it in &kept.services {
                let (reported, desired, _) = &model.services[&*it.id];
                let wished: Map<String, Value> = desired.clone().into_iter().filter(|(k, v)| reported.get(k) != Some(v)).collect();
                proptest::prop_assert_eq!(it.difference(), wished);
            }
        }
    }
}
