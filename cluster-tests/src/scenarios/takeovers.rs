//! One client id that is wanted at several nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fulmar_mqtt::{QoS, Version};
use tokio::task::JoinSet;

use super::Stage;
use super::clients::{Came, Listener, Topic, Voice};
use super::stage::plan;
use crate::histogram::Histogram;
use crate::raw;
use crate::wait_for;

/// How long a CONNACK may take.
const CONNACK: Duration = Duration::from_secs(15);

/// How long an older connection may stay open once a newer was welcomed.
const GONE: Duration = Duration::from_secs(10);

/// Between two takeovers.
const STAY: Duration = Duration::from_millis(30);

/// After a refusal: takeovers of one key are bounded.
const REFUSED: Duration = Duration::from_millis(500);

/// Connects at the nodes in turn. Each connection publishes without a pause until it is ended.
pub(super) async fn ping_pong(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let topic = stage.clients.topic("wander/all", QoS::AtLeastOnce);
    // What nobody subscribes to: no log stands between it and its PUBACK.
    let nobody = stage.clients.topic("nobody/wander", QoS::AtLeastOnce);
    stage.clients.listen(Listener::new("wander-watch", "wander/#", QoS::ExactlyOnce, true, 1)).await?;
    let (history, doors) = (stage.history.clone(), stage.doors.clone());
    let (mut connections, mut took) = (JoinSet::new(), Histogram::default());
    let (mut takeovers, mut refused) = (0, 0);
    while takeovers == 0 || stage.time_left() {
        let begun = Instant::now();
        let connect = raw::persistent(Version::V5, "wanderer");
        match Voice::connect(&history, doors.at(takeovers + refused), connect, CONNACK).await {
            Ok((voice, _)) => {
                took.record(begun.elapsed().as_nanos() as u64);
                connections.spawn(speak(voice, [topic.clone(), nobody.clone()]));
                takeovers += 1;
                stage.elapse(Instant::now(), STAY).await?;
            }
            Err(error) if format!("{error:#}").contains("was refused") => {
                refused += 1;
                stage.elapse(Instant::now(), REFUSED).await?;
            }
            Err(error) => return Err(error),
        }
    }
    // The last one is ended by another.
    let last = wait_for("the last takeover", CONNACK * 2, async || {
        let connect = raw::persistent(Version::V5, "wanderer");
        Voice::connect(&history, doors.at(takeovers + refused), connect, CONNACK).await.ok()
    });
    let (last, _) = last.await?;
    let ended = async {
        while let Some(joined) = connections.join_next().await {
            joined?;
        }
        Ok::<(), anyhow::Error>(())
    };
    tokio::time::timeout(GONE, ended).await.context("an older connection was not ended")??;
    last.leave(GONE).await?;
    let ms = |share| took.quantile(share) as f64 / 1e6;
    stage.note(format!(
        "{takeovers} takeovers, {refused} refused; CONNACK after {:.0} ms (p50), {:.0} ms (p99)",
        ms(0.5),
        ms(0.99)
    ));
    Ok(())
}

async fn speak(mut voice: Voice, topics: [Arc<Topic>; 2]) {
    for topic in topics.iter().cycle() {
        let number = topic.number();
        let Ok(id) = voice.send(topic, number, false).await else { return };
        loop {
            match voice.next(GONE).await {
                Ok(Came::Ack(_, of, _)) if of == id => break,
                Ok(Came::Closed(_)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}
