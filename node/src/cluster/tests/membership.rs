//! Members that are taken in and let go by a leader.

use fulmar_broker::NodeId;
use fulmar_proto::peer::v1::{JoinRequest, RemoveRequest};

use super::*;
use crate::cluster::context::Context;
use crate::cluster::membership::{join, remove};

const OTHER: u64 = 0x77;

async fn has_joined(context: &Context) {
    let cluster = context.peers.cluster();
    let joining = JoinRequest { node: OTHER, cluster, address: "127.0.0.1:1".into(), forwarded: false };
    join(context, &joining).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_is_in_the_log_is_brought_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    let context = replica.context().clone();
    has_joined(&context).await;
    let term = context.leads().unwrap();
    context.lead(term, vec![Command::RemoveNode { node: NodeId(OTHER) }]).await.unwrap();
    let is_member = || context.membership().get_node(&OTHER).is_some();
    let gone = async {
        while is_member() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it is a member for ever");
    replica.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_nobody_waits_for_any_more_leaves_the_node_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(dir.path(), 1 << 30).await.unwrap();
    let context = replica.context().clone();
    has_joined(&context).await;
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
