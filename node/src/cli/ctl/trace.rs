//! `trace`: messages of a client, a topic, a rule or a sample, hop by hop over the nodes.

use std::collections::{BTreeMap, HashMap};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, note, put};
use super::table::Style;
use super::why::{list, silent, text};

/// Messages whose beginning is remembered while they are followed.
const FOLLOWED_MAX: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum Trace {
    /// Of a client.
    Client {
        #[arg(value_name = "CLIENT")]
        client: String,
        /// What of it: send, receive or both.
        #[arg(long, value_parser = ["send", "receive", "both"])]
        direction: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// On the topics that a filter matches.
    Topic {
        #[arg(value_name = "FILTER")]
        filter: String,
        #[command(flatten)]
        how: How,
    },
    /// That a rule looks at.
    Rule {
        #[arg(value_name = "RULE_ID")]
        rule: String,
        #[command(flatten)]
        how: How,
    },
    /// One message of so many.
    Sample {
        #[arg(value_name = "N")]
        of: u32,
        #[command(flatten)]
        how: How,
    },
    /// What a trace has seen until now.
    Show {
        #[arg(value_name = "TRACE")]
        trace: u64,
        /// The newest messages.
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// End a trace.
    Stop {
        #[arg(value_name = "TRACE")]
        trace: u64,
    },
}

#[derive(Debug, Args)]
pub(super) struct How {
    /// Show hops as they happen; otherwise the trace runs by itself, and `trace show` draws what it has seen.
    #[arg(long, short = 'f')]
    follow: bool,
    /// How long it runs.
    #[arg(long, value_name = "S")]
    seconds: Option<u32>,
    /// Bytes of payloads that are kept.
    #[arg(long, value_name = "N")]
    payload_bytes: Option<u32>,
}

pub(super) async fn run(client: &Client, output: Output, of: &Trace) -> Result<(), Failure> {
    let (mut request, how) = match of {
        Trace::Client { client, direction, how } => {
            let mut request = json!({ "client": client });
            if let Some(direction) = direction {
                request["direction"] = direction.clone().into();
            }
            (request, how)
        }
        Trace::Topic { filter, how } => (json!({ "topic": filter }), how),
        Trace::Rule { rule, how } => (json!({ "rule": rule }), how),
        Trace::Sample { of, how } => (json!({ "sample": of }), how),
        Trace::Show { trace, limit } => return show(client, output, *trace, *limit).await,
        Trace::Stop { trace } => {
            let answer = client.call("Traces/Stop", json!({ "trace": trace })).await?;
            return match answer.get("stopped").and_then(Value::as_bool) {
                Some(true) => put(&format!("trace {trace} is stopped")),
                _ => Err(Failure::missing(format!("no trace {trace} runs; `fulmar ctl get traces` lists them"))),
            };
        }
    };
    for (name, value) in [("seconds", how.seconds), ("payload_bytes", how.payload_bytes)] {
        if let Some(value) = value {
            request[name] = value.into();
        }
    }
    let started = client.call("Traces/Start", request).await?;
    let trace = started.get("trace").cloned().unwrap_or_default();
    if !how.follow {
        return match output.is_table() {
            true => put(&format!(
                "trace {trace} runs until {}; `fulmar ctl trace show {trace}` draws what it has seen",
                text(&started, "ends_at")
            )),
            false => put(&output.document(&started)?),
        };
    }
    note(&format!("trace {trace} runs until {}; Ctrl-C ends it", text(&started, "ends_at")));
    let followed = tokio::select! {
        followed = follow(client, output, &trace) => followed,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| Failure::refused(format!("cannot wait for Ctrl-C: {error}")))
        }
    };
    client.call("Traces/Stop", json!({ "trace": trace })).await?;
    followed
}

/// Prints hops as they are seen, each with the time since the first of its message.
async fn follow(client: &Client, output: Output, trace: &Value) -> Result<(), Failure> {
    let mut hops = client.stream("Traces/Follow", json!({ "trace": trace })).await?;
    let mut begun: HashMap<String, i64> = HashMap::new();
    while let Some(hop) = client.next(&mut hops).await? {
        let (message, at_us) = (text(&hop, "message"), hop.get("at_us").and_then(Value::as_i64).unwrap_or_default());
        if begun.len() >= FOLLOWED_MAX && !begun.contains_key(message) {
            begun.clear();
        }
        let after_us = at_us - *begun.entry(message.to_owned()).or_insert(at_us);
        match output.is_table() {
            true => put(&format!("{message}  {}  {}", text(&hop, "node"), line(&hop, after_us, output.style())))?,
            false => put(&hop.to_string())?,
        }
    }
    Ok(())
}

async fn show(client: &Client, output: Output, trace: u64, limit: Option<u32>) -> Result<(), Failure> {
    let mut request = json!({ "trace": trace });
    if let Some(limit) = limit {
        request["limit"] = limit.into();
    }
    let answer = client.call("Traces/Show", request).await?;
    silent(&answer);
    if !output.is_table() {
        return put(&output.document(&answer)?);
    }
    for node in list(&answer, "nodes") {
        if let Some(lost) = node.get("lost").and_then(Value::as_u64).filter(|lost| *lost > 0) {
            note(&format!("{} has lost {lost} hops for want of room", text(node, "node")));
        }
    }
    if list(&answer, "messages").is_empty() {
        note("no message was seen yet");
        return Ok(());
    }
    put(&drawn(&answer, output.style()))
}

/// Each message as a path: its hops below each other, a line to the left for each node that it was on.
fn drawn(answer: &Value, style: Style) -> String {
    let offsets = list(answer, "nodes").iter();
    let offsets: BTreeMap<&str, i64> = offsets
        .map(|node| (text(node, "node"), node.get("clock_offset_us").and_then(Value::as_i64).unwrap_or_default()))
        .collect();
    let at = |hop: &Value| {
        let at = hop.get("at_us").and_then(Value::as_i64).unwrap_or_default();
        at - offsets.get(text(hop, "node")).copied().unwrap_or_default()
    };
    let mut lines = Vec::new();
    for message in list(answer, "messages") {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("{}  {}", style.bold(text(message, "topic")), text(message, "message")));
        let mut hops: Vec<&Value> = list(message, "hops").iter().collect();
        hops.sort_by_key(|hop| at(hop));
        let began = hops.first().map(|hop| at(hop)).unwrap_or_default();
        let mut before = "";
        for hop in hops {
            let node = text(hop, "node");
            if node != before {
                let arrow = if before.is_empty() { "●" } else { "└─▶" };
                lines.push(format!("  {arrow} {}", style.bold(node)));
                before = node;
            }
            lines.push(format!("    │ {}", line(hop, at(hop) - began, style)));
        }
    }
    lines.join("\n")
}

fn line(hop: &Value, after_us: i64, style: Style) -> String {
    #[allow(clippy::cast_precision_loss)] // shown with a microsecond's precision
    let after_ms = after_us as f64 / 1000.0;
    let stage = text(hop, "stage");
    let padding = " ".repeat(7_usize.saturating_sub(stage.len()));
    let stage = match stage {
        "drop" => style.bad(stage),
        "ack" => style.good(stage),
        other => other.to_owned(),
    };
    let mut line = format!("{after_ms:>9.3} ms  {stage}{padding}");
    line.extend(Some(text(hop, "client")).filter(|client| !client.is_empty()).map(|client| format!(" {client}")));
    let epoch = hop.get("epoch").and_then(Value::as_u64).filter(|epoch| *epoch > 0);
    line.extend(epoch.map(|epoch| format!(" epoch={epoch}")));
    if let Some(details) = hop.get("details").and_then(Value::as_object) {
        line.extend(details.iter().map(|(name, value)| format!(" {name}={}", value.as_str().unwrap_or_default())));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_over_nodes_by_one_clock() {
        let hop = |node: &str, at_us: u64, stage: &str, details: Value| json!({ "node": node, "at_us": at_us, "stage": stage, "details": details });
        let answer = json!({
            "nodes": [{ "node": "a" }, { "node": "b", "clock_offset_us": 10_000 }],
            "messages": [{ "message": "00000000000000ff", "topic": "x/y", "hops": [
                hop("a", 1_000, "in", json!({ "qos": "1" })),
                hop("b", 11_500, "drop", json!({ "reason": "queue_full" })),
                hop("a", 1_200, "forward", json!({})),
            ] }],
        });
        let style = Style { colours: false, width: None, now_ms: 0, wide: false };
        let wanted = "\
x/y  00000000000000ff
  ● a
    │     0.000 ms  in      qos=1
    │     0.200 ms  forward
  └─▶ b
    │     0.500 ms  drop    reason=queue_full";
        assert_eq!(drawn(&answer, style), wanted);
    }
}
