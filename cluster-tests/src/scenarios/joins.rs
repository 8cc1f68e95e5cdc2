//! Nodes that come while all goes on.

use std::time::Duration;

use anyhow::Result;

use super::Stage;
use super::stage::plan;
use crate::harness::{MEMBERS, RECOVERY, VOTERS};
use crate::wait_for;

/// How long the log may take to be shortened twice.
const PURGED: Duration = Duration::from_secs(90);

/// Messages that must be acknowledged after each change.
const BETWEEN: u64 = 300;

/// A node joins whose leader has no log left from the beginning.
pub(super) async fn by_snapshot(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    wait_for("the log's beginning to be gone", PURGED, async || {
        let leader = stage.cluster.leader().await?;
        (stage.cluster.metrics(leader).await.ok()?.get("fulmar_snapshots_total") >= 3).then_some(())
    })
    .await?;
    let node = stage.add().await?;
    stage.cluster.everywhere(MEMBERS, RECOVERY, |count| count == 4).await?;
    stage.progress(BETWEEN).await?;
    // It serves what it never saw happen, and goes on with it.
    stage.kill(node).await?;
    stage.progress(BETWEEN).await?;
    stage.start_again(node).await?;
    while stage.time_left() {
        stage.progress(BETWEEN).await?;
    }
    Ok(())
}

/// From one to three to five. Going back is not asked here.
pub(super) async fn grow(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    for size in [3, 5] {
        while stage.cluster.count() < size {
            stage.add().await?;
            stage.progress(BETWEEN).await?;
        }
        for figure in [MEMBERS, VOTERS] {
            stage.cluster.everywhere(figure, RECOVERY, |count| count == size as u64).await?;
        }
        stage.progress(BETWEEN).await?;
    }
    while stage.time_left() {
        let leader = stage.cluster.wait_for_leader(RECOVERY).await?;
        stage.kill(leader).await?;
        stage.progress(BETWEEN).await?;
        stage.start_again(leader).await?;
    }
    Ok(())
}
