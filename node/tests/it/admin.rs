//! The gRPC door of a whole node that runs in the test's process.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of #[test] functions")]

mod answers;
mod matrix;
mod protocol;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fulmar::config::Config;
use fulmar_proto::document::{self, Documents, PACKAGE};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

const TOKEN: &str = "only-on-loopback";
const PASSWORD: &str = "only-on-loopback";
/// Argon2 of it, with the least effort.
const HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$1VDij4uZR6MhWHsLOjclsQ$xMNzHHcXVqfWE31TFVC4TGOdQcnpxAM80NGpy3wjuco";

/// Until a node serves.
const START: Duration = Duration::from_secs(60);

/// A node of its own cluster.
struct Node {
    admin: SocketAddr,
    running: JoinHandle<()>,
    dir: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A port that nobody listened on a moment ago.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Node {
    /// Starts one with a user of each role, named after it. `more`: of `[admin]`.
    fn start(more: &str) -> Node {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let (admin, mqtt) = (free(), free());
        let users = ["viewer", "operator", "admin"]
            .map(|role| format!("[[rest.user]]\nname = \"{role}\"\npassword_hash = \"{HASH}\"\nrole = \"{role}\"\n"));
        let text = format!(
            "[node]\ndata_dir = {:?}\n[probes]\nenabled = false\n[[listener]]\naddress = \"{mqtt}\"\n{}\
             [admin]\naddress = \"{admin}\"\ntoken = \"{TOKEN}\"\n{more}\n",
            dir.path().join("data").display().to_string(),
            users.concat(),
        );
        let config = Config::from_toml_str(&text).unwrap();
        let running = tokio::spawn(async move { fulmar::node::run(config).await.expect("the node runs") });
        Node { admin, running, dir }
    }

    /// Connects, once the node listens.
    async fn connect(&self, tls: Option<ClientTlsConfig>) -> Channel {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.admin)).unwrap();
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).unwrap();
        }
        let until = Instant::now() + START;
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(error) => assert!(Instant::now() < until && !self.running.is_finished(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A caller with the configured token, once the node serves.
    async fn admin(&self) -> Caller {
        let caller = Caller { channel: self.connect(None).await, token: TOKEN.to_owned() };
        caller.served().await;
        caller
    }
}

/// Whoever shows a token; none if it is empty.
#[derive(Clone)]
struct Caller {
    channel: Channel,
    token: String,
}

impl Caller {
    fn showing(&self, token: &str) -> Caller {
        Caller { channel: self.channel.clone(), token: token.to_owned() }
    }

    /// Waits until the node serves.
    async fn served(&self) {
        let until = Instant::now() + START;
        while let Err(status) = self.call("Apps/List", json!({})).await {
            assert!(Instant::now() < until && status.code() == Code::Unavailable, "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        }
        request
    }

    async fn grpc(&self, name: &str) -> (Grpc<Channel>, PathAndQuery, Documents) {
        let method = document::method(name).unwrap_or_else(|| panic!("{name} is not described"));
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        (grpc, format!("/{PACKAGE}.{name}").try_into().unwrap(), Documents::of_client(&method))
    }

    async fn ask(&self, name: &str, document: Value) -> Result<Response<Value>, Status> {
        let (mut grpc, path, codec) = self.grpc(name).await;
        grpc.unary(self.request(document), path, codec).await
    }

    async fn call(&self, name: &str, document: Value) -> Result<Value, Status> {
        self.ask(name, document).await.map(Response::into_inner)
    }

    async fn stream(&self, name: &str, document: Value) -> Result<Streaming<Value>, Status> {
        let (mut grpc, path, codec) = self.grpc(name).await;
        grpc.server_streaming(self.request(document), path, codec).await.map(Response::into_inner)
    }

    async fn upload(&self, name: &str, parts: Vec<Value>) -> Result<Value, Status> {
        let (mut grpc, path, codec) = self.grpc(name).await;
        let request = self.request(tokio_stream::iter(parts));
        grpc.client_streaming(request, path, codec).await.map(Response::into_inner)
    }

    /// Signs in as a user, and shows the token from here on.
    async fn sign_in(&self, user: &str) -> Caller {
        let user = json!({ "name": user, "password": PASSWORD });
        let identity = json!({ "methods": ["password"], "password": { "user": user } });
        let document = json!({ "body": { "auth": { "identity": identity } } });
        let answer = self.showing("").ask("Iam/CreateToken", document).await.expect("signed in");
        let token = answer.metadata().get("x-subject-token").expect("a token").to_str().unwrap();
        self.showing(token)
    }
}
