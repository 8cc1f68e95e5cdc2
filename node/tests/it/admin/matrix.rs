//! Who may call what: every row of the table, for everybody.

use fulmar::api::{self, Handler, Needs, Route};
use fulmar_platform::registry::Role;
use fulmar_proto::document;
use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use super::{Caller, Node, TOKEN};

/// What whoever may does with whatever is asked, and the node is needed for the rest of the test. Those who may not are
/// refused all the same.
const HARMFUL: [&str; 4] = ["cluster.drain", "cluster.recover", "backups.restore", "sessions.clear"];

/// Something for every field, so that nothing is missing; hardly any of it is there.
fn made(message: &MessageDescriptor, depth: usize) -> Value {
    match message.full_name() {
        "google.protobuf.Struct" => return json!({ "made": 1 }),
        "google.protobuf.Value" => return json!("made"),
        "google.protobuf.ListValue" => return json!([]),
        _ if depth == 0 => return json!({}),
        _ => {}
    }
    let mut document = Map::new();
    for field in message.fields() {
        // One of a oneof is enough.
        let taken = field.containing_oneof().filter(|oneof| oneof.fields().len() > 1);
        if taken.is_some_and(|oneof| oneof.fields().any(|other| document.contains_key(other.name()))) {
            continue;
        }
        let value = match field.kind() {
            Kind::Message(inner) => made(&inner, depth - 1),
            Kind::Bool => json!(true),
            Kind::String => json!("made"),
            Kind::Bytes => json!("bWFkZQ=="),
            Kind::Enum(kind) => json!(kind.values().last().map(|value| value.name().to_owned())),
            _ => json!(1),
        };
        let value = if field.is_map() {
            json!({})
        } else if field.is_list() {
            json!([value])
        } else {
            value
        };
        document.insert(field.name().to_owned(), value);
    }
    Value::Object(document)
}

async fn outcome(caller: &Caller, route: &Route) -> Result<(), Status> {
    let method = route.method();
    let input = document::method(&method).unwrap_or_else(|| panic!("{method} is not described")).input();
    let document = made(&input, 8);
    match route.handler {
        Handler::Once(_) => caller.call(&method, document).await.map(drop),
        Handler::Stream(_) => caller.stream(&method, document).await.map(drop),
        Handler::Upload(_) => caller.upload(&method, vec![document]).await.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_call_what_its_row_says() {
    let node = Node::start("");
    let nobody = node.admin().await.showing("");
    let mut callers = vec![(None, nobody.clone()), (Some(Role::Admin), nobody.showing(TOKEN))];
    for (role, user) in [(Role::Viewer, "viewer"), (Role::Operator, "operator"), (Role::Admin, "admin")] {
        callers.push((Some(role), nobody.sign_in(user).await));
    }
    let (mut seen, mut wrong) = (0, Vec::new());
    for route in api::all().filter(|route| route.in_grpc()) {
        for (role, caller) in &callers {
            let (refusal, may) = match (route.needs, role) {
                (Needs::Nothing, _) => (None, true),
                (Needs::Role(_), None) => (Some(Code::Unauthenticated), false),
                (Needs::Role(needs), Some(role)) => {
                    (Some(Code::PermissionDenied).filter(|_| *role < needs), *role >= needs)
                }
            };
            if may && HARMFUL.contains(&route.name) {
                continue;
            }
            seen += 1;
            let outcome = outcome(caller, route).await;
            let code = outcome.as_ref().map_or_else(Status::code, |()| Code::Ok);
            let well = match refusal {
                Some(refusal) => code == refusal,
                // The sign-in itself refuses who is not there.
                None if route.needs == Needs::Nothing => matches!(code, Code::Unauthenticated | Code::InvalidArgument),
                None => !matches!(
                    code,
                    Code::Unauthenticated
                        | Code::PermissionDenied
                        | Code::Unimplemented
                        | Code::Internal
                        | Code::Unknown
                ),
            };
            if !well {
                wrong.push(format!("{} as {role:?}: {outcome:?}", route.name));
            }
        }
    }
    assert!(seen > 300, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names of fields of a message.
fn fields(message: &MessageDescriptor) -> Vec<String> {
    message.fields().map(|field| field.name().to_owned()).collect()
}

#[test]
fn every_row_is_a_method_and_every_method_a_row() {
    let mut methods: Vec<String> = Vec::new();
    for route in api::all().filter(|route| route.in_grpc()) {
        let name = route.method();
        let method = document::method(&name).unwrap_or_else(|| panic!("{name} is not described"));
        let streams = (method.is_client_streaming(), method.is_server_streaming());
        let wanted = match route.handler {
            Handler::Once(_) => (false, false),
            Handler::Stream(_) => (false, true),
            Handler::Upload(_) => (true, false),
        };
        assert_eq!(streams, wanted, "{name}");
        if let Some(http) = &route.http {
            let known = fields(&method.input());
            let params = http.params().filter(|name| *name != "project_id");
            let mut named: Vec<&str> = params.chain(http.query.iter().copied()).collect();
            for field in &named {
                assert!(known.iter().any(|known| known == field), "{name} has no {field}");
            }
            named.push("body");
            for field in &known {
                assert!(named.contains(&field.as_str()), "{name} has {field}, which REST does not");
            }
        }
        methods.push(name);
    }
    for service in document::pool().services().filter(|service| service.package_name() == document::PACKAGE) {
        for method in service.methods() {
            let name = format!("{}/{}", service.name(), method.name());
            assert!(methods.contains(&name), "{name} is no row of the table of calls");
        }
    }
}
