//! What holds for every call: ids, limits, errors, who is listened to, health, reflection, TLS.

use std::fs;

use fulmar_proto::document::DESCRIPTORS;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha;

use super::{Caller, Node, TOKEN};

/// Serving, as the health service counts it.
const SERVING: i32 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_ids_codes_and_bounds() {
    let node = Node::start("");
    let admin = node.admin().await;
    let (mut grpc, path, codec) = admin.grpc("Apps/List").await;
    let mut request = admin.request(json!({}));
    request.metadata_mut().insert("x-request-id", "job-7".parse().unwrap());
    let answer = grpc.unary(request, path, codec).await.expect("a list");
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "job-7");

    let status = admin.call("Devices/Show", json!({ "device_id": "nobody" })).await.expect_err("there is none");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.metadata().get("fulmar-code").unwrap(), "IOTDA.014000");
    assert_eq!(status.metadata().get("x-request-id").unwrap().len(), 36);
    let status = admin.call("Devices/Show", json!({})).await.expect_err("nothing is named");
    assert!(status.code() == Code::InvalidArgument && status.message().contains("device_id"), "{status:?}");

    let large = json!({ "body": { "app_name": "x".repeat(1024 * 1024) } });
    let status = admin.call("Apps/Create", large).await.expect_err("it is too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");

    let (mut grpc, _, codec) = admin.grpc("Apps/List").await;
    let path = "/fulmar.admin.v1.Apps/Nothing".parse().unwrap();
    let status = grpc.unary(admin.request(json!({})), path, codec).await.expect_err("there is no such method");
    assert_eq!(status.code(), Code::Unimplemented);
    let made = admin.call("Apps/Create", json!({ "body": { "app_name": "twice" } })).await.expect("an app");
    assert_eq!(made["app_name"], "twice");
    let empty = admin.call("Apps/Delete", json!({ "app_id": made["app_id"] })).await;
    assert_eq!(empty.expect("deleted"), json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_many_wrong_tokens_is_not_listened_to_any_more() {
    let node = Node::start("");
    let admin = node.admin().await;
    for wrong in ["only-on-loopbac", "only-on-loopback1", "Only-on-loopback"] {
        let status = admin.showing(wrong).call("Apps/List", json!({})).await.expect_err(wrong);
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong}");
    }
    assert!(admin.call("Apps/List", json!({})).await.is_ok(), "three are not too many");
    // And what was before a right one is forgotten.
    let mut refused = 0;
    let status = loop {
        let status = admin.showing("wrong").call("Apps/List", json!({})).await.expect_err("wrong");
        if status.code() != Code::Unauthenticated {
            break status;
        }
        refused += 1;
        assert!(refused < 100, "nobody counts");
    };
    assert_eq!((status.code(), refused), (Code::ResourceExhausted, 20));
    let status = admin.call("Apps/List", json!({})).await.expect_err("the address is locked");
    assert_eq!(status.code(), Code::ResourceExhausted, "the right token too");
    let status = admin.showing("").call("Apps/List", json!({})).await.expect_err("no token");
    assert_eq!(status.code(), Code::Unauthenticated, "who tries none is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_for_everybody() {
    let node = Node::start("");
    let channel = node.admin().await.channel;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "fulmar.admin.v1.Devices", "fulmar.admin.v1.Cluster"] {
        let mut watch = health.watch(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner();
        // Entries that are still open when the door opens may be first.
        while watch.message().await.unwrap().expect("a status").status != SERVING {}
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await.expect(service);
        assert_eq!(answer.into_inner().status, SERVING, "{service}");
    }
    let unknown = health.check(HealthCheckRequest { service: "fulmar.admin.v1.Nothing".to_owned() }).await;
    assert_eq!(unknown.expect_err("there is none").code(), Code::NotFound);

    let mut reflection = ServerReflectionClient::new(channel.clone());
    let list = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::once(list())).await.unwrap().into_inner();
    let answer = answers.next().await.expect("an answer").unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else { panic!("a list") };
    let listed: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    let described = fulmar_proto::document::pool();
    assert!(!DESCRIPTORS.is_empty());
    for service in described.services() {
        assert!(listed.iter().any(|name| name == service.full_name()), "{}", service.full_name());
    }
    assert!(listed.iter().any(|name| name == "grpc.health.v1.Health"), "{listed:?}");

    let mut older = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let asked = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "fulmar.admin.v1.Devices".to_owned(),
        )),
    };
    let mut answers = older.server_reflection_info(Request::new(tokio_stream::once(asked))).await.unwrap().into_inner();
    let answer = answers.next().await.expect("an answer").unwrap();
    let files = v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse;
    assert!(matches!(answer.message_response, Some(response) if std::mem::discriminant(&response)
        == std::mem::discriminant(&files(v1alpha::FileDescriptorResponse { file_descriptor_proto: vec![] }))));
}

/// An authority, with a certificate of its own and a way to sign others.
fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

fn signed(name: &str, by: &Issuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_client_ca_a_client_shows_a_certificate_beside_its_token() {
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ((ours, issuer), (theirs, admins), (_, strangers)) =
        (authority("ours"), authority("admins"), authority("others"));
    let (cert, key) = signed("localhost", &issuer);
    let (cert, key, ca) = (write("cert", &cert), write("key", &key), write("ca", &theirs));
    let node = Node::start(&format!("tls = {{ cert = {cert:?}, key = {key:?}, client_ca = {ca:?} }}"));
    let tls = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ours)).domain_name("localhost");
    let (cert, key) = signed("an-admin", &admins);
    let channel = node.connect(Some(tls().identity(Identity::from_pem(cert, key)))).await;
    let admin = Caller { channel, token: TOKEN.to_owned() };
    admin.served().await;
    let status = admin.showing("").call("Apps/List", json!({})).await.expect_err("a certificate is no token");
    assert_eq!(status.code(), Code::Unauthenticated);

    let (cert, key) = signed("a-stranger", &strangers);
    for tls in [tls(), tls().identity(Identity::from_pem(cert, key))] {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", node.admin)).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap();
        // With TLS 1.3 a client hears of it only after its own part of the handshake.
        let refused = match endpoint.connect().await {
            Err(_) => true,
            Ok(channel) => {
                let mut health = HealthClient::new(channel);
                health.check(HealthCheckRequest { service: String::new() }).await.is_err()
            }
        };
        assert!(refused, "without a certificate of theirs nobody comes in, not even to health");
    }
    assert!(node.dir.path().exists());
}
