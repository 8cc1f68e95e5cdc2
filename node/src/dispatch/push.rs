//! What the router itself publishes to whoever listens, in the whole cluster: pushes of rules to applications, and
//! messages without a publisher that somebody would answer.

use std::sync::Arc;

use fulmar_broker::Publication;
use fulmar_broker::outbound::Orphan;
use fulmar_mqtt::{QoS, TopicName};
use fulmar_platform::dialect::application::PREFIX;

use super::Dispatch;
use super::peers::Choice;
use super::routes::{Member, Routes};

/// The topic in the router of a topic of rule actions; `None`: it is none.
#[must_use]
pub fn push_topic(topic: &str) -> Option<TopicName> {
    TopicName::new(format!("{PREFIX}{topic}")).ok()
}

impl Dispatch {
    /// Who listens to a topic that rules push to, wherever; `None`: nobody does.
    #[must_use]
    pub fn listeners(&self, topic: &TopicName) -> Option<Arc<Routes>> {
        let routes = self.routes_for(topic);
        (!routes.shared.is_empty()).then_some(routes)
    }

    /// Gives a message to one member of each group that listens, each time to the next one. Where that one is gone by the
    /// time the message gets there it goes to another. `false`: no member was left.
    pub fn push(&self, routes: &Routes, publication: &Arc<Publication>) -> bool {
        let mut taken = false;
        for shared in &routes.shared {
            let orphan = Orphan { filter: shared.filter.clone(), publication: publication.clone() };
            taken |= self.push_to_group(routes, &orphan, &mut Choice::default());
        }
        taken
    }

    /// Whether those listeners that are connected here have room for many messages, and the ways to the others too. What
    /// comes when there is none is dropped, oldest first: who hands over a backlog waits.
    #[must_use]
    pub fn roomy(&self, routes: &Routes) -> bool {
        let members = routes.shared.iter().flat_map(|shared| &shared.members).filter_map(Member::here);
        !routes.full() && members.into_iter().all(|target| target.receiver.outbound().roomy())
    }

    /// The run of a node that hands over what has waited for the listeners: of one of them, so that it can see how much
    /// that takes.
    #[must_use]
    pub fn hands_over(&self, routes: &Routes) -> bool {
        let first =
            routes.shared.iter().flat_map(|shared| &shared.members).min_by(|one, other| one.key().cmp(other.key()));
        first.is_some_and(|member| member.here().is_some())
    }

    /// Publishes to everybody who listens live, here and on other nodes, at most once and without the log. Persistent
    /// sessions that are connected get it as they get any message of QoS 0.
    pub fn publish_everywhere(&self, publication: &Arc<Publication>) {
        debug_assert_eq!(publication.qos, QoS::AtMostOnce);
        let routes = self.routes_for(&publication.topic);
        self.push_to_targets(&routes, publication);
        for link in routes.all_peers() {
            // At QoS 0 nothing is owed to anybody.
            let _ = link.begin().push(publication, None, || None);
        }
        self.push(&routes, publication);
    }
}
