//! Gives spans to a collector of OpenTelemetry, by gRPC. A collector that is away costs the spans that it does not take,
//! which are counted, and nothing else.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Written, Status, span, status};
use tokio::sync::mpsc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::spans::{self, Kind, Span, Value};

/// Spans that a request carries.
const BATCH_MAX: usize = 512;

/// How long a span waits for company.
const LINGER: Duration = Duration::from_millis(200);

/// Between two words in the log about a collector that takes nothing.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Where spans go, and what is said of this node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http://` or `https://`, host and port.
    pub endpoint: String,
    /// PEM of the authorities that sign the collector's certificate.
    pub ca: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub sampling_percent: u32,
    pub timeout: Duration,
    /// Attributes of the resource.
    pub resource: Vec<(String, String)>,
}

/// Begins to record and to export. Must be called on a runtime.
///
/// # Errors
/// The collector's address, authorities or headers are none.
pub fn start(otlp: Settings) -> anyhow::Result<()> {
    let mut channel = Endpoint::from_shared(otlp.endpoint.clone()).context("telemetry.otlp.endpoint")?;
    channel = channel.connect_timeout(otlp.timeout).timeout(otlp.timeout);
    if let Some(pem) = otlp.ca {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        channel = channel.tls_config(tls).context("telemetry.otlp.ca")?;
    }
    let mut headers = MetadataMap::new();
    for (name, value) in &otlp.headers {
        let name: AsciiMetadataKey = name.parse().context("telemetry.otlp.headers")?;
        let value: AsciiMetadataValue = value.parse().context("telemetry.otlp.headers")?;
        headers.insert(name, value);
    }
    // A process whose nodes come one after the other goes on with the first's.
    let Some(queue) = spans::record(otlp.sampling_percent) else { return Ok(()) };
    let attributes = otlp.resource.iter().map(|(key, value)| attribute(key, &Value::from(value.as_str()))).collect();
    let resource = Resource { attributes, ..Resource::default() };
    tracing::info!(endpoint = otlp.endpoint, percent = otlp.sampling_percent, "traces are exported");
    tokio::spawn(export(queue, channel.connect_lazy(), headers, resource, otlp.timeout));
    Ok(())
}

async fn export(
    mut queue: mpsc::Receiver<Span>,
    channel: Channel,
    headers: MetadataMap,
    resource: Resource,
    within: Duration,
) {
    let mut client = TraceServiceClient::new(channel);
    let mut said: Option<Instant> = None;
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if batch.len() < BATCH_MAX {
            tokio::time::sleep(LINGER).await;
            while batch.len() < BATCH_MAX
                && let Ok(span) = queue.try_recv()
            {
                batch.push(span);
            }
        }
        let count = batch.len();
        let mut request = tonic::Request::new(request(batch.drain(..), &resource));
        *request.metadata_mut() = headers.clone();
        let problem = match tokio::time::timeout(within, client.export(request)).await {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(format!("{}: {}", status.code(), status.message())),
            Err(_) => Some("no answer in time".to_owned()),
        };
        spans::booked(count, problem.is_none());
        if let Some(problem) = problem
            && said.is_none_or(|at| at.elapsed() >= SAID_EVERY)
        {
            said = Some(Instant::now());
            tracing::warn!(problem, spans = count, "the collector has not taken spans; they are dropped");
        }
    }
}

fn request(spans: impl Iterator<Item = Span>, resource: &Resource) -> ExportTraceServiceRequest {
    let scope =
        InstrumentationScope { name: "fulmar".into(), version: env!("CARGO_PKG_VERSION").into(), ..Default::default() };
    let spans = ScopeSpans { scope: Some(scope), spans: spans.map(written).collect(), ..Default::default() };
    let spans = ResourceSpans { resource: Some(resource.clone()), scope_spans: vec![spans], ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

fn written(span: Span) -> Written {
    let Span { context, parent, name, kind, began_ns, ended_ns, attributes, failed } = span;
    let kind = match kind {
        Kind::Internal => span::SpanKind::Internal,
        Kind::Server => span::SpanKind::Server,
        Kind::Client => span::SpanKind::Client,
        Kind::Producer => span::SpanKind::Producer,
    };
    let code = |code: status::StatusCode| i32::from(code);
    Written {
        trace_id: context.trace.to_be_bytes().to_vec(),
        span_id: context.span.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        name: name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: began_ns,
        end_time_unix_nano: ended_ns,
        attributes: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        status: failed.map(|message| Status { message, code: code(status::StatusCode::Error) }),
        ..Written::default()
    }
}

fn attribute(key: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Number(number) => any_value::Value::IntValue(*number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
