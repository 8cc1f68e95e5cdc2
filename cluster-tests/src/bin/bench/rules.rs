//! `bench rules`: how many events a core evaluates a typical rule for, in this process; and how fast reports of a device
//! pass a live rule that republishes them, from one node to a subscriber of another.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::histogram::Histogram;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use cluster_tests::{sys, wait_for};
use fulmar_mqtt::{Packet, QoS, Version};
use fulmar_rules::{Filter, Projection, Value as Fact};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::options::RulesOptions;
use crate::report::{Latency, round};

const WHERE: &str = "notify_data.body.services[0].properties.temperature > 38 \
                     AND notify_data.header.product_id = 'p1' AND NOT STARTS_WITH(notify_data.header.node_id, 'test')";
const SELECT: &str = "notify_data.header.device_id AS device_id, \
                      notify_data.body.services[0].properties.temperature AS temperature, \
                      notify_data.body.services[0].properties.at AS at";

/// How long a packet may take that must come.
const ANSWER: Duration = Duration::from_secs(30);

/// After so long a silence nothing more is expected.
const SILENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(options: &RulesOptions) -> Result<()> {
    let alone = evaluate(options)?;
    let through = pass(options).await?;
    let line = json!({
        "scenario": "rules",
        "broker": format!("fulmar x {}", options.nodes),
        "parameters": { "evaluations": options.evaluations, "reports": options.reports, "window": options.window },
        "in_process": alone,
        "end_to_end": through,
    });
    println!("{line}");
    Ok(())
}

/// As a node makes it of a property report.
fn sample() -> Value {
    json!({
        "resource": "device.property",
        "event": "report",
        "event_time": "20260101T000000Z",
        "event_time_ms": "2026-01-01T00:00:00.000Z",
        "request_id": "3fe58d5e-8697-4849-a165-7db128f7e776",
        "notify_data": {
            "header": {
                "app_id": "0c5a8a2a4c8e4f9d9f0b8b2d3c1a7e55", "device_id": "p1_sensor-0001", "node_id": "sensor-0001",
                "product_id": "p1", "gateway_id": "p1_sensor-0001", "tags": [{ "tag_key": "room", "tag_value": "12" }],
            },
            "body": { "services": [{
                "service_id": "Climate", "event_time": "20260101T000000Z",
                "properties": { "temperature": 39.5, "humidity": 40, "battery": 87, "at": 1, "state": "on" },
            }] },
        },
    })
}

fn fact(json: Value) -> Fact {
    match json {
        Value::Null => Fact::Null,
        Value::Bool(truth) => Fact::Bool(truth),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Fact::Float(number.as_f64().unwrap_or_default()), Fact::Int)
        }
        Value::String(text) => Fact::Text(text),
        Value::Array(elements) => Fact::List(elements.into_iter().map(fact).collect()),
        Value::Object(members) => Fact::Object(members.into_iter().map(|(name, value)| (name, fact(value))).collect()),
    }
}

/// Rates of CPU time of one core.
fn evaluate(options: &RulesOptions) -> Result<Value> {
    let filter = Filter::parse(WHERE).map_err(|error| anyhow!("{error}"))?;
    let projection = Projection::parse(SELECT).map_err(|error| anyhow!("{error}"))?;
    let (json, event) = (sample(), fact(sample()));
    let per_s = |work: &dyn Fn()| {
        let begun = sys::own_cpu();
        (0..options.evaluations).for_each(|_| work());
        (f64::from(options.evaluations) / (sys::own_cpu() - begun).as_secs_f64()).round()
    };
    Ok(json!({
        "where_per_s": per_s(&|| {
            let _ = black_box(filter.matches(black_box(&event)));
        }),
        "where_and_select_per_s": per_s(&|| {
            let _ = black_box(filter.matches(black_box(&event)).map(|_| projection.apply(&event)));
        }),
        "conversions_per_s": per_s(&|| {
            black_box(fact(black_box(json.clone())));
        }),
    }))
}

/// Nanoseconds of a clock that both ends read.
fn now_ns() -> i64 {
    i64::try_from(sys::monotonic_ns()).unwrap_or(i64::MAX)
}

async fn pass(options: &RulesOptions) -> Result<Value> {
    let mut cluster = Cluster::start(
        usize::from(options.nodes),
        ClusterOptions {
            rest: true,
            binary: options.node.fulmar_bin.clone(),
            data_dir: options.node.data_dir.clone(),
            ..ClusterOptions::default()
        },
    )
    .await?;
    let last = usize::from(options.nodes) - 1;
    let rest = Rest::sign_in(cluster.member(last).rest).await?;
    rest.add_products().await?;
    let device = Device::new(Vendor::Huawei, "reporter");
    rest.add(std::slice::from_ref(&device)).await?;
    activate(&mut cluster, &rest, &device).await?;
    let mut subscriber = RawClient::tcp(cluster.mqtt(last), Version::V311).await?;
    subscriber.handshake(raw::connect(Version::V311, "subscriber"), ANSWER).await?;
    subscriber.send(&raw::subscribe(1, "bench/rules", QoS::AtMostOnce)).await?;
    subscriber.expect("SUBACK", ANSWER, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await?;
    let mut reporter = RawClient::tcp(cluster.mqtt(0), Version::V311).await?;
    reporter.handshake(device.connect(), ANSWER).await?;
    let (reports, window) = (options.reports, options.window);
    let begun = now_ns();
    let sending = tokio::task::spawn_local(async move { report(&mut reporter, &device, reports, window).await });
    let (mut histogram, mut received, mut ended) = (Histogram::default(), 0_u32, begun);
    while received < reports {
        let Ok(packet) = subscriber.next(SILENCE).await else { break };
        let Packet::Publish(publish) = packet else { continue };
        let body: Value = serde_json::from_slice(&publish.payload)?;
        ended = now_ns();
        let at = body["at"].as_i64().context("a report without time")?;
        histogram.record(u64::try_from(ended - at)?);
        received += 1;
    }
    sending.await??;
    let took_s = (ended - begun) as f64 / 1e9;
    Ok(json!({
        "reports_per_s": (f64::from(received) / took_s).round(),
        "latency_us": Latency::of(&histogram),
        "lost": reports - received,
        "measured_s": round(took_s),
    }))
}

/// A live rule that every report meets, on every node.
async fn activate(cluster: &mut Cluster, rest: &Rest, device: &Device) -> Result<()> {
    let subject = json!({ "resource": "device.property", "event": "report" });
    let filter = WHERE.replace("'p1'", &format!("'{}'", device.product_id));
    let rule = json!({ "rule_name": "bench", "subject": subject, "select": SELECT, "where": filter });
    let made = rest.call("POST", "/routing-rule/rules", Some(&rule)).await?;
    let rule_id = made["rule_id"].as_str().context("a rule without id")?;
    let detail = json!({ "mqtt_republishing": { "topic": "bench/rules" } });
    let action = json!({ "rule_id": rule_id, "channel": "MQTT_REPUBLISHING", "channel_detail": detail });
    rest.call("POST", "/routing-rule/actions", Some(&action)).await?;
    let path = format!("/routing-rule/rules/{rule_id}");
    rest.call("PUT", &path, Some(&json!({ "active": true }))).await?;
    for node in cluster.live() {
        let there = rest.at(cluster.member(node).rest);
        wait_for("the rule", ANSWER, async || {
            let status = there.call("GET", &format!("{path}/status"), None).await.ok()?;
            status["matched"].is_number().then_some(())
        })
        .await?;
    }
    Ok(())
}

/// Reports with QoS 1, so many of them unacknowledged at a time.
async fn report(client: &mut RawClient<TcpStream>, device: &Device, reports: u32, window: u16) -> Result<()> {
    let topic = format!("$oc/devices/{}/sys/properties/report", device.id());
    let (mut open, mut packet_id) = (0, 0_u16);
    for _ in 0..reports {
        if open == window {
            client.expect("PUBACK", ANSWER, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await?;
            open -= 1;
        }
        packet_id = packet_id % u16::MAX + 1;
        let properties = json!({ "temperature": 39.5, "humidity": 40, "battery": 87, "state": "on", "at": now_ns() });
        let services = json!({ "services": [{ "service_id": "Climate", "properties": properties }] });
        let publish = raw::publish(packet_id, &topic, QoS::AtLeastOnce, services.to_string());
        client.send(&Packet::Publish(publish)).await?;
        open += 1;
    }
    for _ in 0..open {
        client.expect("PUBACK", ANSWER, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await?;
    }
    Ok(())
}
