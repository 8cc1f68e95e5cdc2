//! A device as there are many: a persistent session that gets what is sent to it and publishes now and then, over one
//! connection, which it opens again, with growing and random pauses, whenever that ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use fulmar_mqtt::{Packet, QoS, Version};
use rand::prelude::*;
use tokio::time::{Instant, sleep};

use super::voice::{Came, Kept, Voice};
use super::{Shared, Topic};
use crate::raw;

/// The first pause is at most this long, each further one at most twice as long as the one before.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(8);

/// How long the first SUBACK may take.
const FIRST: Duration = Duration::from_secs(90);

/// Silence after which the node is asked whether it is there.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Device {
    client_id: String,
    version: Version,
    /// What it publishes to, and between two messages.
    up: Arc<Topic>,
    every: Duration,
    /// The topic that it is sent messages under.
    down: String,
    random: StdRng,
    voice: Option<Voice>,
    kept: Kept,
    /// A message that is not acknowledged.
    open: Option<u64>,
    next: Instant,
}

impl Device {
    pub(crate) fn new(
        client_id: &str,
        version: Version,
        (up, every): (Arc<Topic>, Duration),
        down: &str,
        seed: u64,
    ) -> Device {
        Device {
            client_id: client_id.to_owned(),
            version,
            up,
            every,
            down: down.to_owned(),
            random: StdRng::seed_from_u64(seed),
            voice: None,
            kept: Kept::default(),
            open: None,
            next: Instant::now(),
        }
    }

    /// Connects and subscribes, with as many tries as it takes.
    pub(super) async fn begin(&mut self, shared: &Shared) -> Result<()> {
        let end = Instant::now() + FIRST;
        loop {
            match self.first(shared).await {
                Err(_) if Instant::now() < end => sleep(BACK_OFF.mul_f64(self.random.random())).await,
                tried => return tried,
            }
        }
    }

    async fn first(&mut self, shared: &Shared) -> Result<()> {
        let connect = shared.connect(self.version, &self.client_id, true);
        let (mut voice, _) = Voice::connect(&shared.history, shared.doors.at(0), connect, shared.patience).await?;
        voice.subscribe(&self.down, QoS::AtLeastOnce, shared.patience).await?;
        self.voice = Some(voice);
        self.next = Instant::now() + self.every.mul_f64(self.random.random());
        Ok(())
    }

    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let mut back_off = BACK_OFF;
        loop {
            let Some(mut voice) = self.voice.take() else {
                sleep(back_off.mul_f64(self.random.random())).await;
                match self.resume(&shared).await {
                    Ok(true) => back_off = BACK_OFF,
                    Ok(false) => back_off = (back_off * 2).min(BACK_OFF_MAX),
                    Err(problem) => return shared.wrong(format!("{problem:#}")),
                }
                continue;
            };
            // Ends with the connection; what it says then is no news.
            let _ = self.converse(&mut voice, &shared).await;
            self.kept = std::mem::take(&mut voice.kept);
        }
    }

    /// One try. A session that should be there, and is not, is an error.
    async fn resume(&mut self, shared: &Shared) -> Result<bool> {
        let connect = shared.connect(self.version, &self.client_id, true);
        let connected = Voice::connect(&shared.history, shared.doors.at(0), connect, shared.patience).await;
        let Ok((mut voice, connack)) = connected else { return Ok(false) };
        ensure!(connack.session_present, "{}: its session is gone", self.client_id);
        voice.kept = std::mem::take(&mut self.kept);
        self.voice = Some(voice);
        Ok(true)
    }

    /// Publishes and takes what comes, until the connection ends or the node is silent for too long.
    async fn converse(&mut self, voice: &mut Voice, shared: &Shared) -> Result<()> {
        // Until when silence is nothing to ask about, or, once asked, no reason to leave.
        let (mut patient_until, mut asked) = (Instant::now() + ASK_AFTER, false);
        loop {
            let (now, ending) = (Instant::now(), shared.ending.load(Ordering::SeqCst));
            if self.open.is_some() || (now >= self.next && !ending) {
                if self.open.is_none() {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                }
                let number = *self.open.get_or_insert_with(|| self.up.number());
                voice.see_through(&self.up, number, shared.patience).await?;
                self.open = None;
                shared.open.fetch_sub(1, Ordering::SeqCst);
                (patient_until, asked) = (Instant::now() + ASK_AFTER, false);
                self.next = Instant::now() + self.every.mul_f64(self.random.random_range(0.5..1.5));
                continue;
            }
            let until = if ending { patient_until } else { self.next.min(patient_until) };
            match voice.next(until.saturating_duration_since(now)).await {
                Ok(Came::Closed(_)) => return Ok(()),
                Ok(_) => (patient_until, asked) = (Instant::now() + ASK_AFTER, false),
                Err(error) if !raw::is_late(&error) => return Err(error),
                Err(_) if Instant::now() < patient_until => {}
                Err(error) if asked => return Err(error),
                Err(_) => {
                    voice.say(&Packet::PingReq).await?;
                    (patient_until, asked) = (Instant::now() + shared.patience, true);
                }
            }
        }
    }
}
