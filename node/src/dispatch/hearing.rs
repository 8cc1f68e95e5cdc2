//! What a client has said on its older connection counts before its newer one takes the session over, on whatever nodes
//! they are: a DISCONNECT that nobody has read yet, or that is not in the log yet, discards the will
//! [v5 MQTT-3.14.4-3].

use std::time::Duration;

use fulmar_broker::state::command::{Command, Owner};
use fulmar_broker::{Epoch, SessionKey};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Dispatch, Receiver};

/// For how long a client's older connection is read before its newer one takes the session over: one that never stops
/// talking is taken over then. Another node's answer is waited for as long as that to any question between nodes.
const HEAR_OUT_MAX: Duration = Duration::from_millis(500);

/// The question of one node to another, with `session` and `epoch`.
pub const HEAR_OUT: &str = "hear_out";

impl Dispatch {
    /// Waits until what a client said on the connection that has its session is dealt with: proposed by this node, or
    /// committed, where it is another's.
    pub async fn hear_out(&self, key: &SessionKey) {
        fail::fail_point!("claim::no_wait", |_| ());
        if let Some(receiver) = self.receiver(key) {
            return dealt_with(receiver).await;
        }
        let owned = self.replica.read().session(key).and_then(|view| view.owner.zip(Some(view.epoch)));
        if let Some((owner, epoch)) = owned.filter(|(owner, _)| owner.node != self.replica.run().0) {
            let document = json!({ "session": key.to_string(), "epoch": epoch.0 });
            if let Err(error) = self.consult(owner.node, HEAR_OUT, document).await {
                tracing::debug!(client = %key, error, "what it said elsewhere is not known");
            }
        }
    }

    /// Has the connection of one epoch of a session read to its end, for another node; returns once what that came to is
    /// committed.
    pub async fn heard_out(&self, key: &SessionKey, epoch: Epoch) {
        let here = || self.receiver(key).filter(|receiver| receiver.epoch() == epoch);
        if let Some(receiver) = here() {
            dealt_with(receiver).await;
        }
        let (node, generation) = self.replica.run();
        let owned =
            |owner: Option<Owner>| owner.is_some_and(|owner| (owner.node, owner.generation) == (node, generation));
        let unreleased = |dispatch: &Dispatch| {
            let view = dispatch.replica.read().session(key);
            view.is_some_and(|view| view.epoch == epoch && owned(view.owner))
        };
        if here().is_none() && unreleased(self) {
            // Its release is on its way: what is proposed now, and changes nothing, is committed behind it.
            let behind = Command::Unsubscribe { key: key.clone(), epoch, filters: Vec::new() };
            let _ = self.replica.commit(vec![behind]).await;
        }
    }
}

/// Until all that has come on a connection has had its proposals made; not longer than [`HEAR_OUT_MAX`].
async fn dealt_with(receiver: std::sync::Arc<Receiver>) {
    let (guard, dropped) = oneshot::channel();
    receiver.tell(|port| port.hear_out(guard));
    drop(receiver); // it may be the last to hold it
    // The guard is never sent through, only dropped.
    let _ = tokio::time::timeout(HEAR_OUT_MAX, dropped).await;
}
