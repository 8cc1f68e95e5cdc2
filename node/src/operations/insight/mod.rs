//! Questions to all nodes about what they remember: traces, why a client does not get a message, the most used topics and
//! the slowest receivers. Each node is asked by one bounded call; who does not answer in time is named.

mod answer;
mod facts;
mod traces;

use std::time::Duration;

use fulmar_broker::NodeId;
use fulmar_broker::insight::top;
use fulmar_proto::peer::v1 as peer;
use tokio::runtime::Handle;

use super::Operations;
use crate::cluster::clock::wall_us;
pub use facts::{Findings, Question};
pub use traces::{NewTrace, TracePage};

/// For another node to answer.
const WITHIN: Duration = Duration::from_secs(2);

/// Topics that one node is asked for, so that what is used most in all is among them.
const TOPICS_ASKED: u32 = 256;

/// What one node has answered.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub node: NodeId,
    /// Microseconds by which its wall clock is ahead of this node's, about.
    pub clock_offset_us: i64,
    pub answer: peer::ExamineResponse,
}

/// What all nodes have answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Gathered {
    pub answers: Vec<Answered>,
    /// Members that did not answer.
    pub silent: Vec<NodeId>,
}

/// A receiver that was slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowReceiver {
    pub node: NodeId,
    pub client: String,
    /// Deliveries that took too long, and how long the slowest of them took.
    pub count: u64,
    pub longest_ms: u64,
    pub ago_ms: u64,
}

impl Operations {
    /// Asks every member, this node among them.
    async fn examine_all(&self, asked: &peer::ExamineRequest) -> Gathered {
        let replica = self.replica();
        let runtime = Handle::current();
        let ask = |node: NodeId| {
            let (asked, runtime) = (asked.clone(), runtime.clone());
            async move {
                let sent_us = wall_us();
                let answer = tokio::time::timeout(WITHIN, replica.examine(node, asked, &runtime)).await;
                let here_us = sent_us.midpoint(wall_us());
                match answer {
                    Ok(Ok(answer)) => Ok(Answered { node, clock_offset_us: ahead(answer.now_us, here_us), answer }),
                    Ok(Err(error)) => {
                        tracing::debug!(
                            node = format!("{:016x}", node.0),
                            error,
                            "a node does not say what it remembers"
                        );
                        Err(node)
                    }
                    Err(_) => Err(node),
                }
            }
        };
        let others = futures_util::future::join_all(replica.others().into_iter().map(ask)).await;
        let own = Answered { node: replica.run().0, clock_offset_us: 0, answer: self.remembers(asked.clone()) };
        let mut gathered = Gathered { answers: vec![own], silent: Vec::new() };
        for answered in others {
            match answered {
                Ok(answered) => gathered.answers.push(answered),
                Err(node) => gathered.silent.push(node),
            }
        }
        gathered.answers.sort_by_key(|answered| answered.node);
        gathered
    }

    /// The most used topics of the last minute, the most used first, and who did not answer.
    pub async fn top_topics(&self, most: usize) -> (Vec<top::Usage>, Vec<NodeId>) {
        let asked = peer::ExamineRequest { top: TOPICS_ASKED, ..peer::ExamineRequest::default() };
        let gathered = self.examine_all(&asked).await;
        let used = gathered.answers.into_iter().flat_map(|answered| answered.answer.top);
        let used = used.map(|usage| {
            let peer::TopicUsage { topic, messages, bytes, over } = usage;
            top::Usage { topic, messages, bytes, over }
        });
        (top::merged(used.collect(), most), gathered.silent)
    }

    /// The slowest receivers of the last five minutes, the slowest first, and who did not answer.
    pub async fn slow_receivers(&self, threshold_ms: u64, most: usize) -> (Vec<SlowReceiver>, Vec<NodeId>) {
        let asked = peer::ExamineRequest { slow: u32::MAX, ..peer::ExamineRequest::default() };
        let gathered = self.examine_all(&asked).await;
        let mut slow: Vec<SlowReceiver> = Vec::new();
        for Answered { node, answer, .. } in gathered.answers {
            let of_node = answer.slow.into_iter().filter(|slow| slow.longest_ms >= threshold_ms);
            slow.extend(of_node.map(|slow| {
                let peer::SlowClient { client, count, longest_ms, ago_ms } = slow;
                SlowReceiver { node, client, count, longest_ms, ago_ms }
            }));
        }
        slow.sort_by_key(|slow| std::cmp::Reverse(slow.longest_ms));
        slow.truncate(most);
        (slow, gathered.silent)
    }
}

fn ahead(there_us: u64, here_us: u64) -> i64 {
    i64::try_from(i128::from(there_us) - i128::from(here_us)).unwrap_or(0)
}
