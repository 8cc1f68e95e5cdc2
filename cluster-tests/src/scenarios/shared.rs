//! A shared subscription whose members are of both kinds and on all nodes.

use std::time::Duration;

use anyhow::Result;
use fulmar_mqtt::QoS;

use super::Stage;
use super::clients::Listener;
use super::stage::plan;
use crate::load::{Point, Step};
use rand::Rng;

/// Members of each kind at each node.
const EACH: usize = 2;

/// Publishers, each with topics of QoS 1 and 2.
const SPEAKERS: usize = 4;

const PAUSE: Duration = Duration::from_millis(2);

/// Messages that must be acknowledged to the load after each kill.
const BETWEEN: u64 = 150;

pub(super) async fn mixed_group(stage: &mut Stage) -> Result<()> {
    for node in 0..stage.cluster.count() {
        for index in 0..EACH {
            for (kind, persistent) in [("stays", true), ("goes", false)] {
                // With QoS 2 a message whose clean member dies may not be offered to another.
                let (id, qos) = (format!("member-{kind}-{node}-{index}"), QoS::AtLeastOnce);
                stage.clients.listen(Listener::new(&id, "$share/mixed/shared/#", qos, persistent, node)).await?;
            }
        }
    }
    for speaker in 0..SPEAKERS {
        let topics = [QoS::AtLeastOnce, QoS::ExactlyOnce]
            .map(|qos| stage.clients.topic(&format!("shared/{speaker}/{}", qos as u8), qos));
        stage.clients.speak(&format!("shares-{speaker}"), topics.to_vec(), PAUSE);
    }
    stage.load(&plan()).await?;
    let mut kills = 0;
    while kills == 0 || stage.time_left() {
        let node = stage.any();
        let point = Point::at(Step::Publish, stage.random.random_range(1..200));
        stage.kill_at(node, point).await?;
        stage.progress(BETWEEN).await?;
        stage.start_again(node).await?;
        stage.progress(BETWEEN).await?;
        kills += 1;
    }
    stage.note(format!("{kills} kills"));
    Ok(())
}
