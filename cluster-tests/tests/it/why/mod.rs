//! Why a message does not arrive: each cause is really caused on one node, and asked for at another one; and the path of a
//! traced message over two nodes.

mod causes;
mod traces;

use cluster_tests::admin::Admin;
use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::rest::Rest;
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};

use crate::support::SOON;

/// Small queues, so that they can be filled, and topics that nobody may use.
const CONFIG: &str =
    "[session]\nqueue_entries_max = 5\n[[auth.acl]]\nfilters = [\"secret/#\"]\npermission = \"deny\"\n";

async fn cluster() -> Cluster {
    let options = ClusterOptions { rest: true, config: CONFIG.to_owned(), ..ClusterOptions::default() };
    Cluster::start(3, options).await.unwrap()
}

fn admin(cluster: &Cluster, node: usize) -> Admin {
    Admin::at(cluster.member(node).admin).unwrap()
}

async fn connect(cluster: &Cluster, node: usize, options: Options) -> Client {
    Client::connect(cluster.mqtt(node), options).await.unwrap()
}

fn v5(client_id: &str) -> Options {
    Options::new(Protocol::V5, client_id)
}
