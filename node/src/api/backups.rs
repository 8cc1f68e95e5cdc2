//! Everything that is replicated, as a file, and back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use fulmar_platform::dialect::time;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use super::routes::Uploads;
use crate::cluster::backup::{Head, Piece};
use crate::operations::backups::Backup;
use crate::operations::input::Input;
use crate::store::backups::{End, VERSION};

/// How far a backup has come.
enum Making {
    Asked(Call),
    /// With the bytes so far.
    Begun(Backup, u64),
    Over,
}

pub(super) fn create(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    stream::unfold(Making::Asked(call), |making| async {
        let (mut backup, bytes) = match making {
            Making::Asked(call) => match call.operations().create_backup().await {
                Ok(backup) => (backup, 0),
                Err(failed) => return Some((Err(crate::operations::Error::from(failed).into()), Making::Over)),
            },
            Making::Begun(backup, bytes) => (backup, bytes),
            Making::Over => return None,
        };
        match next(&mut backup, bytes).await {
            Ok((document, Some(bytes))) => Some((Ok(document), Making::Begun(backup, bytes))),
            Ok((document, None)) => Some((Ok(document), Making::Over)),
            Err(fault) => Some((Err(fault), Making::Over)),
        }
    })
}

/// The next document of a backup, and the bytes up to there; `None` after the last one.
async fn next(backup: &mut Backup, bytes: u64) -> Result<(Value, Option<u64>), Fault> {
    let broken = |what: &str| Fault::new(503, "FULMAR.000083", format!("The backup has broken off: {what}."));
    match backup.pieces.recv().await {
        Some(Ok(Piece::Head(head))) => Ok((json!({ "head": head_json(&head), "bytes": bytes }), Some(bytes))),
        Some(Ok(Piece::Content(content))) => {
            let bytes = bytes + content.len() as u64;
            Ok((json!({ "content": BASE64.encode(&content), "bytes": bytes }), Some(bytes)))
        }
        Some(Ok(Piece::End(end))) => Ok((json!({ "end": end_json(&end), "bytes": bytes }), None)),
        Some(Err(error)) => Err(broken(&error.to_string())),
        None => Err(broken("the node could not write it, or its reader was too slow")),
    }
}

pub(super) async fn restore(call: Call, parts: Uploads) -> Result<Answer, Fault> {
    let first = call.json()?;
    let input = Input::of(&first)?;
    let replace = input.flag("replace")?.unwrap_or(false);
    let contents = stream::once(std::future::ready(Ok(first))).chain(parts);
    let contents =
        contents.map(|part| part.and_then(|part| content(&part)).map_err(|fault| fault.message().to_owned()));
    let restored = call.operations().restore_backup(replace, contents).await;
    let restored = restored.map_err(crate::operations::Error::from)?;
    let (state, tasks, messages) = {
        let state = call.operations().replica().read();
        let counts = json!({
            "sessions": state.session_count(),
            "retained": state.retained().len(),
            "devices": state.registry().device_count(),
            "queued": state.books().queued,
        });
        (counts, state.plane().tasks.count(), state.plane().mail.len())
    };
    let mut answer = state;
    answer["tasks"] = tasks.into();
    answer["messages"] = messages.into();
    answer["head"] = head_json(&restored.head);
    answer["end"] = end_json(&restored.end);
    answer["took_ms"] = u64::try_from(restored.took.as_millis()).unwrap_or(u64::MAX).into();
    answer["revision"] = restored.revision.into();
    Answer::ok(answer)
}

/// The bytes of a part of an upload; empty if it has none.
fn content(part: &Value) -> Result<Bytes, Fault> {
    match part.get("content") {
        None | Some(Value::Null) => Ok(Bytes::new()),
        Some(Value::String(text)) => {
            BASE64.decode(text).map(Bytes::from).map_err(|_| Fault::invalid("content is not base64"))
        }
        Some(_) => Err(Fault::invalid("content must be text")),
    }
}

fn head_json(head: &Head) -> Value {
    json!({
        "format_version": VERSION,
        "cluster": format!("{:016x}", head.cluster),
        "node": format!("{:016x}", head.node),
        "index": head.index,
        "term": head.term,
        "time": time::iso_ms(head.time_ms),
        "version": String::from_utf8_lossy(&head.version),
        "sessions": head.sessions,
        "retained": head.retained,
        "devices": head.devices,
        "queued": head.queued,
        "replicated_bytes": head.bytes,
    })
}

fn end_json(end: &End) -> Value {
    json!({ "records": end.records, "bytes": end.bytes, "sha256": end.digest() })
}
