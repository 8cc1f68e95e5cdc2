//! A publisher with a persistent session and one message at a time: what was not acknowledged it sends again, elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use fulmar_mqtt::Version;
use tokio::time::{Instant, sleep};

use super::voice::Voice;
use super::{Shared, Topic};
use crate::raw;

/// Between two tries to connect.
const BETWEEN: Duration = Duration::from_millis(20);

/// How long one message may take, over all connections.
const MESSAGE: Duration = Duration::from_secs(60);

/// Publishes until the end is announced.
pub(super) async fn run(
    shared: Arc<Shared>,
    client_id: String,
    topics: Vec<Arc<Topic>>,
    pause: Duration,
) -> Result<()> {
    let (mut voice, mut attempt): (Option<Voice>, usize) = (None, 0);
    for topic in topics.iter().cycle() {
        if shared.ending.load(Ordering::SeqCst) {
            break;
        }
        let (number, mut dup, begun) = (topic.number(), false, Instant::now());
        loop {
            let mut speaking = match voice.take() {
                Some(speaking) => speaking,
                None => {
                    let connect = raw::persistent(Version::V5, &client_id);
                    match Voice::connect(&shared.history, shared.doors.at(attempt), connect, shared.patience).await {
                        Ok((speaking, _)) => speaking,
                        Err(error) if begun.elapsed() > MESSAGE => {
                            return Err(error).context(format!("{client_id} gets nothing published"));
                        }
                        Err(_) => {
                            attempt += 1;
                            sleep(BETWEEN).await;
                            continue;
                        }
                    }
                }
            };
            if speaking.publish(topic, number, dup, shared.patience).await.is_ok() {
                voice = Some(speaking);
                break;
            }
            (attempt, dup) = (attempt + 1, true);
        }
        sleep(pause).await;
    }
    Ok(())
}
