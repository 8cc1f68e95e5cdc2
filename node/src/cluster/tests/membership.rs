//! Members that are taken in and let go by a leader.

use fulmar_broker::NodeId;
use fulmar_proto::peer::v1::{JoinRequest, RemoveRequest};

use super::*;
use crate::cluster::membership::{join, remove};

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_nobody_waits_for_any_more_leaves_the_node_as_it_was() {
    const OTHER: u64 = 0x77;
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    let context = replica.context().clone();
    let cluster = context.peers.cluster();
    let joining = JoinRequest { node: OTHER, cluster, address: "127.0.0.1:1".into(), forwarded: false };
    join(&context, &joining).await.unwrap();
    let removing = RemoveRequest { hello: None, node: OTHER, forwarded: true };
    let left = || context.leadership.is_leaving(NodeId(OTHER));
    // As when the connection breaks on which it was asked for.
    tokio::select! {
        biased;
        _ = remove(&context, &removing) => panic!("an entry is committed for it"),
        () = std::future::ready(()) => {}
    }
    assert!(!left(), "it is renewed again");
    replica.close().await;
}
