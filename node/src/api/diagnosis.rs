//! Why somebody does not get a message, and who is slow.

use fulmar_broker::NodeId;
use fulmar_broker::insight::slow::SLOW_MS;
use fulmar_broker::insight::why::{Evidence, Finding};
use fulmar_platform::dialect::time::iso_ms;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::Question;
use crate::operations::input::Input;

/// Receivers of an answer.
const SLOW_DEFAULT: u64 = 100;
const SLOW_MAX: u64 = 1_000;

/// Milliseconds that a threshold may have.
const THRESHOLD_MS_MAX: u64 = 24 * 3600 * 1000;

/// How nodes are called: 16 hexadecimal digits.
pub(super) fn node_text(node: NodeId) -> String {
    format!("{:016x}", node.0)
}

fn evidence_json(evidence: &Evidence) -> Value {
    json!({
        "node": if evidence.node == 0 { String::new() } else { node_text(NodeId(evidence.node)) },
        "at": if evidence.at_ms == 0 { String::new() } else { iso_ms(evidence.at_ms) },
        "epoch": evidence.epoch,
        "text": evidence.text,
        "count": evidence.count,
        "bound": evidence.bound,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "cause": finding.cause.as_str(),
        "sentence": finding.sentence,
        "evidence": finding.evidence.iter().map(evidence_json).collect::<Vec<_>>(),
        "advice": finding.advice,
    })
}

pub(super) fn silent_json(silent: &[NodeId]) -> Vec<String> {
    silent.iter().map(|node| node_text(*node)).collect()
}

pub(super) async fn why(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let question = Question::read(&Input::of(&body)?)?;
    let found = call.operations().why(&question).await;
    let findings: Vec<Value> = found.findings.iter().map(finding_json).collect();
    Answer::ok(json!({ "findings": findings, "silent": silent_json(&found.silent) }))
}

pub(super) async fn slow(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let threshold_ms = input.number("threshold_ms", THRESHOLD_MS_MAX)?.unwrap_or_default().max(SLOW_MS);
    let limit = input.number("limit", SLOW_MAX)?.filter(|limit| *limit > 0).unwrap_or(SLOW_DEFAULT);
    let (slow, silent) = call.operations().slow_receivers(threshold_ms, limit as usize).await;
    let receivers = slow.iter().map(|slow| {
        json!({
            "node": node_text(slow.node),
            "client": slow.client,
            "count": slow.count,
            "longest_ms": slow.longest_ms,
            "ago_ms": slow.ago_ms,
        })
    });
    Answer::ok(json!({ "receivers": receivers.collect::<Vec<_>>(), "silent": silent_json(&silent) }))
}
