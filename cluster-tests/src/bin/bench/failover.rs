//! `bench failover`: the leader of three nodes is killed under a small durable load; how long publishers of the nodes that
//! are left wait for the next PUBACK, and how long its own clients until another node serves them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cluster_tests::harness::{Cluster, RECOVERY};
use cluster_tests::histogram::Histogram;
use cluster_tests::sys::monotonic_ns;
use cluster_tests::wait_for;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, Version};
use serde_json::json;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use crate::link::{Link, Outgoing};
use crate::measure::failures;
use crate::options::FailoverOptions;
use crate::own::OwnCluster;
use crate::report::Latency;

const NODES: usize = 3;

/// Between two tries of a client to connect, as a device would, but in a hurry.
const RETRY: Duration = Duration::from_millis(20);

/// Messages that must be acknowledged to each publisher before the next leader is killed.
const WARM: u64 = 50;

/// A publisher with one message under way.
#[derive(Default)]
struct Publisher {
    acknowledged: Cell<u64>,
    /// When the last message was sent that is acknowledged, and when that was.
    last: Cell<(u64, u64)>,
    stop: Cell<bool>,
}

pub(crate) async fn run(options: &FailoverOptions) -> Result<()> {
    let mut own = OwnCluster::start(&options.node, NODES).await?;
    let version = own.version;
    let (mut gap, mut served, mut elected) = (Histogram::default(), Histogram::default(), Histogram::default());
    let mut subscriber = Link::open_persistent(own.cluster.mqtt(0), version, 0, "keeps").await?.0;
    subscriber.subscribe("f/#", QoS::AtLeastOnce).await?;
    drop(subscriber); // What is published is queued: each PUBACK waits for a commit.

    for round in 0..options.count {
        let leader = own.cluster.all_ready(RECOVERY).await?;
        let survivors: Vec<usize> = (0..NODES).filter(|node| *node != leader).collect();
        let publishers: Vec<(Rc<Publisher>, JoinHandle<Result<()>>)> = survivors
            .iter()
            .map(|node| {
                let publisher = Rc::new(Publisher::default());
                let task = publish(publisher.clone(), own.cluster.mqtt(*node), version, *node);
                (publisher, spawn_local(task))
            })
            .collect();
        let warm = async || publishers.iter().all(|(publisher, _)| publisher.acknowledged.get() >= WARM).then_some(());
        wait_for("acknowledgements before the kill", RECOVERY, warm).await?;
        let killed_ns = Rc::new(Cell::new(0));
        let clients = clients(&own.cluster, options, leader, &survivors, version, &killed_ns).await?;

        killed_ns.set(monotonic_ns());
        own.cluster.kill(leader).await?;
        own.cluster.wait_for_leader(RECOVERY).await?;
        elected.record(monotonic_ns() - killed_ns.get());
        for (publisher, _) in &publishers {
            // Of a message that was sent after the kill: nothing that was under way counts.
            let next = async || Some(publisher.last.get()).filter(|(sent, _)| *sent > killed_ns.get());
            let (_, acknowledged) = wait_for("a PUBACK after the kill", RECOVERY, next).await?;
            gap.record(acknowledged - killed_ns.get());
        }
        for client in clients {
            served.record(client.await??);
        }
        publishers.iter().for_each(|(publisher, _)| publisher.stop.set(true));
        let failed = failures(publishers.into_iter().map(|(_, task)| task).collect()).await;
        if !failed.is_empty() {
            bail!("round {round}: {failed:?}");
        }
        own.cluster.start_again(leader)?;
    }
    let line = json!({
        "scenario": "failover",
        "broker": format!("fulmar x {NODES}"),
        "parameters": { "count": options.count, "clients": options.clients },
        "next_puback_us": Latency::of(&gap),
        "clients_served_elsewhere_us": Latency::of(&served),
        "next_leader_seen_us": Latency::of(&elected),
    });
    println!("{line}");
    Ok(())
}

/// Publishes one durable message after the other until it is to stop.
async fn publish(publisher: Rc<Publisher>, address: SocketAddr, version: Version, node: usize) -> Result<()> {
    let (mut link, _) = Link::open(address, version, node as u32, &format!("f{node}")).await?;
    let (topic, payload) = (format!("f/{node}"), Bytes::from_static(&[7; 256]));
    let mut packet_id = 0_u16;
    while !publisher.stop.get() {
        packet_id = packet_id % u16::MAX + 1;
        let sent = monotonic_ns();
        link.publish(Outgoing { topic: &topic, qos: QoS::AtLeastOnce, retain: false, packet_id, payload: &payload })?;
        link.flush()?;
        loop {
            match link.next()? {
                Some(Packet::PubAck(Ack { packet_id: of, reason, .. })) if of == packet_id && !reason.is_error() => {
                    break;
                }
                Some(other) => bail!("a publisher got {other:?}"),
                None => link.turn().await?,
            }
        }
        publisher.last.set((sent, monotonic_ns()));
        publisher.acknowledged.set(publisher.acknowledged.get() + 1);
    }
    Ok(())
}

/// Clients of the leader: each says how long after the kill it was welcomed elsewhere.
async fn clients(
    cluster: &Cluster,
    options: &FailoverOptions,
    leader: usize,
    survivors: &[usize],
    version: Version,
    killed_ns: &Rc<Cell<u64>>,
) -> Result<Vec<JoinHandle<Result<u64>>>> {
    let mut clients = Vec::new();
    for client in 0..options.clients {
        let id = format!("moves-{client}");
        let (mut link, _) = Link::open_persistent(cluster.mqtt(leader), version, client, &id).await?;
        let elsewhere = cluster.mqtt(survivors[client as usize % survivors.len()]);
        let killed_ns = killed_ns.clone();
        clients.push(spawn_local(async move {
            let _ = link.closed().await; // ended with its node, or by it
            let end = monotonic_ns() + RECOVERY.as_nanos() as u64;
            loop {
                match Link::open_persistent(elsewhere, version, client, &id).await {
                    Ok(_) => return Ok(monotonic_ns() - killed_ns.get()),
                    Err(error) if monotonic_ns() > end => return Err(error).context("no node serves it"),
                    Err(_) => sleep(RETRY).await,
                }
            }
        }));
    }
    Ok(clients)
}
