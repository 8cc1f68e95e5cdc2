//! `bench commands`: callers with an HTTP connection each command a device each, one command after the other, on a cluster
//! of three. How long that takes from the request to the answer: with the devices on another node than the callers, and
//! on the same one. What a device takes for itself is measured apart.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::histogram::Histogram;
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::{Kept, Rest};
use cluster_tests::sys::monotonic_ns;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::options::CommandsOptions;
use crate::report::{Latency, round};

/// Where the devices are.
const DEVICES_AT: usize = 1;

/// Where the callers are, in turn; and what that is called.
const CALLERS_AT: [(usize, &str); 2] = [(0, "across_nodes"), (DEVICES_AT, "same_node")];

/// How long anything may take.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(60);

type Shared = Rc<RefCell<Histogram>>;

pub(crate) async fn run(options: &CommandsOptions) -> Result<()> {
    let cluster = ClusterOptions {
        rest: true,
        binary: options.node.fulmar_bin.clone(),
        data_dir: options.node.data_dir.clone(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(3, cluster).await?;
    let rest = Rest::sign_in(cluster.member(0).rest).await?;
    rest.add_products().await?;
    let devices: Vec<Device> =
        (0..options.callers).map(|number| Device::new(Vendor::Huawei, format!("c{number}"))).collect();
    rest.add(&devices).await?;
    let own = Shared::default();
    let mut answering: Vec<JoinHandle<Result<()>>> = Vec::new();
    for device in &devices {
        let mut client = RawClient::tcp(cluster.mqtt(DEVICES_AT), Version::V311).await?;
        let connack = client.handshake(device.connect(), ANSWER).await?;
        ensure!(connack.reason == ReasonCode::Success, "{} is not let in: {}", device.id(), connack.reason);
        answering.push(tokio::task::spawn_local(answer(client, device.id(), own.clone())));
    }
    let mut sections = serde_json::Map::new();
    for (node, name) in CALLERS_AT {
        let there = rest.at(cluster.member(node).rest);
        let mut kept = Vec::new();
        for _ in &devices {
            kept.push(there.open().await?);
        }
        // First without being measured.
        let warm = section(kept, &devices, options.warmup).await?;
        *own.borrow_mut() = Histogram::default();
        let measured = section(warm.kept, &devices, options.seconds).await?;
        let figures = json!({
            "round_trip_us": Latency::of(&measured.took),
            "device_us": Latency::of(&own.borrow()),
            "commands_per_s": round(measured.took.count() as f64 / measured.seconds),
        });
        sections.insert(name.to_owned(), figures);
    }
    for task in &answering {
        ensure!(!task.is_finished(), "a device has lost its connection");
    }
    let line = json!({
        "scenario": "commands",
        "broker": "fulmar x 3",
        "parameters": { "callers": options.callers, "seconds": options.seconds },
        "sections": sections,
    });
    println!("{line}");
    Ok(())
}

struct Section {
    kept: Vec<Kept>,
    took: Histogram,
    seconds: f64,
}

/// All callers at once, for so long.
async fn section(kept: Vec<Kept>, devices: &[Device], seconds: f64) -> Result<Section> {
    let begun = monotonic_ns();
    let end = begun + (seconds * 1e9) as u64;
    let callers: Vec<JoinHandle<Result<(Kept, Histogram)>>> = kept
        .into_iter()
        .zip(devices)
        .map(|(kept, device)| tokio::task::spawn_local(call(kept, format!("/devices/{}/commands", device.id()), end)))
        .collect();
    let (mut kept, mut took) = (Vec::new(), Histogram::default());
    for caller in callers {
        let (connection, of_one) = caller.await??;
        kept.push(connection);
        took.merge(&of_one);
    }
    Ok(Section { kept, took, seconds: (monotonic_ns() - begun) as f64 / 1e9 })
}

/// One command after the other until then.
async fn call(mut kept: Kept, path: String, end: u64) -> Result<(Kept, Histogram)> {
    let body = json!({ "command_name": "bench", "paras": { "value": "ON" } }).to_string();
    let mut took = Histogram::default();
    loop {
        let begun = monotonic_ns();
        if begun >= end {
            return Ok((kept, took));
        }
        let (status, answer) = tokio::time::timeout(ANSWER, kept.ask("POST", &path, &body)).await??;
        ensure!(status == 200 && answer.contains("\"response\""), "{path}: {status} {answer}");
        took.record(monotonic_ns() - begun);
    }
}

/// A device that answers each command at once; how long it takes for itself.
async fn answer(mut client: RawClient<TcpStream>, id: String, own: Shared) -> Result<()> {
    loop {
        let packet = client.next_or_closed(ANSWER).await?.context("the connection was closed")?;
        let Packet::Publish(publish) = packet else { continue };
        let begun = monotonic_ns();
        let topic = publish.topic.context("a command without a topic")?;
        let (_, request) = topic.as_str().split_once("request_id=").context("a command without an id")?;
        let to = format!("$oc/devices/{id}/sys/commands/response/request_id={request}");
        let answer = raw::publish(0, &to, QoS::AtMostOnce, r#"{"result_code":0,"response_name":"bench","paras":{}}"#);
        client.send(&Packet::Publish(answer)).await?;
        own.borrow_mut().record(monotonic_ns() - begun);
    }
}
