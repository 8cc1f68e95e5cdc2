//! Spans of requests, as OpenTelemetry has them: who called, what the log and other nodes took of the time. Only what
//! belongs to a request is a span; messages are not. Off, it costs one look at a static.
//!
//! A trace travels with the future that serves its request (`CURRENT`), between nodes and from callers as `traceparent` of
//! the W3C.

use std::borrow::Cow;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

/// Spans that wait for the collector.
const QUEUE_MAX: usize = 4_096;

/// Characters of an attribute's value.
const VALUE_CHARS_MAX: usize = 256;

tokio::task_local! {
    static CURRENT: Context;
}

/// Where spans go; there is one in the life of a process, or none.
static SINK: OnceLock<Sink> = OnceLock::new();

#[derive(Debug)]
struct Sink {
    queue: mpsc::Sender<Span>,
    /// A trace whose lower half is below this is recorded, where no caller has decided.
    below: u128,
    exported: AtomicU64,
    queue_full: AtomicU64,
    not_taken: AtomicU64,
}

/// Counts of spans since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub exported: u64,
    /// Too many waited.
    pub queue_full: u64,
    /// The collector did not take them in time.
    pub not_taken: u64,
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Context {
    /// Reads `traceparent`; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Context> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A later version may have more behind it.
        let form = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
        let hexadecimal = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let all = [version, trace, span, flags].into_iter().all(hexadecimal);
        if !form || !all || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let context = Context {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// `traceparent` for whoever is called from here.
    #[must_use]
    pub fn header(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// What a span is to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
    Producer,
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub context: Context,
    /// 0 for none.
    pub parent: u64,
    pub name: Cow<'static, str>,
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub began_ns: u64,
    pub ended_ns: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub failed: Option<String>,
}

/// Of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.chars().take(VALUE_CHARS_MAX).collect())
    }
}

/// Has spans recorded from here on; who takes them from the queue exports them. `None` if it was called before.
pub(super) fn record(sampling_percent: u32) -> Option<mpsc::Receiver<Span>> {
    let (queue, spans) = mpsc::channel(QUEUE_MAX);
    let below = (1 << 64) / 100 * u128::from(sampling_percent.min(100));
    let below = if sampling_percent >= 100 { 1 << 64 } else { below };
    let (exported, queue_full, not_taken) = Default::default();
    SINK.set(Sink { queue, below, exported, queue_full, not_taken }).ok().map(|()| spans)
}

/// Books what became of a batch.
pub(super) fn booked(spans: usize, taken: bool) {
    if let Some(sink) = SINK.get() {
        let count = if taken { &sink.exported } else { &sink.not_taken };
        count.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

#[must_use]
pub fn counts() -> Counts {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    SINK.get().map_or_else(Counts::default, |sink| Counts {
        exported: read(&sink.exported),
        queue_full: read(&sink.queue_full),
        not_taken: read(&sink.not_taken),
    })
}

/// The trace that is worked for here.
#[must_use]
pub fn current() -> Option<Context> {
    SINK.get()?;
    CURRENT.try_with(|context| *context).ok()
}

/// Works for a caller, as a part of its trace if it names one (`traceparent`).
pub async fn called<F: Future>(traceparent: Option<&str>, work: F) -> F::Output {
    match SINK.get().and(traceparent).and_then(Context::parse) {
        Some(context) => CURRENT.scope(context, work).await,
        None => work.await,
    }
}

/// A span that goes on until it is dropped.
#[derive(Debug)]
pub struct Going {
    context: Option<Context>,
    /// `None`: not recorded.
    span: Option<Box<Span>>,
}

/// Begins what may be the first span of a trace: whether that is recorded is decided here.
#[must_use]
pub fn root(name: impl Into<Cow<'static, str>>, kind: Kind) -> Going {
    let Some(sink) = SINK.get() else { return Going { context: None, span: None } };
    let parent = current().unwrap_or_else(|| {
        let trace: u128 = rand::random();
        Context { trace, span: 0, sampled: trace & u128::from(u64::MAX) < sink.below }
    });
    Going::of(parent, name.into(), kind)
}

/// Begins a part of what is worked for here; nothing, if that is no request.
#[must_use]
pub fn part(name: &'static str, kind: Kind) -> Going {
    current().map_or(Going { context: None, span: None }, |parent| Going::of(parent, name.into(), kind))
}

impl Going {
    fn of(parent: Context, name: Cow<'static, str>, kind: Kind) -> Going {
        if !parent.sampled {
            return Going { context: Some(parent), span: None };
        }
        let context = Context { span: rand::random::<u64>().max(1), ..parent };
        let (began_ns, ended_ns, attributes, failed) = (now_ns(), 0, Vec::new(), None);
        let span = Span { context, parent: parent.span, name, kind, began_ns, ended_ns, attributes, failed };
        Going { context: Some(context), span: Some(Box::new(span)) }
    }

    /// Whether anything that is said of it is kept.
    #[must_use]
    pub fn recorded(&self) -> bool {
        self.span.is_some()
    }

    /// Where it is, for whoever is called from here.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        self.context.filter(|context| context.span != 0)
    }

    pub fn set<V>(&mut self, key: &'static str, value: V)
    where
        Value: From<V>,
    {
        if let Some(span) = &mut self.span {
            span.attributes.push((key, value.into()));
        }
    }

    pub fn fail(&mut self, why: &str) {
        if let Some(span) = &mut self.span {
            span.failed = Some(why.chars().take(VALUE_CHARS_MAX).collect());
        }
    }

    /// Does what it is about; spans that begin meanwhile are parts of it.
    pub async fn during<F: Future>(&self, work: F) -> F::Output {
        match self.context {
            Some(context) => CURRENT.scope(context, work).await,
            None => work.await,
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let (Some(mut span), Some(sink)) = (self.span.take(), SINK.get()) else { return };
        span.ended_ns = now_ns();
        if sink.queue.try_send(*span).is_err() {
            sink.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_is_read_and_written() {
        let context = Context::parse(HEADER).expect("the example of the W3C");
        assert_eq!((context.span, context.sampled), (0xb7ad_6b71_6920_3331, true));
        assert_eq!(context.header(), HEADER);
        for wrong in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(Context::parse(wrong), None, "{wrong}");
        }
        assert!(Context::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later").is_some());
    }

    #[tokio::test]
    async fn spans_form_a_tree_and_wait_in_a_queue_that_is_bounded() {
        assert_eq!((current(), root("off", Kind::Server).context()), (None, None), "off, nothing is made");
        let mut spans = record(100).expect("the first of this process");
        assert!(record(100).is_none());
        called(Some(HEADER), async {
            let mut outer = root("outer", Kind::Server);
            outer.set("n", 3);
            outer.during(async { part("inner", Kind::Client).fail("why") }).await;
        })
        .await;
        let (inner, outer) = (spans.recv().await.unwrap(), spans.recv().await.unwrap());
        assert_eq!((inner.parent, inner.context.trace), (outer.context.span, outer.context.trace));
        assert_eq!((outer.parent, inner.failed.as_deref()), (0xb7ad_6b71_6920_3331, Some("why")));
        assert_eq!(outer.attributes, [("n", Value::Number(3))]);
        assert!(outer.began_ns <= inner.began_ns && inner.ended_ns <= outer.ended_ns);
        let unsampled = format!("{}00", HEADER.strip_suffix("01").unwrap());
        called(Some(&unsampled), async {
            let going = root("outer", Kind::Server);
            assert!(!going.recorded());
            going.during(async { assert!(!root("inner", Kind::Server).recorded(), "the caller has decided") }).await;
        })
        .await;
        assert_eq!(part("nobody's", Kind::Internal).context(), None, "what belongs to no request is no span");
        for _ in 0..QUEUE_MAX + 7 {
            drop(root("many", Kind::Server));
        }
        assert_eq!(counts().queue_full, 7);
    }
}
