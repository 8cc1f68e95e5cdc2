//! Every call of the table as a gRPC method, by its descriptor: one service for all of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fulmar_proto::document::{self, Documents};
use futures_util::{Stream, StreamExt, stream};
use prost_reflect::MethodDescriptor;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{ClientStreamingService, Grpc, ServerStreamingService, UnaryService};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use super::status::{self, REQUEST_ID};
use crate::api::{self, Answer, Api, Call, Caller, Fault, Handler, Needs, Route};
use crate::config::units::Secret;
use crate::telemetry::{Metrics, spans};

/// For one request, from its head to its answer. A device is waited for up to 20 s, a change of the members for the log.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// For the next part of an upload.
const PART_WITHIN: Duration = Duration::from_secs(30);

/// Calls that this door carries out at a time, for all connections. They go on when their client has gone, so that what
/// they have done is written to the audit.
const CALLS_MAX: usize = 256;

/// Streams of answers at a time, for all connections.
const STREAMS_MAX: usize = 1_000;

/// Between two looks at whether whoever has asked for a stream may still have it.
const TOKEN_EVERY: Duration = Duration::from_secs(5);

/// Bytes of a client's own id of its request.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// See the module.
#[derive(Clone)]
pub(super) struct Calls(Arc<Shared>);

struct Shared {
    api: Arc<Api>,
    token: Secret,
    metrics: Arc<Metrics>,
    closed: watch::Receiver<bool>,
    methods: HashMap<String, (&'static Route, MethodDescriptor)>,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Calls {
    pub(super) fn new(api: Arc<Api>, token: Secret, metrics: Arc<Metrics>, closed: watch::Receiver<bool>) -> Calls {
        let methods = api::all().filter(|route| route.in_grpc()).filter_map(|route| {
            let name = route.method();
            let method = document::method(&name)?;
            Some((format!("/{}.{name}", document::PACKAGE), (route, method)))
        });
        let (calls, streams) = (Arc::new(Semaphore::new(CALLS_MAX)), Arc::new(Semaphore::new(STREAMS_MAX)));
        Calls(Arc::new(Shared { api, token, metrics, closed, methods: methods.collect(), calls, streams }))
    }
}

impl<B> Service<http::Request<B>> for Calls
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { Ok(shared.serve(request).await) })
    }
}

/// A request whose caller is known.
#[derive(Clone)]
struct Asked {
    shared: Arc<Shared>,
    route: &'static Route,
    caller: Caller,
    peer: IpAddr,
    /// Of a user: it ends, or is taken away.
    token: Option<Secret>,
    request_id: String,
    /// Among those that are carried out.
    place: Arc<OwnedSemaphorePermit>,
}

impl Shared {
    async fn serve<B>(self: Arc<Shared>, request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let Some((route, method)) = self.methods.get(request.uri().path()) else {
            return Status::unimplemented("there is no such method").into_http();
        };
        let request_id = request_id(request.headers());
        let asked = match self.ask(route, &request, request_id.clone()) {
            Ok(asked) => asked,
            Err(fault) => return status::of_fault(&fault, &request_id).into_http(),
        };
        let mut grpc = Grpc::new(Documents::of_server(method)).max_decoding_message_size(route.body_bytes_max());
        let answered = async move {
            match route.handler {
                Handler::Once(_) => grpc.unary(Once(asked), request).await,
                Handler::Stream(_) => grpc.server_streaming(Many(asked), request).await,
                // An upload takes as long as its parts come.
                Handler::Upload(_) => grpc.client_streaming(Upload(asked), request).await,
            }
        };
        let answered = match route.handler {
            Handler::Upload(_) => answered.await,
            Handler::Once(_) | Handler::Stream(_) => {
                tokio::time::timeout(ANSWER_WITHIN, answered).await.unwrap_or_else(|_| {
                    let mut status = Status::deadline_exceeded("no answer in time; it may have been done all the same");
                    status::identify(&mut status, &request_id);
                    status.into_http()
                })
            }
        };
        bounded(answered)
    }

    /// Finds out who asks, before anything of the request's body is read.
    fn ask<B>(
        self: &Arc<Shared>,
        route: &'static Route,
        request: &http::Request<B>,
        request_id: String,
    ) -> Result<Asked, Fault> {
        let connected = request.extensions().get::<TcpConnectInfo>();
        let peer = connected.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip().to_canonical());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let shown = bearer(request.headers());
        let caller = match route.needs {
            Needs::Nothing => Caller::nobody(),
            Needs::Role(_) => self.api.by_bearer(shown, &self.token, peer).inspect_err(|fault| {
                self.metrics.admin_refused(if fault.status == 429 { "locked" } else { "unauthenticated" });
            })?,
        };
        let place = match route.handler {
            Handler::Stream(_) => &self.streams,
            Handler::Once(_) | Handler::Upload(_) => &self.calls,
        };
        let Ok(place) = place.clone().try_acquire_owned() else {
            self.metrics.admin_refused("busy");
            return Err(Fault::busy());
        };
        let shared = self.clone();
        let token = shown.filter(|_| !caller.name.is_empty() && caller.name != api::ADMIN_TOKEN).map(Secret::new);
        Ok(Asked { shared, route, caller, peer, token, request_id, place: Arc::new(place) })
    }
}

/// What a client calls its request, or an id made here.
fn request_id(headers: &http::HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let well = |id: &&str| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    given.filter(well).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// The token that a request shows.
fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ").filter(|token| !token.is_empty())
}

/// tonic says of a message that is too large that it is out of range.
fn bounded(mut response: http::Response<Body>) -> http::Response<Body> {
    if let Some(code) = response.headers_mut().get_mut("grpc-status")
        && code.as_bytes() == b"11"
    {
        *code = http::HeaderValue::from_static("8");
    }
    response
}

impl Asked {
    fn call(&self, document: Value) -> Result<Call, Fault> {
        Call::of_document(self.shared.api.clone(), self.peer, self.caller.clone(), self.route, document)
    }

    /// Why no call was made of a request. What is wrong with it is told to those who may make it.
    fn unmade(&self, fault: Fault) -> Status {
        self.fault(&self.shared.api.allow(self.route, &self.caller).err().unwrap_or(fault))
    }

    /// Until whoever asked may not ask any more.
    async fn outlived(&self) -> Status {
        let Some(token) = &self.token else { return std::future::pending().await };
        loop {
            tokio::time::sleep(TOKEN_EVERY).await;
            let good = self.shared.api.by_token(token.expose(), self.peer);
            if let Err(fault) = good.and_then(|caller| self.shared.api.allow(self.route, &caller)) {
                return self.fault(&fault);
            }
        }
    }

    fn fault(&self, fault: &Fault) -> Status {
        status::of_fault(fault, &self.request_id)
    }

    /// Waits for work that goes on, when its client has gone.
    async fn done(
        self,
        work: impl Future<Output = Result<Answer, Fault>> + Send + 'static,
    ) -> Result<Response<Value>, Status> {
        let place = self.place.clone();
        let task = tokio::spawn(async move {
            let answered = work.await;
            drop(place);
            answered
        });
        match task.await {
            Ok(Ok(answer)) => Ok(status::of_answer(answer, &self.request_id)),
            Ok(Err(fault)) => Err(self.fault(&fault)),
            Err(error) => {
                tracing::error!(%error, operation = self.route.name, request_id = self.request_id, "a call has failed");
                let mut status = Status::internal("the call has failed; the log of the node says more");
                status::identify(&mut status, &self.request_id);
                Err(status)
            }
        }
    }
}

/// One request, one answer.
struct Once(Asked);

impl UnaryService<Value> for Once {
    type Response = Value;
    type Future = BoxFuture<Response<Value>, Status>;

    fn call(&mut self, request: Request<Value>) -> Self::Future {
        let asked = self.0.clone();
        let parent = request.metadata().get("traceparent").and_then(|parent| parent.to_str().ok()).map(str::to_owned);
        Box::pin(async move {
            let call = asked.call(request.into_inner()).map_err(|fault| asked.unmade(fault))?;
            let (api, route, id) = (asked.shared.api.clone(), asked.route, asked.request_id.clone());
            let answer = async move { spans::called(parent.as_deref(), api.answer(route, call, &id)).await };
            asked.done(answer).await
        })
    }
}

/// One request, many answers.
struct Many(Asked);

type Answers = Pin<Box<dyn Stream<Item = Result<Value, Status>> + Send>>;

impl ServerStreamingService<Value> for Many {
    type Response = Value;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Value>) -> Self::Future {
        let asked = self.0.clone();
        Box::pin(async move {
            let call = asked.call(request.into_inner()).map_err(|fault| asked.unmade(fault))?;
            let begun = asked.shared.api.stream(asked.route, call).map_err(|fault| asked.fault(&fault))?;
            let mut closed = asked.shared.closed.clone();
            let streaming = asked.clone();
            let end = async move {
                tokio::select! {
                    // The sender goes with the node.
                    _ = closed.wait_for(|closed| *closed) => status::leaving(),
                    status = streaming.outlived() => status,
                }
            };
            let request_id = asked.request_id.clone();
            let answers = begun.map(move |answer| answer.map_err(|fault| asked.fault(&fault)));
            // One that ends by itself has said everything; one that is cut is to be resumed elsewhere.
            let (mut answers, mut end) = (answers, Box::pin(end));
            let mut over = false;
            let answers = stream::poll_fn(move |context| {
                if over {
                    return Poll::Ready(None);
                }
                // What it has to say comes first: the node may leave because of it.
                if let Poll::Ready(answer) = answers.poll_next_unpin(context) {
                    return Poll::Ready(answer);
                }
                let status = ready!(end.as_mut().poll(context));
                over = true;
                Poll::Ready(Some(Err(status)))
            });
            let mut response: Response<Answers> = Response::new(Box::pin(answers));
            if let Ok(id) = request_id.parse() {
                response.metadata_mut().insert(REQUEST_ID, id);
            }
            Ok(response)
        })
    }
}

/// Many requests, one answer. The first is the call's own.
struct Upload(Asked);

impl ClientStreamingService<Value> for Upload {
    type Response = Value;
    type Future = BoxFuture<Response<Value>, Status>;

    fn call(&mut self, request: Request<Streaming<Value>>) -> Self::Future {
        let asked = self.0.clone();
        Box::pin(async move {
            // Before anything is read of it.
            asked.shared.api.allow(asked.route, &asked.caller).map_err(|fault| asked.fault(&fault))?;
            let mut parts = parts(request.into_inner(), asked.route.body_bytes_max());
            let first = parts.next().await.unwrap_or_else(|| Err(Fault::format("The upload is empty.")));
            let call = first.and_then(|first| asked.call(first)).map_err(|fault| asked.fault(&fault))?;
            let (api, route, id) = (asked.shared.api.clone(), asked.route, asked.request_id.clone());
            asked.done(async move { api.upload(route, call, parts, &id).await }).await
        })
    }
}

/// What comes, each part in its time.
fn parts(messages: Streaming<Value>, bytes_max: usize) -> api::Uploads {
    Box::pin(stream::unfold(Some(messages), move |messages| async move {
        let mut messages = messages?;
        let fault = match tokio::time::timeout(PART_WITHIN, messages.message()).await {
            Ok(Ok(Some(part))) => return Some((Ok(part), Some(messages))),
            Ok(Ok(None)) => return None,
            Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => Fault::oversize(bytes_max),
            Ok(Err(status)) => Fault::format(status.message()),
            Err(_) => Fault::slow(),
        };
        Some((Err(fault), None))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_an_id() {
        let named = |id: &'static str| {
            request_id(&http::HeaderMap::from_iter([(http::HeaderName::from_static(REQUEST_ID), id.parse().unwrap())]))
        };
        assert_eq!(named("job-7/retry.2"), "job-7/retry.2");
        for unfit in ["", "two words"] {
            assert_eq!(named(unfit).len(), 36, "{unfit:?}");
        }
        assert_ne!(request_id(&http::HeaderMap::new()), request_id(&http::HeaderMap::new()));
    }

    #[test]
    fn what_is_too_large_has_no_room() {
        let coded = |status: Status| bounded(status.into_http()).headers()["grpc-status"].clone();
        assert_eq!(coded(Status::out_of_range("x")), "8");
        assert_eq!(coded(Status::internal("x")), "13");
    }
}
