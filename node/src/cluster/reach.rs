//! Which live nodes this one reaches, as the leader is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fulmar_proto::peer::v1::IdentifyRequest;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::context::Context;

/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// A node that does not answer within this time is not reached.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_000);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reach(Mutex<BTreeSet<u64>>);

impl Reach {
    pub(super) fn reached(&self) -> Vec<u64> {
        self.0.lock().iter().copied().collect()
    }
}

/// Tries every live node, again and again.
pub(super) async fn run(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(TRY_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let others: Vec<u64> = {
            let state = context.core.state();
            state.runs().filter(|run| run.alive && run.node != context.node).map(|run| run.node.0).collect()
        };
        let mut tries = JoinSet::new();
        for node in others {
            let context = context.clone();
            tries.spawn(async move {
                let mut client = context.peers.data(node)?;
                let answer = tokio::time::timeout(ANSWER_WITHIN, client.identify(IdentifyRequest {})).await;
                let reached = answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.get_ref().node == node));
                reached.then_some(node)
            });
        }
        let reached = tries.join_all().await.into_iter().flatten().collect();
        *context.reach.0.lock() = reached;
    }
}
