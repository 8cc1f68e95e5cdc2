//! Devices of four clouds on three nodes: one connection for each of them, and no topics but their own.

mod permissions;
mod revoked;
mod takeovers;

use cluster_tests::devices::Device;
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::raw::RawClient;
use cluster_tests::rest::Rest;
use fulmar_mqtt::{ReasonCode, Version};
use tokio::net::TcpStream;

use crate::support::SOON;

/// Three nodes that know these devices.
pub(crate) async fn cluster(devices: &[Device]) -> (Cluster, Rest) {
    cluster_with(devices, &[]).await
}

/// With more in the environment of each.
async fn cluster_with(devices: &[Device], env: &[(&str, &str)]) -> (Cluster, Rest) {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    cluster_of(devices, ClusterOptions { env, ..ClusterOptions::default() }).await
}

/// With other options; it has REST.
pub(crate) async fn cluster_of(devices: &[Device], options: ClusterOptions) -> (Cluster, Rest) {
    let cluster = Cluster::start(3, ClusterOptions { rest: true, ..options }).await.unwrap();
    let rest = Rest::sign_in(cluster.member(0).rest).await.unwrap();
    rest.add_products().await.unwrap();
    rest.add(devices).await.unwrap();
    (cluster, rest)
}

/// A device's connection to a node.
pub(crate) async fn connect(cluster: &Cluster, node: usize, device: &Device) -> RawClient<TcpStream> {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V311).await.unwrap();
    let connack = client.handshake(device.connect(), SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success, "{device:?} at node {node}");
    client
}
