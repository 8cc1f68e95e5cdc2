//! Connections evened out over the nodes after one has joined or come back: nodes that have more than their share tell
//! some clients to go, and balancers spread those anew. The node that is asked for it asks the others, round by round and
//! at a pace, until the shares are even or it does not get better. Nobody is told twice.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::{LogTime, NodeId};
use fulmar_mqtt::ReasonCode;
use fulmar_platform::Dialect;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::{Error, Operations};
use crate::dispatch::{Receiver, Stage};

/// Clients that each node tells to go in a second, unless it is asked otherwise.
pub const RATE: u64 = 100;

/// Part of the mean, in percent, by which nodes may differ from it and are still even; and clients.
const EVEN_PERCENT: u64 = 10;
const EVEN_CLIENTS: u64 = 2;

/// Rounds, and of them those in a row that do not make it more even.
const ROUNDS_MAX: u32 = 20;
const IDLE_ROUNDS_MAX: u32 = 3;

/// Between two steps of a round.
const STEP: Duration = Duration::from_millis(200);

/// For clients that were told to come back, as long as they do.
const RETURN_WITHIN: Duration = Duration::from_secs(15);

/// Parts of an answer that wait for whoever reads them.
const PARTS_MAX: usize = 16;

/// For which a node that was asked to let clients go does so for nobody else: two that even out at once would each take
/// away the whole surplus.
const DRIVEN_FOR: Duration = Duration::from_secs(5);

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turns {
    /// Of those that are seen through here, one at a time.
    own: Arc<Semaphore>,
    /// Who was the last to have clients of this node let go, and when.
    driver: Mutex<Option<(NodeId, Instant)>>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { own: Arc::new(Semaphore::new(1)), driver: Mutex::default() }
    }
}

impl Turns {
    /// Whether a node may have clients of this one let go.
    fn admits(&self, driver: NodeId, now: Instant) -> bool {
        let mut last = self.driver.lock();
        let free = last.is_none_or(|(other, at)| other == driver || now.duration_since(at) >= DRIVEN_FOR);
        if free {
            *last = Some((driver, now));
        }
        free
    }
}

/// What one node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub node: NodeId,
    /// Clients that are connected to it.
    pub clients: u64,
    /// Of these, how many it has above its share.
    pub surplus: u64,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// From 1; 0 before anything was done.
    pub round: u32,
    /// `planned`, `moving`, `even`, or `stopped`: it does not get more even.
    pub state: &'static str,
    /// Clients that were told to go so far.
    pub told: u64,
    pub shares: Vec<Share>,
}

impl Operations {
    /// Evens out the connections of all nodes that serve; `rate`: clients a second that each node tells to go. What
    /// follows is how far it is, until it is even or stops; without anything done if it is `dry`. It stops when nobody
    /// listens.
    ///
    /// # Errors
    /// This node or another does that already, or a node is not reached.
    pub async fn rebalance(&self, rate: u64, dry: bool) -> Result<mpsc::Receiver<Balance>, Error> {
        if !(1..=100_000).contains(&rate) {
            return Err(Error::invalid("rate", "must be 1 to 100000 clients a second"));
        }
        let turn = self.rebalances.own.clone().try_acquire_owned().map_err(|_| Error::Rebalancing)?;
        let first = self.shares().await?;
        if !dry && !is_even(&first) {
            self.claim(&first).await?;
        }
        let (parts, balances) = mpsc::channel(PARTS_MAX);
        let operations = self.clone();
        tokio::spawn(async move {
            // Whoever listens may go: then it stops.
            let _ = operations.even_out(&parts, first, rate, dry).await;
            drop(turn);
        });
        Ok(balances)
    }

    /// Has each node know that it is this one which evens out.
    async fn claim(&self, shares: &[Share]) -> Result<(), Error> {
        let nodes = shares.iter().map(|share| share.node).collect();
        let answers = self.ask_all(nodes, "shed", &self.to_shed(0, LogTime(0))).await;
        let refused = answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(|answer| answer["refused"] == true));
        if refused { Err(Error::Rebalancing) } else { Ok(()) }
    }

    /// What a node is asked that is to let clients go.
    fn to_shed(&self, count: u64, before: LogTime) -> Value {
        json!({ "count": count, "before_ms": before.0, "driver": self.dispatch.replica().run().0.0 })
    }

    async fn even_out(
        &self,
        parts: &mpsc::Sender<Balance>,
        mut shares: Vec<Share>,
        rate: u64,
        dry: bool,
    ) -> Result<(), mpsc::error::SendError<Balance>> {
        // Whoever has connected since then was told already, or came by itself.
        let before = self.dispatch.now().log;
        let balance = |round, state, told, shares: &[Share]| Balance { round, state, told, shares: shares.to_vec() };
        if is_even(&shares) || dry {
            let state = if is_even(&shares) { "even" } else { "planned" };
            return parts.send(balance(0, state, 0, &shares)).await;
        }
        let (mut told, mut idle) = (0, 0);
        for round in 1..=ROUNDS_MAX {
            parts.send(balance(round, "moving", told, &shares)).await?;
            let (was, total) = (spread(&shares), total(&shares));
            let moved = self.tell_surplus(&shares, before, rate, parts).await;
            told += moved;
            shares = self.returned(total, shares).await;
            if is_even(&shares) {
                return parts.send(balance(round, "even", told, &shares)).await;
            }
            idle = if spread(&shares) < was { 0 } else { idle + 1 };
            if moved == 0 || idle == IDLE_ROUNDS_MAX {
                break; // they come back to where they were, or all have been told
            }
        }
        parts.send(balance(ROUNDS_MAX, "stopped", told, &shares)).await
    }

    /// Has each node tell as many as it has too many, at the pace; how many were told.
    async fn tell_surplus(&self, shares: &[Share], before: LogTime, rate: u64, parts: &mpsc::Sender<Balance>) -> u64 {
        let mut left: Vec<(NodeId, u64)> = shares.iter().map(|share| (share.node, share.surplus)).collect();
        let (mut told, began, mut allowed) = (0, Instant::now(), 0);
        while left.iter().any(|(_, left)| *left > 0) && !parts.is_closed() {
            // Of each node, as many as the time that has passed allows.
            let by_now = rate * u64::try_from((began.elapsed() + STEP).as_millis()).unwrap_or(u64::MAX) / 1_000;
            let step = by_now.saturating_sub(allowed);
            allowed += step;
            for (node, left) in left.iter_mut().filter(|(_, left)| *left > 0) {
                let count = step.min(*left);
                let asked = self.to_shed(count, before);
                let answer = if count == 0 { Ok(json!({})) } else { self.dispatch.consult(*node, "shed", asked).await };
                let shed = answer.as_ref().ok().and_then(|answer| answer["told"].as_u64()).unwrap_or_default();
                told += shed;
                // Of a node that has nobody left who may be told, or is not reached, nothing more is asked.
                *left = if shed < count { 0 } else { *left - shed };
            }
            tokio::time::sleep(STEP).await;
        }
        told
    }

    /// Waits until as many are connected as were before, or until nobody comes any more.
    async fn returned(&self, before: u64, mut shares: Vec<Share>) -> Vec<Share> {
        let (mut most, mut by) = (0, Instant::now() + RETURN_WITHIN);
        while Instant::now() < by {
            tokio::time::sleep(STEP).await;
            let Ok(now) = self.shares().await else { continue };
            shares = now;
            let total = total(&shares);
            if total >= before {
                break;
            }
            if total > most {
                (most, by) = (total, Instant::now() + RETURN_WITHIN);
            }
        }
        shares
    }

    /// What each node that serves has.
    async fn shares(&self) -> Result<Vec<Share>, Error> {
        let mut clients = Vec::new();
        for (node, report) in self.ask_all(self.live_nodes(), "report", &json!({})).await {
            let unreached = |problem| Error::NodeUnreached { node: super::node_name(node), problem };
            let report = report.map_err(unreached)?;
            if report["stage"] == Stage::Serving.name() && report["acts"] == true {
                clients.push((node, report["metrics"]["sessions_connected"].as_u64().unwrap_or_default()));
            }
        }
        Ok(shares_of(&clients))
    }

    /// Tells clients of this node to go: those who have been here longest and for whom nothing is under way first,
    /// applications last. How many were told.
    pub(super) fn shed(&self, document: &Value) -> Value {
        let driver = NodeId(document["driver"].as_u64().unwrap_or_default());
        if !self.rebalances.admits(driver, Instant::now()) {
            return json!({ "told": 0, "refused": true });
        }
        let count = document["count"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
        let before = LogTime(document["before_ms"].as_u64().unwrap_or_default());
        let may_go = |receiver: &Arc<Receiver>| {
            let outbound = receiver.outbound();
            (receiver.guest().connected_at < before && !outbound.closed()).then(|| {
                let application = receiver.key().dialect() == Dialect::Application.as_str();
                let busy = outbound.open() > 0;
                drop(outbound);
                ((application, busy, receiver.guest().connected_at, Reverse(receiver.id())), receiver.clone())
            })
        };
        let receivers = self.dispatch.receivers();
        let mut going: Vec<_> = receivers.iter().filter_map(may_go).collect();
        if count < going.len() {
            going.select_nth_unstable_by_key(count, |(rank, _)| *rank);
            going.truncate(count);
        }
        for (_, receiver) in &going {
            receiver.tell(|port| port.close(ReasonCode::UseAnotherServer));
        }
        json!({ "told": going.len() })
    }
}

fn total(shares: &[Share]) -> u64 {
    shares.iter().map(|share| share.clients).sum()
}

/// Shares of these clients; the mean is rounded up, so that no node gives away what it would be given back.
fn shares_of(clients: &[(NodeId, u64)]) -> Vec<Share> {
    let total: u64 = clients.iter().map(|(_, clients)| clients).sum();
    let mean = total.div_ceil(clients.len().max(1) as u64);
    let share = |(node, clients): &(NodeId, u64)| Share {
        node: *node,
        clients: *clients,
        surplus: clients.saturating_sub(mean),
    };
    clients.iter().map(share).collect()
}

/// The most that a node differs from the mean, in clients.
fn spread(shares: &[Share]) -> u64 {
    let count = shares.len().max(1) as u64;
    let total = total(shares);
    let differs = |share: &Share| (share.clients * count).abs_diff(total).div_ceil(count);
    shares.iter().map(differs).max().unwrap_or_default()
}

fn is_even(shares: &[Share]) -> bool {
    let mean = total(shares) / shares.len().max(1) as u64;
    spread(shares) <= (mean * EVEN_PERCENT / 100).max(EVEN_CLIENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(clients: &[u64]) -> Vec<Share> {
        let nodes: Vec<(NodeId, u64)> = (1..).map(NodeId).zip(clients.iter().copied()).collect();
        shares_of(&nodes)
    }

    #[test]
    fn what_is_above_the_mean_is_too_much() {
        let surplus = |clients: &[u64]| of(clients).iter().map(|share| share.surplus).collect::<Vec<u64>>();
        assert_eq!(surplus(&[150, 150, 0]), [50, 50, 0]);
        assert_eq!(surplus(&[101, 100, 100]), [0, 0, 0]);
        assert_eq!(surplus(&[7]), [0]);
        assert_eq!(surplus(&[]), Vec::<u64>::new());
    }

    #[test]
    fn clients_are_let_go_for_one_driver_at_a_time() {
        let (turns, began) = (Turns::default(), Instant::now());
        let admits = |driver: u64, ms: u64| turns.admits(NodeId(driver), began + Duration::from_millis(ms));
        assert!(admits(1, 0) && !admits(2, 100) && admits(1, 4_000));
        assert!(!admits(2, 5_000), "it is still at it");
        assert!(admits(2, 9_000) && !admits(1, 9_001));
    }

    #[test]
    fn even_is_a_tenth_of_the_mean_or_two() {
        for (clients, even) in [
            (&[150, 150, 0][..], false),
            (&[110, 95, 95], true),
            (&[112, 94, 94], false),
            (&[3, 0, 1], true),
            (&[6, 0, 0], false),
            (&[0, 0, 0], true),
            (&[500], true),
            (&[], true),
        ] {
            assert_eq!(is_even(&of(clients)), even, "{clients:?}");
        }
    }

    #[test]
    fn rounds_of_clients_that_are_spread_anew_come_to_an_end() {
        for start in [vec![150, 150, 0], vec![10_000, 0, 0, 0, 0], vec![0, 0, 7, 1_000, 30]] {
            let mut clients = start.clone();
            let mut rounds = 0;
            while !is_even(&of(&clients)) {
                let going: u64 = of(&clients).iter().map(|share| share.surplus).sum();
                let back = going / clients.len() as u64;
                clients = of(&clients).iter().map(|share| share.clients - share.surplus + back).collect();
                rounds += 1;
                assert!(rounds <= ROUNDS_MAX, "{start:?}: {clients:?}");
            }
        }
    }
}
