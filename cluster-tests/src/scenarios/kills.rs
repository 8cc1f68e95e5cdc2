//! Processes that end: by SIGKILL at steps that a seed chooses, all at once, one after the other, and with their data.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fulmar_mqtt::QoS;
use rand::prelude::*;

use super::Stage;
use super::clients::Listener;
use super::stage::plan;
use crate::harness::{MEMBERS, RECOVERY, VOTERS};
use crate::load::{Point, Step};

/// Clients of the load that connect again after a loss.
const CLIENTS: usize = 3;

/// Messages that must be acknowledged between two faults, and while a node is away.
const BETWEEN: u64 = 150;

/// How long a node that was killed may stay away.
const AWAY_MS: u64 = 3000;

/// Whether the others go on is looked at once in so many kills.
const LOOKS: u32 = 2;

pub(super) async fn any_node(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let mut kills = 0;
    while kills == 0 || stage.time_left() {
        let (node, point) = (stage.any(), Point::random(&mut stage.random, CLIENTS));
        // Clients connect only after losses: a point that waits for them would wait for ever.
        let point = if point.step() == Step::Connack { Point::at(Step::Publish, 50) } else { point };
        kill_and_return(stage, node, point).await?;
        kills += 1;
    }
    stage.note(format!("{kills} kills"));
    Ok(())
}

pub(super) async fn leader(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let (mut kills, mut worst) = (0, Duration::ZERO);
    while kills == 0 || stage.time_left() {
        let node = stage.cluster.wait_for_leader(RECOVERY).await?;
        stage.kill(node).await?;
        let begun = Instant::now();
        stage.cluster.wait_for_leader(RECOVERY).await?;
        worst = worst.max(begun.elapsed());
        stage.progress(BETWEEN).await?;
        stage.start_again(node).await?;
        stage.progress(BETWEEN).await?;
        kills += 1;
    }
    stage.note(format!("{kills} leaders killed; the next was there after {:.1} s at most", worst.as_secs_f64()));
    Ok(())
}

/// Kills the leader within the first acknowledgements of a burst: some of it is committed, and nobody was told.
pub(super) async fn leader_before_reply(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let mut kills = 0;
    while kills == 0 || stage.time_left() {
        let node = stage.cluster.wait_for_leader(RECOVERY).await?;
        let step = *[Step::Publish, Step::PubAck, Step::PubRec, Step::Delivery]
            .choose(&mut stage.random)
            .unwrap_or(&Step::Publish);
        let point = Point::at(step, stage.random.random_range(1..40));
        stage.kill_at(node, point).await?;
        stage.start_again(node).await?;
        stage.progress(BETWEEN / 2).await?;
        kills += 1;
    }
    stage.note(format!("{kills} leaders killed"));
    Ok(())
}

pub(super) async fn qos2_half_steps(stage: &mut Stage) -> Result<()> {
    const STEPS: [Step; 6] =
        [Step::PubRec, Step::PubRel, Step::PubComp, Step::Received, Step::Released, Step::Completed];
    stage.load(&plan()).await?;
    let mut kills = 0;
    while kills == 0 || stage.time_left() {
        let step = STEPS[kills % STEPS.len()];
        let (node, left) = (stage.any(), stage.random.random_range(1..120));
        kill_and_return(stage, node, Point::at(step, left)).await?;
        kills += 1;
    }
    stage.note(format!("{kills} kills"));
    Ok(())
}

async fn kill_and_return(stage: &mut Stage, node: usize, point: Point) -> Result<()> {
    stage.kill_at(node, point).await?;
    if stage.random.random_ratio(1, LOOKS) {
        stage.progress(BETWEEN).await?;
    } else {
        let away = Duration::from_millis(stage.random.random_range(0..AWAY_MS));
        stage.elapse(Instant::now(), away).await?;
    }
    stage.start_again(node).await?;
    stage.progress(BETWEEN).await
}

/// The orders in which three can be started.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

pub(super) async fn whole_cluster(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let begin = stage.random.random_range(0..ORDERS.len());
    let mut rounds = 0;
    while rounds == 0 || stage.time_left() {
        let order = ORDERS[(begin + rounds) % ORDERS.len()];
        let first = stage.any();
        let point = Point::at(Step::PubAck, stage.random.random_range(1..200));
        stage.kill_at(first, point).await?;
        for node in (0..stage.cluster.count()).filter(|node| *node != first) {
            stage.kill(node).await?;
        }
        for node in order {
            stage.cluster.start_again(node)?;
            let gap = Duration::from_millis(stage.random.random_range(0..700));
            stage.elapse(Instant::now(), gap).await?;
        }
        stage.recover().await?;
        stage.progress(BETWEEN).await?;
        rounds += 1;
    }
    stage.note(format!("{rounds} times all were killed"));
    Ok(())
}

/// Everybody is told to end, one after the other, while many clients listen and the load goes on.
pub(super) async fn rolling_restart(stage: &mut Stage) -> Result<()> {
    let many = stage.settings.clients;
    let (mut topics, mut crowd) = (Vec::new(), Vec::new());
    for client in 0..many {
        let (id, name) = (format!("crowd-{client}"), format!("crowd/{client}"));
        topics.push(stage.clients.topic(&name, QoS::AtLeastOnce));
        let qos = if client % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        crowd.push(Listener::new(&id, &name, qos, true, client));
    }
    stage.clients.listen_all(crowd).await?;
    for (index, part) in topics.chunks(many.div_ceil(4).max(1)).enumerate() {
        stage.clients.speak(&format!("speaker-{index}"), part.to_vec(), Duration::ZERO);
    }
    stage.load(&plan()).await?;
    let (mut rounds, mut worst) = (0, Duration::ZERO);
    while rounds == 0 || stage.time_left() {
        for node in 0..stage.cluster.count() {
            stage.doors.set_out(node, true);
            let begun = Instant::now();
            stage.cluster.terminate(node).await?;
            worst = worst.max(begun.elapsed());
            let status = stage.cluster.node(node).process()?.status()?;
            ensure!(status.is_some_and(|status| status.success()), "node {node} ended with {status:?}");
            stage.start_again(node).await?;
            stage.progress(BETWEEN).await?;
        }
        rounds += 1;
    }
    stage.note(format!("{many} clients, {rounds} rounds; a node took {:.1} s to leave at most", worst.as_secs_f64()));
    Ok(())
}

pub(super) async fn wiped_volume(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let mut rounds = 0;
    while rounds == 0 || stage.time_left() {
        let node = stage.any();
        stage.kill(node).await?;
        stage.cluster.wipe(node)?;
        stage.progress(BETWEEN).await?;
        stage.start_again(node).await?;
        // Its new name takes the place of the old one.
        for figure in [MEMBERS, VOTERS] {
            stage.cluster.everywhere(figure, RECOVERY, |count| count == 3).await?;
        }
        stage.progress(BETWEEN).await?;
        rounds += 1;
    }
    stage.note(format!("{rounds} times a node lost its data"));
    Ok(())
}
