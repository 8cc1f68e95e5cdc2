//! Calls of the admin API by name, documents in and documents out, asked of whichever node answers.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use fulmar_proto::document::{self, Documents, PACKAGE};
use futures_util::Stream;
use prost_reflect::{Kind as Type, MessageDescriptor, MethodDescriptor};
use serde_json::Value;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::connect::{Door, Token};
use super::failure::{EXIT_UNREACHABLE, Failure};

/// For an answer: longer than a node waits for its cluster.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// Bytes of an answer; a list of everything may be long.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

type Connection = InterceptedService<Channel, Token>;

/// Some nodes, of which any will do.
pub(super) struct Client {
    doors: Vec<Door>,
    /// Index of the door that answered last.
    at: Cell<usize>,
    /// Connections that were made, by door.
    open: RefCell<Vec<Option<Connection>>>,
}

/// The method of a name like `Devices/Show`.
pub(super) fn method(name: &str) -> Result<MethodDescriptor, Failure> {
    document::method(name).ok_or_else(|| {
        let near = || document::pool().services().filter(|service| service.package_name() == PACKAGE);
        let service = name.split('/').next().unwrap_or_default();
        let names: Vec<String> = match near().find(|known| known.name().eq_ignore_ascii_case(service)) {
            Some(service) => service.methods().map(|method| format!("{}/{}", service.name(), method.name())).collect(),
            None => near().map(|service| service.name().to_owned()).collect(),
        };
        Failure::usage(format!("there is no call {name}; there are {}", names.join(", ")))
    })
}

/// Whether a call changes nothing, so that asking twice does no harm.
fn reads(name: &str) -> bool {
    crate::api::all().find(|route| route.method() == name).is_some_and(|route| !route.changes)
}

impl Client {
    pub(super) fn new(doors: Vec<Door>) -> Client {
        let open = RefCell::new(doors.iter().map(|_| None).collect());
        Client { doors, at: Cell::new(0), open }
    }

    pub(super) fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// A client that asks one of the doors only.
    pub(super) fn only(&self, door: &Door) -> Client {
        Client::new(vec![door.clone()])
    }

    /// The address of the node that answered last.
    pub(super) fn address(&self) -> &str {
        self.doors.get(self.at.get()).map_or("", |door| &door.address)
    }

    /// One answer.
    pub(super) async fn call(&self, name: &str, request: Value) -> Result<Value, Failure> {
        self.call_with_metadata(name, request).await.map(|(answer, _)| answer)
    }

    /// The same, with what else the node says.
    pub(super) async fn call_with_metadata(&self, name: &str, request: Value) -> Result<(Value, MetadataMap), Failure> {
        let method = checked(name, &request)?;
        self.anywhere(reads(name), async |mut grpc| {
            let asked = grpc.unary(Request::new(request.clone()), path(name), Documents::of_client(&method));
            let answer = tokio::time::timeout(ANSWER_WITHIN, asked).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("")))?;
            let (metadata, mut answer, _) = answer.into_parts();
            fill(&method.output(), &mut answer);
            Ok((answer, metadata))
        })
        .await
    }

    /// Answers that come one after the other.
    pub(super) async fn stream(&self, name: &str, request: Value) -> Result<Streaming<Value>, Failure> {
        let method = checked(name, &request)?;
        self.anywhere(true, async |mut grpc| {
            let asked = grpc.server_streaming(Request::new(request.clone()), path(name), Documents::of_client(&method));
            let answer = tokio::time::timeout(ANSWER_WITHIN, asked).await;
            Ok(answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("")))?.into_inner())
        })
        .await
    }

    /// The next answer of a stream of the node that answered last; `None` at its end.
    pub(super) async fn next(&self, answers: &mut Streaming<Value>) -> Result<Option<Value>, Failure> {
        let door = self.doors.get(self.at.get()).ok_or_else(nobody)?;
        answers.message().await.map_err(|status| said(&status, door))
    }

    /// As [`Client::next`], with members that have their default value.
    pub(super) async fn next_of(&self, name: &str, answers: &mut Streaming<Value>) -> Result<Option<Value>, Failure> {
        let output = method(name)?.output();
        let mut answer = self.next(answers).await?;
        if let Some(answer) = &mut answer {
            fill(&output, answer);
        }
        Ok(answer)
    }

    /// One answer to requests that go one after the other, of the node that answered last: what has gone cannot be sent
    /// again.
    pub(super) async fn upload<S>(&self, name: &str, requests: S) -> Result<Value, Failure>
    where
        S: Stream<Item = Value> + Send + 'static,
    {
        let method = method(name)?;
        let at = self.at.get();
        let connection = self.connection(at).await?;
        let mut grpc = Grpc::new(connection).max_decoding_message_size(ANSWER_BYTES_MAX);
        let Some(door) = self.doors.get(at) else { return Err(nobody()) };
        ready(&mut grpc).await.map_err(|status| said(&status, door))?;
        let answer = grpc.client_streaming(Request::new(requests), path(name), Documents::of_client(&method)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| said(&status, door))
    }

    /// Asks one node after the other, beginning with the one that answered last, until one has answered. `again`: also
    /// after a connection broke.
    async fn anywhere<T>(
        &self,
        again: bool,
        ask: impl AsyncFn(Grpc<Connection>) -> Result<T, Status>,
    ) -> Result<T, Failure> {
        let mut failed: Option<Failure> = None;
        for offset in 0..self.doors.len() {
            let at = (self.at.get() + offset) % self.doors.len();
            let failure = match self.at_door(at, &ask).await {
                Ok(answer) => {
                    self.at.set(at);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            // What is wrong with what was asked, or with the token, is wrong everywhere.
            let further = failure.elsewhere || (again && failure.code == EXIT_UNREACHABLE);
            if failure.code == EXIT_UNREACHABLE {
                self.forget(at);
            }
            if !further {
                return Err(failure);
            }
            failed.get_or_insert(failure);
        }
        let failed = failed.unwrap_or_else(nobody);
        Err(match self.doors.len() {
            0 | 1 => failed,
            count => Failure { text: format!("none of {count} nodes answers; the first: {failed}"), ..failed },
        })
    }

    async fn at_door<T>(
        &self,
        at: usize,
        ask: &impl AsyncFn(Grpc<Connection>) -> Result<T, Status>,
    ) -> Result<T, Failure> {
        let connection = self.connection(at).await?;
        let Some(door) = self.doors.get(at) else { return Err(nobody()) };
        let mut grpc = Grpc::new(connection).max_decoding_message_size(ANSWER_BYTES_MAX);
        ready(&mut grpc).await.map_err(|status| said(&status, door))?;
        ask(grpc).await.map_err(|status| said(&status, door))
    }

    async fn connection(&self, at: usize) -> Result<Connection, Failure> {
        let open = self.open.borrow().get(at).cloned().flatten();
        if let Some(connection) = open {
            return Ok(connection);
        }
        let door = self.doors.get(at).ok_or_else(nobody)?;
        let (channel, token) = door.connect().await?;
        let connection = InterceptedService::new(channel, token);
        if let Some(place) = self.open.borrow_mut().get_mut(at) {
            *place = Some(connection.clone());
        }
        Ok(connection)
    }

    /// The node at a door has gone: the next call connects anew, and asks another first.
    fn forget(&self, at: usize) {
        if let Some(place) = self.open.borrow_mut().get_mut(at) {
            *place = None;
        }
    }

    /// The node that answered last is asked last from now on.
    pub(super) fn turn_away(&self) {
        self.forget(self.at.get());
        self.at.set((self.at.get() + 1) % self.doors.len().max(1));
    }
}

/// Puts in what is left out on the wire because it has its default value: `false`, 0, and empty lists.
fn fill(message: &MessageDescriptor, document: &mut Value) {
    let Value::Object(members) = document else { return };
    if message.full_name().starts_with("google.protobuf.") {
        return;
    }
    for field in message.fields().filter(|field| !field.is_map()) {
        let inner = match field.kind() {
            Type::Message(inner) => Some(inner),
            _ => None,
        };
        match (members.get_mut(field.name()), inner) {
            (Some(Value::Array(list)), Some(inner)) if field.is_list() => {
                list.iter_mut().for_each(|value| fill(&inner, value));
            }
            (Some(value), Some(inner)) => fill(&inner, value),
            (Some(_), None) => {}
            (None, _) if field.is_list() => {
                members.insert(field.name().to_owned(), Value::Array(Vec::new()));
            }
            (None, None) if !field.supports_presence() => {
                let default = match field.kind() {
                    Type::Bool => Value::Bool(false),
                    Type::String | Type::Bytes | Type::Enum(_) => Value::String(String::new()),
                    _ => 0.into(),
                };
                members.insert(field.name().to_owned(), default);
            }
            (None, _) => {}
        }
    }
}

fn nobody() -> Failure {
    Failure::usage("no node has a door for admins")
}

fn said(status: &Status, door: &Door) -> Failure {
    Failure::of_status(status, &door.address, door.advice())
}

async fn ready(grpc: &mut Grpc<Connection>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

/// The method, if the request is one of its.
fn checked(name: &str, request: &Value) -> Result<MethodDescriptor, Failure> {
    let method = method(name)?;
    document::message(&method.input(), request).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    Ok(method)
}

/// Of a method that is known.
fn path(name: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/{PACKAGE}.{name}")).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_and_their_members_are_known_before_anybody_is_asked() {
        let unknown = method("Cluster/Members").expect_err("no such call");
        assert!(unknown.code == 2 && unknown.text.contains("Cluster/ListMembers"), "{unknown}");
        assert!(method("nothing").expect_err("no such call").text.contains("there are Access"));
        let surplus = checked("Cluster/Join", &json!({ "adress": "a" })).expect_err("no such member");
        assert!(
            surplus.text.starts_with("Cluster/Join: JoinRequest: ") && surplus.text.contains("adress"),
            "{surplus}"
        );
        assert!(reads("Cluster/ListMembers") && !reads("Cluster/Drain"));
    }

    #[test]
    fn defaults_that_the_wire_leaves_out_are_there() {
        let output = method("Cluster/ListMembers").expect("it is there").output();
        let mut answer = json!({ "node": "a", "members": [{ "node": "b" }] });
        fill(&output, &mut answer);
        assert_eq!((&answer["term"], &answer["members"][0]["alive"]), (&json!(0), &json!(false)));
        assert_eq!((answer.get("leader"), answer["members"][0].get("lag")), (None, None), "these may be absent");
    }

    #[tokio::test]
    async fn without_doors_nobody_is_asked() {
        let failure = Client::new(Vec::new()).call("Cluster/ListMembers", json!({})).await.expect_err("nobody");
        assert_eq!((failure.code, &*failure.text), (2, "no node has a door for admins"));
    }
}
