//! `why`: what keeps a client from its messages; the likeliest cause first, with what shows it and what to do.

use clap::Args;
use serde_json::{Map, Value};

use super::client::Client;
use super::failure::Failure;
use super::filters::Filters;
use super::get::one;
use super::kinds;
use super::output::{Output, note, put};
use super::table::Style;

#[derive(Debug, Args)]
pub(super) struct Why {
    /// A client id, or a device's id.
    #[arg(value_name = "CLIENT", required_unless_present = "rule")]
    client: Option<String>,
    /// Only what has to do with this topic.
    #[arg(long, short = 't', value_name = "TOPIC")]
    topic: Option<String>,
    /// Only what has to do with this rule; its id or name.
    #[arg(long, short = 'r', value_name = "RULE")]
    rule: Option<String>,
}

pub(super) async fn run(client: &Client, output: Output, of: &Why) -> Result<(), Failure> {
    let mut request = Map::new();
    for (name, value) in [("client", &of.client), ("topic", &of.topic)] {
        request.extend(value.clone().map(|value| (name.to_owned(), value.into())));
    }
    if let Some(rule) = &of.rule {
        let kind = kinds::find("rule")?;
        let id = kind.id_of(&one(client, kind, rule, &Filters::default()).await?);
        request.insert("rule".to_owned(), id.unwrap_or_else(|| rule.clone()).into());
    }
    let answer = client.call("Diagnosis/Why", Value::Object(request)).await?;
    silent(&answer);
    match output.is_table() {
        true => put(&shown(&answer, output.style())),
        false => put(&output.document(&answer)?),
    }
}

/// Says which nodes did not answer.
pub(super) fn silent(answer: &Value) {
    let nodes: Vec<&str> = list(answer, "silent").iter().filter_map(Value::as_str).collect();
    if !nodes.is_empty() {
        note(&format!("did not answer, so that what only they know is missing: {}", nodes.join(", ")));
    }
}

pub(super) fn list<'v>(value: &'v Value, member: &str) -> &'v [Value] {
    value.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn shown(answer: &Value, style: Style) -> String {
    let mut lines = Vec::new();
    for (index, finding) in list(answer, "findings").iter().enumerate() {
        if index > 0 {
            lines.push(String::new());
        }
        lines.push(format!("{}  {}", style.bold(text(finding, "cause")), text(finding, "sentence")));
        for evidence in list(finding, "evidence") {
            let at = match text(evidence, "at") {
                "" => "now",
                at => at,
            };
            let node = match text(evidence, "node") {
                "" => "state",
                node => node,
            };
            let number = |member: &str| evidence.get(member).and_then(Value::as_u64).filter(|number| *number > 0);
            let mut line = format!("  {at}  {node}  {}", text(evidence, "text"));
            line.extend(number("count").filter(|count| *count > 1).map(|count| format!(", {count} times")));
            line.extend(number("bound").map(|bound| format!(", bound {bound}")));
            line.extend(number("epoch").map(|epoch| format!(", epoch {epoch}")));
            lines.push(line);
        }
        if !text(finding, "advice").is_empty() {
            lines.push(format!("  -> {}", text(finding, "advice")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_has_its_evidence_and_advice() {
        let answer = json!({ "findings": [
            { "cause": "queue_full", "sentence": "Its queue is full.", "advice": "Have it connect.", "evidence": [
                { "node": "", "at": "", "text": "1000 messages wait", "bound": 1000 },
                { "node": "00000000000000aa", "at": "2026-01-01T00:00:00.000Z", "text": "dropped", "count": 3, "epoch": 2 },
            ] },
            { "cause": "offline", "sentence": "It is not connected." },
        ] });
        let style = Style { colours: false, width: None, now_ms: 0, wide: false };
        let wanted = "\
queue_full  Its queue is full.
  now  state  1000 messages wait, bound 1000
  2026-01-01T00:00:00.000Z  00000000000000aa  dropped, 3 times, epoch 2
  -> Have it connect.

offline  It is not connected.";
        assert_eq!(shown(&answer, style), wanted);
    }
}
