//! What is promised of the other nodes once one of them has answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fulmar_mqtt::{Packet, QoS, Version};
use tokio::task::JoinSet;

use super::Stage;
use super::clients::{Came, Voice};
use super::stage::plan;
use crate::history::History;
use crate::load::Doors;
use crate::raw;

/// How long anything may take.
const SOON: Duration = Duration::from_secs(15);

/// Pairs that do it at the same time.
const PAIRS: usize = 8;

/// Each round one subscribes at a node and another publishes at once at the next, by turns with each QoS.
pub(super) async fn publish_after_suback(stage: &mut Stage) -> Result<()> {
    let (rounds, count) = (Arc::new(AtomicUsize::new(0)), stage.settings.count);
    let topics = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let mut pairs = JoinSet::new();
    for pair in 0..PAIRS {
        let (history, doors, rounds) = (stage.history.clone(), stage.doors.clone(), rounds.clone());
        pairs.spawn(async move {
            let here = |client: &str| raw::connect(Version::V5, &format!("{client}-{pair}"));
            let (mut subscriber, _) = Voice::connect(&history, doors.at(pair), here("sees"), SOON).await?;
            let (mut publisher, _) = Voice::connect(&history, doors.at(pair + 1), here("says"), SOON).await?;
            loop {
                let round = rounds.fetch_add(1, Ordering::SeqCst);
                if round >= count {
                    return Ok::<(), anyhow::Error>(());
                }
                let (name, qos) = (format!("at-once/{round}"), topics[round % topics.len()]);
                subscriber.subscribe(&name, qos, SOON).await?;
                let id = if qos == QoS::AtMostOnce { 0 } else { 1 };
                let message = raw::publish(id, &name, qos, name.clone());
                publisher.say(&Packet::Publish(message)).await?;
                is_told(&mut subscriber, &name).await?;
                if id > 0 {
                    publisher.completed(id, SOON).await?;
                }
                subscriber.unsubscribe(&name, SOON).await?;
            }
        });
    }
    while let Some(ended) = pairs.join_next().await {
        ended??;
    }
    stage.note(format!("{} rounds", count));
    Ok(())
}

/// Waits for the message whose payload is its topic.
async fn is_told(subscriber: &mut Voice, name: &str) -> Result<()> {
    loop {
        match subscriber
            .next(SOON)
            .await
            .with_context(|| format!("{name}, published after its SUBACK, did not come"))?
        {
            Came::Other { topic, payload, .. } if topic == name && payload == name => return Ok(()),
            Came::Closed(reason) => anyhow::bail!("the subscriber's connection was ended: {reason:?}"),
            _ => {}
        }
    }
}

/// Each round sets a retained message at a node, and asks the others for it once it is acknowledged.
pub(super) async fn retained_after_puback(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let (history, doors) = (stage.history.clone(), stage.doors.clone());
    let nodes = stage.cluster.count();
    let mut voices = Vec::new();
    for node in 0..nodes {
        voices.push(voice(&history, &doors, node).await?);
    }
    let mut round = 0;
    while round < nodes || stage.time_left() {
        let writer = round % nodes;
        let (name, text) = (format!("kept-at-once/{}", round % 7), format!("{round}"));
        let mut message = raw::publish(1, &name, QoS::AtLeastOnce, text.clone());
        message.retain = true;
        voices[writer].say(&Packet::Publish(message)).await?;
        voices[writer].completed(1, SOON).await?;
        for (node, reader) in voices.iter_mut().enumerate() {
            let read = read(reader, &name).await.with_context(|| format!("retained at {writer}, read at {node}"))?;
            ensure!(read == text, "{name} was set to {text} at node {writer}, and node {node} says {read:?}");
        }
        round += 1;
    }
    stage.note(format!("{round} values"));
    Ok(())
}

async fn voice(history: &Arc<History>, doors: &Doors, node: usize) -> Result<Voice> {
    let connect = raw::connect(Version::V5, &format!("keeps-{node}"));
    Ok(Voice::connect(history, doors.at(node), connect, SOON).await?.0)
}

/// Subscribes, takes the retained message, and unsubscribes.
async fn read(reader: &mut Voice, name: &str) -> Result<Bytes> {
    reader.say(&raw::subscribe(9, name, QoS::AtLeastOnce)).await?;
    let value = loop {
        match reader.next(SOON).await? {
            Came::Other { topic, payload, retain: true } if topic == name => break payload,
            Came::Closed(reason) => anyhow::bail!("the reader's connection was ended: {reason:?}"),
            _ => {}
        }
    };
    reader.unsubscribe(name, SOON).await?;
    Ok(value)
}
