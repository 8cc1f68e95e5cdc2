//! Why a client did not get, or could not send, what it should: findings from what all nodes know, the likeliest first.

mod cause;

use super::ledger::{Incident, What};
use super::slow::Slowness;
pub use cause::Cause;

/// Milliseconds after which an event is less likely to be what is asked about.
const RECENT_MS: u64 = 10 * 60 * 1000;

/// What a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// 0: of the replicated state.
    pub node: u64,
    /// Milliseconds since 1970; 0: now.
    pub at_ms: u64,
    pub epoch: u64,
    pub text: String,
    pub count: u64,
    /// The bound that it ran into; 0: none.
    pub bound: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub cause: Cause,
    pub sentence: String,
    pub evidence: Vec<Evidence>,
    pub advice: &'static str,
    /// The likelier, the larger.
    pub weight: u32,
}

/// A subscription that matches the topic that is asked about; all of them where none is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
}

/// The client's session in the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFacts {
    /// The node that has its connection.
    pub owner: Option<u64>,
    pub epoch: u64,
    pub persistent: bool,
    pub queued: u64,
    pub queued_bytes: u64,
    pub queued_max: u64,
    pub queued_bytes_max: u64,
    pub matching: Vec<Matching>,
}

/// The client's connection, as the node that has it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LiveFacts {
    pub node: u64,
    pub epoch: u64,
    /// Deliveries that wait in its live queue, publishers that wait for it, and what it has not acknowledged.
    pub queued: u64,
    pub waiting: u64,
    pub unacknowledged: u64,
    pub receive_maximum: u64,
    /// Whether a live route of its own matches the topic, and with which QoS at most.
    pub matches: Option<u8>,
}

/// What one node says of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleOnNode {
    pub node: u64,
    pub matched: u64,
    pub unmatched: u64,
    pub failed: u64,
    pub error: Option<(String, u64)>,
    pub actions: Vec<ActionOnNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActionOnNode {
    pub id: String,
    pub passed: u64,
    pub refused: u64,
    pub retried: u64,
    pub dropped: u64,
    pub waiting: u64,
    pub error: Option<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleFacts {
    pub id: String,
    pub exists: bool,
    pub active: bool,
    /// Its `where`.
    pub filter: String,
    pub nodes: Vec<RuleOnNode>,
    /// Entries of its backlogs.
    pub backlog: u64,
}

/// All that is known when the question is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Empty: only a rule is asked about.
    pub client: String,
    pub topic: Option<String>,
    pub now_ms: u64,
    /// The registry has a device of this name.
    pub registered: bool,
    pub frozen: bool,
    /// What bans it.
    pub bans: Vec<String>,
    pub session: Option<SessionFacts>,
    pub live: Vec<LiveFacts>,
    /// By node.
    pub incidents: Vec<(u64, Incident)>,
    pub slow: Vec<(u64, Slowness)>,
    /// There is a retained message on the topic.
    pub retained: bool,
    pub rule: Option<RuleFacts>,
    /// Nodes that did not answer.
    pub silent: usize,
}

struct Findings<'a> {
    facts: &'a Facts,
    found: Vec<Finding>,
}

/// What follows from the facts, the likeliest first. Never empty.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings { facts, found: Vec::new() };
    if let Some(rule) = &facts.rule {
        findings.rule(rule);
    }
    if !facts.client.is_empty() {
        findings.presence();
        findings.incidents();
        findings.session();
        findings.slowness();
    }
    let mut found = findings.found;
    if found.is_empty() {
        let sentence = match facts.silent {
            0 => "Nothing that any node remembers explains it.".to_owned(),
            silent => format!("Nothing explains it, but {silent} nodes did not answer."),
        };
        found.push(finding(Cause::NothingFound, 0, sentence, Vec::new()));
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    found
}

fn finding(cause: Cause, weight: u32, sentence: String, evidence: Vec<Evidence>) -> Finding {
    Finding { cause, sentence, evidence, advice: cause.advice(), weight }
}

fn seen((node, incident): &(u64, Incident)) -> Evidence {
    let text = match (incident.reason.as_str(), incident.topic.as_str()) {
        (reason, "") => format!("{}: {reason}", incident.what.as_str()),
        ("", topic) => format!("{}: {topic}", incident.what.as_str()),
        (reason, topic) => format!("{}: {reason}: {topic}", incident.what.as_str()),
    };
    let Incident { epoch, count, last_ms, .. } = *incident;
    Evidence { node: *node, at_ms: last_ms, epoch, text, count, bound: 0 }
}

impl Findings<'_> {
    fn add(&mut self, cause: Cause, weight: u32, sentence: String, evidence: Vec<Evidence>) {
        self.found.push(finding(cause, weight, sentence, evidence));
    }

    fn rule(&mut self, rule: &RuleFacts) {
        let id = &rule.id;
        if !rule.exists {
            self.add(Cause::RuleMissing, 100, format!("There is no rule {id}."), Vec::new());
            return;
        }
        if !rule.active {
            self.add(Cause::RuleInactive, 100, format!("The rule {id} is not active."), Vec::new());
        }
        for node in &rule.nodes {
            for action in &node.actions {
                let stuck = action.waiting > 0 || rule.backlog > 0 || action.refused > 0 || action.dropped > 0;
                if let Some((error, at_ms)) = action.error.as_ref().filter(|_| stuck || action.retried > 0) {
                    let sentence = format!("The action {} of the rule {id} cannot hand over: {error}.", action.id);
                    let text = format!(
                        "retried {}, refused {}, dropped {}, {} wait, {} in the backlog",
                        action.retried, action.refused, action.dropped, action.waiting, rule.backlog
                    );
                    let evidence =
                        Evidence { node: node.node, at_ms: *at_ms, text, count: action.retried, ..Evidence::default() };
                    self.add(Cause::SinkDown, 92, sentence, vec![evidence]);
                }
            }
            if let Some((error, at_ms)) = &node.error {
                let evidence = Evidence { node: node.node, at_ms: *at_ms, count: node.failed, ..Evidence::default() };
                let sentence = format!("The rule {id} fails on events: {error}.");
                self.add(Cause::RuleFailed, 80, sentence, vec![evidence]);
            }
        }
        let (matched, unmatched) =
            rule.nodes.iter().fold((0, 0), |(m, u), node| (m + node.matched, u + node.unmatched));
        if unmatched > 0 {
            let evidence = |node: &RuleOnNode| Evidence {
                node: node.node,
                text: format!("{} matched, {} did not", node.matched, node.unmatched),
                count: node.unmatched,
                ..Evidence::default()
            };
            let evidence = rule.nodes.iter().filter(|node| node.unmatched > 0).map(evidence).collect();
            let sentence =
                format!("The rule {id} did not take {unmatched} events by its condition: where {}.", rule.filter);
            self.add(Cause::RuleFiltered, if matched == 0 { 90 } else { 60 }, sentence, evidence);
        }
    }

    fn presence(&mut self) {
        let facts = self.facts;
        let client = &facts.client;
        for ban in &facts.bans {
            self.add(Cause::Banned, 110, format!("{client} is banned: {ban}."), Vec::new());
        }
        if facts.frozen {
            self.add(Cause::FrozenDevice, 105, format!("The device {client} is frozen."), Vec::new());
        }
        if facts.session.is_none() && facts.incidents.is_empty() && facts.live.is_empty() {
            if facts.registered {
                let sentence = format!("{client} is registered, and has no session: it has not connected.");
                self.add(Cause::NeverConnected, 95, sentence, Vec::new());
            } else {
                let sentence = format!("Nobody knows {client}: it is not registered, and has no session.");
                self.add(Cause::UnknownClient, 95, sentence, Vec::new());
            }
        } else if facts.session.is_none() && facts.live.is_empty() {
            let sentence = format!("{client} is not connected, and has no session that keeps messages for it.");
            self.add(Cause::OfflineNotKept, 70, sentence, Vec::new());
        }
    }

    /// Less for what is long ago.
    fn aged(&self, weight: u32, incident: &Incident) -> u32 {
        let old = self.facts.now_ms.saturating_sub(incident.last_ms) > RECENT_MS;
        if old { weight.saturating_sub(50) } else { weight }
    }

    fn incidents(&mut self) {
        let facts = self.facts;
        for found in &facts.incidents {
            let incident = &found.1;
            let (client, topic, reason) = (&facts.client, &incident.topic, &incident.reason);
            let times = incident.count;
            let (cause, weight, sentence) = match incident.what {
                What::ConnectRefused if reason.contains("ban") => {
                    (Cause::Banned, 108, format!("{client} was refused {times} times, as banned: {reason}."))
                }
                What::ConnectRefused if reason.contains("frozen") => {
                    (Cause::FrozenDevice, 98, format!("{client} was refused {times} times: {reason}."))
                }
                What::ConnectRefused => {
                    // Whoever has a connection now was let in since.
                    let weight =
                        if facts.session.as_ref().is_some_and(|session| session.owner.is_some()) { 30 } else { 96 };
                    (Cause::ConnectRefused, weight, format!("{client} was refused {times} times: {reason}."))
                }
                What::PublishDenied if self.about(topic) => (
                    Cause::NoPermission,
                    91,
                    format!("{client} may not publish to {topic}; it has tried {times} times."),
                ),
                What::SubscribeDenied if self.about(topic) => (
                    Cause::NoPermission,
                    91,
                    format!("{client} may not subscribe to {topic}; it has tried {times} times."),
                ),
                What::PublishRefused if self.about(topic) => (
                    if reason.contains("queue") || reason.contains("uota") { Cause::QueueFull } else { Cause::Dropped },
                    85,
                    format!("A publish to {topic} was refused {times} times: {reason}."),
                ),
                What::Dropped if self.about(topic) && reason == "queue_full" => {
                    (Cause::QueueFull, 90, format!("{times} messages on {topic} found the queue of {client} full."))
                }
                What::Dropped if self.about(topic) && reason == "slow_receiver" => {
                    (Cause::SlowReceiver, 80, format!("{client} took nothing for too long, and was cut."))
                }
                What::Dropped if self.about(topic) => {
                    (Cause::Dropped, 75, format!("{times} messages on {topic} for {client} were dropped: {reason}."))
                }
                What::Expired if self.about(topic) => {
                    (Cause::Expired, 87, format!("{times} messages on {topic} expired before {client} took them."))
                }
                What::TakenOver => (
                    Cause::SupersededOwner,
                    79,
                    format!("A newer connection took the session of {client} over, {times} times."),
                ),
                What::Ended => (Cause::ConnectionLost, 25, format!("The connection of {client} ended: {reason}.")),
                What::QosLowered if self.about(topic) => (
                    Cause::QosDowngrade,
                    76,
                    format!("{client} was granted less on {topic} than it asked for: {reason}."),
                ),
                _ => continue,
            };
            self.add(cause, self.aged(weight, incident), sentence, vec![seen(found)]);
        }
    }

    /// Whether a topic or filter of an event is what is asked about.
    fn about(&self, topic: &str) -> bool {
        let Some(asked) = &self.facts.topic else { return true };
        if topic.is_empty() || topic == asked {
            return true;
        }
        let names =
            fulmar_mqtt::TopicFilter::new(topic.to_owned()).ok().zip(fulmar_mqtt::TopicName::new(asked.clone()).ok());
        names.is_some_and(|(filter, name)| filter.matches(&name))
    }

    fn session(&mut self) {
        let facts = self.facts;
        let client = &facts.client;
        let Some(session) = &facts.session else { return };
        let state = |text: String, count: u64, bound: u64| Evidence {
            node: session.owner.unwrap_or_default(),
            epoch: session.epoch,
            text,
            count,
            bound,
            ..Evidence::default()
        };
        let full = session.queued >= session.queued_max || session.queued_bytes >= session.queued_bytes_max;
        if session.persistent && full && session.queued > 0 {
            let sentence = format!("The queue of {client} is full: {} messages.", session.queued);
            let evidence = vec![state("queue".to_owned(), session.queued, session.queued_max)];
            self.add(Cause::QueueFull, 89, sentence, evidence);
        } else if session.owner.is_none() && session.queued > 0 {
            let sentence = format!("{client} is not connected; {} messages wait for it.", session.queued);
            let evidence = vec![state("queue".to_owned(), session.queued, session.queued_max)];
            self.add(Cause::OfflineAndCached, 84, sentence, evidence);
        } else if session.owner.is_none() {
            let sentence = format!("{client} is not connected, and nothing waits for it.");
            self.add(Cause::OfflineNotKept, 40, sentence, vec![state("queue".to_owned(), 0, session.queued_max)]);
        }
        self.matching(session, &state);
    }

    fn matching(&mut self, session: &SessionFacts, state: &dyn Fn(String, u64, u64) -> Evidence) {
        let facts = self.facts;
        let client = &facts.client;
        let live = facts.live.iter().find_map(|live| live.matches);
        if let Some(topic) = &facts.topic
            && session.matching.is_empty()
            && live.is_none()
        {
            let sentence = format!("{client} has no subscription that matches {topic}.");
            self.add(Cause::NotSubscribed, 88, sentence, vec![state("no filter matches".to_owned(), 0, 0)]);
            return;
        }
        if !session.matching.is_empty() && session.matching.iter().all(|matching| matching.no_local) {
            let sentence = format!("{client} subscribes with no-local: it does not get what it publishes itself.");
            self.add(Cause::NoLocal, 35, sentence, vec![state("no-local".to_owned(), 0, 0)]);
        }
        let qos = session.matching.iter().map(|matching| matching.qos).max().or(live);
        if qos == Some(0) {
            let filters: Vec<&str> = session.matching.iter().map(|matching| &*matching.filter).collect();
            let sentence = format!(
                "{client} subscribes with QoS 0: what is published with more comes at most once, and is not kept."
            );
            let weight = if session.owner.is_none() { 82 } else { 50 };
            self.add(Cause::QosDowngrade, weight, sentence, vec![state(filters.join(" "), 0, 0)]);
        }
        if facts.topic.is_some() && facts.retained {
            let sentence =
                "There is a retained message on the topic: it was sent when the client subscribed.".to_owned();
            self.add(Cause::RetainedOnly, 15, sentence, Vec::new());
        }
    }

    fn slowness(&mut self) {
        let facts = self.facts;
        let client = &facts.client;
        for live in &facts.live {
            let waits = live.queued + live.waiting;
            if live.unacknowledged >= live.receive_maximum && live.receive_maximum > 0 {
                let sentence = format!(
                    "{client} has not acknowledged {} messages, as many as it takes; {waits} more wait.",
                    live.unacknowledged
                );
                let (node, epoch, text) = (live.node, live.epoch, "receive maximum".to_owned());
                let evidence = Evidence {
                    node,
                    epoch,
                    text,
                    count: live.unacknowledged,
                    bound: live.receive_maximum,
                    ..Evidence::default()
                };
                self.add(Cause::ReceiveMaximum, 86, sentence, vec![evidence]);
            } else if live.waiting > 0 {
                let sentence = format!("{client} takes its messages slowly: {waits} wait for it.");
                let evidence = Evidence { node: live.node, epoch: live.epoch, count: waits, ..Evidence::default() };
                self.add(Cause::SlowReceiver, 81, sentence, vec![evidence]);
            }
        }
        for (node, slowness) in &facts.slow {
            let Slowness { count, longest_ms } = *slowness;
            let sentence = format!("{client} was slow with {count} messages; one took {longest_ms} ms.");
            let evidence = Evidence { node: *node, count, text: format!("{longest_ms} ms"), ..Evidence::default() };
            self.add(Cause::SlowReceiver, 45, sentence, vec![evidence]);
        }
    }
}

#[cfg(test)]
mod tests;
