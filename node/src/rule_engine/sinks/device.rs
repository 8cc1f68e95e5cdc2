//! To devices, and whoever else subscribes to a topic: a publish of the router's own. With a ttl sessions that are away
//! get it until then, as far as they stay; without one it goes to whoever is there.

use std::sync::Arc;

use fulmar_broker::Publication;
use fulmar_mqtt::QoS;

use super::detail::Forward;
use super::topic_of;
use crate::dispatch::Dispatch;
use crate::rule_engine::sink::{Handed, Parcel};

/// Publishes of one call.
const BATCH_MAX: usize = 128;

/// See the module.
pub struct ToDevices {
    dispatch: Arc<Dispatch>,
    forward: Forward,
}

impl ToDevices {
    #[must_use]
    pub fn new(forward: Forward, dispatch: Arc<Dispatch>) -> ToDevices {
        ToDevices { dispatch, forward }
    }

    /// Hands parcels over, in order.
    pub async fn hand_over(&mut self, parcels: &[Parcel]) -> Handed {
        let mut handed = Handed { done: 0, refused: Vec::new(), problem: None };
        while let Some(rest) = parcels.get(handed.done..).filter(|rest| !rest.is_empty()) {
            let now = self.dispatch.now().log;
            let publications = rest.iter().take(BATCH_MAX).map_while(|parcel| {
                let topic = topic_of(&self.forward.topic, parcel)?;
                let mut publication = Publication::of_server(topic, parcel.body.clone(), QoS::AtMostOnce, now);
                if self.forward.ttl_minutes > 0 {
                    publication.qos = QoS::AtLeastOnce;
                    publication.expires_at = Some(now.plus_s(self.forward.ttl_minutes * 60));
                }
                Some(Arc::new(publication))
            });
            let publications: Vec<_> = publications.collect();
            if publications.is_empty() {
                handed.refused.push(handed.done);
                handed.problem = Some("the event came on no topic".to_owned());
                handed.done += 1;
                continue;
            }
            let published = self.dispatch.publish_own(&publications).await;
            handed.refused.extend(published.refused.iter().map(|at| handed.done + at));
            handed.done += published.done;
            handed.problem = published.problem.or(handed.problem);
            if published.done < publications.len() {
                break;
            }
        }
        handed
    }
}
