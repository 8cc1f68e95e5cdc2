//! Traces, as a collector of OpenTelemetry is given them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use cluster_tests::devices::{Device, Vendor};
use cluster_tests::harness::ClusterOptions;
use fulmar_mqtt::QoS;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::commands::Connected;
use crate::devices::cluster_of;
use crate::support::SOON;

/// A trace of a caller, and the caller's span in it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector that passes on what it is given: attributes of the resource, and a span.
struct Collector(mpsc::UnboundedSender<(BTreeMap<String, String>, Span)>);

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", attribute.key),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if request.metadata().get("x-tenant").is_none_or(|tenant| tenant != "one") {
            return Err(Status::unauthenticated("the configured header is missing"));
        }
        for resource in request.into_inner().resource_spans {
            let about = texts(&resource.resource.unwrap_or_default().attributes);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let _ = self.0.send((about.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<(BTreeMap<String, String>, Span)>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, (spans, taken)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(spans)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_from_node_to_node_is_one_tree_of_spans_below_its_caller() {
    let (address, mut spans) = collector().await;
    let config = format!(
        "[telemetry.otlp]\nendpoint = \"http://{address}\"\nheaders = {{ x-tenant = \"one\" }}\n\
         sampling_percent = 0\nresource = {{ \"deployment.environment\" = \"test\" }}\n"
    );
    let device = Device::new(Vendor::Huawei, "one");
    let options = ClusterOptions { config, ..ClusterOptions::default() };
    let (mut cluster, rest) = cluster_of(std::slice::from_ref(&device), options).await;
    let mut connected = Connected::at(&cluster, 1, &device).await;
    connected.subscribe(&format!("$oc/devices/{}/sys/commands/#", device.id()), QoS::AtMostOnce).await;

    // The caller has decided: what nobody asks for is not recorded.
    let traced = rest.traced(&format!("00-{TRACE}-{CALLER}-01"));
    let path = format!("/devices/{}/commands", device.id());
    let body = json!({ "command_name": "count", "paras": { "number": 1 } });
    let asked = tokio::spawn(async move { traced.ask("POST", &path, Some(&body)).await.unwrap() });
    let (topic, _) = connected.asked().await;
    connected.answer(&topic, &json!({ "result_code": 0 })).await;
    assert_eq!(asked.await.unwrap().0, 200);

    let tree = [
        ("commands.create", SpanKind::Server, ""),
        ("device call", SpanKind::Client, "commands.create"),
        ("peer carry", SpanKind::Client, "device call"),
        ("carry", SpanKind::Server, "peer carry"),
        ("device downlink", SpanKind::Producer, "carry"),
    ];
    let mut seen: BTreeMap<String, (BTreeMap<String, String>, Span)> = BTreeMap::new();
    while seen.len() < tree.len() {
        let (about, span) =
            timeout(SOON, spans.recv()).await.expect("every span, soon").expect("a collector that runs");
        assert_eq!(hex::encode(&span.trace_id), TRACE, "{}: only the caller's trace is recorded", span.name);
        let twice = seen.insert(span.name.clone(), (about, span));
        assert!(twice.is_none(), "{twice:?}");
    }
    for (name, kind, parent) in tree {
        let (_, span) = seen.get(name).unwrap_or_else(|| panic!("no span {name} among {:?}", seen.keys()));
        assert_eq!(span.kind, i32::from(kind), "{name}");
        let above = match parent {
            "" => CALLER.to_owned(),
            parent => hex::encode(&seen[parent].1.span_id),
        };
        assert_eq!(hex::encode(&span.parent_span_id), above, "{name} is a part of {parent}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
        assert!(span.status.as_ref().is_none_or(|status| status.code == 0), "{name}: {:?}", span.status);
    }
    let instance = |name: &str| seen[name].0["service.instance.id"].clone();
    assert_eq!((instance("commands.create"), instance("carry")), (instance("peer carry"), instance("device downlink")));
    assert_ne!(instance("peer carry"), instance("carry"), "two nodes took part");
    assert_eq!(texts(&seen["peer carry"].1.attributes)["fulmar.node"], instance("carry"));
    let (about, root) = &seen["commands.create"];
    assert_eq!((about["service.name"].as_str(), about["deployment.environment"].as_str()), ("fulmar", "test"));
    let said = texts(&root.attributes);
    assert_eq!((said["http.response.status_code"].as_str(), said["fulmar.door"].as_str()), ("200", "rest"));

    // A change is committed by the log, as a part of the request too.
    let product = json!({ "name": "traced", "device_type": "t", "protocol_type": "MQTT", "data_format": "json", "service_capabilities": [] });
    let (status, said) =
        rest.traced(&format!("00-{TRACE}-{CALLER}-01")).ask("POST", "/products", Some(&product)).await.unwrap();
    assert_eq!(status, 201, "{said}");
    let (mut commit, mut made) = (None, None);
    while commit.is_none() || made.is_none() {
        let (_, span) = timeout(SOON, spans.recv()).await.expect("the spans of a change").unwrap();
        match span.name.as_str() {
            "log commit" => commit = Some(span),
            "products.create" => made = Some(span),
            other => panic!("a span {other}"),
        }
    }
    assert_eq!(commit.unwrap().parent_span_id, made.unwrap().span_id);
    for (node, metrics) in cluster.all_metrics().await {
        assert_eq!(metrics.sum(&["fulmar_otlp_spans_dropped_total"]), 0, "{node}");
    }
}
