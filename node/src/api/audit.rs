//! Who has changed what, or tried to: written down by a task, so that no caller waits for it, and shown.

use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::LogTime;
use fulmar_broker::steer::audit::{Entry, TEXT_BYTES_MAX};
use fulmar_platform::dialect::time::{iso_ms, parse_iso_ms};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::call::{Answer, Call};
use super::pace::Pace;
use super::{Fault, bans, now_ms};
use crate::operations::Operations;
use crate::operations::input::Input;
use crate::operations::node_name;

/// Entries that may wait for the log.
const WAITING_MAX: usize = 10_000;

/// Entries of one command.
const BATCH_MAX: usize = 100;

/// How often the log is tried with the same entries, and the time between.
const TRIES_MAX: u32 = 30;
const AGAIN: Duration = Duration::from_secs(1);

/// Sign-ins that have failed and are written down: in a row, and then one each so many milliseconds, of all addresses
/// together, so that who guesses passwords drives nothing else out of the audit.
const FAILED_SIGN_INS: u64 = 100;
const FAILED_SIGN_IN_EVERY_MS: u64 = 1_000;

/// Hands entries to the log.
pub(super) struct Auditor {
    operations: Operations,
    queue: mpsc::Sender<Entry>,
    sign_ins: Pace,
}

impl Auditor {
    /// Must be called on a runtime.
    pub(super) fn start(operations: &Operations) -> Auditor {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write(operations.clone(), waiting));
        let sign_ins = Pace::new(FAILED_SIGN_INS, FAILED_SIGN_IN_EVERY_MS);
        Auditor { operations: operations.clone(), queue, sign_ins }
    }

    /// Writes an entry, whose time and node are this node's. Nobody waits; one that finds no room is counted, and was
    /// logged.
    pub(super) fn note(&self, entry: Entry) {
        let node = self.operations.replica().run().0;
        let at = LogTime(self.operations.now_ms());
        if self.queue.try_send(Entry { at, node, ..entry }).is_err() {
            self.operations.count_unaudited(1);
        }
    }

    /// Writes a sign-in that has failed, if not too many have.
    pub(super) fn note_sign_in(&self, entry: Entry) {
        if self.sign_ins.takes("", std::net::Ipv4Addr::UNSPECIFIED.into(), now_ms()) {
            self.note(entry);
        } else {
            self.operations.count_unaudited(1);
        }
    }
}

/// Text of an entry: cut to what one may have.
pub(super) fn text(text: &str) -> Box<str> {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

async fn write(operations: Operations, mut waiting: mpsc::Receiver<Entry>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let entries = std::mem::take(&mut batch);
        let mut tries = 0;
        while operations.audit(entries.clone()).await.is_err() {
            tries += 1;
            if tries == TRIES_MAX {
                tracing::error!(entries = entries.len(), "the log did not take entries of the audit");
                operations.count_unaudited(entries.len() as u64);
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn entry_json(seq: u64, entry: &Arc<Entry>) -> Value {
    json!({
        "seq": seq,
        "at": iso_ms(entry.at.0),
        "node": node_name(entry.node),
        "user": entry.user,
        "role": entry.role,
        "address": entry.address,
        "door": entry.door,
        "operation": entry.operation,
        "about": entry.about,
        "status": entry.status,
        "code": entry.code,
        "request_id": entry.request_id,
    })
}

fn time(input: &Input<'_>, name: &'static str) -> Result<Option<u64>, Fault> {
    let Some(text) = input.text(name)? else { return Ok(None) };
    let ms = parse_iso_ms(&text);
    ms.map(Some).ok_or_else(|| Fault::invalid(&format!("{name} must be a time as in 2026-01-31T12:00:00.000Z")))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let (user, operation) = (input.text("user")?, input.text("operation")?);
    let (from, to) = (time(&input, "from")?.unwrap_or(0), time(&input, "to")?.unwrap_or(u64::MAX));
    let before = input.number("before", u64::MAX)?.unwrap_or(u64::MAX);
    let limit = bans::limit(&input)?;
    let (steer, _) = call.operations().steer();
    let wanted = |entry: &Entry| {
        user.as_deref().is_none_or(|user| *user == *entry.user)
            && operation.as_deref().is_none_or(|start| entry.operation.starts_with(start))
            && (from..to).contains(&entry.at.0)
    };
    let mut matching = steer.audit.newest(before).filter(|(_, entry)| wanted(entry));
    let page: Vec<_> = matching.by_ref().take(limit).collect();
    let next = page.last().map(|(seq, _)| *seq).filter(|_| matching.next().is_some());
    let entries: Vec<Value> = page.into_iter().map(|(seq, entry)| entry_json(seq, entry)).collect();
    let mut json = json!({ "entries": entries });
    if let Some(next) = next {
        json["next"] = next.into();
    }
    Answer::ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(&*text("a\u{e9}"), "a\u{e9}");
        let long = text(&"\u{20ac}".repeat(1_000));
        assert!(long.len() <= TEXT_BYTES_MAX && long.len() > TEXT_BYTES_MAX - 3);
        assert!(long.chars().all(|c| c == '\u{20ac}'));
    }
}
