//! To applications that subscribe to a topic of rules. Live and at most once while somebody listens; while nobody does,
//! and until what has waited is handed over, messages go to the end of the topic's backlog, for a day.

use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::Publication;
use fulmar_broker::plane::{self, backlog};
use fulmar_broker::state::command::Command;
use fulmar_mqtt::{QoS, TopicName};
use tokio::time::Instant;

use super::detail::{Push, Wrong};
use crate::dispatch::push::push_topic;
use crate::dispatch::{Dispatch, Routes};
use crate::rule_engine::sink::{Handed, Parcel};

/// Seconds that a message waits for somebody to listen.
const KEPT_S: u64 = 24 * 3600;

/// What the names of these backlogs begin with.
pub(super) const NAME: &str = "push/";

/// For so long a message waits for the backlog to be handed over, before it goes to its end: while that goes on being
/// made longer it would never be.
const ORDER_WAIT: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// What is pushed before it is looked again who listens.
const PUSHED_MAX: usize = 64;

/// Bytes and entries of one call to the log.
const APPENDED_BYTES_MAX: usize = 128 * 1024;
const APPENDED_MAX: usize = 256;

/// See the module.
pub struct ToApplications {
    dispatch: Arc<Dispatch>,
    name: Box<str>,
    /// As the router has it.
    topic: TopicName,
}

impl ToApplications {
    /// # Errors
    /// The topic is none.
    pub fn new(push: &Push, dispatch: Arc<Dispatch>) -> Result<ToApplications, Wrong> {
        let topic =
            push_topic(&push.topic).ok_or_else(|| ("mqtt_forwarding.topic".to_owned(), "is no topic".to_owned()))?;
        Ok(ToApplications { dispatch, name: format!("{NAME}{}", push.topic).into(), topic })
    }

    /// Hands parcels over, in order.
    pub async fn hand_over(&mut self, parcels: &[Parcel]) -> Handed {
        let mut handed = Handed { done: 0, refused: Vec::new(), problem: None };
        let patience = Instant::now() + ORDER_WAIT;
        while let Some(rest) = parcels.get(handed.done..).filter(|rest| !rest.is_empty()) {
            if !self.dispatch.replica().acts() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let listeners = self.dispatch.listeners(&self.topic);
            match listeners {
                Some(routes) if self.waiting() == 0 => {
                    let pushed = self.push(&routes, rest);
                    handed.done += pushed;
                    if pushed == 0 {
                        // The way to another node has no room, or who listened is gone.
                        tokio::time::sleep(LOOK).await;
                    }
                }
                Some(_) if Instant::now() < patience => tokio::time::sleep(LOOK).await,
                _ => match self.append(rest).await {
                    Ok(appended) => handed.done += appended,
                    Err(problem) => {
                        handed.problem = Some(problem);
                        return handed;
                    }
                },
            }
        }
        handed
    }

    /// Pushes the first of these, as far as listeners take them, and says how many.
    fn push(&self, routes: &Routes, parcels: &[Parcel]) -> usize {
        let accepted_at = self.dispatch.now().log;
        let some = parcels.iter().take(PUSHED_MAX);
        let pushed = some.take_while(|parcel| {
            // With QoS 1 one that is gone by then is nobody's loss: another one gets it. All subscribe with 0.
            let publication =
                Publication::of_server(self.topic.clone(), parcel.body.clone(), QoS::AtLeastOnce, accepted_at);
            !routes.full() && self.dispatch.push(routes, &Arc::new(publication))
        });
        let pushed = pushed.count();
        self.dispatch.metrics().pushed("live", pushed as u64);
        pushed
    }

    /// Entries that wait for somebody to listen.
    fn waiting(&self) -> usize {
        self.dispatch.replica().read().plane().backlogs.view(&self.name).map_or(0, |view| view.entries)
    }

    /// Puts the first of these to the end of the backlog, and says how many.
    async fn append(&self, parcels: &[Parcel]) -> Result<usize, String> {
        let now = self.dispatch.now().log;
        let mut bytes = 0;
        let within = |parcel: &&Parcel| {
            let first = bytes == 0;
            bytes += parcel.body.len() + 128;
            first || bytes <= APPENDED_BYTES_MAX
        };
        let entries: Vec<_> = parcels
            .iter()
            .take(APPENDED_MAX)
            .take_while(within)
            .map(|parcel| backlog::Entry {
                key: parcel.key.clone(),
                body: parcel.body.clone(),
                topic: parcel.topic.clone(),
                at_ms: parcel.at_ms,
                expires_at: now.plus_s(KEPT_S),
            })
            .collect();
        let count = entries.len();
        let change = backlog::Change::Append { name: self.name.clone(), entries };
        let committed = self.dispatch.replica().commit(vec![Command::Plane(Box::new(plane::Change::Backlog(change)))]);
        committed.await.map_err(|error| error.to_string())?;
        self.dispatch.metrics().pushed("cached", count as u64);
        Ok(count)
    }
}
