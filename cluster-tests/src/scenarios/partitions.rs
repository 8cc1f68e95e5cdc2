//! Links that fail while all processes run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::prelude::*;

use super::Stage;
use super::stage::plan;
use crate::harness::{FROZEN, MEMBERS, RECOVERY};
use crate::proxy::Fault;
use crate::wait_for;

/// How long a fault lasts at least: longer than a lease and an election.
const FAULT: Duration = Duration::from_secs(5);

/// How long a node without a majority may go on before it is frozen: a lease, and what it takes to see it.
const FREEZE: Duration = Duration::from_secs(6);

/// Messages that must be acknowledged during a fault and after it.
const BETWEEN: u64 = 150;

/// How links fail that carry nothing.
const SILENT: [Fault; 3] = [Fault::Stalled, Fault::HalfOpen, Fault::Cut];

/// 1 where the node has a vote. Assumed of the node.
const VOTER: &str = "fulmar_raft_voter";

pub(super) async fn majority(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let mut rounds = 0;
    while rounds == 0 || stage.time_left() {
        let leader = stage.cluster.wait_for_leader(RECOVERY).await?;
        let follower = (leader + stage.random.random_range(1..3)) % 3;
        let alone = if rounds % 2 == 0 { leader } else { follower };
        let fault = *SILENT.choose(&mut stage.random).unwrap_or(&Fault::Cut);
        isolate(stage, &[alone], fault).await.with_context(|| format!("{fault:?} around node {alone}"))?;
        rounds += 1;
    }
    stage.note(format!("{rounds} partitions"));
    Ok(())
}

/// Parts these nodes from the others, which must go on, while these must freeze; then heals.
async fn isolate(stage: &mut Stage, these: &[usize], fault: Fault) -> Result<()> {
    let begun = Instant::now();
    these.iter().for_each(|node| stage.doors.set_out(*node, true));
    stage.cluster.links.part(these, fault);
    for node in these {
        let frozen = async || (stage.cluster.metrics(*node).await.ok()?.get(FROZEN) == 1).then_some(());
        wait_for(&format!("node {node} without a majority to freeze"), FREEZE, frozen).await?;
        ensure!(!stage.cluster.is_ready(*node).await, "node {node} is frozen and says that it is ready");
    }
    stage.cluster.wait_for_leader_among(RECOVERY, |node| !these.contains(&node)).await?;
    stage.progress(BETWEEN).await.context("the majority does not go on")?;
    stage.elapse(begun, FAULT).await?;
    heal(stage).await
}

async fn heal(stage: &mut Stage) -> Result<()> {
    stage.recover().await.context("healed")?;
    stage.progress(BETWEEN).await.context("healed")
}

/// One pair after the other; the third node reaches both.
pub(super) async fn pair(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let mut rounds = stage.random.random_range(0..3);
    let first = rounds;
    while rounds == first || stage.time_left() {
        let (one, other) = [(0, 1), (1, 2), (0, 2)][rounds % 3];
        let fault = *SILENT.choose(&mut stage.random).unwrap_or(&Fault::Cut);
        let begun = Instant::now();
        for node in [one, other] {
            stage.doors.set_out(node, true);
        }
        stage.cluster.links.set_pair(one, other, fault);
        stage.elapse(begun, FAULT).await?;
        stage.progress(BETWEEN).await.with_context(|| format!("{fault:?} between {one} and {other}"))?;
        heal(stage).await?;
        rounds += 1;
    }
    stage.note(format!("{} pairs cut", rounds - first));
    Ok(())
}

/// Four nodes, of which three vote.
pub(super) async fn leader_and_learner(stage: &mut Stage) -> Result<()> {
    stage.add().await?;
    stage.cluster.everywhere(MEMBERS, RECOVERY, |count| count == 4).await?;
    stage.load(&plan()).await?;
    let mut rounds = 0;
    while rounds == 0 || stage.time_left() {
        let leader = stage.cluster.wait_for_leader(RECOVERY).await?;
        let all = stage.cluster.all_metrics().await;
        let learner = all.iter().find(|(_, metrics)| metrics.get(VOTER) == 0).map(|(node, _)| *node);
        let learner = learner.context("all four vote")?;
        let fault = *SILENT.choose(&mut stage.random).unwrap_or(&Fault::Cut);
        isolate(stage, &[leader, learner], fault)
            .await
            .with_context(|| format!("{fault:?} around {leader}, {learner}"))?;
        rounds += 1;
    }
    stage.note(format!("{rounds} partitions"));
    Ok(())
}

/// Links that are late, that lose bytes and break by it, and that are open one way only.
pub(super) async fn slow_links(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let mut rounds = 0;
    while rounds == 0 || stage.time_left() {
        let begun = Instant::now();
        let (from, to) = (stage.any(), stage.any());
        (0..3).for_each(|node| stage.doors.set_out(node, true));
        match rounds % 3 {
            0 => stage.cluster.links.set_all(Fault::Latency(Duration::from_millis(stage.random.random_range(5..60)))),
            1 => stage.cluster.links.set_all(Fault::Drop(stage.random.random_range(1..4))),
            _ => stage.cluster.links.set(from, to, Fault::HalfOpen),
        }
        stage.elapse(begun, FAULT).await?;
        heal(stage).await?;
        rounds += 1;
    }
    stage.note(format!("{rounds} faults"));
    Ok(())
}
