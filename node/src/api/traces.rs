//! Traces of messages.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fulmar_broker::NodeId;
use fulmar_broker::steer::traces::{Subject, Trace};
use fulmar_platform::dialect::time::iso_ms;
use fulmar_proto::peer::v1 as peer;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value, json};

use super::Fault;
use super::call::{Answer, Call};
use super::diagnosis::node_text;
use crate::operations::input::Input;
use crate::operations::{NewTrace, TracePage};

/// Messages of an answer.
const MESSAGES_DEFAULT: u64 = 100;
const MESSAGES_MAX: u64 = 1_000;

/// Between two looks for new hops.
const LOOK_EVERY: Duration = Duration::from_millis(300);

fn trace_json(trace: &Trace) -> Value {
    let mut json = json!({
        "trace": trace.number,
        "started_at": iso_ms(trace.started_at.0),
        "ends_at": iso_ms(trace.ends_at.0),
        "payload_bytes": trace.payload_bytes,
        "by": trace.by,
    });
    match &trace.subject {
        Subject::Client { client, sends, receives } => {
            json["client"] = (&**client).into();
            json["direction"] = match (sends, receives) {
                (true, true) => "both",
                (true, false) => "send",
                (false, _) => "receive",
            }
            .into();
        }
        Subject::Topic(filter) => json["topic"] = filter.as_str().into(),
        Subject::Rule(rule) => json["rule"] = (&**rule).into(),
        Subject::Sample(one_in) => json["sample"] = (*one_in).into(),
    }
    json
}

fn hop_json((node, generation, hop): &(NodeId, u64, peer::TraceHop)) -> Value {
    let details: Map<String, Value> =
        hop.details.iter().map(|detail| (detail.name.clone(), detail.value.clone().into())).collect();
    json!({
        "message": format!("{:016x}", hop.message),
        "node": node_text(*node),
        "generation": generation,
        "at_us": hop.at_us,
        "at": iso_ms(hop.at_us / 1000),
        "stage": hop.stage,
        "client": hop.client,
        "epoch": hop.epoch,
        "topic": hop.topic,
        "details": details,
        "payload": STANDARD.encode(&hop.payload),
    })
}

fn number(input: &Input<'_>) -> Result<u64, Fault> {
    input.number("trace", u64::MAX)?.filter(|number| *number > 0).ok_or_else(|| Fault::missing("trace"))
}

pub(super) async fn start(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let new = NewTrace::read(&Input::of(&body)?)?;
    let trace = call.operations().start_trace(new, &call.caller.name).await?;
    Answer::created(&trace.number.to_string(), trace_json(&trace))
}

pub(super) async fn stop(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let stopped = call.operations().stop_trace(number(&Input::of(&body)?)?).await?;
    Answer::ok(json!({ "stopped": stopped }))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let traces: Vec<Value> = call.operations().traces().iter().map(trace_json).collect();
    Answer::ok(json!({ "traces": traces }))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let limit = input.number("limit", MESSAGES_MAX)?.filter(|limit| *limit > 0).unwrap_or(MESSAGES_DEFAULT);
    let page = call.operations().trace_hops(number(&input)?, &HashMap::new()).await;
    let nodes: Vec<Value> = page
        .nodes
        .iter()
        .map(|(node, offset, lost, _)| json!({ "node": node_text(*node), "clock_offset_us": offset, "lost": lost }))
        .collect();
    let silent: Vec<String> = page.silent.iter().map(|node| node_text(*node)).collect();
    Answer::ok(json!({ "messages": messages_json(&page, limit as usize), "nodes": nodes, "silent": silent }))
}

/// The hops of each message together; messages by their first hops, the newest of them.
fn messages_json(page: &TracePage, most: usize) -> Vec<Value> {
    let mut order: Vec<u64> = Vec::new();
    let mut paths: HashMap<u64, (String, Vec<Value>)> = HashMap::new();
    for hop in &page.hops {
        let message = hop.2.message;
        let (topic, path) = paths.entry(message).or_insert_with(|| {
            order.push(message);
            (String::new(), Vec::new())
        });
        if topic.is_empty() {
            topic.clone_from(&hop.2.topic);
        }
        path.push(hop_json(hop));
    }
    let newest = order.len().saturating_sub(most);
    let path = |message: u64| {
        let (topic, hops) = paths.remove(&message).unwrap_or_default();
        json!({ "message": format!("{message:016x}"), "topic": topic, "hops": hops })
    };
    order.split_off(newest).into_iter().map(path).collect()
}

/// What a stream of hops goes on from.
struct Following {
    call: Call,
    trace: Result<u64, Fault>,
    from: HashMap<NodeId, u64>,
    first: bool,
    over: bool,
}

pub(super) fn follow(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    let trace = call.document().and_then(|body| number(&Input::of(&body)?));
    let following = Following { call, trace, from: HashMap::new(), first: true, over: false };
    stream::unfold(following, |mut following| async move {
        if following.over {
            return None;
        }
        let trace = match &following.trace {
            Ok(trace) => *trace,
            Err(fault) => {
                let fault = fault.clone();
                following.over = true;
                return Some((vec![Err(fault)], following));
            }
        };
        if !std::mem::take(&mut following.first) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let operations = following.call.operations();
        // Looked at before the last hops are read, so that none of them is missed.
        let runs = operations.traces().iter().any(|running| running.number == trace);
        let page = operations.trace_hops(trace, &following.from).await;
        following.over = !runs;
        following.from.extend(page.nodes.iter().map(|(node, _, _, next)| (*node, *next)));
        let hops = page.hops.iter().map(|hop| Ok(hop_json(hop))).collect();
        Some((hops, following))
    })
    .flat_map(stream::iter)
}
