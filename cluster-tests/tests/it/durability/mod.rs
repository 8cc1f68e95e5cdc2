//! What a node that was killed, stopped, starved of disk or robbed of bytes still knows afterwards.

mod crash;
mod damage;
mod disk;
mod kill_loop;
mod restart;
mod time;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_tests::harness::{Process, free_port, fulmar_binary};
use cluster_tests::load::{Doors, Load, Plan};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::wait_for;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use tokio::net::TcpStream;

pub(crate) use crash::{FAILPOINTS, has_failpoints};

use crate::support::{OPEN, SOON, Server, persistent, raw_ack, raw_client, raw_connect, raw_publish, raw_subscribe};

/// A node whose log is so small that snapshots and purges happen all the time.
const SMALL: &str =
    "[store]\nlog_bytes = \"1MiB\"\n[session]\nqueue_entries_max = 1000000\nqueue_bytes_max = \"1GiB\"\n";

async fn small_log() -> Server {
    Server::start(&format!("{SMALL}{OPEN}")).await
}

/// A load on this one node.
async fn load(server: &Server, seed: u64, plan: &Plan) -> Load {
    Load::start(Arc::new(Doors::of(&[server.mqtt()])), Arc::default(), seed, plan).await.unwrap()
}

fn data_dir(server: &Server) -> PathBuf {
    server.dir.path().join("data")
}

/// A node of this data directory that is started and not waited for, and its probes.
fn serve(dir: &Path, data_dir: &Path, env: &[(&str, &str)]) -> (Process, SocketAddr) {
    let port = || free_port().unwrap();
    let probes = SocketAddr::from(([127, 0, 0, 1], port()));
    let listener = OPEN.replace("PORT0", &port().to_string());
    let data_dir = data_dir.display();
    let text = format!("[node]\ndata_dir = \"{data_dir}\"\n[probes]\naddress = \"{probes}\"\n{listener}");
    let path = dir.join("fulmar.toml");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(fulmar_binary().unwrap());
    command.arg("serve").arg("--config").arg(&path).envs(env.iter().copied());
    (Process::spawn("serve", command, dir).unwrap(), probes)
}

/// Exit code and output of `fulmar verify` with these arguments.
async fn verify(arguments: &[&Path]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(fulmar_binary().unwrap());
    command.arg("verify").args(arguments);
    let mut process = Process::spawn("verify", command, dir.path()).unwrap();
    let status = process.exited(SOON).await.unwrap();
    (status.code(), process.stdout() + &process.stderr())
}

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Kill,
    Terminate,
}

const WAYS: [Way; 2] = [Way::Kill, Way::Terminate];

async fn stop(server: &mut Server, way: Way) {
    match way {
        Way::Kill => server.node.kill().await.unwrap(),
        Way::Terminate => {
            server.node.terminate().await.unwrap();
            let status = server.node.process().unwrap().status().unwrap().unwrap();
            assert!(status.success(), "{status}");
        }
    }
}

/// Ends the node and starts it on the same data.
async fn again(server: &mut Server, way: Way) {
    stop(server, way).await;
    server.node.restart().await.unwrap();
    assert_eq!(server.metrics().await.get("fulmar_obligations_unaccounted"), 0, "{way:?}");
}

/// Waits until so much time has passed: what is asked about is time itself.
async fn elapse(since: Instant, duration: Duration) {
    let passed = async || (since.elapsed() >= duration).then_some(());
    wait_for("time to pass", duration + SOON, passed).await.unwrap();
}

/// The payloads of the next messages, all of QoS 1, acknowledged.
async fn take(client: &mut RawClient<TcpStream>, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        let message = raw_publish(client).await;
        assert_eq!(message.qos, QoS::AtLeastOnce);
        client.send(&Packet::PubAck(Ack::success(message.packet_id))).await.unwrap();
        payloads.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    ping(client).await;
    payloads
}

/// Nothing but PINGRESP comes: the node has dealt with all that was sent, and has nothing to send.
async fn ping(client: &mut RawClient<TcpStream>) {
    client.send(&Packet::PingReq).await.unwrap();
    client.expect("PINGRESP", SOON, |packet| (*packet == Packet::PingResp).then_some(())).await.unwrap();
}

/// DISCONNECT, and waits for the close.
async fn leave(mut client: RawClient<TcpStream>) {
    client.send(&raw::disconnect(ReasonCode::Success)).await.unwrap();
    client.expect_close(SOON).await.unwrap();
}

/// Gives a session that is away so many numbered messages, each acknowledged.
async fn queue(server: &Server, numbers: std::ops::Range<u16>) {
    let (mut keeper, connack) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
    if !connack.session_present {
        raw_subscribe(&mut keeper, "queue/#", QoS::AtLeastOnce).await;
    }
    leave(keeper).await;
    let mut publisher = raw_client(server.mqtt(), Version::V5, "publisher").await;
    for number in numbers {
        let payload = format!("{number} {}", "x".repeat(usize::from(number) % 2000));
        publisher.send(&Packet::Publish(raw::publish(number + 1, "queue/t", QoS::AtLeastOnce, payload))).await.unwrap();
        assert_eq!(raw_ack(&mut publisher).await, ("PUBACK", number + 1, ReasonCode::Success));
    }
}

/// What that session is sent, which must be these numbers in order.
async fn is_queued(server: &Server, numbers: std::ops::Range<u16>) {
    let (mut keeper, connack) = raw_connect(server.mqtt(), persistent(Version::V5, "keeper")).await;
    assert!(connack.session_present);
    for number in numbers {
        let message = raw_publish(&mut keeper).await;
        assert!(message.payload.starts_with(format!("{number} ").as_bytes()), "instead of {number}: {message:?}");
        keeper.send(&Packet::PubAck(Ack::success(message.packet_id))).await.unwrap();
    }
    ping(&mut keeper).await;
}

/// A number of the environment, for longer runs by hand.
fn given(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
