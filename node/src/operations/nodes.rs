//! The nodes of the cluster as people see them: each is asked for a report of itself, and one that does not answer is
//! shown so. Leaving, with its progress. And what this node answers where it is asked by way of another.

use std::time::Duration;

use fulmar_broker::outbound::DROP_REASONS;
use fulmar_broker::{Epoch, NodeId};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::sessions::key_of;
use super::{Error, Operations};
use crate::cluster::ClusterView;
use crate::dispatch::Stage;
use crate::dispatch::consult::{Consultant, Consulted};
use crate::dispatch::hearing::HEAR_OUT;

/// Between two looks at a node that leaves.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Parts of an answer that wait for whoever reads them.
const PARTS_MAX: usize = 16;

/// How nodes are called: 16 hexadecimal digits.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("{:016x}", node.0)
}

/// The node of a name.
#[must_use]
pub fn node_of(name: &str) -> Option<NodeId> {
    let well = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(name, 16).ok().filter(|node| well && *node != 0).map(NodeId)
}

/// What a node says of itself, or why it says nothing.
pub type Report = (NodeId, Result<Value, String>);

/// How far a node is in leaving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    pub node: NodeId,
    /// A [`Stage`] by its name, or `ended`: it is not there any more.
    pub stage: String,
    /// Connections that it still has.
    pub connections: u64,
}

impl Operations {
    /// The cluster, and what each member says of itself; all are asked at once.
    pub async fn members(&self) -> (ClusterView, Vec<Report>) {
        let view = self.dispatch.replica().view();
        let nodes = view.members.iter().map(|member| member.node).collect();
        (view, self.ask_all(nodes, "report", &json!({})).await)
    }

    /// Has nodes answer a question, each within its time.
    pub(super) async fn ask_all(&self, nodes: Vec<NodeId>, question: &'static str, document: &Value) -> Vec<Report> {
        let mut asked = JoinSet::new();
        for node in nodes {
            let (dispatch, document) = (self.dispatch.clone(), document.clone());
            asked.spawn(async move { (node, dispatch.consult(node, question, document).await) });
        }
        let mut reports = asked.join_all().await;
        reports.sort_unstable_by_key(|(node, _)| *node);
        reports
    }

    /// The nodes that are alive by the log.
    pub(super) fn live_nodes(&self) -> Vec<NodeId> {
        let state = self.dispatch.replica().read();
        state.runs().filter(|run| run.alive).map(|run| run.node).collect()
    }

    /// What this node says of itself.
    fn report(&self) -> Value {
        let (replica, metrics) = (self.dispatch.replica(), self.dispatch.metrics());
        self.dispatch.collect_tallies();
        let (figures, counts) = (replica.figures(), metrics.counts());
        let dropped = DROP_REASONS.iter().zip(counts.dropped).map(|((_, reason), count)| ((*reason).to_owned(), count));
        let dropped: serde_json::Map<String, Value> = dropped.map(|(reason, count)| (reason, count.into())).collect();
        json!({
            "node": node_name(replica.run().0),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": self.dispatch.uptime_ms(),
            "stage": self.dispatch.stage().borrow().name(),
            "acts": replica.acts(),
            "reaches": replica.reached().into_iter().map(node_name).collect::<Vec<_>>(),
            "connections": metrics.connections.get(),
            "metrics": {
                "time_ms": self.now_ms(),
                "messages_in": counts.received,
                "bytes_in": counts.received_bytes,
                "messages_out": counts.delivered,
                "expired": counts.expired,
                "dropped": dropped,
                "connects": counts.connects,
                "connections": metrics.connections.get(),
                "sessions_connected": metrics.sessions_connected.get(),
                "subscriptions": self.dispatch.subscription_count(),
                "live_open": metrics.live_open(),
                "calls_waiting": self.dispatch.calls_waiting(),
                "log_syncs": figures.syncs,
                "log_sync_us": figures.sync_us,
                "log_sync_us_max": figures.sync_us_max,
                "log_backlog_bytes": figures.backlog_bytes,
                "log_applied_index": figures.applied_index,
            },
        })
    }

    /// Has a node leave, as SIGTERM does; `None`: this one. What follows is how far it is, until it is gone, or, of this
    /// node, about to end.
    ///
    /// # Errors
    /// It is no member, or is not reached.
    pub async fn drain(&self, node: Option<NodeId>) -> Result<mpsc::Receiver<Leaving>, Error> {
        let own = self.dispatch.replica().run().0;
        let node = node.unwrap_or(own);
        if !self.dispatch.replica().view().members.iter().any(|member| member.node == node) {
            return Err(Error::invalid("node", "is no member of the cluster"));
        }
        let unreached = |problem| Error::NodeUnreached { node: node_name(node), problem };
        self.dispatch.consult(node, "drain", json!({})).await.map_err(unreached)?;
        let (parts, leaving) = mpsc::channel(PARTS_MAX);
        let operations = self.clone();
        tokio::spawn(async move {
            // Whoever listens may go: the node leaves all the same.
            let _ =
                if node == own { operations.own_leaving(&parts).await } else { operations.leaving(node, &parts).await };
        });
        Ok(leaving)
    }

    async fn own_leaving(&self, parts: &mpsc::Sender<Leaving>) -> Result<(), mpsc::error::SendError<Leaving>> {
        let (mut stage, node) = (self.dispatch.stage(), self.dispatch.replica().run().0);
        let mut last = None;
        loop {
            let now = *stage.borrow_and_update();
            let connections = u64::try_from(self.dispatch.metrics().connections.get()).unwrap_or_default();
            let leaving = Leaving { node, stage: now.name().to_owned(), connections };
            if last.as_ref() != Some(&leaving) {
                parts.send(leaving.clone()).await?;
                last = Some(leaving);
            }
            if now == Stage::Ending {
                return Ok(());
            }
            // The sender goes with the node.
            let _ = tokio::time::timeout(LOOK_EVERY, stage.changed()).await;
        }
    }

    async fn leaving(
        &self,
        node: NodeId,
        parts: &mpsc::Sender<Leaving>,
    ) -> Result<(), mpsc::error::SendError<Leaving>> {
        let mut last: Option<Leaving> = None;
        loop {
            let leaving = match self.dispatch.consult(node, "report", json!({})).await {
                Ok(report) => Leaving {
                    node,
                    stage: report["stage"].as_str().unwrap_or_default().to_owned(),
                    connections: report["connections"].as_u64().unwrap_or_default(),
                },
                // It was told to leave, and nobody answers there any more.
                Err(_) => Leaving { node, stage: "ended".to_owned(), connections: 0 },
            };
            let ended = leaving.stage == "ended";
            if last.as_ref() != Some(&leaving) {
                parts.send(leaving.clone()).await?;
                last = Some(leaving);
            }
            if ended {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn answer(&self, question: &str, document: &Value) -> Result<Value, String> {
        let session = || document["session"].as_str().and_then(key_of).ok_or("session is none".to_owned());
        match question {
            "report" => Ok(self.report()),
            "drain" => {
                self.dispatch.leave();
                Ok(json!({}))
            }
            "shed" => Ok(self.shed(document)),
            HEAR_OUT => {
                let epoch = Epoch(document["epoch"].as_u64().unwrap_or_default());
                self.dispatch.heard_out(&session()?, epoch).await;
                Ok(json!({}))
            }
            "guests" => Ok(self.own_guests(document)),
            "subscribers" => self.own_subscribers(document).await,
            "disconnect" => {
                let epoch = Epoch(document["epoch"].as_u64().unwrap_or_default());
                Ok(json!({ "found": self.close_here(&session()?, epoch) }))
            }
            _ => Err(format!("this node knows no question {question:?}")),
        }
    }
}

impl Consultant for Operations {
    fn consult(&self, question: &str, document: Value) -> Consulted {
        let (operations, question) = (self.clone(), question.to_owned());
        Box::pin(async move { operations.answer(&question, &document).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_called_by_sixteen_digits() {
        assert_eq!(node_of(&node_name(NodeId(0xab))), Some(NodeId(0xab)));
        for wrong in ["", "ab", "0000000000000000", "00000000000000ag", "+0000000000000ab", "00000000000000abc"] {
            assert_eq!(node_of(wrong), None, "{wrong}");
        }
    }
}
