//! `bench push`: devices at one of three nodes report properties, a rule pushes them to an application at another: from the
//! report's write to the push's arrival.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::applications::Code;
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::histogram::Histogram;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use cluster_tests::sys::monotonic_ns;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use crate::options::PushOptions;
use crate::report::{Latency, round};

const ANSWER: Duration = Duration::from_secs(20);

/// For so long nothing comes when everything has come.
const QUIET: Duration = Duration::from_secs(3);

const TOPIC: &str = "bench/push";

pub(crate) async fn run(options: &PushOptions) -> Result<()> {
    let config = ClusterOptions {
        rest: true,
        binary: options.node.fulmar_bin.clone(),
        data_dir: options.node.data_dir.clone(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(3, config).await?;
    let rest = Rest::sign_in(cluster.member(2).rest).await?;
    rest.add_products().await?;
    let devices: Vec<_> =
        (0..options.devices).map(|number| Device::new(Vendor::Huawei, format!("d{number}"))).collect();
    rest.add(&devices).await?;
    make_rule(&rest, &options.filter).await?;
    let mut application = open(&cluster, 1, Code::make(&rest, false).await?.connect("bench")).await?;
    application.send(&raw::subscribe(1, TOPIC, QoS::AtMostOnce)).await?;
    let subscribed = |packet: &Packet| matches!(packet, Packet::SubAck(suback) if !suback.reasons[0].is_error());
    application.expect("SUBACK", ANSWER, |packet| subscribed(packet).then_some(())).await?;
    let mut links = Vec::new();
    for device in &devices {
        links.push((open(&cluster, 0, device.connect()).await?, device.id()));
    }
    let pids = cluster.pids();
    let cpu = || pids.iter().map(|pid| cluster_tests::proc::cpu(*pid)).sum::<std::io::Result<Duration>>();
    let (before, begun) = (cpu()?, Instant::now());
    let mut senders = JoinSet::new();
    let pause = Duration::from_secs_f64(f64::from(options.devices) / f64::from(options.rate));
    for (number, (link, id)) in links.into_iter().enumerate() {
        // Spread, so that they do not all report at the same moment.
        let first = begun + pause.mul_f64(number as f64 / f64::from(options.devices));
        senders.spawn_local(report(link, id, first, pause, begun + Duration::from_secs(options.seconds)));
    }
    let (mut latency, mut received, mut last) = (Histogram::default(), 0_u64, begun);
    loop {
        match application.next(QUIET).await {
            Ok(Packet::Publish(publish)) => {
                let event: Value = serde_json::from_slice(&publish.payload)?;
                let at = event["notify_data"]["body"]["services"][0]["properties"]["at"].as_u64();
                latency.record(monotonic_ns().saturating_sub(at.context("an event without its time")?));
                received += 1;
                last = Instant::now();
            }
            Ok(other) => anyhow::bail!("the application got {other:?}"),
            Err(error) if raw::is_late(&error) => break,
            Err(error) => return Err(error),
        }
    }
    let mut sent = 0_u64;
    while let Some(count) = senders.join_next().await {
        sent += count??;
    }
    let measured_s = last.duration_since(begun).as_secs_f64();
    let cpu_us = (cpu()? - before).as_secs_f64() * 1e6;
    let line = json!({
        "scenario": "push",
        "broker": "fulmar x 3",
        "parameters": {
            "devices": options.devices, "rate": options.rate, "seconds": options.seconds, "where": options.filter,
        },
        "sent": sent,
        "received": received,
        "msgs_per_s": round(received as f64 / measured_s),
        "latency_us": Latency::of(&latency),
        "broker_cpu_us_per_delivered": round(cpu_us / received.max(1) as f64),
        "measured_s": round(measured_s),
    });
    println!("{line}");
    Ok(())
}

async fn open(cluster: &Cluster, node: usize, connect: fulmar_mqtt::packet::Connect) -> Result<RawClient<TcpStream>> {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await?;
    let reason = client.handshake(connect, ANSWER).await?.reason;
    ensure!(reason == ReasonCode::Success, "node {node} refuses: {reason}");
    Ok(client)
}

/// A rule of property reports that pushes to the topic, active.
async fn make_rule(rest: &Rest, filter: &str) -> Result<()> {
    let subject = json!({ "resource": "device.property", "event": "report" });
    let mut rule = json!({ "rule_name": "bench", "app_type": "GLOBAL", "subject": subject });
    if !filter.is_empty() {
        rule["where"] = filter.into();
    }
    let made = rest.call("POST", "/routing-rule/rules", Some(&rule)).await?;
    let id = made["rule_id"].as_str().context("a rule without an id")?;
    let detail = json!({ "mqtt_forwarding": { "topic": TOPIC } });
    let action = json!({ "rule_id": id, "channel": "MQTT_FORWARDING", "channel_detail": detail });
    rest.call("POST", "/routing-rule/actions", Some(&action)).await?;
    rest.call("PUT", &format!("/routing-rule/rules/{id}"), Some(&json!({ "active": true }))).await.map(drop)
}

/// Reports with QoS 0 at a steady pace; gives how often.
async fn report(
    mut link: RawClient<TcpStream>,
    id: String,
    first: Instant,
    pause: Duration,
    end: Instant,
) -> Result<u64> {
    let topic = format!("$oc/devices/{id}/sys/properties/report");
    let (mut ticks, mut sent) = (interval_at(first, pause), 0);
    loop {
        let due = ticks.tick().await;
        if due >= end {
            // Closed only once all of it was read.
            tokio::time::sleep(QUIET).await;
            return Ok(sent);
        }
        let properties = json!({ "at": monotonic_ns(), "value": sent % 100 });
        let body = json!({ "services": [{ "service_id": "Meter", "properties": properties }] });
        link.send(&Packet::Publish(raw::publish(0, &topic, QoS::AtMostOnce, body.to_string()))).await?;
        sent += 1;
    }
}
