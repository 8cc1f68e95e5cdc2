//! Why a client does not get, or cannot send, what it should: the facts from all nodes, and what follows from them.

use fulmar_broker::insight::why::{
    ActionOnNode, Facts, Finding, LiveFacts, Matching, RuleFacts, RuleOnNode, SessionFacts, findings,
};
use fulmar_broker::insight::{Incident, Slowness, What};
use fulmar_broker::state::State;
use fulmar_broker::steer::bans::Target;
use fulmar_broker::{NodeId, SessionKey};
use fulmar_mqtt::TopicName;
use fulmar_proto::peer::v1 as peer;

use super::Answered;
use crate::cluster::clock::wall_ms;
use crate::dispatch::insight::keys_of;
use crate::operations::input::Input;
use crate::operations::{Error, Operations};

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// A client's identity: the client id of a generic client, the id of a device.
    pub client: Option<String>,
    pub topic: Option<String>,
    pub rule: Option<String>,
}

impl Question {
    /// # Errors
    /// Nobody is asked about, or the topic is none.
    pub fn read(input: &Input<'_>) -> Result<Question, Error> {
        let given = |name| Ok::<_, Error>(input.text(name)?.filter(|text| !text.is_empty()));
        let question = Question { client: given("client")?, topic: given("topic")?, rule: given("rule")? };
        if question.client.is_none() && question.rule.is_none() {
            return Err(Error::invalid("client", "is required, unless rule is given"));
        }
        if let Some(topic) = &question.topic
            && TopicName::new(topic.clone()).is_err()
        {
            return Err(Error::invalid("topic", "must be a topic name, without wildcards"));
        }
        Ok(question)
    }
}

/// The likeliest first; never empty.
#[derive(Debug, Clone)]
pub struct Findings {
    pub findings: Vec<Finding>,
    /// Members that did not answer.
    pub silent: Vec<NodeId>,
}

impl Operations {
    /// Answers by what all nodes know now. Nothing need have been traced.
    pub async fn why(&self, question: &Question) -> Findings {
        let client = question.client.clone().unwrap_or_default();
        let topic = question.topic.clone().unwrap_or_default();
        let asked = peer::ExamineRequest {
            names: if client.is_empty() { Vec::new() } else { self.names_of(&client) },
            topic,
            rule: question.rule.clone().unwrap_or_default(),
            slow: u32::MAX,
            ..peer::ExamineRequest::default()
        };
        let gathered = self.examine_all(&asked).await;
        let mut facts = self.replicated_facts(question);
        facts.silent = gathered.silent.len();
        for answered in &gathered.answers {
            add_answer(&mut facts, answered);
        }
        Findings { findings: findings(&facts), silent: gathered.silent }
    }

    /// What a client may have called itself before it was known: user names that its device would send.
    fn names_of(&self, client: &str) -> Vec<String> {
        let mut names = vec![client.to_owned()];
        self.read(|registry| {
            if let Some((device, _)) = registry.device(client) {
                let device = &device.record;
                names.push(format!("{}&{}", device.node_id, device.product_id));
                names.push(format!("{}{}", device.product_id, device.node_id));
            }
        });
        names
    }

    fn replicated_facts(&self, question: &Question) -> Facts {
        let client = question.client.clone().unwrap_or_default();
        let state = self.replica().read();
        let name = question.topic.as_ref().and_then(|topic| TopicName::new(topic.clone()).ok());
        let key = keys_of(&client).find(|key| state.session(key).is_some());
        let device = state.registry().device(&client).map(|(device, _)| device.record.clone());
        let banned = |target: &Target| match target {
            Target::ClientId(name) | Target::UserName(name) => !client.is_empty() && **name == *client,
            Target::Address(_) => false,
        };
        let now = self.dispatch.now().log;
        let bans = state.steer().bans.iter().filter(|ban| ban.counts(now) && banned(&ban.target));
        let bans = bans.map(|ban| format!("{}, by {}", ban.reason, ban.by)).collect();
        let rule = question.rule.as_ref().map(|id| rule_facts(&state, id));
        Facts {
            topic: question.topic.clone(),
            now_ms: wall_ms(),
            registered: device.is_some(),
            frozen: device.is_some_and(|device| device.frozen),
            bans,
            session: key.and_then(|key| session_facts(&state, &key, name.as_ref())),
            retained: name.is_some_and(|name| state.retained().get(&name).is_some()),
            rule,
            client,
            ..Facts::default()
        }
    }
}

fn session_facts(state: &State, key: &SessionKey, topic: Option<&TopicName>) -> Option<SessionFacts> {
    let view = state.session(key)?;
    let limits = state.limits();
    let subscriptions = state.subscriptions(key).iter();
    let wanted = subscriptions.filter(|subscription| topic.is_none_or(|topic| subscription.filter.matches(topic)));
    Some(SessionFacts {
        owner: view.owner.map(|owner| owner.node.0),
        epoch: view.epoch.0,
        persistent: view.expiry_s > 0,
        queued: view.queue_entries as u64,
        queued_bytes: view.queue_bytes,
        queued_max: limits.queue_entries_max.into(),
        queued_bytes_max: limits.queue_bytes_max,
        matching: wanted
            .map(|subscription| Matching {
                filter: subscription.filter.as_str().to_owned(),
                qos: subscription.options.qos as u8,
                no_local: subscription.options.no_local,
            })
            .collect(),
    })
}

fn rule_facts(state: &State, id: &str) -> RuleFacts {
    let registry = state.registry();
    let Some(rule) = registry.rule(id).map(|kept| kept.record.clone()) else {
        return RuleFacts { id: id.to_owned(), ..RuleFacts::default() };
    };
    let actions = registry.rule_actions().filter(|action| *action.record.rule_id == *id);
    let backlogs = actions.filter_map(|action| {
        let name = format!("{}{}", fulmar_broker::plane::backlog::ACTION_PREFIX, action.record.id);
        state.plane().backlogs.view(&name)
    });
    RuleFacts {
        id: id.to_owned(),
        exists: true,
        active: rule.active,
        filter: rule.filter.to_string(),
        nodes: Vec::new(),
        backlog: backlogs.map(|view| view.entries as u64).sum(),
    }
}

fn add_answer(facts: &mut Facts, answered: &Answered) {
    let Answered { node, answer, .. } = answered;
    let node = node.0;
    for incident in &answer.incidents {
        let Some(what) = What::parse(&incident.what) else { continue };
        let peer::Incident { reason, topic, epoch, count, first_ms, last_ms, .. } = incident.clone();
        facts.incidents.push((node, Incident { what, reason, topic, epoch, count, first_ms, last_ms }));
    }
    if let Some(connection) = &answer.connection {
        facts.live.push(LiveFacts {
            node,
            epoch: connection.epoch,
            queued: connection.queued,
            waiting: connection.waiting,
            unacknowledged: connection.unacknowledged,
            receive_maximum: connection.receive_maximum,
            matches: connection.matches.and_then(|qos| u8::try_from(qos).ok()),
        });
    }
    for slow in answer.slow.iter().filter(|slow| slow.client == facts.client) {
        facts.slow.push((node, Slowness { count: slow.count, longest_ms: slow.longest_ms }));
    }
    if let (Some(rule), Some(run)) = (&mut facts.rule, &answer.rule) {
        let error = |error: &str, at_ms: u64| (!error.is_empty()).then(|| (error.to_owned(), at_ms));
        let action = |action: &peer::RuleActionRun| ActionOnNode {
            id: action.id.clone(),
            passed: action.passed,
            refused: action.refused,
            retried: action.retried,
            dropped: action.dropped,
            waiting: action.waiting,
            error: error(&action.error, action.error_ms),
        };
        rule.nodes.push(RuleOnNode {
            node,
            matched: run.matched,
            unmatched: run.unmatched,
            failed: run.failed,
            error: error(&run.error, run.error_ms),
            actions: run.actions.iter().map(action).collect(),
        });
    }
}
