//! `bench messages`: messages to devices that are away, on three nodes. What each weighs in the memory of a node, and how
//! long it takes until all have come once their devices connect.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::proc;
use cluster_tests::raw::RawClient;
use cluster_tests::rest::Rest;
use fulmar_mqtt::{Packet, ReasonCode};
use serde_json::json;
use tokio::task::{JoinHandle, spawn_local};

use crate::options::MessagesOptions;
use crate::own::OwnCluster;
use crate::report::round;

const NODES: usize = 3;

/// Messages that are kept for a device.
const EACH: u32 = 20;

/// How long something may take that must come.
const SOON: Duration = Duration::from_secs(120);

pub(crate) async fn run(options: &MessagesOptions) -> Result<()> {
    let own = OwnCluster::start(&options.node, NODES).await?;
    let devices: Vec<Device> =
        (0..options.count / EACH).map(|number| Device::new(Vendor::Huawei, format!("d{number}"))).collect();
    let rest = Rest::sign_in(own.cluster.member(0).rest).await?;
    rest.add_products().await?;
    rest.add(&devices).await?;
    let at: Vec<Rest> = (0..NODES).map(|node| rest.at(own.cluster.member(node).rest)).collect();
    let (before, begun) = (rss(&own)?, Instant::now());
    let mut calls = Window::new(options.window);
    for (number, device) in devices.iter().enumerate() {
        for _ in 0..EACH {
            let (rest, path) = (at[number % NODES].clone(), format!("/devices/{}/messages", device.id()));
            let body = json!({ "message": "x".repeat(options.payload as usize) });
            calls.push(spawn_local(async move { rest.call("POST", &path, Some(&body)).await.map(drop) })).await?;
        }
    }
    calls.settle().await?;
    let (created_s, messages) = (begun.elapsed().as_secs_f64(), devices.len() as u64 * u64::from(EACH));
    let kept = own.cluster.metrics(0).await?.get("fulmar_messages_waiting");
    ensure!(kept == messages, "{kept} of {messages} messages wait");
    let counted = own.cluster.metrics(0).await?.get("fulmar_messages_bytes");
    let grown: Vec<f64> = rss(&own)?
        .iter()
        .zip(&before)
        .map(|(now, then)| round((*now as f64 - *then as f64) / messages as f64))
        .collect();

    let begun = Instant::now();
    let mut clients = Window::new(options.window);
    for (number, device) in devices.iter().enumerate() {
        let (address, device) = (own.cluster.mqtt(number % NODES), device.clone());
        clients.push(spawn_local(async move { flush(address, &device).await })).await?;
    }
    clients.settle().await?;
    let flushed_s = begun.elapsed().as_secs_f64();
    let line = json!({
        "scenario": "messages",
        "broker": format!("fulmar x {NODES}"),
        "parameters": {
            "count": messages, "devices": devices.len(), "payload": options.payload, "window": options.window,
        },
        "created_per_s": round(messages as f64 / created_s),
        "rss_bytes_per_message_by_node": grown,
        "counted_bytes_per_message": round(counted as f64 / messages as f64),
        "flushed_s": round(flushed_s),
        "flushed_per_s": round(messages as f64 / flushed_s),
    });
    println!("{line}");
    Ok(())
}

/// Connects a device, and leaves once all of its messages have come.
async fn flush(address: std::net::SocketAddr, device: &Device) -> Result<()> {
    let connect = device.connect();
    let mut client = RawClient::tcp(address, connect.version).await?;
    let connack = client.handshake(connect, SOON).await?;
    ensure!(connack.reason == ReasonCode::Success, "{} was refused: {:?}", device.id(), connack.reason);
    for number in 0..EACH {
        let came = client.next(SOON).await.with_context(|| format!("message {number} of {}", device.id()))?;
        ensure!(matches!(came, Packet::Publish(_)), "{came:?} instead of a message");
    }
    Ok(())
}

fn rss(own: &OwnCluster) -> Result<Vec<u64>> {
    own.cluster.pids().into_iter().map(|pid| proc::rss_bytes(pid).context("memory of a node")).collect()
}

/// Tasks of which so many run at a time.
struct Window {
    tasks: VecDeque<JoinHandle<Result<()>>>,
    most: usize,
}

impl Window {
    fn new(most: u32) -> Window {
        Window { tasks: VecDeque::new(), most: most as usize }
    }

    async fn push(&mut self, task: JoinHandle<Result<()>>) -> Result<()> {
        if self.tasks.len() >= self.most
            && let Some(first) = self.tasks.pop_front()
        {
            first.await??;
        }
        self.tasks.push_back(task);
        Ok(())
    }

    async fn settle(mut self) -> Result<()> {
        while let Some(task) = self.tasks.pop_front() {
            task.await??;
        }
        Ok(())
    }
}
