//! Nodes that are stopped and go on later, as if no time had passed, with clients that still hold on to them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fulmar_mqtt::packet::Connect;
use fulmar_mqtt::{QoS, Version};
use rand::prelude::*;

use super::Stage;
use super::clients::{Came, Voice};
use super::stage::plan;
use crate::raw;

/// Longer than any lease, and the time after which a stopped node's clients are expected elsewhere.
const STOPPED: Duration = Duration::from_secs(5);

/// How long a CONNACK may take: it may wait for the old owner's lease to end.
const CONNACK: Duration = Duration::from_secs(15);

/// How long anything else may take.
const SOON: Duration = Duration::from_secs(15);

/// Messages that the older connection writes after the newer was welcomed.
const LATE: u64 = 5;

/// How long the older connection is listened to once its node goes on.
const LISTEN: Duration = Duration::from_secs(3);

/// When the node is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Its client connects elsewhere when its lease must have ended.
    LongBefore,
    /// As its client connects elsewhere.
    Meanwhile,
}

pub(super) async fn past_lease(stage: &mut Stage) -> Result<()> {
    rounds(stage, When::LongBefore).await
}

pub(super) async fn during_takeover(stage: &mut Stage) -> Result<()> {
    rounds(stage, When::Meanwhile).await
}

async fn rounds(stage: &mut Stage, when: When) -> Result<()> {
    stage.load(&plan()).await?;
    let (mut rounds, mut worst) = (0, Duration::ZERO);
    while rounds == 0 || stage.time_left() {
        // The leader too, in its turn.
        let node = stage.any();
        worst = worst.max(round(stage, node, when, rounds).await?);
        rounds += 1;
    }
    stage.note(format!("{rounds} stops; CONNACK elsewhere after {:.1} s at most", worst.as_secs_f64()));
    Ok(())
}

/// Who publishes to a topic and has a subscription to it.
fn client(version: Version, round: usize) -> Connect {
    raw::persistent(version, &format!("stopped-{round}"))
}

async fn round(stage: &mut Stage, node: usize, when: When, round: usize) -> Result<Duration> {
    let name = format!("stopped/{round}");
    let topic = &*stage.clients.topic(&name, QoS::AtLeastOnce);
    let elsewhere = (node + stage.random.random_range(1..stage.cluster.count())) % stage.cluster.count();
    let version = if round.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    let (history, doors) = (stage.history.clone(), stage.doors.clone());
    let (mut old, _) = Voice::connect(&history, doors.at(node), client(version, round), SOON).await?;
    old.subscribe(&name, QoS::AtLeastOnce, SOON).await?;
    old.publish(topic, topic.number(), false, SOON).await?;

    let (begun, asked);
    let (mut new, connack) = match when {
        When::LongBefore => {
            stage.freeze(node)?;
            begun = Instant::now();
            stage.progress(100).await.context("the others do not go on")?;
            asked = Instant::now();
            Voice::connect(&history, doors.at(elsewhere), client(version, round), CONNACK).await?
        }
        When::Meanwhile => {
            let connecting = Voice::connect(&history, doors.at(elsewhere), client(version, round), CONNACK);
            let delay = Duration::from_micros(stage.random.random_range(0..5000));
            (begun, asked) = (Instant::now(), Instant::now());
            let frozen = async {
                tokio::time::sleep(delay).await;
                stage.freeze(node)
            };
            let (connected, frozen) = tokio::join!(connecting, frozen);
            frozen?;
            connected?
        }
    };
    let welcomed = asked.elapsed();
    ensure!(connack.session_present, "the session is not there on node {elsewhere}");
    // What the older connection writes from here on must come to nothing; its node reads it when it goes on. The numbers
    // are the newer one's too: it is the same client, which does not know what became of them.
    let late: Vec<u64> = (0..LATE).map(|_| topic.number()).collect();
    // First what nobody subscribes to: no log stands between it and its PUBACK.
    let nobody = &*stage.clients.topic(&format!("nobody/{round}"), QoS::AtLeastOnce);
    for _ in 0..LATE {
        old.send(nobody, nobody.number(), false).await?;
    }
    for number in &late {
        old.send(topic, *number, false).await?;
    }
    for number in late {
        new.publish(topic, number, true, SOON).await?;
    }
    stage.elapse(begun, STOPPED).await?;
    stage.cluster.thaw(node)?;
    listen(&mut old).await;
    stage.serves_again(node).await?;
    let mut last = 0;
    for _ in 0..LATE {
        last = topic.number();
        new.publish(topic, last, false, SOON).await?;
    }
    drop(old);
    new.hear(topic, last, SOON).await?;
    new.leave(SOON).await?;
    stage.progress(100).await?;
    Ok(welcomed)
}

/// Takes what comes, until the connection ends or enough time has passed; all of it is in the history.
async fn listen(old: &mut Voice) {
    let begun = Instant::now();
    while let Some(left) = LISTEN.checked_sub(begun.elapsed()) {
        match old.next(left).await {
            Ok(Came::Closed(_)) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
