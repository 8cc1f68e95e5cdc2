//! How long SUBACK takes on nodes that are there, while others are lost.

use std::time::Duration;

use anyhow::Result;

use super::Stage;
use super::stage::plan;
use crate::harness::RECOVERY;
use crate::load::Plan;

/// What is promised.
const PROMISED: Duration = Duration::from_secs(3);

/// Messages that must be acknowledged after each loss.
const BETWEEN: u64 = 100;

pub(super) async fn across_losses(stage: &mut Stage) -> Result<()> {
    stage.load(&Plan { publishers: 2, retainers: 1, window: 4, ..plan() }).await?;
    let mut losses = 0;
    while losses < 2 || stage.time_left() {
        let leader = stage.cluster.wait_for_leader(RECOVERY).await?;
        let node = if losses % 2 == 0 { leader } else { (leader + 1) % stage.cluster.count() };
        stage.kill(node).await?;
        stage.cluster.wait_for_leader(RECOVERY).await?;
        stage.progress(BETWEEN).await?;
        stage.start_again(node).await?;
        stage.progress(BETWEEN).await?;
        losses += 1;
    }
    let worst = stage.suback_worst();
    if worst > PROMISED {
        stage.wrong(format!("a SUBACK took {:.1} s", worst.as_secs_f64()));
    }
    stage.note(format!("{losses} losses, every second of the leader"));
    Ok(())
}
