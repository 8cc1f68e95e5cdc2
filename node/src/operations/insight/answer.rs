//! What this node answers when another one, or it itself, asks what it remembers.

use fulmar_broker::insight::{Hop, Incident};
use fulmar_mqtt::TopicName;
use fulmar_proto::peer::v1 as peer;

use crate::cluster::calls::Examined;
use crate::cluster::clock::wall_us;
use crate::dispatch::insight::keys_of;
use crate::operations::Operations;

/// Hops of one answer.
const HOPS_MAX: usize = 4_096;

/// Names of a client that are looked up.
const NAMES_MAX: usize = 16;

impl Examined for Operations {
    fn examine(&self, asked: peer::ExamineRequest) -> peer::ExamineResponse {
        self.remembers(asked)
    }
}

impl Operations {
    pub(super) fn remembers(&self, mut asked: peer::ExamineRequest) -> peer::ExamineResponse {
        let insight = self.dispatch.insight();
        let (node, generation) = self.replica().run();
        let mut answer = peer::ExamineResponse {
            now_us: wall_us(),
            node: node.0,
            generation: generation.0,
            ..peer::ExamineResponse::default()
        };
        if let Some((hops, lost, next)) = insight.hops(asked.trace, asked.hops_from, HOPS_MAX) {
            answer.hops = hops.into_iter().map(hop_message).collect();
            (answer.hops_lost, answer.hops_next) = (lost, next);
        }
        asked.names.truncate(NAMES_MAX);
        if let Some(client) = asked.names.first() {
            // First, for it may have something to tell that nobody has taken.
            answer.connection = self.connection(client, &asked.topic);
            answer.incidents = insight.incidents(&asked.names).into_iter().map(incident_message).collect();
        }
        if !asked.rule.is_empty() {
            answer.rule = self.rules.figures(&asked.rule).map(rule_message);
        }
        let now_ms = self.dispatch.now().mono_ms;
        if asked.top > 0 {
            let top = insight.top(asked.top as usize, now_ms).into_iter();
            answer.top = top
                .map(|usage| peer::TopicUsage {
                    topic: usage.topic,
                    messages: usage.messages,
                    bytes: usage.bytes,
                    over: usage.over,
                })
                .collect();
        }
        let slow = insight.slow(now_ms).into_iter().take(asked.slow as usize);
        answer.slow = slow
            .map(|slow| peer::SlowClient {
                client: slow.client.into(),
                count: slow.slowness.count,
                longest_ms: slow.slowness.longest_ms,
                ago_ms: now_ms.saturating_sub(slow.last_ms),
            })
            .collect();
        answer
    }

    fn connection(&self, client: &str, topic: &str) -> Option<peer::LiveConnection> {
        let receiver = keys_of(client).find_map(|key| self.dispatch.receiver(&key))?;
        self.dispatch.take_notes(&receiver);
        let matches = TopicName::new(topic.to_owned()).ok().and_then(|topic| {
            let routes = self.dispatch.routes_for(&topic);
            let shared =
                routes.shared.iter().flat_map(|shared| shared.members.iter().filter_map(|member| member.here()));
            let own = routes.targets.iter().chain(shared).filter(|target| target.receiver.key().same(receiver.key()));
            own.map(|target| target.all.qos as u32).max()
        });
        let look = receiver.outbound().look(0);
        Some(peer::LiveConnection {
            epoch: receiver.epoch().0,
            queued: look.queued as u64,
            waiting: look.waiting as u64,
            unacknowledged: look.inflight as u64,
            receive_maximum: look.receive_maximum.into(),
            matches,
        })
    }
}

fn hop_message(hop: Hop) -> peer::TraceHop {
    let detail = |(name, value): (&'static str, String)| peer::TraceDetail { name: name.to_owned(), value };
    peer::TraceHop {
        message: hop.message,
        at_us: hop.at_us,
        stage: hop.stage.as_str().to_owned(),
        client: hop.client.into(),
        epoch: hop.epoch,
        topic: hop.topic.into(),
        details: hop.details.into_iter().map(detail).collect(),
        payload: hop.payload,
    }
}

fn incident_message(incident: Incident) -> peer::Incident {
    let Incident { what, reason, topic, epoch, count, first_ms, last_ms } = incident;
    peer::Incident { what: what.as_str().to_owned(), reason, topic, epoch, count, first_ms, last_ms }
}

fn rule_message(figures: crate::rule_engine::Figures) -> peer::RuleRun {
    let error =
        |error: Option<(std::sync::Arc<str>, u64)>| error.map_or((String::new(), 0), |(e, at)| (e.to_string(), at));
    let actions = figures.actions.iter().map(|(id, figures, waiting)| {
        let (error, error_ms) = error(figures.error.get());
        peer::RuleActionRun {
            id: id.to_string(),
            passed: figures.passed.get(),
            refused: figures.refused.get(),
            retried: figures.retried.get(),
            dropped: figures.dropped.get(),
            waiting: *waiting as u64,
            error,
            error_ms,
        }
    });
    let actions = actions.collect();
    let (error, error_ms) = error(figures.rule.error.get());
    peer::RuleRun {
        matched: figures.rule.matched.get(),
        unmatched: figures.rule.unmatched.get(),
        failed: figures.rule.failed.get(),
        error,
        error_ms,
        actions,
    }
}
