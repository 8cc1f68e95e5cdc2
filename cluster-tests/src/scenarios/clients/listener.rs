//! A subscriber that connects again, to the next node, whenever its connection ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use fulmar_mqtt::{Packet, QoS, Version};
use tokio::time::{Instant, sleep};

use super::Shared;
use super::voice::{Came, Kept, Voice};

/// Between two tries to connect.
const BETWEEN: Duration = Duration::from_millis(50);

/// How long the first SUBACK may take.
const FIRST: Duration = Duration::from_secs(20);

/// Silence after which the node is asked whether it is there.
const ASK_AFTER: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Listener {
    client_id: String,
    version: Version,
    filter: String,
    qos: QoS,
    persistent: bool,
    attempt: usize,
    voice: Option<Voice>,
}

impl Listener {
    /// Begins at this node.
    pub(crate) fn new(client_id: &str, filter: &str, qos: QoS, persistent: bool, node: usize) -> Listener {
        let version = if node.is_multiple_of(2) { Version::V5 } else { Version::V311 };
        let (client_id, filter) = (client_id.to_owned(), filter.to_owned());
        Listener { client_id, version, filter, qos, persistent, attempt: node, voice: None }
    }

    /// Connects and subscribes.
    pub(crate) async fn begin(&mut self, shared: &Shared) -> Result<()> {
        let (mut voice, connack) = Voice::connect(
            &shared.history,
            shared.doors.at(self.attempt),
            shared.connect(self.version, &self.client_id, self.persistent),
            FIRST,
        )
        .await?;
        ensure!(!connack.session_present, "{} had a session before", self.client_id);
        voice.subscribe(&self.filter, self.qos, FIRST).await?;
        self.voice = Some(voice);
        Ok(())
    }

    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let mut kept = Kept::default();
        loop {
            let Some(mut voice) = self.voice.take() else {
                if let Err(problem) = self.resume(&shared, &mut kept).await {
                    shared.wrong(format!("{problem:#}"));
                    return;
                }
                continue;
            };
            // Ends with the connection; what it says then is no news.
            let _ = hear(&mut voice, shared.patience).await;
            kept = std::mem::take(&mut voice.kept);
            drop(voice);
            self.attempt += 1;
        }
    }

    /// One try. A session that should be there, and is not, is an error.
    async fn resume(&mut self, shared: &Shared, kept: &mut Kept) -> Result<()> {
        let connected = Voice::connect(
            &shared.history,
            shared.doors.at(self.attempt),
            shared.connect(self.version, &self.client_id, self.persistent),
            shared.patience,
        )
        .await;
        let Ok((mut voice, connack)) = connected else {
            self.attempt += 1;
            sleep(BETWEEN).await;
            return Ok(());
        };
        ensure!(
            connack.session_present == self.persistent,
            "{}: session present is {}",
            self.client_id,
            connack.session_present
        );
        if self.persistent {
            voice.kept = std::mem::take(kept);
        } else if voice.subscribe(&self.filter, self.qos, shared.patience).await.is_err() {
            self.attempt += 1;
            return Ok(());
        }
        self.voice = Some(voice);
        Ok(())
    }
}

/// Takes messages until the connection ends or the node is silent for too long.
async fn hear(voice: &mut Voice, patience: Duration) -> Result<()> {
    let mut heard = Instant::now();
    loop {
        match voice.next(ASK_AFTER).await {
            Ok(Came::Closed(_)) => return Ok(()),
            Ok(_) => heard = Instant::now(),
            Err(error) if !crate::raw::is_late(&error) => return Err(error),
            Err(error) if heard.elapsed() > patience + ASK_AFTER => return Err(error),
            Err(_) => voice.say(&Packet::PingReq).await?,
        }
    }
}
