//! Messages of the router's own that take every way that a client's publish takes: to live receivers here and on other
//! nodes, to members of shared subscriptions, and through the log to sessions that wait.

use std::sync::Arc;

use fulmar_broker::Publication;
use fulmar_broker::state::command::{Command, Outcome, PublishCommand};
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter};

use super::Dispatch;
use super::peers::Choice;
use super::publish::{Admission, Nobody};
use super::routes::{Member, Routes};
use crate::cluster::links;

/// How far a run of publications has come.
#[derive(Debug, Default)]
pub struct Published {
    /// So many, from the first on, have gone everywhere that they go.
    pub done: usize,
    /// Of these, places of those that a bound refuses for good.
    pub refused: Vec<usize>,
    /// Whether each that went had somebody to go to.
    pub reached: Vec<bool>,
    /// Why not all have gone; or why some were refused.
    pub problem: Option<String>,
}

impl Dispatch {
    /// Publishes in order, as far as there is room. What is above QoS 0 and matches sessions that wait is committed
    /// before it is delivered to others.
    pub async fn publish_own(&self, publications: &[Arc<Publication>]) -> Published {
        let mut published = Published::default();
        let (mut routes, mut commands, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for (at, publication) in publications.iter().enumerate() {
            let found = self.routes_for(&publication.topic);
            match self.admit(&found, publication, false) {
                Admission::Open => {}
                // A queue that is full drops its oldest: one who is away stops nothing for the others.
                Admission::Refused(ReasonCode::QuotaExceeded) if self.replica.read().has_room(publication.bytes()) => {}
                Admission::Congested | Admission::Refused(ReasonCode::QuotaExceeded) => {
                    published.problem = Some("there is no room now".to_owned());
                    break;
                }
                Admission::Refused(reason) => {
                    published.refused.push(at);
                    published.problem = Some(format!("refused: {reason}"));
                }
            }
            if found.durable_for(publication) && published.refused.last() != Some(&at) {
                let publication = Arc::new(publication.detached());
                let publish = PublishCommand { publication, received: None, only: None, epoch: None };
                commands.push(Command::Publish(Box::new(publish)));
                of.push(at);
            }
            routes.push(found);
        }
        let mut outcomes = Vec::new();
        if !commands.is_empty() {
            match self.replica.commit(commands).await {
                Ok(committed) => outcomes = committed,
                Err(error) => {
                    published.problem = Some(format!("not committed: {error}"));
                    return published;
                }
            }
        }
        let mut outcomes = of.into_iter().zip(outcomes).peekable();
        for (at, (publication, routes)) in publications.iter().zip(&routes).enumerate() {
            let mut reached = false;
            let mut served: Vec<Arc<TopicFilter>> = Vec::new();
            match outcomes.next_if(|(of, _)| *of == at).map(|(_, outcome)| outcome) {
                Some(Outcome::Published { receivers }) => reached = receivers > 0,
                Some(Outcome::Shared { receivers, groups }) => (reached, served) = (receivers > 0, groups),
                Some(Outcome::Refused(ReasonCode::QuotaExceeded)) => {
                    published.problem = Some("there is no room now".to_owned());
                    break;
                }
                Some(Outcome::Refused(reason)) => {
                    published.refused.push(at);
                    published.problem = Some(format!("refused: {reason}"));
                }
                _ => {}
            }
            if !published.refused.contains(&at) {
                reached |= self.deliver_own(publication, routes, &served);
            }
            published.reached.push(reached);
            published.done += 1;
        }
        published
    }

    /// To live receivers. Whether there was any.
    fn deliver_own(&self, publication: &Arc<Publication>, routes: &Routes, served: &[Arc<TopicFilter>]) -> bool {
        let (mut reached, now_ms) = (false, self.now().mono_ms);
        for target in &routes.targets {
            if let Some(delivery) = target.delivery(publication) {
                let pushed = target.receiver.outbound().push(delivery, None, now_ms, || Box::new(Nobody));
                self.note_pushed(&target.receiver, &pushed);
                reached |= pushed != fulmar_broker::outbound::Pushed::Gone;
            }
        }
        let above_0 = routes.peers(QoS::AtLeastOnce);
        for link in routes.all_peers() {
            if publication.qos == QoS::AtMostOnce || above_0.iter().any(|peer| Arc::ptr_eq(peer, link)) {
                reached |= link.begin().push(publication, None, || None) != links::Pushed::Gone;
            }
        }
        for shared in routes.shared.iter().filter(|shared| !served.contains(&shared.filter)) {
            reached |= shared.in_turn().any(|member| match member {
                Member::Here(target) => {
                    let delivery = target.shared_delivery(publication);
                    if target.receiver.persistent() && delivery.qos != QoS::AtMostOnce {
                        return false; // it came after the message: its packet ids belong to its durable queue
                    }
                    let group = Some(shared.filter.clone());
                    let pushed = target.receiver.outbound().push(delivery, group, now_ms, || Box::new(Nobody));
                    self.note_pushed(&target.receiver, &pushed);
                    pushed != fulmar_broker::outbound::Pushed::Gone
                }
                Member::There(away) => self.push_away(away, publication, || Choice { tried: Vec::new(), waiter: None }),
            });
        }
        reached
    }
}
