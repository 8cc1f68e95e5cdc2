//! Calls with many answers. As Server-Sent Events: `event: answer` for each, `event: fault` for an error, after which the
//! stream ends, and a comment now and then, which shows both sides that the other is there. Or as a file: the bytes of
//! each answer's `content`, one after the other; an error breaks it off, so that half a file is never taken for a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Console, Refused, fault_of, peer, session};
use crate::api::{self, Call, Fault, Handler};

/// Streams of a node that are open at a time.
const STREAMS_MAX: usize = 256;

/// Events that wait for a browser.
const WAITING_MAX: usize = 16;

/// A browser that takes nothing for so long is let go; it asks again from where it was.
const SLOW: Duration = Duration::from_secs(10);

/// Between two comments; then, too, it is looked whether the session is still good.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Bytes of a call's document, in the query.
const DOCUMENT_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a file's name.
const NAME_BYTES_MAX: usize = 64;

/// What becomes of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Events,
    File,
}

impl Form {
    /// What is sent of an answer: nothing, of one that has no bytes for a file. An error is the end, as is `None`.
    fn piece(self, answer: Option<Result<Value, Fault>>) -> Result<Option<Bytes>, Broken> {
        match (self, answer) {
            (Form::Events, Some(Ok(answer))) => Ok(Some(event("answer", &answer))),
            (Form::Events, Some(Err(fault))) => Err(Broken(Some(event("fault", &fault_of(&fault))))),
            (Form::Events, None) => Err(Broken(Some(event("end", &json!({}))))),
            (Form::File, Some(Ok(answer))) => match answer.get("content").and_then(Value::as_str) {
                None | Some("") => Ok(None),
                Some(content) => {
                    STANDARD.decode(content).map(|bytes| Some(Bytes::from(bytes))).map_err(|_| Broken(None))
                }
            },
            (Form::File, Some(Err(fault))) => {
                tracing::warn!(why = fault.message(), "a download broke off");
                Err(Broken(None))
            }
            (Form::File, None) => Err(Broken(Some(Bytes::new()))),
        }
    }
}

/// The end, with what is still sent; a body without that breaks off.
#[derive(Debug)]
struct Broken(Option<Bytes>);

/// A piece of the body, or that it breaks off here.
type Piece = Result<Bytes, std::io::Error>;

fn broken() -> std::io::Error {
    std::io::Error::other("the call failed")
}

/// One stream of those that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(streams: &Arc<AtomicUsize>) -> Option<Place> {
        let one_more = |open: usize| (open < STREAMS_MAX).then_some(open + 1);
        streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Place(streams.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Opens the stream of a call whose document is in the query.
///
/// # Errors
/// It is none, nobody is signed in or may call it, or too many are open.
pub(super) fn open(console: &Console, request: &HttpRequest, name: &str, form: Form) -> Result<HttpResponse, Refused> {
    let route = api::named(name).ok_or(Refused::NotFound)?;
    if !matches!(route.handler, Handler::Stream(_)) {
        return Err(Refused::NotFound);
    }
    let caller = session::caller(console, request).ok_or(Refused::Nobody)?;
    let token = session::token(request).ok_or(Refused::Nobody)?;
    let document = document(request.query_string()).map_err(Refused::Bad)?;
    let Some(place) = Place::take(&console.streams) else {
        console.metrics.console_streams_refused.inc();
        return Err(Refused::Busy);
    };
    let peer = peer(request);
    let call = Call::of_document(console.api.clone(), peer, caller.clone(), route, document);
    let answers = call.and_then(|call| console.api.stream(route, call.through("console")));
    let answers = match answers {
        // A file that is none is a page with an error on it.
        Err(fault) if form == Form::File => return Err(Refused::Bad(fault)),
        Err(fault) => Box::pin(futures_util::stream::once(std::future::ready(Err(fault)))),
        Ok(answers) => answers,
    };
    let (events, waiting) = mpsc::channel(WAITING_MAX);
    let api = console.api.clone();
    actix_rt::spawn(async move {
        let _place = place;
        let good = move || api.by_token(&token, peer).is_ok_and(|now| now == caller);
        pass_on(answers, form, events, good, SLOW).await;
    });
    let mut response = HttpResponse::Ok();
    match form {
        Form::Events => {
            response.insert_header((header::CONTENT_TYPE, "text/event-stream"));
            // A proxy in between is not to gather what is said now.
            response.insert_header(("X-Accel-Buffering", "no"));
        }
        Form::File => {
            response.insert_header((header::CONTENT_TYPE, "application/octet-stream"));
            let name = format!("attachment; filename=\"{}\"", file_name(request.query_string()));
            response.insert_header((header::CONTENT_DISPOSITION, name));
        }
    }
    Ok(response.streaming(tokio_stream::wrappers::ReceiverStream::new(waiting)))
}

/// What the query calls the file.
fn file_name(query: &str) -> &str {
    let given = query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let well = !given.is_empty() && given.len() <= NAME_BYTES_MAX && given.chars().all(plain);
    if well { given } else { "fulmar.bin" }
}

/// The document of a call: `document` of the query, which is an empty object if it is not there.
fn document(query: &str) -> Result<Value, Fault> {
    let given = query.split('&').find_map(|pair| pair.strip_prefix("document="));
    let Some(given) = given.filter(|text| !text.is_empty()) else { return Ok(json!({})) };
    if given.len() > DOCUMENT_BYTES_MAX {
        return Err(Fault::invalid(&format!("document may have {DOCUMENT_BYTES_MAX} bytes")));
    }
    let text = percent_decode_str(given).decode_utf8().map_err(|_| Fault::invalid("document is not UTF-8"))?;
    serde_json::from_str(&text).map_err(|error| Fault::format(&format!("document is not JSON: {error}.")))
}

fn event(kind: &str, document: &Value) -> Bytes {
    Bytes::from(format!("event: {kind}\ndata: {document}\n\n"))
}

/// Passes answers on until they end, the browser is gone or takes nothing for `slow`, or `good` says that the session is over.
async fn pass_on(
    mut answers: impl Stream<Item = Result<Value, Fault>> + Unpin,
    form: Form,
    events: mpsc::Sender<Piece>,
    good: impl Fn() -> bool,
    slow: Duration,
) {
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (next, last) = tokio::select! {
            answer = answers.next() => match form.piece(answer) {
                Ok(None) => continue,
                Ok(Some(piece)) => (Ok(piece), false),
                Err(Broken(Some(piece))) => (Ok(piece), true),
                Err(Broken(None)) => (Err(broken()), true),
            },
            _ = beats.tick() => {
                if !good() {
                    return;
                }
                match form {
                    Form::Events => (Ok(Bytes::from_static(b": here\n\n")), false),
                    Form::File => continue,
                }
            }
            () = events.closed() => return,
        };
        let taken = tokio::time::timeout(slow, events.send(next)).await;
        if last || !matches!(taken, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[test]
    fn a_document_is_read_from_the_query() {
        assert_eq!(document("").expect("none"), json!({}));
        assert_eq!(document("document=").expect("none"), json!({}));
        let read = document("x=1&document=%7B%22client_id%22%3A%22a%20b%22%7D").expect("one");
        assert_eq!(read, json!({ "client_id": "a b" }));
        for bad in ["document=%ff", "document={", &format!("document={}", "1".repeat(DOCUMENT_BYTES_MAX + 1))] {
            assert_eq!(document(bad).expect_err("bad").status, 400, "{bad}");
        }
    }

    #[test]
    fn no_more_streams_than_there_are_places() {
        let streams = Arc::new(AtomicUsize::new(0));
        let places: Vec<Place> = (0..STREAMS_MAX).filter_map(|_| Place::take(&streams)).collect();
        assert_eq!(places.len(), STREAMS_MAX);
        assert!(Place::take(&streams).is_none());
        drop(places);
        assert!(Place::take(&streams).is_some());
    }

    async fn told(form: Form, answers: Vec<Result<Value, Fault>>) -> (String, bool) {
        let (events, mut waiting) = mpsc::channel(WAITING_MAX);
        pass_on(stream::iter(answers), form, events, || true, SLOW).await;
        let (mut told, mut whole) = (String::new(), true);
        while let Some(piece) = waiting.recv().await {
            match piece {
                Ok(bytes) => told.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => whole = false,
            }
        }
        (told.replace(": here\n\n", ""), whole)
    }

    #[tokio::test]
    async fn answers_are_events_and_an_error_ends_them() {
        let (said, _) = told(Form::Events, vec![Ok(json!({ "revision": 1 })), Ok(json!({ "text": "a\nb" }))]).await;
        assert_eq!(
            said,
            "event: answer\ndata: {\"revision\":1}\n\nevent: answer\ndata: {\"text\":\"a\\nb\"}\n\n\
             event: end\ndata: {}\n\n"
        );
        let (ended, _) = told(Form::Events, vec![Err(Fault::invalid("x is wrong")), Ok(json!({}))]).await;
        assert!(ended.starts_with("event: fault\ndata: ") && ended.matches("event:").count() == 1, "{ended}");
    }

    #[tokio::test]
    async fn a_file_is_its_content_and_an_error_breaks_it_off() {
        let part = |text: &str| Ok(json!({ "content": STANDARD.encode(text) }));
        let whole = told(Form::File, vec![part("one "), Ok(json!({ "head": {} })), part("two")]).await;
        assert_eq!(whole, ("one two".to_owned(), true));
        let half = told(Form::File, vec![part("one "), Err(Fault::invalid("the disk")), part("two")]).await;
        assert_eq!(half, ("one ".to_owned(), false));
        assert_eq!(told(Form::File, vec![Ok(json!({ "content": "%" }))]).await, (String::new(), false));
        for (query, name) in [("name=a-1.backup", "a-1.backup"), ("", "fulmar.bin"), ("name=a%22b", "fulmar.bin")] {
            assert_eq!(file_name(query), name);
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_and_whose_session_is_over_is_let_go() {
        let (events, waiting) = mpsc::channel(1);
        pass_on(stream::repeat(json!({})).map(Ok), Form::Events, events, || true, Duration::from_millis(1)).await;
        drop(waiting);
        let (events, mut waiting) = mpsc::channel(WAITING_MAX);
        pass_on(stream::pending(), Form::Events, events, || false, SLOW).await;
        assert!(waiting.recv().await.is_none());
        let (events, waiting) = mpsc::channel(WAITING_MAX);
        drop(waiting);
        pass_on(stream::pending(), Form::Events, events, || true, SLOW).await;
    }
}
