//! Requests to devices between nodes: to whoever has the device's connection, and the answer back to whoever waits.
//! Absent here: who waits for what, which is dispatch's business.

use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use fulmar_broker::{Epoch, Generation, NodeId, SessionKey};
use fulmar_platform::Downlink;
use fulmar_proto::peer::v1 as proto;
use tokio::runtime::Handle;
use tonic::metadata::MetadataMap;

use super::context::Context;
use super::peers::DataClient;
use super::replica::Replica;
use super::wire::{self, Wire as _};
use crate::telemetry::spans::{self, Going, Kind};

/// A request to a device, encoded for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Carry {
    /// The session whose connection it goes over, in the epoch that the sender knows.
    pub key: SessionKey,
    pub epoch: Epoch,
    /// Of the run that waits.
    pub request: [u8; 16],
    pub downlink: Downlink,
    /// How long the answer is waited for, in whole milliseconds; `None`: nothing answers it.
    pub within: Option<Duration>,
}

/// What became of it. Except for the first three nothing was sent, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    Answered(Bytes),
    /// On its way; nothing answers it.
    Sent,
    Timeout,
    /// The connection is not at the receiver, or not in that epoch.
    NotHere,
    NotSubscribed,
    /// Too many wait, or the device does not take what it is sent.
    Busy,
    /// The receiver has no lease.
    Frozen,
    /// The run of the receiver has ended meanwhile: it may have been sent.
    Lost,
}

/// What a device has answered, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The session that it came in on.
    pub key: SessionKey,
    /// The id of the request, as the device gave it.
    pub request: ByteString,
    pub answer: Bytes,
}

/// Who carries requests to the devices that are connected here, and waits for answers.
pub trait Desk: Send + Sync {
    fn carry(&self, carry: Carry) -> Pin<Box<dyn Future<Output = Carried> + Send>>;
    fn answered(&self, answered: Answered);
    /// Answers what people ask of this node by way of another.
    fn consult(&self, question: String, document: Bytes) -> Consulting;
}

/// A document, or why there is none.
pub type Consulting = Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>>;
/// Who says what this node remembers of messages and clients.
pub trait Examined: Send + Sync {
    fn examine(&self, asked: proto::ExamineRequest) -> proto::ExamineResponse;
}

impl Context {
    pub(super) fn desk(&self) -> Option<std::sync::Arc<dyn Desk>> {
        self.desk.get().and_then(Weak::upgrade)
    }
}

/// A request to another node, with the place in the trace that it belongs to.
fn traced<T>(message: T, span: &mut Going, to: NodeId) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(Ok(parent)) = span.context().map(|context| context.header().parse()) {
        request.metadata_mut().insert("traceparent", parent);
    }
    if span.recorded() {
        span.set("fulmar.node", format!("{:016x}", to.0).as_str());
    }
    request
}

fn failed(span: &mut Going, status: &tonic::Status) -> String {
    span.fail(status.message());
    status.message().to_owned()
}

/// Serves another node as a part of the trace that it names.
pub(super) async fn serving<F: Future>(metadata: &MetadataMap, name: &'static str, work: F) -> F::Output {
    let parent = metadata.get("traceparent").and_then(|parent| parent.to_str().ok());
    spans::called(parent, async {
        let span = spans::part(name, spans::Kind::Server);
        span.during(work).await
    })
    .await
}

impl Replica {
    /// Names who carries requests from here on. Once.
    pub fn carry_by(&self, desk: Weak<dyn Desk>) {
        // There is one dispatch in the life of a node.
        let _ = self.context().desk.set(desk);
    }

    /// Names who is asked what this node remembers. Once.
    pub fn examined_by(&self, examined: std::sync::Arc<dyn Examined>) {
        // There is one in the life of a node.
        let _ = self.context().examined.set(examined);
    }

    /// Asks another node what it remembers.
    ///
    /// # Errors
    /// It was not reached.
    pub async fn examine(
        &self,
        to: NodeId,
        asked: proto::ExamineRequest,
        runtime: &Handle,
    ) -> Result<proto::ExamineResponse, String> {
        let (mut client, hello) = self.client(to, runtime)?;
        let asked = proto::ExamineRequest { hello: Some(hello), ..asked };
        client.examine(asked).await.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    }

    /// The connection to another node. If it is new it is served by `runtime`.
    fn client(&self, to: NodeId, runtime: &Handle) -> Result<(DataClient, proto::Hello), String> {
        let _entered = runtime.enter();
        let client = self.peers().data(to.0).ok_or_else(|| format!("nobody knows where node {:016x} is", to.0))?;
        Ok((client, self.peers().hello(to.0, self.run().1)))
    }

    /// Has another node carry a request.
    ///
    /// # Errors
    /// The node was not reached, or lost before it had an answer: the request may have been sent.
    pub async fn carry(&self, to: NodeId, carry: &Carry, runtime: &Handle) -> Result<Carried, String> {
        let (mut client, hello) = self.client(to, runtime)?;
        let mut span = spans::part("peer carry", Kind::Client);
        let request = traced(proto::CarryRequest { hello: Some(hello), ..carry.to_message() }, &mut span, to);
        let answer = client.carry(request).await.map_err(|status| failed(&mut span, &status))?;
        Carried::from_message(answer.into_inner()).map_err(|error| error.to_string())
    }

    /// Has another node answer something that people ask: see [`Desk::consult`].
    ///
    /// # Errors
    /// It was not reached in time, or says why not.
    pub async fn consult(
        &self,
        to: NodeId,
        question: &str,
        document: Bytes,
        within: Duration,
        runtime: &Handle,
    ) -> Result<Bytes, String> {
        let (mut client, hello) = self.client(to, runtime)?;
        let mut span = spans::part("peer consult", Kind::Client);
        let request = proto::ConsultRequest { hello: Some(hello), question: question.to_owned(), document };
        let request = traced(request, &mut span, to);
        let answer = tokio::time::timeout(within, client.consult(request)).await;
        let answer = answer.map_err(|_| format!("node {:016x} does not answer", to.0))?;
        let answer = answer.map_err(|status| failed(&mut span, &status))?.into_inner();
        if answer.refused.is_empty() { Ok(answer.document) } else { Err(answer.refused) }
    }

    /// Tells another node what a device has answered.
    ///
    /// # Errors
    /// It was not reached.
    pub async fn answer(&self, to: (NodeId, Generation), answered: &Answered, runtime: &Handle) -> Result<(), String> {
        let (mut client, hello) = self.client(to.0, runtime)?;
        let request = proto::AnswerRequest { hello: Some(hello), ..answered.to_message() };
        client.answer(request).await.map(drop).map_err(|status| status.message().to_owned())
    }
}

/// What is wrong with a message, as a status.
pub(super) fn malformed(error: &wire::Error) -> tonic::Status {
    tonic::Status::invalid_argument(error.to_string())
}
