//! Topics that are used.

use serde_json::json;

use super::Fault;
use super::call::{Answer, Call};
use super::diagnosis::silent_json;
use crate::operations::input::Input;

const TOPICS_DEFAULT: u64 = 20;
const TOPICS_MAX: u64 = 256;

pub(super) async fn top(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let limit = Input::of(&body)?.number("limit", TOPICS_MAX)?.filter(|limit| *limit > 0).unwrap_or(TOPICS_DEFAULT);
    let (used, silent) = call.operations().top_topics(limit as usize).await;
    let topics = used.iter().map(
        |usage| json!({ "topic": usage.topic, "messages": usage.messages, "bytes": usage.bytes, "over": usage.over }),
    );
    Answer::ok(json!({ "topics": topics.collect::<Vec<_>>(), "silent": silent_json(&silent) }))
}
