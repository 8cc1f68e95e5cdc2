//! A client of a node's gRPC API for admins: any method of the package by its name, with documents for messages.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fulmar_proto::document::{self, Documents, PACKAGE};
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::harness::ADMIN_TOKEN;

/// For a connection to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// How long one answer, or one part of a stream, may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A caller of one node, with a token.
#[derive(Debug, Clone)]
pub struct Admin {
    channel: Channel,
    token: MetadataValue<Ascii>,
}

/// What a method gives one after the other.
pub type Answers = Streaming<Value>;

impl Admin {
    /// Of a node of [`crate::harness::Cluster`], by its token. The connection is made with the first call.
    ///
    /// # Errors
    /// The address is none.
    pub fn at(address: SocketAddr) -> Result<Admin> {
        Admin::with(address, ADMIN_TOKEN)
    }

    /// As [`Admin::at`], with any token.
    ///
    /// # Errors
    /// The address is none, or the token cannot be sent.
    pub fn with(address: SocketAddr, token: &str) -> Result<Admin> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT);
        Ok(Admin { channel: endpoint.connect_lazy(), token: format!("Bearer {token}").parse()? })
    }

    /// As a user who signs in.
    ///
    /// # Errors
    /// The address is none, or the user is not let in.
    pub async fn of_user(address: SocketAddr, name: &str, password: &str) -> Result<Admin> {
        let nobody = Admin::with(address, "none")?;
        let (path, codec) = method_of("Iam/CreateToken");
        let user = json!({ "name": name, "password": password });
        let body = json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": user } } } });
        let mut client = Grpc::new(nobody.channel.clone());
        ready(&mut client).await?;
        let answer = in_time(client.unary(nobody.request(json!({ "body": body })), path, codec)).await?;
        let token = answer.metadata().get("x-subject-token").context("no token")?;
        Admin::with(address, token.to_str()?)
    }

    /// As [`Admin::with`], over TLS; `ca`: who signs the door's certificate, as PEM.
    ///
    /// # Errors
    /// As [`Admin::with`]; or these are no authorities.
    pub fn over_tls(address: SocketAddr, token: &str, ca: &str) -> Result<Admin> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.connect_timeout(CONNECT).tls_config(tls)?;
        Ok(Admin { channel: endpoint.connect_lazy(), token: format!("Bearer {token}").parse()? })
    }

    /// Calls a method that is answered once: `Cluster/ListMembers`.
    ///
    /// # Errors
    /// What the node says; `DeadlineExceeded` if it says nothing.
    ///
    /// # Panics
    /// There is no such method.
    pub async fn call(&self, method: &str, request: Value) -> Result<Value, Status> {
        let (path, codec) = method_of(method);
        let mut client = Grpc::new(self.channel.clone());
        ready(&mut client).await?;
        let asked = client.unary(self.request(request), path, codec);
        Ok(in_time(asked).await?.into_inner())
    }

    /// Calls a method that answers with a stream.
    ///
    /// # Errors
    /// What the node says.
    ///
    /// # Panics
    /// There is no such method.
    pub async fn stream(&self, method: &str, request: Value) -> Result<Answers, Status> {
        let (path, codec) = method_of(method);
        let mut client = Grpc::new(self.channel.clone());
        ready(&mut client).await?;
        Ok(in_time(client.server_streaming(self.request(request), path, codec)).await?.into_inner())
    }

    /// Calls a method that takes a stream, which is given whole.
    ///
    /// # Errors
    /// What the node says.
    ///
    /// # Panics
    /// There is no such method.
    pub async fn upload(&self, method: &str, parts: Vec<Value>) -> Result<Value, Status> {
        let (path, codec) = method_of(method);
        let mut client = Grpc::new(self.channel.clone());
        ready(&mut client).await?;
        let mut request = Request::new(tokio_stream::iter(parts));
        request.metadata_mut().insert("authorization", self.token.clone());
        Ok(in_time(client.client_streaming(request, path, codec)).await?.into_inner())
    }

    fn request(&self, document: Value) -> Request<Value> {
        let mut request = Request::new(document);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }
}

/// The next part of a stream.
///
/// # Errors
/// It has ended, or nothing comes.
pub async fn next(answers: &mut Answers) -> Result<Value> {
    let part = tokio::time::timeout(ANSWER, answers.message()).await.context("the stream is silent")??;
    part.context("the stream has ended")
}

/// Every part of a stream that ends.
///
/// # Errors
/// It does not end well.
pub async fn all(mut answers: Answers) -> Result<Vec<Value>> {
    let mut parts = Vec::new();
    while let Some(part) = tokio::time::timeout(ANSWER, answers.message()).await.context("the stream is silent")?? {
        ensure!(parts.len() < 1_000_000, "the stream does not end");
        parts.push(part);
    }
    Ok(parts)
}

fn method_of(name: &str) -> (PathAndQuery, Documents) {
    let method = document::method(name).unwrap_or_else(|| panic!("{name} is no method of {PACKAGE}"));
    let path = PathAndQuery::try_from(format!("/{PACKAGE}.{name}")).expect("names of methods are paths");
    (path, Documents::of_client(&method))
}

async fn ready(client: &mut Grpc<Channel>) -> Result<(), Status> {
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

async fn in_time<T>(asked: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}
