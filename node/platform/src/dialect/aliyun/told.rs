//! Properties and events of the thing model, in the form that all dialects report them in.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::dialect::Told;
use crate::dialect::time::compact;

/// Of a device whose model has no services.
const SERVICE: &str = "default";

/// Events of one batch.
const EVENTS_MAX: usize = 100;

/// Properties by the time that they are of: milliseconds since 1970, `None` for now.
type ByTime = BTreeMap<Option<u64>, Map<String, Value>>;

/// `{name: value}`, where a value may be `{"value", "time"?}`. `None` if it is no object.
pub(super) fn properties(params: &Value) -> Option<Value> {
    let mut by_time = ByTime::new();
    for (name, value) in params.as_object()? {
        let (value, time) = timed(value);
        by_time.entry(time).or_default().insert(name.clone(), value.clone());
    }
    Some(services(by_time))
}

/// `{"value": {...}, "time"?}` or the bare parameters. `None` if it is no object.
pub(super) fn event(name: &str, params: &Value) -> Option<Value> {
    params.is_object().then(|| {
        let (paras, time) = timed(params);
        let mut event = json!({"service_id": SERVICE, "event_type": name, "paras": paras});
        if let Some(time) = time {
            event["event_time"] = compact(time).into();
        }
        event
    })
}

/// `{"properties": {name: [{"value", "time"}]}, "events": {name: [{"value", "time"}]}}`. `None` if it is not that, or
/// too much of it.
pub(super) fn batch(params: &Value) -> Option<Vec<Told>> {
    let of = |kind: &str| match params.as_object()?.get(kind) {
        None => Some(Vec::new()),
        Some(named) => {
            let each = named.as_object()?.iter().map(|(name, values)| Some((name, values.as_array()?)));
            each.collect::<Option<Vec<(&String, &Vec<Value>)>>>()
        }
    };
    let (properties, events) = (of("properties")?, of("events")?);
    let mut by_time = ByTime::new();
    for (name, values) in properties {
        for value in values {
            let (value, time) = timed(value);
            by_time.entry(time).or_default().insert(name.clone(), value.clone());
        }
    }
    let mut told = Vec::new();
    if !by_time.is_empty() {
        told.push(Told::Properties(services(by_time)));
    }
    if events.iter().map(|(_, values)| values.len()).sum::<usize>() > EVENTS_MAX {
        return None;
    }
    for (name, values) in events {
        for value in values {
            told.push(Told::Event(event(name, value)?));
        }
    }
    Some(told)
}

/// A value and the time that it is of, if it says one.
fn timed(value: &Value) -> (&Value, Option<u64>) {
    let Some(fields) = value.as_object() else { return (value, None) };
    match (fields.get("value"), fields.get("time"), fields.len()) {
        (Some(inner), None, 1) => (inner, None),
        (Some(inner), Some(time), 2) if time.is_u64() => (inner, time.as_u64()),
        _ => (value, None),
    }
}

fn services(by_time: ByTime) -> Value {
    let of_time = |(time, properties): (Option<u64>, Map<String, Value>)| {
        let mut service = json!({"service_id": SERVICE, "properties": properties});
        if let Some(time) = time {
            service["event_time"] = compact(time).into();
        }
        service
    };
    by_time.into_iter().map(of_time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_grouped_by_time() {
        let params = json!({"a": 1, "b": {"value": 2}, "c": {"value": 3, "time": 1000}, "d": {"value": 4, "other": 5}});
        let expected = json!([
            {"service_id": "default", "properties": {"a": 1, "b": 2, "d": {"value": 4, "other": 5}}},
            {"service_id": "default", "properties": {"c": 3}, "event_time": "19700101T000001Z"},
        ]);
        assert_eq!(properties(&params), Some(expected));
        assert_eq!(properties(&json!([1])), None);
    }

    #[test]
    fn events_come_bare_and_wrapped() {
        let expected = json!({"service_id": "default", "event_type": "alarm", "paras": {"level": 2}});
        assert_eq!(event("alarm", &json!({"level": 2})), Some(expected.clone()));
        assert_eq!(event("alarm", &json!({"value": {"level": 2}})), Some(expected));
        let timed = event("alarm", &json!({"value": {}, "time": 0})).unwrap();
        assert_eq!(timed["event_time"], "19700101T000000Z");
        assert_eq!(event("alarm", &json!(3)), None);
    }

    #[test]
    fn batches_are_bounded() {
        let params = json!({
            "properties": {"a": [{"value": 1, "time": 1000}, {"value": 2, "time": 2000}]},
            "events": {"e": [{"value": {"x": 1}, "time": 1000}]},
        });
        let told = batch(&params).unwrap();
        let expected = [
            Told::Properties(json!([
                {"service_id": "default", "properties": {"a": 1}, "event_time": "19700101T000001Z"},
                {"service_id": "default", "properties": {"a": 2}, "event_time": "19700101T000002Z"},
            ])),
            Told::Event(json!({
                "service_id": "default", "event_type": "e", "paras": {"x": 1}, "event_time": "19700101T000001Z",
            })),
        ];
        assert_eq!(told, expected);
        let many: Vec<Value> = (0..=EVENTS_MAX).map(|_| json!({"value": {}})).collect();
        assert_eq!(batch(&json!({"events": {"e": many}})), None);
        for bad in [json!(1), json!({"properties": []}), json!({"properties": {"a": 1}}), json!({"events": {"e": [1]}})]
        {
            assert_eq!(batch(&bad), None, "{bad}");
        }
        assert_eq!(batch(&json!({})), Some(Vec::new()));
    }
}
