//! Open files that run short.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cluster_tests::harness::fulmar_binary;
use cluster_tests::wait_for;
use fulmar_mqtt::Version;
use tokio::net::TcpStream;

use crate::support::{Honest, OPEN, SOON, Server, raw_client};

/// Files that the node may open, and clients that it then takes: the others are its own.
const FILES: usize = 320;
const CLIENTS: u64 = 64;

/// For connections to be closed again, whose other side is gone.
const CLOSED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_node_that_runs_out_of_descriptors_serves_on_and_accepts_again() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("fulmar");
    let script = format!("#!/bin/sh\nulimit -n {FILES}\nexec {} \"$@\"\n", fulmar_binary().unwrap().display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!("[limits]\nconnections_max = 5000\n{OPEN}");
    let mut server = Server::start_as(&config, Some(program)).await;

    // It is said at the start, with both numbers.
    let output = server.node.process().unwrap().stderr();
    let said = format!("limits.connections_max is 5000, but the limit on open files leaves room for {CLIENTS} clients");
    assert!(output.contains(&said), "{output}");
    server.metric("process_max_fds", |max| max == FILES as u64).await;
    let before = server.metric("process_open_fds", |open| open > 0 && open < FILES as u64).await;

    // Connections to the probes are not counted: they take all that is left.
    let mut honest = Honest::connect(server.mqtt(), "descriptors").await;
    let mut crowd = Vec::new();
    for _ in 0..FILES {
        crowd.push(TcpStream::connect(server.probes).await.unwrap());
    }
    let late = TcpStream::connect(server.mqtt()).await.unwrap();
    let refused = |output: String| output.contains("cannot accept").then_some(());
    let told =
        wait_for("a word that it cannot accept", SOON, async || refused(server.node.process().unwrap().stderr()));
    told.await.unwrap();
    for _ in 0..20 {
        honest.round_trip().await;
    }
    assert!(server.node.alive());

    drop((crowd, late));
    let again = wait_for("a client that is let in", CLOSED, async || {
        let attempt = async {
            let mut client = cluster_tests::raw::RawClient::tcp(server.mqtt(), Version::V5).await.ok()?;
            client.handshake(cluster_tests::raw::connect(Version::V5, "again"), SOON).await.ok()
        };
        attempt.await.map(drop)
    });
    again.await.unwrap();
    raw_client(server.mqtt(), Version::V311, "and-again").await;
    honest.is_served().await;
    server.metric("process_open_fds", |open| open < before + 50).await;
}
