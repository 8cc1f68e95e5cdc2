//! Traces: which run, and what all nodes have seen for one.

use std::collections::HashMap;

use fulmar_broker::NodeId;
use fulmar_broker::insight::hops::PAYLOAD_BYTES_MAX;
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_broker::steer;
use fulmar_broker::steer::traces::{Answer, Change, Subject, TRACE_S_DEFAULT, TRACE_S_MAX, Trace};
use fulmar_mqtt::TopicFilter;
use fulmar_proto::peer::v1 as peer;

use super::{Answered, Gathered};
use crate::operations::input::Input;
use crate::operations::{Error, Operations};

/// Bytes of a client's or a rule's name.
const NAME_BYTES_MAX: usize = 1_024;

/// A trace that is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTrace {
    pub subject: Subject,
    pub seconds: u64,
    pub payload_bytes: u32,
}

impl NewTrace {
    /// # Errors
    /// What is wrong with which member.
    pub fn read(input: &Input<'_>) -> Result<NewTrace, Error> {
        let given = |name| Ok::<_, Error>(input.text(name)?.filter(|text| !text.is_empty()));
        let direction = [("both", (true, true)), ("send", (true, false)), ("receive", (false, true))];
        let (sends, receives) = input.word("direction", &direction)?.unwrap_or((true, true));
        let mut subjects = Vec::new();
        if let Some(client) = given("client")? {
            subjects.push(Subject::Client { client: client.into(), sends, receives });
        }
        if let Some(topic) = given("topic")? {
            let filter = TopicFilter::new(topic).map_err(|_| Error::invalid("topic", "must be a topic filter"))?;
            subjects.push(Subject::Topic(filter));
        }
        if let Some(rule) = given("rule")? {
            subjects.push(Subject::Rule(rule.into()));
        }
        if let Some(one_in) = input.number("sample", u32::MAX.into())?.filter(|one_in| *one_in > 0) {
            subjects.push(Subject::Sample(u32::try_from(one_in).unwrap_or(u32::MAX)));
        }
        let (Some(subject), true) = (subjects.pop(), subjects.is_empty()) else {
            return Err(Error::invalid("client", "or topic, rule or sample: exactly one of them is required"));
        };
        if let Subject::Client { client: name, .. } | Subject::Rule(name) = &subject
            && name.len() > NAME_BYTES_MAX
        {
            return Err(Error::invalid("client", format!("has more than {NAME_BYTES_MAX} bytes")));
        }
        let seconds = input.number("seconds", TRACE_S_MAX)?.filter(|seconds| *seconds > 0).unwrap_or(TRACE_S_DEFAULT);
        let payload_bytes = input.number("payload_bytes", PAYLOAD_BYTES_MAX as u64)?.unwrap_or_default();
        Ok(NewTrace { subject, seconds, payload_bytes: u32::try_from(payload_bytes).unwrap_or_default() })
    }
}

/// What was seen for a trace.
#[derive(Debug, Clone)]
pub struct TracePage {
    /// Each with the node that has seen it, and its generation; by time.
    pub hops: Vec<(NodeId, u64, peer::TraceHop)>,
    /// Of each node that has answered: its clock's offset in microseconds, the hops that have gone, and where to go on.
    pub nodes: Vec<(NodeId, i64, u64, u64)>,
    pub silent: Vec<NodeId>,
}

impl Operations {
    /// Has all nodes trace something. Answered once every live node has begun to.
    ///
    /// # Errors
    /// As many run as may, or the cluster takes no changes.
    pub async fn start_trace(&self, new: NewTrace, by: &str) -> Result<Trace, Error> {
        let NewTrace { subject, seconds, payload_bytes } = new;
        match self.change_traces(Change::Start { subject, seconds, payload_bytes, by: by.into() }).await? {
            Answer::Started(number) => self.trace(number),
            _ => Err(Error::Full),
        }
    }

    /// Ends a trace; what was seen for it stays until its place is needed. `false` if it does not run.
    ///
    /// # Errors
    /// The cluster takes no changes.
    pub async fn stop_trace(&self, number: u64) -> Result<bool, Error> {
        Ok(self.change_traces(Change::Stop { number }).await? == Answer::Stopped)
    }

    async fn change_traces(&self, change: Change) -> Result<Answer, Error> {
        let command = Command::Steer(Box::new(steer::Change::Trace(change)));
        let (committed, index) = self.replica().commit_at(vec![command]).await;
        let outcome = committed.map_err(|_| Error::Unavailable)?.into_iter().next();
        let Some(Outcome::Steer(steer::Answer::Trace(answer))) = outcome else { return Err(Error::Unavailable) };
        if !self.replica().stable(index).await {
            return Err(Error::Unavailable);
        }
        Ok(answer)
    }

    /// Those that run, by their numbers.
    #[must_use]
    pub fn traces(&self) -> Vec<Trace> {
        let state = self.replica().read();
        let mut traces: Vec<Trace> = state.steer().traces.running(self.dispatch.now().log).cloned().collect();
        traces.sort_by_key(|trace| trace.number);
        traces
    }

    fn trace(&self, number: u64) -> Result<Trace, Error> {
        let found = self.traces().into_iter().find(|trace| trace.number == number);
        found.ok_or_else(|| Error::invalid("trace", format!("{number} does not run")))
    }

    /// What all nodes have seen for a trace, by time. `from`: where to go on, by node; all that is kept otherwise.
    pub async fn trace_hops(&self, number: u64, from: &HashMap<NodeId, u64>) -> TracePage {
        // Each node counts its own: the lowest is asked for, and what a caller has is passed over.
        let hops_from = from.values().min().copied().unwrap_or_default();
        let asked = peer::ExamineRequest { trace: number, hops_from, ..peer::ExamineRequest::default() };
        let Gathered { answers, silent } = self.examine_all(&asked).await;
        let mut page = TracePage { hops: Vec::new(), nodes: Vec::new(), silent };
        for Answered { node, clock_offset_us, answer } in answers {
            let next = answer.hops_next;
            let first = next.saturating_sub(answer.hops.len() as u64);
            let had = from.get(&node).copied().unwrap_or_default().saturating_sub(first);
            let generation = answer.generation;
            let fresh = answer.hops.into_iter().skip(usize::try_from(had).unwrap_or(usize::MAX));
            page.hops.extend(fresh.map(|hop| (node, generation, hop)));
            let next = next.max(from.get(&node).copied().unwrap_or_default());
            page.nodes.push((node, clock_offset_us, answer.hops_lost, next));
        }
        page.hops.sort_by_key(|(_, _, hop)| hop.at_us);
        page
    }
}
