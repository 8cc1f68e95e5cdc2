//! Streams of answers, of what operations give one after the other.

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Fault;
use super::call::Call;
use super::routes::Streaming;
use crate::operations::{Watch, WatchEnd, Watched};

/// Everything that is received, each as an answer.
pub(super) fn of<T: Send + 'static>(
    parts: mpsc::Receiver<T>,
    answer: impl Fn(T) -> Result<Value, Fault> + Send + 'static,
) -> Streaming {
    Box::pin(ReceiverStream::new(parts).map(answer))
}

/// One that does not begin.
pub(super) fn refused(fault: Fault) -> Streaming {
    Box::pin(stream::once(async move { Err(fault) }))
}

/// Watches from the call's revision on.
pub(super) fn watch(call: &Call, watched: Result<Watched, Fault>) -> Streaming {
    let begun = watched.and_then(|watched| {
        let document = call.document()?;
        let revision = crate::operations::input::Input::of(&document)?.number("revision", u64::MAX)?;
        Ok::<Watch, Fault>(call.operations().watch(watched, revision)?)
    });
    begun.map_or_else(refused, |watch| of(watch, |part| part.map_err(ended)))
}

fn ended(end: WatchEnd) -> Fault {
    match end {
        WatchEnd::Slow => Fault::new(429, "FULMAR.000075", end.to_string()),
        WatchEnd::Leaving => Fault::new(503, "FULMAR.000076", end.to_string()),
    }
}
